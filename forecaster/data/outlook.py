"""One symbol's coming week as of a day: what its prompt needs, the prompt, and what is known of the outcome.

The prompt of a past week is the one that a dataset holds for it, to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

import indices
from forecaster.calls import Call
from forecaster.data import news, store
from forecaster.data.dataset_spec import macro_needs
from forecaster.data.fetch import Needs
from forecaster.data.join import NO_CLOSE, NO_NEWS, Draft, Dropped, Recipe, draft_of, example_of
from forecaster.data.ledger import Ledger
from forecaster.data.pipeline_config import EARLIEST_START
from forecaster.data.splits import MAX_PAST_WEEKS
from forecaster.data.universe import Universe, find_universe
from forecaster.data.weeks import SETTLING_TIME, sessions_between, week_after
from forecaster.errors import ConfigurationError, Problem
from forecaster.records import Example, TradingWeek
from forecaster.vendors.own_files import PRICE_FILE
from forecaster.vendors.registry import FINNHUB, names_of

_TICKER = re.compile(r"[A-Z0-9][A-Z0-9.-]{0,14}")


@dataclass(frozen=True)
class Shown:
    """What a prompt shows, in the flags of `data_pipeline.py`, with their defaults."""

    min_past_weeks: int = 1
    max_past_weeks: int = MAX_PAST_WEEKS
    with_indicators: bool = False
    with_macro: bool = False

    def __str__(self) -> str:
        blocks = (("technical indicators", self.with_indicators), ("the market environment", self.with_macro))
        parts = [f"{self.min_past_weeks} to {self.max_past_weeks} past weeks"]
        return ", ".join(parts + [f"{'with' if on else 'without'} {name}" for name, on in blocks])


@dataclass(frozen=True)
class Outlook:
    """A forecast to make."""

    universe: Universe
    """Where the symbol belongs: its calendar, and whether Finnhub knows it."""
    symbol: str
    """As vendors know it today."""
    past: tuple[TradingWeek, ...]
    """The weeks before the target that the prompt may show, oldest first."""
    target: TradingWeek
    day: date
    """The day as of which the forecast is made."""
    shown: Shown
    now: datetime

    @property
    def is_under_way(self) -> bool:
        """Whether a session of the target week had come on that day."""
        first = self.target.start + timedelta(days=1)
        return bool(sessions_between(self.universe.calendar, first, self.day))

    @property
    def is_over(self) -> bool:
        """Whether the target week is, so that its outcome can be known."""
        return self.target.end_close + SETTLING_TIME <= self.now

    @property
    def priced_weeks(self) -> tuple[TradingWeek, ...]:
        """The weeks whose closes can be known."""
        return (*self.past, self.target) if self.is_over else self.past


def find_outlook(symbol: str, day: date | None, shown: Shown, now: datetime) -> Outlook:
    """The forecast for the week that follows the last week-end close up to a day; asks nobody.

    Args:
        day: None is today.

    Raises:
        ConfigurationError: with everything that is wrong.
    """
    universe, problems = _universe_of(symbol)
    problems = list(problems)
    if shown.min_past_weeks < 1:
        found = f"is {shown.min_past_weeks}."
        problems.append(Problem("--min_past_weeks", found, "It has to be 1 or more."))
    elif shown.max_past_weeks < shown.min_past_weeks:
        found = f"is {shown.max_past_weeks}."
        way_out = f"It has to be --min_past_weeks ({shown.min_past_weeks}) or more."
        problems.append(Problem("--max_past_weeks", found, way_out))
    today = now.date()
    asked = day or today
    earliest = EARLIEST_START + timedelta(weeks=max(shown.max_past_weeks, 0) + 4)
    if asked > today:
        way_out = f"A forecast starts from a close that is there: give a day up to today, {today} (UTC)."
        problems.append(Problem("--date", f"{asked} is in the future.", way_out))
    elif asked < earliest:
        problems.append(
            Problem("--date", f"{asked} is before what vendors serve.", f"It has to be {earliest} or later.")
        )
    if universe is None or problems:
        raise ConfigurationError(problems)
    past, target = week_after(universe.calendar, asked, now, shown.max_past_weeks)
    if (ready := target.start_close + SETTLING_TIME) > now:
        found = f"the close of {target.start} is of {target.start_close:%H:%M} UTC, too fresh for its price."
        way_out = f"Vendors show the official one later: run this after {ready:%H:%M} UTC, or give --date."
        raise ConfigurationError([Problem("--date", found, way_out)])
    vendor_symbol = indices.vendor_symbol(symbol.strip().upper())
    return Outlook(universe, vendor_symbol, tuple(past), target, asked, shown, now)


def _universe_of(symbol: str) -> tuple[Universe | None, Sequence[Problem]]:
    """The index whose calendar a ticker follows, or New York's, or what is wrong with the ticker."""
    ticker = symbol.strip().upper()
    if not _TICKER.fullmatch(ticker):
        way_out = "Give one ticker, such as AAPL or BRK.B."
        return None, [Problem("--symbol", f"is {symbol!r}.", way_out)]
    for name, members in (("crypto", indices.CRYPTO), ("euro", indices.EURO_STOXX_50)):
        if ticker in members:
            return find_universe(name), ()
    try:
        # With a comma it is a list of tickers, whatever index or file has that name.
        return find_universe(f"{ticker},"), ()
    except ConfigurationError:
        found = f"{ticker} is of another exchange than New York's."
        way_out = "Of those, the members of EURO_STOXX_50 and CRYPTO in indices.py are known."
        return None, [Problem("--symbol", found, way_out)]


def needs_of(outlook: Outlook, ledger: Ledger, with_finnhub: bool, files: Sequence[str]) -> list[Needs]:
    """What the forecast needs of each vendor; prices only where the ledger has none that will do.

    Args:
        with_finnhub: whether there is a key; without one, news is what the user's files hold.
        files: digests of the user's own files.
    """
    asks = with_finnhub and outlook.universe.has_company_news
    found = [
        Needs(
            outlook.symbol,
            news.spans_of(outlook.past) if asks else (),
            store.prices_to_ask(ledger, outlook.symbol, outlook.priced_weeks, files),
            profile=asks,
            financials=outlook.target.start if asks else None,
        )
    ]
    return found + (macro_needs(ledger, outlook.priced_weeks, files) if outlook.shown.with_macro else [])


@dataclass(frozen=True)
class View:
    """The prompt about a coming week, where everything in it is from, and the outcome where it is known."""

    draft: Draft
    actual: Example | None
    sources: Mapping[str, Any]
    """JSON: articles, filing and closes that the prompt shows."""


def read_view(outlook: Outlook, ledger: Ledger, files: Sequence[str]) -> View:
    """The forecast's prompt, from what the ledger holds; raises ConfigurationError where there is none."""
    kind, weeks = outlook.universe.kind, outlook.priced_weeks
    stored = store.read_symbol(ledger, outlook.symbol, weeks, kind, files)
    macro = store.macro_calls(ledger, weeks, files) if outlook.shown.with_macro else {}
    recipe = Recipe(
        outlook.shown.min_past_weeks,
        outlook.shown.max_past_weeks,
        outlook.shown.with_indicators,
        {symbol: store.price_history(call.payload) for symbol, call in macro.items()},
        outlook.universe.calendar,
    )
    draft = draft_of(stored.data, outlook.past, outlook.target, recipe)
    if isinstance(draft, Dropped):
        raise ConfigurationError([_no_prompt(outlook, draft, stored)])
    example = example_of(draft, stored.data) if outlook.is_over else None
    actual = example if isinstance(example, Example) else None
    return View(draft, actual, _sources(draft, stored, files))


def _no_prompt(outlook: Outlook, dropped: Dropped, stored: store.Stored) -> Problem:
    name, start = outlook.symbol, outlook.target.start
    if stored.data.prices is None:
        found = f"{name} has no prices: {dropped.reason}."
        return Problem("--symbol", found, "Check the ticker, or bring closes with --price_file.")
    if dropped.reason == NO_CLOSE:
        closes = stored.data.prices.closes
        last = max((day for day in closes if day <= start), default=None)
        found = f"there is no closing price of {name} on {start}; the last one before is of {last}."
        way_out = "Yahoo shows some closes hours late: run this again later, or give an earlier --date."
        return Problem("--date", found, way_out)
    if dropped.reason == NO_NEWS:
        first = outlook.past[0].start
        found = f"there is no news about {name} from {first} to {start}."
        way_out = "Bring it with --news_file, or give another --date."
        if first < outlook.now.date() - timedelta(days=FINNHUB.news_days or 0):
            way_out = f"Finnhub's free plan serves about {FINNHUB.news_days} days. {way_out}"
        return Problem("--date", found, way_out)
    return Problem("--date", f"{name} has {dropped.reason} up to {start}.", "Give a later --date.")


def _sources(draft: Draft, stored: store.Stored, files: Sequence[str]) -> dict[str, Any]:
    prices, quarter = stored.data.shown_prices, draft.quarter
    assert prices is not None  # else there is no draft
    price_calls = [
        call for call in stored.calls if call.request.endpoint in (*names_of("prices"), PRICE_FILE)
    ]
    edges = sorted({day for week in draft.past for day in (week.start, week.end)})
    items = news.items_by_id(stored.calls)
    return {
        "news": [
            {
                "id": article.id,
                "published_at": article.published_at.isoformat(),
                "headline": article.headline,
                "source": items.get(article.id, {}).get("source") or None,
                "url": items.get(article.id, {}).get("url") or None,
            }
            for article in draft.news
        ],
        "quarter": {
            "period_end": quarter.period_end.isoformat(),
            "filing": quarter.filing or None,
            "public_at": quarter.available_at.isoformat(),
            "public_at_is_estimated": quarter.estimated,
        }
        if quarter
        else None,
        "closes": {day.isoformat(): str(prices.close_as_of(day, draft.target.start)) for day in edges},
        "closes_from": [_name_of(call) for call in price_calls],
        "files_sha256": list(files),
    }


def _name_of(call: Call) -> dict[str, str]:
    return asdict(call.request) | {"payload_sha256": call.sha256}
