"""When a rank has to leave: it was signalled, its launcher is gone, or another rank died.

A thread looks after this, because the main thread may be waiting in a collective operation, where Python runs
no signal handler.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from enum import Enum
from types import FrameType
from typing import NoReturn

import psutil

from forecaster.errors import SAVED_UNFINISHED
from forecaster.processes import (
    ORPHAN_GRACE_S,
    STOP_SIGNALS,
    command_line,
    is_alive,
    parent_of,
    siblings_with_rank,
)
from forecaster.progress import say

_POLL_S = 0.5
_UNWINDING_S = 5.0
"""Time to leave through Python's own way out before the process is ended."""


class _Phase(Enum):
    OUTSIDE_STEPS = "nothing to save: loading, or the last checkpoint holds everything"
    STEPS = "between the first and the last step: the ranks agree on a step and save"
    LEAVING = "saved or failed, on the way out"


class StopWatch:
    """Knows whether this rank has to leave, and makes sure that it does."""

    def __init__(self, grace_s: float, launched: bool, supervisor_pid: int | None, is_main: bool) -> None:
        """
        Args:
            grace_s: time to save and leave after a signal.
            launched: whether a launcher started this process, which then is not to outlive it.
            supervisor_pid: the process behind train.sh, where there is one.
            is_main: whether this is rank 0, which speaks for all.
        """
        self.reason: str | None = None
        """Why to stop, for example `SIGTERM`; None: go on."""
        self._phase = _Phase.OUTSIDE_STEPS
        self._status = SAVED_UNFINISHED
        self._grace_s, self._is_main = grace_s, is_main
        self._deadline_s = float("inf")
        self._watched = find_launchers(supervisor_pid) if launched else {}
        self._others: list[psutil.Process] = []
        self._woken, self._waker = socket.socketpair()

    def start(self) -> None:
        """Take over the stop signals of this process; call it in the main thread."""
        self._waker.setblocking(False)
        for each in STOP_SIGNALS:
            signal.signal(each, self._on_signal)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_as_before)
        threading.Thread(target=self._look_after, name="stop watch", daemon=True).start()

    def enter_steps(self) -> None:
        """From here on the trainer asks for `reason` after every step. All ranks are there."""
        self._others = siblings_with_rank()
        self._phase = _Phase.STEPS
        if self.reason:  # it came in before: nothing is lost
            raise SystemExit(SAVED_UNFINISHED)

    def leave_steps(self) -> None:
        """The last checkpoint is complete."""
        self._phase = _Phase.OUTSIDE_STEPS
        if self.reason:
            raise SystemExit(SAVED_UNFINISHED)

    def leave(self, status: int) -> None:
        """Everything is done: this process ends with `status`, if need be by force."""
        self._phase, self._status = _Phase.LEAVING, status
        self._deadline_s = min(self._deadline_s, time.monotonic() + ORPHAN_GRACE_S)

    @property
    def is_between_steps(self) -> bool:
        return self._phase is _Phase.STEPS

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        if self._phase is _Phase.OUTSIDE_STEPS:
            # Through `finally` blocks: torch's build lock would otherwise stay, and stop the next start.
            raise SystemExit(SAVED_UNFINISHED)

    def _ask(self, reason: str, grace_s: float) -> None:
        if self.reason is None:
            self.reason = reason
            self._deadline_s = min(self._deadline_s, time.monotonic() + grace_s)
            if self._phase is _Phase.OUTSIDE_STEPS:
                self._deadline_s = time.monotonic() + _UNWINDING_S
                self._say(f"{reason} came outside of the steps: nothing is to save.")

    def _look_after(self) -> None:
        while True:
            if select.select([self._woken], [], [], _POLL_S)[0]:
                for number in self._woken.recv(64):
                    if number in STOP_SIGNALS:
                        self._ask(signal.Signals(number).name, self._grace_s)
            if self.reason is None and (lost := self._lost_launcher()):
                self._ask(f"the end of {lost}", ORPHAN_GRACE_S)
                if self._phase is _Phase.OUTSIDE_STEPS:
                    os.kill(os.getpid(), signal.SIGTERM)  # wakes the main thread
            # DeepSpeed tells the others of a rank's death by SIGTERM; they may wait for it without end.
            if self.reason and self._phase is _Phase.STEPS and not all(map(is_alive, self._others)):
                say("This rank leaves, because another one died; what it said is above.", sys.stderr)
                _end(1)
            if time.monotonic() > self._deadline_s:
                if self._phase is _Phase.STEPS:
                    self._say("The time was too short to save; the checkpoints before this one are complete.")
                _end(self._status)

    def _lost_launcher(self) -> str | None:
        return next((name for process, name in self._watched.items() if not is_alive(process)), None)

    def _say(self, text: str) -> None:
        if self._is_main:
            say(f"\n{text}", sys.stderr)


def find_launchers(supervisor_pid: int | None) -> dict[psutil.Process, str]:
    """The processes that a rank is not to outlive, and what they are called.

    `deepspeed` starts its `launch.py`, which starts the ranks; killed, it leaves both behind. What started
    `deepspeed` is watched only where that was train.sh: a shell may go.
    """
    found = {}
    launcher = parent_of(psutil.Process())
    if launcher and launcher.pid > 1:
        found[launcher] = "the launcher"
        runner = parent_of(launcher)
        if runner and all("deepspeed" in command_line(process) for process in (launcher, runner)):
            found[runner] = "deepspeed"
    if supervisor_pid:
        with contextlib.suppress(psutil.Error):
            found[psutil.Process(supervisor_pid)] = "train.sh"
    # Some machines hide the processes of other users: those cannot be watched.
    return {process: name for process, name in found.items() if is_alive(process)}


def _as_before() -> None:
    """A forked child (a data loading process) is not to wake its parent, and dies when it is told to."""
    signal.set_wakeup_fd(-1)
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_DFL)


def ignore_stop_signals(then: Callable[[int], None] | None, worker: int) -> None:
    """For a data loading process, once torch has put its own handlers there: DeepSpeed's launcher tells every
    process below it to stop, and a rank whose data are gone cannot save. It ends with its rank."""
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    if then is not None:
        then(worker)


def _end(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)
