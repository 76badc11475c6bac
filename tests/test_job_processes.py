"""The processes of a job, as they are found by what their environment says."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable

import psutil

from forecaster import processes
from forecaster.cluster.supervision import StopSignals
from forecaster.settings import JOB, WALK


def start(job: str, command: str, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sh", "-c", command], env={**os.environ, JOB: job, **env})


def wait_until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_job_is_all_that_it_started_and_a_rank_is_not_its_own_child() -> None:
    job = secrets.token_hex(8)
    rank = start(job, "sleep 60 & wait", RANK="0")
    helper = start(job, "exec sleep 60")
    wait_until(lambda: len(processes.processes(job)) == 3)
    assert processes.rank_processes(job) == {psutil.Process(rank.pid)}
    processes.kill_all(job)
    assert processes.processes(job) == []
    assert [process.wait() for process in (rank, helper)] == [-signal.SIGKILL] * 2


def test_what_has_ended_is_dead_before_it_is_collected_and_takes_no_signal_afterwards() -> None:
    job = secrets.token_hex(8)
    child = start(job, "exec sleep 60", RANK="0")
    process = psutil.Process(child.pid)
    assert processes.is_alive(process)
    child.kill()
    wait_until(lambda: not processes.is_alive(process))
    assert process.status() == psutil.STATUS_ZOMBIE
    assert processes.rank_processes(job) == set()
    child.wait()
    assert not processes.is_alive(process)
    assert processes.parent_of(process) is None
    assert processes.command_line(process) == ""
    assert processes.open_files(process.pid) == set()
    processes.send_signal(process, signal.SIGTERM)


def test_of_a_dead_walk_ranks_are_told_and_all_else_is_killed() -> None:
    walk = secrets.token_hex(8)
    leaves = "trap 'exit 75' TERM; echo ready; while :; do sleep 0.05; done"
    rank = subprocess.Popen(
        ["sh", "-c", leaves], env={**os.environ, WALK: walk, "RANK": "0"}, stdout=subprocess.PIPE
    )
    assert rank.stdout is not None and rank.stdout.readline() == b"ready\n"
    launcher = subprocess.Popen(["sleep", "60"], env={**os.environ, WALK: walk})
    wait_until(lambda: len(processes.processes(walk, WALK)) >= 2)
    assert processes.end_walk(walk) >= 2
    assert (rank.wait(), launcher.wait()) == (75, -signal.SIGKILL)
    rank.stdout.close()
    assert processes.end_walk(walk) == 0


def test_the_end_of_the_process_that_is_not_to_be_outlived_counts_as_a_signal() -> None:
    its_own, another = StopSignals(os.getppid()), StopSignals(2**22 + 1)
    its_own.wait(0.05)
    another.wait(5)
    assert (its_own.received, another.received) == (None, signal.SIGTERM)
