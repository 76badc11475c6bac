"""One picture of a run: what it learned beside what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forecaster.evaluation.plots.scores import NO_READABLE_ANSWER, Bar
from forecaster.evaluation.plots.style import (
    legend_below,
    line_look,
    plain_log_axis,
    plain_numbers,
    styled,
    wrapped,
)
from forecaster.evaluation.training_log import Point, TrainingLog

_WIDTH_INCHES, _LEAST_HEIGHT_INCHES = 10.0, 4.0
_INCHES_PER_BAR, _FRAME_INCHES = 0.32, 1.6
_MODEL_SHADE, _BASELINE_SHADE = "0.3", "0.82"
_LOG_FROM_RATIO = 10


@styled()
def draw_overview(logs: Mapping[str, TrainingLog], bars: Sequence[Bar]) -> Figure:
    """Loss on the left, binary accuracy of models and baselines on the right.

    Args:
        logs: by the name of the run.
        bars: accuracies with their intervals, in the order of the lines.
    """
    height = max(_LEAST_HEIGHT_INCHES, _FRAME_INCHES + _INCHES_PER_BAR * len(bars))
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_losses(left, logs)
    _draw_bars(right, bars)
    runs = [(Line2D([], [], **line_look(place)), name) for place, name in enumerate(logs)]
    legend_below(
        figure,
        [
            *(runs if len(runs) > 1 else []),
            (Line2D([], [], color="black"), "line: training"),
            (Line2D([], [], color="black", linestyle="", marker="o"), "marker: evaluation"),
        ],
        columns=4,
        width=32,
    )
    return figure


def _draw_losses(axes: Axes, logs: Mapping[str, TrainingLog]) -> None:
    has_steps = all(point.step is not None for log in logs.values() for point in log.points)
    losses = []
    for place, log in enumerate(logs.values()):
        for values, changes in (
            ([point.loss for point in log.points], {"marker": ""}),
            ([point.eval_loss for point in log.points], {"linestyle": ""}),
        ):
            curve = _curve(log.points, has_steps, values)
            losses += [loss for _, loss in curve]
            if curve:
                look = {**line_look(place), **changes}
                axes.plot(*zip(*curve, strict=True), linewidth=1.3, markersize=4, **look)
    axes.set(xlabel="optimizer step" if has_steps else "epoch", ylabel="loss (nats per token)", title="Loss")
    if losses and min(losses) > 0 and max(losses) / min(losses) > _LOG_FROM_RATIO:
        axes.set_yscale("log")
        axes.set_ylabel("loss (nats per token), logarithmic")
        plain_log_axis(axes.yaxis)
    else:
        axes.set_ylim(0, None)
        plain_numbers(axes.yaxis)


def _curve(
    points: Sequence[Point], by_step: bool, values: Sequence[float | None]
) -> list[tuple[float, float]]:
    """Places and finite values."""
    places = [point.step if by_step else point.epoch for point in points]
    return [
        (place, value)
        for place, value in zip(places, values, strict=True)
        if place is not None and value is not None and isfinite(value)
    ]


def _draw_bars(axes: Axes, bars: Sequence[Bar]) -> None:
    for place, bar in enumerate(bars):
        shade = _BASELINE_SHADE if bar.is_baseline else _MODEL_SHADE
        axes.barh(place, bar.value or 0, height=0.66, color=shade, edgecolor="black", linewidth=0.5)
        if bar.low is not None and bar.high is not None:
            for color, width in (("white", 3.2), ("black", 1.3)):
                axes.plot([bar.low, bar.high], [place, place], color=color, linewidth=width, zorder=3)
        words = NO_READABLE_ANSWER if bar.value is None else f"{bar.value:.3f}"
        # Beside the axes, where no interval is.
        axes.text(1.02, place, words, va="center", fontsize=8, transform=axes.get_yaxis_transform())
    axes.axvline(0.5, color="black", linewidth=0.9, linestyle=":")
    axes.set_yticks(range(len(bars)), [wrapped(bar.name) for bar in bars])
    axes.tick_params(axis="y", length=0)
    axes.set(
        xlim=(0, 1),
        ylim=(max(len(bars), 1) - 0.5, -0.5),
        xlabel="share of right directions, with 95 % interval",
        title="Binary accuracy",
    )
