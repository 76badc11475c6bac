"""The field's own figures, computed as the field computes them: its faults are asserted, not mended."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from forecaster.evaluation.published import (
    ROUGE_TYPES,
    Published,
    PublishedAnswer,
    RougeCache,
    mean_rouge,
    parse_as_published,
    score_as_published,
)
from forecaster.records import ALL_LABELS, Answer, Label
from forecaster.tasks.answers import without_think_block
from prompts import render_answer


def written(prediction: str, pros: str = "orders rose", cons: str = "costs rose", why: str = "demand") -> str:
    return (
        f"[Positive Developments]:\n{pros}\n\n[Potential Concerns]:\n{cons}\n\n"
        f"[Prediction & Analysis]:\nPrediction: {prediction}\nAnalysis: {why}"
    )


GOOD = written("Up by 2-3%")

# --- the parser ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ALL_LABELS, ids=lambda label: label.text)
def test_an_answer_in_the_published_form_reads_as_its_bin_midpoint(label: Label) -> None:
    read = parse_as_published(render_answer(Answer("pros", "cons", label, "why")))
    assert read == PublishedAnswer("pros", "cons", label.sign, label.midpoint_pct, "why")


@pytest.mark.parametrize(
    ("prediction", "direction", "size_pct"),
    [
        # Right by luck of the form.
        ("Up by 2-3%", 1, 2.5),
        ("Down by more than 5%", -1, -5.5),
        ("an increase of 1-2%", 1, 1.5),
        ("A DECLINE of 3-4%", -1, -3.5),
        ("decrease by 0-1%", -1, -0.5),
        # "up" inside another word.
        ("Down by 2-3% as supply tightens", 1, 2.5),
        ("Down by 1-2%, upcoming results are priced in", 1, 1.5),
        # One digit is a size.
        ("Up by 10%", 1, 0.5),
        ("Up by 1.5%", 1, 5.5),
        ("Up by 10-12%", 1, 2.5),
        ("Up by 2.5-3.5%", 1, 5.5),
        ("Up by more than 15%", 1, 5.5),
        # A range counts before a number that stands earlier.
        ("Up by 9%, that is 1-2%", 1, 1.5),
        ("Up by 9%, that is 4%", 1, 9.5),
        # A size without a direction, and a direction without a size.
        ("-3%", 0, 0.0),
        ("Up", 1, 0.0),
        ("Down by 2-3 percent", -1, 0.0),
        ("", 0, 0.0),
        # Whatever stands before the last "Analysis:" is prediction.
        ("Down by 2-3%\nAnalysis: demand holds up", 1, 2.5),
    ],
)
def test_a_prediction_is_read_by_substring_and_single_digit(
    prediction: str, direction: int, size_pct: float
) -> None:
    read = parse_as_published(written(prediction))
    assert read is not None
    assert (read.direction, read.size_pct) == (direction, size_pct)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot say.",
        GOOD.replace("]:", "]"),
        GOOD.lower(),
        f"<think>a</think>\n\n{GOOD}",
        f"Here is my view.\n{GOOD}",
        f"**{GOOD}",
        GOOD.replace("Prediction: ", "**Prediction:** "),
        GOOD.replace("Prediction: ", "I say. Prediction: "),
        GOOD.replace("[Potential Concerns]:", ""),
        GOOD.replace("Analysis: demand", ""),
        GOOD.replace("&", "/"),
        # The last copy counts, and it is cut off.
        f"{GOOD}\n[Potential Concerns]: a [Prediction & Analysis]:\nPrediction: Up",
        "[Potential Concerns]: a [Positive Developments]: b [Prediction & Analysis]: Prediction: Analysis:",
    ],
)
def test_any_other_form_is_invalid(text: str) -> None:
    assert parse_as_published(text) is None


@pytest.mark.parametrize(
    "text",
    [
        f" \n{GOOD}\n\n",
        GOOD.replace("&", "and"),
        GOOD.replace("\n", " "),
        GOOD.replace("\n", ""),
    ],
)
def test_white_space_does_not_matter_and_neither_does_the_ampersand(text: str) -> None:
    assert parse_as_published(text) == PublishedAnswer("orders rose", "costs rose", 1, 2.5, "demand")


def test_of_an_answer_written_twice_the_last_sections_count_and_the_first_grows() -> None:
    read = parse_as_published(f"{GOOD}\n{written('Down by 0-1%', pros='p', cons='c', why='w')}")
    assert read is not None
    assert (read.direction, read.size_pct, read.potential_concerns, read.analysis) == (-1, -0.5, "c", "w")
    assert read.positive_developments.endswith("Analysis: demand\n[Positive Developments]:\np")


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=60))
def test_no_text_makes_it_raise(text: str) -> None:
    assert parse_as_published(text) is None
    assert isinstance(parse_as_published(written(text)), PublishedAnswer)


# --- the figures --------------------------------------------------------------------------------------------


def scored(answers: Sequence[str | None], references: Sequence[str], rouge: RougeCache) -> Published:
    read = [None if text is None else parse_as_published(text) for text in answers]
    return score_as_published(read, [parse_as_published(text) for text in references], rouge)


def test_only_rows_whose_answer_and_reference_both_read_count() -> None:
    figures = scored(
        [
            written("Up by 2-3%"),  # right direction, 1 point off
            written("Down by 0-1%"),  # wrong direction, 2 points off
            "I cannot say.",
            None,
            written("Up by 2-3%"),
        ],
        [written("Up by 1-2%"), written("Up by 1-2%"), GOOD, GOOD, "no reference"],
        RougeCache(),
    )
    assert (figures.valid_count, figures.bin_acc, figures.mse) == (2, 0.5, (1 + 4) / 2)


def test_the_reference_is_misread_as_the_answer_is() -> None:
    figures = scored([written("Up by 2-3%")], [written("Down by 2-3% as supply tightens")], RougeCache())
    assert (figures.bin_acc, figures.mse) == (1.0, 0.0)


def test_neither_direction_is_right_only_where_the_reference_has_none_either() -> None:
    figures = scored(
        [written("flat"), written("flat")], [written("stable"), written("Up by 0-1%")], RougeCache()
    )
    assert (figures.bin_acc, figures.mse) == (0.5, 0.125)


def test_rouge_is_the_f_measure_with_stemming_by_section() -> None:
    figures = scored(
        # Two of three words, one of two pairs: F 0.8 and 2/3. "order" and "orders" are one stem.
        [written("Up by 1-2%", pros="order rose", why="other words")],
        [written("Up by 1-2%", pros="orders rose fast")],
        RougeCache(),
    )
    assert figures.rouge is not None
    assert list(figures.rouge) == ["pros_rouge_scores", "cons_rouge_scores", "anal_rouge_scores"]
    assert figures.rouge["pros_rouge_scores"] == pytest.approx(
        {"rouge1": 0.8, "rouge2": 2 / 3, "rougeL": 0.8}
    )
    assert figures.rouge["cons_rouge_scores"] == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}
    assert figures.rouge["anal_rouge_scores"] == {"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0}


@pytest.mark.parametrize(
    ("answers", "references"),
    [([], []), ([None], [GOOD]), (["?"], [GOOD]), ([GOOD], ["?"])],
)
def test_without_a_valid_row_there_are_no_figures_rather_than_zeros(
    answers: list[str | None], references: list[str]
) -> None:
    assert scored(answers, references, RougeCache()) == Published(0, None, None, None)


def test_answers_and_references_of_different_number_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        scored([GOOD], [GOOD, GOOD], RougeCache())


# --- the cache ----------------------------------------------------------------------------------------------


def test_each_distinct_pair_of_texts_is_scored_once() -> None:
    rouge = RougeCache()
    assert rouge.scored == 0
    first = rouge.score("orders rose fast", "order rose")
    assert first == pytest.approx({"rouge1": 0.8, "rouge2": 2 / 3, "rougeL": 0.8})
    assert rouge.score("orders rose fast", "order rose") == first
    assert rouge.scored == 1
    rouge.score("order rose", "orders rose fast")
    assert rouge.scored == 2


def test_a_score_that_a_caller_changes_stays_as_it_was() -> None:
    rouge = RougeCache()
    rouge.score("a", "a")["rouge1"] = 7.0
    assert rouge.score("a", "a")["rouge1"] == 1.0


def test_two_models_with_the_same_answers_share_their_scores() -> None:
    rouge = RougeCache()
    for _ in range(2):
        scored([GOOD, GOOD], [GOOD, GOOD], rouge)
    # Three sections, all rows alike.
    assert rouge.scored == 3


def test_the_mean_of_no_scores_is_absent() -> None:
    assert mean_rouge([]) is None


# --- real answers -------------------------------------------------------------------------------------------


def _answers(real_data: Path, name: str) -> tuple[list[str], list[str]]:
    with (real_data / "model_outputs" / name).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300
    return [row["prediction"] for row in rows], [row["reference"] for row in rows]


def test_the_fine_tuned_llama_scores_as_published(real_data: Path) -> None:
    figures = scored(*_answers(real_data, "llama3.1_test_results.csv"), RougeCache())
    assert figures.valid_count == 283
    assert figures.bin_acc == pytest.approx(0.4912, abs=5e-5)
    assert figures.mse == pytest.approx(9.887, abs=5e-4)
    assert figures.rouge is not None
    assert [round(scores["rouge1"], 4) for scores in figures.rouge.values()] == [0.4077, 0.4390, 0.3640]


def test_the_fine_tuned_deepseek_scores_only_without_its_think_blocks(real_data: Path) -> None:
    answers, references = _answers(real_data, "Deekseek_test_results.csv")
    assert scored(answers, references, RougeCache()) == Published(0, None, None, None)
    spoken = [without_think_block(answer) for answer in answers]
    figures = scored(spoken, references, RougeCache())
    assert figures.valid_count == 297
    assert figures.bin_acc == pytest.approx(0.5152, abs=5e-5)
    assert figures.mse == pytest.approx(9.215, abs=5e-4)


def test_the_base_llama_has_no_valid_answer_and_no_figures(real_data: Path) -> None:
    answers, references = _answers(real_data, "llama3.1_base_test_results.csv")
    assert scored(answers, references, RougeCache()) == Published(0, None, None, None)


def test_297_of_300_reference_answers_are_valid(real_data: Path) -> None:
    _, references = _answers(real_data, "llama3.1_test_results.csv")
    assert sum(parse_as_published(reference) is not None for reference in references) == 297


def test_rouge_is_that_of_the_library_with_its_own_stemmer() -> None:
    library = rouge_scorer.RougeScorer(list(ROUGE_TYPES), use_stemmer=True)
    pairs = [
        ("Orders were rising, and margins rose 3%", "order rises; margin is rising by 3 percent"),
        ("generously happily ponies ties", "generous happy pony tie"),
        ("", "anything"),
    ]
    cache = RougeCache()
    for reference, answer in pairs:
        expected = library.score(reference, answer)
        assert cache.score(reference, answer) == {kind: expected[kind].fmeasure for kind in ROUGE_TYPES}
