"""The audit: a clean dataset passes, every kind of leak is found and nothing else, and published rows tell
theirs."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from datasets import Dataset

from forecaster.data.audit import (
    AuditReport,
    Finding,
    SymbolEvidence,
    audit_rows,
    render_markdown,
)
from forecaster.errors import ConfigurationError
from forecaster.records import (
    Answer,
    Article,
    Close,
    Company,
    Label,
    Messages,
    NewsItem,
    PriceHistory,
    Quarter,
    Week,
)
from prompts import render_answer, render_published, render_user_text

# --- a small clean dataset ----------------------------------------------------------------------------------
# Two symbols; two training weeks, two weeks of embargo, two test weeks; prompts look back two weeks at most.

F0, F1, F2, F3 = date(2025, 10, 31), date(2025, 11, 7), date(2025, 11, 14), date(2025, 11, 21)
F4, F5, F6, F7 = date(2025, 11, 28), date(2025, 12, 5), date(2025, 12, 12), date(2025, 12, 19)
WEDNESDAY = date(2025, 11, 26)
AS_OF = {
    F1: "2025-11-07T21:00:00+00:00",
    F2: "2025-11-14T21:00:00+00:00",
    F5: "2025-12-05T21:00:00+00:00",
    F6: "2025-12-12T21:00:00+00:00",
}
TARGETS = {"train": [(F1, F2), (F2, F3)], "test": [(F5, F6), (F6, F7)]}
LOOK_BACK = {F1: [F0, F1], F2: [F0, F1, F2], F5: [F3, F4, F5], F6: [F4, F5, F6]}

# Two new ACME shares for one on 2025-12-15, after every as-of day; a dividend on 2025-12-10.
ACME_CLOSES = {
    F0: ("49.00", "48.51"),
    F1: ("50.00", "49.50"),
    F2: ("50.50", "49.995"),
    F3: ("50.00", "49.50"),
    WEDNESDAY: ("51.00", "50.49"),
    F4: ("51.00", "50.49"),
    F5: ("52.00", "51.48"),
    F6: ("53.04", "53.04"),
    F7: ("53.04", "53.04"),
}
ACME_SHOWN = {F0: 98.0, F1: 100.0, F2: 101.0, F3: 100.0, F4: 102.0, F5: 104.0, F6: 106.08, F7: 106.08}
BOLT_CLOSES = {
    day: (price, price)
    for day, price in zip(
        [F0, F1, F2, F3, WEDNESDAY, F4, F5, F6, F7],
        ["12.00", "12.60", "13.20", "13.50", "9.9", "10.00", "10.00", "9.40", "9.30"],
        strict=True,
    )
}
BOLT_SHOWN = {day: float(price) for day, (price, _) in BOLT_CLOSES.items()}
OUTCOMES = {
    # In ACME's week to F6 the price rises by 2 %, and the return is 3.0303 % because of the dividend.
    ("ACME", F1): (Label("up", 0), 1.0),
    ("ACME", F2): (Label("down", 0), -0.9901),
    ("ACME", F5): (Label("up", 3), 3.0303),
    ("ACME", F6): (Label("up", 0), 0.0),
    ("BOLT", F1): (Label("up", 4), 4.7619),
    ("BOLT", F2): (Label("up", 2), 2.2727),
    ("BOLT", F5): (Label("down", 5), -6.0),
    ("BOLT", F6): (Label("down", 1), -1.0638),
}


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


ARTICLES = [
    # The close of 2025-10-31 was at 20:00 UTC, before the clocks changed.
    Article("a1", _at("2025-10-31T20:00:00"), "Anvils &amp; hammers\nsell out", "Shops ask for more."),
    Article("a2", _at("2025-11-10T09:00:00"), "A new forge", "It opens in May."),
    # 2025-11-28 was a short session: it closed at 18:00 UTC, and this belongs to the week after.
    Article("a3", _at("2025-11-28T18:00:00"), "Holiday sales begin", "<b>Queues</b> are long."),
    Article("a4", _at("2025-12-06T15:00:00"), "A weekend fire", "Nobody was hurt."),
    Article("late", _at("2025-12-12T21:00:00"), "A takeover bid", "It came at the close."),
]
NEWS = {
    (F0, F1): ("a1", NewsItem("Anvils & hammers sell out", "Shops ask for more.")),
    (F1, F2): ("a2", NewsItem("A new forge", "It opens in May.")),
    (F4, F5): ("a3", NewsItem("Holiday sales begin", "Queues are long.")),
    (F5, F6): ("a4", NewsItem("A weekend fire", "")),
}
REPORTED = [
    Quarter(date(2025, 9, 30), _at("2025-10-28T20:30:00"), "q3", False, {"eps": 1.5, "ev": 31.25}),
    Quarter(date(2025, 11, 30), _at("2025-12-12T21:00:00"), "late", False, {"eps": 1.75}),
]
QUARTERS = dict.fromkeys((F1, F2, F5, F6), REPORTED)
Rows = dict[str, list[dict[str, Any]]]


def _history(
    closes: Mapping[date, tuple[str, str]], splits: Mapping[date, str] | None = None
) -> PriceHistory:
    return PriceHistory(
        {day: Close(Decimal(close), Decimal(adjusted)) for day, (close, adjusted) in closes.items()},
        {day: Decimal(ratio) for day, ratio in (splits or {}).items()},
    )


@dataclass
class Case:
    """Rows and raw facts, both clean until a test spoils one."""

    rows: Rows
    evidence: dict[str, SymbolEvidence] = field(default_factory=dict)

    def audit(self, require_evidence: bool = False) -> AuditReport:
        return audit_rows(_splits(self.rows), self.evidence.get, require_evidence)

    def spoil(self, old: str, new: str, split: str = "test", at: int = 0) -> None:
        """Change a row's prompt, and its hash along with it."""
        row = self.rows[split][at]
        assert row["prompt"].count(old) == 1, row["prompt"]
        row["prompt"] = row["prompt"].replace(old, new)
        row["prompt_sha256"] = _sha256(row["prompt"])


def _splits(rows: Rows) -> dict[str, Dataset]:
    return {name: Dataset.from_list(part) for name, part in rows.items()}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _answer(label: Label) -> str:
    return render_answer(Answer("1. Demand.", "1. Debt.", label, "Demand outweighs debt."))


def _row(symbol: str, start: date, end: date) -> dict[str, Any]:
    shown = ACME_SHOWN if symbol == "ACME" else BOLT_SHOWN
    days = LOOK_BACK[start]
    news = {week: found for week, found in NEWS.items() if symbol == "ACME" and week[0] in days[:-1]}
    weeks = [
        Week(first, last, shown[first], shown[last], (news[first, last][1],) if (first, last) in news else ())
        for first, last in pairwise(days)
    ]
    figures, period_end = ({"eps": 1.5, "ev": 31.25}, date(2025, 9, 30)) if symbol == "ACME" else ({}, None)
    user = render_user_text(
        Company(symbol, symbol.title(), "Tools", "NASDAQ"), weeks, figures, period_end, start, end
    )
    prompt = render_published(Messages("Forecast.", user))
    label, return_pct = OUTCOMES[symbol, start]
    return {
        "prompt": prompt,
        "answer": _answer(label),
        "period": f"{start} to {end}",
        "label": label.text,
        "symbol": symbol,
        "as_of": AS_OF[start],
        "target_start": start.isoformat(),
        "target_end": end.isoformat(),
        "weekly_return_pct": return_pct,
        "start_price": shown[start],
        "end_price": shown[end],
        "news_ids": [news_id for news_id, _ in news.values()],
        "filing": "q3",
        "flags": [],
        "teacher": "template",
        "prompt_sha256": _sha256(prompt),
    }


@pytest.fixture
def case() -> Case:
    """Rows in the order ACME, BOLT for each week."""
    return Case(
        {
            split: [_row(symbol, *week) for week in weeks for symbol in ("ACME", "BOLT")]
            for split, weeks in TARGETS.items()
        },
        {
            "ACME": SymbolEvidence(
                ARTICLES, _history(ACME_CLOSES, {date(2025, 12, 15): "2"}), QUARTERS, "XNYS"
            ),
            "BOLT": SymbolEvidence([], _history(BOLT_CLOSES), {}),
        },
    )


def _found(report: AuditReport) -> list[tuple[str, str, int]]:
    return [(finding.kind, finding.split, finding.row) for finding in report.findings]


def test_a_clean_dataset_has_no_finding_and_everything_was_compared(case: Case) -> None:
    report = case.audit()
    assert report.findings == ()
    assert report.passed
    assert report.checked == {
        "rows": 8,
        "headlines": 6,
        "quarters": 4,
        "prompt hashes": 8,
        "answers against labels": 8,
        "labels against the return column": 8,
        "as-of times": 8,
        "headlines against raw articles": 6,
        "news ids against raw articles": 6,
        "quarters against filings": 4,
        # per symbol 3, 4, 4 and 4 days: a week's end and the next one's start are one
        "prices against closes": 30,
        "labels against closes": 8,
        "training rows against held-out weeks": 4,
    }
    assert report.unchecked == {}


def test_without_raw_facts_the_text_alone_is_clean_and_the_rest_is_said_to_be_unchecked(case: Case) -> None:
    report = audit_rows(_splits(case.rows))
    assert report.findings == ()
    assert report.unchecked == {
        "when news was published: no raw facts were given": 8,
        "when a quarter became public: no raw facts were given": 8,
        "prices and labels: no raw facts were given": 8,
    }


def test_a_symbol_without_raw_facts_is_said_to_be_unchecked(case: Case) -> None:
    del case.evidence["BOLT"]
    report = case.audit()
    assert report.findings == ()
    assert report.unchecked["prices and labels: no raw facts of the symbol"] == 4


def test_where_evidence_is_required_a_row_without_it_is_an_error(case: Case) -> None:
    assert case.audit(require_evidence=True).findings == ()
    del case.evidence["BOLT"]
    report = case.audit(require_evidence=True)
    assert _found(report) == [("no evidence", split, row) for split in ("train", "test") for row in (1, 3)]
    assert {finding.detail for finding in report.findings} == {"no raw facts of the symbol"}
    assert not report.passed
    assert audit_rows(_splits(case.rows), None, require_evidence=True).counts == {"no evidence": 8}


@pytest.mark.parametrize(
    ("lost", "detail"),
    [
        ({"prices": None}, "no closes of the symbol"),
        ({"prices": PriceHistory({}, {})}, "no closes of the symbol"),
        ({"articles": None}, "no articles of the symbol"),
        ({"articles": None, "prices": None}, "no articles of the symbol, no closes of the symbol"),
    ],
)
def test_evidence_without_closes_or_articles_is_none_where_it_is_required(
    case: Case, lost: dict[str, Any], detail: str
) -> None:
    case.evidence["BOLT"] = replace(case.evidence["BOLT"], **lost)
    assert case.audit().findings == ()
    report = case.audit(require_evidence=True)
    assert _found(report) == [("no evidence", split, row) for split in ("train", "test") for row in (1, 3)]
    assert report.findings[0].detail == detail


def test_indicators_and_market_figures_are_said_to_be_unchecked(case: Case) -> None:
    question = "Using only what was known"
    case.spoil(question, f"[Technical Indicators]:\n\nAt the close of x:\nSMA 20: 1\n\n{question}")
    for at in (0, 1):
        block = "[Market Environment]:\n\nLast known at the close of x:\nVIX: 15"
        case.spoil(question, f"{block}\n\n{question}", at=at)
    report = case.audit()
    assert report.findings == ()
    assert report.unchecked == {
        "technical indicators: not derived anew": 1,
        "market environment: not derived anew": 2,
    }


def test_raw_facts_are_asked_for_once_per_symbol(case: Case) -> None:
    asked = []

    def evidence(symbol: str) -> SymbolEvidence | None:
        asked.append(symbol)
        return case.evidence[symbol]

    audit_rows(_splits(case.rows), evidence)
    assert asked == ["ACME", "BOLT"]


# --- planted leaks ------------------------------------------------------------------------------------------


def _future_article(case: Case) -> None:
    case.spoil("A weekend fire\n[Summary]: ", "A takeover bid\n[Summary]: It came at the close.", at=2)
    case.rows["test"][2]["news_ids"] = ["a3", "late"]


def _future_news_id(case: Case) -> None:
    case.rows["test"][2]["news_ids"].append("late")


def _weekend_news_after_the_close(case: Case) -> None:
    case.spoil("Holiday sales begin\n[Summary]: Queues are long.", "A weekend fire\n[Summary]: ")
    case.rows["test"][0]["news_ids"] = ["a4"]


def _future_summary(case: Case) -> None:
    later = Article("a5", _at("2025-12-08T09:00:00"), "Holiday sales begin", "They broke the record.")
    case.evidence["ACME"] = replace(case.evidence["ACME"], articles=[*ARTICLES, later])
    case.spoil("Queues are long.", "They broke the record.")


def _future_quarter(case: Case) -> None:
    case.spoil("ended on 2025-09-30", "ended on 2025-11-30", at=2)
    case.spoil("eps: 1.5\nev: 31.25", "eps: 1.75", at=2)


def _quarter_that_ends_with_the_as_of_day(case: Case) -> None:
    case.spoil("ended on 2025-09-30", "ended on 2025-12-05")


def _future_week(case: Case) -> None:
    case.spoil(
        "2025-12-05, ACME's stock price increased from 102.00 to 104.00",
        "2025-12-12, ACME's stock price increased from 102.00 to 106.08",
    )


def _old_market_cap(case: Case) -> None:
    case.spoil("Acme (ACME) is", "Acme, with a market capitalization of 5.00 in USD, (ACME) is")


def _teachers_prompt(case: Case) -> None:
    label = case.rows["test"][0]["label"]
    case.spoil("Using only what", f"Let's assume your prediction for next week is {label}. Using only what")


def _late_as_of(case: Case) -> None:
    case.rows["test"][0]["as_of"] = "2025-12-05T22:00:00+00:00"


def _training_week_among_the_test_weeks(case: Case) -> None:
    case.rows["train"].append(case.rows["test"].pop(1))


@pytest.mark.parametrize(
    ("plant", "kind", "row"),
    [
        (_future_article, "future article", ("test", 2)),
        (_future_news_id, "future article", ("test", 2)),
        (_weekend_news_after_the_close, "future article", ("test", 0)),
        (_future_summary, "future article", ("test", 0)),
        (_future_quarter, "future quarter", ("test", 2)),
        (_quarter_that_ends_with_the_as_of_day, "future quarter", ("test", 0)),
        (_future_week, "future week", ("test", 0)),
        (_old_market_cap, "market capitalisation", ("test", 0)),
        (_teachers_prompt, "told outcome", ("test", 0)),
        (_late_as_of, "wrong as-of", ("test", 0)),
        (_training_week_among_the_test_weeks, "straddled split", ("train", 4)),
    ],
)
def test_a_planted_leak_is_found_and_nothing_else(
    case: Case, plant: Callable[[Case], None], kind: str, row: tuple[str, int]
) -> None:
    plant(case)
    report = case.audit()
    assert _found(report) == [(kind, *row)]
    assert report.findings[0].severity == "leak"
    assert not report.passed


# --- planted errors -----------------------------------------------------------------------------------------


def _overlapping_weeks(case: Case) -> None:
    case.spoil("From 2025-11-28 to", "From 2025-11-26 to")


def _weeks_in_reverse(case: Case) -> None:
    row = case.rows["train"][3]
    parts = row["prompt"].split("\n\n")
    at = next(i for i, part in enumerate(parts) if part.startswith("From 2025-10-31"))
    parts[at], parts[at + 1] = parts[at + 1], parts[at]
    row["prompt"] = "\n\n".join(parts)
    row["prompt_sha256"] = _sha256(row["prompt"])


def _week_that_ends_before_it_starts(case: Case) -> None:
    case.spoil(
        "From 2025-10-31 to 2025-11-07, BOLT's stock price increased from 12.00 to 12.60",
        "From 2025-11-07 to 2025-10-31, BOLT's stock price decreased from 12.60 to 12.00",
        "train",
        1,
    )


def _repeated_headline(case: Case) -> None:
    item = "[Headline]: Holiday sales begin\n[Summary]: Queues are long."
    case.spoil(item, f"{item}\n\n{item.replace('Holiday', 'HOLIDAY')}")


def _repeated_row(case: Case) -> None:
    case.rows["test"].append(case.rows["test"][0])


def _other_period(case: Case) -> None:
    case.rows["test"][0]["period"] = f"{F5} to {F7}"


def _other_target_columns(case: Case) -> None:
    case.rows["test"][0]["target_end"] = F7.isoformat()


def _invented_article(case: Case) -> None:
    case.spoil("Holiday sales begin", "Aliens land")


def _unknown_news_id(case: Case) -> None:
    case.rows["test"][0]["news_ids"] = ["a3", "a9"]


def _news_of_the_week_before(case: Case) -> None:
    case.spoil("A weekend fire\n[Summary]: ", "A new forge\n[Summary]: It opens in May.", at=2)


def _unknown_quarter(case: Case) -> None:
    case.spoil("ended on 2025-09-30", "ended on 2025-06-30")


def _figure_of_another_quarter(case: Case) -> None:
    case.spoil("eps: 1.5\n", "eps: 1.75\n")


def _split_not_undone(case: Case) -> None:
    case.spoil("from 100.00 to", "from 50.00 to")


def _price_column(case: Case) -> None:
    case.rows["test"][0]["end_price"] = 106.09


def _price_a_cent_off(case: Case) -> None:
    case.spoil("to 104.00.", "to 104.01.")


def _no_close_at_the_start(case: Case) -> None:
    _without_close(case, "BOLT", F1)
    del case.rows["train"][3]
    # Made from the older close: everything but the day is right.
    row = case.rows["train"][1]
    case.spoil("increased from 12.00 to 12.60", "stayed at 12.00", "train", 1)
    row |= {"start_price": 12.0, "weekly_return_pct": 10.0, "label": "up by more than 5%"}
    row["answer"] = _answer(Label("up", 5))


def _without_close(case: Case, symbol: str, day: date) -> None:
    prices = case.evidence[symbol].prices
    assert prices is not None
    closes = {known: close for known, close in prices.closes.items() if known != day}
    case.evidence[symbol] = replace(case.evidence[symbol], prices=replace(prices, closes=closes))


def _unfinished_week(case: Case) -> None:
    _without_close(case, "ACME", F7)


def _wrong_bin(case: Case) -> None:
    # The bin of the price move without the dividend, in every column.
    row = case.rows["test"][0]
    row |= {"label": "up by 1-2%", "answer": _answer(Label("up", 1)), "weekly_return_pct": None}


def _bin_against_the_return(case: Case) -> None:
    case.rows["test"][0] |= {"label": "up by 4-5%", "answer": _answer(Label("up", 4))}


def _edge_in_the_bin_above(case: Case) -> None:
    case.rows["train"][0] |= {"label": "up by 1-2%", "answer": _answer(Label("up", 1))}


def _wrong_return(case: Case) -> None:
    case.rows["test"][0]["weekly_return_pct"] = 3.0306


def _answer_of_its_own(case: Case) -> None:
    case.rows["test"][0]["answer"] = _answer(Label("down", 3))


def _changed_prompt(case: Case) -> None:
    case.rows["test"][0]["prompt_sha256"] = _sha256("another prompt")


def _no_label(case: Case) -> None:
    case.rows["test"][0]["label"] = "sideways"


def _no_past_week(case: Case) -> None:
    case.spoil(
        "From 2025-10-31 to 2025-11-07, BOLT's stock price increased from 12.00 to 12.60. "
        "No news about it is known of this period.",
        "The past is not known.",
        "train",
        1,
    )


def _no_target_week(case: Case) -> None:
    case.spoil("(2025-12-05 to 2025-12-12)", "(next week)")


@pytest.mark.parametrize(
    ("plant", "kind", "row"),
    [
        (_overlapping_weeks, "overlapping weeks", ("test", 0)),
        (_weeks_in_reverse, "disordered weeks", ("train", 3)),
        (_week_that_ends_before_it_starts, "disordered weeks", ("train", 1)),
        (_repeated_headline, "repeated headline", ("test", 0)),
        (_repeated_row, "repeated row", ("test", 4)),
        (_other_period, "period mismatch", ("test", 0)),
        (_other_target_columns, "period mismatch", ("test", 0)),
        (_invented_article, "unknown article", ("test", 0)),
        (_unknown_news_id, "unknown article", ("test", 0)),
        (_news_of_the_week_before, "article of another week", ("test", 2)),
        (_unknown_quarter, "unknown quarter", ("test", 0)),
        (_figure_of_another_quarter, "wrong figure", ("test", 0)),
        (_split_not_undone, "wrong price", ("test", 0)),
        (_price_column, "wrong price", ("test", 0)),
        (_price_a_cent_off, "wrong price", ("test", 0)),
        (_no_close_at_the_start, "missing close", ("train", 1)),
        (_unfinished_week, "unfinished week", ("test", 2)),
        (_wrong_bin, "wrong label", ("test", 0)),
        (_bin_against_the_return, "wrong label", ("test", 0)),
        (_edge_in_the_bin_above, "wrong label", ("train", 0)),
        (_wrong_return, "wrong return", ("test", 0)),
        (_answer_of_its_own, "answer against label", ("test", 0)),
        (_changed_prompt, "changed prompt", ("test", 0)),
        (_no_label, "unreadable label", ("test", 0)),
        (_no_past_week, "unreadable prompt", ("train", 1)),
        (_no_target_week, "unreadable prompt", ("test", 0)),
    ],
)
def test_a_planted_error_is_found_and_nothing_else(
    case: Case, plant: Callable[[Case], None], kind: str, row: tuple[str, int]
) -> None:
    plant(case)
    report = case.audit()
    assert _found(report) == [(kind, *row)]
    assert report.findings[0].severity == "error"
    assert not report.passed


def test_a_label_changed_by_itself_contradicts_the_week_and_its_answer(case: Case) -> None:
    case.rows["test"][0]["label"] = "down by 0-1%"
    assert _found(case.audit()) == [("wrong label", "test", 0), ("answer against label", "test", 0)]


def test_a_missing_close_is_told_for_every_row_that_needs_it(case: Case) -> None:
    _without_close(case, "ACME", F4)
    report = case.audit()
    assert _found(report) == [("missing close", "test", 0), ("missing close", "test", 2)]
    assert report.findings[0].detail == "of 2025-11-28"


def test_a_return_on_an_edge_allows_both_bins_where_the_text_alone_is_known(case: Case) -> None:
    _edge_in_the_bin_above(case)
    assert audit_rows(_splits(case.rows)).passed
    case.rows["train"][0]["weekly_return_pct"] = 0.9999
    assert _found(audit_rows(_splits(case.rows))) == [("wrong label", "train", 0)]


def test_a_headline_published_twice_may_stand_in_either_week(case: Case) -> None:
    again = Article("a6", _at("2025-12-20T09:00:00"), "Holiday sales begin", "Queues are long.")
    case.evidence["ACME"] = replace(case.evidence["ACME"], articles=[*ARTICLES, again])
    assert case.audit().findings == ()


def test_the_beginning_of_a_long_summary_is_the_articles(case: Case) -> None:
    case.spoil("Queues are long.", "Queues are ...")
    assert case.audit().findings == ()


def _steps(work: Callable[[], object]) -> int:
    """Calls that the audit and the reading of prompts make, and every character that is cleaned."""
    counted = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal counted
        if not frame.f_code.co_filename.endswith(("audit.py", "prompts.py")):
            return
        counted += event in ("call", "c_call")
        if event == "call" and frame.f_code.co_name == "clean_text":
            counted += len(frame.f_locals["text"])

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize(
    ("shown", "summary"),
    [("Same.", "Same."), ("S{}.", "S{}."), ("S", "S{}.")],
    ids=["the same", "each its own", "a beginning of all"],
)
def test_twice_as_many_copies_of_a_headline_take_twice_the_steps(shown: str, summary: str) -> None:
    def steps(copies: int) -> int:
        case = Case({"train": [_row("ACME", F1, F2)], "test": [_row("ACME", F5, F6)]})
        item = "[Headline]: Holiday sales begin\n[Summary]: "
        news = "\n\n".join(item + shown.format(at) for at in range(copies))
        case.spoil(f"{item}Queues are long.", news)
        case.rows["test"][0]["news_ids"] = ["same"] * copies
        published = _at("2025-11-28T18:00:00")
        articles = [
            Article("same", published + timedelta(seconds=at), "Holiday sales begin", summary.format(at))
            for at in range(copies)
        ]
        case.evidence["ACME"] = SymbolEvidence(articles, _history(ACME_CLOSES), QUARTERS)
        rows = _splits(case.rows)
        return _steps(lambda: audit_rows(rows, case.evidence.get))

    assert steps(160) < 2.2 * steps(80)


def test_of_many_articles_with_one_headline_each_summary_counts_by_itself(case: Case) -> None:
    early, late = _at("2025-11-30T12:00:00"), _at("2025-12-13T12:00:00")
    case.evidence["ACME"] = replace(
        case.evidence["ACME"],
        articles=[
            *(article for article in ARTICLES if article.id != "a3"),
            Article("a3", early, "Holiday sales begin", "Queues are long. Shops are glad."),
            Article("x1", late, "Holiday sales begin", "Queues are short."),
            Article("x2", _at("2025-10-30T12:00:00"), "Holiday sales begin", "Quiet."),
        ],
    )
    assert case.audit().findings == ()
    case.spoil("Queues are long.", "Queues are short.")
    assert _found(case.audit()) == [("future article", "test", 0)]
    case.spoil("Queues are short.", "Qui...")
    assert _found(case.audit()) == [("article of another week", "test", 0)]
    case.spoil("Qui...", "Que ...")  # begins both the early one and the late one
    assert _found(case.audit()) == []
    case.spoil("Que ...", "Queues of cars.")
    assert _found(case.audit()) == [("unknown article", "test", 0)]


# --- notes --------------------------------------------------------------------------------------------------


def _unreadable_answer(case: Case) -> None:
    case.rows["test"][0]["answer"] = "Up."


def _called_a_cryptocurrency(case: Case) -> None:
    case.spoil("the ACME stock price", "the ACME cryptocurrency price")


def _training_week_in_the_embargo(case: Case) -> None:
    case.rows["train"].append(_embargoed_row())


def _embargoed_row() -> dict[str, Any]:
    """It ends on the very day on which the first test week starts."""
    row = dict.fromkeys(("as_of", "weekly_return_pct", "start_price", "end_price"))
    user = render_user_text(
        Company("BOLT", "Bolt", "Tools", "NASDAQ"), [Week(F3, F4, 13.5, 10.0, ())], {}, None, F4, F5
    )
    prompt = render_published(Messages("Forecast.", user))
    return {
        **row,
        "prompt": prompt,
        "prompt_sha256": _sha256(prompt),
        "answer": _answer(Label("up", 0)),
        "period": f"{F4} to {F5}",
        "label": "up by 0-1%",
        "symbol": "BOLT",
        "target_start": F4.isoformat(),
        "target_end": F5.isoformat(),
        "news_ids": [],
        "filing": "",
        "flags": [],
        "teacher": "template",
    }


@pytest.mark.parametrize(
    ("plant", "kind", "row"),
    [
        (_unreadable_answer, "unreadable answer", ("test", 0)),
        (_called_a_cryptocurrency, "called a cryptocurrency", ("test", 0)),
        (_training_week_in_the_embargo, "no embargo", ("train", 4)),
    ],
)
def test_a_note_is_told_but_fails_nothing(
    case: Case, plant: Callable[[Case], None], kind: str, row: tuple[str, int]
) -> None:
    plant(case)
    report = case.audit()
    assert _found(report) == [(kind, *row)]
    assert report.findings[0].severity == "note"
    assert report.passed


def test_a_teacher_who_was_not_told_the_outcome_may_predict_another_bin(case: Case) -> None:
    _answer_of_its_own(case)
    case.rows["test"][0]["teacher"] = "gpt blind"
    assert case.audit().findings == ()


# --- other calendars and forms ------------------------------------------------------------------------------

SUNDAYS = [date(2025, 11, 30), date(2025, 12, 7), date(2025, 12, 14)]


def test_a_coins_day_closes_at_midnight_and_its_own_prompt_may_say_cryptocurrency() -> None:
    before, start, end = SUNDAYS
    week = Week(before, start, 90000.0, 91000.0, (NewsItem("A fork", "It is planned."),))
    coin = Company("BTC-USD", "Bitcoin", "", "", kind="cryptocurrency")
    user = render_user_text(coin, [week], {}, None, start, end)
    row = {
        "prompt": render_published(Messages("Forecast.", user)),
        "answer": _answer(Label("up", 1)),
        "period": f"{start} to {end}",
        "label": "up by 1-2%",
        "symbol": "BTC-USD",
        "as_of": "2025-12-08T00:00:00Z",
    }
    prices = _history(
        {day: (price, price) for day, price in zip(SUNDAYS, ["90000", "91000", "92000"], strict=True)}
    )

    def report(published: str) -> AuditReport:
        article = Article("a", _at(published), "A fork", "It is planned.")
        evidence = SymbolEvidence([article], prices, {}, "24/7")
        return audit_rows({"test": Dataset.from_list([row])}, {"BTC-USD": evidence}.get)

    assert report("2025-12-07T23:59:59").findings == ()
    assert report("2025-12-07T23:59:59").checked["as-of times"] == 1
    assert _found(report("2025-12-08T00:00:00")) == [("future article", "test", 0)]


def test_periods_that_name_sundays_run_between_the_last_closes_before_them() -> None:
    user = (
        "[Company Introduction]:\n\nBolt makes bolts.\n\n"
        "From 2025-11-23 to 2025-11-30, BOLT's stock price decreased from 13.50 to 10.00. News:\n\n"
        "[Headline]: A sale\n[Summary]: Half price.\n\n"
        "Based on all the information before 2025-11-30, what are the potential concerns for BOLT. Come up "
        "with some, for next week (2025-11-30 to 2025-12-07)."
    )
    row = {
        "prompt": render_published(Messages("Forecast.", user)),
        "answer": _answer(Label("up", 0)),
        "period": "2025-11-30 to 2025-12-07",
        "label": "up by 0-1%",
        "symbol": "BOLT",
    }

    def report(published: str) -> AuditReport:
        evidence = SymbolEvidence(
            [Article("a", _at(published), "A sale", "Half price.")], _history(BOLT_CLOSES), {}
        )
        return audit_rows({"test": Dataset.from_list([row])}, {"BOLT": evidence}.get)

    assert report("2025-11-28T17:59:59").findings == ()
    assert report("2025-11-28T17:59:59").checked["prices against closes"] == 2
    # News of the weekend, which the published prompts show, came after the close that the return starts from.
    assert _found(report("2025-11-29T12:00:00")) == [("future article", "test", 0)]


def test_prices_adjusted_for_dividends_say_nothing_about_prices_in_a_text(case: Case) -> None:
    # Half the price throughout: no return changes.
    halves = {day: (f"{Decimal(close) / 2}",) * 2 for day, (_, close) in ACME_CLOSES.items()}
    case.evidence["ACME"] = replace(
        case.evidence["ACME"],
        prices=_history(halves),
        adjusted_only=True,  # type: ignore[arg-type]
    )
    report = case.audit()
    assert report.findings == ()
    assert report.unchecked == {"prices in the text: the closes are adjusted for dividends": 4}
    case.rows["test"][0]["flags"] = ["prices_adjusted_only"]
    assert {kind for kind, *_ in _found(case.audit())} == {"wrong price"}


def test_a_week_before_the_calendar_begins_is_said_to_be_unchecked() -> None:
    user = render_user_text(
        Company("BOLT", "Bolt", "Tools", "NYSE"),
        [Week(date(1975, 1, 3), date(1975, 1, 10), 1.0, 2.0, ())],
        {},
        None,
        date(1975, 1, 10),
        date(1975, 1, 17),
    )
    row = {
        "prompt": user,
        "answer": _answer(Label("up", 0)),
        "period": "1975-01-10 to 1975-01-17",
        "label": "up by 0-1%",
        "symbol": "BOLT",
    }
    evidence = SymbolEvidence([], _history(BOLT_CLOSES), {})
    report = audit_rows({"test": Dataset.from_list([row])}, {"BOLT": evidence}.get)
    assert report.findings == ()
    assert (
        report.unchecked["everything against raw facts: the exchange calendar does not reach the week"] == 1
    )
    required = audit_rows({"test": Dataset.from_list([row])}, {"BOLT": evidence}.get, require_evidence=True)
    assert [finding.detail for finding in required.findings] == [
        "the exchange calendar does not reach the week"
    ]


def test_a_split_without_the_published_columns_is_refused() -> None:
    with pytest.raises(ConfigurationError) as raised:
        audit_rows({"train": Dataset.from_dict({"prompt": ["a"], "label": ["b"]})})
    assert [str(problem) for problem in raised.value.problems] == [
        "split train: has no column answer, period, symbol. Needed: prompt, answer, period, label, symbol."
    ]


def test_one_split_alone_has_no_order(case: Case) -> None:
    del case.rows["train"]
    assert case.audit().unchecked == {"order of training and held-out weeks: there is only one of the two": 4}


# --- the page -----------------------------------------------------------------------------------------------


def test_the_page_gives_verdict_counts_what_was_compared_and_examples() -> None:
    report = AuditReport(
        (
            Finding("future article", "test", 3, "ACME", "a to b", "x:\n[Headline]: y"),
            Finding("future article", "test", 3, "ACME", "a to b", "z"),
            Finding("future article", "test", 4, "BOLT", "a to b", "z"),
        ),
        {"rows": 5},
        {"labels: no closes": 2},
    )
    assert (
        render_markdown(report, examples_per_kind=2)
        == """\
# Audit

Failed: 3 findings.

| kind           | class   |   findings |   rows | meaning                                               |
|----------------|---------|------------|--------|-------------------------------------------------------|
| future article | leak    |          3 |      2 | published at or after the close at the target's start |

## Compared

| what   |   count |
|--------|---------|
| rows   |       5 |

## Not compared

| what, and why     |   rows |
|-------------------|--------|
| labels: no closes |      2 |

## Future article

- test 3, ACME, a to b: x: (Headline): y
- test 3, ACME, a to b: z
- and 1 more
"""
    )


def test_the_page_of_a_clean_dataset_says_that_it_passed() -> None:
    page = render_markdown(AuditReport((), {"rows": 5}, {}))
    assert "Passed: no leak and no error." in page
    assert "Not compared" not in page


# --- real rows ----------------------------------------------------------------------------------------------


def _published(folder: Path, name: str) -> Dataset:
    lines = (folder / "forecaster_dow30" / name).read_text(encoding="utf-8").splitlines()
    return Dataset.from_list([json.loads(line) for line in lines])


def test_the_published_test_rows_show_their_faults(real_data: Path) -> None:
    report = audit_rows({"test": _published(real_data, "test_300.jsonl")})
    assert report.counts == {
        "market capitalisation": 300,
        "called a cryptocurrency": 300,
        "repeated headline": 28,
        "future quarter": 15,
        "unreadable answer": 3,
    }
    assert len({f.row for f in report.findings if f.kind == "repeated headline"}) == 24
    assert [f.symbol for f in report.findings if f.kind == "unreadable answer"] == ["GS", "KO", "UNH"]
    assert report.checked["headlines"] == 2997


def test_the_published_splits_are_in_order_but_without_an_embargo(real_data: Path) -> None:
    report = audit_rows(
        {
            "train": _published(real_data, "train_244.jsonl"),
            "test": _published(real_data, "test_300.jsonl"),
        }
    )
    assert report.counts["straddled split"] == 0
    assert report.counts["no embargo"] == 12
    assert report.counts["future quarter"] == 37


def _closes(path: Path, column: str) -> dict[date, tuple[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return {
            date.fromisoformat(row["Date"][:10]): (row[column], row[column])
            for row in csv.DictReader(lines)
            if row[column]
        }


def test_published_labels_are_those_of_real_closes_but_for_the_unfinished_last_week(real_data: Path) -> None:
    us92 = real_data / "prices" / "us92_close_20221018_20260303.csv"
    nasdaq = real_data / "prices" / "nasdaq100_close_volume_20240102_20260430.csv"
    closes = {symbol: _closes(us92, symbol) for symbol in ("AAPL", "AMGN", "CSCO", "CVX", "INTC", "MSFT")}
    closes["HON"] = _closes(nasdaq, "close_HON")
    evidence = {
        symbol: SymbolEvidence([], _history(prices), {}, adjusted_only=True)
        for symbol, prices in closes.items()
    }
    rows = _published(real_data, "test_300.jsonl")
    last_week = "2024-04-28 to 2024-05-05"
    covered = rows.filter(lambda row: row["symbol"] in closes and row["period"] != last_week)
    report = audit_rows({"test": covered}, evidence.get)
    assert report.checked["labels against closes"] == 63
    assert report.counts["wrong label"] == 0
    report = audit_rows({"test": rows}, evidence.get)
    assert report.checked["labels against closes"] == 70
    wrong = [(finding.symbol, finding.period) for finding in report.findings if finding.kind == "wrong label"]
    assert sorted(wrong) == [(symbol, last_week) for symbol in ("AAPL", "AMGN", "CVX", "HON", "INTC", "MSFT")]


def test_a_week_over_prices_that_cannot_be_true_is_an_error_and_a_doubtful_one_a_note(case: Case) -> None:
    closes = dict(BOLT_CLOSES) | {F6: ("1.88", "1.88"), F7: ("1.86", "1.86")}
    listed = SymbolEvidence([], _history(closes, {F6: "5"}), {})
    case.evidence["BOLT"] = listed
    found = [(f.kind, f.detail) for f in case.audit().findings if f.symbol == "BOLT" and f.row == 1]
    told = "closes of 10.00 on 2025-12-05 and 1.88 on 2025-12-12: they do not carry the split of 5"
    assert ("untrue price", f"{told} that is listed for 2025-12-12") in found
    assert any("BOLT over closes of 10.00 on 2025-12-05" in line for line in case.audit().unchecked)
    case.evidence["BOLT"] = SymbolEvidence([], _history(closes | {F5: ("1.90", "1.90")}), {})
    assert "untrue price" not in case.audit().counts
    case.evidence["BOLT"] = SymbolEvidence([], _history(BOLT_CLOSES | {F4: ("5.00", "5.00")}), {})
    doubtful = [f for f in case.audit().findings if f.kind == "doubtful price"]
    assert doubtful and {f.severity for f in doubtful} == {"note"}


def test_without_closes_a_move_that_may_be_a_split_is_noted(case: Case) -> None:
    row = case.rows["test"][1]
    row |= {"weekly_return_pct": -79.58, "label": "down by more than 5%", "answer": _answer(Label("down", 5))}
    report = audit_rows(_splits(case.rows))
    assert [(f.kind, f.row, f.detail) for f in report.findings] == [
        ("doubtful price", 1, f"{F5} to {F6}: -79.58 %")
    ]
    assert report.passed
