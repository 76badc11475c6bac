"""Forecasts from closes alone: what they know, and that they know nothing of what comes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pytest
import scipy.stats

from forecaster.evaluation.price_forecasts import NORMAL, SCALED, price_forecasts
from forecaster.records import Label, Row
from forecaster.tasks.distributions import Distribution, log_score

FIRST = date(2024, 1, 1)
SESSIONS = [day for day in (FIRST + timedelta(n) for n in range(1400)) if day.weekday() < 5]


def closes_of(daily_pct: np.ndarray) -> dict[date, Decimal]:
    prices = 100 * np.cumprod(1 + daily_pct / 100)
    return {day: Decimal(f"{price:.6f}") for day, price in zip(SESSIONS, prices, strict=False)}


@pytest.fixture
def market() -> dict[str, dict[date, Decimal]]:
    rng = np.random.default_rng(0)
    return {
        name: closes_of(rng.normal(0, daily, size=len(SESSIONS)))
        for name, daily in (("CALM", 0.5), ("WILD", 3.0))
    }


def row(symbol: str, start: date) -> Row:
    label = Label("up", 0)
    return Row("", symbol, start, start + timedelta(7), label, prompt="", reference="")


def test_a_wild_stock_may_go_far_and_a_calm_one_stays(market: Mapping[str, Mapping[date, Decimal]]) -> None:
    start = SESSIONS[-10]
    for forecasts in price_forecasts([row("CALM", start), row("WILD", start)], market.get).values():
        calm, wild = forecasts
        assert calm and wild
        within_one = slice(5, 7)
        assert sum(calm.shares[within_one]) > 0.4 > 0.25 > sum(wild.shares[within_one])
        assert wild.shares[0] + wild.shares[-1] > 0.25
        assert calm.up == pytest.approx(0.5, abs=0.1)


def test_the_normal_one_is_the_ewma_of_squared_returns(market: Mapping[str, Mapping[date, Decimal]]) -> None:
    at = 200
    (found,) = price_forecasts([row("CALM", SESSIONS[at])], market.get)[NORMAL]
    prices = np.array([float(price) for price in list(market["CALM"].values())[: at + 1]])
    squared = np.diff(np.log(prices)) ** 2
    weights = 0.94 ** np.arange(len(squared))[::-1]
    deviation = 100 * np.sqrt(5 * (weights * squared).sum() / weights.sum())
    assert found
    assert found.shares[6] == pytest.approx(scipy.stats.norm.cdf(1 / deviation) - 0.5)
    assert found.shares[0] == pytest.approx(scipy.stats.norm.cdf(-5 / deviation))


def test_what_comes_after_a_rows_first_day_changes_nothing(
    market: Mapping[str, Mapping[date, Decimal]],
) -> None:
    start = SESSIONS[-100]
    known = {name: {d: p for d, p in of.items() if d <= start} for name, of in market.items()}
    rows = [row("CALM", start), row("WILD", start)]
    assert price_forecasts(rows, market.get) == price_forecasts(rows, known.get)


def test_a_day_without_a_session_takes_the_last_close_before_it(
    market: Mapping[str, Mapping[date, Decimal]],
) -> None:
    friday = next(day for day in SESSIONS[700:] if day.weekday() == 4)
    found = price_forecasts([row("WILD", friday), row("WILD", friday + timedelta(2))], market.get)
    for forecasts in found.values():
        assert forecasts[0] == forecasts[1] is not None


def test_too_few_closes_are_no_forecast(market: Mapping[str, Mapping[date, Decimal]]) -> None:
    early = price_forecasts(
        [row("CALM", SESSIONS[20]), row("NONE", SESSIONS[300]), row("CALM", date(2020, 1, 1))], market.get
    )
    assert early == {NORMAL: [None, None, None], SCALED: [None, None, None]}
    assert price_forecasts([row("CALM", SESSIONS[300])], lambda _: None) == {NORMAL: [None], SCALED: [None]}


def test_moves_at_an_edge_belong_to_the_bin_that_their_label_has() -> None:
    from forecaster.evaluation.price_forecasts import _empirical

    moves = np.array([-5.0, -1.0, 0.0, 1.0, 5.0])
    found = _empirical(moves)
    counts = [round(share * (5 + 12)) - 1 for share in found.shares]
    assert sum(counts) == 5
    for move in moves:
        label = Label.between(Decimal(100), Decimal(100) + Decimal(str(move)))
        assert log_score(found, label) > log_score(found, Label("up", 3))


def test_a_distribution_is_one(market: Mapping[str, Mapping[date, Decimal]]) -> None:
    for forecasts in price_forecasts([row("WILD", SESSIONS[-10])], market.get).values():
        assert isinstance(forecasts[0], Distribution)
