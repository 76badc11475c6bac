"""A model behind an OpenAI-compatible endpoint on the loopback interface, which answers as scripted."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

UP = "[Positive Developments]:\n1. Sales rose.\n\n[Potential Concerns]:\n1. Rents rose.\n\n"
UP += "[Prediction & Analysis]:\nPrediction: Up by 2-3%\nAnalysis: Sales weigh more."

Script = Callable[[dict[str, Any], int], tuple[int, Any] | tuple[int, Any, dict[str, str]]]


class Endpoint(ThreadingHTTPServer):
    """Answers a chat with `script(body, number)`, which gives status, JSON or bytes, and headers."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        self.script: Script = lambda body, number: (200, completion(UP))
        self.models: tuple[int, Any] = (200, {"id": "m", "object": "model"})
        self.listed: tuple[int, Any] = (200, {"data": [{"id": "m"}]})
        self.chats: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.paths: list[str] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: Any) -> None:
        """A connection that a test broke is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Endpoint

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self._send(*(self.server.listed if self.path == "/v1/models" else self.server.models))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.paths.append(self.path)
            self.server.keys.append(self.headers["Authorization"])
            self.server.chats.append(body)
            number = len(self.server.chats)
        self._send(*self.server.script(body, number))

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def completion(
    text: Any, usage: tuple[int, int] | None = (1000, 500), finish: str = "stop", **message: Any
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "choices": [{"message": {"role": "assistant", "content": text} | message, "finish_reason": finish}]
    }
    if usage:
        content["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return content


def reading(body: dict[str, Any], number: int) -> tuple[int, Any]:
    """A script that answers, and also tells the likelihoods of a prompt's tokens, as vLLM's server does."""
    if "prompt_logprobs" not in body:
        return 200, completion(UP)
    assert body["continue_final_message"] and not body["add_generation_prompt"]
    return 200, read_back(_TOKEN.findall("".join(turn["content"] for turn in body["messages"])))


def read_back(tokens: Sequence[str]) -> dict[str, Any]:
    """What vLLM's server tells of a prompt that is cut so; likelihoods are made up and have no context."""
    told = [
        {str(at): {"logprob": LOGS.get(text, -7.0), "rank": 1, "decoded_token": text}}
        for at, text in enumerate(tokens)
    ]
    return completion("x", finish="length") | {"prompt_logprobs": [None, *told[1:]]}


_TOKEN = re.compile(r" (?:Up|Down|by|more|than)\b|%\n|[A-Za-z]+|\s|.")
LOGS = {" Up": -0.5, " Down": -1.0, " by": 0.0, " more": -3.0, " than": -0.125, " ": -0.25, "-": 0.0}
LOGS |= {"%\n": -0.0625} | dict.fromkeys("012345", -1.0)
"""Their twelve labels have less than all there is, and their numbers have no digits that floats round."""


def error(code: str | None = None, message: str = "no", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, "type": "invalid_request_error"} | more}


@contextmanager
def endpoint_on_loopback() -> Iterator[Endpoint]:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
