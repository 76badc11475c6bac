"""What forecasts from closes alone gain over climatology, on real closes of an index's members of each week.

    python bench/size_forecasts.py PRICES.csv [PRICES.csv ...] --index NASDAQ_100 --first_day 2023-12-01

Log score in nats a row, over how often each bin happened in all weeks before (with one more row in each); the
interval keeps the rows of one week together. Seconds for two and a half years of 100 stocks.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tabulate import tabulate

from forecaster.data.price_files import closes_of
from forecaster.data.weeks import trading_weeks
from forecaster.evaluation.price_forecasts import Closes, price_forecasts
from forecaster.evaluation.rows import with_returns
from forecaster.evaluation.statistics import over_weeks
from forecaster.records import Label, Row, TradingWeek
from forecaster.tasks.distributions import Distribution, climatology, log_score
from indices import constituents


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("price_files", type=Path, nargs="+")
    parser.add_argument("--index", default="NASDAQ_100")
    parser.add_argument("--first_day", type=date.fromisoformat, default=date(2023, 12, 1))
    parser.add_argument("--last_day", type=date.fromisoformat, default=date(2026, 4, 30))
    args = parser.parse_args(argv)
    closes = closes_of(args.price_files)
    rows = rows_of(args.index, args.first_day, args.last_day, closes)
    before = rows_of(args.index, first_close_of(args.price_files, args.index), args.first_day, closes)
    usual = climatologies(before, rows)
    table = []
    for name, forecasts in price_forecasts(rows, closes).items():
        gains = [
            (log_score(given, row.actual) - log_score(of_all, row.actual), row.week)
            for row, given, of_all in zip(rows, forecasts, usual, strict=True)
            if given and row.actual
        ]
        found = over_weeks([(gain, 1.0) for gain, _ in gains], [week for _, week in gains])
        table.append((name, len(gains), f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"))
    print(f"{args.index}, {rows[0].start} to {rows[-1].end}, {len({row.week for row in rows})} weeks\n")
    print(tabulate(table, headers=("", "rows", "nats a row over climatology"), tablefmt="github"))
    return 0


def rows_of(index: str, first: date, last: date, closes: Closes) -> list[Row]:
    """A row for every member and week whose return the closes tell."""
    now = datetime(2100, 1, 1, tzinfo=UTC)
    found: list[Row] = []
    for week in trading_weeks("XNYS", first, last, now):
        members = sorted(constituents(index, week.start))
        asked = with_returns([row_of(symbol, week) for symbol in members], closes)
        found += [labelled(row) for row in asked if row.return_pct is not None]
    return found


def row_of(symbol: str, week: TradingWeek) -> Row:
    return Row(f"{symbol} {week.period}", symbol, week.start, week.end, None, prompt="", reference="")


def labelled(row: Row) -> Row:
    move = row.return_pct or 0.0
    return replace(row, actual=Label.of_move("down" if move < 0 else "up", abs(move)))


def first_close_of(files: Sequence[Path], index: str) -> date:
    """The earliest day that any of today's members has a close of."""
    closes = closes_of(files)
    return min(min(known) for symbol in constituents(index, date.today()) if (known := closes(symbol)))


def climatologies(before: Sequence[Row], rows: Sequence[Row]) -> list[Distribution]:
    """For each row, of all weeks that had ended when its own began."""
    waiting = sorted([*before, *rows], key=lambda row: row.end or date.max)
    counts: Counter[Label] = Counter()
    found, at = [], 0
    for row in rows:
        while (ended := waiting[at].end) and row.start and ended <= row.start:
            counts[waiting[at].actual or Label("up", 0)] += 1
            at += 1
        found.append(climatology(counts))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
