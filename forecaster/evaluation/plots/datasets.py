"""Pictures of datasets: what they cover, and what their rows look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from forecaster.evaluation.plots.style import PNG
from forecaster.records import ALL_LABELS


@dataclass(frozen=True)
class _Group:
    """Symbol-weeks that share one look in the coverage panel."""

    name: str
    shade: str
    hatch: str = ""


_NO_PRICES = _Group("without prices,\nor too few past weeks", "white", "xxxxx")
_NOT_A_MEMBER = _Group("not a member", "white")
_ANOTHER_REASON = _Group("another reason", "white", "|||||")
_GROUPS: Mapping[str, _Group] = {
    "train": _Group("train", "0.62"),
    "test": _Group("test", "0.15"),
    "gap": _Group("gap, between\ntraining and test", "0.88"),
    "no usable answer from the teacher": _Group("no usable answer\nfrom the teacher", "white", "-----"),
    "no news in its past weeks": _Group("no news in\nits past weeks", "white", "/////"),
    "no closing price at the week's start or end": _NO_PRICES,
    "the price vendor does not serve the symbol": _NO_PRICES,
}
_TOO_FEW_PAST_WEEKS = "fewer than "
"""Beginning of a state that names a number."""

_SPLIT_SHADES = ("0.62", "0.15", "0.85", "0.4")
_SPLIT_LINES = ("-", "-", "--", ":")
_LINE_SHADE = "0.4"
_OTHER_LABEL = "other"
_WIDTH_INCHES = 12.0
_PANEL_INCHES = 3.4
_INCHES_PER_SYMBOL, _LEAST_MAP_INCHES, _MOST_MAP_INCHES = 0.12, 2.7, 16.0
_INCHES_PER_TICK_LABEL = 0.115
_MAP_WEEK_TICKS, _PANEL_WEEK_TICKS = 10, 4
_MOST_MARKERS = 26
_LEGEND_COLUMNS, _LEGEND_LINE_POINTS = 2, 14
_LENGTH_BINS = 40
_LEAST_LIMIT_PCT = 6


def draw_dataset(
    path: Path,
    states: Mapping[tuple[str, date], str],
    articles_per_week: Mapping[tuple[str, date], int],
    labels: Mapping[str, Sequence[str]],
    returns_pct: Sequence[float],
) -> None:
    """What a dataset covers: symbol-weeks, labels, articles a week, returns; the more symbols, the higher.

    Args:
        states: what became of each symbol-week, by symbol and week end; those without are not members.
        articles_per_week: articles received, by symbol and week end.
        labels: label texts of the rows of each split.
        returns_pct: the rows' weekly returns in percent.
    """
    symbol_count = len({symbol for symbol, _ in states})
    wanted_inches = 1.0 + _INCHES_PER_SYMBOL * symbol_count
    map_inches = min(max(wanted_inches, _LEAST_MAP_INCHES), _MOST_MAP_INCHES)
    figure = Figure(figsize=(_WIDTH_INCHES, map_inches + _PANEL_INCHES), layout="constrained")
    # Apart, so that the legend beside the map does not narrow the panels below.
    grid = figure.add_gridspec(2, 1, height_ratios=[map_inches, _PANEL_INCHES])
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    _draw_coverage(top.subplots(), states, map_inches)
    left, middle, right = bottom.subplots(1, 3)
    _draw_labels(left, {name: Counter(texts) for name, texts in labels.items()})
    _draw_articles(middle, articles_per_week)
    _draw_returns(right, returns_pct)
    figure.savefig(path, **PNG)


def draw_description(
    path: Path,
    label_counts: Mapping[str, Mapping[str, int]],
    prompt_lengths: Mapping[str, Sequence[int]],
    answer_lengths: Mapping[str, Sequence[int]],
    unit: str = "characters",
) -> None:
    """Labels, prompt lengths and answer lengths side by side.

    Args:
        label_counts: rows by label text, for each split.
        prompt_lengths: one length per row, for each split, in `unit`; so are `answer_lengths`.
    """
    figure = Figure(figsize=(_WIDTH_INCHES, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_labels(left, label_counts)
    _draw_lengths(middle, prompt_lengths, "Prompts", f"length of a prompt ({unit})")
    _draw_lengths(right, answer_lengths, "Answers", f"length of an answer ({unit})")
    figure.savefig(path, **PNG)


def _draw_coverage(axes: Axes, states: Mapping[tuple[str, date], str], height_inches: float) -> None:
    symbols, weeks = (sorted(set(part)) for part in (zip(*states, strict=True) if states else ((), ())))
    rows, columns = ({key: i for i, key in enumerate(keys)} for keys in (symbols, weeks))
    cells: dict[_Group, list[Rectangle]] = {}
    for (symbol, week), state in sorted(states.items()):
        corner = (columns[week] - 0.5, rows[symbol] - 0.5)
        cells.setdefault(_group(state), []).append(Rectangle(corner, 1, 1))
    legend = []
    for group in dict.fromkeys([*_GROUPS.values(), _ANOTHER_REASON]):
        if patches := cells.get(group):
            axes.add_collection(
                PatchCollection(
                    patches, facecolor=group.shade, edgecolor=_LINE_SHADE, linewidth=0, hatch=group.hatch
                )
            )
            legend.append(_legend_entry(group, len(patches)))
    if absent := len(symbols) * len(weeks) - len(states):
        legend.append(_legend_entry(_NOT_A_MEMBER, absent))
    axes.legend(
        handles=legend,
        title="symbol-weeks",
        loc="upper left",
        bbox_to_anchor=(1.005, 1),
        borderaxespad=0,
        frameon=False,
        fontsize=8,
        title_fontsize=8,
        alignment="left",
    )
    every_symbol = ceil(len(symbols) * _INCHES_PER_TICK_LABEL / height_inches) or 1
    _tick_weeks(axes, weeks, _MAP_WEEK_TICKS)
    axes.set_yticks(range(0, len(symbols), every_symbol), symbols[::every_symbol])
    axes.tick_params(axis="y", labelsize=6.5 if len(symbols) > 12 else 9, length=2)
    axes.set(
        xlim=(-0.5, max(len(weeks), 1) - 0.5),
        ylim=(max(len(symbols), 1) - 0.5, -0.5),
        ylabel="symbol",
        title=f"Coverage (symbols: {len(symbols):,}, weeks: {len(weeks):,})",
    )


def _legend_entry(group: _Group, count: int) -> Patch:
    return Patch(
        facecolor=group.shade,
        edgecolor=_LINE_SHADE,
        linewidth=0.5,
        hatch=group.hatch,
        label=f"{group.name} ({count:,})",
    )


def _tick_weeks(axes: Axes, weeks: Sequence[date], most: int) -> None:
    """Dates of at most `most` weeks below an axis on which week i stands at i."""
    every = ceil(len(weeks) / most) or 1
    axes.set_xticks(range(0, len(weeks), every), [str(week) for week in weeks[::every]])
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("end of the week")


def _group(state: str) -> _Group:
    if state.startswith(_TOO_FEW_PAST_WEEKS):
        return _NO_PRICES
    return _GROUPS.get(state, _ANOTHER_REASON)


def _draw_labels(axes: Axes, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Share of each split's rows in each bin, the strongest fall at the bottom."""
    texts = [label.text for label in sorted(ALL_LABELS, key=lambda label: label.midpoint_pct)]
    known = set(texts)
    others = {name: sum(n for text, n in of.items() if text not in known) for name, of in counts.items()}
    if any(others.values()):
        texts.insert(0, _OTHER_LABEL)
    thickness = 0.8 / max(len(counts), 1)
    for place, (name, of) in enumerate(counts.items()):
        total = sum(of.values())
        found = {**of, _OTHER_LABEL: others[name]}
        axes.barh(
            [at + 0.4 - thickness * (place + 0.5) for at in range(len(texts))],
            [100 * found.get(text, 0) / max(total, 1) for text in texts],
            height=thickness,
            color=_SPLIT_SHADES[place % len(_SPLIT_SHADES)],
            label=f"{name} ({total:,} rows)",
        )
    axes.set_yticks(range(len(texts)), texts)
    axes.tick_params(axis="y", labelsize=8, length=0)
    axes.set(xlabel="share of the split's rows (%)", xlim=(0, None))
    _finish(axes, "Labels")


def _draw_articles(axes: Axes, articles_per_week: Mapping[tuple[str, date], int]) -> None:
    by_week: dict[date, list[int]] = {}
    for (_, week), count in articles_per_week.items():
        by_week.setdefault(week, []).append(count)
    weeks = sorted(by_week)
    if weeks:
        low, middle, high = zip(*(np.percentile(by_week[week], [10, 50, 90]) for week in weeks), strict=True)
        places = np.arange(len(weeks))
        marker = "o" if len(weeks) <= _MOST_MARKERS else ""
        axes.fill_between(places, low, high, color="0.85", label="80 % of the symbols")
        axes.plot(places, middle, color="black", marker=marker, markersize=3, label="median")
    _tick_weeks(axes, weeks, _PANEL_WEEK_TICKS)
    axes.set(ylabel="articles per symbol and week", ylim=(0, None))
    _finish(axes, "Articles received")


def _draw_returns(axes: Axes, returns_pct: Sequence[float]) -> None:
    """One bar per percent; the few returns far outside are counted in the outer bars."""
    sizes = np.abs(returns_pct)
    limit = max(ceil(np.percentile(sizes, 99)), _LEAST_LIMIT_PCT) if len(sizes) else _LEAST_LIMIT_PCT
    inside = np.clip(returns_pct, -limit, limit)
    beyond = int((sizes > limit).sum())
    note = f" ({beyond:,} in the outer bars lie beyond)" if beyond else ""
    label = f"{len(sizes):,} rows{note}"
    axes.hist(inside, bins=list(range(-limit, limit + 1)), color="0.62", edgecolor="white", label=label)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="weekly return (%)", ylabel="rows", ylim=(0, None))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    _finish(axes, "Weekly returns")


def _draw_lengths(axes: Axes, lengths: Mapping[str, Sequence[int]], title: str, xlabel: str) -> None:
    """Share of each split's rows over common bins: the first split filled, the others as lines."""
    every = [length for of in lengths.values() for length in of]
    edges = np.histogram_bin_edges(every, bins=_LENGTH_BINS).tolist()
    for place, (name, of) in enumerate(lengths.items()):
        axes.hist(
            of,
            bins=edges,
            weights=np.full(len(of), 100 / max(len(of), 1)),
            histtype="stepfilled" if place == 0 else "step",
            color="0.75" if place == 0 else "black",
            linestyle=_SPLIT_LINES[place % len(_SPLIT_LINES)],
            linewidth=1.3,
            label=f"{name} ({len(of):,} rows)",
        )
    axes.set(xlabel=xlabel, ylabel="share of the split's rows (%)", ylim=(0, None))
    _finish(axes, title)


def _finish(axes: Axes, title: str) -> None:
    """Title, and below it the legend, where it hides nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    entries = len(axes.get_legend_handles_labels()[0])
    lines = max(ceil(entries / _LEGEND_COLUMNS), 1)
    axes.set_title(title, pad=6 + _LEGEND_LINE_POINTS * lines)
    if entries:
        axes.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1),
            borderaxespad=0.2,
            frameon=False,
            fontsize=8,
            ncols=_LEGEND_COLUMNS,
            columnspacing=1,
        )
