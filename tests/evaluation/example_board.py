"""A small scoreboard with everything in it: two models, dates, prices, a training and its checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date

from boards import DOWN_0, DOWN_3, UP_0, UP_1, UP_2, row, written

from forecaster.evaluation.rows import AnswerSpeed, ModelAnswers, numbered
from forecaster.evaluation.scorecard import Scoreboard, checkpoint_scores, scoreboard
from forecaster.evaluation.training_log import TrainingLog, training_log
from forecaster.records import ALL_LABELS
from forecaster.tasks.weekly_baselines import Training

ROWS = numbered(
    [
        row("AAPL", 0, UP_1, return_pct=1.5),
        row("MSFT", 0, UP_1, return_pct=1.5),
        row("AAPL", 1, UP_1, return_pct=1.5),
        row("MSFT", 1, DOWN_3, return_pct=-3.5),
        row("AAPL", 2, DOWN_0, return_pct=-0.5),
        row("MSFT", 2, DOWN_0, return_pct=-0.5),
        row("AAPL", 3, UP_2, return_pct=2.5),
        row("MSFT", 3, UP_0, return_pct=0.5),
    ]
)
"""Five of eight rise; the weeks begin on 2, 9, 16 and 23 January 2026."""
TUNED = ModelAnswers(
    "fine-tuned",
    ROWS,
    (
        written(UP_1),
        written(UP_1),
        written(UP_1),
        written(DOWN_3),
        written(UP_1),
        f"<think>\nhm\n</think>\n\n{written(DOWN_0)}",
        written(UP_1),
        None,
    ),
    AnswerSpeed(answers=8, seconds=4.0, new_tokens=800, how="hf, batch size 4"),
    knowledge_cutoff=date(2026, 1, 12),
)
"""Six of eight are right, one is wrong and one is missing; one of the right ones thinks aloud."""
BASE = ModelAnswers("base", ROWS, ("?",) * 8)
TRAINING = Training({UP_1: 5, DOWN_0: 2})


def log() -> TrainingLog:
    return training_log(
        [
            {
                "step": 10,
                "epoch": 0.5,
                "loss": 2.0,
                "learning_rate": 1e-4,
                "grad_norm": 1.0,
                "elapsed_s": 30.0,
            },
            {
                "step": 20,
                "epoch": 1.0,
                "loss": 1.0,
                "learning_rate": 5e-5,
                "grad_norm": 0.5,
                "elapsed_s": 60.0,
            },
            {
                "step": 20,
                "epoch": 1.0,
                "eval_loss": 1.25,
                "eval_runtime": 2.0,
                "eval_samples_per_second": 4.0,
                "eval_steps_per_second": 0.5,
            },
            {
                "step": 20,
                "epoch": 1.0,
                "train_loss": 1.5,
                "train_runtime": 3725.0,
                "train_samples_per_second": 12.5,
                "train_steps_per_second": 0.3125,
            },
        ]
    )


def full_board() -> Scoreboard:
    board = scoreboard([BASE, TUNED], TRAINING, cost_bps=10.0, logs={"run": log()}, notes=["A note."])
    runs = [replace(TUNED, name="20"), replace(BASE, name="10")]
    return replace(board, checkpoints=checkpoint_scores(runs), best_step=20)


def board_of_probabilities() -> Scoreboard:
    """Two models that forecast, one of them with probabilities."""
    tells = {label.text: math.log(0.3 if label == UP_1 else 0.05) for label in ALL_LABELS}
    other = replace(TUNED, name="other", answers=tuple(written(label) for label in (UP_1, DOWN_3) * 4))
    tuned = replace(TUNED, label_log_likelihoods=(tells,) * len(ROWS))
    return scoreboard([tuned, other], TRAINING, cost_bps=10.0)


def board_without_dates() -> Scoreboard:
    rows = tuple(replace(each, symbol="", start=None, end=None, return_pct=None) for each in ROWS)
    return scoreboard([ModelAnswers("m", rows, TUNED.answers)], None, cost_bps=10.0)


def board_of_logs() -> Scoreboard:
    return scoreboard([], None, cost_bps=10.0, logs={"run": log()})
