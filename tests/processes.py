"""The entry scripts as a user starts them: processes of their own, in this test's Python environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: list[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `env` is put on top of this process's environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": path} | env,
        capture_output=True,
        text=True,
        timeout=600,
    )


def run_entry(entry: str, cwd: Path, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an entry script of the project, such as `train.sh` or `benchmark.py`, in the folder `cwd`."""
    interpreter = [] if entry.endswith(".sh") else [sys.executable]
    return run([*interpreter, str(ROOT / entry), *flags], cwd, **env)
