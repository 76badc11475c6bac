"""Rows from datasets, prompts and files, and which of them runs share."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from boards import DOWN_3, UP_1, UP_2, row, rows, written

from forecaster.errors import ConfigurationError
from forecaster.evaluation.rows import ModelAnswers, numbered, on_common_rows, with_returns
from forecaster.records import Messages, Row
from forecaster.tasks.weekly_rows import make_row
from prompts import render_published

PROMPT = render_published(
    Messages(
        "be brief",
        "From 2026-01-02 to 2026-01-09, KO's stock price increased from 70.00 to 71.05. News during this "
        "period:\n\n[Headline]: KO\n[Summary]: fizz\n\nUsing only what was known before 2026-01-09, give the "
        "two to four most important positive developments and potential concerns for KO, mostly from the "
        "news. Then predict how the KO stock price moves in the coming week (2026-01-09 to 2026-01-16) and "
        "explain why.",
    )
)


def test_what_is_not_given_is_read_from_the_prompt_and_the_reference() -> None:
    found = make_row(PROMPT, written(DOWN_3))
    assert (found.symbol, found.start, found.end) == ("KO", date(2026, 1, 9), date(2026, 1, 16))
    assert found.row_id == "KO 2026-01-09 to 2026-01-16"
    assert (found.actual, found.last_week) == (DOWN_3, UP_1)


def test_what_is_given_wins_over_the_texts() -> None:
    found = make_row(
        PROMPT,
        written(DOWN_3),
        symbol="PEP",
        period="2026-02-06 to 2026-02-13",
        label="up by 2-3%",
        return_pct=2.25,
    )
    assert found.row_id == "PEP 2026-02-06 to 2026-02-13"
    assert (found.actual, found.realised_pct) == (UP_2, 2.25)


def test_texts_that_say_nothing_leave_the_row_without_symbol_dates_and_outcome() -> None:
    found, twin, other = numbered(
        [
            make_row(text, "no reference", period="soon", label="sideways")
            for text in ("Hello", "Hello", "Bye")
        ]
    )
    assert found.symbol == ""
    assert found.start is found.week is found.actual is None
    # They go by their texts, so that the same row of two files is found in any order.
    assert found.row_id.startswith("row ")
    assert twin.row_id == f"{found.row_id} (2)"
    assert other.row_id not in (found.row_id, twin.row_id)
    assert numbered([make_row("", "")])[0].row_id == "row 1"
    assert found.realised_pct is None


def test_a_row_counts_into_the_calendar_week_in_which_it_ends() -> None:
    ends = {end: make_row("", "", symbol="KO", period=f"2026-01-02 to {end}").week for end in
            ("2026-01-08", "2026-01-09", "2026-01-11", "2026-01-12")}  # fmt: skip
    assert ends == {
        "2026-01-08": date(2026, 1, 11),  # a Thursday before a holiday
        "2026-01-09": date(2026, 1, 11),
        "2026-01-11": date(2026, 1, 11),  # the Sundays of the published sets
        "2026-01-12": date(2026, 1, 18),
    }


def test_without_a_return_the_middle_of_the_bin_stands_for_it() -> None:
    assert row("KO", 0, DOWN_3).realised_pct == -3.5


def test_repeated_rows_are_told_apart() -> None:
    assert [r.row_id for r in numbered([row("KO", 0, UP_1), row("KO", 0, UP_1), row("PEP", 0, UP_1)])] == [
        "KO 2026-01-02 to 2026-01-09",
        "KO 2026-01-02 to 2026-01-09 (2)",
        "PEP 2026-01-02 to 2026-01-09",
    ]


def _run(name: str, *wanted: Row) -> ModelAnswers:
    return ModelAnswers(name, numbered(wanted), tuple(f"{name} on {r.symbol}" for r in wanted))


A, B, C = (row(symbol, 0, UP_1) for symbol in "ABC")


def test_runs_over_different_rows_meet_on_those_that_all_have_and_it_is_said() -> None:
    (first, second), note = on_common_rows([_run("x", A, B, C), _run("y", C, B)])
    assert [r.symbol for r in first.rows] == [r.symbol for r in second.rows] == ["B", "C"]
    assert second.answers == ("y on B", "y on C")
    assert note == "Compared on the 2 rows that all have (x 3, y 2)."


def test_runs_over_the_same_rows_need_no_note() -> None:
    (first, second), note = on_common_rows([_run("x", A, B), _run("y", B, A)])
    assert (first.answers, second.answers, note) == (("x on A", "x on B"), ("y on A", "y on B"), "")


def test_runs_without_a_common_row_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no row is in every run: x has 1 rows, y has 2 rows"):
        on_common_rows([_run("x", A), _run("y", B, C)])


def test_returns_run_from_the_last_close_before_the_start_to_the_last_one_before_the_end() -> None:
    closes = {date(2026, 1, 1): Decimal(90), date(2026, 1, 2): Decimal(100), date(2026, 1, 8): Decimal(103)}
    found = with_returns(rows(("KO", 0, UP_2), ("KO", 4, UP_1), ("PEP", 0, UP_1)), {"KO": closes}.get)
    # Friday the 9th has no close: Thursday's stands for it. February has none at all.
    assert [r.return_pct for r in found] == [3.0, None, None]
