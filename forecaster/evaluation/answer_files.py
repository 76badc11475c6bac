"""Answers made elsewhere: files with a column of answers and one of references."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecaster.errors import ConfigurationError, Problem
from forecaster.evaluation.rows import AnswerSpeed, ModelAnswers, numbered
from forecaster.plain_text import in_one_form
from forecaster.records import Label, Row
from forecaster.schemas import refused
from forecaster.tables import column_names, json_lines
from forecaster.tasks.distributions import BINS, Distribution
from forecaster.tasks.weekly_rows import make_row

if TYPE_CHECKING:
    import pandas as pd

PREDICTION, REFERENCE, PROMPT = "prediction", "reference", "prompt"
_GROUND_TRUTH = "ground_truth"
"""The references, as other benchmarks name them."""
_SECONDS = ("inference_time_s", "latency_s")
"""Columns of seconds for an answer, as other benchmarks name them."""
SUFFIXES = (".csv", ".jsonl", ".parquet", ".json")


@dataclass(frozen=True)
class Columns:
    """Names of the columns to read."""

    prediction: str = PREDICTION
    reference: str = REFERENCE
    prompt: str = PROMPT


def json_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON file: a list of objects, alone or under a name; columns as pandas saves them; or one
    object on each line. Empty for any other content.

    Raises:
        OSError, ValueError: it cannot be read, or is no JSON.
    """
    text = path.read_text(encoding="utf-8-sig")
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = [json.loads(line) for line in text.split("\n") if line.strip()]
    return _rows_of(found)


def _rows_of(found: Any) -> list[dict[str, Any]]:
    if isinstance(found, list):
        return found if all(isinstance(row, dict) for row in found) else []
    if not isinstance(found, dict) or not found:
        return []
    if found.keys() >= {"columns", "data"}:  # pandas, orient="split"
        return [dict(zip(found["columns"], row, strict=True)) for row in found["data"]]
    parts = list(found.values())
    if all(isinstance(part, dict) for part in parts):
        same = all(part.keys() == parts[0].keys() for part in parts)
        if same and not any(isinstance(value, dict | list) for part in parts for value in part.values()):
            # Of columns, each by row, or of rows, each by column: pandas numbers the rows.
            by_column = all(str(key).isdecimal() for key in parts[0])
            return _turned(found) if by_column else parts
    if all(isinstance(part, list) and len(part) == len(parts[0]) for part in parts) and not any(
        isinstance(value, dict | list) for part in parts for value in part
    ):
        return _turned({name: dict(enumerate(part)) for name, part in found.items()})
    lists = [part for part in parts if isinstance(part, list) and part and _rows_of(part)]
    return lists[0] if len(lists) == 1 else []


def _turned(columns: Mapping[str, Mapping[Any, Any]]) -> list[dict[str, Any]]:
    places = next(iter(columns.values()))
    return [{name: column[place] for name, column in columns.items()} for place in places]


def read_answer_file(
    path: Path, name: str, columns: Columns, rows: Sequence[Row] | None = None
) -> ModelAnswers:
    """A model's answers, one row each.

    Symbol, period and label come from columns of these names, else from the texts of prompt and reference.

    Args:
        rows: the dataset's own rows, to be taken instead: matched by symbol and period where the file tells
            them, else in order, as long as nothing in the file speaks against it.

    Raises:
        ConfigurationError: the file cannot be read, lacks a column, or does not match the rows.
    """
    table = _read_table(path).rename(columns=_in_one_form).map(_in_one_form)
    if not len(table):
        raise ConfigurationError([Problem(str(path), "has no rows.", "Give a file with answers.")])
    if columns.reference == REFERENCE not in table.columns and _GROUND_TRUTH in table.columns:
        columns = replace(columns, reference=_GROUND_TRUTH)
    wanted = [columns.prediction] + ([columns.reference] if rows is None else [])
    # A prompt is welcome, and missed only where it was asked for by name.
    asked = [columns.prompt] if columns.prompt != PROMPT else []
    if missing := [column for column in (*wanted, *asked) if column not in table.columns]:
        found = f"{path} has no column {' and no '.join(map(repr, missing))}, but {_listed(table.columns)}."
        way_out = "Name them with --prediction_column, --reference_column and --prompt_column."
        if len(table.columns) == 1 and any(mark in table.columns[0] for mark in ";\t"):
            way_out = "Save it with commas between the columns."
        raise ConfigurationError([Problem("columns", found, way_out)])
    if path.suffix == ".csv" and (twice := [name for name in wanted if column_names(path).count(name) > 1]):
        found = f"{path} has the column {twice[0]!r} more than once."
        raise ConfigurationError([Problem("columns", found, "Give each column a name of its own.")])
    lines: list[dict[str, Any]] = table.to_dict("records")
    if problem := _without_text(path, lines, wanted):
        raise ConfigurationError([problem])
    own = numbered([_row(line, columns) for line in lines])
    answered = ModelAnswers(
        name,
        own,
        tuple(_text(line[columns.prediction]) for line in lines),
        speed=_speed(table),
        distributions=_distributions(path, lines, list(table.columns)),
    )
    if rows is None:
        return answered
    return replace(answered.at(_places(path, own, rows)), rows=tuple(rows))


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd  # half a second, and not needed to read flags

    if not path.is_file():
        raise ConfigurationError([Problem(str(path), "is no file.", f"Give a {', '.join(SUFFIXES)} file.")])
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
            if not isinstance(table.index, pd.RangeIndex):
                # pandas takes the first ones for an index, and the others for the wrong columns.
                raise ValueError("its rows have more fields than its header")
            return table
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".json":
            return pd.DataFrame.from_records(json_rows(path))
        if path.suffix == ".jsonl":
            return pd.DataFrame.from_records(_whole_objects(path))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        found = f"cannot be read ({' '.join(str(error).split())[:150]})."
        raise ConfigurationError([Problem(str(path), found, "Give a whole file.")]) from error
    raise ConfigurationError(
        [Problem(str(path), f"is no {', '.join(SUFFIXES)} file.", "Save the answers in one of these forms.")]
    )


def _whole_objects(path: Path) -> list[dict[str, Any]]:
    """The rows of a jsonl file; raises ValueError for a line that is no JSON object."""
    rows = []
    for number, row in json_lines(path):
        if row is None:
            raise ValueError(f"line {number} is no whole JSON object")
        rows.append(row)
    return rows


def _without_text(path: Path, lines: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Problem | None:
    """The first cell that holds something other than text; an empty one counts as no answer."""
    for column in columns:
        for place, line in enumerate(lines, start=1):
            value = line[column]
            if not isinstance(value, str) and not _is_empty(value):
                found = f"row {place} holds {repr(value)[:40]} in {column!r}, where text belongs."
                return Problem(str(path), found, "Name the columns of text, or save them as text.")
    return None


def _row(line: Mapping[str, Any], columns: Columns) -> Row:
    symbol, period, label = (_text(line.get(column)) or None for column in ("symbol", "period", "label"))
    return make_row(
        _text(line.get(columns.prompt)) or "",
        _text(line.get(columns.reference)) or "",
        symbol=symbol,
        period=period,
        label=label,
    )


def _places(path: Path, own: Sequence[Row], rows: Sequence[Row]) -> list[int]:
    """Where the file answers each of these rows."""
    by_id = {row.row_id: at for at, row in enumerate(own)}
    if by_id.keys() >= {row.row_id for row in rows}:
        return [by_id[row.row_id] for row in rows]
    differ = any(
        mine.symbol not in ("", row.symbol) or mine.end not in (None, row.end)
        for mine, row in zip(own, rows, strict=False)
    )
    if len(own) != len(rows) or differ:
        known = sum(row.row_id in by_id for row in rows)
        found = f"{path} has {len(own)} answers; of the dataset's {len(rows)} rows it names {known}."
        raise ConfigurationError([Problem("--dataset", found, "Give the rows that were answered, in order.")])
    return list(range(len(rows)))


# --- probabilities ------------------------------------------------------------------------------------------

_SUM_MAY_MISS = 1e-3
"""By rounding."""


def _distributions(
    path: Path, lines: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[Distribution | None, ...]:
    """The probabilities of the twelve bins by row, of columns that are called as the labels are; None for a
    row whose twelve cells are empty. Raises ConfigurationError for what is no distribution."""
    columns = {label: [name for name in names if _is_called(name, label)] for label in BINS}
    if not any(columns.values()):
        return ()
    in_file = column_names(path) if path.suffix == ".csv" else names
    for label, found in columns.items():
        if not found:
            lacks = f"has probabilities of some labels, and no column {label.text!r}."
            raise refused(path, lacks, "Give all twelve, or none.")
        if sum(_is_called(name, label) for name in in_file) > 1:
            twice = f"has the column {label.text!r} more than once."
            raise refused(path, twice, "Give each column a name of its own.")
    return tuple(
        _distribution(path, place, {label: line[name] for label, (name,) in columns.items()})
        for place, line in enumerate(lines, start=1)
    )


def _is_called(name: str, label: Label) -> bool:
    return " ".join(in_one_form(str(name)).lower().split()) == label.text


def _distribution(path: Path, place: int, cells: Mapping[Label, Any]) -> Distribution | None:
    shares = {label: _share(cell) for label, cell in cells.items()}
    if all(_is_empty(cell) for cell in cells.values()):
        return None
    for label, share in shares.items():
        if share is None:
            found = (
                f"row {place} holds {repr(cells[label])[:40]} in {label.text!r}, where a probability belongs."
            )
            raise refused(path, found, "Give numbers from 0 to 1 (no percent), or leave all twelve empty.")
    known = [share for share in shares.values() if share is not None]
    total = math.fsum(known)
    if abs(total - 1) > _SUM_MAY_MISS:
        found = f"the twelve probabilities of row {place} sum to {total:.4g}."
        raise refused(path, found, "They have to sum to 1.")
    return Distribution(tuple(share / total for share in known))


def _share(cell: Any) -> float | None:
    """A number from 0 to 1; None for anything else."""
    if isinstance(cell, bool) or not isinstance(cell, str | numbers.Number | Decimal):
        return None
    try:
        share = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return share if 0 <= share <= 1 else None


def _is_empty(cell: Any) -> bool:
    if isinstance(cell, str):
        return not cell.strip()
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _in_one_form(value: Any) -> Any:
    return in_one_form(value) if isinstance(value, str) else value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _speed(table: pd.DataFrame) -> AnswerSpeed | None:
    column = next((name for name in _SECONDS if name in table.columns), None)
    if column is None:
        return None
    import pandas as pd

    seconds = pd.to_numeric(table[column], errors="coerce")
    seconds = seconds[seconds.between(0, math.inf, inclusive="left")]
    return AnswerSpeed(len(seconds), float(seconds.sum()), None, "as the file says") if len(seconds) else None


def _listed(names: Sequence[str], most: int = 12) -> str:
    shown = [repr(str(name)) for name in names]
    return ", ".join(shown[:most]) + (", ..." if len(shown) > most else "")
