"""The flags of `benchmark.py`, and what can be wrong with them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from forecaster.errors import ConfigurationError, Problem
from forecaster.evaluation.answer_files import PREDICTION, PROMPT, REFERENCE, Columns
from forecaster.flags import FlagParser

Stage = Literal["all", "generate", "score", "compare", "report"]
STAGES: tuple[str, ...] = get_args(Stage)[1:]
Engine = Literal["auto", "hf", "vllm", "api"]
DEFAULT_MAX_LENGTH, DEFAULT_MAX_NEW_TOKENS = 4096, 512
DEFAULT_COST_BPS = 10.0


@dataclass(frozen=True)
class BenchmarkConfig:
    """Flags as given, typed."""

    stage: Stage
    runs: tuple[str, ...]
    adapter: Path | None
    base_model: str | None
    dataset: str | None
    from_remote: bool
    checkpoints: Literal["all"] | None
    engine: Engine
    api_model: str | None
    concurrency: int
    batch_size: int | None
    max_length: int | None
    max_new_tokens: int | None
    precision: Literal["auto", "fp32", "fp16", "bf16"]
    quantization: Literal["none", "4bit"]
    trust_remote_code: bool
    knowledge_cutoff: date | None
    prediction_column: str
    reference_column: str
    prompt_column: str
    price_file: tuple[Path, ...]
    cost_bps: float
    name: str | None
    output_dir: Path | None
    report_to: Literal["wandb", "none"] | None
    local_rank: int

    @property
    def answers(self) -> bool:
        return self.stage in ("all", "generate")

    @property
    def columns(self) -> Columns:
        return Columns(self.prediction_column, self.reference_column, self.prompt_column)


def _parser() -> FlagParser:
    parser = FlagParser(
        prog="benchmark.py",
        description="Answers of models to test rows, and what they are worth. Without a stage: generate, "
        "score and report.",
    )
    add = parser.add_argument
    add("stage", nargs="?", default="all", metavar="stage", help=f"one of {', '.join(STAGES)}")
    add(
        "runs",
        nargs="*",
        metavar="RUN",
        help="for score, report and compare: a run's folder, a benchmark folder, or a csv, jsonl or parquet "
        "file of answers; for compare also a training log, and NAME=ANSWERS,LOG",
    )
    who = parser.add_argument_group("who answers")
    add = who.add_argument
    add("--adapter", type=Path, help="output folder of train_lora.py: base and fine-tuned model answer")
    add("--base_model", help="alias, hub id or folder: this model alone answers")
    add(
        "--checkpoints",
        choices=("all",),
        help="compare all checkpoints on the validation part of the training (--validation_share), and take "
        "the best one to the test rows",
    )
    add(
        "--engine",
        choices=get_args(Engine),
        default="auto",
        help="auto: vllm where it is installed and there is a GPU, else hf; api: an OpenAI-compatible "
        "endpoint (OPENAI_API_KEY, OPENAI_BASE_URL)",
    )
    add("--api_model", help="with --engine api; default: OPENAI_MODEL")
    add("--concurrency", type=int, default=8, help="with --engine api: requests in flight")
    add("--batch_size", type=int, help="prompts generated together; default: 16, or what the GPU holds")
    add("--max_new_tokens", type=int, help="longest answer in tokens; default: as given to train_lora.py")
    add("--max_length", type=int, help="tokens of prompt and answer; default: as given to train_lora.py")
    add("--precision", choices=("auto", "fp32", "fp16", "bf16"), default="auto", help="with --base_model")
    add("--quantization", choices=("none", "4bit"), default="none", help="with --base_model")
    add("--trust_remote_code", action="store_true", help="run code that a model repository brings along")
    what = parser.add_argument_group("what is answered")
    add = what.add_argument
    add(
        "--dataset",
        help="the test split of a dataset, or all rows of one without splits; default: the test rows of the "
        "adapter's training",
    )
    add("--from_remote", action="store_true", help="take --dataset from the hub")
    add("--prediction_column", default=PREDICTION, help="of a file of answers (default: %(default)s)")
    add("--reference_column", default=REFERENCE, help="of a file of answers (default: %(default)s)")
    add("--prompt_column", default=PROMPT, help="of a file of answers (default: %(default)s)")
    how = parser.add_argument_group("figures")
    add = how.add_argument
    add("--price_file", type=Path, nargs="+", default=[], help="daily closes: real returns for the backtest")
    add("--cost_bps", type=float, default=DEFAULT_COST_BPS, help="cost of trading (default: %(default)s)")
    add(
        "--knowledge_cutoff",
        type=_day,
        help="YYYY-MM-DD: last day that the model may have read of; default: that of the models we know",
    )
    add("--name", help="what a scored file is called in tables; default: its file name")
    add("--output_dir", type=Path, help="default: in the run's folder, else below benchmarks/")
    add("--report_to", choices=("wandb", "none"), help="default: as the training did; else none")
    add("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day as YYYY-MM-DD") from None


def parse_flags(argv: Sequence[str]) -> BenchmarkConfig:
    """Raises ConfigurationError with everything wrong."""
    values: dict[str, Any] = vars(_parser().parse_intermixed_args(argv))
    values["runs"], values["price_file"] = tuple(values["runs"]), tuple(values["price_file"])
    if (
        values["stage"] in STAGES
        and values["stage"] != "generate"
        and values["adapter"]
        and not values["runs"]
    ):
        # What answers by this flag is also scored by it.
        values |= {"runs": (str(values["adapter"]),), "adapter": None}
    config = BenchmarkConfig(**values)
    problems = [*_stage_problems(config), *_idle_problems(config), *_value_problems(config)]
    if problems:
        raise ConfigurationError(problems)
    return config


def _stage_problems(config: BenchmarkConfig) -> list[Problem]:
    if config.stage not in ("all", *STAGES):
        found = f"{config.stage!r} is no stage."
        return [Problem("command line", found, f"Stages: {', '.join(STAGES)}.")]
    if config.answers:
        problems = [_unwanted(config)] if config.runs else []
        if (config.adapter is None) == (config.base_model is None) and not _asks_api_alone(config):
            found = "both are given." if config.adapter else "neither is given."
            way_out = "Give one: the output folder of train_lora.py, or a model to answer as it is."
            problems.append(Problem("--adapter, --base_model", found, way_out))
        if config.adapter is None and config.dataset is None:
            way_out = "Name the rows to answer, such as a .jsonl file or dow30-202305-202405."
            problems.append(Problem("--dataset", "is missing.", way_out))
        if config.checkpoints and config.adapter is None:
            problems.append(
                Problem("--checkpoints", "goes with --adapter only.", "Name the run's output folder.")
            )
        return problems
    if not config.runs:
        found = f"{config.stage} needs something to work on."
        return [Problem("command line", found, "Name a run's folder, or a file of answers.")]
    if config.stage == "report" and len(config.runs) > 1:
        return [Problem("command line", "report takes one run.", "`compare` puts several side by side.")]
    return []


def _idle_problems(config: BenchmarkConfig) -> list[Problem]:
    """Flags that would do nothing where they stand."""
    problems = []
    if config.api_model is not None and config.engine != "api":
        problems.append(Problem("--api_model", "goes with --engine api only.", "Add it, or leave this out."))
    if config.checkpoints and config.engine == "api":
        found = "has nothing to load with --engine api."
        problems.append(Problem("--checkpoints", found, "Leave one of the two out."))
    for flag, value, default in (
        ("--precision", config.precision, "auto"),
        ("--quantization", config.quantization, "none"),
    ):
        if config.adapter and value != default:
            found = "goes with --base_model only: an adapter answers as it was trained."
            problems.append(Problem(flag, found, "Leave it out."))
    if not config.answers and (config.adapter or config.base_model):
        flag = "--adapter" if config.adapter else "--base_model"
        way_out = f"Leave it out; {config.stage} works on the runs and files that are named after it."
        problems.append(Problem(flag, f"answers rows, and {config.stage} does not.", way_out))
    if config.name is not None and len(config.runs) > 1:
        problems.append(Problem("--name", "goes with one run only.", "Tell runs apart as NAME=PATH."))
    if config.output_dir and config.stage == "score" and len(config.runs) > 1:
        found = "is one folder for the figures of several runs."
        problems.append(Problem("--output_dir", found, "Score one at a time, or `compare` them."))
    return problems


def _asks_api_alone(config: BenchmarkConfig) -> bool:
    return config.engine == "api" and config.adapter is None and config.base_model is None


def _unwanted(config: BenchmarkConfig) -> Problem:
    found = f"{config.stage if config.stage != 'all' else 'a benchmark'} takes no {config.runs[0]!r}."
    return Problem("command line", found, f"Stages: {', '.join(STAGES)}; flags look like `--name value`.")


def _value_problems(config: BenchmarkConfig) -> list[Problem]:
    problems = []
    for flag in ("batch_size", "max_new_tokens", "max_length", "concurrency"):
        value = getattr(config, flag)
        if value is not None and value < 1:
            problems.append(Problem(f"--{flag}", f"is {value}.", "It has to be 1 or more."))
    if not 0 <= config.cost_bps < 10_000:
        found = f"is {config.cost_bps:g}."
        problems.append(Problem("--cost_bps", found, "It is in basis points: 0 or more, below 10,000."))
    return problems
