"""What a figure of forecasts is: how it is taken, what it means, which way is better, where it is shown.

Each is one field of `metrics.Skill`. metrics.json, the tables of the report, the choice between models and
the check of docs/metrics.md go by what the field says of itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from forecaster.evaluation.statistics import Estimate, over_weeks, share_over_weeks
from forecaster.records import Label
from forecaster.tasks.weekly_rows import Forecast

_KEY = "figure"


@dataclass(frozen=True)
class Case:
    """A forecast beside what happened."""

    forecast: Forecast
    actual: Label
    week: Hashable
    return_pct: float | None = None
    """What the week brought, as exactly as it is known; None: no more than `actual` says."""


RowValue: TypeAlias = Callable[[Case], float | None]
"""What one row adds to a mean; None where it does not count."""
Better: TypeAlias = Literal["higher", "lower"]


@dataclass(frozen=True)
class Column:
    """Where the report shows a figure, and how."""

    table: Literal["direction", "size", "probability"]
    title: str
    style: Literal["interval", "percent", "significant", "count"] = "interval"
    """With its interval; in percent; as a bare number with three digits; as a whole number."""
    digits: int = 3
    """Of a figure with an interval."""
    place: int = 99
    """From the left; by default behind all others."""
    beside: str = ""
    """Another figure that stands behind it in the same cells."""
    note: str = ""
    """A sentence below the table."""


@dataclass(frozen=True)
class Contest:
    """How a figure decides between models, row by row."""

    name: str
    """Of one row's value, in the singular."""
    better: Better
    value: RowValue
    is_share: bool = False
    """Whether values lie between 0 and 1."""

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.better == "higher" else -1


@dataclass(frozen=True)
class Figure:
    """All that is said of a figure."""

    of: Callable[[Any], Any]
    """Takes it over the rows whose outcome is known: a sequence of `Case`."""
    unit: str
    meaning: str
    column: Column | None = None
    better: Better | None = None
    """None: neither way is."""
    contest: Contest | None = None

    @property
    def explained(self) -> str:
        """What docs/metrics.md says of it."""
        return f"{self.meaning} {self.better.capitalize()} is better." if self.better else self.meaning


def figure(
    of: Callable[[Any], Any],
    unit: str,
    meaning: str,
    column: Column | None = None,
    better: Better | None = None,
) -> Any:
    """A field that holds what `of` takes over all rows whose outcome is known."""
    return field(metadata={_KEY: Figure(of, unit, meaning, column, better)})


def mean_figure(
    value: RowValue,
    unit: str,
    meaning: str,
    column: Column | None = None,
    better: Better | None = None,
    contest: str = "",
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Any:
    """A field that holds the mean of `value`, with an interval that keeps rows of one week together.

    Args:
        unit: values of a "share" lie between 0 and 1, and so does its interval.
        contest: the name of one row's value, in the singular, if models are to be compared by it.
        bounds: the least and the largest mean that there can be, of what is no share.
    """

    def of_row(case: Case) -> float | None:
        found = value(case)
        return None if found is None else float(found)  # a bool would be shown as a whole number

    def mean(cases: Sequence[Case]) -> Estimate:
        known = [(found, case.week) for case in cases if (found := of_row(case)) is not None]
        values, weeks = [found for found, _ in known], [week for _, week in known]
        if unit == "share":
            return share_over_weeks(values, weeks)
        return over_weeks([(found, 1.0) for found in values], weeks, bounds=bounds)

    if contest and better is None:
        raise ValueError(f"{contest}: models cannot be compared by a figure without a better way")
    decides = Contest(contest, better, of_row, unit == "share") if contest and better else None
    return field(metadata={_KEY: Figure(mean, unit, meaning, column, better, decides)})


def figures_of(record: Any) -> dict[str, Figure]:
    """The figures of a class, or of one of its records, by name."""
    return {each.name: each.metadata[_KEY] for each in fields(record) if _KEY in each.metadata}


def contests_of(record: Any) -> dict[str, Contest]:
    """The figures that decide between models, by name."""
    return {name: of.contest for name, of in figures_of(record).items() if of.contest}
