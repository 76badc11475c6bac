"""The clients of Finnhub, Yahoo and chat endpoints against a server that means harm, on the loopback
interface: each has one word for it, in time and in little memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import date
from pathlib import Path
from typing import Any

import finnhub
import httpx2
import pytest
import requests
from loopback_market import fresh_yfinance
from simulated_time import SimulatedTime

from forecaster import chat, http_limits
from forecaster.errors import UnreachableError
from forecaster.http_limits import ServerFaultError, check_redirect, limit_curl
from forecaster.records import Messages
from forecaster.retry_after import Waits, in_words, retry_after_s
from forecaster.vendors import finnhub as finnhub_module
from forecaster.vendors import yahoo as yahoo_module
from forecaster.vendors.finnhub import Finnhub
from forecaster.vendors.pace import Pace
from forecaster.vendors.yahoo import Yahoo

KEY = "sk-canary-0123456789"
MOST_BYTES = 200_000
LIMIT_S = 0.4

Play = Callable[[socket.socket, int], None]
"""What is sent after a request arrived; the number is that of the request, from 1."""


class Hostile:
    """Plays to every request, whatever it is, and closes the connection."""

    def __init__(self) -> None:
        self.play: Play = lambda line, number: None
        self.asked: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        with line, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += line.recv(65536)
            self.asked.append(request)
            self.play(line, len(self.asked))


def answer(body: bytes, status: str = "200 OK", *headers: str) -> Play:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    head = "\r\n".join([*lines, "Connection: close", "", ""]).encode()
    return lambda line, number: line.sendall(head + body)


def redirect(target: str) -> Play:
    return answer(b"", "302 Found", f"Location: {target}")


def endless_body(line: socket.socket, number: int) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        line.sendall(b"[" * 65536)


def dripping_body(line: socket.socket, number: int) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n")
    drip(line)


def dripping_body_without_end(line: socket.socket, number: int) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    drip(line)


def dripping_headers(line: socket.socket, number: int) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    drip(line)


def drip(line: socket.socket) -> None:
    while True:
        line.sendall(b" ")
        time.sleep(0.02)


BOMB = answer(gzip.compress(b"[" * 20_000_000), "200 OK", "Content-Encoding: gzip")
BAD_GZIP = answer(b"not packed", "200 OK", "Content-Encoding: gzip")
DEEP = answer(b"[" * 100_000)
TOO_LARGE = "sends an answer of more than 0 MiB"

AT_ONCE = [
    pytest.param(endless_body, TOO_LARGE, id="endless body"),
    pytest.param(BOMB, TOO_LARGE, id="gzip bomb"),
    pytest.param(
        redirect("http://localhost:1/steal"), "redirects to another server, which is asked nothing", id="away"
    ),
    pytest.param(redirect("https://[broken"), "redirects to what is no address", id="broken address"),
    pytest.param(redirect("file:///etc/passwd"), "redirects to what is no address", id="a file"),
    pytest.param(redirect("/again"), "redirects again and again", id="loop"),
    pytest.param(answer(b"{}", "999 Odd"), "answers with HTTP 999, which is no answer", id="odd status"),
    pytest.param(answer(b"{}", "304 As it was"), "answers with HTTP 304, which is no answer", id="304"),
]
AGAIN = [
    pytest.param(dripping_body, "gives no whole answer in 0.4 s", id="dripping body"),
    pytest.param(dripping_body_without_end, "gives no whole answer in 0.4 s", id="without end"),
    pytest.param(dripping_headers, "gives no whole answer in 0.4 s", id="dripping headers"),
    pytest.param(DEEP, "an answer that is nested too deeply", id="nested"),
    pytest.param(BAD_GZIP, "a broken connection", id="bad gzip"),
    pytest.param(
        answer(b"{}", "429 Slow", "Retry-After: Mon, 99 Foo 99999999999999999999 00:00:00 +9999"),
        "HTTP 429",
        id="no date",
    ),
]


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with closing(Hostile()) as server:
        yield server


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_limits, "MOST_BYTES", MOST_BYTES)
    monkeypatch.setattr(http_limits, "CALL_TIME_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(chat, "CALL_TIME_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(chat, "ANSWER_TIME_LIMIT_S", LIMIT_S)
    monkeypatch.setattr(chat, "_BACKOFF", lambda state: 0.0)
    monkeypatch.setattr(chat, "HTTP_TRIES", 2)
    monkeypatch.setattr(finnhub_module, "TRIES", 2)
    monkeypatch.setattr(yahoo_module, "TRIES", 2)


def told_of(error: BaseException) -> str:
    """All that hangs on an exception."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))


# --- Finnhub ------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def vendor(hostile: Hostile, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Finnhub]:
    monkeypatch.setattr(finnhub.Client, "API_URL", f"{hostile.url}/api/v1")
    time_ = SimulatedTime()
    with closing(Finnhub(KEY, Pace(60_000, clock=time_.now, sleep=time_.sleep, tell=lines.append))) as made:
        yield made


@pytest.mark.parametrize(("play", "found"), AT_ONCE)
def test_finnhub_tells_at_once_what_another_try_cannot_mend(
    vendor: Finnhub,
    hostile: Hostile,
    lines: list[str],
    play: Play,
    found: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    hostile.play = play
    with pytest.raises(UnreachableError) as caught:
        vendor.profile("AAPL")
    assert str(caught.value) == f"Finnhub: the server {found}."
    assert lines == [] and vendor.pace.taken == 1
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert KEY not in told_of(caught.value) + caplog.text


@pytest.mark.parametrize(("play", "found"), AGAIN)
def test_finnhub_tells_how_long_it_waits_before_it_asks_again(
    vendor: Finnhub,
    hostile: Hostile,
    lines: list[str],
    play: Play,
    found: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    hostile.play = play
    with pytest.raises(UnreachableError, match=r"no usable answer in 2 tries, in the last one .*") as caught:
        vendor.profile("AAPL")
    (line,) = lines
    assert found in line and line.startswith("Finnhub: ")
    assert line.endswith("; asked again in 2 s (try 2 of 2).")
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert KEY not in told_of(caught.value) + caplog.text + line


def test_a_pause_of_a_day_is_told_with_the_wait_in_its_place(
    vendor: Finnhub, hostile: Hostile, lines: list[str]
) -> None:
    hostile.play = answer(b"{}", "429 Slow", "Retry-After: 99999")
    with pytest.raises(UnreachableError):
        vendor.profile("AAPL")
    assert lines == [
        "Finnhub: HTTP 429, and a wait of 28 hours is asked for; asked again in 15 minutes (try 2 of 2)."
    ]


def test_a_redirect_on_the_same_server_is_followed(vendor: Finnhub, hostile: Hostile) -> None:
    hostile.play = lambda line, number: (redirect("/api/v1/stock/profile2"), answer(b'{"name": "Apple"}'))[
        number - 1
    ](line, number)
    assert vendor.profile("AAPL")["name"] == "Apple"


def test_the_key_reaches_no_other_server(vendor: Finnhub, hostile: Hostile) -> None:
    with closing(Hostile()) as other:
        hostile.play = redirect(f"{other.url}/steal?token={KEY}")
        with pytest.raises(UnreachableError):
            vendor.profile("AAPL")
        assert other.asked == []


def test_no_watch_is_left_behind(vendor: Finnhub, hostile: Hostile) -> None:
    hostile.play = answer(b'{"name": "Apple"}')
    before = threading.active_count()
    for _ in range(3):
        vendor.profile("AAPL")
    time.sleep(0.05)
    assert threading.active_count() <= before + 1  # the server's own


# --- Yahoo --------------------------------------------------------------------------------------------------


@pytest.fixture
def yahoo(
    hostile: Hostile, lines: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Yahoo]:
    fresh_yfinance(tmp_path)
    quiet = Hostile()
    quiet.play = answer(b"{}")
    send = requests.adapters.HTTPAdapter.send

    def send_here(self: Any, request: Any, **options: Any) -> Any:
        if "/chart/" not in request.url and "/again" not in request.url:  # cookies, which it can do without
            request = request.copy()
            request.url = f"{quiet.url}/"
            return send(self, request, **options)
        there = request.copy()
        there.url = f"{hostile.url}/x"
        response = send(self, there, **options)
        response.url = request.url
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send_here)
    time_ = SimulatedTime()
    with closing(quiet):
        yield Yahoo(Pace(60_000, clock=time_.now, sleep=time_.sleep, tell=lines.append))


@pytest.mark.parametrize(
    ("play", "found"),
    [
        pytest.param(endless_body, f"the server {TOO_LARGE}.", id="endless body"),
        pytest.param(BOMB, f"the server {TOO_LARGE}.", id="gzip bomb"),
        pytest.param(redirect("/again"), "the server redirects again and again.", id="loop"),
        pytest.param(dripping_body, "the server gives no whole answer in 0.4 s.", id="dripping"),
        pytest.param(dripping_headers, "the server gives no whole answer in 0.4 s.", id="headers"),
        pytest.param(DEEP, "an answer of an unknown form (RecursionError).", id="nested"),
        pytest.param(BAD_GZIP, "a broken connection (ContentDecodingError).", id="bad gzip"),
    ],
)
def test_yahoo_has_one_word_for_it(
    yahoo: Yahoo, hostile: Hostile, lines: list[str], play: Play, found: str
) -> None:
    hostile.play = play
    with pytest.raises(UnreachableError) as caught:
        yahoo.daily_bars("AAPL", date(2026, 2, 2), date(2026, 2, 6))
    assert str(caught.value).endswith(found)
    assert lines == [] or lines[0].endswith("; asked again in 4 s (try 2 of 2).")


def test_curl_stops_reading_at_the_limit_too(hostile: Hostile) -> None:
    from curl_cffi import requests as curl

    hostile.play = lambda line, number: (BOMB, endless_body, dripping_body, answer(b"[1]"))[number - 1](
        line, number
    )
    with curl.Session(impersonate="chrome") as session:
        limit_curl(session)
        for _ in range(2):
            with pytest.raises(ServerFaultError, match=TOO_LARGE):
                session.get(hostile.url)
        with pytest.raises(OSError, match="timed out"):
            session.get(hostile.url)
        assert session.get(hostile.url).json() == [1]


# --- chat endpoints -----------------------------------------------------------------------------------------


def at(url: str) -> chat.Endpoint:
    return chat.Endpoint("m", f"{url}/v1", role="sage", flag="--sage_model")


def persist(url: str, lines: list[str]) -> Any:
    async def ask() -> Any:
        made = chat.Chat(at(url), KEY, max_output_tokens=9, temperature=0.0, seed=1, tell=lines.append)
        async with made as client:
            return await client.persist(client.send, chat.turns(Messages("", "What next?")))

    return asyncio.run(ask())


@pytest.mark.parametrize(("play", "found"), AT_ONCE)
def test_an_endpoint_is_told_at_once_where_another_try_cannot_mend_it(
    hostile: Hostile, lines: list[str], play: Play, found: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hostile.play = play
    with pytest.raises(chat.NoReply) as caught:
        persist(hostile.url, lines)
    assert caught.value.found == f"as the endpoint {found}" and caught.value.is_down
    with pytest.raises(UnreachableError) as checked:
        chat.check_model(at(hostile.url), KEY, lines.append)
    assert str(checked.value) == f"sage m: {found}."
    assert lines == []
    assert KEY not in told_of(caught.value) + told_of(checked.value) + caplog.text


@pytest.mark.parametrize(("play", "found"), AGAIN)
def test_an_endpoint_that_may_mend_is_asked_again_and_no_longer_than_it_may_take(
    hostile: Hostile, lines: list[str], play: Play, found: str
) -> None:
    hostile.play = play
    began = time.monotonic()
    with pytest.raises(chat.NoReply) as caught:
        persist(hostile.url, lines)
    assert caught.value.found.startswith("after 2 tries: ") and found in caught.value.found
    assert time.monotonic() - began < 5


def test_the_prompt_and_the_key_reach_no_other_server(hostile: Hostile, lines: list[str]) -> None:
    with closing(Hostile()) as other:
        for status in ("301 Moved", "302 Found", "307 Temporary", "308 Permanent"):
            hostile.play = answer(b"", status, f"Location: {other.url}/v1/chat/completions")
            with pytest.raises(chat.NoReply, match="another server"):
                persist(hostile.url, lines)
        assert other.asked == []


def test_a_wait_of_an_endpoint_is_told(
    hostile: Hostile, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    really_sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: really_sleep(0))
    hostile.play = answer(b"{}", "429 Slow", "Retry-After: 90")
    with pytest.raises(chat.NoReply):
        persist(hostile.url, lines)
    assert lines == ["sage m: HTTP 429; asked again in 90 s (try 2 of 2)."]


@pytest.mark.parametrize("count", [b"1e400", b"9" * 400, b"1000000001", b"true", b"-1", b"NaN"])
def test_a_count_of_tokens_that_is_none_counts_as_not_said(hostile: Hostile, count: bytes) -> None:
    message = (
        b'{"choices": [{"message": {"content": "Up"}}], "usage": {"prompt_tokens": 1, "completion_tokens": '
    )
    hostile.play = answer(message + count + b"}}")
    assert persist(hostile.url, []).tokens is None


# --- the hub's ----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    from huggingface_hub import constants
    from huggingface_hub.utils import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    http_limits.limit_hub()
    yield hostile
    set_client_factory(default_client_factory)


def ask_hub(hub: Hostile) -> httpx2.Response:
    from huggingface_hub.utils import get_session

    return get_session().get(f"{hub.url}/api/models/a/b", timeout=10)


@pytest.mark.parametrize(
    ("play", "told"),
    [
        pytest.param(endless_body, TOO_LARGE, id="endless body"),
        pytest.param(BOMB, TOO_LARGE, id="gzip bomb"),
        pytest.param(redirect("/again"), "redirects again and again", id="loop"),
        pytest.param(dripping_body, "gives no whole answer in 0.4 s", id="dripping body"),
        pytest.param(dripping_body_without_end, "gives no whole answer in 0.4 s", id="without end"),
        pytest.param(dripping_headers, "gives no whole answer in 0.4 s", id="dripping headers"),
        pytest.param(
            answer(b"", "429 Slow", "Retry-After: 99999"), "asks for a pause of 99,999 s", id="pause of a day"
        ),
        pytest.param(
            answer(b"", "429 Slow", 'RateLimit: "api";r=0;t=9999'),
            "asks for a pause of 9,999 s",
            id="counted",
        ),
    ],
)
def test_a_call_to_the_hub_is_limited_as_a_whole(hub: Hostile, play: Play, told: str) -> None:
    hub.play = play
    with pytest.raises(http_limits.HubFaultError) as caught:
        ask_hub(hub)
    assert str(caught.value) == f"the hub {told}"


def test_an_answer_of_the_hub_is_whole_packed_or_not(hub: Hostile) -> None:
    hub.play = answer(b'{"sha": "1"}')
    assert ask_hub(hub).json() == {"sha": "1"}
    hub.play = answer(gzip.compress(b'{"sha": "2"}'), "200 OK", "Content-Encoding: gzip")
    assert ask_hub(hub).json() == {"sha": "2"}


def test_a_file_of_the_hub_may_be_large_and_slow_and_not_stand_still(
    hub: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.file_download import http_get

    def pieces(line: socket.socket, number: int) -> None:
        line.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {4 * MOST_BYTES}\r\n\r\n".encode())
        for _ in range(4):
            time.sleep(LIMIT_S / 2)
            line.sendall(b"w" * MOST_BYTES)

    hub.play = pieces
    with (tmp_path / "weights").open("wb") as file:
        http_get(hub.url, file)
    assert (tmp_path / "weights").stat().st_size == 4 * MOST_BYTES

    monkeypatch.setattr(http_limits, "STALL_WINDOW_S", 0.1)
    hub.play = dripping_body
    with (tmp_path / "dripping").open("wb") as file, pytest.raises(http_limits.HubPauseError) as caught:
        http_get(hub.url, file, _nb_retries=0)
    assert str(caught.value) == "the hub sends less than 64 KiB in 0.1 s"


def test_a_file_without_a_length_is_as_small_as_an_answer(hub: Hostile, tmp_path: Path) -> None:
    from huggingface_hub.file_download import http_get

    hub.play = endless_body
    with (tmp_path / "weights").open("wb") as file, pytest.raises(http_limits.HubFaultError):
        http_get(hub.url, file)
    assert (tmp_path / "weights").stat().st_size <= MOST_BYTES


# --- the parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("99999", 99999.0),
        ("9" * 400, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e400", None),
        ("Fri, 05 Dec 2025 21:00:00 GMT", 0.0),
        ("Fri, 99 Dec 2025 21:00:00 GMT", None),
        ("Fri, 05 Dec 99999999999999999999 21:00:00 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("Fri, 05 Dec 2025 21:00:00 +999999999", None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_or_nothing(header: str, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds


def test_one_wait_of_many_callers_is_told_once() -> None:
    lines: list[str] = []
    waits = Waits(lines.append, clock=lambda: 100.0)
    for wait_s in (1.0, 17.0, 17.0, 18.0, 60.0):
        waits.begin("Finnhub", "HTTP 429", wait_s, tries=1, most_tries=7)
    assert lines == [
        "Finnhub: HTTP 429; asked again in 17 s (try 2 of 7).",
        "Finnhub: HTTP 429; asked again in 60 s (try 2 of 7).",
    ]
    assert [in_words(seconds) for seconds in (90, 900, 99999)] == ["90 s", "15 minutes", "28 hours"]


@pytest.mark.parametrize(
    ("location", "is_followed"),
    [
        ("/other/path?x=1", True),
        ("https://api.example.com/v1", True),
        ("https://API.example.com:443/v1", True),
        ("http://api.example.com/v1", True),
        ("https://api.example.com:8443/v1", False),
        ("https://example.com/v1", False),
        ("https://api.example.com.evil.org/v1", False),
        ("https://api.example.com@evil.org/v1", False),
        ("//evil.org/v1", False),
        ("ftp://api.example.com/v1", False),
        ("http://api.example.com:99999/", False),
    ],
)
def test_a_redirect_stays_on_its_server(location: str, is_followed: bool) -> None:
    if is_followed:
        check_redirect("http://api.example.com/v1", location)
    else:
        with pytest.raises(ServerFaultError) as caught:
            check_redirect("http://api.example.com/v1", location)
        assert json.dumps(location) not in str(caught.value)


def test_a_redirect_never_gives_up_encryption() -> None:
    with pytest.raises(ServerFaultError):
        check_redirect("https://api.example.com/v1", "http://api.example.com/v1")
