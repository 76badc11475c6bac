"""The as-of join: news, figures and prices of one symbol become one example a week.

The rule, in one place: everything in a prompt was public before the close that the target return starts from.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

import indices
from forecaster.data.fundamentals import latest_known
from forecaster.data.indicators import indicators
from forecaster.data.macro import macro_readings
from forecaster.data.news import covers
from forecaster.data.weeks import label_of, return_pct, sessions_between
from forecaster.prompts import clean_text, render_user_text, system_prompt
from forecaster.records import (
    Article,
    Company,
    Example,
    Messages,
    NewsItem,
    PriceHistory,
    Quarter,
    TradingWeek,
    Week,
)

NEWS_PER_WEEK = 5
"""As in the published sets."""
MAX_SUMMARY_CHARS = 1000
"""Some sources give a whole article as its summary."""
INDICATOR_SESSIONS = 300
"""History behind the indicators: enough for the slowest average to have forgotten its start."""
MIN_INDICATOR_CLOSES = 50
"""What the longest average needs."""
MIN_SHARE_OF_SESSIONS = 0.95
"""Of the sessions that indicators span, so many need a close: over weekly or holed closes they are wrong."""
_ADVERTISEMENTS = ("looking for stock market analysis and research with prove",)
"""Beginnings of summaries that advertise instead of summing up."""


@dataclass(frozen=True)
class SymbolData:
    """What the ledger holds of one symbol, under the name that vendors use today."""

    company: Company
    prices: PriceHistory | None
    """None when the price vendor does not serve the symbol, or was not asked."""
    prices_asked: bool
    adjusted_only: bool
    articles: Sequence[Article]
    """Oldest first, each headline once."""
    covered: Sequence[tuple[datetime, datetime]]
    """Spans of which all news is there."""
    quarters: Sequence[Quarter]


@dataclass(frozen=True)
class Recipe:
    """What a prompt holds."""

    min_past_weeks: int
    max_past_weeks: int
    with_indicators: bool
    macro: Mapping[str, PriceHistory]
    """Closes by Yahoo's symbol; empty without the block."""
    calendar: str
    """The exchange whose weeks these are, as exchange_calendars names it."""


@dataclass(frozen=True)
class Dropped:
    """A symbol-week that gives no example, and why."""

    symbol: str
    target: TradingWeek
    reason: str


def examples_of(
    data: SymbolData, weeks: Sequence[TradingWeek], targets: Sequence[int], recipe: Recipe
) -> Iterator[Example | Dropped]:
    """One outcome for each target week of one symbol, oldest first; depends on no other symbol's data."""
    news = {week.end: _news_of(data, week) for week in weeks}
    for at in targets:
        past = weeks[max(0, at - recipe.max_past_weeks) : at]
        yield _example(data, past, weeks[at], news, recipe)


def _example(
    data: SymbolData,
    past: Sequence[TradingWeek],
    target: TradingWeek,
    news: Mapping[date, Sequence[tuple[Article, NewsItem]]],
    recipe: Recipe,
) -> Example | Dropped:
    symbol = indices.symbol_on(data.company.symbol, target.start)
    prices = data.prices
    if prices is None:
        reason = (
            "the price vendor does not serve the symbol" if data.prices_asked else "prices not fetched yet"
        )
        return Dropped(symbol, target, reason)
    if not {target.start, target.end} <= prices.closes.keys():
        return Dropped(symbol, target, "no closing price at the week's start or end")
    past = _unbroken(past, prices)
    if len(past) < recipe.min_past_weeks:
        return Dropped(symbol, target, f"fewer than {recipe.min_past_weeks} past weeks with prices")
    shown = [pair for week in past for pair in news[week.end]]
    if not shown:
        return Dropped(symbol, target, "no news in its past weeks")
    quarter = latest_known(data.quarters, target.start_close)
    company = _company_as(data.company, symbol)
    charted = _charted_days(target.start, prices, recipe.calendar) if recipe.with_indicators else []
    user = render_user_text(
        company,
        [_past_week(week, prices, target.start, [item for _, item in news[week.end]]) for week in past],
        quarter.figures if quarter else {},
        quarter.period_end if quarter else None,
        target.start,
        target.end,
        indicators=indicators([prices.close_as_of(day, target.start) for day in charted]),
        macro=macro_readings(recipe.macro, past[-1], recipe.calendar),
    )
    start, end = prices.closes[target.start].adjusted, prices.closes[target.end].adjusted
    return Example(
        symbol=symbol,
        target=target,
        messages=Messages(system_prompt(company.kind), user),
        label=label_of(start, end),
        weekly_return_pct=return_pct(start, end),
        start_price=_cents(prices.close_as_of(target.start, target.start)),
        end_price=_cents(prices.close_as_of(target.end, target.start)),
        news_ids=tuple(article.id for article, _ in shown),
        filing=quarter.filing if quarter else "",
        flags=_flags(data, past, quarter, recipe.with_indicators and not charted),
    )


def _news_of(data: SymbolData, week: TradingWeek) -> list[tuple[Article, NewsItem]]:
    """A sample of the week's news, oldest first, by a seed of the symbol's and the week's own."""
    within = [a for a in data.articles if week.start_close <= a.published_at < week.end_close]
    items = [(article, _news_item(article)) for article in within]
    usable = [(article, item) for article, item in items if item.headline]
    rng = random.Random(f"{data.company.symbol} {week.end}")
    chosen = sorted(rng.sample(range(len(usable)), min(NEWS_PER_WEEK, len(usable))))
    return [usable[at] for at in chosen]


def _news_item(article: Article) -> NewsItem:
    summary = clean_text(article.summary)
    if summary.casefold().startswith(_ADVERTISEMENTS):
        summary = ""
    if len(summary) > MAX_SUMMARY_CHARS:
        summary = summary[:MAX_SUMMARY_CHARS].rsplit(" ", 1)[0] + " ..."
    return NewsItem(clean_text(article.headline), summary)


def _unbroken(past: Sequence[TradingWeek], prices: PriceHistory) -> list[TradingWeek]:
    """The latest of the past weeks, back to the first without both prices."""
    kept: list[TradingWeek] = []
    for week in reversed(past):
        if not {week.start, week.end} <= prices.closes.keys():
            break
        kept.insert(0, week)
    return kept


def _past_week(week: TradingWeek, prices: PriceHistory, as_of: date, news: Sequence[NewsItem]) -> Week:
    start, end = (_cents(prices.close_as_of(day, as_of)) for day in (week.start, week.end))
    return Week(week.start, week.end, start, end, tuple(news))


def _charted_days(day: date, prices: PriceHistory, calendar: str) -> list[date]:
    """Days up to this one whose closes a chart of this day showed, oldest first; empty where too few of the
    sessions have a close."""
    days = sorted(d for d in prices.closes if d <= day)[-INDICATOR_SESSIONS:]
    if len(days) < MIN_INDICATOR_CLOSES:
        return []
    sessions = sessions_between(calendar, days[0], days[-1])
    with_close = sum(session in prices.closes for session in sessions)
    return days if with_close >= MIN_SHARE_OF_SESSIONS * len(sessions) else []


def _cents(price: Decimal) -> float:
    """Dollars and cents; more digits below one dollar, where a cent would be a large move."""
    return round(float(price), 2 if price >= 1 else 6)


def _company_as(company: Company, symbol: str) -> Company:
    """The company under the symbol of the day."""
    if symbol == company.symbol:
        return company
    return replace(company, symbol=symbol, name=symbol if company.name == company.symbol else company.name)


def _flags(
    data: SymbolData, past: Sequence[TradingWeek], quarter: Quarter | None, no_indicators: bool
) -> tuple[str, ...]:
    covered = all(covers(data.covered, week.start_close, week.end_close) for week in past)
    return tuple(
        name
        for name, holds in (
            ("fundamentals_estimated", quarter is not None and quarter.estimated),
            ("indicators_incomplete", no_indicators),
            ("news_incomplete", not covered),
            ("prices_adjusted_only", data.adjusted_only),
        )
        if holds
    )
