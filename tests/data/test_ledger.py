"""The ledger of calls."""

from __future__ import annotations

import sqlite3
import threading
import zlib
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forecaster.calls import Call, Request
from forecaster.data.folder import open_ledger
from forecaster.data.ledger import Ledger, Trace, fingerprint
from forecaster.errors import ConfigurationError

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
    with pytest.raises(
        ConfigurationError, match=r"x: is damaged \(file is not a database\)\. Put a whole copy"
    ):
        Ledger(tmp_path / "x")


def _flipped(payload: bytes) -> bytes:
    return payload[:10] + bytes([payload[10] ^ 1]) + payload[11:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda payload: zlib.compress(b"[2]"),
        lambda payload: b"no zlib",
        lambda payload: payload[: len(payload) // 2],
        _flipped,
        lambda payload: b"",
        lambda payload: zlib.decompress(payload),
        lambda payload: "a text",
        lambda payload: 5,
    ],
    ids=["another", "no zlib", "half", "a bit flipped", "empty", "not compressed", "text", "number"],
)
def test_a_damaged_payload_is_told_and_its_call_has_no_answer_any_more(
    damage: Callable[[bytes], object], tmp_path: Path
) -> None:
    told: list[tuple[Request, str]] = []
    with closing(Ledger(tmp_path / "l", on_unusable=lambda *found: told.append(found))) as ledger:
        call, other = (
            Call(request, "answered", THEN, [{"headline": "Anvils sell out"}] * 20, 20)
            for request in (NEWS, Request("company-news", "AAPL", "2026-01-01", "2026-01-31"))
        )
        ledger.record(call, other)
        with closing(sqlite3.connect(ledger.path)) as connection:
            (payload,) = connection.execute("SELECT payload FROM calls WHERE id = 1").fetchone()
            connection.execute("UPDATE calls SET payload = ? WHERE id = 1", (damage(payload),))
            connection.commit()
        assert ledger.answers("company-news", "AAPL") == [other]
        assert ledger.answer(NEWS) is None
        (found,) = told
        assert found[0] == NEWS
        assert found[1] in ("its bytes are not those that were stored", "it cannot be read")
        ledger.record(call)
        assert ledger.answers("company-news", "AAPL") == [call, other]


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.97])
@pytest.mark.parametrize("way", ["cut", "overwritten"])
def test_a_damaged_file_is_told_whatever_was_to_be_done(way: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    calls = [Call(Request("company-news", f"S{at}"), "answered", THEN, [at] * 50, 50) for at in range(500)]
    with closing(Ledger(path)) as ledger:
        ledger.record(*calls)
    content = path.read_bytes()
    start = int(len(content) * kept)
    path.write_bytes(content[:start] + (b"\xa5" * (len(content) - start) if way == "overwritten" else b""))

    def use() -> None:
        with closing(Ledger(path)) as ledger:
            for call in calls:
                ledger.answer(call.request)
            list(ledger.calls("company-news"))
            ledger.record(Call(Request("company-news", "NEW"), "answered", THEN, []))

    with pytest.raises(ConfigurationError, match=r"ledger\.sqlite: is damaged \(.+\)\. Put a whole copy"):
        use()


def test_an_empty_file_becomes_a_ledger_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").touch()
    told: list[str] = []
    with closing(open_ledger(tmp_path, told.append)) as ledger:
        ledger.record(Call(NEWS, "answered", THEN, []))
        assert ledger.answer(NEWS) == Call(NEWS, "answered", THEN, [])
    with closing(open_ledger(tmp_path, told.append)):
        lost = "is empty: if it ever held answers, they are lost, and are asked for anew."
        assert told == [f"{tmp_path}/ledger.sqlite {lost}"]


def test_a_pointer_to_a_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    )
    with pytest.raises(
        ConfigurationError, match=r"is a pointer of Git LFS, not the file itself\. Run `git lfs pull`"
    ):
        open_ledger(tmp_path)


def test_a_word_that_is_no_text_any_more_hides_no_other_call(ledger: Ledger) -> None:
    other = Call(Request("company-news", "MSFT"), "answered", THEN, [])
    ledger.record(Call(NEWS, "answered", THEN, []), other)
    with closing(sqlite3.connect(ledger.path)) as connection:
        connection.execute("UPDATE calls SET symbol = CAST(x'ff41' AS TEXT) WHERE id = 1")
        connection.commit()
    assert [call.request.symbol for call in ledger.calls("company-news")] == ["\ufffdA", "MSFT"]
    assert ledger.answer(NEWS) is None


def test_a_file_that_is_read_again_mends_a_damaged_time_of_its_answer(ledger: Ledger) -> None:
    call = Call(Request("news-file", "AAPL", "2025-12-01", "2025-12-31", "digest"), "answered", THEN, [])
    ledger.record_file("news-file", "digest", ["AAPL"], [call])
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("UPDATE calls SET fetched_at = 'yesterday'")
    ledger.record_file("news-file", "digest", ["AAPL"], [call])
    assert ledger.answers("news-file", "AAPL") == [call]
