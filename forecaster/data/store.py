"""What the ledger holds of one symbol, as the records that rows are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from forecaster.data import fundamentals, news
from forecaster.data.examples import SymbolData
from forecaster.data.ledger import Call, Ledger
from forecaster.records import Article, Close, Company, PriceHistory, TradingWeek

PRICE_LOOKBACK_DAYS = 400
"""Prices are asked for from this long before the first week, for the indicators' history."""


@dataclass(frozen=True)
class Stored:
    """One symbol's data, and the calls that it comes from."""

    data: SymbolData
    calls: tuple[Call, ...]
    cut_off_days: frozenset[date]
    malformed_articles: int
    """Items of the news calls that are no article and are left out."""


def read_symbol(
    ledger: Ledger, symbol: str, weeks: Sequence[TradingWeek], kind: Literal["stock", "cryptocurrency"]
) -> Stored:
    """Read everything about a symbol that a dataset over `weeks` may use.

    Args:
        symbol: as vendors know it today.
    """
    first, last = weeks[0].start_close.date(), weeks[-1].end_close.date()
    news_calls = [
        call
        for endpoint in (news.COMPANY_NEWS, news.NEWS_FILE)
        for call in ledger.answers(endpoint, symbol)
        if date.fromisoformat(call.request.window_start) <= last
        and date.fromisoformat(call.request.window_end) >= first
    ]
    profile, series = (ledger.answers(endpoint, symbol) for endpoint in ("profile", "basic-financials"))
    filings = ledger.answers("filings", symbol)
    prices = price_call(ledger, symbol, *price_window(weeks))
    history = price_history(prices.payload) if prices and prices.payload else None
    cut_off = news.cut_off_days(news_calls)
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
        articles=news.articles(news_calls),
        covered=news.gaps(news.covered_spans(news_calls), [_whole_day(day) for day in cut_off]),
        quarters=fundamentals.quarters(
            _payload(series), [filing for call in filings for filing in call.payload or ()]
        ),
    )
    return Stored(
        data,
        (*news_calls, *profile, *series, *filings, *([prices] if prices else [])),
        frozenset(cut_off),
        news.malformed_articles(news_calls),
    )


def price_window(weeks: Sequence[TradingWeek]) -> tuple[date, date]:
    """First and last day, both included, of the closes that rows over `weeks` may need."""
    return weeks[0].start - timedelta(days=PRICE_LOOKBACK_DAYS), weeks[-1].end


def price_call(ledger: Ledger, symbol: str, first_day: date, last_day: date) -> Call | None:
    """The one call whose closes are used: the user's file before the vendor, as two scales never mix.

    Of several files, the one that goes on longest; of several vendor answers, the asked window itself, or
    else the one that covers it and starts last.
    """
    asked = (first_day.isoformat(), last_day.isoformat())
    files = [
        call
        for call in ledger.answers("price-file", symbol)
        if call.request.window_start <= asked[1] and asked[0] <= call.request.window_end
    ]
    if file := longest(files):
        return file
    covering = [
        call
        for call in ledger.answers("daily-bars", symbol)
        if call.request.window_start <= asked[0] and asked[1] <= call.request.window_end
    ]
    exact = [call for call in covering if (call.request.window_start, call.request.window_end) == asked]
    return max(exact or covering, key=lambda call: call.request, default=None)


def longest(price_files: Sequence[Call]) -> Call | None:
    """Of a symbol's price files the one that goes on longest; empty ones do not count."""
    filled = [call for call in price_files if call.count]
    return max(filled, key=lambda call: (call.request.window_end, call.request.variant), default=None)


def price_history(payload: dict[str, Any]) -> PriceHistory:
    return PriceHistory(
        {
            date.fromisoformat(bar["day"]): Close(Decimal(bar["close"]), Decimal(bar["adj_close"]))
            for bar in payload["bars"]
        },
        {date.fromisoformat(split["day"]): Decimal(split["ratio"]) for split in payload["splits"]},
    )


def news_coverage(ledger: Ledger, symbol: str) -> list[news.Span]:
    """Spans of which no call can bring more news of a symbol."""
    endpoints = (news.COMPANY_NEWS, news.NEWS_FILE)
    return news.covered_spans([call for name in endpoints for call in ledger.answers(name, symbol)])


def raw_articles(calls: Sequence[Call]) -> list[Article]:
    """Every article of the news calls as it was received: strays and repetitions too."""
    return [
        Article(
            f"finnhub:{item['id']}" if call.request.endpoint == news.COMPANY_NEWS else str(item["id"]),
            datetime.fromtimestamp(item["datetime"], UTC),
            item["headline"],
            str(item.get("summary") or ""),
        )
        for call in calls
        if call.request.endpoint in (news.COMPANY_NEWS, news.NEWS_FILE)
        for item in call.payload or ()
        if news.is_article(item)
    ]


def _whole_day(day: date) -> news.Span:
    return news.start_of(day), news.start_of(day + timedelta(days=1))


def _payload(calls: Sequence[Call]) -> Any:
    return calls[0].payload if calls else None
