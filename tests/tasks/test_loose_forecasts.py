"""Forecasts in answers of any form: read where one direction and size is said of the coming week."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from forecaster.records import Label, Unreadable
from forecaster.tasks.loose_forecasts import read_forecast

READ = {
    "Prediction: Up by 3-4%": "up by 3-4%",
    "I expect the stock to fall by 2-3 %": "down by 2-3%",
    "</think>\n\n**Prediction: Up by 2-3%**\n\n**Analysis:**\n- **Positive Developments:** x.": "up by 2-3%",
    "**Prediction:** The stock is predicted to rise by 2-3% next week, driven by growth.": "up by 2-3%",
    "**Prediction for SOM (April 7-14, 2024):**\n\n**Expected Movement:** 2-3% Increase": "up by 2-3%",
    "**Prediction:**\n- **Stock Price Movement:** A slight decrease of 2-3% is anticipated.": "down by 2-3%",
    "Direction: Down\nMagnitude: 2-3%": "down by 2-3%",
    '{"prediction": "Up by 2-3%", "analysis": "orders"}': "up by 2-3%",
    '{\n "direction": "down",\n "size": "1-2%"\n}': "down by 1-2%",
    "| Prediction | Down by 1-2% |": "down by 1-2%",
    "Up by 3-4%": "up by 3-4%",
    "**+2.5%**": "up by 2-3%",
    "My prediction is that SOM will go up 1-2 percent.": "up by 1-2%",
    "SOM will likely drop 3% next week": "down by 2-3%",
    "We forecast a 1-2% decline in the share price.": "down by 1-2%",
    "Given strong earnings, revenue growth and demand, I predict the stock to rise by 2-3%.": "up by 2-3%",
    "The stock is expected to rise by 2-3% on strong earnings.": "up by 2-3%",
    "The stock may rise by 2-3% next week.": "up by 2-3%",
    "Prediction:\u00a0Down\u00a0by\u00a0more\u00a0than\u00a05%": "down by more than 5%",
    "Final answer: down by more than 5%": "down by more than 5%",
    "Predicted weekly return: -1.8%": "down by 1-2%",
    "I predict a rise by 2-3% over the next week, with a potential upside of up to 5%.": "up by 2-3%",
    "I expect the stock to rise by 2-3%.\n[Headline]: I expect the stock to fall by 4-5%": "up by 2-3%",
}


@pytest.mark.parametrize("text", READ, ids=lambda text: text[:40])
def test_one_direction_and_size_is_read_in_any_form(text: str) -> None:
    found = read_forecast(text)
    assert isinstance(found, Label)
    assert found.text == READ[text]


@pytest.mark.parametrize(
    "text",
    [
        "I expect the stock to fall by 2-3 %.\nPrediction: Up by 3-4%",
        "Prediction: Up by 3-4%\nHowever, I expect the stock to fall next week.",
        "Prediction: Up by 3-4%. Prediction: Down by 1-2%.",
        "I expect the stock to rise by 2-3%. The price will likely rise by 4-5%.",
        "Direction: up\nDirection: down\nSize: 2-3%",
    ],
)
def test_two_that_contradict_each_other_are_none(text: str) -> None:
    found = read_forecast(text)
    assert isinstance(found, Unreadable)
    assert found.reason in ("contradictory predictions", "both directions in the prediction")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The stock rose 3% last week.",
        "Analysts expect the stock to rise by 10% over the next year.",
        "Revenue is expected to grow by 5% next week.",
        "I expect revenue to rise 5%.",
        "The company is expected to increase production by 5%.",
        "If earnings disappoint, the stock could fall by 5%.",
        "Prediction: The stock is expected to rise, driven by growth.",
        "The stock will not rise by 2-3%.",
        "I am 75% confident that the stock will rise.",
        "<think>I expect the stock to fall by 1-2%",
        "[Company Introduction]:\nThe stock is expected to rise by 2-3%.",
    ],
)
def test_what_is_no_forecast_of_the_coming_week_is_not_read(text: str) -> None:
    assert isinstance(read_forecast(text), Unreadable)


LOOPS = (
    "Prediction: x\n",
    "* ",
    "1 2 3% ",
    "| ",
    "Prediction: Up by 3-4%\n",
    "I expect the stock to rise by 2-3%. ",
    "[",
    "- ",
    ":",
    " as",
    "stock will rise ",
    ", with a potential",
    "<think>",
    "'\" ",
    "earnings growth ",
    "between 1 and 2% up ",
    "not rise ",
    "loss of about ",
    "loss of of of of of of 1% ",
    ". ",
)


def _calls(text: str) -> int:
    """Calls of Python functions while a text is read."""
    count = 0

    def add(_: FrameType, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(add)
    try:
        read_forecast(text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("loop", LOOPS, ids=ascii)
def test_a_text_of_twice_the_length_takes_twice_the_steps(loop: str) -> None:
    once, twice = (loop * (chars // len(loop)) for chars in (10_000, 20_000))
    assert _calls(twice) < 2.2 * _calls(once) + 50
    # What the patterns themselves do is not counted: more than linear would take minutes here.
    read_forecast(loop * (100_000 // len(loop)))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("loss of 2-3%", Label("down", 2)),
        ("a gain of 1-2 percent", Label("up", 1)),
        ("a 2-3% loss", Label("down", 2)),
        ("Prediction: shed 2-3%", Label("down", 2)),
        *(
            (f"The stock is likely to {verb} {size} next week.", label)
            for size, label in (("2-3%", Label("up", 2)), ("by about 2-3%", Label("up", 2)))
            for verb in (
                "gain",
                "climb",
                "advance",
                "rally",
                "soar",
                "add",
                "recover",
                "strengthen",
                "edge ahead",
            )
        ),
        *(
            (f"The shares should {verb} {size} in the coming week.", label)
            for size, label in (("1-2%", Label("down", 1)), ("by roughly 1-2%", Label("down", 1)))
            for verb in (
                *("lose", "drop", "slip", "decline", "retreat", "tumble", "ease", "slide", "sink", "slump"),
                *("shed", "weaken", "correct", "give up", "plummet"),
            )
        ),
        ("I expect a pullback of 2-3% in the stock.", Label("down", 2)),
        ("The stock will edge lower by 0-1%.", Label("down", 0)),
    ],
)
def test_rarer_words_for_a_move_are_read(text: str, label: Label) -> None:
    assert read_forecast(text) == label


@pytest.mark.parametrize(
    "text",
    [
        "Prediction: a loss of 2-3%, then a gain of 2-3%",
        "Prediction: gain or loss of 1-2%",
        "The stock will add 2-3% next week. The stock will shed 2-3% next week.",
        "The stock will advance 1-2% next week. The stock will retreat 1-2% next week.",
        "The stock has no loss of 2-3%.",
        "It has an edge of 2-3% in margins.",
        "The loss was 2-3% last week.",
    ],
)
def test_rarer_words_that_contradict_or_foretell_nothing_are_no_forecast(text: str) -> None:
    assert isinstance(read_forecast(text), Unreadable)


def test_a_loss_that_is_not_beside_a_size_is_no_direction() -> None:
    assert read_forecast("Prediction: Up by 2-3%, making good its losses") == Label("up", 2)
