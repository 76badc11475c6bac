"""train_lora.py on one and two CPU ranks: a few trainings behind the real `deepspeed` launcher, the others as
forks of a process that has imported everything. A run of either kind is compared with one of the other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import FOR_TRAINING, Forks
from processes import ROOT, call_entry, free_port, run, run_entry
from safetensors.torch import load_file

from forecaster.data.sources import Corpus
from forecaster.errors import ConfigurationError
from forecaster.fit.hardware import HardwareChoice
from forecaster.models.finished import read_finished
from forecaster.models.registry import BaseModel
from forecaster.training import resuming
from forecaster.training.run import Run
from forecaster.training.train_config import TrainConfig, as_flags

BASE = ROOT / "sample" / "base"
LAUNCHER = Path(sys.executable).with_name("deepspeed")


def deepspeed(cwd: Path, ranks: int, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run train_lora.py in `cwd` under the launcher, as a user would."""
    include = "localhost:" + ",".join(map(str, range(ranks)))
    command = [str(LAUNCHER), "--include", include, "--master_port", str(free_port())]
    return run(
        [*command, str(ROOT / "train_lora.py"), *flags],
        cwd,
        LOCAL_SIZE=str(ranks),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 training and 4 test rows of the embedded sample."""
    folder = tmp_path_factory.mktemp("data")
    for name, count in (("train", 16), ("test", 4)):
        lines = (
            (ROOT / "sample" / "dataset" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        )
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks(*FOR_TRAINING) as started:
        yield started


Start = Callable[..., subprocess.CompletedProcess[str]]
"""Working folder, number of ranks and flags of train_lora.py, to what it printed: `deepspeed`, or a fork."""


@pytest.fixture(scope="module")
def forked(forks: Forks) -> Start:
    def start(cwd: Path, ranks: int, *flags: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as files:
            return forks.run_ranks(ranks, "train_lora", cwd, Path(files), *flags)

    return start


def short_run(
    start: Start, data: Path, output_dir: Path, ranks: int, accumulation: int, ds_config: str, *more: str
) -> Path:
    done = start(
        data,
        ranks,
        *("--base_model", str(BASE), "--dataset", "train.jsonl", "--test_dataset", "test.jsonl"),
        *("--max_length", "1024", "--batch_size", "2", "--gradient_accumulation_steps", str(accumulation)),
        *("--max_steps", "4", "--log_interval", "1", "--eval_steps", "2", "--learning_rate", "5e-3"),
        *("--ds_config", ds_config, "--report_to", "none", "--output_dir", str(output_dir), *more),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return output_dir


def log_history(folder: Path) -> list[dict[str, float]]:
    history: list[dict[str, float]] = json.loads((folder / "log_history.json").read_text())
    return history


def losses(folder: Path) -> list[float]:
    entries = log_history(folder)
    return [
        entry.get("loss", entry.get("eval_loss")) for entry in entries if {"loss", "eval_loss"} & set(entry)
    ]


def steps_with(folder: Path, key: str) -> list[float]:
    return [entry["step"] for entry in log_history(folder) if key in entry]


def elapsed_s(folder: Path) -> list[float]:
    return [
        entry["elapsed_s"]
        for entry in log_history(folder)
        if {"loss", "eval_loss", "test_loss"} & entry.keys()
    ]


def row_order(folder: Path, rank: int) -> list[dict[str, Any]]:
    path = folder / "row_order" / f"rank_{rank}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows_by_step(folder: Path, ranks: int) -> dict[int, set[str]]:
    steps: dict[int, set[str]] = {}
    for rank in range(ranks):
        for entry in row_order(folder, rank):
            steps.setdefault(entry["step"], set()).update(entry["row_ids"])
    return steps


@pytest.fixture(scope="module")
def zero2(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(deepspeed, data, tmp_path_factory.mktemp("runs") / "zero2", 2, 2, "fp32_zero2")


def test_zero_2_and_zero_3_on_two_ranks_take_the_same_rows_and_lose_the_same(
    forked: Start, data: Path, zero2: Path, tmp_path: Path
) -> None:
    zero3 = short_run(forked, data, tmp_path / "zero3", 2, 2, "fp32_zero3")
    for rank in (0, 1):
        assert row_order(zero2, rank) == row_order(zero3, rank)
        assert len(row_order(zero2, rank)) == 4 * 2
    assert losses(zero3) == pytest.approx(losses(zero2), abs=1e-5)
    assert len(losses(zero2)) == 4 + 2
    assert (
        load_file(zero3 / "adapter_model.safetensors").keys()
        == load_file(zero2 / "adapter_model.safetensors").keys()
    )


def test_without_a_validation_part_the_test_rows_are_evaluated_as_before(zero2: Path) -> None:
    assert (steps_with(zero2, "eval_loss"), steps_with(zero2, "test_loss")) == ([2, 4], [])
    evaluation = next(entry for entry in log_history(zero2) if "eval_loss" in entry)
    assert round(evaluation["eval_runtime"] * evaluation["eval_samples_per_second"]) == 4
    record = json.loads((zero2 / "dataset.json").read_text())
    assert record["tokenised"].keys() == {"train", "test"}
    assert "recipe" not in record
    times = elapsed_s(zero2)
    assert len(times) == 6
    assert times == sorted(times)


@pytest.fixture(scope="module")
def validated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that holds the second of two training weeks out, without a launcher, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "validated"
    done = run_entry(
        "train_lora.py",
        data,
        *("--base_model", str(BASE), "--dataset", "train.jsonl*2", "--test_dataset", "test.jsonl"),
        *("--max_length", "1024", "--batch_size", "4", "--gradient_accumulation_steps", "1"),
        *("--max_steps", "3", "--log_interval", "1", "--eval_steps", "1", "--learning_rate", "5e-3"),
        *("--validation_share", "0.4", "--save_total_limit", "1"),
        *("--report_to", "none", "--output_dir", str(folder)),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done.stdout


@pytest.mark.slow
def test_validation_rows_are_not_trained_on_and_the_loss_in_between_is_theirs(
    validated: tuple[Path, str],
) -> None:
    folder, _ = validated
    held_out = {f"train.jsonl:train#{i}" for i in range(8, 16)}
    taken = set().union(*rows_by_step(folder, 1).values())
    assert taken
    assert not taken & held_out
    evaluations = [entry for entry in log_history(folder) if "eval_loss" in entry]
    assert [round(e["eval_runtime"] * e["eval_samples_per_second"]) for e in evaluations] == [8, 8, 8]
    record = json.loads((folder / "dataset.json").read_text())
    assert {name: part["rows"] for name, part in record["tokenised"].items()} == {
        "train": 16,
        "validation": 8,
        "test": 4,
    }
    assert record["counts"]["validation_held_out"] == 8


@pytest.mark.slow
def test_beside_a_validation_part_the_test_loss_is_computed_once_and_has_its_own_name(
    validated: tuple[Path, str],
) -> None:
    folder, stdout = validated
    assert (steps_with(folder, "eval_loss"), steps_with(folder, "test_loss")) == ([1, 2, 3], [3])
    entry = log_history(folder)[-1]
    assert not [name for name in entry if name.startswith("eval_")]
    assert round(entry["test_runtime"] * entry["test_samples_per_second"]) == 4
    assert stdout.count("  validation loss ") == 3
    assert stdout.count("  test loss ") == 1
    assert f"step 3/3  test loss {entry['test_loss']:.4f}" in stdout
    card = (folder / "README.md").read_text()
    assert "train.jsonl*2, 16 training, 8 validation and 4 test rows" in card
    assert f"{entry['test_loss']:.4f} on the test rows" in card


@pytest.mark.slow
def test_as_many_checkpoints_stay_as_asked_and_each_is_an_adapter_of_its_own(
    validated: tuple[Path, str], zero2: Path
) -> None:
    assert [path.name for path in validated[0].glob("checkpoint-*")] == ["checkpoint-3"]
    for folder, checkpoint in ((validated[0], "checkpoint-3"), (zero2, "checkpoint-4")):
        for name in (
            "adapter_model.safetensors",
            "adapter_config.json",
            "tokenizer.json",
            "chat_template.jinja",
        ):
            assert (folder / checkpoint / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_one_rank_with_doubled_accumulation_takes_the_same_rows_per_optimizer_step(
    forked: Start, data: Path, zero2: Path, tmp_path: Path
) -> None:
    alone = short_run(forked, data, tmp_path / "alone", 1, 4, "auto")
    assert rows_by_step(alone, 1) == rows_by_step(zero2, 2)
    assert all(len(rows) == 8 for rows in rows_by_step(alone, 1).values())
    assert losses(alone)[0] == pytest.approx(losses(zero2)[0], abs=1e-5)
    record = json.loads((alone / "run_config.json").read_text())
    assert record["resolved"]["rows_per_optimizer_step"] == 8
    assert record["resolved"]["ds_config"] == "fp32_zero0.json"


def test_a_run_goes_on_from_its_newest_complete_checkpoint(
    forked: Start, data: Path, zero2: Path, tmp_path: Path
) -> None:
    cut_short = tmp_path / "cut_short"
    shutil.copytree(zero2, cut_short)
    for name in ("adapter_model.safetensors", "log_history.json", "trainer_state.json", "README.md"):
        (cut_short / name).unlink()
    (cut_short / "checkpoint-4" / "manifest.json").unlink()
    done = short_run(forked, data, cut_short, 2, 2, "fp32_zero2", "--resume")
    assert losses(done) == pytest.approx(losses(zero2), abs=1e-6)
    assert (done / "adapter_model.safetensors").read_bytes() == (
        zero2 / "adapter_model.safetensors"
    ).read_bytes()
    times = elapsed_s(done)
    assert times[:3] == elapsed_s(zero2)[:3]  # as the checkpoint of step 2 has them
    assert times == sorted(times)
    assert (done / "adapter_config.json").read_bytes() == (zero2 / "adapter_config.json").read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora_alpha", "99"], "--lora_alpha: is 99; the run began with 16. Give the former value."),
        ([], "has ended. Give more --num_epochs to train on"),
        (["--lora_alpha", "99"], "which 2 rank(s) saved; this run has 1. Use 2 GPU(s) (--gpus)"),
    ],
    ids=["other settings", "nothing left to do", "other ranks"],
)
def test_a_resume_that_would_spoil_the_run_changes_nothing(
    data: Path, zero2: Path, flags: list[str], message: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in zero2.rglob("*")}
    done = call_entry(
        "train_lora.py",
        data,
        *("--base_model", str(BASE), "--dataset", "train.jsonl", "--test_dataset", "test.jsonl"),
        *("--max_length", "1024", "--batch_size", "2", "--gradient_accumulation_steps", "2"),
        *("--max_steps", "4", "--log_interval", "1", "--eval_steps", "2", "--learning_rate", "5e-3"),
        *("--report_to", "none", "--output_dir", str(zero2), "--resume", *flags),
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert {path: path.stat().st_mtime_ns for path in zero2.rglob("*")} == before


RESOLVED = {"base_model": "m", "precision": "fp32", "quantization": "none"}


@pytest.mark.parametrize(
    ("former", "now", "message"),
    [
        ({}, {}, None),
        ({}, {"validation_share": 0.1}, "--validation_share: is 0.1; the run began with 0.0."),
        ({"validation_share": 0.2}, {}, "--validation_share: is 0.0; the run began with 0.2."),
        ({"validation_share": 0.2}, {"validation_share": 0.2}, None),
        ({}, {"tuner": "dora"}, "--tuner: is dora; the run began with lora."),
        ({"tuner": "full"}, {}, "--tuner: is lora; the run began with full."),
        ({"tuner": "full"}, {"tuner": "full"}, None),
        ({"save_total_limit": 2}, {"save_total_limit": 9}, None),
    ],
)
def test_a_run_goes_on_with_the_parts_that_it_began_with(
    tmp_path: Path, former: dict[str, float], now: dict[str, Any], message: str | None
) -> None:
    """A run of before these flags has no record of them: it held nothing out, and had LoRA."""
    config = TrainConfig(base_model="m", dataset="d", **now)
    older = {
        k: v
        for k, v in as_flags(config).items()
        if k not in ("validation_share", "save_total_limit", "tuner")
    }
    (tmp_path / "run_config.json").write_text(json.dumps({"flags": older | former, "resolved": RESOLVED}))
    (tmp_path / "dataset.json").write_text(json.dumps({"fingerprint_sha256": "f"}))
    going_on = Run(
        config, BaseModel("m", True), HardwareChoice("fp32", "none", False, None, ()), (), tmp_path, None
    )
    # Other parts mean another fingerprint: that is not told a second time.
    fingerprint = "g" if message and "validation_share" in message else "f"
    corpus = Corpus(None, None, None, fingerprint)  # type: ignore[arg-type]
    if message is None:
        resuming.check_same_run(going_on, corpus.fingerprint, ranks=1)
        return
    with pytest.raises(ConfigurationError) as caught:
        resuming.check_same_run(going_on, corpus.fingerprint, ranks=1)
    assert [str(problem) for problem in caught.value.problems] == [f"{message} Give the former value."]


@pytest.mark.parametrize(
    ("began", "message"),
    [
        ({}, None),
        ({"precision": "fp32", "quantization": "none", "ds_config": None}, None),
        (
            {"precision": "bf16", "quantization": "none", "ds_config": None},
            "--precision: comes out as fp32 here; the run began with bf16. Give --precision bf16, or go on "
            "where it began.",
        ),
        (
            {"precision": "fp32", "quantization": "4bit", "ds_config": None},
            "--quantization: comes out as none here; the run began with 4bit. Give --quantization 4bit, or "
            "go on where it began.",
        ),
        (
            {"ds_config": "fp32_zero2.json"},
            "--ds_config: comes out as None here; the run began with fp32_zero2.json. Give --ds_config "
            "fp32_zero2.json, or go on where it began.",
        ),
    ],
)
def test_a_run_goes_on_with_what_auto_chose_when_it_began(
    tmp_path: Path, began: dict[str, Any], message: str | None
) -> None:
    config = TrainConfig(base_model="m", dataset="d")
    going_on = Run(
        config, BaseModel("m", True), HardwareChoice("fp32", "none", False, None, ()), (), tmp_path, None
    )
    problems = [str(problem) for problem in resuming.find_changed_choices(going_on, began)]
    assert problems == ([message] if message else [])


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"batch_size": 1, "gradient_accumulation_steps": 16, "gradient_checkpointing": "true"}, None),
        (
            {"batch_size": 1},
            "--batch_size: x --gradient_accumulation_steps is 1 x 8; the run began with 2 x 8.",
        ),
    ],
)
def test_a_run_goes_on_with_fewer_rows_at_a_time_where_a_step_has_as_many(
    tmp_path: Path, now: dict[str, Any], message: str | None
) -> None:
    began = TrainConfig(base_model="m", dataset="d", batch_size=2, gradient_accumulation_steps=8)
    config = TrainConfig(**as_flags(began) | now)
    (tmp_path / "run_config.json").write_text(json.dumps({"flags": as_flags(began), "resolved": RESOLVED}))
    (tmp_path / "dataset.json").write_text(json.dumps({"fingerprint_sha256": "f"}))
    going_on = Run(
        config, BaseModel("m", True), HardwareChoice("fp32", "none", False, None, ()), (), tmp_path, None
    )
    corpus = Corpus(None, None, None, "f")  # type: ignore[arg-type]
    if message is None:
        resuming.check_same_run(going_on, corpus.fingerprint, ranks=1)
        return
    with pytest.raises(ConfigurationError) as caught:
        resuming.check_same_run(going_on, corpus.fingerprint, ranks=1)
    assert str(caught.value).startswith(message)


# --- tuners whose weights a ZeRO stage could lose -----------------------------------------------------------

TUNED = ("--learning_rate", "1e-3", "--max_steps", "2", "--eval_steps", "1", "--warmup_ratio", "0")


@pytest.fixture(scope="module")
def full_zero2(forked: Start, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "full_zero2"
    return short_run(forked, data, folder, 2, 1, "fp32_zero2", "--tuner", "full", *TUNED)


@pytest.mark.slow
def test_full_fine_tuning_saves_the_same_whole_model_under_zero_2_and_zero_3(
    forked: Start, data: Path, full_zero2: Path, tmp_path: Path
) -> None:
    zero3 = short_run(forked, data, tmp_path / "zero3", 2, 1, "fp32_zero3", "--tuner", "full", *TUNED)
    assert losses(zero3) == pytest.approx(losses(full_zero2), abs=1e-5)
    models = [load_file(folder / "model.safetensors") for folder in (BASE, full_zero2, zero3)]
    base, two, three = models
    assert base.keys() == two.keys() == three.keys()
    for name, tensor in two.items():
        moved = (tensor - base[name]).norm()
        assert moved > 0, name
        # Adam steps by a gradient's sign where it is all but zero: a few entries differ, the whole does not.
        assert (tensor - three[name]).norm() < 1e-2 * moved, name
    for folder in (full_zero2, zero3):
        assert not (folder / "adapter_config.json").exists()
        last = folder / "checkpoint-2" / "model.safetensors"
        assert last.read_bytes() == (folder / "model.safetensors").read_bytes()
        run = read_finished(folder)
        assert (run.tuner.name, run.resolved["quantization"]) == ("full", "none")


@pytest.mark.slow
def test_full_fine_tuning_goes_on_from_its_checkpoint(
    forked: Start, data: Path, full_zero2: Path, tmp_path: Path
) -> None:
    cut_short = tmp_path / "cut_short"
    shutil.copytree(full_zero2, cut_short)
    for name in ("model.safetensors", "log_history.json"):
        (cut_short / name).unlink()
    shutil.rmtree(cut_short / "checkpoint-2")
    done = short_run(forked, data, cut_short, 2, 1, "fp32_zero2", "--tuner", "full", *TUNED, "--resume")
    assert losses(done) == pytest.approx(losses(full_zero2), abs=1e-6)
    assert (done / "model.safetensors").read_bytes() == (full_zero2 / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_dora_under_zero_3_learns_as_a_plain_loop_does(forked: Start, data: Path, tmp_path: Path) -> None:
    """Its magnitudes are norms of weights that ZeRO-3 has divided: they are right only if those are gathered,
    when the adapter is made and at every step."""
    flags = ("--tuner", "dora", "--lora_dropout", "0", *TUNED)
    zero3 = short_run(forked, data, tmp_path / "zero3", 2, 1, "fp32_zero3", *flags)
    alone = tmp_path / "alone"
    done = run_entry(
        "train_lora.py",
        data,
        *("--base_model", str(BASE), "--dataset", "train.jsonl", "--test_dataset", "test.jsonl"),
        *("--max_length", "1024", "--batch_size", "2", "--gradient_accumulation_steps", "2"),
        *("--log_interval", "1", "--report_to", "none", "--output_dir", str(alone), *flags),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert rows_by_step(alone, 1) == rows_by_step(zero3, 2)
    assert losses(zero3) == pytest.approx(losses(alone), abs=1e-5)
    saved = [load_file(folder / "adapter_model.safetensors") for folder in (zero3, alone)]
    assert saved[0].keys() == saved[1].keys()
    assert read_finished(zero3).tuner.name == "dora"


@pytest.mark.slow
def test_the_fields_launch_command_runs_as_it_stands(data: Path, tmp_path: Path) -> None:
    """Every flag of the command is kept; only the model and the dataset are local folders."""
    shutil.copy(data / "train.jsonl", tmp_path / "rows.jsonl")  # no test split: it is split by date
    done = deepspeed(
        tmp_path,
        1,
        *("--run_name", "lora_t4_16g", "--base_model", str(BASE), "--dataset", "rows.jsonl", "--from_remote"),
        *("--max_length", "2048", "--batch_size", "1", "--gradient_accumulation_steps", "24"),
        *("--learning_rate", "1e-5", "--num_epochs", "3", "--log_interval", "10", "--warmup_ratio", "0.03"),
        *("--scheduler", "constant", "--evaluation_strategy", "steps", "--ds_config", "ds_config.json"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "constant after a linear warm-up over 0.03 of the steps" in done.stdout
    assert "no file ds_config.json here, so auto" in done.stdout
    assert "W&B: offline, there is no WANDB_API_KEY" in done.stdout
    assert "  test loss " in done.stdout
    assert "validation loss" not in done.stdout
    (output_dir,) = (tmp_path / "finetuned_models").glob("lora_t4_16g_*")
    for name in (
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "run_config.json",
        "ds_config.json",
        "dataset.json",
        "trainer_state.json",
        "log_history.json",
        "README.md",
        "wandb_run.json",
    ):
        assert (output_dir / name).stat().st_size > 0, name
    record = json.loads((output_dir / "run_config.json").read_text())
    assert record["resolved"]["scheduler"] == "constant_with_warmup"
    assert record["resolved"]["chat_template"] == "llama2"
    assert record["versions"]["deepspeed"]
    assert list((output_dir / "wandb").glob("offline-run-*/*.wandb"))
