"""The flags of `data_pipeline.py`, and everything about them that can be wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from forecaster.data.universe import find_universe
from forecaster.errors import ConfigurationError, Problem
from forecaster.flags import FlagParser
from forecaster.settings import Settings

STAGES = ("plan", "fetch", "label", "build", "audit", "describe", "convert")
EARLIEST_START = date(2006, 1, 1)
FREE_TIER_CALLS_PER_MINUTE = 60
"""Of Finnhub's free plan; paid plans allow more, and no plan more than 30 a second."""
FREE_TIER_DAYS = 365
"""About how far back the vendor's free plan serves company news."""


@dataclass(frozen=True)
class PipelineConfig:
    """Flags as given, typed; FinGPT's names where it has them."""

    stage: str
    """One of `STAGES`, or `all`."""
    dataset: str | None
    index_name: str
    start_date: date
    end_date: date
    min_past_weeks: int
    max_past_weeks: int
    train_ratio: float
    current_members: bool
    data_folder: Path
    news_file: tuple[Path, ...]
    price_file: tuple[Path, ...]
    with_indicators: bool
    with_macro: bool
    calls_per_minute: int
    teacher: str
    teacher_blind: bool
    teacher_model: str | None
    input_usd_per_million_tokens: float | None
    output_usd_per_million_tokens: float | None
    max_cost_usd: float | None
    concurrency: int
    model: str | None
    from_remote: bool
    push_to_hub: str | None
    yes: bool

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


def _parser() -> FlagParser:
    parser = FlagParser(
        prog="data_pipeline.py",
        description="News, filings and prices of an index -> weekly forecasting dataset. Without a stage: "
        "plan, fetch, label, build and audit, each going on where it stopped.",
    )
    add = parser.add_argument
    add("stage", nargs="?", default="all", metavar="stage", help=f"one of {', '.join(STAGES)}")
    add("dataset", nargs="?", help="for describe, convert and audit: any dataset that train_lora.py takes")
    what = parser.add_argument_group("what to build")
    add = what.add_argument
    add("--index_name", default="dow", help="dow, nasdaq, euro, crypto, a comma list or a file of tickers")
    add("--start_date", default="", help="YYYY-MM-DD; weeks lie wholly between the two dates")
    add("--end_date", default="", help="YYYY-MM-DD")
    add("--min_past_weeks", type=int, default=1, help="weeks of history that a row needs")
    add("--max_past_weeks", type=int, default=4, help="weeks of history that a prompt shows")
    add(
        "--train_ratio",
        type=float,
        default=0.6,
        help="share of weeks for training; then a gap of max_past_weeks",
    )
    add("--current_members", action="store_true", help="today's members for all weeks, as FinGPT does")
    add("--with_indicators", action="store_true", help="SMA, EMA, RSI and MACD in the prompts")
    add(
        "--with_macro",
        action="store_true",
        help="S&P 500, VIX, ten-year yield, dollar and oil in the prompts",
    )
    source = parser.add_argument_group("where it comes from")
    add = source.add_argument
    add("--data_folder", type=Path, default=Path("data"), help="holds ledger.sqlite and the datasets")
    files: dict[str, Any] = {"type": Path, "nargs": "+", "action": "extend", "default": []}
    add("--news_file", **files, help="your news: csv, jsonl, parquet (FNSPID, Finnhub)")
    add("--price_file", **files, help="your daily closes: csv, jsonl, parquet")
    add("--calls_per_minute", type=int, default=FREE_TIER_CALLS_PER_MINUTE, help="of your Finnhub plan")
    teacher = parser.add_argument_group("who writes the answers")
    add = teacher.add_argument
    add("--teacher", default="openai", help="openai (any compatible endpoint) or template (offline)")
    add("--teacher_model", help="default: OPENAI_MODEL")
    add("--teacher_blind", action="store_true", help="do not tell the teacher what the price then did")
    add("--concurrency", type=int, default=8, help="teacher requests in flight")
    add("--input_usd_per_million_tokens", type=float, help="the teacher's price, for estimates and the limit")
    add("--output_usd_per_million_tokens", type=float)
    add(
        "--max_cost_usd",
        type=float,
        help="stop before the teacher has cost more, in all runs of this ledger with its model",
    )
    other = parser.add_argument_group("other")
    add = other.add_argument
    add("--model", help="for describe (token counts) and convert (chat template): alias, hub id or folder")
    add(
        "--from_remote",
        action="store_true",
        help="take the dataset to describe, convert or audit from the hub",
    )
    add("--push_to_hub", metavar="OWNER/NAME", help="upload the finished dataset; needs HF_TOKEN")
    add("--yes", action="store_true", help="do not ask before spending calls and tokens")
    return parser


def parse_flags(argv: Sequence[str], settings: Settings, now: datetime) -> PipelineConfig:
    """Typed flags; raises ConfigurationError with everything that is wrong with them."""
    # Intermixed, as the dataset may stand apart from the stage.
    values = vars(_parser().parse_intermixed_args(argv))
    if swallowed := _swallowed_stages(values):
        # Alone, as the rest would be judged by another stage.
        raise ConfigurationError(swallowed)
    problems: list[Problem] = []
    values["start_date"] = _date(values, "start_date", problems)
    values["end_date"] = _date(values, "end_date", problems)
    values["news_file"], values["price_file"] = tuple(values["news_file"]), tuple(values["price_file"])
    values["teacher_model"] = values["teacher_model"] or settings.openai_model
    config = PipelineConfig(**values)
    if config.needs_dataset or config.dataset:
        problems = _dataset_problems(config)
    else:
        problems += _value_problems(config, now) + _index_problems(config) + _key_problems(config, settings)
    if problems:
        raise ConfigurationError(problems)
    return config


def _swallowed_stages(values: dict[str, Any]) -> list[Problem]:
    """Stages that were taken for one more file of a flag that takes several."""
    return [
        Problem(f"--{flag}", f"takes the stage {str(path)!r} for a file.", "Put the stage first.")
        for flag in ("news_file", "price_file")
        for path in values[flag]
        if str(path) in STAGES and not path.is_file()
    ]


def _date(values: dict[str, Any], flag: str, problems: list[Problem]) -> date:
    try:
        return date.fromisoformat(values[flag])
    except ValueError:
        found = f"is {values[flag]!r}." if values[flag] else "is missing."
        problems.append(Problem(f"--{flag}", found, "Give a day as YYYY-MM-DD."))
        return date.max if flag == "end_date" else EARLIEST_START


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


def _value_problems(config: PipelineConfig, now: datetime) -> list[Problem]:
    problems = []

    def need(holds: bool, flag: str, allowed: str) -> None:
        if not holds:
            found = getattr(config, flag)
            problems.append(
                Problem(f"--{flag}", f"is {found if isinstance(found, date) else repr(found)}.", allowed)
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
    need(0 < config.train_ratio < 1, "train_ratio", "It is a share of weeks, above 0 and below 1.")
    problems += pace_problems(config.calls_per_minute)
    need(config.teacher in ("openai", "template"), "teacher", "Use openai or template.")
    need(1 <= config.concurrency <= 256, "concurrency", "It has to be 1 to 256.")
    for flag in ("input_usd_per_million_tokens", "output_usd_per_million_tokens", "max_cost_usd"):
        value = getattr(config, flag)
        need(value is None or 0 <= value < float("inf"), flag, "It has to be 0 or more.")
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
    if 1 <= calls_per_minute <= 1800:
        return []
    way_out = "Finnhub allows 60 on the free plan, and at most 30 a second (1800) on any."
    return [Problem("--calls_per_minute", f"is {calls_per_minute}.", way_out)]


def no_finnhub_key() -> Problem:
    way_out = f"{_put('FINNHUB_API_KEY')} Or bring your own news with --news_file."
    return Problem("FINNHUB_API_KEY", "is missing.", way_out)


def no_company_news(flag: str, name: str) -> Problem:
    """An index or symbol outside North America."""
    found = f"is {name}, for which Finnhub has no company news."
    return Problem(flag, found, "Bring news with --news_file (csv, jsonl or parquet).")


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
    return problems


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    host = re.fullmatch(r"[\w.:-]+", parts.hostname or "")
    return parts.scheme in ("http", "https") and host is not None and port != 0
