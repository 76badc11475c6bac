"""Files of rows, read one by one: csv, jsonl and parquet, so that a file may be larger than memory.

Text is UTF-8 and comes in one form (`in_one_form`). Rows end with a line feed, a carriage return, or both;
any other line end stands within a text, unless the first row ends with it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from forecaster.files import refuse_pointer
from forecaster.plain_text import LINE_ENDS, in_one_form

TextRow = dict[str, str]

_ROWS_AT_A_TIME = 5000
_LONGEST_FIELD = 2**31 - 1


def column_names(path: Path) -> list[str]:
    """Names in the file's order; of a .jsonl file, those that its first rows use."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet as pq  # not needed to read flags

        return list(map(in_one_form, pq.ParquetFile(path).schema_arrow.names))
    if suffix == ".jsonl":
        first = (row for _, row in islice(json_lines(path, numbers_as_text=True), _ROWS_AT_A_TIME) if row)
        return list(dict.fromkeys(in_one_form(name) for row in first for name in row))
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(map(in_one_form, next(csv.reader(_lines(file), strict=True), [])))


def text_rows(path: Path, names: Sequence[str], columns: Iterable[str]) -> Iterator[TextRow | None]:
    """Every row as text, "" for what is absent; None for a row that cannot be read."""
    wanted = list(dict.fromkeys(columns))
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        file = pq.ParquetFile(path)
        stored = {in_one_form(name): name for name in reversed(file.schema_arrow.names)}
        stored_columns = [stored[name] for name in wanted]
        for batch in file.iter_batches(batch_size=_ROWS_AT_A_TIME, columns=stored_columns):
            for row in batch.to_pylist():
                yield {name: _text(row[stored[name]]) for name in wanted}
    elif suffix == ".jsonl":
        for _, found in json_lines(path, numbers_as_text=True):
            if found is None:
                yield None
            else:
                values = {in_one_form(name): value for name, value in found.items()}
                yield {name: _text(values.get(name)) for name in wanted}
    else:
        positions = [(name, names.index(name)) for name in wanted]
        # Full texts of articles are longer than the module's default limit.
        csv.field_size_limit(_LONGEST_FIELD)
        with path.open(encoding="utf-8-sig", newline="") as lines:
            # Strict: a quote that is never closed would take the rest of the file for one field.
            for cells in islice(csv.reader(_lines(lines), strict=True), 1, None):
                if cells:
                    fits = len(cells) == len(names)
                    yield {name: in_one_form(cells[at]) for name, at in positions} if fits else None


def json_lines(path: Path, *, numbers_as_text: bool = False) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Every line that is not blank, and its number from 1; None for what is no JSON object.

    Args:
        numbers_as_text: keep the digits of the file.

    Raises:
        ConfigurationError: a pointer of Git LFS.
    """
    refuse_pointer(path)
    as_text = str if numbers_as_text else None
    with path.open(encoding="utf-8-sig", newline="") as file:
        for number, line in enumerate(_lines(file), start=1):
            if line.strip():
                try:
                    found = json.loads(line, parse_float=as_text, parse_int=as_text, parse_constant=as_text)
                except (ValueError, RecursionError):  # no JSON, or a number of thousands of digits
                    found = None
                yield number, found if isinstance(found, dict) else None


def has_other_line_ends(path: Path) -> bool:
    """Whether the rows of a text file end with none of the signs that other programs know."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return _other_line_end(file.readline()) is not None


def _lines(file: TextIO) -> Iterator[str]:
    """A file's lines, each with its end."""
    first = file.readline()
    end = _other_line_end(first)
    for line in chain([first], file):
        yield from [line] if end is None else (f"{part}\n" for part in line.split(end))


def _other_line_end(first_line: str) -> str | None:
    """The sign that ends rows in place of a line feed and a carriage return, if one does: it follows the
    first row, be that an object or a line of names."""
    at = [(first_line.find(sign), sign) for sign in LINE_ENDS if sign != "\r" and sign in first_line]
    if not at:
        return None
    start, sign = min(at)
    row = first_line[:start].strip()
    if row.startswith("{"):
        try:
            json.loads(row)
        except (ValueError, RecursionError):
            return None  # it stands within a text
    return sign


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ""  # an object is no text
    if isinstance(value, bytes):  # of a parquet file whose writer did not say that it is text
        value = value.decode("utf-8")
    return value.isoformat() if isinstance(value, date) else in_one_form(str(value))
