"""Rows of the weekly task: what was asked, what then happened, and what was forecast."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from forecaster.records import FIRST_YEAR, LAST_YEAR, Answer, Direction, Label, Row
from forecaster.tasks.answers import parse_answer, parse_prediction
from forecaster.tasks.distributions import Distribution
from forecaster.tasks.loose_forecasts import read_forecast
from prompts import read_prompt, split_published


@lru_cache(maxsize=4096)  # more weeks than any set has; a million rows share their days
def parse_period(period: str) -> tuple[date, date]:
    """First and last day of a period such as `2024-02-25 to 2024-03-03`; ValueError for anything else."""
    start, separator, end = period.partition(" to ")
    first, last = (
        date.fromisoformat(start.strip()),
        date.fromisoformat(end.strip()) if separator else date.min,
    )
    if not (first < last and first.year >= FIRST_YEAR and last.year <= LAST_YEAR):
        raise ValueError(f"not a period: {period!r}")
    return first, last


def make_row(
    prompt: str,
    reference: str,
    *,
    symbol: str | None = None,
    period: str | None = None,
    label: str | None = None,
    return_pct: float | None = None,
) -> Row:
    """A row from its texts; what is not given is read from the prompt and the reference answer."""
    facts = read_prompt(split_published(prompt).user)
    start, end = facts.target_start, facts.target_end
    if end is not None and not FIRST_YEAR <= end.year <= LAST_YEAR:
        start = end = None
    with suppress(ValueError):
        start, end = parse_period(period or "")
    symbol = symbol if symbol is not None else facts.symbol
    outcome = parse_prediction(label) if label is not None else None
    if not isinstance(outcome, Label):
        outcome = _told(reference)
    last = facts.weeks[-1] if facts.weeks else None
    row_id = f"{symbol} {start} to {end}" if symbol and start and end else ""
    return Row(
        row_id=row_id,
        symbol=symbol,
        start=start,
        end=end,
        actual=outcome,
        prompt=prompt,
        reference=reference,
        return_pct=return_pct,
        last_week=Label.between(last.start_price, last.end_price)
        if last and last.start_price and last.end_price
        else None,
    )


def _told(reference: str) -> Label | None:
    """What a reference answer in the form says, or one that is nothing but a line such as `up by 2-3%`."""
    answer = parse_answer(reference)
    if isinstance(answer, Answer):
        return answer.label
    told = read_forecast(reference, answer) if "\n" not in reference.strip() else answer
    return told if isinstance(told, Label) else None


def label_counts(counts: Mapping[str, int]) -> dict[Label, int]:
    """Rows by label, of a record that counts them by its text; other texts are left out."""
    read = {parse_prediction(text): count for text, count in counts.items()}
    return {label: count for label, count in read.items() if isinstance(label, Label)}


@dataclass(frozen=True)
class Forecast:
    """What a model, or anyone without one, says of a row; None is what it does not say."""

    direction: Direction | None = None
    size_pct: float | None = None
    """Signed."""
    label: Label | None = None
    distribution: Distribution | None = None
    """How likely it holds each bin."""
    label_mass: float | None = None
    """Of a model: what the twelve labels have of all that it could have written in their place."""

    @classmethod
    def of_label(cls, label: Label) -> Forecast:
        return cls(label.direction, label.midpoint_pct, label)

    @classmethod
    def of_distribution(cls, given: Distribution) -> Forecast:
        """The likelier direction, and the probabilities."""
        return cls("up" if given.up >= 0.5 else "down", distribution=given)

    @property
    def rank(self) -> float | None:
        """What orders symbols by their outlook: P(up), or else the named move; None for silence."""
        if self.distribution:
            return self.distribution.up
        if self.size_pct is not None:
            return self.size_pct
        return None if self.direction is None else 1.0 if self.direction == "up" else -1.0


SILENT = Forecast()
