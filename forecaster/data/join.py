"""The as-of join: news, figures and prices of one symbol become one example a week.

The rule, in one place: everything in a prompt was public before the close that the target return starts from.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property

import indices
from forecaster.data.fundamentals import latest_known
from forecaster.data.indicators import indicators
from forecaster.data.macro import macro_readings
from forecaster.data.news import covers, headline_words, without_repeats
from forecaster.data.untrue_prices import UntrueMove, first_true_day, untrue_moves, with_applied_splits
from forecaster.data.weeks import return_pct, sessions_between
from forecaster.records import (
    Article,
    Company,
    Example,
    Label,
    Messages,
    NewsItem,
    PriceHistory,
    Quarter,
    TradingWeek,
    Week,
)
from prompts import clean_text, render_user_text, system_prompt

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
NO_CLOSE = "no closing price at the week's start or end"
UNTRUE_PRICES = "prices that cannot be true"
NO_NEWS = "no news in its past weeks"
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
    """Oldest first, with what was published again later."""
    covered: Sequence[tuple[datetime, datetime]]
    """Spans of which all news is there."""
    quarters: Mapping[date, Sequence[Quarter]]
    """Reported quarters by the start of the week that a forecast is for."""

    @cached_property
    def untrue_moves(self) -> tuple[UntrueMove, ...]:
        return untrue_moves(self.prices) if self.prices else ()

    @cached_property
    def shown_prices(self) -> PriceHistory | None:
        """Prices whose splits are all in their closes."""
        return with_applied_splits(self.prices, self.untrue_moves) if self.prices else None

    def is_spoilt(self, week: TradingWeek) -> bool:
        """Whether the move over a week cannot be true."""
        return any(move.spoils(week.start, week.end) for move in self.untrue_moves)


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


@dataclass(frozen=True)
class Draft:
    """A prompt about one week of a symbol; it needs nothing of what the market then did."""

    symbol: str
    """As it was called when the week starts."""
    target: TradingWeek
    messages: Messages
    past: tuple[TradingWeek, ...]
    """The weeks that are shown, oldest first."""
    news: tuple[Article, ...]
    """Oldest first."""
    quarter: Quarter | None
    flags: tuple[str, ...]
    weeks: tuple[Week, ...]
    """`past` with the closes and the news that the prompt states."""


def examples_of(
    data: SymbolData, weeks: Sequence[TradingWeek], targets: Sequence[int], recipe: Recipe
) -> Iterator[Example | Dropped]:
    """One outcome for each target week of one symbol, oldest first; depends on no other symbol's data, and on
    no week but the target and the `max_past_weeks` before it."""
    for at in targets:
        draft = draft_of(data, weeks[max(0, at - recipe.max_past_weeks) : at], weeks[at], recipe)
        yield example_of(draft, data) if isinstance(draft, Draft) else draft


def draft_of(
    data: SymbolData, past: Sequence[TradingWeek], target: TradingWeek, recipe: Recipe
) -> Draft | Dropped:
    """The prompt about a week, which need not have begun.

    Args:
        past: up to `max_past_weeks` weeks before the target, oldest first.
    """
    symbol = indices.symbol_on(data.company.symbol, target.start)
    prices = data.shown_prices
    if prices is None:
        reason = (
            "the price vendor does not serve the symbol" if data.prices_asked else "prices not fetched yet"
        )
        return Dropped(symbol, target, reason)
    if target.start not in prices.closes:
        return Dropped(symbol, target, NO_CLOSE)
    # Repeats are those within all of the past weeks: what a missing price then leaves out changes nothing.
    news = _drawn(data, past)
    past = _unbroken(past, data, prices)
    if len(past) < recipe.min_past_weeks:
        return Dropped(symbol, target, f"fewer than {recipe.min_past_weeks} past weeks with prices")
    shown = tuple(article for week in past for article in news[week.end])
    if not shown:
        return Dropped(symbol, target, NO_NEWS)
    quarter = latest_known(data.quarters.get(target.start, ()), target.start_close)
    first_day = first_true_day(data.untrue_moves, target.start)
    charted = (
        _charted_days(first_day, target.start, prices, recipe.calendar) if recipe.with_indicators else []
    )
    company = _company_as(data.company, symbol)
    weeks = tuple(_past_week(week, prices, target.start, news[week.end]) for week in past)
    user = render_user_text(
        company,
        weeks,
        quarter.figures if quarter else {},
        quarter.period_end if quarter else None,
        target.start,
        target.end,
        indicators=indicators([prices.close_as_of(day, target.start) for day in charted]),
        macro=macro_readings(recipe.macro, past[-1], recipe.calendar),
    )
    flags = _flags(data, past, target, quarter, recipe.with_indicators and not charted)
    messages = Messages(system_prompt(company.kind), user)
    return Draft(symbol, target, messages, tuple(past), shown, quarter, flags, weeks)


def example_of(draft: Draft, data: SymbolData) -> Example | Dropped:
    """A prompt with what the market then did."""
    target, prices = draft.target, data.shown_prices
    if prices is None or not {target.start, target.end} <= prices.closes.keys():
        return Dropped(draft.symbol, target, NO_CLOSE)
    if data.is_spoilt(target):
        return Dropped(draft.symbol, target, UNTRUE_PRICES)
    start, end = prices.closes[target.start].adjusted, prices.closes[target.end].adjusted
    return Example(
        symbol=draft.symbol,
        target=target,
        messages=draft.messages,
        label=Label.between(start, end),
        weekly_return_pct=return_pct(start, end),
        start_price=shown_close(prices, target.start, target.start),
        end_price=shown_close(prices, target.end, target.start),
        news_ids=tuple(article.id for article in draft.news),
        filing=draft.quarter.filing if draft.quarter else "",
        flags=draft.flags,
        weeks=draft.weeks,
        figures=draft.quarter.figures if draft.quarter else {},
        is_coin=data.company.kind == "cryptocurrency",
    )


def _drawn(data: SymbolData, past: Sequence[TradingWeek]) -> dict[date, list[Article]]:
    """A sample of each past week's news by the week's end, oldest first, by a seed of the symbol's and the
    week's own."""
    if not past:
        return {}
    fresh = without_repeats(_between(data.articles, past[0].start_close, past[-1].end_close))
    drawn = {}
    for week in past:
        within = _between(fresh, week.start_close, week.end_close)
        usable = [article for article in within if headline_words(article.headline)]
        rng = random.Random(f"{data.company.symbol} {week.end}")
        chosen = sorted(rng.sample(range(len(usable)), min(NEWS_PER_WEEK, len(usable))))
        drawn[week.end] = [usable[at] for at in chosen]
    return drawn


def _between(articles: Sequence[Article], start: datetime, end: datetime) -> Sequence[Article]:
    """Of articles, oldest first, those published in a stretch of time; its end is not part of it."""
    first, last = (bisect_left(articles, moment, key=lambda a: a.published_at) for moment in (start, end))
    return articles[first:last]


def _news_item(article: Article) -> NewsItem:
    summary = clean_text(article.summary)
    if summary.casefold().startswith(_ADVERTISEMENTS):
        summary = ""
    if len(summary) > MAX_SUMMARY_CHARS:
        summary = summary[:MAX_SUMMARY_CHARS].rsplit(" ", 1)[0] + " ..."
    return NewsItem(clean_text(article.headline), summary)


def _unbroken(past: Sequence[TradingWeek], data: SymbolData, prices: PriceHistory) -> list[TradingWeek]:
    """The latest of the past weeks, back to the first without both prices, or with such as cannot be true."""
    kept: list[TradingWeek] = []
    for week in reversed(past):
        if not {week.start, week.end} <= prices.closes.keys() or data.is_spoilt(week):
            break
        kept.insert(0, week)
    return kept


def _past_week(week: TradingWeek, prices: PriceHistory, as_of: date, news: Sequence[Article]) -> Week:
    start, end = (shown_close(prices, day, as_of) for day in (week.start, week.end))
    return Week(week.start, week.end, start, end, tuple(map(_news_item, news)))


def _charted_days(first_day: date, day: date, prices: PriceHistory, calendar: str) -> list[date]:
    """Days from `first_day` on whose closes a chart of this day showed, of its last `INDICATOR_SESSIONS`,
    oldest first; empty where too few of the sessions have a close."""
    window = sessions_between(calendar, date.min, day)[-INDICATOR_SESSIONS:]
    days = sorted(known for known in prices.closes if window and max(window[0], first_day) <= known <= day)
    if len(days) < MIN_INDICATOR_CLOSES:
        return []
    sessions = sessions_between(calendar, days[0], days[-1])
    with_close = sum(session in prices.closes for session in sessions)
    return days if with_close >= MIN_SHARE_OF_SESSIONS * len(sessions) else []


def shown_close(prices: PriceHistory, day: date, as_of: date) -> float:
    """A close as prompts state it, in shares of another day: dollars and cents; more digits below one dollar,
    where a cent would be a large move."""
    price = prices.close_as_of(day, as_of)
    return round(float(price), 2 if price >= 1 else 6)


def _company_as(company: Company, symbol: str) -> Company:
    """The company under the symbol of the day."""
    if symbol == company.symbol:
        return company
    return replace(company, symbol=symbol, name=symbol if company.name == company.symbol else company.name)


def _flags(
    data: SymbolData,
    past: Sequence[TradingWeek],
    target: TradingWeek,
    quarter: Quarter | None,
    no_indicators: bool,
) -> tuple[str, ...]:
    covered = all(covers(data.covered, week.start_close, week.end_close) for week in past)
    first_day = past[0].start if past else target.start
    doubtful = any(move.is_doubtful(first_day, target.end) for move in data.untrue_moves)
    return tuple(
        name
        for name, holds in (
            ("fundamentals_estimated", quarter is not None and quarter.estimated),
            ("indicators_incomplete", no_indicators),
            ("news_incomplete", not covered),
            ("prices_adjusted_only", data.adjusted_only),
            ("prices_doubtful", doubtful),
        )
        if holds
    )
