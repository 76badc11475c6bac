"""Template answers: readable to the week's true move whatever the prompt holds, and made of the prompt's
facts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecaster.data.template_teacher import answer_from, template_answer
from forecaster.records import (
    ALL_LABELS,
    Answer,
    Company,
    Example,
    Label,
    Messages,
    NewsItem,
    TradingWeek,
    Week,
)
from forecaster.tasks.answers import parse_answer, parse_prediction
from prompts import read_prompt, render_user_text, split_published, stated_facts, system_prompt

START = date(2025, 12, 5)
COMPANY = Company("AAPL", "Apple Inc", "Technology", "NASDAQ")
COIN = Company("BTC-USD", "Bitcoin", "", "", kind="cryptocurrency")


def _target(start: date) -> TradingWeek:
    closes = [datetime(day.year, day.month, day.day, 21, tzinfo=UTC) for day in (start, start + WEEK)]
    return TradingWeek(start, start + WEEK, *closes)


WEEK = timedelta(weeks=1)


def _example(
    weeks: list[Week], financials: dict[str, float], label: Label, company: Company = COMPANY
) -> Example:
    user = render_user_text(company, weeks, financials, date(2025, 9, 30), START, START + WEEK)
    messages = Messages(system_prompt(company.kind), user)
    return Example(
        *(company.symbol, _target(START), messages, label, 1.0, 1.0, 1.0, (), ""),
        weeks=tuple(weeks),
        figures=financials,
        is_coin=company.kind == "cryptocurrency",
    )


def _factors(section: str) -> list[str]:
    """The numbered lines of a section, which has no others."""
    lines = section.split("\n")
    assert [line.split(". ")[0] for line in lines] == [str(n) for n in range(1, len(lines) + 1)]
    return [line.split(". ", 1)[1] for line in lines]


def _read(example: Example, text: str | None = None) -> tuple[list[str], list[str]]:
    answer = parse_answer(text or template_answer(example))
    assert isinstance(answer, Answer) and answer.label == example.label
    good, bad = _factors(answer.positive_developments), _factors(answer.potential_concerns)
    assert 2 <= len(good) <= 4 and 2 <= len(bad) <= 4
    assert len({*good, *bad}) == len(good) + len(bad)
    assert good[0] in answer.analysis and bad[0] in answer.analysis
    return good, bad


def _week(ago: int, prices: tuple[float, float], *headlines: str) -> Week:
    end = START - (ago - 1) * WEEK
    return Week(end - WEEK, end, *prices, tuple(NewsItem(headline, "") for headline in headlines))


def test_factors_are_headlines_moves_and_figures_on_the_side_they_speak_for() -> None:
    weeks = [
        _week(2, (100.0, 95.0), "Regulators open a probe into Apple"),
        _week(1, (95.0, 99.75), 'Apple beats estimates with "record" sales'),
    ]
    good, bad = _read(_example(weeks, {"netMargin": 0.25, "pb": 40.0}, Label("up", 2)))
    assert good == [
        "News of the week to 2025-12-05: \"Apple beats estimates with 'record' sales\".",
        "The price rose from 95.00 to 99.75 in the week to 2025-12-05, 5.00%.",
        "The latest reported quarter shows a net margin of 0.25.",
    ]
    assert bad == [
        'News of the week to 2025-11-28: "Regulators open a probe into Apple".',
        "The price fell from 100.00 to 95.00 in the week to 2025-11-28, 5.00%.",
    ]


def test_without_news_and_figures_there_are_still_two_factors_on_either_side() -> None:
    good, bad = _read(_example([_week(1, (50.0, 50.0))], {}, Label("down", 5)))
    assert good == [
        "What is known of AAPL is recent: the facts reach to 2025-12-05.",
        "The price to start from is known. The price stayed at 50.00 in the week to 2025-12-05.",
    ]
    assert bad == [
        "A week is short: what moves AAPL until 2025-12-12 need not be in these facts.",
        "A move can turn. The price stayed at 50.00 in the week to 2025-12-05.",
    ]


@pytest.mark.parametrize("label", ALL_LABELS)
@pytest.mark.parametrize("company", [COMPANY, COIN])
def test_every_move_is_predicted_as_it_was(label: Label, company: Company) -> None:
    example = _example([_week(1, (1.0, 2.0), "A quiet week")], {}, label, company)
    _read(example)
    assert f"Prediction: {label.text[0].upper()}{label.text[1:]}\n" in template_answer(example)


def test_the_same_example_has_one_answer_and_another_week_may_have_other_words() -> None:
    example = _example([_week(1, (1.0, 2.0), "A quiet week")], {}, Label("up", 0))
    assert template_answer(example) == template_answer(example)
    openings = set()
    for number in range(12):
        shifted = replace(example, target=_target(START + number * WEEK))
        openings.add(template_answer(shifted).split("Analysis: ")[1][:12])
    assert openings == {"What weighs ", "The case for"}


_TRICKS = st.sampled_from(
    [
        "Prediction: Up by 4-5%",
        "[Prediction & Analysis]:\nPrediction: Down by 1-2%",
        "<think> it falls",
        "</think>",
        "Analysis: none",
        "Potential Concerns:",
        "\u2028Prediction: -3%",
        "＜think＞ and more",
        "&lt;think&gt;",
        '"' * 200,
        "x" * 400,
        "\ud800",
    ]
)
_TEXTS = st.lists(_TRICKS | st.text(max_size=40), max_size=3).map(" ".join)
_PRICES = st.floats(0.01, 1e6)
_WEEKS = st.lists(st.tuples(_PRICES, _PRICES, st.lists(_TEXTS, max_size=4)), max_size=4)
_FIGURES = st.dictionaries(
    st.sampled_from(["netMargin", "roeTTM", "currentRatio", "grossMargin", "ev"]),
    st.floats(allow_nan=False, allow_infinity=False),
)


@given(_WEEKS, _FIGURES, st.sampled_from(ALL_LABELS), st.sampled_from([COMPANY, COIN]))
def test_whatever_the_facts_the_answer_reads_back_as_the_move(
    weeks: list[tuple[float, float, list[str]]], figures: dict[str, float], label: Label, company: Company
) -> None:
    shown = [_week(len(weeks) - at, (a, b), *news) for at, (a, b, news) in enumerate(weeks)]
    example = _example(shown, figures, label, company)
    answer = parse_answer(template_answer(example))
    assert isinstance(answer, Answer) and answer.label == label
    for section in (answer.positive_developments, answer.potential_concerns):
        assert 2 <= len(_factors(section)) <= 4


@given(_WEEKS, _FIGURES, st.sampled_from([COMPANY, COIN]))
def test_the_records_state_what_their_prompt_says(
    weeks: list[tuple[float, float, list[str]]], figures: dict[str, float], company: Company
) -> None:
    shown = [_week(len(weeks) - at, (a, b), *news) for at, (a, b, news) in enumerate(weeks)]
    example = _example(shown, figures, Label("up", 0), company)
    assert template_answer(example) == answer_from(read_prompt(example.messages.user), example)
    stated = stated_facts(example.weeks, example.figures, example.is_coin)
    said = read_prompt(example.messages.user)
    assert (stated.weeks, stated.financials) == (said.weeks, said.financials)


@given(_TEXTS)
def test_headlines_that_were_never_cleaned_break_nothing_either(headline: str) -> None:
    user = (
        f"From 2025-11-28 to 2025-12-05, AAPL's stock price rose.\n\n[Headline]: {headline}\n[Summary]: \n\n"
    )
    example = Example("AAPL", _target(START), Messages("", user), Label("down", 0), 1.0, 1.0, 1.0, (), "")
    answer = parse_answer(answer_from(read_prompt(user), example))
    assert isinstance(answer, Answer) and answer.label == Label("down", 0)


def test_every_published_prompt_has_an_answer_that_cites_it(real_data: Path) -> None:
    lines = (real_data / "forecaster_dow30/test_300.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, lines):
        label = parse_prediction(row["label"])
        assert isinstance(label, Label)
        start = date.fromisoformat(row["period"][:10])
        messages = split_published(row["prompt"])
        example = Example(row["symbol"], _target(start), messages, label, 1.0, 1.0, 1.0, (), "")
        good, bad = _read(example, answer_from(read_prompt(messages.user), example))
        for price in re.findall(r"from (\d+\.\d+) to", " ".join(good + bad)):
            assert price in messages.user
