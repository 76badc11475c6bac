"""A model and dataset hub on the loopback interface: the calls that huggingface_hub makes, from a folder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _handler(root: Path, requests: list[tuple[str, str, str]]) -> type[BaseHTTPRequestHandler]:
    class Hub(BaseHTTPRequestHandler):
        """`root` holds `models/<owner>/<name>` and `datasets/<owner>/<name>`."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            requests.append((self.command, path, self.headers.get("Authorization", "")))
            if path.startswith("api/"):
                self._answer_api(path.removeprefix("api/"))
            else:
                self._answer_file(path)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = unquote(urlsplit(self.path).path).strip("/")
            requests.append((self.command, path, ""))
            kind, owner, name, *rest = path.removeprefix("api/").split("/")
            folder = root / kind / owner / name
            if not folder.is_dir() or rest[:1] != ["paths-info"]:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            wanted = json.loads(body)["paths"]
            self._send_json(
                [self._entry(folder, p) for p in _files(folder) if str(p.relative_to(folder)) in wanted]
            )

        def _answer_api(self, path: str) -> None:
            kind, owner, name, *rest = [*path.split("/"), "", ""]
            folder = root / kind / owner / name
            if not name or not folder.is_dir():
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif rest[0] == "tree":
                within = folder / "/".join(filter(None, rest[2:]))
                if not within.is_dir():
                    self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
                    return
                recursive = "recursive=true" in self.path.lower()
                children = sorted(within.rglob("*") if recursive else within.iterdir())
                self._send_json([self._entry(folder, child) for child in children])
            else:
                siblings = [{"rfilename": str(p.relative_to(folder))} for p in _files(folder)]
                self._send_json(
                    {
                        "id": f"{owner}/{name}",
                        "sha": COMMIT,
                        "siblings": siblings,
                        "private": False,
                        "tags": [],
                    }
                )

        def _answer_file(self, path: str) -> None:
            parts = path.split("/")
            kind = "datasets" if parts[0] == "datasets" else "models"
            owner, name, resolve, _, *rest = parts[1:] if kind == "datasets" else parts
            file = root / kind / owner / name / "/".join(rest)
            if resolve != "resolve" or not file.parent.is_dir():
                self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif not file.is_file():
                self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            else:
                content = file.read_bytes()
                self._send(
                    200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
                )

        @staticmethod
        def _entry(folder: Path, path: Path) -> dict[str, object]:
            name = str(path.relative_to(folder))
            if path.is_dir():
                return {
                    "type": "directory",
                    "path": name,
                    "size": 0,
                    "oid": hashlib.sha1(name.encode()).hexdigest(),
                }
            content = path.read_bytes()
            return {
                "type": "file",
                "path": name,
                "size": len(content),
                "oid": hashlib.sha1(content).hexdigest(),
            }

        def _send_json(self, content: object) -> None:
            self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Keep test output quiet; `requests` has every call."""

    return Hub


@contextmanager
def serve(root: Path) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Serve `root`; yields the endpoint, and a growing list of (method, path, authorization header)."""
    requests: list[tuple[str, str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(root, requests))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
