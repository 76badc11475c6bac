"""All figures of models side by side, counted by hand on a few rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from boards import DOWN_0, DOWN_3, DOWN_OPEN, UP_0, UP_1, UP_2, row, rows, written

from forecaster.evaluation.rows import AnswerSpeed, ModelAnswers, numbered
from forecaster.evaluation.scorecard import (
    Choice,
    ModelScorecard,
    Pair,
    Scoreboard,
    best_checkpoint,
    checkpoint_scores,
    scoreboard,
)
from forecaster.evaluation.training_log import training_log
from forecaster.records import Label, Row
from forecaster.tasks.weekly_baselines import Training

ROWS = rows(("AAPL", 0, UP_1), ("MSFT", 0, DOWN_3), ("AAPL", 1, UP_0), ("MSFT", 1, DOWN_0), ("KO", 1, UP_1))
"""Two weeks, which end on the Sundays of 11 and 18 January 2026."""
FIRST, SECOND = date(2026, 1, 11), date(2026, 1, 18)
THINKS = f"<think>\nhm\n</think>\n\n{written(UP_1)}"


def model(
    name: str,
    *said: Label | str | None,
    of: tuple[Row, ...] = ROWS,
    speed: AnswerSpeed | None = None,
    cutoff: date | None = None,
) -> ModelAnswers:
    answers = tuple(written(each) if isinstance(each, Label) else each for each in said)
    return ModelAnswers(name, of, answers, speed, cutoff)


def board_of(*models: ModelAnswers) -> Scoreboard:
    return scoreboard(models, None, cost_bps=0.0)


def card_of(model: ModelAnswers) -> ModelScorecard:
    (card,) = board_of(model).models
    return card


# --- one model ----------------------------------------------------------------------------------------------


def test_every_answer_is_counted_as_read_or_by_the_reason_that_it_does_not_read() -> None:
    card = card_of(model("m", UP_2, "I cannot say.", None, DOWN_0, None))
    assert (card.rows, card.valid_count) == (5, 2)
    assert card.unreadable["no answer"] == 2
    assert sum(card.unreadable.values()) == 3
    assert next(iter(card.unreadable)) == "no answer"  # the most frequent one
    assert (card.skill.accuracy_of_all_rows.value, card.skill.bin_acc.value) == (0.4, 1.0)


def test_right_directions_are_counted_by_symbol_and_by_week_and_silence_is_wrong() -> None:
    card = card_of(model("m", UP_2, UP_0, DOWN_0, DOWN_3, None))
    assert card.by_symbol == {"AAPL": (1, 2), "KO": (0, 1), "MSFT": (1, 2)}
    assert card.by_week == {FIRST: (1, 2), SECOND: (1, 3)}
    assert list(card.by_symbol) == ["AAPL", "KO", "MSFT"]
    assert list(card.by_week) == [FIRST, SECOND]


def test_rows_without_symbol_date_or_outcome_are_in_no_such_count() -> None:
    bare = replace(ROWS[0], symbol="", start=None, end=None)
    unknown = replace(ROWS[1], actual=None)
    card = card_of(model("m", UP_1, DOWN_3, UP_1, of=(bare, unknown, ROWS[2])))
    assert card.by_symbol == {"AAPL": (1, 1)}
    assert card.by_week == {SECOND: (1, 1)}
    assert card.skill.rows == 2


def test_the_published_figures_are_given_without_think_blocks_only_where_an_answer_has_one() -> None:
    plain = card_of(model("m", UP_1, f"\n {written(DOWN_3)}\n", UP_1, DOWN_0, UP_1))
    assert plain.as_published.valid_count == 5
    assert plain.as_published_without_think is None
    thinks = card_of(model("m", UP_1, DOWN_3, None, "?", THINKS))
    assert thinks.as_published.valid_count == 2
    assert thinks.as_published_without_think is not None
    assert thinks.as_published_without_think.valid_count == 3
    assert thinks.as_published_without_think.bin_acc == 1.0


def test_a_think_block_that_never_closes_is_part_of_the_answer() -> None:
    card = card_of(model("m", f"<think> {written(UP_1)}", of=ROWS[:1]))
    assert (card.as_published.valid_count, card.as_published_without_think) == (0, None)


def test_a_week_that_begins_on_the_cutoff_may_be_remembered_and_the_next_may_not() -> None:
    said = (UP_1, UP_1, UP_1, DOWN_0, UP_1)
    card = card_of(model("m", *said, cutoff=date(2026, 1, 2)))
    assert card.maybe_remembered is not None
    assert card.not_remembered is not None
    assert (card.maybe_remembered.rows, card.maybe_remembered.accuracy_of_all_rows.value) == (2, 0.5)
    assert (card.not_remembered.rows, card.not_remembered.accuracy_of_all_rows.value) == (3, 1.0)
    earlier = card_of(model("m", *said, cutoff=date(2026, 1, 1)))
    assert earlier.maybe_remembered is None
    assert earlier.not_remembered is not None
    assert earlier.not_remembered.rows == 5
    later = card_of(model("m", *said, cutoff=date(2026, 1, 9)))
    assert (later.maybe_remembered is not None, later.not_remembered) == (True, None)


def test_without_a_cutoff_or_dates_nothing_is_said_of_memory() -> None:
    assert card_of(model("m", *[UP_1] * 5)).maybe_remembered is None
    assert card_of(model("m", *[UP_1] * 5)).not_remembered is None
    bare = replace(ROWS[0], start=None, end=None)
    card = card_of(model("m", UP_1, of=(bare,), cutoff=date(2026, 1, 2)))
    assert card.maybe_remembered is card.not_remembered is None


def test_only_rows_with_a_week_and_an_outcome_are_traded() -> None:
    traded = row("KO", 0, UP_1, return_pct=2.0)
    undated = replace(row("A", 0, UP_1, return_pct=50.0), start=None, end=None)
    unknown = replace(row("B", 0, UP_1), actual=None, return_pct=None)
    card = card_of(model("m", DOWN_0, UP_1, UP_1, of=numbered([traded, undated, unknown])))
    assert card.backtest["long/short"].weeks == (FIRST,)
    assert card.backtest["long/short"].cumulative_return_pct == pytest.approx(-2.0)
    assert card.backtest["buy and hold"].cumulative_return_pct == pytest.approx(2.0)


def test_without_dates_there_is_no_backtest_and_a_note_says_so() -> None:
    board = board_of(model("m", UP_1, of=(replace(ROWS[0], start=None, end=None),)))
    assert board.models[0].backtest == {}
    assert board.notes == (
        "Rows without dates: their intervals take rows as independent, and there is no backtest.",
    )


def test_luck_is_drawn_for_models_and_not_for_baselines() -> None:
    board = board_of(model("m", UP_1, DOWN_3, DOWN_0, DOWN_0, UP_1))
    assert board.models[0].backtest["long/short"].luck_share is not None
    assert {line.backtest["long/short"].luck_share for line in board.baselines} == {None}


def test_rouge_l_stands_by_row_as_the_mean_of_three_sections() -> None:
    # One word of two in each of the first two sections, none in the third.
    answer = written(UP_1, pros="orders fell", cons="costs fell", why="weather")
    card = card_of(model("m", answer, "?", of=ROWS[:2]))
    assert card.rouge_l == (pytest.approx((0.5 + 0.5 + 0.0) / 3), None)
    assert card.rouge is not None
    assert card.rouge["pros_rouge_scores"]["rougeL"] == pytest.approx(0.5)
    assert card_of(model("m", "?", of=ROWS[:1])).rouge is None


def test_speed_and_cutoff_come_from_the_answers() -> None:
    card = card_of(model("m", *[UP_1] * 5, speed=AnswerSpeed(5, 2.0, 80), cutoff=date(2025, 12, 1)))
    assert (card.speed, card.knowledge_cutoff) == (AnswerSpeed(5, 2.0, 80), date(2025, 12, 1))


def test_what_is_missing_of_the_rows_is_noted_behind_the_notes_given() -> None:
    some = (replace(ROWS[0], actual=None), replace(ROWS[1], return_pct=-3.5), ROWS[2])
    board = scoreboard([model("m", UP_1, UP_1, UP_1, of=some)], None, cost_bps=0.0, notes=["First."])
    assert board.notes == (
        "First.",
        "1 of 3 rows have no known outcome; figures of skill leave them out.",
        "1 of 3 rows have a label, but no return: the backtest takes the middle of the bin (5.5 % beyond "
        "five). --price_file gives real returns.",
    )


# --- baselines ----------------------------------------------------------------------------------------------


def test_baselines_stand_beside_the_models_on_the_same_rows() -> None:
    board = scoreboard([model("m", *[UP_1] * 5)], Training({DOWN_OPEN: 3, UP_1: 2}), cost_bps=0.0)
    found = {line.name: line.skill.bin_acc.value for line in board.baselines}
    assert list(found) == [
        "always up (hindsight)",
        "always down (hindsight)",
        "last week again",
        "zero forecast",
        "coin",
        "training majority (down)",
        "climatology",
    ]
    assert (found["always up (hindsight)"], found["always down (hindsight)"]) == (0.6, 0.4)
    assert found["training majority (down)"] == 0.4
    assert found["zero forecast"] is found["last week again"] is found["climatology"] is None
    # Middles of the bins: 1.5, -3.5, 0.5, -0.5 and 1.5.
    zero = next(line for line in board.baselines if line.name == "zero forecast")
    assert zero.skill.mse.value == pytest.approx((2.25 + 12.25 + 0.25 + 0.25 + 2.25) / 5)


def test_logs_alone_give_an_empty_board_with_curves() -> None:
    log = training_log([{"step": 1, "loss": 2.0}])
    board = scoreboard([], Training({UP_1: 1}), cost_bps=5.0, logs={"run": log}, notes=["Note."])
    assert board == Scoreboard((), (), (), (), (), logs={"run": log}, cost_bps=5.0, notes=("Note.",))


# --- one model against another ------------------------------------------------------------------------------


def pairs_of(*models: ModelAnswers) -> list[Pair]:
    """Without those of a model and a constant."""
    names = {each.name for each in models}
    return [pair for pair in board_of(*models).pairs if pair.second in names]


def test_a_pair_counts_the_rows_that_only_one_of_the_two_has_right() -> None:
    # Right: all five; the first, fourth and fifth. Silence is wrong.
    first = model("first", UP_2, DOWN_0, UP_0, DOWN_3, UP_1)
    second = model("second", UP_1, UP_1, None, DOWN_0, UP_0)
    (pair,) = pairs_of(first, second)
    assert (pair.first, pair.second) == ("first", "second")
    assert (pair.only_first_right, pair.only_second_right) == (2, 0)
    # Two of two coins fall one way, from either side: 2 x 1/4.
    assert pair.p_value == pytest.approx(0.5)
    assert pair.difference.value == pytest.approx(2 / 5)
    (turned,) = pairs_of(second, first)
    assert (turned.only_first_right, turned.only_second_right) == (0, 2)
    assert turned.difference.value == pytest.approx(-2 / 5)


def test_three_against_one_is_no_proof() -> None:
    first = model("first", UP_1, DOWN_3, UP_1, DOWN_0, DOWN_0)
    second = model("second", DOWN_0, UP_1, DOWN_0, DOWN_0, UP_1)
    (pair,) = pairs_of(first, second)
    assert (pair.only_first_right, pair.only_second_right) == (3, 1)
    # At least three of four on one side: 2 x (4 + 1) / 16.
    assert pair.p_value == pytest.approx(0.625)


def test_models_that_are_right_on_the_same_rows_are_no_different() -> None:
    (pair,) = pairs_of(model("a", *[UP_1] * 5), model("b", *[UP_2] * 5))
    assert (pair.only_first_right, pair.only_second_right, pair.p_value) == (0, 0, 1.0)
    assert (pair.difference.value, pair.rows_needed) == (0.0, None)


def test_rows_without_an_outcome_are_in_no_pair() -> None:
    some = (ROWS[0], replace(ROWS[1], actual=None))
    (pair,) = pairs_of(model("a", UP_1, UP_1, of=some), model("b", DOWN_0, DOWN_0, of=some))
    assert (pair.only_first_right, pair.only_second_right, pair.difference.value) == (1, 0, 1.0)


def test_every_two_models_are_a_pair() -> None:
    found = pairs_of(*(model(name, *[UP_1] * 5) for name in "abc"))
    assert [(pair.first, pair.second) for pair in found] == [("a", "b"), ("a", "c"), ("b", "c")]


def test_every_model_is_held_against_the_better_constant_where_no_training_is_known() -> None:
    # Three of five rise: always up is right there, and the first model everywhere.
    board = board_of(model("first", UP_2, DOWN_0, UP_0, DOWN_3, UP_1), model("silent", *[None] * 5))
    found = {
        (pair.first, pair.second): (pair.only_first_right, pair.only_second_right) for pair in board.pairs
    }
    assert found == {
        ("first", "silent"): (5, 0),
        ("first", "always up (hindsight)"): (2, 0),
        ("silent", "always up (hindsight)"): (0, 3),
    }
    assert [pair.p_value is None for pair in board.pairs] == [False, True, True]


def test_every_model_is_held_against_what_training_rows_mostly_did() -> None:
    falls = Training({DOWN_0: 2, UP_1: 1})
    board = scoreboard([model("first", UP_2, DOWN_0, UP_0, DOWN_3, UP_1)], falls, cost_bps=0.0)
    assert [(pair.second, pair.only_first_right) for pair in board.pairs] == [("training majority (down)", 3)]


def choices_of(*models: ModelAnswers) -> dict[str, Choice]:
    return {choice.figure: choice for choice in board_of(*models).choices}


MANY = numbered([row(symbol, week, UP_1) for week in range(12) for symbol in ("AAPL", "KO")])


def test_a_model_that_leads_beyond_chance_is_chosen() -> None:
    good = model("good", *[UP_1] * 23, DOWN_0, of=MANY)
    bad = model("bad", *[DOWN_0] * 24, of=MANY)
    found = choices_of(bad, good)
    right = found["accuracy of all rows"]
    assert (right.best, right.leader, right.runner_up) == ("good", "good", "bad")
    assert right.difference.value == pytest.approx(23 / 24)
    # The smaller error leads: nothing 23 times against 2 x 2.
    error = found["squared error"]
    assert (error.best, error.runner_up) == ("good", "bad")
    assert error.difference.value == pytest.approx(-4 * 23 / 24)
    # Both read everywhere.
    reads = found["answers that read"]
    assert (reads.best, reads.difference.value) == (None, 0.0)


def test_one_week_chooses_nobody() -> None:
    found = choices_of(model("a", UP_1, DOWN_3, of=ROWS[:2]), model("b", DOWN_0, UP_1, of=ROWS[:2]))
    right = found["accuracy of all rows"]
    assert (right.best, right.leader, right.difference.value) == (None, "a", 1.0)
    assert right.difference.low is right.difference.high is None


def test_a_lead_that_may_be_chance_is_a_tie() -> None:
    # Each is right where the other one is wrong, the first in one week more.
    first = [UP_1 if at < 14 else DOWN_0 for at in range(24)]
    second = [DOWN_0 if at < 14 else UP_1 for at in range(24)]
    found = choices_of(model("a", *first, of=MANY), model("b", *second, of=MANY))["accuracy of all rows"]
    assert (found.best, found.leader, found.runner_up) == (None, "a", "b")
    assert found.difference.value == pytest.approx(4 / 24)
    assert found.difference.low is not None
    assert found.difference.low < 0


def test_the_leader_is_held_against_the_next_one_and_not_the_last() -> None:
    half = [UP_1 if at < 12 else DOWN_0 for at in range(24)]
    found = choices_of(
        model("worst", *[DOWN_0] * 24, of=MANY),
        model("best", *[UP_1] * 24, of=MANY),
        model("half", *half, of=MANY),
    )["accuracy of all rows"]
    assert (found.best, found.runner_up, found.difference.value) == ("best", "half", 0.5)


def test_a_figure_that_fewer_than_two_models_have_is_no_choice() -> None:
    found = choices_of(model("speaks", None, *[UP_1] * 23, of=MANY), model("silent", *[None] * 24, of=MANY))
    assert list(found) == ["accuracy of all rows", "answers that read"]
    assert found["answers that read"].best == "speaks"
    assert choices_of(model("alone", *[UP_1] * 24, of=MANY)) == {}


def test_errors_are_compared_over_the_rows_that_both_have() -> None:
    # The second one reads on the second row only, where the first one misses by 2.
    found = choices_of(
        model("a", UP_1, UP_1, of=MANY[:2]),
        model("b", None, Label("up", 3), of=MANY[:2]),
    )["squared error"]
    assert (found.leader, found.runner_up, found.difference.value) == ("a", "b", -4.0)


# --- checkpoints --------------------------------------------------------------------------------------------


def best_of(**said: tuple[Label | str | None, ...]) -> int | None:
    scores = checkpoint_scores(
        [
            model(step.removeprefix("step_"), *answers, of=ROWS[: len(answers)])
            for step, answers in said.items()
        ]
    )
    best = best_checkpoint(scores)
    return best.step if best else None


def test_checkpoints_stand_in_the_order_of_training_not_of_the_alphabet() -> None:
    runs = [model(step, UP_1, of=ROWS[:1]) for step in ("100", "20", "3")]
    assert [score.step for score in checkpoint_scores(runs)] == [3, 20, 100]


def test_the_best_checkpoint_has_the_most_right_directions_whatever_its_errors() -> None:
    # Two right with errors of 4 and 4, against one right without an error and one wrong.
    assert best_of(step_10=(UP_1, UP_0), step_20=(Label("up", 3), DOWN_OPEN)) == 20


def test_an_unreadable_answer_is_wrong_for_the_choice_too() -> None:
    assert best_of(step_10=(UP_1, None), step_20=(UP_2, DOWN_0)) == 20


def test_equal_accuracy_is_decided_by_the_squared_error() -> None:
    assert best_of(step_10=(UP_2, DOWN_3), step_20=(UP_1, DOWN_3)) == 20


def test_equal_in_both_the_earlier_checkpoint_is_taken() -> None:
    assert best_of(step_200=(UP_1, DOWN_3), step_30=(UP_1, DOWN_3)) == 30


def test_a_checkpoint_that_is_always_wrong_is_better_than_one_that_says_nothing() -> None:
    assert best_of(step_10=(None, "?"), step_20=(DOWN_0, UP_1)) == 20


def test_when_nothing_reads_the_first_checkpoint_is_taken() -> None:
    assert best_of(step_20=("?", None), step_10=(None, None)) == 10


def test_without_checkpoints_there_is_no_best_one() -> None:
    assert best_checkpoint(()) is None


# --- what a comparison must not do --------------------------------------------------------------------------


def test_a_model_that_answers_only_the_easy_rows_does_not_lead_by_its_errors() -> None:
    actual = rows(*((symbol, week, UP_0) for week in range(8) for symbol in ("AAPL", "MSFT")))
    # One bin off wherever it speaks, every second row; the other is never off there, and far off elsewhere.
    picky = model("picky", *(UP_1 if at % 2 else None for at in range(16)), of=actual)
    brave = model("brave", *(UP_0 if at % 2 else DOWN_OPEN for at in range(16)), of=actual)
    choice = next(c for c in board_of(picky, brave).choices if c.figure == "squared error")
    assert (choice.leader, choice.best, choice.difference.value) == ("brave", "brave", -1.0)


def test_the_lead_of_one_that_always_reads_over_one_that_never_does_is_no_tie() -> None:
    actual = rows(*(("AAPL", week, UP_0) for week in range(6)))
    reads, silent = model("reads", *[UP_0] * 6, of=actual), model("silent", *[None] * 6, of=actual)
    assert {c.figure: c.best for c in board_of(reads, silent).choices}["answers that read"] == "reads"
    few = [model(m.name, *m.answers[:5], of=actual[:5]) for m in (reads, silent)]
    assert {c.figure: c.best for c in board_of(*few).choices}["answers that read"] is None


def test_rows_from_before_the_end_of_a_models_training_are_noted() -> None:
    tuned = replace(model("tuned", *[UP_1] * 5), trained_until=date(2026, 1, 9))
    (note,) = [note for note in board_of(tuned).notes if "trained" in note]
    assert note == (
        "2 of 5 rows begin before the training of tuned ended (2026-01-09): it may have been trained on them."
    )
    # A week that begins on the last day of training comes after it.
    after = replace(model("tuned", *[UP_1] * 5), trained_until=date(2026, 1, 2))
    assert not [note for note in board_of(after).notes if "trained" in note]
