"""Probabilities held against weeks that no training saw: a temperature, and a weight beside climatology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads scipy.optimize only where it is used

from forecaster.records import Label
from forecaster.tasks.distributions import BINS, LEAST_SHARE, PLACE, Distribution, of_log_likelihoods

LEAST_ROWS = 30
"""Two numbers fitted on fewer rows follow their chance."""
TEMPERATURES = (0.1, 100.0)
"""Below the first one the model is nearly certain, above the last one it says nothing."""
_TRIED_TEMPERATURES = 61
_DIGITS = 4


@dataclass(frozen=True)
class Calibration:
    """What a model's likelihoods of the labels are worth as probabilities."""

    temperature: float
    """The likelihoods are taken to the power of one over it: above one, the model was too sure."""
    model_weight: float
    """Share of the model in the pool, 0 to 1; the rest is climatology's."""
    climatology: Distribution
    """Of the training rows."""

    def of(self, log_likelihoods: Mapping[str, float]) -> Distribution:
        """Probabilities of the bins; raises KeyError as `of_log_likelihoods`."""
        own = of_log_likelihoods(log_likelihoods, self.temperature)
        return Distribution(
            tuple(
                self.model_weight * mine + (1 - self.model_weight) * usual
                for mine, usual in zip(own.shares, self.climatology.shares, strict=True)
            )
        )


def fit(cases: Sequence[tuple[Mapping[str, float], Label]], climatology: Distribution) -> Calibration:
    """The temperature and the weight with the highest mean log score; a linear pool as in Stone (1961, The
    Opinion Pool).

    Args:
        cases: log-likelihoods of the labels, and what happened; at least one.
    """
    logs = np.array([[of[label.text] for label in BINS] for of, _ in cases])
    actual = np.array([PLACE[label] for _, label in cases])
    usual = np.array(climatology.shares)[actual]

    def loss(log_temperature: float) -> float:
        own = _shares_of(logs, actual, float(np.exp(log_temperature)))
        weight = _best_weight(own, usual)
        return -float(np.log(weight * own + (1 - weight) * usual).mean())

    # Other than by the weight, the score need not have one peak by the temperature.
    grid = np.linspace(np.log(TEMPERATURES[0]), np.log(TEMPERATURES[1]), _TRIED_TEMPERATURES)
    best = int(np.argmin([loss(at) for at in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = scipy.optimize.minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-7})
    temperature = float(np.exp(found.x))
    weight = round(_best_weight(_shares_of(logs, actual, temperature), usual), _DIGITS)
    # Of a model that does not count, no temperature is known.
    return Calibration(round(temperature, _DIGITS) if weight else 1.0, weight, climatology)


def _shares_of(logs: np.ndarray, actual: np.ndarray, temperature: float) -> np.ndarray:
    """What each row's model gave to the bin that happened."""
    tempered = logs / temperature
    own = scipy.special.log_softmax(tempered, axis=1)[np.arange(len(actual)), actual]
    return np.maximum(np.exp(own), LEAST_SHARE)


def _best_weight(own: np.ndarray, usual: np.ndarray) -> float:
    """Where the slope of the mean log score over the weight, which falls throughout, is zero."""

    def slope(weight: float) -> float:
        return float(((own - usual) / (weight * own + (1 - weight) * usual)).mean())

    if slope(0.0) <= 0:
        return 0.0
    if slope(1.0) >= 0:
        return 1.0
    return float(scipy.optimize.brentq(slope, 0.0, 1.0, xtol=1e-9))


def spread(count: int, most: int) -> list[int]:
    """Places of at most `most` of so many rows, evenly from the first to the last."""
    kept = min(count, most)
    return [at * count // kept for at in range(kept)]
