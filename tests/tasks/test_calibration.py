"""Temperature and weight of a model's probabilities, against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from forecaster.records import Label
from forecaster.tasks.calibration import Calibration, fit, spread
from forecaster.tasks.distributions import BINS, Distribution, climatology, log_score

UP, DOWN = Label("up", 0), Label("down", 0)
FLAT = climatology({})
Case = tuple[dict[str, float], Label]


def likely(up: float, power: float = 1.0) -> dict[str, float]:
    """Log-likelihoods of a model that knows of two bins only, each to the `power`."""
    shares = {label.text: 1e-60 for label in BINS} | {UP.text: up, DOWN.text: 1 - up}
    return {text: power * math.log(share) for text, share in shares.items()}


def honest(power: float) -> list[Case]:
    """Rows of two kinds, of which as many rise as a model says that is right but for the power."""
    return [
        *[(likely(0.8, power), UP)] * 80,
        *[(likely(0.8, power), DOWN)] * 20,
        *[(likely(0.3, power), UP)] * 30,
        *[(likely(0.3, power), DOWN)] * 70,
    ]


def test_a_model_whose_log_odds_are_doubled_has_temperature_two_and_all_the_weight() -> None:
    found = fit(honest(2.0), FLAT)
    assert found.temperature == pytest.approx(2.0, abs=1e-3)
    assert found.model_weight == 1.0
    assert found.of(likely(0.8, 2.0)).up == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize(("power", "temperature"), [(1.0, 1.0), (0.5, 0.5), (4.0, 4.0)])
def test_the_temperature_takes_back_what_the_model_multiplied(power: float, temperature: float) -> None:
    assert fit(honest(power), FLAT).temperature == pytest.approx(temperature, rel=1e-3)


def test_a_model_that_knows_nothing_has_no_weight() -> None:
    # It calls up and down in turn, and both bins happen as often as in training whatever it says.
    cases = [(likely(up), actual) for up in (0.9, 0.1) for actual in (UP, DOWN) for _ in range(25)]
    usual = Distribution(tuple(0.5 if label in (UP, DOWN) else 0.0 for label in BINS))
    found = fit(cases, usual)
    assert (found.temperature, found.model_weight) == (1.0, 0.0)
    assert found.of(likely(0.9)).shares == usual.shares


def test_a_model_that_is_right_or_knows_nothing_has_the_weight_of_its_being_right() -> None:
    # Certain of what happens in three rows of five; the others fall on all bins alike.
    def sure_of(label: Label) -> dict[str, float]:
        return {each.text: 0.0 if each == label else -1000.0 for each in BINS}

    right = [(sure_of(label), label) for label in BINS] * 3
    lost = [(sure_of(BINS[place - 6]), label) for place, label in enumerate(BINS)] * 2
    found = fit([*right, *lost], FLAT)
    # The twelfth that climatology gives to what happened is right too: w + (1 - w) / 12 is 0.6.
    assert found.model_weight == pytest.approx((0.6 - 1 / 12) / (1 - 1 / 12), abs=1e-3)


def test_the_pool_is_of_the_tempered_model_and_of_climatology() -> None:
    usual = climatology({UP: 11, DOWN: 1})  # 12/24 and 2/24, and a 24th each
    found = Calibration(2.0, 0.25, usual).of(
        {label.text: math.log(0.04 if label == UP else 0.01) for label in BINS}
    )
    # Roots: twice as much as each of eleven others.
    assert found.shares[6] == pytest.approx(0.25 * 2 / 13 + 0.75 * 0.5)
    assert found.shares[5] == pytest.approx(0.25 / 13 + 0.75 * 2 / 24)
    assert sum(found.shares) == pytest.approx(1.0)


def test_no_score_on_the_rows_of_the_fit_is_above_that_of_the_fit() -> None:
    cases = [*honest(3.0)[::3], (likely(0.8), DOWN)]
    usual = climatology({UP: 30, DOWN: 20})

    def score(calibration: Calibration) -> float:
        return sum(log_score(calibration.of(of), actual) for of, actual in cases)

    found = fit(cases, usual)
    for temperature in (0.8, 0.98, 1.02, 1.3):
        for weight in (-0.05, 0.0, 0.05):
            near = min(max(found.model_weight + weight, 0.0), 1.0)
            other = Calibration(found.temperature * temperature, near, usual)
            assert score(other) <= score(found) + 1e-6


def test_rows_are_taken_evenly() -> None:
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 4) == [0, 1, 2]
    assert spread(0, 4) == []
