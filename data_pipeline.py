"""Turn the news, filings and prices of an index into a weekly forecasting dataset.

From the embedded sample, offline:

    python data_pipeline.py --index_name AAPL,MSFT --start_date 2025-08-25 --end_date 2026-04-24 \
        --news_file sample/news.csv --price_file sample/weekly_closes.csv --teacher template

The NASDAQ-100, with FINNHUB_API_KEY and OPENAI_API_KEY in .env; the cost is shown before it is spent:

    python data_pipeline.py --index_name nasdaq --start_date 2025-12-01 --end_date 2026-05-01

Stop it whenever you like: the same command goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from forecaster import exits
from forecaster.data.pipeline_config import parse_flags
from forecaster.settings import Settings

WAYS_ON = exits.WaysOn(
    vendor="Nothing is lost: the same command goes on later.",
    disk="Mend this (is the disk full?); the same command then goes on.",
    interrupted="Stopped. Nothing is lost: the same command goes on from here.",
)


def main(argv: Sequence[str]) -> int:
    return exits.run_entry("data_pipeline.py", WAYS_ON, lambda settings: run(argv, settings))


def run(argv: Sequence[str], settings: Settings) -> int:
    now = datetime.now(UTC)
    config = parse_flags(argv, settings, now)
    # Only now: what a help or a misspelt flag needs is light.
    import datasets

    from forecaster.jobs import inspect_dataset, pipeline
    from forecaster.progress import at_terminal

    datasets.disable_progress_bars()
    if config.dataset:
        is_done = inspect_dataset.inspect(config, at_terminal())
    else:
        is_done = pipeline.make_dataset(config, settings, now, at_terminal(), agree).is_done
    return 0 if is_done else 1


def agree() -> bool:
    """Ask where somebody is there to ask; elsewhere the command is the answer."""
    if sys.stdin is None or not sys.stdin.isatty():
        return True
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
