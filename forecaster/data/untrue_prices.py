"""Moves between closes that did not happen, or may not have: splits that were not applied, and slips. Pure.

A week over such a move has no return that anyone earned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Literal

from forecaster.records import Close, PriceHistory

SMALLEST_SPLIT = 1.25
"""A smaller split moves a close no more than a bad day does."""
SPLIT_TOLERANCE = 0.15
"""Of the logarithm: how far the move of the day may take a close from the split's ratio."""
DAYS_AROUND_SPLIT = timedelta(days=7)
"""Vendors list some splits a few sessions early or late."""
SLIP_FACTOR = 3.0
"""A close so many times those around it, which are alike, is a slip of a digit or a currency."""
ALIKE_FACTOR = 1.25
DOUBTFUL_FACTOR = 1.8
"""Few shares move so far in one session, and closes that carry no split of 2:1 always do."""
LONGEST_SESSION_GAP = timedelta(days=5)
"""Between two closes in a row of daily ones, holidays included."""


@dataclass(frozen=True)
class UntrueMove:
    """Two closes in a row that do not belong together."""

    kind: Literal["split", "slip", "jump"]
    """A listed split that the closes do not carry; a close unlike those on both sides; a move so large that
    it may be a split that is not listed, which is doubtful, not untrue."""
    before: date
    day: date
    close_before: Decimal
    close: Decimal
    why: str
    unapplied_split: date | None = None
    """Day of a split that the closes before it are not adjusted for: they are in shares of their own days."""

    def spoils(self, start: date, end: date) -> bool:
        """Whether the move from the close of one day to that of another is untrue."""
        return self.kind != "jump" and start < self.day <= end

    def is_doubtful(self, start: date, end: date) -> bool:
        return self.kind == "jump" and start < self.day <= end

    def __str__(self) -> str:
        return f"{self.close_before} on {self.before} and {self.close} on {self.day}: {self.why}"


def untrue_moves(prices: PriceHistory) -> tuple[UntrueMove, ...]:
    """Every such move of a symbol, oldest first."""
    days = sorted(prices.closes)
    found = {move.day: move for move in _jumps(prices, days)}
    found |= {move.day: move for move in _slips(prices, days)}
    found |= {move.day: move for move in _splits(prices, days)}
    return tuple(found[day] for day in sorted(found))


def true_closes(prices: PriceHistory) -> dict[date, Close]:
    """Closes without slips, and without those before a split that was not applied."""
    moves = untrue_moves(prices)
    first_day = max((move.day for move in moves if move.kind == "split"), default=date.min)
    slips = {move.day for move in moves if move.kind == "slip"} & {
        move.before for move in moves if move.kind == "slip"
    }
    return {day: close for day, close in prices.closes.items() if day >= first_day and day not in slips}


def with_applied_splits(prices: PriceHistory, moves: Sequence[UntrueMove]) -> PriceHistory:
    """The history with those splits only that its closes were adjusted for, and that are to be undone for an
    earlier day."""
    unapplied = {move.unapplied_split for move in moves}
    return replace(prices, splits={day: r for day, r in prices.splits.items() if day not in unapplied})


def first_true_day(moves: Sequence[UntrueMove], day: date) -> date:
    """The first day whose close can be charted beside that of another day."""
    return max((move.day for move in moves if move.kind != "jump" and move.day <= day), default=date.min)


def _splits(prices: PriceHistory, days: Sequence[date]) -> Iterator[UntrueMove]:
    for split_day, ratio in sorted(prices.splits.items()):
        size = abs(math.log(ratio)) if ratio > 0 else 0.0
        if size < math.log(SMALLEST_SPLIT):
            continue
        needed = size - min(SPLIT_TOLERANCE, size / 3)
        around = [pair for pair in pairwise(days) if abs(pair[1] - split_day) <= DAYS_AROUND_SPLIT]
        # The largest move there, in either scale: labels come from one, what prompts show from the other.
        move, pair = max(
            (
                (_size(prices, *pair, scale), pair)
                for pair in around
                for scale in ("adjusted", "split_adjusted")
            ),
            default=(0.0, None),
        )
        if pair and move >= needed:
            why = f"they do not carry the split of {ratio} that is listed for {split_day}"
            is_raw = _size(prices, *pair, "split_adjusted") >= needed
            yield replace(_move(prices, "split", *pair, why), unapplied_split=split_day if is_raw else None)


def _slips(prices: PriceHistory, days: Sequence[date]) -> Iterator[UntrueMove]:
    for before, day, after in zip(days, days[1:], days[2:], strict=False):
        if (
            _size(prices, before, day) >= math.log(SLIP_FACTOR)
            and _size(prices, day, after) >= math.log(SLIP_FACTOR)
            and _size(prices, before, after) <= math.log(ALIKE_FACTOR)
        ):
            why = f"the next one, of {after}, is {prices.closes[after].adjusted}, so that this one is a slip"
            yield _move(prices, "slip", before, day, why)
            yield _move(prices, "slip", day, after, "the first is a slip")


def _jumps(prices: PriceHistory, days: Sequence[date]) -> Iterator[UntrueMove]:
    for before, day in pairwise(days):
        if day - before <= LONGEST_SESSION_GAP and _size(prices, before, day) >= math.log(DOUBTFUL_FACTOR):
            yield _move(prices, "jump", before, day, "it may be a split, and none is listed")


def _size(prices: PriceHistory, before: date, day: date, scale: str = "adjusted") -> float:
    """Of a move, as the logarithm of its factor, whatever its direction."""
    first, last = (getattr(prices.closes[at], scale) for at in (before, day))
    return abs(math.log(last / first)) if first > 0 and last > 0 else 0.0


def _move(
    prices: PriceHistory, kind: Literal["split", "slip", "jump"], before: date, day: date, why: str
) -> UntrueMove:
    first, last = prices.closes[before], prices.closes[day]
    return UntrueMove(kind, before, day, first.split_adjusted, last.split_adjusted, why)
