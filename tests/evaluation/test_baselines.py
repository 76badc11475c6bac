"""What anyone scores without a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forecaster.evaluation.baselines import Baseline, baselines
from forecaster.prompts import parse_answer
from forecaster.records import Answer, Label

ACTUAL = [Label("up", 1), Label("down", 3), Label("down", 0)]


def test_the_baselines_are_those_counted_by_hand() -> None:
    up, down, majority, zero = baselines(ACTUAL, {Label("up", 2): 5, Label("down", 1): 3})
    assert up == Baseline("always up", pytest.approx(1 / 3), None)
    assert down == Baseline("always down", pytest.approx(2 / 3), None)
    # 2.5 against 1.5, -3.5 and -0.5
    assert majority == Baseline(
        "training majority (up by 2-3%)", pytest.approx(1 / 3), pytest.approx((1 + 36 + 9) / 3)
    )
    assert zero == Baseline("zero forecast", None, pytest.approx((2.25 + 12.25 + 0.25) / 3))


def test_a_falling_majority_has_the_accuracy_of_always_down() -> None:
    _, down, majority, _ = baselines(ACTUAL, {Label("up", 2): 1, Label("down", 5): 2})
    assert majority.name == "training majority (down by more than 5%)"
    assert majority.bin_acc == down.bin_acc == pytest.approx(2 / 3)


def test_the_majority_of_equals_does_not_depend_on_the_order_of_the_rows() -> None:
    counts = {Label("up", 2): 4, Label("down", 1): 4, Label("up", 0): 4}
    backwards = dict(reversed(counts.items()))
    assert baselines(ACTUAL, counts) == baselines(ACTUAL, backwards)


def test_when_every_row_rises_always_up_is_always_right() -> None:
    up, down, _, _ = baselines([Label("up", 0)] * 3, {Label("up", 0): 1})
    assert (up.bin_acc, down.bin_acc) == (1.0, 0.0)


def test_on_the_real_test_rows_always_down_and_no_move_at_all_score_as_published(real_data: Path) -> None:
    lines = (real_data / "forecaster_dow30" / "test_300.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [parse_answer(json.loads(line)["answer"]) for line in lines]
    actual = [answer.label for answer in answers if isinstance(answer, Answer)]
    assert len(actual) == 297
    _, down, _, zero = baselines(actual, {Label("up", 0): 1})
    assert down.bin_acc == pytest.approx(0.542, abs=5e-4)
    assert zero.mse == pytest.approx(7.13, abs=5e-3)
