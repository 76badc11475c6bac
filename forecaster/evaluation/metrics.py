"""How well forecasts meet what happened, and how many could not be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from forecaster.evaluation.figures import Case, Column, RowValue, figure, figures_of, mean_figure
from forecaster.evaluation.published import SECTIONS, RougeCache, mean_rouge
from forecaster.evaluation.ranks import RankSkill, chance_deviation, rank_skill, weekly_rank_correlations
from forecaster.evaluation.statistics import (
    Estimate,
    design_effect,
    matthews,
    over_weeks,
    rows_needed,
    wilson,
)
from forecaster.records import Answer, Direction, Label, Row, Unreadable
from forecaster.tasks import distributions
from forecaster.tasks.distributions import BINS, PLACE, Distribution, of_log_likelihoods
from forecaster.tasks.weekly_rows import SILENT, Forecast

_NOT_NEGATIVE = (0.0, math.inf)


# --- what one row adds --------------------------------------------------------------------------------------


def _is_right(case: Case) -> bool:
    return case.forecast.direction == case.actual.direction


def _is_right_where_directed(case: Case) -> bool | None:
    return _is_right(case) if case.forecast.direction else None


def _calls(direction: Direction) -> RowValue:
    return lambda case: case.forecast.direction == direction if case.forecast.direction else None


def _miss_pct(case: Case) -> float | None:
    size = case.forecast.size_pct
    return None if size is None else abs(size - case.actual.midpoint_pct)


def _squared_miss(case: Case) -> float | None:
    miss = _miss_pct(case)
    return None if miss is None else miss**2


def _squared_move(case: Case) -> float | None:
    """Squared error of forecasting no move, where the forecast names a size: to be set beside its own."""
    return None if case.forecast.size_pct is None else case.actual.midpoint_pct**2


def _squared_miss_against_no_move(case: Case) -> float | None:
    miss, move = _squared_miss(case), _squared_move(case)
    return None if miss is None or move is None else miss - move


def _bins_apart(case: Case) -> int | None:
    label = case.forecast.label
    return abs(PLACE[label] - PLACE[case.actual]) if label else None


def _is_exact(case: Case) -> bool | None:
    apart = _bins_apart(case)
    return None if apart is None else apart == 0


def _margins(case: Case) -> tuple[float, float, float, float]:
    """True ups, true downs, false ups, false downs."""
    up, right = case.forecast.direction == "up", _is_right(case)
    return float(up and right), float(not up and right), float(up and not right), float(not up and not right)


def _scored(score: Callable[[Distribution, Label], float]) -> RowValue:
    """A score of probabilities; None where there are none."""

    def value(case: Case) -> float | None:
        given = case.forecast.distribution
        return None if given is None else score(given, case.actual)

    return value


# --- what is no mean ----------------------------------------------------------------------------------------


class Cases(tuple[Case, ...]):
    """All cases of a model, and what several figures take of them."""

    @cached_property
    def directed(self) -> list[Case]:
        return [case for case in self if case.forecast.direction]

    @cached_property
    def design_effect(self) -> float | None:
        """Of the accuracy."""
        right = [(float(_is_right(case)), 1.0) for case in self.directed]
        return design_effect(right, [case.week for case in self.directed])

    @cached_property
    def ranked(self) -> list[tuple[float, Case]]:
        """Those that are ranked; where no forecast is readable there is no rank."""
        return [(rank, case) for case in self if (rank := case.forecast.rank) is not None]

    @cached_property
    def rank_correlations(self) -> dict[Hashable, float]:
        """By week."""
        returns = [
            case.actual.midpoint_pct if case.return_pct is None else case.return_pct
            for _, case in self.ranked
        ]
        weeks = [case.week for _, case in self.ranked]
        return weekly_rank_correlations([rank for rank, _ in self.ranked], returns, weeks)

    @cached_property
    def ranks(self) -> RankSkill | None:
        chance = chance_deviation([case.week for _, case in self.ranked])
        return rank_skill(self.rank_correlations, chance)


def _coverage(cases: Cases) -> Estimate:
    return wilson(sum(case.forecast != SILENT for case in cases), len(cases))


def _probability_coverage(cases: Cases) -> Estimate:
    return wilson(sum(case.forecast.distribution is not None for case in cases), len(cases))


def _independent_accuracy(cases: Cases) -> Estimate:
    return wilson(sum(map(_is_right, cases.directed)), len(cases.directed))


def _matthews(cases: Cases) -> Estimate:
    margins, weeks = [_margins(case) for case in cases.directed], [case.week for case in cases.directed]
    return over_weeks(margins, weeks, matthews, bounds=(-1.0, 1.0))


def _design_effect(cases: Cases) -> float | None:
    return cases.design_effect


def _rows_needed(cases: Cases) -> int | None:
    if not cases.directed:
        return None
    accuracy = sum(map(_is_right, cases.directed)) / len(cases.directed)
    return rows_needed(accuracy, design_effect=cases.design_effect or 1.0)


def _rank_correlation(cases: Cases) -> Estimate:
    return cases.ranks.estimate if cases.ranks else Estimate(None)


def _rank_t(cases: Cases) -> float | None:
    return cases.ranks.t if cases.ranks else None


def _detectable_rank_correlation(cases: Cases) -> float | None:
    return cases.ranks.detectable if cases.ranks and cases.ranks.deviation else None


def _rank_deviation(cases: Cases) -> float | None:
    return cases.ranks.deviation if cases.ranks and cases.ranks.deviation else None


# --- the figures --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Skill:
    """Figures of forecasts over the rows whose outcome is known.

    A new figure is one more field here. Their order is that of metrics.json.
    """

    rows: int
    weeks: int
    coverage: Estimate = figure(
        _coverage,
        "share",
        "Rows with a forecast.",
        Column("direction", "rows with a forecast", "percent", place=0),
        better="higher",
    )
    bin_acc: Estimate = mean_figure(
        _is_right_where_directed,
        "share",
        "Right directions among valid answers (in `project`: among forecasts that name a direction, with an "
        "interval).",
        Column("direction", "accuracy, forecasts only", place=2),
        better="higher",
    )
    bin_acc_independent: Estimate = figure(
        _independent_accuracy,
        "share",
        "`bin_acc` with an interval that takes rows as independent, to compare with other work. It is too "
        "narrow.",
        better="higher",
    )
    accuracy_of_all_rows: Estimate = mean_figure(
        _is_right,
        "share",
        "Right directions among all rows: no forecast is wrong.",
        Column(
            "direction",
            "accuracy, all rows",
            place=1,
            note="Accuracy, all rows: a row without a readable forecast is wrong, so that silence does "
            "not pay.",
        ),
        better="higher",
        contest="accuracy of all rows",
    )
    matthews: Estimate = figure(
        _matthews,
        "-1 to 1",
        "Matthews correlation of forecast and actual direction: 0 for a constant, 1 for a perfect forecast.",
        Column(
            "direction",
            "Matthews correlation",
            place=3,
            note="Matthews correlation: 0 for a forecast that always says the same, 1 for a perfect one.",
        ),
        better="higher",
    )
    exact_bin_acc: Estimate = mean_figure(
        _is_exact,
        "share",
        "Forecasts that name the right one of twelve bins.",
        Column(
            "size",
            "exact bin",
            place=3,
            note="Exact bin: share of forecasts that name the right one of twelve bins.",
        ),
        better="higher",
    )
    bin_distance: Estimate = mean_figure(
        _bins_apart,
        "bins",
        "Mean number of bins between forecast and outcome.",
        Column("size", "bins apart", digits=2, place=4),
        better="lower",
        bounds=_NOT_NEGATIVE,
    )
    mse: Estimate = mean_figure(
        _squared_miss,
        "%²",
        "Mean squared difference of bin midpoints, 5.5 % beyond five; over valid answers (in `project`: over "
        "forecasts that name a size, with an interval).",
        Column("size", "MSE (%²)", digits=2, place=0),
        better="lower",
        contest="squared error",
        bounds=_NOT_NEGATIVE,
    )
    mse_of_no_move: Estimate = mean_figure(
        _squared_move,
        "%²",
        "What forecasting no move has on the rows that `mse` is over.",
        Column(
            "size",
            "of no move, same rows",
            digits=2,
            place=1,
            note="Of no move, same rows: the MSE of the zero forecast on the rows for which the line names a "
            "size.",
        ),
        bounds=_NOT_NEGATIVE,
    )
    mse_against_no_move: Estimate = mean_figure(
        _squared_miss_against_no_move,
        "%²",
        "`mse` minus `mse_of_no_move`: below zero, the sizes are worth more than silence.",
        better="lower",
    )
    mae: Estimate = mean_figure(
        _miss_pct,
        "%",
        "Mean absolute difference of bin midpoints.",
        Column("size", "MAE (%)", digits=2, place=2),
        better="lower",
        bounds=_NOT_NEGATIVE,
    )
    predicted_up_share: Estimate = mean_figure(
        _calls("up"),
        "share",
        "Of the forecasts that name a direction.",
        Column("direction", "called up / down", "percent", place=4, beside="predicted_down_share"),
    )
    predicted_down_share: Estimate = mean_figure(_calls("down"), "share", "The rest of them.")
    actual_up_share: Estimate = mean_figure(
        lambda case: case.actual.direction == "up", "share", "Of the rows whose outcome is known."
    )
    design_effect: float | None = figure(
        _design_effect,
        "rows",
        "How many rows count as one: variance of the accuracy over that of independent rows.",
        Column(
            "direction",
            "rows that count as one",
            "significant",
            place=5,
            note="Rows that count as one: rows of one week move together, and say less than independent "
            "ones.",
        ),
    )
    rows_needed: int | None = figure(
        _rows_needed,
        "rows",
        "Rows, as dependent as these, that would tell this accuracy from a coin's (two-sided 5 %, power "
        "80 %); in `pairs`, such rows that would tell the difference of the two. `null` where there is "
        "nothing to tell.",
        Column(
            "direction",
            "rows needed",
            "count",
            place=6,
            note="Rows needed: how many such rows would tell this accuracy from a coin's (two-sided 5 %, "
            "power 80 %).",
        ),
    )
    rank_correlation: Estimate = figure(
        _rank_correlation,
        "-1 to 1",
        "Mean over weeks of the rank correlation, within a week, of P(up) (or else the named move) and the "
        "return that came. Weeks with fewer than three forecasts are left out.",
        Column(
            "direction",
            "rank correlation",
            place=7,
            note="Rank correlation: whether forecasts order a week's symbols as their returns then did; what "
            "moves all of them takes no part.",
        ),
        better="higher",
    )
    rank_correlation_t: float | None = figure(
        _rank_t,
        "-",
        "Student's t of `rank_correlation` over weeks: beyond about 2 it is no accident.",
        better="higher",
    )
    detectable_rank_correlation: float | None = figure(
        _detectable_rank_correlation,
        "0 to 1",
        "The smallest true rank correlation that so many weeks, as unlike as these, would show in four of "
        "five tests (two-sided 5 %).",
        better="lower",
    )
    rank_correlation_deviation: float | None = figure(
        _rank_deviation,
        "0 to 1",
        "Standard deviation of the weeks' rank correlations, and at least that of orders at random.",
    )
    probability_coverage: Estimate = figure(
        _probability_coverage,
        "share",
        "Rows with probabilities of the twelve bins: a model's answer tells them where it has a place for "
        "its prediction, and its engine reads them.",
        Column("probability", "rows with probabilities", "percent", place=-1),
        better="higher",
    )
    label_mass: Estimate = mean_figure(
        lambda case: case.forecast.label_mass,
        "share",
        "What the twelve labels have of everything that the model could have written in their place.",
        Column("probability", "label mass", place=0),
        better="higher",
    )
    log_score: Estimate = mean_figure(
        _scored(distributions.log_score),
        "nats",
        "Log-likelihood of what happened, by the probabilities of the twelve bins; -2.485 for twelve alike.",
        Column(
            "probability",
            "log score",
            place=1,
            note="Log score: log-likelihood of the bin that happened, in nats; -2.485 where all twelve are "
            "alike.",
        ),
        better="higher",
    )
    direction_log_score: Estimate = mean_figure(
        _scored(distributions.direction_log_score),
        "nats",
        "The part of `log_score` that the direction has; -0.693 for a coin. The rest is the size's.",
        Column("probability", "of it, direction", place=2),
        better="higher",
    )
    ranked_probability_score: Estimate = mean_figure(
        _scored(distributions.ranked_probability_score),
        "0 to 1",
        "Mean squared difference of forecast and actual cumulative distribution at the eleven borders of "
        "bins.",
        Column("probability", "ranked probability score", digits=4, place=3),
        better="lower",
    )
    brier_score_of_up: Estimate = mean_figure(
        _scored(distributions.brier_score_of_up),
        "0 to 1",
        "Mean squared difference of P(up) and whether it rose; 0.25 for a coin.",
        Column("probability", "Brier score of up", place=4),
        better="lower",
    )


def skill(forecasts: Sequence[Forecast], rows: Sequence[Row]) -> Skill:
    """Figures of one forecast per row; rows whose outcome is not known are left out."""
    cases = cases_of(forecasts, rows)
    return Skill(
        rows=len(cases),
        weeks=len({case.week for case in cases}),
        **{name: figure.of(cases) for name, figure in figures_of(Skill).items()},
    )


def cases_of(forecasts: Sequence[Forecast], rows: Sequence[Row]) -> Cases:
    """Those whose outcome is known."""
    return Cases(case for case in cases_by_row(forecasts, rows) if case)


def cases_by_row(forecasts: Sequence[Forecast], rows: Sequence[Row]) -> list[Case | None]:
    """Each row's forecast beside its outcome; None where the outcome is not known."""
    return [
        Case(forecast, row.actual, row.week or row.row_id, row.return_pct) if row.actual is not None else None
        for forecast, row in zip(forecasts, rows, strict=True)
    ]


# --- answers ------------------------------------------------------------------------------------------------


def forecasts_of(
    readings: Sequence[Label | Unreadable],
    label_log_likelihoods: Sequence[Mapping[str, float] | None] = (),
    distributions_given: Sequence[Distribution | None] = (),
) -> list[Forecast]:
    """What each answer forecasts; nothing where no forecast can be read, and no probabilities either.

    Args:
        label_log_likelihoods: by answer; empty where none has any.
        distributions_given: by answer, of a file that gives probabilities; empty where it gives none.
    """
    said = [Forecast.of_label(label) if isinstance(label, Label) else SILENT for label in readings]
    if distributions_given:
        return [
            replace(forecast, distribution=given) if given and forecast != SILENT else forecast
            for forecast, given in zip(said, distributions_given, strict=True)
        ]
    if not label_log_likelihoods:
        return said
    return [
        replace(
            forecast,
            distribution=of_log_likelihoods(logs),
            label_mass=distributions.label_mass(logs),
        )
        if logs and forecast != SILENT
        else forecast
        for forecast, logs in zip(said, label_log_likelihoods, strict=True)
    ]


def rouge_by_row(
    readings: Sequence[Answer | Unreadable], references: Sequence[Answer | Unreadable], cache: RougeCache
) -> list[Mapping[str, Mapping[str, float]] | None]:
    """ROUGE scores of each readable answer against its reference: section key -> rouge1, rouge2, rougeL; None
    where one of the two does not read."""
    found: list[Mapping[str, Mapping[str, float]] | None] = []
    for reading, reference in zip(readings, references, strict=True):
        if isinstance(reading, Unreadable) or isinstance(reference, Unreadable):
            found.append(None)
            continue
        found.append(
            {
                key: cache.score(getattr(reference, section), getattr(reading, section))
                for key, section in SECTIONS.items()
            }
        )
    return found


def mean_rouge_of(
    scores: Sequence[Mapping[str, Mapping[str, float]] | None],
) -> dict[str, dict[str, float]] | None:
    """Means by section; None when no answer reads."""
    return mean_rouge([score for score in scores if score is not None])


def confusion(forecasts: Sequence[Forecast], rows: Sequence[Row]) -> tuple[tuple[int, ...], ...]:
    """Counts of rows by actual bin (twelve lines) and predicted bin (twelve columns, then no forecast), both
    in the order of `BINS`."""
    counts = np.zeros((len(BINS), len(BINS) + 1), dtype=int)
    for forecast, row in zip(forecasts, rows, strict=True):
        if row.actual is not None:
            counts[PLACE[row.actual], PLACE[forecast.label] if forecast.label else len(BINS)] += 1
    return tuple(tuple(int(count) for count in line) for line in counts)
