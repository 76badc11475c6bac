"""How long a server asks its callers to wait, and the word that they wait."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

SHORTEST_TOLD_S = 2.0
"""A wait from which on a user may ask what is going on."""


def retry_after_s(header: str | None) -> float | None:
    """A Retry-After header, which holds seconds or a date; None for none or an unreadable one."""
    if header is None:
        return None
    if re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,12})?", header.strip()):
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
    # What the library raises for a date that is none, or that no calendar reaches.
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


class Waits:
    """Tells of waits before a server is asked again: once, where several callers wait for the same."""

    def __init__(self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._told_until_s = 0.0
        self._turn = threading.Lock()

    def begin(self, who: str, found: str, wait_s: float, tries: int, most_tries: int) -> None:
        """
        Args:
            found: what made the caller wait.
            tries: made so far.
        """
        with self._turn:
            until_s = self._clock() + wait_s
            if wait_s < SHORTEST_TOLD_S or until_s <= self._told_until_s + SHORTEST_TOLD_S:
                return
            self._told_until_s = until_s
        self._tell(f"{who}: {found}; asked again in {in_words(wait_s)} (try {tries + 1} of {most_tries}).")


def in_words(wait_s: float) -> str:
    """A length of time, as a user reads it."""
    if wait_s < 120:
        return f"{wait_s:.0f} s"
    return f"{wait_s / 60:.0f} minutes" if wait_s < 120 * 60 else f"{wait_s / 3600:.0f} hours"
