"""Technical indicators of a series of closes: the only importer of TA-Lib. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import talib


def indicators(closes: Sequence[Decimal]) -> dict[str, float]:
    """Indicators as of the last close, in the order of a reader's interest.

    SMA and EMA (20, 50 closes) and MACD (12, 26, 9 closes) are in the price's unit, RSI (14 closes, Wilder's
    smoothing) runs from 0 to 100. An EMA starts from the SMA of its first closes, so that EMA, RSI and MACD
    depend, ever less, on where the series starts.

    Args:
        closes: oldest first, without gaps, all in the same shares.

    Returns:
        Rounded to four decimals, or to four significant digits below 1; what needs a longer series than
        given is absent, and so is the RSI of a price that never moved.
    """
    if not closes:
        return {}
    series = np.array([float(close) for close in closes])
    macd, signal, histogram = talib.MACD(series)
    found = {
        "SMA 20": talib.SMA(series, timeperiod=20),
        "SMA 50": talib.SMA(series, timeperiod=50),
        "EMA 20": talib.EMA(series, timeperiod=20),
        "RSI 14": talib.RSI(series, timeperiod=14),
        "MACD": macd,
        "MACD signal": signal,
        "MACD histogram": histogram,
    }
    if len(set(closes)) == 1:
        # No gain and no loss: TA-Lib says 0, which reads as "nothing but losses".
        del found["RSI 14"]
    return {name: _readable(float(values[-1])) for name, values in found.items() if not np.isnan(values[-1])}


def _readable(value: float) -> float:
    """Four decimals; below 1, as coins and MACD are, four significant digits."""
    size = abs(value)
    decimals = 4 if size >= 1 or size == 0 else 3 - math.floor(math.log10(size))
    return round(value, decimals) + 0.0
