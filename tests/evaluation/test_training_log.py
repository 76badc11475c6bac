"""Logs of trainings: the Trainer's files, printed lines between other text, and files that are none."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from forecaster.errors import ConfigurationError
from forecaster.evaluation.training_log import Point, read_training_log, training_log
from forecaster.evaluation.wandb_export import is_wandb_export, read_wandb_export

OWN = [
    {
        "step": 10,
        "epoch": 0.5,
        "loss": 2.0,
        "learning_rate": 1e-4,
        "grad_norm": 0.5,
        "tokens_per_s": 90.0,
        "peak_memory_gib": 3.0,
        "elapsed_s": 6.0,
    },
    {
        "step": 10,
        "epoch": 0.5,
        "eval_loss": 2.5,
        "eval_runtime": 1.0,
        "eval_samples_per_second": 4.0,
        "eval_steps_per_second": 2.0,
    },
    {
        "step": 20,
        "epoch": 1.0,
        "loss": 1.0,
        "learning_rate": 5e-5,
        "grad_norm": 0.25,
        "tokens_per_s": 100.0,
        "peak_memory_gib": 2.0,
        "elapsed_s": 14.0,
    },
    {
        "step": 20,
        "epoch": 1.0,
        "eval_loss": 2.75,
        "eval_runtime": 3.0,
        "eval_samples_per_second": 2.0,
        "eval_steps_per_second": 1.0,
    },
    {
        "step": 20,
        "epoch": 1.0,
        "train_runtime": 16.0,
        "train_samples_per_second": 10.0,
        "train_steps_per_second": 1.25,
        "train_loss": 1.5,
    },
]
PRINTED = (
    "Loading checkpoint shards: 100%|██████████| 4/4 [00:09<00:00]\n"
    "{'lora_r': 8, 'learning_rate': 5e-05, 'loss': 'chunked'}\n"
    "  5%|▌         | 10/200 [11:00<3:20:00]\r  5%|▌    | 11/200{'loss': 14.0, 'grad_norm': nan, "
    "'learning_rate': 4e-05, 'epoch': 0.5}\n"
    "{not a literal} {'loss': inf, 'learning_rate': 5e-05, 'epoch': 1.0}\n"
    "{'eval_loss': '0.4', 'eval_runtime': '55.5', 'epoch': '1.0'}\n"
    "{'valid_count': 48, 'bin_acc': 0.5, 'pros_rouge_scores': {'rouge1': 0.4, 'rougeL': 0.2}}\n"
    "{'train_runtime': 100.0, 'train_loss': 0.7, 'epoch': 2.0}\n"
    "{'loss': 0.3, 'learn"
)


def _saved(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def _refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_training_log(path)
    (problem,) = caught.value.problems
    assert str(path) in problem.where
    assert "Give a trainer_state.json" in problem.way_out
    return f"{problem.where}: {problem.found}"


def test_figures_of_a_log_are_those_counted_by_hand() -> None:
    log = training_log(OWN)
    assert log.points[0] == Point(10, 0.5, 6.0, 2.0, None, 1e-4, 0.5, 90.0, 3.0)
    assert log.points[1] == Point(10, 0.5, 6.0, None, 2.5, None, None, None, None)
    assert len(log.points) == 4
    assert (log.train_runtime_s, log.train_samples_per_s, log.train_steps_per_s) == (16.0, 10.0, 1.25)
    assert (log.train_loss, log.last_eval_loss, log.best_eval_loss) == (1.5, 2.75, 2.5)
    assert (log.eval_runtime_s, log.eval_samples_per_s, log.eval_steps_per_s) == (2.0, 3.0, 1.5)
    assert (log.tokens_per_s, log.peak_memory_gib) == (100.0, 3.0)
    assert not log.elapsed_is_estimated


def test_the_two_saved_forms_hold_the_same_log(tmp_path: Path) -> None:
    history = _saved(tmp_path / "log_history.json", OWN)
    state = _saved(tmp_path / "trainer_state.json", {"global_step": 20, "log_history": OWN})
    assert read_training_log(history) == read_training_log(state) == training_log(OWN)


def test_an_evaluation_has_the_time_of_the_line_before_it() -> None:
    assert [point.elapsed_s for point in training_log(OWN).points] == [6.0, 6.0, 14.0, 14.0]
    assert [point.elapsed_s for point in training_log(OWN[1:]).points] == [None, 14.0, 14.0]


def test_the_clock_of_a_resumed_training_goes_on_where_it_stopped() -> None:
    entries = [
        {"step": step, "loss": 1.0, "elapsed_s": s} for step, s in [(1, 5.0), (2, 9.0), (3, 2.0), (4, 3.0)]
    ]
    assert [point.elapsed_s for point in training_log(entries).points] == [5.0, 9.0, 11.0, 12.0]


def test_without_a_clock_times_are_the_runtime_in_proportion_to_the_epoch() -> None:
    entries: list[Mapping[str, Any]] = [
        {"loss": 3.0, "epoch": 0.5},
        {"eval_loss": 2.0, "epoch": 1.0},
        {"loss": 1.0},
        {"train_runtime": 100.0, "epoch": 4.0},
    ]
    log = training_log(entries)
    assert log.elapsed_is_estimated
    assert [point.elapsed_s for point in log.points] == [12.5, 25.0, None]
    assert [point.step for point in log.points] == [None, None, None]
    unknown = training_log(entries[:3])
    assert not unknown.elapsed_is_estimated
    assert [point.elapsed_s for point in unknown.points] == [None, None, None]


def test_printed_lines_are_found_between_bars_and_other_text(tmp_path: Path) -> None:
    log = read_training_log(_saved(tmp_path / "train.log", PRINTED))
    first, second, evaluation = log.points
    assert (first.loss, first.learning_rate, first.epoch, first.step) == (14.0, 4e-05, 0.5, None)
    assert first.grad_norm is not None and math.isnan(first.grad_norm)
    assert (second.loss, second.grad_norm) == (math.inf, None)
    assert (evaluation.eval_loss, evaluation.epoch, log.eval_runtime_s) == (0.4, 1.0, 55.5)
    assert (log.train_runtime_s, log.train_loss, log.elapsed_is_estimated) == (100.0, 0.7, True)
    assert [point.elapsed_s for point in log.points] == [25.0, 50.0, 50.0]


def test_nothing_in_a_printed_line_is_run(tmp_path: Path) -> None:
    trap = tmp_path / "made"
    text = f"{{'loss': open({str(trap)!r}, 'w'), 'epoch': 1.0}}\n{{'loss': 0.5, 'epoch': 1.0}}\n"
    assert [point.loss for point in read_training_log(_saved(tmp_path / "a.log", text)).points] == [0.5]
    assert not trap.exists()


def test_a_list_of_printed_metrics_passes_over_scores(tmp_path: Path) -> None:
    entries = [{"loss": 0.4, "epoch": 0.5}, {"valid_count": 48, "bin_acc": 0.5, "mse": 9.0}]
    log = read_training_log(_saved(tmp_path / "old.json", entries))
    assert [point.loss for point in log.points] == [0.4]


def test_a_loss_that_diverged_stays_so_and_is_never_the_best(tmp_path: Path) -> None:
    text = '[{"step": 1, "loss": NaN}, {"step": 1, "eval_loss": 2.0}, {"step": 2, "eval_loss": NaN}]'
    log = read_training_log(_saved(tmp_path / "log_history.json", text))
    assert log.points[0].loss is not None and math.isnan(log.points[0].loss)
    assert log.last_eval_loss is not None and math.isnan(log.last_eval_loss)
    assert log.best_eval_loss == 2.0


def test_a_run_that_was_stopped_before_its_first_line_has_an_empty_log(tmp_path: Path) -> None:
    log = read_training_log(_saved(tmp_path / "log_history.json", "[]"))
    assert log.points == ()
    assert (log.train_runtime_s, log.best_eval_loss, log.peak_memory_gib) == (None, None, None)


def test_null_and_absent_figures_are_none() -> None:
    (point,) = training_log([{"loss": 1.0, "grad_norm": None, "epoch": 1}]).points
    assert point == Point(None, 1.0, None, 1.0, None, None, None, None, None)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.json", "", "it is empty."),
        ("a.log", " \n", "it is empty."),
        ("a.json", '[{"loss": 1.0, "epoch": 0.1}, {"loss": 2', "it is not whole JSON"),
        ("a.json", "{'loss': 1.0, 'epoch': 0.1}", "it is not whole JSON"),
        ("a.json", "[" * 100_000, "it is not whole JSON"),
        ("a.json", '{"best_metric": 1.0}', "it is a JSON object without log_history."),
        ("a.json", '{"log_history": 7}', "where a list of entries belongs it holds a number."),
        ("a.json", '"loss"', "where a list of entries belongs it holds a text."),
        ("a.json", '[{"loss": 1.0}, "up"]', "entry 2 of its list is a text, not an object."),
        (
            "a.json",
            '[{"prompt": "p", "answer": "a"}]',
            "loss, eval_loss or train_runtime, only: answer, prompt.",
        ),
        ("a.json", "[{}]", "only: -."),
        ("a.json", '[{"epoch": 1}, {"loss": "low"}]', "entry 2: loss is 'low', not a number."),
        ("a.json", '[{"loss": true}]', "entry 1: loss is True, not a number."),
        ("a.json", '[{"loss": [1]}]', "entry 1: loss is [1], not a number."),
        ("a.json", '[{"loss": 1, "step": NaN}]', "entry 1: step is nan, which is no place in a run."),
        ("a.log", "Training went well.", "neither JSON nor text with a line of training metrics."),
        ("a.log", "{'loss': 1.0, 'beta': 0.9}", "neither JSON nor text with a line of training metrics."),
    ],
)
def test_what_is_no_log_is_refused_with_what_was_found(
    name: str, content: str, found: str, tmp_path: Path
) -> None:
    assert found in _refusal(_saved(tmp_path / name, content))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "it cannot be read (No such file or directory)." in _refusal(tmp_path / "none.json")
    assert "it cannot be read (Is a directory)." in _refusal(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    assert "neither JSON nor text" in _refusal(tmp_path / "model.safetensors")


def test_two_published_runs_are_read(real_data: Path) -> None:
    log = read_training_log(real_data / "trainer_logs" / "jiangkunwang_llama31_8b.json")
    assert (log.points[0].loss, log.points[0].epoch) == (14.2413, 0.13)
    assert (log.train_runtime_s, log.train_steps_per_s, log.elapsed_is_estimated) == (13209.7807, 0.029, True)
    assert log.last_eval_loss == 0.30347302556037903
    other = read_training_log(real_data / "trainer_logs" / "jiangkunwang_deepseek_r1_distill_8b.json")
    assert (other.last_eval_loss, other.train_samples_per_s) == (0.3243565857410431, 0.499)


# --- several trainings in one file --------------------------------------------------------------------------

FIRST = [{"loss": 2.0, "epoch": 0.5}, {"eval_loss": 1.5, "epoch": 0.5}, {"loss": 1.0, "epoch": 1.0}]
SECOND = [{"loss": 3.0, "epoch": 0.5}, {"loss": 2.0, "epoch": 1.0}]
END = [{"train_runtime": 5.0, "epoch": 1.0}]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(map(str, [*FIRST, *END, *SECOND, *END])),
        "\n".join(map(str, [*FIRST, *SECOND])),
        json.dumps([*FIRST, *SECOND]),
        json.dumps(FIRST) + json.dumps(SECOND),
        json.dumps(FIRST, indent=1) + "\n" + json.dumps(SECOND, indent=1),
        json.dumps([FIRST, SECOND]),
        json.dumps({"log_history": FIRST}) + "\n" + json.dumps({"log_history": SECOND}),
    ],
    ids=["printed", "printed, unfinished", "one list", "two lists", "two files", "list of lists", "states"],
)
def test_two_trainings_in_one_log_are_refused_with_their_number(text: str, tmp_path: Path) -> None:
    path = _saved(tmp_path / "runs.json", text) if text[0] == "[" else _saved(tmp_path / "runs.log", text)
    with pytest.raises(ConfigurationError, match=r"it holds 2 trainings.*Give each a file of its own"):
        read_training_log(path)


def test_a_training_that_was_stopped_and_went_on_is_one() -> None:
    again = [{"loss": 1.1, "epoch": 1.0}, {"loss": 0.9, "epoch": 1.5}]
    assert len(training_log([*FIRST, *again]).points) == 5
    assert len(training_log([*FIRST, *END, {"loss": 0.9, "epoch": 1.5}]).points) == 4


def test_each_entry_on_a_line_of_its_own_is_a_log(tmp_path: Path) -> None:
    path = _saved(tmp_path / "lines.json", "\n".join(map(json.dumps, FIRST)))
    assert read_training_log(path) == training_log(FIRST)


# --- exports of W&B -----------------------------------------------------------------------------------------


def test_a_chart_of_one_run_is_its_log(tmp_path: Path) -> None:
    text = '"Step","a - train/loss","a - train/loss__MIN","a - eval/loss"\n1,2.0,2.0,\n2,1.0,1.0,1.5\n'
    path = _saved(tmp_path / "chart.csv", text)
    assert is_wandb_export(path)
    log = read_wandb_export(path)
    assert [(point.step, point.loss, point.eval_loss) for point in log.points] == [
        (1, 2.0, None),
        (2, 1.0, 1.5),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"Step","a - train/loss","b - train/loss"\n1,2.0,3.0\n', r"with 2 runs \(a, b\)"),
        ("Name,State,train/loss\na,finished,0.2\nb,finished,0.3\n", "a table of 2 runs of W&B"),
    ],
)
def test_an_export_of_several_runs_is_refused_with_their_number(
    text: str, found: str, tmp_path: Path
) -> None:
    path = _saved(tmp_path / "chart.csv", text)
    assert is_wandb_export(path)
    with pytest.raises(ConfigurationError, match=found):
        read_wandb_export(path)


def test_answers_are_no_export(tmp_path: Path) -> None:
    assert not is_wandb_export(_saved(tmp_path / "answers.csv", "prediction,reference\na,b\n"))


def test_a_number_of_thousands_of_digits_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('[{"loss": 1.0, "step": ' + "9" * 5000 + "}]")
    with pytest.raises(ConfigurationError, match=r"it is not whole JSON \(Exceeds the limit"):
        read_training_log(path)
