"""Runs as they are named on a command line, and several of them side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from boards import DOWN_0, DOWN_3, UP_1, UP_2, row, written

from forecaster.errors import ConfigurationError
from forecaster.evaluation.answer_files import Columns
from forecaster.evaluation.loading import Loaded, benchmark_folder, load_run, side_by_side
from forecaster.evaluation.rows import ModelAnswers, numbered
from forecaster.evaluation.scorecard import Scoreboard, checkpoint_scores
from forecaster.evaluation.training_log import training_log
from forecaster.records import Row
from forecaster.tasks.weekly import WEEKLY
from forecaster.tasks.weekly_baselines import Training

COLUMNS = Columns()
UP, DOWN = written(UP_1), written(DOWN_3)
A, B, C = row("A", 0, UP_1), row("B", 0, DOWN_3), row("C", 0, UP_1)
LOG = '[{"step": 1, "epoch": 1.0, "loss": 2.0}]'


def load(*specs: str | Path, **given: Any) -> Loaded:
    (loaded,) = [load_run(str(spec), COLUMNS, WEEKLY, **given) for spec in specs]
    return loaded


def answer_file(path: Path, prediction: str = "a") -> Path:
    path.write_text(f"prediction,reference\n{prediction},b\n")
    return path


def log_file(path: Path) -> Path:
    path.write_text(LOG)
    return path


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def benchmark(folder: Path, answers: Mapping[str, Sequence[str | None]], **record: Any) -> Path:
    """A finished benchmark over KO's first weeks, as its files stand on the disk."""
    folder.mkdir(parents=True)
    days = [("2026-01-02", "2026-01-09"), ("2026-01-09", "2026-01-16"), ("2026-01-16", "2026-01-23")]
    ids = [f"KO {start} to {end}" for start, end in days]
    count = len(next(iter(answers.values())))
    write_lines(
        folder / "rows.jsonl",
        [
            {
                "row_id": row_id,
                "prompt": "KO?",
                "answer": UP,
                "period": row_id.removeprefix("KO "),
                "label": "up by 1-2%",
                "symbol": "KO",
            }
            for row_id in ids[:count]
        ],
    )
    write_lines(
        folder / "predictions.jsonl",
        [
            {
                "model": model,
                "row_id": row_id,
                "symbol": "KO",
                "period": "",
                "label": "",
                "answer": text,
                "prompt_tokens": 3,
                "news_dropped": 0,
                "new_tokens": 4,
            }
            for model, texts in answers.items()
            for row_id, text in zip(ids, texts, strict=False)
        ],
    )
    (folder / "benchmark.json").write_text(json.dumps(record))
    return folder


# --- one run ------------------------------------------------------------------------------------------------


def test_a_file_of_answers_is_called_by_its_name_unless_another_one_is_given(tmp_path: Path) -> None:
    path = answer_file(tmp_path / "gpt 4o.csv")
    assert load(path).name == "gpt 4o"
    assert load(path, name="mine").name == "mine"
    found = load(f" GPT ={path}", name="mine", knowledge_cutoff=date(2025, 10, 1))
    assert (found.name, found.answers[0].name) == ("GPT", "GPT")
    assert found.answers[0].knowledge_cutoff == date(2025, 10, 1)
    assert load(f"={path}").name == "gpt 4o"


def test_answers_and_a_log_are_one_run(tmp_path: Path) -> None:
    path, log = answer_file(tmp_path / "a.csv"), log_file(tmp_path / "log_history.json")
    for spec in (f"r={path},{log}", f"r={log} , {path}", f"r={path},{log},"):
        found = load(spec)
        assert found.name == "r"
        assert [model.answers for model in found.answers] == [("a",)]
        assert found.log is not None
        assert found.log.points[0].loss == 2.0


def test_a_log_alone_is_a_run_without_answers(tmp_path: Path) -> None:
    found = load(log_file(tmp_path / "first.json"))
    assert (found.name, found.answers) == ("first", ())
    assert found.log is not None


def test_a_path_that_exists_is_taken_whole_whatever_is_in_its_name(tmp_path: Path) -> None:
    path = answer_file(tmp_path / "rate=1e-4,r=8.csv")
    assert load(path).name == "rate=1e-4,r=8"
    assert load(f"named={path}").name == "named"


def test_a_dataset_s_rows_are_taken_for_a_file_s_own(tmp_path: Path) -> None:
    rows = numbered([A])
    assert load(answer_file(tmp_path / "a.csv"), rows=rows).answers[0].rows == rows


@pytest.mark.parametrize("spec", ["missing.csv", "x=missing.jsonl", "x=missing.parquet"])
def test_a_file_of_answers_that_is_not_there_is_told(tmp_path: Path, spec: str) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.\w+: is no file\. Give a \.csv, \.jsonl"):
        load(spec)


def test_a_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    path = answer_file(tmp_path / "a.csv")
    with pytest.raises(ConfigurationError, match=r"training log missing\.json: it cannot be read \(No such"):
        load(f"x={path},missing.json")


def test_what_is_not_there_and_what_is_no_run_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("notes")
    with pytest.raises(ConfigurationError, match=r"nowhere: does not exist\. Name a run's folder"):
        load("nowhere")
    message = (
        r"notes\.md: is no folder and no file of answers\. Name a run's folder, or a file that ends in "
        r"\.csv, \.jsonl, \.parquet, \.json, \.log, \.txt"
    )
    with pytest.raises(ConfigurationError, match=message):
        load(f"x={tmp_path / 'notes.md'}")


@pytest.mark.parametrize("spec", ["", "x=", "x= , ", ","])
def test_a_run_without_a_path_is_refused(spec: str) -> None:
    with pytest.raises(ConfigurationError, match=r"names no file and no folder\. Write PATH, or NAME=PATH"):
        load(spec)


def test_a_run_has_one_set_of_answers_and_one_log(tmp_path: Path) -> None:
    a, b = answer_file(tmp_path / "a.csv"), answer_file(tmp_path / "b.csv")
    log, other = log_file(tmp_path / "a.json"), log_file(tmp_path / "b.txt")
    folder = benchmark(tmp_path / "run", {"base": [UP]})
    for second in (b, folder):
        with pytest.raises(ConfigurationError, match="names 2 sets of answers and 0 training logs"):
            load(f"x={a},{second}")
    with pytest.raises(ConfigurationError, match=r"1 sets of answers and 2 training logs\. A run has one of"):
        load(f"x={a},{log},{other}")


# --- folders ------------------------------------------------------------------------------------------------


def test_a_run_s_folder_gives_its_benchmark_its_log_and_its_training_labels(tmp_path: Path) -> None:
    folder = benchmark(
        tmp_path / "run" / "benchmark",
        {"base": [DOWN, "?"], "fine-tuned": [UP, None]},
        training_labels={"up by 1-2%": 3, "down by more than 5%": 1, "no label": 9},
        settings={"base model": "tiny"},
        models={"base": {"knowledge_cutoff": "2025-12-01", "engine": "hf"}},
    )
    log_file(tmp_path / "run" / "log_history.json")
    (folder / "speed.json").write_text('{"base": {"answers": 2, "seconds": 1.5, "new_tokens": 8}}')
    for path in (tmp_path / "run", folder):
        assert benchmark_folder(path) == folder
        found = load(path, name="r")
        assert [(m.name, m.answers) for m in found.answers] == [
            ("base", (DOWN, "?")),
            ("fine-tuned", (UP, None)),
        ]
        assert found.log is not None
        assert found.training is not None
        assert {label.text: count for label, count in found.training.labels.items()} == {
            "up by 1-2%": 3,
            "down by more than 5%": 1,
        }
        assert found.facts == {"base model": "tiny"}
        base, tuned = found.answers
        assert (base.knowledge_cutoff, tuned.knowledge_cutoff) == (date(2025, 12, 1), None)
        assert base.speed is not None
        assert (base.speed.seconds, base.speed.how, tuned.speed) == (1.5, "hf", None)
    assert (load(tmp_path / "run").name, load(folder).name) == ("run", "benchmark")


def test_a_benchmark_without_record_speed_and_log_has_its_answers(tmp_path: Path) -> None:
    folder = benchmark(tmp_path / "b", {"gpt": [UP]})
    (folder / "benchmark.json").unlink()
    found = load(folder)
    assert [m.answers for m in found.answers] == [(UP,)]
    assert (found.log, found.training, found.checkpoints, found.facts) == (None, None, (), {})


@pytest.mark.parametrize("order", ["{folder},{log}", "{log},{folder}"])
def test_a_log_that_is_given_stands_for_the_folder_s_own(tmp_path: Path, order: str) -> None:
    folder = benchmark(tmp_path / "run" / "benchmark", {"base": [UP]}).parent
    log_file(folder / "log_history.json")
    given = tmp_path / "other.json"
    given.write_text(LOG.replace("2.0", "7.0"))
    found = load("r=" + order.format(folder=folder, log=given))
    assert found.log is not None
    assert found.log.points[0].loss == 7.0
    assert len(found.answers) == 1


def test_checkpoints_of_a_run_are_scored_by_their_steps(tmp_path: Path) -> None:
    folder = benchmark(tmp_path / "run" / "benchmark", {"base": [UP]})
    benchmark(folder / "checkpoints", {"20": [UP, UP, DOWN], "10": [DOWN, UP, "?"]})
    found = load(tmp_path / "run").checkpoints
    assert [(s.step, s.skill.accuracy_of_all_rows.value) for s in found] == [
        (10, pytest.approx(1 / 3)),
        (20, pytest.approx(2 / 3)),
    ]


def test_a_run_without_a_benchmark_is_told_what_to_do(tmp_path: Path) -> None:
    log_file(tmp_path / "log_history.json")
    message = r"holds no rows\.jsonl\. Run `benchmark\.py generate` first"
    with pytest.raises(ConfigurationError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "5", "\x00"])
@pytest.mark.parametrize("name", ["benchmark.json", "speed.json"])
def test_records_that_are_no_json_objects_are_named(tmp_path: Path, name: str, text: str) -> None:
    folder = benchmark(tmp_path / "b", {"base": [UP]})
    (folder / name).write_text(text)
    with pytest.raises(ConfigurationError, match=rf"{name}: is damaged\. Take a whole copy"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("benchmark.json", {"models": 5}),
        ("benchmark.json", {"models": {"base": "hf"}}),
        ("benchmark.json", {"models": {"base": {"knowledge_cutoff": "soon"}}}),
        ("benchmark.json", {"models": {"base": {"knowledge_cutoff": 2025}}}),
        ("benchmark.json", {"training_labels": ["up by 1-2%"]}),
        ("training.json", {"labels": {"up by 1-2%": 3}, "text_forecasts": {"KO": [0.5, 0.6]}}),
        ("benchmark.json", {"settings": 5}),
        ("speed.json", {"base": 5}),
        ("speed.json", {"base": {"seconds": 1.0}}),
        ("speed.json", {"base": {"answers": 2, "seconds": "long", "new_tokens": 8}}),
    ],
)
def test_records_that_hold_something_else_are_told_as_damaged(
    tmp_path: Path, name: str, content: dict[str, Any]
) -> None:
    folder = benchmark(tmp_path / "b", {"base": [UP]})
    (folder / name).write_text(json.dumps(content))
    message = rf"b/{name}: is damaged( \(\w+Error\))?\. Take a whole copy"
    with pytest.raises(ConfigurationError, match=message):
        load(folder)


def test_rows_that_lack_a_column_are_told_as_damaged(tmp_path: Path) -> None:
    folder = benchmark(tmp_path / "b", {"base": [UP]})
    write_lines(folder / "rows.jsonl", [{"row_id": "KO"}])
    with pytest.raises(ConfigurationError, match=r"rows\.jsonl: is damaged\. Take a whole copy"):
        load(folder)


# --- side by side -------------------------------------------------------------------------------------------


def run(name: str, rows: Sequence[Row], *answers: str | None, **more: Any) -> Loaded:
    return Loaded(name, (ModelAnswers(name, numbered(rows), answers),), **more)


def board_of(*runs: Loaded) -> Scoreboard:
    return side_by_side(runs, lambda symbol: None, cost_bps=10.0)


def test_one_run_keeps_the_names_of_its_models(tmp_path: Path) -> None:
    folder = benchmark(tmp_path / "run", {"base": ["?", "?"], "fine-tuned": [UP, DOWN]})
    board = board_of(load(folder))
    assert [(m.name, m.valid_count) for m in board.models] == [("base", 0), ("fine-tuned", 2)]
    assert (board.pairs[0].first, board.pairs[0].second) == ("base", "fine-tuned")


def test_several_runs_tell_their_models_apart(tmp_path: Path) -> None:
    first = benchmark(tmp_path / "one", {"base": ["?", "?"], "fine-tuned": [UP, DOWN]})
    second = benchmark(tmp_path / "two", {"fine-tuned": [UP, UP]})
    third = replace(load(first), name="base")
    board = board_of(load(first), load(second), replace(third, answers=third.answers[:0]))
    assert [m.name for m in board.models] == ["one, base", "one, fine-tuned", "two"]


def test_two_runs_of_one_name_are_refused() -> None:
    message = r"compare: names x, y more than once\. Tell runs apart as NAME=PATH"
    with pytest.raises(ConfigurationError, match=message):
        board_of(*(run(name, [A], "?") for name in "yxzyx"))


def test_runs_over_other_rows_meet_on_the_common_ones_and_the_board_says_so() -> None:
    board = board_of(run("x", [A, B, C], UP, UP, UP), run("y", [C, B], DOWN, DOWN))
    assert [r.symbol for r in board.rows] == ["B", "C"]
    assert board.notes[0] == "Compared on the 2 rows that all have (x 3, y 2)."
    assert [m.skill.accuracy_of_all_rows.value for m in board.models] == [0.5, 0.5]
    pair = board.pairs[0]
    assert (pair.first, pair.second) == ("x", "y")
    assert (pair.only_first_right, pair.only_second_right) == (1, 1)


def test_runs_without_a_common_row_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no row is in every run: x has 1 rows, y has 1 rows"):
        board_of(run("x", [A], UP), run("y", [B], UP))


def test_equal_answers_are_one_column_and_a_note() -> None:
    board = board_of(*(run(name, [A, B], UP, DOWN) for name in "xyz"), run("other", [A, B], UP, None))
    assert [m.name for m in board.models] == ["x", "other"]
    assert board.notes[:2] == (
        "y gave the same answers as x: one column for both.",
        "z gave the same answers as x: one column for both.",
    )


def test_equal_answers_to_other_rows_stay_two_columns() -> None:
    board = board_of(run("x", [A, B], UP, UP), run("y", [C, A], UP, UP))
    assert [m.name for m in board.models] == ["x", "y"]


def test_runs_of_one_training_have_its_majority_for_a_baseline() -> None:
    same = Training({UP_2: 3, DOWN_0: 1})
    board = board_of(
        run("x", [A], UP, training=same),
        run("y", [A], DOWN, training=replace(same)),
        run("csv", [A], "?"),
    )
    assert [line.name for line in board.baselines[-2:]] == ["training majority (up)", "climatology"]
    assert board.notes == (
        "1 of 1 rows have a label, but no return: the backtest takes the middle of the bin (5.5 % beyond "
        "five). --price_file gives real returns.",
    )


def test_runs_of_different_trainings_have_no_common_majority() -> None:
    board = board_of(
        run("x", [A], UP, training=Training({UP_2: 3})), run("y", [A], DOWN, training=Training({UP_2: 4}))
    )
    assert not [b.name for b in board.baselines if "majority" in b.name]
    assert board.notes[0] == (
        "The runs were trained on different rows: no baseline knows what training rows tell."
    )


def test_returns_are_put_into_the_rows_of_every_model() -> None:
    def closes(symbol: str) -> dict[date, Decimal]:
        assert symbol == "A" and A.start and A.end
        return {A.start: Decimal(50), A.end: Decimal(51)}

    board = side_by_side([run("x", [A], UP), run("y", [A], DOWN)], closes, cost_bps=0.0)
    assert [r.return_pct for r in board.rows] == [2.0]
    assert [m.backtest["long/short"].cumulative_return_pct for m in board.models] == [
        pytest.approx(2.0),
        pytest.approx(-2.0),
    ]
    assert board.notes == ()


def test_logs_without_answers_give_a_board_of_curves() -> None:
    logs = {name: training_log([{"step": 1, "loss": loss}]) for name, loss in (("x", 1.0), ("y", 2.0))}
    board = board_of(*(Loaded(name, log=log) for name, log in logs.items()))
    assert board.logs == logs
    assert (board.rows, board.models, board.baselines, board.pairs, board.choices) == ((), (), (), (), ())


def test_checkpoints_are_shown_of_one_run_and_not_of_several() -> None:
    scores = checkpoint_scores(
        [ModelAnswers("30", numbered([A]), (DOWN,)), ModelAnswers("4", numbered([A]), (UP,))]
    )
    with_checkpoints = run("x", [A], UP, checkpoints=scores)
    board = board_of(with_checkpoints)
    assert ([s.step for s in board.checkpoints], board.best_step) == ([4, 30], 4)
    assert board_of(with_checkpoints, run("y", [A], DOWN)).best_step is None


# --- the published outputs ----------------------------------------------------------------------------------


def test_the_published_models_have_their_published_figures_side_by_side(real_data: Path) -> None:
    outputs = real_data / "model_outputs"
    board = board_of(
        *(
            load(f"{name}={outputs / file}")
            for name, file in (
                ("llama", "llama3.1_test_results.csv"),
                ("deepseek", "Deekseek_test_results.csv"),
                ("base", "llama3.1_base_test_results.csv"),
            )
        )
    )
    models = {model.name: model for model in board.models}
    llama, deepseek, base = (models[name].as_published for name in ("llama", "deepseek", "base"))
    assert (llama.valid_count, deepseek.valid_count, base.valid_count) == (283, 0, 0)
    assert llama.bin_acc is not None
    assert llama.mse is not None
    assert (round(llama.bin_acc, 4), round(llama.mse, 3)) == (0.4912, 9.887)
    assert deepseek.bin_acc is base.bin_acc is None
    bare = models["deepseek"].as_published_without_think
    assert bare is not None
    assert bare.bin_acc is not None
    assert bare.mse is not None
    assert (bare.valid_count, round(bare.bin_acc, 4), round(bare.mse, 3)) == (297, 0.5152, 9.215)
    assert models["llama"].as_published_without_think is None
    # Three reference answers do not read: 297 rows have an outcome.
    lines = {line.name: line.skill for line in board.baselines}
    down, zero = lines["always down (hindsight)"], lines["zero forecast"]
    assert down.rows == zero.rows == 297
    assert down.bin_acc.value is not None
    assert zero.mse.value is not None
    assert (round(down.bin_acc.value, 3), round(zero.mse.value, 2)) == (0.542, 7.13)
    assert board.notes[0].startswith("3 of 300 rows have no known outcome")


def test_rows_of_which_two_runs_say_that_the_market_did_two_things_are_left_out() -> None:
    rows = numbered([row("KO", 0, UP_1), row("PEP", 0, UP_1), row("XOM", 0, UP_1)])
    other = [replace(rows[0], actual=DOWN_3), rows[1], replace(rows[2], actual=None)]
    board = board_of(run("a", rows, "x", "y", "z"), run("b", other, "p", "q", "r"))
    assert [r.symbol for r in board.rows] == ["PEP", "XOM"]
    assert [card.skill.rows for card in board.models] == [2, 2]  # what one knows holds for both
    assert "1 rows have another outcome in one run than in another: left out." in board.notes


def test_a_model_that_has_not_answered_every_row_is_named_and_left_out(tmp_path: Path) -> None:
    folder = benchmark(tmp_path / "b", {"base": ["x", "y"], "fine-tuned": ["x"]})
    board = board_of(load(folder))
    assert [card.name for card in board.models] == ["base"]
    assert (
        board.notes[0] == "fine-tuned has 1 of 2 answers, and is left out: `benchmark.py generate` goes on."
    )


def test_a_cutoff_that_is_given_stands_for_a_folders_own(tmp_path: Path) -> None:
    maker = {"models": {"base": {"knowledge_cutoff": "2023-12-31"}}}
    folder = benchmark(tmp_path / "b", {"base": ["x", "y"]}, **maker)
    assert load(folder).answers[0].knowledge_cutoff == date(2023, 12, 31)
    assert load(folder, knowledge_cutoff=date(2025, 1, 20)).answers[0].knowledge_cutoff == date(2025, 1, 20)


# --- json, and columns of each file's own -------------------------------------------------------------------

OTHER_NAMES = {"symbol": "KO", "period": "2026-01-02 to 2026-01-09", "generated": "Up by 2-3%"}


@pytest.mark.parametrize(
    "content",
    [
        [OTHER_NAMES | {"truth": "up by 1-2%"}],
        {"model": "x", "results": [OTHER_NAMES | {"truth": "up by 1-2%"}]},
        {name: [value] for name, value in (OTHER_NAMES | {"truth": "up by 1-2%"}).items()},
        {name: {"0": value} for name, value in (OTHER_NAMES | {"truth": "up by 1-2%"}).items()},
        {"columns": [*OTHER_NAMES, "truth"], "index": [0], "data": [[*OTHER_NAMES.values(), "up by 1-2%"]]},
    ],
    ids=["list", "under a name", "lists", "columns of pandas", "split by pandas"],
)
def test_answers_in_json_are_read_by_columns_that_the_run_names(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(content))
    (model,) = load(f"GPT={path}:generated,truth").answers
    assert (model.name, model.answers) == ("GPT", ("Up by 2-3%",))
    assert [row.actual for row in model.rows] == [UP_1]


def test_files_with_different_columns_stand_side_by_side(tmp_path: Path) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    one.write_text("symbol,period,prediction,reference\nKO,2026-01-02 to 2026-01-09,Up by 1-2%,Up by 1-2%\n")
    other.write_text("symbol,period,said,truth\nKO,2026-01-02 to 2026-01-09,Down by 1-2%,Up by 1-2%\n")
    board = board_of(load(f"a={one}"), load(f"b={other}:said,truth"))
    assert {model.name: model.skill.accuracy_of_all_rows.value for model in board.models} == {"a": 1, "b": 0}


def test_columns_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Write FILE:PREDICTION,REFERENCE"):
        load(f"a={tmp_path}/a.csv:x,,y")
