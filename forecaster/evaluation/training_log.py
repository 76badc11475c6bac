"""What a training printed or saved, read back: the Trainer's own files, and plain text with its lines."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forecaster.errors import ConfigurationError, Problem
from forecaster.plain_text import in_one_form

_WAY_OUT = (
    "Give a trainer_state.json, a log_history.json, a JSON list of the metrics that a training printed, or "
    "the text of a run with its lines such as {'loss': 0.4, 'learning_rate': 5e-05, 'epoch': 0.5}; or, of "
    "answers, a JSON list of objects with the columns prediction and reference."
)
_KINDS = ("loss", "eval_loss", "train_runtime")
"""Every entry of a training holds one of these; what else is among them (scores, settings) does not."""
_POSITIONS = ("step", "epoch")
_DICT_LITERAL = re.compile(r"\{(?:[^{}\n]|\{[^{}\n]*\})*\}")
_SPACE = re.compile(r"[\s,]*")
_BARE_NOT_FINITE = re.compile(r":\s*(-?(?:nan|inf))\b")
"""How Python prints such a float, which is no literal."""


@dataclass(frozen=True)
class Point:
    """One log line of a training, or one evaluation during it; a loss that diverged is NaN."""

    step: int | None
    """Optimizer steps done; old logs hold only the epoch."""
    epoch: float | None
    elapsed_s: float | None
    """Since the training began, over all its parts where it was resumed."""
    loss: float | None
    eval_loss: float | None
    learning_rate: float | None
    grad_norm: float | None
    tokens_per_s: float | None
    peak_memory_gib: float | None


@dataclass(frozen=True)
class TrainingLog:
    """A training's curve, and its figures of speed; what the log does not hold is None."""

    points: tuple[Point, ...]
    elapsed_is_estimated: bool
    """Whether the points' times are the whole runtime in proportion to the epoch, for want of a clock."""
    train_runtime_s: float | None
    train_samples_per_s: float | None
    train_steps_per_s: float | None
    train_loss: float | None
    """Mean over the whole training."""
    eval_runtime_s: float | None
    """Mean of one evaluation; so are the next two."""
    eval_samples_per_s: float | None
    eval_steps_per_s: float | None
    last_eval_loss: float | None
    best_eval_loss: float | None
    tokens_per_s: float | None
    """At the last log line."""
    peak_memory_gib: float | None
    """Largest."""


def read_training_log(path: Path) -> TrainingLog:
    """The log in a file: JSON of the Trainer (a dict with `log_history`, or a list), or the text of a run.

    Raises:
        ConfigurationError: the file cannot be read, or holds no training log, or those of several trainings.
    """
    where = f"training log {path}"
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise _no_log(where, f"it cannot be read ({error.strerror or error}).") from error
    if not text.strip():
        raise _no_log(where, "it is empty.")
    entries = _json_entries(text, path.suffix, where)
    if entries is None:
        entries = _printed_entries(in_one_form(text))
        if not entries:
            raise _no_log(where, "it is neither JSON nor text with a line of training metrics.")
    # A run that was stopped before its first log line saves an empty list.
    elif entries and not any(is_of_training(entry) for entry in entries):
        keys = ", ".join(sorted({str(key) for entry in entries for key in entry})[:8])
        raise _no_log(where, f"none of its {len(entries)} entries holds {_or(_KINDS)}, only: {keys or '-'}.")
    return training_log(entries, where)


def training_log(entries: Sequence[Mapping[str, Any]], where: str = "training log") -> TrainingLog:
    """The log in the Trainer's entries, oldest first; entries that are not of a training are passed over.

    Args:
        where: names the log in an error.

    Raises:
        ConfigurationError: a figure that is no number; several trainings, one after the other.
    """
    numbered = [(place, entry) for place, entry in enumerate(entries, 1) if is_of_training(entry)]
    rows = [_numbers(entry, f"{where}, entry {place}") for place, entry in numbered]
    if len(starts := _starts(rows)) > 1:
        first_lines = ", ".join(str(numbered[at][0]) for at in starts)
        raise _several(where, len(starts), f" (they begin at entries {first_lines})")
    times_s, estimated = _times_s(rows)
    points = tuple(
        _point(row, time_s)
        for row, time_s in zip(rows, times_s, strict=True)
        if "loss" in row or "eval_loss" in row
    )
    eval_losses = _values(rows, "eval_loss")
    return TrainingLog(
        points=points,
        elapsed_is_estimated=estimated,
        train_runtime_s=_last(rows, "train_runtime"),
        train_samples_per_s=_last(rows, "train_samples_per_second"),
        train_steps_per_s=_last(rows, "train_steps_per_second"),
        train_loss=_last(rows, "train_loss"),
        eval_runtime_s=_mean(rows, "eval_runtime"),
        eval_samples_per_s=_mean(rows, "eval_samples_per_second"),
        eval_steps_per_s=_mean(rows, "eval_steps_per_second"),
        last_eval_loss=_last(rows, "eval_loss"),
        best_eval_loss=min(filter(math.isfinite, eval_losses), default=None),
        tokens_per_s=_last(rows, "tokens_per_s"),
        peak_memory_gib=max(_values(rows, "peak_memory_gib"), default=None),
    )


def _json_entries(text: str, suffix: str, where: str) -> list[Mapping[str, Any]] | None:
    """Entries of a JSON file; None for what is no JSON and not named so."""
    try:
        documents = _documents(text)
    except (ValueError, RecursionError) as error:  # a ValueError too is a number of thousands of digits
        if suffix.lower() != ".json":
            return None
        detail = "too deep" if isinstance(error, RecursionError) else str(error)
        if isinstance(error, json.JSONDecodeError):
            detail = f"{error.msg}, line {error.lineno}"
        raise _no_log(where, f"it is not whole JSON ({detail}).") from error
    found = documents[0] if len(documents) == 1 else documents
    logs = [_log_of(part) for part in found] if isinstance(found, list) else []
    if (trainings := sum(any(map(is_of_training, log)) for log in logs)) > 1:
        raise _several(where, trainings)
    if trainings:  # the others are empty, or hold nothing of a training
        return [entry for log in logs for entry in log]
    if isinstance(found, dict):
        if "log_history" not in found:
            raise _no_log(where, "it is a JSON object without log_history.")
        found = found["log_history"]
    if not isinstance(found, list):
        raise _no_log(where, f"where a list of entries belongs it holds {_kind(found)}.")
    for place, entry in enumerate(found, 1):
        if not isinstance(entry, dict):
            raise _no_log(where, f"entry {place} of its list is {_kind(entry)}, not an object.")
    return found


def _documents(text: str) -> list[Any]:
    """The JSON documents of a text, one behind the other: files that were put together, or lines."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
        at = _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
    return found


def _log_of(document: Any) -> list[Mapping[str, Any]]:
    """The entries of one whole log; empty for what is none, such as a single entry."""
    if isinstance(document, dict):
        document = document.get("log_history")
    return [entry for entry in document if isinstance(entry, dict)] if isinstance(document, list) else []


def _starts(rows: Sequence[Mapping[str, float]]) -> list[int]:
    """Rows at which a training begins: the first, and each that goes back after another one's end, or back to
    the first line. One that goes back to a later line is of a training that was stopped and went on."""
    kind = "loss" if any("loss" in row for row in rows) else "eval_loss"
    key = "step" if all("step" in row for row in rows if kind in row) else "epoch"
    starts, first, before, has_ended = [0], math.inf, -math.inf, False
    for at, row in enumerate(rows):
        has_ended = has_ended or "train_runtime" in row
        if kind not in row or key not in row:
            continue
        place = row[key]
        if (has_ended and place <= before) or (place < before and place <= first):
            starts.append(at)
            first = place
        first, before, has_ended = min(first, place), place, False
    return starts


def _printed_entries(text: str) -> list[Mapping[str, Any]]:
    """The metric dictionaries that a training printed between other text and progress bars."""
    entries: list[Mapping[str, Any]] = []
    for literal in _DICT_LITERAL.findall(text):
        try:
            found = ast.literal_eval(_BARE_NOT_FINITE.sub(r": '\1'", literal))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue  # other text in braces
        # Settings may be printed as a dictionary too; they have no place in the run.
        if isinstance(found, dict) and is_of_training(found) and any(key in found for key in _POSITIONS):
            entries.append(found)
    return entries


def is_of_training(entry: Mapping[str, Any]) -> bool:
    return any(key in entry for key in _KINDS)


_FIGURES = (
    *_POSITIONS,
    "elapsed_s",
    "loss",
    "eval_loss",
    "learning_rate",
    "grad_norm",
    "tokens_per_s",
    "peak_memory_gib",
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "train_loss",
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
)


def _numbers(entry: Mapping[str, Any], where: str) -> dict[str, float]:
    """The figures that an entry holds; null counts as not held."""
    return {key: _number(entry[key], key, where) for key in _FIGURES if entry.get(key) is not None}


def _number(value: Any, key: str, where: str) -> float:
    """A number, or the text of one: newer Trainers print their figures as text."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    told_as_nan = isinstance(value, float) or (
        isinstance(value, str) and value.strip().lstrip("+-").lower() == "nan"
    )
    if math.isnan(number) and not told_as_nan:
        raise _no_log(where, f"{key} is {value!r}, not a number.")
    if key in _POSITIONS and not math.isfinite(number):
        raise _no_log(where, f"{key} is {value!r}, which is no place in a run.")
    return number


def _times_s(rows: Sequence[Mapping[str, float]]) -> tuple[list[float | None], bool]:
    """Seconds since the training began for each row, and whether they are estimated.

    A row without a time of its own (an evaluation) has that of the row before it. The clock of a resumed
    training starts again at zero, and goes on here from where it stopped.
    """
    if any("elapsed_s" in row for row in rows):
        times_s: list[float | None] = []
        before_s = latest_s = None
        for row in rows:
            own_s = row.get("elapsed_s")
            if own_s is not None:
                before_s = before_s or 0.0
                if latest_s is not None and before_s + own_s < latest_s:
                    before_s = latest_s
                latest_s = before_s + own_s
            times_s.append(latest_s)
        return times_s, False
    runtime_s = _last(rows, "train_runtime")
    last_epoch = max(_values(rows, "epoch"), default=0.0)
    if runtime_s is None or last_epoch <= 0:
        return [None] * len(rows), False
    return [runtime_s * row["epoch"] / last_epoch if "epoch" in row else None for row in rows], True


def _point(row: Mapping[str, float], elapsed_s: float | None) -> Point:
    return Point(
        step=int(row["step"]) if "step" in row else None,
        epoch=row.get("epoch"),
        elapsed_s=elapsed_s,
        loss=row.get("loss"),
        eval_loss=row.get("eval_loss"),
        learning_rate=row.get("learning_rate"),
        grad_norm=row.get("grad_norm"),
        tokens_per_s=row.get("tokens_per_s"),
        peak_memory_gib=row.get("peak_memory_gib"),
    )


def _values(rows: Sequence[Mapping[str, float]], key: str) -> list[float]:
    return [row[key] for row in rows if key in row]


def _last(rows: Sequence[Mapping[str, float]], key: str) -> float | None:
    values = _values(rows, key)
    return values[-1] if values else None


def _mean(rows: Sequence[Mapping[str, float]], key: str) -> float | None:
    values = _values(rows, key)
    return math.fsum(values) / len(values) if values else None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _several(where: str, count: int, about: str = "") -> ConfigurationError:
    found = f"it holds {count} trainings{about}, which are no one curve."
    return ConfigurationError([Problem(where, found, "Give each a file of its own, and name them all.")])


def _no_log(where: str, found: str) -> ConfigurationError:
    return ConfigurationError([Problem(where, found, _WAY_OUT)])
