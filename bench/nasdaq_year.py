"""The whole pipeline over a year, stage by stage, each a process of its own: time, memory and size.

Against the loopback market, so that calls take no time of their own; fetch is paced at 1800 calls a minute:

    python bench/nasdaq_year.py                        # 118 symbols, 100 articles a week each
    python bench/nasdaq_year.py --members --keep DIR   # NASDAQ_100's members of each week; keeps the dataset
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

from loopback_market import Market, World
from news_calls import draw_rates

import indices

FIRST_DAY, LAST_DAY = date(2025, 4, 28), date(2026, 5, 1)
"""53 weeks, the first of which is history only: 52 to forecast."""
SYMBOLS = 118
SEED = 1
MOST_MIB = 1024
STAGES = ("plan", "fetch", "label", "build", "audit")
GONE = frozenset({"ANSS"})
"""Taken over in the range; its prices are no longer served."""


def world_of(members: bool) -> World:
    """Either today's Dow and NASDAQ names at a flat rate, or all members of the year at drawn rates."""
    if members:
        days = [date(2025, month, 1) for month in range(4, 13)] + [
            date(2026, month, 1) for month in range(1, 6)
        ]
        names = {
            indices.vendor_symbol(symbol)
            for day in days
            for symbol in indices.constituents("NASDAQ_100", day)
        }
        symbols = tuple(sorted(names | {"VSNT", "SOLS"}))
        rates = draw_rates(symbols, 54, SEED, 100.4)
        return World(symbols, FIRST_DAY, LAST_DAY, seed=SEED, rates=rates, dead=GONE)
    symbols = tuple(sorted({*indices.NASDAQ_100, *indices.DOW_30}))[:SYMBOLS]
    return World(symbols, FIRST_DAY, LAST_DAY, seed=SEED, articles_per_week=100)


def run_stage(stage: str, folder: Path, flags: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall seconds and peak MiB of one stage; its words go to the terminal."""
    command = [sys.executable, str(ROOT / "data_pipeline.py"), stage, *flags]
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{stage} ended with status {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, usage.ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--members", action="store_true", help="NASDAQ_100 as it was in each week")
    parser.add_argument("--train_ratio", default="0.6")
    parser.add_argument("--keep", type=Path, help="copy the data folder here")
    options = parser.parse_args()
    world = world_of(options.members)
    with tempfile.TemporaryDirectory() as name, Market(world) as market:
        folder = Path(name)
        (folder / "symbols.txt").write_text("\n".join(world.symbols))
        flags = ["--index_name", "nasdaq" if options.members else "symbols.txt"]
        flags += ["--start_date", str(FIRST_DAY), "--end_date", str(LAST_DAY), "--calls_per_minute", "1800"]
        flags += ["--train_ratio", options.train_ratio, "--teacher_model", "loopback-teacher"]
        environment = market.environment()
        measured = {stage: run_stage(stage, folder, flags, environment) for stage in STAGES}
        articles = sum(len(world.article_ids(symbol)) for symbol in world.symbols)
        size_mb = sum(p.stat().st_size for p in (folder / "data").glob("fing*/**/*") if p.is_file()) / 1e6
        ledger_mb = (folder / "data" / "ledger.sqlite").stat().st_size / 1e6
        print(
            f"seed {SEED}: {len(world.symbols)} symbols, {articles:,} articles; "
            f"requests {dict(market.counts())}"
        )
        print(f"ledger {ledger_mb:.0f} MB, dataset {size_mb:.0f} MB")
        if options.keep:
            shutil.copytree(folder / "data", options.keep, dirs_exist_ok=True)
    for stage, (seconds, mib) in measured.items():
        print(f"{stage}: {seconds:.0f} s, peak {mib:.0f} MiB")
    return 0 if max(mib for _, mib in measured.values()) <= MOST_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
