"""Pictures of scores: models side by side, beside what anyone scores without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil, isfinite
from typing import Any, Protocol, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2DBase, AffineDeltaTransform
from numpy.typing import ArrayLike

from forecaster.evaluation.plots.style import (
    fill_look,
    grid_of,
    legend_below,
    number,
    plain_log_axis,
    say,
    styled,
    wrapped,
)
from forecaster.records import ALL_LABELS, OPEN_BIN_PCT, Label

NO_READABLE_ANSWER = "no readable answer"
NO_SCORES = "no scores"
_WIDTH_INCHES = 10.0
_MODEL_SHADE, _BASELINE_SHADE = "0.3", "0.82"
_INCHES_PER_BAR, _BARS_FRAME_INCHES = 0.36, 1.0
_CHANCE: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": ":"}
_ROUGE_NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
_SECTION_NAMES = {
    "pros_rouge_scores": "Positive developments",
    "cons_rouge_scores": "Potential concerns",
    "anal_rouge_scores": "Prediction and analysis",
}
_LIGHTEST, _DARKEST, _WHITE_TEXT_BELOW = 0.95, 0.3, 0.55
"""Shades of the cells that hold any rows; a black frame shows on the darkest one too."""
_INCHES_PER_SYMBOL, _SYMBOLS_FRAME_INCHES = 0.17, 1.1
_SYMBOL_PANELS = 6
_WEEK_TICKS = 10
_WEEK_PANEL_INCHES, _EQUITY_PANEL_INCHES = 1.55, 2.3
_CHECKPOINT_DASHES = (
    (0, (1, 1)),
    (0, (1, 3)),
    (0, (4, 2)),
    (0, (6, 2, 1, 2)),
    (0, (8, 4)),
    (0, (3, 1, 1, 1, 1, 1)),
)

Counts = tuple[int, int]
"""Right directions, and the rows that they are a share of."""


@dataclass(frozen=True)
class Bar:
    """One model's or baseline's figure with its 95 % interval."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    is_baseline: bool


@dataclass(frozen=True)
class CheckpointPoint:
    """A checkpoint's figures on the validation rows."""

    step: int
    bin_acc: float | None
    mse: float | None
    coverage: float | None
    """Share of rows with a readable answer."""


@dataclass(frozen=True)
class Level:
    """What a baseline scores; None where it names no direction, or no size."""

    name: str
    bin_acc: float | None
    mse: float | None


class Curve(Protocol):
    """A strategy's capital over weeks."""

    @property
    def weeks(self) -> Sequence[date]: ...
    @property
    def equity(self) -> Sequence[float]:
        """1.0 before the first week, then one value a week."""

    @property
    def band_low(self) -> Sequence[float]:
        """What luck alone gives, in the places of `equity`; empty where that is not known."""

    @property
    def band_high(self) -> Sequence[float]: ...


# --- one figure, several models -----------------------------------------------------------------------------


@styled()
def draw_accuracy(bars: Sequence[Bar], actual_note: str = "") -> Figure:
    """Binary accuracy of models (dark) and baselines (light) with 95 % intervals.

    Args:
        actual_note: what the market did on these rows, to stand under the axis.
    """
    figure, axes = _bars_figure(bars)
    draw_accuracy_on(axes, bars)
    if actual_note:
        axes.set_xlabel(f"{axes.get_xlabel()}\n{actual_note}")
    return figure


def draw_accuracy_on(axes: Axes, bars: Sequence[Bar]) -> None:
    """The bars of `draw_accuracy` in a panel of a larger picture."""
    _draw_bars(axes, bars, "Binary accuracy", "share of right directions, with 95 % interval", 3)
    axes.set_xlim(0, 1)
    if bars:
        axes.axvline(0.5, **_CHANCE)


@styled()
def draw_mse(bars: Sequence[Bar]) -> Figure:
    """Mean squared error of models (dark) and baselines (light) with 95 % intervals."""
    figure, axes = _bars_figure(bars)
    _draw_bars(axes, bars, "Mean squared error", "percent squared, with 95 % interval; less is better", 2)
    ends = [end for bar in bars for end in (bar.value, bar.high) if end is not None and isfinite(end)]
    axes.set_xlim(0, max(ends, default=0) * 1.05 or 1)
    return figure


def _bars_figure(bars: Sequence[Bar]) -> tuple[Figure, Axes]:
    height = _BARS_FRAME_INCHES + _INCHES_PER_BAR * max(len(bars), 2)
    figure = Figure(figsize=(_WIDTH_INCHES * 0.75, height), layout="constrained")
    return figure, figure.subplots()


def _draw_bars(axes: Axes, bars: Sequence[Bar], title: str, label: str, digits: int) -> None:
    for place, bar in enumerate(bars):
        shade = _BASELINE_SHADE if bar.is_baseline else _MODEL_SHADE
        words = NO_READABLE_ANSWER
        if bar.value is not None:
            axes.barh(place, bar.value, height=0.66, color=shade, edgecolor="black", linewidth=0.5)
            words = f"{bar.value:.{digits}f}"
            if bar.low is not None and bar.high is not None:
                _draw_whisker(axes, place, bar.low, bar.high)
                words += f"  [{bar.low:.{digits}f}, {bar.high:.{digits}f}]"
        # Beside the axes, where no whisker is.
        axes.text(1.02, place, words, va="center", fontsize=8, transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(bars)), [wrapped(bar.name, 32) for bar in bars])
    axes.set(ylim=(max(len(bars), 1) - 0.5, -0.5), xlabel=label, title=title)
    axes.tick_params(axis="y", length=0)
    if not bars:
        say(axes, NO_SCORES)


def _draw_whisker(axes: Axes, place: int, low: float, high: float) -> None:
    """White under black, so that it shows on dark and on light."""
    for color, width in (("white", 3.2), ("black", 1.3)):
        axes.plot(
            [low, high], [place, place], color=color, linewidth=width, marker="|", markersize=7, zorder=3
        )


@styled()
def draw_rouge(scores: Mapping[str, Mapping[str, Mapping[str, float]] | None]) -> Figure:
    """Overlap with the reference answer's wording: one panel a section, one bar a model.

    Args:
        scores: by model, section and kind of ROUGE; None for a model without a readable answer.
    """
    sections = list(dict.fromkeys(section for of in scores.values() for section in of or ()))
    kinds = list(_ROUGE_NAMES)
    columns = max(len(sections), 1)
    figure = Figure(figsize=(_WIDTH_INCHES, 3.8), layout="constrained")
    panels = figure.subplots(1, columns, sharey=True, squeeze=False)[0]
    thickness = 0.84 / max(len(scores), 1)
    highest = 0.0
    for axes, section in zip(panels, sections, strict=False):
        for place, of in enumerate(scores.values()):
            for at, kind in enumerate(kinds):
                value = (of or {}).get(section, {}).get(kind)
                if value is not None and isfinite(value):
                    x = at - 0.42 + thickness * (place + 0.5)
                    axes.bar(x, value, width=thickness * 0.92, **fill_look(place))
                    axes.annotate(
                        f"{value:.2f}",
                        (x, value),
                        xytext=(0, 2),
                        textcoords="offset points",
                        ha="center",
                        va="bottom",
                        fontsize=7,
                        rotation=90 if len(scores) > 3 else 0,
                    )
                    highest = max(highest, value)
        axes.set_xticks(range(len(kinds)), _ROUGE_NAMES.values())
        axes.set_xlim(-0.5, len(kinds) - 0.5)
        axes.tick_params(axis="x", length=0)
        axes.set_title(_SECTION_NAMES.get(section, section))
    panels[0].set_ylabel("mean F-measure")
    panels[0].set_ylim(0, min(highest * 1.2, 1.12) or 1)
    if not sections:
        say(panels[0], NO_READABLE_ANSWER if scores else NO_SCORES)
    names = [name if of else f"{name} ({NO_READABLE_ANSWER})" for name, of in scores.items()]
    legend_below(figure, [(Patch(**fill_look(at)), name) for at, name in enumerate(names)], columns=3)
    return figure


# --- forecast against outcome -------------------------------------------------------------------------------


@styled()
def draw_confusion(counts: Mapping[str, ArrayLike]) -> Figure:
    """Rows by actual and predicted bin: one table a model, the darker the more rows.

    Args:
        counts: by model, (12, 13): actual bins, the strongest fall first; predicted bins in the same order,
            then the answers that could not be read.
    """
    bins = sorted(ALL_LABELS, key=lambda label: label.midpoint_pct)
    lines, columns = grid_of(len(counts), 2)
    figure = Figure(figsize=(5.4 * columns + 0.4, 4.9 * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for place, axes in enumerate(panels):
        if place >= len(counts):
            axes.set_axis_off()
    for place, (axes, (name, table)) in enumerate(zip(panels, counts.items(), strict=False)):
        array = np.asarray(table, dtype=int)
        if array.shape != (len(bins), len(bins) + 1):
            raise ValueError(f"{name}: counts of shape {array.shape} are not {len(bins)} x {len(bins) + 1}")
        _draw_table(axes, array)
        words = [_short(label) for label in bins]
        axes.set_xticks(range(len(bins) + 1), [*words, "unreadable"], rotation=90)
        axes.set_yticks(range(len(bins)), words)
        # The bins once a line and once a column.
        is_lowest, is_first = place + columns >= len(counts), place % columns == 0
        axes.tick_params(length=0, labelsize=7.5, labelbottom=is_lowest, labelleft=is_first)
        axes.set_title(wrapped(name, 44))
        axes.set(xlabel="predicted" if is_lowest else "", ylabel="actual" if is_first else "")
    if not counts:
        panels[0].set_axis_on()
        say(panels[0], NO_SCORES)
    return figure


def _draw_table(axes: Axes, counts: np.ndarray) -> None:
    size = len(counts)
    largest = max(int(counts.max()), 1)
    filled = [(line, column) for line, column in np.argwhere(counts).tolist()]
    shades = {cell: _LIGHTEST - (_LIGHTEST - _DARKEST) * int(counts[cell]) / largest for cell in filled}
    _draw_cells(axes, filled, facecolor=[f"{shades[cell]:.2f}" for cell in filled], edgecolor="none")
    for line, column in filled:
        color = "white" if shades[line, column] < _WHITE_TEXT_BELOW else "black"
        count = str(counts[line, column])
        axes.text(column, line, count, ha="center", va="center", fontsize=7, color=color)
    _draw_cells(axes, [(at, at) for at in range(size)], facecolor="none", edgecolor="black", linewidth=1.0)
    axes.axvline(size - 0.5, color="black", linewidth=1.0)
    # Falls from rises.
    axes.plot([-0.5, size - 0.5], [size / 2 - 0.5] * 2, color="0.4", linewidth=0.8, linestyle="--")
    axes.plot([size / 2 - 0.5] * 2, [-0.5, size - 0.5], color="0.4", linewidth=0.8, linestyle="--")
    axes.set(xlim=(-0.5, size + 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    axes.spines[["top", "right"]].set_visible(True)


def _draw_cells(axes: Axes, cells: Sequence[tuple[int, int]], **look: Any) -> None:
    """One square at many places, which keeps an SVG small."""
    square = PathCollection(
        [Path([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])],
        offsets=[(column, line) for line, column in cells] or np.empty((0, 2)),
        offset_transform=axes.transData,
        clip_on=False,
        **look,
    )
    square.set_transform(AffineDeltaTransform(cast(Affine2DBase, axes.transData)))
    axes.add_collection(square)


def _short(label: Label) -> str:
    if label.lower_pct == OPEN_BIN_PCT:
        return f"{label.direction} >{OPEN_BIN_PCT}%"
    return f"{label.direction} {label.lower_pct}-{label.lower_pct + 1}%"


# --- by symbol, by week -------------------------------------------------------------------------------------


@styled()
def draw_shares_by_symbol(shares: Mapping[str, Mapping[str, Counts]]) -> Figure:
    """Share of right directions of each symbol, one panel a model; the more symbols, the higher.

    Args:
        shares: by model and symbol: right directions and rows.
    """
    symbols = sorted({symbol for of in shares.values() for symbol in of})
    lines, columns = grid_of(len(shares), _SYMBOL_PANELS)
    panel_inches = _SYMBOLS_FRAME_INCHES + _INCHES_PER_SYMBOL * max(len(symbols), 4)
    width = _WIDTH_INCHES if columns > 1 else 0.6 * _WIDTH_INCHES
    figure = Figure(figsize=(width, panel_inches * lines), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    for axes in panels[len(shares) :]:
        axes.set_axis_off()
    for axes, (name, of) in zip(panels, shares.items(), strict=False):
        found = [(at, of[symbol]) for at, symbol in enumerate(symbols) if of.get(symbol, (0, 0))[1]]
        ends = [right / rows for _, (right, rows) in found]
        # One line from chance to each share, with gaps between them.
        stems = [(x, at) for (at, _), end in zip(found, ends, strict=True) for x in (0.5, end, np.nan)]
        if found:
            axes.plot(*zip(*stems, strict=True), color="0.6", linewidth=1.6)
            axes.plot(ends, [at for at, _ in found], color="black", linestyle="", marker="o", markersize=3.5)
        sizes = sorted({rows for _, (_, rows) in found})
        each = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0]) if sizes else "no"
        axes.axvline(0.5, **_CHANCE)
        axes.set_yticks(range(len(symbols)), symbols)
        axes.set_xticks([0, 0.5, 1])
        axes.tick_params(axis="y", labelsize=6.5, length=0)
        axes.grid(axis="y", color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set(xlim=(-0.03, 1.03), ylim=(max(len(symbols), 1) - 0.4, -0.6))
        axes.set_title(wrapped(name, 84 // columns, 3), fontsize=10 if columns < 4 else 8)
        axes.set_xlabel(f"{each} rows a symbol", fontsize=8)
    if symbols:
        figure.supxlabel("share of right directions", fontsize=9)
    else:
        say(panels[0], NO_SCORES)
    return figure


@styled()
def draw_shares_by_week(
    shares: Mapping[str, Mapping[date, Counts]], actual_up_share: Mapping[date, float]
) -> Figure:
    """Share of right directions week by week, one panel a model, before the share of rises.

    Args:
        shares: by model and week: right directions and rows.
        actual_up_share: by week.
    """
    weeks = sorted({week for of in shares.values() for week in of} | set(actual_up_share))
    lines = max(len(shares), 1)
    figure = Figure(figsize=(_WIDTH_INCHES, _WEEK_PANEL_INCHES * lines + 0.9), layout="constrained")
    panels = figure.subplots(lines, 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for axes, (name, of) in zip(panels, shares.items(), strict=False):
        for week, share in sorted(actual_up_share.items()):
            axes.bar(date2num(week), share, width=5, color="0.88", edgecolor="0.6", linewidth=0.4)
        values = [of[week][0] / of[week][1] if of.get(week, (0, 0))[1] else np.nan for week in weeks]
        axes.plot(date2num(weeks), values, color="black", marker="o", markersize=3.5, linewidth=1.2)
        if np.isfinite(values).any():
            axes.axhline(0.5, **_CHANCE)
        else:
            say(axes, NO_SCORES, has_scale=True)
        axes.set(ylim=(0, 1.04), ylabel="share")
        axes.set_title(wrapped(name, 80, 1), loc="left", fontsize=9)
    if weeks and shares:
        _week_axis(panels[-1], weeks, _WEEK_TICKS)
        entries: list[tuple[Line2D | Patch, str]] = [
            (Line2D([], [], color="black", marker="o", markersize=3.5), "right directions")
        ]
        if actual_up_share:
            entries.append((Patch(facecolor="0.88", edgecolor="0.6"), "actual rises"))
        legend_below(figure, entries, columns=2)
    else:
        say(panels[0], NO_SCORES)
    return figure


def _week_axis(axes: Axes, weeks: Sequence[date], most_ticks: int) -> None:
    every = ceil(len(weeks) / most_ticks)
    axes.set_xticks(date2num(weeks[::every]), [str(week) for week in weeks[::every]])
    axes.set_xlim(date2num(weeks[0]) - 5, date2num(weeks[-1]) + 5)
    axes.set_xlabel("end of the week")


# --- over time ----------------------------------------------------------------------------------------------


@styled()
def draw_equity(curves: Mapping[str, Mapping[str, Curve]], reference: str = "buy and hold") -> Figure:
    """Capital week by week: one line of panels a model, one column a strategy, with its band of luck.

    Args:
        curves: by model and strategy.
        reference: the strategy that every panel shows, dashed.
    """
    strategies = list(dict.fromkeys(name for of in curves.values() for name in of if name != reference))
    shown = [name for name, of in curves.items() if of]
    lines, columns = max(len(shown), 1), max(len(strategies), 1)
    height = _EQUITY_PANEL_INCHES * lines + 0.7
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for line, name in enumerate(shown):
        for column, strategy in enumerate(strategies or [reference]):
            axes = grid[line, column]
            of = curves[name]
            if strategy in of and strategy != reference:
                _draw_equity(axes, of[strategy])
            if reference in of:
                _draw_reference(axes, of[reference])
            axes.axhline(1, color="0.6", linewidth=0.7)
            axes.set_title(f"{wrapped(name, 46, 1)}\n{strategy}", fontsize=9)
        grid[line, 0].set_ylabel("capital (start = 1)")
    weeks = sorted({week for of in curves.values() for curve in of.values() for week in curve.weeks})
    if not weeks:
        say(grid[0, 0], NO_SCORES)
        return figure
    values = [
        v for of in curves.values() for c in of.values() for v in (*c.equity, *c.band_low, *c.band_high)
    ]
    if min(values) > 0 and max(values) / min(values) > 10:
        grid[0, 0].set_yscale("log")
        plain_log_axis(grid[0, 0].yaxis)
    for axes in grid[-1]:
        _week_axis(axes, [weeks[0] - timedelta(weeks=1), *weeks], _WEEK_TICKS // columns)
    legend_below(figure, _equity_entries(reference), columns=3)
    return figure


def _equity_entries(reference: str) -> list[tuple[Line2D | Patch, str]]:
    return [
        (Line2D([], [], color="black", linewidth=1.4), "strategy"),
        (Line2D([], [], color="0.4", linewidth=1.2, linestyle="--"), reference),
        (Patch(facecolor="0.87"), "shuffled directions, 5 % to 95 %"),
    ]


def _days(curve: Curve) -> list[float]:
    """Where each value of the capital stands: that before the first week a week before its end."""
    days = [float(date2num(week)) for week in curve.weeks]
    return [days[0] - 7, *days] if days else []


def _draw_equity(axes: Axes, curve: Curve) -> None:
    days = _days(curve)
    if len(curve.band_low) and days:
        axes.fill_between(days, curve.band_low, curve.band_high, color="0.87", linewidth=0)
    if days:
        axes.plot(days, curve.equity, color="black", linewidth=1.4)


def _draw_reference(axes: Axes, curve: Curve) -> None:
    if days := _days(curve):
        axes.plot(days, curve.equity, color="0.4", linewidth=1.2, linestyle="--")


@styled()
def draw_checkpoints(
    points: Sequence[CheckpointPoint], best_step: int | None, baselines: Sequence[Level] = ()
) -> Figure:
    """Binary accuracy, squared error and share of readable answers by checkpoint, beside the baselines."""
    figure = Figure(figsize=(_WIDTH_INCHES, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    ordered = sorted(points, key=lambda point: point.step)
    figures = (
        ("Binary accuracy", "share of right directions", "bin_acc"),
        ("Mean squared error", "percent squared", "mse"),
        ("Readable answers", "share of rows", "coverage"),
    )
    for axes, (title, label, figure_name) in zip(panels, figures, strict=True):
        known = [(p.step, value) for p in ordered if (value := getattr(p, figure_name)) is not None]
        if known:
            axes.plot(*zip(*known, strict=True), color="black", marker="o", markersize=4, linewidth=1.3)
        for step, value in known:
            if step == best_step:
                axes.plot(step, value, marker="o", markersize=11, color="none", markeredgecolor="black")
        axes.set(title=title, xlabel="optimizer step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if not known:
            say(axes, NO_SCORES if not points else NO_READABLE_ANSWER)
        elif figure_name == "coverage":
            axes.set_ylim(0, 1.04)
        else:
            _draw_levels(axes, [(level.name, getattr(level, figure_name)) for level in baselines])
    if any(point.step == best_step for point in points):
        ring = Line2D([], [], color="none", marker="o", markersize=9, markeredgecolor="black")
        legend_below(figure, [(ring, f"best checkpoint: step {best_step}")], columns=1)
    return figure


def _draw_levels(axes: Axes, levels: Sequence[tuple[str, float | None]]) -> None:
    """Baselines as lines across, named under the panel, where close ones do not cover each other."""
    known = [(name, value) for name, value in levels if value is not None]
    for place, (name, value) in enumerate(known):
        axes.axhline(
            value,
            color="0.4",
            linewidth=1.1,
            linestyle=_CHECKPOINT_DASHES[place % len(_CHECKPOINT_DASHES)],
            label=f"{wrapped(name, 30)}: {number(round(value, 3))}",
        )
    if known:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), handlelength=3.2, fontsize=7.5)
