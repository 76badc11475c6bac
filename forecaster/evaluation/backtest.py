"""What a model's weekly directions would have earned, beside buy and hold and beside luck.

Each week the capital is spread equally over the symbols that have a row in that week: of n symbols each gets
a share of 1/n, and a symbol with several rows splits its share equally among them. A row is held with its
whole share: long for a predicted rise; for a predicted fall short in long/short and not at all in long/flat;
not at all where there is no forecast. Buy and hold is long in every row.

A symbol's weight is the sum over its rows. At the start of a week the book moves from the weights of the week
before to those of the week, which costs `cost_bps` / 10,000 times the sum of absolute changes, taken from
that week's return. Entering counts. Leaving after the last week does not: the data ends there, not the
strategy. Neglected are the drift of weights within a week (going back to equal weights would be a trade, in
buy and hold too), borrowing fees of shorts and market impact. Weeks compound. Capital cannot fall below zero:
once it is lost, nothing is earned.

Weeks without any row are skipped: the book is taken over unchanged, and its return in between, which is not
known, counts as none. Annual figures take 52 weeks with rows for a year.

The band shows what luck alone does: whole weeks of directions, missing ones included, are given to other
weeks at random, symbol by symbol, and traded in the same way. So a model that calls whole weeks is set beside
others that do, and one that always says the same beside itself. A symbol without a row in the week that is
given is not held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from forecaster.evaluation.statistics import Estimate, over_weeks
from forecaster.records import Direction

LONG_SHORT, LONG_FLAT, BUY_AND_HOLD = STRATEGIES = ("long/short", "long/flat", "buy and hold")
WEEKS_PER_YEAR = 52
BAND_PCT = (5.0, 95.0)
"""Percentiles of the equity of shuffled directions."""

_Floats: TypeAlias = NDArray[np.float64]
_Places: TypeAlias = NDArray[np.intp]


_SIGNS: dict[Direction | None, float] = {"up": 1.0, "down": -1.0, None: 0.0}


@dataclass(frozen=True)
class Signal:
    """One row's forecast and what the market then did."""

    week: date
    symbol: str
    direction: Direction | None
    """None: no readable forecast, and so no position."""
    return_pct: float
    """The symbol's return over that week."""


@dataclass(frozen=True)
class Backtest:
    """One strategy week by week, and its figures, all after costs but the hit rate."""

    weeks: tuple[date, ...]
    """Sorted; weeks without rows are not among them."""
    weekly_returns_pct: tuple[float, ...]
    equity: tuple[float, ...]
    """1.0, then the capital after each week: one longer than `weeks`."""
    cumulative_return_pct: float
    annualised_return_pct: float | None
    """Compound; None below 52 weeks: a part of a year says nothing of the rest (GIPS 2010, I.5.A.4)."""
    sharpe: Estimate
    """Mean over standard deviation (n - 1) of weekly returns, times the root of 52, no risk-free rate; no
    value with fewer than two weeks or without variance."""
    max_drawdown_pct: float
    """Deepest fall below an earlier peak, the start included: zero or negative."""
    hit_rate: float | None
    """Share of positions, one a row, that gained before costs; None without positions."""
    turnover: float
    """Mean over weeks of the sum of absolute weight changes: 1 is the whole capital traded once a week."""
    band_low: tuple[float, ...] = ()
    """Lower end of the equity of shuffled directions, in the places of `equity`; empty for buy and hold."""
    band_high: tuple[float, ...] = ()
    luck_share: float | None = None
    """Share of shuffles that end at least as high, with the forecasts as they are counted as one of them
    (Phipson and Smyth 2010); None for buy and hold."""


def backtest(
    signals: Sequence[Signal], *, cost_bps: float = 10.0, permutations: int = 1000, seed: int = 0
) -> dict[str, Backtest]:
    """Every strategy of `STRATEGIES`, by name; empty for no signals.

    Args:
        cost_bps: of the value traded, in hundredths of a percent.
        permutations: shuffles of weeks behind the band; 0 for none.
        seed: of the shuffles, which are the same for both strategies.
    """
    if not signals:
        return {}
    ordered = sorted(signals, key=lambda signal: (signal.symbol, signal.week))
    market = _Market(ordered, cost=cost_bps / 1e4)
    directions = np.array([_SIGNS[signal.direction] for signal in ordered])
    shuffled: dict[str, list[_Floats]] = {LONG_SHORT: [], LONG_FLAT: []}
    rng = np.random.default_rng(seed)
    for _ in range(permutations):
        drawn = market.in_other_weeks(directions, rng.permutation(len(market.weeks)))
        shuffled[LONG_SHORT].append(market.equity(drawn))
        shuffled[LONG_FLAT].append(market.equity(np.maximum(drawn, 0.0)))
    return {
        LONG_SHORT: _figures(market, directions, shuffled[LONG_SHORT]),
        LONG_FLAT: _figures(market, np.maximum(directions, 0.0), shuffled[LONG_FLAT]),
        BUY_AND_HOLD: _figures(market, np.ones_like(directions), []),
    }


class _Market:
    """The rows as arrays, so that a set of positions is priced in a few passes over them.

    A cell is one symbol in one week. Rows come sorted by symbol and week, so that cells are too, and a
    symbol's cell of the week before, if there is one, is the neighbour on the left.
    """

    def __init__(self, ordered: Sequence[Signal], cost: float) -> None:
        self.weeks = tuple(sorted({signal.week for signal in ordered}))
        self._cost = cost
        place = {week: at for at, week in enumerate(self.weeks)}
        cells = list(dict.fromkeys((signal.symbol, signal.week) for signal in ordered))
        at = {cell: number for number, cell in enumerate(cells)}
        self._row_cell = np.array([at[signal.symbol, signal.week] for signal in ordered], dtype=np.intp)
        self._cell_week = np.array([place[week] for _, week in cells], dtype=np.intp)
        column = {symbol: number for number, symbol in enumerate(dict.fromkeys(s for s, _ in cells))}
        self._row_symbol = np.array([column[signal.symbol] for signal in ordered], dtype=np.intp)
        symbols_in_week, rows_in_cell = np.bincount(self._cell_week), np.bincount(self._row_cell)
        self._row_week: _Places = self._cell_week[self._row_cell]
        self._share: _Floats = 1.0 / (symbols_in_week[self._row_week] * rows_in_cell[self._row_cell])
        self.returns: _Floats = np.array([signal.return_pct for signal in ordered]) / 100.0
        self._held_before = np.array(
            [
                number > 0
                and cells[number - 1][0] == symbol
                and place[cells[number - 1][1]] == place[week] - 1
                for number, (symbol, week) in enumerate(cells)
            ]
        )
        left = ~np.append(self._held_before[1:], False)
        self._left = np.flatnonzero(left & (self._cell_week < len(self.weeks) - 1))

    def in_other_weeks(self, positions: _Floats, week_of: _Places) -> _Floats:
        """The positions that each row's symbol has in another week.

        Args:
            week_of: for each week, the one whose positions it is given.
        """
        by_week = np.zeros((len(self.weeks), self._row_symbol.max() + 1))
        by_week[self._row_week, self._row_symbol] = positions
        given: _Floats = by_week[week_of[self._row_week], self._row_symbol]
        return given

    def _by_week(self, places: _Places, values: _Floats) -> _Floats:
        sums: _Floats = np.bincount(places, weights=values, minlength=len(self.weeks)).astype(np.float64)
        return sums

    def traded(self, positions: _Floats) -> _Floats:
        """Sum of absolute weight changes of each week, for positions of -1, 0 or 1 a row."""
        weights = np.bincount(self._row_cell, weights=positions * self._share)
        before = np.where(self._held_before, np.append(0.0, weights[:-1]), 0.0)
        kept = self._by_week(self._cell_week, np.abs(weights - before))
        return kept + self._by_week(self._cell_week[self._left] + 1, np.abs(weights[self._left]))

    def equity(self, positions: _Floats) -> _Floats:
        """1.0, then the capital after each week."""
        gross = self._by_week(self._row_week, positions * self._share * self.returns)
        growth = np.maximum(1.0 + gross - self._cost * self.traded(positions), 0.0)
        return np.append(1.0, np.cumprod(growth))


def _figures(market: _Market, positions: _Floats, shuffled: Sequence[_Floats]) -> Backtest:
    equity = market.equity(positions)
    start, final, weeks = equity[:-1], float(equity[-1]), len(market.weeks)
    # Once all is lost there is nothing to earn a return on.
    weekly = np.divide(equity[1:], start, out=np.ones(weeks), where=start > 0) - 1.0
    held = positions != 0
    gained = (positions * market.returns > 0)[held]
    band = np.percentile(shuffled, BAND_PCT, axis=0) if len(shuffled) else np.empty((2, 0))
    # Sums in another order differ in their last digits: equal ends count as equal.
    as_high = sum(curve[-1] >= final * (1 - 1e-12) for curve in shuffled)
    return Backtest(
        weeks=market.weeks,
        weekly_returns_pct=tuple((100 * weekly).tolist()),
        equity=tuple(equity.tolist()),
        cumulative_return_pct=100 * (final - 1),
        annualised_return_pct=100 * (final ** (WEEKS_PER_YEAR / weeks) - 1)
        if weeks >= WEEKS_PER_YEAR
        else None,
        sharpe=_sharpe(weekly),
        max_drawdown_pct=float(100 * np.min(equity / np.maximum.accumulate(equity) - 1)),
        hit_rate=float(gained.mean()) if gained.size else None,
        turnover=float(market.traded(positions).mean()),
        band_low=tuple(band[0].tolist()),
        band_high=tuple(band[1].tolist()),
        luck_share=float((1 + as_high) / (1 + len(shuffled))) if len(shuffled) else None,
    )


def _sharpe(weekly: _Floats) -> Estimate:
    return over_weeks(np.stack([np.ones_like(weekly), weekly, weekly**2], axis=1), range(len(weekly)), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    """Sharpe ratio of a year from weeks, their returns and squared returns; nan without variance.

    Args:
        sums: (..., 3).
    """
    count, total, squares = np.moveaxis(np.asarray(sums, dtype=float), -1, 0)
    # The spread of equal returns is not exactly zero once they have been summed.
    spread = squares - total**2 / count
    has_spread = (count > 1) & (spread > 1e-12 * np.maximum(squares, 1e-12))
    deviation = np.sqrt(np.divide(spread, count - 1, out=np.ones(np.shape(count)), where=has_spread))
    return np.where(has_spread, total / count / deviation * np.sqrt(WEEKS_PER_YEAR), np.nan)
