"""The reliability diagram: how often it rose where a forecast said so, one column a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forecaster.evaluation.plots.style import legend_below, say, styled, wrapped

_MOST_COLUMNS = 3
_COLUMN_INCHES, _LINE_INCHES, _FRAME_INCHES = 3.3, 4.6, 0.5
_HISTOGRAM_BINS = 20
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "black", "marker": "o", "linestyle": "-"},
    {"color": "0.55", "marker": "s", "linestyle": "--"},
)


@dataclass(frozen=True)
class ReliabilityPoint:
    """A group of rows with about the same P(up)."""

    up: float
    rose: float
    low: float | None
    high: float | None
    """Of the share that rose, its 95 % interval."""


@dataclass(frozen=True)
class ReliabilityCurve:
    """One forecaster's."""

    points: Sequence[ReliabilityPoint]
    up: Sequence[float]
    """P(up) of every row."""


@styled()
def draw_reliability(models: Mapping[str, Mapping[str, ReliabilityCurve]]) -> Figure:
    """The share that rose over P(up), and below it how many rows have which P(up).

    Args:
        models: by model, and within it by kind: at most `raw` and `calibrated`, in that order.
    """
    columns = max(min(len(models), _MOST_COLUMNS), 1)
    lines = max(-(-len(models) // _MOST_COLUMNS), 1)
    size = (max(columns, 2) * _COLUMN_INCHES, lines * _LINE_INCHES + _FRAME_INCHES)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(2 * lines, columns, squeeze=False, sharex=True, height_ratios=[3, 1] * lines)
    panels = [(grid[2 * line][at], grid[2 * line + 1][at]) for line in range(lines) for at in range(columns)]
    for above, below in panels[len(models) :]:
        for axes in (above, below):
            axes.set_axis_off()
    for (above, below), (name, curves) in zip(panels, models.items(), strict=False):
        _draw_shares(above, curves)
        _draw_counts(below, curves)
        above.set_title(wrapped(name, 40), loc="left")
    if not models:
        say(panels[0][0], "no probabilities")
    kinds = list(dict.fromkeys(kind for curves in models.values() for kind in curves))
    entries = [
        (Line2D([], [], markersize=4, **look), kind) for kind, look in zip(kinds, _LOOKS, strict=False)
    ]
    legend_below(figure, [*entries, (Line2D([], [], color="black", linestyle=":"), "as said")], columns=3)
    return figure


def _draw_shares(axes: Axes, curves: Mapping[str, ReliabilityCurve]) -> None:
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.9, linestyle=":")
    for curve, look in zip(curves.values(), _LOOKS, strict=False):
        for point in curve.points:
            if point.low is not None and point.high is not None:
                axes.plot([point.up] * 2, [point.low, point.high], color=look["color"], linewidth=0.8)
        places = [point.up for point in curve.points]
        axes.plot(places, [point.rose for point in curve.points], markersize=4, linewidth=1.1, **look)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that rose")


def _draw_counts(axes: Axes, curves: Mapping[str, ReliabilityCurve]) -> None:
    edges = np.linspace(0, 1, _HISTOGRAM_BINS + 1)
    for curve, look in zip(curves.values(), _LOOKS, strict=False):
        counts, _ = np.histogram(curve.up, edges)
        axes.stairs(counts, edges, color=look["color"], linestyle=look["linestyle"], linewidth=1.1)
    rows = max((len(curve.up) for curve in curves.values()), default=0)
    axes.set(xlabel=f"P(up), {rows:,} rows", ylabel="rows", xlim=(0, 1))
    axes.locator_params(axis="y", nbins=3, integer=True)
    axes.tick_params(axis="x", labelbottom=True)
