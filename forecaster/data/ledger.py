"""The ledger: an SQLite file that holds every call made to a vendor, together with its answer.

A call and its answer are written in one transaction, so that a kill loses at most the calls in flight. An
empty list is an answer; a failure is not, and is asked again. So is what cannot be used: it stays as it was
received, under a status of its own. Requests and payloads hold no secret.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forecaster.calls import Call, Request, canonical
from forecaster.errors import ConfigurationError, Problem

_FINAL = "('answered', 'unknown symbol')"
"""A call that ended so is not made again."""

_PRIMARY_CODE = 0xFF
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""Primary codes of what SQLite says of a file's content; all others are of the disk, or of other users."""
_MEND = (
    "Put a whole copy in its place (`sqlite3 FILE .recover` may save most of it), or move it away: then what "
    "it held is asked for anew."
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    symbol TEXT NOT NULL,
    window_start TEXT NOT NULL,
    window_end TEXT NOT NULL,
    variant TEXT NOT NULL,
    status TEXT NOT NULL,
    count INTEGER NOT NULL,
    truncated INTEGER NOT NULL,
    fetched_at TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS one_final_answer ON calls
    (endpoint, symbol, window_start, window_end, variant) WHERE status IN ('answered', 'unknown symbol');
CREATE INDEX IF NOT EXISTS by_symbol ON calls (symbol, endpoint);
"""


class Ledger:
    """One open ledger; safe to share between threads, not between processes."""

    def __init__(
        self,
        path: Path,
        fault_of: Callable[[Call], str] = lambda call: "",
        on_unusable: Callable[[Request, str], None] = lambda request, fault: None,
    ) -> None:
        """Open or create.

        Args:
            fault_of: why a stored call cannot be used; empty when it can.
            on_unusable: hears of each that is found so, once, and why.

        Raises:
            ConfigurationError: a file that is damaged, or no database.
            sqlite3.DatabaseError: a database that is no ledger, or a disk that fails.
        """
        self.path = path
        self._fault_of, self._on_unusable = fault_of, on_unusable
        self._connection = sqlite3.connect(path, check_same_thread=False)
        # A damaged word is no reason not to read the rest.
        self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        self._lock = threading.Lock()
        with self._in_use() as connection:
            # Full: after a power cut, too, what was answered is there.
            connection.execute("PRAGMA synchronous = FULL")
            # A database of somebody else's stays as it is: this raises where it lacks our table or a column.
            if connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() != (0,):
                connection.execute(f"SELECT id, sha256, {_COLUMNS} FROM calls LIMIT 0")
            connection.executescript(_SCHEMA)

    @contextmanager
    def _in_use(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone.

        Raises:
            ConfigurationError: what is read of the file is damaged.
        """
        with self._lock:
            try:
                yield self._connection
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE not in _DAMAGE:
                    raise
                raise ConfigurationError(
                    [Problem(str(self.path), f"is damaged ({error}).", _MEND)]
                ) from error

    def close(self) -> None:
        self._connection.close()

    def record(self, *calls: Call) -> None:
        """Write calls with their answers, in one transaction; an answer that is already there stays."""
        rows = [
            (
                *_key(call.request),
                call.status,
                call.count,
                int(call.truncated),
                _stamp(call),
                call.sha256,
                zlib.compress(canonical(call.payload)),
            )
            for call in calls
        ]
        with self._in_use() as connection, connection:
            connection.executemany(
                "INSERT OR IGNORE INTO calls (endpoint, symbol, window_start, window_end, variant, status, "
                "count, truncated, fetched_at, sha256, payload) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def answer(self, request: Request) -> Call | None:
        """The final answer to a request, if there is one."""
        found = list(self._select("AND window_start = ? AND window_end = ? AND variant = ?", request))
        return found[0] if found else None

    def answers(self, endpoint: str, symbol: str) -> list[Call]:
        """Final answers of an endpoint for a symbol, in the order of their requests."""
        return list(self._select("", Request(endpoint, symbol)))

    def calls(self, endpoint: str) -> Iterator[Call]:
        """Every call of an endpoint in the order of recording, failed ones too; none that is unusable."""
        with self._in_use() as connection:
            rows = connection.execute(
                f"SELECT id, {_COLUMNS} FROM calls WHERE endpoint = ? AND status != 'unusable' ORDER BY id",
                (endpoint,),
            ).fetchall()
        return self._usable(rows)

    def record_file(
        self, endpoint: str, variant: str, symbols: Collection[str], calls: Sequence[Call]
    ) -> None:
        """Write what a file of the user's own gives of some symbols; what an earlier reading of the same file
        gave of them, and this one does not, goes."""
        fresh = {(_key(call.request), call.sha256, _stamp(call)) for call in calls}
        with self._in_use() as connection, connection:
            known = connection.execute(
                "SELECT id, symbol, window_start, window_end, sha256, fetched_at FROM calls "
                "WHERE endpoint = ? AND variant = ?",
                (endpoint, variant),
            ).fetchall()
            outdated = [
                (row,)
                for row, symbol, start, end, sha256, stamp in known
                if symbol in symbols and ((endpoint, symbol, start, end, variant), sha256, stamp) not in fresh
            ]
            connection.executemany("DELETE FROM calls WHERE id = ?", outdated)
        self.record(*calls)

    def failures(self) -> int:
        """Calls that got no final answer, over the ledger's whole life."""
        with self._in_use() as connection:
            (count,) = connection.execute(
                f"SELECT COUNT(*) FROM calls WHERE status NOT IN {_FINAL}"
            ).fetchone()
        return int(count)

    def _select(self, condition: str, request: Request) -> Iterator[Call]:
        values = _key(request) if condition else (request.endpoint, request.symbol)
        with self._in_use() as connection:
            rows = connection.execute(
                f"SELECT id, {_COLUMNS} FROM calls WHERE status IN {_FINAL} "
                f"AND endpoint = ? AND symbol = ? {condition} "
                "ORDER BY window_start, window_end, variant",
                values,
            ).fetchall()
        return self._usable(rows)

    def _usable(self, rows: Iterable[tuple[Any, ...]]) -> Iterator[Call]:
        """The calls of rows that begin with their id; one that cannot be used is set aside, so that its
        request has no answer any more."""
        for row_id, *row in rows:
            try:
                call = _call(tuple(row))
                fault = self._fault_of(call) if call else "its bytes are not those that were stored"
            except (ValueError, TypeError, OverflowError, RecursionError):
                call, fault = None, "it cannot be read"
            if call and not fault:
                yield call
                continue
            with self._in_use() as connection, connection:
                connection.execute("UPDATE calls SET status = 'unusable' WHERE id = ?", (row_id,))
            self._on_unusable(Request(*map(str, row[:5])), fault)


_COLUMNS = (
    "endpoint, symbol, window_start, window_end, variant, status, fetched_at, payload, count, truncated, "
    "sha256"
)


def _call(row: tuple[Any, ...]) -> Call | None:
    """A stored call; None where its payload is not the one that was recorded."""
    try:
        payload = zlib.decompress(row[7])
    except zlib.error:
        return None
    if hashlib.sha256(payload).hexdigest() != row[10]:
        return None
    request, fetched_at = Request(*row[:5]), datetime.fromisoformat(row[6])
    return Call(request, row[5], fetched_at, json.loads(payload), row[8], bool(row[9]))


@dataclass(frozen=True, order=True)
class Trace:
    """A call without its time and its payload."""

    request: Request
    status: str
    sha256: str

    @classmethod
    def of(cls, call: Call) -> Trace:
        return cls(call.request, call.status, call.sha256)


def fingerprint(traces: Iterable[Trace]) -> str:
    """sha256 over requests and answers without their times: equal exactly when a build read the same."""
    digest = hashlib.sha256()
    for trace in sorted(traces):
        digest.update(json.dumps([_key(trace.request), trace.status, trace.sha256]).encode() + b"\n")
    return digest.hexdigest()


def _stamp(call: Call) -> str:
    return call.fetched_at.astimezone(UTC).isoformat(timespec="seconds")


def _key(request: Request) -> tuple[str, str, str, str, str]:
    return (
        request.endpoint,
        request.symbol,
        request.window_start,
        request.window_end,
        request.variant,
    )
