"""What a regression over words learns, and what it cannot."""

from __future__ import annotations

import pytest

from forecaster.tasks.distributions import climatology
from forecaster.evaluation.text_forecasts import text_forecasts
from forecaster.records import Label

GOOD, BAD = "The company raises its guidance for the year.", "The company cuts its guidance for the year."
UP_2, UP_0, DOWN_1 = Label("up", 2), Label("up", 0), Label("down", 1)


def test_words_that_went_before_a_rise_forecast_one() -> None:
    texts, labels = [GOOD, BAD] * 40, [UP_2, DOWN_1] * 40
    found = text_forecasts(texts, labels, [GOOD, BAD, "Nothing of this is known."])
    assert found
    good, bad, unknown = found
    assert good.up > 0.8
    assert bad.up < 0.2
    assert unknown.up == pytest.approx(0.5, abs=0.05)


def test_how_far_it_goes_is_as_usual() -> None:
    labels = [UP_2, UP_0, UP_0, DOWN_1] * 20
    found = text_forecasts([GOOD, BAD, "a b", "c d"] * 20, labels, [GOOD])
    assert found
    usual = climatology(labels)
    assert found[0].shares[6] / found[0].up == pytest.approx(usual.shares[6] / usual.up)
    assert found[0].shares[4] / (1 - found[0].up) == pytest.approx(usual.shares[4] / (1 - usual.up))


def test_the_same_rows_give_the_same_forecasts() -> None:
    texts, labels = [GOOD, BAD, "x y"] * 20, [UP_2, DOWN_1, UP_0] * 20
    assert text_forecasts(texts, labels, [GOOD]) == text_forecasts(texts, labels, [GOOD])


@pytest.mark.parametrize(
    ("texts", "labels"),
    [([GOOD, BAD] * 5, [UP_2, DOWN_1] * 5), ([GOOD] * 30, [UP_2] * 30), ([], [])],
    ids=["few", "all rose", "none"],
)
def test_where_there_is_nothing_to_learn_there_is_no_forecast(texts: list[str], labels: list[Label]) -> None:
    assert text_forecasts(texts, labels, [GOOD]) is None
