"""Fine-tuning as a job: from a checked run to a trained folder and its figures."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forecaster import tracking
from forecaster.data import sources
from forecaster.errors import (
    AdapterNotTrainedError,
    ConfigurationError,
    RunOutOfMemoryError,
    TrainingFailedError,
    TrainingStoppedError,
)
from forecaster.files import write_json
from forecaster.http_limits import limit_hub
from forecaster.jobs.train_checks import (
    CheckedTraining,
    check,
    count_lines,
    load_checked_tokenizer,
    run_lines,
)
from forecaster.models import hub_files
from forecaster.progress import Listener, at_terminal
from forecaster.provenance import versions
from forecaster.run_folder import DATASET_FILE, LOG_HISTORY, RUN_CONFIG
from forecaster.settings import (
    Settings,
    calm_openmp,
    draw_without_screen,
    let_segments_grow,
    load_settings,
)
from forecaster.tasks.base import Task
from forecaster.training import resuming
from forecaster.training.run import Run
from forecaster.training.survival import checkpoints
from forecaster.training.survival.stopping import StopWatch
from forecaster.training.train_config import TrainConfig

if TYPE_CHECKING:
    import datasets
    from trl import SFTConfig

    from forecaster.training.fine_tuning import TokenisedParts


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to, as its folder tells."""

    output_dir: Path
    steps: int
    train_loss: float | None
    """Token mean over the answers, and over all steps of the last session; None: not logged."""
    test_loss: float | None
    """Token mean over the test rows' answers; None: not measured."""
    validation_loss: float | None
    """The last one; None: nothing was held out."""
    log_history: tuple[Mapping[str, Any], ...]
    """What the Trainer logged, in order of steps."""


def train(
    checked: CheckedTraining, settings: Settings, watch: StopWatch, listener: Listener
) -> TrainingResult | None:
    """Data, model, run, save. Every rank takes part; rank 0 speaks, writes and has the result.

    Args:
        watch: started by the process that this training owns: it takes the stop signals.

    Raises:
        ConfigurationError: the rows are too long, or not those that the run began with.
        TrainingStoppedError: with a complete checkpoint.
        AdapterNotTrainedError, RunOutOfMemoryError, TrainingFailedError: as their texts say.
    """
    run = checked.run
    corpus = checked.read_rows()
    if run.resume_from:
        resuming.check_same_run(run, corpus.fingerprint, settings.world_size)
    grouped = resuming.rows_per_group(run)  # before the record of the former session is written over

    # They take ten seconds to import: only after everything was checked.
    from forecaster.training import fine_tuning, tokenising

    args = fine_tuning.sft_config(run)
    tell = listener.say if args.process_index == 0 else _to_nobody
    tokenizer = load_checked_tokenizer(checked, corpus)
    rows = fine_tuning.tokenise_parts(args, tokenizer, run.config.max_length, checked.task, **corpus.parts)
    for line in (*count_lines(corpus), *rows.summaries()):
        tell(line)
    tokenising.check_rows_fit(run.config.max_length, rows.reports)
    with fine_tuning.claim_output_dir(args, run) as output_dir:
        run = replace(run, output_dir=output_dir)
        told = replace(listener, say=tell)
        return _train_in_folder(replace(checked, run=run), corpus, rows, args, grouped, settings, watch, told)


def rehearse(checked: CheckedTraining, listener: Listener) -> None:
    """For a dry run: read the rows that are here, and the tokenizer, for which a hub is asked; refuse what
    `train` would refuse before it loads the model."""
    run, corpus = checked.run, checked.read_rows() if checked.is_offline else None
    if corpus is None:
        listener.say("The rows are on the hub: they are read and checked when the run starts.")
    else:
        if run.resume_from:
            resuming.check_same_run(run, corpus.fingerprint, checked.ranks)
        for line in count_lines(corpus):
            listener.say(line)
    if not run.model.is_local:
        small_files = hub_files.fetch_small_files(run.model.location)
        if isinstance(small_files, str):
            told = f"The tokenizer of {run.model.location} is not here, and {small_files}"
            listener.say(f"{told}: it is checked when the run loads it.")
            return
        if corpus is None:
            hub_files.check_hub_files(run.model.location, small_files)
    if corpus is not None:
        from forecaster.training import tokenising  # seconds to import

        tokenizer, _ = load_checked_tokenizer(checked, corpus)
        tokenising.rehearse(corpus.parts, tokenizer, run.config.max_length, checked.task)


def _train_in_folder(
    checked: CheckedTraining,
    corpus: sources.Corpus,
    rows: TokenisedParts,
    args: SFTConfig,
    rows_per_group: int,
    settings: Settings,
    watch: StopWatch,
    listener: Listener,
) -> TrainingResult | None:
    """As `train`, in a folder that is this run's own."""
    from forecaster.models import weights
    from forecaster.training import fine_tuning, model_card

    run = checked.run
    model = fine_tuning.build_model(run)
    effective_batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    record = fine_tuning.run_record(run, rows.template, effective_batch, versions(), rows_per_group)
    data_record = fine_tuning.dataset_record(
        corpus.fingerprint,
        corpus.counts,
        corpus.train[checked.task.label_column],
        _series_of(checked.task, corpus.train),
        rows.reports,
        sources.recipe(checked.train_sources),
        corpus.trained_until,
    )
    is_main = args.process_index == 0
    if is_main:
        open_folder(run, record, data_record, settings, listener)
    # A checkpoint that is chosen by its loss on some rows cannot be measured on the same rows.
    evaluated: Literal["validation", "test"] = "test" if corpus.validation is None else "validation"
    trainer = fine_tuning.make_trainer(run, args, model, rows, evaluated, watch, rows_per_group)
    listener.say(weights.trainable_share(model))
    listener.say(f"{fine_tuning.attention_of(run).reason}.")

    result = fine_tuning.run_training(run, trainer)

    final_loss = fine_tuning.final_test_loss(trainer, rows.parts["test"], evaluated)
    rows_by_part = {name: len(part) for name, part in corpus.parts.items()}
    card = model_card.model_card(run, rows.template, rows_by_part, result.training_loss, final_loss)
    tensors = fine_tuning.save_run(run, trainer, rows.tokenizer, record, data_record, card)
    if not is_main:
        return None
    what = "Adapter" if run.tuner.saves_adapter else "Model"
    listener.say(f"{what} with {tensors} tensors, trained: {run.output_dir}")
    tracking.finish()
    return read_result(run.output_dir)


def _series_of(task: Task, rows: datasets.Dataset) -> list[str]:
    """The symbol of each row; empty for a task whose rows have none."""
    columns = list(task.key_columns)
    return [task.key(row).series for row in rows.select_columns(columns)] if columns else []


def open_folder(
    run: Run,
    record: Mapping[str, Any],
    data_record: Mapping[str, Any],
    settings: Settings,
    listener: Listener,
) -> None:
    """Make the folder of a run that begins or goes on, without what a killed one left half done, and put its
    records there."""
    run.output_dir.mkdir(parents=True, exist_ok=True)
    for folder in checkpoints.remove_unfinished(run.output_dir):
        listener.say(f"Removed {folder}: a save that was not finished.")
    (run.output_dir / LOG_HISTORY).unlink(missing_ok=True)  # it says that a run has ended
    write_json(run.output_dir / RUN_CONFIG, record)
    write_json(run.output_dir / DATASET_FILE, data_record)
    if run.config.report_to == "wandb":
        tracking.start(run.output_dir, run.config.run_name, record, settings)


def read_result(output_dir: Path) -> TrainingResult:
    """The figures of a training that has ended; raises OSError where it has not."""
    history = json.loads((output_dir / LOG_HISTORY).read_text(encoding="utf-8"))

    def last(key: str) -> float | None:
        return next((float(entry[key]) for entry in reversed(history) if key in entry), None)

    has_validation = last("test_loss") is not None
    return TrainingResult(
        output_dir=output_dir,
        steps=max((int(entry["step"]) for entry in history), default=0),
        train_loss=last("train_loss"),
        test_loss=last("test_loss") if has_validation else last("eval_loss"),
        validation_loss=last("eval_loss") if has_validation else None,
        log_history=tuple(history),
    )


def _to_nobody(line: str) -> None:
    """What a rank other than the first has to say."""


# --- in a process of its own --------------------------------------------------------------------------------

_RAISED_AGAIN = (
    AdapterNotTrainedError,
    ConfigurationError,
    RunOutOfMemoryError,
    TrainingFailedError,
    TrainingStoppedError,
)


def train_in_process(config: TrainConfig, given: Sequence[str], listener: Listener) -> TrainingResult:
    """Train in a process of its own, which owns its signals and its memory, and wait for the figures.

    For callers that are no command line: a search, a page, a loop over weeks. One device, without DeepSpeed.

    Args:
        config: the flags.
        given: names of those that are fixed, and not only defaults, as on a command line.
        listener: hears the lines; steps are told on the child's stdout.

    Raises:
        ConfigurationError: as `check`; and what `train` raises.
        TrainingFailedError: also where the child ended without a word.
    """
    context = multiprocessing.get_context("spawn")  # a fork would take threads and torch's state along
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_train_and_send, args=(sending, config, tuple(given)))
    child.start()
    sending.close()
    kind: str = "failed"
    content: Any = None
    try:
        while (message := _next_of(receiving)) is not None:
            kind, content = message
            if kind == "line":
                listener.say(content)
    finally:
        child.terminate()  # where the caller was interrupted, the training saves and leaves
        child.join()
    if kind == "result":
        return read_result(content)
    if kind == "error":
        raise content
    raise TrainingFailedError(f"The training ended with status {child.exitcode}.")


def _next_of(receiving: Connection) -> tuple[str, Any] | None:
    """The child's next message; None when it has closed its end."""
    try:
        kind, content = receiving.recv()
    except EOFError:
        return None
    return kind, content


def _train_and_send(sending: Connection, config: TrainConfig, given: tuple[str, ...]) -> None:
    """The child's part: sends lines, then the folder, the problems or what failed."""

    def heard(line: str) -> None:
        sending.send(("line", line))

    try:
        settings = load_settings()
        calm_openmp()
        let_segments_grow()
        draw_without_screen()
        limit_hub()
        checked = check(config, settings, given)
        for line in run_lines(checked.run, settings):
            heard(line)
        watch = StopWatch(config.grace_seconds, settings.launched, settings.supervisor_pid, is_main=True)
        watch.start()
        result = train(checked, settings, watch, replace(at_terminal(), say=heard, warn=heard))
    except _RAISED_AGAIN as error:
        sending.send(("error", error))
        tracking.finish()
    else:
        assert result is not None  # it is the only rank
        sending.send(("result", result.output_dir))
