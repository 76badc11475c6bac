"""A folder that a command writes into is claimed, and not only looked for: two commands that start in the
same second never write into one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import filelock

from forecaster.errors import ConfigurationError, Problem
from forecaster.files import write_whole
from forecaster.settings import redact

LOCK_FILE = ".lock"
MADE_OF_FILE = ".made_of"
WRITING_S = 120.0
"""Longer than a report, or any other folder that is made in one go, takes to write."""


class InUseError(ConfigurationError):
    """A folder that another process holds."""


@contextmanager
def held(
    folder: Path, lock_file: str, where: str, *, other: str = "another process", wait_s: float = 0.0
) -> Iterator[None]:
    """Hold a folder, which is made where there is none, for this process alone.

    Args:
        where: the flag that names the folder.
        other: what a holder is called of which nothing is known, as it just starts or ends.
        wait_s: how long another holder is waited for.

    Raises:
        InUseError: another process holds it, which is named.
        OSError: it cannot be written.
    """
    holder_file = folder / f"{lock_file}.json"
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / lock_file)
    try:
        lock.acquire(timeout=wait_s)
    except filelock.Timeout:
        raise InUseError([_in_use(folder, holder_file, where, other)]) from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"process": os.getpid(), "command": redact(" ".join(sys.argv)), "since": since}
        holder_file.write_text(json.dumps(holder), encoding="utf-8")
        yield
    finally:
        holder_file.unlink(missing_ok=True)
        # Who waits finds the file gone under its lock, and takes a new one.
        (folder / lock_file).unlink(missing_ok=True)
        lock.release()


def find_holder(folder: Path, lock_file: str, where: str) -> Problem | None:
    """Another process that holds a folder now; nothing is made or kept."""
    path = folder / lock_file
    if not path.is_file():
        return None
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return _in_use(folder, folder / f"{lock_file}.json", where, "another process")
    except OSError:  # who may not write there is told so elsewhere
        return None
    lock.release()
    return None


def _in_use(folder: Path, holder_file: Path, where: str, other: str) -> Problem:
    who = other
    try:
        holder = json.loads(holder_file.read_text(encoding="utf-8"))
        who = f"process {holder['process']} since {holder['since']} ({holder['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Problem(where, f"{folder} is in use by {who}.", "Wait for it, or stop it.")


def new_folder(path: Path) -> Path:
    """Make a folder that was not there before: `path`, or `NAME_2` and so on where others were faster."""
    for candidate in _neighbours(path, "_"):
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("there is always another number")


@contextmanager
def own_folder(folder: Path, made_of: str) -> Iterator[Path]:
    """Hold the folder for a result that is written in one go, under its own name or `NAME-2` and so on.

    The next name is taken where another process writes, or where the result of something else lies. What is
    made once more of the same thing takes the place of the former result.

    Args:
        made_of: what tells one result from another, such as the dataset's path.
    """
    for candidate in _neighbours(folder, "-"):
        with ExitStack() as claim:
            try:
                claim.enter_context(held(candidate, LOCK_FILE, "--output_dir"))
            except InUseError:
                continue
            record = candidate / MADE_OF_FILE
            if not record.is_file() or record.read_text(encoding="utf-8") == made_of:
                write_whole(record, made_of)
                yield candidate
                return


def _neighbours(path: Path, sign: str) -> Iterator[Path]:
    yield path
    for number in count(2):
        yield path.with_name(f"{path.name}{sign}{number}")
