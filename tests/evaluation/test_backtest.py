"""Three weeks and three symbols worked out by hand, and what must not break the rest."""

from __future__ import annotations

from datetime import date, timedelta
from math import sqrt

import numpy as np
import pytest

from forecaster.evaluation.backtest import STRATEGIES, Backtest, Signal, backtest
from forecaster.records import Direction

FIRST, SECOND, THIRD = date(2024, 1, 7), date(2024, 1, 14), date(2024, 1, 21)
SHEET = [
    Signal(FIRST, "A", "up", 6.0),
    Signal(FIRST, "B", "down", -3.0),
    Signal(FIRST, "C", None, 9.0),
    Signal(SECOND, "A", "up", -3.0),
    Signal(SECOND, "B", "up", 6.0),
    Signal(SECOND, "C", "down", 3.0),
    Signal(THIRD, "A", "down", 6.0),
    Signal(THIRD, "B", "up", -3.0),
]
# Weights of A, B, C and what they trade; C has no row in the third week, so that halves replace thirds.
#   long/short   1/3 -1/3    0 : 2/3     1/3  1/3 -1/3 : 0 + 2/3 + 1/3     -1/2  1/2    0 : 5/6 + 1/6 + 1/3
#   long/flat    1/3    0    0 : 1/3     1/3  1/3    0 : 0 + 1/3 + 0          0  1/2    0 : 1/3 + 1/6 + 0
#   buy, hold    1/3  1/3  1/3 : 1       1/3  1/3  1/3 : 0                  1/2  1/2    0 : 1/6 + 1/6 + 1/3


def week(number: int) -> date:
    return FIRST + timedelta(weeks=number)


def always(direction: Direction | None, returns_pct: list[float], symbol: str = "A") -> list[Signal]:
    return [Signal(week(at), symbol, direction, pct) for at, pct in enumerate(returns_pct)]


def test_long_short_without_costs_is_the_sheet() -> None:
    # Weeks: (6 + 3 + 0) / 3 = 3, (-3 + 6 - 3) / 3 = 0, (-6 - 3) / 2 = -4.5.
    found = backtest(SHEET, cost_bps=0)["long/short"]
    assert found.weeks == (FIRST, SECOND, THIRD)
    assert found.weekly_returns_pct == pytest.approx((3, 0, -4.5))
    assert found.equity == pytest.approx((1, 1.03, 1.03, 1.03 * 0.955))
    assert found.cumulative_return_pct == pytest.approx(-1.635)
    # Mean -0.5; squares of 3.5, 0.5 and -4 sum to 28.5.
    assert found.sharpe.value == pytest.approx(-0.5 / sqrt(28.5 / 2) * sqrt(52))
    assert found.max_drawdown_pct == pytest.approx(-4.5)
    assert found.hit_rate == pytest.approx(3 / 7)  # A and B of the first week, B of the second
    assert found.turnover == pytest.approx((2 / 3 + 1 + 4 / 3) / 3)


def test_costs_are_taken_from_the_week_in_which_weights_change() -> None:
    # Ten basis points of 2/3, 1 and 4/3.
    found = backtest(SHEET, cost_bps=10)["long/short"]
    assert found.weekly_returns_pct == pytest.approx((3 - 0.2 / 3, -0.1, -4.5 - 0.4 / 3))
    assert found.equity[1:3] == pytest.approx((1.0293333, 1.0293333 * 0.999))
    assert found.cumulative_return_pct == pytest.approx(-1.9340756)
    # From the first week's peak: 0.999 * 0.95366667 = 0.952713.
    assert found.max_drawdown_pct == pytest.approx(-4.7287)
    assert found.hit_rate == pytest.approx(3 / 7)  # before costs


def test_long_flat_holds_no_money_against_a_predicted_fall() -> None:
    # Weeks: 6 / 3 = 2, (-3 + 6) / 3 = 1, -3 / 2 = -1.5.
    free, paid = backtest(SHEET, cost_bps=0)["long/flat"], backtest(SHEET, cost_bps=30)["long/flat"]
    assert free.weekly_returns_pct == pytest.approx((2, 1, -1.5))
    assert free.cumulative_return_pct == pytest.approx(1.4747)
    assert free.sharpe.value == pytest.approx(2.0)  # mean 0.5, variance 6.5 / 2: 0.5 * sqrt(52 / 3.25)
    assert (free.max_drawdown_pct, free.hit_rate) == pytest.approx((-1.5, 0.5))
    assert free.turnover == pytest.approx(7 / 18)
    assert paid.weekly_returns_pct == pytest.approx((1.9, 0.9, -1.65))


def test_buy_and_hold_is_long_every_row_and_pays_for_entering_and_for_a_changed_set_of_symbols() -> None:
    # Weeks: (6 - 3 + 9) / 3 = 4, (-3 + 6 + 3) / 3 = 2, (6 - 3) / 2 = 1.5.
    free, paid = backtest(SHEET, cost_bps=0)["buy and hold"], backtest(SHEET, cost_bps=30)["buy and hold"]
    assert free.weekly_returns_pct == pytest.approx((4, 2, 1.5))
    assert free.cumulative_return_pct == pytest.approx(7.6712)
    assert free.sharpe.value == pytest.approx(2.5 / sqrt(3.5 / 2) * sqrt(52))
    assert (free.max_drawdown_pct, free.hit_rate) == (0.0, 5 / 8)
    assert free.turnover == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert paid.weekly_returns_pct == pytest.approx((3.7, 2, 1.3))
    assert (free.band_low, free.band_high, free.luck_share) == ((), (), None)


def test_all_strategies_come_in_their_order_and_none_without_signals() -> None:
    assert tuple(backtest(SHEET)) == STRATEGIES
    assert backtest([]) == {}


def test_the_order_of_the_rows_does_not_matter() -> None:
    assert backtest(SHEET[::-1]) == backtest(SHEET)


def test_without_a_readable_forecast_the_capital_lies_still() -> None:
    found = backtest(always(None, [5.0, -5.0, 1.0]))
    for strategy in ("long/short", "long/flat"):
        still = found[strategy]
        assert still.equity == still.band_low == still.band_high == (1, 1, 1, 1)
        assert (still.cumulative_return_pct, still.max_drawdown_pct, still.turnover) == (0, 0, 0)
        assert (still.sharpe.value, still.hit_rate, still.luck_share) == (None, None, 1.0)
    assert found["buy and hold"].hit_rate == pytest.approx(2 / 3)


def test_a_return_of_zero_is_no_hit() -> None:
    assert backtest(always("up", [0.0, 1.0]))["long/short"].hit_rate == 0.5


def test_one_week_has_a_return_but_no_annual_figures() -> None:
    found = backtest([Signal(FIRST, "A", "down", -4.0)], cost_bps=0)["long/short"]
    assert (found.weekly_returns_pct, found.equity) == (pytest.approx((4,)), pytest.approx((1, 1.04)))
    assert (found.annualised_return_pct, found.sharpe.value) == (None, None)


def test_returns_are_annualised_from_a_whole_year_on() -> None:
    assert backtest(always("up", [1.0] * 51))["long/short"].annualised_return_pct is None
    year = backtest(always("up", [1.0] * 52), cost_bps=0, permutations=0)["long/short"]
    assert year.annualised_return_pct == pytest.approx(100 * (1.01**52 - 1))
    assert year.sharpe.value is None  # no variance
    two_years = backtest(always("up", [1.0, 0.0] * 52), cost_bps=0, permutations=0)["long/short"]
    assert two_years.annualised_return_pct == pytest.approx(100 * (1.01**26 - 1))


@pytest.mark.parametrize(("direction", "return_pct"), [("up", -100.0), ("down", 100.0), ("down", 250.0)])
def test_what_is_lost_stays_lost_and_never_turns_into_debt(direction: Direction, return_pct: float) -> None:
    found = backtest([*always(direction, [return_pct, 50.0, -50.0])])["long/short"]
    assert found.equity == (1, 0, 0, 0)
    assert found.weekly_returns_pct == (-100, 0, 0)
    assert (found.cumulative_return_pct, found.max_drawdown_pct) == (-100, -100)


def test_a_total_loss_over_a_year_is_one_a_year() -> None:
    found = backtest(always("up", [-100.0] + [1.0] * 51), permutations=0)["long/short"]
    assert found.annualised_return_pct == -100


def test_drawdowns_are_measured_from_the_start_too() -> None:
    found = backtest(always("up", [-10.0, 5.0]), cost_bps=0)["long/short"]
    assert found.max_drawdown_pct == pytest.approx(-10)


def test_a_symbol_with_two_rows_in_a_week_splits_its_share_between_them() -> None:
    rows = [
        Signal(FIRST, "A", "up", 2.0),
        Signal(FIRST, "A", "up", 4.0),
        Signal(FIRST, "B", "down", -3.0),
        # Two rows that disagree: A is held long and short, which is no weight.
        Signal(SECOND, "A", "up", 8.0),
        Signal(SECOND, "A", "down", 2.0),
        Signal(SECOND, "B", "down", -3.0),
    ]
    found = backtest(rows, cost_bps=0)
    # Half of the mean of 2 and 4, half of 3; then a quarter of 8, less a quarter of 2, and half of 3.
    assert found["long/short"].weekly_returns_pct == pytest.approx((3, 3))
    assert found["long/short"].turnover == pytest.approx((1 + 0.5) / 2)
    assert found["buy and hold"].weekly_returns_pct == pytest.approx((0, 1))


def test_a_week_without_rows_is_skipped_and_the_book_taken_over() -> None:
    found = backtest([Signal(week(0), "A", "up", 2.0), Signal(week(5), "A", "up", 2.0)], cost_bps=100)
    assert found["long/short"].weeks == (week(0), week(5))
    assert found["long/short"].weekly_returns_pct == pytest.approx((1, 2))


def test_a_symbol_that_returns_after_a_week_of_absence_is_bought_again() -> None:
    rows = [*always("up", [0.0, 0.0, 0.0]), Signal(week(0), "B", "up", 0.0), Signal(week(2), "B", "up", 0.0)]
    # A 1/2, 1, 1/2 and B 1/2, 0, 1/2: 1 + (1/2 + 1/2) + (1/2 + 1/2).
    assert backtest(rows)["long/short"].turnover == pytest.approx(1)


def final_band(found: Backtest) -> tuple[float, float]:
    return found.band_low[-1], found.band_high[-1]


def test_the_band_holds_the_ends_of_what_shuffled_directions_earn() -> None:
    rows = [
        *[Signal(FIRST, symbol, "up", 10.0) for symbol in "AB"],
        *[Signal(SECOND, symbol, "down", -10.0) for symbol in "AB"],
    ]
    found = backtest(rows, cost_bps=0)
    # Two ways to place a week of rises and one of falls: both right or both wrong; long only, 10 % of one.
    assert final_band(found["long/short"]) == pytest.approx((0.81, 1.21))
    assert final_band(found["long/flat"]) == pytest.approx((0.9, 1.1))
    for strategy in ("long/short", "long/flat"):
        # Half of all shuffles give the forecasts themselves; 0.05 is three standard errors.
        assert found[strategy].luck_share == pytest.approx(0.5, abs=0.05)
        assert found[strategy].luck_share == found["long/short"].luck_share


def test_the_worst_forecast_is_matched_by_every_shuffle() -> None:
    rows = [Signal(FIRST, "A", "down", 10.0), Signal(SECOND, "A", "up", -10.0)]
    assert backtest(rows, cost_bps=0)["long/short"].luck_share == 1.0


def test_a_forecast_that_no_shuffle_matches_is_as_rare_as_their_number_can_show() -> None:
    moves = [(pct, "up" if pct > 0 else "down") for pct in np.linspace(-10, 11, 40)]
    rows = [Signal(week(at), "A", direction, pct) for at, (pct, direction) in enumerate(moves)]  # type: ignore[arg-type]
    assert backtest(rows, permutations=99)["long/short"].luck_share == 0.01


def test_the_same_seed_shuffles_in_the_same_way() -> None:
    assert backtest(SHEET, seed=3) == backtest(SHEET, seed=3)
    first, second = (backtest(SHEET, seed=seed)["long/short"].luck_share for seed in (3, 4))
    assert first != second


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_constant_forecast_cannot_be_told_from_its_shuffles(direction: Direction) -> None:
    rows = [*always(direction, [4.0, -7.0, 0.3]), *always(direction, [-1.0, 2.0, 0.1], symbol="B")]
    found = backtest(rows)
    for strategy in ("long/short", "long/flat"):
        constant = found[strategy]
        assert constant.band_low == pytest.approx(constant.equity)
        assert constant.band_high == pytest.approx(constant.equity)
        assert constant.luck_share == 1.0
    if direction == "up":
        assert found["long/short"].equity == found["long/flat"].equity == found["buy and hold"].equity


def test_whole_weeks_are_shuffled_so_that_a_caller_of_weeks_is_held_against_such_callers() -> None:
    # Twenty symbols that all move together; the one week called right is one of two: no shuffle is rarer.
    rows = [
        Signal(moment, f"S{at}", called, pct)
        for at in range(20)
        for moment, called, pct in ((FIRST, "up", 5.0), (SECOND, "down", -5.0))
    ]
    assert backtest(rows, cost_bps=0)["long/short"].luck_share == pytest.approx(0.5, abs=0.05)


def test_a_symbol_without_a_row_in_the_week_that_is_given_is_not_held() -> None:
    # B has the second week alone: its rise is held where it stays, and never in the first.
    rows = [*always("up", [0.0, 0.0]), Signal(SECOND, "B", "up", 10.0)]
    found = backtest(rows, cost_bps=0)["long/short"]
    assert final_band(found) == pytest.approx((1.0, 1.05))


def test_without_permutations_there_is_no_band() -> None:
    found = backtest(SHEET, permutations=0)["long/short"]
    assert (found.band_low, found.band_high, found.luck_share) == ((), (), None)


def test_the_figures_are_those_of_empyrical() -> None:
    empyrical = pytest.importorskip("empyrical")
    rng = np.random.default_rng(5)
    rows = [
        Signal(week(at), symbol, rng.choice(["up", "down"]), float(rng.normal(0, 4)))
        for at in range(80)
        for symbol in ("A", "B", "C")
    ]
    for strategy in backtest(rows, permutations=0).values():
        returns = np.array(strategy.weekly_returns_pct) / 100
        assert strategy.equity[1:] == pytest.approx(empyrical.cum_returns(returns, starting_value=1))
        assert strategy.annualised_return_pct == pytest.approx(
            100 * empyrical.annual_return(returns, period="weekly")
        )
        assert strategy.sharpe.value == pytest.approx(empyrical.sharpe_ratio(returns, period="weekly"))
        assert strategy.max_drawdown_pct == pytest.approx(100 * empyrical.max_drawdown(returns))
