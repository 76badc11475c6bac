"""Daily closes and splits from Yahoo, through yfinance."""

from __future__ import annotations

import logging
import math
import re
import warnings
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import requests
import yfinance
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential
from yfinance._http import new_session
from yfinance.data import YfData
from yfinance.exceptions import YFException, YFPricesMissingError, YFRateLimitError, YFTzMissingError

from forecaster.calls import Request
from forecaster.errors import UnknownSymbolError, UnreachableError
from forecaster.http_limits import ServerFaultError, endless_redirects, limit_curl, limit_requests
from forecaster.vendors.pace import Pace

TRIES = 5
"""Waits of 1, 2, 4 and 8 minutes in between where it limits, as it does so for minutes; of 4 to 32 seconds
after other faults."""

_VENDOR = "Yahoo"
_CLASS_SHARE = re.compile(r"([A-Z]+)\.([ABC])")
"""An American share class, as in BRK.B; longer endings are of other exchanges."""
_SECOND_OPINION_AFTER_S = 5
_DELISTED = ("no data found", "doesn't exist", "delisted")
"""Parts of the reasons that Yahoo gives for a symbol without prices, in lower case."""


class _PassingFault(Exception):
    """An answer that another try may mend."""


class _RateLimited(_PassingFault):
    """Too many requests, says Yahoo."""


def _backoff_s(state: RetryCallState) -> float:
    is_limited = state.outcome is not None and isinstance(state.outcome.exception(), _RateLimited)
    return wait_exponential(multiplier=60 if is_limited else 4)(state)


class Yahoo:
    """Asks Yahoo at a given pace; made for one thread, as yfinance shares one session among all."""

    def __init__(self, pace: Pace, session: requests.Session | None = None) -> None:
        """
        Args:
            session: None lets yfinance make its own, which Yahoo takes for a browser's.
        """
        self.pace = pace
        yfinance.config.debug.hide_exceptions = False
        # What it would log is raised as well.
        logging.getLogger("yfinance").setLevel(logging.CRITICAL)
        self._session = session or new_session()
        if isinstance(self._session, requests.Session):
            # Without a key there is nothing to lose on another server, and Yahoo has many.
            limit_requests(self._session, stays=False)
        else:
            limit_curl(self._session)
        # Its use of pandas is its own affair.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="yfinance")
        warnings.filterwarnings("ignore", category=FutureWarning, module="yfinance")

    def ask(self, request: Request) -> dict[str, Any]:
        """The payload of a request for `daily-bars`."""
        first_day, last_day = map(date.fromisoformat, (request.window_start, request.window_end))
        return self.daily_bars(request.symbol, first_day, last_day)

    def close(self) -> None:
        """Nothing to end: the session is yfinance's own, or the caller's."""

    def daily_bars(self, symbol: str, first_day: date, last_day: date) -> dict[str, Any]:
        """Closes of the days of a window, both ends included, and the splits since its start until today.

        Returns:
            `{"bars": [{"day", "close", "adj_close"}], "splits": [{"day", "ratio"}], "missing_days": [day]}`:
            ISO days, oldest first; numbers as text that gives the same float again. `close` is adjusted for
            splits, `adj_close` for dividends, too. Days that Yahoo lists without a price are missing days.

        Raises:
            UnknownSymbolError: Yahoo does not know the symbol, or no longer serves it.
            UnreachableError: no usable answer after all tries.
            StoppedError: the pace was stopped.
        """
        try:
            table = self._history(symbol, first_day)
        except UnknownSymbolError:
            # Some of Yahoo's failures look like a delisting, and this verdict is final: ask once more.
            self.pace.sleep(_SECOND_OPINION_AFTER_S)
            table = self._history(symbol, first_day)
        return _payload(table, first_day, last_day)

    def _history(self, symbol: str, first_day: date) -> pd.DataFrame:
        retrying = Retrying(
            retry=retry_if_exception_type(_PassingFault),
            stop=stop_after_attempt(TRIES),
            wait=_backoff_s,
            before_sleep=self._tell_wait,
            sleep=self.pace.sleep,
            reraise=True,
        )
        try:
            return retrying(self._try, symbol, first_day)
        except _PassingFault as fault:
            found = str(fault)
        raise UnreachableError(_VENDOR, f"no usable answer in {TRIES} tries, in the last one {found}.")

    def _tell_wait(self, state: RetryCallState) -> None:
        fault = state.outcome.exception() if state.outcome else None
        wait_s = state.next_action.sleep if state.next_action else 0.0
        self.pace.waits.begin(_VENDOR, str(fault), wait_s, state.attempt_number, TRIES)

    def _try(self, symbol: str, first_day: date) -> pd.DataFrame:
        self.pace.take()
        # It keeps answers of status 500, too, and would give them again.
        YfData.cache_get.cache_clear()
        fault: Exception
        try:
            return yfinance.Ticker(_yahoo_symbol(symbol), session=self._session).history(
                start=first_day.isoformat(),
                # Later than now, so that every split is known; yfinance excludes the end.
                end=(datetime.now(UTC).date() + timedelta(days=2)).isoformat(),
                auto_adjust=False,
                actions=True,
                keepna=True,
            )
        except YFRateLimitError:
            fault = _RateLimited("a rate limit (HTTP 429)")
        except YFTzMissingError:
            fault = _unknown()
        except YFPricesMissingError as error:
            reason = (error.yahoo_reason or _DELISTED[0]).lower()
            is_delisted = any(words in reason for words in _DELISTED)
            fault = _unknown() if is_delisted else _PassingFault("an error in place of prices")
        except YFException as error:
            fault = _PassingFault(f"an answer without prices ({type(error).__name__})")
        except ServerFaultError as error:
            fault = _beyond(error)
        # Where it reads the JSON. Before OSError, as the JSON error of requests is one, too.
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            fault = _PassingFault(f"an answer of an unknown form ({type(error).__name__})")
        except OSError as error:  # every network error of requests and of curl_cffi is one
            status = getattr(getattr(error, "response", None), "status_code", None)
            if type(error).__name__ == "TooManyRedirects":  # of requests, and of curl_cffi
                fault = _beyond(endless_redirects())
            else:
                fault = _unknown() if status == 404 else _PassingFault(_network_fault(error, status))
        raise fault


def _yahoo_symbol(symbol: str) -> str:
    """BRK-B for BRK.B, and SAP.DE as it is."""
    found = _CLASS_SHARE.fullmatch(symbol)
    return f"{found[1]}-{found[2]}" if found else symbol


def _beyond(error: ServerFaultError) -> Exception:
    found = f"the server {error.found}"
    return UnreachableError(_VENDOR, f"{found}.") if error.is_final else _PassingFault(found)


def _unknown() -> UnknownSymbolError:
    return UnknownSymbolError(_VENDOR, "it has no prices for this symbol.")


def _network_fault(error: OSError, status: int | None) -> str:
    return f"HTTP {status}" if status else f"a broken connection ({type(error).__name__})"


def _payload(table: pd.DataFrame, first_day: date, last_day: date) -> dict[str, Any]:
    bars, splits, missing = [], [], []
    for moment, row in table.sort_index().iterrows():
        day = moment.date()
        close, adjusted, ratio = (float(row[name]) for name in ("Close", "Adj Close", "Stock Splits"))
        if ratio > 0:
            splits.append({"day": day.isoformat(), "ratio": repr(ratio)})
        if not first_day <= day <= last_day:
            continue
        if all(math.isfinite(price) and price > 0 for price in (close, adjusted)):
            bars.append({"day": day.isoformat(), "close": repr(close), "adj_close": repr(adjusted)})
        else:
            missing.append(day.isoformat())
    return {"bars": bars, "splits": splits, "missing_days": missing}
