"""From what went wrong to a message and an exit status: one ladder for all entry points."""

from __future__ import annotations

import errno
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass

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
from forecaster.http_limits import limit_hub
from forecaster.progress import say
from forecaster.settings import Settings, calm_openmp, draw_without_screen, load_settings, redact

INTERRUPTED = 130
"""Exit status of what Ctrl-C ended: 128 and the signal's number."""


@dataclass(frozen=True)
class WaysOn:
    """What a program says of going on, below what went wrong; None: the fault is not one that it knows."""

    vendor: str | None = None
    disk: str | None = None
    interrupted: str | None = None


def run_entry(program: str, ways_on: WaysOn, work: Callable[[Settings], int]) -> int:
    """Run an entry point's work.

    Args:
        program: what it is called in messages.
        work: returns the exit status where nothing goes wrong.

    Returns:
        0 done; 1 a vendor or the disk failed; 2 something has to be mended first; 70 it would fail again as
        it is; 75 stopped, and can go on; 130 interrupted.
    """
    is_main, settings = True, Settings()
    try:
        settings = load_settings()
        calm_openmp()
        draw_without_screen()
        limit_hub()
        is_main = settings.rank == 0
        return work(settings)
    except ConfigurationError as error:
        of_this_rank = {settings.launch_problem, *settings.variable_problems}
        speaks = is_main or not of_this_rank.isdisjoint(error.problems)  # then nobody else does
        return report_problems(program, error) if speaks else error.exit_status
    except TrainingStoppedError as error:
        if is_main:
            say(f"\n{error} --resume goes on.")
        return error.exit_status
    except (AdapterNotTrainedError, TrainingFailedError, RunOutOfMemoryError) as error:
        # Memory runs out on one rank, which may be any of them.
        if is_main or isinstance(error, RunOutOfMemoryError):
            say(f"\n{error}", sys.stderr)
        return error.exit_status
    except KeyRefusedError as error:
        return _told(error, error.exit_status, "Mend the key; the same command then goes on.")
    except VendorError as error:
        return _told(error, error.exit_status, ways_on.vendor)
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return report_problems(program, ConfigurationError([_name_too_long(error)]))
        if isinstance(error, FileExistsError | NotADirectoryError):
            return report_problems(program, ConfigurationError([_no_folder(error)]))
        return _told(error, 1, ways_on.disk)
    except KeyboardInterrupt:
        if ways_on.interrupted:
            print(f"\n{ways_on.interrupted}", file=sys.stderr)
        return INTERRUPTED


def report_problems(program: str, error: ConfigurationError) -> int:
    """Print every problem, without secrets; returns the exit status."""
    print(f"\n{program} cannot start, {len(error.problems)} to mend:", file=sys.stderr)
    for problem in error.problems:
        print(redact(f"  - {problem}"), file=sys.stderr)
    return error.exit_status


def _name_too_long(error: OSError) -> Problem:
    """A path that no disk takes, as any flag or record may hold one."""
    name = str(error.filename)
    found = f"{name[:60]}... is too long for a path ({len(name):,} characters)."
    return Problem("a path", found, "Most disks take 255 bytes for a name and 4,096 for a path: shorten it.")


def _no_folder(error: OSError) -> Problem:
    """A file where a folder was to be made or written into, as any flag may name one."""
    found = f"{error.filename} is a file, or lies below one, where a folder has to be."
    return Problem("a path", found, "Name another folder, or move the file away.")


def _told(error: Exception, status: int, way_on: str | None) -> int:
    """Tell a fault and the way on; raises it again where a program knows none."""
    if way_on is None:
        raise error
    print(redact(f"\n{error}\n{way_on}"), file=sys.stderr)
    return status
