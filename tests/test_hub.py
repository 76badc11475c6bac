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


def dry_run(
    hub_folder: Path, tmp_path: Path, **env: str
) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    rows = ROOT / "sample" / "dataset"
    with serve(hub_folder) as (endpoint, requests):
        done = run_entry(
            "train_lora.py",
            tmp_path,
            *("--base_model", "someone/tiny-llama", "--dataset", str(rows / "train.jsonl"), "--dry_run"),
            *("--test_dataset", str(rows / "test.jsonl"), "--max_length", "1024", "--max_new_tokens", "8"),
            *("--report_to", "none"),
            **{"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": TOKEN} | env,
            HF_HUB_DISABLE_XET="1",
        )
    return done, {path for _, path, _ in requests}


def test_a_dry_run_fetches_a_hub_models_tokenizer_and_no_weights(hub_folder: Path, tmp_path: Path) -> None:
    done, asked = dry_run(hub_folder, tmp_path, HF_HUB_OFFLINE="0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "is checked when the run loads it" not in done.stdout
    assert any(path.endswith("/tokenizer.json") for path in asked)
    assert not any(path.endswith(".safetensors") for path in asked)


def test_a_dry_run_finds_a_hub_models_tokenizer_that_is_too_large(hub_folder: Path, tmp_path: Path) -> None:
    config = hub_folder / "models" / "someone" / "tiny-llama" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": 1000}))
    done, _ = dry_run(hub_folder, tmp_path, HF_HUB_OFFLINE="0")
    assert done.returncode == 2
    assert (
        "--base_model: someone/tiny-llama has a tokenizer of 1,314 tokens, and an embedding of 1,000."
    ) in done.stderr


def test_a_dry_run_without_a_hub_says_what_it_did_not_check(hub_folder: Path, tmp_path: Path) -> None:
    done, asked = dry_run(hub_folder, tmp_path, HF_HUB_OFFLINE="1")
    assert (done.returncode, asked) == (0, set())
    assert (
        "The tokenizer of someone/tiny-llama is not here, and the hub was not reached: it is checked when "
        "the run loads it."
    ) in done.stdout
