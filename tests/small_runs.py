"""Folders of finished runs on the embedded base model, made without training: seeded adapters that change
the model's answers, with the records that a training writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from processes import ROOT

if TYPE_CHECKING:
    from forecaster.training.run import Run

BASE = ROOT / "sample" / "base"
JsonlWriter = Callable[[str | Path, Sequence[Mapping[str, Any]]], Path]
"""The fixture `jsonl`: file and rows, to the file's path."""
SYMBOLS = ("AAPL", "AMZN", "COST")


def write_dataset(folder: Path, train_weeks: int = 3, test_weeks: int = 2) -> None:
    """train.jsonl and test.jsonl with three rows a week of the embedded sample."""
    for name, weeks in (("train", train_weeks), ("test", test_weeks)):
        text = (ROOT / "sample" / "dataset" / f"{name}.jsonl").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if json.loads(line)["symbol"] in SYMBOLS]
        content = "".join(f"{line}\n" for line in lines[: len(SYMBOLS) * weeks])
        (folder / f"{name}.jsonl").write_text(content, encoding="utf-8")


def finished_run(folder: Path, data: Path, *flags: str, seed: int = 7, steps: tuple[int, ...] = ()) -> Path:
    """A run's folder as train_lora.py leaves it, trained on `data` by name; with
    `--tuner full` a whole model.

    Args:
        data: folder of train.jsonl and test.jsonl.
        flags: of train_lora.py, beside base model, data and lengths.
        seed: of the adapter; each checkpoint has one of its own.
        steps: of the checkpoints.
    """
    from forecaster.data import sources
    from forecaster.files import write_json
    from forecaster.fit.hardware import HardwareChoice
    from forecaster.models import registry, templates
    from forecaster.provenance import versions
    from forecaster.run_folder import DATASET_FILE, LOG_HISTORY, RUN_CONFIG
    from forecaster.tasks.weekly import WEEKLY
    from forecaster.training import fine_tuning, train_config
    from forecaster.training.run import Run
    from forecaster.training.survival import checkpoints

    parts = {"--dataset": data / "train.jsonl", "--test_dataset": data / "test.jsonl"}
    given = [*("--base_model", str(BASE)), *(word for flag in parts.items() for word in map(str, flag))]
    lengths = ("--max_length", "1024", "--max_new_tokens", "12", "--report_to", "none")
    asked = train_config.parse_flags([*given, *lengths, "--lora_r", "2", "--run_name", "small", *flags])
    base = registry.resolve(asked.base_model)
    assert isinstance(base, registry.BaseModel)
    run = Run(asked, base, HardwareChoice("fp32", "none", False, None, ()), (), folder, None)
    corpus = sources.load(
        *(sources.resolve(str(path), False, flag) for flag, path in parts.items()),
        WEEKLY,
        asked.validation_share,
    )
    tokenizer, template = templates.load_tokenizer(base, trust_remote_code=False)
    history = [{"step": step, "epoch": step / 60, "loss": 2 - step / 60} for step in (20, 40, 60)]
    _save_trained(folder, run, seed)
    tokenizer.save_pretrained(folder)
    write_json(folder / LOG_HISTORY, history)
    write_json(folder / RUN_CONFIG, fine_tuning.run_record(run, template, 4, versions(), 1))
    write_json(
        folder / DATASET_FILE,
        fine_tuning.dataset_record(
            corpus.fingerprint,
            corpus.counts,
            corpus.train["label"],
            corpus.train["symbol"],
            {},
            None,
            corpus.trained_until,
        ),
    )
    for step in steps:
        _save_trained(folder / f"checkpoint-{step}", run, seed + step)
        checkpoints.mark_complete(folder / f"checkpoint-{step}")
    return folder


def _save_trained(folder: Path, run: Run, seed: int) -> None:
    """A fresh adapter whose second factors, zero before training, are random; or a model with other keys."""
    import torch

    from forecaster.models.weights import sort_adapter_config
    from forecaster.training import fine_tuning

    model = fine_tuning.build_model(run)
    torch.manual_seed(seed)
    for name, tensor in model.named_parameters():
        if "lora_B" in name or (run.tuner.name == "full" and "k_proj" in name):
            torch.nn.init.normal_(tensor, std=0.05)
    model.save_pretrained(folder)
    sort_adapter_config(folder)
