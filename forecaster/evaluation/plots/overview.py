"""One picture of a run: what it learned beside what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from forecaster.evaluation.plots.scores import Bar, draw_accuracy_on
from forecaster.evaluation.plots.style import legend_below, line_look, styled
from forecaster.evaluation.plots.training import LOSS_KINDS, draw_loss_on
from forecaster.evaluation.training_log import TrainingLog

_WIDTH_INCHES, _LEAST_HEIGHT_INCHES = 10.0, 4.0
_INCHES_PER_BAR, _FRAME_INCHES = 0.32, 1.6


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
    draw_loss_on(left, logs)
    draw_accuracy_on(right, bars)
    runs = [(Line2D([], [], **line_look(place)), name) for place, name in enumerate(logs)]
    legend_below(figure, [*(runs if len(runs) > 1 else []), *LOSS_KINDS], columns=4, width=32)
    return figure
