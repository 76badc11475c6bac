"""docs/scaling.md holds what its script computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def scaling_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling_table", ROOT / "bench" / "scaling_table.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_the_document_are_what_the_script_makes() -> None:
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert scaling_table().filled_in(text) == text


def test_every_published_figure_is_within_15_percent_or_told_apart() -> None:
    rows = [line.split("|")[1:4] for line in scaling_table().published().splitlines()[2:]]
    assert len(rows) == 8
    for name, measured, model in rows:
        low, high = (float(cell.strip().rstrip(" %").replace(",", "")) for cell in (measured, model))
        # The speed of NeMo's fused kernels is the one point that this program's own share of peak misses.
        assert abs(high / low - 1) <= (0.30 if "NeMo" in name else 0.15), name
