"""Pictures of trainings: loss, schedule and speed, of one run or of several side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, nan

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forecaster.evaluation.plots.style import (
    NOT_RECORDED,
    fill_look,
    legend_below,
    line_look,
    number,
    plain_log_axis,
    plain_numbers,
    say,
    styled,
    wrapped,
)
from forecaster.evaluation.training_log import Point, TrainingLog

_LOSS_UNIT = "loss (nats per token)"
_WIDTH_INCHES = 10.0
_CLOSE_UP_FROM_RATIO = 4
"""A loss that falls by more than this has a second panel, in which its later part can be read."""
_CLOSE_UP_SHARE = 0.75
"""Last part of each curve that the second panel makes room for."""
_LOG_FROM_RATIO, _GRAD_NORM_LOG_FROM_RATIO = 10, 100
_HOURS_FROM_S = 2 * 3600
_MOST_MARKERS = 30
_INCHES_PER_BAR, _PANEL_FRAME_INCHES = 0.34, 0.85

Where = Callable[[Point], float | None]


@dataclass(frozen=True)
class _Axis:
    """What the pictures of one kind have from left to right."""

    name: str
    label: str
    where: Where


def draw_loss_by_step(logs: Mapping[str, TrainingLog]) -> Figure:
    """Loss over optimizer steps, or over epochs where a log holds no steps.

    Args:
        logs: by the name of the run.
    """
    return _draw_loss(logs, _step_axis(logs))


def draw_loss_by_time(logs: Mapping[str, TrainingLog]) -> Figure:
    """Loss over the time since the training began."""
    longest_s = max((p.elapsed_s or 0.0 for log in logs.values() for p in log.points), default=0.0)
    unit, unit_s = _time_unit(longest_s)
    estimated = [name for name, log in logs.items() if log.elapsed_is_estimated]
    # Where only some are estimated, their names say so.
    note = " (time estimated)" if len(estimated) == len(logs) > 0 else ""
    named = {f"{n} (time estimated)" if n in estimated and not note else n: log for n, log in logs.items()}
    label = f"training time in {unit}{note}"
    axis = _Axis("time", label, lambda p: None if p.elapsed_s is None else p.elapsed_s / unit_s)
    return _draw_loss(named, axis)


@styled()
def draw_schedule(logs: Mapping[str, TrainingLog]) -> Figure:
    """Learning rate and gradient norm, one beside the other."""
    axis = _step_axis(logs)
    figure = Figure(figsize=(_WIDTH_INCHES, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    rates = _curves(logs, axis.where, lambda p: p.learning_rate)
    norms = _curves(logs, axis.where, lambda p: p.grad_norm)
    for axes, curves, label in ((left, rates, "learning rate"), (right, norms, "norm of the gradient")):
        low, high = _range(curves)
        _draw_curves(axes, curves)
        axes.set(xlabel=axis.label, ylabel=label, title=label.capitalize())
        if not _any_point(curves):
            say(axes, NOT_RECORDED)
        elif axes is right and low > 0 and high / low > _GRAD_NORM_LOG_FROM_RATIO:
            axes.set_yscale("log")
            axes.set_ylabel(f"{label} (logarithmic)")
            plain_log_axis(axes.yaxis)
        else:
            axes.set_ylim(0, high * 1.08 if high > 0 else 1)
            plain_numbers(axes.yaxis)
    legend_below(figure, _run_entries(rates, norms), columns=3)
    return figure


@styled()
def draw_throughput(logs: Mapping[str, TrainingLog]) -> Figure:
    """Bars of speed and of the last evaluation's loss: one panel a figure, one bar a run."""
    longest_s = max((log.train_runtime_s or 0.0 for log in logs.values()), default=0.0)
    unit, unit_s = _time_unit(longest_s)
    panels: list[tuple[str, str, Callable[[TrainingLog], float | None]]] = [
        ("Training speed", "optimizer steps per second", lambda log: log.train_steps_per_s),
        ("Training speed", "rows per second", lambda log: log.train_samples_per_s),
        (
            "Training time",
            unit,
            lambda log: None if log.train_runtime_s is None else log.train_runtime_s / unit_s,
        ),
        ("Evaluation speed", "batches per second", lambda log: log.eval_steps_per_s),
        ("Evaluation speed", "rows per second", lambda log: log.eval_samples_per_s),
        ("Last evaluation", _LOSS_UNIT, lambda log: log.last_eval_loss),
    ]
    height = 2 * (_PANEL_FRAME_INCHES + _INCHES_PER_BAR * max(len(logs), 2))
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    grid = figure.subplots(2, 3, sharey=True)
    for axes, (title, label, value_of) in zip(grid.flat, panels, strict=True):
        _draw_bars(axes, [value_of(log) for log in logs.values()])
        axes.set(title=title, xlabel=label)
    for axes in grid[:, 0]:
        axes.set_yticks(range(len(logs)), [wrapped(name) for name in logs])
        axes.set_ylim(max(len(logs), 1) - 0.5, -0.5)
    return figure


# --- curves -------------------------------------------------------------------------------------------------

Curve = list[tuple[float, float]]

LOSS_KINDS = (
    (Line2D([], [], color="black", linewidth=1.3), "line: training"),
    (Line2D([], [], color="black", linestyle="", marker="o", markersize=4), "marker: evaluation"),
)
"""Legend entries of a picture of losses."""


@styled()
def _draw_loss(logs: Mapping[str, TrainingLog], axis: _Axis) -> Figure:
    training, evaluation = (_curves(logs, axis.where, value) for value in (_loss, _eval_loss))
    low, high = _range_of_losses(training, evaluation)
    has_close_up = low > 0 and high / low > _CLOSE_UP_FROM_RATIO
    figure = Figure(figsize=(_WIDTH_INCHES, 4.4), layout="constrained")
    panels = [figure.subplots()] if not has_close_up else list(figure.subplots(1, 2))
    title = f"Loss by {axis.name}"
    for axes in panels:
        _draw_losses(axes, training, evaluation, axis, title)
    if has_close_up:
        panels[0].set_title(f"{title}: whole run")
        panels[1].set_title(f"{title}: the last {_CLOSE_UP_SHARE:.0%}, closer up")
        left, low_limit, high_limit = _later_part([[*training[name], *evaluation[name]] for name in logs])
        panels[1].set(xlim=(left, None), ylim=(low_limit, high_limit))
    _scale_losses(panels[0], low, high)
    if not (_any_point(training) or _any_point(evaluation)):
        say(panels[0], NOT_RECORDED)
    legend_below(figure, [*_run_entries(training, evaluation), *LOSS_KINDS], columns=3)
    return figure


def draw_loss_on(axes: Axes, logs: Mapping[str, TrainingLog]) -> None:
    """Training and evaluation loss by step in a panel of a larger picture, which has the legend."""
    axis = _step_axis(logs)
    training, evaluation = (_curves(logs, axis.where, value) for value in (_loss, _eval_loss))
    _draw_losses(axes, training, evaluation, axis, "Loss")
    _scale_losses(axes, *_range_of_losses(training, evaluation))


def _draw_losses(
    axes: Axes, training: Mapping[str, Curve], evaluation: Mapping[str, Curve], axis: _Axis, title: str
) -> None:
    _draw_curves(axes, training, markers=False)
    _draw_curves(axes, evaluation, line=False)
    axes.set(xlabel=axis.label, ylabel=_LOSS_UNIT, title=title)


def _scale_losses(axes: Axes, low: float, high: float) -> None:
    if low > 0 and high / low > _LOG_FROM_RATIO:
        axes.set_yscale("log")
        axes.set_ylabel(f"{_LOSS_UNIT}, logarithmic")
        plain_log_axis(axes.yaxis)


def _range_of_losses(training: Mapping[str, Curve], evaluation: Mapping[str, Curve]) -> tuple[float, float]:
    return _range({**training, **{f"{name}\n": curve for name, curve in evaluation.items()}})


def _loss(point: Point) -> float | None:
    return point.loss


def _eval_loss(point: Point) -> float | None:
    return point.eval_loss


def _step_axis(logs: Mapping[str, TrainingLog]) -> _Axis:
    if all(point.step is not None for log in logs.values() for point in log.points):
        return _Axis("step", "optimizer step", lambda p: p.step)
    return _Axis("epoch", "epoch", lambda p: p.epoch)


def _time_unit(longest_s: float) -> tuple[str, float]:
    return ("hours", 3600.0) if longest_s >= _HOURS_FROM_S else ("minutes", 60.0)


def _curves(
    logs: Mapping[str, TrainingLog], where: Where, value_of: Callable[[Point], float | None]
) -> dict[str, Curve]:
    """The points of each run that have both a place and a value; what is not finite is NaN, a gap."""
    found: dict[str, Curve] = {}
    for name, log in logs.items():
        pairs = [(where(point), value_of(point)) for point in log.points]
        found[name] = [
            (x, y if isfinite(y) else nan)
            for x, y in pairs
            if x is not None and y is not None and isfinite(x)
        ]
    return found


def _draw_curves(axes: Axes, curves: Mapping[str, Curve], line: bool = True, markers: bool = True) -> None:
    for place, curve in enumerate(curves.values()):
        if curve:
            look = line_look(place)
            if not line:
                look["linestyle"] = ""
            elif markers:
                look["markevery"] = ceil(len(curve) / _MOST_MARKERS)
            else:
                look |= {"marker": ".", "markevery": _alone(curve)}
            axes.plot(*zip(*curve, strict=True), markersize=4, linewidth=1.3, **look)


def _alone(curve: Curve) -> list[int]:
    """Places of the points between two gaps, which no line shows."""
    known = [False, *(isfinite(y) for _, y in curve), False]
    return [at for at in range(len(curve)) if known[at + 1] and not known[at] and not known[at + 2]]


def _range(curves: Mapping[str, Curve]) -> tuple[float, float]:
    """Smallest and largest value; 0 and 0 where there is none."""
    values = [y for curve in curves.values() for _, y in curve if isfinite(y)]
    return (min(values), max(values)) if values else (0.0, 0.0)


def _any_point(curves: Mapping[str, Curve]) -> bool:
    return any(isfinite(y) for curve in curves.values() for _, y in curve)


def _later_part(runs: Sequence[Curve]) -> tuple[float, float, float]:
    """Left, lower and upper limit that show the last part of every run, with some room."""
    starts = [(1 - _CLOSE_UP_SHARE) * max(x for x, _ in run) for run in runs if run]
    parts = zip(starts, filter(None, runs), strict=True)
    values = [y for start, run in parts for x, y in run if x >= start and isfinite(y)]
    if not values:
        return 0.0, 0.0, 1.0
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return min(starts), low - room, high + room


def _run_entries(*panels: Mapping[str, Curve]) -> list[tuple[Line2D, str]]:
    """Line and name of each run, and what of it could not be drawn."""
    entries = []
    for place, name in enumerate(panels[0]):
        values = [y for curves in panels for _, y in curves[name]]
        lost = sum(not isfinite(y) for y in values)
        note = f" ({lost} not finite)" if lost else "" if values else f" ({NOT_RECORDED})"
        entries.append((Line2D([], [], markersize=4, linewidth=1.3, **line_look(place)), f"{name}{note}"))
    return entries


# --- bars ---------------------------------------------------------------------------------------------------


def _draw_bars(axes: Axes, values: Sequence[float | None]) -> None:
    known = [value for value in values if value is not None and isfinite(value)]
    axes.tick_params(axis="y", length=0)
    if not known:
        say(axes, NOT_RECORDED, has_scale=True)
        axes.set_xticks([])
        return
    for place, value in enumerate(values):
        if value is not None and isfinite(value):
            axes.barh(place, value, height=0.62, **fill_look(place))
        axes.annotate(
            NOT_RECORDED if value is None else number(value),
            (value if value is not None and isfinite(value) else 0, place),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(0, max(known) * 1.28 or 1)
    axes.locator_params(axis="x", nbins=4)
