"""What ranks on the CPU need of a machine: DeepSpeed builds an extension for them, and they share memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from forecaster.errors import Problem
from forecaster.files import cache_problem

SHARED_MEMORY = Path("/dev/shm")
BUFFER_BYTES = 2 * 2**20 + 2 * 32 * 2**20 + 2**20
"""DeepSpeed 0.19.8 writes a buffer of this size for each rank, and a margin."""
WORKER_BYTES = 4 * 2**20
"""Batches of token ids on their way from a data loading process."""
EXTENSION = "deepspeed_shm_comm"


def find_build_problems(folder: Path, compiler: str) -> list[Problem]:
    """What would stop DeepSpeed's build of its extension for CPU ranks.

    Args:
        folder: where torch builds extensions.
        compiler: the C++ compiler that torch calls.
    """
    variable = "TORCH_EXTENSIONS_DIR"
    if unwritable := cache_problem(folder, variable):
        return [unwritable]
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if os.statvfs(existing).f_flag & os.ST_NOEXEC:
        found = f"{folder} is on a disk that is mounted noexec: what is built there cannot be loaded."
        return [Problem(variable, found, f"Set {variable} to a folder on another disk.")]
    is_built = any(folder.glob(f"**/{EXTENSION}/{EXTENSION}.so"))
    if is_built or shutil.which(compiler):
        return []
    found = f"{compiler} is not installed, and DeepSpeed builds an extension with it for ranks on the CPU."
    way_out = "Install a C++ compiler (`apt-get install g++`), or name yours in CXX."
    return [Problem("C++ compiler", found, way_out)]


def find_memory_problems(ranks: int, workers: int, has_buffers: bool, is_before: bool) -> list[Problem]:
    """Too little of the memory that processes share.

    Args:
        ranks: on this machine.
        workers: data loading processes of each.
        has_buffers: whether these are CPU ranks of DeepSpeed.
        is_before: whether no rank has begun; else what they took already counts as there.
    """
    needed = ranks * (has_buffers * BUFFER_BYTES + workers * WORKER_BYTES)
    try:
        state = os.statvfs(SHARED_MEMORY)
    except OSError:
        return []  # not every system has it
    room = (state.f_bavail if is_before else state.f_blocks) * state.f_frsize
    if room >= needed:
        return []
    parts = [f"{ranks} rank(s)"] + [f"--num_workers {workers}"] * (workers > 0)
    found = f"has {room / 1e6:.1f} MB, and {' with '.join(parts)} may need {needed / 1e6:.0f}."
    way_out = "Make it larger (`docker run --shm-size=1g`, `mount -o remount,size=1g /dev/shm`)"
    fewer = ", or use --num_workers 0." if workers and not has_buffers else "."
    return [Problem(str(SHARED_MEMORY), found, way_out + fewer)]
