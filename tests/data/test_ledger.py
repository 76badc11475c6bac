"""The ledger of calls."""

from __future__ import annotations

import sqlite3
import threading
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forecaster.calls import Call, Request
from forecaster.data.ledger import Ledger, Trace, fingerprint

NEWS = Request("company-news", "AAPL", "2025-12-01", "2025-12-31")
THEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_an_empty_list_is_an_answer_and_a_failure_is_not(ledger: Ledger) -> None:
    ledger.record(Call(NEWS, "failed", THEN, "timed out"))
    assert ledger.answer(NEWS) is None
    ledger.record(Call(NEWS, "answered", THEN, []))
    assert ledger.answer(NEWS) == Call(NEWS, "answered", THEN, [])
    assert ledger.failures() == 1


def test_an_unknown_symbol_is_not_asked_again_and_a_paid_endpoint_is(ledger: Ledger) -> None:
    ledger.record(Call(NEWS, "unknown symbol", THEN))
    assert ledger.answer(NEWS) is not None
    other = Request("company-news", "SAP.DE")
    ledger.record(Call(other, "no access", THEN, "not part of the plan"))
    assert ledger.answer(other) is None


def test_the_first_answer_to_a_request_stays(ledger: Ledger) -> None:
    ledger.record(Call(NEWS, "answered", THEN, [1], count=1))
    ledger.record(Call(NEWS, "answered", THEN + timedelta(days=1), [2], count=1))
    assert ledger.answer(NEWS) == Call(NEWS, "answered", THEN, [1], count=1)


def test_every_field_comes_back(tmp_path: Path) -> None:
    call = Call(NEWS, "answered", THEN, [{"headline": "ü \ud800 \x00"}], count=1, truncated=True)
    first = Ledger(tmp_path / "ledger.sqlite")
    first.record(call)
    first.close()
    assert Ledger(tmp_path / "ledger.sqlite").answers("company-news", "AAPL") == [call]


def test_answers_come_in_the_order_of_their_windows(ledger: Ledger) -> None:
    for start in ("2025-03-01", "2025-01-01", "2025-02-01"):
        ledger.record(Call(Request("company-news", "AAPL", start, "x"), "answered", THEN, []))
    ledger.record(Call(Request("company-news", "MSFT"), "answered", THEN, []))
    windows = [call.request.window_start for call in ledger.answers("company-news", "AAPL")]
    assert windows == ["2025-01-01", "2025-02-01", "2025-03-01"]


def test_the_table_can_be_read_with_sql(ledger: Ledger) -> None:
    ledger.record(Call(NEWS, "answered", THEN, [1, 2], count=2, truncated=True))
    row = (
        sqlite3.connect(ledger.path)
        .execute("SELECT endpoint, symbol, status, count, truncated, fetched_at, sha256 FROM calls")
        .fetchone()
    )
    assert row == (
        "company-news",
        "AAPL",
        "answered",
        2,
        1,
        "2026-01-02T03:04:05+00:00",
        "49a64717d5d4cb19952e6eac2946415cf6879adacf9908e7d872332d32c6e684",
    )


def test_the_fingerprint_knows_requests_and_answers_but_not_their_times() -> None:
    call = Call(NEWS, "answered", THEN, [1])
    other = Call(Request("profile", "AAPL"), "answered", THEN, {})
    later = Call(NEWS, "answered", THEN + timedelta(hours=1), [1])

    def print_of(*calls: Call) -> str:
        return fingerprint(map(Trace.of, calls))

    assert print_of(call, other) == print_of(other, later)
    assert print_of(call) != print_of(Call(NEWS, "answered", THEN, [2]))
    assert print_of(call) != print_of(call, other)


def test_threads_share_a_ledger(ledger: Ledger) -> None:
    def write(symbol: str) -> None:
        for day in range(20):
            ledger.record(Call(Request("company-news", symbol, f"{day:02}"), "answered", THEN, [day]))

    threads = [threading.Thread(target=write, args=(symbol,)) for symbol in "ABCD"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(ledger.answers("company-news", symbol)) for symbol in "ABCD"] == [20] * 4


def test_a_file_that_is_no_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no database, whatever its name says" * 50)
    with pytest.raises(sqlite3.DatabaseError):
        Ledger(tmp_path / "x")


def test_a_payload_that_was_tampered_with_is_told(ledger: Ledger) -> None:
    ledger.record(Call(NEWS, "answered", THEN, [1]))
    other = sqlite3.connect(ledger.path)
    for payload in (zlib.compress(b"[2]"), b"no zlib"):
        other.execute("UPDATE calls SET payload = ?", (payload,))
        other.commit()
        with pytest.raises(sqlite3.DatabaseError, match="the ledger is damaged at"):
            ledger.answer(NEWS)


def test_a_file_that_is_read_again_mends_a_damaged_time_of_its_answer(ledger: Ledger) -> None:
    call = Call(Request("news-file", "AAPL", "2025-12-01", "2025-12-31", "digest"), "answered", THEN, [])
    ledger.record_file("news-file", "digest", ["AAPL"], [call])
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("UPDATE calls SET fetched_at = 'yesterday'")
    ledger.record_file("news-file", "digest", ["AAPL"], [call])
    assert ledger.answers("news-file", "AAPL") == [call]
