"""What bench/ measures on a GPU, on tiny models without one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from processes import ROOT, run

from bench import gpu_training

pytestmark = pytest.mark.slow

BASE = ROOT / "sample" / "base"
PUBLISHED = ROOT / "sample" / "dataset" / "train.jsonl"


@pytest.mark.parametrize(
    "case",
    [
        gpu_training.Case("the same, published rows", length=512, rows=2, real_lengths=True),
        gpu_training.Case("FinGPT's settings in a plain loop", length=512, is_plain_loop=True),
    ],
    ids=["train_lora.py", "plain loop"],
)
def test_a_training_is_run_and_measured(case: gpu_training.Case, tmp_path: Path) -> None:
    row = gpu_training.measured(case, BASE, tmp_path, PUBLISHED, under_deepspeed=False)
    name, length, tokens_per_s, peak_gib, planned_gib, ratio = row
    assert (name, length, planned_gib, ratio) == (case.name, "512", "-", "-"), row
    assert float(tokens_per_s.replace(",", "")) > 0
    assert 0.1 < float(peak_gib) < 20


def test_an_8b_model_is_not_tried_without_a_gpu() -> None:
    for script in ("gpu_training.py", "gpu_generation.py"):
        done = run([sys.executable, f"bench/{script}"], ROOT, CUDA_VISIBLE_DEVICES="")
        assert done.returncode == 2
        assert "An 8B model needs a GPU; --shape tiny runs anywhere." in done.stderr


def test_generation_is_measured_one_by_one_and_in_batches() -> None:
    few = ("--shape", "tiny", "--rows", "2", "--max_new_tokens", "4", "--batch_sizes", "2")
    done = run([sys.executable, "bench/gpu_generation.py", *few], ROOT, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[2:] == ["one by one (2 rows, scaled)", "batches of 2"]
