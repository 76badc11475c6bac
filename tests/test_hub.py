"""Models and datasets from a hub: the real clients, against a hub on the loopback interface."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from loopback_hub import serve
from processes import ROOT, run_entry

TOKEN = "hf_CanaryForTheLoopbackHub"


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    root = tmp_path / "hub"
    shutil.copytree(ROOT / "sample" / "base", root / "models" / "someone" / "tiny-llama")
    dataset = root / "datasets" / "FinGPT" / "fingpt-forecaster-mini-202508-202604"
    (dataset / "data").mkdir(parents=True)
    for name, count in (("train", 8), ("test", 4)):
        lines = (
            (ROOT / "sample" / "dataset" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        )
        frame = pd.DataFrame([json.loads(line) for line in lines])
        frame.to_parquet(dataset / "data" / f"{name}-00000-of-00001.parquet")
    return root


def train(cwd: Path, endpoint: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return run_entry(
        "train_lora.py",
        cwd,
        *("--max_length", "1024", "--max_new_tokens", "8", "--max_steps", "2"),
        *("--evaluation_strategy", "no", "--report_to", "none", *flags),
        HF_ENDPOINT=endpoint,
        HF_HOME=str(cwd / "cache"),
        HF_TOKEN=TOKEN,
        HF_HUB_OFFLINE="0",
        HF_HUB_DISABLE_XET="1",
    )


def test_a_model_and_a_dataset_come_from_the_hub_by_id_and_by_short_name(
    hub_folder: Path, tmp_path: Path
) -> None:
    with serve(hub_folder) as (endpoint, requests):
        done = train(
            tmp_path,
            endpoint,
            *("--base_model", "someone/tiny-llama", "--dataset", "mini-202508-202604", "--from_remote"),
            *("--gradient_accumulation_steps", "2", "--output_dir", "out"),
        )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads((tmp_path / "out" / "dataset.json").read_text())["counts"]
    assert (counts["train_read"], counts["test_read"]) == (8, 4)
    asked = {path for _, path, _ in requests}
    assert any(path.startswith("datasets/FinGPT/fingpt-forecaster-mini-202508-202604/") for path in asked)
    assert any(path.startswith("someone/tiny-llama/resolve/") for path in asked)
    assert {authorization for _, _, authorization in requests} <= {f"Bearer {TOKEN}", ""}
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--base_model", "someone/tiny-llama", "--dataset", "nobody/nothing", "--from_remote", "true"],
            "nobody/nothing: the hub did not serve it",
        ),
        (
            ["--base_model", "nobody/nothing", "--dataset", "mini-202508-202604", "--from_remote"],
            "--base_model: nobody/nothing cannot be loaded",
        ),
    ],
    ids=["dataset", "model"],
)
def test_what_the_hub_does_not_have_is_told(
    hub_folder: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    with serve(hub_folder) as (endpoint, _):
        done = train(tmp_path, endpoint, *flags)
    assert done.returncode == 2, done.stderr[-3000:]
    assert message in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert not (tmp_path / "finetuned_models").exists()
