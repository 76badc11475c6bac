"""What models read and write: published prompts, their news, answers and predictions, in both directions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forecaster.prompts import (
    news_item_spans,
    parse_answer,
    parse_prediction,
    render_answer,
    render_published,
    split_published,
    without_oldest_news,
    without_think_block,
)
from forecaster.records import ALL_LABELS, Answer, Label, Messages, Unreadable

# --- predictions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        *[(label.text, label.text) for label in ALL_LABELS],
        ("Down by 2-3% as supply tightens", "down by 2-3%"),
        ("Up by 10%", "up by more than 5%"),
        ("Up by 1.5%", "up by 1-2%"),
        ("Up by 10-12%", "up by more than 5%"),
        ("Up by 1%", "up by 0-1%"),
        ("Up by 5%", "up by 4-5%"),
        ("Up by 0%", "up by 0-1%"),
        ("Up by 5%+", "up by more than 5%"),
        ("Up by 5% +", "up by more than 5%"),
        ("5%+ down", "down by more than 5%"),
        ("Up by 2%+", "up by 2-3%"),
        ("Up by over 5%", "up by more than 5%"),
        ("Down by at least 2%", "down by 2-3%"),
        ("Up >5%", "up by more than 5%"),
        ("Up by less than 1%", "up by 0-1%"),
        ("-3%", "down by 2-3%"),
        ("−1.5%", "down by 1-2%"),
        ("+2.5%", "up by 2-3%"),
        ("Down -2%", "down by 1-2%"),
        ("a 1.5% drop", "down by 1-2%"),
        ("UP BY 2-3%", "up by 2-3%"),
        ("Up by 2–3 percent", "up by 2-3%"),
        ("Up by 2 to 3%", "up by 2-3%"),
        ("Up by 2% to 3%", "up by 2-3%"),
        ("Up by 2%-3%", "up by 2-3%"),
        ("Up by 1 - 2 %", "up by 1-2%"),
        ("**Up by 2-3%**", "up by 2-3%"),
        ("The shares should climb 3-4% this week.", "up by 3-4%"),
        ("Up by 2-3%, that is, an increase of 2.4%", "up by 2-3%"),
    ],
)
def test_a_prediction_is_read_as_its_bin(line: str, text: str) -> None:
    reading = parse_prediction(line)
    assert isinstance(reading, Label), reading
    assert reading.text == text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "no size in percent in the prediction"),
        ("Up", "no size in percent in the prediction"),
        ("Up by 2-3", "no size in percent in the prediction"),
        ("2-3%", "no direction in the prediction"),
        ("up or down by 2%", "both directions in the prediction"),
        ("Up by 1-2% or down by 1-2%", "both directions in the prediction"),
        ("Up by -2%", "both directions in the prediction"),
        ("Up by 1-2% or 4-5%", "more than one prediction in a line"),
        # Words that merely hold "up" or "down" name no direction.
        ("Supply at 3%", "no direction in the prediction"),
        ("Upstream downtime of 3%", "no direction in the prediction"),
    ],
)
def test_a_prediction_that_is_not_one_direction_and_one_size_is_unreadable(line: str, reason: str) -> None:
    assert parse_prediction(line) == Unreadable(reason, detail=line)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("Down by up to 2%", "down by 1-2%"),
        ("Up by 1-2% as profits grow 10%", "up by 1-2%"),
        ("Down by 2-3% because rates rise 1%", "down by 2-3%"),
        ("Up by 2% or more", "up by 2-3%"),
    ],
)
def test_grounds_and_limits_around_a_prediction_do_not_hide_it(line: str, text: str) -> None:
    reading = parse_prediction(line)
    assert isinstance(reading, Label), reading
    assert reading.text == text


def test_a_prediction_on_the_line_of_its_header_is_read() -> None:
    reading = parse_answer(PLAIN.replace("[Prediction & Analysis]:\n", "[Prediction & Analysis]: "))
    assert isinstance(reading, Answer), reading


def test_a_long_prediction_is_quoted_short() -> None:
    reading = parse_prediction("word " * 40)
    assert isinstance(reading, Unreadable)
    assert len(reading.detail) == 60
    assert reading.detail.endswith("...")


@pytest.mark.parametrize("lead_in", ["Up by ", "Up by more than "])
def test_a_size_with_hundreds_of_digits_does_not_raise(lead_in: str) -> None:
    line = lead_in + "9" * 400 + "%"
    assert parse_prediction(line) == Label("up", 5) or isinstance(parse_prediction(line), Unreadable)
    assert isinstance(parse_answer(PLAIN.replace("Up by 2-3%", line)), Answer | Unreadable)


# --- answers ------------------------------------------------------------------------------------------------

PROS = "1. Orders rose for the third quarter in a row.\n2. Debt was paid back early."
CONS = "1. A plant stood still for a week."
WHY = "Demand outweighs the outage."
GOOD = Answer(PROS, CONS, Label("up", 2), WHY)
PLAIN = f"""[Positive Developments]:
{PROS}

[Potential Concerns]:
{CONS}

[Prediction & Analysis]:
Prediction: Up by 2-3%
Analysis: {WHY}"""


def test_the_published_form_is_written_to_the_letter() -> None:
    assert render_answer(GOOD) == PLAIN


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(PLAIN, id="as published"),
        pytest.param(PLAIN.replace("]:", "]"), id="headers without colon"),
        pytest.param(PLAIN.upper().replace(PROS.upper(), PROS).replace(CONS.upper(), CONS), id="upper case"),
        pytest.param(re.sub(r"\[(.*)\]:", r"### \1", PLAIN), id="markdown headers"),
        pytest.param(re.sub(r"\[(.*)\]:", r"**[\1]:**", PLAIN), id="bold headers, colon inside"),
        pytest.param(re.sub(r"\[(.*)\]:", r"**[\1]**:", PLAIN), id="bold headers, colon outside"),
        pytest.param(re.sub(r"\[(.*)\]:", r"## **\1:**", PLAIN), id="bold markdown headers without brackets"),
        pytest.param(PLAIN.replace("&", "and"), id="and for &"),
        pytest.param(
            PLAIN.replace("Prediction:", "**Prediction:**").replace("Analysis:", "**Analysis:**"),
            id="bold fields",
        ),
        pytest.param(
            f"<think>Up or down by 9%? [Prediction & Analysis]</think>\n\n{PLAIN}", id="think block"
        ),
        pytest.param(f"Here is my view.\n\n{PLAIN}\n", id="with a preamble"),
        pytest.param(PLAIN.replace("\n", "\r\n").replace(PROS.replace("\n", "\r\n"), PROS), id="CRLF"),
        pytest.param(PLAIN.replace("2-3%\n", "2-3%. "), id="prediction and analysis on one line"),
        pytest.param(PLAIN + "\nPrediction: Up by 2-3%", id="the same prediction twice"),
    ],
)
def test_an_answer_is_read_in_the_forms_that_models_write(text: str) -> None:
    answer = parse_answer(text)
    assert isinstance(answer, Answer), answer
    assert (answer.positive_developments, answer.potential_concerns) == (PROS, CONS)
    assert answer.label == Label("up", 2)
    assert answer.analysis.lower().startswith(WHY.lower())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no section [Positive Developments]"),
        (f"<think>{PLAIN}", "cut off inside the think block"),
        (f"<think>a</think>{PLAIN}<think>b", "cut off inside the think block"),
        (PLAIN.split("[Potential")[0], "no section [Potential Concerns]"),
        (PLAIN.split("[Prediction")[0], "no section [Prediction & Analysis]"),
        (PLAIN.split("Prediction: ")[0] + f"Analysis: {WHY}", 'no "Prediction:" line'),
        (PLAIN.split("Analysis: ")[0], 'no "Analysis:" line'),
        (PLAIN.removesuffix(WHY), "the analysis is empty"),
        (PLAIN.replace(PROS, ""), "section [Positive Developments] is empty"),
        (PLAIN.replace(CONS, " \n "), "section [Potential Concerns] is empty"),
        (PLAIN.replace("Up by 2-3%", "Up"), "no size in percent in the prediction"),
        (
            PLAIN + "\nPrediction: Down by 1-2%",
            "contradictory predictions",
        ),
        (
            PLAIN.replace("Up by 2-3%", "Up or down by 2-3%"),
            "both directions in the prediction",
        ),
        (
            PLAIN.replace("Positive Developments", "x")
            .replace("Potential Concerns", "Positive Developments")
            .replace("[x]", "[Potential Concerns]"),
            "sections out of order",
        ),
    ],
)
def test_an_answer_without_its_four_parts_is_unreadable_and_says_why(text: str, reason: str) -> None:
    reading = parse_answer(text)
    assert isinstance(reading, Unreadable), reading
    assert reading.reason == reason


def test_only_a_closed_think_block_is_taken_away() -> None:
    assert without_think_block("<think>a\nb</think>\n\nc<think>d</think>") == "c"
    assert without_think_block("<think>a") == "<think>a"


_LIKE_A_MARKER = re.compile(r"develop|concern|prediction|analysis|think", re.IGNORECASE)


def _can_be_a_section(text: str) -> bool:
    # A last line of nothing but markdown marks belongs to the header below it.
    last_line = text.rsplit("\n", 1)[-1]
    return bool(text) and not _LIKE_A_MARKER.search(text) and bool(last_line.strip("#*_> \t"))


SECTIONS = st.text(max_size=80).map(str.strip).filter(_can_be_a_section)
ANSWERS = st.builds(Answer, SECTIONS, SECTIONS, st.sampled_from(ALL_LABELS), SECTIONS)
CALM = settings(max_examples=300, deadline=None, derandomize=True, database=None)


@CALM
@given(ANSWERS)
@example(Answer("- a\n\n- b", "> c", Label("down", 5), "*d* [e]: f"))
@example(Answer("Up by 9%", "Down by 9%", Label("down", 0), "Up by 9%"))
def test_reading_what_was_written_gives_the_same_answer(answer: Answer) -> None:
    assert parse_answer(render_answer(answer)) == answer


@pytest.mark.parametrize("label", ALL_LABELS, ids=lambda label: label.text)
def test_every_label_survives_writing_and_reading(label: Label) -> None:
    answer = Answer(PROS, CONS, label, WHY)
    assert parse_answer(render_answer(answer)) == answer


@CALM
@given(st.text())
def test_no_text_makes_the_reader_raise(text: str) -> None:
    assert isinstance(parse_answer(text), Unreadable)


PIECES = [
    "[",
    "]",
    "*",
    "#",
    ":",
    "%",
    "-",
    "+",
    "\n",
    "<think>",
    "</think>",
    "5",
    ".",
    "Analysis:",
    "up",
    "down",
]


@CALM
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(PLAIN)), st.integers(0, 30), st.sampled_from(PIECES) | st.text(max_size=5)
        ),
        max_size=12,
    )
)
def test_no_damaged_answer_makes_the_reader_raise(cuts: list[tuple[int, int, str]]) -> None:
    text = PLAIN
    for at, length, piece in cuts:
        text = text[:at] + piece + text[at + length :]
    assert isinstance(parse_answer(text), Answer | Unreadable)


# --- published prompts --------------------------------------------------------------------------------------


def test_a_published_prompt_is_written_to_the_letter() -> None:
    assert (
        render_published(Messages("Be brief.", "How is A?"))
        == "[INST]<<SYS>>\nBe brief.\n<</SYS>>\n\nHow is A?[/INST]"
    )


def test_a_prompt_without_the_wrapping_is_all_user_text() -> None:
    assert split_published("How is A? [INST] is no wrapping.") == Messages(
        "", "How is A? [INST] is no wrapping."
    )


def test_a_beginning_of_sequence_mark_and_outer_blanks_are_not_part_of_the_messages() -> None:
    assert split_published("<s> [INST] <<SYS>>\na\n<</SYS>>\n\nb[/INST] \n") == Messages("a", "b")


@CALM
@given(st.text().filter(lambda text: "<</SYS>>" not in text), st.text())
@example("ends with a blank line\n", "\n\nbegins with two")
@example("", "")
@example("a", "quotes [/INST] and <</SYS>> itself")
def test_splitting_what_was_wrapped_gives_the_same_messages(system: str, user: str) -> None:
    assert split_published(render_published(Messages(system, user))) == Messages(system, user)


# --- news inside a prompt -----------------------------------------------------------------------------------

INTRODUCTION = "[Company Introduction]:\n\nAcme makes anvils.\n\n"
LATER_WEEK = "From 2024-02-11 to 2024-02-18, ACME's stock price increased from 10.00 to 11.00. News:\n\n"
LATER_1 = "[Headline]: Anvils sell out\n[Summary]: Shops ask for more.\nA second line.\n\n"
LATER_2 = "[Headline]: A new forge\n[Summary]: It opens in May.\n\nFrom here on, output doubles.\n\n"
EARLIER_WEEK = "From 2024-02-04 to 2024-02-11, ACME's stock price decreased from 12.00 to 10.00. News:\n\n"
EARLIER_1 = "[Headline]: A recall\n[Summary]: Some anvils crack.\n\n"
EARLIER_2 = "[Headline]: A fine\n[Summary]: \n\n"
FINANCIALS = (
    "Some recent basic financials of ACME, reported at 2023-12-31, are presented below:\n\n"
    "[Basic Financials]:\n\nbeta: 1.5\n\n"
)
QUESTION = "Based on all the information before 2024-02-18, what speaks for ACME?"
SHUFFLED = (
    INTRODUCTION
    + (LATER_WEEK + LATER_1 + LATER_2)
    + (EARLIER_WEEK + EARLIER_1 + EARLIER_2)
    + (FINANCIALS + QUESTION)
)


def test_news_items_are_found_whole_and_the_older_week_comes_first() -> None:
    spans = news_item_spans(SHUFFLED)
    assert [SHUFFLED[start:end] for start, end in spans] == [EARLIER_1, EARLIER_2, LATER_1, LATER_2]


@pytest.mark.parametrize(
    ("count", "left"),
    [
        (0, SHUFFLED),
        (1, SHUFFLED.replace(EARLIER_1, "")),
        (2, SHUFFLED.replace(EARLIER_1, "").replace(EARLIER_2, "")),
        (3, SHUFFLED.replace(EARLIER_1, "").replace(EARLIER_2, "").replace(LATER_1, "")),
        (4, INTRODUCTION + LATER_WEEK + EARLIER_WEEK + FINANCIALS + QUESTION),
        (99, INTRODUCTION + LATER_WEEK + EARLIER_WEEK + FINANCIALS + QUESTION),
    ],
)
def test_the_oldest_items_go_and_every_other_character_stays(count: int, left: str) -> None:
    assert without_oldest_news(SHUFFLED, count) == left


def test_an_item_ends_where_the_financials_are_said_to_be_missing() -> None:
    prompt = EARLIER_WEEK + EARLIER_1 + "[Basic Financials]:\n\nNo basic financial reported.\n\n" + QUESTION
    assert without_oldest_news(prompt, 1) == prompt.replace(EARLIER_1, "")
    prompt = EARLIER_WEEK + EARLIER_1 + QUESTION
    assert without_oldest_news(prompt, 1) == EARLIER_WEEK + QUESTION


def test_a_prompt_without_news_stays_as_it_is() -> None:
    prompt = INTRODUCTION + FINANCIALS + QUESTION
    assert news_item_spans(prompt) == []
    assert without_oldest_news(prompt, 5) == prompt


def test_an_item_at_the_very_end_of_a_prompt_is_found() -> None:
    prompt = EARLIER_WEEK + "[Headline]: A recall\n[Summary]: Some anvils crack."
    assert without_oldest_news(prompt, 1) == EARLIER_WEEK


# --- real rows ----------------------------------------------------------------------------------------------


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_all_544_real_prompts_split_wrap_again_and_show_all_their_news(real_data: Path) -> None:
    folder = real_data / "forecaster_dow30"
    prompts = [
        row["prompt"] for name in ("test_300.jsonl", "train_244.jsonl") for row in _rows(folder / name)
    ]
    assert len(prompts) == 544
    for prompt in prompts:
        messages = split_published(prompt)
        assert render_published(messages) == prompt
        assert messages.system.startswith("You are ")
        assert messages.user.startswith("[Company Introduction]")
        spans = news_item_spans(messages.user)
        assert len(spans) == messages.user.count("[Headline]:")
        bare = without_oldest_news(messages.user, len(spans))
        assert "[Headline]:" not in bare
        assert bare.count("[Basic Financials]") == messages.user.count("[Basic Financials]")


def test_297_of_300_real_answers_read_and_all_agree_with_the_label_column(real_data: Path) -> None:
    rows = _rows(real_data / "forecaster_dow30" / "test_300.jsonl")
    answers = [parse_answer(row["answer"]) for row in rows]
    unreadable = [
        row["symbol"] for row, answer in zip(rows, answers, strict=True) if isinstance(answer, Unreadable)
    ]
    assert unreadable == ["GS", "KO", "UNH"]
    readable = [
        (answer.label, row["label"])
        for row, answer in zip(rows, answers, strict=True)
        if isinstance(answer, Answer)
    ]
    assert len(readable) == 297
    assert [label for label, column in readable if label != parse_prediction(column)] == []
