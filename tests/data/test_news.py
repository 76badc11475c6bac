"""Which time a news call covers, and which articles come out of several calls."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from forecaster.calls import Call, Request
from forecaster.data.news import (
    Coverage,
    articles,
    certain_spans,
    coverage_of,
    covered_spans,
    cut_off_days,
    gaps,
    malformed_articles,
    without_repeats,
)

LATER = datetime(2026, 4, 1, tzinfo=UTC)


def at(day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    """A moment of March 2026."""
    return datetime(2026, 3, day, hour, minute, second, tzinfo=UTC)


def item(moment: datetime, headline: str, number: int | str, **more: Any) -> dict[str, Any]:
    return {"id": number, "datetime": int(moment.timestamp()), "headline": headline, "summary": "", **more}


def call(first: int, last: int, *items: Any, truncated: bool = False, fetched_at: datetime = LATER) -> Call:
    request = Request("company-news", "AAPL", f"2026-03-{first:02}", f"2026-03-{last:02}")
    return Call(request, "answered", fetched_at, list(items), len(items), truncated)


def file(first: int, last: int, *items: Any, truncated: bool = False) -> Call:
    request = Request("news-file", "AAPL", f"2026-03-{first:02}", f"2026-03-{last:02}", "0123456789abcdef")
    return Call(request, "answered", LATER, list(items), len(items), truncated)


def test_a_whole_answer_covers_its_days_to_the_end_of_the_last() -> None:
    assert covered_spans([call(2, 4, item(at(3), "A", 1))]) == [(at(2), at(5))]


def test_an_empty_answer_covers_its_days_as_well() -> None:
    assert covered_spans([call(2, 4)]) == [(at(2), at(5))]


def test_nothing_is_known_of_the_time_after_the_call() -> None:
    assert covered_spans([call(2, 4, fetched_at=at(4, 17, 30))]) == [(at(2), at(4, 17, 30))]


def test_a_window_in_the_future_covers_nothing() -> None:
    assert covered_spans([call(20, 21, fetched_at=at(4))]) == []


def test_a_cut_off_answer_covers_the_time_just_after_its_oldest_article() -> None:
    answer = call(2, 4, item(at(4, 9), "B", 2), item(at(3, 14, 30, 5), "A", 1), truncated=True)
    assert covered_spans([answer]) == [(at(3, 14, 30, 6), at(5))]
    assert cut_off_days([answer]) == set()


def test_a_stray_from_before_the_window_does_not_stretch_what_is_covered() -> None:
    answer = call(3, 4, item(at(3, 14), "A", 1), item(at(1, 8), "stray", 9), truncated=True)
    assert covered_spans([answer]) == [(at(3, 14, 0, 1), at(5))]


def test_an_oldest_article_in_the_last_second_of_a_day_leaves_the_next_day_whole() -> None:
    answer = call(2, 4, item(at(3, 23, 59, 59), "A", 1), truncated=True)
    assert covered_spans([answer]) == [(at(4), at(5))]
    assert cut_off_days([answer]) == set()


def test_a_day_that_exceeds_the_limit_is_flagged_and_counts_as_covered() -> None:
    answer = call(2, 4, item(at(4, 20), "B", 2), item(at(4, 6), "A", 1), truncated=True)
    assert covered_spans([answer]) == [(at(4), at(5))]
    assert cut_off_days([answer]) == {date(2026, 3, 4)}


def test_a_cut_off_answer_of_strays_only_is_a_day_that_exceeds_the_limit() -> None:
    answer = call(2, 4, item(at(9), "stray", 9), truncated=True)
    assert covered_spans([answer]) == [(at(4), at(5))]
    assert cut_off_days([answer]) == {date(2026, 3, 4)}


def test_a_day_that_exceeds_the_limit_is_whole_again_with_a_file_that_holds_the_rest() -> None:
    answer = call(4, 4, item(at(4, 6), "B", 2), truncated=True)
    rest = file(4, 4, item(at(4, 1), "A", "a"), item(at(4, 6), "B", "b"))
    assert cut_off_days([answer]) == {date(2026, 3, 4)}
    assert cut_off_days([answer, rest]) == set()


def test_a_file_covers_from_its_first_day_to_its_newest_article() -> None:
    news = file(2, 4, item(at(2, 9), "A", "a"), item(at(4, 15), "B", "b"))
    assert covered_spans([news]) == [(at(2), at(4, 15, 0, 1))]


def test_a_cut_off_file_covers_from_just_after_its_oldest_article() -> None:
    news = file(2, 4, item(at(2, 9), "A", "a"), item(at(4, 15), "B", "b"), truncated=True)
    assert covered_spans([news]) == [(at(2, 9, 0, 1), at(4, 15, 0, 1))]
    assert cut_off_days([news]) == set()


def test_a_file_covers_nothing_between_articles_that_lie_more_than_a_week_apart() -> None:
    articles_of_march = [item(at(1, 9), "A", "a"), item(at(8, 9), "B", "b"), item(at(15, 9, 0, 1), "C", "c")]
    news = file(1, 15, *reversed(articles_of_march))
    assert coverage_of(news) == Coverage(((at(1), at(8, 9, 0, 1)), (at(15), at(15, 9, 0, 2))))
    assert (
        covered_spans([news])
        == certain_spans([news])
        == [
            (at(1), at(8, 9, 0, 1)),
            (at(15), at(15, 9, 0, 2)),
        ]
    )


def test_a_file_with_one_article_in_january_and_one_in_october_covers_two_days_at_most() -> None:
    january, october = datetime(2026, 1, 5, 9, tzinfo=UTC), datetime(2026, 10, 5, 9, tzinfo=UTC)
    request = Request("news-file", "AAPL", "2026-01-05", "2026-10-05", "0123456789abcdef")
    news = Call(request, "answered", LATER, [item(january, "A", "a"), item(october, "B", "b")], 2)
    assert covered_spans([news]) == [
        (datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 5, 9, 0, 1, tzinfo=UTC)),
        (datetime(2026, 10, 5, tzinfo=UTC), datetime(2026, 10, 5, 9, 0, 1, tzinfo=UTC)),
    ]


def test_each_stretch_of_a_cut_off_file_starts_just_after_its_oldest_article() -> None:
    stray, oldest, newest = item(at(2, 9), "A", "a"), item(at(20, 9), "B", "b"), item(at(21, 9), "C", "c")
    news = file(2, 21, stray, oldest, newest, truncated=True)
    assert covered_spans([news]) == [(at(20, 9, 0, 1), at(21, 9, 0, 1))]


A_YEAR_LATER = datetime(2027, 3, 10, 12, tzinfo=UTC)
"""365 days after 12:00 on 10 March 2026."""


def test_an_old_empty_answer_need_not_be_asked_again_but_is_not_certain() -> None:
    answer = call(2, 4, fetched_at=A_YEAR_LATER)
    assert coverage_of(answer) == Coverage((), None, (at(2), at(5)))
    assert covered_spans([answer]) == [(at(2), at(5))]
    assert certain_spans([answer]) == []
    assert cut_off_days([answer]) == set()


def test_an_empty_answer_is_certain_from_the_free_plans_reach_on() -> None:
    answer = call(9, 12, fetched_at=A_YEAR_LATER)
    assert covered_spans([answer]) == [(at(9), at(13))]
    assert certain_spans([answer]) == [(at(10, 12), at(13))]


def test_an_old_answer_is_certain_from_its_oldest_article_on() -> None:
    answer = call(2, 12, item(at(5, 8), "B", 2), item(at(3, 9), "A", 1), fetched_at=A_YEAR_LATER)
    assert covered_spans([answer]) == [(at(2), at(13))]
    assert certain_spans([answer]) == [(at(3, 9), at(13))]


def test_an_oldest_article_within_the_free_plans_reach_does_not_shorten_what_is_certain() -> None:
    answer = call(9, 12, item(at(12, 8), "A", 1), fetched_at=A_YEAR_LATER)
    assert certain_spans([answer]) == [(at(10, 12), at(13))]


def test_a_stray_from_before_the_window_makes_nothing_certain() -> None:
    answer = call(3, 4, item(at(1, 8), "stray", 9), fetched_at=A_YEAR_LATER)
    assert certain_spans([answer]) == []


def test_an_old_answer_that_was_cut_off_is_certain_from_just_after_its_oldest_article() -> None:
    answer = call(2, 4, item(at(3, 9), "A", 1), truncated=True, fetched_at=A_YEAR_LATER)
    assert covered_spans([answer]) == certain_spans([answer]) == [(at(3, 9, 0, 1), at(5))]


def test_what_one_answer_does_not_reach_is_certain_when_another_does() -> None:
    early, late = call(2, 4), call(2, 4, fetched_at=A_YEAR_LATER)
    assert certain_spans([late, early]) == [(at(2), at(5))]


def test_cut_off_days_are_covered_and_not_certain() -> None:
    cut_off = call(2, 4, item(at(4, 6), "A", 1), truncated=True)
    whole = call(5, 6)
    assert covered_spans([cut_off, whole]) == [(at(4), at(7))]
    assert certain_spans([cut_off, whole]) == [(at(5), at(7))]


def test_a_file_without_articles_covers_nothing() -> None:
    assert covered_spans([file(2, 4)]) == []


def test_calls_that_touch_cover_one_span() -> None:
    first, second, apart = call(2, 4), call(5, 6), call(9, 9)
    assert covered_spans([apart, second, first]) == [(at(2), at(7)), (at(9), at(10))]


def test_gaps_are_what_is_wanted_and_not_covered() -> None:
    wanted = [(at(1), at(10)), (at(20), at(22))]
    assert gaps(wanted, [(at(3), at(4)), (at(9), at(21))]) == [
        (at(1), at(3)),
        (at(4), at(9)),
        (at(21), at(22)),
    ]
    assert gaps(wanted, [(at(1), at(30))]) == []
    assert gaps([], [(at(1), at(30))]) == []


hours = st.integers(0, 47).map(lambda hour: at(1 + hour // 24, hour % 24))
spans = st.lists(st.tuples(hours, hours), max_size=6)


@given(spans, spans)
def test_an_instant_is_in_a_gap_exactly_when_it_is_wanted_and_not_covered(
    wanted: list[tuple[datetime, datetime]], known: list[tuple[datetime, datetime]]
) -> None:
    def holds(found: list[tuple[datetime, datetime]], moment: datetime) -> bool:
        return any(start <= moment < end for start, end in found)

    open_spans = gaps(wanted, known)
    for hour in range(48):
        moment = at(1 + hour // 24, hour % 24)
        assert holds(open_spans, moment) == (holds(wanted, moment) and not holds(known, moment))


def test_articles_come_in_the_order_of_publication_with_the_vendors_name_in_their_ids() -> None:
    found = articles(
        [call(2, 4, item(at(4), "Later", 7, summary="Why."), item(at(2), "Sooner", 8, summary=None))]
    )
    assert [(a.id, a.published_at, a.headline, a.summary) for a in found] == [
        ("finnhub:8", at(2), "Sooner", ""),
        ("finnhub:7", at(4), "Later", "Why."),
    ]


def test_articles_of_a_file_keep_their_own_ids() -> None:
    assert [a.id for a in articles([file(2, 2, item(at(2), "A", "f00d"))])] == ["f00d"]


def test_strays_at_both_ends_are_left_out() -> None:
    answer = call(
        2,
        4,
        item(at(1, 23, 59, 59), "before", 1),
        item(at(2), "first second", 2),
        item(at(4, 23, 59, 59), "last second", 3),
        item(at(5), "after", 4),
    )
    assert [a.headline for a in articles([answer])] == ["first second", "last second"]
    assert [a.headline for a in articles([file(2, 3, item(at(4), "after", 5))])] == []


def test_the_same_id_in_two_overlapping_calls_is_one_article() -> None:
    again = item(at(3), "Once", 1)
    assert [a.id for a in articles([call(2, 3, again), call(3, 4, again)])] == ["finnhub:1"]


def test_of_two_equal_headlines_the_first_publication_stays() -> None:
    answer = call(
        2,
        4,
        item(at(3, 12), "APPLE  beats  estimates", 1),
        item(at(3, 11), "Apple Beats Estimates!", 2),
        item(at(3, 13), "Ａpple beats estimates", 3),
        item(at(3, 14), "Apple misses estimates", 4),
    )
    assert [a.id for a in without_repeats(articles([answer]))] == ["finnhub:2", "finnhub:4"]


def test_headlines_that_differ_only_in_escapes_are_repeats() -> None:
    answer = call(
        2,
        4,
        item(at(3), "AT&T deal", 1),
        item(at(3, 1), "AT&amp;amp;T deal", 2),
        item(at(3, 2), "AT&amp;T <b>deal</b>", 3),
    )
    assert [(a.id, a.headline) for a in without_repeats(articles([answer]))] == [("finnhub:1", "AT&T deal")]


def test_articles_are_cut_to_the_asked_time() -> None:
    answer = call(
        2,
        6,
        item(at(2, 23, 59, 59), "Before", 1),
        item(at(3), "First", 2),
        item(at(4, 23, 59, 59), "Last", 4),
        item(at(5), "After", 5),
    )
    assert [a.id for a in articles([answer], at(3), at(5))] == ["finnhub:2", "finnhub:4"]
    assert [a.id for a in articles([answer], start=at(4))] == ["finnhub:4", "finnhub:5"]
    assert [a.id for a in articles([answer], end=at(4))] == ["finnhub:1", "finnhub:2"]


def test_what_was_published_again_stays_until_it_is_known_which_weeks_are_in_sight() -> None:
    answer = call(2, 6, item(at(2), "Again", 1), item(at(3), "Again", 2), item(at(4), "Other", 1))
    found = articles([answer])
    assert [(a.id, a.published_at) for a in found] == [
        ("finnhub:1", at(2)),
        ("finnhub:2", at(3)),
        ("finnhub:1", at(4)),
    ]
    assert without_repeats(found) == found[:1]
    assert without_repeats(found[1:]) == found[1:]


def test_headlines_without_a_word_are_repeats_only_when_equal() -> None:
    answer = call(2, 4, item(at(3), "!", 1), item(at(3, 1), "?", 2), item(at(3, 2), "!", 3))
    assert [a.id for a in without_repeats(articles([answer]))] == ["finnhub:1", "finnhub:2"]


def test_items_of_another_form_are_left_out_and_counted() -> None:
    answer = call(
        2,
        4,
        item(at(3), "Good", 1),
        "text",
        None,
        {"id": 2, "headline": "No time"},
        {"id": 3, "headline": None, "datetime": 1772496000},
        {"headline": "No id", "datetime": 1772496000},
        {"id": 4, "headline": "Year 30000 or so", "datetime": 10**18},
    )
    assert [a.headline for a in articles([answer])] == ["Good"]
    assert malformed_articles([answer]) == 6


def test_a_symbol_the_vendor_does_not_know_has_no_articles() -> None:
    request = Request("company-news", "GONE", "2026-03-02", "2026-03-04")
    assert articles([Call(request, "unknown symbol", LATER)]) == []
    assert malformed_articles([Call(request, "unknown symbol", LATER)]) == 0
