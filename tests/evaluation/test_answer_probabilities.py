"""Probabilities that a file of answers brings along: what is read, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from boards import DOWN_3, UP_1, rows, written

from forecaster.errors import ConfigurationError
from forecaster.evaluation.answer_files import Columns, read_answer_file
from forecaster.evaluation.loading import Loaded, side_by_side
from forecaster.evaluation.scorecard import scoreboard
from forecaster.tasks.distributions import BINS

TEXTS = {"prediction": written(UP_1), "reference": written(UP_1)}
EVEN: dict[str, Any] = {label.text: 1 / 12 for label in BINS}
ONE = EVEN | dict.fromkeys(EVEN, 0) | {"up by 1-2%": 0.7, "down by 0-1%": 0.3}
EMPTY = dict.fromkeys(EVEN)


def table(folder: Path, suffix: str, lines: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / f"answers{suffix}"
    frame = pd.DataFrame(lines)
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    elif suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".json":
        path.write_text(json.dumps(list(lines)))
    else:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_answer_file(path, "m", Columns())
    (problem,) = caught.value.problems
    return str(problem).removeprefix(f"{path}: ")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet", ".json"])
def test_twelve_columns_give_a_distribution_and_empty_ones_none(tmp_path: Path, suffix: str) -> None:
    answers = read_answer_file(table(tmp_path, suffix, [TEXTS | ONE, TEXTS | EMPTY]), "m", Columns())
    first, second = answers.distributions
    assert first is not None and second is None
    assert first.up == pytest.approx(0.7)
    assert first.shares[5] == pytest.approx(0.3)


def test_names_may_be_written_in_capitals_and_sums_may_be_rounded(tmp_path: Path) -> None:
    rounded = {text.upper(): 0.0834 for text in EVEN}  # 1.0008
    (found,) = read_answer_file(table(tmp_path, ".csv", [TEXTS | rounded]), "m", Columns()).distributions
    assert found is not None and found.shares == pytest.approx((1 / 12,) * 12)


def test_without_such_columns_there_are_none(tmp_path: Path) -> None:
    answers = read_answer_file(table(tmp_path, ".csv", [TEXTS | {"up": 0.5}]), "m", Columns())
    assert answers.distributions == ()


def test_they_follow_their_rows_and_are_scored(tmp_path: Path) -> None:
    known = rows(("KO", 0, UP_1), ("PEP", 0, DOWN_3))
    lines = [
        TEXTS | {"symbol": "PEP", "period": "2026-01-02 to 2026-01-09"} | EVEN,
        TEXTS | {"symbol": "KO", "period": "2026-01-02 to 2026-01-09"} | ONE,
    ]
    answers = read_answer_file(table(tmp_path, ".jsonl", lines), "m", Columns(), known)
    assert answers.rows == known
    skill = scoreboard([answers], None, cost_bps=0.0).models[0].skill
    assert skill.log_score.value == pytest.approx((math.log(0.7) + math.log(1 / 12)) / 2)
    assert skill.label_mass.value is None  # a file does not tell


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"up by 1-2%": 70},
            "row 2 holds '70.0' in 'up by 1-2%', where a probability belongs. Give numbers from 0 to 1 (no "
            "percent), or leave all twelve empty.",
        ),
        (
            {"up by 1-2%": -0.1},
            "row 2 holds '-0.1' in 'up by 1-2%', where a probability belongs. Give numbers from 0 to 1 (no "
            "percent), or leave all twelve empty.",
        ),
        (
            {"up by 1-2%": "nan"},
            "row 2 holds 'nan' in 'up by 1-2%', where a probability belongs. Give numbers from 0 to 1 (no "
            "percent), or leave all twelve empty.",
        ),
        (
            {"up by 1-2%": None},
            "row 2 holds '' in 'up by 1-2%', where a probability belongs. Give numbers from 0 to 1 (no "
            "percent), or leave all twelve empty.",
        ),
        (
            {"up by 1-2%": 0.5},
            "the twelve probabilities of row 2 sum to 0.8. They have to sum to 1.",
        ),
    ],
    ids=["percent", "negative", "nan", "missing", "sum"],
)
def test_what_is_no_distribution_is_told_by_its_row(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    assert refusal(table(tmp_path, ".csv", [TEXTS | ONE, TEXTS | ONE | change])) == told


@pytest.mark.parametrize(
    ("value", "shown"), [(True, "True"), ("0.7", None), ([0.7], "[0.7]"), ({"p": 1}, "{'p': 1}")]
)
def test_values_of_a_jsonl_file_are_numbers_or_their_texts(
    tmp_path: Path, value: Any, shown: str | None
) -> None:
    path = table(tmp_path, ".jsonl", [TEXTS | ONE | {"up by 1-2%": value}])
    if shown is None:
        assert read_answer_file(path, "m", Columns()).distributions[0] is not None
    else:
        assert refusal(path).startswith(f"row 1 holds {shown} in 'up by 1-2%', where a probability belongs.")


def test_eleven_columns_and_one_twice_are_told(tmp_path: Path) -> None:
    eleven = {text: share for text, share in ONE.items() if text != "down by 2-3%"}
    told = "has probabilities of some labels, and no column 'down by 2-3%'. Give all twelve, or none."
    assert refusal(table(tmp_path, ".csv", [TEXTS | eleven])) == told
    twice = "has the column 'up by 1-2%' more than once. Give each column a name of its own."
    assert refusal(table(tmp_path, ".csv", [TEXTS | ONE | {"Up by 1-2%": 0}])) == twice
    path = table(tmp_path, ".csv", [TEXTS | ONE])
    header, line = path.read_text().split("\n", 1)
    path.write_text(f"{header},up by 1-2%\n{line.rstrip()},0\n")
    assert refusal(path) == twice


def test_models_that_differ_in_their_probabilities_alone_both_stay(tmp_path: Path) -> None:
    runs = []
    for name, shares in (("a", ONE), ("b", EVEN)):
        (tmp_path / name).mkdir()
        path = table(tmp_path / name, ".csv", [TEXTS | shares])
        runs.append(Loaded(name, (read_answer_file(path, name, Columns()),)))
    board = side_by_side(runs, lambda _: None, cost_bps=0.0)
    assert [model.name for model in board.models] == ["a", "b"]
