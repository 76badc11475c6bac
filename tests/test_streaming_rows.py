"""Rows stay in files: reading and tokenising more of them takes hardly more memory.

bench/streaming_rows.py does the same with 200,000 rows, and looks at the whole process.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import datasets
import pyarrow
import pytest
import tiny_tokenizers

from bench.streaming_rows import invented_rows, write_parquet
from forecaster.data import sources
from forecaster.tasks.weekly import WEEKLY
from forecaster.training import tokenising

T = TypeVar("T")
ROW_BYTES = 6_000


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def peak_bytes(work: Callable[[], T]) -> tuple[int, T]:
    """Peak of what Python objects took more than before, and the result."""
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def load(folder: Path, count: int) -> sources.Corpus:
    path = folder / f"rows_{count}.parquet"
    write_parquet(path, count, ROW_BYTES)
    return sources.load(sources.resolve(str(path), False, "--dataset"), None, task=WEEKLY)


def test_reading_holds_a_few_hundred_bytes_a_row_of_six_thousand(tmp_path: Path) -> None:
    few_bytes, _ = peak_bytes(lambda: load(tmp_path, 2_000))
    arrow_bytes = pyarrow.total_allocated_bytes()
    many_bytes, corpus = peak_bytes(lambda: load(tmp_path, 5_000))
    assert len(corpus.train) + len(corpus.test) == 5_000
    assert (many_bytes - few_bytes) / 3_000 < 1_000
    # Arrow's own memory, outside of files: row ids, and returns that nobody knows.
    assert (pyarrow.total_allocated_bytes() - arrow_bytes) / 5_000 < 200


def test_tokenising_holds_a_few_hundred_bytes_a_row(tmp_path: Path) -> None:
    """A batch of rows waits for the file; the rows after it take its place."""
    tokenizer = tiny_tokenizers.llama3()

    def tokenise(count: int) -> tokenising.RowReport:
        texts = [f"AAPL? {i} {'it ' * 50}" for i in range(count)]
        data = datasets.Dataset.from_dict({"prompt": texts, "answer": ["buy"] * count})
        data.add_column("row_id", [str(i) for i in range(count)]).save_to_disk(tmp_path / str(count))
        return tokenising.tokenise(datasets.load_from_disk(tmp_path / str(count)), tokenizer, 4096, WEEKLY)[1]

    few_bytes, few = peak_bytes(lambda: tokenise(1_000))
    many_bytes, many = peak_bytes(lambda: tokenise(2_000))
    assert (few.kept, many.kept) == (1_000, 2_000)
    token_bytes = 2 * 8 * (many.tokens - few.tokens) / 1_000  # ids and labels, as Python lists
    assert token_bytes > 1_500
    assert (many_bytes - few_bytes) / 1_000 < 1_000


def test_the_rows_that_are_measured_are_all_different() -> None:
    texts = {row["prompt"] + row["answer"] for row in invented_rows(500, ROW_BYTES)}
    assert len(texts) == 500
    assert 5_500 < sum(map(len, texts)) / 500 < 6_500
