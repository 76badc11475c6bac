"""What a job tells while it runs. A terminal is one listener; a page or a search is another."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TextIO


class Advance(Protocol):
    """Tells that one more call, row or symbol is done, or several."""

    def __call__(self, count: int = 1, /) -> None: ...


def say(text: str, stream: TextIO | None = None) -> None:
    """Print, and go on where nobody reads any more: Ctrl-C also ends the `tee` behind a pipe, and a terminal
    that is gone gives errors."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        # Python would write what is left when it ends, fail again, and change the exit status.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@dataclass(frozen=True)
class Listener:
    """Hears a job."""

    say: Callable[[str], None]
    """A line of what the job does or found."""
    warn: Callable[[str], None]
    """A line of what falls short."""
    bar: Callable[[str, str, int | None], AbstractContextManager[Advance]]
    """A stretch of work: what is done, in which unit, and how many of them (None: not known)."""


def at_terminal() -> Listener:
    """Lines to stdout and stderr, bars to stderr."""
    from tqdm import tqdm  # only where somebody looks

    def tell(line: str, stream: TextIO) -> None:
        with tqdm.external_write_mode(stream):  # a bar makes way, and comes back below
            say(line, stream)

    @contextmanager
    def bar(what: str, unit: str, total: int | None) -> Iterator[Advance]:
        # Of work without an end in sight, nothing is shown when it was short, and nothing stays.
        shape: dict[str, Any] = {"leave": False, "delay": 1} if total is None else {}
        with tqdm(total=total, desc=what, unit=unit, **shape) as shown:
            yield shown.update

    return Listener(lambda line: tell(line, sys.stdout), lambda line: tell(line, sys.stderr), bar)


def without_bars(listener: Listener) -> Listener:
    """For the other ranks of a job: the first one shows how far it is."""
    return replace(listener, bar=_no_bar)


@contextmanager
def _no_bar(what: str, unit: str, total: int | None) -> Iterator[Advance]:
    yield lambda count=1: None
