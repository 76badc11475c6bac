"""Answers to validation rows to what they make of a model's probabilities."""

from __future__ import annotations

from collections.abc import Mapping

from forecaster.evaluation.metrics import forecasts_of
from forecaster.evaluation.readings import read_forecasts
from forecaster.evaluation.rows import ModelAnswers
from forecaster.models.run_schemas import FittedCalibration
from forecaster.records import Label
from forecaster.tasks.calibration import LEAST_ROWS, fit
from forecaster.tasks.distributions import BINS, PLACE, climatology


def calibrate(answers: ModelAnswers, training_labels: Mapping[Label, int]) -> FittedCalibration | None:
    """Temperature and weight by a model's answers to rows that it was not trained on; None where fewer than
    `LEAST_ROWS` of them have probabilities and an outcome.

    Args:
        training_labels: rows by label in training.
    """
    forecasts = forecasts_of(read_forecasts(answers.answers), answers.label_log_likelihoods)
    places = [
        at
        for at, (forecast, row) in enumerate(zip(forecasts, answers.rows, strict=True))
        if forecast.distribution and row.actual
    ]
    cases = [
        (logs, actual)
        for at in places
        if (logs := answers.label_log_likelihoods[at]) and (actual := answers.rows[at].actual)
    ]
    if len(cases) < LEAST_ROWS:
        return None
    usual = climatology(training_labels)
    found = fit(cases, usual)
    return FittedCalibration(
        temperature=found.temperature,
        model_weight=found.model_weight,
        # By name, as a file has them that was read again.
        climatology=dict(sorted((label.text, usual.shares[PLACE[label]]) for label in BINS)),
        rows=len(cases),
        weeks=len({answers.rows[at].week or answers.rows[at].row_id for at in places}),
    )
