"""Examples and answers become a dataset folder: rows, card, manifest; the same inputs give the same bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from tabulate import tabulate

from forecaster.data.sources import SHORT_NAME_PREFIX
from forecaster.prompts import render_published
from forecaster.records import ALL_LABELS, Example

SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("answer", pa.string()),
        ("period", pa.string()),
        ("label", pa.string()),
        ("symbol", pa.string()),
        ("as_of", pa.string()),
        ("target_start", pa.string()),
        ("target_end", pa.string()),
        ("weekly_return_pct", pa.float64()),
        ("start_price", pa.float64()),
        ("end_price", pa.float64()),
        ("news_ids", pa.list_(pa.string())),
        ("filing", pa.string()),
        ("flags", pa.list_(pa.string())),
        ("teacher", pa.string()),
        ("prompt_sha256", pa.string()),
    ]
)
"""The five published columns, then where a row comes from."""

MANIFEST = "manifest.json"
CARD = "README.md"


def folder_name(
    universe: str, start: date, end: date, min_past_weeks: int, max_past_weeks: int, train_ratio: float
) -> str:
    """As FinGPT names its folders: dates without dashes, the ratio without its point."""
    ratio = f"{train_ratio:g}".replace(".", "")
    return (
        f"{SHORT_NAME_PREFIX}{universe}-{start:%Y%m%d}-{end:%Y%m%d}-{min_past_weeks}-{max_past_weeks}-{ratio}"
    )


def row_of(example: Example, answer: str, teacher: str) -> dict[str, Any]:
    prompt = render_published(example.messages)
    return {
        "prompt": prompt,
        "answer": answer,
        "period": example.target.period,
        "label": example.label.text,
        "symbol": example.symbol,
        "as_of": example.as_of.isoformat(),
        "target_start": example.target.start.isoformat(),
        "target_end": example.target.end.isoformat(),
        "weekly_return_pct": example.weekly_return_pct,
        "start_price": example.start_price,
        "end_price": example.end_price,
        "news_ids": list(example.news_ids),
        "filing": example.filing,
        "flags": list(example.flags),
        "teacher": teacher,
        "prompt_sha256": hashlib.sha256(prompt.encode()).hexdigest(),
    }


def to_dataset(rows: Sequence[Mapping[str, Any]]) -> datasets.Dataset:
    """Rows by week, then by symbol; the fingerprint is the content's, so that saved files are equal."""
    ordered = sorted(rows, key=lambda row: (row["target_end"], row["symbol"]))
    digest = hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).hexdigest()
    return datasets.Dataset(pa.Table.from_pylist(ordered, schema=SCHEMA), fingerprint=digest[:16])


def save(parts: datasets.DatasetDict, folder: Path) -> None:
    """`save_to_disk`, and a parquet file for each split beside it."""
    parts.save_to_disk(str(folder))
    (folder / "parquet").mkdir()
    for name, part in parts.items():
        pq.write_table(part.data.table, folder / "parquet" / f"{name}.parquet", compression="zstd")


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """`manifest.json`: sha256 of every other file of the folder, and `content`; written last."""
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    text = json.dumps({"files": files, **content}, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def replace_folder(finished: Path, target: Path) -> None:
    """Put a finished folder where it belongs; a kill in between never leaves a mixture of old and new."""
    previous = target.with_name(target.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        target.rename(previous)
    finished.rename(target)
    shutil.rmtree(previous, ignore_errors=True)


# --- what became of every symbol-week -----------------------------------------------------------------------


@dataclass
class Tally:
    """Counts over a build; every wanted symbol-week is in exactly one of rows, embargoed, dropped."""

    states: dict[tuple[str, date], str] = field(default_factory=dict)
    """`train`, `test`, `embargo`, or why it was dropped, by symbol of the day and week end."""
    articles: dict[tuple[str, date], int] = field(default_factory=dict)
    """Articles received, by vendor's symbol and week end."""
    cut_off_days: dict[str, int] = field(default_factory=dict)
    incomplete_weeks: dict[str, int] = field(default_factory=dict)
    """Weeks of which some news may be missing, by symbol."""
    missing_price_days: dict[str, int] = field(default_factory=dict)
    flags: Counter[str] = field(default_factory=Counter)

    def reasons(self) -> Counter[str]:
        return Counter(self.states.values())


def render_card(
    name: str,
    parts: Mapping[str, datasets.Dataset],
    tally: Tally,
    facts: Mapping[str, str],
    notes: Sequence[str],
) -> str:
    """The dataset card: what it holds, what it lacks, where it comes from."""
    labels = {split: Counter(part["label"]) for split, part in parts.items()}
    files = "\n".join(f"      - split: {split}\n        path: parquet/{split}.parquet" for split in parts)
    reasons = tally.reasons()
    kept = {split: reasons.pop(split, 0) for split in ("train", "test")}
    return (
        "\n\n".join(
            [
                f"---\nconfigs:\n  - config_name: default\n    data_files:\n{files}\n---",
                f"# {name}",
                "Weekly stock forecasting rows: news, financials and prices that were public before a week "
                "began; an answer; and what the price then did. Not financial advice.",
                tabulate(facts.items(), headers=("", ""), tablefmt="github"),
                "## What became of every symbol-week",
                tabulate(
                    [*kept.items(), *sorted(reasons.items(), key=lambda item: (-item[1], item[0]))],
                    headers=("symbol-weeks", "count"),
                    tablefmt="github",
                ),
                "![Coverage, labels, articles a week, returns](overview.png)",
                "## Labels",
                tabulate(
                    [[label.text, *(labels[split][label.text] for split in parts)] for label in ALL_LABELS],
                    headers=("label", *parts),
                    tablefmt="github",
                ),
                "## Coverage by symbol",
                tabulate(_coverage_rows(tally), headers=_COVERAGE_HEADERS, tablefmt="github"),
                "## Notes",
                "\n".join(f"- {note}" for note in notes),
            ]
        )
        + "\n"
    )


_COVERAGE_HEADERS = (
    "symbol",
    "rows",
    "not used",
    "articles",
    "weeks with incomplete news",
    "days over the call limit",
    "days without a price",
)


def _coverage_rows(tally: Tally) -> list[list[Any]]:
    by_symbol: dict[str, Counter[bool]] = {}
    for (symbol, _), state in tally.states.items():
        by_symbol.setdefault(symbol, Counter())[state in ("train", "test")] += 1
    articles: Counter[str] = Counter()
    for (symbol, _), count in tally.articles.items():
        articles[symbol] += count
    return [
        [
            symbol,
            counts[True],
            counts[False],
            articles[symbol],
            tally.incomplete_weeks.get(symbol, 0),
            tally.cut_off_days.get(symbol, 0),
            tally.missing_price_days.get(symbol, 0),
        ]
        for symbol, counts in sorted(by_symbol.items())
    ]
