"""Answers of a benchmark's models to its rows: each is asked once, whatever stops in between."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forecaster.claims import held
from forecaster.data.training_rows import rows_of_training
from forecaster.errors import ConfigurationError, Problem, VendorError
from forecaster.evaluation import predictions
from forecaster.evaluation.benchmark_config import BenchmarkConfig
from forecaster.evaluation.predictions import Journal, Prediction
from forecaster.evaluation.rows import rows_of_dataset
from forecaster.evaluation.scorecard import best_checkpoint, checkpoint_scores
from forecaster.evaluation.text_forecasts import training_of
from forecaster.files import leads_elsewhere, links_in
from forecaster.jobs.benchmark_calibration import calibrated, calibration_of, with_calibration
from forecaster.jobs.benchmark_checks import TUNED, AskedModel, Benchmark, answerer, on_validation_rows
from forecaster.models.finished import check_weights
from forecaster.progress import Listener, without_bars
from forecaster.provenance import versions
from forecaster.records import Row
from forecaster.run_folder import CHECKPOINTS
from forecaster.schemas import refused
from forecaster.settings import Settings
from forecaster.tasks.base import DatasetRow
from forecaster.tasks.weekly import WEEKLY
from forecaster.tasks.weekly_baselines import Training
from forecaster.training.survival import checkpoints
from prompts import split_published

if TYPE_CHECKING:
    from forecaster.answering.engines import EngineSettings, Ranks, Reply

LOCK_FILE = "benchmark.lock"


@contextmanager
def locked(folder: Path, settings: Settings) -> Iterator[None]:
    """Hold a benchmark's folder for this command alone; its first rank does so for all."""
    if settings.rank:
        yield
        return
    refuse_links(folder)  # the lock's file may be one, too
    with held(folder, LOCK_FILE, "--output_dir", other="another benchmark"):
        yield


def refuse_links(folder: Path) -> None:
    """Raises ConfigurationError for a benchmark's folder that is or holds a link: it may come from anyone."""
    if links := [*([folder] if folder.is_symlink() else []), *links_in(folder)]:
        raise refused(links[0], leads_elsewhere(links[0]), "Remove it, or give another --output_dir.")


def generate(job: Benchmark, config: BenchmarkConfig, settings: Settings, listener: Listener) -> None:
    """Bring the folder up to all answers; a stopped run goes on. Every rank takes part; the first one tells.

    Raises:
        ConfigurationError: the folder holds what is damaged, or another benchmark has it.
        KeyRefusedError, VendorError: the endpoint; what it answered is kept.
    """
    if config.engine == "api":
        if settings.rank:
            return  # one process keeps as many requests in flight as were asked for
        prepare(job, listener)
        keep_training(job)
        ask_endpoint(job, config, settings, listener)
        predictions.settle(job.folder, [a.name for a in job.answerers], job.rows)
        return
    from forecaster.answering import engines  # torch: not needed to refuse bad input

    ranks = engines.Ranks(settings.rank, settings.world_size)
    engines.join(ranks, config.local_rank)
    try:
        if config.checkpoints:
            job = with_best_checkpoint(job, config, ranks, listener)
        if ranks.rank == 0:
            keep_training(job)

        def answer_validation(trial: Benchmark) -> None:
            answer_rows(trial, config, ranks, listener, alone=True)

        job = with_calibration(job, config, ranks, listener, answer_validation)
        answer_rows(job, config, ranks, listener)
    finally:
        engines.leave(ranks)


def answer_rows(
    job: Benchmark, config: BenchmarkConfig, ranks: Ranks, listener: Listener, *, alone: bool = False
) -> None:
    """Have the job's models answer its rows, every rank its share; `alone` as for `prepare`."""
    from forecaster.answering import engines

    plan = engine_settings(job, config, ranks)
    job = replace(job, answerers=tuple(with_engine(a, plan.engine) for a in job.answerers))
    if ranks.rank == 0:
        prepare(job, listener, alone=alone)
    engines.wait_for_all(ranks)
    done = {(p.model, p.row_id) for p in predictions.read_predictions(job.folder)}
    engines.wait_for_all(ranks)  # nobody writes while another one reads
    by_id = {row.row_id: row for row in job.rows}
    if done and ranks.rank == 0:
        listener.say(f"{len(done)} answers are there already.")
    with Journal(job.folder, ranks.rank) as journal:

        def record(replies: Sequence[Reply], seconds: float) -> None:
            journal.write([prediction_of(reply, by_id[reply.row_id]) for reply in replies], seconds)

        engines.answer(
            plan,
            [engines.Answerer(a.name, a.adapter) for a in job.answerers],
            [(row.row_id, row.prompt) for row in job.rows],
            lambda model, row_id: (model, row_id) in done,
            record,
            listener if ranks.rank == 0 else without_bars(listener),
            ranks,
        )
    engines.wait_for_all(ranks)
    if ranks.rank == 0:
        predictions.settle(job.folder, [a.name for a in job.answerers], job.rows)
    engines.wait_for_all(ranks)


def engine_settings(job: Benchmark, config: BenchmarkConfig, ranks: Ranks) -> EngineSettings:
    from forecaster.answering import engines

    assert job.base is not None
    assert config.engine != "api"  # an endpoint has no ranks
    tuner, lora_rank = (job.run.tuner, job.run.lora_rank) if job.run else (None, None)
    return engines.EngineSettings(
        base=job.base,
        tokenizer_folder=job.run.folder if job.run else None,
        precision=job.precision,
        quantization=job.quantization,
        trust_remote_code=config.trust_remote_code,
        max_length=job.max_length,
        max_new_tokens=job.max_new_tokens,
        batch_size=config.batch_size,
        engine=engines.choose_engine(config.engine, job.quantization, ranks.count, tuner, lora_rank),
        lora_rank=lora_rank,
        task=job.task,
    )


def with_engine(asked: AskedModel, engine: str) -> AskedModel:
    return replace(asked, maker={**asked.maker, "engine": engine})


def prediction_of(reply: Reply, row: Row) -> Prediction:
    """A local model's answer, as it is kept."""
    return Prediction.of(
        reply.model,
        row,
        reply.text,
        reply.prompt_tokens,
        reply.news_dropped,
        reply.new_tokens,
        reply.label_log_likelihoods,
    )


def prepare(job: Benchmark, listener: Listener, *, alone: bool = False) -> None:
    """Rows and record, before the first answer; answers of another making are put aside, and when the job
    stands `alone` those of models that are not in it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    predictions.write_rows(job.folder, job.dataset_rows, job.rows, job.task)
    record = {
        "dataset": job.dataset,
        "settings": settings_shown(job),
        "versions": versions(),
        "models": {asked.name: dict(asked.maker) for asked in job.answerers},
    }
    for note in predictions.write_record(job.folder, record, alone=alone):
        listener.say(note)


def keep_training(job: Benchmark) -> None:
    """Keep what the training rows tell of the job's rows without a model; where they are gone, what was kept
    before stays."""
    if job.task is not WEEKLY:
        return
    training = training_of(rows_of_dataset(training_rows(job), job.task), job.rows)
    if training is None and job.run and not (job.folder / predictions.TRAINING).exists():
        training = Training.of_record(job.run.dataset_record)
    if training:
        job.folder.mkdir(parents=True, exist_ok=True)
        predictions.write_training(job.folder, training)


def training_rows(job: Benchmark) -> Iterable[DatasetRow]:
    """Those of the run, or else those that a dataset has beside the rows that were asked; none where they are
    not at hand."""
    if job.run is None or job.corpus:
        return job.training_rows
    try:
        return rows_of_training(job.run).train
    except ConfigurationError:  # moved or changed since
        return ()


def settings_shown(job: Benchmark) -> dict[str, str]:
    """What a report says of the job."""
    shown = {"rows": f"{len(job.rows)} of {job.dataset}"}
    if base := job.run.base if job.run else job.base:
        shown["base model"] = base.location
    if job.run and (counts := job.run.dataset_record.get("counts")):
        shown["training rows"] = str(counts["train_after_repeats"])
    if job.told_outcomes:
        shown["rows that tell their outcome"] = f"{len(job.told_outcomes)}: what answers them may copy it"
    shown["tokens of prompt and answer"] = str(job.max_length)
    shown["tokens of an answer"] = str(job.max_new_tokens)
    return shown


def ask_endpoint(job: Benchmark, config: BenchmarkConfig, settings: Settings, listener: Listener) -> None:
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
    api_engine.check(plan, key, listener.warn)
    began = time.monotonic()
    faults, failed, likely, likelihood_requests = Counter[str](), 0, 0, 0
    with (
        Journal(job.folder) as journal,
        listener.bar(asked.name, "answer", len(todo)) as advance,
        closing(api_engine.answer_all(todo, plan, key, listener.warn, job.task.choices)) as replies,
    ):
        for reply in replies:
            if reply.fault:
                faults[reply.fault] += 1
            if reply.finish == "failed":
                failed += 1
                continue
            likelihood_requests += reply.likelihood_requests
            likely += reply.label_log_likelihoods is not None
            line = Prediction.of(
                asked.name,
                by_id[reply.row_id],
                reply.text,
                reply.input_tokens,
                0,
                reply.output_tokens,
                reply.label_log_likelihoods,
            )
            now = time.monotonic()
            # Requests run side by side: what counts is how often an answer comes.
            journal.write([line], now - began)
            began = now
            advance()
    for fault, count in faults.most_common():
        listener.say(f"{asked.name}: {count} of {len(todo)} answers: {fault}")
    if likelihood_requests:
        requests = f"{likelihood_requests} more request{'s' if likelihood_requests > 1 else ''}"
        why = (
            ""
            if likely
            else " An endpoint has to tell likelihoods of a prompt's tokens, as vLLM's server does."
        )
        listener.say(f"{asked.name}: probabilities of {likely} of {len(todo)} answers, by {requests}.{why}")
    if failed:
        raise VendorError(asked.name, f"{failed} of {len(todo)} requests were not taken.")


# --- checkpoints --------------------------------------------------------------------------------------------


def with_best_checkpoint(
    job: Benchmark, config: BenchmarkConfig, ranks: Ranks, listener: Listener
) -> Benchmark:
    """Score every checkpoint on the validation rows; the best one then answers the test rows, once.

    Raises:
        ConfigurationError: the training held no weeks out, or has no complete checkpoint.
    """
    run = job.run
    assert run is not None  # the flags were checked
    if job.task is not WEEKLY:
        found = f"chooses by weekly figures, and {run.folder} was trained for {job.task.name}."
        raise ConfigurationError([Problem("--checkpoints", found, "Leave it out.")])
    corpus = job.corpus or rows_of_training(run)
    if corpus.validation is None:
        found = f"needs validation rows, and {run.folder} was trained without."
        way_out = "Train with --validation_share 0.1 (and --save_total_limit, so that checkpoints stay)."
        raise ConfigurationError([Problem("--checkpoints", found, way_out)])
    folders = checkpoints.complete(run.folder)
    if not folders:
        found = f"finds no complete checkpoint in {run.folder}."
        raise ConfigurationError([Problem("--checkpoints", found, "Leave it out, or train again.")])
    for folder in folders.values():
        check_weights(run, folder)
    trial = on_validation_rows(job, job.folder / CHECKPOINTS, corpus.validation)
    asked = [answerer(config, trial, folder, str(step)) for step, folder in folders.items()]
    # Alone: checkpoints that are gone or damaged since their last scoring cannot be chosen.
    answer_rows(replace(trial, answerers=tuple(asked)), config, ranks, listener, alone=True)
    answered = predictions.read_answers(trial.folder, job.task).complete
    best = best_checkpoint(checkpoint_scores(answered))
    assert best is not None
    if ranks.rank == 0:
        listener.say(
            f"Checkpoint {best.step} is the best of {len(folders)} on {len(trial.rows)} validation rows."
        )
    tuned = answerer(config, job, folders[best.step], f"{TUNED} (checkpoint {best.step})")
    # Its validation rows have been answered: nobody is asked for its calibration.
    of_best = next(model for model in answered if model.name == str(best.step))
    tuned = calibrated(tuned, calibration_of(run, of_best))
    return replace(job, answerers=(job.answerers[0], tuned))
