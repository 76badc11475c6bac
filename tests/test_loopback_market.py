"""The loopback market through the vendors' real clients: what other tests build on."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from fractions import Fraction
from typing import Any

import finnhub
import openai
import pytest
import requests
import yfinance
from edge.sitecustomize import rewritten
from loopback_market import (
    ADVERTISING,
    CHAT,
    FINNHUB_KEY,
    MODEL,
    FaultKind,
    Market,
    Planted,
    World,
    redirected,
)
from processes import run
from yfinance.exceptions import YFPricesMissingError, YFRateLimitError, YFTzMissingError

WORLD = World(
    ("AAPL", "BUSY", "GONE", "SAP.DE", "BTC-USD"),
    first_day=date(2026, 1, 1),
    last_day=date(2026, 4, 30),
    articles_per_week=60,
    rates={"BUSY": [3000, 300]},
    planted={
        "AAPL": [Planted(datetime(2026, 1, 10, 12, 0, tzinfo=UTC), "A weekend headline", "Its summary")]
    },
    stray_every=0,
    dead=frozenset({"GONE"}),
    no_access=frozenset({"BUSY"}),
    closes={"AAPL": {date(2026, 1, 8): 400.0, date(2026, 1, 9): None, date(2026, 1, 12): 101.37}},
    splits={"AAPL": {date(2026, 2, 10): 4, date(2026, 2, 12): Fraction(3, 2)}},
    dividends={"AAPL": {date(2026, 1, 12): 4.0}},
    accepted={"AAPL": {date(2025, 6, 30): None, date(2025, 9, 30): datetime(2025, 12, 24, 17, 30)}},
)


@pytest.fixture
def market() -> Iterator[Market]:
    with Market(WORLD) as market, redirected(market):
        yield market


@pytest.fixture
def vendor(market: Market) -> Iterator[finnhub.Client]:
    with finnhub.Client(api_key=FINNHUB_KEY) as client:
        yield client


def moments(articles: list[dict[str, Any]]) -> list[datetime]:
    return [datetime.fromtimestamp(article["datetime"], UTC) for article in articles]


# --- Finnhub ------------------------------------------------------------------------------------------------


def test_news_of_utc_days_comes_newest_first_and_is_the_same_each_time(vendor: finnhub.Client) -> None:
    articles = vendor.company_news("AAPL", _from="2026-01-08", to="2026-01-12")
    assert articles == vendor.company_news("AAPL", _from="2026-01-08", to="2026-01-12")
    assert [article["id"] for article in reversed(articles)] == [
        article["id"] for day in range(8, 13) for article in WORLD.articles("AAPL", date(2026, 1, day))
    ]
    assert moments(articles) == sorted(moments(articles), reverse=True)
    assert {moment.date().day for moment in moments(articles)} == {8, 9, 10, 11, 12}
    planted = next(article for article in articles if article["headline"] == "A weekend headline")
    assert planted == {
        "category": "company",
        "datetime": 1768046400,
        "headline": "A weekend headline",
        "id": 1_500_000_000,
        "image": "",
        "related": "AAPL",
        "source": "Planted",
        "summary": "Its summary",
        "url": "https://finnhub.io/api/news?id=1500000000",
    }


def test_an_answer_is_cut_off_at_its_old_end() -> None:
    first, last = date(2026, 1, 1), date(2026, 4, 30)
    answer = WORLD.news_answer("AAPL", first, last)
    everything = list(WORLD.newest_first("AAPL", first, last))
    assert len(everything) == 1026
    assert len(answer) == 241
    assert {article["id"] for article in answer} == {article["id"] for article in everything[:241]}
    limits = {len(WORLD.news_answer("AAPL", date(2026, 1, day), last)) for day in range(1, 31)}
    assert min(limits) >= 230 and max(limits) <= 250 and len(limits) > 5


def test_the_rate_may_change_from_week_to_week() -> None:
    assert len(WORLD.articles("BUSY", date(2026, 1, 5))) == 533
    assert len(WORLD.articles("BUSY", date(2026, 1, 12))) == 42
    assert WORLD.articles("BUSY", date(2025, 12, 31)) == []


def test_generated_news_has_the_faults_of_real_news() -> None:
    articles = list(WORLD.newest_first("BUSY", date(2026, 1, 1), date(2026, 1, 31)))
    headlines = [article["headline"] for article in articles]
    assert len({article["id"] for article in articles}) == len(articles) == 3944
    assert 0.02 < 1 - len(set(headlines)) / len(headlines) < 0.08
    assert 0.02 < sum(not article["summary"] for article in articles) / len(articles) < 0.06
    assert (
        0.01 < sum(article["summary"].startswith(ADVERTISING) for article in articles) / len(articles) < 0.03
    )


def test_now_and_then_an_article_is_from_outside_the_window() -> None:
    world = World(("AAPL",), date(2026, 1, 1), date(2026, 4, 30), stray_every=2)
    strays = []
    for day in range(1, 29):
        window = date(2026, 3, day), date(2026, 3, day + 3)
        strays += [
            (moment.date() - window[0]).days
            for moment in moments(world.news_answer("AAPL", *window))
            if not window[0] <= moment.date() <= window[1]
        ]
    # days from the start of windows of four days
    assert strays == [-56, -1764, -1444, -991, -1156, -39, -86, 4, -1546, 4, -1737]


def test_a_company_has_facts_figures_and_filings(vendor: finnhub.Client) -> None:
    assert vendor.company_profile2(symbol="AAPL")["name"] == "Aapl Works"
    series = vendor.company_basic_financials("AAPL", "all")["series"]
    assert [point["period"] for point in series["quarterly"]["eps"]][:3] == [
        "2025-12-31",
        "2025-09-30",
        "2025-06-30",
    ]
    assert [point["period"] for point in series["annual"]["eps"]] == ["2025-12-31", "2024-12-31"]
    quarterly = vendor.financials_reported(symbol="AAPL", freq="quarterly")["data"]
    assert [(item["form"], item["endDate"]) for item in quarterly][:3] == [
        ("10-Q", "2025-09-30 00:00:00"),
        ("10-Q", "2025-03-31 00:00:00"),
        ("10-Q", "2024-09-30 00:00:00"),
    ]
    assert quarterly[0]["acceptedDate"] == "2025-12-24 17:30:00"
    (annual, _) = vendor.financials_reported(symbol="AAPL", freq="annual")["data"]
    assert (annual["form"], annual["quarter"]) == ("10-K", 0)
    assert 30 <= (datetime.fromisoformat(annual["acceptedDate"]).date() - date(2025, 12, 31)).days <= 40


def test_an_unknown_symbol_has_no_news_and_an_empty_profile(vendor: finnhub.Client) -> None:
    assert vendor.company_news("NONE", _from="2026-01-08", to="2026-01-12") == []
    assert vendor.company_profile2(symbol="NONE") == {}


@pytest.mark.parametrize(
    ("key", "symbol", "status", "words"),
    [
        ("wrong", "AAPL", 401, "Invalid API key"),
        ("", "AAPL", 429, "sign up for a free account"),
        (FINNHUB_KEY, "BUSY", 403, "You don't have access to this resource."),
        (FINNHUB_KEY, "SAP.DE", 403, "You don't have access to this resource."),
    ],
)
def test_a_refusal_has_finnhubs_status_and_words(
    market: Market, key: str, symbol: str, status: int, words: str
) -> None:
    with pytest.raises(finnhub.FinnhubAPIException, match=words) as caught:
        finnhub.Client(api_key=key).company_news(symbol, _from="2026-01-08", to="2026-01-12")
    assert caught.value.status_code == status


# --- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("429", finnhub.FinnhubAPIException),
        ("500", finnhub.FinnhubAPIException),
        ("stall", requests.Timeout),
        ("truncated JSON", finnhub.FinnhubRequestException),
        ("wrong content type", finnhub.FinnhubRequestException),
        ("reset", requests.ConnectionError),
    ],
)
def test_a_fault_meets_the_first_tries_and_passes(
    market: Market,
    vendor: finnhub.Client,
    monkeypatch: pytest.MonkeyPatch,
    kind: FaultKind,
    error: type[Exception],
) -> None:
    monkeypatch.setattr(finnhub.Client, "DEFAULT_TIMEOUT", 0.2)
    market.faults.add(kind, tries=2)
    window = {"_from": "2026-01-08", "to": "2026-01-12"}
    for _ in range(2):
        with pytest.raises(error):
            vendor.company_news("AAPL", **window)
    assert len(vendor.company_news("AAPL", **window)) == 40
    assert market.faults.shown == {kind: 2}
    assert market.counts() == {"company-news": 3}


def test_a_rate_limit_may_say_when_to_come_back(market: Market, vendor: finnhub.Client) -> None:
    market.faults.add("429 with Retry-After", retry_after_s=7)
    with pytest.raises(finnhub.FinnhubAPIException, match="API limit reached") as caught:
        vendor.company_news("AAPL", _from="2026-01-08", to="2026-01-12")
    assert caught.value.response.headers["Retry-After"] == "7"


def test_faults_are_chosen_by_number_or_by_what_is_asked(market: Market, vendor: finnhub.Client) -> None:
    market.faults.add("empty list", numbers={2})
    market.faults.add("empty list", when=lambda asked: asked["from"] == "2026-01-16")
    counts = [
        len(vendor.company_news("AAPL", _from=f"2026-01-{day:02d}", to="2026-01-16"))
        for day in (13, 14, 15, 16)
    ]
    assert counts == [46, 0, 25, 0]
    assert [asked["from"] for asked in market.asked("company-news")][:2] == ["2026-01-13", "2026-01-14"]
    assert FINNHUB_KEY not in str(market.log)


# --- Yahoo --------------------------------------------------------------------------------------------------


def history(symbol: str, first: str = "2026-01-07", end: str = "2026-01-14") -> Any:
    return yfinance.Ticker(symbol).history(start=first, end=end, auto_adjust=False, actions=True, keepna=True)


@pytest.fixture
def loud_yfinance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(yfinance.config.debug.data, "hide_exceptions", False)


def test_bars_follow_the_exchange_calendar(market: Market) -> None:
    bars = history("AAPL")
    assert [str(moment) for moment in bars.index] == [
        f"2026-01-{day:02d} 00:00:00-05:00" for day in (7, 8, 9, 12, 13)
    ]
    assert bars["Close"].iloc[1] == 400.0
    assert bars["Close"].isna().tolist() == [False, False, True, False, False]
    assert bars["Close"].iloc[3] == 101.37000274658203  # single precision, as Yahoo's own


def test_dividends_lower_the_adjusted_closes_before_them(market: Market) -> None:
    bars = history("AAPL")
    # 4 dollars after a last known close of 400, which is 1 %
    assert bars["Adj Close"].iloc[1] == 396.0
    assert bars["Adj Close"].iloc[3] == bars["Close"].iloc[3]
    assert bars["Dividends"].tolist() == [0, 0, 0, 4.0, 0]


def test_splits_come_with_the_bars(market: Market) -> None:
    splits = history("AAPL", "2026-02-09", "2026-02-14")["Stock Splits"]
    assert splits.tolist() == [0, 4.0, 0, 1.5, 0]


def test_other_calendars_have_their_own_time(market: Market) -> None:
    assert str(history("SAP.DE").index[0]) == "2026-01-07 00:00:00+01:00"
    coin = history("BTC-USD")
    assert str(coin.index[0]) == "2026-01-07 00:00:00+00:00"
    assert len(coin) == 7
    assert len(history("^GSPC")) == 5


def test_a_dead_symbol_is_told_as_yahoo_tells_it(
    market: Market, loud_yfinance: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For its first two symbols without a time zone, yfinance looks elsewhere, and stumbles there.
    monkeypatch.setattr("yfinance.base._tz_info_fetch_ctr", 0)
    for _ in range(2):
        with pytest.raises(requests.HTTPError, match="404 Client Error"):
            history("GONE")
    with pytest.raises(YFTzMissingError, match="possibly delisted"):
        history("GONE")


def test_a_window_without_prices_is_told_as_yahoo_tells_it(market: Market, loud_yfinance: None) -> None:
    with pytest.raises(YFPricesMissingError, match="Data doesn't exist for startDate"):
        history("AAPL", "2019-01-07", "2019-01-14")


def test_yfinance_asks_twice_before_it_believes_in_a_rate_limit(market: Market, loud_yfinance: None) -> None:
    market.faults.add("429", "chart", tries=2, numbers={1})
    with pytest.raises(YFRateLimitError):
        history("AAPL")
    assert len(history("AAPL")) == 5


# --- the teacher --------------------------------------------------------------------------------------------


def ask(client: openai.OpenAI, user_text: str) -> str:
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": user_text}]
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    assert answer.usage and answer.usage.completion_tokens > 0
    return answer.choices[0].message.content or ""


def test_the_teacher_predicts_what_it_was_told(market: Market) -> None:
    client = openai.OpenAI()
    assert [model.id for model in client.models.list()] == [MODEL]
    answer = ask(client, "News say up by 0-1%. Assume that the stock goes down by more than 5%.")
    assert "\nPrediction: Down by more than 5%\nAnalysis: " in answer
    assert answer.startswith("[Positive Developments]:\n1. ")
    assert answer == ask(client, "News say up by 0-1%. Assume that the stock goes down by more than 5%.")
    assert "Prediction: " in ask(client, "What will happen?")
    assert len(market.chats) == 3


def test_an_answer_may_be_unreadable_at_first(market: Market) -> None:
    market.faults.add("unreadable answer", CHAT)
    client = openai.OpenAI()
    assert ask(client, "It is up by 1-2%.") == "It is hard to say anything about this stock."
    assert "Prediction: Up by 1-2%" in ask(client, "It is up by 1-2%.")


def test_another_key_is_refused(market: Market) -> None:
    with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided: sk-"):
        ask(openai.OpenAI(api_key="sk-other"), "Up by 1-2%?")


def test_requests_in_flight_are_counted() -> None:
    with Market(WORLD, latency_s=0.5) as market, ThreadPoolExecutor(3) as threads:
        url = f"{market.url}/finnhub/api/v1/stock/profile2?symbol=AAPL&token={FINNHUB_KEY}"
        assert [answer.status_code for answer in threads.map(requests.get, [url] * 3)] == [200, 200, 200]
        assert market.counts() == {"stock/profile2": 3}
        assert (market.most_in_flight["finnhub"], market.in_flight["finnhub"]) == (3, 0)


# --- other processes ----------------------------------------------------------------------------------------


def test_another_process_reaches_the_market_and_nothing_else(tmp_path: Any) -> None:
    program = """
import json, os, finnhub, yfinance, openai, socket, asyncio
bars = yfinance.Ticker("AAPL").history(start="2026-01-07", end="2026-01-09", auto_adjust=False)
news = finnhub.Client(api_key=os.environ["FINNHUB_API_KEY"]).company_news("AAPL", "2026-01-11", "2026-01-11")
messages = [{"role": "user", "content": "It is up by 1-2%."}]
async def teach():
    client = openai.AsyncOpenAI()
    return await client.chat.completions.create(model=os.environ["OPENAI_MODEL"], messages=messages)
answer = asyncio.run(teach())
refused = []
for address in ("192.0.2.1", "example.org"):
    try:
        socket.create_connection((address, 80), timeout=1)
    except RuntimeError as error:
        refused.append(str(error))
print(json.dumps([len(bars), len(news), "Up by 1-2%" in answer.choices[0].message.content, refused]))
"""
    with Market(WORLD) as market:
        done = run([sys.executable, "-c", program], tmp_path, **market.environment())
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == [
            2,
            3,
            True,
            ["a test tried to reach 192.0.2.1", "a test tried to reach example.org"],
        ]
        assert "LOOPBACK EDGE: a connection to example.org was refused" in done.stderr
        assert market.counts()["chart"] == 2
        assert {path.name for path in market.cache_folder.iterdir()} == {"py-yfinance"}


def test_only_the_vendors_addresses_are_rewritten() -> None:
    market = "http://127.0.0.1:1"
    assert rewritten("https://finnhub.io/api/v1//company-news?a=1", market) == (
        "http://127.0.0.1:1/finnhub/api/v1//company-news?a=1"
    )
    assert rewritten("https://api.finnhub.io/api/v1/x", market) == "http://127.0.0.1:1/finnhub/api/v1/x"
    assert rewritten("https://fc.yahoo.com", market) == "http://127.0.0.1:1/yahoo/"
    assert rewritten("https://notyahoo.com/x", market) == "https://notyahoo.com/x"


def test_afterwards_this_process_is_as_before() -> None:
    send, environment = requests.adapters.HTTPAdapter.send, dict(os.environ)
    with Market(WORLD) as market, redirected(market):
        assert os.environ["FINNHUB_API_KEY"] == FINNHUB_KEY
        port = int(market.url.rpartition(":")[2])
    assert (requests.adapters.HTTPAdapter.send, dict(os.environ)) == (send, environment)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
