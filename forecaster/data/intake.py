"""What brings the ledger up to date: the user's own files, and the vendors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from forecaster.calls import Call
from forecaster.data import file_checks
from forecaster.data.fetch import Needs, Outcome, fetch
from forecaster.data.ledger import Ledger
from forecaster.errors import ConfigurationError, Problem
from forecaster.settings import Settings, redact
from forecaster.vendors import own_files
from forecaster.vendors.base import Connection, Vendor
from forecaster.vendors.pace import Pace
from forecaster.vendors.registry import VENDORS


@dataclass
class _Readings:
    """What was read of the files of one kind."""

    endpoint: str
    files: dict[str, list[Call]] = field(default_factory=dict)
    """Calls by the digest of their file."""
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        return [call for calls in self.files.values() for call in calls]

    def lines(self, kind: str, count: int) -> list[str]:
        if not count:
            return []
        reasons = "".join(f", {n} left out: {reason}" for reason, n in self.left_out.most_common())
        return [f"{kind} files: {count} read, {self.rows} rows{reasons}"]


def import_files(
    ledger: Ledger, news_files: Sequence[Path], price_files: Sequence[Path], symbols: Collection[str]
) -> list[str]:
    """The user's own news and prices, into the ledger; lines on what was found, and on what is odd about it.

    Raises:
        ConfigurationError: on every bad file, before anything is written.
    """
    news = _read(own_files.NEWS_FILE, own_files.read_news_file, news_files, symbols)
    prices = _read(own_files.PRICE_FILE, own_files.read_price_file, price_files, symbols)
    if problems := [*news.problems, *prices.problems]:
        raise ConfigurationError(problems)
    for read in (news, prices):
        for variant, calls in read.files.items():
            ledger.record_file(read.endpoint, variant, symbols, calls)
    return [
        *news.lines("news", len(news_files)),
        *_cut_off_lines(news.calls),
        *file_checks.same_news_lines(news.calls),
        *prices.lines("price", len(price_files)),
        *file_checks.untrue_price_lines(prices.calls),
    ]


def _read(
    endpoint: str,
    read: Callable[[Path, Collection[str]], own_files.Imported],
    paths: Sequence[Path],
    symbols: Collection[str],
) -> _Readings:
    found = _Readings(endpoint)
    unusable: dict[str, Problem] = {}
    for path in paths:
        try:
            imported = read(path, set(symbols))
            # One content may be in two files, named for two symbols.
            found.files.setdefault(own_files.digest(path), []).extend(imported.calls)
        except ConfigurationError as error:
            found.problems += error.problems
            continue
        found.rows += imported.rows
        found.left_out.update(imported.skipped)
        for symbol, told in imported.unusable.items():
            problem = Problem(f"--news_file {path}", f"{told}.", own_files.TIME_HELP)
            unusable.setdefault(symbol, problem)
        if endpoint == own_files.PRICE_FILE:
            found.problems += file_checks.days_problems(f"--price_file {path}", imported.calls)
    usable = {call.request.symbol for call in found.calls}
    found.problems += [problem for symbol, problem in unusable.items() if symbol not in usable]
    return found


def _cut_off_lines(calls: Sequence[Call]) -> list[str]:
    cut_off = [call.request for call in calls if call.truncated]
    if not cut_off:
        return []
    return [
        f"  {len(cut_off)} of them end where a call's limit of about 250 articles cut them off, before:",
        "  " + ", ".join(sorted(f"{request.symbol} {request.window_start}" for request in cut_off)),
    ]


def digests(news_files: Sequence[Path], price_files: Sequence[Path]) -> tuple[str, ...]:
    """What tells the user's files apart in the ledger: those of an earlier command do not count."""
    problems, found = [], []
    for flag, paths in (("--news_file", news_files), ("--price_file", price_files)):
        for path in paths:
            try:
                found.append(own_files.digest(path))
            except OSError as error:
                problems.append(Problem(flag, f"{path} cannot be read ({error.strerror}).", "Name a file."))
    if problems:
        raise ConfigurationError(problems)
    return tuple(found)


def ask_vendors(
    ledger: Ledger,
    wanted: Sequence[Needs],
    settings: Settings,
    calls_per_minute: int,
    files: Sequence[str],
    on_call: Callable[[], None],
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """`fetch` with a client for each vendor that `wanted` concerns and whose key is there, at its pace.

    Args:
        calls_per_minute: of the user's plan, for vendors that sell plans; others have a pace of their own.
        tell: hears of waits, from other threads.
    """
    kinds = {kind for need in wanted for kind in need.kinds}
    with ExitStack() as opened:
        connections = []
        for vendor in VENDORS.values():
            if (key := _key(vendor, settings)) is not None and vendor.endpoints_of(*kinds):
                a_minute = calls_per_minute if vendor.most_calls_per_minute else vendor.calls_per_minute
                pace = Pace(a_minute, tell=tell)
                client = opened.enter_context(closing(vendor.connect(key, pace)))
                connections.append(Connection(vendor, client))
        return fetch(ledger, wanted, connections, on_call=on_call, files=files)


def _key(vendor: Vendor, settings: Settings) -> str | None:
    """None where the vendor asks for a key and there is none."""
    if vendor.key_setting is None:
        return ""
    key: str | None = getattr(settings, vendor.key_setting)
    return key or None


def shortfall_lines(outcome: Outcome) -> list[str]:
    """What was needed and is not there, and days with more news than a call gives, one line each."""
    lines = [
        redact(f"  {item.symbol} {item.endpoint}: {item.found}")
        for status in ("unknown symbol", "no access", "failed")
        for item in outcome.shortfalls
        if item.status == status
    ]
    for symbol, days in sorted(outcome.cut_off_days.items()):
        shown = ", ".join(map(str, days[:3])) + (", ..." if len(days) > 3 else "")
        lines.append(f"  {symbol}: {len(days)} days hold more articles than a call gives ({shown})")
    return lines
