"""Curves of a training as the charts of W&B export them: csv, a column for each run and figure."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from forecaster.errors import ConfigurationError, Problem
from forecaster.evaluation.training_log import TrainingLog, training_log
from forecaster.tables import column_names

_STEPS = ("Step", "_step", "train/global_step", "trainer/global_step")
_TIMES = ("Relative Time (Process)", "Relative Time (Wall)", "Wall Time")
_RANGE = ("__MIN", "__MAX")
_WAY_OUT = "Give the log_history.json or trainer_state.json of each run, and name them all."


def is_wandb_export(path: Path) -> bool:
    """Whether a csv file begins as a chart's or a table's export does."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        names = column_names(path)
    except (OSError, ValueError, csv.Error):
        return False  # whoever reads its answers says so
    return _is_chart(names) or _is_table(names)


def _is_chart(names: Sequence[str]) -> bool:
    return bool(names) and names[0] in (*_STEPS, *_TIMES) and any(_figure(name) for name in names[1:])


def _is_table(names: Sequence[str]) -> bool:
    """A line for each run, with the last value of each figure."""
    return "Name" in names and "State" in names


def _figure(name: str) -> str:
    """`run - train/loss` and `train/loss` as the Trainer calls it; empty for what is of no training."""
    kind, _, figure = name.rpartition(" - ")[2].partition("/")
    return {"train": figure, "eval": f"eval_{figure}"}.get(kind, "") if figure else ""


def read_wandb_export(path: Path) -> TrainingLog:
    """The log of a chart's export.

    Raises:
        ConfigurationError: it cannot be read, holds several runs, or no curve.
    """
    where = f"training log {path}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigurationError([Problem(where, f"cannot be read ({error}).", _WAY_OUT)]) from error
    names = column_names(path)
    if not _is_chart(names):
        found = f"is a table of {len(lines)} runs of W&B, with one value of each figure and no curve."
        raise ConfigurationError([Problem(where, found, _WAY_OUT)])
    figures = [name for name in names[1:] if _figure(name) and not name.endswith(_RANGE)]
    runs = list(dict.fromkeys(name.rpartition(" - ")[0] for name in figures))
    if len(runs) > 1:
        found = f"is an export of W&B with {len(runs)} runs ({', '.join(runs)}), which are no one curve."
        raise ConfigurationError([Problem(where, found, _WAY_OUT)])
    has_steps = names[0] in _STEPS
    entries = [
        ({"step": line[names[0]]} if has_steps else {})
        | {_figure(name): line[name] for name in figures if line[name]}
        for line in lines
    ]
    return training_log([entry for entry in entries if entry.get("step", "0")], where)
