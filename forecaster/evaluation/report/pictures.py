"""Which pictures a scoreboard has, and what they show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from forecaster.evaluation import plots
from forecaster.evaluation.metrics import Skill
from forecaster.evaluation.plots.overview import draw_overview
from forecaster.evaluation.reliability import reliability, up_probabilities
from forecaster.evaluation.scorecard import ModelScorecard, Scoreboard
from forecaster.evaluation.statistics import Estimate
from forecaster.tasks.weekly_baselines import ALWAYS_DOWN, ALWAYS_UP, ZERO


@dataclass(frozen=True)
class Drawing:
    """How a picture is made, and what it shows."""

    title: str
    caption: str
    draw: Callable[[], Any]
    """Gives the figure."""


def drawings(board: Scoreboard) -> dict[str, Drawing]:
    """Pictures by slug; only those that have something to show."""
    found = _of_trainings(board) if board.logs else {}
    if board.models:
        found |= _of_figures(board) | _of_rows(board)
    if board.models and board.logs:
        found["overview"] = Drawing(
            "Loss and binary accuracy",
            "What the training learned, beside what it is worth. Models dark, baselines light.",
            lambda: draw_overview(board.logs, _bars(board, _accuracy)),
        )
    if board.checkpoints:
        found["checkpoints"] = Drawing(
            "Checkpoints",
            "On the validation rows; an unreadable answer is wrong.",
            lambda: plots.draw_checkpoints(_checkpoint_points(board), board.best_step, _levels(board)),
        )
    return found


def _of_trainings(board: Scoreboard) -> dict[str, Drawing]:
    logs = board.logs
    return {
        "loss_by_step": Drawing(
            "Loss by step",
            "Loss of training and of evaluation. Where it falls far, a second panel shows the later part.",
            lambda: plots.draw_loss_by_step(logs),
        ),
        "loss_by_time": Drawing(
            "Loss by time",
            "The same over the time since the training began.",
            lambda: plots.draw_loss_by_time(logs),
        ),
        "schedule": Drawing(
            "Learning rate and gradient",
            "Learning rate, and the norm of the gradient before it is clipped.",
            lambda: plots.draw_schedule(logs),
        ),
        "throughput": Drawing(
            "Speed of training and evaluation",
            "As the training logged it.",
            lambda: plots.draw_throughput(logs),
        ),
    }


def _of_figures(board: Scoreboard) -> dict[str, Drawing]:
    """One picture a figure, all models in it."""
    found = {
        "accuracy": Drawing(
            "Binary accuracy",
            "Over all rows: one without a readable forecast is wrong. Models dark, baselines light.",
            lambda: plots.draw_accuracy(_bars(board, _accuracy), _actual_note(board)),
        ),
        "mse": Drawing(
            "Mean squared error",
            "Of readable forecasts. The zero forecast says that nothing moves.",
            lambda: plots.draw_mse(_bars(board, lambda skill: skill.mse)),
        ),
    }
    if any(model.rouge for model in board.models):
        found["rouge"] = Drawing(
            "Overlap with the reference answers",
            "Mean ROUGE F-measure of the answers that this project's parser reads.",
            lambda: plots.draw_rouge({model.name: model.rouge for model in board.models}),
        )
    return found


def _of_rows(board: Scoreboard) -> dict[str, Drawing]:
    """One panel a model; none for a model that cannot be read."""
    models = [model for model in board.models if model.valid_count]
    found = {}
    if models:
        found["confusion"] = Drawing(
            "Forecast against outcome",
            "Rows by actual and predicted bin: right ones stand on the diagonal, right directions in the two "
            "quarters that it passes.",
            lambda: plots.draw_confusion({model.name: model.confusion for model in models}),
        )
    if any(model.by_symbol for model in models):
        found["by_symbol"] = Drawing(
            "By symbol",
            "Right directions and rows of each symbol. It has few rows: most of what differs is chance.",
            lambda: plots.draw_shares_by_symbol({model.name: model.by_symbol for model in models}),
        )
    if any(model.by_week for model in models):
        found["by_week"] = Drawing(
            "By week",
            "Share of right directions, in front of the share of rows that rose.",
            lambda: plots.draw_shares_by_week(
                {model.name: model.by_week for model in models}, _up_share_by_week(board)
            ),
        )
    if curves := {model.name: of for model in models if (of := _reliability(board, model))}:
        found["reliability"] = Drawing(
            "Reliability",
            "Share of rows that rose, over the P(up) that they were given, in groups of about as many rows; "
            "bars are 95 % intervals over weeks. On the dotted line, rises come as often as said. Below, how "
            "many rows have which P(up).",
            lambda: plots.draw_reliability(curves),
        )
    if any(model.backtest for model in models):
        found["equity"] = Drawing(
            "Capital",
            f"After costs of {board.cost_bps:g} basis points. A line within the band is no better than the "
            "same directions shuffled.",
            lambda: plots.draw_equity({model.name: model.backtest for model in models}),
        )
    return found


def _reliability(board: Scoreboard, model: ModelScorecard) -> dict[str, plots.ReliabilityCurve]:
    """Raw and calibrated; empty where a model gave no probabilities."""
    found = {}
    for kind, card in (("raw", model), ("calibrated", model.calibrated)):
        if card and (groups := reliability(card.forecasts, board.rows)):
            points = [
                plots.ReliabilityPoint(group.up, group.rose.value, group.rose.low, group.rose.high)
                for group in groups
                if group.rose.value is not None
            ]
            found[kind] = plots.ReliabilityCurve(points, up_probabilities(card.forecasts, board.rows))
    return found


def _accuracy(skill: Skill) -> Estimate:
    """Over all rows; none where no direction is named, which would be drawn as a share of zero."""
    return skill.accuracy_of_all_rows if skill.bin_acc.value is not None else Estimate(None)


def _bars(board: Scoreboard, figure_of: Callable[[Skill], Estimate]) -> list[plots.Bar]:
    """Models, and behind them the baselines that have the figure."""
    cards = [*board.models, *(line for line in board.baselines if figure_of(line.skill).value is not None)]
    return [
        plots.Bar(card.name, figure.value, figure.low, figure.high, not isinstance(card, ModelScorecard))
        for card in cards
        for figure in [figure_of(card.skill)]
    ]


def _actual_note(board: Scoreboard) -> str:
    up = board.models[0].skill.actual_up_share.value
    return "" if up is None else f"the market rose in {up:.1%} of the rows"


def _up_share_by_week(board: Scoreboard) -> dict[Any, float]:
    """Share of rises: what is right of a forecast that always says so."""
    by_week = next((line.by_week for line in board.baselines if line.name == ALWAYS_UP), {})
    return {week: right / rows for week, (right, rows) in by_week.items()}


def _levels(board: Scoreboard) -> list[plots.Level]:
    """The baselines that forecast one thing for all rows."""
    return [
        plots.Level(name, figures.bin_acc.value, figures.mse.value)
        for name, figures in board.checkpoint_baselines.items()
        if name in (ALWAYS_UP, ALWAYS_DOWN, ZERO)
    ]


def _checkpoint_points(board: Scoreboard) -> list[plots.CheckpointPoint]:
    return [
        plots.CheckpointPoint(
            step=score.step,
            bin_acc=score.skill.accuracy_of_all_rows.value,
            mse=score.skill.mse.value,
            coverage=score.skill.coverage.value,
        )
        for score in board.checkpoints
    ]
