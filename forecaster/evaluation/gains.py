"""What a model's probabilities are worth over those that anyone has without one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.evaluation.figures import Case
from forecaster.evaluation.metrics import cases_by_row
from forecaster.evaluation.price_forecasts import NORMAL, SCALED
from forecaster.evaluation.statistics import Estimate, over_weeks
from forecaster.records import Row
from forecaster.tasks.distributions import (
    Distribution,
    direction_log_score,
    log_score,
    ranked_probability_score,
)
from forecaster.tasks.weekly_baselines import CLIMATOLOGY, SYMBOL_CLIMATOLOGY, TEXT
from forecaster.tasks.weekly_rows import Forecast

CHEAP = (SCALED, SYMBOL_CLIMATOLOGY, CLIMATOLOGY, NORMAL, TEXT)
"""Forecasts without a model that have probabilities, from what was known to be the best of them before any
test: docs/metrics.md has what each gains."""


@dataclass(frozen=True)
class Gain:
    """Log score of a model over that of a cheap forecast, on the rows that have probabilities of both."""

    model: str
    over: str
    rows: int
    weeks: int
    log_score: Estimate
    """Nats a row; above zero the model is better. By the chain rule it is the sum of the next two."""
    direction: Estimate
    size: Estimate
    """Of the size, given the direction."""
    ranked_probability_skill: Estimate
    """One less the ratio of the two ranked probability scores."""


def gain(
    model: tuple[str, Sequence[Forecast]], over: tuple[str, Sequence[Forecast]], rows: Sequence[Row]
) -> Gain | None:
    """None where no row has probabilities of both.

    Args:
        model: name and forecasts.
        over: of the cheap forecast.
    """
    both = _with_both(model[1], over[1], rows)
    if not both:
        return None
    weeks = [case.week for *_, case in both]
    values = np.array([_gains(own, cheap, case) for own, cheap, case in both])
    total, direction, less_error, error = values.T
    return Gain(
        model=model[0],
        over=over[0],
        rows=len(both),
        weeks=len(set(weeks)),
        log_score=_mean(total, weeks),
        direction=_mean(direction, weeks),
        size=_mean(total - direction, weeks),
        ranked_probability_skill=over_weeks(
            np.stack([less_error, error], axis=1), weeks, bounds=(-np.inf, 1.0)
        ),
    )


def _with_both(
    own: Sequence[Forecast], cheap: Sequence[Forecast], rows: Sequence[Row]
) -> list[tuple[Distribution, Distribution, Case]]:
    return [
        (case.forecast.distribution, other.distribution, case)
        for case, other in zip(cases_by_row(own, rows), cheap, strict=True)
        if case and case.forecast.distribution and other.distribution
    ]


def weekly_gains(
    own: Sequence[Forecast], cheap: Sequence[Forecast], rows: Sequence[Row]
) -> dict[Hashable, float]:
    """Mean gain of the log score in each week, over the rows that have probabilities of both."""
    by_week: dict[Hashable, list[float]] = {}
    for one, other, case in _with_both(own, cheap, rows):
        by_week.setdefault(case.week, []).append(log_score(one, case.actual) - log_score(other, case.actual))
    return {week: sum(values) / len(values) for week, values in by_week.items()}


def _gains(own: Distribution, cheap: Distribution, case: Case) -> tuple[float, float, float, float]:
    """Of the log score, its direction, the ranked probability score; and the latter of the cheap one."""
    error = ranked_probability_score(cheap, case.actual)
    return (
        log_score(own, case.actual) - log_score(cheap, case.actual),
        direction_log_score(own, case.actual) - direction_log_score(cheap, case.actual),
        error - ranked_probability_score(own, case.actual),
        error,
    )


def _mean(values: np.ndarray, weeks: Sequence[object]) -> Estimate:
    return over_weeks(np.stack([values, np.ones_like(values)], axis=1), weeks)


def decisive(gains: Sequence[Gain], model: str) -> Gain | None:
    """The gain of a model that its verdict goes by: over the best cheap forecast that says something of the
    most rows. None where there is no cheap forecast."""
    own = [each for each in gains if each.model == model]
    return max(own, key=lambda each: (each.rows, -CHEAP.index(each.over)), default=None)
