"""Forecasts of a week from past closes alone: what a model has to beat where sizes count.

Directions cannot be had from closes, sizes can: stocks that moved much lately go on to. Both forecasts say
how far a symbol may move, and neither says where to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal

import numpy as np
import scipy  # loads scipy.stats only where it is used: importing that takes a second

from forecaster.records import Row
from forecaster.tasks.distributions import Distribution

Closes = Callable[[str], Mapping[date, Decimal] | None]
"""A symbol's adjusted closes by day; None where there are none."""

NORMAL, SCALED = "normal, EWMA volatility", "past moves, scaled by volatility"

SESSIONS_A_WEEK = 5
DECAY = 0.94
"""Of the daily EWMA: RiskMetrics Technical Document (1996), section 5.3.2."""
YEAR_SESSIONS = 252
LEAST_SESSIONS = 40
"""Before that, a volatility is a guess."""
LEAST_MOVES = 100
"""Fewer past moves leave bins empty by chance."""
SHARES = (0.4, 0.4, 0.2)
"""Of the variance: the symbol's EWMA, its past year, and the mean EWMA of all symbols. On 105 stocks from
2024 to 2026 this was better than either alone; nearby shares do as well."""
EDGES_PCT = (-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5)
"""Borders between the twelve bins."""


def price_forecasts(rows: Sequence[Row], closes: Closes) -> dict[str, list[Distribution | None]]:
    """Both forecasts of every row, from closes up to its first day; None where there are too few."""
    found: dict[str, list[Distribution | None]] = {name: [None] * len(rows) for name in (NORMAL, SCALED)}
    symbols = sorted({row.symbol for row in rows if row.symbol})
    panel = {symbol: known for symbol in symbols if (known := closes(symbol))}
    if not panel:
        return found
    days, prices = _panel(panel)
    symbol_at = {symbol: at for at, symbol in enumerate(panel)}
    ewma, blended = _weekly_volatility_pct(prices)
    rows_from: dict[int, list[int]] = {}
    for at, row in enumerate(rows):
        if row.start is not None and row.symbol in symbol_at:
            # The last session on or before the row's first day; the return starts from its close.
            session = int(np.searchsorted(days, np.datetime64(row.start), side="right")) - 1
            rows_from.setdefault(session, []).append(at)
    for session, places in rows_from.items():
        if session < 0:
            continue
        past = _scaled_moves(prices, blended, session)
        for at in places:
            column = symbol_at[rows[at].symbol]
            if np.isfinite(ewma[session, column]):
                found[NORMAL][at] = _normal(ewma[session, column])
            if np.isfinite(blended[session, column]) and len(past) >= LEAST_MOVES:
                found[SCALED][at] = _empirical(past * blended[session, column])
    return found


def _panel(closes: Mapping[str, Mapping[date, Decimal]]) -> tuple[np.ndarray, np.ndarray]:
    """Sessions, and (sessions, symbols) closes with nan where there is none."""
    days = sorted({day for known in closes.values() for day in known})
    place = {day: at for at, day in enumerate(days)}
    prices = np.full((len(days), len(closes)), np.nan)
    for column, known in enumerate(closes.values()):
        for day, close in known.items():
            prices[place[day], column] = float(close)
    return np.array(days, dtype="datetime64[D]"), prices


def _weekly_volatility_pct(prices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sessions, symbols) each: standard deviations of a week's move, as known at each close: by the symbol's
    EWMA alone, and blended."""
    import pandas as pd  # half a second, and not needed where there are no closes

    squared = pd.DataFrame(np.log(prices)).diff() ** 2
    ewma = squared.ewm(alpha=1 - DECAY, min_periods=LEAST_SESSIONS).mean()
    year = squared.rolling(YEAR_SESSIONS, min_periods=LEAST_SESSIONS).mean()
    market = ewma.mean(axis=1)
    own, past_year, all_symbols = SHARES
    blended = (own * ewma + past_year * year).add(all_symbols * market, axis=0)
    week = 100 * np.sqrt(SESSIONS_A_WEEK)
    return week * np.sqrt(ewma.to_numpy()), week * np.sqrt(blended.to_numpy())


def _scaled_moves(prices: np.ndarray, volatility_pct: np.ndarray, session: int) -> np.ndarray:
    """All moves of five sessions that were over by the close of `session`, each in units of what its symbol's
    volatility was when it began; sorted."""
    begins = np.arange(session - SESSIONS_A_WEEK, -1, -SESSIONS_A_WEEK)
    with np.errstate(invalid="ignore"):
        moves = 100 * (prices[begins + SESSIONS_A_WEEK] / prices[begins] - 1) / volatility_pct[begins]
    return np.sort(moves[np.isfinite(moves)])


def _normal(deviation_pct: float) -> Distribution:
    reached = scipy.stats.norm.cdf(np.array(EDGES_PCT) / deviation_pct)
    return Distribution(tuple(np.diff(np.concatenate(([0.0], reached, [1.0]))).tolist()))


def _empirical(moves_pct: np.ndarray) -> Distribution:
    """Shares of sorted moves by bin, with one more in each, so that none is impossible. Edges belong to the
    bin nearer to zero, and zero is a rise, as labels have it."""
    falls = np.searchsorted(moves_pct, [edge for edge in EDGES_PCT if edge <= 0], side="left")
    rises = np.searchsorted(moves_pct, [edge for edge in EDGES_PCT if edge > 0], side="right")
    counts = np.diff(np.concatenate(([0], falls, rises, [len(moves_pct)]))) + 1
    return Distribution(tuple((counts / counts.sum()).tolist()))
