"""A walk behind the real launcher that is killed with all of its processes' group, and goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import ROOT
from small_runs import write_dataset

from forecaster.models.finished import newest_of_walk
from forecaster.processes import processes
from forecaster.settings import WALK

FIRST, SECOND = "2025-10-05", "2025-10-19"
REPORT = ("report.md", "report.html", "metrics.json", "predictions.jsonl", "rows.jsonl", "by_cut.json")
LONGEST_S = 300.0


def start(data: Path, folder: str) -> subprocess.Popen[str]:
    """A walk of two cuts, in a process group of its own."""
    flags = (
        *("--base_model", str(ROOT / "sample" / "base"), "--dataset", "train.jsonl", "--report_to", "none"),
        *("--test_from", FIRST, "--every", "2", "--max_length", "1024", "--max_new_tokens", "8"),
        *("--batch_size", "3", "--gradient_accumulation_steps", "1", "--learning_rate", "5e-3"),
        *("--max_steps", "4", "--eval_steps", "2", "--output_dir", folder),
    )
    with (data / f"{folder}.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "walk_forward.py"), *flags],
            cwd=data,
            env=os.environ | {"VIRTUAL_ENV": sys.prefix},
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def finish(data: Path, folder: str) -> str:
    status = start(data, folder).wait(timeout=LONGEST_S)
    told = (data / f"{folder}.log").read_text()
    assert status == 0, told[-4000:]
    return told


def kill_when(walk: subprocess.Popen[str], moment: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LONGEST_S
    while not moment():
        assert walk.poll() is None, "it ended before the kill"
        assert time.monotonic() < end_s
        time.sleep(0.005)
    os.killpg(walk.pid, signal.SIGKILL)
    assert walk.wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_walk_goes_on_repeats_nothing_and_reports_the_same_bytes(tmp_path: Path) -> None:
    write_dataset(tmp_path, train_weeks=10)
    finish(tmp_path, "undisturbed")
    whole, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert newest_of_walk(whole) == whole / SECOND / "seed_42"

    # The first cut is done; the second is killed while it trains, and again while it answers.
    killed.mkdir()
    for name in ("walk.json", FIRST):
        shutil.copytree(whole / name, killed / name) if (whole / name).is_dir() else shutil.copy2(
            whole / name, killed / name
        )
    done = {path: path.stat().st_mtime_ns for path in (killed / FIRST).rglob("*") if path.is_file()}
    run = killed / SECOND / "seed_42"
    kill_when(start(tmp_path, "killed"), lambda: (run / "checkpoint-2").exists())
    kill_when(start(tmp_path, "killed"), lambda: (run / "benchmark" / "benchmark.json").exists())
    told = finish(tmp_path, "killed")

    assert "1 of them finished" in told and "0 of them finished" not in told
    assert {path: path.stat().st_mtime_ns for path in done} == done
    for name in REPORT:
        assert (killed / "benchmark" / name).read_bytes() == (whole / "benchmark" / name).read_bytes(), name
    assert processes(str(killed.resolve()), WALK) == []
