"""Closing prices from the user's own files alone, without a ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path

import indices
from forecaster.calls import Call
from forecaster.data import store
from forecaster.vendors import own_files


def price_calls_of(files: Sequence[Path]) -> Callable[[str], Call | None]:
    """By symbol, the part of the files with the most closes; None where they have none.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    calls = [call for path in files for call in own_files.read_price_file(path).calls]

    def price_call(symbol: str) -> Call | None:
        own = [call for call in calls if call.request.symbol == indices.vendor_symbol(symbol)]
        return store.fullest(own, first_day="", last_day="9999")

    return price_call


def closes_of(files: Sequence[Path]) -> Callable[[str], Mapping[date, Decimal] | None]:
    """By symbol, adjusted closes by day; raises ConfigurationError as `price_calls_of`."""
    price_call = price_calls_of(files)

    @cache
    def closes(symbol: str) -> Mapping[date, Decimal] | None:
        call = price_call(symbol)
        if call is None:
            return None
        return {day: close.adjusted for day, close in store.price_history(call.payload).closes.items()}

    return closes
