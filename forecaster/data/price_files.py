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
from forecaster.data.file_checks import days_problems
from forecaster.data.untrue_prices import true_closes
from forecaster.errors import ConfigurationError, Problem
from forecaster.vendors import own_files


def price_calls_of(files: Sequence[Path]) -> Callable[[str], Call | None]:
    """By symbol, the part of the files with the most closes; None where they have none.

    Raises:
        ConfigurationError: a file cannot be read, or its closes lie on other days than their sessions.
    """
    calls: list[Call] = []
    problems: list[Problem] = []
    for path in files:
        found = own_files.read_price_file(path).calls
        problems += days_problems(f"--price_file {path}", found)
        calls += found
    if problems:
        raise ConfigurationError(problems)

    def price_call(symbol: str) -> Call | None:
        own = [call for call in calls if call.request.symbol == indices.vendor_symbol(symbol)]
        return store.fullest(own, first_day="", last_day="9999")

    return price_call


def closes_of(files: Sequence[Path]) -> Callable[[str], Mapping[date, Decimal] | None]:
    """By symbol, adjusted closes by day, without those that cannot be true; raises ConfigurationError as
    `price_calls_of`."""
    price_call = price_calls_of(files)

    @cache
    def closes(symbol: str) -> Mapping[date, Decimal] | None:
        call = price_call(symbol)
        if call is None:
            return None
        history = store.price_history(call.payload)
        return {day: close.adjusted for day, close in true_closes(history).items()}

    return closes
