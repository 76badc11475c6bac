"""What a folder held when it was finished, and what has become of it since."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Hex digest of a file, read in pieces; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
