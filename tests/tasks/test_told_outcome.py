"""Prompts that say how their week ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forecaster.records import Label, Messages
from forecaster.tasks.told_outcome import told_outcome
from forecaster.tasks.weekly import WEEKLY
from prompts import render_published, render_teacher_request

UP_2 = Label("up", 2)
DATA = (
    "[Company Introduction]:\n\nX is a listed company.\n\nFrom 2024-01-07 to 2024-01-14, X's stock price "
    "increased from 98.00 to 100.40. News during this period:\n\n"
    "[Headline]: Let's assume your prediction for next week is up by 2-3%\n"
    "[Summary]: The actual move of the coming week was up by 2-3%.\n\n"
    "[Basic Financials]:\n\nroeTTM: 0.1\n\n"
)
QUESTION = "Based on all of this, name the developments and concerns of X. "


def prompt(question: str, system: str = "You forecast. Prediction: ...") -> str:
    return render_published(Messages(system, DATA + QUESTION + question))


@pytest.mark.parametrize(
    "question",
    [
        "Then let's assume your prediction for next week (2024-01-14 to 2024-01-21) is up by 2-3%. Why?",
        "Then, let us assume that your forecast of the X price movement for next week is a rise of 2-3%.",
        "Let’s suppose your prediction for the coming week is +2.5%.",
        "Suppose the stock will rise in the coming week. Explain why.",
        "The actual price movement of the week was up by 2-3%. Explain it.",
        "The stock actually rose 2.4% in the following week; justify that.",
        "Knowing that the stock gained 2.4%, write an analysis.",
        "Ground truth: up by 2-3%",
        "[Actual Outcome]: Up by 2-3%",
        "Assume that your prediction for next week is U3.",
        "Given that the stock went up next week, explain why.",
        "假设您对下周的预测是上涨2-3%。",
        "Take it as settled that the move in the coming week is: up by 2-3%.",
    ],
)
def test_an_outcome_that_is_handed_over_is_found_in_any_wording(question: str) -> None:
    assert told_outcome(prompt(question), None)


@pytest.mark.parametrize(
    "question",
    [
        "Your prediction for next week is: up by 2-3%.",
        "Your analysis has to support this forecast:\nUp by 2-3%",
        "If the prediction is up by 2-3% but the indicators conflict, explain the divergence.",
        "Label: up by 2-3%",
        "Explain why the price goes up by 2-3% in the coming week.",
        "Treat the following as the outcome: up by 2-3%.",
    ],
)
def test_the_rows_own_bin_in_the_question_tells_it(question: str) -> None:
    assert told_outcome(prompt(question), UP_2)
    assert told_outcome(prompt(question), Label("down", 4)) is None


@pytest.mark.parametrize(
    "question",
    [
        "Then make your prediction of the X stock price movement for next week.",
        "Predict whether the stock goes up or down next week, e.g. 'up by 2-3%'.",
        "Give your prediction as one of: up by 0-1%, up by 1-2%, up by 2-3%, down by 0-1%.",
        "Assume that you are an experienced analyst and forecast the price movement of next week.",
        "Do not assume that the stock will rise. Make your prediction for next week.",
        "Let's assume a holding period of one week. Then predict the move: up or down.",
        "Please consider the results of last quarter, which were up, and predict next week.",
    ],
)
def test_a_question_tells_nothing(question: str) -> None:
    assert told_outcome(prompt(question), UP_2) is None


def test_the_projects_own_teacher_request_is_found() -> None:
    asked = render_teacher_request(Messages("You forecast.", DATA + QUESTION), UP_2)
    assert told_outcome(render_published(asked), UP_2) == (
        "Take it as settled that the move in the coming week is: up by 2-3%."
    )
    blind = render_teacher_request(Messages("You forecast.", DATA + QUESTION), None)
    assert told_outcome(render_published(blind), UP_2) is None


def test_no_row_of_the_published_sets_without_teacher_text_is_accused(real_data: Path) -> None:
    rows = [
        json.loads(line)
        for path in sorted(real_data.glob("forecaster_*/*.jsonl"))
        for line in path.read_text(encoding="utf-8").split("\n")
        if line
    ]
    assert len(rows) == 3244
    assert [row["symbol"] for row in rows if WEEKLY.told_outcome(row)] == []


@pytest.mark.parametrize(
    "question",
    [
        "Your prediction should be a label like 'up by 2-3%'.",
        "Last week the stock rose by 2.4%. Predict next week's move.",
    ],
)
def test_examples_and_the_past_do_not_tell_the_rows_own_bin(question: str) -> None:
    assert told_outcome(prompt(question), UP_2) is None
