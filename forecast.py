"""Forecast a stock's coming week with a fine-tuned adapter, from what is public as of a day.

    python forecast.py --adapter finetuned_models/embedded_20260101000000 --symbol AAPL
    python forecast.py --adapter DIR --symbol AAPL --date 2026-03-06
    python forecast.py --adapter DIR --prompt prompt.txt

Needs FINNHUB_API_KEY in .env, or --news_file. What was asked once stays in data/ledger.sqlite; the answer is
kept with all that it was made from, in forecasts/AAPL_2026-03-06.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from forecaster import exits
from forecaster.jobs.forecast_config import parse_flags
from forecaster.settings import Settings

WAYS_ON = exits.WaysOn(
    vendor="The same command goes on later.",
    disk="Mend this (is the disk full?), and run it again.",
    interrupted="Stopped. What was asked for is kept.",
)


def main(argv: Sequence[str], now: datetime | None = None) -> int:
    """
    Args:
        now: UTC; None is the clock's.
    """
    at = now or datetime.now(UTC)
    return exits.run_entry("forecast.py", WAYS_ON, lambda settings: run(argv, settings, at))


def run(argv: Sequence[str], settings: Settings, now: datetime) -> int:
    config = parse_flags(argv)
    # Only now: what a help or a misspelt flag needs is light.
    from forecaster.jobs import forecast
    from forecaster.progress import at_terminal

    forecast.forecast(config, settings, now, at_terminal())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
