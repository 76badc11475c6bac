"""Files of rows, read one by one: csv, jsonl and parquet, so that a file may be larger than memory.

Text is UTF-8; a byte-order mark at its start is passed over, and any line end ends a line of a jsonl file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

TextRow = dict[str, str]

_ROWS_AT_A_TIME = 5000
_LONGEST_FIELD = 2**31 - 1


def column_names(path: Path) -> list[str]:
    """Names in the file's order; of a .jsonl file, those that its first rows use."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet as pq  # not needed to read flags

        return list(pq.ParquetFile(path).schema_arrow.names)
    if suffix == ".jsonl":
        first = (row for _, row in islice(json_lines(path, numbers_as_text=True), _ROWS_AT_A_TIME) if row)
        return list(dict.fromkeys(name for row in first for name in row))
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next(csv.reader(file, strict=True), [])


def text_rows(path: Path, names: Sequence[str], columns: Iterable[str]) -> Iterator[TextRow | None]:
    """Every row as text, "" for what is absent; None for a row that cannot be read."""
    wanted = list(dict.fromkeys(columns))
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches(batch_size=_ROWS_AT_A_TIME, columns=wanted):
            for row in batch.to_pylist():
                yield {name: _text(value) for name, value in row.items()}
    elif suffix == ".jsonl":
        for _, found in json_lines(path, numbers_as_text=True):
            yield None if found is None else {name: _text(found.get(name)) for name in wanted}
    else:
        positions = [(name, names.index(name)) for name in wanted]
        # Full texts of articles are longer than the module's default limit.
        csv.field_size_limit(_LONGEST_FIELD)
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Strict: a quote that is never closed would take the rest of the file for one field.
            for cells in islice(csv.reader(file, strict=True), 1, None):
                if cells:
                    fits = len(cells) == len(names)
                    yield {name: cells[at] for name, at in positions} if fits else None


def json_lines(path: Path, *, numbers_as_text: bool = False) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Every line that is not blank, and its number from 1; None for what is no JSON object.

    Args:
        numbers_as_text: keep the digits of the file.
    """
    as_text = str if numbers_as_text else None
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    found = json.loads(line, parse_float=as_text, parse_int=as_text, parse_constant=as_text)
                except (json.JSONDecodeError, RecursionError):
                    found = None
                yield number, found if isinstance(found, dict) else None


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, date) else str(value)
