"""Probabilities of bins and their scores, against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from forecaster.records import Label
from forecaster.tasks import distributions
from forecaster.tasks.distributions import BINS, Distribution

HIGHEST_DOWN, LOWEST_UP = Label("down", 0), Label("up", 0)
EVEN = Distribution((1 / 12,) * 12)


def at(**shares: float) -> Distribution:
    """By bin, such as `up_2` or `down_0`."""
    return Distribution(tuple(shares.get(f"{b.direction}_{b.lower_pct}", 0.0) for b in BINS))


def test_bins_stand_from_the_strongest_fall_to_the_strongest_rise() -> None:
    assert [label.text for label in BINS][:2] == ["down by more than 5%", "down by 4-5%"]
    assert [label.text for label in BINS][5:7] == ["down by 0-1%", "up by 0-1%"]


def test_likelihoods_become_probabilities_of_the_labels_alone() -> None:
    logs = {label.text: math.log(0.05) for label in BINS} | {"up by 2-3%": math.log(0.25)}
    assert distributions.label_mass(logs) == pytest.approx(0.8)
    found = distributions.of_log_likelihoods(logs)
    assert found.shares[8] == pytest.approx(0.25 / 0.8)
    assert found.up == pytest.approx(0.5 / 0.8)
    # Twice the temperature: the root of each.
    cooler = distributions.of_log_likelihoods(logs, temperature=2.0)
    root = math.sqrt(5)
    assert cooler.shares[8] == pytest.approx(root / (11 + root))


def test_likelihoods_too_small_for_a_float_keep_their_proportion() -> None:
    logs = {label.text: -2000.0 for label in BINS} | {"down by 1-2%": -1999.0}
    found = distributions.of_log_likelihoods(logs)
    assert found.shares[4] == pytest.approx(math.e / (11 + math.e))
    assert distributions.label_mass(logs) == 0.0


def test_median_and_central_range() -> None:
    found = at(down_1=0.15, down_0=0.2, up_0=0.3, up_1=0.25, up_4=0.1)
    assert found.median == Label("up", 0)
    assert found.central(0.8) == (Label("down", 1), Label("up", 1))
    assert at(up_3=1.0).central(0.8) == (Label("up", 3), Label("up", 3))
    assert at(down_0=0.5, up_0=0.5).median == HIGHEST_DOWN


def test_log_score_and_its_two_parts() -> None:
    found = at(down_0=0.4, up_0=0.45, up_1=0.15)
    assert distributions.log_score(found, LOWEST_UP) == pytest.approx(math.log(0.45))
    assert distributions.direction_log_score(found, LOWEST_UP) == pytest.approx(math.log(0.6))
    assert distributions.direction_log_score(found, HIGHEST_DOWN) == pytest.approx(math.log(0.4))
    assert distributions.log_score(EVEN, LOWEST_UP) == pytest.approx(-2.4849066)
    assert distributions.log_score(found, Label("up", 5)) == pytest.approx(math.log(1e-9))


def test_ranked_probability_score_by_hand() -> None:
    # Half at the border's two sides, and it was the lower one: one border of eleven is off by a half.
    assert distributions.ranked_probability_score(at(down_0=0.5, up_0=0.5), HIGHEST_DOWN) == pytest.approx(
        0.25 / 11
    )
    assert distributions.ranked_probability_score(at(up_2=1.0), Label("up", 2)) == 0.0
    assert distributions.ranked_probability_score(at(down_5=1.0), Label("up", 5)) == pytest.approx(1.0)
    # Even: sum over k = 1..11 of ((k / 12) - 1) ** 2, as the first bin happened.
    expected = sum((k / 12 - 1) ** 2 for k in range(1, 12)) / 11
    assert distributions.ranked_probability_score(EVEN, BINS[0]) == pytest.approx(expected)


def test_brier_score_of_a_rise() -> None:
    assert distributions.brier_score_of_up(at(up_0=0.8, down_0=0.2), LOWEST_UP) == pytest.approx(0.04)
    assert distributions.brier_score_of_up(EVEN, HIGHEST_DOWN) == pytest.approx(0.25)


def test_climatology_counts_and_leaves_no_bin_impossible() -> None:
    found = distributions.climatology({LOWEST_UP: 9, HIGHEST_DOWN: 3})
    assert found.shares[6] == pytest.approx((9 + 1) / 24)
    assert found.shares[0] == pytest.approx(1 / 24)


@pytest.mark.parametrize("shares", [(1.0,), (0.5,) * 12, (-0.1, 1.1, *(0.0,) * 10), (math.nan, *(0.1,) * 11)])
def test_what_is_no_distribution_is_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        Distribution(shares)
