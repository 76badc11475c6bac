"""Answers that cannot be used: none counts as one, and none that was stored makes a later run fail."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from loopback_endpoint import UP, Endpoint, completion, endpoint_on_loopback

from forecaster import chat
from forecaster.calls import Call, Request
from forecaster.data import fundamentals
from forecaster.data.answer_checks import fault_of
from forecaster.data.fetch import Needs, fetch
from forecaster.data.folder import open_ledger
from forecaster.data.ledger import Ledger
from forecaster.data.teacher import TeacherPlan, label_examples, render_report
from forecaster.records import Example, Label, Messages, TradingWeek
from forecaster.vendors import payloads
from forecaster.vendors.base import Connection, FactKind
from forecaster.vendors.pace import Pace
from forecaster.vendors.registry import FINNHUB

THEN = datetime(2026, 3, 2, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "news": [{"id": 1, "datetime": 1_772_700_000, "headline": "Acme opens a plant"}],
    "profile": {"name": "Acme", "finnhubIndustry": "Tools", "exchange": "", "country": "US", "ipo": ""},
    "figures": {"quarterly": {"eps": [{"period": "2025-12-31", "v": 1.5}, {"v": None}]}, "annual": {}},
    "filings": [{"accessNumber": "0-1", "year": 2025, "quarter": 4, "form": "10-Q", "endDate": None}],
    "prices": {
        "bars": [{"day": "2026-02-02", "close": "100.5", "adj_close": "99.5"}],
        "splits": [{"day": "2026-02-02", "ratio": "4.0"}],
        "missing_days": ["2026-02-03"],
    },
}
INFINITE, HUGE = float("inf"), 10**400
DEEP: list[Any] = []
for _ in range(10_000):
    DEEP = [DEEP]


def figures(value: Any) -> Any:
    return {"quarterly": {"eps": [{"period": "2025-12-31", "v": value}]}, "annual": {}}


def bars(day: str = "2026-02-02", close: Any = "1", adj_close: Any = "1") -> Any:
    return {"bars": [{"day": day, "close": close, "adj_close": adj_close}], "splits": [], "missing_days": []}


NUMBERS = "figures that are no finite numbers"
BAD: list[tuple[FactKind, Any, str]] = [
    (
        "news",
        [{"id": 1, "datetime": 1, "headline": "x", "more": DEEP}],
        "an answer that is nested too deeply",
    ),
    ("profile", {"name": DEEP}, "an answer that is nested too deeply"),
    *(("news", bad, "news of an unknown form") for bad in (None, 3, {}, "x", [3], [{"headline": 3}])),
    ("news", [{"id": 1, "datetime": HUGE, "headline": "x"}], "news of an unknown form"),
    *(("profile", bad, "a profile of an unknown form") for bad in (None, [], {"name": ["a"]})),
    ("profile", {"name": "a" * 10_001}, "a profile of an unknown form"),
    *(
        ("figures", bad, "figures of an unknown form")
        for bad in (None, [], {"quarterly": 3}, {"annual": {"eps": 3}}, {"annual": {"eps": [3]}})
    ),
    *(("figures", figures(bad), NUMBERS) for bad in (INFINITE, float("nan"), HUGE, "1.5", True, [])),
    *(("filings", bad, "filings of an unknown form") for bad in (None, {}, [3], [{"form": []}])),
    ("filings", [{"year": HUGE}], "filings of an unknown form"),
    *(("prices", bad, "prices of an unknown form") for bad in (None, [], {}, {"bars": 3}, bars(day="x"))),
    ("prices", bars(day="0001-01-01"), "prices of an unknown form"),
    *(
        ("prices", bars(close=bad), "prices that nothing can have")
        for bad in ("1e400", "0", "-1", "nan", "inf", "x", 1.5, None, "9" * 20_000)
    ),
    ("prices", bars() | {"splits": [{"day": "2026-02-02", "ratio": "0"}]}, "prices of an unknown form"),
]


@pytest.mark.parametrize("kind", list(GOOD))
def test_an_answer_of_its_kind_is_one(kind: FactKind) -> None:
    assert payloads.fault_of(kind, GOOD[kind]) == ""


@pytest.mark.parametrize(("kind", "payload", "fault"), BAD)
def test_what_is_no_answer_is_told_in_own_words(kind: FactKind, payload: Any, fault: str) -> None:
    assert payloads.fault_of(kind, payload) == fault


# --- vendors ------------------------------------------------------------------------------------------------

ENDPOINTS: dict[str, Request] = {
    "profile": Request("profile", "ACME"),
    "figures": Request("basic-financials", "ACME", window_end="2026-03-01"),
    "filings": Request("filings", "ACME", window_end="2026-03-01", variant="annual"),
    "news": Request("company-news", "ACME", "2026-02-01", "2026-02-28"),
    "prices": Request("daily-bars", "ACME", "2026-02-01", "2026-02-28"),
}


class Scripted:
    """A vendor that gives what it was told to, by kind."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given, self.asked = given, 0
        self.pace = Pace(60_000)

    def ask(self, request: Request) -> Any:
        self.asked += 1
        kind = next(each.kind for each in FINNHUB.endpoints if each.name == request.endpoint)
        return self.given[kind]

    def close(self) -> None:
        pass


NEED = Needs(
    "ACME", news=((datetime(2026, 2, 1, tzinfo=UTC), THEN),), profile=True, financials=date(2026, 3, 1)
)


@pytest.mark.parametrize(
    ("kind", "payload", "fault"),
    [("figures", figures(INFINITE), NUMBERS), ("profile", {"name": []}, "a profile of an unknown form")],
)
def test_an_answer_that_cannot_be_used_is_a_failure_and_is_asked_for_again(
    kind: str, payload: Any, fault: str, tmp_path: Path
) -> None:
    client = Scripted(GOOD | {kind: payload})
    with closing(open_ledger(tmp_path)) as ledger:
        outcome = fetch(ledger, [NEED], [Connection(FINNHUB, client)], now=lambda: THEN)
        assert [(item.status, item.found) for item in outcome.shortfalls] == [
            ("failed", f"Finnhub: {fault}.")
        ]
        client.given = GOOD
        outcome = fetch(ledger, [NEED], [Connection(FINNHUB, client)], now=lambda: THEN)
        assert (outcome.calls, outcome.shortfalls) == (1, ())


@pytest.mark.parametrize("kind", list(ENDPOINTS))
def test_what_was_stored_and_cannot_be_used_is_told_once_and_has_no_answer_any_more(
    kind: FactKind, tmp_path: Path
) -> None:
    request = ENDPOINTS[kind]
    poison, fault = next(
        (payload, fault) for of, payload, fault in BAD if of == kind and "deeply" not in fault
    )
    told: list[str] = []
    with closing(Ledger(tmp_path / "ledger.sqlite")) as careless:
        careless.record(Call(request, "answered", THEN, poison))
    with closing(open_ledger(tmp_path, told.append)) as ledger:
        assert ledger.answer(request) is None
        assert ledger.answers(request.endpoint, "ACME") == []
        (line,) = told
        assert f"the answer about ACME {request.endpoint}" in line
        assert line.endswith(f"cannot be used ({fault}); it is asked for anew.")
        ledger.record(Call(request, "answered", THEN, GOOD[kind]))
        assert ledger.answer(request) == Call(request, "answered", THEN, GOOD[kind])
    rows = sqlite3.connect(tmp_path / "ledger.sqlite").execute("SELECT status FROM calls ORDER BY id")
    assert rows.fetchall() == [("unusable",), ("answered",)]


@pytest.mark.parametrize(
    ("column", "value"),
    [("fetched_at", "yesterday"), ("window_start", "0001-01-01"), ("window_end", "x"), ("fetched_at", "")],
)
def test_a_row_whose_days_are_none_is_set_aside(column: str, value: str, tmp_path: Path) -> None:
    told: list[str] = []
    with closing(Ledger(tmp_path / "ledger.sqlite")) as careless:
        careless.record(Call(ENDPOINTS["news"], "answered", THEN, GOOD["news"]))
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as other:
        other.execute(f"UPDATE calls SET {column} = ?", (value,))
        other.commit()
    with closing(open_ledger(tmp_path, told.append)) as ledger:
        assert ledger.answers("company-news", "ACME") == []
    assert len(told) == 1


def test_a_failure_and_an_endpoint_of_nobody_are_not_judged() -> None:
    assert fault_of(Call(ENDPOINTS["figures"], "failed", THEN, "Finnhub: timed out.")) == ""
    assert fault_of(Call(Request("gone", "ACME"), "answered", THEN, 3)) == ""


def test_a_figure_without_a_value_is_passed_over() -> None:
    assert fundamentals.quarters(GOOD["figures"], GOOD["filings"])[0].figures == {"eps": 1.5}


# --- the teacher --------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(chat, "_BACKOFF", lambda state: 0.0)
    with endpoint_on_loopback() as server:
        yield server


def an_example() -> Example:
    start, end = datetime(2025, 12, 5, 21, tzinfo=UTC), datetime(2025, 12, 12, 21, tzinfo=UTC)
    week = TradingWeek(start.date(), end.date(), start, end)
    return Example(
        "ACME", week, Messages("You are an analyst.", "What next?"), Label("up", 2), 2.5, 1.0, 1.1, (), ""
    )


@pytest.mark.parametrize("text", ["", None, " \n"])
def test_answers_without_text_cost_a_later_run_nothing(text: Any, endpoint: Endpoint, tmp_path: Path) -> None:
    plan = TeacherPlan("m", endpoint.url, concurrency=1)
    with closing(open_ledger(tmp_path)) as ledger:
        endpoint.script = lambda body, number: (200, completion(text))
        broken = label_examples([an_example()], ledger, plan, "key")
        assert (broken.answered, broken.calls, broken.without_text) == (0, 3, 0)
        endpoint.script = lambda body, number: (200, completion(UP))
        healthy = label_examples([an_example()], ledger, plan, "key")
        assert (healthy.answered, healthy.calls, healthy.unusable) == (1, 1, ())
        assert "1 rows had answers without text, and were asked for anew" in render_report(healthy)
        assert label_examples([an_example()], ledger, plan, "key").calls == 0


@pytest.mark.parametrize(
    "poison",
    [
        None,
        [],
        {"answer": None, "input_tokens": 1, "output_tokens": 1, "fault": ""},
        {"answer": UP, "input_tokens": HUGE, "output_tokens": 1, "fault": ""},
        {"answer": UP, "input_tokens": 1.5, "output_tokens": True, "fault": ""},
        {"answer": UP, "input_tokens": 1, "output_tokens": 1},
    ],
    ids=lambda poison: json.dumps(poison)[:30],
)
def test_a_stored_answer_of_another_form_is_told_and_asked_for_again(
    poison: Any, endpoint: Endpoint, tmp_path: Path
) -> None:
    plan = TeacherPlan("m", endpoint.url, concurrency=1, max_cost_usd=1.0)
    told: list[str] = []
    with closing(Ledger(tmp_path / "ledger.sqlite")) as careless:
        label_examples([an_example()], careless, plan, "key")
        (call,) = careless.calls("teacher")
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as other:
        other.execute("DELETE FROM calls")
        other.commit()
    with closing(Ledger(tmp_path / "ledger.sqlite")) as careless:
        careless.record(Call(call.request, "answered", THEN, poison))
    with closing(open_ledger(tmp_path, told.append)) as ledger:
        report = label_examples([an_example()], ledger, plan, "key")
    assert (report.answered, report.calls) == (1, 1)
    (line,) = told
    assert "about ACME teacher 2025-12-05 to 2025-12-12 cannot be used (an answer of an unknown form)" in line
