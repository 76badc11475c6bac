"""Rows of files, one by one, whatever the form and the line ends."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forecaster.tables import column_names, json_lines, text_rows

CSV = b"symbol,close\nAAPL,1.50\nMSFT,\nodd\n"
JSONL = b'{"symbol": "AAPL", "close": 1.50}\n\n{"symbol": "MSFT"}\n[1]\n'
ROWS = [{"symbol": "AAPL", "close": "1.50"}, {"symbol": "MSFT", "close": ""}, None]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "mark"])
@pytest.mark.parametrize(
    "line_end",
    [b"\n", b"\r\n", b"\r", b"\v", b"\xc2\x85", "\u2028".encode()],
    ids=["LF", "CRLF", "CR", "VT", "NEL", "LS"],
)
@pytest.mark.parametrize(("name", "content"), [("rows.csv", CSV), ("rows.jsonl", JSONL)])
def test_a_byte_order_mark_and_any_line_end_give_the_same_rows(
    tmp_path: Path, name: str, content: bytes, line_end: bytes, mark: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(mark + content.replace(b"\n", line_end))
    names = column_names(path)
    assert names == ["symbol", "close"]
    assert list(text_rows(path, names, names)) == ROWS


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_names_and_texts_come_in_one_form(tmp_path: Path, suffix: str) -> None:
    path, name, text = tmp_path / f"rows{suffix}", "head\u00a0line", "Up\r\nand\x85up\u2028\ufeffagain\u00a05"
    if suffix == ".csv":
        path.write_bytes(f'{name},close\r\n"{text}",1\r\n'.encode())
    elif suffix == ".jsonl":
        path.write_text(json.dumps({name: text, "close": 1}, ensure_ascii=False), encoding="utf-8")
    else:
        pq.write_table(pa.table({name: [text], "close": [1]}), path)
    names = column_names(path)
    assert names == ["head line", "close"]
    assert list(text_rows(path, names, ["head line"])) == [{"head line": "Up\nand\nup\nagain 5"}]


def test_another_line_end_within_a_text_ends_no_row(tmp_path: Path) -> None:
    first, second = {"text": "a\u2028b"}, {"text": "c\x85d"}
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (first, second)), "utf-8")
    assert list(json_lines(lines)) == [(1, first), (2, second)]
    table = tmp_path / "rows.csv"
    table.write_text("text,n\na\u2028b,1\nc\x85d,2\n", encoding="utf-8")
    assert [row and row["text"] for row in text_rows(table, ["text", "n"], ["text"])] == ["a\nb", "c\nd"]


def test_parquet_gives_the_rows_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"symbol": ["AAPL", "MSFT"], "close": ["1.50", None]}), path)
    assert list(text_rows(path, column_names(path), ["close"])) == [{"close": "1.50"}, {"close": ""}]


def test_lines_of_json_have_their_numbers_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"close": 1.50}\n\n{"close": 1\n' + "[" * 100_000 + "\n", encoding="utf-8")
    assert list(json_lines(path)) == [(1, {"close": 1.5}), (3, None), (4, None)]
    assert next(json_lines(path, numbers_as_text=True)) == (1, {"close": "1.50"})
