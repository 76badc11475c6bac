"""A walk through time as a job: at one cut after another a training on what was known then, the forecasts of
the weeks up to the next cut, and one report over all of them."""

from __future__ import annotations

import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from forecaster.claims import held
from forecaster.cluster.launch_command import ROOT, cuda_visible, gpu_indices, rank_environment
from forecaster.cluster.launch_config import split_flags
from forecaster.cluster.supervision import StopSignals
from forecaster.data import sources
from forecaster.data.splits import Block, blocks
from forecaster.errors import SAVED_UNFINISHED, ConfigurationError, Problem
from forecaster.files import write_json
from forecaster.fit.gpus import detect_gpus
from forecaster.jobs.launch import benchmark_command, launch
from forecaster.jobs.walk_config import AskedWalk
from forecaster.jobs.walk_report import Cut, report
from forecaster.processes import end_walk
from forecaster.progress import Listener
from forecaster.run_folder import BENCHMARK, LOG_HISTORY, WALK_FILE
from forecaster.schemas import read_json
from forecaster.settings import JOB, WALK, Settings, inherited_environment
from forecaster.tasks.weekly import WEEKLY
from forecaster.training.survival import checkpoints
from forecaster.training.train_config import TrainConfig, as_flags, parse_flags

LOCK_FILE = ".walk.lock"
LOGS = "logs"
_POLL_S = 0.2
_TOLD_LINES = 15
"""Of the log of a training that failed."""


@dataclass(frozen=True)
class PlannedTraining:
    """One run of train.sh: a cut with a seed."""

    cut: Cut
    seed: int
    folder: Path
    flags: tuple[str, ...]
    """Of train.sh, without where it runs."""

    @property
    def name(self) -> str:
        return f"{self.cut.block.test_from} seed {self.seed}"

    @property
    def has_ended(self) -> bool:
        """Whether its adapter is complete."""
        return (self.folder / LOG_HISTORY).is_file()

    @property
    def is_finished(self) -> bool:
        """Whether its weeks are forecast, too: the page is the last file of a benchmark."""
        return self.has_ended and (self.folder / BENCHMARK / "report.html").is_file()

    @property
    def work(self) -> int:
        """What its time is about proportional to: rows learnt from, and rows answered by base and model."""
        return self.cut.train_rows + 2 * self.cut.test_rows


@dataclass(frozen=True)
class Plan:
    """The whole walk."""

    asked: AskedWalk
    cuts: tuple[Cut, ...]
    trainings: tuple[PlannedTraining, ...]
    """By cut, then by seed."""
    fingerprint: str
    """Of all rows."""

    @property
    def chains(self) -> list[list[PlannedTraining]]:
        """Trainings that have to follow one another; chains may run side by side."""
        if not self.asked.walk.from_last:
            return [[training] for training in self.trainings]
        seeds = dict.fromkeys(training.seed for training in self.trainings)
        return [[t for t in self.trainings if t.seed == seed] for seed in seeds]


def walk_forward(asked: AskedWalk, settings: Settings, listener: Listener) -> int:
    """Check, train at every cut, report; what is there already is not done again.

    Returns:
        0 done; 75 stopped, and the same command goes on; else the status of the training that failed.

    Raises:
        ConfigurationError: flags, rows, or a folder that holds another walk.
    """
    plan = make_plan(asked)
    devices = gpu_indices(asked.launch.gpus, settings) if detect_gpus() else [0]
    listener.say("\n".join(plan_lines(plan, len(devices))))
    first = plan.trainings[0]
    if not first.folder.exists() and (status := check_first(first, devices[0], settings, listener)):
        return status
    record = record_of(plan)
    if asked.walk.dry_run:
        check_same_walk(asked.folder, record)
        return 0
    with held(asked.folder, LOCK_FILE, "--output_dir", other="another walk"):
        check_same_walk(asked.folder, record)
        write_json(asked.folder / WALK_FILE, record)
        if left := end_walk(_mark(asked.folder)):
            listener.say(f"Ended {left} processes that a walk before this one left running.")
        with StopSignals() as signals:
            if status := Walk(plan, devices, signals, listener).run():
                return status
        report(
            asked.folder,
            plan.cuts,
            [t.folder / BENCHMARK for t in plan.trainings],
            facts_of(plan),
            asked.train.run_name,
            settings,
            listener,
        )
    listener.say(f"For the coming weeks: python forecast.py --adapter {asked.folder} --symbol ...")
    return 0


# --- the plan -----------------------------------------------------------------------------------------------


def make_plan(asked: AskedWalk) -> Plan:
    """Raises ConfigurationError where the rows cannot be read, or have too few weeks for a cut."""
    walk = asked.walk
    found = sources.resolve(asked.dataset, asked.train.from_remote, "--dataset")
    dated, fingerprint = sources.read_dates(found, WEEKLY)
    embargo = max(source.embargo_weeks for source in dated)
    keys = [key for source in dated for key in source.keys]
    parts = blocks(keys, walk.every, embargo, walk.window_weeks, asked.train.test_from)
    if not parts:
        weeks = len({key.start for key in keys})
        flag = "--test_from" if asked.train.test_from else "--every"
        first, last = min(key.start for key in keys), max(key.end for key in keys)
        found_text = (
            f"is {asked.train.test_from or walk.every}, which leaves no cut with training and test: "
            f"there are {weeks} weeks from {first} to {last}, and the {embargo} before a cut are left out."
        )
        raise ConfigurationError([Problem(flag, found_text, "Cut elsewhere, or give more weeks.")])
    cuts = tuple(_cut_of(block, dated) for block in parts)
    trainings: list[PlannedTraining] = []
    for place, cut in enumerate(cuts):
        for seed in range(asked.train.seed, asked.train.seed + walk.seeds):
            former = cuts[place - 1] if walk.from_last and place else None
            trainings.append(_training(asked, cut, seed, former))
    return Plan(asked, cuts, tuple(trainings), fingerprint)


def _cut_of(block: Block, dated: Sequence[sources.DatedSource]) -> Cut:
    counts = [source.counts(block) for source in dated]
    return Cut(block, sum(train for train, _ in counts), sum(test for _, test in counts))


def _training(asked: AskedWalk, cut: Cut, seed: int, former: Cut | None) -> PlannedTraining:
    def folder_of(of: Cut) -> Path:
        return asked.folder / str(of.block.test_from) / f"seed_{seed}"

    flags = [*asked.words, "--dataset", asked.dataset, "--test_from", str(cut.block.test_from)]
    for name in ("test_until", "train_from", "train_until"):
        if day := getattr(cut.block, name):
            flags += [f"--{name}", str(day)]
    if former:
        flags += ["--from_adapter", str(folder_of(former))]
    if asked.launch.restarts:
        flags += ["--restarts", str(asked.launch.restarts)]
    folder = folder_of(cut)
    return PlannedTraining(cut, seed, folder, (*flags, "--seed", str(seed), "--output_dir", str(folder)))


def plan_lines(plan: Plan, at_once: int) -> Iterator[str]:
    """The table of cuts, and what they come to."""
    rows = [
        (
            cut.block.test_from,
            f"{cut.block.train_from or 'the first'} to {cut.block.train_until}",
            cut.train_rows,
            cut.block.test_until or "the end",
            cut.test_rows,
        )
        for cut in plan.cuts
    ]
    yield tabulate(rows, ("cut", "training weeks start", "training rows", "tested until", "test rows"))
    count, seeds = len(plan.trainings), plan.asked.walk.seeds
    done = sum(training.is_finished for training in plan.trainings)
    learnt = sum(training.cut.train_rows for training in plan.trainings)
    answered = sum(training.cut.test_rows for training in plan.trainings)
    yield (
        f"{count} trainings ({len(plan.cuts)} cuts x {seeds} seed(s)), {done} of them finished; "
        f"{min(at_once, len(plan.chains))} at once. All of them learn from {learnt:,} rows an epoch, and "
        f"answer {answered:,} rows, which their base answers too."
    )
    yield f"Folder {plan.asked.folder}"


def facts_of(plan: Plan) -> dict[str, str]:
    """What the report tells of the walk's settings; nothing of where it lies."""
    walk = plan.asked.walk
    return {
        "dataset": plan.asked.dataset,
        "base model": plan.asked.train.base_model,
        "trained at": ", ".join(str(cut.block.test_from) for cut in plan.cuts),
        "training rows": ", ".join(f"{cut.train_rows:,}" for cut in plan.cuts),
        "window": "all weeks before" if walk.window_weeks is None else f"{walk.window_weeks} weeks",
        "seeds": ", ".join(str(seed) for seed in dict.fromkeys(t.seed for t in plan.trainings)),
        "each training starts": "from the last cut's adapter" if walk.from_last else "anew",
        "tokens of prompt and answer": str(plan.asked.train.max_length),
        "tokens of an answer": str(plan.asked.train.max_new_tokens),
    }


# --- one walk, one folder -----------------------------------------------------------------------------------

_MAY_CHANGE = frozenset(
    {"config", "output_dir", "resume", "dry_run", "gpu", "local_rank", "report_to", "num_workers", "plan"}
    | {"fit", "save_total_limit", "log_interval", "grace_seconds", "trust_remote_code", "run_name"}
    | {"dataset", "test_dataset", "from_remote", "test_from", "seed"}  # the rows and cuts say these
)


def record_of(plan: Plan) -> dict[str, Any]:
    """walk.json: what decides the walk's answers."""
    walk, train = plan.asked.walk, as_flags(plan.asked.train)
    return {
        "every": walk.every,
        "window": walk.window,
        "seeds": [t.seed for t in plan.trainings if t.cut is plan.cuts[0]],
        "from_last": walk.from_last,
        "cuts": [str(cut.block.test_from) for cut in plan.cuts],
        "rows_sha256": plan.fingerprint,
        "flags": {name: value for name, value in train.items() if name not in _MAY_CHANGE},
    }


def check_same_walk(folder: Path, record: Mapping[str, Any]) -> None:
    """Raises ConfigurationError where the folder holds a walk of other rows or settings."""
    path = folder / WALK_FILE
    if not path.is_file():
        return
    way_out = "Give the former value, or another --output_dir."
    before = read_json(path, "Take a whole copy, or give another --output_dir.")
    if not isinstance(before, dict) or not isinstance(before.get("flags"), dict):
        raise ConfigurationError([Problem(str(path), "is no record of a walk.", way_out)])
    if before.get("rows_sha256") != record["rows_sha256"]:
        found = f"holds other rows than the walk in {folder} began with."
        raise ConfigurationError([Problem("--dataset", found, "Give those, or another --output_dir.")])
    ours = {**record, **record["flags"]}
    theirs = {**before, **before["flags"]}
    problems = [
        Problem(f"--{name}", f"is {ours[name]}; the walk in {folder} began with {theirs.get(name)}.", way_out)
        for name in ours
        if name != "flags" and ours[name] != theirs.get(name)
    ]
    if problems:
        raise ConfigurationError(problems)


# --- the trainings ------------------------------------------------------------------------------------------


def launch_words(training: PlannedTraining) -> list[str]:
    """The job that train.sh starts."""
    return [sys.executable, str(ROOT / "launch.py"), *training.flags]


def check_first(training: PlannedTraining, device: int, settings: Settings, listener: Listener) -> int:
    """Have train.sh check the first training, without starting it, and tell its commands; returns its status,
    and what it finds wrong it has told."""
    own, words = split_flags([*training.flags, "--gpus", str(device), "--dry_run"])
    told: list[str] = []
    status = launch(own, words, parse_flags(words), settings, replace(listener, say=told.append))
    commands = [line for line in told if line.startswith("$ ")]
    if status == 0:
        listener.say("\n".join(["The first training:", *commands]))
    return status


def next_command(training: PlannedTraining, device: int, config: TrainConfig) -> list[str]:
    """What brings a training on from where it is."""
    if training.has_ended:
        return benchmark_command(training.folder, config)
    goes_on = checkpoints.newest_complete(training.folder)[0] is not None
    return [*launch_words(training), "--gpus", str(device), *(["--resume"] if goes_on else [])]


def _mark(folder: Path) -> str:
    return str(folder.resolve())


@dataclass
class Walk:
    """Trainings under way, one on each device."""

    plan: Plan
    devices: Sequence[int]
    signals: StopSignals
    listener: Listener
    _status: int = 0
    """Of the first training that failed."""
    _speeds: list[tuple[int, float]] = field(default_factory=list)
    """Work and seconds of the trainings that this walk has brought to their end."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> int:
        """Bring every training to its end. Returns 0, or why it stopped."""
        free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for device in self.devices:
            free.put(device)

        def follow(chain: Sequence[PlannedTraining]) -> None:
            device = free.get()
            try:
                for training in chain:
                    if self._status or self.signals.received:
                        return
                    if not training.is_finished:
                        self._bring_to_end(training, device)
                    if training.is_finished:
                        with self._lock:
                            advance()
            finally:
                free.put(device)

        total = len(self.plan.trainings)
        with (
            self.listener.bar("walk", "training", total) as advance,
            ThreadPoolExecutor(len(self.devices)) as at,
        ):
            for ending in [at.submit(follow, chain) for chain in self.plan.chains]:
                ending.result()
        if self.signals.received and not all(t.is_finished for t in self.plan.trainings):
            self.listener.warn(f"\nStopped by {self.signals.received.name}. The same command goes on.")
            return SAVED_UNFINISHED
        return self._status

    def _bring_to_end(self, training: PlannedTraining, device: int) -> None:
        began_s = time.monotonic()
        was_begun = training.folder.exists()
        self.listener.say(
            f"{training.name}: {training.cut.train_rows} training rows, {training.cut.test_rows} to forecast"
            f"{', going on' if was_begun else ''}{self._left()}"
        )
        # train.sh finds its GPU by --gpus; a benchmark alone sees no other.
        where = rank_environment([device]) | cuda_visible([device]) if training.has_ended else {}
        command = next_command(training, device, self.plan.asked.train)
        log = self.plan.asked.folder / LOGS / f"{training.cut.block.test_from}_seed_{training.seed}.log"
        status = self._supervise(command, where, log)
        if self.signals.received:
            return
        if status == 0 and not training.is_finished:
            status = 1
        with self._lock:
            if status == 0:
                if not was_begun:
                    self._speeds.append((training.work, time.monotonic() - began_s))
                return
            self._status = self._status or status
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TOLD_LINES:]
        told = "\n".join(lines)
        self.listener.warn(
            f"\n{training.name} ended with status {status}; its log, {log}, ends with\n{told}\n"
            "Mend what it says; the same command then goes on."
        )

    def _supervise(self, command: Sequence[str], where: Mapping[str, str], log: Path) -> int:
        """Run a command to its end, and pass on a stop. It stays in this process's group: who kills the group
        kills it, too."""
        log.parent.mkdir(exist_ok=True)
        marks = {JOB: f"{os.getpid()}-walk", WALK: _mark(self.plan.asked.folder)}
        environment = {**inherited_environment(), **where, **marks}
        with log.open("a", encoding="utf-8") as out:
            out.write(f"$ {shlex.join(command)}\n")
            out.flush()
            child = subprocess.Popen(
                command, env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )
            is_told = False
            while child.poll() is None:
                self.signals.wait(_POLL_S)
                if self.signals.received and not is_told:
                    child.terminate()
                    is_told = True
                if is_told:
                    time.sleep(_POLL_S)
        return child.returncode if child.returncode >= 0 else 128 - child.returncode

    def _left(self) -> str:
        """About how long all that is left takes, once one training was timed."""
        with self._lock:
            work, spent_s = (
                (sum(part) for part in zip(*self._speeds, strict=True)) if self._speeds else (0, 0.0)
            )
        if not work:
            return ""
        left = sum(t.work for t in self.plan.trainings if not t.is_finished)
        minutes = left * spent_s / work / min(len(self.devices), len(self.plan.chains)) / 60
        return f"; about {minutes:.0f} min left" if minutes >= 1 else "; less than a minute left"
