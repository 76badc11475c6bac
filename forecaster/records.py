"""Frozen records that travel between the stages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from typing import Literal

Direction = Literal["up", "down"]

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
    symbol: str
    name: str
    industry: str
    exchange: str
