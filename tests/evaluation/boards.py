"""Small rows and answers for tests of figures."""

from __future__ import annotations

from datetime import date, timedelta

from forecaster.evaluation.rows import numbered
from forecaster.records import Answer, Label, Messages, Row
from forecaster.tasks.weekly_rows import make_row
from prompts import render_answer, render_published

UP_1, UP_2, UP_0 = Label("up", 1), Label("up", 2), Label("up", 0)
DOWN_0, DOWN_3, DOWN_OPEN = Label("down", 0), Label("down", 3), Label("down", 5)
FRIDAY = date(2026, 1, 2)


def written(label: Label, pros: str = "orders rose", cons: str = "costs rose", why: str = "demand") -> str:
    return render_answer(Answer(pros, cons, label, why))


def row(
    symbol: str, week: int, actual: Label, reference: str | None = None, return_pct: float | None = None
) -> Row:
    """A row of the week number `week`, from Friday to Friday."""
    start = FRIDAY + timedelta(weeks=week)
    return make_row(
        render_published(Messages("be brief", f"{symbol}?")),
        reference or written(actual),
        symbol=symbol,
        period=f"{start} to {start + timedelta(weeks=1)}",
        label=actual.text,
        return_pct=return_pct,
    )


def rows(*actual: tuple[str, int, Label]) -> tuple[Row, ...]:
    return numbered([row(*each) for each in actual])
