"""What `make demo` made: the base cannot answer, the fine-tuned model can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import forecast

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run_folder() -> Path:
    """Folder of the newest run of `make demo`."""
    runs = sorted((ROOT / "finetuned_models").glob("embedded_*/benchmark/metrics.json"))
    if not runs:
        pytest.skip("`make demo` has not run in this checkout")
    return runs[-1].parents[1]


@pytest.fixture
def metrics(run_folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_folder / "benchmark" / "metrics.json").read_text())
    return content


def test_at_most_a_tenth_of_the_bases_answers_can_be_read(metrics: dict[str, Any]) -> None:
    base = metrics["models"]["base"]["project"]
    assert base["rows"] >= 60
    assert base["valid_count"] <= 0.1 * base["rows"]


def test_at_least_four_fifths_of_the_fine_tuned_models_answers_can_be_read(metrics: dict[str, Any]) -> None:
    tuned = metrics["models"]["fine-tuned"]["project"]
    assert tuned["valid_count"] >= 0.8 * tuned["rows"]


def test_its_forecast_is_of_a_prompt_of_the_form_that_it_learnt_and_can_be_read(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["--adapter", str(run_folder), "--symbol", "AAPL", "--date", "2026-03-06"]
    files = ["--news_file", str(ROOT / "sample/news.csv")]
    files += ["--price_file", str(ROOT / "sample/weekly_closes.csv")]
    assert forecast.main([*asked, *files]) == 0
    told = capsys.readouterr().out
    assert (
        "Recipe: 1 to 1 past weeks, without technical indicators, without the market environment "
        "(as recorded with the adapter)"
    ) in told
    for part in ("Positive Developments:\n1. ", "Potential Concerns:\n1. ", "Prediction: ", "Analysis: "):
        assert part in told
    record = json.loads(Path("forecasts/AAPL_2026-03-06.json").read_text(encoding="utf-8"))
    assert record["prompt"].count("News during this period:") == 1


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
