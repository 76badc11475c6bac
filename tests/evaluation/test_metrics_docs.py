"""docs/metrics.md explains every key of metrics.json, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from example_board import board_of_probabilities, full_board

from forecaster.evaluation.figures import figures_of
from forecaster.evaluation.metrics import Skill
from forecaster.evaluation.report.pages import metrics_json

DOCS = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
HOLD_NAMES = ("models", "baselines", "training", "backtest", "unreadable")
"""Keys below which names of models, runs, strategies and faults stand."""


def keys_of(content: Any, are_names: bool = False) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            if not are_names:
                yield key
            yield from keys_of(value, key in HOLD_NAMES and not are_names)
    elif isinstance(content, list):
        for value in content:
            yield from keys_of(value)


def documented_keys() -> list[str]:
    """What the first column of each table names."""
    cells = re.findall(r"^\|([^|]*)\|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    return [key for cell in cells for key in re.findall(r"`(\w+)`", cell)]


def test_every_key_is_explained_once_and_no_other() -> None:
    documented = documented_keys()
    assert len(documented) == len(set(documented))
    boards = full_board(), board_of_probabilities()
    assert set(documented) == {key for board in boards for key in keys_of(metrics_json(board))}


def test_each_figure_is_explained_as_it_explains_itself() -> None:
    lines = {f"| `{name}` | {of.unit} | {of.explained} |" for name, of in figures_of(Skill).items()}
    assert lines - set(DOCS.read_text(encoding="utf-8").splitlines()) == set()


def test_names_are_no_keys() -> None:
    found = set(keys_of(metrics_json(full_board())))
    assert {"as_published", "luck_share", "rouge1", "low"} <= found
    assert not {"fine-tuned", "always up", "long/short", "run", "no answer"} & found
