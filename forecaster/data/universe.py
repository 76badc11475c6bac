"""Which symbols a dataset holds, and for which weeks. Pure, but for reading a file of tickers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import indices
from forecaster.data.weeks import last_session_at_or_before
from forecaster.errors import ConfigurationError, Problem
from forecaster.plain_text import read_text
from forecaster.records import TradingWeek

_NAMED = {
    "dow": "DOW_30",
    "nasdaq": "NASDAQ_100",
    "euro": "EURO_STOXX_50",
    "crypto": "CRYPTO",
}
_CALENDARS = {"EURO_STOXX_50": "XETR", "CRYPTO": "24/7"}
_US_CALENDAR = "XNYS"
_TICKER = re.compile(r"[A-Z0-9^][A-Z0-9.^=-]{0,14}")
_ELSEWHERE = re.compile(r".+(-[A-Z]{3}|\.(?![ABC]$)[A-Z]+)")
"""Tickers of coins and of other exchanges, by Yahoo's endings; BRK.B is an American share class."""
_LONGEST_LIST_IN_NAME = 5


@dataclass(frozen=True)
class Universe:
    """An index, or the user's own list, before any week is looked at."""

    name: str
    """As it stands in folder names."""
    index: str | None
    """Name in `indices`, or None for the user's own list."""
    symbols: tuple[str, ...]
    """The user's own list, as vendors call its members today; empty for an index."""
    notes: tuple[str, ...] = ()
    """What the user should be told about the list."""

    @property
    def calendar(self) -> str:
        return _CALENDARS.get(self.index or "", _US_CALENDAR)

    @property
    def kind(self) -> Literal["stock", "cryptocurrency"]:
        return "cryptocurrency" if self.index == "CRYPTO" else "stock"

    @property
    def has_company_news(self) -> bool:
        """Whether Finnhub has company news, profiles and filings for it: North American companies only."""
        return self.index not in _CALENDARS


def find_universe(index_name: str) -> Universe:
    """Resolve `--index_name`; BRK-B is BRK.B. Raises ConfigurationError."""
    if index := _NAMED.get(index_name.strip().lower()):
        return Universe(index.lower().replace("_", "-"), index, ())
    path = Path(index_name)
    try:
        from_file = path.is_file()
    except OSError:  # a long list is longer than any file name
        from_file = False
    try:
        text = read_text(path) if from_file else index_name
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            [Problem("--index_name", f"{path} cannot be read ({error}).", "Give a text file of tickers.")]
        ) from error
    tickers = [word.strip("$").upper() for word in re.split(r"[\s,;]+", re.sub(r"#.*", "", text)) if word]
    bad = [word for word in tickers if not _TICKER.fullmatch(word)]
    listed = from_file or "," in index_name or (index_name.isupper() and len(tickers) == 1)
    if bad or not tickers or not listed:
        found = (
            f"{path} holds {', '.join(map(repr, bad[:5])) or 'no ticker'}."
            if from_file
            else (f"is {index_name!r}.")
        )
        raise ConfigurationError(
            [
                Problem(
                    "--index_name",
                    found,
                    f"Use {', '.join(_NAMED)}, tickers such as AAPL,MSFT, or a file of tickers.",
                )
            ]
        )
    return _own_list([indices.dotted(ticker) for ticker in tickers], path.stem.lower() if from_file else None)


def _own_list(tickers: Sequence[str], file_name: str | None) -> Universe:
    if elsewhere := [ticker for ticker in dict.fromkeys(tickers) if _ELSEWHERE.fullmatch(ticker)]:
        # Their closes are of other hours than New York's, so that news and prices would not meet.
        found = f"holds {', '.join(elsewhere)}, but a list follows the sessions of New York."
        way_out = "Leave them out; for large European companies and for coins there are euro and crypto."
        raise ConfigurationError([Problem("--index_name", found, way_out)])
    symbols = tuple(dict.fromkeys(indices.vendor_symbol(ticker) for ticker in tickers))
    renamed = [
        f"{old} is {new} today"
        for old in dict.fromkeys(tickers)
        if (new := indices.vendor_symbol(old)) != old
    ]
    members = {*indices.DOW_30, *indices.NASDAQ_100}
    outside = [symbol for symbol in symbols if symbol not in members]
    notes = [f"Renamed: {', '.join(renamed)}."] if renamed else []
    if len(tickers) > len(symbols):
        notes.append(f"{len(tickers) - len(symbols)} tickers name a company twice.")
    if outside:
        notes.append(
            f"{len(outside)} of {len(symbols)} are no members of DOW_30 or NASDAQ_100 today: "
            f"{', '.join(outside)}."
        )
    short = "-".join(symbol.lower() for symbol in symbols[:_LONGEST_LIST_IN_NAME])
    more = len(symbols) - _LONGEST_LIST_IN_NAME
    return Universe(
        file_name or (f"{short}-and-{more}-more" if more > 0 else short), None, symbols, tuple(notes)
    )


@dataclass(frozen=True)
class Membership:
    """For which weeks each symbol is wanted."""

    weeks: tuple[TradingWeek, ...]
    """All weeks of the range, oldest first."""
    targets: Mapping[str, tuple[int, ...]]
    """Indices of the weeks to forecast, by the symbol that vendors use today; sorted."""

    @property
    def symbol_weeks(self) -> int:
        return sum(len(found) for found in self.targets.values())


def membership(
    universe: Universe, weeks: Sequence[TradingWeek], min_past_weeks: int, current_members: bool
) -> Membership:
    """A symbol is wanted for the weeks on whose first session it was a member; `min_past_weeks` come before.

    Raises:
        ConfigurationError: the range begins before the index is known.
    """
    targets: dict[str, list[int]] = {}
    for at in range(min_past_weeks, len(weeks)):
        for symbol in _members(universe, weeks[at], current_members):
            targets.setdefault(indices.vendor_symbol(symbol), []).append(at)
    return Membership(tuple(weeks), {symbol: tuple(targets[symbol]) for symbol in sorted(targets)})


def _members(universe: Universe, week: TradingWeek, current_members: bool) -> tuple[str, ...]:
    if universe.index is None:
        return universe.symbols
    if current_members:
        return indices.constituents(universe.index, indices.KNOWN_UNTIL)
    first_session = _session_after(universe.calendar, week)
    try:
        return indices.constituents(universe.index, first_session)
    except ValueError as error:
        found = f"{universe.index}'s members are known from {indices.KNOWN_FROM} on, not on {first_session}."
        way_out = "Start later, or use --current_members."
        raise ConfigurationError([Problem("--start_date", found, way_out)]) from error


def _session_after(calendar: str, week: TradingWeek) -> date:
    """First session of a week: the earliest one behind the session it starts from."""
    day = week.start + timedelta(days=1)
    while last_session_at_or_before(calendar, day) != day:
        day += timedelta(days=1)
    return day
