"""The probabilities of a forecast: what a record keeps of them, how they are told, and their picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from forecaster.models.finished import FinishedRun
from forecaster.models.run_schemas import FittedCalibration
from forecaster.tasks.distributions import (
    BINS,
    Distribution,
    label_mass,
    of_log_likelihoods,
)
from forecaster.tasks.weekly_baselines import Training, symbol_climatology


@dataclass(frozen=True)
class Usual:
    """How often each bin happened before."""

    name: str
    """To whom, and in how many rows."""
    distribution: Distribution


def usual_of(run: FinishedRun, symbol: str) -> Usual | None:
    """What the training rows say of a symbol, or of all where there are none of it."""
    training = Training.of_record(run.dataset_record)
    if not training.labels:
        return None
    name, rows = symbol, sum(training.by_symbol.get(symbol, {}).values())
    if not rows:
        name, rows = "all symbols", sum(training.labels.values())
    return Usual(f"{name} in training ({rows} rows)", symbol_climatology(training, symbol))


def distribution_of(
    label_log_likelihoods: Mapping[str, float],
    calibration: FittedCalibration | None = None,
    usual: Usual | None = None,
) -> dict[str, Any]:
    """How likely the model held each label, as a record keeps it."""
    record = _told(of_log_likelihoods(label_log_likelihoods))
    record["label_mass"] = label_mass(label_log_likelihoods)
    if calibration:
        made = _told(calibration.calibration.of(label_log_likelihoods))
        record["calibrated"] = {"how": calibration.in_words, **made}
    if usual:
        record["climatology"] = {"of": usual.name, "probabilities": _by_label(usual.distribution)}
    return record


def _told(found: Distribution) -> dict[str, Any]:
    return {
        "up": found.up,
        "median": found.median.text,
        "central_80_percent": [label.text for label in found.central(0.8)],
        "probabilities": _by_label(found),
    }


def _by_label(found: Distribution) -> dict[str, float]:
    return {label.text: share for label, share in zip(BINS, found.shares, strict=True)}


def in_words(distribution: Mapping[str, Any]) -> str:
    """The twelve probabilities as a table, and what they come to."""
    mass = f"{distribution['label_mass']:.1%} of all that it could have written"
    lines = [f"Likelihoods of the labels: {_figures(distribution)}; they have {mass}."]
    columns = {"model": distribution["probabilities"]}
    if made := distribution.get("calibrated"):
        lines.append(f"Calibrated ({made['how']}): {_figures(made)}.")
        columns["calibrated"] = made["probabilities"]
    if usual := distribution.get("climatology"):
        columns[usual["of"]] = usual["probabilities"]
    rows = [(label.text, *(f"{of[label.text]:.1%}" for of in columns.values())) for label in BINS]
    aligned = ("left", *["right"] * len(columns))
    table = tabulate(rows, headers=("", *columns), disable_numparse=True, colalign=aligned)
    return "\n".join(["", *lines, "", table])


def _figures(told: Mapping[str, Any]) -> str:
    low, high = told["central_80_percent"]
    return f"up {told['up']:.0%}, median {told['median']}, 80 % from {low} to {high}"


def draw(distribution: Mapping[str, Any], title: str, path: Path) -> None:
    """The picture of a record's probabilities: the calibrated ones, where there are any."""
    from forecaster.evaluation.plots import draw_forecast, save_png  # half a second

    def read(of: Mapping[str, Any]) -> Distribution:
        return Distribution(tuple(of["probabilities"][label.text] for label in BINS))

    made, usual = distribution.get("calibrated"), distribution.get("climatology")
    name = "forecast, calibrated" if made else "forecast"
    figure = draw_forecast(
        title, name, read(made or distribution), usual and read(usual), usual["of"] if usual else ""
    )
    unfinished = path.with_name(f".{path.name}")
    unfinished.unlink(missing_ok=True)  # a link of that name would lead the picture elsewhere
    save_png(figure, unfinished)
    unfinished.replace(path)
