"""A task of its own, in under sixty lines: from rows to an adapter, and a table beside its baselines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from small_runs import BASE

import benchmark
import train_lora
from forecaster.records import Messages, Unreadable
from forecaster.tasks.base import DatasetRow, Metric, Task
from forecaster.tasks.registry import TASKS


class Parity(Task):
    """Is a number even or odd?"""

    name = "parity"
    columns = ("number", "parity")
    label_column = "parity"
    metrics = (Metric("accuracy", "share", True, lambda actual, read: float(actual == read)),)

    def faults(self, row: DatasetRow) -> list[str]:
        return [] if row["parity"] in ("even", "odd") else [f"the parity is {row['parity']!r}"]

    def messages(self, row: DatasetRow) -> Messages:
        return Messages("Answer with one word.", f"Is {row['number']} even or odd?")

    def answer(self, row: DatasetRow) -> str:
        return str(row["parity"])

    def read(self, answer: str) -> str | Unreadable:
        said = answer.strip().lower()
        return said if said in ("even", "odd") else Unreadable("neither even nor odd")

    def actual(self, row: DatasetRow) -> str:
        return str(row["parity"])

    def baselines(self, row: DatasetRow, training_labels: Mapping[str, int]) -> Mapping[str, str]:
        return {"always even": "even"}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setitem(TASKS, "parity", Parity())
    paths = {}
    for name, numbers in (("train", range(8)), ("test", range(20, 25))):
        paths[name] = tmp_path / f"{name}.jsonl"
        lines = [{"number": str(n), "parity": "odd" if n % 2 else "even"} for n in numbers]
        paths[name].write_text("".join(json.dumps(line) + "\n" for line in lines))
    return paths


def flags(rows: dict[str, Path], folder: Path, *more: str) -> list[str]:
    data = ["--dataset", str(rows["train"]), "--test_dataset", str(rows["test"]), "--task", "parity"]
    lengths = ["--max_length", "256", "--max_new_tokens", "6", "--report_to", "none"]
    return ["--base_model", str(BASE), *data, *lengths, "--output_dir", str(folder), *more]


@pytest.mark.usefixtures("trained_here")
def test_a_task_of_its_own_is_trained_and_scored(
    rows: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    steps = ("--max_steps", "2", "--batch_size", "4", "--gradient_accumulation_steps", "1")
    assert train_lora.main(flags(rows, run, *steps)) == 0
    assert json.loads((run / "run_config.json").read_text())["flags"]["task"] == "parity"
    assert json.loads((run / "dataset.json").read_text())["training_labels"] == {"even": 4, "odd": 4}
    assert benchmark.main(["--adapter", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "| base        |      5 | 0.000 [0.000, 0.434]" in shown
    assert "| always even |      5 | 1.000 [0.566, 1.000]" in shown
    scores = json.loads((run / "benchmark" / "metrics.json").read_text())["scores"]
    assert list(scores) == ["always even", "base", "fine-tuned"]
    assert scores["always even"]["figures"]["accuracy"]["value"] == pytest.approx(3 / 5)
    assert "always even" in (run / "benchmark" / "report.md").read_text()
    assert benchmark.main(["score", str(run)]) == 2
    found = f"{run}: was trained for parity, which is scored when it has answered."
    assert f"{found} Run benchmark.py --adapter {run}." in capsys.readouterr().err


def test_a_row_of_a_task_is_judged_by_its_task(
    rows: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows["train"].write_text('{"number": "4", "parity": "both"}\n')
    assert train_lora.main(flags(rows, tmp_path / "run", "--dry_run")) == 2
    assert "row 0: the parity is 'both'." in capsys.readouterr().err


def test_rows_without_dates_need_a_test_split_of_their_own(
    rows: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = flags(rows, tmp_path / "run", "--dry_run")
    at = asked.index("--test_dataset")
    assert train_lora.main(asked[:at] + asked[at + 2 :]) == 2
    found = f"{rows['train']}: has neither a test split nor a second week to split at."
    assert f"{found} Name test rows with --test_dataset." in capsys.readouterr().err
