"""Trainings that are stopped and killed through the real launcher, on two CPU ranks, and go on.

`bench/kill_matrix.py` runs the whole matrix of signals, targets and moments; here stand the corners of it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import (
    BASE,
    Training,
    UnderDeepspeed,
    about_to_train,
    complete_checkpoints,
    loading,
    result,
    saved,
    saving,
    stepping,
    write_rows,
)
from processes import ROOT, run, run_entry

from forecaster.processes import SHARED_BUFFERS
from forecaster.run_folder import BEFORE_THE_FIRST_CHECKPOINT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _no_shared_memory_is_left() -> Iterator[None]:
    """However a rank ends."""
    folder, names = SHARED_BUFFERS.parent, f"{SHARED_BUFFERS.name}_{os.getuid()}_*"
    before = set(folder.glob(names))
    yield
    assert set(folder.glob(names)) <= before


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def undisturbed(data: Path) -> Path:
    training = Training(data, data / "undisturbed", "fp32_zero2")
    assert training.wait() == 0, training.output()[-4000:]
    return training.output_dir


@pytest.fixture(scope="module")
def stopped(data: Path, undisturbed: Path) -> Training:
    """Stopped through train.sh in its first steps, between two checkpoints."""
    training = Training(data, data / "stopped", "fp32_zero2").when(stepping)
    training.send(signal.SIGTERM, "train.sh")
    assert training.wait() == 75, training.output()[-4000:]
    return training


def test_a_stopped_training_saves_and_says_how_to_go_on(stopped: Training) -> None:
    (checkpoint,) = complete_checkpoints(stopped.output_dir)
    # Beside checkpoints, nothing that would keep the run from being started anew.
    assert {path.name for path in stopped.output_dir.iterdir()} - {checkpoint} <= BEFORE_THE_FIRST_CHECKPOINT
    assert f"of 6: {checkpoint} is complete. --resume goes on." in stopped.output()
    assert "Stopped by SIGTERM. Go on from its newest checkpoint with:" in stopped.output()
    way_on = stopped.output().rstrip().splitlines()[-1]
    assert way_on.startswith("  ./train.sh --base_model ")
    assert way_on.endswith("--gpus 0,1 --no_benchmark --resume")
    assert not (stopped.output_dir / "log_history.json").exists()


def test_a_resume_with_another_number_of_ranks_is_refused(data: Path, stopped: Training) -> None:
    done = run_entry("train.sh", data, *stopped.resume_command().split()[1:], "--gpus", "0")
    assert done.returncode == 2
    assert "which 2 rank(s) saved; this run has 1. Use 2 GPU(s) (--gpus), or start anew" in done.stderr


def test_a_training_that_was_stopped_twice_ends_as_undisturbed(
    data: Path, undisturbed: Path, stopped: Training
) -> None:
    folder = stopped.output_dir
    training = Training(data, folder, "fp32_zero2", "--resume").when(saved(4))
    training.send(signal.SIGUSR1, "deepspeed")
    assert training.wait() in (128 + signal.SIGUSR1, 0), training.output()[-4000:]
    training = Training(data, folder, "fp32_zero2", "--resume")
    assert training.wait() == 0, training.output()[-4000:]
    assert result(folder) == result(undisturbed)


def test_a_rank_saves_and_leaves_when_deepspeed_alone_is_signalled(data: Path) -> None:
    """Its launch.py then tells every process below it to stop, those that load data among them."""
    long = ("--max_steps", "30", "--eval_steps", "30")
    training = UnderDeepspeed(data, data / "orphan", "fp32_zero0", *long, "--num_workers", "1")
    training.when(stepping).send(signal.SIGTERM, "deepspeed")
    assert training.process.wait() == -signal.SIGTERM
    training.wait_until_alone()
    (checkpoint,) = complete_checkpoints(training.output_dir)
    assert checkpoint != "checkpoint-30"
    assert f"of 30: {checkpoint} is complete. --resume goes on." in training.output()


def test_with_restarts_a_killed_rank_and_a_truncated_shard_cost_steps_only(
    data: Path, undisturbed: Path
) -> None:
    folder = data / "restarted"
    training = Training(data, folder, "fp32_zero3", "--restarts", "1").when(saved(2))
    training.send(signal.SIGKILL, "rank").when(saved(4))
    assert "Training stopped; it starts again in 5 s." in training.output()
    training.kill_everything()
    shutil.rmtree(folder / "tmp-checkpoint-6", ignore_errors=True)
    shutil.rmtree(folder / "checkpoint-6", ignore_errors=True)
    shard = next((folder / "checkpoint-4" / "global_step4").glob("*optim_states.pt"))
    shard.write_bytes(shard.read_bytes()[:1000])
    training = Training(data, folder, "fp32_zero3", "--resume")
    assert training.wait() == 0, training.output()[-4000:]
    assert "Passed over" in training.output()
    ended, expected = result(folder), result(undisturbed)
    assert ended["rows"] == expected["rows"]
    losses = [
        [line[key] for line in of["lines"] for key in ("loss", "eval_loss") if key in line]
        for of in (ended, expected)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_random_kills_in_loading_training_and_saving_end_in_the_same_bytes(
    data: Path, undisturbed: Path
) -> None:
    chance = random.Random(20)
    folder, flags = data / "killed", []
    moments = [chance.choice([loading, about_to_train]), stepping, saving(chance.choice([2, 4]))]
    chance.shuffle(moments)
    for moment in moments:
        Training(data, folder, "fp32_zero2", *flags).when(moment).kill_everything()
        flags = ["--resume"] if complete_checkpoints(folder) else []
    training = Training(data, folder, "fp32_zero2", *flags)
    assert training.wait() == 0, training.output()[-4000:]
    assert result(folder) == result(undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_keeps_the_earlier_checkpoint_and_says_what_is_needed(
    data: Path, small_disk: Path
) -> None:
    training = Training(data, small_disk / "run", "fp32_zero2", "--restarts", "3").when(saved(2))
    with (small_disk / "filler").open("wb") as filler:
        filler.write(bytes(shutil.disk_usage(small_disk).free - 1_000_000))
    assert training.wait() == 70
    assert "it starts again" not in training.output()
    assert f"The disk of {training.output_dir} is full: checkpoint-4 needs about" in training.output()
    assert "Earlier checkpoints stay. Free some space, and go on with --resume." in training.output()
    assert complete_checkpoints(training.output_dir) == ["checkpoint-2"]
    assert list(training.output_dir.glob("tmp-*")) == []


def test_a_stop_in_the_middle_of_an_evaluation_saves_and_the_evaluation_is_made_later(data: Path) -> None:
    """All 48 test rows of the sample, so that the evaluation of step 2 lasts."""
    command = [
        *(
            sys.executable,
            "-u",
            str(ROOT / "train_lora.py"),
            "--base_model",
            str(BASE),
            "--report_to",
            "none",
        ),
        *("--dataset", "train.jsonl", "--test_dataset", str(ROOT / "sample" / "dataset" / "test.jsonl")),
        *("--max_length", "1024", "--batch_size", "2", "--gradient_accumulation_steps", "1"),
        *("--max_steps", "3", "--log_interval", "2", "--eval_steps", "2", "--output_dir", "evaluating"),
    ]
    with subprocess.Popen(command, cwd=data, stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        for line in training.stdout:
            if line.startswith("step 2/3  loss "):  # the evaluation comes next
                training.send_signal(signal.SIGTERM)
    assert training.returncode == 75
    folder = data / "evaluating"
    assert complete_checkpoints(folder) == ["checkpoint-2"]
    assert (folder / "checkpoint-2" / "evaluation_pending").exists()
    done = run([*command, "--resume"], data)
    assert done.returncode == 0, done.stderr
    history = json.loads((folder / "log_history.json").read_text())
    assert [entry["step"] for entry in history if "eval_loss" in entry] == [2, 3]
    assert [entry["step"] for entry in history if "loss" in entry] == [2]
    order = (folder / "row_order" / "rank_0.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in order] == [1, 2, 3]


def test_a_loss_that_is_not_finite_ends_the_run_with_the_rows_of_the_step(data: Path) -> None:
    done = run_entry(
        "train_lora.py",
        data,
        *("--base_model", str(BASE), "--dataset", "train.jsonl", "--test_dataset", "test.jsonl"),
        *("--max_length", "1024", "--batch_size", "2", "--gradient_accumulation_steps", "2"),
        *("--learning_rate", "1000", "--warmup_ratio", "0", "--report_to", "none", "--output_dir", "nan"),
    )
    assert done.returncode == 70, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "NaN or infinite" in line]
    order = [
        json.loads(line)
        for path in (data / "nan" / "row_order").iterdir()
        for line in path.read_text().splitlines()
    ]
    step = order[-1]["step"]
    assert line.startswith(f"The loss of step {step} is NaN or infinite; its rows: ")
    named = line.partition("its rows: ")[2].partition(". ")[0].split(", ")
    assert set(named) <= {row for entry in order if entry["step"] == step for row in entry["row_ids"]}
    assert "lower --learning_rate" in line
