"""benchmark.py from flags to report, with the embedded base model and adapters of it: what a kill costs, what
is told apart, what stands side by side."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import psutil
import pytest
from forks import FOR_ANSWERS, Forks
from loopback_endpoint import UP, completion, endpoint_on_loopback, error, reading
from processes import ROOT, free_port, run, run_entry
from small_runs import BASE, finished_run, write_dataset

import benchmark
from forecaster.evaluation import scorecard
from forecaster.evaluation.predictions import Prediction, read_predictions, write_record
from forecaster.evaluation.published import RougeCache
from forecaster.files import sha256_of

KEY = "sk-canary-0123456789abcdef"
Done = subprocess.CompletedProcess[str]


def run_benchmark(*argv: str | Path) -> Done:
    """benchmark.py in this process, which has imported everything already."""
    out, err = io.StringIO(), io.StringIO()
    words = [str(word) for word in argv]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = benchmark.main(words)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def answered(*argv: str | Path) -> Done:
    done = run_benchmark(*argv)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def refused(*argv: str | Path) -> str:
    """What a refused command prints: one message."""
    done = run_benchmark(*argv)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.count("benchmark.py cannot start") == 1
    return done.stderr


def predictions(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "predictions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def count_by_model(folder: Path) -> dict[str, int]:
    return dict(Counter(line["model"] for line in predictions(folder)))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder: Path, *names: str) -> list[bytes]:
    return [(folder / name).read_bytes() for name in names]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9 training and 6 test rows, and many.jsonl with 12 rows."""
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, test_weeks=4)
    (folder / "test.jsonl").rename(folder / "many.jsonl")
    write_dataset(folder)
    return folder


@pytest.fixture(scope="module")
def finished(data: Path) -> Path:
    """A finished run with 3 validation rows and 3 checkpoints, which nobody has asked anything yet."""
    return finished_run(
        data / "runs" / "small_20260101000000", data, "--validation_share", "0.3", steps=(20, 40, 60)
    )


@pytest.fixture(scope="module")
def scored(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The run after a whole benchmark, and what that printed."""
    folder = tmp_path_factory.mktemp("scored") / finished.name
    shutil.copytree(finished, folder)
    return folder, answered("--adapter", folder)


@pytest.fixture
def adapter(scored: tuple[Path, Done], tmp_path: Path) -> Path:
    """A copy of the run after its benchmark."""
    folder = tmp_path / scored[0].name
    shutil.copytree(scored[0], folder)
    return folder


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may load: every answer has to be there already."""
    from forecaster.answering import hf_engine

    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(hf_engine, "load_for_generation", load)


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_MODEL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


# --- what comes out -----------------------------------------------------------------------------------------


def test_base_and_fine_tuned_model_answer_every_row_and_the_folder_tells_all(
    scored: tuple[Path, Done],
) -> None:
    folder, done = scored[0] / "benchmark", scored[1]
    lines = predictions(folder)
    assert [line["model"] for line in lines] == ["base"] * 6 + ["fine-tuned"] * 6
    assert [line["row_id"] for line in lines[:2]] == [
        "AAPL 2026-03-01 to 2026-03-08",
        "AMZN 2026-03-01 to 2026-03-08",
    ]
    assert [line["row_id"] for line in lines[:6]] == [line["row_id"] for line in lines[6:]]
    assert all(line["answer"] and line["new_tokens"] <= 12 for line in lines[6:])
    assert [line["answer"] for line in lines[:6]] != [line["answer"] for line in lines[6:]]
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [row["row_id"] for row in rows] == [line["row_id"] for line in lines[:6]]
    record = read_json(folder / "benchmark.json")
    assert (record["models"]["base"]["adapter_sha256"], record["models"]["base"]["max_new_tokens"]) == (
        None,
        12,
    )
    assert len(record["models"]["fine-tuned"]["adapter_sha256"]) == 64
    training = read_json(folder / "training.json")
    assert sum(training["labels"].values()) == 6
    assert [sum(of.values()) for of in training["labels_by_symbol"].values()] == [2, 2, 2]
    assert read_json(folder / "speed.json")["fine-tuned"]["answers"] == 6
    metrics = read_json(folder / "metrics.json")
    assert (list(metrics["models"]), metrics["rows"]) == (["base", "fine-tuned"], 6)
    assert metrics["training"]["small"]["points"] == 3
    assert "training majority" in str(metrics["baselines"].keys())
    pictures = {path.name for path in (folder / "plots").iterdir()}
    assert {"overview.png", "overview.svg", "loss_by_step.png"} <= pictures
    assert "# small" in (folder / "report.md").read_text(encoding="utf-8")
    assert "<svg" not in done.stdout and "\nfine-tuned " in done.stdout
    full = {bar.split("|")[0] for bar in done.stderr.split("\r") if "6/6 [" in bar}
    assert full == {"base: 100%", "fine-tuned: 100%"}
    assert done.stdout.splitlines()[-1] == f"Report: {folder}/report.md"
    assert not list(folder.glob("journal*"))


SAME = ("predictions.jsonl", "metrics.json", "report.md", "report.html", "rows.jsonl", "benchmark.json")


def test_a_second_run_asks_no_model_and_writes_the_same_bytes(
    scored: tuple[Path, Done], adapter: Path, no_model: None
) -> None:
    done = answered("--adapter", adapter)
    assert "12 answers are there already." in done.stdout
    assert contents(adapter / "benchmark", *SAME) == contents(scored[0] / "benchmark", *SAME)


def test_a_report_of_the_folder_is_the_same_report(scored: tuple[Path, Done], adapter: Path) -> None:
    for name in ("metrics.json", "report.md", "report.html"):
        (adapter / "benchmark" / name).unlink()
    shutil.rmtree(adapter / "benchmark" / "plots")
    done = answered("report", adapter)
    assert done.stdout.splitlines()[-1] == f"Report: {adapter}/benchmark/report.md"
    assert contents(adapter / "benchmark", *SAME) == contents(scored[0] / "benchmark", *SAME)


# --- kills and ranks ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks(*FOR_ANSWERS) as started:
        yield started


@pytest.fixture(scope="module")
def slow(finished: Path, data: Path) -> list[str | Path]:
    """A command of 24 answers in batches of two; each batch takes long enough to be killed in."""
    flags = ("--max_new_tokens", "48", "--batch_size", "2", "--dataset", data / "many.jsonl")
    return ["generate", "--adapter", finished, *flags, "--output_dir"]


@pytest.fixture(scope="module")
def undisturbed(slow: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """predictions.jsonl of those answers when nothing interrupts them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    answered(*slow, folder)
    return (folder / "predictions.jsonl").read_bytes()


def lines_of_journals(folder: Path) -> list[tuple[str, str]]:
    """Model and row of each answer on disk that predictions.jsonl does not hold yet."""
    whole = [
        line
        for path in folder.glob("journal.rank*.jsonl")
        for line in path.read_bytes().split(b"\n")[:-1]
        if line
    ]
    return [(line["model"], line["row_id"]) for line in map(json.loads, whole)]


def wait_for_answers(folder: Path, count: int) -> None:
    give_up = time.monotonic() + 120
    while len(lines_of_journals(folder)) < count:
        assert not (folder / "predictions.jsonl").exists(), "it ended before the kill"
        assert time.monotonic() < give_up
        time.sleep(0.005)


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_a_benchmark_killed_again_and_again_ends_in_the_same_bytes_and_repeats_no_answer(
    seed: int, forks: Forks, undisturbed: bytes, slow: list[str | Path], tmp_path: Path
) -> None:
    random_moment, folder = random.Random(seed), tmp_path / "out"
    kept: list[tuple[str, str]] = []
    for _ in range(2):
        pid = forks.start("benchmark", *slow, folder)
        wait_for_answers(folder, len(kept) + random_moment.choice((0, 2, 4)))
        time.sleep(random_moment.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
        assert forks.wait(pid) == -signal.SIGKILL
        assert not (folder / "predictions.jsonl").exists()
        before, kept = kept, lines_of_journals(folder)
        assert kept[: len(before)] == before
    assert len(kept) == len(set(kept)) < 24
    assert forks.wait(forks.start("benchmark", *slow, folder)) == 0
    assert (folder / "predictions.jsonl").read_bytes() == undisturbed
    # Every answer on a journal counts here, so one that was made twice would too.
    speed = read_json(folder / "speed.json")
    assert (speed["base"]["answers"], speed["fine-tuned"]["answers"]) == (12, 12)


@pytest.mark.slow
def test_what_two_killed_ranks_have_answered_one_process_does_not_answer_again(
    forks: Forks, undisturbed: bytes, slow: list[str | Path], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    pids = [
        forks.start("benchmark", *slow, folder, **shared, RANK=rank, LOCAL_RANK=rank) for rank in ("0", "1")
    ]
    wait_for_answers(folder, 8)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert [forks.wait(pid) for pid in pids] == [-signal.SIGKILL] * 2
    assert {path.name for path in folder.glob("journal*")} == {"journal.rank0.jsonl", "journal.rank1.jsonl"}
    with (folder / "journal.rank0.jsonl").open("ab") as journal:
        journal.write(b'{"model": "fine-tuned", "row_id": "AAPL 20')  # as a kill may cut a line
    kept = len(lines_of_journals(folder))
    done = answered(*slow, folder)
    assert f"{kept} answers are there already." in done.stdout
    assert (folder / "predictions.jsonl").read_bytes() == undisturbed
    assert read_json(folder / "speed.json")["fine-tuned"]["answers"] == 12


@pytest.mark.slow
def test_two_ranks_under_the_launcher_give_the_bytes_of_one_process_and_leave_none_behind(
    undisturbed: bytes, slow: list[str | Path], tmp_path: Path
) -> None:
    launcher = [str(Path(sys.executable).with_name("deepspeed")), "--include", "localhost:0,1"]
    launcher += ["--master_port", str(free_port()), str(ROOT / "benchmark.py")]
    command = [*launcher, *map(str, slow), str(tmp_path / "out")]
    done = run(command, tmp_path, LOCAL_SIZE="2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == undisturbed
    assert processes_that_name(tmp_path) == []


def processes_that_name(folder: Path) -> list[str]:
    found = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [command for command in found if str(folder) in command]


def test_ctrl_c_is_one_line_and_the_same_command_goes_on(
    undisturbed: bytes, slow: list[str | Path], tmp_path: Path
) -> None:
    folder, pipe = tmp_path / "out", subprocess.PIPE
    command = [sys.executable, str(ROOT / "benchmark.py"), *map(str, slow), str(folder)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)
    wait_for_answers(folder, 14)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.endswith("\nStopped; the same command goes on.\n")
    assert "Traceback" not in errors
    answered(*slow, folder)
    assert (folder / "predictions.jsonl").read_bytes() == undisturbed


# --- checkpoints --------------------------------------------------------------------------------------------


def test_every_checkpoint_is_scored_on_validation_rows_and_the_best_one_answers_the_test_rows(
    adapter: Path,
) -> None:
    answered("generate", "--adapter", adapter, "--checkpoints", "all")
    inner = adapter / "benchmark" / "checkpoints"
    assert count_by_model(inner) == {"20": 3, "40": 3, "60": 3}
    # Answers that no adapter without training would give: checkpoint 40 knows what comes.
    lines = predictions(inner)
    for line in lines:
        if line["model"] == "40":
            line["answer"] = UP.replace("Up by 2-3%", line["label"])
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (inner / "predictions.jsonl").write_text(text, encoding="utf-8")

    done = answered("--adapter", adapter, "--checkpoints", "all")
    assert "Checkpoint 40 is the best of 3 on 3 validation rows." in done.stdout
    counts = count_by_model(adapter / "benchmark")
    assert counts["base"] == counts["fine-tuned"] == counts["fine-tuned (checkpoint 40)"] == 6
    metrics = read_json(adapter / "benchmark" / "metrics.json")
    assert [of["step"] for of in metrics["checkpoints"]] == [20, 40, 60]
    assert [of["project"]["accuracy_of_all_rows"]["value"] for of in metrics["checkpoints"]] == [0, 1, 0]
    assert metrics["best_step"] == 40
    assert metrics["rows"] == 6
    assert "Checkpoints" in (adapter / "benchmark" / "report.md").read_text(encoding="utf-8")

    # What has been damaged since, or is gone, is chosen no more.
    (adapter / "checkpoint-40" / "adapter_config.json").write_text("{}")
    shutil.rmtree(adapter / "checkpoint-20")
    done = answered("generate", "--adapter", adapter, "--checkpoints", "all")
    assert "Checkpoint 60 is the best of 1 on 3 validation rows." in done.stdout
    assert count_by_model(inner) == {"60": 3}

    (adapter / "checkpoint-60" / "manifest.json").unlink()
    text = refused("generate", "--adapter", adapter, "--checkpoints", "all")
    assert "--checkpoints: finds no complete checkpoint in" in text


def test_a_fully_fine_tuned_model_and_its_checkpoints_answer_in_place_of_the_base(
    data: Path, tmp_path: Path
) -> None:
    flags = ("--tuner", "full", "--validation_share", "0.3")
    folder = finished_run(tmp_path / "run", data, *flags, steps=(20, 40))
    done = answered("generate", "--adapter", folder, "--checkpoints", "all")
    assert "is the best of 2 on 3 validation rows." in done.stdout
    inner = folder / "benchmark" / "checkpoints"
    assert count_by_model(inner) == {"20": 3, "40": 3}
    answered("generate", "--adapter", folder)
    lines = predictions(folder / "benchmark")
    of = {name: [li["answer"] for li in lines if li["model"] == name] for name in ("base", "fine-tuned")}
    assert len(of["base"]) == len(of["fine-tuned"]) == 6
    assert of["base"] != of["fine-tuned"]
    models = read_json(folder / "benchmark" / "benchmark.json")["models"]
    assert models["base"]["adapter_sha256"] is None
    assert models["fine-tuned"]["adapter_sha256"] == sha256_of(folder / "model.safetensors")

    # Other weights are another model: its answers are made anew.
    shutil.copy(folder / "checkpoint-20" / "model.safetensors", folder)
    done = answered("generate", "--adapter", folder)
    assert "The answers of fine-tuned were made otherwise" in done.stdout


def test_checkpoints_need_validation_rows(data: Path, tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", data, steps=(20,))
    text = refused("--adapter", folder, "--checkpoints", "all")
    assert "--checkpoints: needs validation rows, and" in text
    assert "Train with --validation_share 0.1" in text
    assert not list((folder / "benchmark").glob("*.json*"))


# --- one model, an endpoint ---------------------------------------------------------------------------------


def test_a_base_model_alone_has_a_folder_below_benchmarks(
    in_tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_MODEL", "a-teacher")  # which is not asked here
    argv = ("--base_model", BASE, "--dataset", data / "test.jsonl")
    answered("generate", *argv, "--max_new_tokens", "2", "--max_length", "1024")
    folder = in_tmp_path / "benchmarks" / "base-test"
    assert count_by_model(folder) == {str(BASE): 6}
    record = read_json(folder / "benchmark.json")
    assert record["models"][str(BASE)]["precision"] == "fp32"
    assert not (folder / "training.json").exists()
    assert "1 model" not in refused(*argv, "--max_new_tokens", "64", "--max_length", "64")


def test_an_endpoints_model_stands_beside_base_and_fine_tuned(
    in_tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch, no_model: None
) -> None:
    argv = ("--adapter", adapter, "--engine", "api", "--api_model", "m", "--concurrency", "1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    printed = ""
    with endpoint_on_loopback() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        server.script = lambda body, number: (
            (200, completion(UP)) if number <= 3 else (401, error("invalid_api_key", f"Not {KEY}."))
        )
        stopped = run_benchmark(*argv)
        assert stopped.returncode == 2
        assert "the same command then goes on." in stopped.stderr and "Traceback" not in stopped.stderr
        assert len(lines_of_journals(adapter / "benchmark")) == 2
        asked = len(server.chats)
        server.script = lambda body, number: (200, completion(UP))
        done = answered(*argv)
        assert len(server.chats) == asked + 4 + 1  # and once, whether it tells likelihoods
        assert "m: probabilities of 0 of 4 answers, by 1 more request. An endpoint has to" in done.stdout
        again = answered("generate", *argv)
        assert len(server.chats) == asked + 4 + 1
        assert set(server.keys) == {f"Bearer {KEY}"}
        assert {chat["model"] for chat in server.chats} == {"m"}
        printed = "".join(of.stdout + of.stderr for of in (stopped, done, again))
    assert count_by_model(adapter / "benchmark") == {"base": 6, "fine-tuned": 6, "m": 6}
    metrics = read_json(adapter / "benchmark" / "metrics.json")
    assert list(metrics["models"]) == ["base", "fine-tuned", "m"]
    assert metrics["models"]["m"]["project"]["valid_count"] == 6
    table = done.stdout.splitlines()
    places = [
        next(i for i, line in enumerate(table) if line.startswith(f"{name} ")) for name in metrics["models"]
    ]
    assert places == list(range(places[0], places[0] + 3))
    before = (adapter / "benchmark" / "predictions.jsonl").read_bytes()
    answered("generate", "--adapter", adapter)
    assert (adapter / "benchmark" / "predictions.jsonl").read_bytes() == before
    assert KEY not in printed
    for path in in_tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_an_endpoint_that_reads_prompts_gives_probabilities_and_is_asked_nothing_twice(
    in_tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("--engine", "api", "--api_model", "m", "--dataset", data / "test.jsonl", "--concurrency", "1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with endpoint_on_loopback() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        # Two answers with their twelve likelihoods each, and one row's answer without its likelihoods.
        server.script = lambda body, number: (
            reading(body, number) if number <= 2 * 13 + 1 else (401, error("invalid_api_key"))
        )
        assert run_benchmark("generate", *argv).returncode == 2
        before = len(server.chats)
        server.script = reading
        done = answered(*argv)
        asked = server.chats[before:]
        answered("generate", *argv)
        assert len(server.chats) == before + len(asked)
    assert len([body for body in asked if "prompt_logprobs" not in body]) == 3
    assert len(asked) == 3 * 13
    assert "m: probabilities of 3 of 3 answers, by 36 more requests.\n" in done.stdout
    folder = in_tmp_path / "benchmarks" / "m-test"
    told = [p.label_log_likelihoods for p in read_predictions(folder)]
    assert [of and of["up by 2-3%"] for of in told] == [-2.8125, -2.8125, None, -2.8125, -2.8125, -2.8125]
    figures = read_json(folder / "metrics.json")["models"]["m"]["project"]
    assert figures["probability_coverage"]["value"] == pytest.approx(5 / 6)


def test_requests_that_an_endpoint_does_not_take_are_told_and_asked_again(
    in_tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("generate", "--engine", "api", "--api_model", "m", "--dataset", data / "test.jsonl")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with endpoint_on_loopback() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        server.script = lambda body, number: (422, {"detail": [{"loc": ["body", "messages"]}]})
        stopped = run_benchmark(*argv)
        assert stopped.returncode == 1
        assert "m: 6 of 6 answers: refused (HTTP 422)" in stopped.stdout
        assert "6 of 6 requests were not taken." in stopped.stderr
        server.script = lambda body, number: (200, completion(UP))
        answered(*argv)
    assert count_by_model(in_tmp_path / "benchmarks" / "m-test") == {"m": 6}


def test_an_endpoint_needs_a_model_that_it_has_and_a_key(
    in_tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ("generate", "--engine", "api", "--dataset", data / "test.jsonl")
    text = refused(*argv)
    assert "2 to mend" in text
    assert "--api_model: is missing. Name one, or put OPENAI_MODEL into .env." in text
    assert "OPENAI_API_KEY: is missing. Put it into .env." in text
    assert list(in_tmp_path.iterdir()) == []
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_MODEL", "of-the-environment")
    with endpoint_on_loopback() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        server.models = (404, error("model_not_found"))
        assert "--api_model" in refused(*argv, "--api_model", "n")
        server.models = (200, {"id": "of-the-environment"})
        answered(*argv)
    assert count_by_model(in_tmp_path / "benchmarks" / "of-the-environment-test") == {"of-the-environment": 6}


# --- answers made elsewhere, and several runs ---------------------------------------------------------------


def write_answers(path: Path, rows: Path, count: int, names: tuple[str, str]) -> Path:
    """A csv of `count` answers, all the same."""
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()][:count]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "symbol", "period"])
        writer.writerows([UP, line["answer"], line["symbol"], line["period"]] for line in lines)
    return path


SCORE_WITHOUT_TORCH = """
import sys
import benchmark
status = benchmark.main(sys.argv[1:])
assert "torch" not in sys.modules and "peft" not in sys.modules
sys.exit(status)
"""


def test_scoring_a_file_of_answers_needs_no_torch(data: Path, tmp_path: Path) -> None:
    write_answers(tmp_path / "gpt.csv", data / "test.jsonl", 6, ("said", "truth"))
    command = [sys.executable, "-c", SCORE_WITHOUT_TORCH, "score", "gpt.csv"]
    columns = ("--prediction_column", "said", "--reference_column", "truth", "--name", "GPT")
    done = run([*command, *columns], tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    metrics = read_json(tmp_path / "benchmarks" / "GPT" / "metrics.json")
    assert metrics["models"]["GPT"]["project"]["valid_count"] == 6
    assert metrics["models"]["GPT"]["as_published"]["valid_count"] == 6
    assert done.stdout.splitlines()[-1] == "Figures: benchmarks/GPT/metrics.json"


def test_no_pair_of_texts_is_scored_twice(
    in_tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[RougeCache] = []
    asked: list[tuple[str, str]] = []

    class Watched(RougeCache):
        def __init__(self) -> None:
            super().__init__()
            caches.append(self)

        def score(self, reference: str, answer: str) -> dict[str, float]:
            asked.append((reference, answer))
            return super().score(reference, answer)

    monkeypatch.setattr(scorecard, "RougeCache", Watched)
    path = write_answers(in_tmp_path / "gpt.csv", data / "test.jsonl", 6, ("prediction", "reference"))
    answered("score", path)
    (cache,) = caches
    assert len(asked) > cache.scored == len(set(asked))


def test_a_file_without_the_columns_is_refused_with_those_that_it_has(in_tmp_path: Path, data: Path) -> None:
    path = write_answers(in_tmp_path / "gpt.csv", data / "test.jsonl", 2, ("said", "truth"))
    text = refused("score", path)
    assert "no column 'prediction' and no 'reference', but 'said', 'truth', 'symbol', 'period'" in text
    assert "Name them with --prediction_column" in text
    assert not (in_tmp_path / "benchmarks").exists()


def test_runs_and_a_file_are_compared_on_the_rows_that_all_have(
    in_tmp_path: Path, adapter: Path, data: Path
) -> None:
    other = in_tmp_path / "other"
    shutil.copytree(adapter, other)
    lines = predictions(other / "benchmark")
    changed = [line | {"answer": line["answer"] + "!"} if line["model"] != "base" else line for line in lines]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in changed)
    (other / "benchmark" / "predictions.jsonl").write_text(text, encoding="utf-8")
    path = write_answers(in_tmp_path / "gpt.csv", data / "test.jsonl", 4, ("prediction", "reference"))
    argv = ("compare", str(adapter), "other", f"GPT={path.name}", "--output_dir", "side")
    done = run_entry("benchmark.py", in_tmp_path, *argv, "--report_to", "wandb", WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    metrics = read_json(in_tmp_path / "side" / "metrics.json")
    name = adapter.name
    assert list(metrics["models"]) == [f"{name}, base", f"{name}, fine-tuned", "other, fine-tuned", "GPT"]
    assert metrics["rows"] == 4
    notes = " ".join(metrics["notes"])
    assert f"other, base gave the same answers as {name}, base: one column for both." in notes
    assert f"Compared on the 4 rows that all have ({name}, base 6" in notes
    assert "GPT 4)" in " ".join(done.stdout.split())
    assert metrics["training"].keys() == {name, "other"}
    assert "Compared on the 4 rows" in (in_tmp_path / "side" / "report.md").read_text(encoding="utf-8")
    assert_logged(in_tmp_path / "side", pictures={"overview"}, tables={"at_a_glance", "pairs"})


def assert_logged(folder: Path, *, pictures: set[str], tables: set[str]) -> None:
    """The newest W&B run of the folder is the one that wandb_run.json names, and holds these."""
    logged = sorted((folder / "wandb").glob("offline-run-*"))[-1]
    assert logged.name.endswith(f"-{read_json(folder / 'wandb_run.json')['id']}")
    for kind, names in (("images", pictures), ("table", tables)):
        found = {path.name.split("_0_")[0] for path in (logged / "files/media" / kind).rglob("*.*")}
        assert {name for name in names if not any(of.startswith(name) for of in found)} == set()


def test_runs_without_a_common_row_are_not_compared(in_tmp_path: Path, adapter: Path, data: Path) -> None:
    path = write_answers(in_tmp_path / "gpt.csv", data / "train.jsonl", 3, ("prediction", "reference"))
    text = refused("compare", adapter, path)
    assert "no row is in every run" in text and "Compare runs over the same test set." in text
    assert not (in_tmp_path / "benchmarks").exists()


def test_training_logs_are_compared_without_any_answers(in_tmp_path: Path, adapter: Path) -> None:
    shutil.copy(adapter / "log_history.json", "log.json")
    done = answered("compare", f"A={adapter / 'log_history.json'}", "B=log.json")
    metrics = read_json(in_tmp_path / "benchmarks" / "compare-A-B" / "metrics.json")
    assert (metrics["rows"], metrics["models"], list(metrics["training"])) == (0, {}, ["A", "B"])
    assert "Report: benchmarks/compare-A-B/report.md" in done.stdout
    assert "names log more than once" in refused("compare", "log.json", "log.json")


# --- answers of another making ------------------------------------------------------------------------------


def test_answers_of_another_length_or_adapter_are_put_aside_and_found_again(
    adapter: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter / "benchmark"
    whole = (folder / "predictions.jsonl").read_bytes()
    done = answered("generate", "--adapter", adapter, "--max_new_tokens", "3")
    assert "The answers of base were made otherwise: kept as predictions." in done.stdout
    assert max(line["new_tokens"] for line in predictions(folder)) == 3

    monkeypatch.setattr("forecaster.answering.hf_engine.load_for_generation", None)  # no model is needed
    done = answered("generate", "--adapter", adapter)
    assert "12 answers are there already." in done.stdout
    assert (folder / "predictions.jsonl").read_bytes() == whole
    monkeypatch.undo()

    weights = adapter / "adapter_model.safetensors"
    shutil.copy(adapter / "checkpoint-40" / weights.name, weights)
    done = answered("generate", "--adapter", adapter)
    assert "6 answers are there already." in done.stdout  # those of the base model
    assert (folder / "predictions.jsonl").read_bytes() != whole
    shutil.copy(finished / weights.name, weights)
    monkeypatch.setattr("forecaster.answering.hf_engine.load_for_generation", None)
    answered("generate", "--adapter", adapter)
    assert (folder / "predictions.jsonl").read_bytes() == whole


def test_a_kill_while_answers_are_put_aside_or_taken_back_loses_none(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = adapter / "benchmark"
    original, changed = read_json(source / "benchmark.json"), read_json(source / "benchmark.json")
    for maker in changed["models"].values():
        maker["max_new_tokens"] = 3
    lines = predictions(source)
    # A part is on a journal, as after a kill.
    text = [json.dumps(line | {"seconds": 0.0}) + "\n" for line in lines]
    (source / "predictions.jsonl").write_text("".join(text[:5]), encoding="utf-8")
    (source / "journal.rank0.jsonl").write_text("".join(text[5:]), encoding="utf-8")
    replace, unlink, left = Path.replace, Path.unlink, 0

    class Killed(BaseException):
        pass

    def dying(operation: Any) -> Any:
        def step(path: Path, *given: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return operation(path, *given, **named)

        return step

    kills = 0
    for record, other in ((changed, original), (original, changed)):
        for survived in range(20):
            folder = tmp_path / f"copy_{record['models']['base']['max_new_tokens']}_{survived}"
            shutil.copytree(source, folder)
            if record is original:
                write_record(folder, other)
            left = survived
            with monkeypatch.context() as patched, contextlib.suppress(Killed):
                patched.setattr(Path, "replace", dying(replace))
                patched.setattr(Path, "unlink", dying(unlink))
                write_record(folder, record)
            kills += left < 0
            write_record(folder, record)
            kept = [] if record is changed else lines
            assert sorted(map(of_line, read_predictions(folder))) == sorted(map(of_line_of_file, kept))
            write_record(folder, original)
            assert {of_line(p) for p in read_predictions(folder)} == set(map(of_line_of_file, lines))
    assert kills >= 10


def of_line(prediction: Prediction) -> tuple[str, str, str]:
    return prediction.model, prediction.row_id, str(prediction.answer)


def of_line_of_file(line: dict[str, Any]) -> tuple[str, str, str]:
    return line["model"], line["row_id"], str(line["answer"])


# --- refusals -----------------------------------------------------------------------------------------------


def test_rows_that_have_changed_since_the_training_are_refused(in_tmp_path: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path)
    folder = finished_run(tmp_path / "run", tmp_path)
    text = (tmp_path / "test.jsonl").read_text(encoding="utf-8")
    (tmp_path / "test.jsonl").write_text(text.replace("Analysis", "Analyses", 1), encoding="utf-8")
    assert "holds other rows than when the adapter was trained" in refused("--adapter", folder)
    assert not (folder / "benchmark").exists()


def test_an_answer_has_to_leave_room_for_the_prompt(adapter: Path) -> None:
    text = refused("--adapter", adapter, "--max_new_tokens", "1024")
    assert "--max_new_tokens: is 1024; prompt and answer share --max_length 1024." in text


def test_tracking_that_cannot_work_is_told_before_any_answer(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    argv = ("--adapter", finished, "--output_dir", tmp_path / "out")
    assert "WANDB_MODE: is online, but there is no WANDB_API_KEY." in refused(*argv, "--report_to", "wandb")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("predictions.jsonl", b'{"model": "base"}\n'),
        ("predictions.jsonl", b'{"model": "ba\n{"model": "base"}\n'),
        ("predictions.jsonl", b"\xff\xfe\n"),
        ("benchmark.json", b'{"models": '),
        ("benchmark.json", b'{"models": ["base"]}'),
        ("speed.json", b"[]"),
        ("speed.json", b'{"base": {"answers": 6}}'),
        ("rows.jsonl", b'{"row_id": "AAPL"}\n'),
    ],
)
def test_a_damaged_file_is_told(adapter: Path, name: str, content: bytes) -> None:
    (adapter / "benchmark" / name).write_bytes(content)
    text = refused("report", adapter)
    assert f"{adapter}/benchmark/{name}: is damaged. Take a whole copy, or delete it" in text
    if name != "rows.jsonl":  # which is written anew
        assert f"{name}: is damaged" in refused("generate", "--adapter", adapter)


def test_a_folder_that_is_in_use_is_refused(adapter: Path) -> None:
    with filelock.FileLock(adapter / "benchmark" / "benchmark.lock"):
        text = refused("--adapter", adapter)
    assert "benchmark is in use by another benchmark. Wait for it, or stop it." in text


def test_a_folder_that_cannot_be_written_is_one_message(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    text = refused("--adapter", adapter, "--output_dir", tmp_path / "notes.txt" / "out")
    assert f"{tmp_path}/notes.txt/out is a file, or lies below one, where a folder has to be." in text
    assert "Name another folder, or move the file away." in text


def test_a_full_disk_is_one_message_and_the_same_command_goes_on(adapter: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.strip()}")
    argv = ("generate", "--adapter", adapter, "--output_dir", disk / "out")
    try:
        (disk / "ballast").write_bytes(bytes(16_384))
        done = run_benchmark(*argv)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert done.stderr.count("Mend this") == 1
        (disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
        answered(*argv)
        assert count_by_model(disk / "out") == {"base": 6, "fine-tuned": 6}
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = run_benchmark(*argv)
        assert (done.returncode, done.stderr.count("Read-only file system")) == (1, 1)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
