"""What a walk plans, refuses and joins, in this process: nothing is trained."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, call_entry

from forecaster.cluster.supervision import StopSignals
from forecaster.data.splits import Block
from forecaster.errors import ConfigurationError
from forecaster.evaluation.predictions import (
    Prediction,
    read_answers,
    read_training,
    write_predictions,
    write_training,
)
from forecaster.jobs import walk_config, walk_forward
from forecaster.jobs.walk_report import Cut, join
from forecaster.progress import Listener
from forecaster.records import Label
from forecaster.tasks.distributions import climatology
from forecaster.tasks.weekly import WEEKLY
from forecaster.tasks.weekly_baselines import Training

BASE = str(ROOT / "sample" / "base")
SUNDAYS = [date(2024, 1, 7) + timedelta(days=7 * week) for week in range(12)]


def period_of(start: date) -> str:
    return f"{start} to {start + timedelta(days=7)}"


def a_row(symbol: str, start: date, label: str = "up by 2-3%") -> dict[str, str]:
    answer = (
        "[Positive Developments]:\n1. A\n\n[Potential Concerns]:\n1. B\n\n[Prediction & Analysis]:\n"
        f"Prediction: {label[0].upper()}{label[1:]}\nAnalysis: C"
    )
    prompt = f"[INST]<<SYS>>\nForecast.\n<</SYS>>\n\n{symbol} in the week of {start} [/INST]"
    return {"prompt": prompt, "answer": answer, "period": period_of(start), "label": label, "symbol": symbol}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Twelve weeks of two symbols, in the working folder."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps(a_row(symbol, day)) for day in SUNDAYS for symbol in ("KO", "PEP")]
    Path("rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "rows.jsonl"


def planned(*flags: str, dataset: str = "rows.jsonl") -> walk_forward.Plan:
    given = ("--base_model", BASE, "--dataset", dataset, "--run_name", "w", "--report_to", "none")
    return walk_forward.make_plan(walk_config.parse_flags([*given, *flags]))


def refused(*flags: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        planned(*flags)
    return [str(problem) for problem in caught.value.problems]


# --- the plan -----------------------------------------------------------------------------------------------


def test_every_training_is_a_command_of_train_sh_in_a_folder_of_its_own(rows: str) -> None:
    plan = planned("--every", "4", "--window", "2", "--seeds", "2", "--gpus", "0", "--restarts", "1")
    assert plan.cuts == (Cut(Block(SUNDAYS[8], None, SUNDAYS[2], SUNDAYS[4]), train_rows=4, test_rows=8),)
    first, second = plan.trainings
    assert (str(first.folder), str(second.folder)) == (
        "walks/w/2024-03-03/seed_42",
        "walks/w/2024-03-03/seed_43",
    )
    assert walk_forward.launch_words(first)[-16:] == [
        *("--report_to", "none", "--dataset", "rows.jsonl", "--test_from", "2024-03-03"),
        *("--train_from", "2024-01-21", "--train_until", "2024-02-04", "--restarts", "1", "--seed", "42"),
        *("--output_dir", "walks/w/2024-03-03/seed_42"),
    ]


def test_cuts_follow_one_another_and_trainings_run_side_by_side(rows: str) -> None:
    plan = planned("--every", "5", "--seeds", "2")
    assert [(str(c.block.test_from), c.train_rows, c.test_rows) for c in plan.cuts] == [
        ("2024-02-11", 2, 10),
        ("2024-03-17", 12, 4),
    ]
    assert [len(chain) for chain in plan.chains] == [1, 1, 1, 1]
    assert "--test_until" in plan.trainings[0].flags and "--test_until" not in plan.trainings[3].flags


def test_from_the_last_cut_the_trainings_of_a_seed_follow_one_another(rows: str) -> None:
    plan = planned("--every", "5", "--seeds", "2", "--from_last")
    names = [[training.name for training in chain] for chain in plan.chains]
    assert names == [
        ["2024-02-11 seed 42", "2024-03-17 seed 42"],
        ["2024-02-11 seed 43", "2024-03-17 seed 43"],
    ]
    at = plan.trainings[3].flags.index("--from_adapter")
    assert plan.trainings[3].flags[at + 1] == "walks/w/2024-02-11/seed_43"
    assert "--from_adapter" not in plan.trainings[0].flags


def test_the_test_rows_of_a_file_are_rows_of_the_walk(rows: str) -> None:
    lines = Path(rows).read_text(encoding="utf-8").splitlines(keepends=True)
    Path("early.jsonl").write_text("".join(lines[:16]), encoding="utf-8")
    Path("late.jsonl").write_text("".join(lines[16:]), encoding="utf-8")
    Path("run.yaml").write_text(f"base_model: {BASE}\ndataset: early.jsonl\ntest_dataset: late.jsonl\n")
    plan = walk_forward.make_plan(walk_config.parse_flags(["run.yaml", "--every", "5"]))
    assert plan.asked.dataset == "early.jsonl,late.jsonl"
    assert [(c.train_rows, c.test_rows) for c in plan.cuts] == [(2, 10), (12, 4)]


def test_a_training_goes_on_from_where_it_is(rows: str) -> None:
    plan = planned("--every", "5")
    training = plan.trainings[0]
    start = [*walk_forward.launch_words(training), "--gpus", "3"]
    assert walk_forward.next_command(training, 3, plan.asked.train) == start
    training.folder.mkdir(parents=True)
    (training.folder / "log_history.json").write_text("[]")
    command = [sys.executable, str(ROOT / "benchmark.py"), "--adapter", str(training.folder)]
    assert walk_forward.next_command(training, 3, plan.asked.train) == command
    assert training.has_ended and not training.is_finished


def test_a_dry_run_prints_the_plan_and_writes_nothing(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk_forward, "check_first", lambda *_: 0)
    done = call_entry(
        "walk_forward.py",
        Path.cwd(),
        *("--base_model", BASE, "--dataset", rows, "--every", "5", "--report_to", "none", "--dry_run"),
    )
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()[2:4]] == [
        ["2024-02-11", "the", "first", "to", "2024-01-14", "2", "2024-03-17", "10"],
        ["2024-03-17", "the", "first", "to", "2024-02-18", "12", "the", "end", "4"],
    ]
    assert "2 trainings (2 cuts x 1 seed(s)), 0 of them finished; 1 at once." in done.stdout
    assert not Path("walks").exists()


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--every", "0"], "--every: is 0. It has to be 1 or more."),
        (["--seeds", "-1"], "--seeds: is -1. It has to be 1 or more."),
        (["--window", "0"], "--window: is '0'. Give a number of weeks, 1 or more, or expanding."),
        (["--window", "sliding"], "--window: is 'sliding'. Give a number of weeks, 1 or more, or expanding."),
        (["--resume"], "--resume: has no place in a walk. Leave it out: the same command goes on by itself."),
        (
            ["--test_until", "2024-03-03"],
            "--test_until: has no place in a walk. Leave it out: --every and --window decide it at each cut.",
        ),
        (
            ["--from-adapter", "a"],
            "--from_adapter: has no place in a walk. "
            "Leave it out: --from_last trains on from the last cut's.",
        ),
        (["--lora_r", "0"], "--lora_r: is 0. It has to be 1 or more."),
        (
            ["--every", "12"],
            "--every: is 12, which leaves no cut with training and test: there are 12 weeks from 2024-01-07 "
            "to 2024-03-31, and the 4 before a cut are left out. Cut elsewhere, or give more weeks.",
        ),
        (
            ["--test_from", "2024-02-04"],
            "--test_from: is 2024-02-04, which leaves no cut with training and test: there are 12 weeks from "
            "2024-01-07 to 2024-03-31, and the 4 before a cut are left out. "
            "Cut elsewhere, or give more weeks.",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anything_starts(rows: str, flags: list[str], message: str) -> None:
    assert refused(*flags) == [message]


def test_a_folder_of_another_walk_is_not_gone_on_with(rows: str, tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    folder.mkdir()
    before = walk_forward.record_of(planned("--every", "5"))
    (folder / "walk.json").write_text(json.dumps(before))
    walk_forward.check_same_walk(folder, before)
    with pytest.raises(ConfigurationError) as caught:
        walk_forward.check_same_walk(folder, walk_forward.record_of(planned("--every", "6", "--lora_r", "4")))
    told = [str(problem) for problem in caught.value.problems]
    assert told[0] == (
        f"--every: is 6; the walk in {folder} began with 5. Give the former value, or another --output_dir."
    )
    assert any(line.startswith("--lora_r: is 4; the walk in ") for line in told)
    lines = Path(rows).read_text(encoding="utf-8").splitlines(keepends=True)
    Path(rows).write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        walk_forward.check_same_walk(folder, walk_forward.record_of(planned("--every", "5")))
    assert str(caught.value) == (
        f"--dataset: holds other rows than the walk in {folder} began with. "
        "Give those, or another --output_dir."
    )
    (folder / "walk.json").write_text("[]")
    with pytest.raises(ConfigurationError, match="is no record of a walk"):
        walk_forward.check_same_walk(folder, before)


# --- the answers of all blocks ------------------------------------------------------------------------------


def benchmark_of(folder: Path, rows: Sequence[Mapping[str, str]], label: str, base: str = "?") -> Path:
    """A benchmark whose fine-tuned model always says the label."""
    folder.mkdir(parents=True)
    lines = [{"row_id": f"{row['symbol']} {row['period']}", **row} for row in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = {"models": {"base": {"knowledge_cutoff": "2023-12-01"}}}
    (folder / "benchmark.json").write_text(json.dumps(record))
    words = {lines[0]["row_id"]: climatology({})}
    write_training(folder, Training({Label("up", 1): len(rows)}, text_forecasts=words))

    def said(model: str, line: Mapping[str, str], text: str) -> Prediction:
        about = (line["row_id"], line["symbol"], line["period"], line["label"])
        return Prediction(model, *about, text, 9, 0, 5)

    answers = [said("base", line, base) for line in lines]
    write_predictions(
        folder, [*answers, *(said("fine-tuned", line, f"Prediction: {label}") for line in lines)]
    )
    return folder


@pytest.mark.parametrize("seeds", [1, 3])
def test_blocks_are_joined_row_by_row_and_seeds_are_one_model(tmp_path: Path, seeds: int) -> None:
    weeks = [[a_row("KO", SUNDAYS[0])], [a_row("KO", SUNDAYS[1]), a_row("PEP", SUNDAYS[1])]]
    said = ["up by 1-2%", "down by 2-3%", "down by 2-3%"]
    found = [
        [benchmark_of(tmp_path / f"{place}-{seed}", block, said[seed]) for seed in range(seeds)]
        for place, block in enumerate(weeks)
    ]
    home = tmp_path / "joined"
    home.mkdir()
    join(home, found, {"dataset": "rows.jsonl"})
    answered = read_answers(home, WEEKLY)
    assert [row.row_id for row in answered.complete[0].rows] == [
        "KO 2024-01-07 to 2024-01-14",
        "KO 2024-01-14 to 2024-01-21",
        "PEP 2024-01-14 to 2024-01-21",
    ]
    names = {1: "fine-tuned", 3: "fine-tuned (mean of 3 seeds)"}
    answers: dict[str, Any] = {model.name: model.answers for model in answered.complete}
    told = {1: "Prediction: up by 1-2%", 3: "Prediction: Down by 2-3%"}
    assert answers == {"base": ("?",) * 3, names[seeds]: (told[seeds],) * 3}
    # What the first cut knew; no model was trained on any of the rows, and none says so.
    training = read_training(home)
    assert training is not None
    assert training.labels == {Label("up", 1): 1}
    assert training.text_forecasts.keys() == {  # of each block
        "KO 2024-01-07 to 2024-01-14",
        "KO 2024-01-14 to 2024-01-21",
    }
    assert {model.trained_until for model in answered.complete} == {None}
    assert {model.knowledge_cutoff for model in answered.complete} == {date(2023, 12, 1)}


# --- trainings under way ------------------------------------------------------------------------------------


class Side:
    """Stands in for the processes of trainings: notes who runs on which device, and beside whom."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.order = fails, list[str]()
        self.under_way, self.most, self.devices = 0, 0, set[str]()
        self._lock = threading.Lock()

    def supervise(self, _: Any, command: Sequence[str], where: Mapping[str, str], log: Path) -> int:
        folder = Path(command[command.index("--output_dir") + 1])
        with self._lock:
            self.order.append(str(folder.parent.name + " " + folder.name))
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.devices.add(command[command.index("--gpus") + 1])
        time.sleep(0.1)
        with self._lock:
            self.under_way -= 1
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("the end of a log\n")
        if self.fails in folder.as_posix() and self.fails:
            return 70
        (folder / "benchmark").mkdir(parents=True)
        (folder / "log_history.json").write_text("[]")
        (folder / "benchmark" / "report.html").write_text("")
        return 0


def walked(
    plan: walk_forward.Plan, devices: Sequence[int], side: Side, patch: pytest.MonkeyPatch
) -> tuple[int, str]:
    """The status of a walk, and what it warned of."""
    told: list[str] = []

    @contextmanager
    def bar(what: str, unit: str, total: int | None) -> Iterator[Any]:
        yield lambda count=1: None

    patch.setattr(walk_forward.Walk, "_supervise", lambda walk, *given: side.supervise(walk, *given))
    listener = Listener(lambda line: None, told.append, bar)
    return walk_forward.Walk(plan, devices, StopSignals(), listener).run(), "".join(told)


def test_several_gpus_train_a_cut_each_at_once(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    side = Side()
    assert walked(planned("--every", "5", "--seeds", "2"), [1, 3], side, monkeypatch) == (0, "")
    assert (side.most, side.devices, len(side.order)) == (2, {"1", "3"}, 4)
    again = Side()
    assert walked(planned("--every", "5", "--seeds", "2"), [1, 3], again, monkeypatch) == (0, "")
    assert again.order == []  # what is finished is not done again


def test_from_the_last_cut_a_seed_keeps_its_order(rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    side = Side()
    plan = planned("--every", "5", "--seeds", "2", "--from_last")
    assert walked(plan, [0, 1], side, monkeypatch)[0] == 0
    assert side.order.index("2024-02-11 seed_43") < side.order.index("2024-03-17 seed_43")
    assert sorted(side.order[:2]) == ["2024-02-11 seed_42", "2024-02-11 seed_43"]


def test_a_training_that_fails_ends_the_walk_and_is_told_with_its_log(
    rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Side(fails="2024-02-11")
    status, told = walked(planned("--every", "5"), [0], side, monkeypatch)
    assert (status, side.order) == (70, ["2024-02-11 seed_42"])
    assert told == (
        "\n2024-02-11 seed 42 ended with status 70; its log, walks/w/logs/2024-02-11_seed_42.log, ends with\n"
        "the end of a log\nMend what it says; the same command then goes on."
    )
