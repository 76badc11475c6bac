"""What anyone forecasts without a model."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from forecaster.records import Label, Row
from forecaster.tasks.distributions import climatology
from forecaster.tasks.weekly_rows import SILENT, Forecast

ALWAYS_UP, ALWAYS_DOWN, MAJORITY = "always up", "always down", "training majority"
LAST_WEEK, ZERO, COIN = "last week again", "zero forecast", "coin"
CLIMATOLOGY = "climatology"
"""How often each bin happened in training."""


def baselines(
    rows: Sequence[Row], training_labels: Mapping[Label, int] | None, *, seed: int = 0
) -> dict[str, list[Forecast]]:
    """Forecasts of the rows, by baseline.

    Args:
        training_labels: rows by label in training; None where that is not known, and then there is no
            majority and no climatology.
        seed: of the coin, which falls the same way for the same row in every run.
    """
    found = {
        ALWAYS_UP: [Forecast("up")] * len(rows),
        ALWAYS_DOWN: [Forecast("down")] * len(rows),
        LAST_WEEK: [Forecast.of_label(row.last_week) if row.last_week else SILENT for row in rows],
        ZERO: [Forecast(size_pct=0.0)] * len(rows),
        COIN: [_coin(row, seed) for row in rows],
    }
    if training_labels:
        most = max(sorted(training_labels), key=lambda label: training_labels[label])
        found[f"{MAJORITY} ({most.text})"] = [Forecast.of_label(most)] * len(rows)
        found[CLIMATOLOGY] = [Forecast(distribution=climatology(training_labels))] * len(rows)
    return found


def _coin(row: Row, seed: int) -> Forecast:
    return Forecast(random.Random(f"{seed} {row.row_id}").choice(("up", "down")))
