"""What anyone forecasts without a model."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forecaster.records import Direction, Label, Row
from forecaster.tasks.distributions import Distribution, climatology
from forecaster.tasks.weekly_rows import SILENT, Forecast, label_counts

ALWAYS_UP, ALWAYS_DOWN = "always up (hindsight)", "always down (hindsight)"
"""Which of the two is right more often is known only afterwards."""
MAJORITY, LAST_WEEK, ZERO, COIN = "training majority", "last week again", "zero forecast", "coin"
CLIMATOLOGY, SYMBOL_CLIMATOLOGY = "climatology", "climatology by symbol"
"""How often each bin happened in training: over all rows, and over those of the symbol."""
TEXT = "TF-IDF, logistic regression"
"""A classifier of words, fitted to the prompts of the training rows."""


@dataclass(frozen=True)
class Training:
    """What the training rows tell anyone, without a model."""

    labels: Mapping[Label, int] = field(default_factory=dict)
    """Rows by label."""
    by_symbol: Mapping[str, Mapping[Label, int]] = field(default_factory=dict)
    """The same of each symbol; empty where that is not known."""
    text_forecasts: Mapping[str, Distribution] = field(default_factory=dict)
    """What the classifier of words says of test rows, by their ids; empty where the rows are not at hand."""

    @classmethod
    def of_counts(
        cls, labels: Mapping[str, int], by_symbol: Mapping[str, Mapping[str, int]] | None = None
    ) -> Training:
        """From rows by the label's text, as a run's record has them."""
        found = {symbol: label_counts(of) for symbol, of in (by_symbol or {}).items()}
        return cls(label_counts(labels), found)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Training:
        """From dataset.json of a run; those of former versions do not count by symbol."""
        return cls.of_counts(record["training_labels"], record.get("training_labels_by_symbol"))

    @property
    def direction(self) -> Direction:
        """The one that most rows took; a tie goes up."""
        ups = sum(count for label, count in self.labels.items() if label.direction == "up")
        return "up" if 2 * ups >= sum(self.labels.values()) else "down"


def baselines(rows: Sequence[Row], training: Training | None, *, seed: int = 0) -> dict[str, list[Forecast]]:
    """Forecasts of the rows, by baseline.

    Args:
        training: None where nothing is known of it, and then there is no majority and no climatology.
        seed: of the coin, which falls the same way for the same row in every run.
    """
    found = {
        ALWAYS_UP: [Forecast("up")] * len(rows),
        ALWAYS_DOWN: [Forecast("down")] * len(rows),
        LAST_WEEK: [Forecast.of_label(row.last_week) if row.last_week else SILENT for row in rows],
        ZERO: [Forecast(size_pct=0.0)] * len(rows),
        COIN: [_coin(row, seed) for row in rows],
    }
    if training is None or not training.labels:
        return found
    usual = climatology(training.labels)
    found[majority_name(training)] = [Forecast(training.direction)] * len(rows)
    found[CLIMATOLOGY] = [Forecast(distribution=usual)] * len(rows)
    if training.by_symbol:
        of_symbol = {symbol: symbol_climatology(training, symbol) for symbol in {row.symbol for row in rows}}
        found[SYMBOL_CLIMATOLOGY] = [Forecast(distribution=of_symbol[row.symbol]) for row in rows]
    if training.text_forecasts:
        said = [training.text_forecasts.get(row.row_id) for row in rows]
        found[TEXT] = [Forecast.of_distribution(given) if given else SILENT for given in said]
    return found


def symbol_climatology(training: Training, symbol: str) -> Distribution:
    """How often each bin happened to a symbol in training, leaning on how often it did to all."""
    return climatology(training.by_symbol.get(symbol.strip().upper(), {}), climatology(training.labels))


def majority_name(training: Training) -> str:
    """Of the baseline that always forecasts the direction of most training rows."""
    return f"{MAJORITY} ({training.direction})"


def _coin(row: Row, seed: int) -> Forecast:
    return Forecast(random.Random(f"{seed} {row.row_id}").choice(("up", "down")))
