"""A clock that moves only when somebody sleeps."""

from __future__ import annotations


class SimulatedTime:
    """Seconds since it was made; give `now` and `sleep` to a `Pace`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.waits: list[float] = []
        """Every sleep, in order."""

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.waits.append(round(seconds, 2))
