"""What the answers of vendors look like, and whether one is what it has to be: asked before it counts as an
answer, and again when it is read from the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from forecaster.records import FIRST_YEAR, LAST_YEAR

if TYPE_CHECKING:
    from forecaster.vendors.base import FactKind

_LAST_SECOND = 253_402_300_799
"""The last that a datetime can hold: the end of the year 9999."""
LOWEST_PRICE, HIGHEST_PRICE = Decimal("1e-15"), Decimal("1e15")
"""Of anything, in any currency: a coin of a millionth of a cent, an index of a currency in ruins."""
MOST_SPLIT = Decimal("1e9")
_LARGEST_FIGURE = 1e18
_LONGEST_FACT_CHARACTERS = 10_000
_MOST_LEVELS = 50
"""The deepest answer has six; what is much deeper than this can neither be written nor shown."""


def is_article(item: Any) -> bool:
    """Whether an item has what is needed of it: an id, a time in whole seconds, and a headline."""
    return (
        isinstance(item, dict)
        and isinstance(item.get("headline"), str)
        and isinstance(item.get("datetime"), int)
        and 0 <= item["datetime"] <= _LAST_SECOND
        and isinstance(item.get("id"), int | str)
    )


def fault_of(kind: FactKind, payload: Any) -> str:
    """Why a payload is no answer about facts of a kind, in words of this module; empty when it is one.

    Never raises, whatever it is given.
    """
    return "an answer that is nested too deeply" if _is_deep(payload) else _FAULTS[kind](payload)


def is_day(value: Any) -> bool:
    """Whether a value is an ISO date that can be reckoned with."""
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return day is not None and FIRST_YEAR <= day.year <= LAST_YEAR


def is_price(number: Decimal) -> bool:
    """Whether anything can cost so much."""
    return number.is_finite() and LOWEST_PRICE <= number <= HIGHEST_PRICE


def _is_deep(payload: Any) -> bool:
    level = [payload]
    for _ in range(_MOST_LEVELS):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _news(payload: Any) -> str:
    # Single odd items stay in the answer, where they are counted; an answer of nothing else is no answer.
    is_news = isinstance(payload, list) and (not payload or any(map(is_article, payload)))
    return "" if is_news else "news of an unknown form"


def _profile(payload: Any) -> str:
    is_profile = isinstance(payload, dict) and all(map(_is_fact, payload.values()))
    return "" if is_profile else "a profile of an unknown form"


def _figures(payload: Any) -> str:
    if not isinstance(payload, dict) or not all(map(_is_series, payload.values())):
        return "figures of an unknown form"
    points = [point for series in payload.values() for points in series.values() for point in points]
    return "" if all(_is_figure(point.get("v")) for point in points) else "figures that are no finite numbers"


def _is_series(named: Any) -> bool:
    return isinstance(named, dict) and all(
        isinstance(points, list) and all(isinstance(point, dict) for point in points)
        for points in named.values()
    )


def _filings(payload: Any) -> str:
    is_list = isinstance(payload, list) and all(
        isinstance(filing, dict) and all(_is_fact(value) for value in filing.values()) for filing in payload
    )
    return "" if is_list else "filings of an unknown form"


def _prices(payload: Any) -> str:
    if not isinstance(payload, dict):
        return "prices of an unknown form"
    bars: Any = payload.get("bars")
    splits: Any = payload.get("splits")
    missing = payload.get("missing_days")
    is_whole = (
        isinstance(bars, list)
        and isinstance(splits, list)
        and isinstance(missing, list)
        and all(map(_is_of_day, [*bars, *splits]))
        and all(map(is_day, missing))
        and all(_is_in(split.get("ratio"), 1 / MOST_SPLIT, MOST_SPLIT) for split in splits)
        and isinstance(payload.get("adjusted_only", False), bool)
    )
    if not is_whole:
        return "prices of an unknown form"
    closes = [bar.get(name) for bar in bars for name in ("close", "adj_close")]
    is_priced = all(_is_in(close, LOWEST_PRICE, HIGHEST_PRICE) for close in closes)
    return "" if is_priced else "prices that nothing can have"


_FAULTS: Mapping[FactKind, Callable[[Any], str]] = {
    "news": _news,
    "profile": _profile,
    "figures": _figures,
    "filings": _filings,
    "prices": _prices,
}


def _is_fact(value: Any) -> bool:
    """A text, a number or nothing, of a length that a fact may have."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_FACT_CHARACTERS
    return _is_figure(value)


def _is_figure(value: Any) -> bool:
    """A number that can be reckoned with, or nothing."""
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= _LARGEST_FIGURE


def _is_of_day(item: Any) -> bool:
    return isinstance(item, dict) and is_day(item.get("day"))


def _is_in(text: Any, low: Decimal, high: Decimal) -> bool:
    """Whether a text is a number between two others."""
    try:
        number = Decimal(text) if isinstance(text, str) and len(text) <= _LONGEST_FACT_CHARACTERS else None
    except InvalidOperation:
        return False
    return number is not None and number.is_finite() and low <= number <= high
