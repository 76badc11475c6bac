"""Figures that can be checked by hand, and the answers that they leave out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from boards import DOWN_0, DOWN_3, DOWN_OPEN, UP_0, UP_1, UP_2, rows, written

from forecaster.evaluation.metrics import (
    BINS,
    confusion,
    forecasts_of,
    mean_rouge_of,
    rouge_by_row,
    skill,
)
from forecaster.evaluation.published import RougeCache
from forecaster.evaluation.readings import read_forecasts
from forecaster.records import Unreadable
from forecaster.tasks.answers import parse_answer
from forecaster.tasks.weekly_rows import SILENT, Forecast

ROWS = rows(
    ("AAPL", 0, UP_1), ("MSFT", 0, DOWN_OPEN), ("AAPL", 1, DOWN_0), ("MSFT", 1, UP_0), ("KO", 1, UP_0)
)
ANSWERS = [
    written(UP_2),  # right direction, one bin and one point off
    written(UP_0),  # wrong direction: six bins and six points off
    written(DOWN_0),  # right
    "I cannot say.",
    None,
]


def test_every_figure_is_the_one_counted_by_hand() -> None:
    found = skill(forecasts_of(read_forecasts(ANSWERS)), ROWS)
    assert (found.rows, found.weeks) == (5, 2)
    assert found.coverage.value == pytest.approx(3 / 5)
    assert found.bin_acc.value == found.bin_acc_independent.value == pytest.approx(2 / 3)
    assert found.accuracy_of_all_rows.value == pytest.approx(2 / 5)
    assert found.exact_bin_acc.value == pytest.approx(1 / 3)
    assert found.bin_distance.value == pytest.approx((1 + 6 + 0) / 3)
    assert found.mse.value == pytest.approx((1 + 36 + 0) / 3)
    assert found.mse_of_no_move.value == pytest.approx((1.5**2 + 5.5**2 + 0.5**2) / 3)
    assert found.mse_against_no_move.value == pytest.approx((37 - 1.5**2 - 5.5**2 - 0.5**2) / 3)
    assert found.mae.value == pytest.approx((1 + 6 + 0) / 3)
    assert found.predicted_up_share.value == pytest.approx(2 / 3)
    assert found.predicted_down_share.value == pytest.approx(1 / 3)
    assert found.actual_up_share.value == pytest.approx(3 / 5)
    # One true up, one true down, one false up: 1 x 1 - 1 x 0 over the root of 2 x 1 x 1 x 2.
    assert found.matthews.value == pytest.approx(0.5)


def test_intervals_keep_rows_of_one_week_together_and_say_how_they_were_made() -> None:
    found = skill(forecasts_of(read_forecasts(ANSWERS)), ROWS)
    assert "2 weeks" in found.bin_acc.method
    assert found.bin_acc_independent.method == "Wilson"


def test_no_forecast_at_all_has_no_figures_but_counts() -> None:
    found = skill([SILENT] * 5, ROWS)
    assert found.coverage.value == 0
    assert found.accuracy_of_all_rows.value == 0
    assert found.bin_acc.value is found.mse.value is found.matthews.value is found.rows_needed is None


def test_rows_without_a_known_outcome_are_left_out() -> None:
    found = skill([Forecast("up")] * 2, [ROWS[0], replace(ROWS[1], actual=None)])
    assert (found.rows, found.bin_acc.value) == (1, 1.0)


def test_no_rows_at_all_break_nothing() -> None:
    found = skill([], [])
    assert (found.rows, found.bin_acc.value, found.coverage.value) == (0, None, None)


def test_the_bins_stand_in_the_order_of_their_moves() -> None:
    assert [label.text for label in BINS[:2]] == ["down by more than 5%", "down by 4-5%"]
    assert [label.text for label in BINS[5:7]] == ["down by 0-1%", "up by 0-1%"]
    assert BINS[-1].text == "up by more than 5%"


def test_the_confusion_counts_actual_by_predicted_bins_and_the_unreadable_apart() -> None:
    counts = confusion(forecasts_of(read_forecasts(ANSWERS)), ROWS)
    place = {label: at for at, label in enumerate(BINS)}
    assert counts[place[UP_1]][place[UP_2]] == 1
    assert counts[place[DOWN_OPEN]][place[UP_0]] == 1
    assert counts[place[DOWN_0]][place[DOWN_0]] == 1
    assert counts[place[UP_0]][12] == 2
    assert sum(map(sum, counts)) == 5
    assert (len(counts), len(counts[0])) == (12, 13)


def test_a_missing_answer_is_unreadable_like_any_other() -> None:
    readings = read_forecasts([None, "", written(UP_1)])
    assert readings[0] == Unreadable("no answer")
    assert isinstance(readings[1], Unreadable)
    assert readings[2] == UP_1


def test_rouge_is_the_f_measure_with_stemming_averaged_over_rows_that_read() -> None:
    reference = written(UP_1, pros="orders rose fast")
    references = [parse_answer(text) for text in [reference, reference]]
    cache = RougeCache()
    # Two of three words, one of two pairs: F 0.8 and 2/3. "order" and "orders" are one stem.
    answers = [written(UP_1, pros="order rose"), written(UP_1, pros="nothing shared")]
    rouge = mean_rouge_of(rouge_by_row([parse_answer(text) for text in answers], references, cache))
    assert rouge is not None
    assert list(rouge) == ["pros_rouge_scores", "cons_rouge_scores", "anal_rouge_scores"]
    assert rouge["pros_rouge_scores"] == pytest.approx({"rouge1": 0.4, "rouge2": 1 / 3, "rougeL": 0.4})
    # A single word has no pairs.
    assert rouge["anal_rouge_scores"] == {"rouge1": 1.0, "rouge2": 0.0, "rougeL": 1.0}
    # Two pairs of positive developments; concerns and analyses are the same pair in both rows.
    assert cache.scored == 4
    rouge_by_row([parse_answer(text) for text in answers], references, cache)
    assert cache.scored == 4


def test_answers_or_references_that_do_not_read_have_no_rouge() -> None:
    references = [parse_answer(text) for text in ["no reference", written(DOWN_3)]]
    scores = rouge_by_row(
        [parse_answer(text) for text in [written(UP_1), "nothing"]], references, RougeCache()
    )
    assert scores == [None, None]
    assert mean_rouge_of(scores) is None
