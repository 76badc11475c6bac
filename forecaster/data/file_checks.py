"""What is odd about the user's own files, told for what it is: days that are no sessions, closes that cannot
be true, the same news under two symbols. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import combinations, pairwise
from statistics import median

import indices
from forecaster.calls import Call
from forecaster.data import store
from forecaster.data.untrue_prices import untrue_moves
from forecaster.data.weeks import sessions_between
from forecaster.errors import Problem

FEWEST_CLOSES = 5
"""With fewer, nothing can be said of their days."""
SMALLEST_WEEKLY_GAP_DAYS = 5
FEWEST_ARTICLES = 3
SAME_NEWS_SHARE = 0.8
"""Of the articles of two symbols that are equal; two share classes of a company have about as many."""
MOST_SHOWN = 10
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def days_problems(where: str, calls: Sequence[Call]) -> list[Problem]:
    """Closes of a file that lie on other days than the sessions they are of; one problem for each fault."""
    symbols: dict[tuple[str, str], list[str]] = defaultdict(list)
    for call in calls:
        days = [date.fromisoformat(bar["day"]) for bar in call.payload["bars"]]
        if fault := _fault_of_days(days, indices.calendar_of(call.request.symbol)):
            symbols[fault].append(call.request.symbol)
    return [
        Problem(where, f"the closes of {_shown(names)} {found}", way_out)
        for (found, way_out), names in symbols.items()
    ]


def _fault_of_days(days: Sequence[date], calendar: str) -> tuple[str, str] | None:
    """What is wrong with the days of a symbol's closes, and what to do; None where nothing is."""
    if calendar == "24/7":  # every day is a session
        return None
    known = sessions_between(calendar, date.min, date.max)
    days = [day for day in days if known[0] <= day <= known[-1]]
    if len(days) < FEWEST_CLOSES:
        return None
    sessions = set(known)
    gap = median((later - day).days for day, later in pairwise(days))
    if gap >= SMALLEST_WEEKLY_GAP_DAYS:
        ends = {day.isocalendar()[:2]: day for day in known}  # the last session of a week stays
        if sum(ends.get(day.isocalendar()[:2]) == day for day in days) >= len(days) / 2:
            return None
        weekday = Counter(day.weekday() for day in days).most_common(1)[0][0]
        kind = "weekly bars" if gap == 7 else f"bars {gap:g} days apart"
        return (
            f"are {kind}, dated on {_WEEKDAYS[weekday]}s, not on the last session of a week.",
            "Give daily closes, or date each weekly close by the last session of its week, mostly a Friday.",
        )
    off = [day for day in days if day not in sessions]
    if len(off) <= 0.1 * len(days):
        return None
    for shift, words in ((1, "one day early"), (-1, "one day late")):
        moved = [day + timedelta(days=shift) for day in days]
        if sum(day not in sessions for day in moved) <= 0.02 * len(days):
            example = f"{off[0]}, a {_WEEKDAYS[off[0].weekday()]}"
            return (
                f"lie {words}: {len(off)} of {len(days)} are of days without a session, such as {example}.",
                "Their times were moved to another zone: write the day of the session, as 2026-01-30.",
            )
    return None


def untrue_price_lines(calls: Sequence[Call]) -> list[str]:
    """Moves of price files that cannot be true or are doubtful, and what becomes of their weeks."""
    return [
        f"  {call.request.symbol}: closes of {move}; weeks over it are "
        + ("flagged prices_doubtful" if move.kind == "jump" else "left out")
        for call in calls
        for move in untrue_moves(store.price_history(call.payload))
    ]


def same_news_lines(calls: Sequence[Call]) -> list[str]:
    """Pairs of symbols whose articles, of one file each, are the same."""
    articles = [{hash((item["datetime"], item["headline"])) for item in call.payload} for call in calls]
    lines = {}
    for one, other in combinations(range(len(calls)), 2):
        symbols = tuple(sorted({calls[one].request.symbol, calls[other].request.symbol}))
        fewer, most = sorted((len(articles[one]), len(articles[other])))
        enough = max(FEWEST_ARTICLES, SAME_NEWS_SHARE * most)
        if len(symbols) == 1 or fewer < enough:
            continue
        if (shared := len(articles[one] & articles[other])) >= enough:
            lines[symbols] = (
                f"  {symbols[0]} and {symbols[1]} have the same news: {shared} of {most} articles are equal. "
                "Is a file named for the wrong symbol?"
            )
    return _limited(list(lines.values()))


def _shown(names: Sequence[str]) -> str:
    more = len(names) - MOST_SHOWN
    return ", ".join(names[:MOST_SHOWN]) + (f" and {more} more symbols" if more > 0 else "")


def _limited(lines: list[str]) -> list[str]:
    more = len(lines) - MOST_SHOWN
    return [*lines[:MOST_SHOWN], f"  and {more} more such pairs"] if more > 0 else lines
