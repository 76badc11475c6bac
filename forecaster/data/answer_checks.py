"""Whether what the ledger holds of a call can be used: the schema of its rows, in one place."""

from __future__ import annotations

from typing import Any

from forecaster.calls import Call
from forecaster.chat import MOST_TOKENS
from forecaster.data.teacher import ENDPOINT as TEACHER
from forecaster.vendors import payloads
from forecaster.vendors.base import FactKind
from forecaster.vendors.own_files import NEWS_FILE, PRICE_FILE
from forecaster.vendors.registry import vendor_behind

_OF_FILES: dict[str, FactKind] = {NEWS_FILE: "news", PRICE_FILE: "prices"}
_WITH_WINDOW = ("news", "prices")
_NO_DAYS = "its days are none"


def fault_of(call: Call) -> str:
    """Why a call cannot be used; empty when it can, or when its endpoint is not known any more.

    Never raises, whatever is in it.
    """
    if call.request.endpoint == TEACHER:
        return _fault_of_answer(call.payload)
    kind = _kind_of(call.request.endpoint)
    if kind is None or call.status not in ("answered", "unknown symbol"):
        return ""
    window = call.request.window_start, call.request.window_end
    if kind in _WITH_WINDOW and not all(map(payloads.is_day, window)):
        return _NO_DAYS
    return payloads.fault_of(kind, call.payload) if call.status == "answered" else ""


def _kind_of(endpoint: str) -> FactKind | None:
    if endpoint in _OF_FILES:
        return _OF_FILES[endpoint]
    try:
        vendor = vendor_behind(endpoint)[1]
    except KeyError:
        return None
    return next(known.kind for known in vendor.endpoints if known.name == endpoint)


def _fault_of_answer(payload: Any) -> str:
    is_whole = (
        isinstance(payload, dict)
        and all(isinstance(payload.get(name), str) for name in ("answer", "fault"))
        and all(
            type(payload.get(name)) is int and 0 <= payload[name] <= MOST_TOKENS
            for name in ("input_tokens", "output_tokens")
        )
    )
    return "" if is_whole else "an answer of an unknown form"
