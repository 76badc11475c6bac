"""Answers as damaged or dressed up as models can make them: each gives its reading or its reason, quickly."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.records import Answer, Label, Unreadable
from forecaster.tasks.answers import parse_answer, parse_prediction, without_think_block
from prompts import render_answer

PROS = "1. Orders rose for the third quarter in a row.\n2. Debt was paid back early."
CONS = "1. A plant stood still for a week."
WHY = "Demand outweighs the outage."
BINS = (Label("up", 2), Label("down", 0), Label("down", 5))

NO_PROS, NO_CONS = "no section [Positive Developments]", "no section [Potential Concerns]"
NO_FORECAST = "no section [Prediction & Analysis]"
NO_PREDICTION, NO_ANALYSIS = 'no "Prediction:" line', 'no "Analysis:" line'
NO_SIZE, NO_DIRECTION = "no size in percent in the prediction", "no direction in the prediction"
BOTH, MORE = "both directions in the prediction", "more than one prediction in a line"
CONTRADICTORY, THINKING = "contradictory predictions", "cut off inside the think block"

SAME = "the answer that was mangled"
Mangling = Callable[[str], str]


def headers(form: str) -> Mangling:
    """Each header in another form."""

    def mangle(text: str) -> str:
        for number, title in enumerate(
            ("Positive Developments", "Potential Concerns", "Prediction & Analysis"), 1
        ):
            text = text.replace(f"[{title}]:", form.replace("NUMBER", str(number)).replace("TITLE", title))
        return text

    return mangle


def swap(old: str, new: str) -> Mangling:
    return lambda text: text.replace(old, new)


def cut_before(words: str, more: int = 0) -> Mangling:
    return lambda text: text[: text.index(words) + more]


def retitled(*titles: str) -> Mangling:
    """Headers in another language."""

    def mangle(text: str) -> str:
        old = ("Positive Developments", "Potential Concerns", "Prediction & Analysis")
        for title, foreign in zip(old, titles, strict=True):
            text = text.replace(title, foreign)
        return text

    return mangle


MANGLINGS: dict[str, tuple[Mangling, str]] = {
    # Headers.
    "no first header": (swap("[Positive Developments]:", ""), NO_PROS),
    "no second header": (swap("[Potential Concerns]:", ""), NO_CONS),
    "no third header": (swap("[Prediction & Analysis]:", ""), NO_FORECAST),
    "no headers": (lambda text: re.sub(r"\[.*\]:\n", "", text), NO_PROS),
    "no colons": (headers("[TITLE]"), SAME),
    "full-width colons": (headers("[TITLE]："), SAME),
    "upper case": (lambda text: re.sub(r"\[.*\]:", lambda m: m[0].upper(), text), SAME),
    "lower case": (lambda text: re.sub(r"\[.*\]:", lambda m: m[0].lower(), text), SAME),
    "bold": (headers("**[TITLE]**:"), SAME),
    "bold with the colon": (headers("**[TITLE]:**"), SAME),
    "bold inside the brackets": (headers("[**TITLE**]:"), SAME),
    "bold without brackets": (headers("**TITLE:**"), SAME),
    "underscored": (headers("__TITLE__"), SAME),
    "markdown": (headers("## TITLE"), SAME),
    "markdown closed": (headers("## TITLE ##"), SAME),
    "markdown with brackets": (headers("### [TITLE]:"), SAME),
    "quoted": (headers("> [TITLE]:"), SAME),
    "numbered": (headers("NUMBER. [TITLE]:"), SAME),
    "numbered without brackets": (headers("NUMBER. TITLE:"), SAME),
    "numbered and bold": (headers("**NUMBER. TITLE**"), SAME),
    "numbered markdown": (headers("### NUMBER) TITLE:"), SAME),
    "content on the header's line": (lambda text: text.replace("]:\n", "]: "), SAME),
    "content behind a bare header": (
        lambda text: headers("TITLE:")(text).replace("Developments:\n", "Developments: "),
        SAME,
    ),
    "forecast on its header's line": (swap("Analysis]:\n", "Analysis]: "), SAME),
    "forecast behind a bold header": (
        swap("[Prediction & Analysis]:\n", "**[Prediction & Analysis]:** "),
        SAME,
    ),
    "forecast behind a bare header": (swap("[Prediction & Analysis]:\n", "Prediction & Analysis: "), SAME),
    "and for the ampersand": (swap("&", "and"), SAME),
    "an ampersand in html": (swap("&", "&amp;"), SAME),
    "no blanks around the ampersand": (swap(" & ", "&"), SAME),
    "a slash for the ampersand": (swap("&", "/"), NO_FORECAST),
    "round brackets": (headers("(TITLE):"), NO_PROS),
    "html headers": (headers("<h2>TITLE</h2>"), NO_PROS),
    "a header misspelt": (swap("Developments", "Developements"), NO_PROS),
    "singular": (
        lambda text: text.replace("Developments", "Development").replace("Concerns", "Concern"),
        SAME,
    ),
    "a byte order mark": (lambda text: "\ufeff" + text, SAME),
    "CRLF": (lambda text: text.replace("\n\n", "\r\n\r\n").replace("]:\n", "]:\r\n"), SAME),
    "CRLF and bare headers": (lambda text: headers("TITLE")(text).replace("\n\n", "\r\n\r\n"), SAME),
    "markdown rules between": (lambda text: text.replace("\n\n[", "\n***\n\n["), SAME),
    "all on one line": (lambda text: text.replace("\n\n", " ").replace("]:\n", "]: "), SAME),
    "sections swapped": (
        retitled("Potential Concerns", "Positive Developments", "Prediction & Analysis"),
        NO_CONS,
    ),
    # Fields.
    "bold fields": (
        lambda text: text.replace("Prediction:", "**Prediction:**").replace("Analysis:", "**Analysis:**"),
        SAME,
    ),
    "fields with full-width colons": (
        lambda text: text.replace("Prediction:", "Prediction：").replace("Analysis: ", "Analysis： "),
        SAME,
    ),
    "fields in lower case": (
        lambda text: text.replace("Prediction:", "prediction:").replace("Analysis:", "analysis:"),
        SAME,
    ),
    "a summary analysis": (swap("Analysis: ", "Summary Analysis: "), SAME),
    "a prediction below its field": (swap("Prediction: ", "Prediction:\n\n"), SAME),
    "one line for both fields": (swap("\nAnalysis: ", ". Analysis: "), SAME),
    "no field for the prediction": (swap("Prediction: ", ""), NO_PREDICTION),
    "no field for the analysis": (swap("Analysis: ", ""), NO_ANALYSIS),
    "an analysis of blanks": (lambda text: text.removesuffix(WHY) + " \n\t ", "the analysis is empty"),
    # Think blocks.
    "thoughts": (lambda text: f"<think>\nUp? Down by 9%?\n</think>\n\n{text}", SAME),
    "thoughts in upper case": (lambda text: f"<THINK>Up?</THINK>{text}", SAME),
    "thinking": (lambda text: f"<thinking>Up?</thinking>{text}", SAME),
    "thoughts that hold another answer": (
        lambda text: f"<think>{written(Label('up', 4))}</think>{text}",
        SAME,
    ),
    "thoughts that the prompt began": (lambda text: f"Up? {written(Label('up', 4))}</think>{text}", SAME),
    "thoughts within thoughts": (lambda text: f"<think>a<think>b</think>c</think>{text}", SAME),
    "thoughts without end": (lambda text: f"<think>Up? {text}", THINKING),
    "thoughts without end in upper case": (lambda text: f"<THINK>{text}", THINKING),
    "thoughts without end behind": (lambda text: f"{text}\n<think>Up?", THINKING),
    "an answer within thoughts only": (lambda text: f"<think>{text}</think>", NO_PROS),
    # Copies.
    "twice": (lambda text: f"{text}\n\n{text}", SAME),
    "twice without a break": (lambda text: text + text, SAME),
    "twice, cut off": (lambda text: text + text[: text.index("\nAnalysis") - 6], SAME),
    "followed by another answer": (lambda text: f"{text}\n\n{written(Label('up', 4))}", CONTRADICTORY),
    "glued to another answer": (lambda text: text + written(Label("up", 4)), CONTRADICTORY),
    "followed by another prediction": (lambda text: f"{text}\nPrediction: Up by 4-5%", CONTRADICTORY),
    "followed by the same prediction": (
        lambda text: text + "\n" + re.findall("Prediction: .*", text)[0],
        SAME,
    ),
    "after another prediction": (lambda text: f"Prediction: Up by 4-5%\n\n{text}", CONTRADICTORY),
    "followed by a prediction of both": (lambda text: f"{text}\nPrediction: Up or down by 9%", BOTH),
    # Cut off.
    "cut in the first section": (cut_before("Orders", 8), NO_CONS),
    "cut behind the first section": (cut_before("[Potential"), NO_CONS),
    "cut in the second header": (cut_before("[Potential", 7), NO_CONS),
    "cut in the second section": (cut_before("A plant", 8), NO_FORECAST),
    "cut in the third header": (cut_before("& Analysis"), NO_FORECAST),
    "cut behind the third header": (cut_before("Prediction: "), NO_ANALYSIS),
    "cut in the prediction": (cut_before("Prediction: ", 16), NO_ANALYSIS),
    "cut before the analysis": (cut_before("\nAnalysis: "), NO_ANALYSIS),
    "cut in the field of the analysis": (cut_before("Analysis: ", 4), NO_ANALYSIS),
    "cut behind the field of the analysis": (cut_before("Analysis: Demand", 9), "the analysis is empty"),
    # Other languages.
    "German headers": (
        retitled("Positive Entwicklungen", "Mögliche Bedenken", "Prognose & Analyse"),
        NO_PROS,
    ),
    "Chinese headers": (retitled("积极进展", "潜在担忧", "预测与分析"), NO_PROS),
    "Spanish headers": (retitled("Desarrollos positivos", "Riesgos", "Predicción y análisis"), NO_PROS),
    "Chinese text": (swap("A plant stood still for a week.", "工厂停产一周。"), "readable"),
    "German text": (swap("A plant stood still for a week.", "Ein Werk stand still."), "readable"),
    # Characters.
    "NUL characters": (swap(" plant", " \x00plant\x00"), "readable"),
    "a lone surrogate": (swap(" plant", " \ud800plant"), "readable"),
    "NUL in a header": (swap("Concerns", "Con\x00cerns"), NO_CONS),
    "a lone surrogate in a header": (swap("Concerns", "Con\udfffcerns"), NO_CONS),
    "html around all": (lambda text: f"<div>\n{text}\n</div>", SAME),
}


def written(label: Label) -> str:
    return render_answer(Answer(PROS, CONS, label, WHY))


@pytest.mark.parametrize("label", BINS, ids=lambda label: label.text)
@pytest.mark.parametrize("name", MANGLINGS)
def test_a_mangled_answer_gives_its_reading_or_its_reason(name: str, label: Label) -> None:
    mangle, expected = MANGLINGS[name]
    text = mangle(written(label))
    assert text != written(label), "nothing was mangled"
    reading = parse_answer(text)
    if expected not in (SAME, "readable"):
        assert isinstance(reading, Unreadable), reading
        assert reading.reason == expected
        return
    assert isinstance(reading, Answer), reading
    assert reading.label == label
    if expected == SAME:
        assert (reading.positive_developments, reading.potential_concerns) == (PROS, CONS)
        assert reading.analysis.startswith(WHY)


@pytest.mark.parametrize("label", BINS, ids=lambda label: label.text)
def test_an_answer_that_begins_anew_in_the_middle_of_a_line_ends_there(label: Label) -> None:
    # A model that does not learn to stop glues its next copy to the last word.
    answer = parse_answer(written(label) + written(label)[: -len(WHY) - 20])
    assert answer == Answer(PROS, CONS, label, WHY)


@pytest.mark.parametrize(
    "prediction",
    ["Down", "Down by 2", "Falling further", "Down by 2-3% or 4-5%"],
)
def test_a_second_prediction_that_only_names_the_other_direction_contradicts(prediction: str) -> None:
    reading = parse_answer(f"{written(Label('up', 2))}\nPrediction: {prediction}")
    assert isinstance(reading, Unreadable)
    assert reading.reason in (CONTRADICTORY, MORE)


@pytest.mark.parametrize("prediction", ["Up", "Up by 2", "Up by", "", "see above"])
def test_a_second_prediction_that_is_cut_off_does_not_take_the_first_away(prediction: str) -> None:
    reading = parse_answer(f"{written(Label('up', 2))}\nPrediction: {prediction}")
    assert isinstance(reading, Answer)
    assert reading.label == Label("up", 2)


def test_a_headline_that_begins_with_the_word_is_no_prediction() -> None:
    text = written(Label("up", 2)).replace(PROS, "[Headline]: Prediction: This Stock Will Fall by 50%")
    reading = parse_answer(text)
    assert isinstance(reading, Answer), reading
    assert reading.label == Label("up", 2)


# --- predictions --------------------------------------------------------------------------------------------

PREDICTIONS: dict[str, str] = {
    # Sizes beyond the bins, and the open bin.
    "Up by 5%+": "up by more than 5%",
    "Up by 5+%": "up by more than 5%",
    "Up by 5+ percent": "up by more than 5%",
    "Up by 5-6%": "up by more than 5%",
    "Down by 10-12%": "down by more than 5%",
    "Down by 1,000%": "down by more than 5%",
    "Up by 5.01%": "up by more than 5%",
    "Up by 5% or higher": "up by more than 5%",
    "Down by greater than 5%": "down by more than 5%",
    "Down by more than -5%": "down by more than 5%",
    "Up ≥ 5%": "up by more than 5%",
    "Up by no more than 2%": "up by 1-2%",
    "Down by not more than 1%": "down by 0-1%",
    "Up by as much as 2%": "up by 1-2%",
    # Decimals.
    "Up by 0.5%": "up by 0-1%",
    "Up by .5%": "up by 0-1%",
    "Down by 2,5 %": "down by 2-3%",
    "Up by 2.0%": "up by 1-2%",
    "Up by 1.5-2.5%": "up by 1-2%",
    # Signs.
    "-2-3%": "down by 2-3%",
    "-2% to -3%": "down by 2-3%",
    "−2 – −3%": "down by 2-3%",
    "+1 to +2%": "up by 1-2%",
    "+1 to 2%": "up by 1-2%",
    "Down by 2-3% (-2.5%)": "down by 2-3%",
    "Up-2%": "up by 1-2%",
    "Up - 2%": "up by 1-2%",
    "-1 to 2%": BOTH,
    "-1% to +2%": BOTH,
    "-0.5% to 0.5%": BOTH,
    "2% to -1%": BOTH,
    "Up by -1 to 2%": BOTH,
    "±2%": NO_DIRECTION,
    "+/-2%": NO_DIRECTION,
    "Down by +2%": BOTH,
    # Dashes, percent signs and full-width forms.
    "Up by 2‐3%": "up by 2-3%",
    "Up by 2‑3%": "up by 2-3%",
    "Up by 2‒3%": "up by 2-3%",
    "Up by 2—3%": "up by 2-3%",
    "Up by 2−3%": "up by 2-3%",
    "Up by 2~3%": "up by 2-3%",
    "Up by ２－３％": "up by 2-3%",
    "ＵＰ by ２～３％": "up by 2-3%",
    "－３％": "down by 2-3%",
    "Up by 2-3﹪": "up by 2-3%",
    "Up by ٢-٣٪": "up by 2-3%",
    # Words for the signs.
    "up by 2 to 3 percent": "up by 2-3%",
    "up by 2 to 3 per cent": "up by 2-3%",
    "up by 2-3 percentage points": "up by 2-3%",
    "up 2-3 pct": "up by 2-3%",
    "up between 2 and 3%": "up by 2-3%",
    "a fall of between 1% and 5%": "down by 2-3%",
    "up by two to three percent": NO_SIZE,
    "up by 200 basis points": NO_SIZE,
    "up by 2-3": NO_SIZE,
    # Words for the direction.
    "2-3% higher": "up by 2-3%",
    "Lower by 1-2%": "down by 1-2%",
    "Bullish, 2-3%": "up by 2-3%",
    "a downside of 3-4%": "down by 3-4%",
    "The price is rising by 2-3%": "up by 2-3%",
    "a rebound of 1-2%": "up by 1-2%",
    "The shares should slip 1%": "down by 0-1%",
    "flat": NO_SIZE,
    "unchanged": NO_SIZE,
    "Flat (0%)": NO_DIRECTION,
    "neutral, within 1%": NO_DIRECTION,
    "Steigt um 2-3%": NO_DIRECTION,
    "Sube un 2-3%": NO_DIRECTION,
    "上涨2-3%": NO_DIRECTION,
    "Supply at 3%": NO_DIRECTION,
    # What is denied is not said.
    "not expected to rise 2%": NO_DIRECTION,
    "It won't fall by 2-3%": NO_DIRECTION,
    "unlikely to drop 2-3%": NO_DIRECTION,
    "Down by 1-2%, not up": "down by 1-2%",
    "Not up but down by 1-2%": "down by 1-2%",
    # Two predictions.
    "Up by 1-2% or down by 1-2%": BOTH,
    "Up/Down by 2-3%": BOTH,
    "Up by 1-2% or 4-5%": MORE,
    "Up by 2-3%, possibly 4-5%": MORE,
    "Up by 2-3%, that is 2.5%": "up by 2-3%",
    "Up by 2 or 3%": NO_SIZE,
    # Numbers that are no sizes of a move.
    "Up by 2-3% (70% confidence)": "up by 2-3%",
    "Up by 2-3% (confidence: 70%)": "up by 2-3%",
    "60% chance to rise 1-2%": "up by 1-2%",
    "Up by 1-2% (from $100 to $102)": "up by 1-2%",
    "Up by 2½%": NO_SIZE,
    "Up by 1/2%": NO_SIZE,
    "Up by 1.2.3%": NO_SIZE,
    "Up by 1-2-3%": NO_SIZE,
    "Up in Q3%": NO_SIZE,
    # Grounds, before and behind.
    "Given a 3% rise last week, down by 1-2%": "down by 1-2%",
    "Due to strong demand, up by 1-2%": "up by 1-2%",
    "As of today, up by 1-2%": "up by 1-2%",
    "In the following week, up by 1-2%": "up by 1-2%",
    "Down by 1-2% based on a 10% rise in costs": "down by 1-2%",
    "Up by 1-2%, although rates may rise by 3%": "up by 1-2%",
    "Up, driven by a 3% growth in sales": NO_SIZE,
    # Dress.
    "**Up** by **2-3%**": "up by 2-3%",
    "__Up by 2-3%__": "up by 2-3%",
    "`Up by 2-3%`": "up by 2-3%",
    r"\boxed{Up by 2-3\%}": "up by 2-3%",
    "[Up by 2-3%]": "up by 2-3%",
    "<b>Up by 2-3%</b>": "up by 2-3%",
    "📈 Up by 2-3%": "up by 2-3%",
    "Up\xa0by\xa02-3\xa0%": "up by 2-3%",
    "\x00Up by 2-3%\x00": "up by 2-3%",
    "\ud800 Up by 2-3%": "up by 2-3%",
}


@pytest.mark.parametrize(("line", "expected"), PREDICTIONS.items(), ids=map(ascii, PREDICTIONS))
def test_a_prediction_gives_its_bin_or_its_reason_alone_and_in_an_answer(line: str, expected: str) -> None:
    whole = parse_answer(written(Label("up", 0)).replace("Up by 0-1%", line))
    for reading in (parse_prediction(line), whole.label if isinstance(whole, Answer) else whole):
        assert (reading.text if isinstance(reading, Label) else reading.reason) == expected


# --- any text, any length -----------------------------------------------------------------------------------

LONG = 200_000
LOOPS = (
    "\n",
    "\r\n",
    " ",
    "*",
    "#",
    "_",
    ">",
    "[",
    "[ ",
    "]*",
    "<think>",
    "</think>",
    "<think></think>",
    "1",
    "1 ",
    "1-",
    "1.",
    "1,",
    "1 to ",
    "-1% to ",
    "9" * 400 + "%",
    "%",
    "2%",
    "up 2% ",
    "2% up ",
    "not up ",
    "as ",
    "between 1 and ",
    "more than ",
    "]prediction:",
    "\nprediction:",
    "\nPrediction: up ",
    "\nPrediction: 2% ",
    " analysis ",
    "\nAnalysis:",
    "Positive Developments*",
    "[Positive Developments]:",
    "\n[Potential Concerns]:\n",
    "[Prediction & Analysis]: prediction:",
    "\x00",
    "\ud800",
    "％",
)
BEGINNINGS = ("Positive Developments", written(Label("up", 2)).removesuffix(f"2-3%\nAnalysis: {WHY}"))


@pytest.mark.parametrize("beginning", BEGINNINGS, ids=("behind a title", "in a prediction"))
@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: ascii(loop)[:24])
def test_a_model_caught_in_a_loop_does_not_hold_the_reader_up(loop: str, beginning: str) -> None:
    # Reading in more than linear time would take minutes to days here.
    text = f"{beginning}{loop * (LONG // len(loop))}x"
    assert isinstance(parse_answer(text), Unreadable)
    assert isinstance(parse_prediction(text), Label | Unreadable)


def test_a_good_answer_repeated_for_100_kB_is_still_that_answer() -> None:
    good = written(Label("down", 3))
    assert parse_answer(f"{good}\n\n" * (100_000 // len(good))) == Answer(PROS, CONS, Label("down", 3), WHY)


def test_an_empty_answer_has_a_reason() -> None:
    assert parse_answer("") == Unreadable(NO_PROS)
    assert parse_prediction("") == Unreadable(NO_SIZE)


CALM = settings(max_examples=300, deadline=None, derandomize=True, database=None)
ANY_TEXT = st.text(st.characters(exclude_categories=()))
GOODS = [written(label) for label in BINS]


@CALM
@given(ANY_TEXT)
def test_any_text_gives_a_reading_or_a_reason(text: str) -> None:
    assert isinstance(parse_answer(text), Unreadable)
    assert isinstance(parse_prediction(text), Label | Unreadable)
    assert without_think_block(without_think_block(text)) == without_think_block(text)


@CALM
@given(
    st.lists(
        st.tuples(st.sampled_from(GOODS), st.integers(0, len(GOODS[0])), st.integers(0, len(GOODS[0]))),
        max_size=6,
    ),
    ANY_TEXT,
)
def test_splices_of_good_answers_give_a_label_that_stands_in_them_or_a_reason(
    pieces: list[tuple[str, int, int]], glue: str
) -> None:
    text = glue.join(good[min(a, b) : max(a, b)] for good, a, b in pieces)
    reading = parse_answer(text)
    assert isinstance(reading, Unreadable) or reading.label.text[-3:] in text


@pytest.mark.parametrize("label", BINS, ids=lambda label: label.text)
def test_a_cut_at_any_place_gives_the_label_or_a_reason_but_never_another_label(label: Label) -> None:
    good = written(label)
    readings = [parse_answer(good[:at]) for at in range(len(good))]
    begun = good.index(WHY) + 1
    assert all(isinstance(reading, Unreadable) for reading in readings[:begun])
    assert all(isinstance(reading, Answer) and reading.label == label for reading in readings[begun:])
