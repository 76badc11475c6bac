"""Which checkpoints are complete: a manifest with the hash of every file, written last, says so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from forecaster.hashes import differences, sha256_of

MANIFEST = "manifest.json"
_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that cannot be resumed from."""

    folder: Path
    reason: str


def mark_complete(folder: Path) -> None:
    """Write the manifest of a finished checkpoint, atomically; call it when every rank has saved."""
    manifest = {str(path.relative_to(folder)): sha256_of(path) for path in _files(folder)}
    temporary = folder / f".{MANIFEST}"
    temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True))
    temporary.replace(folder / MANIFEST)


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None when every file is as its manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return "it has no manifest: it was not finished"
    except (NotADirectoryError, ValueError):
        return "its manifest is damaged"
    if not isinstance(manifest, dict) or not manifest:
        return "its manifest is damaged"
    return next((f"{name} {what}" for name, what in differences(folder, manifest)), None)


def newest_complete(output_dir: Path) -> tuple[Path | None, list[Skipped]]:
    """The newest complete checkpoint of a run, and the newer ones that were passed over."""
    skipped: list[Skipped] = []
    for folder in reversed(_folders(output_dir)):
        reason = fault(folder)
        if reason is None:
            return folder, skipped
        skipped.append(Skipped(folder, reason))
    return None, skipped


def complete(output_dir: Path) -> dict[int, Path]:
    """Every complete checkpoint of a run by its step, oldest first."""
    return {step_of(folder): folder for folder in _folders(output_dir) if fault(folder) is None}


def step_of(folder: Path) -> int:
    """Optimizer steps done at a checkpoint."""
    return int(folder.name.removeprefix(_PREFIX))


def _folders(output_dir: Path) -> list[Path]:
    """Folders that are named like checkpoints, oldest first."""
    found = (
        path
        for path in output_dir.glob(f"{_PREFIX}*")
        if path.is_dir() and path.name.removeprefix(_PREFIX).isdecimal()
    )
    return sorted(found, key=step_of)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name.lstrip(".") != MANIFEST)
