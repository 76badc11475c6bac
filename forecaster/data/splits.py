"""Splits by date, and the rule that no validation or test week lies in or before a training week of the same
symbol. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from math import ceil
from typing import Literal

from forecaster.records import calendar_week
from forecaster.tasks.base import RowKey

TRAIN, GAP, TEST = SPLITS = ("train", "gap", "test")
"""The splits of a built dataset. The gap's weeks lie between the others and are in neither, as test prompts
show them; a later cut may use them."""
TEST_SHARE_OF_WEEKS = 0.2
MAX_PAST_WEEKS = 4
"""The most weeks that a prompt shows where nothing else is said, as in the published sets."""


@dataclass(frozen=True)
class Block:
    """Weeks to test, by the days on which they start, and the weeks that a training for them may use."""

    test_from: date
    test_until: date | None = None
    """The first day behind the test; None: it reaches to the end."""
    train_from: date | None = None
    """The first day of the training; None: it reaches to the beginning."""
    train_until: date | None = None
    """The first day of the gap; None: it has as many weeks as a prompt shows."""

    def holds(self, start: date) -> bool:
        """Whether a week is of the test, or before it and not too old for training."""
        return (self.train_from or date.min) <= start < (self.test_until or date.max)


def cut(starts: Sequence[date], block: Block, embargo_weeks: int) -> dict[str, list[int]]:
    """Indices of the rows of each split, by the start of their weeks.

    Weeks that start on `test_from` or later are the test; of those before, the ones from `train_until` on
    are the gap, or else the last `embargo_weeks` that there are rows of, and the others are for training.
    Rows that the block does not hold are in none.
    """
    earlier = sorted({start for start in starts if start < block.test_from})
    last = max(len(earlier) - embargo_weeks, 0)
    if block.train_until:
        last = sum(start < block.train_until for start in earlier)
    gap = set(earlier[last:])
    found: dict[str, list[int]] = {TRAIN: [], GAP: [], TEST: []}
    for at, start in enumerate(starts):
        if block.holds(start):
            found[TEST if start >= block.test_from else GAP if start in gap else TRAIN].append(at)
    return found


def blocks(
    weeks: Sequence[RowKey],
    every: int,
    embargo_weeks: int,
    window: int | None = None,
    first: date | None = None,
) -> list[Block]:
    """Test weeks one after another, each block cut from those before as a training for it has to be.

    The gap is counted in weeks of all rows together: a source that ends before a cut keeps its last weeks.

    Args:
        weeks: of all rows, in any order.
        every: weeks between two cuts.
        embargo_weeks: weeks before a cut that no training uses.
        window: the latest weeks that a training uses; None: all from the first one on.
        first: the first cut is at the first week that starts on this day or later; None: as many weeks after
            the first as lie between two cuts, or as many times that as leave a week for training.

    Returns:
        None at all where no cut leaves a week for training and one for the test.
    """
    begins: dict[date, date] = {}
    for row in weeks:
        week = calendar_week(row.end)
        begins[week] = min(row.start, begins.get(week, row.start))
    starts = [begins[week] for week in sorted(begins)]
    least = every * (embargo_weeks // every + 1)
    at = least if first is None else sum(start < first for start in starts)
    if not embargo_weeks < at < len(starts):
        return []
    places = [*range(at, len(starts), every), len(starts)]
    return [
        Block(
            test_from=starts[here],
            test_until=starts[there] if there < len(starts) else None,
            train_from=starts[max(here - embargo_weeks - window, 0)] if window else None,
            train_until=starts[here - embargo_weeks],
        )
        for here, there in pairwise(places)
    ]


def last_weeks(week_starts: Sequence[date], share: float = TEST_SHARE_OF_WEEKS) -> set[date]:
    """The latest `share` of the distinct weeks, rounded up; at least one week stays for training."""
    distinct = sorted(set(week_starts))
    count = min(ceil(len(distinct) * share), len(distinct) - 1)
    return set(distinct[len(distinct) - count :])


def hold_out(train: Sequence[RowKey], share: float) -> tuple[list[int], list[int]]:
    """Indices of the rows of the latest `share` of the weeks, for validation, and of those of them to drop.

    Weeks count over all symbols, so that no training row is newer than a validation row. Where a symbol has
    weeks of two calendars, a validation row that starts before the symbol's training has ended is dropped.
    """
    weeks = last_weeks([row.start for row in train], share)
    held = [i for i, row in enumerate(train) if row.start in weeks]
    earlier = [row for row in train if row.start not in weeks]
    dropped = {held[i] for i in out_of_order(earlier, [train[i] for i in held], "test")}
    return [i for i in held if i not in dropped], sorted(dropped)


def out_of_order(
    train: Sequence[RowKey], test: Sequence[RowKey], give_way: Literal["train", "test"]
) -> list[int]:
    """Indices of the rows of the `give_way` part to drop, so that each symbol's test weeks follow its
    training.

    With `test`, test rows that start before the symbol's last training week has ended go; with `train`,
    training rows that end after the symbol's first test week has started. Weeks of different sets need not
    be aligned.
    """
    if give_way == "test":
        training_end: dict[str, date] = {}
        for row in train:
            training_end[row.series] = max(row.end, training_end.get(row.series, row.end))
        return [i for i, row in enumerate(test) if row.start < training_end.get(row.series, date.min)]
    first_test: dict[str, date] = {}
    for row in test:
        first_test[row.series] = min(row.start, first_test.get(row.series, row.start))
    return [i for i, row in enumerate(train) if row.end > first_test.get(row.series, date.max)]
