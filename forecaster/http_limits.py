"""What a call to a server may take, and where the server may send it: the same for every client.

The clients of vendors bring their own HTTP libraries: `requests` (Finnhub's), curl (Yahoo's) and httpx2
(OpenAI's and the hub's). Each limits single steps only, such as the wait for the next byte. Here one call as
a whole is limited, headers, body and redirects together. No text of this module quotes a URL, which may hold
a key.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
import requests
from huggingface_hub import set_client_factory
from huggingface_hub.utils._http import hf_request_event_hook, parse_ratelimit_headers
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3 import connection as urllib3_connection

MOST_BYTES = 64 * 2**20
"""Of a body, unpacked. The largest that is known, every filing of a company, has a few."""
MOST_REDIRECTS = 5
CALL_TIME_LIMIT_S = 30.0
"""Of a call whose answer lies ready on the server."""

_CHUNK_BYTES = 2**16
_SCHEME_PORTS = {"http": 80, "https": 443}


class ServerFaultError(OSError):
    """A call was ended: the server passed a limit, or what it says is no answer to anything."""

    def __init__(self, found: str, *, is_final: bool) -> None:
        self.found = found
        """What the server did, as what follows "the server ": no URL, no word of its own."""
        self.is_final = is_final
        """Whether another try would end alike."""
        super().__init__(found)


def too_large() -> ServerFaultError:
    return ServerFaultError(f"sends an answer of more than {MOST_BYTES // 2**20} MiB", is_final=True)


def too_slow(limit_s: float) -> ServerFaultError:
    return ServerFaultError(f"gives no whole answer in {limit_s:g} s", is_final=False)


def endless_redirects() -> ServerFaultError:
    return ServerFaultError("redirects again and again", is_final=True)


def check_status(status: int, *, is_redirect: bool) -> None:
    """Some libraries take all that is no refusal for an answer, and an empty body for an empty one.

    Raises:
        ServerFaultError: a status that neither answers, refuses nor leads on.
    """
    if not (is_redirect or 200 <= status <= 299 or 400 <= status <= 599):
        raise ServerFaultError(f"answers with HTTP {status}, which is no answer", is_final=True)


def check_redirect(url: str, location: str) -> None:
    """A redirect may change the path, and http to https; nothing is sent to another server.

    Raises:
        ServerFaultError: it leads elsewhere, or nowhere.
    """
    try:
        here, there = _origin(url), _origin(urljoin(url, location))
    except ValueError:
        raise ServerFaultError("redirects to what is no address", is_final=True) from None
    is_upgrade = here[0] == "http" and there == ("https", here[1], 443)
    if there != here and not is_upgrade:
        raise ServerFaultError("redirects to another server, which is asked nothing", is_final=True)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEME_PORTS or not parts.hostname:
        raise ValueError("no web address")
    return parts.scheme, parts.hostname, parts.port or _SCHEME_PORTS[parts.scheme]


# --- requests -----------------------------------------------------------------------------------------------


def limit_requests(session: requests.Session, *, stays: bool) -> None:
    """Put the limits on every call of a session; calls then raise ServerFaultError, too.

    Args:
        stays: whether a redirect to another server is refused, as a key or a request would go along.
    """
    session.max_redirects = MOST_REDIRECTS
    for scheme in _SCHEME_PORTS:
        session.mount(f"{scheme}://", _LimitedAdapter(stays))


class _Watch(threading.Timer):
    """Ends the connections of one call when its time is up."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(limit_s, self._end)
        self.daemon = True
        self.is_up = False
        self._handles: list[socket.socket] = []
        self._turn = threading.Lock()

    def add(self, connection: socket.socket) -> None:
        # A handle of its own: the library lets go of a socket while the body is still being read.
        handle = socket.fromfd(connection.fileno(), connection.family, connection.type)
        with self._turn:
            self._handles.append(handle)
        if self.is_up:
            self._end()

    def close(self) -> None:
        self.cancel()
        with self._turn:
            while self._handles:
                self._handles.pop().close()

    def _end(self) -> None:
        self.is_up = True
        with self._turn:
            for handle in self._handles:
                try:
                    handle.shutdown(socket.SHUT_RDWR)
                except OSError:  # it has ended by itself
                    continue


_in_thread = threading.local()
"""`watch`: that of the thread's call, as the library makes the connections."""


class _Watched(HTTPConnection):
    """A connection that the watch of its call can end, from before TLS is set up."""

    def _new_conn(self) -> socket.socket:
        made: socket.socket = super()._new_conn()  # type: ignore[misc]
        _watch(made)
        return made

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:  # of an earlier call
            _watch(self.sock)
        super().request(*args, **options)


def _watch(connection: socket.socket) -> None:
    if watch := getattr(_in_thread, "watch", None):
        watch.add(connection)


class _WatchedHttp(_Watched, urllib3_connection.HTTPConnection):
    pass


class _WatchedHttps(_Watched, urllib3_connection.HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _WatchedHttp


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHttps


class _LimitedAdapter(HTTPAdapter):
    def __init__(self, stays: bool) -> None:
        self._stays = stays
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)  # type: ignore[no-untyped-call]
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)  # type: ignore[no-untyped-call]
        if isinstance(manager, ProxyManager):  # not for SOCKS, which makes connections of its own
            manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """As of the class above, with the body read and the redirect checked."""
        limit_s = CALL_TIME_LIMIT_S
        with _watched(limit_s) as watch:
            try:
                response = super().send(request, *args, **(options | {"stream": True}))
                body = _body(response)
            except (requests.RequestException, OSError):
                if not watch.is_up:
                    raise
            # The end of a connection may pass for the end of a body.
            if watch.is_up:
                raise too_slow(limit_s)
        response._content, response._content_consumed = body, True  # type: ignore[attr-defined]
        check_status(response.status_code, is_redirect=response.is_redirect)
        if self._stays and response.is_redirect:
            check_redirect(str(request.url), response.headers["location"])
        return response


@contextmanager
def _watched(limit_s: float) -> Iterator[_Watch]:
    watch = _in_thread.watch = _Watch(limit_s)
    watch.start()
    try:
        yield watch
    finally:
        del _in_thread.watch
        watch.close()


def _body(response: requests.Response) -> bytes:
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_content(_CHUNK_BYTES):
        size += len(chunk)
        if size > MOST_BYTES:
            response.close()
            raise too_large()
        chunks.append(chunk)
    return b"".join(chunks)


# --- curl ---------------------------------------------------------------------------------------------------

_CURL_STOP = 0xFFFFFFFF


def limit_curl(session: Any) -> None:
    """The limits for a session of curl_cffi, whose own timeout is one of whole calls already."""
    session.max_redirects = MOST_REDIRECTS
    ask = session.request

    def request(*args: Any, **options: Any) -> Any:
        chunks: list[bytes] = []
        size = 0

        def take(chunk: bytes) -> int:
            nonlocal size
            size += len(chunk)
            if size > MOST_BYTES:
                return _CURL_STOP
            chunks.append(chunk)
            return len(chunk)

        if not isinstance(options.get("timeout"), int | float):
            options["timeout"] = CALL_TIME_LIMIT_S
        try:
            response = ask(*args, **(options | {"content_callback": take}))
        except OSError:
            if size <= MOST_BYTES:
                raise
        if size > MOST_BYTES:
            raise too_large()
        check_status(response.status_code, is_redirect=False)
        response.content = b"".join(chunks)
        return response

    session.request = request


# --- httpx2 -------------------------------------------------------------------------------------------------


class LimitedAsyncClient(httpx2.AsyncClient):
    """A client whose calls raise ServerFaultError, too, and whose answers are whole when they are given."""

    def __init__(self, timeout: httpx2.Timeout, answer_time_limit_s: float) -> None:
        """
        Args:
            answer_time_limit_s: of a whole call, redirects included.
        """
        self._answer_time_limit_s = answer_time_limit_s
        super().__init__(
            timeout=timeout, follow_redirects=False, event_hooks={"response": [_check_redirect_of]}
        )

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        options |= {"stream": True, "follow_redirects": False}
        try:
            async with asyncio.timeout(self._answer_time_limit_s):
                for _ in range(MOST_REDIRECTS + 1):
                    response = await super().send(request, **options)
                    whole = await _read(response)
                    check_status(whole.status_code, is_redirect=response.next_request is not None)
                    if response.next_request is None:
                        return whole
                    request = response.next_request
        except TimeoutError:
            pass
        else:
            raise endless_redirects()
        raise too_slow(self._answer_time_limit_s)


async def _check_redirect_of(response: httpx2.Response) -> None:
    if response.has_redirect_location:
        check_redirect(str(response.request.url), response.headers["location"])


async def _read(response: httpx2.Response) -> httpx2.Response:
    """The same answer, with its body in memory and unpacked."""
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes(_CHUNK_BYTES):
            body += chunk
            if len(body) > MOST_BYTES:
                raise too_large()
    finally:
        await response.aclose()
    packing = ("content-encoding", "content-length", "transfer-encoding")
    return httpx2.Response(
        response.status_code,
        headers=[(name, value) for name, value in response.headers.multi_items() if name not in packing],
        content=bytes(body),
        request=response.request,
        extensions=response.extensions,
    )


# --- the hub's ----------------------------------------------------------------------------------------------

COMMIT_TIME_LIMIT_S = 300.0
"""Of a call that changes something, beside its upload: the hub answers when it has done so."""
UPLOAD_BYTES_PER_S = 50_000
"""Slower than this, a line uploads nothing that is worth it."""
LONGEST_HUB_PAUSE_S = 300
"""The hub counts calls over five minutes; its own client waits as long as it is told."""
STALL_WINDOW_S, STALL_BYTES = 60.0, 2**16
"""A download is given up where less than so many bytes came within so long."""


class HubFaultError(ServerFaultError, ConnectionError):
    """A call to the hub was ended."""

    def __str__(self) -> str:
        return f"the hub {self.found}"


class HubPauseError(HubFaultError, httpx2.ReadTimeout):
    """The same where another try may help: the hub's own client asks again, or takes what it has."""

    def __init__(self, found: str) -> None:
        httpx2.ReadTimeout.__init__(self, found)
        self.found, self.is_final = found, False


def limit_hub() -> None:
    """Put the limits on every call of huggingface_hub in this process, and in what it forks."""
    set_client_factory(LimitedHubClient)


class LimitedHubClient(httpx2.Client):
    """The hub's client, whose small calls are whole within a time and a size.

    A file that is streamed may take as long as it comes, and be as large as its announced length; without
    one, as large as any answer.
    """

    def __init__(self) -> None:
        super().__init__(
            event_hooks={"request": [hf_request_event_hook]},
            follow_redirects=True,
            max_redirects=MOST_REDIRECTS,
            timeout=httpx2.Timeout(None, connect=CALL_TIME_LIMIT_S),
            limits=httpx2.Limits(max_keepalive_connections=0),  # the watch sees connections as they are made
        )

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        limit_s = CALL_TIME_LIMIT_S
        if request.method not in ("GET", "HEAD"):
            limit_s = COMMIT_TIME_LIMIT_S + int(request.headers.get("content-length", 0)) / UPLOAD_BYTES_PER_S
        with _watched(limit_s) as watch:
            request.extensions |= {"trace": _watch_connections(watch)}
            try:
                response = super().send(request, stream=True, **options)
                _limit_stream(response)
                if not stream:
                    response.read()
            except httpx2.TooManyRedirects:
                raise HubFaultError(endless_redirects().found, is_final=True) from None
            except httpx2.TransportError:
                if not watch.is_up:
                    raise
            if watch.is_up:
                raise HubPauseError(too_slow(limit_s).found)
        if (pause_s := _asked_pause_s(response)) > LONGEST_HUB_PAUSE_S:
            response.close()
            raise HubFaultError(f"asks for a pause of {pause_s:,} s", is_final=True)
        return response


def _asked_pause_s(response: httpx2.Response) -> int:
    """As the hub's own client reads it before it tries again."""
    if response.is_success:
        return 0
    counted = parse_ratelimit_headers(response.headers)
    after = response.headers.get("retry-after", "").strip()
    return max(counted.reset_in_seconds if counted else 0, int(after[:9]) if after.isdecimal() else 0)


def _watch_connections(watch: _Watch) -> Callable[[str, dict[str, Any]], None]:
    def trace(event: str, info: dict[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            watch.add(info["return_value"].get_extra_info("socket"))

    return trace


def _limit_stream(response: httpx2.Response) -> None:
    """Have a body unpacked and counted as it comes."""
    packed = response.headers.get("content-encoding", "identity") != "identity"
    most_bytes = None if "content-length" in response.headers and not packed else MOST_BYTES
    inner = httpx2.Response(response.status_code, headers=response.headers, stream=response.stream)
    for name in ("content-encoding", "content-length") if packed else ():
        response.headers.pop(name, None)
    response.stream = _CountedStream(inner, most_bytes)


class _CountedStream(httpx2.SyncByteStream):
    def __init__(self, body: httpx2.Response, most_bytes: int | None) -> None:
        self._body, self._most_bytes = body, most_bytes

    def __iter__(self) -> Iterator[bytes]:
        size = in_window = 0
        began_s = time.monotonic()
        for chunk in self._body.iter_bytes():
            size, in_window = size + len(chunk), in_window + len(chunk)
            if self._most_bytes is not None and size > self._most_bytes:
                raise HubFaultError(too_large().found, is_final=True)
            if time.monotonic() - began_s > STALL_WINDOW_S:
                if in_window < STALL_BYTES:
                    said = f"sends less than {STALL_BYTES // 1024} KiB in {STALL_WINDOW_S:g} s"
                    raise HubPauseError(said)
                in_window, began_s = 0, time.monotonic()
            yield chunk

    def close(self) -> None:
        self._body.close()
