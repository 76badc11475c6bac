"""Runs as they are named on a command line: folders, files of answers, training logs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from pathlib import Path

from forecaster.errors import ConfigurationError, Problem
from forecaster.evaluation import predictions
from forecaster.evaluation.answer_files import SUFFIXES, Columns, json_rows, read_answer_file
from forecaster.evaluation.metrics import Skill
from forecaster.evaluation.price_forecasts import Closes
from forecaster.evaluation.rows import ModelAnswers, on_common_rows, with_returns
from forecaster.evaluation.scorecard import (
    CheckpointScore,
    Scoreboard,
    baseline_skills,
    best_checkpoint,
    checkpoint_scores,
    scoreboard,
)
from forecaster.evaluation.training_log import TrainingLog, is_of_training, read_training_log
from forecaster.evaluation.wandb_export import is_wandb_export, read_wandb_export
from forecaster.files import refuse_pointer
from forecaster.records import Row
from forecaster.run_folder import BENCHMARK, CHECKPOINTS, LOG_HISTORY
from forecaster.tasks.base import Task
from forecaster.tasks.weekly_baselines import Training

_LOG_SUFFIXES = (".json", ".log", ".txt")
LONGEST_NAME_BYTES = 200
"""Of a run's name: with what is put behind it, it fits into a file's name, which most disks end at 255."""
_WITH_COLUMNS = re.compile(rf"(.*?(?:{'|'.join(map(re.escape, SUFFIXES))})):([^/\\]+)", re.DOTALL)


@dataclass(frozen=True)
class Loaded:
    """One run: its answers, its training log, or both."""

    name: str
    answers: tuple[ModelAnswers, ...] = ()
    log: TrainingLog | None = None
    training: Training | None = None
    """What its training rows tell without it."""
    checkpoints: tuple[CheckpointScore, ...] = ()
    checkpoint_baselines: Mapping[str, Skill] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    """Settings to show."""
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    """Of its benchmark, where it was named by a folder."""


def benchmark_folder(path: Path) -> Path:
    """The benchmark in a run's folder, or the folder itself."""
    inner = path / BENCHMARK
    return path if (path / predictions.ROWS).is_file() or not (inner / predictions.ROWS).is_file() else inner


def load_run(
    spec: str,
    columns: Columns,
    task: Task,
    *,
    name: str | None = None,
    rows: Sequence[Row] | None = None,
    knowledge_cutoff: date | None = None,
) -> Loaded:
    """A run from `PATH`, `NAME=PATH` or `NAME=ANSWERS,LOG`.

    Answers may name their own columns: `ANSWERS:PREDICTION,REFERENCE` (and `,PROMPT`), behind the log.

    Args:
        task: of the rows in a folder.
        rows: a dataset's own rows, for files of answers.
        knowledge_cutoff: of the models, instead of what a folder says.

    Raises:
        ConfigurationError: nothing is there, or it is damaged.
    """
    given, separator, rest = spec.partition("=")
    if separator and not is_there(spec):
        name, spec = given.strip(), rest
    if name and (problem := _name_problem(name)):
        raise ConfigurationError([problem])
    named = None if is_there(spec) else _WITH_COLUMNS.fullmatch(spec)
    if named:
        spec, columns = named[1], _columns_of(named[1], named[2], columns)
    parts = [spec] if is_there(spec) else [part.strip() for part in spec.split(",")]
    paths = [Path(part) for part in parts if part]
    if not paths:
        found = f"{given + separator!r} names no file and no folder."
        raise ConfigurationError([Problem("command line", found, "Write PATH, or NAME=PATH.")])
    of_path = paths[0].resolve().name if paths[0].is_dir() else paths[0].stem
    loaded = Loaded(name or "".join(sign if sign.isprintable() else "-" for sign in of_path))
    for path in paths:
        refuse_pointer(path)
        if path.is_dir():
            loaded = _with_folder(loaded, path, task)
            cutoffs = [knowledge_cutoff or model.knowledge_cutoff for model in loaded.answers]
            pairs = zip(loaded.answers, cutoffs, strict=True)
            loaded = replace(loaded, answers=tuple(replace(m, knowledge_cutoff=day) for m, day in pairs))
        elif _is_log(path, columns):
            read = read_wandb_export if is_wandb_export(path) else read_training_log
            loaded = replace(loaded, log=read(path))
        elif path.suffix in SUFFIXES:
            answers = read_answer_file(path, loaded.name, columns, rows)
            answers = replace(answers, knowledge_cutoff=knowledge_cutoff)
            loaded = replace(loaded, answers=(*loaded.answers, answers))
        else:
            found = "is no folder and no file of answers." if path.exists() else "does not exist."
            forms = ", ".join(dict.fromkeys((*SUFFIXES, *_LOG_SUFFIXES)))
            raise ConfigurationError(
                [Problem(str(path), found, f"Name a run's folder, or a file that ends in {forms}.")]
            )
    logs = sum(path.is_file() and _is_log(path, columns) for path in paths)
    if logs > 1 or len(paths) - logs > 1:
        found = f"{spec!r} names {len(paths) - logs} sets of answers and {logs} training logs."
        raise ConfigurationError(
            [Problem("command line", found, "A run has one of each: write NAME=ANSWERS,LOG.")]
        )
    return loaded


def is_there(path: str) -> bool:
    """Whether there is such a path; what no disk takes for one may be a name and a path."""
    try:
        return Path(path).exists()
    except OSError:
        return False


def _name_problem(name: str) -> Problem | None:
    """A name that cannot be shown in tables, or be part of a file's name."""
    if name.isprintable() and len(name.encode()) <= LONGEST_NAME_BYTES:
        return None
    shown = repr(name[:60]) + ("..." if len(name) > 60 else "")
    found = f"{shown} is no name of a run ({len(name):,} characters)."
    way_out = (
        f"Use up to {LONGEST_NAME_BYTES} bytes that can be printed, without line ends and control signs."
    )
    return Problem("--name, NAME=PATH", found, way_out)


def _columns_of(path: str, names: str, columns: Columns) -> Columns:
    """The columns that a run names for itself; those left out are the flags' own."""
    given = [name.strip() for name in names.split(",")]
    if len(given) > len(fields(Columns)) or not all(given):
        found = f"{path}:{names} names columns that cannot be told apart."
        raise ConfigurationError([Problem("command line", found, "Write FILE:PREDICTION,REFERENCE.")])
    return replace(columns, **dict(zip((one.name for one in fields(Columns)), given, strict=False)))


def _is_log(path: Path, columns: Columns) -> bool:
    """Whether a file holds a training's log, and no answers; of JSON its content says it."""
    if path.suffix != ".json":
        return path.suffix in _LOG_SUFFIXES or is_wandb_export(path)
    try:
        rows = json_rows(path)
    except (OSError, ValueError, TypeError, RecursionError):
        return True  # reading it as a log says what is wrong
    return not rows or any(
        (is_of_training(row) or "log_history" in row) and columns.prediction not in row for row in rows
    )


def _with_folder(loaded: Loaded, path: Path, task: Task) -> Loaded:
    folder = benchmark_folder(path)
    try:
        return _with_benchmark(loaded, folder, task)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        found = f"is damaged ({type(error).__name__})."
        where = str(folder / predictions.RECORD)
        raise ConfigurationError([Problem(where, found, "Take a whole copy.")]) from error


def _with_benchmark(loaded: Loaded, folder: Path, task: Task) -> Loaded:
    record = predictions.read_record(folder)
    log = folder.parent / LOG_HISTORY
    inner = folder / CHECKPOINTS
    training = predictions.read_training(folder)
    trials = (
        predictions.read_answers(inner, task).complete if (inner / predictions.PREDICTIONS).is_file() else ()
    )
    answered = predictions.read_answers(folder, task)
    rows = len(answered.complete[0].rows)
    return replace(
        loaded,
        answers=answered.complete,
        log=loaded.log or (read_training_log(log) if log.is_file() else None),
        training=training,
        checkpoints=checkpoint_scores(trials),
        checkpoint_baselines=baseline_skills(trials[0].rows, training) if trials else {},
        facts=dict(record.get("settings", {})),
        notes=tuple(
            f"{name} has {done} of {rows} answers, and is left out: `benchmark.py generate` goes on."
            for name, done in answered.unfinished.items()
        ),
        folder=folder,
    )


def side_by_side(
    runs: Sequence[Loaded],
    closes: Closes,
    *,
    cost_bps: float,
) -> Scoreboard:
    """All models of all runs on the rows that every one of them answered.

    Args:
        closes: rows get their returns from them, and forecasts that need no more.

    Raises:
        ConfigurationError: two runs have one name, or no row is in all of them.
    """
    names = [run.name for run in runs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        found = f"names {', '.join(twice)} more than once."
        raise ConfigurationError([Problem("compare", found, "Tell runs apart as NAME=PATH.")])
    notes = [note for run in runs for note in run.notes]
    answers = _once(runs, notes)
    if answers:
        answers, note = on_common_rows(answers)
        answers, disagreement = _agreed(answers)
        answers = [replace(model, rows=with_returns(model.rows, closes)) for model in answers]
        notes += [line for line in (note, disagreement) if line]
    trainings = [run.training for run in runs if run.training]
    same = trainings[0] if trainings and all(of == trainings[0] for of in trainings) else None
    if trainings and same is None:
        notes.append("The runs were trained on different rows: no baseline knows what training rows tell.")
    board = scoreboard(
        answers,
        same,
        cost_bps=cost_bps,
        logs={run.name: run.log for run in runs if run.log},
        notes=notes,
        closes=closes,
    )
    if len(runs) > 1:
        return board
    best = best_checkpoint(runs[0].checkpoints)
    return replace(
        board,
        checkpoints=runs[0].checkpoints,
        best_step=best.step if best else None,
        checkpoint_baselines=runs[0].checkpoint_baselines,
    )


def _name(run: Loaded, model: ModelAnswers, tell_runs: bool) -> str:
    if not tell_runs or model.name == run.name:
        return model.name
    return run.name if len(run.answers) == 1 else f"{run.name}, {model.name}"


def _once(runs: Sequence[Loaded], notes: list[str]) -> list[ModelAnswers]:
    """All models by the names that tell them apart, without those that another run has too: whose every
    answer is the same, as those of one base model under two adapters are. Adds to `notes`."""
    found: list[tuple[Loaded, ModelAnswers]] = []
    for run in runs:
        for model in run.answers:
            named = replace(model, name=_name(run, model, len(runs) > 1))
            twin = next((m for other, m in found if other is not run and _same_answers(m, model)), None)
            if twin is None:
                found.append((run, named))
            else:
                notes.append(f"{named.name} gave the same answers as {twin.name}: one column for both.")
    return [model for _, model in found]


def _same_answers(one: ModelAnswers, other: ModelAnswers) -> bool:
    ids = [[row.row_id for row in model.rows] for model in (one, other)]
    same = one.answers == other.answers and one.distributions == other.distributions
    return same and ids[0] == ids[1]


def _agreed(answers: Sequence[ModelAnswers]) -> tuple[list[ModelAnswers], str]:
    """The runs on the rows of which they do not say that the market did two things, and a note on the others.

    What one run knows of an outcome holds for all.
    """
    outcomes = [
        {row.actual for row in rows} - {None} for rows in zip(*(m.rows for m in answers), strict=True)
    ]
    kept = [at for at, found in enumerate(outcomes) if len(found) < 2]
    known = [next(iter(outcomes[at]), None) for at in kept]
    agreed = [
        replace(
            model.at(kept),
            rows=tuple(
                replace(model.rows[at], actual=actual) for at, actual in zip(kept, known, strict=True)
            ),
        )
        for model in answers
    ]
    apart = len(outcomes) - len(kept)
    return agreed, f"{apart} rows have another outcome in one run than in another: left out." if apart else ""
