"""The folder of a benchmark: what a kill costs, and which answers count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from boards import DOWN_3, UP_1, row, written

from forecaster.errors import ConfigurationError
from forecaster.evaluation.predictions import (
    PREDICTIONS,
    RECORD,
    Journal,
    Prediction,
    read_answers,
    read_predictions,
    read_rows,
    settle,
    sha256_of_rows,
    write_record,
    write_rows,
)
from forecaster.evaluation.rows import numbered, rows_of_dataset
from forecaster.tasks.weekly import WEEKLY

DATASET = [
    {
        "prompt": "KO?",
        "answer": written(UP_1),
        "period": "2026-01-02 to 2026-01-09",
        "label": "up by 1-2%",
        "symbol": symbol,
        "weekly_return_pct": 1.25,
    }
    for symbol in ("KO", "PEP")
]
ROWS = rows_of_dataset(DATASET, WEEKLY)
MAKERS = {"models": {"base": {"engine": "hf"}, "fine-tuned": {"engine": "hf", "adapter_sha256": "1"}}}


def line(model: str, at: int, answer: str | None = "x", new_tokens: int | None = 4) -> Prediction:
    r = ROWS[at]
    return Prediction(model, r.row_id, r.symbol, "", "", answer, 3, 0, new_tokens)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path, DATASET, ROWS, WEEKLY)
    write_record(tmp_path, MAKERS)
    return tmp_path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def test_rows_come_back_as_they_were_and_are_a_dataset_of_their_own(folder: Path) -> None:
    assert read_rows(folder, WEEKLY) == ROWS
    assert lines_of(folder / "rows.jsonl")[0] == {"row_id": "KO 2026-01-02 to 2026-01-09", **DATASET[0]}


def test_finished_answers_stand_by_model_and_row_in_whatever_order_they_came(folder: Path) -> None:
    with Journal(folder, rank=1) as second, Journal(folder, rank=0) as first:
        second.write([line("fine-tuned", 1), line("base", 1)], seconds=2.0)
        first.write([line("fine-tuned", 0)], seconds=1.0)
        first.write([line("base", 0)], seconds=3.0)
    settle(folder, ["base", "fine-tuned"], ROWS)
    found = lines_of(folder / PREDICTIONS)
    assert [(f["model"], f["symbol"]) for f in found] == [
        ("base", "KO"),
        ("base", "PEP"),
        ("fine-tuned", "KO"),
        ("fine-tuned", "PEP"),
    ]
    assert "seconds" not in found[0]
    assert not list(folder.glob("journal*"))


def test_the_slowest_rank_says_how_long_a_model_took(folder: Path) -> None:
    with Journal(folder, rank=0) as first, Journal(folder, rank=1) as second:
        first.write([line("base", 0)], seconds=3.0)
        second.write([line("base", 1)], seconds=5.0)
    settle(folder, ["base"], ROWS)
    (base,) = read_answers(folder, WEEKLY).complete
    assert base.speed is not None
    assert (base.speed.answers, base.speed.seconds, base.speed.new_tokens) == (2, 5.0, 8)
    settle(folder, ["base"], ROWS)
    assert read_answers(folder, WEEKLY).complete[0].speed == base.speed


def test_tokens_that_an_endpoint_does_not_tell_are_not_known_rather_than_none(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.write([line("base", 0, new_tokens=None), line("base", 1, new_tokens=None)], seconds=4.0)
    settle(folder, ["base"], ROWS)
    (base,) = read_answers(folder, WEEKLY).complete
    assert base.speed is not None
    assert (base.speed.seconds_per_answer, base.speed.new_tokens, base.speed.new_tokens_per_s) == (
        2.0,
        None,
        None,
    )


@pytest.mark.parametrize("lost", ["half a line", "a line"])
def test_a_batch_that_a_kill_cut_off_does_not_count(folder: Path, lost: str) -> None:
    with Journal(folder) as journal:
        journal.write([line("base", 0)])
        journal.write([line("fine-tuned", 0), line("fine-tuned", 1)])
    path = folder / "journal.rank0.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-10] if lost == "half a line" else content[: content[:-1].rfind(b"\n") + 1])
    assert [p.model for p in read_predictions(folder)] == ["base"]
    with Journal(folder) as journal:
        journal.write([line("base", 1)])
    assert [p.symbol for p in read_predictions(folder)] == ["KO", "PEP"]


def test_answers_of_another_making_are_put_aside_and_come_back(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.write([line("base", 0, "b"), line("fine-tuned", 0, "first training")])
    settle(folder, ["base", "fine-tuned"], ROWS)
    before = (folder / PREDICTIONS).read_bytes()
    other = {"models": {**MAKERS["models"], "fine-tuned": {"engine": "hf", "adapter_sha256": "2"}}}
    (note,) = write_record(folder, other)
    assert note.startswith("The answers of fine-tuned were made otherwise: kept as predictions.")
    assert [p.answer for p in read_predictions(folder)] == ["b"]
    write_record(folder, MAKERS)
    settle(folder, ["base", "fine-tuned"], ROWS)
    assert (folder / PREDICTIONS).read_bytes() == before


def test_a_model_that_the_record_does_not_name_stays(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.write([line("base", at) for at in (0, 1)])
    assert write_record(folder, {"models": {"gpt": {"engine": "api"}}}) == []
    assert list(json.loads((folder / RECORD).read_text())["models"]) == ["base", "fine-tuned", "gpt"]
    assert [p.model for p in read_predictions(folder)] == ["base", "base"]


def test_models_that_answered_other_rows_or_at_another_length_leave_the_table(folder: Path) -> None:
    write_record(folder, {"models": {"gpt": {"rows_sha256": "r", "max_new_tokens": 8}}})
    with Journal(folder) as journal:
        journal.write([line(model, 0) for model in ("gpt", "base")])
    (note,) = write_record(folder, {"models": {"base": {"engine": "hf", "rows_sha256": "r2"}}})[-1:]
    assert "answers of" in note
    assert [p.model for p in read_predictions(folder)] == []
    assert list(json.loads((folder / RECORD).read_text())["models"]) == ["base", "fine-tuned"]
    write_record(folder, {"models": {"gpt": {"rows_sha256": "r", "max_new_tokens": 8}}})
    assert [p.model for p in read_predictions(folder)] == ["gpt"]


def test_only_models_that_answered_every_row_are_scored(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.write([line("base", 0, None, None), line("base", 1), line("fine-tuned", 1)])
    (base,) = read_answers(folder, WEEKLY).complete
    assert (base.name, base.answers) == ("base", (None, "x"))


def test_a_folder_without_complete_answers_says_what_is_there(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.write([line("fine-tuned", 1)])
    with pytest.raises(ConfigurationError, match=r"no complete set of answers \(fine-tuned 1 of 2\)"):
        read_answers(folder, WEEKLY)


def test_a_folder_that_is_no_benchmark_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"holds no rows\.jsonl"):
        read_answers(tmp_path, WEEKLY)


@pytest.mark.parametrize("damage", ["not json\n", "[1]\n", '{"model": "base"}\n', "\ud800"])
def test_damaged_answers_are_told(folder: Path, damage: str) -> None:
    (folder / PREDICTIONS).write_bytes(damage.encode("utf-8", "surrogatepass") + b"\n")
    with pytest.raises(ConfigurationError, match=r"predictions\.jsonl: is damaged"):
        read_predictions(folder)


def test_texts_with_odd_characters_come_back_whole(folder: Path) -> None:
    text = "a\u2028b\x85c\x1dd 🚀"
    with Journal(folder) as journal:
        journal.write([line("base", 0, text)])
    settle(folder, ["base"], ROWS)
    assert read_predictions(folder)[0].answer == text


def test_other_rows_have_another_hash() -> None:
    changed = numbered([row("KO", 0, DOWN_3)])
    assert sha256_of_rows(ROWS) == sha256_of_rows(rows_of_dataset(DATASET, WEEKLY))
    assert len({sha256_of_rows(found) for found in (ROWS, ROWS[:1], ROWS[::-1], changed)}) == 4


def test_another_word_on_what_a_model_may_know_keeps_its_answers(folder: Path) -> None:
    with Journal(folder) as journal:
        journal.write([line("base", 0)])
    said = {"models": {"base": {"engine": "hf", "knowledge_cutoff": "2023-12-31", "trained_until": None}}}
    assert write_record(folder, said) == []
    assert [p.model for p in read_predictions(folder)] == ["base"]
    assert json.loads((folder / RECORD).read_text())["models"]["base"]["knowledge_cutoff"] == "2023-12-31"
