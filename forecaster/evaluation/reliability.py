"""Whether rises come as often as a forecast says: P(up) against the share that rose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forecaster.evaluation.metrics import cases_by_row
from forecaster.evaluation.statistics import Estimate, share_over_weeks
from forecaster.records import Row
from forecaster.tasks.weekly_rows import Forecast

MOST_GROUPS, LEAST_ROWS_OF_GROUP = 10, 10


@dataclass(frozen=True)
class ReliabilityGroup:
    """Rows with about the same P(up)."""

    rows: int
    up: float
    """Mean P(up)."""
    rose: Estimate
    """Share of them that rose; its interval keeps rows of one week together."""


def up_probabilities(forecasts: Sequence[Forecast], rows: Sequence[Row]) -> list[float]:
    """P(up) of each row with probabilities and an outcome."""
    return [
        case.forecast.distribution.up
        for case in cases_by_row(forecasts, rows)
        if case and case.forecast.distribution
    ]


def reliability(forecasts: Sequence[Forecast], rows: Sequence[Row]) -> tuple[ReliabilityGroup, ...]:
    """Groups of about as many rows each, from the lowest P(up) on; rows with the same P(up) stay together.

    Groups of equal counts, unlike those of equal width, leave none that hold a row or two.
    """
    known = sorted(
        (
            (case.forecast.distribution.up, case.actual.direction == "up", str(case.week), case.week)
            for case in cases_by_row(forecasts, rows)
            if case and case.forecast.distribution
        ),
        key=lambda of: of[:3],
    )
    count = min(MOST_GROUPS, max(len(known) // LEAST_ROWS_OF_GROUP, 1))
    groups: list[ReliabilityGroup] = []
    begin = 0
    for place in range(1, count + 1):
        end = max(len(known) * place // count, begin)
        while begin < end < len(known) and known[end][0] == known[end - 1][0]:
            end += 1
        if group := known[begin:end]:
            rose = share_over_weeks([float(of[1]) for of in group], [of[3] for of in group])
            groups.append(ReliabilityGroup(len(group), sum(of[0] for of in group) / len(group), rose))
        begin = end
    return tuple(groups)
