"""metrics.json: every figure by name. docs/metrics.md gives each key's unit and definition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from forecaster.evaluation.backtest import Backtest
from forecaster.evaluation.metrics import Skill
from forecaster.evaluation.published import SECTIONS, Published
from forecaster.evaluation.rows import AnswerSpeed
from forecaster.evaluation.scorecard import ModelScorecard, Scoreboard, Scorecard
from forecaster.evaluation.training_log import TrainingLog
from forecaster.files import write_whole

_BY_WEEK = ("weeks", "weekly_returns_pct", "equity", "band_low", "band_high")
"""Fields of a backtest that are curves."""


def metrics_json(board: Scoreboard) -> dict[str, Any]:
    """Every figure, in plain JSON types; what is not known or not finite is None."""
    weeks = {row.week for row in board.rows if row.week}
    return _plain(
        {
            "rows": len(board.rows),
            "first_week": str(min(weeks)) if weeks else None,
            "last_week": str(max(weeks)) if weeks else None,
            "cost_bps": board.cost_bps,
            "models": {model.name: _model(model) for model in board.models},
            "baselines": {
                line.name: {"project": _skill(line.skill), "backtest": _backtests(line)}
                for line in board.baselines
            },
            "pairs": [asdict(pair) for pair in board.pairs],
            "choices": [asdict(choice) for choice in board.choices],
            "gains": [asdict(of) for of in board.gains],
            "best_of_several": [asdict(of) for of in board.best_of_several],
            "training": {run: _training(log) for run, log in board.logs.items()},
            "checkpoints": [{"step": of.step, "project": _skill(of.skill)} for of in board.checkpoints],
            "best_step": board.best_step,
            "notes": list(board.notes),
        }
    )


def write_metrics(path: Path, board: Scoreboard) -> None:
    """Write metrics.json whole; the same figures give the same bytes."""
    text = json.dumps(metrics_json(board), indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(path, f"{text}\n")


def _plain(value: Any) -> Any:
    """The same with None for numbers that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _model(model: ModelScorecard) -> dict[str, Any]:
    speed, bare = model.speed, model.as_published_without_think
    seconds = speed.seconds_per_answer if speed else None
    cut = {"as_published_without_think": _published(bare, seconds)} if bare else {}
    return {
        "as_published": _published(model.as_published, seconds),
        **cut,
        "project": {
            "rows": model.rows,
            "valid_count": model.valid_count,
            "form_followed": model.form_followed,
            "unreadable": dict(model.unreadable),
            "rouge": model.rouge and dict(model.rouge),
            **_skill(model.skill),
        },
        "calibrated": _skill(model.calibrated.skill) if model.calibrated else None,
        "knowledge_cutoff": str(model.knowledge_cutoff) if model.knowledge_cutoff else None,
        "maybe_remembered": _skill(model.maybe_remembered) if model.maybe_remembered else None,
        "not_remembered": _skill(model.not_remembered) if model.not_remembered else None,
        "text": asdict(model.text),
        "backtest": _backtests(model),
        "cost": _cost(speed) if speed else None,
    }


def _published(published: Published, seconds_per_answer: float | None) -> dict[str, Any]:
    return {
        "valid_count": published.valid_count,
        "bin_acc": published.bin_acc,
        "mse": published.mse,
        **(published.rouge or dict.fromkeys(SECTIONS)),
        "seconds_per_answer": seconds_per_answer,
    }


def _skill(skill: Skill) -> dict[str, Any]:
    """Its fields; the rows are named apart from all rows, those without a known outcome included."""
    fields = asdict(skill)
    return {"rows_with_outcome": fields.pop("rows"), **fields}


def _backtests(card: Scorecard) -> dict[str, Any]:
    return {strategy: _backtest(of) for strategy, of in card.backtest.items()}


def _backtest(of: Backtest) -> dict[str, Any]:
    figures = {name: value for name, value in asdict(of).items() if name not in _BY_WEEK}
    return {"weeks": len(of.weeks), **figures}


def _cost(speed: AnswerSpeed) -> dict[str, Any]:
    return {
        "answers": speed.answers,
        "seconds": speed.seconds,
        "seconds_per_answer": speed.seconds_per_answer,
        "new_tokens": speed.new_tokens,
        "new_tokens_per_answer": speed.new_tokens_per_answer,
        "new_tokens_per_s": speed.new_tokens_per_s,
        "how": speed.how,
    }


def _training(log: TrainingLog) -> dict[str, Any]:
    figures = asdict(log)
    return {"points": len(figures.pop("points")), **figures}
