"""How often 95 % intervals over weekly rows hold the true value, on simulated rows.

python bench/interval_coverage.py

Rows of one week move together. Each line: share of simulated benchmarks whose interval holds the true value,
for the intervals of `forecaster.evaluation.statistics.over_weeks`, for plain percentiles of a bootstrap over
weeks, and for shares also for Wilson's interval, which takes all rows as independent. About two minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tabulate import tabulate

from forecaster.evaluation.statistics import (
    BOOTSTRAP_WEEKS,
    Estimate,
    Statistic,
    matthews,
    over_weeks,
    ratio,
    wilson,
)

WEEKS = (6, 10, BOOTSTRAP_WEEKS - 1, BOOTSTRAP_WEEKS, 50)
ROWS_PER_WEEK = 30
PLAIN_RESAMPLES = 2000
Simulate = Callable[[np.random.Generator, int, int], np.ndarray]
"""From simulations and weeks to sums of each week, shape (simulations, weeks, k)."""


@dataclass(frozen=True)
class Case:
    name: str
    simulate: Simulate
    statistic: Statistic = ratio


def weekly_shares(
    generator: np.random.Generator, mean: float, deviation: float, shape: tuple[int, int]
) -> np.ndarray:
    """Shares of rising stocks by week, beta distributed."""
    concentration = mean * (1 - mean) / deviation**2 - 1
    return generator.beta(mean * concentration, (1 - mean) * concentration, shape)


def right_shares(mean: float, deviation: float, *, unequal: bool = False) -> Simulate:
    """Rows that are right: how many of how many, with a chance that swings by week."""

    def simulate(generator: np.random.Generator, simulations: int, weeks: int) -> np.ndarray:
        shape = (simulations, weeks)
        rows = generator.integers(1, 2 * ROWS_PER_WEEK, shape) if unequal else np.full(shape, ROWS_PER_WEEK)
        right = generator.binomial(rows, weekly_shares(generator, mean, deviation, shape))
        return np.stack([right, rows], axis=-1).astype(float)

    return simulate


def directions(generator: np.random.Generator, simulations: int, weeks: int) -> np.ndarray:
    """True ups, true downs, false ups, false downs of a forecaster with little skill who leans by week."""
    shape = (simulations, weeks)
    ups = generator.binomial(ROWS_PER_WEEK, weekly_shares(generator, 0.47, 0.14, shape))
    lean = generator.normal(0, 0.6, shape)
    true_ups = generator.binomial(ups, 1 / (1 + np.exp(-0.3 - lean)))
    false_ups = generator.binomial(ROWS_PER_WEEK - ups, 1 / (1 + np.exp(0.1 - lean)))
    return np.stack([true_ups, ROWS_PER_WEEK - ups - false_ups, false_ups, ups - true_ups], axis=-1).astype(
        float
    )


def squared_errors(generator: np.random.Generator, simulations: int, weeks: int) -> np.ndarray:
    """Squared errors between bin midpoints: heavy tails, and a market move and a scale for each week."""
    shape = (simulations, weeks, ROWS_PER_WEEK)
    market = generator.normal(0, 1.4, (simulations, weeks, 1))
    scale = 2.3 * generator.lognormal(0, 0.3, (simulations, weeks, 1))
    returns_pct = market + scale * generator.standard_t(4, shape)
    actual = np.copysign(np.clip(np.ceil(np.abs(returns_pct)), 1, 6) - 0.5, returns_pct)
    predicted = generator.choice([-3.5, -2.5, -1.5, 1.5, 2.5, 3.5], shape)
    sums = ((predicted - actual) ** 2).sum(axis=-1)
    return np.stack([sums, np.full_like(sums, ROWS_PER_WEEK)], axis=-1)


CASES = (
    Case("accuracy, week's share 0.47 +- 0.14", right_shares(0.47, 0.14)),
    Case("accuracy, week's share 0.45 +- 0.20", right_shares(0.45, 0.20)),
    Case("accuracy, weeks of 1 to 59 rows", right_shares(0.47, 0.14, unequal=True)),
    Case("share near one, 0.90 +- 0.09", right_shares(0.90, 0.09)),
    Case("Matthews' correlation", directions, matthews),
    Case("MSE between bin midpoints", squared_errors),
)


def true_value(case: Case) -> float:
    """The statistic of so many weeks that its own error does not matter."""
    sums = sum(case.simulate(np.random.default_rng(part), 1, 100_000).sum(axis=(0, 1)) for part in range(20))
    return float(case.statistic(np.asarray(sums)))


def plain_percentiles(draws: np.ndarray, by_week: np.ndarray, statistic: Statistic) -> Estimate:
    low, high = np.quantile(statistic(draws @ by_week), [0.025, 0.975])
    return Estimate(0.0, float(low), float(high))


def measure(case: Case, truth: float, weeks: int, simulations: int) -> list[object]:
    generator = np.random.default_rng(weeks)
    draws = generator.multinomial(weeks, np.full(weeks, 1 / weeks), PLAIN_RESAMPLES).astype(float)
    intervals: dict[str, list[Estimate]] = {"ours": [], "plain": [], "wilson": []}
    for by_week in case.simulate(generator, simulations, weeks):
        # One row with a week's sums counts as much as the rows of that week.
        intervals["ours"].append(over_weeks(by_week, range(weeks), case.statistic))
        intervals["plain"].append(plain_percentiles(draws, by_week, case.statistic))
        if case.name.startswith(("accuracy", "share")):
            intervals["wilson"].append(wilson(*by_week.sum(axis=0).astype(int).tolist()))

    def coverage(found: list[Estimate]) -> str:
        if not found:
            return "-"
        held = [each.low is not None and each.low <= truth <= (each.high or 0.0) for each in found]
        return f"{100 * np.mean(held):.1f}"

    widths = [each.high - each.low for each in intervals["ours"] if each.low is not None and each.high]
    method = intervals["ours"][0].method.split(" over")[0]
    columns = [coverage(intervals[name]) for name in ("ours", "plain", "wilson")]
    return [case.name, f"{truth:.3f}", weeks, method, *columns, f"{np.mean(widths):.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    simulations = parser.parse_args().simulations
    lines = []
    for case in CASES:
        truth = true_value(case)
        lines += [measure(case, truth, weeks, simulations) for weeks in WEEKS]
    headers = [
        "figure",
        "true",
        "weeks",
        "method",
        "ours %",
        "plain %",
        "rows as independent %",
        "mean width",
    ]
    print(tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
