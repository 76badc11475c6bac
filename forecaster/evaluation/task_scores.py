"""Figures of any task: how many answers can be read, the task's metrics, and its baselines beside them.

The weekly forecast has a scorecard of its own (`scorecard`); other tasks are scored by this.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from forecaster.evaluation.statistics import Estimate, over_weeks, share_over_weeks, wilson
from forecaster.records import Unreadable
from forecaster.tasks.base import DatasetRow, Metric, Task


@dataclass(frozen=True)
class TaskScore:
    """What one model, or a baseline, is worth."""

    name: str
    rows: int
    """Rows whose truth is known."""
    readable: Estimate
    """Share of them with an answer that can be read."""
    figures: Mapping[str, Estimate]
    """By metric: the mean over the rows with such an answer, with an interval that keeps rows of one week
    together where rows have dates."""


def score_task(
    task: Task,
    rows: Sequence[DatasetRow],
    answers: Mapping[str, Sequence[str | None]],
    training_labels: Mapping[str, int],
) -> list[TaskScore]:
    """Scores of each model, then of each baseline.

    Args:
        answers: by model, one for each row; None where there is none.
        training_labels: rows by label in training; empty where that is not known.
    """
    read: dict[str, list[Any]] = {
        model: [None if text is None else task.read(text) for text in texts]
        for model, texts in answers.items()
    }
    without_model = [task.baselines(row, training_labels) for row in rows]
    for name in dict.fromkeys(name for said in without_model for name in said):
        read[name] = [said.get(name) for said in without_model]
    truths = [task.actual(row) for row in rows]
    groups = [_group(task, row, place) for place, row in enumerate(rows)]
    return [_score(task, name, found, truths, groups) for name, found in read.items()]


def _group(task: Task, row: DatasetRow, place: int) -> Hashable:
    """Rows that start together move together; a row without a date stands alone."""
    return task.key(row).start if task.has_dates else place


def _score(
    task: Task, name: str, read: Sequence[Any], truths: Sequence[Any], groups: Sequence[Hashable]
) -> TaskScore:
    known = [
        (truth, found, group)
        for truth, found, group in zip(truths, read, groups, strict=True)
        if truth is not None
    ]
    said = [case for case in known if case[1] is not None and not isinstance(case[1], Unreadable)]
    figures = {
        metric.name: _figure(
            metric, [metric.value(truth, found) for truth, found, _ in said], [group for *_, group in said]
        )
        for metric in task.metrics
    }
    return TaskScore(name, len(known), wilson(len(said), len(known)), figures)


def _figure(metric: Metric, values: Sequence[float], groups: Sequence[Hashable]) -> Estimate:
    if metric.unit == "share":
        return share_over_weeks(values, groups)
    return over_weeks([(value, 1.0) for value in values], groups)


def scores_json(task: Task, scores: Sequence[TaskScore]) -> dict[str, Any]:
    """metrics.json of a task."""
    units = {metric.name: metric.unit for metric in task.metrics}
    return {"task": task.name, "units": units, "scores": {score.name: asdict(score) for score in scores}}


def render_scores(task: Task, scores: Sequence[TaskScore]) -> str:
    """A table, a line for each model and baseline."""
    headers = ["", "rows", "readable", *map(_title, task.metrics)]
    lines = [
        [score.name, score.rows, _cell(score.readable), *map(_cell, score.figures.values())]
        for score in scores
    ]
    return tabulate(lines, headers=headers, tablefmt="github")


def render_report(task: Task, scores: Sequence[TaskScore], title: str, rows: str) -> str:
    """report.md of a task."""
    return f"# {title}: {task.name}\n\n{rows}\n\n{render_scores(task, scores)}\n"


def figures_by_name(scores: Sequence[TaskScore]) -> dict[str, dict[str, float | None]]:
    """Of each model and baseline: the readable share and the figures, without their intervals."""
    return {
        score.name: {
            "readable": score.readable.value,
            **{name: found.value for name, found in score.figures.items()},
        }
        for score in scores
    }


def _title(metric: Metric) -> str:
    better = "higher" if metric.is_higher_better else "lower"
    return f"{metric.name} ({metric.unit}, {better} is better)"


def _cell(estimate: Estimate) -> str:
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
