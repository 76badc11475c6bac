"""How well forecasts meet what happened, and how many could not be read."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forecaster.evaluation.published import SECTIONS, RougeCache, mean_rouge
from forecaster.evaluation.statistics import (
    Estimate,
    design_effect,
    matthews,
    over_weeks,
    rows_needed,
    wilson,
)
from forecaster.records import ALL_LABELS, Answer, Label, Row, Unreadable
from forecaster.tasks.weekly_rows import SILENT, Forecast

BINS: tuple[Label, ...] = tuple(sorted(ALL_LABELS, key=lambda label: label.midpoint_pct))
"""The twelve bins from the strongest fall to the strongest rise; neighbours are one bin apart."""
_PLACE = {label: place for place, label in enumerate(BINS)}


@dataclass(frozen=True)
class Skill:
    """Figures of forecasts over the rows whose outcome is known."""

    rows: int
    weeks: int
    coverage: Estimate
    """Share of rows with a forecast."""
    bin_acc: Estimate
    """Share of right directions among the forecasts that name one."""
    bin_acc_independent: Estimate
    """The same as if rows of one week were independent of each other."""
    accuracy_of_all_rows: Estimate
    """Share of right directions among all rows: no forecast is wrong."""
    matthews: Estimate
    """Matthews correlation of predicted and actual direction: 0 for a constant, 1 for a perfect forecast."""
    exact_bin_acc: Estimate
    """Share of forecasts that name the right one of twelve bins."""
    bin_distance: Estimate
    """Mean number of bins between forecast and outcome."""
    mse: Estimate
    """Mean squared difference of bin midpoints, in percent squared."""
    mae: Estimate
    """Mean absolute difference of bin midpoints, in percent."""
    predicted_up_share: Estimate
    predicted_down_share: Estimate
    actual_up_share: Estimate
    design_effect: float | None
    """Variance of the accuracy over that of independent rows: how many rows count as one."""
    rows_needed: int | None
    """Rows, as dependent as these, that would tell this accuracy from a coin's (one-sided 5 %, power 80 %);
    None where it is no better than a coin's."""


@dataclass(frozen=True)
class _Case:
    """A forecast beside what happened."""

    forecast: Forecast
    actual: Label
    week: Hashable


def skill(forecasts: Sequence[Forecast], rows: Sequence[Row]) -> Skill:
    """Figures of one forecast per row; rows whose outcome is not known are left out."""
    cases = [
        _Case(forecast, row.actual, row.week or row.row_id)
        for forecast, row in zip(forecasts, rows, strict=True)
        if row.actual is not None
    ]
    directed = [case for case in cases if case.forecast.direction]
    sized = [case for case in cases if case.forecast.size_pct is not None]
    binned = [case for case in cases if case.forecast.label]
    hits = sum(map(_is_right, directed))
    right = [(float(_is_right(case)), 1.0) for case in directed]
    effect = design_effect(right, [case.week for case in directed])
    return Skill(
        rows=len(cases),
        weeks=len({case.week for case in cases}),
        coverage=wilson(sum(case.forecast != SILENT for case in cases), len(cases)),
        bin_acc=_mean(directed, _is_right),
        bin_acc_independent=wilson(hits, len(directed)),
        accuracy_of_all_rows=_mean(cases, _is_right),
        matthews=over_weeks([_margins(case) for case in directed], [c.week for c in directed], matthews),
        exact_bin_acc=_mean(binned, lambda case: _bins_apart(case) == 0),
        bin_distance=_mean(binned, _bins_apart),
        mse=_mean(sized, lambda case: _miss_pct(case) ** 2),
        mae=_mean(sized, lambda case: abs(_miss_pct(case))),
        predicted_up_share=_mean(directed, lambda case: case.forecast.direction == "up"),
        predicted_down_share=_mean(directed, lambda case: case.forecast.direction == "down"),
        actual_up_share=_mean(cases, lambda case: case.actual.direction == "up"),
        design_effect=effect,
        rows_needed=rows_needed(hits / len(directed), design_effect=effect or 1.0) if directed else None,
    )


def _mean(cases: Sequence[_Case], value: Callable[[_Case], float]) -> Estimate:
    return over_weeks([(float(value(case)), 1.0) for case in cases], [case.week for case in cases])


def _is_right(case: _Case) -> bool:
    return case.forecast.direction == case.actual.direction


def _miss_pct(case: _Case) -> float:
    assert case.forecast.size_pct is not None
    return case.forecast.size_pct - case.actual.midpoint_pct


def _bins_apart(case: _Case) -> int:
    assert case.forecast.label is not None
    return abs(_PLACE[case.forecast.label] - _PLACE[case.actual])


def _margins(case: _Case) -> tuple[float, float, float, float]:
    """True ups, true downs, false ups, false downs that one row adds."""
    up, right = case.forecast.direction == "up", _is_right(case)
    return float(up and right), float(not up and right), float(up and not right), float(not up and not right)


# --- answers ------------------------------------------------------------------------------------------------


def forecasts_of(readings: Sequence[Answer | Unreadable]) -> list[Forecast]:
    """What each answer forecasts; nothing where it does not read."""
    return [Forecast.of_label(r.label) if isinstance(r, Answer) else SILENT for r in readings]


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
            counts[_PLACE[row.actual], _PLACE[forecast.label] if forecast.label else len(BINS)] += 1
    return tuple(tuple(int(count) for count in line) for line in counts)
