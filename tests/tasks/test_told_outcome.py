"""Prompts that say how their week ends."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
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


@pytest.mark.parametrize(
    "question",
    [
        "Assume that the stock goes down next week. Explain why.",
        "Assume the stock goes down next week.",
        "Let's assume the stock price will fall next week.",
        "Let's assume that your prediction for next week is down.",
        "Let's assume your prediction is 'down'.",
        "Assume the price drops next week, and write the analysis.",
        "Assume a decline in the stock price next week.",
        "Suppose shares will be lower next week.",
        "Assume that X's stock price declines in the coming week.",
        "Assume a bearish outcome for next week.",
        "Assume the stock will plunge next week.",
        "We know the stock will go up next week. Explain.",
        "Given that the price will increase next week, provide an analysis.",
        "Your prediction for next week should be down.",
        "Your prediction must be: up.",
        "You must predict that the stock goes down next week.",
        "The correct prediction is: down.",
        "Pretend that the stock slides next week.",
        "Imagine X stock closes lower next week.",
        "Consider that the stock price will rise by 2-3% next week. Explain.",
        "Angenommen, die Aktie fällt nächste Woche. Erkläre, warum.",
        "Nehmen wir an, Ihre Prognose für die nächste Woche lautet: minus 4-5%.",
        "Nehmen wir an, dass Ihre Vorhersage für nächste Woche ein Rückgang um 4-5% ist.",
        "Nimm an, dass der Kurs in der kommenden Woche um 4-5% sinkt.",
        "Gehen Sie davon aus, dass die Aktie nächste Woche um 2-3% steigt.",
        "Gehe davon aus, dass der Aktienkurs kommende Woche steigt.",
        "Die tatsächliche Kursbewegung der Woche: plus 2-3%.",
        "Das tatsächliche Ergebnis: gestiegen um 2-3%.",
        "Unterstellen wir einen Kursanstieg von 2-3% in der nächsten Woche.",
        "Setze voraus, dass die Aktie nächste Woche fällt.",
        "Wir wissen, dass der Kurs nächste Woche gefallen ist.",
        "假设你预测下周股价会下跌4-5%。",
        "假设下周股价上涨。请解释原因。",
        "假设您对下周（2024-01-14至2024-01-21）的预测是下跌。",
        "请假定该股票下周将下跌，并说明原因。",
        "假如下周股价下跌，请给出分析。",
        "已知下周股价上涨2-3%，请分析。",
        "实际走势：上涨2-3%。",
        "实际结果为下跌4-5%",
        "那么让我们假设你对下周的预测是下跌4-5%。",
        "股价实际下跌了4%。请解释。",
        "下周的真实涨跌幅：-4%",
        "設想下週股價下跌。",
        "假設您對下週的預測是上漲2-3%。",
        "请设想下周股价会走低。",
        "Assume next week's price movement is negative.",
        "Let us take it that the stock is up next week.",
        "Assume the stock underperforms and ends the week in the red.",
        "Let's assume your prediction for next week is bearish.",
        "For this task, assume that the stock goes down next week.",
    ],
)
def test_a_direction_without_a_size_and_other_languages_tell_it_too(question: str) -> None:
    assert told_outcome(prompt(question), None)


@pytest.mark.parametrize(
    "question",
    [
        "Gehen Sie davon aus, Analyst zu sein, und sagen Sie die Kursbewegung der nächsten Woche voraus.",
        "Geben Sie eine Prognose für die nächste Woche ab: steigt oder fällt die Aktie?",
        "Nehmen Sie an, dass Sie Analyst sind, und prognostizieren Sie, ob der Kurs steigt oder fällt.",
        "假设你是一位经验丰富的股票分析师，请预测下周股价上涨还是下跌。",
        "请预测下周股价的走势（上涨或下跌）。",
        "例如：“上涨2-3%”。请预测下周。",
        "请不要假设股价会上涨。",
        "Do not assume a decline. Predict next week's movement.",
        "Assume no prior knowledge, and predict whether the stock will rise or fall next week.",
        "Assume the market is efficient; forecast next week.",
        "If the stock rises next week, what would be the cause? Predict its move.",
        "Your prediction should be up or down by a percentage.",
        "Your prediction for next week must be in percent.",
        "Please predict how much the stock goes up or down next week.",
        "Nehmen Sie nicht an, dass der Kurs nächste Woche steigt. Ihre Prognose?",
        "请预测下周股价是上涨还是下跌，并给出涨跌幅。",
        "假设你持有该股票一周，请预测下周的涨跌幅。",
        "Assume that positive and negative developments weigh the same, and predict next week.",
    ],
)
def test_a_question_in_any_language_tells_nothing(question: str) -> None:
    assert told_outcome(prompt(question), None) is None
    assert told_outcome(prompt(question), UP_2) is None


def test_no_prompt_that_was_published_with_answers_of_models_is_accused(real_data: Path) -> None:
    tables = [pd.read_csv(path, dtype=str) for path in sorted((real_data / "model_outputs").glob("*.csv"))]
    prompts = [text for table in tables for text in table["prompt"]]
    assert len(prompts) == 900
    assert [told for text in prompts if (told := told_outcome(text, None))] == []
