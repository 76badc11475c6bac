"""What a dataset will cost, before anything is spent. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from forecaster.vendors.registry import FINNHUB

ARTICLES_PER_WEEK = 100
"""Company news of an index member, in the mean over an index; the largest companies have ten times that."""
NEW_ARTICLES_PER_CALL = 215
"""Of the 230 to 250 that a call returns: windows go by days, so that a part of one day comes twice."""
COMPRESSED_BYTES_PER_ARTICLE = 250
BYTES_PER_ROW = 40_000
"""Prompt and answer, in the saved dataset, its parquet copy and the ledger."""


def prompt_chars(max_past_weeks: int) -> int:
    """About the length of a prompt; published ones, with up to four weeks of news, have 5,800 in the mean."""
    return 600 + 1_350 * max_past_weeks


@dataclass(frozen=True)
class NewsCost:
    """Company news that is still to be fetched."""

    calls: int
    days: int
    """Symbol-days."""
    days_before_free_tier: int
    """Of these, the ones that the free plan does not reach."""

    @property
    def share_before_free_tier(self) -> float:
        return self.days_before_free_tier / self.days if self.days else 0.0


def news_cost(gaps: Sequence[Sequence[tuple[datetime, datetime]]], now: datetime) -> NewsCost:
    """Calls for the spans not yet covered, by symbol: one for each full answer, at least one each."""
    horizon = now - timedelta(days=FINNHUB.news_days or 0)
    calls = days = before = 0
    for spans in gaps:
        for start, end in spans:
            span_days = (end - start) / timedelta(days=1)
            calls += math.ceil(span_days / 7 * ARTICLES_PER_WEEK / NEW_ARTICLES_PER_CALL) or 1
            days += math.ceil(span_days)
            before += math.ceil(max(timedelta(), min(end, horizon) - start) / timedelta(days=1))
    return NewsCost(calls, days, before)


@dataclass(frozen=True)
class CostEstimate:
    """All that is printed before the question."""

    symbols: int
    weeks: Sequence[date]
    """Ends of all weeks of the range."""
    symbol_weeks: int
    train_weeks: int
    test_weeks: int
    gap_weeks: int
    """Between training and test: made like the others, used by neither."""
    news: NewsCost
    other_calls: int
    """Profiles, figures and filings."""
    price_calls: int
    calls_per_minute: int
    teacher: str
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    max_cost_usd: float | None
    notes: Sequence[str]

    @property
    def minutes(self) -> float:
        return (self.news.calls + self.other_calls) / self.calls_per_minute

    @property
    def disk_bytes(self) -> int:
        articles = self.news.days / 7 * ARTICLES_PER_WEEK
        return round(articles * COMPRESSED_BYTES_PER_ARTICLE + self.symbol_weeks * BYTES_PER_ROW)


def render_plan(plan: CostEstimate) -> str:
    """The plan as lines of text."""
    calls = plan.news.calls + plan.other_calls
    lines = [
        f"{plan.symbols} symbols, {plan.symbol_weeks} symbol-weeks to forecast; weeks ending "
        f"{plan.weeks[0]} to {plan.weeks[-1]}",
        f"training {plan.train_weeks} weeks, a gap of {plan.gap_weeks}, then test {plan.test_weeks} weeks",
        f"Finnhub: about {plan.news.calls} news calls and {plan.other_calls} others still to make, "
        f"{_duration(plan.minutes)} at {plan.calls_per_minute} a minute"
        if calls
        else "Finnhub: nothing to fetch",
        f"Yahoo: {plan.price_calls} price calls still to make",
        _teacher_line(plan),
        f"disk: about {plan.disk_bytes / 1e6:.0f} MB",
    ]
    if plan.news.days_before_free_tier and plan.calls_per_minute <= FINNHUB.calls_per_minute:
        share = max(plan.news.share_before_free_tier, 0.01)
        lines.append(
            f"The free plan serves about {FINNHUB.news_days} days of news: {share:.0%} of what is asked lies "
            "before that and will come back empty. Start later, or bring it with --news_file."
        )
    return "\n".join([*lines, *plan.notes])


def _teacher_line(plan: CostEstimate) -> str:
    if plan.teacher == "template":
        return "teacher: template, no tokens"
    cost = "cost unknown (give the two --..._usd_per_million_tokens)"
    if plan.cost_usd is not None:
        cost = f"about ${plan.cost_usd:.2f}"
        if plan.max_cost_usd is not None:
            cost += f", stopped before ${plan.max_cost_usd:.2f}"
    return (
        f"teacher: {plan.teacher}, about {_tokens(plan.input_tokens)} tokens in and "
        f"{_tokens(plan.output_tokens)} out, {cost}"
    )


def _duration(minutes: float) -> str:
    if minutes < 1.5:
        return "about a minute" if minutes >= 1 else "under a minute"
    return f"about {minutes:.0f} minutes"


def _tokens(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"
