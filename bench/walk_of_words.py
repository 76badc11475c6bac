"""What a classifier of words, fitted anew at each cut, makes of years of rows: what a walk has to beat.

    python bench/walk_of_words.py rows.jsonl [--every 26] [--embargo_weeks 4]

The cuts are those of walk_forward.py. Seconds for 1,900 rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tabulate import tabulate

from forecaster.data.splits import MAX_PAST_WEEKS, TEST, TRAIN, blocks, cut
from forecaster.evaluation.gains import gain
from forecaster.evaluation.metrics import skill
from forecaster.evaluation.report.tables import number, with_interval
from forecaster.evaluation.rows import rows_of_dataset
from forecaster.evaluation.text_forecasts import training_of
from forecaster.records import Row
from forecaster.tasks.weekly import WEEKLY
from forecaster.tasks.weekly_baselines import SYMBOL_CLIMATOLOGY, TEXT, baselines
from forecaster.tasks.weekly_rows import Forecast


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--every", type=int, default=26)
    parser.add_argument("--embargo_weeks", type=int, default=MAX_PAST_WEEKS)
    args = parser.parse_args(argv)
    lines = args.rows.read_text(encoding="utf-8").split("\n")
    given = [json.loads(line) for line in lines if line]
    rows = rows_of_dataset(given, WEEKLY)
    keys = [WEEKLY.key(row) for row in given]
    tested: list[Row] = []
    words: list[Forecast] = []
    usual: list[Forecast] = []
    table = []
    for block in blocks(keys, args.every, args.embargo_weeks):
        parts = cut([key.start for key in keys], block, args.embargo_weeks)
        test = [rows[at] for at in parts[TEST]]
        said = baselines(test, training_of([rows[at] for at in parts[TRAIN]], test))
        table.append(
            line(str(block.test_from), len(parts[TRAIN]), said[TEXT], said[SYMBOL_CLIMATOLOGY], test)
        )
        tested, words, usual = tested + test, words + said[TEXT], usual + said[SYMBOL_CLIMATOLOGY]
    table.append(line("all", 0, words, usual, tested))
    headers = (
        *("cut", "training rows", "weeks", "accuracy", "rises", "rank correlation", "t"),
        "log score over climatology by symbol",
    )
    print(tabulate(table, headers=headers, tablefmt="github", disable_numparse=True))
    return 0


def line(
    name: str, trained: int, words: Sequence[Forecast], usual: Sequence[Forecast], rows: Sequence[Row]
) -> tuple[str, ...]:
    found, over = skill(words, rows), gain((TEXT, words), (SYMBOL_CLIMATOLOGY, usual), rows)
    return (
        name,
        str(trained or ""),
        str(found.weeks),
        with_interval(found.accuracy_of_all_rows, 3),
        number(found.actual_up_share.value, 3),
        with_interval(found.rank_correlation, 3),
        number(found.rank_correlation_t, 2),
        with_interval(over.log_score, 3) if over else "",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
