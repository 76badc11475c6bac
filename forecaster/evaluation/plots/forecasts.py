"""The picture of one forecast: how likely each bin is, in front of how often it happened before."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from forecaster.evaluation.plots.style import legend_below, styled
from forecaster.records import OPEN_BIN_PCT, Label
from forecaster.tasks.distributions import BINS, PLACE, Distribution

_WIDTH_INCHES, _HEIGHT_INCHES = 8.0, 4.6
_FORECAST_SHADE, _USUAL_SHADE = "0.3", "0.85"
_HALF = len(BINS) // 2
_ROOM = 1.25
"""Height of the panel over that of the highest bar: the range and the median stand above it."""


@styled()
def draw_forecast(
    title: str, name: str, forecast: Distribution, usual: Distribution | None, usual_name: str = ""
) -> Figure:
    """Bars of the twelve bins, with the median and the central 80 % marked above them.

    Args:
        title: what is forecast; the figures follow it on a line of their own.
        name: what the forecast is called.
        usual: how often each bin happened before, to stand behind; None: that is not known.
    """
    figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), layout="constrained")
    axes = figure.subplots()
    if usual:
        axes.bar(range(len(BINS)), usual.shares, 0.92, color=_USUAL_SHADE)
    axes.bar(range(len(BINS)), forecast.shares, 0.56, color=_FORECAST_SHADE)
    highest = max([*forecast.shares, *(usual.shares if usual else ())])
    axes.set(xlim=(-0.6, len(BINS) - 0.4), ylim=(0, highest * _ROOM), ylabel="probability")
    axes.axvline(_HALF - 0.5, color="black", linewidth=0.9, linestyle=":")
    _mark(axes, forecast, highest)
    axes.set_xticks(range(len(BINS)), [_size(label) for label in BINS])
    axes.tick_params(axis="x", length=0)
    for words, place in (("down by so many percent", 0), ("up by so many percent", _HALF)):
        where = (place + (_HALF - 1) / 2, -0.07)
        axes.text(*where, words, transform=axes.get_xaxis_transform(), ha="center", va="top")
    ticks = MaxNLocator(6).tick_values(0, highest)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= min(highest * _ROOM, 1)]))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_title(f"{title}\n{figures_in_words(forecast)}", loc="left")
    behind = [(Patch(color=_USUAL_SHADE), usual_name)] if usual else []
    legend_below(figure, [(Patch(color=_FORECAST_SHADE), name), *behind], columns=2)
    return figure


def figures_in_words(forecast: Distribution) -> str:
    low, high = forecast.central(0.8)
    reach = f"within {low.text}" if low == high else f"from {low.text} to {high.text}"
    return f"P(up) {forecast.up:.0%}, median {forecast.median.text}, 80 % {reach}"


def _mark(axes: Axes, forecast: Distribution, highest: float) -> None:
    """The central 80 % as a bracket above the bars, the median on it."""
    low, high = (PLACE[label] for label in forecast.central(0.8))
    height, median = highest * 1.1, PLACE[forecast.median]
    axes.plot([low - 0.4, high + 0.4], [height] * 2, color="black", linewidth=1.2)
    for end in (low - 0.4, high + 0.4):
        axes.plot([end] * 2, [height * 0.98, height * 1.02], color="black", linewidth=1.2)
    axes.plot([median], [height], color="black", marker="v", markersize=7)
    for words, where, offset, anchor in (
        ("median", median, (0, 6), "center"),
        ("80 %", high + 0.4, (4, -3), "left"),
    ):
        axes.annotate(
            words, (where, height), xytext=offset, textcoords="offset points", ha=anchor, fontsize=8
        )


def _size(label: Label) -> str:
    if label.lower_pct == OPEN_BIN_PCT:
        return f"over {OPEN_BIN_PCT}"
    return f"{label.lower_pct}-{label.lower_pct + 1}"
