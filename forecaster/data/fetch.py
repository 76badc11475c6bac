"""Fetches what a dataset needs and the ledger does not hold yet.

What is asked next follows from the ledger alone. So a run that was killed goes on with the same command, asks
nothing twice, and ends with the answers of a run that was not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from forecaster.calls import Call, Request, Status
from forecaster.data.ledger import Ledger
from forecaster.data.news import Coverage, Span, coverage_of, covered, cut_off, gaps, start_of
from forecaster.data.store import is_settled, news_calls_of
from forecaster.errors import NoAccessError, UnknownSymbolError, UnreachableError
from forecaster.settings import redact
from forecaster.vendors.base import Connection, FactKind, VendorEndpoint
from forecaster.vendors.payloads import fault_of
from forecaster.vendors.registry import endpoints_of, vendors_of


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

    @property
    def kinds(self) -> tuple[FactKind, ...]:
        """The kinds of facts, in the order in which they are asked for."""
        wanted: tuple[tuple[FactKind, bool], ...] = (
            ("profile", self.profile),
            ("figures", self.financials is not None),
            ("filings", self.financials is not None),
            ("news", bool(self.news)),
            ("prices", self.prices is not None),
        )
        return tuple(kind for kind, is_wanted in wanted if is_wanted)


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
    connections: Sequence[Connection],
    *,
    on_call: Callable[[], None] = lambda: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    files: Sequence[str] = (),
) -> Outcome:
    """Ask vendors for whatever of `needs` the ledger does not answer; each answer is recorded as it comes.

    What one symbol or endpoint lacks stops no other; it is told in the outcome. A Ctrl-C waits for the
    answers in flight and records them. After any exception the paces of all vendors are stopped for good.

    Args:
        needs: one per symbol.
        connections: of several vendors that have a kind of fact, all are asked for news, each for what its
            own answers lack, and for other kinds the first one.
        on_call: called after each recorded call, from other threads.
        now: UTC.
        files: digests of the user's own news files, whose news need not be asked for.

    Raises:
        KeyRefusedError: at once, and what waits is dropped.
        ValueError: a symbol twice, or a kind of fact that no connection has.
    """
    if len({need.symbol for need in needs}) < len(needs):
        raise ValueError("a symbol is needed twice")
    shares = [(connection, kinds) for connection, kinds in _shares(connections, needs) if kinds]
    run = _Run(ledger, on_call, now, files)
    is_finished = False
    with ExitStack() as pools:
        try:
            # One call first: where a key is refused, nobody else is asked anything.
            if first := next((need for need in needs if need.profile), None):
                for connection, _ in (share for share in shares if "profile" in share[1]):
                    run.profile(connection, first)
                needs = [replace(need, profile=False) if need is first else need for need in needs]
            jobs: list[Future[None]] = []
            for connection, kinds in shares:
                # A pool for each vendor, so that the minutes that one has to wait hold up no other.
                pool = ThreadPoolExecutor(connection.vendor.workers, connection.vendor.name)
                pools.callback(pool.shutdown, cancel_futures=True)
                jobs += [pool.submit(run.symbol, connection, kinds, need) for need in needs]
            for job in as_completed(jobs):
                job.result()
            is_finished = True
        finally:
            if not is_finished:
                for connection in connections:
                    connection.client.pace.stop()
    return run.outcome()


def _shares(
    connections: Sequence[Connection], needs: Sequence[Needs]
) -> Iterator[tuple[Connection, tuple[FactKind, ...]]]:
    """Which kinds of facts each vendor is asked for; raises ValueError for one that nobody has."""
    wanted = dict.fromkeys(kind for need in needs for kind in need.kinds)
    having = {kind: [each for each in connections if each.vendor.endpoints_of(kind)] for kind in wanted}
    for kind, found in having.items():
        if not found:
            names = " or ".join(vendor.name for vendor in vendors_of(kind))
            raise ValueError(f"{names} has to be asked for {kind}, and there is no client for it")
    for connection in connections:
        yield (
            connection,
            tuple(
                kind
                for kind, found in having.items()
                if connection in (found if kind == "news" else found[:1])
            ),
        )


def reports_to_ask(
    ledger: Ledger, need: Needs, endpoints: Sequence[VendorEndpoint] | None = None
) -> list[Request]:
    """Requests for reported figures of a symbol: those without an answer that was given late enough.

    Args:
        endpoints: of figures and filings; None takes those of all vendors.
    """
    if need.financials is None:
        return []
    last_day = need.financials.isoformat()
    return [
        Request(endpoint.name, need.symbol, window_end=last_day, variant=endpoint.variant)
        for endpoint in (endpoints_of("figures", "filings") if endpoints is None else endpoints)
        if not any(
            call.request.variant == endpoint.variant and call.request.window_end >= last_day
            for call in ledger.answers(endpoint.name, need.symbol)
        )
    ]


class _Run:
    """One run over many symbols; its methods are called from several threads, one symbol of one vendor in
    one thread."""

    def __init__(
        self, ledger: Ledger, on_call: Callable[[], None], now: Callable[[], datetime], files: Sequence[str]
    ) -> None:
        self._ledger, self._on_call, self._now, self._files = ledger, on_call, now, files
        self._started_at = now().replace(microsecond=0)
        self._lock = threading.Lock()
        self._calls = 0
        self._shortfalls: set[Shortfall] = set()
        self._cut_off_days: dict[str, set[date]] = {}

    def outcome(self) -> Outcome:
        days = {symbol: tuple(sorted(found)) for symbol, found in sorted(self._cut_off_days.items())}
        return Outcome(self._calls, tuple(sorted(self._shortfalls)), days)

    def symbol(self, connection: Connection, kinds: Sequence[FactKind], need: Needs) -> None:
        """Everything of some kinds that is needed of a symbol."""
        for kind in need.kinds:
            if kind not in kinds:
                continue
            if kind == "profile":
                self.profile(connection, need)
            elif kind == "news":
                for endpoint in connection.vendor.endpoints_of("news"):
                    self._news(connection, endpoint.name, need)
            elif kind == "prices":
                self._prices(connection, need)
            else:
                for request in reports_to_ask(self._ledger, need, connection.vendor.endpoints_of(kind)):
                    self._ask(connection, kind, request)

    def profile(self, connection: Connection, need: Needs) -> None:
        for endpoint in connection.vendor.endpoints_of("profile"):
            self._ask(connection, "profile", Request(endpoint.name, need.symbol))

    def _prices(self, connection: Connection, need: Needs) -> None:
        if need.prices:
            first_day, last_day = need.prices
            for endpoint in connection.vendor.endpoints_of("prices"):
                request = Request(endpoint.name, need.symbol, first_day.isoformat(), last_day.isoformat())
                # An answer that lacked its last close is asked for anew.
                request = _next_variant(request, is_settled, self._ledger)
                self._ask(connection, "prices", request)

    def _news(self, connection: Connection, endpoint: str, need: Needs) -> None:
        """Page backward from the newest stretch that no answer covers, until none is left.

        An answer covers its window down to its oldest article, or a whole day that exceeds the limit. So the
        last day asked for moves back with every call. Only a clock that was set back breaks this; then the
        same days come up again, and the stretch is given up.
        """
        symbol = need.symbol
        wanted = [(start, min(end, self._started_at)) for start, end in need.news]
        known = news_calls_of(self._ledger, symbol, self._files, (endpoint,))
        coverages = [coverage_of(call) for call in known]
        given_up: list[Span] = []
        asked: set[tuple[date, date]] = set()
        while uncovered := gaps(wanted, [*covered(coverages), *given_up]):
            start, end = uncovered[-1]
            days = start.date(), max(start, end - timedelta(seconds=1)).date()
            if days in asked:
                found = f"no answer covers {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
                self._note(Shortfall(symbol, endpoint, "failed", found))
                given_up.append((start, end))
                continue
            asked.add(days)
            request = Request(endpoint, symbol, days[0].isoformat(), days[1].isoformat())
            # Answered, and yet not all is covered: it was asked before its last day was over.
            request = _next_variant(request, lambda call: False, self._ledger)
            answer = self._ask(connection, "news", request)
            if answer is None:
                break
            coverages.append(coverage_of(answer))
        self._note_cut_off_days(symbol, wanted, coverages)

    def _note_cut_off_days(self, symbol: str, wanted: Sequence[Span], coverages: Sequence[Coverage]) -> None:
        days = {
            day
            for day in cut_off(coverages)
            if any(start < start_of(day + timedelta(days=1)) and start_of(day) < end for start, end in wanted)
        }
        if days:
            with self._lock:
                self._cut_off_days.setdefault(symbol, set()).update(days)

    def _ask(self, connection: Connection, kind: FactKind, request: Request) -> Call | None:
        """The final answer to a request, from the ledger or else from the vendor; None after a failure."""
        if call := self._ledger.answer(request):
            self._note_unknown(call)
            return call
        # The moment before the call: what comes out while it is under way may be missing from its answer.
        asked_at = self._now().replace(microsecond=0)
        status: Status = "answered"
        try:
            payload = connection.client.ask(request)
            if fault := fault_of(kind, payload):
                raise UnreachableError(connection.vendor.name, f"{fault}.")
        except UnknownSymbolError:
            status, payload = "unknown symbol", None
        except (NoAccessError, UnreachableError) as error:
            status = "no access" if isinstance(error, NoAccessError) else "failed"
            payload = redact(str(error))
            self._note(Shortfall(request.symbol, request.endpoint, status, payload))
        count = _items(kind, payload) if status == "answered" else 0
        limit = connection.vendor.news_per_answer
        call = Call(request, status, asked_at, payload, count, kind == "news" and _reaches(count, limit))
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


def _next_variant(request: Request, is_final: Callable[[Call], bool], ledger: Ledger) -> Request:
    """The request itself, or its next repetition where the ledger holds answers that are not final."""
    times_asked = 1
    while (call := ledger.answer(request)) and not is_final(call):
        times_asked += 1
        request = replace(request, variant=str(times_asked))
    return request


def _reaches(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit


def _items(kind: FactKind, payload: Any) -> int:
    """How much an answer holds: articles, filings, bars or series of figures."""
    if kind == "prices":
        return len(payload["bars"])
    if kind == "figures":
        return sum(len(series) for series in payload.values())
    return len(payload) if isinstance(payload, list) else 1
