"""Technical indicators against numbers worked out by hand."""

from __future__ import annotations

from decimal import Decimal

import pytest

from forecaster.data.indicators import indicators


def series(*prices: str | int) -> list[Decimal]:
    return [Decimal(price) for price in prices]


RISING = series(*range(1, 51))
"""1, 2, ... 50."""


def test_averages_of_fifty_rising_closes() -> None:
    found = indicators(RISING)
    # (31 + ... + 50) / 20 and (1 + ... + 50) / 50
    assert found["SMA 20"] == 40.5
    assert found["SMA 50"] == 25.5
    # The seed is the SMA of 1..20 = 10.5; on a line of slope 1 an EMA of 20 stays 9.5 behind the price.
    assert found["EMA 20"] == 40.5
    # Each EMA of n stays (n - 1) / 2 behind: 12.5 - 5.5.
    assert found["MACD"] == 7.0
    assert found["MACD signal"] == 7.0
    assert found["MACD histogram"] == 0.0
    assert found["RSI 14"] == 100.0


def test_the_first_ema_is_the_average_of_its_first_closes_and_the_next_moves_by_two_twenty_firsts() -> None:
    closes = series(*range(1, 21))
    assert indicators(closes)["EMA 20"] == 10.5
    # 10.5 + 2/21 * (31.5 - 10.5)
    assert indicators([*closes, Decimal("31.5")])["EMA 20"] == 12.5


def test_the_first_rsi_compares_the_sums_of_gains_and_losses() -> None:
    # Ten moves of +1, four of -1: 100 * 10 / 14.
    closes = series(10, 11, 12, 13, 14, 15, 14, 13, 12, 11, 12, 13, 14, 15, 16)
    assert indicators(closes)["RSI 14"] == 71.4286


def test_the_next_rsi_follows_wilders_smoothing() -> None:
    closes = series(10, 11, 12, 13, 14, 15, 14, 13, 12, 11, 12, 13, 14, 15, 16, 14)
    # Gain (10/14 * 13 + 0) / 14, loss (4/14 * 13 + 2) / 14: 100 * 130 / (130 + 52 + 28).
    assert indicators(closes)["RSI 14"] == 61.9048


def test_falling_closes_have_an_rsi_of_zero() -> None:
    assert indicators(RISING[::-1])["RSI 14"] == 0.0


@pytest.mark.parametrize(
    ("count", "names"),
    [
        (0, []),
        (1, []),
        (14, []),
        (15, ["RSI 14"]),
        (19, ["RSI 14"]),
        (20, ["SMA 20", "EMA 20", "RSI 14"]),
        (33, ["SMA 20", "EMA 20", "RSI 14"]),
        (34, ["SMA 20", "EMA 20", "RSI 14", "MACD", "MACD signal", "MACD histogram"]),
        (49, ["SMA 20", "EMA 20", "RSI 14", "MACD", "MACD signal", "MACD histogram"]),
        (50, ["SMA 20", "SMA 50", "EMA 20", "RSI 14", "MACD", "MACD signal", "MACD histogram"]),
    ],
)
def test_what_needs_a_longer_series_is_absent(count: int, names: list[str]) -> None:
    assert list(indicators(RISING[:count])) == names


def test_a_price_that_never_moved_has_no_rsi() -> None:
    assert indicators(series(*["12.5"] * 34)) == {
        "SMA 20": 12.5,
        "EMA 20": 12.5,
        "MACD": 0.0,
        "MACD signal": 0.0,
        "MACD histogram": 0.0,
    }


def test_small_prices_keep_four_significant_digits() -> None:
    assert indicators(series(*["0.00001234567"] * 20))["SMA 20"] == 0.00001235


def test_large_prices_keep_four_decimals() -> None:
    assert indicators(series(*["97123.45678"] * 20))["SMA 20"] == 97123.4568


def test_only_the_closes_given_count() -> None:
    assert indicators([*RISING, Decimal(5000)]) != indicators(RISING)
    assert indicators(RISING[-20:])["SMA 20"] == indicators(RISING)["SMA 20"] == 40.5
