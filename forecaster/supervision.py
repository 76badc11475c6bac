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
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Self, TextIO

JOB = "FORECASTER_JOB"
"""The word's name; its value begins with the process id of the supervisor, which the ranks watch."""
SAVED_UNFINISHED = 75
"""Exit status of a training that was stopped and can go on: EX_TEMPFAIL of sysexits.h."""
WOULD_FAIL_AGAIN = 70
"""Exit status of a training that started again as it is would fail again: EX_SOFTWARE of sysexits.h."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ORPHAN_GRACE_S = 25.0
"""Time for ranks whose launcher is gone: DeepSpeed's, when it is signalled, kills them after 30 s."""
SHARED_BUFFERS = Path("/dev/shm/deepspeed_allreduce_buffer")
"""How the names of DeepSpeed's buffers on CPU begin; user, address, port and rank follow."""
_POLL_S = 0.2
_PROC = Path("/proc")


def say(text: str, stream: TextIO | None = None) -> None:
    """Print, and go on where nobody reads any more: Ctrl-C also ends the `tee` behind a pipe, and a terminal
    that is gone gives errors."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # Python would write what is left when it ends, fail again, and change the exit status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class StopSignals:
    """Notes the first stop signal instead of dying of it, while the context lasts."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
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
    told: set[int] = set()
    deadline_s: float | None = None
    while child.poll() is None and (deadline_s is None or time.monotonic() < deadline_s):
        signals.wait(_POLL_S)
        if signals.received:
            deadline_s = deadline_s or time.monotonic() + grace_s
            ranks = tell_ranks(job, told)
            if not ranks and not told:  # nothing is worth saving yet
                _send(child.pid, signal.SIGTERM)
            told |= ranks | {child.pid}
            time.sleep(_POLL_S)
    if child.poll() is not None:
        _wait_for_ranks(job, told)
    kill_all(job)
    status = child.wait()
    return status if status >= 0 else 128 - status


def tell_ranks(job: str, told: set[int]) -> set[int]:
    """Send SIGTERM to the ranks of a job that were not told before; returns all of its ranks."""
    ranks = set(rank_processes(job))
    for pid in ranks - told:
        _send(pid, signal.SIGTERM)
    return ranks


def rank_processes(job: str) -> list[int]:
    """The processes that a launcher gave a rank, without their own children, which inherit it."""
    ranks = {pid for pid, names in _members(job).items() if b"RANK" in names}
    return sorted(pid for pid in ranks if parent_of(pid) not in ranks)


def processes(job: str) -> list[int]:
    """Every process of a job."""
    return sorted(_members(job))


def kill_all(job: str) -> None:
    """Kill every process of a job, and those that they start meanwhile."""
    end_s = time.monotonic() + 10.0  # a process in a hung driver call cannot be killed
    while (left := processes(job)) and time.monotonic() < end_s:
        for pid in left:
            _send(pid, signal.SIGKILL)
        time.sleep(0.05)


def parent_of(pid: int) -> int | None:
    """The parent of a process; None when it is gone, or has ended and waits to be collected."""
    try:
        # The name, in brackets, may hold anything.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[1])


def is_alive(pid: int) -> bool:
    return parent_of(pid) is not None


def command_line(pid: int) -> str:
    """What a process was started as; empty when it is gone."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def siblings_with_rank() -> list[int]:
    """The other ranks that this process's launcher started on this machine."""
    launcher = os.getppid()
    found = [pid for pid in _pids() if pid != os.getpid() and parent_of(pid) == launcher]
    return [pid for pid in found if b"RANK" in _environment_names(pid)]


def remove_dead_build_locks(folder: Path) -> list[Path]:
    """Remove the locks of torch's extension builds that no process of this machine holds.

    A build that was killed leaves its lock behind, and the next start would wait for it without end.
    """
    locks = [*folder.glob("*/lock"), *folder.glob("*/*/lock")]
    if not locks:
        return []
    held = {_link_target(link) for pid in _pids() for link in _open_files(pid)}
    dead = [lock for lock in locks if str(lock.resolve()) not in held]
    for lock in dead:
        with contextlib.suppress(OSError):  # another user's
            lock.unlink()
    return [lock for lock in dead if not lock.exists()]


def unlink_shared_buffers() -> None:
    """Take away the names of the buffers through which this machine's ranks reduce on CPU.

    DeepSpeed 0.19.8 never does: each rank would leave 69 MB of memory behind, and a later run on the same
    port could read them. Memory that is open stays until the last rank is gone, however it ends.
    """
    for link in _open_files(os.getpid()):
        target = _link_target(link)
        if target.startswith(str(SHARED_BUFFERS)):
            Path(target).unlink(missing_ok=True)


def _open_files(pid: int) -> list[Path]:
    try:
        return list((_PROC / str(pid) / "fd").iterdir())
    except OSError:  # gone, or another user's
        return []


def _link_target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _wait_for_ranks(job: str, told: set[int]) -> None:
    """Ranks whose launcher died may be saving still; those that were not told are told now."""
    end_s = time.monotonic() + ORPHAN_GRACE_S
    while (ranks := tell_ranks(job, told)) and time.monotonic() < end_s:
        told |= ranks
        time.sleep(_POLL_S)


def _members(job: str) -> dict[int, set[bytes]]:
    """The processes of a job, and the names in their environments."""
    found = {}
    for pid in _pids():
        variables = _environment(pid)
        if f"{JOB}={job}".encode() in variables and is_alive(pid):
            found[pid] = {variable.partition(b"=")[0] for variable in variables}
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _environment(pid: int) -> set[bytes]:
    try:
        return set((_PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:  # gone, or another user's
        return set()


def _environment_names(pid: int) -> set[bytes]:
    return {variable.partition(b"=")[0] for variable in _environment(pid)}


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # gone in the meantime
        os.kill(pid, number)
