"""News calls of a few symbols, counted: the small twin of bench/news_calls.py."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from loopback_market import World

from bench.news_calls import MEASURED, draw_rates, measure, nasdaq_world, run

START, END = datetime(2026, 1, 2, 21, tzinfo=UTC), datetime(2026, 2, 27, 21, tzinfo=UTC)


def test_paging_takes_fewer_calls_than_weekly_windows_and_misses_nothing() -> None:
    world = nasdaq_world(("AAPL", "CSX", "MSFT", "PEP"), START, END, seed=1, mean=300)
    result = run(world, START, END)
    assert result.articles == 9972
    assert (result.news_calls, result.weekly_window_calls) == (53, 62)
    assert (result.missing, result.flagged_days) == (0, 0)
    assert result.over_rate_limit == pytest.approx(1)


def test_what_is_missing_is_on_flagged_days() -> None:
    world = World(("BUSY",), date(2026, 1, 5), date(2026, 1, 16), rates={"BUSY": [1500, 700]})
    result = run(world, START, END)
    assert result.articles == 2062
    assert (result.news_calls, result.flagged_days) == (10, 5)
    assert (result.missing, result.missing_on_flagged_days) == (0, 142)


def test_rates_have_the_mean_that_was_asked_for() -> None:
    rates = draw_rates(("AAPL", "CSX", "PEP"), weeks=4, seed=3, mean=250)
    assert sum(sum(found) for found in rates.values()) == pytest.approx(250 * 12)
    assert [round(rate) for rate in rates["AAPL"]] == [130, 803, 803, 281]


def test_the_committed_rates_are_those_of_the_dumps(real_data: Path) -> None:
    assert measure(real_data / "finnhub_news") == MEASURED
