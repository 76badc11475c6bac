"""Checkpoints are complete or absent; what is not as its manifest says is passed over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT

import launch
from forecaster import processes
from forecaster.cluster.launch_config import split_flags
from forecaster.cluster.supervision import StopSignals, remove_dead_build_locks
from forecaster.jobs import launch as launching
from forecaster.models.registry import BaseModel, ModelShape
from forecaster.progress import at_terminal
from forecaster.run_folder import LOG_HISTORY
from forecaster.training.survival import checkpoints
from forecaster.training.train_config import TrainConfig, find_disk_problems, find_value_problems


def write(output_dir: Path, step: int, content: str = "weights") -> Path:
    """A checkpoint as the ranks leave it, before it has its name."""
    inside = checkpoints.unfinished_folder(output_dir, step) / f"checkpoint-{step}"
    (inside / f"global_step{step}").mkdir(parents=True)
    (inside / f"global_step{step}" / "shard.pt").write_text(content)
    (inside / "latest").write_text(f"global_step{step}")
    return inside


def commit(output_dir: Path, *steps: int) -> None:
    for step in steps:
        write(output_dir, step)
        checkpoints.commit(output_dir, step)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_gets_its_name_with_its_manifest_and_nothing_else_stays(tmp_path: Path) -> None:
    write(tmp_path, 2)
    assert checkpoints.newest_complete(tmp_path) == (None, [])
    folder = checkpoints.commit(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint-2"]
    assert names(folder) == ["global_step2", "latest", "manifest.json"]
    assert checkpoints.newest_complete(tmp_path) == (folder, [])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "it has no manifest: it was not finished"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "its manifest is damaged"),
        (
            lambda folder: (folder / "latest").write_text("global_step9"),
            "latest has changed since it was saved",
        ),
        (lambda folder: (folder / "global_step4/shard.pt").unlink(), "global_step4/shard.pt is missing"),
        (
            lambda folder: (folder / "global_step4/more.pt").write_text("pickle"),
            "global_step4/more.pt is not in its manifest",
        ),
    ],
    ids=["no manifest", "half a manifest", "another latest", "no shard", "a foreign shard"],
)
def test_a_checkpoint_that_is_not_as_it_was_saved_is_passed_over(tmp_path: Path, damage, reason: str) -> None:  # type: ignore[no-untyped-def]
    commit(tmp_path, 2, 4)
    damage(tmp_path / "checkpoint-4")
    found, skipped = checkpoints.newest_complete(tmp_path)
    assert found == tmp_path / "checkpoint-2"
    assert skipped == [checkpoints.Skipped(tmp_path / "checkpoint-4", reason)]


def test_a_step_that_was_done_again_replaces_its_damaged_checkpoint(tmp_path: Path) -> None:
    commit(tmp_path, 4)
    (tmp_path / "checkpoint-4" / "latest").write_text("")
    write(tmp_path, 4, "again")
    folder = checkpoints.commit(tmp_path, 4)
    assert checkpoints.fault(folder) is None
    assert (folder / "global_step4" / "shard.pt").read_text() == "again"
    assert names(tmp_path) == ["checkpoint-4"]


def test_the_newest_stay_and_the_best_where_it_is_asked_for(tmp_path: Path) -> None:
    commit(tmp_path, 2, 4, 10, 12)
    checkpoints.prune(tmp_path, 12, 3)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-12", "checkpoint-4"]
    checkpoints.prune(tmp_path, 12, 1, best_step=4)
    assert names(tmp_path) == ["checkpoint-12", "checkpoint-4"]
    # A damaged one of later steps does not take the place of what was just saved.
    checkpoints.prune(tmp_path, 4, 1)
    assert names(tmp_path) == ["checkpoint-12", "checkpoint-4"]


def test_the_best_step_has_the_lowest_evaluation_loss() -> None:
    history = [
        {"step": 1, "loss": 0.1},
        {"step": 2, "eval_loss": 0.9},
        {"step": 4, "eval_loss": 0.7},
        {"step": 6, "eval_loss": 0.7},
    ]
    assert checkpoints.best_step(history) == 4
    assert checkpoints.best_step(history[:1]) is None


def test_what_a_kill_left_is_removed_at_the_next_start(tmp_path: Path) -> None:
    commit(tmp_path, 2)
    write(tmp_path, 4)
    assert checkpoints.remove_unfinished(tmp_path) == [tmp_path / "tmp-checkpoint-4"]
    assert names(tmp_path) == ["checkpoint-2"]


def test_ranks_are_counted_by_the_random_states_that_they_saved(tmp_path: Path) -> None:
    (tmp_path / "rng_state.pth").touch()
    assert checkpoints.ranks_of(tmp_path) == 1
    for rank in range(4):
        (tmp_path / f"rng_state_{rank}.pth").touch()
    assert checkpoints.ranks_of(tmp_path) == 4


def test_only_a_build_lock_that_nobody_holds_is_removed(tmp_path: Path) -> None:
    for name in ("dead", "held"):
        (tmp_path / "py311_cpu" / name).mkdir(parents=True)
        (tmp_path / "py311_cpu" / name / "lock").touch()
    held = tmp_path / "py311_cpu" / "held" / "lock"
    (tmp_path / "closed").mkdir()
    program = (
        f"import os, sys; os.chdir({str(tmp_path)!r}); os.open({str(held)!r}, os.O_RDONLY); "
        # As a log that root's shell opened for it.
        "os.open('closed/log', os.O_CREAT); os.chmod('closed', 0); "
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ)
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        assert remove_dead_build_locks(tmp_path) == [tmp_path / "py311_cpu" / "dead" / "lock"]
        assert held.exists()
        holder.communicate()


def test_the_names_of_open_shared_buffers_are_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "SHARED_BUFFERS", tmp_path / "buffer")
    for name in ("buffer_1", "buffer_2", "another"):
        (tmp_path / name).write_text("shared")
    with (tmp_path / "buffer_1").open() as mine, (tmp_path / "another").open():
        processes.unlink_shared_buffers()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "buffer_2"]
        assert mine.read() == "shared"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"grace_seconds": 0.5}, "--grace_seconds: is 0.5. It has to be 1 or more."),
        ({"max_skipped_steps": 0}, "--max_skipped_steps: is 0. It has to be 1 or more."),
        (
            {"keep_best": True, "evaluation_strategy": "no"},
            "--keep_best: is True. Without evaluation, no checkpoint is the best: "
            "use --evaluation_strategy steps.",
        ),
    ],
)
def test_flags_out_of_range_are_refused(flags: dict[str, object], message: str) -> None:
    problems = find_value_problems(TrainConfig(base_model="m", dataset="d", **flags))  # type: ignore[arg-type]
    assert [str(problem) for problem in problems] == [message]


def test_fewer_than_no_restarts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["--restarts", "-1"]) == 2
    assert "--restarts: is -1. It has to be 0 or more." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("signalled", "wrote_last_file", "launchers_status", "status"),
    [
        (False, True, 0, 0),
        (False, False, 0, 137),  # its launch.py was killed
        (False, False, 1, 1),
        (False, False, 70, 70),
        (True, False, 1, 75),
        (True, False, 2, 2),
        (True, False, 70, 70),  # the disk was too full for the last checkpoint
        (True, True, 143, 0),
    ],
)
def test_a_training_ends_with_the_status_that_says_how_it_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signalled: bool,
    wrote_last_file: bool,
    launchers_status: int,
    status: int,
) -> None:
    signals = StopSignals()
    (tmp_path / LOG_HISTORY).write_text("of an earlier end, before more epochs were asked for")
    os.utime(tmp_path / LOG_HISTORY, (0, 0))

    def supervised(*_: object) -> int:
        signals.received = signal.SIGTERM if signalled else None
        if wrote_last_file:
            (tmp_path / LOG_HISTORY).write_text("[]")
        return launchers_status

    monkeypatch.setattr(launching, "supervise", supervised)
    own, flags = split_flags(["--base_model", "m"])
    job = launching.Launch(own, flags, [0], None, {}, tmp_path, 60, signals, at_terminal())
    assert job.train() == status


def test_a_signal_between_training_and_benchmark_leaves_the_benchmark_to_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signals = StopSignals()
    signals.received = signal.SIGTERM
    own, flags = split_flags(["--base_model", "m"])
    job = launching.Launch(own, flags, [0], None, {}, tmp_path, 60, signals, at_terminal())
    assert job.benchmark(["python", "benchmark.py", "--adapter", "run"]) == 75
    assert "Make it with:\n  python benchmark.py --adapter run" in capsys.readouterr().err


def test_nobody_reading_any_more_changes_neither_course_nor_status() -> None:
    program = (
        "import sys; from forecaster.progress import say; sys.stdin.readline(); say('lost'); say('lost'); "
        "say('heard', sys.stderr); sys.exit(75)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, heard = process.communicate(b"\n")
    assert (process.returncode, heard) == (75, b"heard\n")


def test_checkpoints_that_are_there_need_no_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BaseModel("m", is_local=True, shape=ModelShape(1024, 24, 14, 2, 64, 4864, 151936))
    config = TrainConfig(base_model="m", dataset="d", target_modules="q_proj,o_proj", save_total_limit=2)
    asked: list[int] = []
    monkeypatch.setattr(
        "forecaster.training.train_config.disk_problem", lambda _, __, needed: asked.append(needed) or []
    )
    find_disk_problems(config, model, tmp_path)
    for step in (2, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "weights").write_bytes(bytes(10_000_000))
    find_disk_problems(config, model, tmp_path)
    assert asked[0] - asked[1] == 20_000_000
    assert asked[1] > 50_000_000 + 20_000_000  # the next one, and what training leaves
