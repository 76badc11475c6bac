"""What one GPU measures in nine minutes, in order of worth: a case costs about 55 s there, so the last may be
cut off. What docs/gpus.md has already comes last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Kind = Literal["base", "training", "plain loop", "generation"]
Trial = Literal["", "PEFT's products", "a T4's attention"]
"""What the program does not do by itself on this GPU."""
TINY_LENGTH = 512
STEPS, WARM_STEPS = 6, 2
"""Optimizer steps of a training, and how many of them do not count."""
ROWS_PER_STEP = 4


@dataclass(frozen=True)
class Case:
    """One line of the results; all that the planner could choose is fixed."""

    name: str
    kind: Kind = "training"
    length: int = 4096
    rows: int = 1
    """At a time, of four in an optimizer step or as many as these."""
    checkpointing: bool = False
    flags: tuple[str, ...] = ()
    trial: Trial = ""
    cap_gb: int | None = None
    """Of the GPU's memory that the process may take."""
    published_lengths: bool = False
    cudnn: bool = True
    """Whether torch may take cuDNN's attention first."""

    @property
    def accumulation(self) -> int:
        return max(ROWS_PER_STEP // self.rows, 1)

    @property
    def needs_gpu(self) -> bool:
        return "--liger" in self.flags or "4bit" in self.flags or self.trial == "a T4's attention"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Case:
        fields: dict[str, Any] = json.loads(text)
        return cls(**fields | {"flags": tuple(fields["flags"])})


BASE = Case("base and kernels", "base")
FOUR_BIT = ("--quantization", "4bit")
CASES = (
    Case("published rows x4, checkpointing", rows=4, checkpointing=True, published_lengths=True),
    Case(
        "the same, without cuDNN's attention",
        rows=4,
        checkpointing=True,
        published_lengths=True,
        cudnn=False,
    ),
    Case("bf16 LoRA"),
    Case("the same, Liger", flags=("--liger",)),
    Case("bf16 LoRA, PEFT's products", trial="PEFT's products"),
    Case("bf16 LoRA, dropout 0", flags=("--lora_dropout", "0")),
    Case("2048 x8, checkpointing", length=2048, rows=8, checkpointing=True),
    Case("bf16 QLoRA, checkpointing", checkpointing=True, flags=FOUR_BIT),
    Case("bf16 LoRA r 64, checkpointing", checkpointing=True, flags=("--lora_r", "64")),
    Case("2048 x2", length=2048, rows=2),
    Case("generation", "generation"),
    Case("FinGPT's settings in a plain loop", "plain loop", checkpointing=True),
    Case("bf16 LoRA, checkpointing", checkpointing=True),
    Case(
        "fp16 QLoRA at 2048 in 15 GB",
        length=2048,
        checkpointing=True,
        flags=("--precision", "fp16", *FOUR_BIT),
        trial="a T4's attention",
        cap_gb=15,
    ),
    Case("bf16 QLoRA at 2048", length=2048, flags=FOUR_BIT),
    Case("4096 x4, checkpointing", rows=4, checkpointing=True),
)

STARTS: Mapping[str, tuple[str, ...]] = {
    "./train.sh, fp32": (),
    "./train.sh, bf16": ("--precision", "bf16"),
    "./train.sh, fp16, checkpointing": ("--precision", "fp16", "--gradient_checkpointing", "true"),
    "./train.sh, fp16, 4-bit": ("--precision", "fp16", *FOUR_BIT),
    "./train.sh, bf16, ZeRO-3": ("--precision", "bf16", "--ds_config", "bf16_zero3"),
    "./train.sh, bf16, full": ("--precision", "bf16", "--tuner", "full", "--learning_rate", "5e-4"),
    "./train.sh, bf16, Liger": ("--precision", "bf16", "--liger"),
    "train_lora.py, bf16": ("--precision", "bf16"),
    "train_lora.py, fp16": ("--precision", "fp16"),
}
"""Trainings of the embedded base, all at once while the large one is made; ./train.sh benchmarks its own."""
TINY_STARTS = {"train_lora.py, fp32": ()}


def tiny(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """What of these runs on a CPU with the embedded base: one of each kind, and each trial."""
    chosen: dict[tuple[str, str, bool], Case] = {}
    for case in (one for one in cases if not one.needs_gpu):
        key = (case.kind, case.trial, case.published_lengths)
        chosen.setdefault(key, replace(case, length=TINY_LENGTH, rows=min(case.rows, 2)))
    return tuple(chosen.values())
