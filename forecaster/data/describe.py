"""What a dataset holds, in numbers: ours or a published one. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from forecaster.errors import ConfigurationError, Problem
from forecaster.records import ALL_LABELS, Label, Unreadable
from forecaster.tasks.answers import parse_answer, parse_prediction
from forecaster.tasks.told_outcome import told_outcome
from forecaster.tasks.weekly import COLUMNS
from prompts import clean_text

if TYPE_CHECKING:
    from datasets import Dataset

OTHER_LABEL = "other"
"""Stands for every label that is none of the twelve."""
ROWS_AT_ONCE = 1000
_HIGH_SHARE = 0.95
_NONE = "-"


@dataclass(frozen=True)
class Spread:
    """Where lengths lie."""

    minimum: int
    median: float
    p95: int
    """The shortest length that at least 95 % of the rows do not exceed."""
    maximum: int


@dataclass(frozen=True)
class SplitDescription:
    """One split in numbers."""

    rows: int
    symbols: int
    periods: int
    first_period: str
    """Empty without rows, as `last_period` is."""
    last_period: str
    label_counts: Mapping[str, int]
    """Rows by label text, from the strongest fall to the strongest rise, then `OTHER_LABEL`."""
    share_of_rises: float | None
    """Among rows whose label is one of the twelve; None when there is none."""
    unreadable_answers: Mapping[str, int]
    """Rows by what their answer lacks, most frequent first."""
    repeated_rows: int
    """Rows whose symbol and period came before, in this split or an earlier one."""
    told_outcomes: int
    """Rows whose prompt says how its week ends."""
    prompt_chars: tuple[int, ...]
    """One length per row, in their order; so are the three that follow."""
    answer_chars: tuple[int, ...]
    prompt_tokens: tuple[int, ...] | None
    """None when nothing counted tokens."""
    answer_tokens: tuple[int, ...] | None


@dataclass(frozen=True)
class Description:
    splits: Mapping[str, SplitDescription]


def spread(lengths: Sequence[int]) -> Spread | None:
    """Where `lengths` lie; None when there are none."""
    if not lengths:
        return None
    ordered = sorted(lengths)
    p95 = ordered[ceil(_HIGH_SHARE * len(ordered)) - 1]
    return Spread(ordered[0], median(ordered), p95, ordered[-1])


# --- counting -----------------------------------------------------------------------------------------------


@dataclass
class _Tally:
    """Running counts over the rows of one split."""

    symbols: set[str] = field(default_factory=set)
    periods: set[str] = field(default_factory=set)
    labels: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    told_outcomes: int = 0
    prompt_chars: list[int] = field(default_factory=list)
    answer_chars: list[int] = field(default_factory=list)
    prompt_tokens: list[int] = field(default_factory=list)
    answer_tokens: list[int] = field(default_factory=list)


def describe(parts: Mapping[str, Dataset], count_tokens: Callable[[str], int] | None = None) -> Description:
    """Count what the splits of a dataset hold.

    Args:
        parts: splits by name; columns beyond the five published ones are not read.
        count_tokens: length of a text in tokens; called for every prompt and every answer.

    Raises:
        ConfigurationError: a split lacks one of the five columns.
    """
    lacking = {name: [c for c in COLUMNS if c not in part.column_names] for name, part in parts.items()}
    if problems := [
        Problem(
            f"split {name}",
            f"it has no column {', '.join(columns)}.",
            f"Give a dataset with the columns {', '.join(COLUMNS)}.",
        )
        for name, columns in lacking.items()
        if columns
    ]:
        raise ConfigurationError(problems)
    seen: set[tuple[str, str]] = set()
    return Description({name: _describe_split(part, seen, count_tokens) for name, part in parts.items()})


def _describe_split(
    part: Dataset, seen: set[tuple[str, str]], count_tokens: Callable[[str], int] | None
) -> SplitDescription:
    """Counts over one split; its symbols and periods are added to `seen`."""
    tally = _Tally()
    for batch in part.select_columns(list(COLUMNS)).iter(ROWS_AT_ONCE):
        for values in zip(*(batch[column] for column in COLUMNS), strict=True):
            _count_row(tally, seen, dict(zip(COLUMNS, values, strict=True)), count_tokens)
    rises = sum(tally.labels[label.text] for label in ALL_LABELS if label.direction == "up")
    known = sum(tally.labels[label.text] for label in ALL_LABELS)
    in_order = [label.text for label in sorted(ALL_LABELS, key=lambda label: label.midpoint_pct)]
    return SplitDescription(
        rows=len(tally.prompt_chars),
        symbols=len(tally.symbols),
        periods=len(tally.periods),
        # Dates are written year first: the order of the texts is that of the days.
        first_period=min(tally.periods, default=""),
        last_period=max(tally.periods, default=""),
        label_counts={text: tally.labels[text] for text in [*in_order, OTHER_LABEL]},
        share_of_rises=rises / known if known else None,
        unreadable_answers=dict(sorted(tally.unreadable.items(), key=lambda item: (-item[1], item[0]))),
        repeated_rows=tally.repeated,
        told_outcomes=tally.told_outcomes,
        prompt_chars=tuple(tally.prompt_chars),
        answer_chars=tuple(tally.answer_chars),
        prompt_tokens=tuple(tally.prompt_tokens) if count_tokens else None,
        answer_tokens=tuple(tally.answer_tokens) if count_tokens else None,
    )


def _count_row(
    tally: _Tally,
    seen: set[tuple[str, str]],
    row: Mapping[str, Any],
    count_tokens: Callable[[str], int] | None,
) -> None:
    prompt, answer, period, label_text, symbol = (str(row[column] or "") for column in COLUMNS)
    tally.symbols.update({symbol} - {""})
    tally.periods.update({period} - {""})
    tally.repeated += (symbol, period) in seen
    seen.add((symbol, period))
    label = parse_prediction(label_text)
    tally.labels[label.text if isinstance(label, Label) else OTHER_LABEL] += 1
    tally.told_outcomes += told_outcome(prompt, label if isinstance(label, Label) else None) is not None
    reading = parse_answer(answer)
    if isinstance(reading, Unreadable):
        tally.unreadable[reading.reason] += 1
    tally.prompt_chars.append(len(prompt))
    tally.answer_chars.append(len(answer))
    if count_tokens:
        tally.prompt_tokens.append(count_tokens(prompt))
        tally.answer_tokens.append(count_tokens(answer))


# --- report -------------------------------------------------------------------------------------------------


def render_markdown(description: Description) -> str:
    """The description as a page of tables, one column per split."""
    splits = list(description.splits.values())
    reasons = list(dict.fromkeys(reason for split in splits for reason in split.unreadable_answers))
    facts = [
        ["rows", *(f"{split.rows:,}" for split in splits)],
        ["symbols", *(f"{split.symbols:,}" for split in splits)],
        ["periods", *(f"{split.periods:,}" for split in splits)],
        ["first period", *(_cell(split.first_period) for split in splits)],
        ["last period", *(_cell(split.last_period) for split in splits)],
        ["share of rises", *(_percent(split.share_of_rises) for split in splits)],
        ["repeated symbol and period", *(f"{split.repeated_rows:,}" for split in splits)],
        ["unreadable answers", *(f"{sum(split.unreadable_answers.values()):,}" for split in splits)],
    ]
    if any(split.told_outcomes for split in splits):
        facts.append(["prompts that tell the outcome", *(f"{split.told_outcomes:,}" for split in splits)])
    labels = [
        [text, *(_with_share(split.label_counts[text], split.rows) for split in splits)]
        for text in dict.fromkeys(text for split in splits for text in split.label_counts)
    ]
    parts = ["# Dataset", _table("", facts, description)]
    parts += ["## Labels", _table("label, rows", labels, description)]
    if reasons:
        unreadable = [[r, *(f"{split.unreadable_answers.get(r, 0):,}" for split in splits)] for r in reasons]
        parts += ["## Unreadable answers", _table("reason, rows", unreadable, description)]
    parts += ["## Lengths", _lengths_table(description)]
    return "\n\n".join(parts) + "\n"


def _table(title: str, rows: Sequence[Sequence[str]], description: Description) -> str:
    names = [_cell(name) for name in description.splits]
    alignment = ["left", *["right"] * len(names)]
    text: str = tabulate(
        rows, headers=[title, *names], tablefmt="github", colalign=alignment, disable_numparse=True
    )
    return text


def _lengths_table(description: Description) -> str:
    rows = []
    for name, split in description.splits.items():
        for what, lengths in (
            ("prompt, characters", split.prompt_chars),
            ("answer, characters", split.answer_chars),
            ("prompt, tokens", split.prompt_tokens),
            ("answer, tokens", split.answer_tokens),
        ):
            if lengths and (found := spread(lengths)):
                numbers = (found.minimum, found.median, found.p95, found.maximum)
                rows.append([_cell(name), what, *(f"{number:,.0f}" for number in numbers)])
    if not rows:
        return "There are no rows."
    headers = ["split", "text, unit", "min", "median", "95th percentile", "max"]
    alignment = ["left", "left", *["right"] * 4]
    text: str = tabulate(rows, headers=headers, tablefmt="github", colalign=alignment, disable_numparse=True)
    return text


def _with_share(count: int, rows: int) -> str:
    return f"{count:,} ({_percent(count / rows if rows else None)})"


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.1f} %"


def _cell(text: str) -> str:
    """A text of the dataset that cannot break the table it stands in."""
    return clean_text(text).replace("|", "/")
