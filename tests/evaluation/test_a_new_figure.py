"""A figure that the project does not have is one field, and is everywhere that a figure can be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from boards import DOWN_0, UP_2, rows, written

from forecaster.evaluation import metrics
from forecaster.evaluation.figures import Case, Column, figures_of, mean_figure
from forecaster.evaluation.metrics import Skill
from forecaster.evaluation.report.pages import metrics_json, tables, write_report
from forecaster.evaluation.rows import ModelAnswers
from forecaster.evaluation.scorecard import scoreboard
from forecaster.evaluation.statistics import Estimate

ROWS = rows(*[(symbol, week, UP_2) for week in range(6) for symbol in ("AAPL", "KO")])


def is_far_off(case: Case) -> bool | None:
    size_pct = case.forecast.size_pct
    return None if size_pct is None else abs(size_pct - case.actual.midpoint_pct) > 2


@dataclass(frozen=True)
class WiderSkill(Skill):
    far_off_share: Estimate = mean_figure(
        is_far_off,
        "share",
        "Forecasts that are more than two percentage points off.",
        Column("size", "far off", note="Far off: by more than two percentage points."),
        better="lower",
        contest="far-off forecast",
    )


def test_a_new_field_is_in_the_file_in_a_table_and_in_a_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(metrics, "Skill", WiderSkill)
    wrong = ModelAnswers("wrong", ROWS, (written(DOWN_0),) * len(ROWS))
    right = replace(wrong, name="right", answers=(written(UP_2),) * len(ROWS))
    board = scoreboard([wrong, right], None, cost_bps=0.0)
    assert metrics_json(board)["models"]["wrong"]["project"]["far_off_share"]["value"] == 1.0
    assert (
        metrics_json(board)["baselines"]["always up (hindsight)"]["project"]["far_off_share"]["value"] is None
    )

    size = tables(board)["size"]
    assert [(row[0], row[-1]) for row in size.rows[:2]] == [
        ("wrong", "1.000 [0.541, 1.000]"),
        ("right", "0.000 [0.000, 0.459]"),
    ]
    assert size.columns == (
        "",
        "MSE (%²)",
        "of no move, same rows",
        "MAE (%)",
        "exact bin",
        "bins apart",
        "far off",
    )
    assert "Far off: by more than two percentage points." in size.note.splitlines()

    (choice,) = (choice for choice in board.choices if choice.figure == "far-off forecast")
    assert (choice.best, choice.difference.value) == ("right", -1.0)
    assert "of squared errors and far-off forecasts the smaller one leads" in tables(board)["choices"].note
    write_report(tmp_path, board, "title", {})
    assert "far off" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_figure_explains_itself_and_says_which_way_it_is_better() -> None:
    figure = figures_of(WiderSkill)["far_off_share"]
    assert figure.explained == "Forecasts that are more than two percentage points off. Lower is better."
    assert figures_of(Skill)["actual_up_share"].explained == "Of the rows whose outcome is known."


def test_models_are_not_compared_by_a_figure_of_which_neither_way_is_better() -> None:
    with pytest.raises(ValueError, match="far-off forecast"):
        mean_figure(is_far_off, "share", "Forecasts that are far off.", contest="far-off forecast")


def test_a_figure_that_shares_cells_stands_beside_one_that_there_is() -> None:
    columns = [of.column for of in figures_of(Skill).values() if of.column]
    assert {column.beside for column in columns} - {""} <= figures_of(Skill).keys()
