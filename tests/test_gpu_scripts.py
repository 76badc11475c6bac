"""What bench/gpu/ measures in nine minutes on a GPU, on tiny models without one."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, run

from bench.gpu import prepare
from bench.gpu.cases import CASES, Case, tiny
from forecaster.training.train_config import parse_flags


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def day(out: Path, limit_s: int) -> list[dict[str, Any]]:
    command = [sys.executable, "bench/gpu/day.py", "--tiny"]
    done = run(
        command, ROOT, OUT=str(out), LIMIT_S=str(limit_s), CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1"
    )
    assert done.returncode == 0, done.stderr
    return results(out)


@pytest.mark.slow
def test_a_day_on_a_cpu_measures_one_case_of_each_kind(tmp_path: Path) -> None:
    found = day(tmp_path, 580)
    by_name = {one.get("case") or one.get("start"): one for one in found[1:]}
    assert list(by_name) == [
        "base and kernels",
        "train_lora.py, fp32",
        "published rows x4, checkpointing",
        "bf16 LoRA",
        "bf16 LoRA, PEFT's products",
        "generation",
        "FinGPT's settings in a plain loop",
    ]
    assert {one["ended"] for one in by_name.values()} == {0}, found
    assert by_name["train_lora.py, fp32"]["told"][-1].startswith("Adapter with")
    for name in ("published rows x4, checkpointing", "bf16 LoRA", "FinGPT's settings in a plain loop"):
        assert by_name[name]["tokens_per_s"] > 0
        assert 0.1 < by_name[name]["peak_gib"] < 20
    assert list(by_name["generation"]["new_tokens_per_s"]) == ["64 at a time", "16 at a time", "one by one"]


@pytest.mark.slow
def test_a_day_that_is_too_short_keeps_what_it_has_and_names_what_it_skips(tmp_path: Path) -> None:
    found = day(tmp_path, 40)
    assert [next(iter(one)) for one in found] == ["machine", "case", "start", "skipped"]
    assert found[1]["case"] == "base and kernels"
    assert len(found[3]["skipped"]) == len(tiny(CASES)) == 5


def test_a_case_reads_as_it_was_written_and_its_flags_are_the_programs() -> None:
    for case in CASES:
        assert Case.from_json(case.to_json()) == case
        assert case.rows * case.accumulation in (4, 8)
        parse_flags(["--base_model", "b", "--dataset", "d", *case.flags])
    assert not any(case.needs_gpu or case.length > 512 for case in tiny(CASES))


def test_every_package_that_is_carried_is_pinned() -> None:
    assert {prepare.pinned(name).split("==")[0] for name in (*prepare.PINNED, *prepare.BUILT)} == {
        *prepare.PINNED,
        *prepare.BUILT,
    }


def test_a_slim_wheel_lacks_what_is_left_out_and_records_the_rest(tmp_path: Path) -> None:
    source, target = tmp_path / "a-1-py3-none-any.whl", tmp_path / "slim.whl"
    with zipfile.ZipFile(source, "w") as wheel:
        for name, content in {"a/x.py": "x", "a/lib_cuda128.so": "y", "a-1.dist-info/RECORD": "old"}.items():
            wheel.writestr(name, content)
    prepare.slim(source, target, prepare.LEFT_OUT["bitsandbytes"])
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"x").digest()).rstrip(b"=").decode()
    with zipfile.ZipFile(target) as wheel:
        assert wheel.namelist() == ["a/x.py", "a-1.dist-info/RECORD"]
        assert wheel.read("a-1.dist-info/RECORD").decode() == (
            f"a/x.py,sha256={digest},1\na-1.dist-info/RECORD,,\n"
        )


def test_a_published_row_is_cut_in_its_summaries_and_its_answer() -> None:
    row = {"prompt": "[Headline]: h\n[Summary]: " + "s" * 175, "answer": "a" * 100}
    cut = prepare.shortened(row)
    assert cut["prompt"].startswith("[Headline]: h\n[Summary]: s")
    assert len(cut["prompt"]) == pytest.approx(0.56 * len(row["prompt"]), abs=2)
    assert cut["answer"] == "a" * 52
