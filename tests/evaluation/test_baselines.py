"""What anyone scores without a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from boards import DOWN_0, DOWN_3, UP_1, UP_2, rows

from forecaster.evaluation.metrics import skill
from forecaster.evaluation.rows import numbered, rows_of_dataset
from forecaster.records import Label, Row
from forecaster.tasks.distributions import PLACE, climatology
from forecaster.tasks.weekly import WEEKLY
from forecaster.tasks.weekly_baselines import (
    ALWAYS_DOWN,
    ALWAYS_UP,
    COIN,
    LAST_WEEK,
    SYMBOL_CLIMATOLOGY,
    TEXT,
    ZERO,
    Training,
    baselines,
)
from forecaster.tasks.weekly_rows import SILENT, Forecast, make_row

ROWS = rows(("AAPL", 0, UP_1), ("MSFT", 0, DOWN_3), ("KO", 0, DOWN_0))


def test_the_baselines_are_those_counted_by_hand() -> None:
    lines = baselines(ROWS, Training({UP_2: 5, Label("down", 1): 3}))
    figures = {name: skill(forecasts, ROWS) for name, forecasts in lines.items()}
    assert figures[ALWAYS_UP].bin_acc.value == pytest.approx(1 / 3)
    assert figures[ALWAYS_DOWN].bin_acc.value == pytest.approx(2 / 3)
    assert figures[ALWAYS_UP].mse.value is figures[ZERO].bin_acc.value is None
    assert figures["training majority (up)"].bin_acc.value == pytest.approx(1 / 3)
    assert figures["training majority (up)"].mse.value is None
    assert figures[ZERO].mse.value == pytest.approx((2.25 + 12.25 + 0.25) / 3)


def test_without_training_labels_there_is_no_majority() -> None:
    assert list(baselines(ROWS, None)) == [ALWAYS_UP, ALWAYS_DOWN, LAST_WEEK, ZERO, COIN]


def test_the_majority_is_that_of_directions_and_not_the_most_frequent_bin() -> None:
    falls = Training({UP_1: 3, DOWN_3: 2, DOWN_0: 2})
    assert "training majority (down)" in baselines(ROWS, falls)
    assert Training({UP_1: 2, DOWN_3: 2}).direction == "up"


def test_the_climatology_of_a_symbol_leans_on_that_of_all_rows() -> None:
    # Of all: (6 + 1, 2 + 1 and ten times 1) / 20. Of KO: (2 + 12 * 7 / 20) / 14 for its own bin.
    known = Training.of_counts({UP_1.text: 6, DOWN_3.text: 2}, {"KO": {UP_1.text: 2}})
    found = [forecast.distribution for forecast in baselines(ROWS, known)[SYMBOL_CLIMATOLOGY]]
    assert all(found)
    shares = [given.shares[PLACE[UP_1]] for given in found if given]
    assert shares == pytest.approx([7 / 20, 7 / 20, (2 + 12 * 7 / 20) / 14])  # AAPL, MSFT, KO


def test_what_words_say_stands_on_the_rows_that_it_is_known_of() -> None:
    given = climatology({UP_1: 30, DOWN_3: 10})
    known = Training({UP_1: 1}, text_forecasts={ROWS[1].row_id: given})
    assert baselines(ROWS, known)[TEXT] == [SILENT, Forecast("up", distribution=given), SILENT]


def test_the_coin_falls_by_seed_and_row_not_by_place() -> None:
    coin = baselines(ROWS, None, seed=1)[COIN]
    assert coin == baselines(ROWS, None, seed=1)[COIN]
    assert baselines(ROWS[::-1], None, seed=1)[COIN] == coin[::-1]
    many = rows(*((f"S{i}", 0, UP_1) for i in range(200)))
    ups = sum(forecast.direction == "up" for forecast in baselines(many, None)[COIN])
    assert 70 < ups < 130
    assert baselines(many, None, seed=1)[COIN] != baselines(many, None, seed=2)[COIN]


def _prompted(move: str) -> Row:
    prompt = f"From 2026-01-02 to 2026-01-09, KO's stock price {move}. News during this period:"
    return make_row(prompt, "", symbol="KO", period="2026-01-09 to 2026-01-16", label="up by 1-2%")


def test_last_week_again_takes_the_move_that_the_prompt_shows_last() -> None:
    shown = numbered(
        [
            _prompted("increased from 100.00 to 102.50"),
            _prompted("decreased from 100.00 to 92.00"),
            _prompted("stayed at 5"),
        ]
    )
    assert baselines(shown, None)[LAST_WEEK] == [
        Forecast("up", 2.5, UP_2),
        Forecast("down", -5.5, Label("down", 5)),
        Forecast("up", 0.5, Label("up", 0)),
    ]
    assert baselines(ROWS, None)[LAST_WEEK] == [SILENT] * 3


def test_on_the_published_rows_they_score_what_was_published(real_data: Path) -> None:
    lines = (real_data / "forecaster_dow30" / "test_300.jsonl").read_text(encoding="utf-8").splitlines()
    every = rows_of_dataset([json.loads(line) for line in lines], WEEKLY)
    assert len(every) == 300
    # Three reference answers do not read: the published figures are over the other 297.
    published = [row for row in every if make_row("", row.reference).actual is not None]
    found = {name: skill(f, published) for name, f in baselines(published, None).items()}
    assert found[ALWAYS_DOWN].rows == 297
    assert found[ALWAYS_DOWN].bin_acc.value == pytest.approx(0.542, abs=5e-4)
    assert found[ZERO].mse.value == pytest.approx(7.13, abs=5e-3)
    assert found[LAST_WEEK].coverage.value == 1.0
