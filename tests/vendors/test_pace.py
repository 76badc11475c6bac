"""Calls are spaced evenly over all threads, and a stop ends every wait."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from simulated_time import SimulatedTime

from forecaster.vendors.pace import Pace, StoppedError


def _starts(calls_per_minute: int, calls: int) -> list[float]:
    time = SimulatedTime()
    pace = Pace(calls_per_minute, clock=time.now, sleep=time.sleep)
    starts = []
    for _ in range(calls):
        pace.take()
        starts.append(round(time.seconds, 3))
    return starts


def test_sixty_a_minute_is_one_a_second_and_the_first_waits_too() -> None:
    assert _starts(60, 4) == [1.0, 2.0, 3.0, 4.0]


def test_a_paid_plan_is_faster() -> None:
    assert _starts(300, 4) == [0.2, 0.4, 0.6, 0.8]


def test_idle_time_earns_no_burst() -> None:
    time = SimulatedTime()
    pace = Pace(60, clock=time.now, sleep=time.sleep)
    time.seconds = 100.0
    starts = []
    for _ in range(3):
        pace.take()
        starts.append(time.seconds)
    assert starts == [100.0, 101.0, 102.0]


def test_eight_threads_share_one_pace() -> None:
    time = SimulatedTime()
    pace = Pace(60, clock=time.now, sleep=time.sleep)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(240):
            pool.submit(pace.take)
    assert time.seconds == pytest.approx(240, abs=0.5)
    assert pace.taken == 240


def test_a_hold_delays_the_next_call_of_every_thread() -> None:
    time = SimulatedTime()
    pace = Pace(60, clock=time.now, sleep=time.sleep)
    pace.take()
    pace.hold(30)
    pace.hold(5)
    pace.take()
    assert time.seconds == 31.0


def test_a_stop_ends_the_waits_of_all_threads_and_lets_no_call_start() -> None:
    pace = Pace(1)
    stopped = []

    def wait() -> None:
        with pytest.raises(StoppedError):
            pace.take()
        stopped.append(threading.get_ident())

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    pace.stop()
    for thread in threads:
        thread.join(timeout=30)
    assert len(stopped) == 3
    assert pace.taken == 0
    with pytest.raises(StoppedError):
        pace.sleep(3600)
