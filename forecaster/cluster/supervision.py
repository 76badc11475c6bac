"""Starting `deepspeed` so that nothing it starts is lost: signals reach the ranks, and nobody stays behind.

DeepSpeed's launcher does not pass signals on (DeepSpeed#4098). Everything that one start brings to life
carries a word in its environment, by which it is found again, whoever its parent is by then.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Self

import psutil

from forecaster.processes import (
    ORPHAN_GRACE_S,
    STOP_SIGNALS,
    kill_all,
    open_files,
    rank_processes,
    send_signal,
)
from forecaster.settings import JOB

_POLL_S = 0.2


class StopSignals:
    """Notes the first stop signal instead of dying of it, while the context lasts."""

    def __init__(self, parent_pid: int | None = None) -> None:
        """
        Args:
            parent_pid: the process that started this one and that it is not to outlive: its end counts as
                SIGTERM. None: it may go.
        """
        self.received: signal.Signals | None = None
        self._parent_pid = parent_pid
        self._former: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for each in STOP_SIGNALS:
            self._former[each] = signal.signal(each, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for each, former in self._former.items():
            signal.signal(each, former)  # type: ignore[arg-type]

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than until a signal comes."""
        end_s = time.monotonic() + seconds
        while self.received is None and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _POLL_S))
            if self._parent_pid not in (None, os.getppid()):
                self.received = signal.SIGTERM

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)


def supervise(command: Sequence[str], env: Mapping[str, str], signals: StopSignals, grace_s: float) -> int:
    """Run a command in a session of its own, and end with no process of it left.

    A stop signal is passed on to the ranks (or to the command, where it has none), which have `grace_s` to
    save and leave. When the command itself is gone, they have `ORPHAN_GRACE_S`.

    Returns:
        The command's exit status, 128 + n when signal n ended it.
    """
    job = f"{os.getpid()}-{secrets.token_hex(8)}"
    child = subprocess.Popen(command, env={**env, JOB: job}, start_new_session=True)
    told: set[psutil.Process] = set()
    is_child_told = False
    deadline_s: float | None = None
    while child.poll() is None and (deadline_s is None or time.monotonic() < deadline_s):
        signals.wait(_POLL_S)
        if signals.received:
            deadline_s = deadline_s or time.monotonic() + grace_s
            told |= tell_ranks(job, told)
            if not told and not is_child_told:  # nothing is worth saving yet
                child.terminate()
                is_child_told = True
            time.sleep(_POLL_S)
    if child.poll() is not None:
        _wait_for_ranks(job, told)
    kill_all(job)
    status = child.wait()
    return status if status >= 0 else 128 - status


def tell_ranks(job: str, told: set[psutil.Process]) -> set[psutil.Process]:
    """Send SIGTERM to the ranks of a job that were not told before; returns all of its ranks."""
    ranks = rank_processes(job)
    for rank in ranks - told:
        send_signal(rank, signal.SIGTERM)
    return ranks


def remove_dead_build_locks(folder: Path) -> list[Path]:
    """Remove the locks of torch's extension builds that no process of this machine holds.

    A build that was killed leaves its lock behind, and the next start would wait for it without end.
    """
    locks = [*folder.glob("*/lock"), *folder.glob("*/*/lock")]
    if not locks:
        return []
    held = {path for pid in psutil.pids() for path in open_files(pid)}
    dead = [lock for lock in locks if str(lock.resolve()) not in held]
    for lock in dead:
        with contextlib.suppress(OSError):  # another user's
            lock.unlink()
    return [lock for lock in dead if not lock.exists()]


def _wait_for_ranks(job: str, told: set[psutil.Process]) -> None:
    """Ranks whose launcher died may be saving still; those that were not told are told now."""
    end_s = time.monotonic() + ORPHAN_GRACE_S
    while (ranks := tell_ranks(job, told)) and time.monotonic() < end_s:
        told |= ranks
        time.sleep(_POLL_S)
