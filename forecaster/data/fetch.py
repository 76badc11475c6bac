"""Fetches what a dataset needs and the ledger does not hold yet.

What is asked next follows from the ledger alone. So a run that was killed goes on with the same command, asks
nothing twice, and ends with the answers of a run that was not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from forecaster.calls import Call, Request, Status
from forecaster.data.ledger import Ledger
from forecaster.data.news import (
    COMPANY_NEWS,
    TRUNCATION_SUSPECTED_FROM,
    Coverage,
    Span,
    coverage_of,
    covered,
    cut_off,
    gaps,
    start_of,
)
from forecaster.data.store import REPORTED, is_settled, news_calls_of
from forecaster.errors import NoAccessError, UnknownSymbolError, UnreachableError
from forecaster.settings import redact
from forecaster.vendors.finnhub import Finnhub
from forecaster.vendors.yahoo import Yahoo

WORKERS = 8
"""Symbols in flight. An answer takes about a second, so this many keep up with 8 calls a second."""


@dataclass(frozen=True)
class Needs:
    """What a dataset needs of one symbol."""

    symbol: str
    """As the vendor knows it today."""
    news: tuple[Span, ...] = ()
    """Stretches of which every article is wanted; parts in the future are not asked for."""
    prices: tuple[date, date] | None = None
    """First and last day, both included."""
    profile: bool = False
    financials: date | None = None
    """Last day for which reported figures, and the filings that made them public, are needed."""


@dataclass(frozen=True, order=True)
class Shortfall:
    """Something that was needed and is not there."""

    symbol: str
    endpoint: str
    status: Status
    found: str
    """One line for the user, without a key."""


@dataclass(frozen=True)
class Outcome:
    """What a run fetched, and what it could not."""

    calls: int
    """Calls that this run recorded, answered or not; tries of one call count once."""
    shortfalls: tuple[Shortfall, ...]
    """Sorted; symbols that turned out unknown in an earlier run are among them."""
    cut_off_days: Mapping[str, tuple[date, ...]]
    """By symbol: days of wanted stretches on which there was more news than a call can give."""


def fetch(
    ledger: Ledger,
    needs: Sequence[Needs],
    finnhub: Finnhub | None,
    yahoo: Yahoo | None,
    *,
    workers: int = WORKERS,
    on_call: Callable[[], None] = lambda: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    files: Sequence[str] = (),
    truncation_suspected_from: int = TRUNCATION_SUSPECTED_FROM,
) -> Outcome:
    """Ask vendors for whatever of `needs` the ledger does not answer; each answer is recorded as it comes.

    What one symbol or endpoint lacks stops no other; it is told in the outcome. A Ctrl-C waits for the
    answers in flight and records them. After any exception the paces of both vendors are stopped for good.

    Args:
        needs: one per symbol.
        finnhub: None where it need not be asked; the same for `yahoo`.
        on_call: called after each recorded call, from other threads.
        now: UTC.
        files: digests of the user's own news files, whose news need not be asked for.
        truncation_suspected_from: articles in one answer from which on it counts as cut off.

    Raises:
        KeyRefusedError: at once, and what waits is dropped.
        ValueError: a symbol twice, or a vendor that has to be asked is None.
    """
    if len({need.symbol for need in needs}) < len(needs):
        raise ValueError("a symbol is needed twice")
    run = _Fetching(ledger, finnhub, yahoo, on_call, now, files, truncation_suspected_from)
    # Yahoo gets a thread of its own, so that its minutes of waiting hold up nothing else.
    pools = ThreadPoolExecutor(workers, "finnhub"), ThreadPoolExecutor(1, "yahoo")
    is_finished = False
    try:
        # One call first: where the key is refused, nobody else is asked anything.
        if first := next((need for need in needs if need.profile), None):
            run.profile(first)
            needs = [replace(need, profile=False) if need is first else need for need in needs]
        jobs = [pools[0].submit(run.company_and_news, need) for need in needs]
        jobs += [pools[1].submit(run.prices, need) for need in needs]
        for job in as_completed(jobs):
            job.result()
        is_finished = True
    finally:
        if not is_finished:
            if finnhub:
                finnhub.pace.stop()
            if yahoo:
                yahoo.pace.stop()
        for pool in pools:
            pool.shutdown(cancel_futures=True)
    return run.outcome()


def reports_to_ask(ledger: Ledger, need: Needs) -> list[Request]:
    """Requests for reported figures of a symbol: those without an answer that was given late enough."""
    if need.financials is None:
        return []
    last_day = need.financials.isoformat()
    return [
        Request(endpoint, need.symbol, window_end=last_day, variant=variant)
        for endpoint, variant in REPORTED
        if not any(
            call.request.variant == variant and call.request.window_end >= last_day
            for call in ledger.answers(endpoint, need.symbol)
        )
    ]


class _Fetching:
    """One run over many symbols; its methods are called from several threads, one symbol in one thread."""

    def __init__(
        self,
        ledger: Ledger,
        finnhub: Finnhub | None,
        yahoo: Yahoo | None,
        on_call: Callable[[], None],
        now: Callable[[], datetime],
        files: Sequence[str],
        truncation_suspected_from: int,
    ) -> None:
        self._ledger, self._finnhub_or_none, self._yahoo_or_none = ledger, finnhub, yahoo
        self._on_call, self._now, self._files = on_call, now, files
        self._truncation_suspected_from = truncation_suspected_from
        self._started_at = now().replace(microsecond=0)
        self._lock = threading.Lock()
        self._calls = 0
        self._shortfalls: set[Shortfall] = set()
        self._cut_off_days: dict[str, tuple[date, ...]] = {}

    def outcome(self) -> Outcome:
        return Outcome(self._calls, tuple(sorted(self._shortfalls)), dict(sorted(self._cut_off_days.items())))

    def company_and_news(self, need: Needs) -> None:
        symbol = need.symbol
        if need.profile:
            self.profile(need)
        for request in reports_to_ask(self._ledger, need):
            self._ask(request, partial(self._reports, request))
        if need.news:
            self._news(symbol, need.news)

    def profile(self, need: Needs) -> None:
        self._ask(Request("profile", need.symbol), lambda: self._finnhub.profile(need.symbol))

    def prices(self, need: Needs) -> None:
        if need.prices:
            first_day, last_day = need.prices
            request = Request("daily-bars", need.symbol, first_day.isoformat(), last_day.isoformat())
            # An answer that lacked its last close is asked for anew.
            times_asked = 1
            while (call := self._ledger.answer(request)) and not is_settled(call):
                times_asked += 1
                request = replace(request, variant=str(times_asked))
            self._ask(request, lambda: self._yahoo.daily_bars(need.symbol, first_day, last_day))

    def _reports(self, request: Request) -> Any:
        if request.endpoint == "basic-financials":
            return self._finnhub.basic_financials(request.symbol)
        return self._finnhub.filings(request.symbol, "annual" if request.variant == "annual" else "quarterly")

    def _news(self, symbol: str, wanted: Sequence[Span]) -> None:
        """Page backward from the newest stretch that no answer covers, until none is left.

        An answer covers its window down to its oldest article, or a whole day that exceeds the limit. So the
        last day asked for moves back with every call. Only a clock that was set back breaks this; then the
        same days come up again, and the stretch is given up.
        """
        wanted = [(start, min(end, self._started_at)) for start, end in wanted]
        coverages = [coverage_of(call) for call in news_calls_of(self._ledger, symbol, self._files)]
        given_up: list[Span] = []
        asked: set[tuple[date, date]] = set()
        while uncovered := gaps(wanted, [*covered(coverages), *given_up]):
            start, end = uncovered[-1]
            days = start.date(), max(start, end - timedelta(seconds=1)).date()
            if days in asked:
                found = f"no answer covers {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
                self._note(Shortfall(symbol, COMPANY_NEWS, "failed", found))
                given_up.append((start, end))
                continue
            asked.add(days)
            answer = self._ask_for_news(symbol, *days)
            if answer is None:
                break
            coverages.append(coverage_of(answer))
        self._note_cut_off_days(symbol, wanted, coverages)

    def _ask_for_news(self, symbol: str, first_day: date, last_day: date) -> Call | None:
        request = Request(COMPANY_NEWS, symbol, first_day.isoformat(), last_day.isoformat())
        times_asked = 1
        # Answered, and yet not all is covered: it was asked before its last day was over.
        while self._ledger.answer(request):
            times_asked += 1
            request = replace(request, variant=str(times_asked))
        return self._ask(request, lambda: self._finnhub.company_news(symbol, first_day, last_day))

    def _note_cut_off_days(self, symbol: str, wanted: Sequence[Span], coverages: Sequence[Coverage]) -> None:
        days = [
            day
            for day in sorted(cut_off(coverages))
            if any(start < start_of(day + timedelta(days=1)) and start_of(day) < end for start, end in wanted)
        ]
        if days:
            with self._lock:
                self._cut_off_days[symbol] = tuple(days)

    def _ask(self, request: Request, ask: Callable[[], Any]) -> Call | None:
        """The final answer to a request, from the ledger or else from the vendor; None after a failure."""
        if call := self._ledger.answer(request):
            self._note_unknown(call)
            return call
        # The moment before the call: what comes out while it is under way may be missing from its answer.
        asked_at = self._now().replace(microsecond=0)
        status: Status = "answered"
        try:
            payload = ask()
        except UnknownSymbolError:
            status, payload = "unknown symbol", None
        except (NoAccessError, UnreachableError) as error:
            status = "no access" if isinstance(error, NoAccessError) else "failed"
            payload = redact(str(error))
            self._note(Shortfall(request.symbol, request.endpoint, status, payload))
        count = _items(request.endpoint, payload) if status == "answered" else 0
        is_truncated = request.endpoint == COMPANY_NEWS and count >= self._truncation_suspected_from
        call = Call(request, status, asked_at, payload, count, is_truncated)
        self._ledger.record(call)
        self._note_unknown(call)
        with self._lock:
            self._calls += 1
        self._on_call()
        return call if status in ("answered", "unknown symbol") else None

    def _note_unknown(self, call: Call) -> None:
        if call.status == "unknown symbol":
            found = "the vendor does not know this symbol, or no longer serves it"
            self._note(Shortfall(call.request.symbol, call.request.endpoint, call.status, found))

    def _note(self, shortfall: Shortfall) -> None:
        with self._lock:
            self._shortfalls.add(shortfall)

    @property
    def _finnhub(self) -> Finnhub:
        if self._finnhub_or_none is None:
            raise ValueError("Finnhub has to be asked, and there is no client for it")
        return self._finnhub_or_none

    @property
    def _yahoo(self) -> Yahoo:
        if self._yahoo_or_none is None:
            raise ValueError("Yahoo has to be asked, and there is no client for it")
        return self._yahoo_or_none


def _items(endpoint: str, payload: Any) -> int:
    """How much an answer holds: articles, filings, bars or series of figures."""
    if endpoint == "daily-bars":
        return len(payload["bars"])
    if endpoint == "basic-financials":
        return sum(len(series) for series in payload.values())
    return len(payload) if isinstance(payload, list) else 1
