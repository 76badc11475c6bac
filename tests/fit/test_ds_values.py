"""What a user's own DeepSpeed file fixes: it decides the division of a step's rows, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forecaster.errors import Problem
from forecaster.fit.ds_values import FlagValues, division, find_value_problems
from forecaster.fit.gpus import Gpu
from forecaster.fit.hardware import Asked, HardwareChoice, choose
from forecaster.models.registry import MODELS

MICRO, ACCUMULATION, TOTAL = (
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "train_batch_size",
)
FLAGS = FlagValues(5e-5, 0.01, "linear", steps=100, warmup_steps=3)


@pytest.mark.parametrize(
    ("content", "given", "found"),
    [
        ({MICRO: "auto", ACCUMULATION: "auto"}, None, None),
        ({}, None, None),
        ({MICRO: 4, ACCUMULATION: "auto"}, None, (4, 4)),
        ({MICRO: "auto", ACCUMULATION: 8, TOTAL: 32}, None, (2, 8)),
        ({MICRO: 16}, None, (16, 1)),
        ({MICRO: "auto", ACCUMULATION: "auto", TOTAL: 32}, None, None),
        ({MICRO: 2, ACCUMULATION: 8}, (2, 8), (2, 8)),
    ],
)
def test_a_division_that_agrees_with_sixteen_rows_on_two_ranks_is_taken(
    content: dict[str, Any], given: tuple[int, int] | None, found: tuple[int, int] | None
) -> None:
    assert division(content, "own.json", 16, 2, given) == found


@pytest.mark.parametrize(
    ("content", "given", "told"),
    [
        ({MICRO: 3, ACCUMULATION: "auto"}, None, f"says {MICRO} 3; the flags"),
        ({MICRO: "auto", ACCUMULATION: "auto", TOTAL: 16}, None, f"{TOTAL} 16; the flags"),
        ({MICRO: 4, ACCUMULATION: 4}, (16, 1), "say 16 x 1 on 2 rank(s)"),
        ({MICRO: 4}, None, f"{MICRO} 4, {ACCUMULATION} 1; the flags"),
        ({MICRO: "4", ACCUMULATION: "auto"}, None, 'whole numbers above 0, or "auto"'),
    ],
)
def test_a_division_that_contradicts_the_flags_is_told(
    content: dict[str, Any], given: tuple[int, int] | None, told: str
) -> None:
    found = division(content, "own.json", 16, 2, given)
    assert isinstance(found, Problem)
    assert told in str(found)


def test_the_planner_divides_as_the_file_does(tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    sections = {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}
    own.write_text(json.dumps({TOTAL: 16, MICRO: 1, ACCUMULATION: 16, **sections}))
    shape = next(model.shape for model in MODELS if model.alias == "qwen2.5-1.5b")
    gpu = Gpu(0, "GPU-0", "NVIDIA A100-SXM4-80GB", 80 * 2**30, (8, 0), "550.54")
    asked = Asked(2048, batch_size=16, gradient_accumulation_steps=1, ds_config=str(own))
    choice = choose([gpu], 1, shape=shape, asked=asked)
    assert isinstance(choice, HardwareChoice)
    assert (choice.micro_batch_size, choice.gradient_accumulation_steps) == (1, 16)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"gradient_clipping": 0.5}, "says gradient_clipping 0.5, and the clipping is 1.0."),
        (
            {"optimizer": {"params": {"lr": 1e-3}}},
            "optimizer.params.lr 0.001, and --learning_rate is 5e-05.",
        ),
        ({"optimizer": {"params": {"betas": [0.8, 0.999]}}}, "and the Trainer's is [0.9, 0.999]."),
        ({"scheduler": {"type": "WarmupLR"}}, "has the scheduler WarmupLR, and --scheduler is linear."),
        ({"scheduler": {"type": "OneCycle"}}, "has the scheduler OneCycle, and --scheduler is linear."),
        (
            {"scheduler": {"type": "WarmupDecayLR", "params": {"warmup_num_steps": 9}}},
            "scheduler.params.warmup_num_steps 9, and --warmup_ratio in steps is 3.",
        ),
        (
            {"scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": 99}}},
            "scheduler.params.total_num_steps 99, and the number of steps is 100.",
        ),
    ],
)
def test_a_value_that_differs_from_the_flags_is_told(content: dict[str, Any], told: str) -> None:
    (problem,) = find_value_problems({MICRO: "auto", **content}, "own.json", FLAGS)
    assert told in str(problem)


def test_a_file_that_says_nothing_of_the_batch_is_told() -> None:
    (problem,) = find_value_problems({}, "own.json", FLAGS)
    assert f'own.json names neither "{MICRO}" nor "{TOTAL}".' in str(problem)


def test_values_that_agree_or_are_left_open_are_no_problem() -> None:
    params = {"lr": 5e-5, "betas": "auto", "weight_decay": 0.01}
    schedule = {"type": "WarmupDecayLR", "params": {"total_num_steps": "auto", "warmup_num_steps": 3}}
    content = {
        TOTAL: "auto",
        "gradient_clipping": 1.0,
        "optimizer": {"params": params},
        "scheduler": schedule,
    }
    assert list(find_value_problems(content, "own.json", FLAGS)) == []
