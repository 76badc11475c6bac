"""Each text of a board is read once, and its reading is that of the text less what a model thinks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
from boards import DOWN_0, UP_1, written
from example_board import BASE, TRAINING, TUNED
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.evaluation.published import parse_as_published
from forecaster.evaluation.readings import NO_ANSWER, Reading, read_texts
from forecaster.evaluation.scorecard import checkpoint_scores, scoreboard
from forecaster.records import Answer
from forecaster.tables import json_lines
from forecaster.tasks.answers import parse_answer, without_think_block

PARSERS = (parse_answer, parse_as_published)
GOOD = written(UP_1)


def texts_read(work: Callable[[], object]) -> dict[str, Counter[str]]:
    """How often each parser is called with each text, whoever calls it."""
    found: dict[str, Counter[str]] = {parser.__name__: Counter() for parser in PARSERS}
    codes = {parser.__code__: found[parser.__name__] for parser in PARSERS}

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in codes:
            codes[frame.f_code][frame.f_locals["text"]] += 1

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return found


def test_a_board_reads_each_text_once() -> None:
    read = texts_read(lambda: scoreboard([BASE, TUNED], TRAINING, cost_bps=10.0))
    answers = {text for run in (BASE, TUNED) for text in run.answers if text is not None}
    texts = answers | {row.reference for row in BASE.rows}
    assert read["parse_answer"] == Counter(texts)
    # The published parser knows no think block: what stands behind one is a text of its own.
    behind = [without_think_block(text) for text in texts if "<think>" in text]
    assert read["parse_as_published"] == Counter([*texts, *behind])
    assert len(behind) == 1


def test_checkpoints_are_ranked_by_one_reading_of_each_answer() -> None:
    read = texts_read(lambda: checkpoint_scores([replace(TUNED, name="20")]))
    assert read["parse_answer"] == Counter(text for text in TUNED.answers if text is not None)
    assert not read["parse_as_published"]


def test_an_answer_is_read_with_its_think_block_and_without() -> None:
    text = f"<think>\nhm\n</think>\n\n{GOOD}"
    plain, thinks, none = read_texts([GOOD, text, None]).values()
    assert (plain.has_think_block, thinks.has_think_block) == (False, True)
    assert (plain.own, plain.published) == (thinks.own, thinks.published_spoken)
    assert plain.published == plain.published_spoken
    assert (thinks.spoken, thinks.published) == (GOOD.strip(), None)
    assert none == Reading("", False, NO_ANSWER, NO_ANSWER, None, None)


# --- one reading is enough ----------------------------------------------------------------------------------


def assert_what_is_spoken_says_it_all(text: str) -> None:
    """The figures of texts judge `spoken`, as far as a think block that never closes, by the reading of the
    whole text."""
    reading = read_texts([text])[text]
    judged = reading.spoken.partition("<think>")[0].strip()
    if isinstance(reading.own, Answer):
        assert judged == reading.spoken
        assert parse_answer(judged) == reading.own
    elif reading.own.reason != "cut off inside the think block":
        assert parse_answer(judged) == reading.own
    assert reading.published_spoken == parse_as_published(without_think_block(text))


PIECES = st.sampled_from(
    [
        GOOD,
        written(DOWN_0),
        "<think>",
        "</think>",
        "<Thinking>",
        "</thinking>",
        "<thi",
        "nk>",
        "\n",
        " ",
        "hm",
    ]
)


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(st.lists(PIECES | st.text(max_size=5), max_size=8).map("".join))
def test_what_is_spoken_says_it_all(text: str) -> None:
    assert_what_is_spoken_says_it_all(text)


def test_what_is_spoken_says_it_all_in_published_answers(real_data: Path) -> None:
    tables = [pd.read_csv(path, dtype=str) for path in sorted((real_data / "model_outputs").glob("*.csv"))]
    texts = [text for table in tables for text in (*table["prediction"], *table["reference"])]
    for path in sorted(real_data.glob("forecaster_*/*.jsonl")):
        texts += [row["answer"] for _, row in json_lines(path) if row]
    assert len(texts) > 5000
    for text in texts:
        assert_what_is_spoken_says_it_all(text)
