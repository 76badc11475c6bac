"""The data folder: one process at a time holds it, and its ledger lies there."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import filelock

from forecaster.calls import Request
from forecaster.data import answer_checks
from forecaster.data.ledger import Ledger
from forecaster.errors import ConfigurationError, Problem
from forecaster.settings import redact

LEDGER_FILE = "ledger.sqlite"
LOCK_FILE = "pipeline.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the data folder for this process alone; raises ConfigurationError that names another holder."""
    holder_file = folder / f"{LOCK_FILE}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ConfigurationError([_held(folder, holder_file)]) from None
    except OSError as error:
        found = f"{folder} cannot be written ({error.strerror})."
        raise ConfigurationError([Problem("--data_folder", found, "Name another folder.")]) from error
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"process": os.getpid(), "command": redact(" ".join(sys.argv)), "since": since}
        holder_file.write_text(json.dumps(holder), encoding="utf-8")
        yield
    finally:
        holder_file.unlink(missing_ok=True)
        lock.release()


def _held(folder: Path, holder_file: Path) -> Problem:
    try:
        holder = json.loads(holder_file.read_text(encoding="utf-8"))
        who = f"process {holder['process']} since {holder['since']} ({holder['command']})"
    except (OSError, ValueError, KeyError):  # it has just started, or is just ending
        who = "another process"
    return Problem(
        "--data_folder",
        f"{folder} is in use by {who}.",
        "Wait for it, stop it, or use another --data_folder.",
    )


def open_ledger(folder: Path, tell: Callable[[str], None] = lambda line: None) -> Ledger:
    """The ledger of a data folder.

    Args:
        tell: hears of what it holds and cannot be used.

    Raises:
        ConfigurationError: a file that is none.
    """
    path = folder / LEDGER_FILE

    def on_unusable(request: Request, fault: str) -> None:
        days = " to ".join(day for day in (request.window_start, request.window_end) if day)
        what = " ".join(filter(None, (request.symbol, request.endpoint, days)))
        tell(redact(f"{path}: the answer about {what} cannot be used ({fault}); it is asked for anew."))

    try:
        return Ledger(path, answer_checks.fault_of, on_unusable)
    except sqlite3.DatabaseError as error:
        way_out = "Move it away, or use another --data_folder."
        raise ConfigurationError(
            [Problem(str(path), f"cannot be used as a ledger ({error}).", way_out)]
        ) from error
