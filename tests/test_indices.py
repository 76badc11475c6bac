"""Members of an index on a day, and symbols that changed."""

from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path

import pytest

from indices import (
    CHANGES,
    CRYPTO,
    DOW_30,
    EURO_STOXX_50,
    KNOWN_FROM,
    KNOWN_UNTIL,
    NASDAQ_100,
    RENAMES,
    constituents,
    symbol_on,
    vendor_symbol,
)

LISTS = {"DOW_30": DOW_30, "NASDAQ_100": NASDAQ_100, "EURO_STOXX_50": EURO_STOXX_50, "CRYPTO": CRYPTO}


@pytest.mark.parametrize(
    ("index", "count"), [("DOW_30", 30), ("NASDAQ_100", 100), ("EURO_STOXX_50", 50), ("CRYPTO", 10)]
)
def test_the_lists_are_sorted_complete_and_without_repeats(index: str, count: int) -> None:
    assert list(LISTS[index]) == sorted(set(LISTS[index]))
    assert len(LISTS[index]) == count
    assert constituents(index, KNOWN_UNTIL) == LISTS[index]


def test_every_change_fits_what_was_there_before_it_and_names_a_source() -> None:
    for change in CHANGES:
        before = set(constituents(change.index, change.day - timedelta(days=1)))
        after = set(constituents(change.index, change.day))
        assert after - before == set(change.added), change
        assert before - after == set(change.removed), change
        assert change.source
        assert KNOWN_FROM < change.day <= KNOWN_UNTIL


def test_a_change_counts_from_its_own_day() -> None:
    before, after = constituents("DOW_30", date(2024, 2, 25)), constituents("DOW_30", date(2024, 2, 26))
    assert set(before) - set(after) == {"WBA"}
    assert set(after) - set(before) == {"AMZN"}


@pytest.mark.parametrize(
    ("day", "members", "others"),
    [
        ("2022-01-01", {"WBA", "INTC", "DOW", "VZ"}, {"AMZN", "NVDA", "SHW", "GOOGL"}),
        ("2024-11-08", {"AMZN", "NVDA", "SHW", "VZ"}, {"WBA", "INTC", "DOW", "GOOGL"}),
        ("2026-06-29", {"AMZN", "NVDA", "SHW", "GOOGL"}, {"WBA", "INTC", "DOW", "VZ"}),
    ],
)
def test_the_dow_had_thirty_members_on_each_day(day: str, members: set[str], others: set[str]) -> None:
    found = set(constituents("DOW_30", date.fromisoformat(day)))
    assert members <= found
    assert not others & found
    assert len(found) == 30


@pytest.mark.parametrize(
    ("day", "count", "members", "others"),
    [
        ("2022-01-01", 101, {"FB", "FISV", "PTON", "SPLK"}, {"META", "CEG", "ODFL"}),
        ("2022-06-08", 102, {"FB", "CEG", "AZN"}, {"META", "XLNX"}),
        ("2022-06-09", 102, {"META"}, {"FB"}),
        ("2023-06-06", 101, {"FISV"}, {"FI", "GEHC", "SPLK"}),
        ("2023-06-07", 101, {"GEHC"}, {"FI", "FISV"}),
        ("2024-01-02", 101, {"SPLK", "MDB"}, {"FI", "FISV", "LIN"}),
        ("2025-07-17", 100, {"MELI"}, {"ANSS", "TRI"}),
        ("2025-11-05", 102, {"SOLS", "HON"}, {"HONA"}),
        ("2025-11-06", 101, {"HON"}, {"SOLS"}),
        ("2025-12-05", 101, {"BIIB", "LULU"}, {"STX", "WDC"}),
        ("2026-01-08", 102, {"VSNT", "STX"}, {"BIIB", "LULU"}),
        ("2026-07-07", 103, {"HONA", "SPCX", "EA", "KHC", "WBD"}, {"ZS"}),
        ("2026-11-20", 100, {"HONA", "SPCX", "META"}, {"EA", "KHC", "WBD", "FISV"}),
    ],
)
def test_the_nasdaq_had_these_members_on_these_days(
    day: str, count: int, members: set[str], others: set[str]
) -> None:
    found = set(constituents("NASDAQ_100", date.fromisoformat(day)))
    assert members <= found
    assert not others & found
    assert len(found) == count


def test_a_day_before_the_history_is_refused_with_the_range() -> None:
    with pytest.raises(ValueError, match="2022-01-01 to 2026-10-06, not on 2021-12-31"):
        constituents("NASDAQ_100", date(2021, 12, 31))


def test_an_index_without_history_has_todays_members_on_every_day() -> None:
    assert constituents("EURO_STOXX_50", date(1999, 1, 4)) == EURO_STOXX_50
    assert constituents("CRYPTO", date(2030, 1, 1)) == CRYPTO


def test_an_unknown_index_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="DOW_30, NASDAQ_100, EURO_STOXX_50, CRYPTO"):
        constituents("SP_500", date(2024, 1, 2))


@pytest.mark.parametrize(
    ("symbol", "vendors"),
    [("FB", "META"), ("META", "META"), ("FI", "FISV"), ("FISV", "FISV"), ("AAPL", "AAPL")],
)
def test_vendors_serve_a_renamed_listing_under_its_newest_symbol(symbol: str, vendors: str) -> None:
    assert vendor_symbol(symbol) == vendors


@pytest.mark.parametrize(
    ("symbol", "day", "expected"),
    [
        ("META", "2022-03-01", "FB"),
        ("FB", "2022-03-01", "FB"),
        ("META", "2022-06-08", "FB"),
        ("META", "2022-06-09", "META"),
        ("FB", "2024-01-02", "META"),
        ("FISV", "2022-06-01", "FISV"),
        ("FISV", "2023-06-06", "FISV"),
        ("FISV", "2023-06-07", "FI"),
        ("FISV", "2024-01-02", "FI"),
        ("FI", "2025-11-10", "FI"),
        ("FI", "2025-11-11", "FISV"),
        ("MSFT", "2022-03-01", "MSFT"),
    ],
)
def test_a_listing_has_the_symbol_of_the_day(symbol: str, day: str, expected: str) -> None:
    assert symbol_on(symbol, date.fromisoformat(day)) == expected


def test_renames_stand_oldest_first_and_say_what_is_not_confirmed() -> None:
    assert [(rename.old, rename.new, str(rename.day)) for rename in RENAMES] == [
        ("FB", "META", "2022-06-09"),
        ("FISV", "FI", "2023-06-07"),
        ("FI", "FISV", "2025-11-11"),
    ]
    assert [rename.source.startswith("not confirmed") for rename in RENAMES] == [False, False, True]


def test_every_member_on_every_day_has_the_symbol_of_that_day() -> None:
    for change in CHANGES:
        for day in (change.day - timedelta(days=1), change.day):
            for symbol in constituents(change.index, day):
                assert symbol_on(symbol, day) == symbol


def test_the_changes_give_the_recorded_intervals_on_every_boundary(real_data: Path) -> None:
    with (real_data / "membership" / "membership_intervals.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 183
    for index in ("DOW_30", "NASDAQ_100"):
        spans = [
            (row["symbol"], row["start_inclusive"], row["end_exclusive"] or "9999-12-31")
            for row in rows
            if row["index"] == index
        ]
        boundaries = {text for _, start, end in spans for text in (start, end) if text < "9999"}
        assert len(boundaries) == {"DOW_30": 4, "NASDAQ_100": 34}[index]
        for day in boundaries:
            for at in (date.fromisoformat(day), date.fromisoformat(day) - timedelta(days=1)):
                if at >= KNOWN_FROM:
                    expected = {symbol for symbol, start, end in spans if start <= str(at) < end}
                    assert set(constituents(index, at)) == expected, at
