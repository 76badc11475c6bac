"""What train.sh starts: the deepspeed command, the environment of its ranks, and the GPUs that they get."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from forecaster.cluster import nodes
from forecaster.errors import ConfigurationError, Problem
from forecaster.fit.gpus import GpuSelectionError, detect_gpus, launcher_indices, select_gpus
from forecaster.settings import Settings, inherited_environment

ROOT = Path(__file__).resolve().parents[2]
"""Where the entry points lie."""


def gpu_indices(asked: str | None, settings: Settings, of_hosts: bool = False) -> list[int]:
    """Indices for `--include`: what --gpus names, else what CUDA_VISIBLE_DEVICES shows, else all.

    Without a GPU these are CPU ranks.

    Args:
        of_hosts: whether --gpus chooses on the hosts of a hostfile, and this machine's GPUs do not matter.
    """
    gpus = detect_gpus()
    flag = "--gpus" if asked is not None else "CUDA_VISIBLE_DEVICES"
    if asked is not None and not re.fullmatch(r"\w[\w-]*(,\w[\w-]*)*", asked):
        raise ConfigurationError(
            [Problem(flag, f"is {asked!r}.", "Give a comma list of indices, such as 0,1.")]
        )
    if asked and of_hosts and re.fullmatch(r"\d+(,\d+)*", asked):
        return sorted({int(index) for index in asked.split(",")})
    try:
        if not gpus:
            ranks = [int(part) for part in asked.split(",")] if asked else [0]
            if len(set(ranks)) < len(ranks) or min(ranks) < 0:
                raise ValueError(f"{asked!r} names no set of ranks")
            return ranks
        selected = select_gpus(gpus, asked or settings.cuda_visible_devices)
        if not selected:
            raise ValueError("hides every GPU of this machine")
        indices = launcher_indices(selected, gpus)
    except (GpuSelectionError, ValueError) as error:
        raise ConfigurationError(
            [
                Problem(
                    flag, f"{error}.", "Give a comma list of indices that `nvidia-smi -L` shows, such as 0,1."
                )
            ]
        ) from error
    return indices


def cuda_visible(indices: Sequence[int]) -> dict[str, str]:
    """The variable that shows a process these GPUs alone; nothing on a machine without one."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, indices))} if detect_gpus() else {}


def first_rank_environment(ranks: int) -> dict[str, str]:
    """What a launcher tells the first of so many ranks: for a check, which meets no other."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(nodes.DEFAULT_PORT)}
    return {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(ranks), **address}


def rank_environment(indices: Sequence[int]) -> dict[str, str]:
    """Environment of the launched processes.

    `--include` collides with a set CUDA_VISIBLE_DEVICES (DeepSpeed#5818), so that goes: its choice is in
    `--include`. On CPU, DeepSpeed counts NUMA nodes as slots unless LOCAL_SIZE says otherwise, and each
    rank's OpenMP would take every core.
    """
    env = {name: value for name, value in inherited_environment().items() if name != "CUDA_VISIBLE_DEVICES"}
    # nvidia-smi counts by bus, CUDA by speed unless told otherwise: one numbering for both.
    env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    if not detect_gpus():
        cores = len(os.sched_getaffinity(0))
        env |= {"LOCAL_SIZE": str(max(indices) + 1)}
        env.setdefault("OMP_NUM_THREADS", str(max(cores // len(indices), 1)))
    return env


def deepspeed_command(
    indices: Sequence[int], train_flags: Sequence[str], cluster: nodes.Cluster | None = None
) -> list[str]:
    """The launcher's command line, on one machine or over the nodes of a cluster."""
    script = Path(sys.executable).with_name("deepspeed")
    found = str(script) if script.exists() else shutil.which("deepspeed")
    launcher = [found] if found else [sys.executable, "-m", "deepspeed.launcher.runner"]
    if cluster:
        where = nodes.launcher_flags(cluster, cluster.hostfile or temporary_hostfile(cluster))
        return [*launcher, *where, str(ROOT / "train_lora.py"), *nodes.script_flags(cluster, train_flags)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    include = f"localhost:{','.join(map(str, indices))}"
    return [
        *launcher,
        "--include",
        include,
        "--master_port",
        str(port),
        str(ROOT / "train_lora.py"),
        *train_flags,
    ]


def temporary_hostfile(cluster: nodes.Cluster) -> Path:
    """The nodes that the environment described, as the launcher reads them; gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="forecaster-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "hostfile"
    path.write_text(nodes.hostfile_text(cluster), encoding="utf-8")
    return path
