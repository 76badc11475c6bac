"""The plan: what a dataset will cost, in numbers that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from forecaster.data.costs import CostEstimate, NewsCost, news_cost, prompt_chars, render_plan

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
YEAR_AGO = NOW - timedelta(days=365)
FREE_TIER = "The free plan serves about 365 days of news: "


def span(start: datetime, days: float) -> tuple[datetime, datetime]:
    return start, start + timedelta(days=days)


# --- calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "calls"),
    [
        (0.5, 1),
        (7, 1),  # 100 articles
        (15, 1),  # 214.3 articles, and a call brings 215
        (15.1, 2),  # 215.7
        (28, 2),  # 400
        (364, 25),  # 5200
    ],
)
def test_a_span_takes_one_call_for_each_full_answer(days: float, calls: int) -> None:
    assert news_cost([[span(YEAR_AGO, days)]], NOW).calls == calls


def test_spans_and_symbols_add_up_and_what_is_covered_costs_nothing() -> None:
    gaps = [[span(YEAR_AGO, 28), span(YEAR_AGO + timedelta(days=60), 7)], [], [span(YEAR_AGO, 1.25)]]
    assert news_cost(gaps, NOW) == NewsCost(calls=2 + 1 + 1, days=28 + 7 + 2, days_before_free_tier=0)
    assert news_cost([[], []], NOW) == NewsCost(0, 0, 0)


@pytest.mark.parametrize(
    ("start", "days", "before"),
    [
        (YEAR_AGO, 100, 0),
        (YEAR_AGO - timedelta(hours=1), 100, 1),
        (YEAR_AGO - timedelta(days=10), 100, 10),
        (YEAR_AGO - timedelta(days=200), 100, 100),
        (YEAR_AGO - timedelta(days=100), 100, 100),
    ],
)
def test_days_more_than_a_year_back_are_counted(start: datetime, days: int, before: int) -> None:
    cost = news_cost([[span(start, days)]], NOW)
    assert (cost.days, cost.days_before_free_tier) == (100, before)
    assert cost.share_before_free_tier == before / 100


def test_the_share_of_nothing_is_nothing() -> None:
    assert NewsCost(0, 0, 0).share_before_free_tier == 0.0


def test_a_prompt_grows_with_its_weeks() -> None:
    assert [prompt_chars(weeks) for weeks in (1, 4, 8)] == [1_950, 6_000, 11_400]


# --- text ---------------------------------------------------------------------------------------------------

PLAN = CostEstimate(
    symbols=101,
    weeks=[date(2025, 12, 5), date(2025, 12, 12), date(2026, 5, 1)],
    symbol_weeks=1_700,
    train_weeks=12,
    test_weeks=5,
    gap_weeks=4,
    news=NewsCost(calls=1_190, days=15_000, days_before_free_tier=0),
    other_calls=404,
    price_calls=101,
    calls_per_minute=60,
    teacher="gpt-4o-mini",
    input_tokens=2_741_250,
    output_tokens=839_375,
    cost_usd=0.914,
    max_cost_usd=2.0,
    notes=["Renamed: FB is META today."],
)


def test_the_plan_as_text() -> None:
    assert render_plan(PLAN) == (
        "101 symbols, 1700 symbol-weeks to forecast; weeks ending 2025-12-05 to 2026-05-01\n"
        "training 12 weeks, a gap of 4, then test 5 weeks\n"
        "Finnhub: about 1190 news calls and 404 others still to make, about 27 minutes at 60 a minute\n"
        "Yahoo: 101 price calls still to make\n"
        "teacher: gpt-4o-mini, about 2.7 M tokens in and 839 k out, about $0.91, stopped before $2.00\n"
        "disk: about 122 MB\n"
        "Renamed: FB is META today."
    )


def test_where_all_is_there_only_the_teacher_is_left() -> None:
    plan = replace(
        PLAN,
        news=NewsCost(0, 0, 0),
        other_calls=0,
        price_calls=0,
        cost_usd=None,
        max_cost_usd=None,
        notes=[],
    )
    assert render_plan(plan).splitlines()[2:] == [
        "Finnhub: nothing to fetch",
        "Yahoo: 0 price calls still to make",
        "teacher: gpt-4o-mini, about 2.7 M tokens in and 839 k out, cost unknown (give the two "
        "--..._usd_per_million_tokens)",
        "disk: about 68 MB",
    ]


def test_a_known_cost_without_a_limit_and_a_template_without_a_cost() -> None:
    without_limit = render_plan(replace(PLAN, max_cost_usd=None, cost_usd=12.0))
    assert "and 839 k out, about $12.00\n" in without_limit
    assert "\nteacher: template, no tokens\n" in render_plan(replace(PLAN, teacher="template"))


@pytest.mark.parametrize(
    ("calls", "calls_per_minute", "said"),
    [
        (59, 60, "under a minute at 60 a minute"),
        (60, 60, "about a minute at 60 a minute"),
        (89, 60, "about a minute at 60 a minute"),
        (90, 60, "about 2 minutes at 60 a minute"),
        (2_400, 60, "about 40 minutes at 60 a minute"),
        (2_400, 300, "about 8 minutes at 300 a minute"),
    ],
)
def test_minutes_are_calls_at_the_allowed_pace(calls: int, calls_per_minute: int, said: str) -> None:
    plan = replace(PLAN, news=NewsCost(calls - 9, 1, 0), other_calls=9, calls_per_minute=calls_per_minute)
    assert plan.minutes == calls / calls_per_minute
    assert f"others still to make, {said}\n" in render_plan(plan)


@pytest.mark.parametrize(
    ("days_before", "calls_per_minute", "share"),
    [(0, 60, None), (1, 61, None), (7_500, 300, None), (7_500, 60, "50%"), (15_000, 30, "100%")],
)
def test_the_free_plan_is_mentioned_exactly_when_it_does_not_reach_back_far_enough(
    days_before: int, calls_per_minute: int, share: str | None
) -> None:
    news = NewsCost(1_190, 15_000, days_before)
    text = render_plan(replace(PLAN, news=news, calls_per_minute=calls_per_minute))
    line = (
        f"{FREE_TIER}{share} of what is asked lies before that and will come back empty. Start later, or "
        "bring it with --news_file."
    )
    assert (line in text.splitlines()) == (share is not None)
    assert (FREE_TIER in text) == (share is not None)
