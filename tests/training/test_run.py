"""Where a run writes, and which run `--resume` goes on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from forecaster.errors import Problem
from forecaster.training.run import RunFolder, find_run_folder
from forecaster.training.survival.checkpoints import mark_complete
from forecaster.training.train_config import TrainConfig


def config(**flags: object) -> TrainConfig:
    return TrainConfig(base_model="m", dataset="d", **flags)  # type: ignore[arg-type]


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"w")
    mark_complete(path)
    return path


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_new_run_is_named_by_run_name_and_time() -> None:
    folder = find_run_folder(config(run_name="mine"))
    assert isinstance(folder, RunFolder)
    assert folder.path.parent == Path("finetuned_models")
    assert folder.path.name.startswith("mine_20")
    assert folder.resume_from is None


def test_resume_takes_the_newest_run_of_that_name_and_no_other_name() -> None:
    runs = Path("finetuned_models")
    checkpoint(runs / "aa_20260101000000", 5)
    newest = checkpoint(runs / "aa_20260102000000", 3)
    checkpoint(runs / "aa_t4_20270101000000", 9)
    assert find_run_folder(config(run_name="aa", resume=True)) == RunFolder(newest.parent, newest)


def test_resume_without_a_complete_checkpoint_is_refused() -> None:
    (Path("out") / "checkpoint-3").mkdir(parents=True)
    problem = find_run_folder(config(output_dir="out", resume=True))
    assert isinstance(problem, Problem)
    assert str(problem) == "--resume: finds no complete checkpoint in out. Start anew without --resume."
