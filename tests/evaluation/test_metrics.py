"""Figures that can be checked by hand, and the answers that they leave out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forecaster.evaluation.metrics import Scored, direction_accuracy, mean_squared_error, score
from forecaster.prompts import parse_prediction, render_answer
from forecaster.records import Answer, Label

UP_1_2, UP_2_3, UP_0_1 = Label("up", 1), Label("up", 2), Label("up", 0)
DOWN_OPEN, DOWN_0_1 = Label("down", 5), Label("down", 0)


def written(label: Label, pros: str = "orders rose", cons: str = "costs rose", why: str = "demand") -> str:
    return render_answer(Answer(pros, cons, label, why))


REFERENCE = written(UP_1_2, pros="orders rose fast")


def test_accuracy_and_error_are_those_counted_by_hand() -> None:
    metrics = score(
        [
            Scored(UP_1_2, REFERENCE, written(UP_2_3)),  # right direction, one point off
            Scored(DOWN_OPEN, REFERENCE, written(UP_0_1)),  # wrong direction, six points off
            Scored(DOWN_0_1, REFERENCE, written(DOWN_0_1)),  # right
            Scored(UP_0_1, REFERENCE, "I cannot say."),
            Scored(UP_0_1, REFERENCE, None),
        ]
    )
    assert (metrics.rows, metrics.valid_count, metrics.valid_share) == (5, 3, 0.6)
    assert metrics.bin_acc == pytest.approx(2 / 3)
    assert metrics.mse == pytest.approx((1 + 36 + 0) / 3)
    assert metrics.unreadable == {"no section [Positive Developments]": 1, "no answer": 1}


def test_identical_text_has_a_rouge_of_one_in_every_section() -> None:
    metrics = score([Scored(UP_1_2, REFERENCE, REFERENCE.replace("demand", "demand holds up"))] * 2)
    assert metrics.rouge is not None
    assert list(metrics.rouge) == ["pros_rouge_scores", "cons_rouge_scores", "anal_rouge_scores"]
    one = {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}
    assert metrics.rouge["pros_rouge_scores"] == one
    assert metrics.rouge["cons_rouge_scores"] == one
    # "demand" of "demand holds up": precision 1/3, recall 1, F 1/2; no pair of words in common.
    assert metrics.rouge["anal_rouge_scores"] == pytest.approx({"rouge1": 0.5, "rouge2": 0.0, "rougeL": 0.5})


def test_rouge_is_the_f_measure_with_stemming_averaged_over_rows() -> None:
    metrics = score(
        [
            # Two of three words, one of two pairs: F 0.8 and 2/3. "order" and "orders" are one stem.
            Scored(UP_1_2, REFERENCE, written(UP_1_2, pros="order rose")),
            Scored(UP_1_2, REFERENCE, written(UP_1_2, pros="nothing shared")),
        ]
    )
    assert metrics.rouge is not None
    assert metrics.rouge["pros_rouge_scores"] == pytest.approx(
        {"rouge1": 0.8 / 2, "rouge2": (2 / 3) / 2, "rougeL": 0.8 / 2}
    )


def test_a_row_whose_reference_does_not_read_counts_everywhere_but_in_rouge() -> None:
    readable = Scored(UP_1_2, REFERENCE, REFERENCE)
    metrics = score([readable, Scored(UP_1_2, "no reference", written(DOWN_0_1, pros="x"))])
    assert metrics.bin_acc == 0.5
    assert metrics.rouge is not None
    assert metrics.rouge["pros_rouge_scores"]["rouge1"] == 1.0
    assert score([Scored(UP_1_2, "no reference", REFERENCE)]).rouge is None


def test_when_nothing_reads_there_are_no_figures_rather_than_zeros() -> None:
    metrics = score([Scored(UP_1_2, REFERENCE, "?"), Scored(UP_1_2, REFERENCE, "")])
    assert (metrics.rows, metrics.valid_count, metrics.valid_share) == (2, 0, 0.0)
    assert (metrics.bin_acc, metrics.mse, metrics.rouge, metrics.seconds_per_answer) == (
        None,
        None,
        None,
        None,
    )
    assert metrics.unreadable == {"no section [Positive Developments]": 2}


def test_answers_that_are_unreadable_for_one_reason_are_counted_together() -> None:
    metrics = score(
        [
            Scored(UP_1_2, REFERENCE, REFERENCE.replace("Up by 1-2%", "Up a lot")),
            Scored(UP_1_2, REFERENCE, REFERENCE.replace("Up by 1-2%", "Down a lot")),
            Scored(UP_1_2, REFERENCE, REFERENCE.replace("Up by 1-2%", "Up or down by 2%")),
        ]
    )
    assert metrics.unreadable == {
        "no size in percent in the prediction": 2,
        "both directions in the prediction": 1,
    }


def test_answers_that_name_several_sizes_are_counted_together_too() -> None:
    metrics = score(
        [
            Scored(UP_1_2, REFERENCE, REFERENCE.replace("Up by 1-2%", "Up by 1-2% or 4-5%")),
            Scored(UP_1_2, REFERENCE, REFERENCE.replace("Up by 1-2%", "Up by 2-3% | 4-5%")),
        ]
    )
    ((reason, count),) = metrics.unreadable.items()
    assert reason.startswith("more than one prediction")
    assert "4-5%" not in reason
    assert count == 2


def test_seconds_are_averaged_over_the_answers_that_were_timed() -> None:
    metrics = score(
        [
            Scored(UP_1_2, REFERENCE, REFERENCE, latency_s=1.0),
            Scored(UP_1_2, REFERENCE, "unreadable, but it took time", latency_s=3.0),
            Scored(UP_1_2, REFERENCE, None),
        ]
    )
    assert metrics.seconds_per_answer == 2.0


def test_an_answer_that_took_no_time_counts_as_zero_seconds_not_as_untimed() -> None:
    assert score([Scored(UP_1_2, REFERENCE, REFERENCE, latency_s=0.0)]).seconds_per_answer == 0.0


def test_figures_over_no_pairs_are_absent() -> None:
    assert direction_accuracy([]) is None
    assert mean_squared_error([]) is None


def test_the_error_uses_bin_midpoints() -> None:
    assert mean_squared_error([(5.5, DOWN_OPEN)]) == 121.0
    assert mean_squared_error([(0.0, UP_0_1), (0.0, DOWN_OPEN)]) == (0.25 + 30.25) / 2
    assert direction_accuracy([(UP_0_1, UP_2_3), (UP_0_1, DOWN_0_1)]) == 0.5


def test_the_real_reference_answers_scored_against_themselves_are_perfect(real_data: Path) -> None:
    lines = (real_data / "forecaster_dow30" / "test_300.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:40]]
    scored = []
    for row in rows:
        label = parse_prediction(row["label"])
        assert isinstance(label, Label)
        scored.append(Scored(label, row["answer"], row["answer"]))
    metrics = score(scored)
    assert (metrics.bin_acc, metrics.mse) == (1.0, 0.0)
    assert metrics.rouge is not None
    for section in metrics.rouge.values():
        assert section == pytest.approx({"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0})
