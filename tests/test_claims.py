"""Folders that several processes want at the same moment: each gets one of its own, or is told who has it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from processes import ROOT
from small_runs import write_dataset

import benchmark
import data_pipeline
from forecaster.claims import InUseError, find_holder, held, new_folder, own_folder
from forecaster.errors import ConfigurationError
from forecaster.training.run import LOCK_FILE, RunFolder, claimed
from forecaster.training.train_config import TrainConfig

STARTS = 4
CLAIM = """
import sys, time
from pathlib import Path
from forecaster.errors import ConfigurationError
from forecaster.training.run import RunFolder, claimed
from forecaster.training.train_config import TrainConfig

name = sys.argv[1] or None
config = TrainConfig(base_model="m", dataset="d", run_name="mine", output_dir=name)
print("ready", flush=True)
sys.stdin.readline()
try:
    with claimed(config, RunFolder(Path(name or "finetuned_models/mine_20260101000000"))) as path:
        (path / "run_config.json").write_text(sys.argv[2])
        print(path, flush=True)
        sys.stdin.readline()
except ConfigurationError as error:
    print(error, flush=True)
"""


def start_together(folder: Path, output_dir: str) -> list[str]:
    """What each of several processes says that claim a run's folder at once, and hold it until all have."""
    command = [sys.executable, "-c", CLAIM, output_dir]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {"PYTHONPATH": str(ROOT)}
    runs = [
        subprocess.Popen([*command, str(seed)], cwd=folder, env=environment, **pipes)  # type: ignore[call-overload]
        for seed in range(STARTS)
    ]
    assert [run.stdout.readline() for run in runs] == ["ready\n"] * STARTS
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    said = [run.stdout.readline().strip() for run in runs]
    for run in runs:
        run.communicate("done\n")
    return said


def test_runs_that_start_in_one_second_have_a_folder_each(tmp_path: Path) -> None:
    said = start_together(tmp_path, "")
    name = "finetuned_models/mine_20260101000000"
    assert sorted(said) == [name, f"{name}_2", f"{name}_3", f"{name}_4"]
    seeds = [(tmp_path / path / "run_config.json").read_text() for path in said]
    assert seeds == ["0", "1", "2", "3"]


def test_of_runs_that_are_given_one_folder_one_starts(tmp_path: Path) -> None:
    said = start_together(tmp_path, "out")
    (seed,) = (i for i, line in enumerate(said) if line == "out")
    assert (tmp_path / "out" / "run_config.json").read_text() == str(seed)
    refused = [line for i, line in enumerate(said) if i != seed]
    assert len(refused) == STARTS - 1
    for line in refused:
        assert line.startswith("--output_dir: out is in use by ")
        assert line.endswith("Wait for it, or stop it.")


def test_a_folder_in_which_a_run_began_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "checkpoint-3").mkdir(parents=True)
    config = TrainConfig(base_model="m", dataset="d", output_dir="out")
    with (
        pytest.raises(ConfigurationError, match="out exists already"),
        claimed(config, RunFolder(Path("out"))),
    ):
        pass


def test_a_holder_is_named_and_lets_go(tmp_path: Path) -> None:
    with held(tmp_path, LOCK_FILE, "--output_dir"):
        found = find_holder(tmp_path, LOCK_FILE, "--output_dir")
        assert found is not None
        assert "is in use by process " in found.found
        with pytest.raises(InUseError), held(tmp_path, LOCK_FILE, "--output_dir"):
            pass
    assert find_holder(tmp_path, LOCK_FILE, "--output_dir") is None


def test_a_new_folder_never_was_there_before(tmp_path: Path) -> None:
    wanted = tmp_path / "below" / "a"
    assert [new_folder(wanted).name for _ in range(3)] == ["a", "a_2", "a_3"]


def test_results_of_different_things_lie_side_by_side(tmp_path: Path) -> None:
    wanted = tmp_path / "train-description"
    for made_of, name in (
        ("x", "train-description"),
        ("y", "train-description-2"),
        ("x", "train-description"),
    ):
        with own_folder(wanted, made_of) as folder:
            assert folder.name == name
    with own_folder(wanted, "x"), own_folder(wanted, "x") as second:
        assert second.name == "train-description-3"


def test_datasets_of_one_name_have_a_description_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place, weeks in (("a", 2), ("b", 3)):
        (tmp_path / place / "rows").mkdir(parents=True)
        write_dataset(tmp_path / place / "rows", train_weeks=weeks)
    for place in ("a", "b", "a"):
        assert data_pipeline.main(["describe", f"{place}/rows/train.jsonl"]) == 0
    rows = {
        folder.name: re.findall(r"\brows\W+(\d+)", (folder / "description.md").read_text())
        for folder in (tmp_path / "data").iterdir()
    }
    assert rows == {"rows-train-description": ["6"], "rows-train-description-2": ["9"]}


def test_answers_of_one_name_have_figures_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place, rows in (("a", 1), ("b", 2)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "answers.csv").write_text("prediction,label\n" + "x,up by 1-2%\n" * rows)
    for place in ("a", "b", "a"):
        assert benchmark.main(["score", f"{place}/answers.csv", "--reference_column", "label"]) == 0
    found = {
        folder.name: json.loads((folder / "metrics.json").read_text())["rows"]
        for folder in (tmp_path / "benchmarks").iterdir()
    }
    assert found == {"answers": 1, "answers-2": 2}


def test_forecasts_that_end_at_once_are_both_kept(tmp_path: Path) -> None:
    from forecaster.jobs.forecast import keep
    from forecaster.progress import Listener

    now, path = datetime(2026, 3, 7, tzinfo=UTC), tmp_path / "forecasts" / "AAPL_2026-03-06.json"
    silent = Listener(lambda line: None, lambda line: None, None)  # type: ignore[arg-type]
    together = threading.Barrier(STARTS)

    def run(answer: int) -> None:
        together.wait()
        keep({"answer": answer, "distribution": None}, path, "AAPL", now, silent)

    threads = [threading.Thread(target=run, args=(answer,)) for answer in range(STARTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [json.loads(file.read_text())["answer"] for file in path.parent.glob("AAPL_2026-03-06*.json")]
    assert sorted(kept) == [0, 1, 2, 3]
