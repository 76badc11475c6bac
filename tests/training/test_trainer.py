"""The trainer against a plain loop: the same loss over two accumulated batches of unequal lengths, the same
gradient, the same evaluation loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from processes import ROOT
from transformers import TrainerCallback
from trl import SFTConfig

from forecaster.models.loading import load_base
from forecaster.models.registry import BaseModel
from forecaster.models.templates import load_tokenizer
from forecaster.models.tuners.base import TunerSettings
from forecaster.models.tuners.lora import LORA
from forecaster.training.trainer import ForecasterTrainer, RowCollator

BASE = ROOT / "sample" / "base"
SIZES = ((60, 20), (61, 5), (200, 30), (190, 1), (33, 7))
"""Tokens of each row, and how many of them are the answer."""


def rows() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for i, (tokens, answer) in enumerate(SIZES):
        ids = torch.randint(3, 1300, (tokens,), generator=generator).tolist()
        labels = [-100] * (tokens - answer) + ids[-answer:]
        found.append({"input_ids": ids, "labels": labels, "row_id": f"row {i}", "tokens": tokens})
    return found


def model() -> Any:
    torch.manual_seed(0)
    base = load_base(str(BASE), "fp32")
    return LORA.attach(base, TunerSettings(dropout=0.0, targets=("q_proj", "down_proj")))


class Gradients(TrainerCallback):
    """Keeps a step's gradients; the steps themselves change nothing, at a learning rate of 0."""

    def __init__(self) -> None:
        self.found: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        self.found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def trainer(folder: Path, gradients: Gradients) -> ForecasterTrainer:
    args = SFTConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        per_device_train_batch_size=2,
        per_device_eval_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=2,
        logging_steps=1,
        learning_rate=0.0,
        max_grad_norm=1e9,
        save_strategy="no",
        remove_unused_columns=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to=[],
    )
    return ForecasterTrainer(
        model=model(),
        args=args,
        train_dataset=datasets.Dataset.from_list(rows()),
        eval_dataset=datasets.Dataset.from_list(rows()),
        processing_class=load_tokenizer(BaseModel(str(BASE), True), trust_remote_code=False)[0],
        data_collator=RowCollator(0),
        callbacks=[gradients],
        rows_per_group=args.train_batch_size,
        row_order_file=folder / "rows.jsonl",
    )


def plain_sum(of_model: Any, row: dict[str, Any]) -> torch.Tensor:
    logits = of_model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(row["labels"][1:]), reduction="sum")


def test_loss_gradient_and_evaluation_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    gradients = Gradients()
    tested = trainer(tmp_path, gradients)
    tested.train()
    losses = [entry["loss"] for entry in tested.state.log_history if "loss" in entry]
    taken: dict[int, list[int]] = {1: [], 2: []}
    for line in (tmp_path / "rows.jsonl").read_text().splitlines():
        entry = json.loads(line)
        taken[entry["step"]] += [int(row_id.removeprefix("row ")) for row_id in entry["row_ids"]]
    assert [len(taken[1]), len(taken[2])] == [4, 1]
    assert sorted(taken[1] + taken[2]) == [0, 1, 2, 3, 4]

    plain, all_rows = model(), rows()
    for step, loss in zip((1, 2), losses, strict=True):
        plain.zero_grad()
        own = [all_rows[i] for i in taken[step]]
        expected = sum(plain_sum(plain, row) for row in own) / sum(SIZES[i][1] for i in taken[step])
        assert loss == pytest.approx(expected.item(), abs=1e-5)
    expected.backward()  # the second step's, as kept
    for name, gradient in gradients.found.items():
        torch.testing.assert_close(gradient, plain.get_parameter(name).grad, atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        whole = sum(plain_sum(plain, row) for row in all_rows) / sum(answer for _, answer in SIZES)
    assert tested.evaluate()["eval_loss"] == pytest.approx(whole.item(), abs=1e-5)


def test_no_pickle_of_the_arguments_is_left_beside_a_model(tmp_path: Path) -> None:
    trainer(tmp_path, Gradients()).save_model(str(tmp_path / "saved"))
    saved = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= saved
    assert not {name for name in saved if name.endswith((".bin", ".pt", ".pkl"))}
