"""Trading weeks from the exchange calendar, and a week's return. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from forecaster.records import TradingWeek

if TYPE_CHECKING:
    import exchange_calendars

SETTLING_TIME = timedelta(hours=1)
"""A week counts as over this long after its last close: by then vendors show the official closing price."""


def trading_weeks(calendar: str, first_day: date, last_day: date, now: datetime) -> list[TradingWeek]:
    """Weeks all of whose sessions lie between two days, oldest first; a week that is not over is left out.

    A week ends with the last session of a calendar week (Monday to Sunday), so that a holiday on a Friday
    moves its end to Thursday; a calendar week without any session belongs to the week after it.

    Args:
        calendar: name that exchange_calendars knows, such as `XNYS`.
        now: UTC.
    """
    sessions = _calendar(calendar)
    earliest = first_day - timedelta(days=first_day.weekday() + 14)
    days = [stamp.date() for stamp in sessions.sessions_in_range(str(earliest), str(last_day))]
    ends = [day for day, following in pairwise(days) if _week_of(day) != _week_of(following)]
    # The last session known ends its week only if the next session belongs to another one.
    if days and _week_of(sessions.next_session(str(days[-1])).date()) != _week_of(days[-1]):
        ends.append(days[-1])
    weeks = [
        TradingWeek(start, end, close_of(calendar, start), close_of(calendar, end))
        for start, end in pairwise(ends)
        if sessions.next_session(str(start)).date() >= first_day
    ]
    return [week for week in weeks if week.end_close + SETTLING_TIME <= now]


def week_after(
    calendar: str, day: date, now: datetime, past_weeks: int
) -> tuple[list[TradingWeek], TradingWeek]:
    """The last weeks whose close is neither after a day nor still to come, oldest first, and the week that
    follows them, be it over, under way or still to begin.

    Args:
        now: UTC. A close counts from its very moment on, before `SETTLING_TIME` is over.
        past_weeks: how many weeks before the one that follows.
    """
    first_day = day - timedelta(weeks=past_weeks + 3)
    around = trading_weeks(calendar, first_day, day + timedelta(weeks=3), datetime.max.replace(tzinfo=UTC))
    closed = [week for week in around if week.end <= day and week.end_close <= now]
    return closed[-past_weeks:], around[len(closed)]


def close_of(calendar: str, session: date) -> datetime:
    """When a session closed, UTC; early closes are known."""
    close: datetime = _calendar(calendar).session_close(str(session)).to_pydatetime()
    return close.astimezone(UTC)


def return_pct(start: Decimal, end: Decimal) -> float:
    """Move in percent, rounded to four decimals for reading; labels are never taken from it."""
    return round(float(100 * (Fraction(end) - Fraction(start)) / Fraction(start)), 4) + 0.0


def last_session_at_or_before(calendar: str, day: date) -> date:
    session: datetime = _calendar(calendar).date_to_session(str(day), direction="previous").to_pydatetime()
    return session.date()


def sessions_between(calendar: str, first: date, last: date) -> Sequence[date]:
    """Sessions from one day to another, both included, as far back as the calendar reaches."""
    sessions = _sessions(calendar)
    return sessions[bisect_left(sessions, first) : bisect_right(sessions, last)]


def split_at(
    weeks: Sequence[TradingWeek], train_ratio: float, embargo_weeks: int
) -> tuple[set[date], set[date]]:
    """Ends of the training and of the test weeks: the first share, a gap, and the rest; either may be empty.

    The gap keeps the past weeks that a test prompt shows apart from every training target.
    """
    count = math.floor(train_ratio * len(weeks) + 1e-9)
    return {week.end for week in weeks[:count]}, {week.end for week in weeks[count + embargo_weeks :]}


def _week_of(day: date) -> tuple[int, int]:
    return day.isocalendar()[:2]


@cache
def _sessions(calendar: str) -> tuple[date, ...]:
    return tuple(stamp.date() for stamp in _calendar(calendar).sessions)


@cache
def _calendar(name: str) -> exchange_calendars.ExchangeCalendar:
    import exchange_calendars  # brings pandas: not needed to read flags

    return exchange_calendars.get_calendar(name, start="2005-01-01")
