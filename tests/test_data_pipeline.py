"""The pipeline from end to end, with the real vendor clients against loopback servers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import datasets
import pytest
from loopback_market import Market, World, redirected
from processes import ROOT, call_entry, run_entry

from forecaster.records import Answer
from forecaster.tasks.answers import parse_answer
from prompts import read_prompt, split_published

NAME = "aapl-gone-meta-msft-20260105-20260410-1-2-05"
FLAGS = ("--index_name", "AAPL,GONE,FB,MSFT", "--start_date", "2026-01-05", "--end_date", "2026-04-10")
FLAGS += ("--max_past_weeks", "2", "--train_ratio", "0.5", "--calls_per_minute", "1800")
WORLD = World(
    ("AAPL", "META", "MSFT"),
    first_day=date(2026, 1, 1),
    last_day=date(2026, 4, 17),
    articles_per_week=15,
    rates={"MSFT": 400},
)


def pipeline(cwd: Path, market: Market, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The pipeline in this process, which has imported everything."""
    with redirected(market):
        return call_entry("data_pipeline.py", cwd, *flags, **env)


def inspect(cwd: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """A stage that asks nobody anything."""
    return call_entry("data_pipeline.py", cwd, *flags)


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    with Market(WORLD) as found:
        yield found


@pytest.fixture(scope="module")
def built(market: Market, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the whole pipeline ran once with every block, and what it printed."""
    cwd = tmp_path_factory.mktemp("pipeline")
    flags = (*FLAGS, "--with_macro", "--with_indicators")
    done = run_entry("data_pipeline.py", cwd, *flags, **market.environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return cwd, done.stdout


def test_one_command_makes_an_audited_dataset(built: tuple[Path, str]) -> None:
    cwd, printed = built
    assert "Passed: no leak and no error." in printed
    assert "Renamed: FB is META today." in printed
    assert "GONE daily-bars: " in printed and "13 symbol-weeks, the price vendor does not serve" in printed
    parts = datasets.load_from_disk(str(cwd / "data" / f"fingpt-forecaster-{NAME}"))
    assert {name: len(part) for name, part in parts.items()} == {"train": 18, "test": 15, "gap": 6}
    assert parts["train"].column_names[:5] == ["prompt", "answer", "period", "label", "symbol"]
    assert max(parts["train"]["target_end"]) == "2026-02-20"
    assert sorted(set(parts["gap"]["period"])) == ["2026-02-20 to 2026-02-27", "2026-02-27 to 2026-03-06"]
    assert min(parts["test"]["target_start"]) == "2026-03-06"
    for row in parts["test"]:
        facts = read_prompt(split_published(row["prompt"]).user)
        assert [week.end.isoformat() for week in facts.weeks][-1] == row["target_start"]
        assert (
            facts.financials
            and facts.indicators
            and list(facts.macro)
            == [
                "S&P 500",
                "VIX",
                "Ten-year Treasury yield",
                "US dollar index",
                "Crude oil (WTI)",
            ]
        )
        answer = parse_answer(row["answer"])
        assert isinstance(answer, Answer) and answer.label.text == row["label"]


def test_the_folder_explains_itself(built: tuple[Path, str]) -> None:
    folder = built[0] / "data" / f"fingpt-forecaster-{NAME}"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["arguments"]["symbols"] == ["AAPL", "GONE", "META", "MSFT"]
    assert {"README.md", "overview.png", "parquet/train.parquet", "dataset_dict.json"} <= set(
        manifest["files"]
    )
    card = (folder / "README.md").read_text()
    assert "| GONE     |      0 |         13 |" in card
    assert "basic-financials, company-news, daily-bars, filings, profile" in card
    by_parquet = datasets.load_dataset(str(folder))  # as the hub would read the card
    assert {name: len(part) for name, part in by_parquet.items()} == {"train": 18, "test": 15, "gap": 6}


def test_the_same_command_asks_nothing_twice(built: tuple[Path, str], market: Market) -> None:
    before = market.counts()
    manifest = built[0] / "data" / f"fingpt-forecaster-{NAME}" / "manifest.json"
    bytes_before = manifest.read_bytes()
    done = pipeline(built[0], market, *FLAGS, "--with_macro", "--with_indicators")
    assert done.returncode == 0, done.stdout + done.stderr
    after = market.counts()
    assert {
        name: after[name] - before[name] for name in after if name.startswith(("company", "stock", "chat"))
    } == {
        "company-news": 0,
        "stock/profile2": 0,
        "stock/metric": 0,
        "stock/financials-reported": 0,
        "chat/completions": 0,
    }
    assert after["chart"] == before["chart"]
    assert manifest.read_bytes() == bytes_before


def test_train_lora_finds_it_by_its_short_name(built: tuple[Path, str]) -> None:
    done = call_entry(
        "train_lora.py",
        built[0],
        *("--base_model", str(ROOT / "sample" / "base"), "--dataset", NAME, "--dry_run"),
        *("--max_length", "2048", "--report_to", "none"),
    )
    assert done.returncode == 0, done.stderr
    assert "Rows: 18 training and 15 test rows read" in done.stdout


def test_a_plan_costs_nothing_and_needs_no_key(market: Market, tmp_path: Path) -> None:
    before = market.counts()
    keys = {"FINNHUB_API_KEY": "", "OPENAI_API_KEY": "", "OPENAI_MODEL": ""}
    flags = ("plan", "--index_name", "nasdaq", "--start_date", "2024-06-03", "--end_date", "2025-05-30")
    done = pipeline(tmp_path, market, *flags, **keys)
    assert done.returncode == 0, done.stderr
    assert (
        "The free plan serves about 365 days of news: 100% of what is asked lies before that" in done.stdout
    )
    assert done.stderr == ""
    assert market.counts() == before


def test_describe_and_convert_take_any_dataset(built: tuple[Path, str]) -> None:
    base = str(ROOT / "sample" / "base")
    for stage in ("describe", "convert"):
        done = inspect(built[0], stage, NAME, "--model", base)
        assert done.returncode == 0, done.stderr
    description = (built[0] / "data" / f"{NAME}-description" / "description.md").read_text()
    assert "| rows " in description and "prompt, tokens" in description
    rows = [
        json.loads(line)
        for line in (built[0] / "data" / f"{NAME}-base" / "train.jsonl").open(encoding="utf-8")
    ]
    assert len(rows) == 18
    assert rows[0]["text"] == rows[0]["prompt"] + rows[0]["completion"]
    assert rows[0]["prompt"].startswith("<s>[INST] <<SYS>>") and rows[0]["completion"].endswith("</s>")


def test_audit_of_a_tampered_dataset_fails(built: tuple[Path, str], tmp_path: Path) -> None:
    parts = datasets.load_from_disk(str(built[0] / "data" / f"fingpt-forecaster-{NAME}"))
    tampered = parts["test"].map(lambda row: {"label": "up by more than 5%"})
    tampered.to_json(str(tmp_path / "rows.jsonl"))
    done = inspect(tmp_path, "audit", "rows.jsonl")
    assert done.returncode == 1
    assert "answer against label" in done.stdout


def test_a_dataset_that_was_changed_after_its_build_is_told(
    built: tuple[Path, str], market: Market, tmp_path: Path
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(built[0] / "data", copy)
    (copy / f"fingpt-forecaster-{NAME}" / "parquet" / "train.parquet").write_bytes(b"other rows")
    done = pipeline(tmp_path, market, "audit", *FLAGS, "--with_macro", "--with_indicators")
    assert done.returncode == 1
    assert "is not as it was built: parquet/train.parquet changed" in done.stderr


def test_an_audit_without_the_ledger_says_what_it_could_not_compare(built: tuple[Path, str]) -> None:
    done = inspect(built[0], "audit", NAME)
    assert done.returncode == 0, done.stdout
    assert "Passed: no leak and no error. Not everything could be compared: see below." in done.stdout
