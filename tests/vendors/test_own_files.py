"""News and prices in files of every form become ledger calls; what is wrong with a file is told."""

from __future__ import annotations

import csv
import hashlib
import json
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_runs import JsonlWriter

from forecaster.calls import Request
from forecaster.data.ledger import Ledger
from forecaster.data.news import coverage_of
from forecaster.errors import ConfigurationError
from forecaster.tables import json_lines
from forecaster.vendors.own_files import (
    LONGEST_SUMMARY_CHARACTERS,
    Imported,
    digest,
    read_news_file,
    read_price_file,
)

CsvWriter = Callable[[str, Sequence[Sequence[object]]], Path]

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
JAN_5 = 1767571200
"""2026-01-05 00:00:00 UTC, a Monday."""
HOUR, DAY = 3600, 86400
DUMP = ("datetime", "headline", "source", "url", "summary")
FNSPID = (
    "Date",
    "Article_title",
    "Stock_symbol",
    "Url",
    "Publisher",
    "Author",
    "Article",
    "Lsa_summary",
    "Luhn_summary",
    "Textrank_summary",
    "Lexrank_summary",
)


@pytest.fixture
def written(tmp_path: Path) -> CsvWriter:
    def write(name: str, rows: Sequence[Sequence[object]]) -> Path:
        path = tmp_path / name
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows(rows)
        return path

    return write


def news(path: Path, symbols: Sequence[str] | None = None) -> Imported:
    return read_news_file(path, symbols, NOW)


def dump_row(seconds: int, headline: str) -> tuple[object, ...]:
    return (seconds, headline, "Wire", f"https://example.com/{seconds}", "More.")


def told(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call()
    return str(caught.value)


# --- news: forms --------------------------------------------------------------------------------------------


def test_a_finnhub_dump_takes_its_symbol_from_its_name(written: CsvWriter) -> None:
    path = written("AAPL_week1.csv", [DUMP, dump_row(JAN_5 + HOUR, "Second"), dump_row(JAN_5, "First")])
    assert path.read_bytes().startswith(b"\xef\xbb\xbf")
    imported = news(path)
    assert (imported.rows, imported.skipped) == (2, {})
    (call,) = imported.calls
    sha = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert call.request == Request("news-file", "AAPL", "2026-01-05", "2026-01-05", sha)
    assert call.status == "answered"
    assert call.fetched_at == datetime(2026, 1, 5, 1, 0, 1, tzinfo=UTC)
    assert (call.count, call.truncated) == (2, False)
    first_id = hashlib.sha256(f"AAPL\n{JAN_5}\nFirst".encode()).hexdigest()[:16]
    assert call.payload[0] == {
        "id": f"file:{first_id}",
        "datetime": 1767571200,
        "headline": "First",
        "summary": "More.",
        "source": "Wire",
        "url": "https://example.com/1767571200",
    }
    assert [article["headline"] for article in call.payload] == ["First", "Second"]


def test_finnhubs_own_json_keeps_its_ids_and_names_its_symbols(jsonl: JsonlWriter) -> None:
    article = {
        "category": "company",
        "datetime": JAN_5 + HOUR,
        "headline": "Both rise",
        "id": 138123456,
        "image": "",
        "related": "FB,MSFT",
        "source": "Wire",
        "summary": "More.",
        "url": "https://example.com/1",
    }
    imported = news(jsonl("week.jsonl", [article, article | {"id": 7, "related": ""}]))
    assert [call.request.symbol for call in imported.calls] == ["META", "MSFT"]
    assert [call.payload[0]["id"] for call in imported.calls] == ["finnhub:138123456"] * 2
    assert sorted(imported.calls[0].payload[0]) == [
        "datetime",
        "headline",
        "id",
        "source",
        "summary",
        "url",
    ]
    assert imported.skipped == {"no symbol": 1}


def test_fnspid_rows_give_their_time_and_the_first_extract_that_is_not_empty(written: CsvWriter) -> None:
    path = written(
        "nasdaq_external_data.csv",
        [
            ["", *FNSPID],
            [
                0,
                "2023-12-16 23:00:00 UTC",
                "A",
                "AAPL",
                "https://e.com/1",
                "Wire",
                "",
                "All of it",
                "lsa",
                "",
                "",
                "",
            ],
            [
                1,
                "2020-06-05 06:30:54-04:00",
                "B",
                "aapl",
                "https://e.com/2",
                "Wire",
                "",
                "All",
                "l",
                "u",
                "t",
                "x",
            ],
            [2, "2020-06-05 06:30:54-04:00", "C", "", "https://e.com/3", "Wire", "", "All", "", "", "", ""],
            [3, "2021-03-01", "D", "FB", "https://e.com/4", "Wire", "", "All of it", "", "", "", ""],
        ],
    )
    imported = news(path)
    assert (imported.rows, imported.skipped) == (4, {"no symbol": 1})
    apple, meta = imported.calls
    assert (apple.request.window_start, apple.request.window_end) == ("2020-06-05", "2023-12-16")
    assert [(item["datetime"], item["headline"], item["summary"]) for item in apple.payload] == [
        (1591353054, "B", "t"),
        (1702767600, "A", "lsa"),
    ]
    assert apple.payload[0]["source"] == "Wire"
    assert apple.payload[0]["url"] == "https://e.com/2"
    assert meta.request.symbol == "META"
    assert meta.payload[0]["summary"] == "All of it"


def test_a_day_without_a_time_counts_as_its_end(written: CsvWriter) -> None:
    rows = [
        ("date", "title", "ticker"),
        ("2023-12-15", "Day alone", "X"),
        ("2023-12-15 00:00:00 UTC", "Midnight", "X"),
        ("2023-12-15T00:00:00-05:00", "Midnight in New York", "X"),
        ("2023-12-15 00:00:01", "A second later", "X"),
    ]
    (call,) = news(written("mine.csv", rows)).calls
    assert {item["headline"]: item["datetime"] for item in call.payload} == {
        "A second later": 1702598401,
        "Day alone": 1702684799,
        "Midnight": 1702684799,
        "Midnight in New York": 1702702799,
    }
    assert str(call.fetched_at) == "2023-12-16 05:00:00+00:00"
    assert call.request.window_end == "2023-12-16"


@pytest.mark.parametrize("time_name", ["date", "datetime", "published_at", "Time"])
@pytest.mark.parametrize(("headline_name", "summary_name"), [("headline", "summary"), ("Title", "text")])
@pytest.mark.parametrize("symbol_name", ["symbol", "Ticker"])
def test_a_generic_file_is_read_under_any_of_its_names(
    written: CsvWriter, time_name: str, headline_name: str, summary_name: str, symbol_name: str
) -> None:
    header = (time_name, headline_name, symbol_name, summary_name)
    (call,) = news(written("mine.csv", [header, ("2026-01-05T09:30:00Z", "Up", "SAP.DE", "Why")])).calls
    assert call.request.symbol == "SAP.DE"
    assert [(item["datetime"], item["headline"], item["summary"]) for item in call.payload] == [
        (1767605400, "Up", "Why")
    ]
    assert call.payload[0]["source"] == call.payload[0]["url"] == ""


def test_csv_jsonl_and_parquet_of_the_same_rows_give_the_same_articles(
    tmp_path: Path, written: CsvWriter, jsonl: JsonlWriter
) -> None:
    rows = [
        {"datetime": JAN_5, "headline": 'A "quoted", broken\nheadline', "symbol": "V", "summary": "é"},
        {"datetime": JAN_5 + DAY, "headline": "Another", "symbol": "V", "summary": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "n.parquet")
    paths = [
        written("n.csv", [list(rows[0]), *(list(row.values()) for row in rows)]),
        jsonl("n.jsonl", rows),
        tmp_path / "n.parquet",
    ]
    payloads = [news(path).calls[0].payload for path in paths]
    assert payloads[0] == payloads[1] == payloads[2]
    assert payloads[0][0]["headline"] == 'A "quoted", broken\nheadline'
    assert [item["summary"] for item in payloads[0]] == ["é", ""]


def test_a_timestamp_column_of_a_parquet_file_is_read(tmp_path: Path) -> None:
    rows = [{"date": datetime(2026, 1, 5, 14, 30, tzinfo=UTC), "headline": "Up", "symbol": "V"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "n.parquet")
    assert news(tmp_path / "n.parquet").calls[0].payload[0]["datetime"] == 1767623400


# --- news: windows, cut-off dumps, strays -------------------------------------------------------------------


def test_strays_stay_in_the_payload_of_a_dump_but_do_not_stretch_its_window(written: CsvWriter) -> None:
    rows = [
        DUMP,
        dump_row(1517572547, "From 2018"),
        dump_row(JAN_5 - 30 * DAY, "A month early"),
        dump_row(JAN_5, "Monday"),
        dump_row(JAN_5 + 3 * DAY, "Thursday"),
    ]
    imported = news(written("MSFT_news_1week.csv", rows))
    assert imported.skipped == {"older stray": 2}
    (call,) = imported.calls
    assert call.count == 4
    assert call.payload[0]["headline"] == "From 2018"
    assert (call.request.window_start, call.request.window_end) == ("2026-01-05", "2026-01-08")


def test_a_quiet_month_of_a_dump_is_no_reason_to_cut_it(written: CsvWriter) -> None:
    rows = [DUMP, dump_row(JAN_5 - 30 * DAY + 1, "December"), dump_row(JAN_5, "January")]
    imported = news(written("XYZ_news.csv", rows))
    assert imported.skipped == {}
    (call,) = imported.calls
    assert (call.request.window_start, call.request.window_end) == ("2025-12-06", "2026-01-05")


@pytest.mark.parametrize(
    ("recent", "window_start", "skipped"),
    [(260, "2026-01-05", {"older stray": 1}), (261, "2025-06-29", {})],
)
def test_a_dump_of_more_than_one_answer_is_not_searched_for_strays(
    written: CsvWriter, recent: int, window_start: str, skipped: dict[str, int]
) -> None:
    rows = [dump_row(JAN_5 + minute * 60, f"Headline {minute}") for minute in range(recent)]
    old = dump_row(JAN_5 - 190 * DAY, "Last summer")
    imported = news(written("AAPL_years.csv", [DUMP, old, *rows]))
    assert imported.calls[0].request.window_start == window_start
    assert imported.skipped == skipped


def test_gaps_in_other_files_do_not_shorten_the_window(written: CsvWriter) -> None:
    rows = [("date", "headline", "symbol"), ("2018-02-02", "Old", "MSFT"), ("2026-01-05", "New", "MSFT")]
    (call,) = news(written("mine.csv", rows)).calls
    assert (call.request.window_start, call.request.window_end) == ("2018-02-02", "2026-01-05")


@pytest.mark.parametrize(
    ("count", "truncated"), [(199, False), (200, True), (250, True), (260, True), (261, False)]
)
def test_a_dump_as_full_as_one_answer_counts_as_cut_off(
    written: CsvWriter, count: int, truncated: bool
) -> None:
    rows = [dump_row(JAN_5 + minute * 60, f"Headline {minute}") for minute in range(count)]
    (call,) = news(written("AAPL_1.csv", [DUMP, *rows])).calls
    assert call.truncated is truncated
    assert call.count == count


def test_a_full_file_of_another_form_is_not_cut_off(written: CsvWriter) -> None:
    rows = [(JAN_5 + minute * 60, f"Headline {minute}", "AAPL") for minute in range(250)]
    (call,) = news(written("mine.csv", [("datetime", "headline", "symbol"), *rows])).calls
    assert not call.truncated


# --- news: rows that are left out ---------------------------------------------------------------------------


def test_bad_rows_are_counted_by_reason(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "datetime,headline,symbol\n"
        f"{JAN_5},Good,V\n"
        f"{JAN_5},Good,V\n"
        ",Timeless,V\n"
        "0,Born with the epoch,V\n"
        "soon,Unreadable time,V\n"
        f"{JAN_5},  ,V\n"
        f"{JAN_5},Nobody's,\n"
        f"{JAN_5},Another's,MA\n"
        "2126-01-05T10:00:00,A typing error,V\n"
        f"{JAN_5},One, comma too many,V\n",
        encoding="utf-8",
    )
    imported = news(path, ["V"])
    assert imported.rows == 10
    assert imported.skipped == {
        "a time in the future": 1,
        "no headline": 1,
        "no symbol": 1,
        "no time": 3,
        "repeated": 1,
        "symbol not asked for": 1,
        "unreadable row": 1,
    }
    assert [[item["headline"] for item in call.payload] for call in imported.calls] == [["Good"]]


def test_broken_lines_of_a_jsonl_file_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    good = json.dumps({"date": "2026-01-05T10:00:00Z", "headline": "Up", "symbol": "V"})
    path.write_text(f'{good}\n\n[1, 2]\n{{"date": "2026-01-0', encoding="utf-8")
    imported = news(path)
    assert (imported.rows, imported.skipped) == (3, {"unreadable row": 2})
    assert imported.calls[0].count == 1


def test_a_file_without_the_symbols_asked_for_gives_no_call(written: CsvWriter) -> None:
    imported = news(written("AAPL_1.csv", [DUMP, dump_row(JAN_5, "First")]), ["MSFT"])
    assert (imported.calls, imported.rows, imported.skipped) == ([], 1, {"symbol not asked for": 1})


def test_symbols_are_asked_for_as_vendors_name_them_today(written: CsvWriter) -> None:
    rows = [("date", "headline", "symbol"), ("2021-05-03", "Old name", "FB"), ("2023-05-03", "New", "META")]
    (call,) = news(written("mine.csv", rows), ["META"]).calls
    assert [item["headline"] for item in call.payload] == ["Old name", "New"]


def test_a_full_text_gives_its_beginning_and_a_summary_stays_whole(written: CsvWriter) -> None:
    words = "word " * 1000
    rows = [("date", "headline", "symbol", "text"), ("2026-01-05", "Up", "V", words)]
    (call,) = news(written("text.csv", rows)).calls
    assert len(call.payload[0]["summary"]) == LONGEST_SUMMARY_CHARACTERS - 1
    assert call.payload[0]["summary"].endswith("word word")
    rows[0] = ("date", "headline", "symbol", "summary")
    (call,) = news(written("summary.csv", rows)).calls
    assert call.payload[0]["summary"] == words.strip()


def test_an_article_longer_than_the_csv_modules_limit_is_read(written: CsvWriter) -> None:
    rows = [("date", "headline", "symbol", "text"), ("2026-01-05", "Up", "V", "x" * 200_000)]
    (call,) = news(written("mine.csv", rows)).calls
    assert call.payload[0]["summary"] == "x" * LONGEST_SUMMARY_CHARACTERS


def test_the_same_article_in_two_dumps_has_one_id(written: CsvWriter) -> None:
    first = news(written("CVX_24.csv", [DUMP, dump_row(JAN_5, "Same"), dump_row(JAN_5 + 1, "New")])).calls[0]
    second = news(written("CVX_31.csv", [DUMP, dump_row(JAN_5, "Same")])).calls[0]
    assert first.payload[0]["id"] == second.payload[0]["id"] != first.payload[1]["id"]
    assert first.request.variant != second.request.variant


# --- news: files that cannot be used ------------------------------------------------------------------------


def test_a_news_file_without_needed_columns_is_told_with_both_lists(written: CsvWriter) -> None:
    text = told(lambda: news(written("mine.csv", [("when", "headline"), ("2026-01-05", "Up")])))
    assert "mine.csv: no column for time, symbol; its columns are 'when', 'headline'." in text
    assert "date, datetime, published_at, time" in text
    assert "Rename the columns." in text


def test_a_dump_whose_name_has_no_ticker_is_refused(written: CsvWriter) -> None:
    assert "no column for symbol" in told(lambda: news(written("news_1.csv", [DUMP, dump_row(JAN_5, "A")])))


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("n.csv", b"", "it is empty."),
        ("n.csv", b"date,headline,symbol\n", "it has no rows."),
        (
            "n.csv",
            b"date,headline,symbol\n,Up,V\n",
            "none of its 1 rows is a usable article (1 with no time)",
        ),
        (
            "n.csv",
            "date,headline,symbol\n2026-01-05,Ö,V\n".encode("latin-1"),
            "it is not UTF-8 (byte b'\\xd6')",
        ),
        ("n.csv", "date,headline,symbol\n".encode("utf-16"), "it is not UTF-8"),
        (
            "n.csv",
            b'date,headline,symbol\n2026-01-05,"Up,V\n',
            "it is no proper csv (unexpected end of data)",
        ),
        ("n.jsonl", b"date,headline,symbol\n", "no column for time, headline, symbol; its columns are none."),
        ("n.parquet", b"date,headline,symbol\n", "it is no parquet file"),
        ("n.json", b"[]", "its name ends in '.json'."),
        ("n", b"x", "its name has no ending."),
    ],
)
def test_an_unusable_news_file_is_told(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    (tmp_path / name).write_bytes(content)
    text = told(lambda: news(tmp_path / name))
    assert text.startswith(f"--news_file {tmp_path / name}: ")
    assert found in text


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert "cannot be read (No such file or directory)" in told(lambda: news(tmp_path / "none.csv"))
    assert "cannot be read (Is a directory)" in told(lambda: news(tmp_path / "folder.csv"))
    assert "--price_file" in told(lambda: read_price_file(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20230703124706", "2023-07-03T16:47:06+00:00"),
        ("20230103124706", "2023-01-03T17:47:06+00:00"),
        ("202307031247", "2023-07-03T16:47:00+00:00"),
        ("20230703124706.0", "2023-07-03T16:47:06+00:00"),
        ("20230703000000", "2023-07-04T03:59:59+00:00"),
        ("20230703T124706", "2023-07-03T12:47:06+00:00"),
        ("1688388426", "2023-07-03T12:47:06+00:00"),
        ("1688388426123", "2023-07-03T12:47:06+00:00"),
        ("1688388426123456789", "2023-07-03T12:47:06+00:00"),
        ("2023-07-03 12:47:06 ET", "2023-07-03T16:47:06+00:00"),
        ("2023-07-03 12:47:06 EST", "2023-07-03T17:47:06+00:00"),
        ("2023-07-03 12:47:06-04:00", "2023-07-03T16:47:06+00:00"),
        ("Mon, 03 Jul 2023 12:47:06 GMT", "2023-07-03T12:47:06+00:00"),
        ("Mon, 03 Jul 2023 12:47:06 -0400", "2023-07-03T16:47:06+00:00"),
    ],
)
def test_times_are_read_in_every_form_that_leaves_no_doubt(
    written: CsvWriter, text: str, expected: str
) -> None:
    (call,) = news(written("n.csv", [("date", "headline", "symbol"), (text, "Up", "AAPL")])).calls
    assert datetime.fromtimestamp(call.payload[0]["datetime"], UTC).isoformat() == expected


@pytest.mark.parametrize(
    "text", ["20231303124706", "07/03/2023 12:47 PM", "Jul 3", "99999999999999", "0001-01-01T00:00:00-23:00"]
)
def test_a_symbol_without_a_readable_time_is_told_with_a_value(written: CsvWriter, text: str) -> None:
    rows = [(text, "Up", "AAPL"), (text, "Down", "AAPL"), ("2023-07-03T12:00:00Z", "Up", "MSFT")]
    imported = news(written("n.csv", [("date", "headline", "symbol"), *rows]))
    found = f"none of AAPL's 2 rows is a usable article (2 with no time, such as {text!r})"
    assert dict(imported.unusable) == {"AAPL": found}
    assert [call.request.symbol for call in imported.calls] == ["MSFT"]


@pytest.mark.parametrize(
    "cell",
    [
        "['AAPL', 'BRK-B']",
        '["AAPL","BRK/B"]',
        "AAPL, BRK.B",
        "$AAPL|$BRK.B",
        "{AAPL;BRK.B}",
        "['AAPL' 'BRK.B']",
    ],
)
def test_a_cell_may_hold_a_list_of_tickers(written: CsvWriter, cell: str) -> None:
    rows = [("date", "title", "tickers"), ("2026-01-05T10:00:00Z", "Up", cell)]
    assert [call.request.symbol for call in news(written("n.csv", rows)).calls] == ["AAPL", "BRK.B"]


def test_lists_of_tickers_in_json_and_parquet_are_read(tmp_path: Path, jsonl: JsonlWriter) -> None:
    row = {
        "published_utc": "2026-01-05T10:00:00Z",
        "title": "Up",
        "tickers": ["AAPL", "NAN"],
        "description": "d",
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "n.parquet")
    for path in (jsonl("n.jsonl", [row]), tmp_path / "n.parquet"):
        calls = news(path).calls
        assert [(call.request.symbol, call.payload[0]["summary"]) for call in calls] == [
            ("AAPL", "d"),
            ("NAN", "d"),
        ]


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x85", "\u2028"], ids=["CRLF", "CR", "NEL", "LS"])
def test_files_say_the_same_with_every_line_end(tmp_path: Path, end: str) -> None:
    texts = {
        "news": 'date,headline,symbol,summary\n2026-01-05T10:00:00Z,"One\nline",AAPL,"And\n\nmore"\n',
        "prices": "Date,AAPL\n2026-01-05,1.50\n2026-01-06,2\n",
    }
    payloads = []
    for text in (texts, {kind: f"\ufeff{text}".replace("\n", end) for kind, text in texts.items()}):
        for kind in text:
            (tmp_path / f"{kind}.csv").write_bytes(text[kind].encode())
        payloads.append(
            (
                news(tmp_path / "news.csv").calls[0].payload,
                read_price_file(tmp_path / "prices.csv").calls[0].payload,
            )
        )
    assert payloads[0] == payloads[1]
    assert payloads[1][0][0]["summary"] == "And\n\nmore"


# --- prices: forms ------------------------------------------------------------------------------------------


def bars(imported: Imported) -> dict[str, list[tuple[str, str, str]]]:
    return {
        call.request.symbol: [(bar["day"], bar["close"], bar["adj_close"]) for bar in call.payload["bars"]]
        for call in imported.calls
    }


def test_a_wide_file_of_closes_and_volumes(written: CsvWriter) -> None:
    path = written(
        "p.csv",
        [
            ("Date", "close_AAPL", "volume_AAPL", "close_FB", "volume_FB"),
            ("2026-01-06", "183.73130798339844", "100", "", "0"),
            ("2026-01-05", "1e2", "100", "90.50", "5"),
        ],
    )
    imported = read_price_file(path)
    apple, meta = imported.calls
    sha = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert apple.request == Request("price-file", "AAPL", "2026-01-05", "2026-01-06", sha)
    assert apple.payload == {
        "bars": [
            {"day": "2026-01-05", "close": "1e2", "adj_close": "1e2"},
            {"day": "2026-01-06", "close": "183.73130798339844", "adj_close": "183.73130798339844"},
        ],
        "splits": [],
        "missing_days": [],
        "adjusted_only": True,
    }
    assert (apple.status, apple.count, apple.truncated) == ("answered", 2, False)
    assert apple.fetched_at == datetime(2026, 1, 7, tzinfo=UTC)
    assert meta.request.symbol == "META"
    assert (meta.request.window_start, meta.request.window_end) == ("2026-01-05", "2026-01-06")
    assert meta.payload["missing_days"] == ["2026-01-06"]
    assert (imported.rows, imported.skipped) == (2, {})


def test_a_wide_file_of_tickers_with_every_kind_of_name(written: CsvWriter) -> None:
    header = ("", "date", "BRK-B", "ADS.DE", "^GSPC", "GC=F", "BTC-USD")
    path = written("p.csv", [header, (0, "2026-01-05", 1, 2, 3, 4, 5), (1, "2026-01-06", 1, "nan", 3, 4, 5)])
    imported = read_price_file(path, ["ADS.DE", "BTC-USD", "NONE"])
    assert bars(imported) == {
        "ADS.DE": [("2026-01-05", "2", "2")],
        "BTC-USD": [("2026-01-05", "5", "5"), ("2026-01-06", "5", "5")],
    }
    assert imported.calls[0].payload["missing_days"] == ["2026-01-06"]
    assert list(bars(read_price_file(path))) == ["ADS.DE", "BRK.B", "BTC-USD", "GC=F", "^GSPC"]
    assert read_price_file(path, ["NONE"]).calls == []


def test_a_long_file_with_adjusted_closes_and_splits(written: CsvWriter) -> None:
    rows = [
        ("Date", "Ticker", "Close", "Adj Close", "Stock Splits"),
        ("2024-06-07 00:00:00-04:00", "NVDA", "120.888", "120.8", "0.0"),
        ("2024-06-10 00:00:00-04:00", "NVDA", "121.79", "121.7", "10.0"),
        ("2024-06-11 00:00:00-04:00", "NVDA", "", "", ""),
        ("2024-06-10 00:00:00-04:00", "MSFT", "427.87", "424.1", ""),
    ]
    imported = read_price_file(written("p.csv", rows), ["NVDA"])
    assert bars(imported) == {"NVDA": [("2024-06-07", "120.888", "120.8"), ("2024-06-10", "121.79", "121.7")]}
    (call,) = imported.calls
    assert call.payload["splits"] == [{"day": "2024-06-10", "ratio": "10.0"}]
    assert call.payload["missing_days"] == ["2024-06-11"]
    assert call.payload["adjusted_only"] is False
    assert imported.skipped == {"symbol not asked for": 1}


@pytest.mark.parametrize(
    ("symbol", "stamps", "days"),
    [
        # A coin's bar begins at midnight, UTC: the evening before in New York.
        ("BTC-USD", ["2025-06-01 20:00:00-04:00", "2025-06-02 20:00:00-04:00"], ["2025-06-02", "2025-06-03"]),
        ("AAPL", ["2025-06-02 00:00:00-04:00", "2025-06-03 00:00:00-04:00"], ["2025-06-02", "2025-06-03"]),
        ("AAPL", ["2025-06-03T00:00:00Z", "2025-06-04T00:00:00+00:00"], ["2025-06-02", "2025-06-03"]),
        ("AAPL", ["2025-06-02T22:00:00+02:00", "2025-06-04T05:00:00+09:00"], ["2025-06-02", "2025-06-03"]),
        ("SAP.DE", ["2025-06-01T18:00:00-04:00", "2025-06-02T18:00:00-04:00"], ["2025-06-02", "2025-06-03"]),
        (
            "NDA-FI.HE",
            ["2025-06-02 00:00:00+03:00", "2025-06-03 00:00:00+03:00"],
            ["2025-06-02", "2025-06-03"],
        ),
        # A Monday's midnight, UTC, is a Sunday in New York: the day alone was meant.
        ("AAPL", ["2025-06-02T00:00:00Z", "2025-06-03T00:00:00Z"], ["2025-06-02", "2025-06-03"]),
        # Weekly bars at midnight, UTC, are of the Fridays that they name.
        ("AAPL", ["2025-06-06T00:00:00Z", "2025-06-13 00:00:00+00:00"], ["2025-06-06", "2025-06-13"]),
        # At another hour they are moments: after hours of a Friday in New York.
        ("AAPL", ["2025-06-07T00:30:00Z", "2025-06-14T00:30:00Z"], ["2025-06-06", "2025-06-13"]),
        ("AAPL", ["2025-06-02 23:30:00", "2025-06-03"], ["2025-06-02", "2025-06-03"]),
    ],
)
def test_a_moment_is_of_the_day_that_it_has_at_the_exchange(
    written: CsvWriter, symbol: str, stamps: Sequence[str], days: Sequence[str]
) -> None:
    path = written("p.csv", [("Date", "symbol", "close"), *((stamp, symbol, "5") for stamp in stamps)])
    assert bars(read_price_file(path)) == {symbol: [(day, "5", "5") for day in days]}


def test_a_long_file_with_closes_alone_counts_as_adjusted(written: CsvWriter) -> None:
    rows = [("date", "symbol", "close"), ("2024-06-10", "nvda", "121.79")]
    (call,) = read_price_file(written("p.csv", rows)).calls
    assert call.payload["bars"] == [{"day": "2024-06-10", "close": "121.79", "adj_close": "121.79"}]
    assert call.payload["adjusted_only"] is True
    assert call.payload["splits"] == []


@pytest.mark.parametrize(
    "name",
    [
        "adj_close",
        "Adj Close",
        "Adj. Close",
        "adj._close",
        "adjClose",
        "adjclose",
        "adjusted_close",
        "Adjusted Close",
    ],
)
def test_adjusted_closes_are_known_under_their_usual_names(written: CsvWriter, name: str) -> None:
    rows = [("date", "symbol", "close", name, "adj_open"), ("2024-06-10", "V", "121.79", "121.7", "120")]
    (call,) = read_price_file(written("p.csv", rows)).calls
    assert call.payload["bars"] == [{"day": "2024-06-10", "close": "121.79", "adj_close": "121.7"}]
    assert call.payload["adjusted_only"] is False


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (("split",), "there is 'split' but no adjusted close; its columns are"),
        (("Stock Splits",), "there is 'Stock Splits' but no adjusted close; its columns are"),
        (("adj-close",), "'adj-close' is not known as an adjusted close; its columns are"),
        (("Adjusted", "split"), "'Adjusted' is not known as an adjusted close; its columns are"),
        (("adjclose", "adj_close"), "'adjclose', 'adj_close' all name the adjusted close; its columns are"),
    ],
)
def test_a_long_file_whose_closes_may_be_raw_is_refused(
    written: CsvWriter, more: tuple[str, ...], found: str
) -> None:
    rows = [("date", "symbol", "close", *more), ("2024-06-10", "V", "121.79", *("1" for _ in more))]
    text = told(lambda: read_price_file(written("p.csv", rows)))
    assert found in text
    assert "adj_close (or adj close, adj._close, adjclose, adjusted_close, in any case)" in text
    assert "Without an adjusted column, close is taken as adjusted" in text


def test_prices_of_a_jsonl_file_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"date": "2026-01-05", "symbol": "V", "close": 0.1000000000000000055511151231257827}\n'
        '{"date": "2026-01-06", "symbol": "V", "close": NaN}\n'
        '{"date": "2026-01-07", "symbol": "V", "close": null}\n'
        '{"date": "2026-01-08", "symbol": "V", "close": 340}\n',
        encoding="utf-8",
    )
    (call,) = read_price_file(path).calls
    assert [bar["close"] for bar in call.payload["bars"]] == ["0.1000000000000000055511151231257827", "340"]
    assert call.payload["missing_days"] == ["2026-01-06", "2026-01-07"]


def test_prices_of_a_parquet_file_keep_their_shortest_exact_digits(tmp_path: Path) -> None:
    rows = [
        {"Date": datetime(2026, 1, 5), "AAPL": 267.26, "MSFT": float("nan")},
        {"Date": datetime(2026, 1, 6), "AAPL": None, "MSFT": 478.51},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    imported = read_price_file(tmp_path / "p.parquet")
    assert bars(imported) == {
        "AAPL": [("2026-01-05", "267.26", "267.26")],
        "MSFT": [("2026-01-06", "478.51", "478.51")],
    }
    assert [call.payload["missing_days"] for call in imported.calls] == [["2026-01-06"], ["2026-01-05"]]


def test_two_symbols_of_one_listing_are_joined(written: CsvWriter) -> None:
    rows = [("date", "FB", "META"), ("2022-06-08", "196.64", ""), ("2022-06-09", "", "184.00")]
    (call,) = read_price_file(written("p.csv", rows)).calls
    assert call.request.symbol == "META"
    assert [bar["close"] for bar in call.payload["bars"]] == ["196.64", "184.00"]
    assert call.payload["missing_days"] == []


# --- prices: files that cannot be used ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (
            [("date", "V"), ("2026-01-05", "1"), ("2026-01-05", "2")],
            "row 2: it is a second price of V on 2026-01-05.",
        ),
        ([("date", "V"), ("2026-01-05", "-1")], "row 1: V's price on 2026-01-05 is '-1'."),
        ([("date", "V"), ("2026-01-05", "0.00")], "row 1: V's price on 2026-01-05 is '0.00'."),
        ([("date", "V"), ("2026-01-05", "inf")], "row 1: V's price on 2026-01-05 is 'inf'."),
        ([("date", "V"), ("2026-01-05", "1,234.5")], "row 1: V's price on 2026-01-05 is '1,234.5'."),
        ([("date", "V"), ("05/01/2026", "1")], "row 1: '05/01/2026' is no day."),
        ([("date", "V"), ("2026-02-30", "1")], "row 1: '2026-02-30' is no day."),
        ([("date", "V"), ("2026-01-05", "1", "2")], "row 1: it does not have the fields"),
        ([("date", "symbol", "close"), ("2026-01-05", "", "1")], "row 1: it names no symbol."),
        (
            [
                ("date", "symbol", "close", "adj close", "split"),
                ("2026-01-05", "V", "1", "1", "4:1"),
            ],
            "row 1: V's split on 2026-01-05 is '4:1'.",
        ),
        ([("date", "V")], "it has no rows."),
        ([("date", "V"), ("2026-01-05", "")], "it has no price."),
        ([("day", "V"), ("2026-01-05", "1")], "no date column; its columns are 'day', 'V'."),
        ([("date",), ("2026-01-05",)], "no column of prices"),
        ([("date", "V", "my note"), ("2026-01-05", "1", "x")], "'my note' is no ticker"),
        ([("date", "V", "V"), ("2026-01-05", "1", "2")], "'V' stands there twice"),
        ([("Date", "Open", "Close", "Volume"), ("2026-01-05", "1", "2", "3")], "no symbol column"),
        ([("date", "symbol", "adj close"), ("2026-01-05", "V", "3")], "no close column"),
    ],
)
def test_an_unusable_price_file_is_told(
    written: CsvWriter, rows: Sequence[Sequence[object]], found: str
) -> None:
    text = told(lambda: read_price_file(written("p.csv", rows)))
    assert text.startswith("--price_file ")
    assert found in text


def test_every_bad_row_is_told_at_once_up_to_ten(written: CsvWriter) -> None:
    rows = [("date", "V"), *((f"2026-01-{day:02d}", "-1") for day in range(1, 16))]
    with pytest.raises(ConfigurationError) as caught:
        read_price_file(written("p.csv", rows))
    assert len(caught.value.problems) == 11
    assert caught.value.problems[-1].found == "5 more rows with such a fault."


def test_bad_rows_of_symbols_that_nobody_asked_for_do_not_matter(written: CsvWriter) -> None:
    rows = [("date", "symbol", "close"), ("2026-01-05", "V", "1"), ("2026-01-05", "MA", "-1")]
    assert bars(read_price_file(written("p.csv", rows), ["V"])) == {"V": [("2026-01-05", "1", "1")]}


# --- the ledger and real files ------------------------------------------------------------------------------


def test_the_digest_of_a_file_is_the_variant_of_its_calls(tmp_path: Path, written: CsvWriter) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest(tmp_path / "abc") == "ba7816bf8f01cfea"
    news_path = written("AAPL_1.csv", [DUMP, dump_row(JAN_5, "First")])
    price_path = written("p.csv", [("date", "AAPL"), ("2026-01-05", "267.26")])
    assert news(news_path).calls[0].request.variant == digest(news_path)
    assert read_price_file(price_path).calls[0].request.variant == digest(price_path)


def test_the_ledger_gives_back_what_was_imported_and_importing_again_adds_nothing(
    tmp_path: Path, written: CsvWriter
) -> None:
    news_path = written("AAPL_1.csv", [DUMP, dump_row(JAN_5, "First 🚀"), dump_row(JAN_5, "Zwei")])
    price_path = written("p.csv", [("date", "AAPL"), ("2026-01-05", "267.26")])
    calls = [*news(news_path).calls, *read_price_file(price_path).calls]
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.record(*calls)
    ledger.record(*news(news_path).calls)
    assert [*ledger.answers("news-file", "AAPL"), *ledger.answers("price-file", "AAPL")] == calls
    ledger.close()


REAL_STRAYS = {
    "CVX_news_22week.csv": ("2026-02-14", "2026-02-20"),
    "CVX_news_32week.csv": ("2026-03-07", "2026-03-13"),
    "CVX_news_3week.csv": ("2026-01-10", "2026-01-16"),
    "MSFT_news_1week.csv": ("2025-12-27", "2026-01-02"),
    "XOM_news_22week.csv": ("2026-02-14", "2026-02-20"),
    # Its stray is only two weeks older, and so stays in the window; it is still no part of what is covered.
    "XOM_news_2week.csv": ("2025-12-19", "2026-01-09"),
}
REAL_STRAY_COUNTS = {
    "CVX_news_22week.csv": 1,
    "CVX_news_32week.csv": 1,
    "CVX_news_3week.csv": 1,
    "MSFT_news_1week.csv": 3,
    "XOM_news_22week.csv": 1,
}
REAL_CUT_OFF = {
    *(f"AAPL_news_{week}week.csv" for week in (2, 3, 4, 5)),
    *(f"MSFT_news_{week}week.csv" for week in (2, 3, 4, 5)),
    "CVX_news_2week.csv",
    "XOM_news_2week.csv",
}


def test_real_finnhub_dumps_are_read_whole(real_data: Path) -> None:
    paths = sorted((real_data / "finnhub_news").glob("*.csv"))
    imported = {path.name: news(path) for path in paths}
    assert len(imported) == 37
    assert sum(found.rows for found in imported.values()) == 5541
    assert {name: found.skipped for name, found in imported.items() if found.skipped} == {
        name: {"older stray": count} for name, count in REAL_STRAY_COUNTS.items()
    }
    calls = {name: found.calls[0] for name, found in imported.items()}
    assert {name for name, call in calls.items() if call.truncated} == REAL_CUT_OFF
    for name, call in calls.items():
        start, end = (
            date.fromisoformat(text) for text in (call.request.window_start, call.request.window_end)
        )
        assert call.request.symbol == name.split("_")[0]
        assert 1 <= (end - start).days <= (21 if name == "XOM_news_2week.csv" else 7)
        (covered,) = coverage_of(call).certain
        assert timedelta(days=1) < covered[1] - covered[0] <= timedelta(days=8)
        assert call.count == len({article["id"] for article in call.payload})
    for name, window in REAL_STRAYS.items():
        assert (calls[name].request.window_start, calls[name].request.window_end) == window
        assert datetime.fromtimestamp(calls[name].payload[0]["datetime"], UTC).date() < date(2025, 12, 20)
    assert coverage_of(calls["XOM_news_2week.csv"]).certain[0][0] == datetime(
        2026, 1, 3, 12, 27, 22, tzinfo=UTC
    )


def test_real_price_files_are_read_to_the_last_digit(real_data: Path) -> None:
    wide = read_price_file(
        real_data / "prices" / "nasdaq100_close_volume_20240102_20260430.csv", ["AAPL", "MSFT", "CVX"]
    )
    assert wide.rows == 584
    assert [(call.request.symbol, call.count) for call in wide.calls] == [("AAPL", 584), ("MSFT", 584)]
    assert wide.calls[0].request.window_end == "2026-04-30"
    plain = read_price_file(real_data / "prices" / "us92_close_20221018_20260303.csv")
    by_symbol = {call.request.symbol: call for call in plain.calls}
    assert (plain.rows, len(by_symbol)) == (845, 92)
    first = by_symbol["AAPL"].payload["bars"][0]
    assert first == {
        "day": "2022-10-18",
        "close": "141.24688720703125",
        "adj_close": "141.24688720703125",
    }
    assert (by_symbol["ARM"].count, len(by_symbol["ARM"].payload["missing_days"])) == (618, 227)
    assert by_symbol["XOM"].request.window_end == "2026-03-03"
    assert by_symbol["XOM"].fetched_at == datetime(2026, 3, 4, tzinfo=UTC)
    assert all(Decimal(bar["close"]) > 0 for call in by_symbol.values() for bar in call.payload["bars"])


def test_a_large_file_takes_no_more_memory_than_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    row = f"2023-12-16 23:00:00 UTC,Headline,MA,https://e.com,Wire,,{'x' * 2000},,,,\n"
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(FNSPID) + "\n")
        for at in range(200):
            file.write(row * 50)
            file.write(row.replace("MA", "V").replace("Headline", f"Headline {at}"))
    tracemalloc.start()
    imported = news(path, ["V"])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (imported.rows, imported.calls[0].count) == (10200, 200)
    assert path.stat().st_size > 20_000_000
    assert peak_bytes < 4_000_000


# --- values that nothing can have ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("1e400", "'1e400'"),
        ("1e-400", "'1e-400'"),
        ("1e999999999999999999", "'1e999999999999999999'"),
        ("9" * 100_000, f"'{'9' * 40}...'"),
    ],
)
def test_a_price_that_nothing_can_have_is_told_and_no_longer_than_a_line(
    cell: str, shown: str, tmp_path: Path
) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(f"date,symbol,close\n2026-02-02,AAPL,{cell}\n")
    with pytest.raises(ConfigurationError) as caught:
        read_price_file(path)
    (problem,) = caught.value.problems
    assert problem.found == f"AAPL's price on 2026-02-02 is {shown}."


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31", "1748822400000000000"])
def test_a_day_that_cannot_be_reckoned_with_is_none(day: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text(f"date,symbol,close\n{day},AAPL,100\n")
    with pytest.raises(ConfigurationError, match=f"row 1: '{day}' is no day"):
        read_price_file(path)


def test_days_in_nanoseconds_are_days_and_a_day_that_no_calendar_reaches_is_told(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"

    def write(days: pa.Array) -> None:
        pq.write_table(pa.table({"date": days, "symbol": ["AAPL"], "close": [100.0]}), path)

    write(pa.array([1_770_076_800_000_000_001], pa.timestamp("ns")))
    assert read_price_file(path).calls[0].request.window_start == "2026-02-03"
    write(pa.array([2**31 - 1], pa.int32()).cast(pa.date32()))
    with pytest.raises(ConfigurationError, match="it holds a value that cannot be read"):
        read_price_file(path)


def test_a_million_brackets_are_one_row_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "prices.jsonl"
    path.write_text(
        '{"date": "2026-02-02", "symbol": "AAPL", "close": 1}\n{"date": ' + "[" * 1_000_000 + "\n"
    )
    with pytest.raises(ConfigurationError, match="row 2: it does not have the fields"):
        read_price_file(path)


def test_a_zone_that_is_not_known_makes_no_time(written: CsvWriter) -> None:
    rows = [
        ("date", "symbol", "title"),
        ("Mon, 05 Jan 2026 10:00:00 HST", "AAPL", "ten hours off, if it passed for UTC"),
        ("Mon, 05 Jan 2026 10:00:00 -0000", "AAPL", "UTC"),
        ("Mon, 05 Jan 2026 10:00:00 EST", "AAPL", "New York"),
    ]
    imported = read_news_file(written("n.csv", rows), ["AAPL"])
    assert [(item["datetime"], item["headline"]) for item in imported.calls[0].payload] == [
        (1767607200, "UTC"),
        (1767625200, "New York"),
    ]
    assert imported.skipped == {"no time": 1}


@pytest.mark.parametrize("vendor_id", ["0", "-1", "nan", "0.0", "1.35e+08", ""])
def test_articles_that_share_what_is_no_id_are_all_kept(written: CsvWriter, vendor_id: str) -> None:
    rows = [
        ("id", "datetime", "headline", "source", "url", "summary"),
        (vendor_id, 1767607200, "one", "s", "u", ""),
        (vendor_id, 1767607300, "two", "s", "u", ""),
    ]
    imported = read_news_file(written("AAPL_week1.csv", rows), ["AAPL"])
    assert [item["headline"] for item in imported.calls[0].payload] == ["one", "two"]
    assert imported.skipped == {}


def test_an_object_is_no_headline_and_bytes_are_the_text_that_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text(
        '{"date": "2026-01-05", "symbol": "AAPL", "title": {"en": "nested"}}\n'
        '{"date": "2026-01-05", "symbol": "AAPL", "title": "plain"}\n'
    )
    imported = read_news_file(path, ["AAPL"])
    assert [item["headline"] for item in imported.calls[0].payload] == ["plain"]
    assert imported.skipped == {"no headline": 1}
    table = pa.table({"date": ["2026-01-05"], "symbol": [b"AAPL"], "title": ["caf\u00e9".encode()]})
    pq.write_table(table, tmp_path / "n.parquet")
    imported = read_news_file(tmp_path / "n.parquet", ["AAPL"])
    assert [item["headline"] for item in imported.calls[0].payload] == ["caf\u00e9"]


def test_a_number_of_thousands_of_digits_is_a_row_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": ' + "9" * 5000 + '}\n{"id": 1}\n')
    assert list(json_lines(path)) == [(1, None), (2, {"id": 1})]
