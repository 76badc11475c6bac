"""Answers made elsewhere: what is read from a file, and what is refused with a way out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from csv import QUOTE_NONNUMERIC
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from boards import DOWN_0, DOWN_3, UP_1, rows, written

from forecaster.errors import ConfigurationError
from forecaster.evaluation.answer_files import Columns, read_answer_file
from forecaster.evaluation.rows import ModelAnswers, rows_of_dataset
from forecaster.records import Row
from forecaster.tasks.weekly import WEEKLY

JsonlWriter = Callable[[str | Path, Sequence[Mapping[str, Any]]], Path]
UP, DOWN = written(UP_1), written(DOWN_3)
KO, PEP = "2026-01-02 to 2026-01-09", "2026-01-09 to 2026-01-16"
DATASET = rows(("KO", 0, UP_1), ("PEP", 1, DOWN_3))


def read(
    path: Path, given: Sequence[Row] | None = None, prediction: str = "prediction", prompt: str = "prompt"
) -> ModelAnswers:
    return read_answer_file(path, "m", Columns(prediction, prompt=prompt), given)


def csv(folder: Path, text: str | bytes) -> Path:
    path = folder / "answers.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table(folder: Path, suffix: str, lines: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / f"answers{suffix}"
    frame = pd.DataFrame(lines)
    if suffix == ".csv":
        frame.to_csv(path, index=False, quoting=QUOTE_NONNUMERIC)
    elif suffix == ".parquet":
        frame.to_parquet(path)
    else:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("old", "new"),
    [("\n", "\r\n"), ("\n", "\r"), ("\n", "\x85"), ("\n", "\u2028"), (" ", "\u00a0")],
    ids=["CRLF", "CR", "NEL", "LS", "NBSP"],
)
def test_answers_are_the_same_in_whatever_form_their_text_is_written(
    tmp_path: Path, suffix: str, old: str, new: str
) -> None:
    line = {"prediction": UP, "reference": DOWN, "symbol": "KO", "period": KO}
    other = {name: text.replace(old, new) for name, text in line.items()}
    found = read(table(tmp_path, suffix, [other]))
    assert (found.answers, found.rows[0].reference) == ((UP,), DOWN)
    assert (found.rows[0].row_id, found.rows[0].actual) == (f"KO {KO}", DOWN_3)


# --- what is read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_three_forms_say_the_same(tmp_path: Path, suffix: str) -> None:
    lines = [
        {"prediction": UP, "reference": UP, "symbol": "KO", "period": KO, "label": "up by 1-2%"},
        {"prediction": "?", "reference": "none", "symbol": "PEP", "period": PEP, "label": "down by 3-4%"},
    ]
    found = read(table(tmp_path, suffix, lines))
    assert (found.name, found.answers, found.speed) == ("m", (UP, "?"), None)
    assert [(r.row_id, r.actual) for r in found.rows] == [(f"KO {KO}", UP_1), (f"PEP {PEP}", DOWN_3)]


def test_the_reference_says_the_outcome_where_no_label_does(tmp_path: Path) -> None:
    found = read(table(tmp_path, ".csv", [{"prediction": "?", "reference": DOWN}]))
    assert [(r.symbol, r.actual, r.reference) for r in found.rows] == [("", DOWN_3, DOWN)]


def test_line_breaks_commas_and_quotes_in_csv_texts_stay(tmp_path: Path) -> None:
    text = 'first, "second"\n\nthird'
    path = csv(tmp_path, 'prediction,reference\r\n"first, ""second""\n\nthird",x\r\n')
    assert read(path).answers == (text,)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert read(csv(tmp_path, b"\xef\xbb\xbfprediction,reference\na,b\n")).answers == ("a",)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prediction": "a", "reference": "b"}\n')
    assert read(path).answers == ("a",)


def test_words_that_tables_take_for_missing_values_are_answers_in_a_csv(tmp_path: Path) -> None:
    path = csv(tmp_path, "prediction,reference,symbol\nNA,b,NAN\nnull,b,NA\n,b,\n")
    found = read(path)
    assert found.answers == ("NA", "null", "")
    assert [r.symbol for r in found.rows] == ["NAN", "NA", ""]


def test_a_text_of_millions_of_characters_is_read(tmp_path: Path) -> None:
    (answer,) = read(csv(tmp_path, f'prediction,reference\n"{"x" * 3_000_000}",b\n')).answers
    assert answer == "x" * 3_000_000


def test_empty_cells_are_missing_answers(tmp_path: Path, jsonl: JsonlWriter) -> None:
    lines = [
        {"prediction": "a", "reference": "b"},
        {"prediction": None, "reference": None},
        {"prediction": float("nan"), "reference": "b"},
        {"reference": "b"},
    ]
    assert read(jsonl("answers.jsonl", lines)).answers == ("a", None, None, None)
    assert read(table(tmp_path, ".parquet", lines)).answers == ("a", None, None, None)


def test_blank_lines_of_a_jsonl_file_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('\n{"prediction": "a\\u2028b", "reference": "b"}\r\n\r\n  \n')
    assert read(path).answers == ("a\nb",)


def test_repeated_rows_are_told_apart_and_keep_their_answers(tmp_path: Path) -> None:
    line = {"prediction": "first", "reference": UP, "symbol": "KO", "period": KO}
    found = read(table(tmp_path, ".csv", [line, line | {"prediction": "second"}]))
    assert [r.row_id for r in found.rows] == [f"KO {KO}", f"KO {KO} (2)"]
    assert found.answers == ("first", "second")


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = csv(tmp_path, "question,output,truth\nq,a,b\n")
    found = read_answer_file(path, "m", Columns("output", "truth", "question"))
    assert (found.answers, found.rows[0].reference, found.rows[0].prompt) == (("a",), "b", "q")


# --- speed --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["inference_time_s", "latency_s"])
def test_seconds_of_an_answer_add_up(tmp_path: Path, column: str) -> None:
    found = read(csv(tmp_path, f"prediction,reference,{column}\na,b,1.5\na,b,2\n"))
    assert found.speed is not None
    assert (found.speed.answers, found.speed.seconds, found.speed.new_tokens) == (2, 3.5, None)


def test_seconds_that_are_no_time_do_not_count(tmp_path: Path) -> None:
    lines = "".join(f"a,b,{seconds}\n" for seconds in ("1.5", "fast", "", "inf", "-2", "nan", "0"))
    found = read(csv(tmp_path, f"prediction,reference,latency_s\n{lines}"))
    assert found.speed is not None
    assert (found.speed.answers, found.speed.seconds) == (2, 1.5)


def test_without_any_seconds_there_is_no_speed(tmp_path: Path) -> None:
    assert read(csv(tmp_path, "prediction,reference,latency_s\na,b,fast\n")).speed is None


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"cannot be read \(No columns to parse from file\)\. Give a whole file"),
        ("prediction,reference\n", r"has no rows\. Give a file with answers"),
        ('prediction,reference\n"a', r"cannot be read \(Error tokenizing data.*EOF inside string"),
        ("prediction,reference\na,b\na,b,c\n", r"cannot be read \(.*Expected 2 fields in line 3, saw 3\)"),
        ("prediction,reference\na,b,c\nd,e,f\n", "its rows have more fields than its header"),
        (b"prediction,reference\n\xff,b\n", r"cannot be read \('utf-8' codec can't decode"),
        (
            "prediction;reference\na;b\n",
            "has no column 'prediction' and no 'reference', but 'prediction;reference'. "
            "Save it with commas between the columns",
        ),
        ("prediction\treference\na\tb\n", "Save it with commas between the columns"),
        (
            "answer,reference\na,b\n",
            r"columns: .*answers\.csv has no column 'prediction', but 'answer', 'reference'\. "
            "Name them with --prediction_column, --reference_column and --prompt_column",
        ),
        ("prediction,truth\na,b\n", "has no column 'reference', but 'prediction', 'truth'"),
        (f"{','.join('abcdefghijklmn')}\n{',' * 13}\n", r"'k', 'l', \.\.\.\. Name"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_told_with_a_way_out(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(csv(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("\n\n", "has no rows"),
        ('{"prediction": "a", "reference": "b"}\n\n{"predic', "line 3 is no whole JSON object"),
        ('{"prediction": "a", "reference": "b"}\n5\n', "line 2 is no whole JSON object"),
        ('[{"prediction": "a", "reference": "b"}]', "line 1 is no whole JSON object"),
        ('"abc"', "line 1 is no whole JSON object"),
        ("null", "line 1 is no whole JSON object"),
        ("[" * 100_000, "line 1 is no whole JSON object"),
        ('{"prediction": "a"}\n', "has no column 'reference', but 'prediction'"),
        ('{"prediction": 5, "reference": "b"}\n', "row 1 holds 5 in 'prediction', where text belongs"),
        (
            '{"prediction": "a", "reference": "b"}\n{"prediction": ["a"], "reference": "b"}\n',
            r"row 2 holds \['a'\] in 'prediction', where text belongs",
        ),
        ('{"prediction": "a", "reference": {"up": 1}}\n', r"row 1 holds \{'up': 1\} in 'reference'"),
    ],
)
def test_a_jsonl_file_that_cannot_be_used_is_told_by_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read(path)


def test_a_damaged_parquet_file_is_told(tmp_path: Path) -> None:
    path = table(tmp_path, ".parquet", [{"prediction": "a", "reference": "b"}])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigurationError, match=r"answers\.parquet: cannot be read \("):
        read(path)


def test_bytes_in_a_parquet_file_are_no_text(tmp_path: Path) -> None:
    path = table(tmp_path, ".parquet", [{"prediction": b"a", "reference": "b"}])
    with pytest.raises(ConfigurationError, match=r"row 1 holds b'a' in 'prediction', where text belongs"):
        read(path)


def test_a_folder_a_missing_file_and_another_kind_of_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "answers.csv").mkdir()
    (tmp_path / "answers.txt").write_text("a")
    for name in ("answers.csv", "missing.csv"):
        with pytest.raises(
            ConfigurationError, match=r"is no file\. Give a \.csv, \.jsonl, \.parquet, \.json file"
        ):
            read(tmp_path / name)
    with pytest.raises(
        ConfigurationError, match=r"answers\.txt: is no \.csv, \.jsonl, \.parquet, \.json file"
    ):
        read(tmp_path / "answers.txt")


def test_a_prompt_column_is_missed_only_where_it_was_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "prediction,reference\na,b\n")
    assert read(path).rows[0].prompt == ""
    with pytest.raises(ConfigurationError, match="has no column 'question', but 'prediction', 'reference'"):
        read(path, prompt="question")


# --- with the dataset's own rows ----------------------------------------------------------------------------


def test_answers_find_their_rows_by_symbol_and_period_in_any_order(tmp_path: Path) -> None:
    lines = [
        {"prediction": "of PEP", "symbol": "PEP", "period": PEP},
        {"prediction": "of KO", "symbol": "KO", "period": KO},
        {"prediction": "of MMM", "symbol": "MMM", "period": KO},
    ]
    found = read(table(tmp_path, ".csv", lines), DATASET)
    assert (found.rows, found.answers) == (DATASET, ("of KO", "of PEP"))


def test_answers_find_their_rows_by_their_prompts(tmp_path: Path) -> None:
    prompts = [
        f"From 2025-12-26 to 2026-01-02, {symbol}'s stock price increased from 70.00 to 71.05. "
        f"Then predict how the {symbol} stock price moves in the coming week ({period})."
        for symbol, period in (("PEP", PEP), ("KO", KO))
    ]
    lines = [{"prediction": name, "prompt": text} for name, text in zip("ab", prompts, strict=True)]
    found = read(table(tmp_path, ".jsonl", lines), DATASET)
    assert [r.symbol for r in found.rows] == ["KO", "PEP"]
    assert found.answers == ("b", "a")


@pytest.mark.parametrize("symbols", [(), ("KO", "PEP"), ("", "PEP")])
def test_answers_that_do_not_tell_their_rows_are_taken_in_order(
    tmp_path: Path, symbols: Sequence[str]
) -> None:
    lines: list[dict[str, str]] = [{"prediction": "first"}, {"prediction": "second"}]
    for line, symbol in zip(lines, symbols, strict=False):
        line["symbol"] = symbol
    found = read(table(tmp_path, ".csv", lines), DATASET)
    assert (found.rows, found.answers) == (DATASET, ("first", "second"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"prediction": "a"}], "has 1 answers; of the dataset's 2 rows it names 0"),
        ([{"prediction": "a"}] * 3, "has 3 answers; of the dataset's 2 rows it names 0"),
        (
            [{"prediction": "a", "symbol": "PEP"}, {"prediction": "b", "symbol": "KO"}],
            "has 2 answers; of the dataset's 2 rows it names 0",
        ),
        (
            [
                {"prediction": "a", "symbol": "KO", "period": KO},
                {"prediction": "b", "symbol": "PEP", "period": KO},
            ],
            "has 2 answers; of the dataset's 2 rows it names 1. Give the rows that were answered, in order",
        ),
        (
            [{"prediction": "a", "symbol": "KO", "period": KO}] * 2,
            "has 2 answers; of the dataset's 2 rows it names 1",
        ),
    ],
    ids=["too few", "too many", "other symbols", "another week", "one row twice"],
)
def test_answers_to_other_rows_than_the_dataset_are_refused(
    tmp_path: Path, lines: list[dict[str, str]], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"--dataset: .*{message}"):
        read(table(tmp_path, ".csv", lines), DATASET)


def test_the_outcome_is_the_dataset_s_own_and_no_reference_is_needed(tmp_path: Path) -> None:
    lines = [{"prediction": "a", "label": "up by 0-1%"}, {"prediction": "b", "label": DOWN_0.text}]
    assert [r.actual for r in read(table(tmp_path, ".csv", lines), DATASET).rows] == [UP_1, DOWN_3]


def test_the_published_outputs_find_their_rows_in_the_published_test_set(real_data: Path) -> None:
    text = (real_data / "forecaster_dow30" / "test_300.jsonl").read_text(encoding="utf-8")
    dataset = rows_of_dataset([json.loads(line) for line in text.split("\n") if line], WEEKLY)
    path = real_data / "model_outputs" / "Deekseek_test_results.csv"
    alone, matched = read(path), read(path, dataset)
    assert {r.row_id for r in alone.rows} == {r.row_id for r in dataset}
    # Three reference answers do not read; the dataset's labels say what happened.
    assert sum(r.actual is None for r in alone.rows) == 3
    assert sum(r.actual is None for r in matched.rows) == 0
    assert alone.speed is not None
    assert (alone.speed.answers, round(alone.speed.seconds)) == (300, 4369)


def test_a_column_that_stands_twice_in_a_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has the column 'prediction' more than once"):
        read(csv(tmp_path, "prediction,prediction,reference\na,b,c\n"))


def test_days_that_no_market_has_are_no_dates(tmp_path: Path) -> None:
    (row,) = read(csv(tmp_path, "prediction,reference,symbol,period\na,b,KO,9999-12-24 to 9999-12-31\n")).rows
    assert (row.start, row.end, row.week) == (None, None, None)
