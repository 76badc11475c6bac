"""A classifier of words, on rows whose news say what comes, and on some that do not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from boards import DOWN_3, FRIDAY, UP_1

from forecaster.evaluation.rows import numbered
from forecaster.evaluation.text_forecasts import text_forecasts, training_of, with_direction
from forecaster.records import Label, Messages, Row
from forecaster.tasks.distributions import Distribution, climatology
from forecaster.tasks.weekly_rows import make_row
from prompts import render_published


def row(symbol: str, week: int, news: str, actual: Label) -> Row:
    start = FRIDAY + timedelta(weeks=week)
    return make_row(
        render_published(Messages("be brief", f"{symbol} made news: {news}")),
        "",
        symbol=symbol,
        period=f"{start} to {start + timedelta(weeks=1)}",
        label=actual.text,
    )


TRAINING = [
    row(symbol, week, news, actual)
    for week in range(12)
    for symbol in ("KO", "PEP")
    for news, actual in (("orders grew", UP_1), ("lawsuit filed", DOWN_3))
]
TEST = numbered([row("KO", 20, "orders grew", UP_1), row("PEP", 20, "lawsuit filed", DOWN_3)])


def test_words_that_came_before_rises_forecast_rises() -> None:
    good, bad = (text_forecasts(TRAINING, TEST)[each.row_id] for each in TEST)
    assert good.up > 0.8
    assert bad.up < 0.2
    assert good.median == UP_1
    assert bad.median == DOWN_3


def test_the_same_rows_give_the_same_bytes() -> None:
    first, second = (text_forecasts(TRAINING, TEST) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "training",
    [[], TRAINING[:18], [each for each in TRAINING if each.actual == UP_1]],
    ids=["none", "too few", "one direction"],
)
def test_where_nothing_can_be_learned_nothing_is_said(training: list[Row]) -> None:
    assert text_forecasts(training, TEST) == {}


def test_a_direction_leaves_the_sizes_as_they_are() -> None:
    sizes = climatology({UP_1: 5, DOWN_3: 1})
    tilted = with_direction(sizes, 0.25)
    assert tilted.up == pytest.approx(0.25)
    ratios = [new / old for new, old in zip(tilted.shares, sizes.shares, strict=True)]
    assert ratios[:6] == pytest.approx([0.75 / (1 - sizes.up)] * 6)
    assert ratios[6:] == pytest.approx([0.25 / sizes.up] * 6)
    assert isinstance(tilted, Distribution)


def test_training_rows_tell_labels_by_symbol_and_words() -> None:
    known = training_of(TRAINING, TEST)
    assert known is not None
    assert known.labels == {UP_1: 24, DOWN_3: 24}
    assert known.by_symbol == {"KO": {UP_1: 12, DOWN_3: 12}, "PEP": {UP_1: 12, DOWN_3: 12}}
    assert known.text_forecasts.keys() == {each.row_id for each in TEST}
    assert training_of([], TEST) is None
