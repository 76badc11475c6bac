"""What `make demo` made: the base cannot answer, the fine-tuned model can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def metrics() -> dict[str, Any]:
    runs = sorted((ROOT / "finetuned_models").glob("embedded_*/benchmark/metrics.json"))
    if not runs:
        pytest.skip("`make demo` has not run in this checkout")
    content: dict[str, Any] = json.loads(runs[-1].read_text())
    return content


def test_at_most_a_tenth_of_the_bases_answers_can_be_read(metrics: dict[str, Any]) -> None:
    base = metrics["models"]["base"]["project"]
    assert base["rows"] >= 60
    assert base["valid_count"] <= 0.1 * base["rows"]


def test_at_least_four_fifths_of_the_fine_tuned_models_answers_can_be_read(metrics: dict[str, Any]) -> None:
    tuned = metrics["models"]["fine-tuned"]["project"]
    assert tuned["valid_count"] >= 0.8 * tuned["rows"]


def test_the_sample_is_split_by_date_and_large_enough() -> None:
    rows = {
        name: [
            json.loads(line)
            for line in (ROOT / "sample" / "dataset" / f"{name}.jsonl").open(encoding="utf-8")
        ]
        for name in ("train", "test")
    }
    assert len(rows["train"]) >= 200
    assert len(rows["test"]) >= 60
    assert max(row["period"][14:] for row in rows["train"]) <= min(row["period"][:10] for row in rows["test"])
    assert len({row["symbol"] for row in rows["train"]}) == 8
    assert (ROOT / "sample" / "base" / "model.safetensors").stat().st_size <= 4_000_000
