"""What a run's validation weeks make of its probabilities: answered once, fitted, kept beside the adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from forecaster.evaluation import predictions
from forecaster.evaluation.benchmark_config import BenchmarkConfig
from forecaster.evaluation.calibrating import calibrate
from forecaster.evaluation.rows import ModelAnswers
from forecaster.files import write_json
from forecaster.jobs.benchmark_checks import TUNED, AskedModel, Benchmark, answerer, on_validation_rows
from forecaster.models.finished import FinishedRun, read_calibration
from forecaster.models.run_schemas import FittedCalibration
from forecaster.progress import Listener
from forecaster.run_folder import CALIBRATION, VALIDATION
from forecaster.tasks.calibration import LEAST_ROWS, spread
from forecaster.tasks.weekly_baselines import Training

if TYPE_CHECKING:
    import datasets

    from forecaster.answering.engines import Ranks

MOST_ROWS = 400
"""Two numbers are fitted: more answers would cost as much as the test, and change their last digits."""

AnswerRows = Callable[[Benchmark], None]
"""Has a job's models answer its rows, every rank its share."""


def with_calibration(
    job: Benchmark, config: BenchmarkConfig, ranks: Ranks, listener: Listener, answer_rows: AnswerRows
) -> Benchmark:
    """The job, and in its fine-tuned model's record what calibrates it, if that is there or can be found.

    It is found on the validation rows of the run, where the run's own test rows are answered: for other rows
    the training's data need not be there. A checkpoint's is known from its being chosen.
    """
    run = job.run
    tuned = next((asked for asked in job.answerers if run and asked.adapter == run.folder), None)
    if run is None or tuned is None or job.task.choices is None:
        return job
    found: FittedCalibration | None = read_calibration(run.folder, tuned.maker["adapter_sha256"])
    if found is None and job.corpus and run.flags.get("validation_share"):
        found = _fitted(job, run, job.corpus.validation, tuned, config, ranks, listener, answer_rows)
    return replace(
        job, answerers=tuple(calibrated(asked, found) if asked is tuned else asked for asked in job.answerers)
    )


def calibration_of(run: FinishedRun, answers: ModelAnswers) -> FittedCalibration | None:
    """By a model's answers to the run's validation rows."""
    return calibrate(answers, Training.of_record(run.dataset_record).labels)


def calibrated(asked: AskedModel, found: FittedCalibration | None) -> AskedModel:
    """A model, and in its record what calibrates it."""
    if found is None:
        return asked
    kept = {
        name: value for name, value in found.model_dump().items() if name in FittedCalibration.model_fields
    }
    return replace(asked, maker={**asked.maker, "calibration": kept})


def _fitted(
    job: Benchmark,
    run: FinishedRun,
    held_out: datasets.Dataset | None,
    tuned: AskedModel,
    config: BenchmarkConfig,
    ranks: Ranks,
    listener: Listener,
    answer_rows: AnswerRows,
) -> FittedCalibration | None:
    tell = listener.say if ranks.rank == 0 else lambda _: None
    count = 0 if held_out is None else len(held_out)
    if held_out is None or count < LEAST_ROWS:
        tell(f"No calibration: it takes {LEAST_ROWS} validation rows, and the training held {count} out.")
        return None
    places = spread(count, MOST_ROWS)
    trial = on_validation_rows(job, job.folder / VALIDATION, (held_out[at] for at in places))
    tell(f"Calibration: {TUNED} answers {len(places)} of {count} validation rows, once.")
    answer_rows(replace(trial, answerers=(answerer(config, trial, tuned.adapter, TUNED),)))
    (answers,) = predictions.read_answers(trial.folder, job.task).complete
    found = calibration_of(run, answers)
    if found is None:
        known = sum(logs is not None for logs in answers.label_log_likelihoods)
        tell(f"No calibration: {known} of {len(places)} answers have probabilities; it takes {LEAST_ROWS}.")
    elif ranks.rank == 0:
        _keep(run, found, tuned.maker["adapter_sha256"], listener)
    return found


def _keep(run: FinishedRun, found: FittedCalibration, adapter_sha256: str, listener: Listener) -> None:
    """Beside the adapter, for forecast.py and for other test rows."""
    path = run.folder / CALIBRATION
    listener.say(f"Calibration: {found.in_words}.")
    try:
        write_json(path, {**found.model_dump(), "adapter_sha256": adapter_sha256})
    except OSError as error:  # the run may lie where nobody writes
        listener.warn(f"{path} cannot be written ({error.strerror}): forecast.py will do without.")
