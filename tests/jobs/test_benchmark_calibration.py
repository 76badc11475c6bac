"""What a benchmark makes of a run's validation weeks: fitted once, kept beside the adapter, and used."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from small_runs import finished_run, write_dataset

import benchmark
from forecaster.answering import engines
from forecaster.answering.engines import Answerer, EngineSettings, Ranks, Reply
from forecaster.jobs import benchmark_calibration
from forecaster.models.finished import read_calibration, read_finished, weights_sha256
from forecaster.progress import Listener
from forecaster.records import ALL_LABELS, Answer, Label
from prompts import render_answer

Asked = Counter[tuple[str, int]]
ANSWER = render_answer(Answer("orders rose", "costs rose", Label("up", 1), "demand"))


def likely(label: str, share: float) -> dict[str, float]:
    rest = (1 - share) / 11
    return {each.text: math.log(share if each.text == label else rest) for each in ALL_LABELS}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, train_weeks=25, test_weeks=2)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    """A run with 36 validation rows and one checkpoint."""
    return finished_run(data / "small", data, "--validation_share", "0.48", steps=(20,))


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Stands in for the models: each holds the label that a row's digits choose very likely, whatever comes.
    Counts the rows that each was asked, by the number of rows of the job."""
    counts: Asked = Counter()

    def answer(
        plan: EngineSettings,
        answerers: Sequence[Answerer],
        texts: Sequence[tuple[str, str]],
        is_known: Callable[[str, str], bool],
        record: Callable[[Sequence[Reply], float], None],
        listener: Listener,
        ranks: Ranks,
    ) -> None:
        for answerer in answerers:
            for place, (row_id, _) in enumerate(texts):
                if not is_known(answerer.name, row_id):
                    counts[answerer.name, len(texts)] += 1
                    logs = likely(ALL_LABELS[place % 12].text, 0.9)
                    record([Reply(answerer.name, row_id, ANSWER, 9, 0, 9, logs)], 0.1)

    monkeypatch.setattr(engines, "answer", answer)
    return counts


def run(*words: object) -> None:
    assert benchmark.main([str(word) for word in words]) == 0


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_validation_rows_are_answered_once_and_what_they_say_is_kept_beside_the_adapter(
    adapter: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--adapter", adapter)
    assert asked == {("fine-tuned", 36): 36, ("base", 6): 6, ("fine-tuned", 6): 6}
    said = capsys.readouterr().out
    assert "Calibration: fine-tuned answers 36 of 36 validation rows, once." in said
    kept = read(adapter / "calibration.json")
    assert (kept["rows"], kept["weeks"]) == (36, 12)
    assert kept["adapter_sha256"] == weights_sha256(adapter)
    # It says what it likes: what it is sure of comes by chance.
    assert kept["temperature"] > 1.5 or kept["model_weight"] < 0.3
    shares = kept["climatology"]
    trained = read(adapter / "dataset.json")["training_labels"]
    assert shares["up by 1-2%"] == pytest.approx((trained["up by 1-2%"] + 1) / (39 + 12))
    by_symbol = read(adapter / "dataset.json")["training_labels_by_symbol"]
    assert {symbol: sum(of.values()) for symbol, of in by_symbol.items()} == {
        "AAPL": 13,
        "AMZN": 13,
        "COST": 13,
    }
    # Raw and calibrated stand side by side, from one record.
    folder = adapter / "benchmark"
    record = read(folder / "benchmark.json")["models"]
    assert record["fine-tuned"]["calibration"]["temperature"] == kept["temperature"]
    assert "calibration" not in record["base"]
    model = read(folder / "metrics.json")["models"]["fine-tuned"]
    assert model["calibrated"]["log_score"]["value"] > model["project"]["log_score"]["value"]
    assert read(folder / "metrics.json")["models"]["base"]["calibrated"] is None
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "| fine-tuned, calibrated |" in report
    assert "fitted on 36 rows of 12 validation weeks." in report

    names = ("calibration.json", "benchmark/benchmark.json", "benchmark/metrics.json")
    before = [(adapter / name).read_bytes() for name in names]
    asked.clear()
    run("generate", "--adapter", adapter)
    run("score", adapter)
    assert asked == {}
    assert [(adapter / name).read_bytes() for name in names] == before


def test_other_rows_are_calibrated_by_what_is_there_and_ask_for_no_validation(
    adapter: Path, asked: Asked, data: Path
) -> None:
    other = data / "test.jsonl"
    run("generate", "--adapter", adapter, "--dataset", other)
    assert asked == {("base", 6): 6, ("fine-tuned", 6): 6}
    record = adapter / "benchmark-test" / "benchmark.json"
    assert "calibration" not in read(record)["models"]["fine-tuned"]
    run("generate", "--adapter", adapter)
    run("generate", "--adapter", adapter, "--dataset", other)
    assert read(record)["models"]["fine-tuned"]["calibration"]["rows"] == 36


def test_at_most_so_many_rows_are_asked(
    adapter: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark_calibration, "MOST_ROWS", 31)
    run("generate", "--adapter", adapter)
    assert asked["fine-tuned", 31] == 31
    assert "answers 31 of 36 validation rows" in capsys.readouterr().out


def test_a_run_without_enough_validation_rows_goes_without(
    data: Path, tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run(tmp_path / "few", data, "--validation_share", "0.1")
    run("generate", "--adapter", folder)
    assert asked == {("base", 6): 6, ("fine-tuned", 6): 6}
    assert (
        "No calibration: it takes 30 validation rows, and the training held 9 out." in capsys.readouterr().out
    )
    assert not (folder / "calibration.json").exists()


def test_the_best_checkpoint_is_calibrated_by_the_answers_that_chose_it(adapter: Path, asked: Asked) -> None:
    run("generate", "--adapter", adapter, "--checkpoints", "all")
    assert asked == {("20", 36): 36, ("base", 6): 6, ("fine-tuned (checkpoint 20)", 6): 6}
    assert not (adapter / "calibration.json").exists()  # that of the last weights is not known
    record = read(adapter / "benchmark" / "benchmark.json")["models"]
    assert record["fine-tuned (checkpoint 20)"]["calibration"]["rows"] == 36


def test_that_of_other_weights_is_made_anew_and_a_damaged_one_is_refused(
    adapter: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    run("generate", "--adapter", adapter)
    path = adapter / "calibration.json"
    kept = read(path)
    path.write_text(json.dumps(kept | {"adapter_sha256": "0"}), encoding="utf-8")
    assert read_calibration(adapter, weights_sha256(adapter)) is None
    run("generate", "--adapter", adapter)
    assert read(path) == kept
    assert read_finished(adapter).task.name == "weekly"
    for damage, found in (
        ({"temperature": 0}, "temperature is 0: it should be greater than or equal to 0.1"),
        ({"model_weight": 1.5}, "model_weight is 1.5: it should be less than or equal to 1"),
        ({"climatology": {"up by 1-2%": 1.0}}, "climatology is {'up by 1-2%': 1.0}: it should hold"),
    ):
        path.write_text(json.dumps(kept | damage), encoding="utf-8")
        capsys.readouterr()
        assert benchmark.main(["--adapter", str(adapter)]) == 2
        told = capsys.readouterr().err
        assert f"calibration.json: {found}" in told
        assert "Delete it: benchmark.py --adapter makes it anew." in told
