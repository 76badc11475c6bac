"""Finnhub through its own client: company news, profiles, reported figures and filings.

The client puts the key into the URL, and the texts of `requests` exceptions quote the URL. So no exception
of theirs leaves this module: a fault is told in words of this module, and never chained to its cause.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import date
from typing import Any, Literal, TypeVar

import finnhub
import requests
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

from forecaster.calls import Request
from forecaster.errors import KeyRefusedError, NoAccessError, UnknownSymbolError, UnreachableError
from forecaster.http_limits import ServerFaultError, endless_redirects, limit_requests
from forecaster.retry_after import in_words, retry_after_s
from forecaster.vendors.base import FactKind
from forecaster.vendors.pace import Pace
from forecaster.vendors.payloads import fault_of

TRIES = 7
"""Waits of 2, 4, 8, 16, 32 and 60 s in between: two full minutes, so that a limit counted by the minute is
outlived."""

LONGEST_WAIT_S = 15 * 60
"""A vendor that asks for a longer pause is asked again after this one."""

PROFILE_FACTS = ("name", "finnhubIndustry", "exchange", "country", "ipo")
"""Facts of a profile that do not change with time; market value and shares are those of today."""

FILING_FACTS = (
    "accessNumber",
    "year",
    "quarter",
    "form",
    "startDate",
    "endDate",
    "filedDate",
    "acceptedDate",
)
"""What is kept of a filing: when it became public, not the report itself."""

_VENDOR = "Finnhub"
_BACKOFF = wait_exponential(multiplier=2, max=60)

Payload = TypeVar("Payload")


class _PassingFault(Exception):
    """An answer that another try may mend."""

    def __init__(self, found: str, *, limited: bool = False, retry_after_s: float | None = None) -> None:
        self.found, self.limited, self.retry_after_s = found, limited, retry_after_s
        super().__init__(found)

    @property
    def told(self) -> str:
        """What was found, and what was asked for where it is more than anybody waits."""
        asked_s = self.retry_after_s or 0.0
        too_long = f", and a wait of {in_words(asked_s)} is asked for" if asked_s > LONGEST_WAIT_S else ""
        return self.found + too_long


class Finnhub:
    """Asks Finnhub at a given pace; safe to share between threads.

    Every method raises KeyRefusedError, NoAccessError, UnreachableError (after all tries) or StoppedError
    (the pace was stopped).
    """

    def __init__(self, api_key: str, pace: Pace) -> None:
        """Makes no call yet; raises KeyRefusedError for an empty key."""
        if not api_key:
            raise KeyRefusedError(_VENDOR, "there is no key.")
        self.pace = pace
        self._api_key = api_key
        self._of_thread = threading.local()  # a requests.Session is not made for several threads
        self._clients: list[finnhub.Client] = []
        # At level DEBUG it writes every URL, and with it the key.
        logging.getLogger("urllib3").setLevel(logging.INFO)

    def ask(self, request: Request) -> Any:
        """The payload of a request; `base.FactKind` says how it looks."""
        symbol = request.symbol
        if request.endpoint == "company-news":
            first_day, last_day = map(date.fromisoformat, (request.window_start, request.window_end))
            return self.company_news(symbol, first_day, last_day)
        if request.endpoint == "filings":
            return self.filings(symbol, "annual" if request.variant == "annual" else "quarterly")
        return self.profile(symbol) if request.endpoint == "profile" else self.basic_financials(symbol)

    def company_news(self, symbol: str, first_day: date, last_day: date) -> list[dict[str, Any]]:
        """Articles of UTC days, both included, as received: newest first, about 250 at most, strays among
        them."""
        window = {"_from": first_day.isoformat(), "to": last_day.isoformat()}
        return self._ask(lambda client: client.company_news(symbol, **window), _news)

    def profile(self, symbol: str) -> dict[str, str]:
        """`PROFILE_FACTS`, empty where not known; raises UnknownSymbolError."""
        return self._ask(lambda client: client.company_profile2(symbol=symbol), _profile)

    def basic_financials(self, symbol: str) -> dict[str, Any]:
        """`{"quarterly": {name: [{"period", "v"}, ...]}, "annual": {...}}`."""
        return self._ask(lambda client: client.company_basic_financials(symbol, "all"), _series)

    def filings(self, symbol: str, frequency: Literal["quarterly", "annual"]) -> list[dict[str, Any]]:
        """Filings with `FILING_FACTS`: 10-Q or 10-K and their kin."""
        return self._ask(lambda client: client.financials_reported(symbol=symbol, freq=frequency), _filings)

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _ask(self, call: Callable[[finnhub.Client], Any], read: Callable[[Any], Payload]) -> Payload:
        retrying = Retrying(
            retry=retry_if_exception_type(_PassingFault),
            stop=stop_after_attempt(TRIES),
            wait=_wait_s,
            before_sleep=self._before_wait,
            sleep=self.pace.sleep,
            reraise=True,
        )
        try:
            return retrying(self._try, call, read)
        except _PassingFault as fault:
            found = fault.found
        raise UnreachableError(_VENDOR, f"no usable answer in {TRIES} tries, in the last one {found}.")

    def _try(self, call: Callable[[finnhub.Client], Any], read: Callable[[Any], Payload]) -> Payload:
        self.pace.take()
        fault: Exception
        try:
            answer = call(self._client())
        except finnhub.FinnhubAPIException as error:
            fault = _refusal(error)
        except finnhub.FinnhubRequestException:
            fault = _PassingFault("an answer that is not JSON")
        except TypeError:  # from the client, for a refusal whose JSON is not an object
            fault = _PassingFault("a refusal without a reason")
        except RecursionError:
            fault = _PassingFault("an answer that is nested too deeply")
        except ServerFaultError as error:
            fault = _beyond(error)
        except requests.TooManyRedirects:
            fault = _beyond(endless_redirects())
        except requests.Timeout:
            fault = _PassingFault("no answer in time")
        except requests.RequestException as error:
            fault = _PassingFault(f"a broken connection ({type(error).__name__})")
        else:
            return read(answer)
        # Out here nothing is being handled, so no exception that quotes the URL becomes part of this one.
        raise fault

    def _before_wait(self, state: RetryCallState) -> None:
        """Tell the wait. A rate limit counts for all threads, not only for the one that met it."""
        if state.next_action:
            fault, wait_s = _fault_of(state), state.next_action.sleep
            self.pace.waits.begin(_VENDOR, fault.told, wait_s, state.attempt_number, TRIES)
            if fault.limited:
                self.pace.hold(wait_s)

    def _client(self) -> finnhub.Client:
        if not hasattr(self._of_thread, "client"):
            client = finnhub.Client(api_key=self._api_key)
            limit_requests(client._session, stays=True)
            self._of_thread.client = client
            self._clients.append(client)
        return self._of_thread.client


def _refusal(error: finnhub.FinnhubAPIException) -> Exception:
    """What a status other than 2xx means. The vendor's own words are read, never repeated."""
    status, words = error.status_code, str(error.message).lower()
    if status == 401:
        return KeyRefusedError(_VENDOR, "the key was refused (HTTP 401).")
    if status == 429 and "sign up for a free account" in words:
        return KeyRefusedError(_VENDOR, "the key did not arrive, is it empty? (HTTP 429).")
    if status == 403:
        return NoAccessError(_VENDOR, "not part of the plan that the key belongs to (HTTP 403).")
    if status in (408, 429) or status >= 500:
        return _PassingFault(
            f"HTTP {status}",
            limited=status == 429,
            retry_after_s=retry_after_s(error.response.headers.get("Retry-After")),
        )
    # Asked again it would be refused again: the dataset goes on without it.
    return NoAccessError(_VENDOR, f"the call was refused (HTTP {status}).")


def _beyond(error: ServerFaultError) -> Exception:
    found = f"the server {error.found}"
    return UnreachableError(_VENDOR, f"{found}.") if error.is_final else _PassingFault(found)


def _fault_of(state: RetryCallState) -> _PassingFault:
    fault = state.outcome.exception() if state.outcome else None
    assert isinstance(fault, _PassingFault)  # nothing else is tried again
    return fault


def _wait_s(state: RetryCallState) -> float:
    asked = _fault_of(state).retry_after_s
    return _BACKOFF(state) if asked is None else min(asked, LONGEST_WAIT_S)


def _checked(kind: FactKind, payload: Payload) -> Payload:
    if fault := fault_of(kind, payload):
        raise _PassingFault(fault)
    return payload


def _news(answer: Any) -> list[dict[str, Any]]:
    return _checked("news", answer)


def _profile(answer: Any) -> dict[str, str]:
    if answer == {}:
        raise UnknownSymbolError(_VENDOR, "there is no such symbol.")
    kept = {fact: answer.get(fact) or "" for fact in PROFILE_FACTS} if isinstance(answer, dict) else answer
    return {fact: str(value) for fact, value in _checked("profile", kept).items()}


def _series(answer: Any) -> dict[str, Any]:
    series: Any = (answer.get("series") or {}) if isinstance(answer, dict) else None
    is_named = isinstance(series, dict)
    kept: Any = {name: series.get(name) or {} for name in ("quarterly", "annual")} if is_named else series
    return _checked("figures", kept)


def _filings(answer: Any) -> list[dict[str, Any]]:
    filings = (answer.get("data") or []) if isinstance(answer, dict) else None
    if not isinstance(filings, list) or not all(isinstance(filing, dict) for filing in filings):
        raise _PassingFault("filings of an unknown form")
    return _checked("filings", [{fact: filing.get(fact) for fact in FILING_FACTS} for filing in filings])
