"""Calls to a vendor, and their answers, as records."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

Status = Literal["answered", "unknown symbol", "no access", "failed", "unusable"]
"""`unusable`: it was one of the others once, and what was kept of it cannot be used."""


@dataclass(frozen=True, order=True)
class Request:
    """What was asked; two equal requests have one answer."""

    endpoint: str
    symbol: str
    """As the vendor knows it today."""
    window_start: str = ""
    """ISO date, or empty where the endpoint has no window."""
    window_end: str = ""
    variant: str = ""
    """Whatever else tells two requests apart."""


@dataclass(frozen=True)
class Call:
    """A request and what became of it."""

    request: Request
    status: Status
    fetched_at: datetime
    """UTC."""
    payload: Any = None
    """JSON; for a failure, one line on what was found."""
    count: int = 0
    """Items in the payload."""
    truncated: bool = False
    """Whether the vendor may have left items out."""

    @property
    def sha256(self) -> str:
        """Of the payload as canonical JSON."""
        return hashlib.sha256(canonical(self.payload)).hexdigest()


def canonical(payload: Any) -> bytes:
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
