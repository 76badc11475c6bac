"""The GPUs of a machine, those that a run can be checked for, and whether torch can use them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from forecaster.errors import Problem

BF16_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Gpu:
    index: int
    uuid: str
    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    driver: str

    @property
    def has_bf16(self) -> bool:
        return self.compute_capability >= BF16_CAPABILITY


def _known(name: str, mebibytes: int, capability: tuple[int, int]) -> Gpu:
    return Gpu(0, "", name, mebibytes * 2**20, capability, "")


# Memory as nvidia-smi reports it, in MiB; compute capabilities from NVIDIA's list of CUDA GPUs.
KNOWN_GPUS = {
    "t4": _known("Tesla T4", 15360, (7, 5)),
    "v100": _known("Tesla V100 16 GB", 16384, (7, 0)),
    "l4": _known("NVIDIA L4", 23034, (8, 9)),
    "a10": _known("NVIDIA A10", 23028, (8, 6)),
    "rtx3090": _known("NVIDIA GeForce RTX 3090", 24576, (8, 6)),
    "rtx4090": _known("NVIDIA GeForce RTX 4090", 24564, (8, 9)),
    "a100-40": _known("NVIDIA A100 40 GB", 40960, (8, 0)),
    "a100-80": _known("NVIDIA A100 80 GB", 81920, (8, 0)),
    "h100": _known("NVIDIA H100 80 GB", 81559, (9, 0)),
    "h200": _known("NVIDIA H200", 143771, (9, 0)),
}
"""GPUs that a run can be checked for without having one."""
GPU_SYNTAX = f"{', '.join(KNOWN_GPUS)}, or a size such as 24GiB; 8xa100-80 is eight of them"


def parse_gpus(text: str) -> tuple[int | None, Gpu] | None:
    """`t4`, `24GiB`, or several: `8xa100-80`. Their number (None: not given) and the GPU; else None.

    A GPU of which only the size is given is taken for one with bf16.
    """
    match = re.fullmatch(r"(?:([1-9]\d{0,3})x)?([a-z0-9-]+|\d+(?:\.\d+)?Gi?B)", text)
    if not match:
        return None
    count, name = int(match[1]) if match[1] else None, match[2]
    if name in KNOWN_GPUS:
        return count, KNOWN_GPUS[name]
    size = re.fullmatch(r"(\d+(?:\.\d+)?)(Gi?B)", name)
    if not size or not float(size[1]):
        return None
    memory_bytes = int(float(size[1]) * (2**30 if size[2] == "GiB" else 10**9))
    return count, Gpu(0, "", f"GPU of {name}", memory_bytes, BF16_CAPABILITY, "")


class GpuSelectionError(Exception):
    """A GPU was asked for that the machine does not have, or one was asked for twice."""

    def __init__(self, asked: str, present: Sequence[int], twice: bool = False) -> None:
        self.asked, self.present = asked, tuple(present)
        super().__init__(
            f"{asked!r} asked for{' twice' if twice else ''}, GPUs present: {', '.join(map(str, present))}"
        )


def detect_gpus() -> tuple[Gpu, ...]:
    """The machine's NVIDIA GPUs as nvidia-smi lists them; none where there is no nvidia-smi or no driver."""
    if not shutil.which("nvidia-smi"):
        return ()
    fields = "index,uuid,name,memory.total,compute_cap,driver_version"
    listing = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        errors="replace",
    )
    return parse_gpu_listing(listing.stdout) if listing.returncode == 0 else ()


def no_gpu_reason() -> str:
    """What nvidia-smi says where it is installed and shows no GPU, in brackets; else nothing."""
    if not shutil.which("nvidia-smi"):
        return ""
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    said = " ".join((done.stdout + done.stderr).split())[:150]
    return f" (nvidia-smi: {said or f'status {done.returncode}'})"


def parse_gpu_listing(text: str) -> tuple[Gpu, ...]:
    """GPUs of a listing; lines of another form, such as `[N/A]` for a memory size, are left out."""
    gpus = []
    for line in text.strip().splitlines():
        match = re.fullmatch(r"(\d+), (\S+), (.+), (\d+), (\d+)\.(\d+), (\S+)", line.strip())
        if not match:
            continue
        index, uuid, name, mebibytes, major, minor, driver = match.groups()
        gpus.append(Gpu(int(index), uuid, name, int(mebibytes) * 2**20, (int(major), int(minor)), driver))
    return tuple(gpus)


def select_gpus(gpus: Sequence[Gpu], asked: str | None) -> tuple[Gpu, ...]:
    """The GPUs that a list such as `2,3` or `GPU-1a2b` names, in its order; None means all.

    This is the syntax of CUDA_VISIBLE_DEVICES; an empty list or `-1` hides every GPU. Without a GPU there is
    nothing to select: DeepSpeed's launcher numbers CPU ranks in that variable too.
    """
    if asked is None or not gpus:
        return tuple(gpus)
    selected = []
    for part in filter(None, (part.strip() for part in asked.split(","))):
        if part == "-1":
            break
        matches = [
            gpu for gpu in gpus if part == str(gpu.index) or (len(part) > 4 and gpu.uuid.startswith(part))
        ]
        if not matches or matches[0] in selected:
            raise GpuSelectionError(part, [gpu.index for gpu in gpus], twice=bool(matches))
        selected.append(matches[0])
    return tuple(selected)


def describe(gpus: Sequence[Gpu]) -> str:
    """One phrase, such as `2 x NVIDIA A100-SXM4-40GB (40 GiB)`."""
    if not gpus:
        return f"no GPU{no_gpu_reason()}"
    kinds = {gpu.name: gpu for gpu in gpus}
    return ", ".join(
        f"{sum(gpu.name == name for gpu in gpus)} x {name} ({one.memory_bytes / 2**30:.0f} GiB)"
        for name, one in kinds.items()
    )


def torch_mismatch(gpus: Sequence[Gpu], torch_version: str, torch_cuda: str | None) -> Problem:
    """What to say when nvidia-smi shows GPUs that torch cannot use.

    The wheel of torch 2.6.0 on the package index is built for CUDA 12.4, which every driver from 525 on runs,
    for compute capabilities 5.0 to 9.0.
    """
    built_for = f"built for CUDA {torch_cuda}" if torch_cuda else "built for CPU only"
    return Problem(
        "torch",
        f"{torch_version} ({built_for}) cannot use {gpus[0].name} with driver {gpus[0].driver}.",
        "Run `pip install torch==2.6.0 torchvision==0.21.0`, or update the driver.",
    )


def built_for(architectures: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether torch's kernels (`torch.cuda.get_arch_list()`, such as sm_80) run on a GPU.

    A binary runs on its own major version from its minor version on; PTX (compute_80) on everything later.
    """
    for name in architectures:
        kind, _, digits = name.partition("_")
        number = int("".join(filter(str.isdecimal, digits)) or 0)
        built = divmod(number, 10)
        if (kind == "sm" and built[0] == capability[0] and built <= capability) or (
            kind == "compute" and built <= capability
        ):
            return True
    return False
