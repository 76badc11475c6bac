"""Splits by date, and the rule that no validation or test week lies in or before a training week of the same
symbol. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from math import ceil
from typing import Literal

from forecaster.tasks.base import RowKey

TRAIN, GAP, TEST = SPLITS = ("train", "gap", "test")
"""The splits of a built dataset. The gap's weeks lie between the others and are in neither, as test prompts
show them; a later cut may use them."""
TEST_SHARE_OF_WEEKS = 0.2
MAX_PAST_WEEKS = 4
"""The most weeks that a prompt shows where nothing else is said, as in the published sets."""


def cut(starts: Sequence[date], test_from: date, embargo_weeks: int) -> dict[str, list[int]]:
    """Indices of the rows of each split, by the start of their weeks.

    Weeks that start on `test_from` or later are the test; of those before, the last `embargo_weeks` that
    there are rows of are the gap, and the others are for training.
    """
    earlier = sorted({start for start in starts if start < test_from})
    gap = set(earlier[max(len(earlier) - embargo_weeks, 0) :])
    found: dict[str, list[int]] = {TRAIN: [], GAP: [], TEST: []}
    for at, start in enumerate(starts):
        found[TEST if start >= test_from else GAP if start in gap else TRAIN].append(at)
    return found


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
