"""Which week a forecast is for, what it needs, and what its prompt is made from."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from forecaster.calls import Call, Request
from forecaster.data.fetch import Needs
from forecaster.data.ledger import Ledger
from forecaster.data.outlook import Outlook, Shown, find_outlook, needs_of, read_view
from forecaster.errors import ConfigurationError
from prompts import read_prompt

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TWO_WEEKS = Shown(max_past_weeks=2)
CLOSES = {"2026-02-20": "100.0", "2026-02-27": "101.0", "2026-03-06": "98.0", "2026-03-13": "99.5"}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def asked(symbol: str = "AAPL", day: str = "2026-03-06", now: datetime = NOW, **more: Any) -> Outlook:
    return find_outlook(symbol, date.fromisoformat(day), Shown(**({"max_past_weeks": 2} | more)), now)


def prices(last_day: str = "2026-03-13") -> Call:
    bars = [{"day": day, "close": usd, "adj_close": usd} for day, usd in CLOSES.items() if day <= last_day]
    request = Request("daily-bars", "AAPL", "2024-01-02", last_day)
    return Call(request, "answered", NOW, {"bars": bars, "splits": [], "missing_days": []}, len(bars))


def news(*days: str) -> Call:
    items = [
        {
            "id": number,
            "datetime": int(datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp()),
            "headline": f"News of {day}",
            "summary": "What happened.",
            "source": "Wire",
            "url": f"https://example.org/{number}",
        }
        for number, day in enumerate(days)
    ]
    return Call(Request("company-news", "AAPL", "2026-02-20", "2026-03-20"), "answered", NOW, items)


def told(symbol: str, day: date | None, shown: Shown = TWO_WEEKS, now: datetime = NOW) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        find_outlook(symbol, day, shown, now)
    return [str(problem) for problem in caught.value.problems]


def test_a_friday_after_its_close_is_the_start_of_the_next_week() -> None:
    found = asked()
    assert found.target.period == "2026-03-06 to 2026-03-13"
    assert [week.period for week in found.past] == ["2026-02-20 to 2026-02-27", "2026-02-27 to 2026-03-06"]
    assert (found.is_under_way, found.is_over) == (False, True)


@pytest.mark.parametrize(
    ("day", "under_way"), [("2026-03-07", False), ("2026-03-08", False), ("2026-03-09", True)]
)
def test_a_week_is_under_way_from_its_first_session_on(day: str, under_way: bool) -> None:
    found = asked(day=day)
    assert (found.target.start, found.is_under_way) == (date(2026, 3, 6), under_way)


def test_on_a_friday_before_the_close_the_week_that_ends_is_the_one_to_forecast() -> None:
    found = asked(now=datetime(2026, 3, 6, 20, 30, tzinfo=UTC))
    assert (found.target.period, found.is_under_way) == ("2026-02-27 to 2026-03-06", True)
    assert (found.is_over, found.priced_weeks) == (False, found.past)


@pytest.mark.parametrize(
    ("symbol", "vendor_symbol", "calendar", "has_news"),
    [
        ("aapl", "AAPL", "XNYS", True),
        (" brk-b ", "BRK.B", "XNYS", True),
        ("FB", "META", "XNYS", True),
        # A ticker, not the index of that name.
        ("dow", "DOW", "XNYS", True),
        ("SAP.DE", "SAP.DE", "XETR", False),
        ("btc-usd", "BTC-USD", "24/7", False),
    ],
)
def test_a_symbol_has_the_calendar_of_its_exchange(
    symbol: str, vendor_symbol: str, calendar: str, has_news: bool
) -> None:
    found = asked(symbol)
    assert (found.symbol, found.universe.calendar) == (vendor_symbol, calendar)
    assert found.universe.has_company_news is has_news


def test_everything_wrong_is_told_at_once() -> None:
    assert told("A;B", date(2026, 11, 22), Shown(min_past_weeks=0)) == [
        "--symbol: is 'A;B'. Give one ticker, such as AAPL or BRK.B.",
        "--min_past_weeks: is 0. It has to be 1 or more.",
        "--date: 2026-11-22 is in the future. A forecast starts from a close that is there: give a day up to "
        "today, 2026-11-21 (UTC).",
    ]


def test_a_day_without_room_for_the_past_weeks_is_too_early() -> None:
    assert told("AAPL", date(2006, 2, 10)) == [
        "--date: 2006-02-10 is before what vendors serve. It has to be 2006-02-12 or later."
    ]


def test_the_needs_of_a_week_that_is_over_reach_to_its_end(ledger: Ledger) -> None:
    found = needs_of(asked(), ledger, with_finnhub=True, files=())
    spans = (
        (datetime(2026, 2, 20, 21, tzinfo=UTC), datetime(2026, 2, 27, 21, tzinfo=UTC)),
        (datetime(2026, 2, 27, 21, tzinfo=UTC), datetime(2026, 3, 6, 21, tzinfo=UTC)),
    )
    window = (date(2024, 11, 27), date(2026, 3, 13))
    assert found == [Needs("AAPL", spans, window, profile=True, financials=date(2026, 3, 6))]


def test_the_needs_of_a_week_to_come_end_with_the_last_close(ledger: Ledger) -> None:
    to_come = asked(now=datetime(2026, 3, 7, tzinfo=UTC), with_macro=True)
    found = needs_of(to_come, ledger, with_finnhub=False, files=())
    window = (date(2024, 11, 27), date(2026, 3, 6))
    names = ["AAPL", "^GSPC", "^VIX", "^TNX", "DX-Y.NYB", "CL=F"]
    assert found == [Needs(name, prices=window) for name in names]
    ledger.record(prices())
    assert next(need.prices for need in needs_of(to_come, ledger, with_finnhub=False, files=())) is None


def test_the_prompt_names_its_sources(ledger: Ledger) -> None:
    ledger.record(prices(), news("2026-02-24", "2026-03-05", "2026-03-10"))
    view = read_view(asked(), ledger, ())
    weeks = read_prompt(view.draft.messages.user).weeks
    assert [item.headline for week in weeks for item in week.news] == [
        "News of 2026-02-24",
        "News of 2026-03-05",
    ]
    assert view.sources["news"][1] == {
        "id": "finnhub:1",
        "published_at": "2026-03-05T12:00:00+00:00",
        "headline": "News of 2026-03-05",
        "source": "Wire",
        "url": "https://example.org/1",
    }
    assert view.sources["quarter"] is None
    assert view.sources["closes"] == {"2026-02-20": "100.0", "2026-02-27": "101.0", "2026-03-06": "98.0"}
    assert [call["window_end"] for call in view.sources["closes_from"]] == ["2026-03-13"]
    assert view.actual and (view.actual.label.text, view.actual.weekly_return_pct) == ("up by 1-2%", 1.5306)


def test_what_came_after_changes_no_prompt(ledger: Ledger, tmp_path: Path) -> None:
    on_that_day = Ledger(tmp_path / "earlier.sqlite")
    on_that_day.record(prices("2026-03-06"), news("2026-02-24", "2026-03-05"))
    then = read_view(asked(now=datetime(2026, 3, 6, 23, tzinfo=UTC)), on_that_day, ())
    ledger.record(prices(), news("2026-02-24", "2026-03-05", "2026-03-10"))
    later = read_view(asked(), ledger, ())
    assert then.draft == later.draft
    assert (then.actual, later.actual is None) == (None, False)


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ([], "--symbol: AAPL has no prices: prices not fetched yet."),
        (
            [Call(Request("daily-bars", "AAPL", "2024-01-02", "2026-03-13"), "unknown symbol", NOW)],
            "--symbol: AAPL has no prices: the price vendor does not serve the symbol.",
        ),
        (
            [prices()],
            "--date: there is no news about AAPL from 2026-02-20 to 2026-03-06. Bring it with --news_file",
        ),
        (
            [
                Call(
                    Request("daily-bars", "AAPL", "2024-01-02", "2026-03-13"),
                    "answered",
                    NOW,
                    {"bars": [{"day": "2026-03-06", "close": "9", "adj_close": "9"}], "splits": []},
                )
            ],
            "--date: AAPL has fewer than 1 past weeks with prices up to 2026-03-06. Give a later --date.",
        ),
    ],
)
def test_why_there_is_no_prompt_is_told(ledger: Ledger, calls: list[Call], message: str) -> None:
    ledger.record(*calls)
    with pytest.raises(ConfigurationError) as caught:
        read_view(asked(), ledger, ())
    assert str(caught.value).startswith(message)
