"""Weekly rank correlations, their test, and what a test set could have seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from forecaster.evaluation import ranks


def test_each_week_is_ranked_on_its_own() -> None:
    # The second week lies far above the first: across weeks the order would be right, within them it is not.
    found = ranks.weekly_rank_correlations(
        [1, 2, 3, 11, 12, 13], [0.1, 0.2, 0.4, 7.0, 6.0, 5.0], ["a", "a", "a", "b", "b", "b"]
    )
    assert found == pytest.approx({"a": 1.0, "b": -1.0})


def test_a_week_by_hand_and_by_scipy() -> None:
    said, came = [0.5, 0.1, 0.3, 0.3], [2.0, -1.0, 0.0, 1.0]
    # Ranks 4, 1, 2.5, 2.5 and 4, 1, 2, 3: covariance 4.5 of 4.5 and 5 squares.
    expected = 4.5 / math.sqrt(4.5 * 5)
    found = ranks.weekly_rank_correlations(said, came, [0] * 4)
    assert found[0] == pytest.approx(expected)
    assert found[0] == pytest.approx(scipy.stats.spearmanr(said, came).statistic)


def test_what_orders_nothing_counts_as_zero_and_weeks_without_an_order_are_left_out() -> None:
    weeks = ["same forecast"] * 3 + ["two symbols"] * 2 + ["same return"] * 3
    said = [1, 1, 1, 1, 2, 1, 2, 3]
    came = [1, 2, 3, 1, 2, 5, 5, 5]
    assert ranks.weekly_rank_correlations(said, came, weeks) == {"same forecast": 0.0}


def test_the_mean_over_weeks_is_tested_with_students_t() -> None:
    values = [0.2, -0.1, 0.3, 0.1, 0.0]
    found = ranks.rank_skill(dict(enumerate(values)))
    assert found is not None
    by_scipy = scipy.stats.ttest_1samp(values, 0)
    interval = by_scipy.confidence_interval(0.95)
    assert (found.mean, found.weeks) == (pytest.approx(0.1), 5)
    assert (found.t, found.p_value) == pytest.approx((by_scipy.statistic, by_scipy.pvalue))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_weeks_that_are_all_the_same_are_no_accident_unless_they_are_zero() -> None:
    perfect = ranks.rank_skill(dict.fromkeys(range(4), 1.0))
    constant = ranks.rank_skill(dict.fromkeys(range(4), 0.0))
    assert perfect and constant
    assert (perfect.t, perfect.p_value, perfect.low, perfect.high) == (math.inf, 0.0, 1.0, 1.0)
    assert (constant.t, constant.p_value) == (0.0, 1.0)
    assert ranks.rank_skill({"only": 0.5}) is None


def test_what_could_have_been_seen() -> None:
    # Ten weeks: quantiles of t with 9 degrees of freedom, 2.262 and 0.883.
    assert ranks.detectable(0.19, 10) == pytest.approx((2.2622 + 0.8834) * 0.19 / math.sqrt(10), rel=1e-4)
    assert ranks.weeks_needed(0.10, 0.2) == 34
    assert ranks.weeks_needed(0.03, 0.2) > 340


def test_a_power_of_four_fifths_is_one() -> None:
    rng = np.random.default_rng(0)
    true = ranks.detectable(0.2, 20)
    weekly = rng.normal(true, 0.2, size=(2000, 20))
    t = weekly.mean(1) / (weekly.std(1, ddof=1) / math.sqrt(20))
    assert (abs(t) > scipy.stats.t(19).ppf(0.975)).mean() == pytest.approx(0.8, abs=0.03)
