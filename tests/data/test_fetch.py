"""What is asked of the vendors, what is recorded, and what a stopped run leaves to the next one."""

from __future__ import annotations

import math
import os
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from loopback_market import Asked, Market, Planted, World, redirected
from simulated_time import SimulatedTime

from forecaster.calls import Call, Request
from forecaster.data import news
from forecaster.data.fetch import Needs, Outcome, Shortfall, fetch
from forecaster.data.ledger import Ledger, Trace, fingerprint
from forecaster.errors import KeyRefusedError
from forecaster.vendors.base import Connection
from forecaster.vendors.finnhub import Finnhub
from forecaster.vendors.pace import Pace, StoppedError
from forecaster.vendors.registry import FINNHUB, YAHOO
from forecaster.vendors.yahoo import Yahoo

MOST = 4
"""Articles that one call gives in these tests."""
KEY = "ca+na/ry=1"
LATER = datetime(2026, 4, 1, tzinfo=UTC)


class SmallAnswers(World):
    """Finnhub with a limit of `MOST` articles."""

    def news_answer(self, symbol: str, first: date, last: date) -> list[dict[str, Any]]:
        if symbol not in self.symbols:
            return []
        found = list(islice(self.newest_first(symbol, first, last), MOST))
        return [*found, self._stray(symbol, first, last)] if self.stray_every else found


LAST_DAY = date(2026, 3, 27)
"""For which reported figures are needed."""


def at(day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    """A moment of March 2026."""
    return datetime(2026, 3, day, hour, minute, second, tzinfo=UTC)


def world(planted: Mapping[str, Sequence[datetime]], **more: Any) -> World:
    """Symbols with an article at each of some moments."""
    articles = {
        symbol: [Planted(moment, f"{symbol} makes news number {n}") for n, moment in enumerate(moments)]
        for symbol, moments in planted.items()
    }
    settings = {"articles_per_week": 0.0, "stray_every": 0} | more
    return SmallAnswers(tuple(planted), date(2026, 3, 1), date(2026, 3, 31), planted=articles, **settings)


def daily(*days: int) -> list[datetime]:
    return [at(day, 12) for day in days]


@pytest.fixture
def simulated() -> SimulatedTime:
    return SimulatedTime()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        yield ledger


@pytest.fixture
def serve() -> Iterator[Callable[[World], Market]]:
    """Starts a market; the clients of this process reach it until the test ends."""
    opened = []

    def start(world: World) -> Market:
        market = Market(world, finnhub_key=KEY)
        opened.append((market, market.__enter__(), redirected(market)))
        opened[-1][2].__enter__()
        return market

    yield start
    for market, _, clients in reversed(opened):
        clients.__exit__(None, None, None)
        market.__exit__(None, None, None)


def run(ledger: Ledger, needs: Sequence[Needs], **options: Any) -> Outcome:
    """One fetch with real clients and simulated waits."""
    simulated = SimulatedTime()
    key = options.pop("key", KEY)
    vendor = replace(
        FINNHUB,
        workers=options.pop("workers", FINNHUB.workers),
        news_per_answer=options.pop("news_per_answer", MOST),
    )
    with closing(Finnhub(key, Pace(600_000, clock=simulated.now, sleep=simulated.sleep))) as finnhub:
        yahoo = Yahoo(Pace(600_000, clock=simulated.now, sleep=simulated.sleep))
        connections = [Connection(vendor, finnhub), Connection(YAHOO, yahoo)]
        return fetch(ledger, needs, connections, **{"now": lambda: LATER} | options)


def windows(market: Market, symbol: str = "AAPL") -> list[tuple[int, int]]:
    """Days of March of the news calls for a symbol, in the order of arrival."""
    return [
        (date.fromisoformat(asked["from"]).day, date.fromisoformat(asked["to"]).day)
        for asked in market.asked("company-news")
        if asked["symbol"] == symbol
    ]


def headlines(ledger: Ledger, symbol: str = "AAPL") -> list[str]:
    return [article.headline for article in news.articles(ledger.answers("company-news", symbol))]


def numbers(ledger: Ledger, symbol: str = "AAPL") -> list[int]:
    return [int(headline.rsplit(" ", 1)[1]) for headline in headlines(ledger, symbol)]


# --- paging -----------------------------------------------------------------------------------------------


def test_news_are_paged_backward_from_the_oldest_article_received(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": daily(*range(1, 11))}))
    outcome = run(ledger, [Needs("AAPL", news=((at(1), at(11)),))])
    # 10 9 8 7 | 7 6 5 4 | 4 3 2 1 | 1, and with this the first day is known to be whole.
    assert windows(market) == [(1, 10), (1, 7), (1, 4), (1, 1)]
    assert numbers(ledger) == list(range(10))
    assert outcome == Outcome(4, (), {})


def test_an_answer_below_the_limit_ends_the_paging(ledger: Ledger, serve: Callable[[World], Market]) -> None:
    market = serve(world({"AAPL": daily(2, 5, 9)}))
    run(ledger, [Needs("AAPL", news=((at(1), at(11)),))])
    assert windows(market) == [(1, 10)]


def test_no_news_at_all_is_an_answer(ledger: Ledger, serve: Callable[[World], Market]) -> None:
    market = serve(world({"AAPL": []}))
    needs = [Needs("AAPL", news=((at(1), at(11)),))]
    run(ledger, needs)
    outcome = run(ledger, needs)
    assert windows(market) == [(1, 10)]
    assert outcome.calls == 0
    assert ledger.answers("company-news", "AAPL")[0].payload == []


def test_strays_from_outside_the_window_neither_end_the_paging_nor_count_as_news(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": daily(*range(2, 10))}, stray_every=1, seed=5))
    run(ledger, [Needs("AAPL", news=((at(1), at(11)),))])
    assert numbers(ledger) == list(range(8))
    assert windows(market) == [(1, 10), (1, 6), (1, 3)]


def test_a_day_that_exceeds_the_limit_is_flagged_and_passed(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    busy = [at(5, hour) for hour in range(1, 8)]
    market = serve(world({"AAPL": [at(3, 12), *busy, at(7, 12)]}))
    outcome = run(ledger, [Needs("AAPL", news=((at(1), at(11)),))])
    # 7th and three of the 5th | four of the 5th, which is all that one call gives | the days before.
    assert windows(market) == [(1, 10), (1, 5), (1, 4)]
    assert numbers(ledger) == [0, 4, 5, 6, 7, 8]
    assert outcome.cut_off_days == {"AAPL": (date(2026, 3, 5),)}
    assert outcome.shortfalls == ()
    # It is told again by a run that has nothing to ask.
    assert run(ledger, [Needs("AAPL", news=((at(1), at(11)),))]).cut_off_days == outcome.cut_off_days
    assert run(ledger, [Needs("AAPL", news=((at(6), at(11)),))]).cut_off_days == {}


def test_several_days_that_exceed_the_limit_each_cost_two_calls_at_most(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": [at(day, hour) for day in (3, 4, 5) for hour in range(9)]}))
    outcome = run(ledger, [Needs("AAPL", news=((at(3), at(6)),))])
    assert windows(market) == [(3, 5), (3, 4), (3, 3)]
    assert outcome.cut_off_days == {"AAPL": (date(2026, 3, 3), date(2026, 3, 4), date(2026, 3, 5))}


def test_many_articles_of_one_second_do_not_stop_the_paging(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    same = [at(5, 0, 0, 0)] * 6
    market = serve(world({"AAPL": [at(2, 12), *same, at(9, 12)]}))
    outcome = run(ledger, [Needs("AAPL", news=((at(1), at(11)),))])
    assert windows(market) == [(1, 10), (1, 5), (1, 4)]
    assert outcome.cut_off_days == {"AAPL": (date(2026, 3, 5),)}


def test_each_wanted_stretch_is_fetched_and_nothing_between_them(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": daily(*range(1, 31))}))
    run(ledger, [Needs("AAPL", news=((at(2), at(4)), (at(20, 21), at(22, 21))))])
    assert windows(market) == [(20, 22), (2, 3)]


def test_what_a_news_file_covers_is_not_asked_for(ledger: Ledger, serve: Callable[[World], Market]) -> None:
    market = serve(world({"AAPL": daily(3, 6)}))
    articles = [
        {"id": "f1", "datetime": int(at(4, 1).timestamp()), "headline": "From a file", "summary": ""},
        {"id": "f2", "datetime": int(at(5, 18).timestamp()), "headline": "Another", "summary": ""},
    ]
    request = Request("news-file", "AAPL", "2026-03-04", "2026-03-05", "0123456789abcdef")
    ledger.record(Call(request, "answered", LATER, articles, 2))
    run(ledger, [Needs("AAPL", news=((at(3), at(7)),))], files=["0123456789abcdef"])
    assert windows(market) == [(5, 6), (3, 3)]


def test_a_news_file_that_the_command_does_not_name_covers_nothing(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": daily(3, 6)}))
    article = {"id": "f1", "datetime": int(at(4, 1).timestamp()), "headline": "From a file", "summary": ""}
    request = Request("news-file", "AAPL", "2026-03-04", "2026-03-04", "0123456789abcdef")
    ledger.record(Call(request, "answered", LATER, [article], 1))
    run(ledger, [Needs("AAPL", news=((at(3), at(7)),))])
    assert windows(market) == [(3, 6)]


# --- extending --------------------------------------------------------------------------------------------


def test_the_evening_of_the_last_day_is_asked_for_again_when_the_range_grows(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": [at(4, 12), at(4, 20), at(6, 12)]}))
    run(ledger, [Needs("AAPL", news=((at(2), at(4, 17)),))], now=lambda: at(4, 17, 30))
    run(ledger, [Needs("AAPL", news=((at(2), at(6, 17)),))], now=lambda: at(6, 17, 30))
    assert windows(market) == [(2, 4), (4, 6)]
    assert numbers(ledger) == [0, 1, 2]


def test_the_evening_of_a_day_asked_for_alone_is_asked_for_again(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": [at(4, 12), at(4, 20)]}))
    run(ledger, [Needs("AAPL", news=((at(4), at(4, 17)),))], now=lambda: at(4, 17, 30))
    run(ledger, [Needs("AAPL", news=((at(4), at(5)),))], now=lambda: at(5, 9))
    outcome = run(ledger, [Needs("AAPL", news=((at(4), at(5)),))], now=lambda: at(5, 10))
    assert windows(market) == [(4, 4), (4, 4)]
    assert [call.request.variant for call in ledger.answers("company-news", "AAPL")] == ["", "2"]
    assert outcome == Outcome(0, (), {})


def test_an_earlier_start_asks_for_the_earlier_days_only(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": daily(3, 8)}))
    run(ledger, [Needs("AAPL", news=((at(6), at(11)),))])
    run(ledger, [Needs("AAPL", news=((at(2), at(11)),))])
    assert windows(market) == [(6, 10), (2, 5)]


def test_the_future_is_not_asked_for(ledger: Ledger, serve: Callable[[World], Market]) -> None:
    market = serve(world({"AAPL": daily(3)}))
    outcome = run(ledger, [Needs("AAPL", news=((at(2), at(30)),))], now=lambda: at(4, 9, 30))
    assert windows(market) == [(2, 4)]
    assert outcome == Outcome(1, (), {})


def test_a_clock_that_was_set_back_does_not_keep_a_run_from_ending(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": daily(3)}))
    moments = iter([at(10), *[at(5, 12)] * 9])
    outcome = run(ledger, [Needs("AAPL", news=((at(2), at(10)),))], now=lambda: next(moments))
    assert windows(market) == [(2, 9), (5, 9)]
    found = "no answer covers 2026-03-05 12:00 to 2026-03-10 00:00 UTC"
    assert outcome.shortfalls == (Shortfall("AAPL", "company-news", "failed", found),)


# --- resuming ---------------------------------------------------------------------------------------------

RESUMED = [
    Needs(
        symbol,
        news=((at(1), at(11)),),
        prices=(date(2026, 2, 2), date(2026, 3, 13)),
        profile=True,
        financials=LAST_DAY,
    )
    for symbol in ("AAPL", "MSFT", "GONE")
]
RESUMED_WORLD = {"AAPL": daily(*range(1, 11)), "MSFT": [at(5, hour) for hour in range(9)], "INTC": []}


def asked_by_symbol(market: Market) -> dict[str, list[Asked]]:
    """Everything that Finnhub was asked, and the bars that Yahoo was asked for."""
    found: dict[str, list[Asked]] = {}
    for asked in market.log:
        if asked.face == "finnhub" or (asked.endpoint == "chart" and asked["period1"]):
            vendor = "" if asked.face == "finnhub" else "prices of "
            found.setdefault(vendor + asked["symbol"], []).append(asked)
    return found


def everything(ledger: Ledger) -> str:
    endpoints = ("company-news", "profile", "basic-financials", "filings", "daily-bars")
    return fingerprint(
        Trace.of(call)
        for need in RESUMED
        for endpoint in endpoints
        for call in ledger.answers(endpoint, need.symbol)
    )


def test_a_run_stopped_after_any_number_of_calls_goes_on_and_asks_nothing_twice(
    tmp_path: Path, serve: Callable[[World], Market]
) -> None:
    market = serve(world(RESUMED_WORLD))
    with closing(Ledger(tmp_path / "whole.sqlite")) as ledger:
        whole = run(ledger, RESUMED, workers=3)
        expected, contents = asked_by_symbol(market), everything(ledger)
    assert whole.calls == 23

    for stop_after in range(1, whole.calls + 1):
        market.log.clear()
        calls = 0

        def stop() -> None:
            nonlocal calls
            calls += 1
            if calls == stop_after:  # noqa: B023
                raise KeyboardInterrupt

        with closing(Ledger(tmp_path / f"{stop_after}.sqlite")) as ledger:
            with pytest.raises(KeyboardInterrupt):
                run(ledger, RESUMED, workers=3, on_call=stop)
            resumed = run(ledger, RESUMED, workers=3)
            assert resumed.calls < whole.calls
            assert asked_by_symbol(market) == expected
            assert everything(ledger) == contents
            assert (resumed.shortfalls, resumed.cut_off_days) == (whole.shortfalls, whole.cut_off_days)


def test_a_ctrl_c_ends_the_waits_of_all_threads(ledger: Ledger, serve: Callable[[World], Market]) -> None:
    market = serve(world({"AAPL": [], "MSFT": []}))
    with closing(Finnhub(KEY, Pace(1))) as finnhub:  # a minute before each call
        ctrl_c = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
        ctrl_c.start()
        with pytest.raises(KeyboardInterrupt):
            fetch(
                ledger,
                [Needs(symbol, profile=True) for symbol in ("AAPL", "MSFT")],
                [Connection(FINNHUB, finnhub)],
            )
        with pytest.raises(StoppedError):
            finnhub.pace.take()
    assert market.log == []


def test_every_recorded_call_is_reported(ledger: Ledger, serve: Callable[[World], Market]) -> None:
    serve(world(RESUMED_WORLD))
    reported = []
    outcome = run(ledger, RESUMED, on_call=lambda: reported.append(1))
    assert len(reported) == outcome.calls == 23
    assert run(ledger, RESUMED).calls == 0


def test_the_answers_have_the_agreed_counts(ledger: Ledger, serve: Callable[[World], Market]) -> None:
    serve(world(RESUMED_WORLD))
    run(ledger, RESUMED)
    counts = {
        endpoint: [call.count for call in ledger.answers(endpoint, "MSFT")]
        for endpoint in ("company-news", "profile", "basic-financials", "filings", "daily-bars")
    }
    assert counts == {
        "company-news": [0, 4, 4],
        "profile": [1],
        "basic-financials": [28],
        "filings": [2, 6],
        "daily-bars": [29],
    }


# --- what goes wrong --------------------------------------------------------------------------------------

WANTED = ((at(1), at(11)),)


@pytest.mark.parametrize(
    "kind",
    ["429", "429 with Retry-After", "500", "truncated JSON", "wrong content type", "reset"],
)
def test_passing_faults_change_neither_the_answers_nor_the_count(
    ledger: Ledger, serve: Callable[[World], Market], kind: Any
) -> None:
    market = serve(world({"AAPL": daily(*range(1, 11))}))
    market.faults.add(kind, None, tries=2, when=lambda asked: asked.face == "finnhub")
    outcome = run(ledger, [Needs("AAPL", news=WANTED, profile=True, financials=LAST_DAY)])
    assert outcome == Outcome(8, (), {})
    assert numbers(ledger) == list(range(10))
    assert market.faults.shown[kind] == 16


def test_a_symbol_that_cannot_be_had_is_told_and_stops_no_other(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": daily(3), "MSFT": daily(4)}, no_access=frozenset({"stock/metric"})))
    market.faults.add("500", tries=math.inf, when=lambda asked: asked["symbol"] == "AAPL")
    needs = [Needs(symbol, news=WANTED, financials=LAST_DAY) for symbol in ("AAPL", "MSFT")]
    outcome = run(ledger, needs)
    no_access = "Finnhub: not part of the plan that the key belongs to (HTTP 403)."
    unreachable = "Finnhub: no usable answer in 7 tries, in the last one HTTP 500."
    assert outcome.shortfalls == (
        Shortfall("AAPL", "basic-financials", "no access", no_access),
        Shortfall("AAPL", "company-news", "failed", unreachable),
        Shortfall("MSFT", "basic-financials", "no access", no_access),
    )
    assert numbers(ledger, "MSFT") == [0]
    assert ledger.failures() == 3
    # A failure is no answer: the next run asks again, and only for what is not there.
    market.faults.clear()
    market.log.clear()
    assert run(ledger, needs).calls == 3
    assert [(asked.endpoint, asked["symbol"]) for asked in market.log if asked["symbol"] == "MSFT"] == [
        ("stock/metric", "MSFT")
    ]
    assert numbers(ledger, "AAPL") == [0]


def test_a_symbol_nobody_knows_is_told_and_not_asked_for_again(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": []}))
    needs = [Needs("GONE", prices=(date(2026, 3, 2), date(2026, 3, 6)), profile=True)]
    first = run(ledger, needs)
    found = "the vendor does not know this symbol, or no longer serves it"
    assert first.shortfalls == (
        Shortfall("GONE", "daily-bars", "unknown symbol", found),
        Shortfall("GONE", "profile", "unknown symbol", found),
    )
    (bars,) = ledger.answers("daily-bars", "GONE")
    assert (bars.status, bars.payload, bars.count) == ("unknown symbol", None, 0)
    market.log.clear()
    assert run(ledger, needs).shortfalls == first.shortfalls
    assert market.log == []


def test_a_refused_key_ends_everything_at_once(ledger: Ledger, serve: Callable[[World], Market]) -> None:
    market = serve(world({"AAPL": [], "MSFT": []}))
    needs = [Needs(f"S{number}", news=WANTED, profile=True, financials=LAST_DAY) for number in range(50)]
    with pytest.raises(KeyRefusedError):
        run(ledger, needs, key="wrong", workers=4)
    assert 1 <= len(market.asked("stock/profile2")) <= 8
    assert len(market.log) == len(market.asked("stock/profile2"))
    assert ledger.failures() == 0


def test_prices_have_a_thread_of_their_own(ledger: Ledger, serve: Callable[[World], Market]) -> None:
    market = serve(world({f"S{number}": daily(3) for number in range(6)}))
    market.latency_s = 0.02
    needs = [
        Needs(symbol, news=WANTED, prices=(date(2026, 3, 2), date(2026, 3, 6)))
        for symbol in market.world.symbols
    ]
    assert run(ledger, needs, workers=3).calls == 12
    assert market.most_in_flight["yahoo"] == 1
    assert 1 < market.most_in_flight["finnhub"] <= 3


def test_a_symbol_needed_twice_is_a_mistake(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="twice"):
        fetch(ledger, [Needs("AAPL"), Needs("AAPL")], [])


def test_a_vendor_that_is_not_there_must_not_be_needed(ledger: Ledger) -> None:
    assert fetch(ledger, [Needs("AAPL")], []) == Outcome(0, (), {})
    with pytest.raises(ValueError, match="Finnhub"):
        fetch(ledger, [Needs("AAPL", profile=True)], [])
    with pytest.raises(ValueError, match="Yahoo"):
        fetch(ledger, [Needs("AAPL", prices=(date(2026, 3, 2), date(2026, 3, 6)))], [])


def test_the_key_is_nowhere_in_the_ledger(tmp_path: Path, serve: Callable[[World], Market]) -> None:
    market = serve(world({"AAPL": daily(3)}))
    market.faults.add("reset", tries=math.inf)
    market.faults.add("500", "stock/profile2", tries=math.inf)
    path = tmp_path / "ledger.sqlite"
    with closing(Ledger(path)) as ledger:
        outcome = run(ledger, [Needs("AAPL", news=WANTED, profile=True, financials=LAST_DAY)])
        assert ledger.failures() == 2
        payloads = [row[0] for row in ledger._connection.execute("SELECT payload FROM calls")]
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    written += b"".join(map(zlib.decompress, payloads)) + repr(outcome).encode()
    assert b"a broken connection" in written
    assert not [s for s in (KEY, "ca%2Bna%2Fry%3D1", "ca%2Bna/ry=1") if s.encode() in written]


# --- at full size -----------------------------------------------------------------------------------------


def test_no_article_is_missing_at_the_real_limit(ledger: Ledger, serve: Callable[[World], Market]) -> None:
    market = serve(
        World(
            ("BUSY", "CALM"),
            date(2026, 2, 2),
            date(2026, 3, 1),
            rates={"BUSY": 700.0, "CALM": 30.0},
            stray_every=3,
        )
    )
    wanted = ((datetime(2026, 2, 2, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),)
    outcome = run(
        ledger,
        [Needs(symbol, news=wanted) for symbol in ("BUSY", "CALM")],
        news_per_answer=FINNHUB.news_per_answer,
    )
    assert outcome.cut_off_days == {}
    for symbol in ("BUSY", "CALM"):
        received = {item["id"] for call in ledger.answers("company-news", symbol) for item in call.payload}
        assert market.world.article_ids(symbol) <= received
        assert news.covered_spans(ledger.answers("company-news", symbol)) == list(wanted)
    assert len(windows(market, "CALM")) == 1


def test_reported_figures_are_asked_for_again_when_later_weeks_need_them(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    market = serve(world({"AAPL": []}))
    assert run(ledger, [Needs("AAPL", financials=LAST_DAY)]).calls == 3
    assert run(ledger, [Needs("AAPL", financials=date(2026, 1, 30))]).calls == 0
    assert run(ledger, [Needs("AAPL", financials=date(2026, 6, 26))]).calls == 3
    assert market.counts()["stock/financials-reported"] == 4


def test_closes_are_asked_for_again_until_the_last_of_them_is_there(
    ledger: Ledger, serve: Callable[[World], Market]
) -> None:
    serve(world({"AAPL": []}, last_bars={"AAPL": date(2026, 3, 26)}))
    needs = [Needs("AAPL", prices=(date(2026, 3, 2), date(2026, 3, 27)))]
    friday, saturday, next_week = (
        datetime(2026, m, d, 22, tzinfo=UTC) for m, d in ((3, 27), (3, 28), (4, 6))
    )
    for moment, calls in ((friday, 1), (saturday, 1), (next_week, 1), (next_week, 0)):
        assert run(ledger, needs, now=lambda moment=moment: moment).calls == calls
    assert [call.request.variant for call in ledger.answers("daily-bars", "AAPL")] == ["", "2", "3"]
