"""Market-wide figures as of a week's close. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

from forecaster.records import MacroReading, PriceHistory, TradingWeek


@dataclass(frozen=True)
class MacroSeries:
    """One daily series of Yahoo's."""

    symbol: str
    name: str
    change_unit: Literal["percent", "points"]
    closes_with_stocks: bool
    """Whether its daily close is public when the stock exchange in New York closes. VIX, dollar index and oil
    trade on after 16:00 there, and Yahoo's daily bar ends later still: of these the day before counts."""


MACRO = (
    MacroSeries("^GSPC", "S&P 500", "percent", True),
    MacroSeries("^VIX", "VIX", "points", False),
    MacroSeries("^TNX", "Ten-year Treasury yield", "points", False),
    MacroSeries("DX-Y.NYB", "US dollar index", "percent", False),
    MacroSeries("CL=F", "Crude oil (WTI)", "percent", False),
)

_NEW_YORK = "XNYS"


def macro_readings(
    series: Mapping[str, PriceHistory], last_week: TradingWeek, calendar: str
) -> list[MacroReading]:
    """Level last known at the end of a past week, and its change over that week; a series without both is
    left out.

    Args:
        series: closes by Yahoo's symbol.
        last_week: the week that ends where the forecast starts.
        calendar: the exchange, as exchange_calendars names it, at whose closes the week starts and ends.
            Where it is not New York's, the New York close of the same day may still be to come.
    """
    found = []
    for kind in MACRO:
        closes = (
            {day: close.split_adjusted for day, close in series[kind.symbol].closes.items()}
            if (kind.symbol in series)
            else {}
        )
        that_day_counts = kind.closes_with_stocks and calendar == _NEW_YORK
        before = _level(closes, last_week.start, that_day_counts)
        level = _level(closes, last_week.end, that_day_counts)
        if before and level:
            change = level - before if kind.change_unit == "points" else 100 * (level - before) / before
            found.append(MacroReading(kind.name, float(level), float(change), kind.change_unit))
    return found


def _level(closes: Mapping[date, Decimal], day: date, that_day_counts: bool) -> Decimal | None:
    """The last close at or before a day, or strictly before it; None when there is none within a week."""
    days = sorted(closes)
    at = (bisect_right if that_day_counts else bisect_left)(days, day) - 1
    return closes[days[at]] if at >= 0 and (day - days[at]).days <= 7 else None
