"""The record of a checked run, and the folder that it writes to."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from forecaster.claims import find_holder, held, new_folder
from forecaster.errors import ConfigurationError, Problem
from forecaster.fit.gpus import Gpu
from forecaster.fit.hardware import HardwareChoice
from forecaster.models.registry import BaseModel
from forecaster.models.tuners import TUNERS
from forecaster.models.tuners.base import Tuner
from forecaster.run_folder import BEFORE_THE_FIRST_CHECKPOINT
from forecaster.training.survival import checkpoints
from forecaster.training.train_config import OUTPUT_FOLDER, TrainConfig

LOCK_FILE = ".run.lock"
_START = re.compile(r"\d+(_\d+)?")
"""Of a run, behind its name: a time, and a number where several began in the same second."""
PART_NAMES = {"train": "training", "validation": "validation", "test": "test"}
"""What messages call the parts of a dataset."""


@dataclass(frozen=True)
class Run:
    """What was asked, and what it resolved to."""

    config: TrainConfig
    model: BaseModel
    choice: HardwareChoice
    gpus: tuple[Gpu, ...]
    """Empty: CPU."""
    output_dir: Path
    resume_from: Path | None

    @property
    def micro_batch_size(self) -> int:
        return self.choice.micro_batch_size or self.config.batch_size

    @property
    def tuner(self) -> Tuner:
        """`--tuner`, as it is called over base weights of the kind that was chosen."""
        return TUNERS[self.config.tuner].over(self.choice.quantization)


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes, and the checkpoint that it goes on from."""

    path: Path
    resume_from: Path | None = None


def find_run_folder(config: TrainConfig) -> RunFolder | Problem:
    """A new folder (`--output_dir`, or run name and time), or with `--resume` the run to go on with.

    It is only looked for: `claimed` makes it this run's own.
    """
    if not config.resume:
        stamp = datetime.now().strftime("%Y%m%d%H%M%S")
        path = Path(config.output_dir or OUTPUT_FOLDER / f"{config.run_name}_{stamp}")
        if taken := _taken(path) or find_holder(path, LOCK_FILE, "--output_dir"):
            return taken
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            return Problem("--output_dir", f"{path} cannot be made in {existing}.", "Name another folder.")
        return RunFolder(path)
    if config.output_dir:
        candidates = [Path(config.output_dir)]
    else:
        # The time behind the name tells runs of `a` from runs of `a_b`.
        runs = OUTPUT_FOLDER.glob(f"{config.run_name}_*")
        candidates = sorted(
            (r for r in runs if _START.fullmatch(r.name[len(config.run_name) + 1 :])),
            key=lambda run: [int(part) for part in run.name[len(config.run_name) + 1 :].split("_")],
            reverse=True,
        )
    for candidate in candidates:
        checkpoint, _ = checkpoints.newest_complete(candidate)
        if checkpoint:
            return find_holder(candidate, LOCK_FILE, "--resume") or RunFolder(candidate, checkpoint)
    where = config.output_dir or OUTPUT_FOLDER / f"{config.run_name}_*"
    return Problem("--resume", f"finds no complete checkpoint in {where}.", "Start anew without --resume.")


def _taken(path: Path) -> Problem | None:
    """A folder in which no run may begin; records of one that died early do not count."""
    ours = (checkpoints.UNFINISHED_PREFIX, ".")
    is_free = not path.exists() or (
        path.is_dir()
        and all(e.name.startswith(ours) or e.name in BEFORE_THE_FIRST_CHECKPOINT for e in path.iterdir())
    )
    if is_free:
        return None
    way_out = "Add --resume to go on with that run, or name another folder."
    return Problem("--output_dir", f"{path} exists already.", way_out)


@contextmanager
def claimed(config: TrainConfig, folder: RunFolder) -> Iterator[Path]:
    """Make the folder of a run its own, and hold it: a name that was made up gets a number where another run
    was faster. What is refused before it wrote anything leaves no folder.

    Raises:
        ConfigurationError: another run holds the folder, or has been there since it was looked for.
    """
    is_named, is_there = bool(config.output_dir) or config.resume, folder.path.exists()
    had_runs = folder.path.parent.exists()
    path = folder.path if is_named else new_folder(folder.path)
    with held(path, LOCK_FILE, "--output_dir"):
        if not config.resume and (taken := _taken(path)):
            raise ConfigurationError([taken])
        try:
            yield path
        except ConfigurationError:
            if not is_there and not any(entry for entry in path.iterdir() if entry.name[0] != "."):
                shutil.rmtree(path)
                with suppress(OSError):  # other runs are there
                    if not had_runs:
                        path.parent.rmdir()
            raise
