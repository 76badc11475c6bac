"""The data folder: one process at a time holds it, and its ledger lies there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from forecaster.calls import Request
from forecaster.claims import held
from forecaster.data import answer_checks
from forecaster.data.ledger import Ledger
from forecaster.errors import ConfigurationError, Problem
from forecaster.files import refuse_pointer
from forecaster.settings import redact
from forecaster.vendors.own_files import NEWS_FILE, PRICE_FILE

LEDGER_FILE = "ledger.sqlite"
LOCK_FILE = "pipeline.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the data folder for this process alone; raises ConfigurationError that names another holder."""
    with ExitStack() as claim:
        try:
            claim.enter_context(held(folder, LOCK_FILE, "--data_folder"))
        except OSError as error:
            found = f"{folder} cannot be written ({error.strerror})."
            raise ConfigurationError([Problem("--data_folder", found, "Name another folder.")]) from error
        yield


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
        is_file = request.endpoint in (NEWS_FILE, PRICE_FILE)
        way_on = "run the command again to have the file read anew" if is_file else "it is asked for anew"
        tell(redact(f"{path}: the answer about {what} cannot be used ({fault}); {way_on}."))

    refuse_pointer(path)
    if path.is_file() and not path.stat().st_size:
        tell(f"{path} is empty: if it ever held answers, they are lost, and are asked for anew.")
    try:
        return Ledger(path, answer_checks.fault_of, on_unusable)
    except sqlite3.DatabaseError as error:
        way_out = "Move it away, or use another --data_folder."
        raise ConfigurationError(
            [Problem(str(path), f"cannot be used as a ledger ({error}).", way_out)]
        ) from error
