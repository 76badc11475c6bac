"""The weekly forecast: past weeks of one stock, and a move for the next one."""

from __future__ import annotations

import sys

from forecaster.records import ALL_LABELS, Label, Messages, Row, Unreadable
from forecaster.tasks.answers import can_predict_after, parse_prediction
from forecaster.tasks.base import Choices, DatasetRow, RowKey, Task
from forecaster.tasks.loose_forecasts import read_forecast
from forecaster.tasks.told_outcome import told_outcome
from forecaster.tasks.weekly_rows import make_row, parse_period
from prompts import ANALYSIS, PREDICTION, news_item_spans, render_label, split_published, without_oldest_news

COLUMNS = ("prompt", "answer", "period", "label", "symbol")
"""What published datasets have."""
RETURN_COLUMN = "weekly_return_pct"
"""What the market did, more exactly than the label says it; published sets have none."""


class WeeklyForecast(Task):
    """Rows with the published columns; what is read in an answer is its label."""

    name = "weekly"
    columns = COLUMNS
    number_columns = (RETURN_COLUMN,)
    label_column = "label"
    key_columns = ("symbol", "period")
    choices = Choices(
        before=PREDICTION,
        labels=tuple(label.text for label in ALL_LABELS),
        texts=tuple(f" {render_label(label)}" for label in ALL_LABELS),
        after=f"\n{ANALYSIS}",
        can_follow=can_predict_after,
    )

    def faults(self, row: DatasetRow) -> list[str]:
        faults = [
            f"the {name} is empty"
            for name in ("prompt", "answer", "symbol")
            if not (isinstance(row[name], str) and row[name].strip())
        ]
        try:
            parse_period(str(row["period"]))
        except ValueError:
            faults.append(f'the period is {str(row["period"])!r}, not "YYYY-MM-DD to YYYY-MM-DD"')
        if not isinstance(parse_prediction(str(row["label"])), Label):
            faults.append(f'the label is {str(row["label"])!r}, not like "up by 2-3%"')
        return faults

    def messages(self, row: DatasetRow) -> Messages:
        return split_published(row["prompt"])

    def answer(self, row: DatasetRow) -> str:
        return str(row["answer"])

    def read(self, answer: str) -> Label | Unreadable:
        return read_forecast(answer)

    def actual(self, row: DatasetRow) -> Label | None:
        found = parse_prediction(str(row["label"]))
        return found if isinstance(found, Label) else None

    def key(self, row: DatasetRow) -> RowKey:
        # A million rows share their symbols: each is kept once.
        return RowKey(sys.intern(row["symbol"].strip().upper()), *parse_period(row["period"]))

    def test_row(self, row: DatasetRow) -> Row:
        return make_row(
            row["prompt"],
            row["answer"],
            symbol=row["symbol"],
            period=row["period"],
            label=row["label"],
            return_pct=row.get(RETURN_COLUMN),
        )

    def told_outcome(self, row: DatasetRow) -> str | None:
        return told_outcome(row["prompt"], self.actual(row))

    def pieces(self, messages: Messages) -> int:
        """News items."""
        return len(news_item_spans(messages.user))

    def without_pieces(self, messages: Messages, count: int) -> Messages:
        """Without the oldest news items."""
        return Messages(messages.system, without_oldest_news(messages.user, count))


WEEKLY = WeeklyForecast()
