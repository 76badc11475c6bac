"""A machine with NVIDIA GPUs, at the edge: the real NVML client on a library compiled for the tests."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pynvml
import pytest
from processes import ROOT

LIBRARY = "libnvidia-ml.so.1"
T4 = "gpu|GPU-1a2b3c4d-0000-1111-2222-333344445555|Tesla T4|16106127360|7.5|-"
A100 = "gpu|GPU-9f8e7d6c-0000-1111-2222-333344445555|NVIDIA A100-SXM4-40GB|42949672960|8.0|0"


_FOLDER = tempfile.TemporaryDirectory(prefix="nvml_")


@cache
def _folder_of_library() -> Path:
    source, made = ROOT / "tests" / "edge" / "nvml.c", Path(_FOLDER.name) / LIBRARY
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(made), str(source)], check=True)
    return made.parent


def environment(folder: Path, *lines: str, driver: str = "550.54.15") -> dict[str, str]:
    """What a process that a test starts needs in its environment to see these GPUs (see edge/nvml.c)."""
    listing = folder / "nvml_listing.txt"
    listing.write_text("".join(f"{line}\n" for line in (f"driver|{driver}", *lines)))
    return {"LD_LIBRARY_PATH": str(_folder_of_library()), "NVML_LISTING": str(listing)}


def show(patch: pytest.MonkeyPatch, folder: Path, *lines: str) -> None:
    """Let the tests' own process see these GPUs: it began without the library on its path."""
    for name, value in environment(folder, *lines).items():
        patch.setenv(name, value)
    _forget(patch, _folder_of_library() / LIBRARY)


def hide(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """No driver, whatever the machine has."""
    _forget(patch, folder / LIBRARY)


def _forget(patch: pytest.MonkeyPatch, library: Path) -> None:
    """pynvml looks its library up once in the life of a process."""
    patch.setattr(pynvml, "nvmlLib", None)
    patch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    patch.setattr(pynvml, "CDLL", lambda _: ctypes.CDLL(str(library)))
