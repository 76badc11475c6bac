"""Forecasts as probabilities of the twelve bins, and how well they meet what happened."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forecaster.records import ALL_LABELS, Label

BINS: tuple[Label, ...] = tuple(sorted(ALL_LABELS, key=lambda label: label.midpoint_pct))
"""The twelve bins from the strongest fall to the strongest rise; neighbours are one bin apart."""
PLACE = {label: place for place, label in enumerate(BINS)}
_FIRST_UP = next(place for place, label in enumerate(BINS) if label.direction == "up")
LEAST_SHARE = 1e-9
"""A bin that was given nothing is scored as if it had been given this: one row must not decide a mean."""


@dataclass(frozen=True)
class Distribution:
    """Probabilities of `BINS`, in their order; they sum to one."""

    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.shares) != len(BINS) or not all(share >= 0 for share in self.shares):
            raise ValueError(f"not {len(BINS)} probabilities: {self.shares}")
        if not math.isclose(sum(self.shares), 1.0, abs_tol=1e-6):
            raise ValueError(f"probabilities that sum to {sum(self.shares)}")

    @property
    def up(self) -> float:
        """Probability of a rise."""
        return sum(self.shares[_FIRST_UP:])

    @property
    def median(self) -> Label:
        """The bin in which the middle of the probability lies."""
        return self.quantile(0.5)

    def quantile(self, share: float) -> Label:
        """The first bin up to which at least `share` of the probability lies."""
        reached = 0.0
        for label, of_bin in zip(BINS, self.shares, strict=True):
            reached += of_bin
            if reached >= share - 1e-12:
                return label
        return BINS[-1]

    def central(self, share: float) -> tuple[Label, Label]:
        """Lowest and highest bin of the central range that holds at least `share`."""
        return self.quantile((1 - share) / 2), self.quantile((1 + share) / 2)


def label_mass(log_likelihoods: Mapping[str, float]) -> float:
    """What the twelve labels have of everything that a model could have written in their place, 0 to 1."""
    return math.fsum(map(math.exp, log_likelihoods.values()))


def of_log_likelihoods(log_likelihoods: Mapping[str, float], temperature: float = 1.0) -> Distribution:
    """The labels' likelihoods, each to the power of one over `temperature`, made to sum to one.

    Raises:
        KeyError: not one of each of the twelve labels.
    """
    logs = [log_likelihoods[label.text] / temperature for label in BINS]
    highest = max(logs)
    weights = [math.exp(log - highest) for log in logs]
    total = math.fsum(weights)
    return Distribution(tuple(weight / total for weight in weights))


def mean_of(given: Sequence[Distribution]) -> Distribution:
    """The mean of at least one distribution, bin by bin."""
    return Distribution(
        tuple(math.fsum(shares) / len(given) for shares in zip(*(d.shares for d in given), strict=True))
    )


# --- scores -------------------------------------------------------------------------------------------------


def log_score(forecast: Distribution, actual: Label) -> float:
    """Log-likelihood of what happened, in nats; 0 for certainty, log(1/12) for no idea. More is better."""
    return math.log(max(forecast.shares[PLACE[actual]], LEAST_SHARE))


def direction_log_score(forecast: Distribution, actual: Label) -> float:
    """The part of `log_score` that the direction has: log P(direction); the rest is the size's, given it."""
    given = forecast.up if actual.direction == "up" else 1.0 - forecast.up
    return math.log(max(given, LEAST_SHARE))


def ranked_probability_score(forecast: Distribution, actual: Label) -> float:
    """Mean squared difference of the two cumulative distributions at the eleven borders between bins (Epstein
    1969, A Scoring System for Probability Forecasts of Ranked Categories). 0 is best, 1 worst."""
    reached, total = 0.0, 0.0
    for place, share in enumerate(forecast.shares[:-1]):
        reached += share
        total += (reached - (place >= PLACE[actual])) ** 2
    return total / (len(BINS) - 1)


def brier_score_of_up(forecast: Distribution, actual: Label) -> float:
    """Squared difference of P(up) and whether it rose (Brier 1950). 0 is best, 0.25 a coin."""
    return (forecast.up - (actual.direction == "up")) ** 2


# --- what is known without a model --------------------------------------------------------------------------


def climatology(counts: Mapping[Label, int], before: Distribution | None = None) -> Distribution:
    """How often each bin happened, so that none is impossible: with as many rows more as there are bins, in
    the shares of what is known before.

    Args:
        counts: rows by label.
        before: None: all bins alike.
    """
    shares = before.shares if before else (1 / len(BINS),) * len(BINS)
    total = sum(counts.values()) + len(BINS)
    return Distribution(
        tuple(
            (counts.get(label, 0) + len(BINS) * share) / total
            for label, share in zip(BINS, shares, strict=True)
        )
    )
