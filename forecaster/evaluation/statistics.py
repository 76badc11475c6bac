"""Intervals and tests for figures over weekly rows, where rows of one week move together."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # loads scipy.stats only where it is used: importing that takes a second

CONFIDENCE = 0.95
BOOTSTRAP_WEEKS = 20
"""Fewest weeks that are resampled; with fewer, a bootstrap draws from too few values to be trusted."""
RESAMPLES = 5000
MOST_UNDEFINED_SHARE = 0.01
"""Resamples in which a statistic may be undefined before it gets no interval."""
SIGNIFICANCE = 0.05
POWER = 0.8

Statistic = Callable[[np.ndarray], np.ndarray]
"""From sums over rows, shape (..., k), to values, shape (...); nan where the sums leave it undefined."""


SAME_EVERY_WEEK = "no interval: the same in every week"
"""Method of an estimate without an interval, as no week differs from another."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float | None
    """None where there is nothing to take it over."""
    low: float | None = None
    high: float | None = None
    method: str = ""
    """How the interval was made, or why there is none, in words that a report can print."""


def wilson(count: int, total: int) -> Estimate:
    """Share of independent rows.

    Raises:
        ValueError: a negative number, or more counted than there are.
    """
    if total == 0 and count == 0:
        return Estimate(None)
    interval = scipy.stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(count / total, float(interval.low), float(interval.high), "Wilson")


def ratio(sums: np.ndarray) -> np.ndarray:
    """First sum over second; nan where the second is zero."""
    over, under = sums[..., 0], sums[..., 1]
    return np.divide(over, under, out=np.full(np.shape(under), np.nan), where=under != 0)


def matthews(sums: np.ndarray) -> np.ndarray:
    """Matthews' correlation of actual and predicted directions, -1 to 1.

    Zero where all rows, actual or predicted, have one direction, as in scikit-learn.

    Args:
        sums: (..., 4): true ups, true downs, false ups, false downs.
    """
    true_up, true_down, false_up, false_down = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    margins = (
        (true_up + false_up) * (true_up + false_down) * (true_down + false_up) * (true_down + false_down)
    )
    covariance = true_up * true_down - false_up * false_down
    return np.divide(covariance, np.sqrt(margins), out=np.zeros(np.shape(margins)), where=margins > 0)


def over_weeks(
    contributions: np.ndarray | Sequence[Sequence[float]],
    weeks: Sequence[Hashable],
    statistic: Statistic = ratio,
    *,
    seed: int = 0,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """A statistic of sums over rows, with an interval that keeps the rows of one week together.

    From 20 weeks on, weeks are resampled and the interval lies between percentiles of the resampled values.
    Plain percentiles are too narrow, because they stand for normal quantiles and a standard deviation that
    divides by n; the tails are therefore those of the "expanded percentile interval" of Hesterberg (2015),
    What Teachers Should Know About the Bootstrap, The American Statistician 69. It never leaves the values
    that the statistic can take. With fewer weeks it is the jackknife's standard error over weeks times
    Student's t on weeks - 1 degrees of freedom, which can leave them; it ends at `bounds`, which costs no
    coverage.

    There is no interval, and `method` says why, with one week, where every week gives the same value, and
    where the statistic is not defined without some of the weeks.

    Args:
        contributions: (rows, k): what each row adds to the sums. A row that adds nothing but zeros takes no
            part, nor does a week of such rows.
        weeks: the week of each row.
        seed: of the bootstrap's draws.
        bounds: the least and the largest value that the statistic can take.

    Raises:
        ValueError: not one week per row, not k numbers per row, or a number that is not finite.
    """
    by_week = _week_sums(*_rows(contributions, weeks))
    count, total = len(by_week), by_week.sum(axis=0)
    value = float(statistic(total)) if count else math.nan
    if not math.isfinite(value):
        return Estimate(None)
    if count == 1:
        return Estimate(value, method="no interval: one week")
    without_one = statistic(total - by_week)
    if np.allclose(without_one, value, rtol=1e-9, atol=0.0):
        return Estimate(value, method=SAME_EVERY_WEEK)

    if count < BOOTSTRAP_WEEKS:
        low, high = _jackknife_interval(value, without_one)
        method = f"jackknife over {count} weeks, Student's t"
    else:
        low, high = _bootstrap_interval(statistic(_draws(count, seed) @ by_week), count)
        method = f"bootstrap over {count} weeks"
    if not (math.isfinite(low) and math.isfinite(high)):
        return Estimate(value, method="no interval: not defined without some of the weeks")
    return Estimate(value, max(low, bounds[0]), min(high, bounds[1]), method)


def share_over_weeks(values: Sequence[float], weeks: Sequence[Hashable]) -> Estimate:
    """Mean of values between 0 and 1, with an interval between 0 and 1 that keeps rows of one week together.

    Where every week has the same share, no week tells how far another may lie from it, but their number
    does: at 95 %, at most 1 - 0.025 ** (1 / weeks) of all weeks can be others, which is the bound of Clopper
    and Pearson (1934), The Use of Confidence or Fiducial Limits, Biometrika 26, where none of so many was.
    The interval lets these weeks be all wrong, or all right.

    Raises:
        ValueError: not one week per row, or a number that is not finite.
    """
    found = over_weeks([(value, 1.0) for value in values], weeks, bounds=(0.0, 1.0))
    if found.value is None or found.method != SAME_EVERY_WEEK:
        return found
    count = len(set(weeks))
    others = 1 - ((1 - CONFIDENCE) / 2) ** (1 / count)
    low, high = found.value * (1 - others), found.value + (1 - found.value) * others
    return Estimate(found.value, low, high, f"bound from {count} weeks that are all the same")


def negated(estimate: Estimate) -> Estimate:
    """The same the other way round: of a difference, that of the second and the first."""
    value, low, high = (None if x is None else -x for x in (estimate.value, estimate.high, estimate.low))
    return Estimate(value, low, high, estimate.method)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that two runs on the same rows are right equally often.

    Args:
        only_first: rows that the first run has right and the second has wrong.
        only_second: the other way round.
    """
    if only_first == only_second == 0:
        return 1.0
    return float(scipy.stats.binomtest(only_first, only_first + only_second).pvalue)


def design_effect(
    contributions: np.ndarray | Sequence[Sequence[float]], weeks: Sequence[Hashable]
) -> float | None:
    """How many times larger the variance of a ratio is than if its rows were independent.

    Both variances are those of the linearised ratio. At least 1: rows of one week do not spread out more
    evenly than chance, so a smaller estimate is noise. None with fewer than two weeks, or without variance.

    Args:
        contributions: (rows, 2), as for `over_weeks` with `ratio`.
        weeks: the week of each row.

    Raises:
        ValueError: not one week per row, not k numbers per row, or a number that is not finite.
    """
    rows, week_of_row = _rows(contributions, weeks)
    value = ratio(rows.sum(axis=0))
    deviations = rows[:, :1] - value * rows[:, 1:]
    by_week = _week_sums(deviations, week_of_row)
    same = np.allclose(rows[:, 0], value * rows[:, 1], rtol=1e-9, atol=0.0)
    if len(by_week) < 2 or not np.isfinite(value) or same:
        return None
    independent = len(rows) / (len(rows) - 1) * np.sum(deviations**2)
    clustered = len(by_week) / (len(by_week) - 1) * np.sum(by_week**2)
    return max(1.0, float(clustered / independent))


_WEEKS_ALIKE = 6
"""A lead that is the same in so many weeks has no interval, and is no chance by the exact sign test over
weeks: 2 x 0.5 ** 6 is 3 %."""


def is_sure(difference: Estimate, weeks: int, is_better: int = 1) -> bool:
    """Whether a lead is more than chance: its interval lies on one side of zero, or every one of six or more
    weeks has the same."""
    if difference.value is None or is_better * difference.value <= 0:
        return False
    if difference.low is None or difference.high is None:
        return difference.method == SAME_EVERY_WEEK and weeks >= _WEEKS_ALIKE
    return difference.low > 0 if is_better > 0 else difference.high < 0


def rows_needed(share: float, chance: float = 0.5, design_effect: float = 1.0) -> int | None:
    """Rows that show a true share to be above chance: two-sided 5 %, power 80 %, normal approximation.

    To the nearest row; None where there is nothing to show.

    Args:
        design_effect: of the rows' weeks; 1 for independent rows.

    Raises:
        ValueError: a share above 1, or a chance that is not between 0 and 1.
    """
    if not (share <= 1 and 0 < chance < 1):
        raise ValueError(f"no shares: {share!r} against {chance!r}")
    if share <= chance:
        return None
    deviation_by_chance, deviation = math.sqrt(chance * (1 - chance)), math.sqrt(share * (1 - share))
    return _rows_to_tell(share - chance, deviation_by_chance, deviation, design_effect)


def rows_needed_paired(
    only_first: int, only_second: int, rows: int, design_effect: float = 1.0
) -> int | None:
    """Rows on which the difference seen between two runs would show.

    Two-sided 5 %, power 80 %; Connor (1987), Sample Size for Testing Differences in Proportions for the
    Paired-Sample Design, Biometrics 43. Rows on which the two agree count too. To the nearest row; None where
    there is no difference.

    Args:
        only_first: rows that the first run has right and the second has wrong.
        only_second: the other way round.
        rows: all rows that both were scored on.
        design_effect: of the difference over the rows' weeks; 1 for independent rows.

    Raises:
        ValueError: negative numbers, or fewer rows than those on which the two differ.
    """
    if min(only_first, only_second) < 0 or only_first + only_second > rows:
        raise ValueError(f"no parts of {rows!r} rows: {only_first!r} and {only_second!r}")
    if only_first == only_second:
        return None
    discordant = (only_first + only_second) / rows
    difference = abs(only_first - only_second) / rows
    return _rows_to_tell(
        difference, math.sqrt(discordant), math.sqrt(discordant - difference**2), design_effect
    )


def _jackknife_interval(value: float, without_one: np.ndarray) -> tuple[float, float]:
    """From the values without each of the weeks; not finite where one of them is not."""
    count = len(without_one)
    error = math.sqrt((count - 1) * np.var(without_one))
    half_width = float(error * scipy.special.stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    return value - half_width, value + half_width


def _bootstrap_interval(resampled: np.ndarray, weeks: int) -> tuple[float, float]:
    """Expanded percentiles of the resampled values; not finite where too many of them are not."""
    defined = resampled[np.isfinite(resampled)]
    if len(defined) < (1 - MOST_UNDEFINED_SHARE) * len(resampled):
        return math.nan, math.nan
    quantile = scipy.special.stdtrit(weeks - 1, (1 + CONFIDENCE) / 2)
    tail = scipy.special.ndtr(-quantile * math.sqrt(weeks / (weeks - 1)))
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def _rows_to_tell(
    difference: float, deviation_by_chance: float, deviation: float, design_effect: float
) -> int:
    """Rows for a mean that differs by so much from chance, by the standard deviations of one row."""
    by_chance = scipy.special.ndtri(1 - SIGNIFICANCE / 2) * deviation_by_chance
    needed = ((by_chance + scipy.special.ndtri(POWER) * deviation) / difference) ** 2 * design_effect
    return max(1, round(float(needed)))


def _rows(
    contributions: np.ndarray | Sequence[Sequence[float]], weeks: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that add anything, in an order of their own, and for each the number of its week."""
    rows = np.asarray(contributions, dtype=float)
    if rows.ndim != 2 and rows.size:
        raise ValueError(f"not rows of numbers, but an array of shape {rows.shape}")
    if len(rows) != len(weeks):
        raise ValueError(f"{len(rows)} rows, but {len(weeks)} weeks")
    if not np.isfinite(rows).all():
        raise ValueError("a contribution is not finite")
    if not len(rows):
        return np.empty((0, 2)), np.empty(0, dtype=int)
    number = {week: at for at, week in enumerate(dict.fromkeys(weeks))}
    week_of_row = np.array([number[week] for week in weeks], dtype=int)
    order = np.lexsort(rows.T)
    order = order[rows[order].any(axis=1)]
    return rows[order], week_of_row[order]


def _week_sums(rows: np.ndarray, week_of_row: np.ndarray) -> np.ndarray:
    """(weeks, k): sums over the rows of each week that has any, in the order of the sums themselves."""
    number = np.unique(week_of_row, return_inverse=True)[1]
    sums = np.zeros((number.max(initial=-1) + 1, rows.shape[1]))
    np.add.at(sums, number, rows)
    return sums[np.lexsort(sums.T)]


@lru_cache(maxsize=4)
def _draws(weeks: int, seed: int) -> np.ndarray:
    """(resamples, weeks): how often each week is drawn.

    A sum over a resample is linear in these, so that all sums are one product of matrices, where
    scipy.stats.bootstrap would gather every week of every resample anew. Kept for the next figure.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(weeks, np.full(weeks, 1 / weeks), size=RESAMPLES).astype(float)
