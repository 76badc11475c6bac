"""Test rows as the figures need them, and one model's answers to them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from forecaster.errors import ConfigurationError, Problem
from forecaster.records import Row
from forecaster.tasks.base import DatasetRow, Task
from forecaster.tasks.distributions import Distribution

if TYPE_CHECKING:  # what checks files takes long to import, and a help needs the name alone
    from forecaster.models.run_schemas import FittedCalibration


@dataclass(frozen=True)
class AnswerSpeed:
    """What the answers took."""

    answers: int
    seconds: float
    """Wall time of generating, all of one machine's ranks side by side."""
    new_tokens: int | None
    how: str = ""
    """Engine and precision."""

    @property
    def seconds_per_answer(self) -> float | None:
        return self.seconds / self.answers if self.answers else None

    @property
    def new_tokens_per_answer(self) -> float | None:
        return self.new_tokens / self.answers if self.new_tokens is not None and self.answers else None

    @property
    def new_tokens_per_s(self) -> float | None:
        return self.new_tokens / self.seconds if self.new_tokens is not None and self.seconds else None


@dataclass(frozen=True)
class ModelAnswers:
    """One model's answers, row by row."""

    name: str
    rows: tuple[Row, ...]
    answers: tuple[str | None, ...]
    """None: there is no answer, as where the prompt did not fit."""
    speed: AnswerSpeed | None = None
    knowledge_cutoff: date | None = None
    """Last day of whose news the model may have read."""
    trained_until: date | None = None
    """Last day of the weeks that it was fine-tuned on."""
    label_log_likelihoods: tuple[Mapping[str, float] | None, ...] = ()
    """By row, of each label; empty where no answer has any."""
    distributions: tuple[Distribution | None, ...] = ()
    """By row, as a file of answers gives them; empty where it gives none."""
    calibration: FittedCalibration | None = None
    """What weeks that no training saw make of the label likelihoods."""

    def only(self, row_ids: Iterable[str]) -> ModelAnswers:
        """The answers to these rows, in their order; every id has to be there."""
        place_of = {row.row_id: place for place, row in enumerate(self.rows)}
        return self.at([place_of[row_id] for row_id in row_ids])

    def at(self, places: Sequence[int]) -> ModelAnswers:
        """The answers at these places, in their order."""
        return replace(
            self,
            rows=tuple(self.rows[place] for place in places),
            answers=tuple(self.answers[place] for place in places),
            label_log_likelihoods=tuple(self.label_log_likelihoods[at] for at in places)
            if self.label_log_likelihoods
            else (),
            distributions=tuple(self.distributions[at] for at in places) if self.distributions else (),
        )


def numbered(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Rows with ids of their own: repeats get a number, and rows that name no symbol go by their texts."""
    seen: Counter[str] = Counter()
    found = []
    for place, row in enumerate(rows, start=1):
        row_id = row.row_id or _name_of_text(row) or f"row {place}"
        seen[row_id] += 1
        found.append(replace(row, row_id=row_id if seen[row_id] == 1 else f"{row_id} ({seen[row_id]})"))
    return tuple(found)


def _name_of_text(row: Row) -> str:
    """A row that names no symbol is known by its texts."""
    text = f"{row.prompt}\n{row.reference}".strip()
    return f"row {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}" if text else ""


def rows_of_dataset(dataset_rows: Iterable[DatasetRow], task: Task) -> tuple[Row, ...]:
    """Rows of a dataset with the task's columns."""
    return numbered([task.test_row(row) for row in dataset_rows])


def on_common_rows(runs: Sequence[ModelAnswers]) -> tuple[list[ModelAnswers], str]:
    """The runs, all on the rows that every one of them answered, and a line that says what was left out.

    Raises:
        ConfigurationError: no row is in all of them.
    """
    in_all = set.intersection(*({row.row_id for row in run.rows} for run in runs))
    common = [row.row_id for row in runs[0].rows if row.row_id in in_all]
    if not common:
        found = ", ".join(f"{run.name} has {len(run.rows)} rows" for run in runs)
        raise ConfigurationError(
            [Problem("compare", f"no row is in every run: {found}.", "Compare runs over the same test set.")]
        )
    counts = {run.name: len(run.rows) for run in runs}
    if set(counts.values()) == {len(common)}:
        return [run.only(common) for run in runs], ""
    shown = ", ".join(f"{name} {count}" for name, count in counts.items())
    return [run.only(common) for run in runs], f"Compared on the {len(common)} rows that all have ({shown})."


MOST_DAYS_TO_A_CLOSE = 7
"""A close further before a period's edge belongs to another week."""


def with_returns(
    rows: Sequence[Row], closes: Callable[[str], Mapping[date, Decimal] | None]
) -> tuple[Row, ...]:
    """Rows with their returns from closing prices: from the last close at or before the period's start to the
    last one at or before its end. Rows without such closes stay as they are.

    Args:
        closes: a symbol's adjusted closes by day; None where there are none.
    """
    return tuple(replace(row, return_pct=_return_pct(row, closes(row.symbol))) for row in rows)


def _return_pct(row: Row, closes: Mapping[date, Decimal] | None) -> float | None:
    if not closes or row.start is None or row.end is None:
        return row.return_pct
    start, end = (_last_close(closes, day) for day in (row.start, row.end))
    return row.return_pct if start is None or end is None else float(100 * (end - start) / start)


def _last_close(closes: Mapping[date, Decimal], day: date) -> Decimal | None:
    days = (day - timedelta(days=back) for back in range(MOST_DAYS_TO_A_CLOSE))
    return next((closes[at] for at in days if at in closes), None)
