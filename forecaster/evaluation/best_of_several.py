"""The best of several is judged with it said that several were tried: the best of many coins looks skilled.

Hansen (2005), A Test for Superior Predictive Ability, Journal of Business & Economic Statistics 23, by the
library `arch`; Bailey and Lopez de Prado (2014), The Deflated Sharpe Ratio, Journal of Portfolio Management
40.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy  # loads scipy.stats only where it is used: importing that takes a second

from forecaster.evaluation.statistics import BOOTSTRAP_WEEKS

RANK_CORRELATION = "rank correlation"
RESAMPLES = 5000
_EULER = 0.5772156649015329


@dataclass(frozen=True)
class BestOfSeveral:
    """Who is the best by one figure, and how likely the best of so many is as good without any skill."""

    figure: str
    model: str
    value: float
    """Mean over weeks, or a Sharpe ratio of a year."""
    tried: int
    p_value: float | None
    """None: too few weeks to say."""


def best_by_weekly_mean(
    figure: str, by_week: Mapping[str, Mapping[Hashable, float]], seed: int = 0
) -> BestOfSeveral | None:
    """The best mean over the weeks that all have, against zero in every week; None for fewer than two models.

    Args:
        by_week: by model, values that are zero without skill.
    """
    tried = {name: of for name, of in by_week.items() if of}
    if len(tried) < 2:
        return None
    weeks = sorted(set.intersection(*(set(of) for of in tried.values())), key=str)
    if not weeks:
        return None
    values = {name: np.array([of[week] for week in weeks]) for name, of in tried.items()}
    best = max(values, key=lambda name: float(values[name].mean()))
    return BestOfSeveral(
        figure, best, float(values[best].mean()), len(tried), _superior_p_value(list(values.values()), seed)
    )


def _superior_p_value(values: list[np.ndarray], seed: int) -> float | None:
    """That no model is better than nothing; weeks are resampled one by one, being as good as independent.

    Models that are the same in every week have nothing to resample and are left out. With fewer than 20 weeks
    the test says "better" too often: then there is none.
    """
    spread = [of for of in values if np.ptp(of) > 0]
    if not spread or len(values[0]) < BOOTSTRAP_WEEKS:
        return None
    from arch.bootstrap import SPA  # seconds to import

    losses = -np.stack(spread, axis=1)
    test = SPA(np.zeros(len(losses)), losses, block_size=1, reps=RESAMPLES, seed=seed)
    test.compute()
    return float(test.pvalues["consistent"])


def deflated_sharpe(
    weekly_returns_pct: Mapping[str, np.ndarray], weeks_per_year: int
) -> BestOfSeveral | None:
    """The best Sharpe ratio, and how likely the best of so many without skill reaches it; None for fewer than
    two strategies that have one.

    Args:
        weekly_returns_pct: by strategy, over the same weeks.
    """
    found = {name: of for name, of in weekly_returns_pct.items() if len(of) > 2 and np.ptp(of) > 1e-9}
    if len(found) < 2:
        return None
    ratios = {name: float(of.mean() / of.std(ddof=1)) for name, of in found.items()}
    best = max(ratios, key=lambda name: ratios[name])
    chance = expected_best(len(ratios), float(np.std(list(ratios.values()), ddof=1)))
    return BestOfSeveral(
        "Sharpe ratio",
        best,
        ratios[best] * math.sqrt(weeks_per_year),
        len(ratios),
        1 - probabilistic_sharpe(found[best], chance),
    )


def expected_best(tried: int, deviation: float) -> float:
    """The best of so many Sharpe ratios that can be expected where none has skill.

    Args:
        tried: two or more.
        deviation: between the ratios.
    """
    normal = scipy.stats.norm.ppf
    return deviation * float((1 - _EULER) * normal(1 - 1 / tried) + _EULER * normal(1 - 1 / (tried * math.e)))


def probabilistic_sharpe(returns: np.ndarray, benchmark: float) -> float:
    """Probability that the true ratio of mean to deviation is above `benchmark`, both of one week, for
    returns that are skewed and have fat tails."""
    ratio = float(returns.mean() / returns.std(ddof=1))
    skew, kurtosis = float(scipy.stats.skew(returns)), float(scipy.stats.kurtosis(returns, fisher=False))
    error = math.sqrt(max(1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2, 1e-12))
    return float(scipy.stats.norm.cdf((ratio - benchmark) * math.sqrt(len(returns) - 1) / error))
