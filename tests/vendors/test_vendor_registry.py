"""What the vendors' entries say, and that a vendor is one entry and one client."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from forecaster.calls import Request
from forecaster.data import intake, news, store
from forecaster.data.fetch import Needs
from forecaster.data.ledger import Ledger
from forecaster.settings import Settings
from forecaster.vendors.base import Vendor, VendorEndpoint
from forecaster.vendors.pace import Pace
from forecaster.vendors.registry import VENDORS, endpoints_of, vendor_behind


def at(day: int, hour: int = 0) -> datetime:
    """A moment of March 2016."""
    return datetime(2016, 3, day, hour, tzinfo=UTC)


NEWS = [
    {"id": number, "datetime": int(at(day, 12).timestamp()), "headline": f"News of March {day}"}
    for number, day in enumerate((9, 7, 4, 2))
]
"""Newest first."""


class Archive:
    """A source of news in memory; one answer holds two articles."""

    def __init__(self, key: str, pace: Pace) -> None:
        self.key, self.pace = key, pace
        self.asked: list[Request] = []
        self.is_closed = False

    def ask(self, request: Request) -> Any:
        self.pace.take()
        self.asked.append(request)
        found = [
            item
            for item in NEWS
            if request.window_start
            <= datetime.fromtimestamp(item["datetime"], UTC).date().isoformat()
            <= request.window_end
        ]
        return found[:2]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Archive]:
    """The archive's clients, once it is registered."""
    clients: list[Archive] = []

    def connect(key: str, pace: Pace) -> Archive:
        clients.append(Archive(key, pace))
        return clients[-1]

    archive = Vendor(
        "Archive",
        (VendorEndpoint("news", "archive-news"),),
        connect,
        calls_per_minute=600_000,
        news_per_answer=2,
    )
    monkeypatch.setitem(VENDORS, "archive", archive)
    return clients


def test_a_vendor_of_one_entry_is_asked_for_news_until_all_is_in_the_ledger(
    tmp_path: Path, opened: list[Archive]
) -> None:
    needs = [Needs("AAPL", news=((at(1), at(11)),))]

    def ask() -> int:
        return intake.ask_vendors(ledger, needs, Settings(), 60, (), lambda: None).calls

    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        # 9 7 | 7 4 | 4 2 | 2, and with this the first day is known to be whole.
        assert ask() == 4
        assert [(each.window_start, each.window_end) for each in opened[0].asked] == [
            ("2016-03-01", "2016-03-10"),
            ("2016-03-01", "2016-03-07"),
            ("2016-03-01", "2016-03-04"),
            ("2016-03-01", "2016-03-02"),
        ]
        assert (opened[0].key, opened[0].is_closed) == ("", True)
        calls = store.news_calls_of(ledger, "AAPL", ())
        assert [(article.id, article.headline) for article in news.articles(calls)] == [
            ("archive:3", "News of March 2"),
            ("archive:2", "News of March 4"),
            ("archive:1", "News of March 7"),
            ("archive:0", "News of March 9"),
        ]
        # Its plan serves all of the past, so that an old stretch without news is a quiet time for sure.
        assert news.certain_spans(calls) == [(at(1), at(11))]
        assert ask() == 0
        assert opened[1].asked == []


def test_a_vendor_whose_key_is_missing_is_not_asked(
    tmp_path: Path, opened: list[Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        needs = [Needs("AAPL", news=((at(1), at(11)),), profile=True)]
        with pytest.raises(ValueError, match="Finnhub has to be asked for profile"):
            intake.ask_vendors(ledger, needs, Settings(), 60, (), lambda: None)
    assert opened[0].asked == []
    assert opened[0].is_closed


def test_no_two_vendors_share_an_endpoint() -> None:
    names = [(word, endpoint.name) for word, vendor in VENDORS.items() for endpoint in vendor.endpoints]
    assert len({name for _, name in names}) == len(set(names))
    assert not {"news-file", "price-file"} & {name for _, name in names}


def test_the_ledger_knows_each_answer_by_the_words_of_its_request() -> None:
    assert [
        (each.kind, each.name, each.variant) for each in endpoints_of("figures", "filings", "prices")
    ] == [
        ("figures", "basic-financials", ""),
        ("filings", "filings", "quarterly"),
        ("filings", "filings", "annual"),
        ("prices", "daily-bars", ""),
    ]
    assert [vendor_behind(name)[0] for name in ("company-news", "daily-bars")] == ["finnhub", "yahoo"]
    with pytest.raises(KeyError):
        vendor_behind("nobody's")
