"""The pace of calls to one vendor: evenly spaced, shared by threads, and ended by a stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pyrate_limiter import Decision, Duration, Rate, RateItem, StateBucket

from forecaster.retry_after import Waits


class StoppedError(Exception):
    """A wait ended because the run stops."""


class Pace:
    """Spaces the calls of every thread evenly: a limit of 60 a minute is one call a second, with no burst.

    The first call waits, too. So a run that is killed and started again at once stays below the limit.
    """

    def __init__(
        self,
        calls_per_minute: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """
        Args:
            clock: seconds, from any origin at or after zero.
            sleep: moves a simulated clock on; None waits in earnest.
            tell: hears of waits that a fault makes, not of those for a turn.
        """
        self._clock = clock
        self.waits = Waits(tell, clock)
        self._simulated_sleep = sleep
        self._stopped = threading.Event()
        self._turn = threading.Lock()
        self._not_before_s = 0.0
        rate = Rate(calls_per_minute, Duration.MINUTE, burst=1)
        self._bucket = StateBucket([rate])
        self._bucket.put(self._arrival())
        self.taken = 0
        """Calls started so far: tries that failed included."""

    def take(self) -> None:
        """Wait until one more call may start; raises StoppedError."""
        # Waiting inside the lock: who came first goes first, and simulated waits do not add up.
        with self._turn:
            while (wait_s := self._wait_s()) > 0:
                self.sleep(wait_s)
            self.taken += 1

    def hold(self, seconds: float) -> None:
        """Let no thread start a call for a while, because the vendor asked for it."""
        self._not_before_s = max(self._not_before_s, self._clock() + seconds)

    def sleep(self, seconds: float) -> None:
        """Wait; raises StoppedError as soon as the run stops."""
        if self._simulated_sleep is None:
            self._stopped.wait(seconds)
        else:
            self._simulated_sleep(seconds)
        self._raise_if_stopped()

    def stop(self) -> None:
        """End every wait, now and later."""
        self._stopped.set()

    def _wait_s(self) -> float:
        """Seconds to wait before the next try; 0 when a call was granted."""
        self._raise_if_stopped()
        held_s = self._not_before_s - self._clock()
        if held_s > 0:
            return held_s
        decision = self._bucket.put_decision(self._arrival())
        assert isinstance(decision, Decision)  # an awaitable for remote buckets only
        return (decision.retry_after_ms or 0) / 1000

    def _arrival(self) -> RateItem:
        return RateItem("call", round(self._clock() * 1000))

    def _raise_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise StoppedError("the run was stopped")
