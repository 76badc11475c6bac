"""What probabilities are worth over those of a forecast without a model, by hand."""

from __future__ import annotations

import math

import pytest
from boards import DOWN_0, UP_1, rows

from forecaster.evaluation.gains import CHEAP, Gain, decisive, gain, weekly_gains
from forecaster.evaluation.price_forecasts import SCALED
from forecaster.evaluation.statistics import Estimate
from forecaster.tasks.distributions import BINS, PLACE, Distribution
from forecaster.tasks.weekly_baselines import CLIMATOLOGY
from forecaster.tasks.weekly_rows import SILENT, Forecast

ROWS = rows(("KO", 0, UP_1), ("KO", 1, DOWN_0), ("PEP", 1, UP_1))
EVEN = Forecast(distribution=Distribution((1 / 12,) * 12))


def bold(share: float) -> Forecast:
    """Half up and half down; of a rise `share` on 1-2 %."""
    shares = [0.5 / 6] * 12
    rest = 0.5 * (1 - share) / 5
    for place, label in enumerate(BINS):
        if label.direction == "up":
            shares[place] = 0.5 * share if place == PLACE[UP_1] else rest
    return Forecast(distribution=Distribution(tuple(shares)))


def test_a_gain_is_the_sum_of_its_two_parts() -> None:
    own = [bold(0.5), bold(0.5), bold(0.5)]
    found = gain(("m", own), ("even", [EVEN] * 3), ROWS)
    assert found is not None
    # Twice 1/4 for 1/12 on rises, and on the fall the same.
    assert found.log_score.value == pytest.approx(2 / 3 * math.log(3))
    assert found.direction.value == pytest.approx(0.0)
    assert found.size.value == pytest.approx(2 / 3 * math.log(3))
    assert (found.rows, found.weeks) == (3, 2)
    assert found.ranked_probability_skill.value is not None
    assert found.ranked_probability_skill.value > 0


def test_rows_without_probabilities_of_both_are_left_out() -> None:
    found = gain(("m", [bold(0.5), SILENT, bold(0.5)]), ("even", [EVEN, EVEN, SILENT]), ROWS)
    assert found is not None
    assert found.rows == 1
    assert gain(("m", [SILENT] * 3), ("even", [EVEN] * 3), ROWS) is None


def test_a_forecast_gains_nothing_over_itself() -> None:
    found = gain(("m", [EVEN] * 3), ("even", [EVEN] * 3), ROWS)
    assert found is not None
    assert (found.log_score.value, found.ranked_probability_skill.value) == (0.0, 0.0)


def test_weeks_have_the_mean_of_their_rows() -> None:
    found = weekly_gains([bold(0.5)] * 3, [EVEN] * 3, ROWS)
    assert list(found.values()) == pytest.approx([math.log(3), math.log(3) / 2])


def test_the_gain_that_decides_is_over_the_best_forecast_of_the_most_rows() -> None:
    def over(name: str, rows: int) -> Gain:
        return Gain("m", name, rows, 2, *[Estimate(0.0)] * 4)

    assert CHEAP[0] == SCALED
    both = [over(CLIMATOLOGY, 5), over(SCALED, 5)]
    assert decisive(both, "m") == both[1]
    assert decisive([over(CLIMATOLOGY, 5), over(SCALED, 4)], "m") == over(CLIMATOLOGY, 5)
    assert decisive(both, "other") is None
