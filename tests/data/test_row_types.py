"""Rows whose columns hold something else than their task needs: told by file, row and column."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_runs import JsonlWriter

from forecaster.data.audit import audit_rows
from forecaster.data.row_types import check_json
from forecaster.data.sources import load, read_parts, resolve
from forecaster.errors import ConfigurationError
from forecaster.tasks.weekly import WEEKLY

ROWS = [
    {
        "prompt": f"How is {symbol}?",
        "answer": "It is well.",
        "period": f"2024-01-{day:02d} to 2024-01-{day + 7}",
        "label": "up by 1-2%",
        "symbol": symbol,
        "weekly_return_pct": 1.5,
    }
    for day in (7, 14)
    for symbol in ("A", "B")
]
WAY_OUT = "Texts are texts and numbers are numbers in every row; mend or remove it."


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def refusals(path: Path) -> list[str]:
    """The same one of both readers: of training, and of what audits, describes and converts."""
    found = []
    for read in (
        lambda: load(resolve(str(path), False, "--dataset"), None, WEEKLY),
        lambda: read_parts(str(path), False, WEEKLY),
    ):
        with pytest.raises(ConfigurationError) as caught:
            read()
        found.append(str(caught.value))
    return found


@pytest.mark.parametrize("column", ["prompt", "answer", "label", "period", "symbol"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5, a number"),
        (["a"], "['a'], a list"),
        ({"a": 1}, "{'a': 1}, an object"),
        (True, "True, true or false"),
    ],
    ids=["number", "list", "object", "bool"],
)
def test_a_text_column_with_something_else(column: str, value: Any, shown: str, jsonl: JsonlWriter) -> None:
    one = jsonl("one.jsonl", [*ROWS[:2], ROWS[2] | {column: value}])
    expected = f"{one} (train): row 2: the {column} is {shown}. {WAY_OUT}"
    assert refusals(one) == [expected] * 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("n/a", "'n/a', a text"),
        ([1], "[1], a list"),
        ({"a": 1}, "{'a': 1}, an object"),
        (True, "True, true or false"),
    ],
    ids=["text", "list", "object", "bool"],
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_number_column_with_something_else(value: Any, shown: str, place: int, jsonl: JsonlWriter) -> None:
    rows = [dict(row) for row in ROWS]
    rows[place]["weekly_return_pct"] = value
    path = jsonl("rows.jsonl", rows)
    expected = f"{path} (train): row {place}: the weekly_return_pct is {shown}. {WAY_OUT}"
    assert refusals(path) == [expected] * 2


def test_a_whole_column_of_something_else(jsonl: JsonlWriter) -> None:
    path = jsonl("rows.jsonl", [row | {"label": 5, "answer": ["a"]} for row in ROWS])
    answer = f"{path} (train): row 0: the answer is ['a'], a list. {WAY_OUT}"
    label = f"{path} (train): row 0: the label is 5, a number. {WAY_OUT}"
    assert refusals(path) == [f"{answer}\n{label}"] * 2


def test_columns_that_only_an_audit_reads_are_looked_at_by_it(jsonl: JsonlWriter) -> None:
    rows = [row | {"as_of": 5, "end_price": "n/a", "flags": 1} for row in ROWS]
    with pytest.raises(ConfigurationError) as caught:
        audit_rows(read_parts(str(jsonl("rows.jsonl", rows)), False, WEEKLY))
    assert [str(problem) for problem in caught.value.problems] == [
        f"split train: row 0: the as_of is 5, a number. {WAY_OUT}",
        f"split train: row 0: the end_price is 'n/a', a text. {WAY_OUT}",
        f"split train: row 0: the flags is 1, a number. {WAY_OUT}",
    ]


def test_a_number_beyond_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([*ROWS, ROWS[0] | {"weekly_return_pct": float("inf")}]), path)
    assert refusals(path) == [f"{path} (train): row 4: the weekly_return_pct is inf, a number. {WAY_OUT}"] * 2


def test_numbers_that_are_written_as_texts_are_numbers(jsonl: JsonlWriter) -> None:
    path = jsonl("rows.jsonl", [row | {"weekly_return_pct": "1.5"} for row in ROWS])
    corpus = load(resolve(str(path), False, "--dataset"), None, WEEKLY)
    assert corpus.train["weekly_return_pct"][0] == 1.5
    assert read_parts(str(path), False, WEEKLY)["train"]["weekly_return_pct"][0] == 1.5


def test_texts_of_other_arrow_types_are_texts(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    large = table.set_column(0, "prompt", table["prompt"].cast(pa.large_string()))
    dictionary = large.set_column(1, "answer", large["answer"].dictionary_encode())
    pq.write_table(dictionary, tmp_path / "rows.parquet")
    assert len(read_parts(str(tmp_path / "rows.parquet"), False, WEEKLY)["train"]) == 4


def test_bytes_that_are_no_text_are_told_by_row(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"a", b"caf\xe9", b"a"]).view(pa.string())
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table.set_column(0, "prompt", texts), tmp_path / "rows.parquet")
    expected = f"{tmp_path / 'rows.parquet'} (train): row 2: the prompt is no UTF-8 text. {WAY_OUT}"
    assert refusals(tmp_path / "rows.parquet") == [expected] * 2


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_in_another_encoding_is_told_by_line(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps(row | {"answer": "café"}, ensure_ascii=False) for row in ROWS]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    assert [found.startswith(f"{path}: line 1 is no UTF-8 text (byte ") for found in refusals(path)] == [
        True
    ] * 2


@pytest.mark.parametrize("depth", [100, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_column_that_nests_too_deeply_is_told_by_line(depth: int, opening: str, tmp_path: Path) -> None:
    """A hundred thousand brackets would end the process in the parser."""
    path, closing = tmp_path / "rows.jsonl", "]" if opening == "[" else "}"
    deep = f'"extra": {opening * depth}1{closing * depth}, '
    lines = [json.dumps(row) for row in ROWS]
    lines[1] = "{" + deep + lines[1][1:]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert refusals(path) == [f"{path}: line 2 nests more than 64 lists and objects. {WAY_OUT}"] * 2


def test_brackets_in_texts_and_in_the_rows_of_a_list_do_not_nest(tmp_path: Path) -> None:
    many = [row | {"answer": '[{ "' * 500} for row in ROWS] * 100
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    (tmp_path / "rows.json").write_text(json.dumps(many))
    (tmp_path / "shown.json").write_text(json.dumps(many, indent=1))
    for name in ("rows.jsonl", "rows.json", "shown.json"):
        check_json(tmp_path / name)
