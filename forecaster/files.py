"""Files that are whole or absent, and what has become of them since they were written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forecaster.errors import ConfigurationError, Problem

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_HELP = "Run `git lfs pull` there, or download the files themselves."


def write_whole(path: Path, text: str, errors: str = "strict") -> None:
    """Write a file so that it is either the former or the new one at any moment.

    What a kill leaves is called `.NAME`, and the next write takes its place.

    Args:
        errors: as for `str.encode`; `surrogatepass` for what a user may have given.
    """
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)  # a link of that name would lead the text elsewhere
    temporary.write_text(text, encoding="utf-8", errors=errors)
    to_disk(temporary)  # without this, a loss of power may leave the new name with nothing in it
    temporary.replace(path)


def write_json(path: Path, content: Any) -> None:
    """`write_whole` of JSON in sorted order; what JSON does not know is written as its text."""
    write_whole(path, json.dumps(content, indent=1, sort_keys=True, default=str) + "\n")


def links_in(folder: Path) -> list[Path]:
    """Links below a folder: who writes there would write elsewhere. W&B's folder keeps its own."""
    links: list[Path] = []
    for parent, folders, names in os.walk(folder):
        links += [path for name in (*folders, *names) if (path := Path(parent, name)).is_symlink()]
        folders[:] = [name for name in folders if name != "wandb"]
    return sorted(links)


def leads_elsewhere(link: Path) -> str:
    """What is wrong with a link that would be written through."""
    return f"is a link to {link.resolve()}: what is written there would go elsewhere."


def to_disk(path: Path) -> None:
    """Have a file's content, or a folder's names, written through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is only a pointer of Git LFS to its content, as a clone without `git lfs` leaves it."""
    with path.open("rb") as file:
        return begins_as_lfs_pointer(file.read(len(_LFS_POINTER)))


def refuse_pointer(path: Path, where: str = "") -> None:
    """Raises ConfigurationError for a file of the user's that is only a pointer of Git LFS to its content.

    Args:
        where: what the message calls it; empty: its path.
    """
    if path.is_file() and is_lfs_pointer(path):
        raise pointer_refused(where or str(path))


def pointer_refused(where: str) -> ConfigurationError:
    return ConfigurationError([Problem(where, "is a pointer of Git LFS, not the file itself.", LFS_HELP)])


def begins_as_lfs_pointer(content: bytes) -> bool:
    return content.startswith(_LFS_POINTER)


def cache_problem(folder: Path, variable: str) -> Problem | None:
    """A cache that cannot be written, and the variable that puts it elsewhere."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if existing.is_dir() and os.access(existing, os.W_OK):
        return None
    found = f"{folder} cannot be written."
    return Problem(variable, found, f"Set {variable} to a folder on a disk that can be written.")


def differences(folder: Path, digests: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Files that are not as recorded, in the record's order, and what is wrong with each.

    Args:
        digests: sha256 by path within the folder.
    """
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            yield name, "is missing"
        elif sha256_of(path) != digest:
            yield name, "has changed since it was saved"
