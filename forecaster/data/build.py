"""Examples and answers become a dataset folder: rows, card, manifest; the same inputs give the same bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from forecaster.data.news import covers
from forecaster.data.sources import MANIFEST, SHORT_NAME_PREFIX
from forecaster.data.store import Stored
from forecaster.files import differences, sha256_of, write_whole
from forecaster.records import Example, TradingWeek
from prompts import render_published

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
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    text = json.dumps({"files": files, **content}, indent=2, sort_keys=True, ensure_ascii=False)
    write_whole(folder / MANIFEST, text + "\n")


def changed_files(folder: Path) -> list[str]:
    """Files that are not what the manifest says, or are not there; the manifest itself where it cannot be
    read."""
    try:
        files = dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return [MANIFEST]
    return [name for name, _ in differences(folder, files)]


def changed_arguments(folder: Path, arguments: Mapping[str, Any]) -> list[str]:
    """Names of the arguments in which a dataset already in `folder` differs; empty where there is none."""
    try:
        earlier = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["arguments"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return sorted(name for name, value in arguments.items() if earlier.get(name) != value)


def replace_folder(finished: Path, target: Path) -> None:
    """Put a finished folder where it belongs; a kill in between never leaves a mixture of old and new."""
    previous = target.with_name(target.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        target.rename(previous)
    finished.rename(target)
    shutil.rmtree(previous, ignore_errors=True)


# --- what became of every symbol-week -----------------------------------------------------------------------


@dataclass(frozen=True)
class Received:
    """What was received of one symbol."""

    articles: Mapping[date, int]
    """By the end of the week."""
    malformed_articles: int
    cut_off_days: int
    incomplete_weeks: int
    """Weeks of which some news may be missing."""
    weeks_without_price: int
    """Weeks without a close at their end."""

    @classmethod
    def of(cls, stored: Stored, weeks: Sequence[TradingWeek], shown: Sequence[TradingWeek]) -> Received:
        """Count what was received of a symbol.

        Args:
            weeks: all weeks of the dataset.
            shown: those whose news prompts may show; that of the others was never asked for.
        """
        data = stored.data
        moments = [article.published_at for article in data.articles]
        return cls(
            {w.end: bisect_left(moments, w.end_close) - bisect_left(moments, w.start_close) for w in shown},
            stored.malformed_articles,
            len(stored.cut_off_days),
            sum(not covers(data.covered, week.start_close, week.end_close) for week in shown),
            sum(week.end not in data.prices.closes for week in weeks) if data.prices else len(weeks),
        )


@dataclass
class Tally:
    """Counts over a build; every wanted symbol-week has exactly one state."""

    states: dict[tuple[str, date], str] = field(default_factory=dict)
    """The split, or why there is no row, by vendor's symbol and week end."""
    received: dict[str, Received] = field(default_factory=dict)
    """By vendor's symbol."""

    @property
    def articles(self) -> dict[tuple[str, date], int]:
        """Articles received, by vendor's symbol and week end."""
        return {
            (symbol, end): n for symbol, found in self.received.items() for end, n in found.articles.items()
        }

    def reasons(self) -> Counter[str]:
        return Counter(self.states.values())
