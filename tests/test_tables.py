"""Rows of files, one by one, whatever the form and the line ends."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forecaster.tables import column_names, json_lines, text_rows

CSV = b"symbol,close\nAAPL,1.50\nMSFT,\nodd\n"
JSONL = b'{"symbol": "AAPL", "close": 1.50}\n\n{"symbol": "MSFT"}\n[1]\n'
ROWS = [{"symbol": "AAPL", "close": "1.50"}, {"symbol": "MSFT", "close": ""}, None]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["no mark", "mark"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("name", "content"), [("rows.csv", CSV), ("rows.jsonl", JSONL)])
def test_a_byte_order_mark_and_any_line_end_give_the_same_rows(
    tmp_path: Path, name: str, content: bytes, line_end: bytes, mark: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(mark + content.replace(b"\n", line_end))
    names = column_names(path)
    assert names == ["symbol", "close"]
    assert list(text_rows(path, names, names)) == ROWS


def test_parquet_gives_the_rows_as_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"symbol": ["AAPL", "MSFT"], "close": ["1.50", None]}), path)
    assert list(text_rows(path, column_names(path), ["close"])) == [{"close": "1.50"}, {"close": ""}]


def test_lines_of_json_have_their_numbers_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"close": 1.50}\n\n{"close": 1\n' + "[" * 100_000 + "\n", encoding="utf-8")
    assert list(json_lines(path)) == [(1, {"close": 1.5}), (3, None), (4, None)]
    assert next(json_lines(path, numbers_as_text=True)) == (1, {"close": "1.50"})
