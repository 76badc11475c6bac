"""The record of a checked run, and the folder that it writes to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from forecaster.errors import Problem
from forecaster.fit.gpus import Gpu
from forecaster.fit.hardware import HardwareChoice
from forecaster.models.registry import BaseModel
from forecaster.models.tuners import TUNERS
from forecaster.models.tuners.base import Tuner
from forecaster.run_folder import BEFORE_THE_FIRST_CHECKPOINT
from forecaster.training.survival import checkpoints
from forecaster.training.train_config import OUTPUT_FOLDER, TrainConfig

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
    """A new folder (`--output_dir`, or run name and time), or with `--resume` the run to go on with."""
    if not config.resume:
        stamp = datetime.now().strftime("%Y%m%d%H%M%S")
        path = Path(config.output_dir or OUTPUT_FOLDER / f"{config.run_name}_{stamp}")
        ours = (checkpoints.UNFINISHED_PREFIX, ".")
        if path.exists() and (
            not path.is_dir()
            or any(
                not e.name.startswith(ours) and e.name not in BEFORE_THE_FIRST_CHECKPOINT
                for e in path.iterdir()
            )
        ):
            return Problem(
                "--output_dir",
                f"{path} exists already.",
                "Add --resume to go on with that run, or name another folder.",
            )
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            return Problem("--output_dir", f"{path} cannot be made in {existing}.", "Name another folder.")
        return RunFolder(path)
    if config.output_dir:
        candidates = [Path(config.output_dir)]
    else:
        # The time behind the name tells runs of `a` from runs of `a_b`.
        runs = OUTPUT_FOLDER.glob(f"{config.run_name}_*")
        candidates = sorted((r for r in runs if r.name[len(config.run_name) + 1 :].isdecimal()), reverse=True)
    for candidate in candidates:
        checkpoint, _ = checkpoints.newest_complete(candidate)
        if checkpoint:
            return RunFolder(candidate, checkpoint)
    where = config.output_dir or OUTPUT_FOLDER / f"{config.run_name}_*"
    return Problem("--resume", f"finds no complete checkpoint in {where}.", "Start anew without --resume.")
