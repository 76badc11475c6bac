"""A finished training run, as its folder describes it. Loads no weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from forecaster.errors import ConfigurationError, Problem
from forecaster.files import sha256_of
from forecaster.models import registry
from forecaster.models.run_schemas import CalibrationFile, DatasetFile, RunConfigFile, WeightIndexFile
from forecaster.models.tuners import DEFAULT_TUNER, TUNERS
from forecaster.models.tuners.base import Tuner
from forecaster.run_folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CALIBRATION,
    DATASET_FILE,
    LOG_HISTORY,
    MODEL_CONFIG,
    MODEL_INDEX,
    MODEL_WEIGHTS,
    RUN_CONFIG,
    WALK_FILE,
)
from forecaster.schemas import check, read_checked, read_json
from forecaster.tasks.base import Task
from forecaster.tasks.registry import DEFAULT_TASK, TASKS

WAY_OUT = "Take a whole copy, or train again."
_TEMPLATES = ("chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class FinishedRun:
    """An adapter or a fully fine-tuned model, and what its training recorded."""

    folder: Path
    base: registry.BaseModel
    record: Mapping[str, Any]
    """run_config.json: flags, what they resolved to, versions."""
    dataset_record: Mapping[str, Any]

    @property
    def flags(self) -> Mapping[str, Any]:
        flags: Mapping[str, Any] = self.record["flags"]
        return flags

    @property
    def resolved(self) -> Mapping[str, Any]:
        resolved: Mapping[str, Any] = self.record["resolved"]
        return resolved

    @property
    def tuner(self) -> Tuner:
        """The default where an older training did not write it down."""
        return _tuner_of(self.record)

    @property
    def lora_rank(self) -> int | None:
        """None where there are no low-rank factors."""
        return int(self.flags["lora_r"]) if self.tuner.has_lora_rank else None

    @property
    def trained_until(self) -> date | None:
        """Last day of the training weeks; None where an older training did not write it down."""
        day = self.dataset_record.get("trained_until")
        return date.fromisoformat(day) if day else None

    @property
    def task(self) -> Task:
        """What its rows are; the weekly forecast where an older training did not write it down."""
        return TASKS[self.flags.get("task", DEFAULT_TASK)]

    @property
    def log_history(self) -> Path:
        return self.folder / LOG_HISTORY


def holds_adapter(folder: Path) -> bool:
    """Whether a run or checkpoint is an adapter; else it is a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def trained_weights(folder: Path) -> list[Path]:
    """The files with what was trained: the adapter's, or the whole model's; of a run or of a checkpoint."""
    if holds_adapter(folder):
        return [folder / ADAPTER_WEIGHTS]
    if not (folder / MODEL_INDEX).is_file():
        return [folder / MODEL_WEIGHTS]
    index = read_checked(folder / MODEL_INDEX, WeightIndexFile, WAY_OUT)
    return [folder / name for name in sorted(set(index.weight_map.values()))]


def weights_sha256(folder: Path) -> str:
    """Hash of what was trained; of several files, that of their hashes in order of name."""
    digests = [sha256_of(path) for path in trained_weights(folder)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def read_finished(folder: Path, base_model: str | None = None) -> FinishedRun:
    """A run that has ended, with its chat template.

    Args:
        base_model: where the base model lies now, if it was moved; None: where the run found it.

    Raises:
        ConfigurationError: the folder is none, or its base model is not there.
    """
    names = (RUN_CONFIG, DATASET_FILE, LOG_HISTORY)
    missing = [name for name in names if not (folder / name).is_file()]
    missing += _missing_weights(folder)
    if folder.is_dir() and not missing and not _has_template(folder):
        missing = [_TEMPLATES[0]]
    if missing:
        found = f"{folder} lacks {', '.join(missing)}." if folder.is_dir() else f"{folder} is no folder."
        raise ConfigurationError(
            [Problem("--adapter", found, "Give the output folder of a training that has ended.")]
        )
    record, data, history = (read_json(folder / name, WAY_OUT) for name in names)
    config = check(record, RunConfigFile, folder / RUN_CONFIG, WAY_OUT)
    check(data, DatasetFile, folder / DATASET_FILE, WAY_OUT)
    check(history, list[dict[str, Any]], folder / LOG_HISTORY, WAY_OUT)
    base = registry.resolve(base_model or config.resolved.base_model)
    if isinstance(base, Problem):
        way_out = f"{base.way_out} If it was moved, name where it lies now with --base_model."
        raise ConfigurationError([base if base_model else replace(base, way_out=way_out)])
    return FinishedRun(folder, base, record, data)


def newest_of_walk(folder: Path) -> Path:
    """The run that a walk's folder keeps for the coming weeks: of its trainings that have ended, that of the
    last cut with the first seed. Any other folder is itself.

    Raises:
        ConfigurationError: none has ended.
    """
    if not (folder / WALK_FILE).is_file():
        return folder
    ended = [
        (path.parent.parent.name, -int(path.parent.name.partition("_")[2]), path.parent)
        for path in folder.glob(f"????-??-??/seed_*/{LOG_HISTORY}")
        if path.parent.name.partition("_")[2].isdecimal()
    ]
    if not ended:
        found = f"{folder} is a walk of which no training has ended."
        raise ConfigurationError([Problem("--adapter", found, "Go on with walk_forward.py first.")])
    return max(ended)[2]


def check_weights(run: FinishedRun, folder: Path | None = None) -> None:
    """Check what was trained, of a run or of one of its checkpoints, before it is loaded; raises
    ConfigurationError with file and field or tensor."""
    at = folder or run.folder
    run.tuner.check_files(at, trained_weights(at), run.base.shape, run.flags)


def read_calibration(folder: Path, adapter_sha256: str) -> CalibrationFile | None:
    """What was fitted for these weights beside them; None where there is nothing, or it is of others.

    Raises:
        ConfigurationError: it is damaged.
    """
    path = folder / CALIBRATION
    if not path.exists():
        return None
    found = read_checked(path, CalibrationFile, "Delete it: benchmark.py --adapter makes it anew.")
    return found if found.adapter_sha256 == adapter_sha256 else None


def _tuner_of(record: Mapping[str, Any]) -> Tuner:
    """Raises LookupError where the record names none that is known."""
    return TUNERS[record["resolved"].get("tuner", DEFAULT_TUNER)]


def _missing_weights(folder: Path) -> list[str]:
    """Names of files that the folder lacks of an adapter, or of a whole model."""
    try:
        record = read_json(folder / RUN_CONFIG, WAY_OUT)
        holds_model = not _tuner_of(record).saves_adapter
    except (AttributeError, ConfigurationError, LookupError, TypeError):
        holds_model = False  # a damaged record is told by itself
    if not holds_model:
        return [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).is_file()]
    missing = [] if (folder / MODEL_CONFIG).is_file() else [MODEL_CONFIG]
    return missing + [path.name for path in trained_weights(folder) if not path.is_file()]


def _has_template(folder: Path) -> bool:
    """Saved beside the tokenizer, or inside its configuration."""
    if any((folder / name).is_file() for name in _TEMPLATES):
        return True
    try:
        config = read_json(folder / "tokenizer_config.json", WAY_OUT)
    except ConfigurationError:
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))
