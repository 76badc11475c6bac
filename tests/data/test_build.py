"""Rows, their order, and a dataset folder that is the same whenever it is made from the same rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pytest

from forecaster.data import build
from forecaster.data.join import SymbolData
from forecaster.data.store import Stored
from forecaster.data.weeks import trading_weeks
from forecaster.records import Article, Close, Company, Example, Label, Messages, PriceHistory

LATER = datetime(2026, 6, 1, tzinfo=UTC)
WEEKS = trading_weeks("XNYS", date(2025, 12, 1), date(2025, 12, 19), LATER)
EXAMPLE = Example(
    symbol="AAPL",
    target=WEEKS[0],
    messages=Messages("Be brief.", "AAPL rose."),
    label=Label("up", 2),
    weekly_return_pct=2.5316,
    start_price=278.85,
    end_price=285.91,
    news_ids=("finnhub:7", "file:0a1b"),
    filing="0000320193-25-000079",
    flags=("news_incomplete",),
)
PROMPT = "[INST]<<SYS>>\nBe brief.\n<</SYS>>\n\nAAPL rose.[/INST]"


def rows() -> list[dict[str, Any]]:
    return [
        build.row_of(replace(EXAMPLE, symbol=symbol, target=week), f"{symbol} up", "template")
        for symbol in ("MSFT", "AAPL")
        for week in reversed(WEEKS)
    ]


def save(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> Path:
    parts = datasets.DatasetDict(train=build.to_dataset(train), test=build.to_dataset(test))
    build.save(parts, folder)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


# --- names and rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("universe", "past_weeks", "ratio", "name"),
    [
        ("nasdaq-100", (1, 4), 0.6, "fingpt-forecaster-nasdaq-100-20251201-20260501-1-4-06"),
        ("dow-30", (2, 2), 0.75, "fingpt-forecaster-dow-30-20251201-20260501-2-2-075"),
        ("aapl", (1, 10), 0.5, "fingpt-forecaster-aapl-20251201-20260501-1-10-05"),
    ],
)
def test_a_folder_is_named_as_fingpt_names_its_own(
    universe: str, past_weeks: tuple[int, int], ratio: float, name: str
) -> None:
    assert build.folder_name(universe, date(2025, 12, 1), date(2026, 5, 1), *past_weeks, ratio) == name


def test_a_row_has_the_five_published_columns_and_then_where_it_comes_from() -> None:
    assert list(build.row_of(EXAMPLE, "It rose.", "template").items()) == [
        ("prompt", PROMPT),
        ("answer", "It rose."),
        ("period", "2025-11-28 to 2025-12-05"),
        ("label", "up by 2-3%"),
        ("symbol", "AAPL"),
        # The day after Thanksgiving ends at 13:00 in New York.
        ("as_of", "2025-11-28T18:00:00+00:00"),
        ("target_start", "2025-11-28"),
        ("target_end", "2025-12-05"),
        ("weekly_return_pct", 2.5316),
        ("start_price", 278.85),
        ("end_price", 285.91),
        ("news_ids", ["finnhub:7", "file:0a1b"]),
        ("filing", "0000320193-25-000079"),
        ("flags", ["news_incomplete"]),
        ("teacher", "template"),
        ("prompt_sha256", hashlib.sha256(PROMPT.encode()).hexdigest()),
    ]


def test_rows_stand_by_week_and_then_by_symbol() -> None:
    part = build.to_dataset(rows())
    assert list(zip(part["target_end"], part["symbol"], strict=True)) == [
        ("2025-12-05", "AAPL"),
        ("2025-12-05", "MSFT"),
        ("2025-12-12", "AAPL"),
        ("2025-12-12", "MSFT"),
        ("2025-12-19", "AAPL"),
        ("2025-12-19", "MSFT"),
    ]
    assert part.column_names == list(rows()[0])
    assert part.features["news_ids"] == datasets.List(datasets.Value("string"))
    assert part.features["weekly_return_pct"] == datasets.Value("float64")


def test_the_fingerprint_is_the_contents() -> None:
    one, other = build.to_dataset(rows()), build.to_dataset(rows()[::-1])
    changed = build.to_dataset([rows()[0] | {"answer": "MSFT down"}, *rows()[1:]])
    assert one._fingerprint == other._fingerprint
    assert changed._fingerprint != one._fingerprint


def test_no_rows_have_the_same_columns() -> None:
    part = build.to_dataset([])
    assert (len(part), part.features) == (0, build.to_dataset(rows()).features)


# --- the folder ---------------------------------------------------------------------------------------------


def test_the_same_rows_in_any_order_make_the_same_bytes(tmp_path: Path) -> None:
    one = save(tmp_path / "one", rows()[:4], rows()[4:])
    other = save(tmp_path / "elsewhere" / "other", rows()[:4][::-1], rows()[4:])
    for folder in (one, other):
        (folder / build.CARD).write_text("# Rows\n")
        build.write_manifest(folder, {"arguments": {"train_ratio": 0.6}})
    assert sorted(files_of(one)) == [
        "README.md",
        "dataset_dict.json",
        "manifest.json",
        "parquet/test.parquet",
        "parquet/train.parquet",
        "test/data-00000-of-00001.arrow",
        "test/dataset_info.json",
        "test/state.json",
        "train/data-00000-of-00001.arrow",
        "train/dataset_info.json",
        "train/state.json",
    ]
    assert files_of(one) == files_of(other)
    assert str(tmp_path).encode() not in b"".join(files_of(one).values())


def test_the_manifest_holds_a_hash_of_every_other_file_and_what_it_was_given(tmp_path: Path) -> None:
    folder = save(tmp_path / "rows", rows()[:4], rows()[4:])
    build.write_manifest(folder, {"ledger_sha256": "0a1b", "arguments": {"index_name": "größe"}})
    manifest = json.loads((folder / build.MANIFEST).read_text(encoding="utf-8"))
    contents = files_of(folder)
    del contents[build.MANIFEST]
    assert manifest == {
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        "ledger_sha256": "0a1b",
        "arguments": {"index_name": "größe"},
    }
    assert len(manifest["files"]) == 9


def test_a_folder_loads_as_saved_and_as_parquet(tmp_path: Path) -> None:
    folder = save(tmp_path / "rows", rows()[:4], rows()[4:])
    saved = datasets.load_from_disk(str(folder))
    files = {name: str(folder / "parquet" / f"{name}.parquet") for name in ("train", "test")}
    parquet = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in saved.items()} == {"train": 4, "test": 2}
    for name, part in saved.items():
        assert part.column_names[:5] == ["prompt", "answer", "period", "label", "symbol"]
        assert parquet[name].features == part.features
        assert parquet[name].to_list() == part.to_list()
    assert saved["test"].to_list() == sorted(rows()[4:], key=lambda row: row["target_end"])


def test_a_finished_folder_takes_the_place_of_the_old_one_as_a_whole(tmp_path: Path) -> None:
    target, finished = tmp_path / "rows", tmp_path / "rows.building"
    for folder, name in ((target, "old.txt"), (finished, "new.txt")):
        folder.mkdir()
        (folder / name).write_text(name)
    build.replace_folder(finished, target)
    assert files_of(tmp_path) == {"rows/new.txt": b"new.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_what_an_earlier_kill_left_behind_goes(tmp_path: Path) -> None:
    target, finished, previous = (tmp_path / name for name in ("rows", "rows.building", "rows.previous"))
    for folder in (finished, previous):
        folder.mkdir()
        (folder / "file.txt").write_text(folder.name)
    build.replace_folder(finished, target)
    assert files_of(tmp_path) == {"rows/file.txt": b"rows.building"}
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


# --- what became of every symbol-week -----------------------------------------------------------------------


def stored(prices: PriceHistory | None, malformed_articles: int) -> Stored:
    """News of each day of December at noon; all is known of its first 13 days but for one of them."""
    noon = datetime(2025, 12, 1, 12, tzinfo=UTC)
    articles = [Article(f"finnhub:{n}", noon + timedelta(days=n), "Headline", "") for n in range(31)]
    covered = [(datetime(2025, 11, 1, tzinfo=UTC), datetime(2025, 12, 13, tzinfo=UTC))]
    data = SymbolData(Company("AAPL", "Apple", "", ""), prices, True, False, articles, covered, {})
    return Stored(data, (), frozenset({date(2025, 12, 9)}), malformed_articles)


def test_what_was_received_of_each_symbol_is_counted() -> None:
    one = Close(Decimal(1), Decimal(1))
    known = build.Received.of(stored(PriceHistory({date(2025, 12, 5): one}, {}), 2), WEEKS, WEEKS[1:])
    gone = build.Received.of(stored(None, 1), WEEKS, WEEKS[:1])
    assert known == build.Received(
        {date(2025, 12, 12): 7, date(2025, 12, 19): 7},
        malformed_articles=2,
        cut_off_days=1,
        incomplete_weeks=1,
        weeks_without_price=2,
    )
    assert gone == build.Received({date(2025, 12, 5): 5}, 1, 1, 0, 3)
    assert build.Tally(received={"AAPL": known, "GONE": gone}).articles == {
        ("AAPL", date(2025, 12, 12)): 7,
        ("AAPL", date(2025, 12, 19)): 7,
        ("GONE", date(2025, 12, 5)): 5,
    }


def test_reasons_are_counted_over_all_symbols() -> None:
    states = {
        ("AAPL", date(2025, 12, 5)): "train",
        ("AAPL", date(2025, 12, 12)): "no news in its past weeks",
        ("MSFT", date(2025, 12, 5)): "train",
    }
    assert build.Tally(states=states).reasons() == {"train": 2, "no news in its past weeks": 1}
