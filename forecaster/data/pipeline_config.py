"""The flags of `data_pipeline.py`, and everything about them that can be wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import urlsplit

from forecaster.data.splits import MAX_PAST_WEEKS
from forecaster.data.universe import find_universe
from forecaster.errors import ConfigurationError, Problem
from forecaster.flags import Program, flag, read_words, typed
from forecaster.network_settings import hub_problems, network_problems
from forecaster.settings import Settings
from forecaster.vendors.registry import FINNHUB

STAGES = ("plan", "fetch", "label", "build", "audit", "describe", "convert")
EARLIEST_START = date(2006, 1, 1)


WORK, WHAT, SOURCE = "what to do", "what to build", "where it comes from"
TEACHER, OTHER = "who writes the answers", "other"
FILES = "csv, jsonl, parquet"


@dataclass(frozen=True)
class PipelineConfig:
    """Every flag of data_pipeline.py; FinGPT's names where it has them."""

    stage: str = flag("all", f"one of {', '.join(STAGES)}", WORK, metavar="stage", positional=True)
    dataset: str | None = flag(
        None,
        "for describe, convert and audit: any dataset that train_lora.py takes",
        WORK,
        metavar="dataset",
        positional=True,
    )
    index_name: str = flag("dow", "dow, nasdaq, euro, crypto, a comma list or a file of tickers", WHAT)
    start_date: date = flag(
        EARLIEST_START, "needed for a dataset; its weeks lie wholly between the two dates", WHAT, shown=""
    )
    end_date: date = flag(date.max, "needed for a dataset", WHAT, shown="")
    min_past_weeks: int = flag(1, "weeks of history that a row needs", WHAT)
    max_past_weeks: int = flag(MAX_PAST_WEEKS, "weeks of history that a prompt shows", WHAT)
    train_ratio: float = flag(0.6, "share of weeks for training; then a gap of max_past_weeks", WHAT)
    current_members: bool = flag(False, "today's members for all weeks, as FinGPT does", WHAT)
    data_folder: Path = flag(Path("data"), "holds ledger.sqlite and the datasets", SOURCE)
    news_file: tuple[Path, ...] = flag((), f"your news: {FILES} (FNSPID, Finnhub)", SOURCE)
    price_file: tuple[Path, ...] = flag((), f"your daily closes: {FILES}", SOURCE)
    with_indicators: bool = flag(False, "SMA, EMA, RSI and MACD in the prompts", WHAT)
    with_macro: bool = flag(False, "S&P 500, VIX, ten-year yield, dollar and oil in the prompts", WHAT)
    calls_per_minute: int = flag(FINNHUB.calls_per_minute, "calls a minute of your Finnhub plan", SOURCE)
    teacher: str = flag(
        "openai",
        "openai (any compatible endpoint) or template (offline)",
        TEACHER,
        metavar="{openai,template}",
    )
    teacher_blind: bool = flag(False, "do not tell the teacher what the price then did", TEACHER)
    teacher_model: str | None = flag(None, "its name at the endpoint", TEACHER, shown="OPENAI_MODEL")
    input_usd_per_million_tokens: float | None = flag(
        None, "US dollars for what the teacher reads, for estimates and the limit", TEACHER, metavar="USD"
    )
    output_usd_per_million_tokens: float | None = flag(
        None, "US dollars for what the teacher writes", TEACHER, metavar="USD"
    )
    max_cost_usd: float | None = flag(
        None,
        "stop before the teacher has cost more US dollars, in all runs of this ledger with its model",
        TEACHER,
        metavar="USD",
        shown="no limit",
    )
    concurrency: int = flag(8, "teacher requests in flight", TEACHER)
    model: str | None = flag(
        None, "for describe (token counts) and convert (chat template): alias, hub id or folder", OTHER
    )
    from_remote: bool = flag(False, "take the dataset to describe, convert or audit from the hub", OTHER)
    push_to_hub: str | None = flag(
        None, "upload the finished dataset; needs HF_TOKEN", OTHER, metavar="OWNER/NAME"
    )
    yes: bool = flag(False, "do not ask before spending calls and tokens", OTHER)

    @property
    def needs_dataset(self) -> bool:
        return self.stage in ("describe", "convert")

    @property
    def fetches(self) -> bool:
        return self.stage in ("all", "fetch")

    @property
    def asks_teacher(self) -> bool:
        return self.stage in ("all", "label") and self.teacher == "openai"

    @property
    def needs_answers(self) -> bool:
        """Whether answers of the teacher are asked for, or looked up."""
        return self.stage in ("all", "label", "build") and self.teacher == "openai"


PROGRAM = Program(
    "data_pipeline.py",
    PipelineConfig,
    "News, filings and prices of an index -> weekly forecasting dataset. Without a stage: plan, fetch, "
    "label, build and audit, each going on where it stopped.",
    (
        "python data_pipeline.py --index_name AAPL,MSFT --start_date 2025-08-25 --end_date 2026-04-24 "
        "--news_file sample/news.csv --price_file sample/weekly_closes.csv --teacher template",
        "python data_pipeline.py --index_name nasdaq --start_date 2025-12-01 --end_date 2026-05-01",
    ),
)


def parse_flags(argv: Sequence[str], settings: Settings, now: datetime) -> PipelineConfig:
    """Typed flags; raises ConfigurationError with everything that is wrong with them."""
    texts = read_words(PROGRAM, argv)
    config, problems = typed(PipelineConfig, texts)
    if swallowed := _swallowed_stages(config):
        # Alone, as the rest would be judged by another stage.
        raise ConfigurationError(swallowed)
    config = replace(config, teacher_model=config.teacher_model or settings.openai_model)
    if config.needs_dataset or config.dataset:
        problems += _dataset_problems(config)
    else:
        problems += [
            Problem(f"--{name}", "is missing.", "Give a day as YYYY-MM-DD.")
            for name in ("start_date", "end_date")
            if name not in texts
        ]
        problems += _value_problems(config, now) + _index_problems(config) + _key_problems(config, settings)
    if problems:
        raise ConfigurationError(problems)
    return config


def _swallowed_stages(config: PipelineConfig) -> list[Problem]:
    """Stages that were taken for one more file of a flag that takes several."""
    return [
        Problem(f"--{name}", f"takes the stage {str(path)!r} for a file.", "Put the stage first.")
        for name, paths in (("news_file", config.news_file), ("price_file", config.price_file))
        for path in paths
        if str(path) in STAGES and not path.is_file()
    ]


def _stage_problems(config: PipelineConfig) -> list[Problem]:
    if config.stage in ("all", *STAGES):
        return []
    return [Problem("command line", f"{config.stage!r} is no stage.", f"Stages: {', '.join(STAGES)}.")]


def _dataset_problems(config: PipelineConfig) -> list[Problem]:
    problems = _stage_problems(config)
    if problems:
        return problems
    if config.stage not in ("audit", "describe", "convert"):
        problems.append(
            Problem(
                "command line",
                f"{config.stage!r} takes no dataset, and {config.dataset!r} is given.",
                f"Stages: {', '.join(STAGES)}; audit, describe and convert take a dataset.",
            )
        )
    elif not config.dataset:
        problems.append(
            Problem("command line", f"{config.stage} needs a dataset.", "Name it after the stage.")
        )
    if config.news_file:
        way_out = "To compare with news, audit without naming the dataset, with the flags it was built with."
        problems.append(Problem("--news_file", "is of no use beside a dataset.", way_out))
    if config.stage == "convert" and not config.model:
        problems.append(
            Problem("--model", "is missing.", "Name the model whose chat template the copy is for.")
        )
    return problems


MOST_WEEKS = 520
"""Ten years of history in one prompt; calendars end not far beyond."""


def _value_problems(config: PipelineConfig, now: datetime) -> list[Problem]:
    problems = []

    def need(holds: bool, name: str, allowed: str) -> None:
        if not holds:
            found = getattr(config, name)
            problems.append(
                Problem(f"--{name}", f"is {found if isinstance(found, date) else repr(found)}.", allowed)
            )

    problems += _stage_problems(config)
    today = now.astimezone(UTC).date()
    need(config.start_date >= EARLIEST_START, "start_date", f"It has to be {EARLIEST_START} or later.")
    need(config.start_date < today, "start_date", f"It has to be before today, {today}.")
    if config.start_date < today:
        need(config.end_date > config.start_date, "end_date", f"It has to be after {config.start_date}.")
    need(config.min_past_weeks >= 1, "min_past_weeks", "It has to be 1 or more.")
    need(
        config.max_past_weeks >= config.min_past_weeks,
        "max_past_weeks",
        f"It has to be --min_past_weeks ({config.min_past_weeks}) or more.",
    )
    need(config.max_past_weeks <= MOST_WEEKS, "max_past_weeks", f"It has to be {MOST_WEEKS} or less.")
    need(0 < config.train_ratio < 1, "train_ratio", "It is a share of weeks, above 0 and below 1.")
    problems += pace_problems(config.calls_per_minute)
    need(config.teacher in ("openai", "template"), "teacher", "Use openai or template.")
    need(1 <= config.concurrency <= 256, "concurrency", "It has to be 1 to 256.")
    for name in ("input_usd_per_million_tokens", "output_usd_per_million_tokens", "max_cost_usd"):
        value = getattr(config, name)
        need(value is None or 0 <= value < float("inf"), name, "It has to be 0 or more.")
    need(
        config.push_to_hub is None or bool(re.fullmatch(r"[\w.-]+/[\w.-]+", config.push_to_hub)),
        "push_to_hub",
        "It names a dataset on the hub: OWNER/NAME.",
    )
    if config.teacher == "template" and config.teacher_blind:
        problems.append(
            Problem(
                "--teacher_blind",
                "does not go with --teacher template.",
                "The template only restates what is known; it has to be told the outcome.",
            )
        )
    prices = (config.input_usd_per_million_tokens, config.output_usd_per_million_tokens)
    if config.max_cost_usd is not None and None in prices and config.teacher == "openai":
        problems.append(
            Problem(
                "--max_cost_usd",
                "cannot be kept without prices.",
                "Give --input_usd_per_million_tokens and --output_usd_per_million_tokens too.",
            )
        )
    return problems


def _index_problems(config: PipelineConfig) -> list[Problem]:
    try:
        find_universe(config.index_name)
    except ConfigurationError as error:
        return error.problems
    return []


def pace_problems(calls_per_minute: int) -> list[Problem]:
    """A pace that no Finnhub plan allows."""
    most = FINNHUB.most_calls_per_minute or FINNHUB.calls_per_minute
    if 1 <= calls_per_minute <= most:
        return []
    way_out = (
        f"{FINNHUB.name} allows {FINNHUB.calls_per_minute} on the free plan, and at most {most // 60} a "
        f"second ({most}) on any."
    )
    return [Problem("--calls_per_minute", f"is {calls_per_minute}.", way_out)]


def no_finnhub_key() -> Problem:
    way_out = f"{_put('FINNHUB_API_KEY')} Or bring your own news with --news_file."
    return Problem("FINNHUB_API_KEY", "is missing.", way_out)


def no_company_news(where: str, name: str) -> Problem:
    """An index or symbol outside North America."""
    found = f"is {name}, for which Finnhub has no company news."
    return Problem(where, found, "Bring news with --news_file (csv, jsonl or parquet).")


def _put(name: str) -> str:
    return f"Put {name}=... into .env, or set it in the environment."


def _key_problems(config: PipelineConfig, settings: Settings) -> list[Problem]:
    problems = []
    if config.fetches and not settings.finnhub_api_key and not config.news_file:
        problems.append(no_finnhub_key())
    if config.asks_teacher and not settings.openai_api_key:
        problems.append(
            Problem(
                "OPENAI_API_KEY",
                "is missing.",
                f"{_put('OPENAI_API_KEY')} Any word will do for a server without keys; "
                "--teacher template needs none.",
            )
        )
    if config.asks_teacher and settings.openai_base_url and not _is_web_address(settings.openai_base_url):
        way_out = "It begins with http:// or https:// and a host, as in http://127.0.0.1:8000/v1."
        problems.append(Problem("OPENAI_BASE_URL", "is no web address.", way_out))
    if config.needs_answers and not config.teacher_model:
        problems.append(Problem("--teacher_model", "is missing.", f"Name one. {_put('OPENAI_MODEL')}"))
    if config.push_to_hub and not settings.hf_token:
        problems.append(Problem("--push_to_hub", "needs HF_TOKEN.", _put("HF_TOKEN")))
    if config.push_to_hub:
        problems += hub_problems()
    # A plan is made to find out what a run would meet.
    asks_finnhub = bool(settings.finnhub_api_key) and config.stage in ("all", "plan", "fetch")
    if asks_finnhub or config.asks_teacher or (config.stage == "plan" and config.teacher == "openai"):
        problems += network_problems()
    return problems


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    host = re.fullmatch(r"[\w.:-]+", parts.hostname or "")
    return parts.scheme in ("http", "https") and host is not None and port != 0
