"""The entry scripts as a user starts them: processes of their own, in this test's Python environment; and the
same in the tests' own process, where only what a script says and does is looked at."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

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


def call_entry(entry: str, cwd: Path, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    """What `run_entry` does, without a process of its own: whose start takes seconds, mostly of imports.

    Not for how a script is started or stopped, nor for variables that a library reads when it is imported.
    """
    main = importlib.import_module("launch" if entry == "train.sh" else Path(entry).stem).main
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        patch.dict(os.environ, env),
        # A training's watch would own the signals of the tests' process, and end it.
        patch("forecaster.training.survival.stopping.StopWatch.start"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main(list(flags))
    return subprocess.CompletedProcess([entry, *flags], status, out.getvalue(), err.getvalue())
