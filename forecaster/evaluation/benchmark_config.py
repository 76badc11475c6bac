"""The flags of `benchmark.py`, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Literal

from forecaster.errors import ConfigurationError, Problem
from forecaster.evaluation.answer_files import PREDICTION, PROMPT, REFERENCE, Columns
from forecaster.flags import Program, flag, read_words, typed

STAGES = ("generate", "score", "compare", "report")
DEFAULT_MAX_LENGTH, DEFAULT_MAX_NEW_TOKENS = 4096, 512
WORK, WHO, ROWS, FIGURES = "what to do", "who answers", "what is answered", "figures"


@dataclass(frozen=True)
class BenchmarkConfig:
    """Every flag of benchmark.py."""

    stage: str = flag("all", f"one of {', '.join(STAGES)}", WORK, metavar="stage", positional=True)
    runs: tuple[str, ...] = flag(
        (),
        "for score, report and compare: a run's folder, a benchmark folder, or a csv, jsonl or parquet file "
        "of answers; for compare also a training log, and NAME=ANSWERS,LOG",
        WORK,
        metavar="RUN",
        positional=True,
    )
    adapter: Path | None = flag(
        None, "the output folder of train_lora.py: base and fine-tuned model answer", WHO
    )
    base_model: str | None = flag(
        None,
        "alias, hub id or folder: this model alone answers; with --adapter: where its base lies now",
        WHO,
    )
    dataset: str | None = flag(
        None,
        "the test split of a dataset, or all rows of one without splits",
        ROWS,
        shown="the test rows of the adapter's training",
    )
    from_remote: bool = flag(False, "take --dataset from the hub", ROWS)
    allow_told_outcome: bool = flag(
        False, "answer --dataset although its prompts say how their week ends", ROWS
    )
    checkpoints: Literal["all"] | None = flag(
        None,
        "compare all checkpoints on the validation part of the training (--validation_share), and take the "
        "best one to the test rows",
        WHO,
    )
    engine: Literal["auto", "hf", "vllm", "api"] = flag(
        "auto",
        "auto: vllm where it is installed and there is a GPU, else hf; api: an OpenAI-compatible endpoint "
        "(OPENAI_API_KEY, OPENAI_BASE_URL)",
        WHO,
    )
    api_model: str | None = flag(None, "with --engine api", WHO, shown="OPENAI_MODEL")
    concurrency: int = flag(8, "with --engine api: requests in flight", WHO)
    batch_size: int | None = flag(None, "prompts generated together", WHO, shown="16, or what the GPU holds")
    max_length: int | None = flag(None, "tokens of prompt and answer", WHO, shown="as given to train_lora.py")
    max_new_tokens: int | None = flag(
        None, "longest answer, in tokens", WHO, shown="as given to train_lora.py"
    )
    precision: Literal["auto", "fp32", "fp16", "bf16"] = flag(
        "auto", "of the numbers in the model, with --base_model", WHO
    )
    quantization: Literal["none", "4bit"] = flag("none", "of the base weights, with --base_model", WHO)
    trust_remote_code: bool = flag(False, "run code that a model repository brings along", WHO)
    knowledge_cutoff: date | None = flag(
        None, "last day that the model may have read of", FIGURES, shown="that of the models we know"
    )
    prediction_column: str = flag(
        PREDICTION, "column of the answers in a file of answers", ROWS, metavar="NAME"
    )
    reference_column: str = flag(
        REFERENCE, "column of the right ones in a file of answers", ROWS, metavar="NAME"
    )
    prompt_column: str = flag(PROMPT, "column of the prompts in a file of answers", ROWS, metavar="NAME")
    price_file: tuple[Path, ...] = flag((), "daily closes: real returns for the backtest", FIGURES)
    cost_bps: float = flag(10.0, "cost of trading, in basis points of what is traded", FIGURES)
    name: str | None = flag(
        None, "what a scored file is called in tables", FIGURES, metavar="NAME", shown="its file name"
    )
    output_dir: Path | None = flag(
        None,
        "folder of answers, figures and report",
        FIGURES,
        shown="in the run's folder, else below benchmarks/",
    )
    report_to: Literal["wandb", "none"] | None = flag(
        None, "where figures and pictures also go", FIGURES, shown="as the training did; else none"
    )
    local_rank: int = flag(0, "set by the launcher", WHO)

    @property
    def answers(self) -> bool:
        return self.stage in ("all", "generate")

    @property
    def columns(self) -> Columns:
        return Columns(self.prediction_column, self.reference_column, self.prompt_column)


PROGRAM = Program(
    "benchmark.py",
    BenchmarkConfig,
    "Answers of models to test rows, and what they are worth. Without a stage: generate, score and report.",
    (
        "python benchmark.py --adapter finetuned_models/embedded_20260101000000",
        'python benchmark.py compare finetuned_models/a finetuned_models/b "GPT=answers.csv"',
    ),
)


MOST_AT_ONCE = 256
"""Requests in flight, as for the teacher."""


def parse_flags(argv: Sequence[str]) -> BenchmarkConfig:
    """Raises ConfigurationError with everything wrong."""
    config, problems = typed(BenchmarkConfig, read_words(PROGRAM, argv))
    if config.stage in ("score", "report", "compare") and config.adapter and not config.runs:
        # What answers by this flag is also scored by it.
        config = replace(config, runs=(str(config.adapter),), adapter=None)
    problems += [*_stage_problems(config), *_idle_problems(config), *_value_problems(config)]
    if problems:
        raise ConfigurationError(problems)
    return config


def _stage_problems(config: BenchmarkConfig) -> list[Problem]:
    if config.stage not in ("all", *STAGES):
        found = f"{config.stage!r} is no stage."
        return [Problem("command line", found, f"Stages: {', '.join(STAGES)}.")]
    if config.answers:
        problems = [_unwanted(config)] if config.runs else []
        if config.adapter is None and config.base_model is None and not _asks_api_alone(config):
            found = "neither is given."
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
    for name, value, default in (
        ("--precision", config.precision, "auto"),
        ("--quantization", config.quantization, "none"),
    ):
        if config.adapter and value != default:
            found = "goes with --base_model only: an adapter answers as it was trained."
            problems.append(Problem(name, found, "Leave it out."))
    if not config.answers and (config.adapter or config.base_model):
        name = "--adapter" if config.adapter else "--base_model"
        way_out = f"Leave it out; {config.stage} works on the runs and files that are named after it."
        problems.append(Problem(name, f"answers rows, and {config.stage} does not.", way_out))
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
    for name in ("batch_size", "max_new_tokens", "max_length", "concurrency"):
        value = getattr(config, name)
        if value is not None and value < 1:
            problems.append(Problem(f"--{name}", f"is {value}.", "It has to be 1 or more."))
    if config.concurrency > MOST_AT_ONCE:
        found = f"is {config.concurrency}."
        problems.append(Problem("--concurrency", found, f"It has to be {MOST_AT_ONCE} or less."))
    if not 0 <= config.cost_bps < 10_000:
        found = f"is {config.cost_bps:g}."
        problems.append(Problem("--cost_bps", found, "It is in basis points: 0 or more, below 10,000."))
    return problems
