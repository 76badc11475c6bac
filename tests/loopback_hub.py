"""A model and dataset hub on the loopback interface: the calls that huggingface_hub makes, to and from a
folder."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _handler(
    root: Path, requests: list[tuple[str, str, str]], refusals: Mapping[str, int]
) -> type[BaseHTTPRequestHandler]:
    private: set[Path] = set()

    class Hub(BaseHTTPRequestHandler):
        """`root` holds `models/<owner>/<name>` and `datasets/<owner>/<name>`; what was created private shows
        itself to requests with a token only."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self._arrived()
            if status := self._refusal(path):
                self._refuse(status)
            elif path.startswith("api/"):
                self._answer_api(path.removeprefix("api/"))
            else:
                self._answer_file(path)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self._arrived()
            kind, owner, name, *rest = [*path.removeprefix("api/").split("/"), "", ""]
            folder = root / kind / owner / name
            if status := self._refusal(path):
                self._refuse(status)
            elif path == "api/repos/create":
                self._create(json.loads(body))
            elif path == "api/validate-yaml":
                self._send_json({"errors": [], "warnings": []})
            elif not self._is_there(folder):
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif rest[0] == "paths-info":
                wanted = json.loads(body)["paths"]
                self._send_json(
                    [self._entry(folder, p) for p in _files(folder) if str(p.relative_to(folder)) in wanted]
                )
            elif rest[0] == "preupload":
                self._send_json(
                    {"files": [self._mode(folder, item["path"]) for item in json.loads(body)["files"]]}
                )
            elif rest[0] == "commit":
                self._commit(folder, body)
            else:
                self._send(404, b"{}", {})

        def _arrived(self) -> str:
            path = unquote(urlsplit(self.path).path).strip("/")
            requests.append((self.command, path, self.headers.get("Authorization", "")))
            return path

        def _refusal(self, path: str) -> int:
            return next((status for part, status in refusals.items() if part in path), 0)

        def _refuse(self, status: int) -> None:
            # A server that quotes what it was sent.
            error = {"error": f"Refused: {self.headers['Authorization']}"}
            self._send(status, json.dumps(error).encode(), {"Content-Type": "application/json"})

        def _is_there(self, folder: Path) -> bool:
            return folder.is_dir() and (folder not in private or "Authorization" in self.headers)

        def _create(self, wanted: dict[str, str]) -> None:
            folder = root / f"{wanted['type']}s" / wanted["organization"] / wanted["name"]
            url = {"url": f"http://{self.headers['Host']}/{folder.relative_to(root)}"}
            if folder.is_dir():
                content = {"error": "You already created this repo", **url}
                self._send(409, json.dumps(content).encode(), {"Content-Type": "application/json"})
                return
            folder.mkdir(parents=True)
            if wanted.get("visibility") == "private":
                private.add(folder)
            self._send_json(url)

        @staticmethod
        def _mode(folder: Path, name: str) -> dict[str, object]:
            """Every file is to come within the commit; an equal one, as its git hash tells, not at all."""
            content = (folder / name).read_bytes() if (folder / name).is_file() else None
            git_hash = content and hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return {"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": git_hash}

        def _commit(self, folder: Path, lines: bytes) -> None:
            for line in map(json.loads, lines.splitlines()):
                if line["key"] == "file":
                    file = folder / line["value"]["path"]
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(base64.b64decode(line["value"]["content"]))
            url = f"http://{self.headers['Host']}/{folder.relative_to(root)}/commit/{COMMIT}"
            self._send_json({"success": True, "commitUrl": url, "commitOid": COMMIT})

        def _answer_api(self, path: str) -> None:
            kind, owner, name, *rest = [*path.split("/"), "", ""]
            folder = root / kind / owner / name
            if not name or not self._is_there(folder):
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
                        "private": folder in private,
                        "tags": [],
                    }
                )

        def _answer_file(self, path: str) -> None:
            parts = path.split("/")
            kind = "datasets" if parts[0] == "datasets" else "models"
            owner, name, resolve, _, *rest = parts[1:] if kind == "datasets" else parts
            folder = root / kind / owner / name
            file = folder / "/".join(rest)
            if resolve != "resolve" or not file.parent.is_dir() or not self._is_there(folder):
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
def serve(
    root: Path, refusals: Mapping[str, int] = MappingProxyType({})
) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Serve `root`; yields the endpoint, and a growing list of (method, path, authorization header).

    Args:
        refusals: status of the answers to requests whose path contains a text, such as `commit/`.
    """
    requests: list[tuple[str, str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(root, requests, refusals))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
