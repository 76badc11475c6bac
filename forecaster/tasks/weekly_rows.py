"""Rows of the weekly task: what was asked, what then happened, and what was forecast."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from forecaster.records import Answer, Direction, Label
from forecaster.tasks.answers import parse_answer, parse_prediction
from prompts import read_prompt, split_published


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
        return self.end + timedelta(days=6 - self.end.weekday()) if self.end else None

    @property
    def realised_pct(self) -> float | None:
        """The return, or else the middle of its bin."""
        if self.return_pct is not None:
            return self.return_pct
        return self.actual.midpoint_pct if self.actual else None


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
    start, end = _days(period) or (facts.target_start, facts.target_end)
    symbol = symbol if symbol is not None else facts.symbol
    outcome = parse_prediction(label) if label is not None else None
    if not isinstance(outcome, Label):
        answer = parse_answer(reference)
        outcome = answer.label if isinstance(answer, Answer) else None
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


def _days(period: str | None) -> tuple[date, date] | None:
    first, _, last = (period or "").partition(" to ")
    try:
        return date.fromisoformat(first.strip()), date.fromisoformat(last.strip())
    except ValueError:
        return None


@dataclass(frozen=True)
class Forecast:
    """What a model, or anyone without one, says of a row; None is what it does not say."""

    direction: Direction | None = None
    size_pct: float | None = None
    """Signed."""
    label: Label | None = None

    @classmethod
    def of_label(cls, label: Label) -> Forecast:
        return cls(label.direction, label.midpoint_pct, label)


SILENT = Forecast()
