"""Processes of a run: how they are found, whoever their parent is by now."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from forecaster.settings import JOB

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ORPHAN_GRACE_S = 25.0
"""Time for ranks whose launcher is gone: DeepSpeed's, when it is signalled, kills them after 30 s."""
SHARED_BUFFERS = Path("/dev/shm/deepspeed_allreduce_buffer")
"""How the names of DeepSpeed's buffers on CPU begin; user, address, port and rank follow."""
_PROC = Path("/proc")


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
            send_signal(pid, signal.SIGKILL)
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
    found = [pid for pid in pids() if pid != os.getpid() and parent_of(pid) == launcher]
    return [pid for pid in found if b"RANK" in _environment_names(pid)]


def unlink_shared_buffers() -> None:
    """Take away the names of the buffers through which this machine's ranks reduce on CPU.

    DeepSpeed 0.19.8 never does: each rank would leave 69 MB of memory behind, and a later run on the same
    port could read them. Memory that is open stays until the last rank is gone, however it ends.
    """
    for link in open_files(os.getpid()):
        target = link_target(link)
        if target.startswith(str(SHARED_BUFFERS)):
            Path(target).unlink(missing_ok=True)


def open_files(pid: int) -> list[Path]:
    try:
        return list((_PROC / str(pid) / "fd").iterdir())
    except OSError:  # gone, or another user's
        return []


def link_target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""


def _members(job: str) -> dict[int, set[bytes]]:
    """The processes of a job, and the names in their environments."""
    found = {}
    for pid in pids():
        variables = _environment(pid)
        if f"{JOB}={job}".encode() in variables and is_alive(pid):
            found[pid] = {variable.partition(b"=")[0] for variable in variables}
    return found


def pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _environment(pid: int) -> set[bytes]:
    try:
        return set((_PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:  # gone, or another user's
        return set()


def _environment_names(pid: int) -> set[bytes]:
    return {variable.partition(b"=")[0] for variable in _environment(pid)}


def send_signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # gone in the meantime
        os.kill(pid, number)
