"""Several seeds' answers to one row as one forecast, with values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from forecaster.evaluation.metrics import forecasts_of
from forecaster.evaluation.predictions import Prediction
from forecaster.evaluation.seed_means import mean_of_seeds
from forecaster.records import ALL_LABELS, Label
from forecaster.tasks.loose_forecasts import read_forecast

UP, DOWN = Label("up", 2), Label("down", 1)


def likely(of: Mapping[Label, float], mass: float) -> dict[str, float]:
    """Log-likelihoods of labels that have so much of all together; those not named share a ten-thousandth."""
    rest = 1e-4 / (12 - len(of))
    left = 1 - 1e-4
    return {label.text: math.log(mass * (of[label] * left if label in of else rest)) for label in ALL_LABELS}


def said(answer: str | None, logs: Mapping[str, float] | None) -> Prediction:
    return Prediction(
        "fine-tuned", "A 1", "A", "2024-01-07 to 2024-01-14", "up by 2-3%", answer, 9, 0, 5, logs
    )


def test_probabilities_are_averaged_and_not_likelihoods() -> None:
    # The first seed gives its labels half of all, the second a tenth: both count alike.
    found = mean_of_seeds(
        [
            said("Prediction: Up by 2-3%", likely({UP: 0.9, DOWN: 0.1}, mass=0.5)),
            said("Prediction: Down by 1-2%", likely({UP: 0.3, DOWN: 0.7}, mass=0.1)),
        ]
    )
    assert found.answer == "Prediction: Up by 2-3%"
    (forecast,) = forecasts_of([read_forecast(found.answer)], [found.label_log_likelihoods])
    assert forecast.label == UP and forecast.distribution is not None
    assert forecast.distribution.up == pytest.approx(0.6, abs=1e-4)
    assert forecast.label_mass == pytest.approx(0.3)


def test_one_seed_stays_as_it_is() -> None:
    only = said("No forecast.", None)
    assert mean_of_seeds([only]) is only


def test_a_seed_without_likelihoods_takes_no_part_in_the_mean() -> None:
    found = mean_of_seeds(
        [said("words", None), said("Prediction: Down by 1-2%", likely({UP: 0.2, DOWN: 0.8}, mass=1.0))]
    )
    assert found.answer == "Prediction: Down by 1-2%"


def test_without_likelihoods_the_bin_named_most_often_counts() -> None:
    answers = ["Prediction: Up by 2-3%", "Prediction: Down by 1-2%", "Prediction: Down by 1-2%"]
    found = mean_of_seeds([said(answer, None) for answer in answers])
    assert (found.answer, found.label_log_likelihoods) == ("Prediction: Down by 1-2%", None)
    assert mean_of_seeds([said("words", None), said(None, None)]).answer == ""


def test_a_bin_that_no_seed_gives_anything_has_a_number() -> None:
    nothing = {label.text: 0.0 if label == UP else -800.0 for label in ALL_LABELS}
    found = mean_of_seeds([said("Prediction: Up by 2-3%", nothing)] * 2)
    assert found.label_log_likelihoods is not None
    assert min(found.label_log_likelihoods.values()) == pytest.approx(-708.396, abs=1e-3)
