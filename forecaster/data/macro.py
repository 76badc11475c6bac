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
    """Whether its daily close is public when the stock exchange closes. VIX, dollar index and oil trade on
    after 16:00 in New York, and Yahoo's daily bar ends later still: of these the day before counts."""


MACRO = (
    MacroSeries("^GSPC", "S&P 500", "percent", True),
    MacroSeries("^VIX", "VIX", "points", False),
    MacroSeries("^TNX", "Ten-year Treasury yield", "points", False),
    MacroSeries("DX-Y.NYB", "US dollar index", "percent", False),
    MacroSeries("CL=F", "Crude oil (WTI)", "percent", False),
)


def macro_readings(series: Mapping[str, PriceHistory], last_week: TradingWeek) -> list[MacroReading]:
    """Level at the end of a past week, and its change over that week; a series without both is left out.

    Args:
        series: closes by Yahoo's symbol.
        last_week: the week that ends where the forecast starts.
    """
    found = []
    for kind in MACRO:
        closes = (
            {day: close.split_adjusted for day, close in series[kind.symbol].closes.items()}
            if (kind.symbol in series)
            else {}
        )
        before = _level(closes, last_week.start, kind.closes_with_stocks)
        level = _level(closes, last_week.end, kind.closes_with_stocks)
        if before and level:
            change = level - before if kind.change_unit == "points" else 100 * (level - before) / before
            found.append(MacroReading(kind.name, float(level), float(change), kind.change_unit))
    return found


def _level(closes: Mapping[date, Decimal], day: date, that_day_counts: bool) -> Decimal | None:
    """The last close at or before a day, or strictly before it; None when there is none within a week."""
    days = sorted(closes)
    at = (bisect_right if that_day_counts else bisect_left)(days, day) - 1
    return closes[days[at]] if at >= 0 and (day - days[at]).days <= 7 else None
