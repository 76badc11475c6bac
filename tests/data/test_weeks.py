"""Trading weeks and labels."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecaster.data.weeks import (
    close_of,
    last_session_at_or_before,
    return_pct,
    split_at,
    trading_weeks,
    week_after,
)
from forecaster.records import Label

LATER = datetime(2026, 11, 21, tzinfo=UTC)


def periods(calendar: str, first: date, last: date, now: datetime = LATER) -> list[str]:
    return [week.period for week in trading_weeks(calendar, first, last, now)]


def test_a_week_runs_from_one_friday_close_to_the_next() -> None:
    weeks = trading_weeks("XNYS", date(2025, 12, 1), date(2025, 12, 12), LATER)
    assert [week.period for week in weeks] == ["2025-11-28 to 2025-12-05", "2025-12-05 to 2025-12-12"]
    # The day after Thanksgiving closes at 13:00 in New York.
    assert weeks[0].start_close == datetime(2025, 11, 28, 18, 0, tzinfo=UTC)
    assert weeks[1].end_close == datetime(2025, 12, 12, 21, 0, tzinfo=UTC)


def test_windows_follow_each_other_without_gap_or_overlap() -> None:
    weeks = trading_weeks("XNYS", date(2022, 1, 3), date(2026, 10, 30), LATER)
    assert len(weeks) == 252
    assert all(a.end_close == b.start_close for a, b in pairwise(weeks))
    assert sum(week.end.weekday() != 4 for week in weeks) == 8


def test_good_friday_moves_the_end_to_thursday() -> None:
    assert periods("XNYS", date(2024, 3, 25), date(2024, 4, 5)) == [
        "2024-03-22 to 2024-03-28",
        "2024-03-28 to 2024-04-05",
    ]


def test_the_day_of_mourning_of_2025_is_no_session() -> None:
    assert last_session_at_or_before("XNYS", date(2025, 1, 9)) == date(2025, 1, 8)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (datetime(2025, 12, 12, 20, 59, tzinfo=UTC), 1),
        (datetime(2025, 12, 12, 21, 59, tzinfo=UTC), 1),
        (datetime(2025, 12, 12, 22, 0, tzinfo=UTC), 2),
    ],
)
def test_a_week_counts_once_its_last_close_has_settled(now: datetime, expected: int) -> None:
    assert len(periods("XNYS", date(2025, 12, 1), date(2025, 12, 31), now)) == expected


def test_a_week_that_the_range_cuts_is_left_out() -> None:
    assert periods("XNYS", date(2025, 12, 2), date(2025, 12, 18)) == ["2025-12-05 to 2025-12-12"]


def test_an_end_before_a_holiday_friday_still_completes_the_week() -> None:
    assert periods("XNYS", date(2024, 3, 25), date(2024, 3, 28)) == ["2024-03-22 to 2024-03-28"]


def test_coins_close_at_midnight_after_sunday() -> None:
    (week,) = trading_weeks("24/7", date(2025, 12, 1), date(2025, 12, 7), LATER)
    assert week.period == "2025-11-30 to 2025-12-07"
    assert week.end_close == datetime(2025, 12, 8, tzinfo=UTC)


def test_summer_time_moves_the_close_in_utc() -> None:
    assert close_of("XNYS", date(2025, 7, 11)) == datetime(2025, 7, 11, 20, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        ("100", "100", "up by 0-1%"),
        ("100", "100.0001", "up by 0-1%"),
        ("100", "101", "up by 0-1%"),
        ("100", "101.0000000000000001", "up by 1-2%"),
        ("100", "99.9999", "down by 0-1%"),
        ("100", "99", "down by 0-1%"),
        ("100", "98.99", "down by 1-2%"),
        ("100", "105", "up by 4-5%"),
        ("100", "105.01", "up by more than 5%"),
        ("100", "95", "down by 4-5%"),
        ("100", "94.99", "down by more than 5%"),
        # In binary floating point, 100 * (1.1 * 1.01 - 1.1) / 1.1 is above 1.
        ("1.1", "1.111", "up by 0-1%"),
        ("3", "3.09", "up by 2-3%"),
    ],
)
def test_edges_belong_to_the_bin_below(start: str, end: str, text: str) -> None:
    assert Label.between(Decimal(start), Decimal(end)).text == text


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_the_label_agrees_with_whole_number_arithmetic(start_cents: int, end_cents: int) -> None:
    label = Label.between(Decimal(start_cents) / 100, Decimal(end_cents) / 100)
    move = 100 * abs(end_cents - start_cents)
    assert label.sign == (1 if end_cents >= start_cents else -1)
    if label.lower_pct < 5:
        assert move <= (label.lower_pct + 1) * start_cents
    assert move > label.lower_pct * start_cents or label.lower_pct == 0


def test_returns_are_in_percent() -> None:
    assert return_pct(Decimal("80"), Decimal("78")) == -2.5
    assert str(return_pct(Decimal("80"), Decimal("80"))) == "0.0"
    assert Label.between(Decimal("80"), Decimal("78")) == Label("down", 2)


def test_a_split_keeps_the_embargo_between_training_and_test() -> None:
    weeks = trading_weeks("XNYS", date(2025, 12, 1), date(2026, 2, 13), LATER)
    assert len(weeks) == 11
    train, test = split_at(weeks, train_ratio=0.6, embargo_weeks=4)
    assert sorted(train)[-1] == date(2026, 1, 9)
    assert test == {date(2026, 2, 13)}


def test_a_ratio_of_whole_weeks_is_not_lost_to_rounding() -> None:
    weeks = trading_weeks("XNYS", date(2025, 11, 24), date(2026, 1, 30), LATER)
    assert len(weeks) == 10
    assert len(split_at(weeks, 0.7, 0)[0]) == 7


@pytest.mark.parametrize(
    ("day", "now", "past", "following"),
    [
        pytest.param("2026-03-11", LATER, "2026-03-06", "2026-03-13", id="a Wednesday"),
        pytest.param("2026-03-13", LATER, "2026-03-13", "2026-03-20", id="a Friday is over at its end"),
        pytest.param("2026-03-15", LATER, "2026-03-13", "2026-03-20", id="a Sunday"),
        pytest.param("2024-03-28", LATER, "2024-03-28", "2024-04-05", id="Thursday before Good Friday"),
        # New York closes at 20:00 UTC once its clocks have changed, on March 8.
        pytest.param("2026-03-13", datetime(2026, 3, 13, 19, 59, tzinfo=UTC), "2026-03-06", "2026-03-13"),
        pytest.param("2026-03-13", datetime(2026, 3, 13, 20, 0, tzinfo=UTC), "2026-03-13", "2026-03-20"),
    ],
)
def test_a_forecast_starts_from_the_last_week_end_close_up_to_a_day(
    day: str, now: datetime, past: str, following: str
) -> None:
    weeks, target = week_after("XNYS", date.fromisoformat(day), now, 3)
    assert [len(weeks), weeks[-1].end.isoformat()] == [3, past]
    assert target.period == f"{past} to {following}"
    assert weeks == trading_weeks("XNYS", weeks[0].start, weeks[-1].end, LATER)[-3:]


def test_the_week_after_today_is_known_before_it_begins() -> None:
    _, target = week_after("24/7", date(2026, 11, 21), LATER, 1)
    assert target.period == "2026-11-15 to 2026-11-22"
