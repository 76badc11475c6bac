"""Splitting by date, and the rule that a symbol's test weeks follow its training weeks."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from forecaster.data.splits import Block, blocks, cut, hold_out, last_weeks, out_of_order
from forecaster.tasks.base import RowKey
from forecaster.tasks.weekly import parse_period

W1, W2, W3, W4, W5 = (date(2024, 1, 7) + timedelta(weeks=i) for i in range(5))


def test_a_period_is_its_first_and_last_day() -> None:
    assert parse_period("2024-02-25 to 2024-03-03") == (date(2024, 2, 25), date(2024, 3, 3))


@pytest.mark.parametrize(
    "period",
    [
        "",
        "2024-02-25",
        "2024-02-25_2024-03-03",
        "2024-02-25to2024-03-03",
        "2024-02-30 to 2024-03-03",
        "2024-02-25 to ",
        "25.02.2024 to 03.03.2024",
        "None",
        "2024-03-03 to 2024-02-25",
        "2024-03-03 to 2024-03-03",
        "9999-12-24 to 9999-12-31",
        "0001-01-01 to 2024-03-03",
    ],
)
def test_anything_else_is_no_period(period: str) -> None:
    with pytest.raises(ValueError):
        parse_period(period)


@pytest.mark.parametrize(
    ("count", "expected"), [(2, 1), (3, 1), (5, 1), (6, 2), (10, 2), (11, 3), (15, 3), (35, 7)]
)
def test_a_fifth_of_the_weeks_rounded_up_is_for_testing(count: int, expected: int) -> None:
    weeks = [W1 + timedelta(weeks=i) for i in range(count)]
    assert last_weeks(weeks) == set(weeks[-expected:])


def test_weeks_count_once_whatever_their_order_and_number_of_rows() -> None:
    assert last_weeks([W3, W1, W5, W1, W1, W2, W4, W5, W1]) == {W5}


def test_a_single_week_stays_for_training() -> None:
    assert last_weeks([W1, W1]) == set()
    assert last_weeks([]) == set()


def test_at_least_one_week_stays_for_training_however_large_the_share() -> None:
    assert last_weeks([W1, W2, W3], share=1.0) == {W2, W3}


def week(symbol: str, start: date) -> RowKey:
    return RowKey(symbol, start, start + timedelta(weeks=1))


TRAIN = [week("A", W1), week("A", W3), week("B", W1), week("C", W5)]
TEST = [week("A", W2), week("A", W3), week("A", W4), week("B", W2), week("D", W1)]


def test_test_rows_in_or_before_the_last_training_week_of_their_symbol_give_way() -> None:
    assert out_of_order(TRAIN, TEST, "test") == [0, 1]


def test_training_rows_in_or_after_the_first_test_week_of_their_symbol_give_way() -> None:
    assert out_of_order(TRAIN, TEST, "train") == [1]


def test_symbols_do_not_disturb_one_another() -> None:
    assert out_of_order([week("A", W5)], [week("B", W1)], "test") == []
    assert out_of_order([week("A", W5)], [week("B", W1)], "train") == []


def test_rows_in_order_all_stay_and_no_rows_are_no_trouble() -> None:
    assert out_of_order([week("A", W1)], [week("A", W2)], "test") == []
    assert out_of_order([week("A", W1)], [week("A", W2)], "train") == []
    assert out_of_order([], TEST, "test") == []
    assert out_of_order(TRAIN, [], "train") == []


def test_the_last_weeks_of_all_symbols_together_are_held_out() -> None:
    rows = [week("A", W4), week("A", W1), week("B", W2), week("B", W5), week("A", W3), week("A", W5)]
    assert hold_out(rows, 0.2) == ([3, 5], [])
    assert hold_out(rows, 0.3) == ([0, 3, 5], [])


@pytest.mark.parametrize("rows", [[], [week("A", W1), week("B", W1)], [week("A", W1), week("A", W2)]])
def test_with_a_share_of_zero_nothing_is_held_out(rows: list[RowKey]) -> None:
    assert hold_out(rows, 0.0) == ([], [])


def test_a_single_training_week_is_not_held_out() -> None:
    assert hold_out([week("A", W1), week("B", W1)], 0.4) == ([], [])


def test_a_held_out_week_that_overlaps_a_training_week_of_its_symbol_is_dropped() -> None:
    midweek = RowKey("A", W2 + timedelta(days=3), W3 + timedelta(days=3))
    # The last two of four weeks: W3, and W4. For A, training ends within W3; B has no such week.
    rows = [week("A", W1), midweek, week("A", W3), week("A", W4), week("B", W3)]
    assert hold_out(rows, 0.4) == ([3, 4], [2])


def test_a_test_week_that_overlaps_a_training_week_of_another_calendar_gives_way() -> None:
    midweek = RowKey("A", W3 + timedelta(days=3), W4 + timedelta(days=3))
    assert out_of_order([week("A", W3)], [midweek, week("A", W4)], "test") == [0]
    assert out_of_order([midweek, week("A", W2)], [week("A", W4)], "train") == [0]


# --- cuts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("test_from", "embargo_weeks", "train", "gap", "test"),
    [
        (W4, 0, [0, 1, 2, 4], [], [3, 5]),
        (W4, 1, [0, 2, 4], [1], [3, 5]),
        (W4 - timedelta(days=3), 2, [2, 4], [0, 1], [3, 5]),
        (W2, 1, [], [2, 4], [0, 1, 3, 5]),
        (W1, 2, [], [], [0, 1, 2, 3, 4, 5]),
        (W5 + timedelta(days=1), 1, [0, 1, 2, 3, 4], [5], []),
    ],
)
def test_a_cut_leaves_out_the_last_weeks_before_the_test(
    test_from: date, embargo_weeks: int, train: list[int], gap: list[int], test: list[int]
) -> None:
    starts = [W2, W3, W1, W4, W1, W5]
    assert cut(starts, Block(test_from), embargo_weeks) == {"train": train, "gap": gap, "test": test}


# --- one block after another --------------------------------------------------------------------------------

SUNDAYS = [date(2024, 1, 7) + timedelta(days=7 * week) for week in range(10)]
TEN_WEEKS = [RowKey(symbol, day, day + timedelta(days=7)) for day in SUNDAYS for symbol in "AB"]


def test_each_block_ends_where_the_next_begins_and_the_last_takes_what_is_left() -> None:
    assert blocks(TEN_WEEKS, every=4, embargo_weeks=2) == [
        Block(date(2024, 2, 4), date(2024, 3, 3), None, date(2024, 1, 21)),
        Block(date(2024, 3, 3), None, None, date(2024, 2, 18)),
    ]


def test_no_training_week_ends_after_the_cut_less_the_embargo() -> None:
    starts = [row.start for row in TEN_WEEKS]
    for block in blocks(TEN_WEEKS, every=3, embargo_weeks=2):
        parts = cut(starts, block, embargo_weeks=2)
        last = max(TEN_WEEKS[at].end for at in parts["train"])
        assert last == block.test_from - timedelta(weeks=2)


def test_every_week_from_the_first_cut_on_is_tested_once() -> None:
    starts = [row.start for row in TEN_WEEKS]
    tested = [at for block in blocks(TEN_WEEKS, 3, 2) for at in cut(starts, block, 2)["test"]]
    assert tested == list(range(6, 20))


def test_a_window_keeps_the_latest_weeks_before_the_embargo() -> None:
    assert blocks(TEN_WEEKS, every=4, embargo_weeks=1, window=2) == [
        Block(date(2024, 2, 4), date(2024, 3, 3), date(2024, 1, 14), date(2024, 1, 28)),
        Block(date(2024, 3, 3), None, date(2024, 2, 11), date(2024, 2, 25)),
    ]
    starts = [row.start for row in TEN_WEEKS]
    assert cut(starts, Block(date(2024, 2, 4), date(2024, 3, 3), date(2024, 1, 14)), 1) == {
        "train": [2, 3, 4, 5],
        "gap": [6, 7],
        "test": [8, 9, 10, 11, 12, 13, 14, 15],
    }


@pytest.mark.parametrize(
    ("every", "embargo_weeks", "first", "cut_days"),
    [
        (
            1,
            4,
            None,
            [date(2024, 2, 11 + 7 * week) for week in range(3)] + [date(2024, 3, 3), date(2024, 3, 10)],
        ),
        (4, 4, None, [date(2024, 3, 3)]),  # a cut after four weeks would leave none for training
        (26, 4, None, []),
        (4, 1, date(2024, 2, 27), [date(2024, 3, 3)]),
        (4, 4, date(2024, 2, 4), []),
        (4, 4, date(2025, 1, 1), []),
    ],
)
def test_the_first_cut_leaves_weeks_for_training(
    every: int, embargo_weeks: int, first: date | None, cut_days: list[date]
) -> None:
    found = blocks(TEN_WEEKS, every, embargo_weeks, first=first)
    assert [block.test_from for block in found] == cut_days


def test_weeks_of_two_calendars_are_counted_once() -> None:
    fridays = [RowKey("C", day - timedelta(days=2), day + timedelta(days=5)) for day in SUNDAYS[1:]]
    found = blocks([*TEN_WEEKS, *fridays], every=4, embargo_weeks=2)
    # A cut is at the first day on which a week of its calendar week starts: the Friday.
    assert [block.test_from for block in found] == [date(2024, 2, 2), date(2024, 3, 1)]


def test_a_day_ends_the_training_in_place_of_a_number_of_weeks() -> None:
    starts = [W1, W2, W3, W4, W5]
    assert cut(starts, Block(W5, train_until=W3), 4) == {"train": [0, 1], "gap": [2, 3], "test": [4]}
    # The weeks of a source that ends before the gap stay.
    assert cut([W1, W2], Block(W5, train_until=W3), 4) == {"train": [0, 1], "gap": [], "test": []}
