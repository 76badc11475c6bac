"""What anyone scores without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forecaster.evaluation.metrics import mean_squared_error
from forecaster.records import Label


@dataclass(frozen=True)
class Baseline:
    name: str
    bin_acc: float | None
    """None where the baseline names no direction."""
    mse: float | None
    """None where the baseline names no size."""


def baselines(actual: Sequence[Label], training_labels: Mapping[Label, int]) -> list[Baseline]:
    """Always up, always down, the most frequent training label, and the zero forecast, on the test rows."""
    majority = max(sorted(training_labels), key=lambda label: training_labels[label])
    share_up = sum(label.direction == "up" for label in actual) / len(actual)
    return [
        Baseline("always up", share_up, None),
        Baseline("always down", 1 - share_up, None),
        Baseline(
            f"training majority ({majority.text})",
            share_up if majority.direction == "up" else 1 - share_up,
            mean_squared_error([(majority.midpoint_pct, label) for label in actual]),
        ),
        Baseline("zero forecast", None, mean_squared_error([(0.0, label) for label in actual])),
    ]
