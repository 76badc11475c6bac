"""Finnhub, Yahoo's charts and an OpenAI-compatible endpoint on the loopback interface, for the real clients.

    with Market(World(("AAPL",), date(2026, 1, 5), date(2026, 3, 27))) as market:
        run_entry("data_pipeline.py", tmp_path, ..., **market.environment())

    with Market(world) as market, redirected(market):
        finnhub.Client(api_key=FINNHUB_KEY).company_news("AAPL", _from="2026-01-05", to="2026-01-09")

The answers have the published shapes, written from the vendors' specifications; `loopback_world` invents what
is in them, `faults` says which go wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from unittest.mock import patch
from urllib.parse import parse_qsl, unquote, urlsplit

from edge.sitecustomize import redirected_requests
from loopback_world import (
    ADVERTISING,
    MACRO_SYMBOLS,
    Planted,
    World,
    as_single,
    calendar_of,
    company_name,
    sessions,
    time_zone_of,
)

__all__ = [
    "ADVERTISING",
    "CHAT",
    "FINNHUB_KEY",
    "MACRO_SYMBOLS",
    "MODEL",
    "OPENAI_KEY",
    "Asked",
    "Fault",
    "Market",
    "Planted",
    "World",
    "company_name",
    "redirected",
]

FINNHUB_KEY = "loopback-finnhub-key"
OPENAI_KEY = "loopback-openai-key"
MODEL = "loopback-teacher"
CHAT = "chat/completions"

FaultKind = Literal[
    "429",
    "429 with Retry-After",
    "500",
    "stall",
    "truncated JSON",
    "wrong content type",
    "empty list",
    "reset",
    "unreadable answer",
    "contrary answer",
    "empty answer",
]
"""The last three are for `CHAT` only."""

_FREE_FINNHUB_ENDPOINTS = ("company-news", "stock/profile2", "stock/metric", "stock/financials-reported")
_LABEL = re.compile(r"\b(up|down) by (more than 5%|[0-4]-[1-5]%)", re.IGNORECASE)
_DAY_S = 86_400


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    face: str
    """`finnhub`, `yahoo` or `openai`."""
    endpoint: str
    """`company-news`, `stock/profile2`, `stock/metric`, `stock/financials-reported`, `chart`, `models`,
    `CHAT`; for what else arrives, its path."""
    params: tuple[tuple[str, str], ...]
    """Without keys and crumbs, sorted; `symbol` is among them for charts, too. For a chat the hash of its
    first user message, so that asking again is the same request."""

    def __getitem__(self, name: str) -> str:
        return dict(self.params).get(name, "")


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with the first `tries` tries of some requests."""

    kind: FaultKind
    tries: float
    endpoint: str | None
    numbers: Container[int] | None
    when: Callable[[Asked], bool] | None
    retry_after_s: float
    stall_s: float

    def concerns(self, asked: Asked, number: int) -> bool:
        return (
            self.endpoint in (None, asked.endpoint)
            and (self.numbers is None or number in self.numbers)
            and (self.when is None or self.when(asked))
        )


class Faults:
    """The plan of what goes wrong. Tries are counted for each distinct request, whoever makes them."""

    def __init__(self) -> None:
        self.shown: Counter[str] = Counter()
        """Faults that were served, by kind."""
        self._plan: list[Fault] = []
        self._numbers: dict[Asked, int] = {}
        self._distinct: Counter[str] = Counter()
        self._spent: Counter[tuple[int, Asked]] = Counter()
        self._lock = threading.Lock()

    def add(
        self,
        kind: FaultKind,
        endpoint: str | None = "company-news",
        *,
        tries: float = 1,
        numbers: Container[int] | None = None,
        when: Callable[[Asked], bool] | None = None,
        retry_after_s: float = 1,
        stall_s: float = 60,
    ) -> None:
        """Faults added for the same request follow one another.

        Args:
            endpoint: as in `Asked.endpoint`; None for every one.
            tries: of each request concerned; `math.inf` for ever.
            numbers: which of the distinct requests of the endpoint, counted from 1 in the order of their
                first arrival; such as `{3}` or `range(1, 10_000, 7)`.
            when: which requests, by what was asked.
            stall_s: silence before the connection ends without an answer.
        """
        with self._lock:
            self._plan.append(Fault(kind, tries, endpoint, numbers, when, retry_after_s, stall_s))

    def clear(self) -> None:
        """No more faults."""
        with self._lock:
            self._plan.clear()

    def next_for(self, asked: Asked) -> Fault | None:
        """The fault that this try meets."""
        with self._lock:
            if asked not in self._numbers:
                self._distinct[asked.endpoint] += 1
                self._numbers[asked] = self._distinct[asked.endpoint]
            for fault in self._plan:
                key = id(fault), asked
                if self._spent[key] < fault.tries and fault.concerns(asked, self._numbers[asked]):
                    self._spent[key] += 1
                    self.shown[fault.kind] += 1
                    return fault
        return None


@dataclass(frozen=True)
class _Answer:
    status: int
    content: Any
    """JSON; text and bytes go out as they are."""
    headers: Mapping[str, str]


def _json(content: Any, status: int = 200, **headers: str) -> _Answer:
    return _Answer(status, content, {"Content-Type": "application/json"} | headers)


class Market:
    """The three vendors; within `with` they answer at `url`."""

    def __init__(
        self,
        world: World,
        *,
        finnhub_key: str = FINNHUB_KEY,
        openai_key: str = OPENAI_KEY,
        latency_s: float = 0.0,
    ) -> None:
        """
        Args:
            finnhub_key, openai_key: the keys that are accepted.
            latency_s: of every answer.
        """
        self.world, self.finnhub_key, self.openai_key = world, finnhub_key, openai_key
        self.latency_s = latency_s
        self.faults = Faults()
        self.log: list[Asked] = []
        """Every request, in the order of arrival, failed ones included."""
        self.chats: deque[dict[str, Any]] = deque(maxlen=10_000)
        """Bodies of the chat requests."""
        self.in_flight: Counter[str] = Counter()
        """Requests being answered, by face."""
        self.most_in_flight: Counter[str] = Counter()
        self.closing = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._folder = tempfile.TemporaryDirectory(prefix="loopback_market_", ignore_cleanup_errors=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def cache_folder(self) -> Path:
        """Where yfinance keeps time zones and cookies."""
        return Path(self._folder.name)

    def environment(self, **more: str) -> dict[str, str]:
        """Variables for a process that shall know this market and nothing else; `more` goes on top."""
        edge = str(Path(__file__).with_name("edge"))
        path = [edge, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        return {
            "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
            "LOOPBACK_MARKET": self.url,
            "YF_DISABLE_CURL_CFFI": "1",
            "XDG_CACHE_HOME": str(self.cache_folder),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "FINNHUB_API_KEY": self.finnhub_key,
            "OPENAI_API_KEY": self.openai_key,
            "OPENAI_BASE_URL": f"{self.url}/openai/v1",
            "OPENAI_MODEL": MODEL,
        } | more

    def counts(self) -> Counter[str]:
        """Requests by endpoint, failed ones included."""
        with self._lock:
            return Counter(asked.endpoint for asked in self.log)

    def asked(self, endpoint: str) -> list[Asked]:
        """Requests of one endpoint."""
        with self._lock:
            return [asked for asked in self.log if asked.endpoint == endpoint]

    def arrived(self, asked: Asked, body: dict[str, Any] | None) -> None:
        with self._lock:
            self.log.append(asked)
            if body is not None:
                self.chats.append(body)
            self.in_flight[asked.face] += 1
            self.most_in_flight[asked.face] = max(self.in_flight[asked.face], self.most_in_flight[asked.face])

    def left(self, asked: Asked) -> None:
        with self._lock:
            self.in_flight[asked.face] -= 1

    # --- answers --------------------------------------------------------------------------------------------

    def answer(self, asked: Asked, key: str, body: dict[str, Any] | None, fault: Fault | None) -> _Answer:
        if fault and fault.kind in ("429", "429 with Retry-After"):
            headers = {"Retry-After": f"{fault.retry_after_s:g}"} if fault.kind != "429" else {}
            return _too_many(asked.face, headers)
        if fault and fault.kind == "500":
            return _Answer(500, "Internal Server Error", {"Content-Type": "text/plain"})
        if fault and fault.kind == "wrong content type":
            page = "<html><body>Down for maintenance.</body></html>"
            return _Answer(200, page, {"Content-Type": "text/html"})
        if fault and fault.kind == "empty list":
            return _json([])
        if asked.face == "finnhub":
            return self._finnhub(asked, key)
        if asked.face == "openai":
            return self._openai(asked, key, body or {}, fault)
        return self._yahoo(asked)

    def _finnhub(self, asked: Asked, key: str) -> _Answer:
        symbol = asked["symbol"]
        if not key:
            return _json({"error": "Please use an API key, sign up for a free account to get one."}, 429)
        if key != self.finnhub_key:
            return _json({"error": "Invalid API key"}, 401)
        denied = {symbol, asked.endpoint} & self.world.no_access
        is_american = calendar_of(symbol) == "XNYS"
        if denied or not is_american or asked.endpoint not in _FREE_FINNHUB_ENDPOINTS:
            return _json({"error": "You don't have access to this resource."}, 403)
        if asked.endpoint == "company-news":
            try:
                first, last = date.fromisoformat(asked["from"]), date.fromisoformat(asked["to"])
            except ValueError:
                return _json({"error": "Wrong API parameters"}, 422)
            return _json(self.world.news_answer(symbol, first, last))
        if asked.endpoint == "stock/profile2":
            return _json(self.world.profile(symbol))
        if asked.endpoint == "stock/metric":
            return _json(self.world.metric(symbol))
        return _json(self.world.filings(symbol, asked["freq"]))

    def _yahoo(self, asked: Asked) -> _Answer:
        symbol = asked["symbol"]
        if asked.endpoint == "chart":
            if not self.world.is_priced(symbol):
                return _chart_error(404, "Not Found", "No data found, symbol may be delisted")
            return _chart(self.world, asked)
        if asked.endpoint == "getcrumb":
            return _Answer(200, "loopback.crumb", {"Content-Type": "text/plain"})
        if asked.endpoint == "/":  # what fc.yahoo.com is asked for
            cookie = "A3=loopback; Max-Age=31557600; Domain=.yahoo.com; Path=/; Secure; HttpOnly"
            return _Answer(404, "", {"Content-Type": "text/html", "Set-Cookie": cookie})
        if asked.endpoint == "/consent":
            return _Answer(200, "<html></html>", {"Content-Type": "text/html"})
        error = {"code": "Not Found", "description": f"Quote not found for symbol: {symbol}"}
        return _json({"quoteSummary": {"result": None, "error": error}}, 404)

    def _openai(self, asked: Asked, key: str, body: dict[str, Any], fault: Fault | None) -> _Answer:
        if key != self.openai_key:
            shown = f"{key[:3]}***"
            return _openai_error(401, f"Incorrect API key provided: {shown}.", "invalid_api_key")
        if asked.endpoint == "models":
            model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "loopback"}
            return _json({"object": "list", "data": [model]})
        if asked.endpoint != CHAT or not body.get("messages"):
            return _openai_error(400, "This endpoint is not known here.", None)
        return _json(_completion(body, fault.kind if fault else ""))


def _too_many(face: str, headers: Mapping[str, str]) -> _Answer:
    if face == "finnhub":
        return _json(
            {"error": "API limit reached. Please try again later. Remaining Limit: 0"}, 429, **headers
        )
    if face == "openai":
        return _openai_error(429, "Rate limit reached for requests.", "rate_limit_exceeded", headers)
    return _Answer(429, "Too Many Requests\r\n", {"Content-Type": "text/plain"} | headers)


# --- Yahoo ----------------------------------------------------------------------------------------------


def _chart_error(status: int, code: str, description: str) -> _Answer:
    error = {"code": code, "description": description}
    return _json({"chart": {"result": None, "error": error}}, status)


def _chart(world: World, asked: Asked) -> _Answer:
    symbol = asked["symbol"]
    opens = sessions(calendar_of(symbol))
    bars, adjusted = world.bars(symbol), world.adjusted(symbol)
    if asked["period1"]:
        start, end = int(asked["period1"]), int(asked["period2"])
        days = [day for day in bars if start <= opens[day] < end]
    else:
        days = list(bars)[-1:]
        start, end = opens[days[0]], opens[days[0]] + _DAY_S
    if not days:
        found = f"Data doesn't exist for startDate = {start}, endDate = {end}"
        return _chart_error(400, "Bad Request", found)
    closes = [_single(bars[day]) for day in days]
    quote = {
        "open": [_single(close, 0.998) for close in closes],
        "high": [_single(close, 1.01) for close in closes],
        "low": [_single(close, 0.99) for close in closes],
        "close": closes,
        "volume": [
            None if close is None else 1_000_000 + opens[day] % 997
            for day, close in zip(days, closes, strict=True)
        ],
    }
    result: dict[str, Any] = {
        "meta": _meta(symbol, bars, opens),
        "timestamp": [opens[day] for day in days],
        "indicators": {
            "quote": [quote],
            "adjclose": [{"adjclose": [_single(adjusted[day]) for day in days]}],
        },
    }
    if events := _events(world, symbol, opens, start, end):
        result["events"] = events
    return _json({"chart": {"result": [result], "error": None}})


def _meta(symbol: str, bars: Mapping[date, float | None], opens: Mapping[date, int]) -> dict[str, Any]:
    first, last = opens[min(bars)], opens[max(bars)]
    session = {"timezone": "EST", "start": last, "end": last + 23_400, "gmtoffset": -18_000}
    return {
        "currency": "EUR" if calendar_of(symbol) == "XETR" else "USD",
        "symbol": symbol,
        "exchangeName": "NMS",
        "fullExchangeName": "NasdaqGS",
        "instrumentType": "CRYPTOCURRENCY" if calendar_of(symbol) == "24/7" else "EQUITY",
        "firstTradeDate": first,
        "regularMarketTime": last + 23_400,
        "hasPrePostMarketData": True,
        "gmtoffset": -18_000,
        "timezone": "EST",
        "exchangeTimezoneName": time_zone_of(symbol),
        "regularMarketPrice": 1.0,
        "chartPreviousClose": 1.0,
        "priceHint": 2,
        "currentTradingPeriod": {"pre": session, "regular": session, "post": session},
        "dataGranularity": "1d",
        "range": "",
        "validRanges": ["1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "ytd", "max"],
    }


def _events(
    world: World, symbol: str, opens: Mapping[date, int], start: int, end: int
) -> dict[str, dict[str, dict[str, Any]]]:
    events: dict[str, dict[str, dict[str, Any]]] = {}
    for day, paid in world.dividends.get(symbol, {}).items():
        if start <= opens[day] < end:
            events.setdefault("dividends", {})[str(opens[day])] = {"amount": paid, "date": opens[day]}
    for day, ratio in world.splits.get(symbol, {}).items():
        if start <= opens[day] < end:
            new, old = Fraction(ratio).as_integer_ratio()
            events.setdefault("splits", {})[str(opens[day])] = {
                "date": opens[day],
                "numerator": float(new),
                "denominator": float(old),
                "splitRatio": f"{new}:{old}",
            }
    return events


def _single(price: float | None, factor: float = 1.0) -> float | None:
    return None if price is None else as_single(price * factor)


# --- OpenAI ---------------------------------------------------------------------------------------------


def _openai_error(
    status: int, message: str, code: str | None, headers: Mapping[str, str] | None = None
) -> _Answer:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return _json({"error": error}, status, **(headers or {}))


def _user_messages(body: Mapping[str, Any]) -> list[str]:
    found = []
    for message in body.get("messages", ()):
        if message.get("role") == "user":
            content = message.get("content")
            texts = (
                [content] if isinstance(content, str) else [part.get("text", "") for part in content or ()]
            )
            found.append("".join(texts))
    return found or [""]


def teacher_answer(user_text: str, fault: str = "") -> str:
    """An answer in the published form; it predicts the last label that the text names, or some label."""
    if fault == "empty answer":
        return ""
    if fault == "unreadable answer":
        return "It is hard to say anything about this stock."
    number = int(hashlib.sha256(user_text.encode("utf-8", "surrogatepass")).hexdigest(), 16)
    told = _LABEL.findall(user_text)
    direction, size = told[-1] if told else (("up", "down")[number % 2], f"{number % 5}-{number % 5 + 1}%")
    if fault == "contrary answer":
        direction = "down" if direction.lower() == "up" else "up"
    return (
        f"[Positive Developments]:\n1. Contract number {number % 89} was signed.\n2. Costs fell.\n\n"
        f"[Potential Concerns]:\n1. Dispute number {number % 97} goes on.\n2. Rivals hire.\n\n"
        f"[Prediction & Analysis]:\nPrediction: {direction.title()} by {size}\n"
        f"Analysis: Of the points above, number {number % 2 + 1} weighs most."
    )


def _completion(body: Mapping[str, Any], fault: str) -> dict[str, Any]:
    text = teacher_answer(_user_messages(body)[-1], fault)
    sent = sum(len(str(message.get("content"))) for message in body["messages"]) // 4
    received = len(text) // 4
    return {
        "id": "chatcmpl-loopback",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model", MODEL),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": sent,
            "completion_tokens": received,
            "total_tokens": sent + received,
        },
    }


# --- HTTP -----------------------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, market: Market) -> None:
        self.market = market
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that was killed is no fault of ours
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        content = self.rfile.read(length)
        if len(content) < length:
            raise ConnectionAbortedError("the client was gone before it had asked")
        is_json = "json" in self.headers.get("Content-Type", "")
        self._serve(json.loads(content) if is_json else {})

    def _serve(self, body: dict[str, Any] | None) -> None:
        asked, key = self._read(body)
        market = self.server.market
        market.arrived(asked, body if asked.endpoint == CHAT else None)
        try:
            fault = market.faults.next_for(asked)
            if market.latency_s:
                time.sleep(market.latency_s)
            if fault and fault.kind == "stall":
                market.closing.wait(fault.stall_s)
            answer = market.answer(asked, key, body, fault)
        finally:
            # Before the answer is out: a client that has its answer finds nothing in flight.
            market.left(asked)
        if fault and fault.kind == "stall":
            self.close_connection = True
        elif fault and fault.kind == "reset":
            self._reset()
        else:
            self._send(answer, bool(fault and fault.kind == "truncated JSON"))

    def _read(self, body: dict[str, Any] | None) -> tuple[Asked, str]:
        parts = urlsplit(self.path)
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        params.pop("crumb", None)
        face, _, rest = parts.path.lstrip("/").partition("/")
        if face == "finnhub":
            key = params.pop("token", "") or self.headers.get("X-Finnhub-Token", "")
            endpoint = rest.removeprefix("api/v1").strip("/")
        elif face == "openai":
            key = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
            endpoint = rest.removeprefix("v1/")
            if endpoint == CHAT:
                first = _user_messages(body or {})[0].encode("utf-8", "surrogatepass")
                params["first_user_message"] = hashlib.sha256(first).hexdigest()
        else:
            key, endpoint = "", f"/{rest}"
            *folder, name = endpoint.split("/")
            if folder[-1:] == ["chart"]:
                endpoint, params["symbol"] = "chart", unquote(name)
            elif name == "getcrumb":
                endpoint = name
        return Asked(face, endpoint, tuple(sorted(params.items()))), key

    def _send(self, answer: _Answer, cut: bool) -> None:
        content = answer.content
        if not isinstance(content, str):
            content = json.dumps(content)
        data = content.encode()
        if cut:
            data = data[: len(data) * 2 // 3]
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _reset(self) -> None:
        """End the connection with RST, as a router does that forgot it."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep test output quiet; the market has a log."""


# --- in this process ------------------------------------------------------------------------------------


@contextmanager
def redirected(market: Market) -> Iterator[None]:
    """Within it, this process has the market's environment, and its clients reach the market.

    What yfinance remembers between calls (session, cookies, answers, time zones) starts afresh.
    """
    with patch.dict(os.environ, market.environment()), redirected_requests(market.url):
        fresh_yfinance(market.cache_folder)
        yield


def fresh_yfinance(cache_folder: Path) -> None:
    """yfinance as if nothing had been asked yet, with its caches in a folder of the test's own."""
    import yfinance
    from yfinance import cache, data

    assert data.requests.__name__ == "requests", "yfinance was imported before YF_DISABLE_CURL_CFFI was set"
    data.YfData._instances.clear()
    data.YfData.cache_get.cache_clear()
    cache._TzCacheManager._tz_cache = None
    cache._CookieCacheManager._Cookie_cache = None
    yfinance.set_tz_cache_location(str(cache_folder))
