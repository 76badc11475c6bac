"""Have models answer test rows, and tell skill from luck.

A fine-tuned adapter beside its base model, on the test rows of its training:

    python benchmark.py --adapter finetuned_models/embedded_20260101000000

Any model without training it; several GPUs; an OpenAI-compatible endpoint; answers made elsewhere; several
runs side by side:

    python benchmark.py --base_model qwen2.5-1.5b --dataset rows.jsonl
    deepspeed --include localhost:0,1 benchmark.py --adapter DIR --batch_size 32
    python benchmark.py --adapter DIR --engine api --api_model gpt-4o
    python benchmark.py score answers.csv --prediction_column prediction --reference_column reference
    python benchmark.py compare finetuned_models/a finetuned_models/b "GPT=answers.csv"

Stop it whenever you like: the same command goes on, and no answer is made twice.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import datasets
import filelock
from tqdm import tqdm

import indices
from forecaster import tracking
from forecaster.data import sources, store
from forecaster.errors import ConfigurationError, KeyRefusedError, Problem, VendorError
from forecaster.evaluation import predictions
from forecaster.evaluation.benchmark_config import (
    DEFAULT_MAX_LENGTH,
    DEFAULT_MAX_NEW_TOKENS,
    BenchmarkConfig,
    parse_flags,
)
from forecaster.evaluation.loading import (
    BENCHMARK,
    CHECKPOINTS,
    Loaded,
    load_run,
    side_by_side,
)
from forecaster.evaluation.predictions import Journal, Prediction
from forecaster.evaluation.report import pages
from forecaster.evaluation.rows import rows_of_dataset, with_returns
from forecaster.evaluation.scorecard import Scoreboard, best_checkpoint, checkpoint_scores
from forecaster.evaluation.training_log import read_training_log
from forecaster.exits import report_problems
from forecaster.fit.gpus import detect_gpus
from forecaster.models import numerics, registry
from forecaster.models.finished import FinishedRun, read_finished, weights_sha256
from forecaster.provenance import versions
from forecaster.settings import Settings, calm_openmp, load_settings, redact
from forecaster.tasks.weekly_rows import Row
from forecaster.training.survival import checkpoints
from forecaster.vendors import own_files
from prompts import split_published

BASE, TUNED = "base", "fine-tuned"
API_MAX_NEW_TOKENS = 4096
BENCHMARKS = Path("benchmarks")
"""Where a benchmark goes that belongs to no run."""
LOCK_FILE = "benchmark.lock"


def main(argv: Sequence[str]) -> int:
    datasets.disable_progress_bars()
    calm_openmp()
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return report_problems("benchmark.py", error)
    try:
        config = parse_flags(argv)
        if not config.answers:
            return score_stage(config, settings)
        job = resolve(config, settings)
        if config.stage == "all" and goes_to_wandb(config, job.run):
            check_wandb(settings)
        with locked(job.folder, settings):
            generate(job, config, settings)
        if settings.rank or config.stage == "generate":
            return 0
        loaded = load_run(str(job.folder), config.columns)
        if job.run and not loaded.log:  # the benchmark lies elsewhere
            loaded = replace(loaded, log=read_training_log(job.run.log_history))
        return finish([replace(loaded, name=job.name)], job.folder, job.name, config, settings, job.run)
    except ConfigurationError as error:
        return report_problems("benchmark.py", error) if settings.rank == 0 else error.exit_status
    except KeyRefusedError as error:
        print(redact(f"\n{error}\nMend the key; the same command then goes on."), file=sys.stderr)
        return ConfigurationError.exit_status
    except VendorError as error:
        print(redact(f"\n{error}\nNothing is lost: the same command goes on."), file=sys.stderr)
        return 1
    except OSError as error:
        print(
            redact(f"\n{error}\nMend this (is the disk full?); the same command then goes on."),
            file=sys.stderr,
        )
        return 1


# --- what is asked of whom ----------------------------------------------------------------------------------


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
    base: registry.BaseModel | None
    """None: an endpoint answers."""
    rows: tuple[Row, ...]
    dataset_rows: Sequence[Mapping[str, Any]]
    dataset: str
    answerers: tuple[AskedModel, ...]
    precision: numerics.Precision
    quantization: numerics.Quantization
    max_length: int
    max_new_tokens: int


def resolve(config: BenchmarkConfig, settings: Settings) -> Benchmark:
    """Everything that can be known before a model loads. Raises ConfigurationError."""
    run = read_finished(config.adapter) if config.adapter else None
    base = run.base if run else None
    if config.base_model:
        found = registry.resolve(config.base_model)
        if isinstance(found, Problem):
            raise ConfigurationError([found])
        base = found
    dataset_rows, dataset = read_rows(config, run)
    flags = run.flags if run else {}
    model = config.api_model or settings.openai_model if config.engine == "api" else config.base_model
    job = Benchmark(
        folder=Path(),
        name=str(flags.get("run_name", model)),
        run=run,
        base=None if config.engine == "api" else base,
        rows=rows_of_dataset(dataset_rows),
        dataset_rows=dataset_rows,
        dataset=dataset,
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


def read_rows(config: BenchmarkConfig, run: FinishedRun | None) -> tuple[list[dict[str, Any]], str]:
    """The rows to answer, and the dataset's name.

    Raises:
        ConfigurationError: they cannot be read, or are not those that the adapter was trained beside.
    """
    if config.dataset is None:
        assert run is not None  # the flags were checked
        return [dict(row) for row in training_corpus(run).test], str(run.flags["dataset"])
    parts = sources.read_parts(config.dataset, config.from_remote, whole_rows=True)
    name = "test" if "test" in parts else next(iter(parts))
    if name != "test" and len(parts) > 1:
        found = f"{config.dataset} has the splits {', '.join(parts)}, and none is called test."
        raise ConfigurationError([Problem("--dataset", found, "Name a file with the rows to answer.")])
    return [dict(row) for row in parts[name]], config.dataset


def training_corpus(run: FinishedRun) -> sources.Corpus:
    """The rows of a training; raises ConfigurationError when the data has changed since."""
    flags = run.flags
    test, remote = flags["test_dataset"], flags["from_remote"]
    corpus = sources.load(
        sources.resolve(flags["dataset"], remote, "--dataset"),
        sources.resolve(test, remote, "--test_dataset") if test is not None else None,
        flags.get("validation_share", 0.0),
    )
    if corpus.fingerprint != run.dataset_record["fingerprint_sha256"]:
        found = "holds other rows than when the adapter was trained."
        raise ConfigurationError(
            [Problem(flags["dataset"], found, "Put the former rows back, or train again.")]
        )
    return corpus


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


@contextmanager
def locked(folder: Path, settings: Settings) -> Iterator[None]:
    """Hold a benchmark's folder for this command alone; its first rank does so for all."""
    if settings.rank:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        found = f"{folder} is in use by another benchmark."
        raise ConfigurationError([Problem("--output_dir", found, "Wait for it, or stop it.")]) from None
    try:
        yield
    finally:
        lock.release()


# --- answers ------------------------------------------------------------------------------------------------


def generate(job: Benchmark, config: BenchmarkConfig, settings: Settings) -> None:
    """Bring the folder up to all answers; a stopped run goes on."""
    if config.engine == "api":
        if settings.rank:
            return  # one process keeps as many requests in flight as were asked for
        prepare(job)
        ask_endpoint(job, config, settings)
        predictions.settle(job.folder, [a.name for a in job.answerers], job.rows)
        return
    from forecaster.answering import engines  # torch: not needed to refuse bad input

    ranks = engines.Ranks(settings.rank, settings.world_size)
    engines.join(ranks, config.local_rank)
    try:
        if config.checkpoints:
            job = with_best_checkpoint(job, config, ranks)
        answer_rows(job, config, ranks)
    finally:
        engines.leave(ranks)


def answer_rows(job: Benchmark, config: BenchmarkConfig, ranks: Any, *, alone: bool = False) -> None:
    """Have the job's models answer its rows, every rank its share; `alone` as for `prepare`."""
    from forecaster.answering import engines

    assert job.base is not None
    assert config.engine != "api"  # an endpoint has no ranks
    tuner, lora_rank = (job.run.tuner, job.run.lora_rank) if job.run else (None, None)
    plan = engines.EngineSettings(
        base=job.base,
        tokenizer_folder=job.run.folder if job.run else None,
        precision=job.precision,
        quantization=job.quantization,
        trust_remote_code=config.trust_remote_code or bool(job.run and job.run.flags["trust_remote_code"]),
        max_length=job.max_length,
        max_new_tokens=job.max_new_tokens,
        batch_size=config.batch_size,
        engine=engines.choose_engine(config.engine, job.quantization, ranks.count, tuner, lora_rank),
        lora_rank=lora_rank,
    )
    job = replace(job, answerers=tuple(with_engine(a, plan.engine) for a in job.answerers))
    if ranks.rank == 0:
        prepare(job, alone=alone)
    engines.wait_for_all(ranks)
    done = {(p.model, p.row_id) for p in predictions.read_predictions(job.folder)}
    engines.wait_for_all(ranks)  # nobody writes while another one reads
    by_id = {row.row_id: row for row in job.rows}
    if done and ranks.rank == 0:
        print(f"{len(done)} answers are there already.", flush=True)
    with Journal(job.folder, ranks.rank) as journal:

        def record(replies: Sequence[engines.Reply], seconds: float) -> None:
            lines = [
                prediction(
                    reply.model,
                    by_id[reply.row_id],
                    reply.text,
                    reply.prompt_tokens,
                    reply.news_dropped,
                    reply.new_tokens,
                )
                for reply in replies
            ]
            journal.write(lines, seconds)

        engines.answer(
            plan,
            [engines.Answerer(a.name, a.adapter) for a in job.answerers],
            [(row.row_id, row.prompt) for row in job.rows],
            lambda model, row_id: (model, row_id) in done,
            record,
            ranks,
        )
    engines.wait_for_all(ranks)
    if ranks.rank == 0:
        predictions.settle(job.folder, [a.name for a in job.answerers], job.rows)
    engines.wait_for_all(ranks)


def with_engine(asked: AskedModel, engine: str) -> AskedModel:
    return replace(asked, maker={**asked.maker, "engine": engine})


def prediction(
    model: str,
    row: Row,
    text: str | None,
    prompt_tokens: int | None,
    news_dropped: int,
    new_tokens: int | None,
) -> Prediction:
    return Prediction(
        model=model,
        row_id=row.row_id,
        symbol=row.symbol,
        period=f"{row.start} to {row.end}",
        label=row.actual.text if row.actual else "",
        answer=text,
        prompt_tokens=prompt_tokens,
        news_dropped=news_dropped,
        new_tokens=new_tokens,
    )


def prepare(job: Benchmark, *, alone: bool = False) -> None:
    """Rows and record, before the first answer; answers of another making are put aside, and when the job
    stands `alone` those of models that are not in it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    predictions.write_rows(job.folder, job.dataset_rows, job.rows)
    record = {
        "dataset": job.dataset,
        "training_labels": job.run.dataset_record["training_labels"] if job.run else None,
        "settings": settings_shown(job),
        "versions": versions(),
        "models": {asked.name: dict(asked.maker) for asked in job.answerers},
    }
    for note in predictions.write_record(job.folder, record, alone=alone):
        print(note)


def settings_shown(job: Benchmark) -> dict[str, str]:
    """What a report says of the job."""
    shown = {"rows": f"{len(job.rows)} of {job.dataset}"}
    if base := job.run.base if job.run else job.base:
        shown["base model"] = base.location
    if job.run:
        shown["training rows"] = str(job.run.dataset_record["counts"]["train_after_repeats"])
    shown["tokens of prompt and answer"] = str(job.max_length)
    shown["tokens of an answer"] = str(job.max_new_tokens)
    return shown


def ask_endpoint(job: Benchmark, config: BenchmarkConfig, settings: Settings) -> None:
    """Have the endpoint's model answer what it has not answered yet."""
    from forecaster.answering import api_engine

    (asked,) = job.answerers
    plan = api_engine.ApiPlan(
        model=asked.name,
        base_url=settings.openai_base_url,
        concurrency=config.concurrency,
        max_output_tokens=job.max_new_tokens,
    )
    done = {p.row_id for p in predictions.read_predictions(job.folder) if p.model == asked.name}
    by_id = {row.row_id: row for row in job.rows}
    todo = [(row.row_id, split_published(row.prompt)) for row in job.rows if row.row_id not in done]
    if not todo:
        return
    key = str(settings.openai_api_key)
    api_engine.check(plan, key)
    began = time.monotonic()
    faults, failed = Counter[str](), 0
    with (
        Journal(job.folder) as journal,
        tqdm(total=len(todo), desc=asked.name, unit="answer") as bar,
        closing(api_engine.answer_all(todo, plan, key)) as replies,
    ):
        for reply in replies:
            if reply.fault:
                faults[reply.fault] += 1
            if reply.finish == "failed":
                failed += 1
                continue
            line = prediction(
                asked.name, by_id[reply.row_id], reply.text, reply.input_tokens, 0, reply.output_tokens
            )
            now = time.monotonic()
            # Requests run side by side: what counts is how often an answer comes.
            journal.write([line], now - began)
            began = now
            bar.update()
    for fault, count in faults.most_common():
        print(f"{asked.name}: {count} of {len(todo)} answers: {fault}")
    if failed:
        raise VendorError(asked.name, f"{failed} of {len(todo)} requests were not taken.")


# --- checkpoints --------------------------------------------------------------------------------------------


def with_best_checkpoint(job: Benchmark, config: BenchmarkConfig, ranks: Any) -> Benchmark:
    """Score every checkpoint on the validation rows; the best one then answers the test rows, once.

    Raises:
        ConfigurationError: the training held no weeks out, or has no complete checkpoint.
    """
    run = job.run
    assert run is not None  # the flags were checked
    corpus = training_corpus(run)
    if corpus.validation is None:
        found = f"needs validation rows, and {run.folder} was trained without."
        way_out = "Train with --validation_share 0.1 (and --save_total_limit, so that checkpoints stay)."
        raise ConfigurationError([Problem("--checkpoints", found, way_out)])
    folders = checkpoints.complete(run.folder)
    if not folders:
        found = f"finds no complete checkpoint in {run.folder}."
        raise ConfigurationError([Problem("--checkpoints", found, "Leave it out, or train again.")])
    rows = [dict(row) for row in corpus.validation]
    trial = replace(
        job,
        folder=job.folder / CHECKPOINTS,
        rows=rows_of_dataset(rows),
        dataset_rows=rows,
        dataset=f"{job.dataset} (validation)",
    )
    asked = [answerer(config, trial, folder, str(step)) for step, folder in folders.items()]
    # Alone: checkpoints that are gone or damaged since their last scoring cannot be chosen.
    answer_rows(replace(trial, answerers=tuple(asked)), config, ranks, alone=True)
    best = best_checkpoint(checkpoint_scores(predictions.read_answers(trial.folder).complete))
    assert best is not None
    if ranks.rank == 0:
        print(f"Checkpoint {best.step} is the best of {len(folders)} on {len(rows)} validation rows.")
    tuned = answerer(config, job, folders[best.step], f"{TUNED} (checkpoint {best.step})")
    return replace(job, answerers=(job.answerers[0], tuned))


# --- figures and reports ------------------------------------------------------------------------------------


def score_stage(config: BenchmarkConfig, settings: Settings) -> int:
    """`score`, `report` and `compare`: no model is needed."""
    rows = None
    if config.dataset:
        rows = rows_of_dataset(read_rows(config, None)[0])
    name = config.name if len(config.runs) == 1 else None
    runs = [
        load_run(spec, config.columns, name=name, rows=rows, knowledge_cutoff=config.knowledge_cutoff)
        for spec in config.runs
    ]
    if config.stage == "compare":
        title = " and ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs"
        folder = config.output_dir or BENCHMARKS / "compare-{}".format(
            "-".join(slug(run.name) for run in runs)[:80]
        )
        return finish(runs, folder, title, config, settings)
    for run in runs:
        home = run.folder or BENCHMARKS / slug(run.name)
        finished = _run_of(home)
        if finished and run.name in (home.resolve().name, home.resolve().parent.name):
            run = replace(run, name=str(finished.flags["run_name"]))  # as right after the answers
        finish([run], config.output_dir or home, run.name, config, settings, finished)
    return 0


def slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-")


def _run_of(folder: Path) -> FinishedRun | None:
    """The run that a benchmark folder lies in."""
    try:
        return read_finished(folder.parent)
    except ConfigurationError:
        return None


def finish(
    runs: Sequence[Loaded],
    folder: Path,
    title: str,
    config: BenchmarkConfig,
    settings: Settings,
    run: FinishedRun | None = None,
) -> int:
    """Figures, and the report unless only figures were asked for."""
    closes = closes_of(config.price_file)
    board = side_by_side(runs, lambda rows: with_returns(rows, closes), cost_bps=config.cost_bps)
    folder.mkdir(parents=True, exist_ok=True)
    pages.write_metrics(folder / predictions.METRICS, board)
    print(f"\n{pages.render_summary(board)}")
    if config.stage == "score":
        print(f"\nFigures: {folder / predictions.METRICS}")
        return 0
    facts = {name: value for loaded in runs for name, value in loaded.facts.items()} if len(runs) == 1 else {}
    pictures = pages.write_report(folder, board, title, facts)
    if goes_to_wandb(config, run):
        log_to_wandb(folder, board, title, pictures, settings, run)
    print(f"\nReport: {folder / 'report.md'}")
    return 0


def closes_of(files: Sequence[Path]) -> Any:
    """Adjusted closes by symbol, of the user's price files."""
    calls = [call for path in files for call in own_files.read_price_file(path).calls]

    @cache
    def closes(symbol: str) -> dict[Any, Any] | None:
        own = [call for call in calls if call.request.symbol == indices.vendor_symbol(symbol)]
        call = store.fullest(own, first_day="", last_day="9999")
        if call is None:
            return None
        return {day: close.adjusted for day, close in store.price_history(call.payload).closes.items()}

    return closes


def goes_to_wandb(config: BenchmarkConfig, run: FinishedRun | None) -> bool:
    return (config.report_to or (run.flags["report_to"] if run else "none")) == "wandb"


def check_wandb(settings: Settings) -> None:
    """Raises ConfigurationError now for what would fail after hours of answers."""
    if problems := tracking.find_problems(settings):
        raise ConfigurationError(problems)


def log_to_wandb(
    folder: Path,
    board: Scoreboard,
    title: str,
    pictures: Mapping[str, Path],
    settings: Settings,
    run: FinishedRun | None,
) -> None:
    """Figures, tables and pictures into the W&B run of the training, or into one of its own."""
    tracking.start(run.folder if run else folder, run.flags["run_name"] if run else title, {}, settings)
    for model, figures in pages.metrics_json(board)["models"].items():
        tracking.log_summary(f"benchmark/{model}", figures)
    for name, table in pages.tables(board).items():
        tracking.log_table(f"benchmark/{name}", table.columns, table.rows)
    for name, path in pictures.items():
        tracking.log_image(f"benchmark/{name}", path)
    tracking.finish()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on.", file=sys.stderr)
        sys.exit(130)
