"""--plan through the entry points, and a run whose memory runs out."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, run_entry

train_lora = importlib.import_module("train_lora")
LLAMA_CONFIG = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
}


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert train_lora.main(["--plan", *words]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert train_lora.main(["--plan", *words]) == 2
    return capsys.readouterr().err


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_plan_says_what_it_chose_why_and_the_bytes_of_each_part(
    capsys: pytest.CaptureFixture[str], empty_folder: Path
) -> None:
    text = planned(capsys, "--base_model", "llama3.1-8b", "--max_length", "2048", "--gpu", "t4")
    lines = text.splitlines()
    assert lines[:4] == [
        "llama3.1-8b on 1 x Tesla T4 (15 GiB). Chose:",
        "- fp16 for compute capability 7.5",
        "- 4-bit base weights, because 16-bit ones need about 18 GiB of 15 (this changes the numerics)",
        "- 4 rows at a time and 4 accumulated, the fastest that fit",
    ]
    assert "WARNING: 4-bit weights change the numerics." in lines
    for part in ("weights", "adapters", "gradients", "optimizer", "activations", "logits", "communication"):
        assert any(line.startswith(f"{part} ") for line in lines), part
    (arrow,) = (line for line in lines if line.startswith("->"))
    assert "4-bit, 4 x 4 rows, checkpointing on, ZeRO-0" in arrow
    assert list(empty_folder.iterdir()) == []


def test_the_same_flags_on_an_a100_are_bf16_lora(capsys: pytest.CaptureFixture[str]) -> None:
    text = planned(capsys, "--base_model", "llama3.1-8b", "--max_length", "2048", "--gpu", "a100-40")
    assert "- bf16 for compute capability 8.0\n- no checkpointing, as it fits\n" in text
    assert "4-bit base weights" not in text


@pytest.mark.parametrize("tuner", ["lora", "qlora", "dora", "rslora", "full"])
def test_a_plan_knows_several_gpus_sizes_and_every_tuner(
    capsys: pytest.CaptureFixture[str], tuner: str
) -> None:
    text = planned(capsys, "--base_model", "qwen2.5-1.5b", "--gpu", "4x24GiB", "--tuner", tuner)
    assert text.startswith("qwen2.5-1.5b on 4 x GPU of 24GiB (24 GiB). Chose:")
    # 4-bit weights cannot be divided among the GPUs.
    assert ("ZeRO-2" if tuner == "qlora" else "ZeRO-3") in text
    assert ("4-bit" in text) == (tuner == "qlora")


def test_a_plan_needs_a_folders_config_and_no_weights(
    capsys: pytest.CaptureFixture[str], empty_folder: Path
) -> None:
    (empty_folder / "model").mkdir()
    (empty_folder / "model" / "config.json").write_text(json.dumps(LLAMA_CONFIG))
    assert "model on 1 x Tesla T4" in planned(capsys, "--base_model", "model", "--gpu", "t4")


def test_what_cannot_be_planned_is_refused_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "--base_model", "someone/model", "--gpu", "t4")
    assert "--base_model: someone/model's sizes are not known here. Give an alias, or a folder" in message
    message = refused(capsys, "--base_model", "llama3.1-8b", "--gpu", "4GiB", "--tuner", "full")
    assert "What would fit: " in message
    message = refused(capsys, "--base_model", "llama3.1-8b")
    assert "--plan: finds no GPU" in message


def test_train_sh_shows_the_plan_of_many_gpus(empty_folder: Path) -> None:
    done = run_entry("train.sh", empty_folder, "--plan", "--base_model", "llama3.1-8b", "--gpu", "8xa100-80")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("llama3.1-8b on 8 x NVIDIA A100 80 GB (80 GiB). Chose:")


def test_a_run_out_of_memory_ends_with_its_status_and_what_to_change(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, empty_folder: Path
) -> None:
    import torch

    from forecaster.modeling.trainer import ForecasterTrainer

    def exhausted(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(ForecasterTrainer, "training_step", exhausted)
    for name in ("train", "test"):
        lines = (ROOT / "sample" / "dataset" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        (empty_folder / f"{name}.jsonl").write_text("\n".join(lines[:4]) + "\n", encoding="utf-8")
    status = train_lora.main(
        [
            *("--base_model", str(ROOT / "sample" / "base"), "--max_length", "1024", "--report_to", "none"),
            *("--dataset", "train.jsonl", "--test_dataset", "test.jsonl", "--output_dir", "out"),
        ]
    )
    message = capsys.readouterr().err
    assert status == 70
    assert "Out of memory: " in message
    assert "GiB were in use, nothing was planned. Use a smaller --batch_size" in message
