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
    assert "4-bit, 4 x 4 rows, checkpointing on, ZeRO-2" in arrow
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
    (arrow,) = (line for line in text.splitlines() if line.startswith("->"))
    assert ("4-bit" in arrow) == (tuner == "qlora")


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


def test_a_plan_refuses_what_the_run_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "--base_model", "llama2-7b", "--max_length", "8192", "--gpu", "t4")
    assert "--max_length: is 8192, but llama2-7b reads 4096 tokens." in message
    message = refused(capsys, "--base_model", "llama2-7b", "--target_modules", "foo", "--gpu", "t4")
    assert "--target_modules: foo can not be adapted" in message


def test_the_table_of_a_plan_adds_up_where_the_optimizer_is_the_peak(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--base_model", "qwen2.5-1.5b", "--tuner", "full", "--max_length", "1024", "--batch_size", "1")
    lines = planned(capsys, *words, "--gpu", "a100-80", "--ds_config", "bf16_zero3").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("on each GPU"))
    table = dict(line.split() for line in lines[start + 2 : lines.index("", start)])
    total = float(table.pop("total"))
    assert sum(map(float, table.values())) == pytest.approx(total, abs=0.05)
    assert "update" in table
    assert lines[-1].startswith("update: fp32 copies of gradients")


def test_a_tight_plan_says_that_all_of_the_memory_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    fixed = ("--batch_size", "1", "--quantization", "none", "--gradient_checkpointing", "true")
    words = ("--base_model", "llama3.1-8b", "--max_length", "2048", "--ds_config", "bf16_zero2", *fixed)
    text = planned(capsys, *words, "--gpu", "18.2GiB")
    assert "- a tight fit: it may run out of memory" in text
    assert "GiB on each GPU, of 100% x 18.2 that can be used" in text


SAMPLE_ROWS = ("--dataset", str(ROOT / "sample" / "dataset" / "train.jsonl"), "--report_to", "none")


@pytest.mark.parametrize("flag", ["batch_size", "gradient_accumulation_steps"])
def test_rows_out_of_range_are_refused_with_all_other_problems(
    capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    words = ("--dry_run", "--gpu", "t4", "--base_model", "llama2-13b", f"--{flag}", "0", *SAMPLE_ROWS)
    assert train_lora.main([*words, "--precision", "bf16"]) == 2
    message = capsys.readouterr().err
    assert f"--{flag}: is 0. It has to be 1 or more." in message
    assert "--precision: is bf16, which Tesla T4" in message


def test_a_gpu_of_no_known_name_is_not_also_told_to_be_missing(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dry_run", "--gpu", "T4", "--base_model", "qwen2.5-1.5b", *SAMPLE_ROWS)
    assert train_lora.main(list(words)) == 2
    message = capsys.readouterr().err
    assert "1 to mend" in message
    assert "--gpu: is 'T4'. Use one of t4, " in message


def test_a_dry_run_for_several_gpus_is_one_under_deepspeed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dry_run", "--gpu", "8xa100-80", "--base_model", "qwen2.5-1.5b", *SAMPLE_ROWS)
    assert train_lora.main(list(words)) == 0
    printed = capsys.readouterr().out
    assert "ds_config bf16_zero2.json for 8 ranks" in printed
    assert "plain python" not in printed


def test_train_sh_shows_the_plan_of_many_gpus(empty_folder: Path) -> None:
    done = run_entry("train.sh", empty_folder, "--plan", "--base_model", "llama3.1-8b", "--gpu", "8xa100-80")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("llama3.1-8b on 8 x NVIDIA A100 80 GB (80 GiB). Chose:")


@pytest.mark.usefixtures("trained_here")
def test_a_run_out_of_memory_ends_with_its_status_and_what_to_change(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, empty_folder: Path
) -> None:
    import torch

    from forecaster.training.trainer import ForecasterTrainer

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
