"""Closes that cannot be true, and days that are none of a session, are told for what they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from forecaster.calls import Request
from forecaster.data.intake import import_files
from forecaster.data.ledger import Ledger
from forecaster.data.price_files import closes_of
from forecaster.data.store import price_history
from forecaster.data.untrue_prices import untrue_moves
from forecaster.data.weeks import sessions_between
from forecaster.errors import ConfigurationError
from forecaster.records import Close, PriceHistory

DAYS = list(sessions_between("XNYS", date(2024, 3, 1), date(2024, 3, 28)))
"""Twenty sessions."""


def history(
    closes: Sequence[str], ratio: str = "", split_day: date = DAYS[10], adjusted: Sequence[str] | None = None
) -> PriceHistory:
    pairs = zip(closes, adjusted or closes, strict=True)
    return PriceHistory(
        {day: Close(*map(Decimal, pair)) for day, pair in zip(DAYS, pairs, strict=True)},
        {split_day: Decimal(ratio)} if ratio else {},
    )


def steps(before: str, after: str, at: int = 10) -> list[str]:
    return [before] * at + [after] * (len(DAYS) - at)


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        (history(steps("500", "101"), "5"), [("split", DAYS[10], DAYS[10])]),
        (history(steps("500", "99", at=9), "5"), [("split", DAYS[9], DAYS[10])]),
        (history(steps("5", "48"), "0.1"), [("split", DAYS[10], DAYS[10])]),
        (history(steps("90", "60"), "1.5"), [("split", DAYS[10], DAYS[10])]),
        # Adjusted for it once too often.
        (history(steps("4", "100"), "5"), [("split", DAYS[10], DAYS[10])]),
        # Raw closes beside adjusted ones, and closes that are adjusted beside such as are not.
        (history(steps("500", "101"), "5", adjusted=steps("100", "101")), [("split", DAYS[10], DAYS[10])]),
        (history(steps("100", "101"), "5", adjusted=steps("500", "101")), [("split", DAYS[10], None)]),
        (history(steps("100", "101"), "5"), []),
        (history(steps("100", "92"), "1.1"), []),
        (history(steps("500", "101"), "5", split_day=DAYS[19]), [("jump", DAYS[10], None)]),
        (history(steps("500", "101")), [("jump", DAYS[10], None)]),
        (history(steps("100", "60")), []),
        (
            history(["100"] * 7 + ["1020"] + ["101"] * 12),
            [("slip", DAYS[7], None), ("slip", DAYS[8], None)],
        ),
    ],
    ids=[
        *("split", "split listed late", "reverse split", "3:2", "twice", "raw closes", "raw adjusted closes"),
        *("applied", "too small to tell", "split elsewhere", "not listed", "a bad day", "slip"),
    ],
)
def test_moves_that_cannot_be_true_are_found(
    prices: PriceHistory, expected: list[tuple[str, date, date | None]]
) -> None:
    assert [(move.kind, move.day, move.unapplied_split) for move in untrue_moves(prices)] == expected


def test_a_move_tells_both_days_and_closes() -> None:
    (move,) = untrue_moves(history(steps("500", "101"), "5"))
    assert str(move) == (
        "500 on 2024-03-14 and 101 on 2024-03-15: they do not carry the split of 5 that is listed for "
        "2024-03-15"
    )
    assert move.spoils(date(2024, 3, 8), date(2024, 3, 15))
    assert not move.spoils(date(2024, 3, 1), date(2024, 3, 8))
    assert not move.spoils(date(2024, 3, 15), date(2024, 3, 22))


# --- files --------------------------------------------------------------------------------------------------


def price_file(folder: Path, lines: Sequence[str], header: str = "date,AAPL") -> Path:
    path = folder / "p.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def test_a_split_that_was_not_applied_is_told_at_import(tmp_path: Path, ledger: Ledger) -> None:
    header = "date,symbol,close,adj_close,split"
    closes = zip(DAYS, steps("500", "101"), strict=True)
    lines = [f"{day},AAPL,{usd},{usd},{5 if day == DAYS[11] else 0}" for day, usd in closes]
    path = price_file(tmp_path, lines, header)
    assert import_files(ledger, [], [path], ["AAPL"]) == [
        "price files: 1 read, 20 rows",
        "  AAPL: closes of 500 on 2024-03-14 and 101 on 2024-03-15: they do not carry the split of 5 that is "
        "listed for 2024-03-18; weeks over it are left out",
    ]
    # Nobody takes a return over it.
    assert sorted(closes_of([path])("AAPL") or {}) == DAYS[10:]


def days_told(tmp_path: Path, ledger: Ledger, days: Sequence[date], symbol: str = "AAPL") -> str:
    path = price_file(tmp_path, [f"{day},5" for day in days], f"date,{symbol}")
    try:
        import_files(ledger, [], [path], [symbol])
    except ConfigurationError as error:
        with pytest.raises(ConfigurationError) as again:
            closes_of([path])
        assert str(again.value) == str(error)
        return str(error).removeprefix(f"--price_file {path}: ")
    return ""


ONE_DAY, WEEK = timedelta(days=1), timedelta(weeks=1)
ALL_DAYS = [date(2024, 3, 1) + n * ONE_DAY for n in range(60)]
FIRST_MONDAY = date(2024, 1, 8)


@pytest.mark.parametrize(
    ("days", "found"),
    [
        (
            [FIRST_MONDAY + n * WEEK for n in range(8)],
            "the closes of AAPL are weekly bars, dated on Mondays, ",
        ),
        (
            [FIRST_MONDAY + n * WEEK - ONE_DAY for n in range(8)],
            "the closes of AAPL are weekly bars, dated on Sundays",
        ),
        ([date(2024, n, 1) for n in range(1, 9)], "the closes of AAPL are bars 31 days apart, dated on "),
        (
            [day - ONE_DAY for day in DAYS],
            "the closes of AAPL lie one day early: 4 of 20 are of days without a session, "
            "such as 2024-03-03, a Sunday.",
        ),
        ([day + ONE_DAY for day in DAYS], "the closes of AAPL lie one day late: "),
        (DAYS, ""),
        (ALL_DAYS, ""),
        ([FIRST_MONDAY + n * WEEK + 4 * ONE_DAY for n in range(16)], ""),
        ([day - ONE_DAY for day in DAYS[:4]], ""),
    ],
    ids=[
        *("weekly, Mondays", "weekly, Sundays", "monthly", "a day early", "a day late", "sessions"),
        *("filled", "weekly, Fridays", "too few"),
    ],
)
def test_days_that_are_no_sessions_are_told_for_what_they_are(
    tmp_path: Path, ledger: Ledger, days: Sequence[date], found: str
) -> None:
    told = days_told(tmp_path, ledger, days)
    assert told.startswith(found) and bool(told) == bool(found)


def test_every_day_is_one_of_a_coins(tmp_path: Path, ledger: Ledger) -> None:
    sundays = [FIRST_MONDAY + n * WEEK - ONE_DAY for n in range(8)]
    assert days_told(tmp_path, ledger, sundays, "BTC-USD") == ""


def test_the_same_news_under_two_symbols_is_told(tmp_path: Path, ledger: Ledger) -> None:
    header = "datetime,headline,source,url,summary\n"
    rows = [f"{1_677_682_800 + 86_400 * n},Oil {n},S,,\n" for n in range(10)]
    for name, lines in (("CVX_1.csv", rows), ("GOOGL_1.csv", rows), ("XOM_1.csv", [*rows[:5], *rows[:5]])):
        (tmp_path / name).write_text(header + "".join(lines), encoding="utf-8")
    files = [tmp_path / name for name in ("CVX_1.csv", "GOOGL_1.csv", "XOM_1.csv")]
    assert import_files(ledger, files, [], ["CVX", "GOOGL", "XOM"]) == [
        "news files: 3 read, 30 rows, 5 left out: repeated",
        "  CVX and GOOGL have the same news: 10 of 10 articles are equal. Is a file named for the "
        "wrong symbol?",
    ]
    # Two files of one content are two symbols' all the same.
    assert [ledger.answers("news-file", symbol)[0].count for symbol in ("CVX", "GOOGL")] == [10, 10]


def test_what_an_earlier_version_read_of_a_file_goes(tmp_path: Path, ledger: Ledger) -> None:
    lines = [f"{day}T20:00:00-04:00,5" for day in ALL_DAYS[10:17]]
    path = price_file(tmp_path, lines, "date,BTC-USD")
    import_files(ledger, [], [path], ["BTC-USD"])
    (now,) = ledger.answers("price-file", "BTC-USD")
    assert (now.request.window_start, now.request.window_end) == ("2024-03-12", "2024-03-18")
    earlier = Request("price-file", "BTC-USD", "2024-03-11", "2024-03-17", now.request.variant)
    other = Request("price-file", "ETH-USD", "2024-03-11", "2024-03-17", now.request.variant)
    ledger.record(
        *(type(now)(r, now.status, now.fetched_at, now.payload, now.count) for r in (earlier, other))
    )
    import_files(ledger, [], [path], ["BTC-USD"])
    assert [call.request for call in ledger.answers("price-file", "BTC-USD")] == [now.request]
    assert [call.request for call in ledger.answers("price-file", "ETH-USD")] == [other]
    assert price_history(now.payload).splits == {}
