"""The real Finnhub client against a server on the loopback interface that answers as scripted."""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import finnhub
import pytest
from simulated_time import SimulatedTime

from forecaster.errors import KeyRefusedError, NoAccessError, UnknownSymbolError, UnreachableError
from forecaster.vendors.finnhub import TRIES, Finnhub
from forecaster.vendors.pace import Pace, StoppedError

KEY = "ca+na/ry=1"
SPELLINGS = (KEY, "ca%2Bna%2Fry%3D1", "ca+na%2Fry%3D1", "ca%2Bna/ry=1", "ca%2Bna/ry%3D1")

Answer = Callable[[BaseHTTPRequestHandler], None]


class Scripted(ThreadingHTTPServer):
    """Gives one answer after the other, and the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: Any) -> None:
        """A connection that a test broke is no news."""

    @property
    def port(self) -> int:
        return self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.server.asked.append((url.path, query))
        answer = self.server.answers[0] if len(self.server.answers) == 1 else self.server.answers.pop(0)
        answer(self)

    def log_message(self, *_: Any) -> None:
        pass


def answer(
    body: Any, status: int = 200, content_type: str = "application/json; charset=utf-8", **headers: str
) -> Answer:
    def send(handler: BaseHTTPRequestHandler) -> None:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(text)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(text)

    return send


def reset(handler: BaseHTTPRequestHandler) -> None:
    linger_no_time = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time)
    handler.close_connection = True
    handler.rfile.close()
    handler.wfile.close()
    handler.connection.close()


def broken_off(handler: BaseHTTPRequestHandler) -> None:
    """Less of a body than its length says."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'[{"id": 1, "head')
    handler.close_connection = True


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)
    handler.close_connection = True


NEWS = [{"id": 5, "datetime": 1772496000, "headline": "Apple rises", "summary": "", "related": "AAPL"}]
BUSY = {"error": "API limit reached. Please try again later. Remaining Limit: 0"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    server = Scripted()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setattr(finnhub.Client, "API_URL", f"http://127.0.0.1:{server.port}/api/v1")
    monkeypatch.setattr(finnhub.Client, "DEFAULT_TIMEOUT", 0.3)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def simulated() -> SimulatedTime:
    return SimulatedTime()


@pytest.fixture
def vendor(server: Scripted, simulated: SimulatedTime) -> Iterator[Finnhub]:
    vendor = Finnhub(KEY, Pace(60_000, clock=simulated.now, sleep=simulated.sleep))
    yield vendor
    vendor.close()


def news(vendor: Finnhub) -> list[dict[str, Any]]:
    return vendor.company_news("AAPL", date(2026, 3, 2), date(2026, 3, 4))


def backoffs(simulated: SimulatedTime) -> list[float]:
    return [wait for wait in simulated.waits if wait >= 0.5]


def test_news_are_asked_for_by_day_and_come_as_received(vendor: Finnhub, server: Scripted) -> None:
    server.answers = [answer(NEWS)]
    assert news(vendor) == NEWS
    assert server.asked == [
        (
            "/api/v1//company-news",
            {"symbol": "AAPL", "from": "2026-03-02", "to": "2026-03-04", "token": KEY},
        )
    ]


def test_an_empty_list_of_news_is_an_answer(vendor: Finnhub, server: Scripted) -> None:
    server.answers = [answer([])]
    assert news(vendor) == []
    assert vendor.pace.taken == 1


def test_a_profile_keeps_only_what_does_not_change_with_time(vendor: Finnhub, server: Scripted) -> None:
    server.answers = [
        answer(
            {
                "country": "US",
                "currency": "USD",
                "exchange": "NASDAQ NMS - GLOBAL MARKET",
                "ipo": "1980-12-12",
                "marketCapitalization": 3_000_000,
                "name": "Apple Inc",
                "shareOutstanding": 15_000,
                "ticker": "AAPL",
                "finnhubIndustry": "Technology",
            }
        )
    ]
    assert vendor.profile("AAPL") == {
        "name": "Apple Inc",
        "finnhubIndustry": "Technology",
        "exchange": "NASDAQ NMS - GLOBAL MARKET",
        "country": "US",
        "ipo": "1980-12-12",
    }
    assert server.asked[0][0] == "/api/v1//stock/profile2"


def test_figures_keep_the_reported_series_and_drop_the_metrics_of_today(
    vendor: Finnhub, server: Scripted
) -> None:
    series = {"annual": {"eps": [{"period": "2025-09-27", "v": 7.4}]}, "quarterly": {"eps": []}}
    server.answers = [answer({"metric": {"52WeekHigh": 260.1}, "series": series}), answer({"metric": {}})]
    assert vendor.basic_financials("AAPL") == series
    assert vendor.basic_financials("GONE") == {"quarterly": {}, "annual": {}}
    assert server.asked[0][1]["metric"] == "all"


def test_filings_keep_their_dates_and_drop_the_report(vendor: Finnhub, server: Scripted) -> None:
    kept = {
        "accessNumber": "0000320193-26-000006",
        "year": 2026,
        "quarter": 1,
        "form": "10-Q",
        "startDate": "2025-09-28 00:00:00",
        "endDate": "2025-12-27 00:00:00",
        "filedDate": "2026-01-30 00:00:00",
        "acceptedDate": "2026-01-30 06:01:32",
    }
    server.answers = [
        answer({"cik": "320193", "data": [kept | {"report": {"bs": []}}], "symbol": "AAPL"}),
        answer({"data": None, "symbol": "GONE"}),
    ]
    assert vendor.filings("AAPL", "quarterly") == [kept]
    assert vendor.filings("GONE", "annual") == []
    assert [query["freq"] for _, query in server.asked] == ["quarterly", "annual"]


@pytest.mark.parametrize(
    "odd", [[], {"series": [1]}, {"series": {"annual": [1]}}, {"data": 3}, {"data": [3]}]
)
def test_an_answer_of_an_unknown_form_is_no_answer(vendor: Finnhub, server: Scripted, odd: Any) -> None:
    server.answers = [answer(odd)]
    if odd == [] or "series" in odd:
        with pytest.raises(UnreachableError, match="figures of an unknown form"):
            vendor.basic_financials("AAPL")
    if odd == [] or "data" in odd:
        with pytest.raises(UnreachableError, match="filings of an unknown form"):
            vendor.filings("AAPL", "annual")
    if odd == []:
        with pytest.raises(UnreachableError, match="a profile of an unknown form"):
            vendor.profile("AAPL")
    assert server.asked


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        pytest.param(answer(BUSY, 429), [2.0], id="429 without Retry-After"),
        pytest.param(answer(BUSY, 429, Retry_After="17"), [17.0], id="429 with Retry-After"),
        pytest.param(answer(BUSY, 429, Retry_After="86400"), [900.0], id="a day is too long"),
        pytest.param(answer(BUSY, 429, Retry_After="soon"), [2.0], id="unreadable Retry-After"),
        pytest.param(answer(b"oops", 500, "text/html"), [2.0], id="500"),
        pytest.param(answer(None, 502), [2.0], id="502 whose JSON is no object"),
        pytest.param(answer({"error": "down"}, 503, Retry_After="5"), [5.0], id="503 with Retry-After"),
        pytest.param(silent, [2.0], id="timeout"),
        pytest.param(answer(b'[{"id": 5, "dateti'), [2.0], id="truncated JSON"),
        pytest.param(broken_off, [2.0], id="connection ended within the answer"),
        pytest.param(reset, [2.0], id="connection reset"),
        pytest.param(answer(b"<html></html>", 200, "text/html"), [2.0], id="wrong content type"),
        pytest.param(answer(b"id,headline", 200, "text/csv"), [2.0], id="csv"),
        pytest.param(answer({"error": "odd"}), [2.0], id="an object instead of a list"),
        pytest.param(answer([{"headline": 3}, "x"]), [2.0], id="a list without one article"),
    ],
)
def test_a_passing_fault_is_tried_again(
    vendor: Finnhub, server: Scripted, simulated: SimulatedTime, fault: Answer, waits: list[float]
) -> None:
    server.answers = [fault, answer(NEWS)]
    assert news(vendor) == NEWS
    assert backoffs(simulated) == waits
    assert vendor.pace.taken == 2


def test_a_retry_after_may_be_a_date(vendor: Finnhub, server: Scripted, simulated: SimulatedTime) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=90)
    server.answers = [answer(BUSY, 429, Retry_After=format_datetime(moment, usegmt=True)), answer(NEWS)]
    news(vendor)
    (wait,) = backoffs(simulated)
    assert 80 < wait <= 90


def test_a_rate_limit_holds_the_other_threads_back_too(
    vendor: Finnhub, server: Scripted, simulated: SimulatedTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[float] = []
    monkeypatch.setattr(vendor.pace, "hold", held.append)
    server.answers = [answer(BUSY, 429, Retry_After="17"), answer(b"", 500), answer(NEWS)]
    news(vendor)
    assert held == [17.0]


def test_after_the_last_try_the_vendor_counts_as_unreachable(
    vendor: Finnhub, server: Scripted, simulated: SimulatedTime
) -> None:
    server.answers = [answer(b"oops", 500, "text/html")]
    with pytest.raises(UnreachableError) as caught:
        news(vendor)
    assert str(caught.value) == "Finnhub: no usable answer in 7 tries, in the last one HTTP 500."
    assert backoffs(simulated) == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert len(server.asked) == TRIES == vendor.pace.taken


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        pytest.param(answer({"error": "Invalid API key."}, 401), KeyRefusedError, id="wrong key"),
        pytest.param(
            answer({"error": "You need an API key. Please sign up for a free account."}, 429),
            KeyRefusedError,
            id="empty key",
        ),
        pytest.param(
            answer({"error": "You don't have access to this resource."}, 403), NoAccessError, id="paid"
        ),
        pytest.param(answer({"error": "Bad request."}, 400), NoAccessError, id="400"),
        pytest.param(answer({"error": "Not found."}, 404), NoAccessError, id="404"),
        pytest.param(answer({"error": "symbol is required"}, 422), NoAccessError, id="422"),
    ],
)
def test_what_another_try_cannot_mend_is_told_at_once(
    vendor: Finnhub, server: Scripted, refusal: Answer, error: type[Exception]
) -> None:
    server.answers = [refusal]
    with pytest.raises(error):
        news(vendor)
    assert len(server.asked) == 1


def test_an_empty_profile_is_an_unknown_symbol(vendor: Finnhub, server: Scripted) -> None:
    server.answers = [answer({})]
    with pytest.raises(UnknownSymbolError):
        vendor.profile("GONE")
    assert len(server.asked) == 1


def test_an_empty_key_is_refused_before_any_call(server: Scripted) -> None:
    with pytest.raises(KeyRefusedError):
        Finnhub("", Pace(60))
    assert server.asked == []


def _everything_told(error: BaseException) -> str:
    """What a person or a log sees of an exception, and of whatever hangs on it."""
    told = "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))
    for linked in (error.__cause__, error.__context__):
        if linked:
            told += _everything_told(linked)
    return told


@pytest.mark.parametrize(
    "fault",
    [
        reset,
        silent,
        broken_off,
        answer(f"the token {KEY} is bad".encode(), 500, "text/plain"),
        answer({"error": f"invalid token {KEY}"}, 401),
        answer({"error": f"invalid token {KEY}"}, 403),
        answer({"error": f"invalid token {KEY}"}, 404),
        answer(f"no JSON for {KEY}".encode()),
    ],
)
def test_no_exception_and_no_log_tells_the_key(
    vendor: Finnhub, server: Scripted, fault: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answers = [fault]
    with pytest.raises((UnreachableError, KeyRefusedError, NoAccessError)) as caught:
        news(vendor)
    told = _everything_told(caught.value) + caplog.text
    assert not [spelling for spelling in SPELLINGS if spelling in told]


def test_a_host_that_is_not_there_is_told_without_the_key(
    vendor: Finnhub, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(finnhub.Client, "API_URL", f"http://127.0.0.1:{unused.getsockname()[1]}/api/v1")
        with pytest.raises(UnreachableError) as caught:
            news(vendor)
    assert "a broken connection (ConnectionError)" in str(caught.value)
    assert not [spelling for spelling in SPELLINGS if spelling in _everything_told(caught.value)]


def test_a_stop_ends_the_wait_between_two_tries(server: Scripted) -> None:
    vendor = Finnhub(KEY, Pace(60_000))

    def refuse_and_stop(handler: BaseHTTPRequestHandler) -> None:
        answer(BUSY, 429, Retry_After="600")(handler)
        vendor.pace.stop()

    server.answers = [refuse_and_stop]
    with pytest.raises(StoppedError):
        news(vendor)
    vendor.close()
    assert len(server.asked) == 1


def test_every_thread_has_a_client_of_its_own(vendor: Finnhub, server: Scripted) -> None:
    server.answers = [answer(NEWS)]
    threads = [threading.Thread(target=news, args=(vendor,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(client._session) for client in vendor._clients}) == 3
