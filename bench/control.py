"""Whether the verdict finds an edge that is there, and none where none is: the sample with planted news.

    python bench/control.py [--seeds 5]

Of each seed a dataset of 400 training rows and 40 test weeks of eight symbols, with an edge of half a
standard deviation and with none, and what a classifier of words makes of its prompts. A minute.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "sample")]

import build_sample
from tabulate import tabulate

from forecaster.evaluation.metrics import skill
from forecaster.evaluation.rows import rows_of_dataset
from forecaster.evaluation.statistics import is_sure
from forecaster.evaluation.text_forecasts import text_forecasts
from forecaster.records import Row
from forecaster.tasks.weekly import WEEKLY
from forecaster.tasks.weekly_rows import Forecast


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args(argv)
    lines = [control(edge, seed) for edge in ("0.5", "0") for seed in range(args.seeds)]
    headers = ("edge", "seed", "accuracy", "rank correlation", "t", "direction")
    print(tabulate(lines, headers=headers, tablefmt="github", disable_numparse=True))
    return 0


def control(edge: str, seed: int) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder:
        build_sample.main(["--edge", edge, "--seed", str(seed), "--output_dir", folder])
        training, rows = (rows_of(Path(folder) / f"{name}.jsonl") for name in ("train", "test"))
    said = text_forecasts(training, rows)
    found = skill([Forecast.of_distribution(said[row.row_id]) for row in rows], rows)
    ranks = found.rank_correlation
    return (
        edge,
        str(seed),
        f"{found.accuracy_of_all_rows.value:.3f}",
        f"{ranks.value:.3f} [{ranks.low:.3f}, {ranks.high:.3f}]",
        f"{found.rank_correlation_t:.1f}",
        "skill" if is_sure(ranks, found.weeks) else "no skill seen",
    )


def rows_of(path: Path) -> tuple[Row, ...]:
    lines = path.read_text(encoding="utf-8").split("\n")
    return rows_of_dataset([json.loads(line) for line in lines if line], WEEKLY)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
