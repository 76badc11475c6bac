"""Whether forecasts order the symbols of a week as their returns then did: the information coefficient.

Every week gives one rank correlation between what was forecast and what happened. The weeks' mean is tested
with Student's t: what moves the whole market takes no part, so that weeks are as good as independent (Grinold
and Kahn, Active Portfolio Management, chapter 6, call it the information coefficient).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads scipy.stats only where it is used: importing that takes a second

from forecaster.evaluation.statistics import (
    CONFIDENCE,
    POWER,
    SAME_EVERY_WEEK,
    SIGNIFICANCE,
    Estimate,
)

LEAST_SYMBOLS = 3
"""Fewer in a week have no order that could be right by more than luck."""


@dataclass(frozen=True)
class RankSkill:
    """The mean of weekly rank correlations."""

    mean: float
    low: float
    high: float
    """95 % interval by Student's t."""
    t: float
    p_value: float
    """Two-sided, of a mean of zero."""
    weeks: int
    deviation: float
    """Standard deviation of the weeks; at least that of orders at random, where it was given."""
    detectable: float
    """The smallest true mean that so many weeks would show in four of five tests (two-sided 5 %)."""

    @property
    def estimate(self) -> Estimate:
        """The mean with its interval; none where every week is the same."""
        if self.low == self.high:
            return Estimate(self.mean, method=SAME_EVERY_WEEK)
        return Estimate(self.mean, self.low, self.high, f"Student's t over {self.weeks} weeks")


def weekly_rank_correlations(
    forecasts: Sequence[float], returns: Sequence[float], weeks: Sequence[Hashable]
) -> dict[Hashable, float]:
    """Spearman's rank correlation of forecasts and returns within each week, ties at their mean rank.

    A week in which all forecasts are the same orders nothing: 0. Weeks with fewer than three symbols, or
    whose returns are all the same, are left out.
    """
    rows_of: dict[Hashable, list[int]] = {}
    for row, week in enumerate(weeks):
        rows_of.setdefault(week, []).append(row)
    said, came = np.asarray(forecasts, dtype=float), np.asarray(returns, dtype=float)
    found: dict[Hashable, float] = {}
    for week, rows in rows_of.items():
        if len(rows) < LEAST_SYMBOLS or np.ptp(came[rows]) == 0:
            continue
        found[week] = _spearman(said[rows], came[rows])
    return found


def _spearman(said: np.ndarray, came: np.ndarray) -> float:
    if np.ptp(said) == 0:
        return 0.0
    ranks = scipy.stats.rankdata([said, came], axis=1)
    return float(np.corrcoef(ranks)[0, 1])


def chance_deviation(weeks: Sequence[Hashable]) -> float:
    """Standard deviation over weeks of the rank correlations of orders at random: 1 / (n - 1) is the variance
    in a week of n (Kendall, Rank Correlation Methods, chapter 5). Zero where no week has three rows.

    Args:
        weeks: of each row.
    """
    sizes = [size for size in Counter(weeks).values() if size >= LEAST_SYMBOLS]
    return math.sqrt(sum(1 / (size - 1) for size in sizes) / len(sizes)) if sizes else 0.0


def rank_skill(by_week: Mapping[Hashable, float], least_deviation: float = 0.0) -> RankSkill | None:
    """The mean over weeks and its test; None with fewer than two weeks.

    Weeks that are all the same, as those of a constant forecast, have no deviation: their t is 0 where the
    mean is, and has no bound otherwise.

    Args:
        least_deviation: of what could have been seen: forecasts in a few bins, or the same in every week,
            spread less than the next ones may.
    """
    values = np.fromiter(by_week.values(), dtype=float)
    count = len(values)
    if count < 2:
        return None
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    error = deviation / math.sqrt(count)
    t = mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
    student = scipy.stats.t(count - 1)
    reach = float(student.ppf((1 + CONFIDENCE) / 2)) * error
    return RankSkill(
        mean=mean,
        low=max(mean - reach, -1.0),
        high=min(mean + reach, 1.0),
        t=t,
        p_value=float(2 * student.sf(abs(t))),
        weeks=count,
        deviation=max(deviation, least_deviation),
        detectable=detectable(max(deviation, least_deviation), count),
    )


def detectable(deviation: float, weeks: int) -> float:
    """The true mean that a two-sided t-test over so many weeks finds with a power of 80 %, by the usual sum
    of two quantiles."""
    student = scipy.stats.t(weeks - 1)
    return float(student.ppf(1 - SIGNIFICANCE / 2) + student.ppf(POWER)) * deviation / math.sqrt(weeks)


def weeks_needed(correlation: float, deviation: float) -> int:
    """The fewest weeks in which a true mean of `correlation` would be found as `detectable` has it."""
    weeks = 2
    while detectable(deviation, weeks) > correlation:
        weeks += max(weeks // 100, 1)
    return weeks
