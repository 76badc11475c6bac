"""What the ledger holds of one symbol, as the records that rows are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal

from forecaster.calls import Call, Request
from forecaster.data import fundamentals, news
from forecaster.data.join import SymbolData
from forecaster.data.ledger import Ledger
from forecaster.data.macro import MACRO
from forecaster.records import Article, Close, Company, PriceHistory, Quarter, TradingWeek
from forecaster.vendors import payloads
from forecaster.vendors.own_files import NEWS_FILE, PRICE_FILE
from forecaster.vendors.registry import endpoints_of, names_of

PRICE_LOOKBACK_DAYS = 450
"""Prices are asked for from this long before the first week: more than the sessions behind the indicators
(`INDICATOR_SESSIONS`) on any exchange, so that these do not depend on where a dataset starts."""
DAYS_TO_SETTLE = 5


@dataclass(frozen=True)
class Stored:
    """One symbol's data, and the calls that it comes from."""

    data: SymbolData
    calls: tuple[Call, ...]
    cut_off_days: frozenset[date]
    malformed_articles: int
    """Items of the news calls that are no article and are left out."""


def read_symbol(
    ledger: Ledger,
    symbol: str,
    weeks: Sequence[TradingWeek],
    kind: Literal["stock", "cryptocurrency"],
    files: Sequence[str],
) -> Stored:
    """Read everything about a symbol that a dataset over `weeks` may use.

    Args:
        symbol: as vendors know it today.
        files: digests of the user's own files; what the ledger holds of others is passed over.
    """
    first, last = weeks[0].start_close, weeks[-1].end_close
    news_calls = [
        call
        for call in news_calls_of(ledger, symbol, files)
        if date.fromisoformat(call.request.window_start) <= last.date()
        and date.fromisoformat(call.request.window_end) >= first.date()
    ]
    profile = profile_calls(ledger, symbol)
    quarters, reports = _quarters(ledger, symbol, [weeks[0].start, *(week.end for week in weeks)])
    prices = price_call(ledger, symbol, *price_window(weeks), files)
    history = price_history(prices.payload) if prices and prices.payload else None
    company = (
        Company(symbol, symbol, "", "", kind="cryptocurrency")
        if kind == "cryptocurrency"
        else fundamentals.company_of(symbol, _payload(profile))
    )
    data = SymbolData(
        company=company,
        prices=history,
        prices_asked=prices is not None,
        adjusted_only=bool(history and prices and prices.payload.get("adjusted_only")),
        articles=news.articles(news_calls, first, last),
        covered=news.certain_spans(news_calls),
        quarters=quarters,
    )
    return Stored(
        data,
        (*news_calls, *profile, *reports, *([prices] if prices else [])),
        frozenset(news.cut_off_days(news_calls)),
        news.malformed_articles(news_calls),
    )


def _quarters(
    ledger: Ledger, symbol: str, days: Sequence[date]
) -> tuple[Mapping[date, Sequence[Quarter]], list[Call]]:
    """Reported quarters for a forecast that starts on each of the days, and the calls that they are from.

    Answers are chosen for each day by itself, so that a row is the same in whatever dataset it stands.
    """
    endpoints = endpoints_of("figures", "filings")
    answers = {name: ledger.answers(name, symbol) for name in names_of("figures", "filings")}
    read: dict[tuple[Request | None, ...], Sequence[Quarter]] = {}
    found: dict[date, Sequence[Quarter]] = {}
    calls: dict[Request, Call] = {}
    for day in days:
        chosen = [reported_call(answers[asked.name], asked.variant, day) for asked in endpoints]
        key = tuple(call.request if call else None for call in chosen)
        if key not in read:
            given = [
                (asked.kind, call.payload) for asked, call in zip(endpoints, chosen, strict=True) if call
            ]
            series = next((payload for kind, payload in given if kind == "figures"), None)
            filings = [item for kind, payload in given if kind == "filings" for item in payload or ()]
            read[key] = fundamentals.quarters(series, filings)
            calls |= {call.request: call for call in chosen if call}
        found[day] = read[key]
    return found, list(calls.values())


def price_window(weeks: Sequence[TradingWeek]) -> tuple[date, date]:
    """First and last day, both included, of the closes that rows over `weeks` may need."""
    return weeks[0].start - timedelta(days=PRICE_LOOKBACK_DAYS), weeks[-1].end


def prices_to_ask(
    ledger: Ledger, symbol: str, weeks: Sequence[TradingWeek], files: Sequence[str]
) -> tuple[date, date] | None:
    """The window to ask the vendor for; None where the ledger has closes that will do."""
    window = price_window(weeks)
    return None if price_call(ledger, symbol, *window, files, settled_only=True) else window


def macro_calls(ledger: Ledger, weeks: Sequence[TradingWeek], files: Sequence[str]) -> dict[str, Call]:
    """The market-wide series that prompts over `weeks` show, by Yahoo's symbol."""
    window = price_window(weeks)
    found = {series.symbol: price_call(ledger, series.symbol, *window, files) for series in MACRO}
    return {symbol: call for symbol, call in found.items() if call and call.payload}


def price_call(
    ledger: Ledger,
    symbol: str,
    first_day: date,
    last_day: date,
    files: Sequence[str],
    settled_only: bool = False,
) -> Call | None:
    """The one call whose closes are used: the user's file before the vendor, as two scales never mix.

    Of several files, the one with the most closes in the window; of several vendor answers, the asked window
    itself, or else the one that covers it and starts last.

    Args:
        files: digests of the user's own files, in their order.
        settled_only: pass over answers to which the vendor may still add the last close.
    """
    asked = (first_day.isoformat(), last_day.isoformat())
    own = [call for call in ledger.answers(PRICE_FILE, symbol) if call.request.variant in files]
    if file := fullest(sorted(own, key=lambda call: files.index(call.request.variant)), *asked):
        return file
    covering = [
        call
        for name in names_of("prices")
        for call in ledger.answers(name, symbol)
        if call.request.window_start <= asked[0]
        and asked[1] <= call.request.window_end
        and (is_settled(call) or not settled_only)
    ]
    exact = [call for call in covering if (call.request.window_start, call.request.window_end) == asked]
    return max(exact or covering, key=lambda call: (call.request, call.fetched_at), default=None)


def fullest(price_files: Sequence[Call], first_day: str, last_day: str) -> Call | None:
    """The first of the files with the most closes in a window; None when there is no close in it."""

    def closes(call: Call) -> int:
        return sum(first_day <= bar["day"] <= last_day for bar in (call.payload or {}).get("bars", ()))

    found = max(price_files, key=closes, default=None)
    return found if found and closes(found) else None


def is_settled(call: Call) -> bool:
    """Whether an answer about prices is the last word: it has its window's last close, or came days after.

    Vendors show the last close hours late now and then.
    """
    bars = (call.payload or {}).get("bars") or [{"day": ""}]
    last_day = call.request.window_end
    if call.payload is None or bars[-1]["day"] >= last_day:
        return True
    return call.fetched_at.date() > date.fromisoformat(last_day) + timedelta(days=DAYS_TO_SETTLE)


def reported_call(calls: Sequence[Call], variant: str, as_of: date) -> Call | None:
    """Of answers about reported figures the earliest that was given after a day, or else the newest."""
    found = sorted((c for c in calls if c.request.variant == variant), key=lambda c: c.request.window_end)
    after = [call for call in found if call.request.window_end >= as_of.isoformat()]
    return next(iter(after), found[-1] if found else None)


def price_history(payload: dict[str, Any]) -> PriceHistory:
    return PriceHistory(
        {
            date.fromisoformat(bar["day"]): Close(Decimal(bar["close"]), Decimal(bar["adj_close"]))
            for bar in payload["bars"]
        },
        {date.fromisoformat(split["day"]): Decimal(split["ratio"]) for split in payload["splits"]},
    )


def profile_calls(ledger: Ledger, symbol: str) -> list[Call]:
    """What vendors say of a company."""
    return [call for name in names_of("profile") for call in ledger.answers(name, symbol)]


def news_calls_of(
    ledger: Ledger, symbol: str, files: Sequence[str], endpoints: Sequence[str] | None = None
) -> list[Call]:
    """The vendors' news calls of a symbol, and those of the user's own files.

    Args:
        endpoints: of which vendors' answers; None takes all.
    """
    own = [call for call in ledger.answers(NEWS_FILE, symbol) if call.request.variant in files]
    names = names_of("news") if endpoints is None else endpoints
    return [*(call for name in names for call in ledger.answers(name, symbol)), *own]


def raw_articles(calls: Sequence[Call]) -> list[Article]:
    """Every article of the news calls as it was received: strays and repetitions too."""
    return [
        news.article_of(call, item)
        for call in calls
        if call.request.endpoint in (*names_of("news"), NEWS_FILE)
        for item in call.payload or ()
        if payloads.is_article(item)
    ]


def _payload(calls: Sequence[Call]) -> Any:
    return calls[0].payload if calls else None
