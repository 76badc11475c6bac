"""Pictures of datasets, trainings and scores: the only importers of matplotlib."""

from __future__ import annotations

from forecaster.evaluation.plots.datasets import draw_dataset, draw_description
from forecaster.evaluation.plots.forecasts import draw_forecast
from forecaster.evaluation.plots.reliability import ReliabilityCurve, ReliabilityPoint, draw_reliability
from forecaster.evaluation.plots.scores import (
    Bar,
    CheckpointPoint,
    Level,
    draw_accuracy,
    draw_checkpoints,
    draw_confusion,
    draw_equity,
    draw_mse,
    draw_rouge,
    draw_shares_by_symbol,
    draw_shares_by_week,
)
from forecaster.evaluation.plots.style import save_png, save_svg, svg_text
from forecaster.evaluation.plots.training import (
    draw_loss_by_step,
    draw_loss_by_time,
    draw_schedule,
    draw_throughput,
)

__all__ = [
    "Bar",
    "CheckpointPoint",
    "Level",
    "ReliabilityCurve",
    "ReliabilityPoint",
    "draw_accuracy",
    "draw_checkpoints",
    "draw_confusion",
    "draw_dataset",
    "draw_description",
    "draw_equity",
    "draw_forecast",
    "draw_loss_by_step",
    "draw_loss_by_time",
    "draw_mse",
    "draw_reliability",
    "draw_rouge",
    "draw_schedule",
    "draw_shares_by_symbol",
    "draw_shares_by_week",
    "draw_throughput",
    "save_png",
    "save_svg",
    "svg_text",
]
