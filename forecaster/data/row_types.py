"""Whether the columns of a dataset hold what is asked of them, texts and numbers, told by row and column; and
whether a JSON file can be handed to a parser at all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from forecaster.errors import ConfigurationError, Problem
from forecaster.tasks.base import Task

WAY_OUT = "Texts are texts and numbers are numbers in every row; mend or remove it."
DEEPEST_JSON = 64
"""pyarrow's parser follows brackets on the stack: a million of them end the process."""
_ROWS_AT_ONCE = 1000
_TEXT = re.compile(rb'"(?>(?:[^"\\]|\\.)*)"?', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def check_json(path: Path) -> None:
    """Raises ConfigurationError, with the line, for a .json or .jsonl file that is no UTF-8 text or nests too
    deeply."""
    depth = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                found = f"line {number} is no UTF-8 text (byte {error.start + 1})."
                raise ConfigurationError([Problem(str(path), found, "Save it as UTF-8.")]) from error
            depth = 0 if path.suffix == ".jsonl" else depth
            if depth + line.count(b"[") + line.count(b"{") > DEEPEST_JSON or depth:
                deepest, depth = _nesting(line, depth)
                if deepest > DEEPEST_JSON:
                    found = f"line {number} nests more than {DEEPEST_JSON} lists and objects."
                    raise ConfigurationError([Problem(str(path), found, WAY_OUT)])


def _nesting(line: bytes, depth: int) -> tuple[int, int]:
    """The deepest level of a line of JSON, and that behind it; brackets in texts do not count."""
    deepest = depth
    for bracket in _BRACKETS.findall(_TEXT.sub(b"", line)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > DEEPEST_JSON:
            break
    return deepest, depth


def problems(
    rows: datasets.Dataset,
    where: str,
    texts: Iterable[str],
    numbers: Iterable[str] = (),
    lists: Iterable[str] = (),
    moments: Iterable[str] = (),
) -> list[Problem]:
    """The first value of each of these columns, where there is such a column, that is no text, no number, no
    list of texts, or neither a text nor a date, with its row; empty values are right."""
    kinds = [*((name, _no_text) for name in texts), *((name, _no_number) for name in numbers)]
    kinds += [*((name, _no_list) for name in lists), *((name, _no_moment) for name in moments)]
    return [
        Problem(where, f"row {fault[0]}: the {column} is {fault[1]}.", WAY_OUT)
        for column, describe in kinds
        if column in rows.column_names and (fault := _first_fault(rows, column, describe))
    ]


def with_numbers(rows: datasets.Dataset, task: Task) -> datasets.Dataset:
    """Rows whose numbers are numbers, also where they were written as texts."""
    number = datasets.Value("float64")
    for name in task.number_columns:
        if name in rows.column_names and rows.features[name] != number:
            rows = rows.cast_column(name, number)
    return rows


def _first_fault(
    rows: datasets.Dataset, column: str, describe: Callable[[Any], str | None]
) -> tuple[int, str] | None:
    kind = rows.features[column].dtype if isinstance(rows.features[column], datasets.Value) else ""
    if kind == "null":
        return None
    if describe is _no_text and kind in ("string", "large_string") and _is_valid(rows, column):
        return None
    return next(((row, fault) for row, value in _values(rows, column) if (fault := describe(value))), None)


def _is_valid(rows: datasets.Dataset, column: str) -> bool:
    """Whether all texts are UTF-8, which a writer of parquet need not see to."""
    try:
        rows.data.column(column).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _values(rows: datasets.Dataset, column: str) -> Iterator[tuple[int, Any]]:
    chosen = rows.select_columns([column])
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        try:
            yield from enumerate(chosen[start : start + _ROWS_AT_ONCE][column], start)
        except UnicodeDecodeError:
            for row in range(start, min(start + _ROWS_AT_ONCE, len(rows))):
                try:
                    value = chosen[row][column]
                except UnicodeDecodeError:
                    value = b""
                yield row, value


def _no_text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return "no UTF-8 text"
    return None if value is None or isinstance(value, str) else _shown(value)


def _no_moment(value: Any) -> str | None:
    # The reader of JSON makes dates of texts that look like some.
    return None if isinstance(value, date) else _no_text(value)


def _no_number(value: Any) -> str | None:
    if value is None:
        return None
    try:
        number = math.inf if isinstance(value, bool | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    return _shown(value) if math.isinf(number) else None


def _no_list(value: Any) -> str | None:
    is_sound = value is None or (isinstance(value, list) and all(isinstance(item, str) for item in value))
    return None if is_sound else _shown(value)


def _shown(value: Any) -> str:
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list"}
    kind = kinds.get(type(value), "an object" if isinstance(value, dict) else type(value).__name__)
    text = repr(value)
    return f"{text if len(text) <= 40 else text[:40] + '...'}, {kind}"
