"""Processes of a run: how they are found, whoever their parent is by now.

Any of them may end at any moment: one that is gone, or that another user hides, is left out without a word.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from forecaster.settings import JOB, WALK

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
ORPHAN_GRACE_S = 25.0
"""Time for ranks whose launcher is gone: DeepSpeed's, when it is signalled, kills them after 30 s."""
SHARED_BUFFERS = Path("/dev/shm/deepspeed_allreduce_buffer")
"""How the names of DeepSpeed's buffers on CPU begin; user, address, port and rank follow."""


def processes(job: str, mark: str = JOB) -> list[psutil.Process]:
    """Every process of a job; what has ended shows no environment and is none.

    Args:
        mark: the variable whose value `job` is.
    """
    return [
        process
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get(mark) == job
    ]


def rank_processes(job: str) -> set[psutil.Process]:
    """The processes that a launcher gave a rank, without their own children, which inherit it."""
    ranks = {process for process in processes(job) if "RANK" in process.info["environ"]}
    return {process for process in ranks if parent_of(process) not in ranks}


def kill_all(job: str) -> None:
    """Kill every process of a job, and those that they start meanwhile."""
    end_s = time.monotonic() + 10.0  # a process in a hung driver call cannot be killed
    while (left := processes(job)) and time.monotonic() < end_s:
        for process in left:
            send_signal(process, signal.SIGKILL)
        time.sleep(0.05)


def fault_apart(work: Callable[[], None], cpu_s: int = 5, more_bytes: int = 2 * 2**30) -> str | None:
    """Do something in a forked process that ends with it: what hangs, eats memory or dies there costs nobody.

    Not a thread or an alarm: they stop no computation inside one operation, such as `9 ** 9 ** 9`.

    Args:
        cpu_s: seconds of computing after which it is ended; of waiting, six times as many.
        more_bytes: memory that it may take beside what this process has.

    Returns:
        What went wrong, in a line; None: nothing.
    """
    with tempfile.TemporaryFile() as said:
        child = multiprocessing.get_context("fork").Process(
            target=_within_limits, args=(work, cpu_s, more_bytes, said.fileno())
        )
        child.start()
        child.join(6 * cpu_s)
        is_late = child.is_alive()
        child.kill()
        child.join()
        said.seek(0)
        text = said.read(2**20).decode("utf-8", "replace")
    if is_late or child.exitcode == -signal.SIGXCPU or child.exitcode == -signal.SIGKILL:
        return f"it takes more than {cpu_s} s"
    if not child.exitcode:
        return None
    # What stands behind the last line of a traceback that is neither its head nor indented.
    *_, fault = re.split(r"^(?=[\w.]+(?:: |$))", text, flags=re.MULTILINE)
    if fault.startswith("MemoryError"):
        return f"it takes more than {more_bytes / 2**30:.0f} GiB of memory"
    return " ".join(fault.split())[:300] or f"it ended with status {child.exitcode}"


def _within_limits(work: Callable[[], None], cpu_s: int, more_bytes: int, said: int) -> None:
    """The child's part; a fault's last line is what its traceback ends with."""
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace")
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = psutil.Process().memory_info().vms + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    work()


def end_walk(folder: str) -> int:
    """End what a walk that was killed left running, before its folder is written to by another.

    Ranks save and leave as they do when their launcher is gone, and have as long; the others hold nothing
    that is not on disk already.

    Returns:
        How many processes there were.
    """
    found = processes(folder, WALK)
    ranks = {process for process in found if "RANK" in process.info["environ"]}
    for process in found:
        send_signal(process, signal.SIGTERM if process in ranks else signal.SIGKILL)
    end_s = time.monotonic() + ORPHAN_GRACE_S
    while left := processes(folder, WALK):
        if time.monotonic() > end_s:
            for process in left:
                send_signal(process, signal.SIGKILL)
            if time.monotonic() > end_s + 10.0:  # a process in a hung driver call cannot be killed
                break
        time.sleep(0.1)
    return len(found)


def send_signal(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to a process, if it is still there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; not one that has ended and waits to be collected."""
    try:
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def parent_of(process: psutil.Process) -> psutil.Process | None:
    """The parent of a process; None where either cannot be seen."""
    try:
        return process.parent()
    except psutil.Error:
        return None


def command_line(process: psutil.Process) -> str:
    """What a process was started as; empty when it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def siblings_with_rank() -> list[psutil.Process]:
    """The other ranks that this process's launcher started on this machine."""
    launcher = parent_of(psutil.Process())
    try:
        children = launcher.children() if launcher else []
    except psutil.Error:
        return []
    return [child for child in children if child.pid != os.getpid() and _has_rank(child)]


def _has_rank(process: psutil.Process) -> bool:
    try:
        return "RANK" in process.environ()
    except psutil.Error:
        return False


def open_files(pid: int) -> set[str]:
    """What a process holds open; empty when it is gone or another user's.

    Read from /proc, as psutil 7.2.2 refuses all files of a process when one of them lies in a folder that is
    closed to this user: a log that root opened for it is enough.
    """
    found = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed in the meantime
                found.add(str(link.readlink()))
    return found


def unlink_shared_buffers() -> None:
    """Take away the names of the buffers through which this machine's ranks reduce on CPU.

    DeepSpeed 0.19.8 never does: each rank would leave 69 MB of memory behind, and a later run on the same
    port could read them. Memory that is open stays until the last rank is gone, however it ends.
    """
    for path in open_files(os.getpid()):
        if path.startswith(str(SHARED_BUFFERS)):
            Path(path).unlink(missing_ok=True)
