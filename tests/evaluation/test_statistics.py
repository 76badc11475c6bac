from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import matthews_corrcoef
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from forecaster.evaluation.statistics import (
    Estimate,
    design_effect,
    matthews,
    mcnemar,
    negated,
    over_weeks,
    ratio,
    rows_needed,
    rows_needed_paired,
    share_over_weeks,
    wilson,
)

Simulate = Callable[[np.random.Generator, int], np.ndarray]
SIMULATIONS = 2000


def right_of_ten(*right: int) -> tuple[list[tuple[float, float]], list[int]]:
    """Contributions and weeks of ten rows a week, of which so many are right."""
    rows = [(float(row < hits), 1.0) for hits in right for row in range(10)]
    return rows, [week for week in range(len(right)) for _ in range(10)]


def interval(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


# Shares of independent rows.


def test_wilsons_interval_of_5_in_10_is_as_by_hand() -> None:
    # z = 1.959964, z^2 = 3.841459; 0.5 -+ z sqrt(0.025 + z^2 / 400) / (1 + z^2 / 10)
    estimate = wilson(5, 10)
    assert (estimate.value, estimate.method) == (0.5, "Wilson")
    assert interval(estimate) == pytest.approx((0.236593, 0.763407), abs=1e-6)


def test_wilsons_interval_of_none_or_all_stays_between_0_and_1() -> None:
    assert interval(wilson(0, 10)) == pytest.approx((0.0, 3.841459 / 13.841459), abs=1e-6)
    assert interval(wilson(10, 10)) == pytest.approx((10 / 13.841459, 1.0), abs=1e-6)


def test_wilsons_interval_agrees_with_statsmodels() -> None:
    for count, total in [(0, 1), (1, 3), (161, 297), (283, 300), (300, 300)]:
        expected = proportion_confint(count, total, method="wilson")
        assert interval(wilson(count, total)) == pytest.approx(expected, abs=1e-12)


def test_a_share_of_no_rows_is_absent() -> None:
    assert wilson(0, 0) == Estimate(None)


@pytest.mark.parametrize(("count", "total"), [(1, 0), (11, 10), (-1, 10)])
def test_counts_that_are_no_part_of_a_total_are_refused(count: int, total: int) -> None:
    with pytest.raises(ValueError):
        wilson(count, total)


# Statistics of sums.


def test_a_ratio_over_nothing_is_undefined_and_leaves_the_others_alone() -> None:
    values = ratio(np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 0.0]]))
    assert values[0] == 0.5
    assert np.isnan(values[1:]).all()


def test_matthews_correlation_is_as_by_hand() -> None:
    # (6 * 3 - 1 * 2) / sqrt(7 * 8 * 4 * 5)
    assert float(matthews(np.array([6, 3, 1, 2]))) == pytest.approx(16 / math.sqrt(1120))
    assert matthews(np.array([[5, 5, 0, 0], [0, 0, 5, 5], [6, 0, 4, 0]])).tolist() == [1.0, -1.0, 0.0]


@pytest.mark.filterwarnings("ignore:A single label was found")
def test_matthews_correlation_agrees_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        # Few rows, so that margins are empty now and then.
        actual, predicted = generator.random((2, generator.integers(2, 12))) < generator.random((2, 1))
        sums = [sum(actual & predicted), sum(~actual & ~predicted), sum(~actual & predicted)]
        found = float(matthews(np.array([*sums, sum(actual & ~predicted)])))
        assert found == pytest.approx(float(matthews_corrcoef(actual, predicted)), abs=1e-12)


# Intervals over few weeks.


def test_over_three_weeks_the_interval_is_as_by_hand() -> None:
    # Without a week: 0.55, 0.5, 0.45; error sqrt(2/3 * 0.005) = 0.1 / sqrt(3); t on 2 degrees is 4.302653.
    estimate = over_weeks(*right_of_ten(4, 5, 6))
    assert estimate.value == 0.5
    assert interval(estimate) == pytest.approx((0.5 - 0.248414, 0.5 + 0.248414), abs=1e-6)
    assert estimate.method == "jackknife over 3 weeks, Student's t"


def test_over_few_weeks_of_one_size_it_is_students_interval_of_the_weekly_shares() -> None:
    right = (3, 5, 6, 1, 8, 4, 4, 7, 2, 6)
    expected = scipy.stats.ttest_1samp(np.array(right) / 10, 0).confidence_interval(0.95)
    found = interval(over_weeks(*right_of_ten(*right)))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_over_few_weeks_the_interval_of_a_share_may_leave_0_to_1() -> None:
    low, high = interval(over_weeks(*right_of_ten(9, 10, 6)))
    assert low < 0.9 < 1.0 < high


# Intervals over many weeks.


def test_weeks_are_resampled_from_20_on() -> None:
    assert over_weeks(*right_of_ten(*[4, 6] * 9, 5)).method == "jackknife over 19 weeks, Student's t"
    assert over_weeks(*right_of_ten(*[4, 6] * 10)).method == "bootstrap over 20 weeks"


def test_over_many_weeks_it_is_scipys_percentile_interval_at_the_expanded_level() -> None:
    right = np.random.default_rng(0).binomial(10, 0.6, 20)
    # t(0.975, 19) * sqrt(20 / 19) = 2.1474 is the normal quantile of a tail of 0.01588.
    expected = scipy.stats.bootstrap(
        (right / 10,), np.mean, confidence_level=1 - 2 * 0.01588, method="percentile", rng=1
    ).confidence_interval
    found = interval(over_weeks(*right_of_ten(*right)))
    assert found == pytest.approx((expected.low, expected.high), abs=0.004)


def test_one_wrong_row_in_200_gives_an_interval_that_ends_at_1() -> None:
    low, high = interval(over_weeks(*right_of_ten(9, *[10] * 19)))
    assert 0.95 < low < 0.995
    assert high == 1.0


def test_rows_of_one_week_that_move_together_widen_the_interval() -> None:
    apart = interval(over_weeks(*right_of_ten(*[4, 5, 6] * 8)))
    together = interval(over_weeks(*right_of_ten(*[0, 5, 10] * 8)))
    assert together[1] - together[0] == pytest.approx(5 * (apart[1] - apart[0]))


def test_the_same_seed_gives_the_same_interval_and_another_seed_nearly_the_same() -> None:
    rows, weeks = right_of_ten(*[3, 4, 6, 7] * 8)
    first = over_weeks(rows, weeks)
    assert over_weeks(rows, weeks, seed=0) == first
    other = over_weeks(rows, weeks, seed=1)
    assert other != first
    assert interval(other) == pytest.approx(interval(first), abs=0.005)


# What does not matter.


@pytest.mark.parametrize("week_count", [8, 40])
def test_neither_the_order_of_the_rows_nor_the_names_of_the_weeks_matter(week_count: int) -> None:
    generator = np.random.default_rng(0)
    week_of_row = generator.integers(0, week_count, 300)
    rows = np.stack([generator.standard_t(3, 300) ** 2, np.ones(300)], axis=1)
    expected = over_weeks(rows, week_of_row.tolist())
    names = [date(2024, 2, 25) + timedelta(weeks=week) if week else None for week in range(week_count)]
    for _ in range(5):
        order = generator.permutation(300)
        assert over_weeks(rows[order], [names[week] for week in week_of_row[order]]) == expected


def test_the_rows_of_a_week_count_like_one_row_with_their_sum() -> None:
    right = [3, 5, 6, 1, 8, 4, 4, 7, 2, 6, 5, 5] * 2
    assert over_weeks(*right_of_ten(*right)) == over_weeks([(hits, 10) for hits in right], range(24))


def test_rows_that_add_nothing_take_no_part_and_neither_do_weeks_of_such_rows() -> None:
    rows, weeks = right_of_ten(*[4, 6] * 9, 5)
    silent = over_weeks([*rows, (0.0, 0.0), (0.0, 0.0)], [*weeks, 0, 99])
    assert silent == over_weeks(rows, weeks)
    assert silent.method == "jackknife over 19 weeks, Student's t"


# Where there is no interval, or no value.


def test_one_week_has_a_value_but_no_interval() -> None:
    assert over_weeks(*right_of_ten(7)) == Estimate(0.7, method="no interval: one week")


@pytest.mark.parametrize("week_count", [2, 30])
def test_without_any_variation_there_is_no_interval_rather_than_one_of_no_width(week_count: int) -> None:
    reason = "no interval: the same in every week"
    assert over_weeks(*right_of_ten(*[10] * week_count)) == Estimate(1.0, method=reason)
    weeks = [week for week in range(week_count) for _ in range(week + 1)]
    estimate = over_weeks([(0.1, 1.0)] * len(weeks), weeks)
    assert (estimate.value, estimate.low, estimate.method) == (pytest.approx(0.1), None, reason)
    always_up = [(1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0)] * week_count
    assert over_weeks(always_up, [*range(week_count)] * 2, matthews) == Estimate(0.0, method=reason)


def test_over_nothing_there_is_no_value() -> None:
    assert over_weeks([], []) == Estimate(None)
    assert over_weeks([], [], matthews) == Estimate(None)
    assert over_weeks([(0.0, 0.0)] * 3, [1, 2, 3]) == Estimate(None)
    assert over_weeks([(1.0, 0.0)] * 3, [1, 2, 3]) == Estimate(None)


def difference_of_groups(sums: np.ndarray) -> np.ndarray:
    return ratio(sums[..., :2]) - ratio(sums[..., 2:])


def groups(week_count: int, weeks_with_both: int) -> list[tuple[int, int, int, int]]:
    return [(5 + week % 3, 10, *((4, 9) if week < weeks_with_both else (0, 0))) for week in range(week_count)]


@pytest.mark.parametrize("week_count", [5, 20])
def test_a_statistic_that_hangs_on_one_week_has_no_interval(week_count: int) -> None:
    estimate = over_weeks(groups(week_count, 1), range(week_count), difference_of_groups)
    assert estimate.value is not None
    assert estimate.low is None
    assert estimate.method == "no interval: not defined without some of the weeks"


def test_few_resamples_that_leave_a_statistic_undefined_are_left_out() -> None:
    # None of 5 weeks is among 20 draws from 20 weeks with a chance of 0.75 ** 20 = 0.003.
    estimate = over_weeks(groups(20, 5), range(20), difference_of_groups)
    low, high = interval(estimate)
    assert low < float(estimate.value or 0) < high
    assert estimate.method == "bootstrap over 20 weeks"


@pytest.mark.parametrize("function", [over_weeks, design_effect])
@pytest.mark.parametrize(
    ("rows", "weeks", "message"),
    [
        ([(1.0, 1.0)], [1, 2], "1 rows, but 2 weeks"),
        ([(math.nan, 1.0), (1.0, 1.0)], [1, 2], "not finite"),
        ([(math.inf, 1.0), (1.0, 1.0)], [1, 2], "not finite"),
        ([1.0, 0.0], [1, 2], "not rows of numbers"),
    ],
)
def test_rows_that_cannot_be_summed_are_refused(
    function: Callable[..., object], rows: list[tuple[float, float]], weeks: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        function(rows, weeks)


# Coverage.


def weekly_shares(generator: np.random.Generator, week_count: int) -> np.ndarray:
    """Shares with mean 0.47 and standard deviation 0.14, which mostly lie between 0.17 and 0.73."""
    return generator.beta(5.5, 6.2, (SIMULATIONS, week_count))


def equal_weeks(generator: np.random.Generator, week_count: int) -> np.ndarray:
    right = generator.binomial(30, weekly_shares(generator, week_count))
    return np.stack([right, np.full_like(right, 30)], axis=-1)


def unequal_weeks(generator: np.random.Generator, week_count: int) -> np.ndarray:
    rows = generator.integers(5, 56, (SIMULATIONS, week_count))
    return np.stack([generator.binomial(rows, weekly_shares(generator, week_count)), rows], axis=-1)


def directions(generator: np.random.Generator, week_count: int) -> np.ndarray:
    """Of rises 0.6 are called up, of falls 0.4."""
    ups = generator.binomial(30, weekly_shares(generator, week_count))
    true_ups, false_ups = generator.binomial(ups, 0.6), generator.binomial(30 - ups, 0.4)
    return np.stack([true_ups, 30 - ups - false_ups, false_ups, ups - true_ups], axis=-1)


SHARE_UP = 5.5 / 11.7
TRUE_MATTHEWS = float(
    matthews(np.array([0.6 * SHARE_UP, *[0.6, 0.4] * np.array(1 - SHARE_UP), 0.4 * SHARE_UP]))
)


@pytest.mark.parametrize(
    ("simulate", "statistic", "truth", "week_count"),
    [
        (equal_weeks, ratio, SHARE_UP, 10),
        (equal_weeks, ratio, SHARE_UP, 20),
        (equal_weeks, ratio, SHARE_UP, 50),
        (unequal_weeks, ratio, SHARE_UP, 10),
        (unequal_weeks, ratio, SHARE_UP, 20),
        (directions, matthews, TRUE_MATTHEWS, 10),
        (directions, matthews, TRUE_MATTHEWS, 20),
    ],
)
def test_intervals_hold_the_true_value_in_93_to_97_of_100_simulations(
    simulate: Simulate, statistic: Callable[[np.ndarray], np.ndarray], truth: float, week_count: int
) -> None:
    found = [
        interval(over_weeks(by_week, range(week_count), statistic))
        for by_week in simulate(np.random.default_rng(week_count), week_count)
    ]
    assert 0.93 <= np.mean([low <= truth <= high for low, high in found]) <= 0.97


# Two runs on the same rows.


def test_mcnemars_exact_test_of_1_against_5_is_as_by_hand() -> None:
    # Two tails of at most one in six: 2 * (1 + 6) / 64.
    assert mcnemar(1, 5) == pytest.approx(0.21875)
    assert mcnemar(5, 1) == pytest.approx(0.21875)


def test_mcnemars_exact_test_agrees_with_statsmodels() -> None:
    for only_first, only_second in [(0, 1), (3, 3), (0, 9), (12, 30), (61, 60), (70, 40)]:
        expected = statsmodels_mcnemar([[100, only_first], [only_second, 80]], exact=True).pvalue
        assert mcnemar(only_first, only_second) == pytest.approx(expected, abs=1e-12)


def test_runs_that_never_differ_are_not_told_apart() -> None:
    assert mcnemar(0, 0) == 1.0


@pytest.mark.parametrize(("only_first", "only_second"), [(-1, 1), (-1, 3), (3, -1)])
def test_negative_counts_are_refused(only_first: int, only_second: int) -> None:
    with pytest.raises(ValueError):
        mcnemar(only_first, only_second)


# Design effect.


def test_rows_that_repeat_each_other_within_a_week_have_a_design_effect_as_by_hand() -> None:
    # Deviations of 1/2: clustered 4/3 * 4 * 1, independent 8/7 * 8 * 1/4.
    rows = [(1, 1), (1, 1), (0, 1), (0, 1)] * 2
    assert design_effect(rows, [1, 1, 2, 2, 3, 3, 4, 4]) == pytest.approx(7 / 3)


def test_the_design_effect_of_many_weeks_is_as_the_correlation_within_weeks_says() -> None:
    # A beta(2, 2) share has a correlation of 1/5 within its week: 1 + (11 - 1) / 5.
    generator = np.random.default_rng(0)
    right = generator.random((3000, 11)) < generator.beta(2, 2, (3000, 1))
    rows = np.stack([right.ravel(), np.ones(33_000)], axis=1)
    assert design_effect(rows, np.repeat(np.arange(3000), 11).tolist()) == pytest.approx(3.0, rel=0.05)


def test_the_design_effect_is_at_least_1() -> None:
    assert design_effect([(1, 1), (0, 1)] * 4, [1, 1, 2, 2, 3, 3, 4, 4]) == 1.0
    assert design_effect([(1, 1), (0, 1)] * 4, range(8)) == pytest.approx(1.0)


def test_there_is_no_design_effect_without_two_weeks_or_without_variance() -> None:
    assert design_effect([], []) is None
    assert design_effect([(1, 1), (0, 1)], [1, 1]) is None
    assert design_effect([(1, 1), (0, 1), (0, 0)], [1, 1, 2]) is None
    assert design_effect([(1, 1)] * 4, [1, 1, 2, 2]) is None
    assert design_effect([(0.1, 1)] * 14, [1, 2] * 7) is None
    assert design_effect([(1, 0)] * 4, [1, 1, 2, 2]) is None


# Rows needed.


def test_55_percent_against_50_takes_783_rows_and_more_where_rows_move_together() -> None:
    assert rows_needed(0.55) == 783
    assert rows_needed(0.55, design_effect=2.0) == 1565
    # ((1.959964 * 0.5 + 0.841621 * 0.489898) / 0.1) ** 2 = 193.85
    assert rows_needed(0.6) == 194
    # ((1.959964 * 0.497494 + 0.841621 * 0.489898) / 0.05) ** 2 = 769.93
    assert rows_needed(0.6, chance=0.55) == 770
    assert rows_needed(1.0) == 4


def test_so_many_rows_have_a_power_of_80_percent() -> None:
    least_right = scipy.stats.binom.isf(0.025, 783, 0.5) + 1
    assert scipy.stats.binom.sf(least_right - 1, 783, 0.55) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("share", [0.5, 0.49, 0.0])
def test_a_share_that_is_not_above_chance_shows_with_no_number_of_rows(share: float) -> None:
    assert rows_needed(share) is None


@pytest.mark.parametrize(("share", "chance"), [(1.1, 0.5), (0.5, 0.0), (0.5, 1.0), (math.nan, 0.5)])
def test_what_is_no_share_is_refused(share: float, chance: float) -> None:
    with pytest.raises(ValueError, match="no shares"):
        rows_needed(share, chance)


def test_rows_for_a_paired_difference_agree_with_published_software() -> None:
    # The R package MESS, power_mcnemar_test(paid=0.05, psi=45/5, power=.8, alternative="two.sided"): 22.
    assert rows_needed_paired(5, 45, 100) == 22
    assert rows_needed_paired(45, 5, 100) == 22
    assert rows_needed_paired(450, 50, 1000) == 22
    assert rows_needed_paired(5, 45, 100, design_effect=3.0) == 66


def test_rows_for_a_paired_difference_have_a_power_of_80_percent() -> None:
    # ((1.959964 * sqrt(0.2) + 0.841621 * sqrt(0.2 - 0.1 ** 2)) / 0.1) ** 2 = 154.6
    assert rows_needed_paired(45, 15, 300) == 155
    drawn = np.random.default_rng(0).multinomial(155, [0.15, 0.05, 0.8], 20_000)
    score = (drawn[:, 0] - drawn[:, 1]) / np.sqrt(drawn[:, 0] + drawn[:, 1])
    assert np.mean(score > 1.959964) == pytest.approx(0.8, abs=0.03)


def test_runs_without_a_difference_need_no_number_of_rows() -> None:
    assert rows_needed_paired(7, 7, 300) is None
    assert rows_needed_paired(0, 0, 0) is None


@pytest.mark.parametrize("counts", [(3, 4, 6), (-1, 4, 6), (4, -1, 6)])
def test_more_differing_rows_than_rows_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no parts of 6 rows"):
        rows_needed_paired(*counts)


# --- shares -------------------------------------------------------------------------------------------------


def test_the_interval_of_a_share_over_few_weeks_ends_at_0_and_1() -> None:
    # Student's t on 1 degree of freedom: 12.706; the jackknife's standard error of 0 and 1 is 0.5.
    assert over_weeks([(1.0, 1.0), (0.0, 1.0)], [1, 2]).high == pytest.approx(0.5 + 12.706 * 0.5, abs=1e-3)
    found = share_over_weeks([1.0, 0.0], [1, 2])
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize(
    ("share", "weeks", "low", "high"),
    [
        (1.0, 12, 0.7353515, 1.0),  # Clopper and Pearson for 12 of 12: 0.025 ** (1 / 12)
        (0.0, 12, 0.0, 0.2646485),
        (0.5, 2, 0.0790569, 0.9209431),  # 0.5 * 0.025 ** (1 / 2)
    ],
)
def test_a_share_that_is_the_same_in_every_week_is_bounded_by_their_number(
    share: float, weeks: int, low: float, high: float
) -> None:
    found = share_over_weeks([share] * weeks * 3, list(range(weeks)) * 3)
    assert found.value == share
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    assert found.method == f"bound from {weeks} weeks that are all the same"


def test_one_week_bounds_nothing() -> None:
    assert share_over_weeks([1.0, 1.0], [1, 1]) == Estimate(1.0, method="no interval: one week")


def test_a_difference_the_other_way_round() -> None:
    assert negated(Estimate(-0.5, -0.75, 0.25, "Wilson")) == Estimate(0.5, -0.25, 0.75, "Wilson")
    assert negated(Estimate(None)) == Estimate(None)
