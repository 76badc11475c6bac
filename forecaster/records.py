"""Frozen records that travel between the stages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Literal

Direction = Literal["up", "down"]

FIRST_YEAR, LAST_YEAR = 1800, 2200
"""Of a price or a period, with room before and after for all that is reckoned from it."""
OPEN_BIN_PCT = 5
"""Moves beyond this many percent share one open bin."""


@dataclass(frozen=True, order=True)
class Label:
    """A weekly move as a direction and a one-percent bin: the published twelve classes."""

    direction: Direction
    lower_pct: int
    """Lower edge of the bin in percent, 0 to 5; 5 means "more than 5%"."""

    def __post_init__(self) -> None:
        if self.direction not in ("up", "down") or not 0 <= self.lower_pct <= OPEN_BIN_PCT:
            raise ValueError(f"no such label: {self.direction!r}, {self.lower_pct!r}")

    @classmethod
    def of_move(cls, direction: Direction, size_pct: float) -> Label:
        """Bin of a move of `size_pct` >= 0 percent; upper edges belong to the bin below, as published."""
        return cls(direction, min(max(math.ceil(size_pct) - 1, 0), OPEN_BIN_PCT))

    @classmethod
    def between(cls, start: Decimal, end: Decimal) -> Label:
        """Bin of the move from one price to another, in exact arithmetic; no move counts as up, as
        published."""
        move_pct = 100 * (Fraction(end) - Fraction(start)) / Fraction(start)
        return cls.of_move("down" if move_pct < 0 else "up", math.ceil(abs(move_pct)))

    @property
    def text(self) -> str:
        if self.lower_pct == OPEN_BIN_PCT:
            return f"{self.direction} by more than {OPEN_BIN_PCT}%"
        return f"{self.direction} by {self.lower_pct}-{self.lower_pct + 1}%"

    @property
    def sign(self) -> int:
        return 1 if self.direction == "up" else -1

    @property
    def midpoint_pct(self) -> float:
        """Signed middle of the bin, 5.5 for the open one: the number that published MSE figures use."""
        return self.sign * (self.lower_pct + 0.5)


ALL_LABELS: tuple[Label, ...] = tuple(
    Label(direction, lower)  # type: ignore[arg-type]
    for direction in ("up", "down")
    for lower in range(OPEN_BIN_PCT + 1)
)


@dataclass(frozen=True)
class Messages:
    """One conversation turn: what the chat template of any model can render."""

    system: str
    user: str


@dataclass(frozen=True)
class Answer:
    """A readable answer: the four parts that every published answer has."""

    positive_developments: str
    potential_concerns: str
    label: Label
    analysis: str


@dataclass(frozen=True)
class Unreadable:
    """An answer that does not hold the four parts, and why."""

    reason: str
    """The same words for every answer with this fault, so that it can be counted."""
    detail: str = ""
    """The words of this answer."""


@dataclass(frozen=True)
class NewsItem:
    headline: str
    summary: str


@dataclass(frozen=True)
class Week:
    """One past week as a prompt shows it: prices in dollars, news oldest first."""

    start: date
    end: date
    start_price_usd: float
    end_price_usd: float
    news: tuple[NewsItem, ...]


@dataclass(frozen=True)
class Company:
    """Facts about an issuer that do not change with time; what is not known is empty."""

    symbol: str
    name: str
    industry: str
    exchange: str
    country: str = ""
    listed_since: date | None = None
    kind: Literal["stock", "cryptocurrency"] = "stock"


@dataclass(frozen=True)
class MacroReading:
    """A market-wide figure as last known at a week's close, and its move since the one last known at the
    close of the week before; either may be of the day before that close."""

    name: str
    level: float
    weekly_change: float
    change_unit: Literal["percent", "points"] = "percent"
    """Points for what is itself a rate, such as a bond's yield."""


@dataclass(frozen=True)
class Article:
    """A news item as a source gave it."""

    id: str
    published_at: datetime
    """UTC."""
    headline: str
    summary: str


@dataclass(frozen=True)
class TradingWeek:
    """The span between two week ends: from the last close of one trading week to the last close of the
    next."""

    start: date
    """Session of the close that the return starts from."""
    end: date
    """Last session."""
    start_close: datetime
    """When that session closed, UTC: the as-of limit of a forecast for this week."""
    end_close: datetime

    @property
    def period(self) -> str:
        return f"{self.start} to {self.end}"


@dataclass(frozen=True)
class Close:
    """One session's closing price, in two scales."""

    split_adjusted: Decimal
    """In shares of the day it was fetched: what Yahoo calls Close."""
    adjusted: Decimal
    """For splits and dividends: the ratio of two is a return."""


@dataclass(frozen=True)
class PriceHistory:
    """Daily closes of one symbol, and every split since the first of them."""

    closes: Mapping[date, Close]
    splits: Mapping[date, Decimal]
    """New shares for one old share, by the first day on which they traded."""

    def close_as_of(self, day: date, as_of: date) -> Decimal:
        """Close of `day` in shares of `as_of`: later splits, which nobody knew then, are undone.

        Raises:
            KeyError: no close on `day`.
        """
        price = self.closes[day].split_adjusted
        for split_day, ratio in self.splits.items():
            if split_day > as_of:
                price *= ratio
        return price


@dataclass(frozen=True)
class Quarter:
    """Reported figures of one fiscal quarter, and when they became public."""

    period_end: date
    available_at: datetime
    """UTC."""
    filing: str
    """Accession number, or empty when no filing was found."""
    estimated: bool
    """Whether `available_at` is a guess, because no filing was found."""
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Example:
    """One row before its answer: a prompt, and what the market then did."""

    symbol: str
    target: TradingWeek
    messages: Messages
    label: Label
    weekly_return_pct: float
    start_price: float
    """Close that the return starts from, in shares of that day."""
    end_price: float
    """Close at the end of the target week, in the same shares."""
    news_ids: tuple[str, ...]
    filing: str
    flags: tuple[str, ...] = field(default=())
    """Sorted words on what is less than certain or left out: `fundamentals_estimated`,
    `indicators_incomplete` (too few closes, or holes in them, so that the prompt has no indicators),
    `news_incomplete`, `prices_adjusted_only`, `prices_doubtful` (a move over its weeks may be a split)."""
    weeks: tuple[Week, ...] = field(default=(), repr=False)
    """Past weeks that the prompt shows, oldest first."""
    figures: Mapping[str, float] = field(default_factory=dict, repr=False)
    """Of the latest reported quarter, as in the prompt."""
    is_coin: bool = False

    @property
    def as_of(self) -> datetime:
        return self.target.start_close


def calendar_week(day: date) -> date:
    """The Sunday that ends a day's week: weeks of two calendars that lie in the same one are one."""
    return day + timedelta(days=6 - day.weekday())


@dataclass(frozen=True)
class Row:
    """One test row: what was asked, what then happened, and the reference answer."""

    row_id: str
    """Symbol and period, the same in every run; a number behind it tells repeats apart."""
    symbol: str
    """Empty where it is not known, as the dates are None."""
    start: date | None
    end: date | None
    actual: Label | None
    """What the market did; None where neither a label nor a readable reference says it."""
    prompt: str
    reference: str
    return_pct: float | None = None
    """The week's return in percent, where it is known more exactly than by its bin."""
    last_week: Label | None = None
    """The move of the last week that the prompt shows."""

    @property
    def week(self) -> date | None:
        """Sunday of the calendar week in which the period ends: rows of one week move together."""
        return calendar_week(self.end) if self.end else None

    @property
    def realised_pct(self) -> float | None:
        """The return, or else the middle of its bin."""
        if self.return_pct is not None:
            return self.return_pct
        return self.actual.midpoint_pct if self.actual else None
