"""Forecasts with probabilities, beside those that need no model, in scores and tables."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pytest
from boards import DOWN_0, DOWN_3, UP_1, UP_2, row, written

from forecaster.evaluation.loading import Loaded, side_by_side
from forecaster.evaluation.metrics import forecasts_of
from forecaster.evaluation.price_forecasts import NORMAL, SCALED
from forecaster.evaluation.report.pages import tables
from forecaster.evaluation.report.verdict import verdicts
from forecaster.evaluation.rows import ModelAnswers, numbered
from forecaster.evaluation.scorecard import Scoreboard, scoreboard
from forecaster.evaluation.statistics import Estimate
from forecaster.models.run_schemas import FittedCalibration
from forecaster.records import ALL_LABELS, Label, Unreadable
from forecaster.tasks.weekly_baselines import CLIMATOLOGY, Training

ROWS = numbered(
    [
        row(symbol, week, label)
        for week in range(2)
        for symbol, label in zip("ABC", (UP_1, DOWN_0, UP_2), strict=True)
    ]
)
"""In both weeks C gains most and B falls."""


def likely(label: Label, share: float, mass: float = 0.8) -> dict[str, float]:
    """Log-likelihoods with `share` of the labels' mass on one of them, and the rest even."""
    rest = (1 - share) / 11
    return {each.text: math.log(mass * (share if each == label else rest)) for each in ALL_LABELS}


def board_of(*likelihoods: dict[str, float] | None) -> Scoreboard:
    answers = tuple(written(UP_1) for _ in ROWS)
    model = ModelAnswers("m", ROWS, answers, label_log_likelihoods=likelihoods)
    return scoreboard([model], Training({UP_1: 3, DOWN_3: 1}), cost_bps=0.0)


def test_probabilities_are_scored_and_order_the_symbols_of_a_week() -> None:
    # P(up): highest for C and lowest for B in the first week; highest for A and lowest for B in the second.
    first = likely(UP_1, 0.5), likely(DOWN_0, 0.9), likely(UP_2, 0.9)
    second = likely(UP_2, 0.9), likely(DOWN_0, 0.9), likely(UP_2, 0.5)
    skill = board_of(*first, *second).models[0].skill
    assert skill.label_mass.value == pytest.approx(0.8)
    logs = [math.log(0.5), *[math.log(0.9)] * 2, math.log(0.1 / 11), math.log(0.9), math.log(0.5)]
    assert skill.log_score.value == pytest.approx(sum(logs) / 6)
    up = {0.5: 0.5 + 5 * 0.5 / 11, 0.9: 0.9 + 5 * 0.1 / 11}
    of_rows = [math.log(up[share]) for share in (0.5, 0.9, 0.9, 0.9, 0.9, 0.5)]
    assert skill.direction_log_score.value == pytest.approx(sum(of_rows) / 6)
    misses = [(1 - up[share]) ** 2 for share in (0.5, 0.9, 0.9, 0.9, 0.9, 0.5)]
    assert skill.brier_score_of_up.value == pytest.approx(sum(misses) / 6)
    # One week in order, one with two neighbours changed: 1 and 1/2.
    assert skill.rank_correlation.value == pytest.approx(0.75)
    assert skill.rank_correlation_t == pytest.approx(3.0)
    assert (skill.rank_correlation.low, skill.rank_correlation.high) == (-1.0, 1.0)  # of two weeks


def test_without_probabilities_the_named_moves_order_and_nothing_is_scored_by_them() -> None:
    skill = board_of().models[0].skill
    assert skill.log_score.value is skill.label_mass.value is None
    assert skill.rank_correlation.value == 0.0  # all the same


def test_an_answer_that_cannot_be_read_has_no_probabilities() -> None:
    told = forecasts_of([Unreadable("no"), UP_1], [likely(UP_1, 0.5), None])
    assert [forecast.distribution for forecast in told] == [None, None]


def test_climatology_stands_beside_a_model_in_the_table_of_probabilities_alone() -> None:
    board = board_of(*[likely(UP_1, 0.5)] * 6)
    table = tables(board)["probability"]
    assert [line[0] for line in table.rows] == ["m", "climatology"]
    # Four rows of training and one more in each bin: 4/16, 1/16 and 1/16 of what happened.
    expected = (math.log(4 / 16) + 2 * math.log(1 / 16)) / 3
    climatology = next(line for line in board.baselines if line.name == "climatology")
    assert climatology.skill.log_score.value == pytest.approx(expected)
    assert [line[1] for line in table.rows] == ["100.0 %", "100.0 %"]
    assert [line[2].split()[0] for line in table.rows] == ["0.800", "-"]
    assert "climatology" not in [line[0] for line in tables(board)["direction"].rows]


def test_calibrated_probabilities_stand_behind_the_raw_ones_and_change_no_other_figure() -> None:
    usual = {label.text: 1 / 12 for label in ALL_LABELS}
    fitted = FittedCalibration(temperature=1.0, model_weight=0.5, climatology=usual, rows=40, weeks=5)
    answers = tuple(written(UP_1) for _ in ROWS)
    logs = (likely(UP_1, 0.9), *[None] * 5)
    plain = ModelAnswers("m", ROWS, answers, label_log_likelihoods=logs)
    board = scoreboard([replace(plain, calibration=fitted)], Training({UP_1: 3}), cost_bps=0.0)
    table = tables(board)["probability"]
    assert [line[0] for line in table.rows] == ["m", "m, calibrated", "climatology"]
    raw, calibrated = board.models[0].skill, board.models[0].calibrated
    assert calibrated is not None
    # Of the one row with probabilities: 0.9, and half of that with half of a twelfth.
    assert raw.log_score.value == pytest.approx(math.log(0.9))
    assert calibrated.skill.log_score.value == pytest.approx(math.log(0.45 + 1 / 24))
    assert calibrated.skill.accuracy_of_all_rows == raw.accuracy_of_all_rows
    assert calibrated.skill.label_mass == raw.label_mass
    note = "m, calibrated: temperature 1, 50% of the model and the rest climatology, fitted on 40 rows of 5"
    assert f"{note} validation weeks." in board.notes
    alone = scoreboard([plain], Training({UP_1: 3}), cost_bps=0.0)
    assert alone.models[0].calibrated is None
    assert replace(board.models[0], calibrated=None) == alone.models[0]


def test_rows_of_which_two_runs_say_different_things_leave_with_their_probabilities() -> None:
    mine = ModelAnswers(
        "a",
        ROWS,
        tuple(written(UP_1) for _ in ROWS),
        label_log_likelihoods=tuple(likely(UP_1, 0.01 * place) for place in range(1, 7)),
    )
    told_otherwise = (replace(ROWS[0], actual=DOWN_3), *ROWS[1:])
    theirs = ModelAnswers("b", told_otherwise, (written(DOWN_0),) * 6)
    board = side_by_side([Loaded("a", (mine,)), Loaded("b", (theirs,))], lambda _: None, cost_bps=0.0)
    first = board.models[0].forecasts[0].distribution
    assert first is not None and first.shares[7] == pytest.approx(0.02)
    assert len(board.rows) == 5


def test_closes_give_forecasts_of_sizes() -> None:
    rng = np.random.default_rng(0)
    first = date(2022, 1, 3)

    def closes(symbol: str) -> dict[date, Decimal]:
        days = [first + timedelta(day) for day in range(1600)]
        prices = 100 * np.cumprod(1 + rng.normal(0, 0.01, size=len(days)))
        return {day: Decimal(f"{price:.4f}") for day, price in zip(days, prices, strict=True)}

    known = {symbol: closes(symbol) for symbol in "ABC"}
    model = ModelAnswers("m", ROWS, tuple(written(UP_1) for _ in ROWS))
    board = scoreboard([model], None, cost_bps=0.0, closes=known.get)
    table = tables(board)["probability"]
    assert [line[0] for line in table.rows] == [NORMAL, SCALED]
    assert not {NORMAL, SCALED} & {line[0] for line in tables(board)["at_a_glance"].rows}


def test_a_verdict_says_what_the_order_of_symbols_shows_and_what_could_have_been_seen() -> None:
    in_order = [likely(UP_1, 0.5), likely(DOWN_0, 0.9), likely(UP_2, 0.9)]
    swapped = [likely(UP_2, 0.9), likely(DOWN_0, 0.9), likely(UP_2, 0.5)]
    told = verdicts(board_of(*in_order, *swapped))[0].reasons
    said = "Its weekly rank correlation with returns is 0.750 [-1.000, 1.000], which can be chance"
    assert f"{said}. " in told
    assert "2 weeks of 3 symbols are too few to see any rank correlation." in told
    same = verdicts(board_of())[0]
    assert same.direction.reason == "It orders no week's symbols: it says the same of all."
    assert same.direction.finding == "no skill seen"


@pytest.mark.parametrize(
    ("figures", "finding", "sentence"),
    [
        (
            (0.05, -0.1, 0.2, 0.21),
            "no skill seen",
            "is 0.050 [-0.100, 0.200], which can be chance. ",
        ),
        ((0.3, 0.1, 0.5, 0.28), "skill", "is 0.300 [0.100, 0.500], beyond chance."),
        (
            (-0.3, -0.5, -0.1, 0.28),
            "no skill seen",
            "is -0.300 [-0.500, -0.100]: the wrong way round, beyond chance.",
        ),
    ],
)
def test_a_correlation_is_told_by_its_interval(
    figures: tuple[float, float, float, float], finding: str, sentence: str
) -> None:
    board = board_of()
    value, low, high, smallest = figures
    skill = replace(
        board.models[0].skill,
        rank_correlation=Estimate(value, low, high, "Student's t"),
        detectable_rank_correlation=smallest,
    )
    (verdict,) = verdicts(replace(board, models=(replace(board.models[0], skill=skill),)))
    assert verdict.direction.finding == finding
    assert f"Its weekly rank correlation with returns {sentence}" in verdict.reasons
    assert (
        f"2 weeks of 3 symbols could only have shown a rank correlation of {smallest} or more."
        in verdict.reasons
    )


@pytest.mark.parametrize(
    ("score", "finding", "sentence"),
    [
        (Estimate(0.02, 0.01, 0.03), "skill", "is better by 0.020 [0.010, 0.030] nats a row."),
        (
            Estimate(0.02, -0.01, 0.05),
            "no skill seen",
            "is better by 0.020 [-0.010, 0.050] nats a row, which",
        ),
        (Estimate(-0.02, -0.03, 0.01), "no skill seen", "is worse by 0.020 [-0.010, 0.030] nats a row."),
    ],
)
def test_probabilities_are_judged_beside_the_best_forecast_without_a_model(
    score: Estimate, finding: str, sentence: str
) -> None:
    board = board_of(*[likely(UP_1, 0.5)] * 6)
    assert [of.over for of in board.gains] == [CLIMATOLOGY]
    gains = (replace(board.gains[0], log_score=score),)
    (verdict,) = verdicts(replace(board, gains=gains))
    assert verdict.probabilities.finding == finding
    assert f"The log score of its probabilities, beside that of climatology, {sentence}" in verdict.reasons
