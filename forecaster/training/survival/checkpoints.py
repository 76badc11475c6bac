"""Checkpoints are complete or absent.

One is written into a folder of another name; then every file and, last, a manifest with every file's hash is
brought to the disk, and the folder gets its name. Nothing is loaded from a folder that is not as its manifest
says, as shards are found by a pattern of names.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forecaster.errors import ConfigurationError
from forecaster.files import differences, sha256_of, to_disk, write_whole
from forecaster.schemas import read_checked

MANIFEST = "manifest.json"
UNFINISHED_PREFIX = "tmp-checkpoint-"
_PREFIX = "checkpoint-"
_REPLACED, _PRUNED = "replaced", "pruned"


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that cannot be resumed from."""

    folder: Path
    reason: str


def unfinished_folder(output_dir: Path, step: int) -> Path:
    """Where the checkpoint of a step is written, as a folder with its later name inside."""
    return output_dir / f"{UNFINISHED_PREFIX}{step}"


def complete_folder(output_dir: Path, step: int) -> Path:
    return output_dir / f"{_PREFIX}{step}"


def commit(output_dir: Path, step: int) -> Path:
    """Give the checkpoint of a step, which every rank has written, its manifest and its name.

    Returns:
        The folder of the complete checkpoint.

    Raises:
        OSError: the disk is full, or not writable; the checkpoint then stays unfinished.
    """
    folder = complete_folder(output_dir, step)
    written = unfinished_folder(output_dir, step) / folder.name
    for path in _files(written):
        to_disk(path)
    mark_complete(written)
    for path in [*(path for path in written.rglob("*") if path.is_dir()), written]:
        to_disk(path)
    replaced = written.parent / _REPLACED
    if folder.exists():  # a damaged one, whose step was done again
        folder.rename(replaced)
    written.rename(folder)
    to_disk(output_dir)
    shutil.rmtree(written.parent)
    return folder


def prune(output_dir: Path, newest_step: int, limit: int, best_step: int | None = None) -> None:
    """Remove all but the `limit` newest checkpoints up to `newest_step`, and the one of `best_step`."""
    steps = [step for folder in folders(output_dir) if (step := step_of(folder)) <= newest_step]
    for step in steps[:-limit]:
        if step != best_step:
            # Renamed first: a kill while files go leaves no checkpoint that lacks some.
            doomed = unfinished_folder(output_dir, step)
            doomed.mkdir(exist_ok=True)
            complete_folder(output_dir, step).rename(doomed / _PRUNED)
            shutil.rmtree(doomed)


def remove_unfinished(output_dir: Path) -> list[Path]:
    """Remove what a kill in the middle of a save left; call it while no rank saves.

    Returns:
        The folders removed.
    """
    found = sorted(path for path in output_dir.glob(f"{UNFINISHED_PREFIX}*") if path.is_dir())
    for folder in found:
        shutil.rmtree(folder)
    return found


def mark_complete(folder: Path) -> None:
    """Write the manifest of a finished checkpoint, atomically; call it when every rank has saved."""
    manifest = {str(path.relative_to(folder)): sha256_of(path) for path in _files(folder)}
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True))


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None when every file is as its manifest says."""
    try:
        if not (folder / MANIFEST).exists():
            return "it has no manifest: it was not finished"
        manifest = read_checked(folder / MANIFEST, dict[str, str], "")
    except ConfigurationError:
        return "its manifest is damaged"
    if not manifest:
        return "its manifest is damaged"
    if elsewhere := next(
        (name for name in manifest if name.startswith("/") or ".." in name.split("/")), None
    ):
        return f"its manifest names {elsewhere}"
    # DeepSpeed loads shards by a pattern of names: one that was put there later would be loaded too.
    foreign = next(
        (name for path in _files(folder) if (name := _name_in(folder, path)) not in manifest), None
    )
    if foreign:
        return f"{foreign} is not in its manifest"
    return next((f"{name} {what}" for name, what in differences(folder, manifest)), None)


def newest_complete(output_dir: Path) -> tuple[Path | None, list[Skipped]]:
    """The newest complete checkpoint of a run, and the newer ones that were passed over."""
    skipped: list[Skipped] = []
    for folder in reversed(folders(output_dir)):
        reason = fault(folder)
        if reason is None:
            return folder, skipped
        skipped.append(Skipped(folder, reason))
    return None, skipped


def complete(output_dir: Path) -> dict[int, Path]:
    """Every complete checkpoint of a run by its step, oldest first."""
    return {step_of(folder): folder for folder in folders(output_dir) if fault(folder) is None}


def step_of(folder: Path) -> int:
    """Optimizer steps done at a checkpoint."""
    return int(folder.name.removeprefix(_PREFIX))


def ranks_of(folder: Path) -> int:
    """Ranks that saved a checkpoint: each leaves the state of its random numbers."""
    return max(len(list(folder.glob("rng_state_*.pth"))), 1)


def best_step(log_history: Iterable[Mapping[str, Any]]) -> int | None:
    """The step with the lowest evaluation loss, the earliest of equals; None without any."""
    losses = [(entry["eval_loss"], entry["step"]) for entry in log_history if "eval_loss" in entry]
    return int(min(losses)[1]) if losses else None


def size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def folders(output_dir: Path) -> list[Path]:
    """Folders that are named like checkpoints, complete or not, oldest first."""
    found = (
        path
        for path in output_dir.glob(f"{_PREFIX}*")
        if path.is_dir() and path.name.removeprefix(_PREFIX).isdecimal()
    )
    return sorted(found, key=step_of)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name.lstrip(".") != MANIFEST)


def _name_in(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder))
