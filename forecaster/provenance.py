"""Which code and which libraries made an artefact."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MODEL_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "deepspeed",
    "accelerate",
    "datasets",
    "bitsandbytes",
)


def versions(packages: Sequence[str] = MODEL_PACKAGES) -> dict[str, str]:
    """Versions of Python and of the libraries that decide the numbers, and the code's git revision."""
    found = {"python": platform.python_version(), "revision": _revision()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _revision() -> str:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return "unknown (no git)"
    return done.stdout.strip() if done.returncode == 0 else "unknown (not a git checkout)"
