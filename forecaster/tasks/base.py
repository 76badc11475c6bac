"""What a task is: its rows, how one becomes a prompt and an answer, how an answer is read, what it is worth.

Reading of datasets, tokenising, answering and scoring ask a task and know none. A new task is one file with a
subclass of `Task`, and one entry in `forecaster/tasks/registry.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, ClassVar

from forecaster.records import Messages, Row, Unreadable
from prompts import render_published

DatasetRow = Mapping[str, Any]
"""A row by column."""


@dataclass(frozen=True, slots=True)
class RowKey:
    """Where a row stands in time: no row for validation or test may start before the training of its series
    has ended."""

    series: str
    start: date
    end: date


@dataclass(frozen=True)
class Metric:
    """A figure that is a mean over rows."""

    name: str
    unit: str
    """Such as `share` or `percent squared`."""
    is_higher_better: bool
    value: Callable[[Any, Any], float]
    """Of what happened and what was read in the answer, in this order; both are known."""


@dataclass(frozen=True)
class Choices:
    """The texts that one place of an answer can hold, so that a model can be asked how likely each is."""

    before: str
    """What stands right before them, from the beginning of its line."""
    labels: tuple[str, ...]
    """Their names, as the label column has them."""
    texts: tuple[str, ...]
    """How an answer writes each."""
    after: str
    """What stands right behind them."""
    can_follow: Callable[[str], bool]
    """Whether `before` and a choice may follow this beginning of an answer."""


class Task(ABC):
    """One kind of question to a model."""

    name: ClassVar[str]
    """As `--task` and a run's record call it."""
    columns: ClassVar[tuple[str, ...]]
    """Texts that every row has; they decide a dataset's fingerprint."""
    number_columns: ClassVar[tuple[str, ...]] = ()
    """Numbers that a row may have."""
    label_column: ClassVar[str]
    """The column whose values are counted in training, for a baseline that answers the most frequent one."""
    key_columns: ClassVar[tuple[str, ...]] = ()
    """The columns that `key` needs; none: rows have no dates."""
    choices: ClassVar[Choices | None] = None
    """What the decisive place of its answers can hold; None: anything."""
    metrics: ClassVar[tuple[Metric, ...]] = ()
    """What its answers are worth; none: it has a scorecard of its own, as the weekly forecast does."""

    @abstractmethod
    def faults(self, row: DatasetRow) -> list[str]:
        """What is wrong with a row, each as a sentence without its full stop."""

    @abstractmethod
    def messages(self, row: DatasetRow) -> Messages:
        """What the model is asked."""

    @abstractmethod
    def answer(self, row: DatasetRow) -> str:
        """What it should answer."""

    @abstractmethod
    def read(self, answer: str) -> Any | Unreadable:
        """What an answer says, tolerant of what models write instead of `answer`. Never raises."""

    @abstractmethod
    def actual(self, row: DatasetRow) -> Any | None:
        """What is true of a row, in the form of `read`; None where that is not known."""

    @property
    def has_dates(self) -> bool:
        return bool(self.key_columns)

    def key(self, row: DatasetRow) -> RowKey:
        """Where a row stands in time; asked of tasks that have dates only."""
        raise TypeError(f"rows of {self.name} have no dates")

    def baselines(self, row: DatasetRow, training_labels: Mapping[str, int]) -> Mapping[str, Any]:
        """What anyone answers without a model, in the form of `read`, by baseline.

        Args:
            training_labels: rows by label in training; empty where that is not known.
        """
        return {}

    def test_row(self, row: DatasetRow) -> Row:
        """What a benchmark asks, keeps and scores of a row."""
        key = self.key(row) if self.has_dates else None
        return Row(
            row_id="",
            symbol=key.series if key else "",
            start=key.start if key else None,
            end=key.end if key else None,
            actual=None,
            prompt=render_published(self.messages(row)),
            reference=self.answer(row),
        )

    def told_outcome(self, row: DatasetRow) -> str | None:
        """The words with which a prompt gives away what the model is to find out; None where it does not."""
        return None

    def pieces(self, messages: Messages) -> int:
        """How many parts of a prompt may go where it is too long."""
        return 0

    def without_pieces(self, messages: Messages, count: int) -> Messages:
        """The prompt without the first `count` of these parts."""
        return messages
