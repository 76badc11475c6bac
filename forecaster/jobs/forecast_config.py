"""The flags of `forecast.py`, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from forecaster.data.pipeline_config import MOST_WEEKS, pace_problems
from forecaster.errors import ConfigurationError, Problem
from forecaster.flags import REQUIRED, Program, flag, read_words, typed
from forecaster.vendors.registry import FINNHUB

WHAT, SOURCE = "what to forecast", "where the facts come from, as for data_pipeline.py"
RECIPE = "what the prompt shows; default: what the adapter was trained on"
FILES = "csv, jsonl, parquet"


@dataclass(frozen=True)
class ForecastConfig:
    """Every flag of forecast.py: a symbol's week is asked for, or the answer to a text."""

    adapter: Path = flag(
        REQUIRED, "the output folder of train_lora.py, or of walk_forward.py: its newest", WHAT
    )
    base_model: str | None = flag(None, "where its base model lies now, if it was moved", WHAT)
    symbol: str | None = flag(None, "one ticker, such as AAPL or BRK.B", WHAT)
    date: date | None = flag(
        None, "forecast from the last week-end close up to that day", WHAT, shown="today"
    )
    prompt: Path | None = flag(None, "answer this text instead, without data", WHAT, metavar="FILE")
    max_new_tokens: int | None = flag(
        None, "longest answer, in tokens", WHAT, shown="as given to train_lora.py"
    )
    trust_remote_code: bool = flag(False, "run Python code that the base model brings along", WHAT)
    data_folder: Path = flag(Path("data"), "holds ledger.sqlite", SOURCE)
    news_file: tuple[Path, ...] = flag((), f"your news: {FILES} (FNSPID, Finnhub)", SOURCE)
    price_file: tuple[Path, ...] = flag((), f"your daily closes: {FILES}", SOURCE)
    calls_per_minute: int = flag(FINNHUB.calls_per_minute, "calls a minute of your Finnhub plan", SOURCE)
    min_past_weeks: int | None = flag(None, "weeks of history that a prompt needs", RECIPE)
    max_past_weeks: int | None = flag(None, "weeks of history that a prompt shows", RECIPE)
    with_indicators: bool | None = flag(None, "SMA, EMA, RSI and MACD in the prompt", RECIPE)
    with_macro: bool | None = flag(None, "S&P 500, VIX, ten-year yield, dollar and oil in the prompt", RECIPE)

    def find_problems(self) -> list[Problem]:
        """What contradicts itself, or lies outside its range."""
        problems = []
        if bool(self.symbol) == bool(self.prompt):
            both = "--symbol and --prompt are both given."
            found = both if self.symbol else "neither --symbol nor --prompt."
            problems.append(Problem("command line", found, "Give one of the two."))
        if self.prompt and (self.date or self.news_file or self.price_file):
            way_out = "Leave --date, --news_file and --price_file out: a prompt is answered as it is."
            problems.append(Problem("--prompt", "takes no data.", way_out))
        ranges = {"max_new_tokens": None, "min_past_weeks": MOST_WEEKS, "max_past_weeks": MOST_WEEKS}
        for name, most in ranges.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= (most or value):
                way_out = f"It has to be 1 {f'to {most}' if most else 'or more'}."
                problems.append(Problem(f"--{name}", f"is {value}.", way_out))
        return problems + pace_problems(self.calls_per_minute)


PROGRAM = Program(
    "forecast.py",
    ForecastConfig,
    "Forecast a stock's coming week with a fine-tuned adapter, from what is public as of a day.",
    (
        "python forecast.py --adapter finetuned_models/RUN --symbol AAPL --date 2026-03-06",
        "python forecast.py --adapter finetuned_models/RUN --prompt prompt.txt",
    ),
)


def parse_flags(argv: Sequence[str]) -> ForecastConfig:
    """Typed flags; raises ConfigurationError with everything that is wrong with them."""
    config, problems = typed(ForecastConfig, read_words(PROGRAM, argv))
    if problems := problems + config.find_problems():
        raise ConfigurationError(problems)
    return config
