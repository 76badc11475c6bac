"""What of a benchmark can be known before a model loads: its rows, who answers them, its folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from forecaster.data import sources
from forecaster.data.training_rows import rows_of_training
from forecaster.errors import ConfigurationError, Problem
from forecaster.evaluation import predictions
from forecaster.evaluation.benchmark_config import (
    DEFAULT_MAX_LENGTH,
    DEFAULT_MAX_NEW_TOKENS,
    BenchmarkConfig,
)
from forecaster.evaluation.rows import rows_of_dataset
from forecaster.fit.gpus import detect_gpus
from forecaster.models import numerics, registry
from forecaster.models.finished import FinishedRun, check_weights, read_finished, weights_sha256
from forecaster.network_settings import network_problems
from forecaster.records import Row
from forecaster.run_folder import BENCHMARK
from forecaster.settings import Settings
from forecaster.tasks.base import Task
from forecaster.tasks.weekly import WEEKLY
from forecaster.training.train_config import find_access_problems

BASE, TUNED = "base", "fine-tuned"
API_MAX_NEW_TOKENS = 4096
BENCHMARKS = Path("benchmarks")
"""Where a benchmark goes that belongs to no run."""


@dataclass(frozen=True)
class AskedModel:
    """A model that is to answer, and how: what tells its answers from those of another making."""

    name: str
    adapter: Path | None
    """Folder of what was trained: an adapter, or a whole model."""
    maker: Mapping[str, Any]


@dataclass(frozen=True)
class Benchmark:
    """Rows, who answers them, and the folder for all of it."""

    folder: Path
    name: str
    run: FinishedRun | None
    task: Task
    base: registry.BaseModel | None
    """None: an endpoint answers."""
    rows: tuple[Row, ...]
    dataset_rows: Sequence[Mapping[str, Any]]
    dataset: str
    training_rows: Sequence[Mapping[str, Any]]
    """As `AskedRows` has them."""
    corpus: sources.Corpus | None
    told_outcomes: Mapping[str, str]
    """What the prompts of some rows say of how their week ends, by row id: answers to them are copied."""
    answerers: tuple[AskedModel, ...]
    precision: numerics.Precision
    quantization: numerics.Quantization
    max_length: int
    max_new_tokens: int


@dataclass(frozen=True)
class AskedRows:
    """Rows of a dataset with the task's columns."""

    asked: list[dict[str, Any]]
    dataset: str
    """Its name."""
    training: Sequence[Mapping[str, Any]]
    """Its training rows, where it has any beside those asked."""
    corpus: sources.Corpus | None = None
    """All rows of the run's training, where its own test rows are asked."""


def resolve(config: BenchmarkConfig, settings: Settings) -> Benchmark:
    """Everything that can be known before a model loads. Raises ConfigurationError."""
    if of_launch := [*filter(None, [settings.launch_problem]), *settings.variable_problems]:
        raise ConfigurationError(of_launch)
    run = read_finished(config.adapter, config.base_model) if config.adapter else None
    if run and config.engine != "api":
        check_weights(run)
    base = run.base if run else None
    if config.base_model and not run:
        found = registry.resolve(config.base_model)
        if isinstance(found, Problem):
            raise ConfigurationError([found])
        base = found
    if config.engine == "api":
        problems = network_problems()
    else:
        problems = find_access_problems(base, settings) if base else []
    if problems:
        raise ConfigurationError(problems)
    task = run.task if run else WEEKLY
    given = read_rows(config, run)
    rows = rows_of_dataset(given.asked, task)
    told = find_told_outcomes(config, rows, given.asked, task)
    flags = run.flags if run else {}
    model = config.api_model or settings.openai_model if config.engine == "api" else config.base_model
    job = Benchmark(
        folder=Path(),
        name=str(flags.get("run_name", model)),
        run=run,
        task=task,
        base=None if config.engine == "api" else base,
        rows=rows,
        dataset_rows=given.asked,
        dataset=given.dataset,
        training_rows=given.training,
        corpus=given.corpus,
        told_outcomes=told,
        answerers=(),
        precision=run.resolved["precision"] if run else choose_precision(config),
        quantization=run.resolved["quantization"] if run else config.quantization,
        max_length=config.max_length or flags.get("max_length", DEFAULT_MAX_LENGTH),
        max_new_tokens=config.max_new_tokens or default_new_tokens(config, flags),
    )
    if config.engine != "api" and job.max_new_tokens >= job.max_length:
        found_tokens = f"is {job.max_new_tokens}; prompt and answer share --max_length {job.max_length}."
        raise ConfigurationError([Problem("--max_new_tokens", found_tokens, "Use a smaller number.")])
    if config.engine == "vllm":
        from forecaster.answering import vllm_engine

        if problems := vllm_engine.problems(
            job.quantization,
            settings.world_size,
            bool(detect_gpus()),
            run.tuner if run else None,
            run.lora_rank if run else None,
        ):
            raise ConfigurationError(problems)
    job = replace(job, folder=config.output_dir or default_folder(config, job))
    if config.engine == "api":
        return replace(job, answerers=(api_answerer(config, job, settings),))
    adapters = [None, run.folder] if run else [None]
    return replace(job, answerers=tuple(answerer(config, job, adapter) for adapter in adapters))


def default_new_tokens(config: BenchmarkConfig, flags: Mapping[str, Any]) -> int:
    """What the training said; an endpoint's model may think first, and has its own context."""
    trained = int(flags.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS))
    return max(trained, API_MAX_NEW_TOKENS) if config.engine == "api" else trained


def read_rows(config: BenchmarkConfig, run: FinishedRun | None) -> AskedRows:
    """The rows to answer.

    Raises:
        ConfigurationError: they cannot be read, or are not those that the adapter was trained beside.
    """
    if config.dataset is None:
        assert run is not None  # the flags were checked
        corpus = rows_of_training(run)
        return AskedRows([dict(row) for row in corpus.test], str(run.flags["dataset"]), corpus.train, corpus)
    parts = sources.read_parts(
        config.dataset, config.from_remote, whole_rows=True, task=run.task if run else WEEKLY
    )
    name = "test" if "test" in parts else next(iter(parts))
    if name != "test" and len(parts) > 1:
        found = f"{config.dataset} has the splits {', '.join(parts)}, and none is called test."
        raise ConfigurationError([Problem("--dataset", found, "Name a file with the rows to answer.")])
    training = parts["train"] if "train" in parts and name != "train" else ()
    return AskedRows([dict(row) for row in parts[name]], config.dataset, training)


def on_validation_rows(job: Benchmark, folder: Path, rows: Iterable[Mapping[str, Any]]) -> Benchmark:
    """The same job on rows that were held out of the run's training, with nobody to answer them yet."""
    held_out = [dict(row) for row in rows]
    return replace(
        job,
        folder=folder,
        rows=rows_of_dataset(held_out, job.task),
        dataset_rows=held_out,
        dataset=f"{job.dataset} (validation)",
        answerers=(),
    )


def find_told_outcomes(
    config: BenchmarkConfig, rows: Sequence[Row], dataset_rows: Sequence[Mapping[str, Any]], task: Task
) -> dict[str, str]:
    """The rows whose prompt says how their week ends; those of a training are as they were trained beside.

    Raises:
        ConfigurationError: --dataset has some, and nobody said that this is meant.
    """
    ids = (row.row_id for row in rows)
    told = sources.told_outcomes(zip(ids, dataset_rows, strict=True), task)
    if told and config.dataset is not None and not config.allow_told_outcome:
        found = f"{sources.told_line(told, f'of {len(rows)} rows')}; answers to them would be copied."
        way_out = "Ask for it instead, or give --allow_told_outcome to answer them all the same."
        raise ConfigurationError([Problem("--dataset", found, way_out)])
    return told


def choose_precision(config: BenchmarkConfig) -> numerics.Precision:
    """What a model without a training of its own computes in."""
    if config.precision != "auto":
        return config.precision
    gpus = detect_gpus()
    if not gpus:
        return "fp32"
    return "bf16" if all(gpu.has_bf16 for gpu in gpus) else "fp16"


def default_folder(config: BenchmarkConfig, job: Benchmark) -> Path:
    """In the run's folder; rows other than its own have a folder of their own, and so has a base model."""
    rows = re.sub(r"[^\w.-]+", "-", Path(job.dataset).stem if Path(job.dataset).is_file() else job.dataset)
    if job.run:
        return job.run.folder / (BENCHMARK if config.dataset is None else f"{BENCHMARK}-{rows}")
    return BENCHMARKS / f"{re.sub(r'[^0-9A-Za-z.-]+', '-', Path(job.name).name)}-{rows}"


def answerer(config: BenchmarkConfig, job: Benchmark, adapter: Path | None, name: str = "") -> AskedModel:
    """A local model, and what decides its answers; its engine is added when it is chosen."""
    assert job.base is not None
    maker = {
        "base_model": job.base.location,
        "adapter_sha256": weights_sha256(adapter) if adapter else None,
        "precision": job.precision,
        "quantization": job.quantization,
        "max_length": job.max_length,
        "max_new_tokens": job.max_new_tokens,
        "rows_sha256": predictions.sha256_of_rows(job.rows),
        "knowledge_cutoff": knowledge_cutoff(config, job.base),
        "trained_until": trained_until(job) if adapter else None,
    }
    plain = BASE if job.run else job.name
    return AskedModel(name or (TUNED if adapter else plain), adapter, maker)


def trained_until(job: Benchmark) -> str | None:
    day = job.run.trained_until if job.run else None
    return day.isoformat() if day else None


def knowledge_cutoff(config: BenchmarkConfig, base: registry.BaseModel | None) -> str | None:
    day = config.knowledge_cutoff or (base.spec.knowledge_cutoff if base and base.spec else None)
    return day.isoformat() if day else None


def api_answerer(config: BenchmarkConfig, job: Benchmark, settings: Settings) -> AskedModel:
    model = config.api_model or settings.openai_model
    problems = []
    if not model:
        problems.append(Problem("--api_model", "is missing.", "Name one, or put OPENAI_MODEL into .env."))
    if not settings.openai_api_key:
        way_out = "Put it into .env. Any word will do for a server without keys."
        problems.append(Problem("OPENAI_API_KEY", "is missing.", way_out))
    if problems:
        raise ConfigurationError(problems)
    maker = {
        "api_model": model,
        "engine": "api",
        "endpoint": endpoint_of(settings.openai_base_url),
        "max_output_tokens": job.max_new_tokens,
        "rows_sha256": predictions.sha256_of_rows(job.rows),
        "knowledge_cutoff": knowledge_cutoff(config, None),
    }
    return AskedModel(str(model), None, maker)


def endpoint_of(url: str | None) -> str:
    """Host and path of an endpoint: answers of two servers are not mixed. Never a name or key in the URL."""
    parts = urlsplit(url or "")
    return f"{parts.hostname or 'default'}{f':{parts.port}' if parts.port else ''}{parts.path.rstrip('/')}"
