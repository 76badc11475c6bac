"""The real yfinance against charts on the loopback interface."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from loopback_market import Market, World, redirected
from simulated_time import SimulatedTime

from forecaster.errors import UnknownSymbolError, UnreachableError
from forecaster.vendors.pace import Pace, StoppedError
from forecaster.vendors.yahoo import Yahoo

CLOSES = {
    date(2026, 1, 30): 400.0,
    date(2026, 2, 2): 100.5,
    date(2026, 2, 3): None,
    date(2026, 2, 4): 102.25,
    date(2026, 2, 5): 101.0,
    date(2026, 2, 6): 99.75,
    date(2026, 2, 9): 98.5,
}
WORLD = World(
    ("AAPL", "GONE", "BTC-USD", "BRK-B", "SAP.DE"),
    date(2026, 2, 2),
    date(2026, 3, 31),
    closes={"AAPL": CLOSES, "BTC-USD": {date(2026, 2, 7): 70_000.5}},
    splits={"AAPL": {date(2026, 2, 5): 4, date(2026, 3, 16): 2, date(2026, 1, 12): 3}},
    dividends={"AAPL": {date(2026, 2, 9): 0.25}},
    dead=frozenset({"GONE"}),
)


@pytest.fixture
def market() -> Iterator[Market]:
    with Market(WORLD) as market, redirected(market):
        yield market


@pytest.fixture
def simulated() -> SimulatedTime:
    return SimulatedTime()


@pytest.fixture
def yahoo(market: Market, simulated: SimulatedTime) -> Yahoo:
    return Yahoo(Pace(60_000, clock=simulated.now, sleep=simulated.sleep))


def week(yahoo: Yahoo, symbol: str = "AAPL") -> dict[str, Any]:
    return yahoo.daily_bars(symbol, date(2026, 2, 2), date(2026, 2, 6))


def backoffs(simulated: SimulatedTime) -> list[float]:
    return [wait for wait in simulated.waits if wait >= 0.5]


def test_bars_of_both_ends_are_there_and_a_bar_of_nulls_is_a_missing_day(yahoo: Yahoo) -> None:
    answer = week(yahoo)
    assert [(bar["day"], bar["close"]) for bar in answer["bars"]] == [
        ("2026-02-02", "100.5"),
        ("2026-02-04", "102.25"),
        ("2026-02-05", "101.0"),
        ("2026-02-06", "99.75"),
    ]
    assert answer["missing_days"] == ["2026-02-03"]


def test_adjusted_closes_know_a_dividend_after_the_window(yahoo: Yahoo) -> None:
    adjusted = [float(bar["adj_close"]) for bar in week(yahoo)["bars"]]
    factor = 1 - 0.25 / 99.75
    expected = [close * factor for close in (100.5, 102.25, 101.0, 99.75)]
    assert adjusted == pytest.approx(expected, rel=1e-6)


def test_splits_in_and_after_the_window_are_known_and_earlier_ones_are_not(yahoo: Yahoo) -> None:
    assert week(yahoo)["splits"] == [
        {"day": "2026-02-05", "ratio": "4.0"},
        {"day": "2026-03-16", "ratio": "2.0"},
    ]


def test_prices_are_text_that_gives_the_same_float_again(yahoo: Yahoo) -> None:
    answer = yahoo.daily_bars("AAPL", date(2026, 2, 10), date(2026, 2, 27))
    numbers = [bar[name] for bar in answer["bars"] for name in ("close", "adj_close")]
    assert len(numbers) == 26  # Presidents' Day is no session
    assert all(repr(float(number)) == number and math.isfinite(float(number)) for number in numbers)


def test_a_coin_has_prices_on_a_saturday(yahoo: Yahoo) -> None:
    answer = yahoo.daily_bars("BTC-USD", date(2026, 2, 7), date(2026, 2, 7))
    assert answer["bars"] == [{"day": "2026-02-07", "close": "70000.5", "adj_close": "70000.5"}]


@pytest.mark.parametrize(("symbol", "asked"), [("BRK.B", "BRK-B"), ("SAP.DE", "SAP.DE")])
def test_the_dot_of_an_american_share_class_is_a_dash_for_yahoo(
    yahoo: Yahoo, market: Market, symbol: str, asked: str
) -> None:
    assert week(yahoo, symbol)["bars"]
    assert {request["symbol"] for request in market.log if request.endpoint == "chart"} == {asked}


def test_a_window_before_the_first_bar_has_none(yahoo: Yahoo) -> None:
    answer = yahoo.daily_bars("AAPL", date(2020, 1, 6), date(2020, 1, 10))
    assert answer["bars"] == []
    assert answer["missing_days"] == []


def test_a_symbol_that_yahoo_no_longer_serves_is_unknown_after_a_second_look(
    yahoo: Yahoo, market: Market, simulated: SimulatedTime
) -> None:
    with pytest.raises(UnknownSymbolError):
        week(yahoo, "GONE")
    assert backoffs(simulated) == [5.0]
    assert yahoo.pace.taken == 2


def test_one_answer_that_looks_like_a_delisting_is_not_believed(
    yahoo: Yahoo, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = iter([False, False])
    monkeypatch.setattr(World, "is_priced", lambda world, symbol: next(served, True))
    assert len(week(yahoo)["bars"]) == 4
    assert yahoo.pace.taken == 2


@pytest.mark.parametrize(
    ("kind", "tries", "wait_s"),
    [
        ("429", 2, 60.0),
        ("500", 2, 4.0),
        ("truncated JSON", 1, 4.0),
        ("wrong content type", 1, 4.0),
        ("reset", 1, 4.0),
        ("empty list", 1, 5.0),  # yfinance takes it for a delisting
    ],
)
def test_a_passing_fault_is_tried_again(
    yahoo: Yahoo, market: Market, simulated: SimulatedTime, kind: Any, tries: int, wait_s: float
) -> None:
    # yfinance itself repeats what ends with a status of 400 or more, once, at once.
    market.faults.add(kind, "chart", tries=tries, when=lambda asked: bool(asked["period1"]))
    assert len(week(yahoo)["bars"]) == 4
    assert backoffs(simulated) == [wait_s]
    assert market.faults.shown[kind] == tries


def test_a_fault_of_the_time_zone_look_up_is_not_remembered(yahoo: Yahoo, market: Market) -> None:
    market.faults.add("500", "chart", tries=2, when=lambda asked: not asked["period1"])
    assert len(week(yahoo)["bars"]) == 4
    assert market.faults.shown["500"] == 2


def test_a_rate_limit_that_stays_makes_yahoo_unreachable(
    yahoo: Yahoo, market: Market, simulated: SimulatedTime
) -> None:
    market.faults.add("429", "chart", tries=math.inf)
    with pytest.raises(UnreachableError) as caught:
        week(yahoo)
    assert str(caught.value) == (
        "Yahoo: no usable answer in 5 tries, in the last one a rate limit (HTTP 429)."
    )
    assert backoffs(simulated) == [60.0, 120.0, 240.0, 480.0]


def test_a_stop_ends_the_minutes_of_waiting(market: Market) -> None:
    pace = Pace(60_000)
    yahoo = Yahoo(pace)

    def concerned_and_stopped(_: object) -> bool:
        pace.stop()
        return True

    market.faults.add("429", "chart", tries=math.inf, when=concerned_and_stopped)
    with pytest.raises(StoppedError):
        week(yahoo)


def test_yfinance_logs_nothing_of_what_is_raised(
    yahoo: Yahoo, market: Market, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UnknownSymbolError):
        week(yahoo, "GONE")
    assert [record for record in caplog.records if record.name.startswith("yfinance")] == []
