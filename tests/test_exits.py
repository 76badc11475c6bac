"""One ladder from what went wrong to a message and an exit status."""

from __future__ import annotations

import errno
import os
import sqlite3

import pytest

from forecaster.errors import (
    AdapterNotTrainedError,
    ConfigurationError,
    KeyRefusedError,
    Problem,
    RunOutOfMemoryError,
    TrainingFailedError,
    TrainingStoppedError,
    VendorError,
)
from forecaster.exits import WaysOn, run_entry
from forecaster.settings import Settings

WAYS_ON = WaysOn(vendor="It goes on later.", disk="Mend this.", interrupted="Stopped.")
NOT_TRAINED = (
    "What was saved in run is not usable: lora_B is empty. Check that the loss fell, and that every rank "
    "took part in saving (ZeRO-3 gathers the weights on save)."
)


def status_of(error: BaseException, ways_on: WaysOn = WAYS_ON) -> int:
    def work(settings: Settings) -> int:
        raise error

    return run_entry("program.py", ways_on, work)


@pytest.mark.parametrize(
    ("error", "status", "out", "err"),
    [
        (
            ConfigurationError([Problem("--a", "is 0.", "Use 1."), Problem("--b", "is 2.", "Use 3.")]),
            *(2, "", "\nprogram.py cannot start, 2 to mend:\n  - --a: is 0. Use 1.\n  - --b: is 2. Use 3.\n"),
        ),
        (TrainingStoppedError("Saved step 4."), 75, "\nSaved step 4. --resume goes on.\n", ""),
        (TrainingFailedError("The loss is NaN."), 70, "", "\nThe loss is NaN.\n"),
        (RunOutOfMemoryError("No memory."), 70, "", "\nNo memory.\n"),
        (AdapterNotTrainedError("run", "lora_B", "is empty"), 70, "", f"\n{NOT_TRAINED}\n"),
        (
            KeyRefusedError("Finnhub", "the key was refused."),
            *(2, "", "\nFinnhub: the key was refused.\nMend the key; the same command then goes on.\n"),
        ),
        (VendorError("Yahoo", "is down."), 1, "", "\nYahoo: is down.\nIt goes on later.\n"),
        (OSError("No space left"), 1, "", "\nNo space left\nMend this.\n"),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "a" * 5000),
            *(2, ""),
            f"\nprogram.py cannot start, 1 to mend:\n  - a path: {'a' * 60}... is too long for a path (5,000 "
            "characters). Most disks take 255 bytes for a name and 4,096 for a path: shorten it.\n",
        ),
        *(
            (
                OSError(number, "whatever", "a.csv"),
                *(2, ""),
                "\nprogram.py cannot start, 1 to mend:\n  - a path: a.csv is a file, or lies below one, "
                "where a folder has to be. Name another folder, or move the file away.\n",
            )
            for number in (errno.EEXIST, errno.ENOTDIR)
        ),
        (sqlite3.OperationalError("disk is full"), 1, "", "\ndisk is full\nMend this.\n"),
        (KeyboardInterrupt(), 130, "", "\nStopped.\n"),
    ],
)
def test_each_fault_has_its_status_and_its_sentence(
    error: BaseException, status: int, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(error) == status
    assert tuple(capsys.readouterr()) == (out, err)


def test_the_other_ranks_are_silent_unless_memory_ran_out_on_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert status_of(ConfigurationError([Problem("--a", "is 0.", "Use 1.")])) == 2
    assert status_of(TrainingFailedError("The loss is NaN.")) == 70
    assert status_of(TrainingStoppedError("Saved.")) == 75
    assert tuple(capsys.readouterr()) == ("", "")
    assert status_of(RunOutOfMemoryError("No memory.")) == 70
    assert capsys.readouterr().err == "\nNo memory.\n"


def test_a_fault_that_a_program_knows_no_way_on_from_is_not_hidden() -> None:
    with pytest.raises(OSError, match="lost"):
        status_of(OSError("lost"), WaysOn())


def test_no_key_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FINNHUB_API_KEY", "canary-canary")
    assert status_of(VendorError("Finnhub", "answered token=canary-canary.")) == 1
    assert capsys.readouterr().err == "\nFinnhub: answered token=<FINNHUB_API_KEY>.\nIt goes on later.\n"


def test_a_notebooks_backend_does_not_reach_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://not_installed.backend_inline")
    assert run_entry("program.py", WAYS_ON, lambda settings: 0) == 0
    assert os.environ["MPLBACKEND"] == "Agg"
