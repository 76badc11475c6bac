"""The best of several, with it said that several were tried."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy

from forecaster.evaluation.best_of_several import (
    best_by_weekly_mean,
    deflated_sharpe,
    expected_best,
    probabilistic_sharpe,
)


def weekly(seed: int, mean: float, weeks: int = 40) -> dict[object, float]:
    return dict(enumerate(np.random.default_rng(seed).normal(mean, 1.0, weeks)))


def test_the_best_of_useless_models_is_told_to_be_so_and_a_skilled_one_stands_out() -> None:
    useless = {f"m{seed}": weekly(seed, 0.0) for seed in range(8)}
    found = best_by_weekly_mean("score", useless)
    assert found is not None
    assert (found.tried, found.value) == (
        8,
        pytest.approx(max(np.mean(list(of.values())) for of in useless.values())),
    )
    assert found.p_value is not None
    assert found.p_value > 0.05
    skilled = best_by_weekly_mean("score", useless | {"seer": weekly(99, 1.0)})
    assert skilled is not None
    assert skilled.model == "seer"
    assert skilled.p_value is not None
    assert skilled.p_value < 0.01
    assert best_by_weekly_mean("score", useless) == found  # by its seed


def test_models_are_judged_on_the_weeks_that_all_have() -> None:
    found = best_by_weekly_mean("score", {"a": {1: 1.0, 2: 3.0, 3: -9.0}, "b": {1: 1.0, 2: 2.0}})
    assert found is not None
    assert (found.model, found.value, found.p_value) == ("a", 2.0, None)  # two weeks tell nothing


def test_one_model_is_no_choice_and_one_that_is_silent_was_not_tried() -> None:
    assert best_by_weekly_mean("score", {"a": weekly(1, 0.0), "silent": {}}) is None


def test_models_that_are_the_same_in_every_week_give_no_p_value() -> None:
    same = dict.fromkeys(range(30), 0.0)
    found = best_by_weekly_mean("score", {"a": same, "b": same})
    assert found is not None
    assert found.p_value is None


def test_the_best_of_ten_ratios_is_expected_as_by_hand() -> None:
    # Quantiles of 1 - 1 / 10 and of 1 - 1 / (10 e).
    assert expected_best(10, 0.5) == pytest.approx(
        0.5 * (0.4227843 * 1.2815516 + 0.5772157 * 1.7892410), abs=1e-5
    )
    drawn = np.random.default_rng(0).normal(0, 1, (20_000, 10)).max(axis=1).mean()
    assert expected_best(10, 1.0) == pytest.approx(drawn, abs=0.05)  # which it approximates


def test_of_normal_returns_the_probability_is_that_of_a_t_value() -> None:
    returns = np.array([1.0, -1.0, 2.0, 0.0, 1.0, -1.0, 2.0, 0.0])
    ratio = 0.5 / returns.std(ddof=1)
    kurtosis = np.mean((returns - 0.5) ** 4) / np.mean((returns - 0.5) ** 2) ** 2
    error = math.sqrt(1 + (kurtosis - 1) / 4 * ratio**2)  # not skewed
    expected = scipy.stats.norm.cdf(ratio * math.sqrt(7) / error)
    assert probabilistic_sharpe(returns, 0.0) == pytest.approx(expected)


def test_a_sharpe_ratio_is_deflated_by_how_many_were_tried() -> None:
    rng = np.random.default_rng(3)
    books = {f"m{at}": rng.normal(0, 1, 60) for at in range(12)}
    found = deflated_sharpe(books, 52)
    assert found is not None
    best = max(of.mean() / of.std(ddof=1) for of in books.values())
    assert (found.tried, found.value) == (12, pytest.approx(best * math.sqrt(52)))
    assert found.p_value is not None
    alone = 1 - probabilistic_sharpe(books[found.model], 0.0)
    assert alone < 0.15 < found.p_value
    assert deflated_sharpe({"a": books["m0"], "still": np.zeros(60)}, 52) is None
