"""Datasets of every kind, resolved, read, checked, split and put in order of time."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import datasets
import pytest
from small_runs import JsonlWriter

from forecaster.data import sources
from forecaster.data.build import changed_files, write_manifest
from forecaster.data.sources import Corpus, RowCounts, Source, load, read_parts, recipe, resolve
from forecaster.data.splits import Block
from forecaster.errors import ConfigurationError
from forecaster.tasks.weekly import WEEKLY

WEEKS = [
    f"{date(2024, 1, 7) + timedelta(weeks=i)} to {date(2024, 1, 14) + timedelta(weeks=i)}" for i in range(6)
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def a_row(symbol: str, week: int, **changes: Any) -> dict[str, Any]:
    row = {
        "prompt": f"How is {symbol}?",
        "answer": f"It is well in week {week}.",
        "period": WEEKS[week],
        "label": "up by 1-2%",
        "symbol": symbol,
    }
    return row | changes


def read(specs: str | Path, test: str | Path | None = None, validation_share: float = 0.0) -> Corpus:
    return load(
        resolve(str(specs), False, "--dataset"),
        resolve(str(test), False, "--test_dataset") if test is not None else None,
        WEEKLY,
        validation_share,
    )


def refused(specs: str | Path, test: str | Path | None = None, validation_share: float = 0.0) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(specs, test, validation_share)
    return [str(problem) for problem in caught.value.problems]


def answers(rows: datasets.Dataset) -> list[str]:
    return [
        f"{symbol}{WEEKS.index(week)}" for symbol, week in zip(rows["symbol"], rows["period"], strict=True)
    ]


def as_dataset(rows: Sequence[dict[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list(list(rows))


TRAIN = [a_row("A", 0), a_row("B", 0)]
TEST = [a_row("A", 1), a_row("B", 1)]

# --- kinds of sources ---------------------------------------------------------------------------------------


def test_jsonl_parquet_and_folders_give_the_same_rows(jsonl: JsonlWriter, tmp_path: Path) -> None:
    rows = TRAIN + TEST
    as_jsonl = jsonl("rows.jsonl", rows)
    as_parquet = tmp_path / "rows.parquet"
    as_dataset(rows).to_parquet(as_parquet)
    as_dataset(rows).save_to_disk(tmp_path / "single")
    datasets.DatasetDict(train=as_dataset(TRAIN), test=as_dataset(TEST)).save_to_disk(tmp_path / "split")

    corpora = [read(path) for path in (as_jsonl, as_parquet, tmp_path / "single", tmp_path / "split")]
    for corpus in corpora:
        assert answers(corpus.train) == ["A0", "B0"]
        assert answers(corpus.test) == ["A1", "B1"]
    assert len({corpus.fingerprint for corpus in corpora}) == 1


FORMS = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "NEL": lambda text: text.replace("\n", "\x85"),
    "LS": lambda text: text.replace("\n", "\u2028"),
    "mark": lambda text: f"\ufeff{text}",
    "NBSP": lambda text: text.replace(" ", "\u00a0"),
}
"""Other forms of a text."""


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rows_are_the_same_in_whatever_form_their_texts_are_written(
    form: Callable[[str], str], kind: str, jsonl: JsonlWriter, tmp_path: Path
) -> None:
    prompt = (
        "[INST]<<SYS>>\nYou forecast.\n<</SYS>>\n\n[Company Introduction]:\n\nA is a listed company.\n\n"
        "From 2023-12-31 to 2024-01-07, A's stock price increased from 1.00 to 1.02. News during this "
        "period:\n\n[Headline]: One\n[Summary]: First.\n\n[Headline]: Two\n[Summary]: Second.\n\n"
        "[Basic Financials]:\n\nNone are known.\n\nUsing only what was known before 2024-01-07, "
        "forecast.[/INST]"
    )
    plain = [a_row("A", week, prompt=prompt, answer="Up.\n\nWell up.") for week in (0, 1)]
    rows = [{name: form(text) for name, text in row.items()} for row in plain]
    if kind == "jsonl":
        path = jsonl("rows.jsonl", rows)
    else:
        path = tmp_path / ("rows.parquet" if kind == "parquet" else "rows")
        as_dataset(rows).to_parquet(path) if kind == "parquet" else as_dataset(rows).save_to_disk(path)
    before = sorted(path.rglob("*"))
    corpus = read(path)
    assert [corpus.train[0][name] for name in plain[0]] == list(plain[0].values())
    assert corpus.fingerprint == read(jsonl("plain.jsonl", plain)).fingerprint
    assert WEEKLY.pieces(WEEKLY.messages(corpus.train[0])) == 2
    assert sorted(path.rglob("*")) == before
    parts = read_parts(str(path), from_remote=False, task=WEEKLY)
    assert parts["train"][1]["answer"] == "Up.\n\nWell up."


def test_a_folder_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    for answer in ("One.\r\nOne.", "Two.\r\nTwo."):
        shutil.rmtree(tmp_path / "rows", ignore_errors=True)
        as_dataset([a_row("A", week, answer=answer) for week in (0, 1)]).save_to_disk(tmp_path / "rows")
        assert read(tmp_path / "rows").train[0]["answer"] == answer.replace("\r", "")


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x85", "\u2028"], ids=["CRLF", "CR", "NEL", "LS"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["no mark", "mark"])
def test_rows_may_end_with_any_line_end(tmp_path: Path, end: str, mark: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes((mark + "".join(json.dumps(row) + end for row in TRAIN + TEST)).encode())
    corpus = read(path)
    assert (answers(corpus.train), answers(corpus.test)) == (["A0", "B0"], ["A1", "B1"])


def test_a_name_of_a_column_may_have_spaces_around_it(jsonl: JsonlWriter) -> None:
    rows = [{f"\u00a0{name} ": value for name, value in row.items()} for row in TRAIN + TEST]
    assert answers(read(jsonl("rows.jsonl", rows)).train) == ["A0", "B0"]


def test_a_corpus_has_the_published_columns_returns_and_row_ids_and_nothing_else(jsonl: JsonlWriter) -> None:
    corpus = read(jsonl("rows.jsonl", [a_row("A", 0, weight=3), a_row("A", 1, weight=4)]))
    published = ["prompt", "answer", "period", "label", "symbol"]
    assert corpus.train.column_names == [*published, "weekly_return_pct", "row_id"]
    assert corpus.train[0] == a_row("A", 0) | {"weekly_return_pct": None, "row_id": "rows.jsonl:train#0"}


def test_returns_of_one_set_stand_beside_those_that_another_does_not_have(jsonl: JsonlWriter) -> None:
    first = jsonl("first.jsonl", [a_row("A", week, weekly_return_pct=1.5) for week in (0, 1)])
    corpus = read(f"{first},{jsonl('second.jsonl', [a_row('B', week) for week in (0, 1)])}")
    assert list(corpus.train["weekly_return_pct"]) == [1.5, None]


def test_a_row_id_keeps_its_place_in_the_file_after_splitting(jsonl: JsonlWriter) -> None:
    corpus = read(jsonl("rows.jsonl", [a_row("A", 1), a_row("A", 0), a_row("B", 1), a_row("B", 0)]))
    assert list(corpus.train["row_id"]) == ["rows.jsonl:train#1", "rows.jsonl:train#3"]
    assert list(corpus.test["row_id"]) == ["rows.jsonl:train#0", "rows.jsonl:train#2"]


def test_rows_of_two_files_of_the_same_name_have_different_ids(jsonl: JsonlWriter) -> None:
    first = jsonl("first/rows.jsonl", [a_row("A", 0), a_row("A", 1)])
    second = jsonl("second/rows.jsonl", [a_row("B", 0), a_row("B", 1)])
    ids = list(read(f"{first},{second}").test["row_id"])
    assert len(ids) == 2
    assert len(set(ids)) == 2


def test_a_json_array_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    datasets.Dataset.from_list(TRAIN + TEST).to_json(path, lines=False)
    assert answers(read(path).train) == ["A0", "B0"]


def test_the_test_split_is_found_under_its_name_and_validation_rows_are_left_alone(tmp_path: Path) -> None:
    datasets.DatasetDict(
        train=as_dataset(TRAIN), validation=as_dataset([a_row("A", 5)]), test=as_dataset(TEST)
    ).save_to_disk(tmp_path / "rows")
    corpus = read(tmp_path / "rows")
    assert answers(corpus.train) == ["A0", "B0"]
    assert answers(corpus.test) == ["A1", "B1"]


def test_a_short_name_means_a_folder_under_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    datasets.DatasetDict(train=as_dataset(TRAIN), test=as_dataset(TEST)).save_to_disk(
        "data/fingpt-forecaster-toy"
    )
    assert resolve("toy", False, "--dataset") == [
        Source("toy", "folder", "data/fingpt-forecaster-toy", repeat=1)
    ]
    assert answers(read("toy").test) == ["A1", "B1"]


@pytest.mark.parametrize(
    ("spec", "hub_id"),
    [
        ("dow30-202305-202405", "FinGPT/fingpt-forecaster-dow30-202305-202405"),
        (
            "FinGPT/fingpt-forecaster-sz50-20230201-20240101",
            "FinGPT/fingpt-forecaster-sz50-20230201-20240101",
        ),
    ],
)
def test_with_from_remote_names_that_are_not_here_are_on_the_hub(
    spec: str, hub_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve(spec, True, "--dataset") == [Source(spec, "hub", hub_id)]


def test_with_from_remote_a_local_path_wins(
    jsonl: JsonlWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    datasets.DatasetDict(train=as_dataset(TRAIN)).save_to_disk("owner/name")
    datasets.DatasetDict(train=as_dataset(TRAIN)).save_to_disk("data/fingpt-forecaster-toy")
    jsonl("rows.jsonl", TRAIN)
    assert [
        (s.kind, s.location) for s in resolve("owner/name,toy,rows.jsonl,else/where", True, "--dataset")
    ] == [
        ("folder", "owner/name"),
        ("folder", "data/fingpt-forecaster-toy"),
        ("file", "rows.jsonl"),
        ("hub", "else/where"),
    ]


def test_a_hub_id_without_from_remote_is_told_about_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (problem,) = refused("owner/name")
    assert problem.startswith(
        "--dataset: 'owner/name' does not exist here (add --from_remote to take it from the hub)."
    )


def test_every_bad_entry_is_named_at_once(
    jsonl: JsonlWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl("rows.jsonl", TRAIN + TEST)
    (tmp_path / "rows.csv").write_text("a,b\n")
    (tmp_path / "folder").mkdir()
    problems = refused("rows.jsonl,gone.jsonl,rows.csv,folder,rows.jsonl*0,nowhere")
    assert [problem.split(". Give")[0] for problem in problems] == [
        "--dataset: 'gone.jsonl' does not exist",
        "--dataset: rows.csv is no .jsonl or .parquet file",
        "--dataset: the folder folder was not made by save_to_disk",
        "--dataset: 'rows.jsonl*0' repeats '0' times. A repeat is a whole number from 1 to 1000.",
        "--dataset: 'nowhere' does not exist",
    ]


@pytest.mark.parametrize("specs", ["", " , ", ","])
def test_a_list_without_entries_names_no_dataset(specs: str) -> None:
    (problem,) = refused(specs)
    assert problem.startswith("--dataset: names no dataset.")


# --- repeats ------------------------------------------------------------------------------------------------


def test_a_repeat_multiplies_the_training_rows_only(jsonl: JsonlWriter) -> None:
    often = jsonl("often.jsonl", [a_row("A", 0), a_row("A", 1)])
    once = jsonl("once.jsonl", [a_row("B", 0), a_row("B", 1)])
    corpus = read(f"{often}*3, {once}")
    assert answers(corpus.train) == ["A0", "A0", "A0", "B0"]
    assert answers(corpus.test) == ["A1", "B1"]
    assert corpus.counts == RowCounts(
        train_read=2,
        test_read=2,
        train_dropped_out_of_order=0,
        test_dropped_out_of_order=0,
        train_after_repeats=4,
        unused_splits={},
    )


def test_a_repeat_of_test_data_changes_nothing(jsonl: JsonlWriter) -> None:
    train, test = jsonl("train.jsonl", TRAIN), jsonl("test.jsonl", TEST)
    assert answers(read(train, f"{test}*2").test) == ["A1", "B1"]


@pytest.mark.parametrize("repeat", ["0", "-1", "1.5", "two", "", " 2 x", "²"])
def test_a_repeat_that_is_no_whole_number_from_one_is_refused(jsonl: JsonlWriter, repeat: str) -> None:
    (problem,) = refused(f"{jsonl('rows.jsonl', TRAIN)}*{repeat}")
    assert "A repeat is a whole number from 1 to 1000." in problem


def test_a_file_whose_name_holds_a_star_is_that_file(jsonl: JsonlWriter) -> None:
    path = jsonl("rows*2.jsonl", TRAIN + TEST)
    assert resolve(str(path), False, "--dataset") == [Source(str(path), "file", str(path), repeat=1)]


# --- one dataset as it is -----------------------------------------------------------------------------------


def test_one_dataset_is_read_with_all_of_its_splits_and_columns(tmp_path: Path) -> None:
    rows = [a_row("A", 0, as_of="2024-01-05")]
    folder = tmp_path / "one, with a comma"
    datasets.DatasetDict(train=as_dataset(rows), validation=as_dataset(rows)).save_to_disk(folder)
    parts = read_parts(str(folder), from_remote=False, task=WEEKLY)
    assert {name: part.to_list() for name, part in parts.items()} == {"train": rows, "validation": rows}


def test_a_list_or_a_repeat_is_not_one_dataset(jsonl: JsonlWriter) -> None:
    path = jsonl("a.jsonl", TRAIN)
    for spec in (f"{path},{jsonl('b.jsonl', TEST)}", f"{path},{path}", f"{path}*2", f"{path}*1", f"{path}*"):
        with pytest.raises(ConfigurationError) as caught:
            read_parts(spec, from_remote=False, task=WEEKLY)
        assert [str(problem) for problem in caught.value.problems] == [
            f"dataset: is {spec!r}. Name one dataset at a time, without repeats."
        ]


def test_a_dataset_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="dataset: 'nowhere' does not exist"):
        read_parts("nowhere", from_remote=False, task=WEEKLY)


# --- checks -------------------------------------------------------------------------------------------------


def test_a_missing_column_is_named_with_its_file(jsonl: JsonlWriter) -> None:
    path = jsonl("rows.jsonl", [{"prompt": "p", "answer": "a", "symbol": "A", "extra": 1}])
    assert refused(path) == [
        f"{path} (train): lacks the columns period, label (it has prompt, answer, symbol, extra). A dataset "
        "has the columns prompt, answer, period, label, symbol."
    ]


@pytest.mark.parametrize("empty", ["", "  \n", None])
def test_an_empty_answer_is_named_with_file_and_row(jsonl: JsonlWriter, empty: str | None) -> None:
    path = jsonl("rows.jsonl", [a_row("A", 0), a_row("A", 1, answer=empty), a_row("A", 2)])
    assert refused(path) == [
        f"{path} (train): row 1: the answer is empty. Every row needs all of its columns; mend or remove it."
    ]


def test_an_empty_prompt_is_named_with_file_and_row(jsonl: JsonlWriter) -> None:
    path = jsonl("rows.jsonl", [a_row("A", 0, prompt=" "), a_row("A", 1)])
    (problem,) = refused(path)
    assert problem.startswith(f"{path} (train): row 0: the prompt is empty.")


@pytest.mark.parametrize("period", ["January", "2024-01-07", "2024-01-32 to 2024-02-07", None, ""])
def test_a_bad_period_is_named_with_file_and_row(jsonl: JsonlWriter, period: str | None) -> None:
    path = jsonl("rows.jsonl", [a_row("A", 0), a_row("A", 1, period=period)])
    (problem,) = refused(path)
    assert problem.startswith(
        f'{path} (train): row 1: the period is {str(period)!r}, not "YYYY-MM-DD to YYYY-MM-DD".'
    )


def test_a_bad_row_in_the_test_split_is_found_and_its_split_named(tmp_path: Path) -> None:
    datasets.DatasetDict(train=as_dataset(TRAIN), test=as_dataset([a_row("A", 1, answer="")])).save_to_disk(
        tmp_path / "rows"
    )
    (problem,) = refused(tmp_path / "rows")
    assert problem.startswith(f"{tmp_path / 'rows'} (test): row 0: the answer is empty.")


def test_five_bad_rows_are_shown_and_the_others_counted(jsonl: JsonlWriter) -> None:
    path = jsonl("rows.jsonl", [a_row("A", 0, answer=" ") for _ in range(1205)])
    problems = refused(path)
    assert len(problems) == 6
    assert "row 4: the answer is empty" in problems[4]
    assert "and 1200 more such rows" in problems[5]


def test_bad_rows_beyond_the_first_thousand_have_their_own_number(jsonl: JsonlWriter) -> None:
    path = jsonl("rows.jsonl", [a_row("A", 0) for _ in range(1003)] + [a_row("A", 1, answer="")])
    (problem,) = refused(path)
    assert "row 1003: the answer is empty" in problem


@pytest.mark.parametrize("content", ["", "\n", "\n\n\n"])
def test_a_file_without_rows_is_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    (problem,) = refused(path)
    assert problem.startswith(str(path))


def test_a_parquet_file_without_rows_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    as_dataset(TRAIN).select([]).to_parquet(path)
    (problem,) = refused(path)
    assert problem.startswith(str(path))


def test_a_saved_split_without_rows_is_refused_by_name(tmp_path: Path) -> None:
    datasets.DatasetDict(train=as_dataset(TRAIN), test=as_dataset(TEST).select([])).save_to_disk(
        tmp_path / "rows"
    )
    (problem,) = refused(tmp_path / "rows")
    assert problem.startswith(str(tmp_path / "rows"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.jsonl", b'{"prompt": "p", "answer": "a"}\n{"prompt": "p", "ans'),
        ("empty.parquet", b""),
        ("cut.parquet", b"PAR1 and no footer"),
    ],
)
def test_a_damaged_file_is_refused_by_name(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    (problem,) = refused(path)
    assert problem.startswith(f"{path}: cannot be read (")
    assert problem.endswith("Make it anew, or take a whole copy.")


def test_a_damaged_folder_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    as_dataset(TRAIN).save_to_disk(folder)
    (arrow,) = folder.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    (problem,) = refused(folder)
    assert problem.startswith(f"{folder}: cannot be read (")


# --- splits and the order of time ---------------------------------------------------------------------------


def test_without_a_test_split_the_last_fifth_of_the_weeks_is_for_testing(jsonl: JsonlWriter) -> None:
    rows = [a_row(symbol, week) for symbol in "AB" for week in (5, 0, 3, 1, 4, 2)]
    corpus = read(jsonl("rows.jsonl", rows))
    assert answers(corpus.train) == ["A0", "A3", "A1", "A2", "B0", "B3", "B1", "B2"]
    assert answers(corpus.test) == ["A5", "A4", "B5", "B4"]


def test_a_single_week_cannot_be_split(jsonl: JsonlWriter) -> None:
    path = jsonl("rows.jsonl", TRAIN)
    assert refused(path) == [
        f"{path}: has neither a test split nor a second week to split at. Name test rows with --test_dataset."
    ]


def test_without_a_test_dataset_test_rows_give_way_to_training_rows(tmp_path: Path) -> None:
    datasets.DatasetDict(
        train=as_dataset([a_row("A", 0), a_row("A", 2), a_row("B", 0)]),
        test=as_dataset([a_row("A", 1), a_row("A", 2), a_row("A", 3), a_row("B", 1), a_row("C", 0)]),
    ).save_to_disk(tmp_path / "rows")
    corpus = read(tmp_path / "rows")
    assert answers(corpus.train) == ["A0", "A2", "B0"]
    assert answers(corpus.test) == ["A3", "B1", "C0"]
    assert corpus.counts == RowCounts(3, 5, 0, 2, 3, {})


def test_with_a_test_dataset_training_rows_give_way_to_test_rows(jsonl: JsonlWriter) -> None:
    train = jsonl("train.jsonl", [a_row("A", 0), a_row("A", 2), a_row("B", 0), a_row("A", 1)])
    test = jsonl("test.jsonl", [a_row("A", 3), a_row("A", 2), a_row("B", 1)])
    corpus = read(f"{train}*2", test)
    assert answers(corpus.train) == ["A0", "A0", "B0", "B0", "A1", "A1"]
    assert answers(corpus.test) == ["A3", "A2", "B1"]
    assert corpus.counts == RowCounts(4, 3, 1, 0, 6, {})


def test_with_a_test_dataset_a_test_split_of_the_training_data_is_not_used(
    jsonl: JsonlWriter, tmp_path: Path
) -> None:
    datasets.DatasetDict(train=as_dataset(TRAIN), test=as_dataset(TEST)).save_to_disk(tmp_path / "rows")
    corpus = read(tmp_path / "rows", jsonl("test.jsonl", [a_row("A", 4)]))
    assert answers(corpus.train) == ["A0", "B0"]
    assert answers(corpus.test) == ["A4"]


def test_of_a_test_dataset_with_splits_only_the_test_rows_count(jsonl: JsonlWriter, tmp_path: Path) -> None:
    datasets.DatasetDict(train=as_dataset([a_row("A", 3)]), test=as_dataset([a_row("A", 4)])).save_to_disk(
        tmp_path / "later"
    )
    assert answers(read(jsonl("train.jsonl", TRAIN), tmp_path / "later").test) == ["A4"]


def test_when_every_training_row_has_to_give_way_the_run_is_refused(jsonl: JsonlWriter) -> None:
    train, test = jsonl("train.jsonl", [a_row("A", 1), a_row("A", 2)]), jsonl("test.jsonl", [a_row("A", 0)])
    assert refused(train, test) == [
        "--dataset: no training row is left: for every one, the other part holds an earlier or equal test "
        "week of its symbol. Choose data whose test weeks follow the training weeks of the same symbol."
    ]


def test_when_every_test_row_has_to_give_way_the_run_is_refused(tmp_path: Path) -> None:
    datasets.DatasetDict(train=as_dataset([a_row("A", 1)]), test=as_dataset([a_row("A", 0)])).save_to_disk(
        tmp_path / "rows"
    )
    (problem,) = refused(tmp_path / "rows")
    assert problem.startswith("--dataset: no test row is left")


# --- validation ---------------------------------------------------------------------------------------------

SIX_WEEKS = [a_row(symbol, week) for week in range(6) for symbol in "AB"]


def held_out(corpus: Corpus) -> list[str]:
    assert corpus.validation is not None
    return answers(corpus.validation)


def test_without_a_share_there_is_no_validation_part(jsonl: JsonlWriter) -> None:
    corpus = read(jsonl("rows.jsonl", SIX_WEEKS))
    assert corpus.validation is None
    assert list(corpus.parts) == ["train", "test"]


def test_the_last_training_weeks_are_held_out_and_the_test_rows_stay_what_they_were(
    jsonl: JsonlWriter,
) -> None:
    path = jsonl("rows.jsonl", SIX_WEEKS)
    corpus = read(path, validation_share=0.25)  # one of the four weeks before the test weeks
    assert answers(corpus.train) == ["A0", "B0", "A1", "B1", "A2", "B2"]
    assert held_out(corpus) == ["A3", "B3"]
    assert list(corpus.parts["validation"]["row_id"]) == ["rows.jsonl:train#6", "rows.jsonl:train#7"]
    assert corpus.test.to_list() == read(path).test.to_list()
    assert list(corpus.parts) == ["train", "validation", "test"]
    assert corpus.counts == RowCounts(8, 4, 0, 0, 6, {}, validation_held_out=2)


def test_validation_rows_do_not_repeat(jsonl: JsonlWriter) -> None:
    corpus = read(f"{jsonl('rows.jsonl', SIX_WEEKS)}*2", validation_share=0.25)
    assert answers(corpus.train) == ["A0", "A0", "B0", "B0", "A1", "A1", "B1", "B1", "A2", "A2", "B2", "B2"]
    assert held_out(corpus) == ["A3", "B3"]


def test_weeks_are_held_out_of_those_that_a_test_dataset_leaves_for_training(jsonl: JsonlWriter) -> None:
    train = jsonl("train.jsonl", [*SIX_WEEKS, a_row("C", 5)])
    test = jsonl("test.jsonl", [a_row(symbol, week) for week in (3, 4, 5) for symbol in "AB"])
    corpus = read(train, test, validation_share=0.25)
    # A and B keep weeks 0 to 2. C, without a test week, keeps its week 5: the last of four.
    assert answers(corpus.train) == ["A0", "B0", "A1", "B1", "A2", "B2"]
    assert held_out(corpus) == ["C5"]
    assert corpus.counts == RowCounts(13, 6, 6, 0, 6, {}, validation_held_out=1)


def test_a_validation_week_that_overlaps_training_of_its_symbol_is_dropped_and_counted(
    jsonl: JsonlWriter,
) -> None:
    midweek = a_row("A", 0, period="2024-01-17 to 2024-01-24")
    train = jsonl("train.jsonl", [a_row("A", 0), midweek, a_row("A", 2), a_row("B", 2)])
    corpus = read(train, jsonl("test.jsonl", [a_row("A", 5)]), validation_share=0.3)
    assert (len(corpus.train), held_out(corpus)) == (2, ["B2"])
    assert corpus.counts.validation_held_out == 2
    assert corpus.counts.validation_dropped_out_of_order == 1


def test_a_share_that_leaves_no_validation_row_is_refused(jsonl: JsonlWriter) -> None:
    path = jsonl("rows.jsonl", TRAIN + TEST)
    assert refused(path, validation_share=0.4) == [
        "--validation_share: is 0.4, which leaves no validation row of 1 training week(s). Leave it out, or "
        "choose data with more weeks."
    ]


def test_a_validation_split_of_the_data_is_not_used_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    datasets.DatasetDict(
        train=as_dataset([a_row("A", 0), a_row("A", 1)]),
        validation=as_dataset([a_row("A", 2)]),
        test=as_dataset([a_row("A", 3)]),
    ).save_to_disk(folder)
    corpus = read(folder, validation_share=0.4)
    assert (answers(corpus.train), held_out(corpus)) == (["A0"], ["A1"])
    assert corpus.counts.unused_splits == {f"{folder} (validation)": 1}


# --- another cut --------------------------------------------------------------------------------------------


def built_folder(folder: Path, max_past_weeks: int) -> Path:
    """Six weeks of two symbols as data_pipeline.py leaves them: two for training, two between, two for
    testing."""
    weeks = {"train": (0, 1), "test": (4, 5), "gap": (2, 3)}
    datasets.DatasetDict(
        {
            name: as_dataset([a_row(symbol, week) for week in found for symbol in "AB"])
            for name, found in weeks.items()
        }
    ).save_to_disk(folder)
    arguments = {
        "min_past_weeks": 1,
        "max_past_weeks": max_past_weeks,
        "with_indicators": False,
        "with_macro": False,
    }
    (folder / "manifest.json").write_text(json.dumps({"files": {}, "arguments": arguments}))
    return folder


def cut_anew(path: Path, week: int) -> Corpus:
    sources = resolve(str(path), False, "--dataset")
    return load(sources, None, WEEKLY, block=Block(date.fromisoformat(WEEKS[week][:10])))


def test_the_weeks_of_the_gap_are_in_neither_part(tmp_path: Path) -> None:
    folder = built_folder(tmp_path / "rows", max_past_weeks=2)
    corpus = read(folder)
    assert (answers(corpus.train), answers(corpus.test)) == (
        ["A0", "B0", "A1", "B1"],
        ["A4", "B4", "A5", "B5"],
    )
    assert corpus.counts.unused_splits == {f"{folder} (gap)": 4}


def test_a_folder_is_cut_at_any_date_with_all_of_its_weeks(tmp_path: Path) -> None:
    folder = built_folder(tmp_path / "rows", max_past_weeks=1)
    corpus = cut_anew(folder, 3)
    assert answers(corpus.train) == ["A0", "B0", "A1", "B1"]
    assert answers(corpus.test) == ["A3", "B3", "A4", "B4", "A5", "B5"]
    assert corpus.counts.unused_splits == {f"{folder} (between training and test)": 2}
    assert corpus.train["row_id"][0] == "rows:train#0" and corpus.test["row_id"][0] == "rows:gap#2"


def test_the_same_cut_of_the_same_rows_is_equal_however_they_are_kept(
    jsonl: JsonlWriter, tmp_path: Path
) -> None:
    rows = [a_row(symbol, week) for week in range(6) for symbol in "AB"]
    kept = cut_anew(built_folder(tmp_path / "rows", max_past_weeks=4), 5)
    # Nothing says how the prompts of a file were made: as many weeks as in the published sets.
    assert cut_anew(jsonl("rows.jsonl", rows), 5).fingerprint == kept.fingerprint
    assert (answers(kept.train), answers(kept.test)) == (["A0", "B0"], ["A5", "B5"])


def test_a_cut_that_leaves_a_part_empty_is_refused(tmp_path: Path) -> None:
    folder = built_folder(tmp_path / "rows", max_past_weeks=4)
    with pytest.raises(ConfigurationError) as caught:
        cut_anew(folder, 4)
    assert [str(problem) for problem in caught.value.problems] == [
        f"--test_from: is 2024-02-04, which leaves no train row of {folder}: its weeks start from 2024-01-07 "
        "to 2024-02-11, and 4 before the test are left out. Choose another day, or more data."
    ]


def test_a_block_ends_where_it_says_and_what_it_leaves_out_is_counted(tmp_path: Path) -> None:
    folder = built_folder(tmp_path / "rows", max_past_weeks=1)
    days = [date.fromisoformat(week[:10]) for week in WEEKS]
    block = Block(days[4], test_until=days[5], train_from=days[1], train_until=days[3])
    corpus = load(resolve(str(folder), False, "--dataset"), None, WEEKLY, block=block)
    assert (answers(corpus.train), answers(corpus.test)) == (["A1", "B1", "A2", "B2"], ["A4", "B4"])
    assert corpus.counts.unused_splits == {
        f"{folder} (between training and test)": 2,
        f"{folder} (before --train_from, or from --test_until on)": 4,
    }


def test_a_source_that_ends_before_the_gap_has_training_rows_alone(jsonl: JsonlWriter) -> None:
    old, new = (
        jsonl(f"{at}.jsonl", [a_row("A", week) for week in weeks])
        for at, weeks in enumerate(((0, 1), (3, 4)))
    )
    days = [date.fromisoformat(week[:10]) for week in WEEKS]
    found = resolve(f"{old},{new}", False, "--dataset")
    corpus = load(found, None, WEEKLY, block=Block(days[3], train_until=days[2]))
    assert (answers(corpus.train), answers(corpus.test)) == (["A0", "A1"], ["A3", "A4"])
    dated, fingerprint = sources.read_dates(found, WEEKLY)
    assert [source.counts(Block(days[3], train_until=days[2])) for source in dated] == [(2, 0), (0, 2)]
    assert len(fingerprint) == 64


# --- recipe -------------------------------------------------------------------------------------------------

RECIPE = {"min_past_weeks": 1, "max_past_weeks": 4, "with_indicators": False, "with_macro": True}


def built(folder: Path, **arguments: Any) -> Path:
    """A dataset folder with a manifest of these arguments, as data_pipeline.py leaves it."""
    datasets.DatasetDict(train=as_dataset(TRAIN), test=as_dataset(TEST)).save_to_disk(folder)
    write_manifest(folder, {"arguments": {"index_name": "dow", **arguments}})
    return folder


def recipe_of(*folders: Path) -> Any:
    return recipe(resolve(",".join(map(str, folders)), False, "--dataset"))


def test_the_recipe_of_a_built_dataset_is_read_from_its_manifest(tmp_path: Path, jsonl: JsonlWriter) -> None:
    one = built(tmp_path / "one", **RECIPE)
    assert recipe_of(one) == RECIPE
    assert recipe_of(jsonl("rows.jsonl", TRAIN), one, built(tmp_path / "two", **RECIPE)) == RECIPE


def test_datasets_that_were_built_differently_have_no_common_recipe(tmp_path: Path) -> None:
    one = built(tmp_path / "one", **RECIPE)
    assert recipe_of(one, built(tmp_path / "two", **(RECIPE | {"max_past_weeks": 2}))) is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"arguments": null}', '{"arguments": {"train_ratio": 1}}']
)
def test_a_manifest_of_something_else_is_no_recipe(content: str, tmp_path: Path) -> None:
    folder = built(tmp_path / "one")
    (folder / "manifest.json").write_text(content)
    assert recipe_of(folder) is None


def test_a_dataset_without_a_manifest_has_no_recipe(tmp_path: Path, jsonl: JsonlWriter) -> None:
    folder = built(tmp_path / "one", **RECIPE)
    (folder / "manifest.json").unlink()
    assert recipe_of(folder) is None
    assert recipe_of(jsonl("rows.jsonl", TRAIN)) is None


def test_a_manifest_speaks_for_the_files_that_it_names(tmp_path: Path, jsonl: JsonlWriter) -> None:
    named = jsonl("rows.jsonl", TRAIN)
    write_manifest(tmp_path, {"arguments": RECIPE})
    assert recipe_of(named) == RECIPE
    assert recipe_of(jsonl("other.jsonl", TRAIN)) is None


def test_the_sample_says_that_its_prompts_show_one_past_week() -> None:
    sample = Path(__file__).resolve().parents[2] / "sample" / "dataset"
    one_week = {"min_past_weeks": 1, "max_past_weeks": 1, "with_indicators": False, "with_macro": False}
    assert recipe_of(sample / "train.jsonl") == one_week
    assert changed_files(sample) == []
    for line in (sample / "train.jsonl").read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["prompt"].count("News during this period:") == 1


# --- fingerprint --------------------------------------------------------------------------------------------


def test_the_fingerprint_does_not_depend_on_where_or_how_often_rows_are_read(jsonl: JsonlWriter) -> None:
    first = read(jsonl("first.jsonl", TRAIN + TEST)).fingerprint
    again = read(jsonl("elsewhere/second.jsonl", TRAIN + TEST)).fingerprint
    assert first == again
    assert len(first) == 64


def test_the_fingerprint_of_a_run_that_is_on_disk_already_stays_what_it_was(jsonl: JsonlWriter) -> None:
    path = jsonl("rows.jsonl", SIX_WEEKS)
    assert read(path).fingerprint == "04a28ad6d58aeb02dcccb6bdc0d3dba7ba9d6b46ec4f728b8f6155e47a346b47"
    assert read(path, validation_share=0.25).fingerprint != read(path).fingerprint


@pytest.mark.parametrize("column", ["prompt", "answer", "label", "symbol", "period"])
def test_one_changed_character_changes_the_fingerprint(column: str, jsonl: JsonlWriter) -> None:
    changed = [dict(row) for row in TRAIN + TEST]
    changed[3][column] = {
        "period": "2024-01-15 to 2024-01-21",
        "label": "up by 1-3%",
        "symbol": "b",
    }.get(column, changed[3][column] + " ")
    assert read(jsonl("a.jsonl", TRAIN + TEST)).fingerprint != read(jsonl("b.jsonl", changed)).fingerprint


def test_the_order_of_the_rows_and_their_repeats_change_the_fingerprint(jsonl: JsonlWriter) -> None:
    path = jsonl("a.jsonl", TRAIN + TEST)
    prints = {read(path).fingerprint, read(f"{path}*2").fingerprint}
    prints.add(read(jsonl("b.jsonl", [TRAIN[1], TRAIN[0], *TEST])).fingerprint)
    assert len(prints) == 3


def test_text_that_moves_between_columns_changes_the_fingerprint(jsonl: JsonlWriter) -> None:
    one = [a_row("A", 0, prompt="ab", answer="c"), a_row("A", 1)]
    two = [a_row("A", 0, prompt="a", answer="bc"), a_row("A", 1)]
    assert read(jsonl("a.jsonl", one)).fingerprint != read(jsonl("b.jsonl", two)).fingerprint


def test_the_real_rows_load_in_order(real_data: Path) -> None:
    folder = real_data / "forecaster_dow30"
    corpus = read(folder / "train_244.jsonl", folder / "test_300.jsonl")
    assert corpus.counts.train_read == 244
    assert (corpus.counts.test_read, len(corpus.test)) == (300, 300)
    assert corpus.counts.test_dropped_out_of_order == 0


def test_rows_of_splits_that_take_no_part_are_counted(tmp_path: Path, jsonl: JsonlWriter) -> None:
    rows = [a_row("A", week) for week in range(6)]
    folder = tmp_path / "three_splits"
    datasets.DatasetDict(
        train=datasets.Dataset.from_list(rows[:3]),
        validation=datasets.Dataset.from_list(rows[3:5]),
        test=datasets.Dataset.from_list(rows[5:]),
    ).save_to_disk(folder)
    corpus = read(str(folder))
    assert (corpus.counts.train_read, corpus.counts.test_read) == (3, 1)
    assert corpus.counts.unused_splits == {f"{folder} (validation)": 2}

    elsewhere = jsonl("elsewhere.jsonl", [a_row("B", 0)])
    corpus = read(folder, elsewhere)
    assert corpus.counts.unused_splits == {f"{folder} (validation)": 2, f"{folder} (test)": 1}


def test_a_source_with_a_test_split_only_cannot_train(tmp_path: Path) -> None:
    folder = tmp_path / "test_only"
    datasets.DatasetDict(test=datasets.Dataset.from_list([a_row("A", 0), a_row("A", 1)])).save_to_disk(folder)
    with pytest.raises(ConfigurationError, match="has a test split only"):
        read(str(folder))


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(jsonl: JsonlWriter) -> None:
    jsonl("rows1.jsonl", [a_row("B", week) for week in range(4)])
    named = jsonl("rows[1].jsonl", [a_row("A", week) for week in range(3)])
    assert {*read(named).train["symbol"], *read(named).test["symbol"]} == {"A"}


def test_spelling_of_a_symbol_does_not_hide_a_test_week_in_the_training_weeks(jsonl: JsonlWriter) -> None:
    train = jsonl("train.jsonl", [a_row("AAPL", week) for week in range(3)])
    test = jsonl("test.jsonl", [a_row(" aapl", 2)])
    assert read(train, test).counts.train_dropped_out_of_order == 1


def test_one_file_under_two_paths_is_named_twice(jsonl: JsonlWriter) -> None:
    path = Path(jsonl("rows.jsonl", [a_row("A", week) for week in range(3)]))
    with pytest.raises(ConfigurationError, match="more than once"):
        read(f"{path},{path.parent}/./../{path.parent.name}/rows.jsonl")


def test_rows_in_a_folder_that_cannot_be_written_are_cached_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"prompt": ["a", "b"], "symbol": ["X", "Y"]}
    parts = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(rows), test=datasets.Dataset.from_dict(rows)
    )
    parts.save_to_disk(tmp_path / "saved")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    allowed = os.access
    closed = str(tmp_path / "saved")
    monkeypatch.setattr(os, "access", lambda p, mode: not str(p).startswith(closed) and allowed(p, mode))
    loaded = sources._load(sources.Source("saved", "folder", closed))
    assert {name: part.to_dict() for name, part in loaded.items()} == {"train": rows, "test": rows}
    places = [Path(file["filename"]) for part in loaded.values() for file in part.cache_files]
    assert all(tmp_path / "cache" in place.parents for place in places)
    monkeypatch.setattr(os, "access", lambda p, mode: False)
    with pytest.raises(ConfigurationError, match=r"HF_HOME: .* cannot be written. Set HF_HOME to a folder"):
        sources._load(sources.Source("saved", "folder", closed))
