"""How often each part of the verdict says "skill" of useless forecasters, and of one that has some.

    python bench/verdict_errors.py [--runs 1000]

Returns of a week move together (a market, five sectors, fat tails). Useless forecasters order symbols or tilt
probabilities by something that knows nothing of the week to come; their probabilities are as good as the
forecast that they are held against, to first order. Four minutes for a thousand runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tabulate import tabulate

from forecaster.evaluation.ranks import chance_deviation, rank_skill, weekly_rank_correlations
from forecaster.evaluation.statistics import Estimate, is_sure, over_weeks

SECTORS = 5
TILT, USELESS_TILT = 0.02, 0.002
"""Of P(up), by a signal of one deviation; that of the useless so small that what it costs is far below what
chance gives."""
Signals = Callable[[np.random.Generator, np.ndarray], np.ndarray]
"""From generator and betas (symbols, sectors) to signals (weeks, symbols)."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    args = parser.parse_args(argv)
    lines = []
    for weeks, symbols in ((20, 30), (60, 100)):
        for name, signals in useless(weeks, symbols).items():
            found = [one_run(seed, weeks, symbols, signals) for seed in range(args.runs)]
            lines.append((f"{weeks} weeks of {symbols}", name, *shares(found)))
    found = [one_run(seed, 60, 100, None, 0.067) for seed in range(args.runs)]
    lines.append(("60 weeks of 100", "rank correlation 0.067", *shares(found)))
    headers = ("", "forecaster", "direction: skill", "wrong way round", "probabilities: skill")
    print(f"Shares of {args.runs} runs\n")
    print(tabulate(lines, headers=headers, tablefmt="github"))
    return 0


def useless(weeks: int, symbols: int) -> dict[str, Signals]:
    return {
        "coin by row": lambda rng, betas: rng.normal(size=(weeks, symbols)),
        # Hardly any order within a week: what a model gives that says one thing of all.
        "caller of whole weeks": lambda rng, betas: (
            rng.normal(size=(weeks, 1)) + 1e-3 * rng.normal(size=(weeks, symbols))
        ),
        "constant by symbol": lambda rng, betas: np.tile(rng.normal(size=symbols), (weeks, 1)),
        "factor-loaded": lambda rng, betas: rng.normal(size=(weeks, SECTORS)) @ betas.T,
    }


def one_run(
    seed: int, weeks: int, symbols: int, signals: Signals | None, skill: float = 0.0
) -> tuple[bool, bool, bool]:
    """Whether the direction is said to be skill, to be the wrong way round, and probabilities to be skill."""
    rng = np.random.default_rng(seed)
    betas = rng.normal(size=(symbols, SECTORS)) / np.sqrt(SECTORS)
    fat = rng.standard_t(4, size=(weeks, symbols)) / np.sqrt(2)
    returns = rng.normal(size=(weeks, 1)) + rng.normal(size=(weeks, SECTORS)) @ betas.T + 1.5 * fat
    signal = signals(rng, betas) if signals else skilled(rng, returns, skill)
    direction, tilt = of_direction(signal, returns), USELESS_TILT if signals else TILT
    return (
        is_sure(direction, weeks),
        is_sure(direction, weeks, -1),
        is_sure(of_tilt(signal, returns, tilt), weeks),
    )


def skilled(rng: np.random.Generator, returns: np.ndarray, skill: float) -> np.ndarray:
    """Signals whose rank correlation with a week's returns is `skill`, for small ones."""
    order = returns.argsort(axis=1).argsort(axis=1)
    scores = (order - order.mean()) / order.std()
    return skill * scores + rng.normal(size=returns.shape)


def of_direction(signal: np.ndarray, returns: np.ndarray) -> Estimate:
    week_of = np.repeat(np.arange(len(signal)), signal.shape[1]).tolist()
    by_week = weekly_rank_correlations(signal.ravel().tolist(), returns.ravel().tolist(), week_of)
    found = rank_skill(by_week, chance_deviation(week_of))
    return found.estimate if found else Estimate(None)


def of_tilt(signal: np.ndarray, returns: np.ndarray, tilt: float) -> Estimate:
    """Gain of the log score over a forecast of one half each."""
    up = 0.5 + tilt * np.clip(signal, -4, 4)
    gains = np.log(np.where(returns > 0, up, 1 - up) / 0.5).ravel()
    week_of = np.repeat(np.arange(len(signal)), signal.shape[1]).tolist()
    return over_weeks(np.stack([gains, np.ones_like(gains)], axis=1), week_of)


def shares(found: Sequence[tuple[bool, bool, bool]]) -> list[str]:
    return [f"{100 * np.mean(column):.1f} %" for column in zip(*found, strict=True)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
