"""The flags of a training run, their checks, and the record of what they resolved to. No torch in here."""

from __future__ import annotations

import importlib.util
import math
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE

from forecaster.data.splits import Block
from forecaster.errors import ConfigurationError, Problem
from forecaster.fit import ds_values
from forecaster.fit.ds_files import read_ds_config
from forecaster.fit.ds_values import FlagValues
from forecaster.fit.gpus import GPU_SYNTAX, parse_gpus
from forecaster.fit.hardware import Asked
from forecaster.fit.memory import weight_bytes
from forecaster.flags import REQUIRED, Program, flag, read_words, read_yaml, typed
from forecaster.models.registry import ALL_PROJECTIONS, BaseModel
from forecaster.models.tuners import DEFAULT_TUNER, TUNERS
from forecaster.models.tuners.base import TunerSettings
from forecaster.network_settings import hub_problems
from forecaster.settings import Settings
from forecaster.tasks.registry import DEFAULT_TASK, TASKS
from forecaster.training.survival import checkpoints

OUTPUT_FOLDER = Path("finetuned_models")
MIN_LENGTH = 16
_SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
)
ROWS, MODEL, LORA = "what is learnt", "the model", "LoRA"
STEPS, CHECKS, HARDWARE = "optimisation", "evaluation, checkpoints and logs", "what fits the hardware"
RUN = "the run"


@dataclass(frozen=True)
class TrainConfig:
    """Every flag of train_lora.py; a YAML file given with --config may set the same names."""

    base_model: str = flag(REQUIRED, "an alias (llama3.1-8b, qwen2.5-1.5b, ...), hub id, or folder", MODEL)
    dataset: str = flag(
        REQUIRED,
        "a comma list of folders (save_to_disk), .jsonl or .parquet files, short names "
        "(dow30-202305-202405) or hub ids; NAME*2 repeats its training rows",
        ROWS,
    )
    config: str | None = flag(
        None,
        "YAML file with any of these flags; flags on the command line win",
        RUN,
        metavar="FILE",
        by_hand="a file reads no other",
    )
    run_name: str = flag("forecaster", "names the output folder and the W&B run", RUN, metavar="NAME")
    test_dataset: str | None = flag(
        None, "test rows from elsewhere", ROWS, shown="the test split of --dataset"
    )
    test_from: date | None = flag(
        None,
        "cut the rows by date, whatever splits there are: the test are the weeks that start on this day or "
        "later; the last weeks before it, as many as a prompt shows, are left out",
        ROWS,
        shown="the splits of --dataset",
    )
    test_until: date | None = flag(
        None, "with --test_from: weeks that start on this day or later are left out", ROWS, shown="no end"
    )
    train_from: date | None = flag(
        None,
        "with --test_from: training weeks that start before this day are left out",
        ROWS,
        shown="all weeks",
    )
    train_until: date | None = flag(
        None,
        "with --test_from: training weeks that start on this day or later are left out",
        ROWS,
        shown="as many weeks before the test as a prompt shows",
    )
    validation_share: float = flag(
        0.0,
        "share of the training weeks, the latest, held out: --eval_steps then measures them, not the test",
        ROWS,
    )
    from_remote: bool = flag(False, "take hub ids and short names from the hub", ROWS)
    task: str = flag(DEFAULT_TASK, "what the rows are", ROWS, choices=TASKS)
    allow_told_outcome: bool = flag(
        False, "train on rows whose prompt says how its week ends, as a teacher's does", ROWS
    )
    max_length: int = flag(
        4096, "tokens of prompt and answer; longer rows lose their oldest news items", ROWS
    )
    trust_remote_code: bool = flag(
        False,
        "run Python code that a model repository brings along; on the command line only",
        MODEL,
        by_hand="a file is no consent",
    )

    precision: Literal["auto", "fp32", "fp16", "bf16"] = flag("auto", "auto: by GPU; fp32 on CPU", HARDWARE)
    quantization: Literal["auto", "none", "4bit"] = flag(
        "auto", "auto: 4bit when weights of the run's precision do not fit", HARDWARE
    )
    gradient_checkpointing: Literal["auto", "true", "false"] = flag(
        "auto",
        "recompute activations to save memory; auto: on a GPU, where nothing fits without, or what does is "
        "slower",
        HARDWARE,
    )
    fit: Literal["auto", "off"] = flag(
        "auto",
        "auto: of the settings that fit the GPU with the same rows per step, the fastest; off: as given",
        HARDWARE,
    )
    ds_config: str = flag(
        "auto",
        "path, a name in ds_configs/, or auto: by GPU and number of ranks",
        HARDWARE,
        metavar="FILE",
    )
    liger: bool = flag(
        False,
        "take Liger's fused kernels for norms, MLP and rotary positions (liger-kernel, a GPU)",
        HARDWARE,
    )
    local_rank: int = flag(
        -1, "set by the launcher", HARDWARE, by_hand="each rank has its own from the launcher"
    )
    tuner: str = flag(DEFAULT_TUNER, "how weights are tuned", MODEL, choices=TUNERS)
    from_adapter: Path | None = flag(
        None,
        "the output folder of another training: its adapter is trained on, in place of a new one",
        MODEL,
        shown="a new one",
    )

    lora_r: int = flag(8, "rank of the factors", LORA)
    lora_alpha: int = flag(16, "scale: updates are multiplied by alpha / r (rslora: alpha / sqrt(r))", LORA)
    lora_dropout: float = flag(0.1, "share of the inputs dropped before the factors", LORA)
    target_modules: str = flag(",".join(ALL_PROJECTIONS), "comma list of linear layers to adapt", LORA)

    batch_size: int = flag(
        1, "rows per device and micro step; in a file, of this and the next only the product is kept", STEPS
    )
    gradient_accumulation_steps: int = flag(16, "micro steps per optimizer step", STEPS)
    learning_rate: float = flag(5e-5, "peak learning rate", STEPS)
    weight_decay: float = flag(0.01, "AdamW's weight decay", STEPS)
    num_epochs: float = flag(3.0, "passes over the training rows", STEPS)
    max_steps: int = flag(
        -1, "optimizer steps; overrides --num_epochs when positive", STEPS, shown="-1, all epochs"
    )
    warmup_ratio: float = flag(0.03, "share of the steps with a linearly rising rate", STEPS)
    scheduler: str = flag(
        "constant", "course of the learning rate", STEPS, metavar=f"{{{','.join(_SCHEDULERS)}}}"
    )
    seed: int = flag(42, "seeds shuffling, dropout and LoRA initialisation", STEPS)
    num_workers: int = flag(0, "data loading processes per rank", STEPS)

    evaluation_strategy: Literal["no", "steps", "epoch"] = flag(
        "steps", "when to compute the test (or validation) loss and save", CHECKS
    )
    eval_steps: float = flag(
        0.1, "with steps: a count of optimizer steps, or, below 1, a fraction of all", CHECKS
    )
    save_total_limit: int = flag(
        2, "newest checkpoints that stay; older ones go when the next is complete", CHECKS
    )
    keep_best: bool = flag(
        False, "also keep the checkpoint with the lowest loss on the evaluated rows", CHECKS
    )
    log_interval: int = flag(10, "optimizer steps between log lines", CHECKS)
    report_to: Literal["wandb", "none"] = flag(
        "wandb", "wandb: online with WANDB_API_KEY, else offline", CHECKS
    )

    output_dir: str | None = flag(
        None, "folder of the run", RUN, metavar="PATH", shown="finetuned_models/<run_name>_<time>"
    )
    grace_seconds: float = flag(
        60.0, "seconds to save and leave after SIGTERM, SIGINT or SIGUSR1", RUN, metavar="SECONDS"
    )
    max_skipped_steps: int = flag(
        8, "more fp16 steps in a row than this, skipped because gradients overflowed, end the run", RUN
    )
    resume: bool = flag(
        False, "go on from the newest complete checkpoint of --output_dir or of --run_name", RUN
    )
    dry_run: bool = flag(False, "resolve, check and print everything; start nothing", RUN)

    plan: bool = flag(
        False, "print the memory and time that settings need, and the choice; start nothing", HARDWARE
    )

    gpu: str | None = flag(
        None,
        f"with --plan or --dry_run: for this GPU ({GPU_SYNTAX})",
        HARDWARE,
        metavar="GPU",
        shown="the machine's",
    )

    max_new_tokens: int = flag(512, "for the benchmark: longest answer, in tokens", MODEL)

    @property
    def block(self) -> Block | None:
        """How `--test_from` cuts; None: it does not."""
        if self.test_from is None:
            return None
        return Block(self.test_from, self.test_until, self.train_from, self.train_until)

    @property
    def target_module_names(self) -> tuple[str, ...]:
        return tuple(name for part in self.target_modules.split(",") if (name := part.strip()))

    @property
    def tuner_settings(self) -> TunerSettings:
        """A rank out of range, which `find_value_problems` reports, counts as 1."""
        rank, targets = max(1, self.lora_r), self.target_module_names
        return TunerSettings(rank, self.lora_alpha, self.lora_dropout, targets)


PROGRAM = Program(
    "train_lora.py",
    TrainConfig,
    "Fine-tune a chat model into a weekly stock forecaster.",
    (
        "python train_lora.py --config configs/embedded.yaml",
        "deepspeed --include localhost:0 train_lora.py --config configs/llama3.1-8b-a100.yaml",
    ),
)


def parse_flags(argv: Sequence[str]) -> TrainConfig:
    """Flags from a command line, under them those of its --config file.

    Raises:
        ConfigurationError: an unknown flag; a value that cannot be read; a YAML file that is missing or not a
            mapping of flags.
        SystemExit: the help was asked for (status 0).
    """
    given = read_words(PROGRAM, argv)
    filed = read_yaml(PROGRAM, given["config"]) if "config" in given else {}
    if "dataset" in given:
        filed.pop("test_dataset", None)  # a file's test rows belong to its training rows
    texts = filed | given
    if "plan" in given:
        texts.setdefault("dataset", "")  # a plan needs no rows
    config, problems = typed(TrainConfig, texts)
    if problems:
        raise ConfigurationError(problems)
    return config


MOST_STEPS = 10**9
"""Beyond any training; a schedule over more has no rate that a float could tell from zero."""


_MOST = {
    **dict.fromkeys(("batch_size", "gradient_accumulation_steps", "lora_r", "num_epochs"), 1_000_000),
    **dict.fromkeys(("max_length", "max_new_tokens"), 100_000_000),
    "grace_seconds": 1_000_000,
    "num_workers": 1024,
    "learning_rate": 1000,
    "weight_decay": 1000,
}
"""Upper ends of flags beyond which processes, memory or a clock run out before anything is said."""


def find_value_problems(config: TrainConfig) -> list[Problem]:
    """Values outside their range."""
    problems = []

    def need(holds: bool, name: str, allowed: str) -> None:
        if not holds:
            problems.append(Problem(f"--{name}", f"is {getattr(config, name)!r}.", allowed))

    at_least_one = ("batch_size", "gradient_accumulation_steps", "lora_r", "lora_alpha", "log_interval")
    for name in (*at_least_one, "save_total_limit"):
        need(getattr(config, name) >= 1, name, "It has to be 1 or more.")
    need(
        0 <= config.validation_share < 0.5,
        "validation_share",
        "It is a share of the training weeks: 0 or more, and below 0.5.",
    )
    for name, most in _MOST.items():
        value = getattr(config, name)
        need(not most < value < math.inf, name, f"It has to be {most:,} or less.")
    need(1 <= config.grace_seconds < math.inf, "grace_seconds", "It has to be 1 or more.")
    need(config.max_skipped_steps >= 1, "max_skipped_steps", "It has to be 1 or more.")
    need(
        not (config.keep_best and config.evaluation_strategy == "no"),
        "keep_best",
        "Without evaluation, no checkpoint is the best: use --evaluation_strategy steps.",
    )
    need(config.max_length >= MIN_LENGTH, "max_length", f"It has to be {MIN_LENGTH} tokens or more.")
    need(config.max_new_tokens >= 1, "max_new_tokens", "It has to be 1 or more.")
    need(  # a plan is of the training alone
        config.plan or config.max_new_tokens < config.max_length,
        "max_new_tokens",
        "It has to be below --max_length.",
    )
    need(0 < config.learning_rate < math.inf, "learning_rate", "It has to be above 0, for example 5e-5.")
    need(0 <= config.weight_decay < math.inf, "weight_decay", "It has to be 0 or more.")
    need(0 < config.num_epochs < math.inf, "num_epochs", "It has to be above 0.")
    need(
        config.max_steps == -1 or 0 < config.max_steps <= MOST_STEPS,
        "max_steps",
        f"Use a number of steps, at most {MOST_STEPS:,}, or -1 for all epochs.",
    )
    need(0 <= config.lora_dropout < 1, "lora_dropout", "It has to be 0 or more and below 1.")
    need(0 <= config.warmup_ratio < 1, "warmup_ratio", "It is a share of all steps: 0 or more, and below 1.")
    need(0 <= config.seed < 2**32, "seed", "It has to be 0 or more, and below 2**32.")
    need(config.num_workers >= 0, "num_workers", "It has to be 0 or more.")
    need(config.eval_steps > 0, "eval_steps", "Use a count of steps (50) or a fraction of all (0.1).")
    need(
        config.eval_steps < 1 or float(config.eval_steps).is_integer(),
        "eval_steps",
        "A count of steps is a whole number.",
    )
    need(config.scheduler in _SCHEDULERS, "scheduler", f"Use one of {', '.join(_SCHEDULERS)}.")
    need(config.gpu is None or parse_gpus(config.gpu) is not None, "gpu", f"Use one of {GPU_SYNTAX}.")
    need(
        config.gpu is None or config.dry_run or config.plan,
        "gpu",
        "It goes with --plan and --dry_run only; a run takes the machine's GPUs.",
    )
    need(
        re.fullmatch(r"\w[\w.-]{0,99}", config.run_name) is not None,
        "run_name",
        "It names a folder: at most 100 letters, digits, dots, dashes and underscores.",
    )
    need(bool(config.target_module_names), "target_modules", "Name at least one linear layer.")
    problems += _cut_problems(config)
    return problems + TUNERS[config.tuner].quantization_problems(config.quantization)


def _cut_problems(config: TrainConfig) -> list[Problem]:
    """`--test_from` beside flags that it cannot stand with, and those that stand with it alone."""
    if config.test_from is None:
        return [
            Problem(f"--{name}", f"is {getattr(config, name)} without --test_from.", "Give both, or neither.")
            for name in ("test_until", "train_from", "train_until")
            if getattr(config, name) is not None
        ]
    problems = []
    if config.test_until and config.test_until <= config.test_from:
        found = f"is {config.test_until}, and --test_from is {config.test_from}."
        problems.append(Problem("--test_until", found, "Give a later day."))
    if config.train_until and config.train_until > config.test_from:
        found = f"is {config.train_until}, and --test_from is {config.test_from}."
        problems.append(Problem("--train_until", found, "Give that day, or an earlier one."))
    end = config.train_until or config.test_from
    if config.train_from and config.train_from >= end:
        found = f"is {config.train_from}, and the training weeks end before {end}."
        problems.append(Problem("--train_from", found, "Give an earlier day."))
    if config.test_dataset is not None:
        found = f"is {config.test_from}, and --test_dataset names the test rows."
        problems.append(Problem("--test_from", found, "Give one of the two."))
    if not TASKS[config.task].has_dates:
        found = f"is {config.test_from}, and rows of the task {config.task} have no dates."
        problems.append(Problem("--test_from", found, "Leave it out."))
    return problems


def asked_quantization(config: TrainConfig) -> Literal["auto", "none", "4bit"]:
    """What --tuner leaves open of --quantization."""
    return TUNERS[config.tuner].asked_quantization(config.quantization)


def find_access_problems(model: BaseModel, settings: Settings) -> list[Problem]:
    """A model that this user cannot download."""
    if model.is_local or is_cached(model.location):
        return []
    problems = hub_problems()
    if model.spec and model.spec.gated and not settings.hf_token:
        problems.append(
            Problem(
                "--base_model",
                f"{model.location} is gated, and there is no HF_TOKEN.",
                "Accept its licence on its hub page and put HF_TOKEN into .env, or give a local folder.",
            )
        )
    return problems


def find_model_problems(config: TrainConfig, model: BaseModel) -> list[Problem]:
    """What cannot work with this model, wherever it runs: no such layers, too long a context."""
    problems = []
    unknown = [name for name in config.target_module_names if name not in ALL_PROJECTIONS]
    if model.shape and unknown:
        problems.append(
            Problem(
                "--target_modules",
                f"{', '.join(unknown)} can not be adapted in this model.",
                f"It has {', '.join(ALL_PROJECTIONS)}.",
            )
        )
    if model.context_length and config.max_length > model.context_length:
        problems.append(
            Problem(
                "--max_length",
                f"is {config.max_length}, but {config.base_model} reads {model.context_length} tokens.",
                f"Use --max_length {model.context_length} or less.",
            )
        )
    return problems


def find_quantization_problems(quantization: str) -> list[Problem]:
    if quantization == "4bit" and importlib.util.find_spec("bitsandbytes") is None:
        return [
            Problem(
                "--quantization",
                "4bit needs bitsandbytes, which is not installed.",
                "Run `pip install -r requirements-gpu.txt`, or use --quantization none.",
            )
        ]
    return []


def find_disk_problems(config: TrainConfig, model: BaseModel, output_dir: Path) -> list[Problem]:
    """Too little disk for the checkpoints and what is trained, or for the download of a hub model.

    A checkpoint holds the trained weights twice (as a model or adapter, and as DeepSpeed's), their fp32 copy
    and two Adam moments: 16 bytes a parameter in 16 bit. One more than stay is written before the oldest
    goes. What training leaves counts as another; a whole model has up to 4 bytes a parameter, those that are
    not trained too. Checkpoints that are there already, of a run that goes on, are not needed again.
    """
    trainable = saved = 0
    tuner = TUNERS[config.tuner]
    if model.shape:
        trainable, _ = tuner.parameter_counts(model.shape, config.tuner_settings)
        saved = tuner.saved_parameters(model.shape, config.tuner_settings)
    checkpoint = 16 * trainable + 4 * (saved - trainable)
    result = 16 * trainable if tuner.saves_adapter else 4 * saved
    kept = config.save_total_limit
    if config.evaluation_strategy == "steps" and 0 < config.eval_steps < 1:
        kept = min(kept, math.ceil(1 / config.eval_steps))  # no more are made
    present = sum(checkpoints.size_bytes(folder) for folder in checkpoints.folders(output_dir))
    needed = max(checkpoint * (kept + 1) + result - present, checkpoint + result)
    problems = disk_problem("--output_dir", output_dir, 50_000_000 + needed)
    if not model.is_local and model.shape and not is_cached(model.location):
        problems += disk_problem("HF_HOME", Path(HF_HUB_CACHE), weight_bytes(model.shape, four_bit=False))
    return problems


def is_cached(hub_id: str) -> bool:
    """Whether a hub model was downloaded before."""
    return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)


def disk_problem(where: str, folder: Path, needed_bytes: int) -> list[Problem]:
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free >= needed_bytes:
        return []
    return [
        Problem(
            where,
            f"{folder} has {free / 1e9:.2f} GB free, and the run may need {needed_bytes / 1e9:.2f} GB.",
            f"Free some space, or put {where} on a larger disk.",
        )
    ]


@dataclass(frozen=True)
class SchedulerChoice:
    """The scheduler as the Trainer names it, and a line when that differs from what was asked."""

    name: str
    note: str | None = None


def resolve_scheduler(config: TrainConfig) -> SchedulerChoice:
    if config.warmup_ratio > 0 and config.max_steps == 1:
        return SchedulerChoice(
            config.scheduler, "Scheduler: no warm-up, which would leave the one step none."
        )
    if config.scheduler == "constant" and config.warmup_ratio > 0:
        return SchedulerChoice(
            "constant_with_warmup",
            f"Scheduler: constant after a linear warm-up over {config.warmup_ratio:g} of the steps.",
        )
    return SchedulerChoice(config.scheduler)


def find_ds_config_problems(config: TrainConfig, path: Path) -> list[Problem]:
    """Values of a DeepSpeed file that are not those of the flags."""
    read = read_ds_config(path)
    if isinstance(read, Problem):
        return [read]
    steps = config.max_steps if config.max_steps > 0 else None
    values = FlagValues(
        config.learning_rate,
        config.weight_decay,
        resolve_scheduler(config).name,
        steps,
        max(1, warmup_steps(config.warmup_ratio, steps)) if steps else None,
    )
    return list(ds_values.find_value_problems(read.content, path.name, values))


def warmup_steps(ratio: float, steps: int) -> int:
    """Steps with a rising rate. The first of them has rate 0: a run of one step has none, or it would learn
    nothing."""
    return 0 if steps == 1 else math.ceil(ratio * steps)


def asked_of_hardware(config: TrainConfig, given: Collection[str]) -> Asked:
    """What the flags say about memory.

    A value out of range, which `find_value_problems` reports, counts as the nearest one allowed, so that
    what else would fail is reported together with it.

    Args:
        given: Names of the flags on the command line: a micro batch or accumulation among them is kept.
    """
    checkpointing = config.gradient_checkpointing
    return Asked(
        length=max(MIN_LENGTH, config.max_length),
        batch_size=max(1, config.batch_size),
        gradient_accumulation_steps=max(1, config.gradient_accumulation_steps),
        division_is_fixed=not {"batch_size", "gradient_accumulation_steps"}.isdisjoint(given),
        max_new_tokens=config.max_new_tokens,
        fit=config.fit,
        tuner=TUNERS[config.tuner],
        tuner_settings=config.tuner_settings,
        precision=config.precision,
        quantization=asked_quantization(config),
        gradient_checkpointing="auto" if checkpointing == "auto" else checkpointing == "true",
        ds_config=config.ds_config,
        liger=config.liger,
    )


def as_flags(config: TrainConfig) -> dict[str, Any]:
    """The flags as plain values, for logs and run_config.json."""
    found = asdict(config)
    return {name: str(value) if isinstance(value, date | Path) else value for name, value in found.items()}
