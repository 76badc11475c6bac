"""data_pipeline.py is killed, interrupted, and meets the faults of a network: the dataset does not notice."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import finnhub as finnhub_client
import pytest
from loopback_market import CHAT, Asked, FaultKind, Market, World, redirected
from processes import ROOT, run_entry
from tenacity import wait_none

import data_pipeline
from forecaster import chat
from forecaster.vendors import finnhub, yahoo
from forecaster.vendors.registry import VENDORS, YAHOO

pytestmark = pytest.mark.slow

SYMBOLS = ("AAPL", "MSFT", "NVDA", "ZZZZ")
WORLD = World(
    SYMBOLS,
    date(2025, 1, 6),
    date(2025, 4, 4),
    articles_per_week=60,
    rates={"NVDA": 300, "ZZZZ": 0},  # more than one call gives in a week; none at all
    dead=frozenset({"ZZZZ"}),
)
NAME = "fingpt-forecaster-aapl-msft-nvda-zzzz-20250106-20250404-1-2-06"
CONCURRENCY = 2
LATENCY_S = 0.1
FINNHUB, TEACHER = "finnhub", "openai"


def flags(data_folder: Path) -> list[str]:
    return [
        *("--index_name", ",".join(SYMBOLS), "--start_date", "2025-01-06", "--end_date", "2025-04-04"),
        *("--max_past_weeks", "2", "--calls_per_minute", "1800", "--concurrency", str(CONCURRENCY)),
        *("--data_folder", str(data_folder)),
    ]


def unfinished(folder: Path) -> Path:
    """Where a dataset is until it is whole."""
    return folder.with_name(f"{folder.name}.building")


# --- what is compared ---------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; empty when there is no such folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def paid(log: Sequence[Asked]) -> list[Asked]:
    """The requests that cost something: all of Finnhub's, and the teacher's answers."""
    return [asked for asked in log if asked.face == FINNHUB or asked.endpoint == CHAT]


def repeats(log: Sequence[Asked]) -> int:
    return len(paid(log)) - len(set(paid(log)))


@dataclass(frozen=True)
class Undisturbed:
    """What a run leaves that nothing disturbed."""

    files: dict[str, bytes]
    asked: frozenset[Asked]
    calls: Counter[str]
    """Distinct requests that cost something, by vendor."""
    building_s: float
    """How long the unfinished folder was there."""


def assert_same_dataset(data_folder: Path, market: Market, undisturbed: Undisturbed) -> None:
    """The same bytes, from the same requests, and nothing left lying around."""
    found = content(data_folder / NAME)
    assert sorted(found) == sorted(undisturbed.files)
    assert [name for name in found if found[name] != undisturbed.files[name]] == []
    assert sorted(path.name for path in data_folder.iterdir()) == [NAME, "ledger.sqlite"]
    assert set(paid(market.log)) == undisturbed.asked


# --- processes that are ended from outside ------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    process: subprocess.Popen[bytes]
    err: Path

    def wait_for(self, moment: Callable[[], bool]) -> None:
        """Return as soon as `moment()` holds; fails when the process ends before."""
        while not moment():
            assert self.process.poll() is None, self.err.read_text()[-3000:]
            time.sleep(0.002)

    def end(self, how: signal.Signals) -> int:
        """Send a signal to the whole process group; gives the exit status."""
        os.killpg(self.process.pid, how)
        return self.process.wait(timeout=60)


@contextmanager
def started(market: Market, data_folder: Path) -> Iterator[Started]:
    """The command in a process group of its own, which is gone afterwards."""
    err = data_folder.with_name("stderr")
    with err.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "data_pipeline.py"), *flags(data_folder)],
            cwd=data_folder.parent,
            env=os.environ | market.environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield Started(process, err)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finish(market: Market, data_folder: Path) -> subprocess.CompletedProcess[str]:
    done = run_entry("data_pipeline.py", data_folder.parent, *flags(data_folder), **market.environment())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    data_folder = tmp_path_factory.mktemp("undisturbed") / "data"
    building = unfinished(data_folder / NAME)
    with Market(WORLD) as market:
        with started(market, data_folder) as run:
            run.wait_for(building.exists)
            began_at = time.monotonic()
            run.wait_for(lambda: not building.exists())
            building_s = time.monotonic() - began_at
            assert run.process.wait(timeout=60) == 0, run.err.read_text()[-3000:]
        asked = paid(market.log)
    assert len(asked) == len(set(asked))
    return Undisturbed(
        content(data_folder / NAME), frozenset(asked), Counter(one.face for one in asked), building_s
    )


# --- kills --------------------------------------------------------------------------------------------------

KILLS = {"fetch": 8, "label": 5, "build": 6, "audit": 1}


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    log: Sequence[Asked]
    """Requests of all runs."""
    own: Sequence[Asked]
    """Requests of this run."""
    err: str
    """What this run has printed."""


@dataclass(frozen=True)
class Kill:
    """The moment of a kill."""

    is_due: Callable[[Progress], bool]
    delay_s: float
    """How long after it is due."""


def planned_kills(dice: random.Random, calls: Counter[str], folder: Path, building_s: float) -> list[Kill]:
    """Twenty random moments in the order of the stages."""

    def reaches(face: str, count: int) -> Callable[[Progress], bool]:
        # One of them has to be the run's own, or else it would be killed at its start.
        return lambda run: (
            any(asked.face == face for asked in paid(run.own))
            and (len({asked for asked in paid(run.log) if asked.face == face}) >= count)
        )

    def asks_for_prices(run: Progress) -> bool:
        return any(asked.endpoint == "chart" for asked in run.own)

    def is_building(run: Progress) -> bool:
        return "build:" in run.err and unfinished(folder).exists()

    def times(face: str, count: int) -> list[int]:
        # The last few are left to the run that goes on to the next stage.
        return sorted(dice.sample(range(1, calls[face] - 4), count))

    def soon() -> float:
        return dice.uniform(0, 1.5 * LATENCY_S)

    kills = [Kill(reaches(FINNHUB, n), soon()) for n in times(FINNHUB, KILLS["fetch"] - 2)]
    kills += [Kill(asks_for_prices, soon()), Kill(asks_for_prices, soon())]
    kills += [Kill(reaches(TEACHER, n), soon()) for n in times(TEACHER, KILLS["label"])]
    builds = [Kill(is_building, dice.uniform(0, 0.8 * building_s)) for _ in range(KILLS["build"])]
    audit = Kill(lambda run: folder.exists(), 0.0)
    # Those after the audit meet a folder that is finished.
    return [*kills, *builds[:3], audit, *builds[3:]]


def stage_of(run: Progress, folder: Path) -> str:
    """Where a run was when it ended."""
    if "build:" in run.err:
        return "build" if unfinished(folder).exists() else "audit"
    return next((stage for stage in ("label", "fetch") if f"{stage}:" in run.err), "start")


def asked_again(before: Sequence[Asked], own: Sequence[Asked]) -> Counter[str]:
    """What a run asked although an earlier one had, by vendor; fails when that was not in flight."""
    assert repeats(own) == 0
    again = {asked for asked in paid(own) if asked in set(before)}
    # A symbol's calls are made one after the other: only its last one can have been in flight.
    last = {asked["symbol"]: asked for asked in before if asked.face == FINNHUB}
    assert {asked for asked in again if asked.face == FINNHUB} <= set(last.values())
    assert sum(asked.face == TEACHER for asked in again) <= CONCURRENCY
    return Counter(asked.face for asked in again)


@pytest.mark.parametrize("seed", [20250106])
def test_twenty_kills_at_random_moments_repeat_only_calls_in_flight_and_leave_the_same_bytes(
    tmp_path: Path, undisturbed: Undisturbed, seed: int
) -> None:
    data_folder = tmp_path / "elsewhere" / "data"
    data_folder.parent.mkdir()
    folder = data_folder / NAME
    kills = planned_kills(random.Random(seed), undisturbed.calls, folder, undisturbed.building_s)
    hit: Counter[str] = Counter()
    repeated: Counter[str] = Counter()
    print(f"seed {seed}")
    with Market(WORLD, latency_s=LATENCY_S) as market:
        for number, kill in enumerate(kills, 1):
            before = list(market.log)
            with started(market, data_folder) as run:

                def progress() -> Progress:
                    log = list(market.log)
                    return Progress(log, log[len(before) :], run.err.read_text())  # noqa: B023

                run.wait_for(lambda: kill.is_due(progress()))  # noqa: B023
                time.sleep(kill.delay_s)
                assert run.end(signal.SIGKILL) == -signal.SIGKILL
                there = progress()
            hit[stage_of(there, folder)] += 1
            repeated += (again := asked_again(before, there.own))
            print(
                f"kill {number}: {stage_of(there, folder)}, {len(there.own)} requests, again: {dict(again)}"
            )
            # The dataset is whole, or not there.
            assert content(folder) in ({}, undisturbed.files)
        before = list(market.log)
        finish(market, data_folder)
        repeated += asked_again(before, market.log[len(before) :])
        assert_same_dataset(data_folder, market, undisturbed)
    print(f"kills: {dict(hit)}; requests made again: {dict(repeated)}")
    assert hit.total() == 20
    assert min(hit[stage] for stage in ("fetch", "label", "build")) >= 4
    assert repeats(market.log) == repeated.total() > 0


# --- Ctrl-C, and a second start -----------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In this process no fault is waited out, and silence is a fault after two seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finnhub, "_BACKOFF", wait_none())
    monkeypatch.setattr(finnhub_client.Client, "DEFAULT_TIMEOUT", 2)
    monkeypatch.setattr(yahoo, "wait_exponential", lambda **_: wait_none())
    monkeypatch.setattr(yahoo, "_SECOND_OPINION_AFTER_S", 0)
    monkeypatch.setitem(VENDORS, "yahoo", replace(YAHOO, calls_per_minute=1800))
    monkeypatch.setattr(chat, "_BACKOFF", wait_none())
    monkeypatch.setattr(chat, "ANSWER_TIME_LIMIT_S", 2.0)


def main(market: Market, data_folder: Path, *stage: str) -> int:
    """The same command in this process."""
    with redirected(market):
        return data_pipeline.main([*stage, *flags(data_folder)])


def test_a_second_start_is_refused_and_a_ctrl_c_loses_nothing(
    tmp_path: Path, undisturbed: Undisturbed, hasty: None
) -> None:
    data_folder = tmp_path / "data"
    with Market(WORLD, latency_s=1.0) as market:  # it has not ended when the second has loaded
        with started(market, data_folder) as run:
            run.wait_for(lambda: market.counts()["company-news"] >= 1)
            second = run_entry("data_pipeline.py", tmp_path, *flags(data_folder), **market.environment())
            assert second.returncode == 2
            assert f"{data_folder} is in use by process {run.process.pid} since" in second.stderr
            assert run.end(signal.SIGINT) == 130
            assert "Stopped. Nothing is lost: the same command goes on from here." in run.err.read_text()
        assert 0 < len(paid(market.log)) < undisturbed.calls[FINNHUB]

        market.latency_s = LATENCY_S
        assert main(market, data_folder, "fetch") == 0
        # Answers in flight were waited for.
        assert repeats(market.log) == 0

        with started(market, data_folder) as run:
            run.wait_for(lambda: market.counts()[CHAT] >= 5)
            assert run.end(signal.SIGINT) == 130
            assert "Stopped. Nothing is lost: the same command goes on from here." in run.err.read_text()
        assert 5 <= market.counts()[CHAT] < undisturbed.calls[TEACHER]
        assert not (data_folder / NAME).exists()

        assert main(market, data_folder) == 0
        assert_same_dataset(data_folder, market, undisturbed)
        assert repeats(market.log) <= CONCURRENCY


# --- faults of the network ----------------------------------------------------------------------------------

ANYWHERE: tuple[FaultKind, ...] = (
    "429",
    "429 with Retry-After",
    "500",
    "truncated JSON",
    "wrong content type",
    "reset",
)
NEVER_EMPTY = ("stock/profile2", "stock/metric", "stock/financials-reported")


def test_passing_faults_leave_the_same_bytes(tmp_path: Path, undisturbed: Undisturbed) -> None:
    data_folder = tmp_path / "data"
    with Market(WORLD) as market:
        faults = market.faults
        for number, kind in enumerate(ANYWHERE, 1):
            faults.add(kind, "company-news", numbers={3 * number}, retry_after_s=1)
            faults.add(kind, CHAT, numbers={4 * number}, retry_after_s=1)
        faults.add("empty list", CHAT, numbers={2})
        for endpoint in NEVER_EMPTY:
            faults.add("empty list", endpoint, numbers={1})
        for number in (5, 6):
            faults.add("429 with Retry-After", "company-news", numbers={number}, tries=3, retry_after_s=0)
        finish(market, data_folder)
        assert_same_dataset(data_folder, market, undisturbed)
        assert faults.shown == dict.fromkeys(ANYWHERE, 2) | {
            "429 with Retry-After": 8,
            "empty list": 4,
        }
        # Each fault costs one more try, and nothing else is asked again.
        assert repeats(market.log) == faults.shown.total()


def test_faults_of_prices_silence_and_truly_empty_lists_leave_the_same_bytes(
    tmp_path: Path, undisturbed: Undisturbed, hasty: None
) -> None:
    data_folder = tmp_path / "data"
    with Market(WORLD) as market:
        faults = market.faults
        for number, kind in enumerate(("empty list", *ANYWHERE), 1):
            # A status of 400 or more makes yfinance ask once more by itself.
            faults.add(kind, "chart", numbers={number}, tries=2, retry_after_s=0)
        faults.add("stall", "company-news", numbers={4}, stall_s=10)
        faults.add("stall", CHAT, numbers={4}, stall_s=10)
        # Where there is no news an empty list is the truth; elsewhere it could not be told from it.
        faults.add("empty list", "company-news", when=lambda asked: asked["symbol"] == "ZZZZ")
        assert main(market, data_folder) == 0
        assert_same_dataset(data_folder, market, undisturbed)
        # Twice for prices; once for news, whose weeks are one span, as the gap's are asked for too.
        assert faults.shown == dict.fromkeys(ANYWHERE, 2) | {"stall": 2, "empty list": 3}
        assert repeats(market.log) == 2


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        (
            "company-news",
            "  MSFT company-news: Finnhub: no usable answer in 7 tries, in the last one HTTP 500.",
        ),
        (
            "chart",
            "  MSFT daily-bars: Yahoo: no usable answer in 5 tries, in the last one an answer of an unknown "
            "form (JSONDecodeError).",
        ),
        (CHAT, "1 rows got no answer, the last one after 12 tries: HTTP 500."),
    ],
)
def test_a_lasting_fault_is_told_and_builds_nothing_until_it_is_mended(
    tmp_path: Path,
    undisturbed: Undisturbed,
    hasty: None,
    capsys: pytest.CaptureFixture[str],
    endpoint: str,
    told: str,
) -> None:
    data_folder = tmp_path / "data"
    with Market(WORLD) as market:
        if endpoint == CHAT:
            market.faults.add("500", CHAT, tries=math.inf, numbers={3})
        else:
            market.faults.add("500", endpoint, tries=math.inf, when=lambda asked: asked["symbol"] == "MSFT")
        assert main(market, data_folder) == 1
        printed = capsys.readouterr()
        assert told in printed.out + printed.err
        assert sorted(path.name for path in data_folder.iterdir()) == ["ledger.sqlite"]
        assert (market.counts()[CHAT] > 0) is (endpoint == CHAT)

        market.faults.clear()
        before = list(market.log)
        assert main(market, data_folder) == 0
        assert_same_dataset(data_folder, market, undisturbed)
        again = {asked for asked in paid(market.log[len(before) :]) if asked in set(before)}
        assert len(again) == (0 if endpoint == "chart" else 1)
