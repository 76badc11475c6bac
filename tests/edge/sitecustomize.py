"""The edge of the network for processes that tests start: vendors are on the loopback interface, nobody else
is there.

Python imports a module of this name at its start when its folder is on PYTHONPATH. With LOOPBACK_MARKET in
the environment, every request that `requests` sends to Finnhub or Yahoo goes to that address, and any other
connection that leaves the machine is refused, loudly.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

_FACES = {"finnhub.io": "finnhub", "yahoo.com": "yahoo"}


class OutsideWorldError(RuntimeError):
    """A connection that would have left this machine; no OSError, so that no retry hides it."""


def rewritten(url: str, market: str) -> str:
    """`url` at the market: `https://finnhub.io/api/v1/x` -> `<market>/finnhub/api/v1/x`; others as they
    are."""
    parts = urlsplit(url)
    domain = ".".join((parts.hostname or "").split(".")[-2:])
    if domain not in _FACES:
        return url
    query = f"?{parts.query}" if parts.query else ""
    return f"{market}/{_FACES[domain]}{parts.path or '/'}{query}"


@contextmanager
def redirected_requests(market: str) -> Iterator[None]:
    """Within it, what `requests` sends to a vendor arrives at `market`; sessions, cookies and answers do not
    notice."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def send_to_market(self: HTTPAdapter, request: Any, **options: Any) -> Any:
        there = request.copy()
        there.url = rewritten(request.url, market)
        if there.url == request.url:
            return send(self, request, **options)
        response = send(self, there, **(options | {"proxies": {}}))
        response.url, response.request = request.url, request
        return response

    HTTPAdapter.send = send_to_market
    try:
        yield
    finally:
        HTTPAdapter.send = send


def _refuse_others(host: object) -> None:
    if host is None or host in ("", "localhost", b"localhost"):
        return
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        if ipaddress.ip_address(text.split("%")[0]).is_loopback:
            return
    except ValueError:  # a name: looking it up would already leave the machine
        pass
    print(f"LOOPBACK EDGE: a connection to {text} was refused", file=sys.stderr, flush=True)
    raise OutsideWorldError(f"a test tried to reach {text}")


def close_off() -> None:
    """Refuse, for the rest of this process, every look-up and connection but loopback ones."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _refuse_others(address[0])
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _refuse_others(address[0])
        return connect_ex(self, address)

    def guarded_look_up(host: Any, *rest: Any, **options: Any) -> Any:
        _refuse_others(host)
        return look_up(host, *rest, **options)

    socket.socket.connect = guarded_connect
    socket.socket.connect_ex = guarded_connect_ex
    socket.getaddrinfo = guarded_look_up


if _market := os.environ.get("LOOPBACK_MARKET"):
    _whole_process = redirected_requests(_market)
    _whole_process.__enter__()
    close_off()
