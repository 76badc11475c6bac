"""Values that a user's own DeepSpeed file fixes, beside the flags: the Trainer refuses what differs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forecaster.errors import Problem

MICRO, ACCUMULATION, TOTAL = (
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "train_batch_size",
)
SCHEDULERS = {
    "WarmupLR": ("constant", "constant_with_warmup"),
    "WarmupDecayLR": ("linear",),
    "WarmupCosineLR": ("cosine",),
}
"""DeepSpeed's schedules, and the values of --scheduler that they are."""


@dataclass(frozen=True)
class FlagValues:
    """What the flags say of values that a file may fix."""

    learning_rate: float
    weight_decay: float
    scheduler: str
    steps: int | None
    """Optimizer steps, where the flags fix them."""
    warmup_steps: int | None
    max_grad_norm: float = 1.0
    """As the next two: the Trainer's own; no flag changes them."""
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8


def division(
    content: Mapping[str, Any], name: str, rows: int, ranks: int, given: tuple[int, int] | None
) -> tuple[int, int] | Problem | None:
    """Micro batch and accumulation that a file fixes.

    Args:
        name: of the file.
        rows: of an optimizer step on each rank, as the flags say.
        given: micro batch and accumulation of the command line; None: only their product counts.

    Returns:
        None where the file leaves them open; a Problem where it contradicts the flags.
    """
    fixed = {key: content.get(key) for key in (MICRO, ACCUMULATION, TOTAL)}
    if fixed[ACCUMULATION] is None and fixed[MICRO] is not None:
        fixed[ACCUMULATION] = 1  # DeepSpeed's default
    numbers = {key: value for key, value in fixed.items() if value not in (None, "auto")}
    if not numbers:
        return None
    said = ", ".join(f"{key} {value}" for key, value in numbers.items())
    if not all(type(value) is int and value > 0 for value in numbers.values()):
        return Problem("--ds_config", f"{name} says {said}.", 'They are whole numbers above 0, or "auto".')
    micro, accumulation = numbers.get(MICRO), numbers.get(ACCUMULATION)
    if given:
        wanted = given
    elif micro:
        wanted = (micro, accumulation or rows // micro)
    elif accumulation:
        wanted = (rows // accumulation, accumulation)
    else:
        wanted = None
    agrees = numbers.get(TOTAL) in (None, rows * ranks)
    if wanted:
        agrees = agrees and math.prod(wanted) == rows
        agrees = agrees and micro in (None, wanted[0]) and accumulation in (None, wanted[1])
    if agrees:
        return wanted
    flags = f"{given[0]} x {given[1]}" if given else f"{rows} together"
    found = f"{name} says {said}; the flags (--batch_size x --gradient_accumulation_steps) say {flags} "
    found += f"on {ranks} rank(s)."
    return Problem("--ds_config", found, 'Write "auto" there, or give flags that say the same.')


def find_value_problems(content: Mapping[str, Any], name: str, flags: FlagValues) -> Iterator[Problem]:
    """Clipping, rate, decay and schedule of a file that are not those of the flags; no size of a batch."""
    optimizer, scheduler = _section(content, "optimizer"), _section(content, "scheduler")
    schedule = content.get("scheduler")
    kind = schedule.get("type") if isinstance(schedule, Mapping) else None
    compared = [
        ("gradient_clipping", content.get("gradient_clipping"), "the clipping", flags.max_grad_norm),
        ("optimizer.params.lr", optimizer.get("lr"), "--learning_rate", flags.learning_rate),
        ("optimizer.params.betas", optimizer.get("betas"), "the Trainer's", list(flags.betas)),
        ("optimizer.params.eps", optimizer.get("eps"), "the Trainer's", flags.epsilon),
        (
            "optimizer.params.weight_decay",
            optimizer.get("weight_decay"),
            "--weight_decay",
            flags.weight_decay,
        ),
        (
            "scheduler.params.warmup_max_lr",
            scheduler.get("warmup_max_lr"),
            "--learning_rate",
            flags.learning_rate,
        ),
        (
            "scheduler.params.total_num_steps",
            scheduler.get("total_num_steps"),
            "the number of steps",
            flags.steps,
        ),
        (
            "scheduler.params.warmup_num_steps",
            scheduler.get("warmup_num_steps"),
            "--warmup_ratio in steps",
            flags.warmup_steps,
        ),
    ]
    if content.get(MICRO) is None and content.get(TOTAL) is None:
        found = f'{name} names neither "{MICRO}" nor "{TOTAL}".'
        way_out = f'Add "{MICRO}": "auto" and "{ACCUMULATION}": "auto" to it.'
        yield Problem("--ds_config", found, way_out)
    for key, written, what, said in compared:
        if written not in (None, "auto", said):
            shown = "not known before the rows are read" if said is None else said
            yield Problem(
                "--ds_config",
                f"{name} says {key} {written}, and {what} is {shown}.",
                'Write "auto" there, or make them agree.',
            )
    if kind is not None and flags.scheduler not in SCHEDULERS.get(kind, ()):
        yield Problem(
            "--ds_config",
            f"{name} has the scheduler {kind}, and --scheduler is {flags.scheduler}.",
            "Leave the scheduler section out: the Trainer's own follows the flags.",
        )


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = content.get(name)
    params = section.get("params") if isinstance(section, Mapping) else None
    return params if isinstance(params, Mapping) else {}
