"""What the ledger holds of a symbol, as records: which prices are taken, and which news."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from forecaster.calls import Call, Request, Status
from forecaster.data import store
from forecaster.data.ledger import Ledger
from forecaster.data.news import covered_spans
from forecaster.data.weeks import trading_weeks
from forecaster.records import Article, Close, Company, PriceHistory

THEN = datetime(2026, 6, 1, 12, tzinfo=UTC)
WEEKS = trading_weeks("XNYS", date(2026, 1, 5), date(2026, 1, 23), THEN)
WEEK_EDGES = ("2026-01-02", "2026-01-09", "2026-01-16", "2026-01-23")
BARS = [{"day": "2026-01-09", "close": "100.5", "adj_close": "99.25"}]
FILES = ("bbbb", "aaaa", "")
"""Digests of the files that the command names, in its order."""
PRICES = {"bars": BARS, "splits": [{"day": "2026-03-02", "ratio": "4.0"}], "missing_days": ["2026-01-12"]}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def bars(first: str, last: str, status: Status = "answered") -> Call:
    payload = PRICES if status == "answered" else None
    return Call(Request("daily-bars", "AAPL", first, last), status, THEN, payload, count=1)


def price_file(first: str, last: str, digest: str, days: Sequence[str] = ("2026-01-09",)) -> Call:
    closes = [{"day": day, "close": "100.5", "adj_close": "99.25"} for day in days]
    payload = PRICES | {"bars": closes, "adjusted_only": True}
    request = Request("price-file", "AAPL", first, last, digest)
    return Call(request, "answered", THEN, payload, count=len(days))


def unix_s(moment: str) -> int:
    return int(datetime.fromisoformat(moment + "+00:00").timestamp())


def item(id: int | str, moment: str, headline: str = "Something happened", **more: Any) -> dict[str, Any]:
    return {"id": id, "datetime": unix_s(moment), "headline": headline} | more


def news(first: str, last: str, items: Sequence[Any], endpoint: str = "company-news", **more: Any) -> Call:
    request = Request(endpoint, "AAPL", first, last)
    return Call(request, "answered", THEN, list(items), count=len(items), **more)


# --- which prices -------------------------------------------------------------------------------------------

ASKED = (date(2025, 1, 2), date(2026, 1, 23))


def chosen(ledger: Ledger) -> Request | None:
    call = store.price_call(ledger, "AAPL", *ASKED, FILES)
    return call.request if call else None


def test_without_an_answer_there_are_no_prices(ledger: Ledger) -> None:
    ledger.record(bars("2025-01-02", "2026-01-23", "failed"))
    assert chosen(ledger) is None


def test_prices_of_another_window_do_where_they_cover_the_asked_one(ledger: Ledger) -> None:
    ledger.record(bars("2025-01-03", "2026-02-01"), bars("2024-01-01", "2026-01-22"))
    assert chosen(ledger) is None
    ledger.record(bars("2023-01-02", "2026-01-23"), bars("2024-12-31", "2026-05-01"))
    assert chosen(ledger) == Request("daily-bars", "AAPL", "2024-12-31", "2026-05-01")


def test_the_asked_window_itself_comes_before_others(ledger: Ledger) -> None:
    ledger.record(bars("2024-12-31", "2026-05-01"), bars("2025-01-02", "2026-01-23", "unknown symbol"))
    assert chosen(ledger) == Request("daily-bars", "AAPL", "2025-01-02", "2026-01-23")


def test_the_users_file_comes_before_the_vendor_and_the_one_with_the_most_closes_before_others(
    ledger: Ledger,
) -> None:
    ledger.record(bars("2025-01-02", "2026-01-23"))
    ledger.record(price_file("2026-01-01", "2026-03-02", "aaaa", ["2026-01-09", "2026-03-02", "2026-03-03"]))
    assert chosen(ledger) == Request("price-file", "AAPL", "2026-01-01", "2026-03-02", "aaaa")
    ledger.record(price_file("2020-01-01", "2026-01-16", "bbbb", ["2026-01-09", "2026-01-16"]))
    assert chosen(ledger) == Request("price-file", "AAPL", "2020-01-01", "2026-01-16", "bbbb")


def test_of_two_files_with_as_many_closes_the_one_named_first_is_taken(ledger: Ledger) -> None:
    ledger.record(
        price_file("2026-01-09", "2026-01-09", "aaaa"), price_file("2026-01-09", "2026-01-09", "bbbb")
    )
    assert chosen(ledger) == Request("price-file", "AAPL", "2026-01-09", "2026-01-09", "bbbb")


def test_a_file_that_the_command_does_not_name_is_not_taken(ledger: Ledger) -> None:
    ledger.record(price_file("2026-01-01", "2026-01-23", "of an earlier command"))
    assert chosen(ledger) is None


def test_a_file_without_a_price_in_the_window_does_not_count(ledger: Ledger) -> None:
    ledger.record(price_file("2026-01-01", "2026-03-01", "aaaa", []))
    ledger.record(price_file("2024-12-31", "2026-03-01", "bbbb", ["2024-12-31", "2026-02-01"]))
    assert chosen(ledger) is None
    ledger.record(bars("2025-01-02", "2026-01-23"))
    assert chosen(ledger) == Request("daily-bars", "AAPL", "2025-01-02", "2026-01-23")


def test_an_answer_that_came_before_its_last_close_is_not_settled(ledger: Ledger) -> None:
    early = replace(bars("2025-01-02", "2026-01-23"), fetched_at=datetime(2026, 1, 23, 22, tzinfo=UTC))
    assert not store.is_settled(early)
    assert store.is_settled(bars("2025-01-02", "2026-01-09"))
    assert store.is_settled(replace(early, fetched_at=datetime(2026, 1, 29, tzinfo=UTC)))
    ledger.record(early)
    assert store.price_call(ledger, "AAPL", *ASKED, FILES, settled_only=True) is None
    assert chosen(ledger) == early.request
    again = replace(early, request=replace(early.request, variant="2"), fetched_at=THEN)
    ledger.record(again)
    assert chosen(ledger) == again.request


def test_reported_figures_come_from_the_answer_given_first_after_the_last_week() -> None:
    calls = [
        Call(Request("filings", "AAPL", window_end=day, variant=variant), "answered", THEN, [])
        for day in ("2025-06-27", "2026-01-23", "2026-05-01")
        for variant in ("quarterly", "annual")
    ]

    def chosen_end(as_of: date) -> str | None:
        call = store.reported_call(calls, "annual", as_of)
        assert call and call.request.variant == "annual"
        return call.request.window_end

    assert chosen_end(date(2026, 1, 23)) == "2026-01-23"
    assert chosen_end(date(2025, 12, 5)) == "2026-01-23"
    assert chosen_end(date(2026, 9, 4)) == "2026-05-01"
    assert store.reported_call([], "annual", date(2026, 9, 4)) is None


def test_files_and_answers_of_other_symbols_are_not_taken(ledger: Ledger) -> None:
    ledger.record(Call(Request("daily-bars", "MSFT", "2020-01-01", "2026-12-31"), "answered", THEN, PRICES))
    assert chosen(ledger) is None


def test_prices_are_asked_for_from_450_days_before_the_first_week() -> None:
    assert [week.period for week in WEEKS] == [
        "2026-01-02 to 2026-01-09",
        "2026-01-09 to 2026-01-16",
        "2026-01-16 to 2026-01-23",
    ]
    assert store.price_window(WEEKS) == (date(2024, 10, 9), date(2026, 1, 23))


def test_a_price_history_is_exact() -> None:
    history = store.price_history(PRICES)
    assert history == PriceHistory(
        {date(2026, 1, 9): Close(Decimal("100.5"), Decimal("99.25"))},
        {date(2026, 3, 2): Decimal("4.0")},
    )
    # The split of March was not known in January.
    assert history.close_as_of(date(2026, 1, 9), date(2026, 1, 9)) == Decimal("402.0")


# --- which news ---------------------------------------------------------------------------------------------


def test_raw_articles_are_all_that_were_received_strays_and_repetitions_too() -> None:
    calls = [
        news(
            "2026-01-06",
            "2026-01-07",
            [item(7, "2026-01-07T10:00:00", summary="More."), item(8, "2019-05-05T10:00:00", summary=None)],
        ),
        news("2026-01-07", "2026-01-08", [item(7, "2026-01-07T10:00:00")]),
        news("2026-01-07", "2026-01-07", [item("file:0a1b", "2026-01-07T23:59:59", "Mine")], "news-file"),
        bars("2025-01-02", "2026-01-23"),
    ]
    january_7 = datetime(2026, 1, 7, 10, tzinfo=UTC)
    assert store.raw_articles(calls) == [
        Article("finnhub:7", january_7, "Something happened", "More."),
        Article("finnhub:8", datetime(2019, 5, 5, 10, tzinfo=UTC), "Something happened", ""),
        Article("finnhub:7", january_7, "Something happened", ""),
        Article("file:0a1b", datetime(2026, 1, 7, 23, 59, 59, tzinfo=UTC), "Mine", ""),
    ]


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "text",
        item(1, "2026-01-07T10:00:00") | {"headline": None},
        item(1, "2026-01-07T10:00:00") | {"datetime": "2026-01-07"},
        item(1, "2026-01-07T10:00:00") | {"datetime": 1_767_780_000_000},  # milliseconds
        item(1, "2026-01-07T10:00:00") | {"datetime": -1},
        item(1, "2026-01-07T10:00:00") | {"id": None},
    ],
)
def test_what_is_no_article_is_counted_and_left_out(ledger: Ledger, odd: Any) -> None:
    ledger.record(news("2026-01-02", "2026-01-23", [odd, item(2, "2026-01-07T10:00:00")]))
    stored = store.read_symbol(ledger, "AAPL", WEEKS, "stock", FILES)
    assert [article.id for article in stored.data.articles] == ["finnhub:2"]
    assert [article.id for article in store.raw_articles(stored.calls)] == ["finnhub:2"]
    assert stored.malformed_articles == 1


def test_news_coverage_joins_calls_and_files(ledger: Ledger) -> None:
    ledger.record(
        news("2026-01-05", "2026-01-06", []),
        news("2026-01-07", "2026-01-07", [item("file:1", "2026-01-07T10:00:00")], "news-file"),
        news("2026-01-09", "2026-01-09", []),
    )
    assert covered_spans(store.news_calls_of(ledger, "AAPL", FILES)) == [
        (datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 7, 10, 0, 1, tzinfo=UTC)),
        (datetime(2026, 1, 9, tzinfo=UTC), datetime(2026, 1, 10, tzinfo=UTC)),
    ]
    assert store.news_calls_of(ledger, "MSFT", FILES) == []
    assert [call.request.endpoint for call in store.news_calls_of(ledger, "AAPL", ())] == ["company-news"] * 2


# --- a symbol -----------------------------------------------------------------------------------------------


def test_an_empty_ledger_gives_a_symbol_without_anything(ledger: Ledger) -> None:
    stored = store.read_symbol(ledger, "AAPL", WEEKS, "stock", FILES)
    data = stored.data
    assert (data.company, data.prices, data.adjusted_only) == (Company("AAPL", "AAPL", "", ""), None, False)
    assert (list(data.articles), list(data.covered)) == ([], [])
    assert data.quarters == {date.fromisoformat(day): [] for day in WEEK_EDGES}
    assert (stored.calls, stored.cut_off_days, stored.malformed_articles) == ((), frozenset(), 0)


def test_a_symbol_that_yahoo_does_not_know_has_no_prices_and_its_call_is_kept(ledger: Ledger) -> None:
    call = bars("2024-10-09", "2026-01-23", "unknown symbol")
    ledger.record(call)
    stored = store.read_symbol(ledger, "AAPL", WEEKS, "stock", FILES)
    assert stored.data.prices is None
    assert [kept.request for kept in stored.calls] == [call.request]


def test_a_symbol_is_read_with_all_that_its_weeks_may_use(ledger: Ledger) -> None:
    profile = {"name": "Apple Inc", "finnhubIndustry": "Tech", "exchange": "NASDAQ", "country": "US"}
    within = news("2026-01-05", "2026-01-09", [item(1, "2026-01-07T10:00:00")])
    too_old = news("2025-12-01", "2026-01-01", [item(2, "2025-12-07T10:00:00")])
    too_new = news("2026-01-24", "2026-01-25", [item(3, "2026-01-24T10:00:00")])
    prices = price_file("2025-01-01", "2026-01-23", "aaaa")
    about = Call(Request("profile", "AAPL"), "answered", THEN, profile | {"ipo": "1980-12-12"})
    ledger.record(within, too_old, too_new, prices, about)
    stored = store.read_symbol(ledger, "AAPL", WEEKS, "stock", FILES)
    assert stored.calls == (within, about, prices)
    assert stored.data.company == Company("AAPL", "Apple Inc", "Tech", "NASDAQ", "US", date(1980, 12, 12))
    assert stored.data.adjusted_only
    assert stored.data.covered == [(datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 10, tzinfo=UTC))]


def test_figures_are_those_answered_earliest_after_a_rows_own_week_began(ledger: Ledger) -> None:
    def answers(last_day: str, eps: float) -> list[Call]:
        series = {"quarterly": {"eps": [{"period": "2025-09-30", "v": eps}]}, "annual": {}}
        filed = {"form": "10-Q", "endDate": "2025-09-30", "acceptedDate": "2025-11-03 16:30:00"}
        figures = Request("basic-financials", "AAPL", window_end=last_day)
        filings = Request("filings", "AAPL", window_end=last_day, variant="quarterly")
        return [
            Call(figures, "answered", THEN, series),
            Call(filings, "answered", THEN, [filed | {"accessNumber": f"of {last_day}"}]),
        ]

    early, late, unused = answers("2026-01-09", 1.5), answers("2026-01-20", 2.5), answers("2026-05-01", 3.5)
    ledger.record(*early, *late, *unused)

    def found(first: int) -> dict[str, list[tuple[float, str]]]:
        data = store.read_symbol(ledger, "AAPL", WEEKS[first:], "stock", FILES).data
        return {
            day.isoformat(): [(quarter.figures["eps"], quarter.filing) for quarter in quarters]
            for day, quarters in data.quarters.items()
        }

    assert found(0) == {
        "2026-01-02": [(1.5, "of 2026-01-09")],
        "2026-01-09": [(1.5, "of 2026-01-09")],
        "2026-01-16": [(2.5, "of 2026-01-20")],
        "2026-01-23": [(3.5, "of 2026-05-01")],
    }
    # Whatever weeks are read with it.
    assert found(1) == {day: quarters for day, quarters in found(0).items() if day > "2026-01-02"}
    stored = store.read_symbol(ledger, "AAPL", WEEKS[:2], "stock", FILES)
    assert stored.calls == (*early, *late)


def test_a_coin_has_no_profile(ledger: Ledger) -> None:
    ledger.record(Call(Request("profile", "BTC-USD"), "answered", THEN, {"name": "Bitcoin Depot"}))
    stored = store.read_symbol(ledger, "BTC-USD", WEEKS, "cryptocurrency", FILES)
    assert stored.data.company == Company("BTC-USD", "BTC-USD", "", "", kind="cryptocurrency")


def test_a_day_with_more_news_than_a_call_gives_is_not_covered(ledger: Ledger) -> None:
    ledger.record(
        news("2026-01-05", "2026-01-06", []),
        news("2026-01-07", "2026-01-07", [item(1, "2026-01-07T20:00:00")], truncated=True),
    )
    stored = store.read_symbol(ledger, "AAPL", WEEKS, "stock", FILES)
    assert stored.cut_off_days == {date(2026, 1, 7)}
    assert stored.data.covered == [(datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 7, tzinfo=UTC))]
    assert [article.id for article in stored.data.articles] == ["finnhub:1"]
