"""Dataset rows to tokenised rows: labels on the answer and its end token only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from forecaster.errors import ConfigurationError, Problem
from forecaster.models.templates import (
    holds_markers,
    naming_row,
    prompt_and_answer_ids,
    prompt_ids,
    rendered_parts,
)
from forecaster.tasks.base import Task
from forecaster.tasks.trimming import FittedPrompt, fit
from forecaster.training.run import PART_NAMES

IGNORED = -100
"""Label id that the loss leaves out (torch's default `ignore_index`)."""
_TRAINING_COLUMNS = ("input_ids", "labels", "row_id", "tokens")


def tokenise_row(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int, task: Task
) -> dict[str, Any]:
    """One training row: `input_ids` and `labels` (prompt ids replaced by -100), at most `max_length` long.

    A row that does not fit even without all that its task can spare gets empty lists, and `tokens_needed`
    says what would do.
    """
    messages = task.messages(row)
    prompt, answer = prompt_and_answer_ids(tokenizer, messages, task.answer(row))
    has_markers = holds_markers(tokenizer, messages, task.answer(row))
    limit = max_length - len(answer)
    # Most rows fit as they are: their prompt is not tokenised once more to count it.
    whole = FittedPrompt(messages, 0) if len(prompt) <= limit else None
    fitted = whole or fit(task, messages, limit, lambda m: len(prompt_ids(tokenizer, m)))
    if fitted is None:
        bare = task.without_pieces(messages, task.pieces(messages))
        needed = len(prompt_ids(tokenizer, bare)) + len(answer)
        nothing = {"input_ids": [], "labels": [], "news_dropped": 0, "tokens": 0, "answer_tokens": 0}
        return nothing | {"tokens_needed": needed, "has_markers": has_markers}
    if fitted.news_dropped:
        prompt = prompt_ids(tokenizer, fitted.messages)
    return {
        "input_ids": prompt + answer,
        "labels": [IGNORED] * len(prompt) + answer,
        "news_dropped": fitted.news_dropped,
        "tokens": len(prompt) + len(answer),
        "answer_tokens": len(answer),
        "tokens_needed": len(prompt) + len(answer),
        "has_markers": has_markers,
    }


@dataclass(frozen=True)
class RowReport:
    """What tokenising did to the rows."""

    rows: int
    kept: int
    trimmed: int
    news_items_dropped: int
    dropped_row_ids: tuple[str, ...]
    tokens: int
    answer_tokens: int
    max_length: int
    max_length_that_would_do: int
    """Smallest max_length at which no row would be dropped."""
    rows_with_markers: int = 0
    """Rows whose texts hold control tokens of the model, or signs of its template: they are broken up, and so
    read as text."""

    def summary(self, name: str) -> str:
        text = (
            f"{name}: {self.kept} of {self.rows} rows, {self.tokens:,} tokens "
            f"({self.answer_tokens:,} of answers); "
            f"{self.trimmed} rows lost {self.news_items_dropped} of their oldest news items, "
            f"{len(self.dropped_row_ids)} rows dropped (longer than --max_length {self.max_length} without "
            "any news)."
        )
        if self.rows_with_markers:
            text += (
                f" WARNING: {self.rows_with_markers} rows hold control tokens or turn marks of this model; "
                "they are tokenised as plain text."
            )
        if len(self.dropped_row_ids) > 0.05 * self.rows:
            text += (
                f" WARNING: more than 5 % of the rows are dropped; "
                f"--max_length {self.max_length_that_would_do} would keep them all."
            )
        return text


def _tokenise_named_row(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int, task: Task
) -> dict[str, Any]:
    with naming_row(row["row_id"], tokenizer.name_or_path):
        return tokenise_row(row, tokenizer, max_length, task)


def tokenise(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, task: Task
) -> tuple[datasets.Dataset, RowReport]:
    """Tokenise all rows through the datasets cache; columns input_ids, labels, row_id and tokens.

    Raises:
        ConfigurationError: the chat template fails in a row.
    """
    done = rows.map(
        partial(_tokenise_named_row, tokenizer=tokenizer, max_length=max_length, task=task),
        remove_columns=[name for name in rows.column_names if name != "row_id"],
        desc="Tokenising",
    )
    tokens, needed, news_dropped = (
        list(done["tokens"]),
        list(done["tokens_needed"]),
        list(done["news_dropped"]),
    )
    too_long = [i for i, count in enumerate(tokens) if not count]
    report = RowReport(
        rows=len(done),
        kept=len(done) - len(too_long),
        trimmed=sum(1 for count in news_dropped if count),
        news_items_dropped=sum(news_dropped),
        dropped_row_ids=tuple(done.select(too_long)["row_id"]),
        tokens=sum(tokens),
        answer_tokens=sum(done["answer_tokens"]),
        max_length=max_length,
        max_length_that_would_do=max((needed[i] for i in too_long), default=max_length),
        rows_with_markers=sum(done["has_markers"]),
    )
    if too_long:
        done = done.select([i for i, count in enumerate(tokens) if count])
    return done.select_columns(list(_TRAINING_COLUMNS)), report


def rehearse(
    parts: Mapping[str, datasets.Dataset], tokenizer: PreTrainedTokenizerBase, max_length: int, task: Task
) -> None:
    """What `tokenise` and `check_rows_fit` would refuse. All rows are rendered; they are tokenised up to the
    first of each part that fits."""
    for rows in parts.values():
        for row in rows:
            with naming_row(row["row_id"], tokenizer.name_or_path):
                rendered_parts(tokenizer, task.messages(row), task.answer(row))
    if all(
        any(tokenise_row(row, tokenizer, max_length, task)["tokens"] for row in p) for p in parts.values()
    ):
        return
    reports = {name: tokenise(rows, tokenizer, max_length, task)[1] for name, rows in parts.items()}
    check_rows_fit(max_length, reports)


def check_rows_fit(max_length: int, reports: Mapping[str, RowReport]) -> None:
    """Raises ConfigurationError when a part has no row that is short enough."""
    if all(report.kept for report in reports.values()):
        return
    *others, last = (f"{report.kept} {PART_NAMES[name]}" for name, report in reports.items())
    would_do = max(report.max_length_that_would_do for report in reports.values())
    found = f"is {max_length}, which leaves {', '.join(others)} and {last} rows."
    raise ConfigurationError([Problem("--max_length", found, f"--max_length {would_do} would keep all.")])
