"""A board in Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from forecaster import tracking
from forecaster.evaluation.report import pages
from forecaster.evaluation.scorecard import Scoreboard


def log_board(board: Scoreboard, pictures: Mapping[str, Path]) -> None:
    """Figures, tables and pictures into the W&B run that `tracking` has open."""
    for model, figures in pages.metrics_json(board)["models"].items():
        tracking.log_summary(f"benchmark/{model}", figures)
    for name, table in pages.tables(board).items():
        tracking.log_table(f"benchmark/{name}", table.columns, table.rows)
    for name, path in pictures.items():
        tracking.log_image(f"benchmark/{name}", path)
