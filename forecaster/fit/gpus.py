"""The GPUs of a machine, those that a run can be checked for, and whether torch can use them."""

from __future__ import annotations

import queue
import re
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import pynvml

from forecaster.errors import Problem
from forecaster.fit.gpu_cards import CHIPS

BF16_CAPABILITY, BLACKWELL_CAPABILITY = (8, 0), (10, 0)


@dataclass(frozen=True)
class Gpu:
    """A GPU, or a MIG slice of one, which CUDA takes for a GPU."""

    index: int
    """As nvidia-smi counts; a slice has that of its GPU."""
    uuid: str
    """`GPU-...`, or `MIG-...` of a slice."""
    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    driver: str
    is_unified: bool = False
    """Whether its memory is the machine's (GB10, Jetson)."""
    taken_bytes: int = field(default=0, compare=False)
    """Of its memory, what others hold now; differs from look to look."""

    @property
    def has_bf16(self) -> bool:
        return self.compute_capability >= BF16_CAPABILITY

    @property
    def free_bytes(self) -> int:
        return self.memory_bytes - self.taken_bytes

    @property
    def is_slice(self) -> bool:
        return self.uuid.startswith("MIG-")

    @property
    def cuda_name(self) -> str:
        """What CUDA_VISIBLE_DEVICES calls it."""
        return self.uuid if self.is_slice else str(self.index)


KNOWN_GPUS = {
    card.flag: Gpu(0, "", card.name, card.mebibytes * 2**20, chip.compute_capability, "")
    for chip in CHIPS
    for card in chip.cards
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


@dataclass(frozen=True)
class GpuListing:
    """What NVML, the library that comes with NVIDIA's driver, says of this machine."""

    gpus: tuple[Gpu, ...] = ()
    failure: str | None = None
    """Why there is none of them; None also where there is no driver at all."""


NVML_TIMEOUT_S = 10.0
_HANGS = threading.Event()
"""Set once NVML gave no answer: nobody waits for it again."""


def list_gpus() -> GpuListing:
    """The machine's NVIDIA GPUs, in the order of the bus; of one that is cut into MIG slices, these.

    A driver that hangs (a GPU that fell off the bus does that) is waited for no longer than 10 s.
    """
    answers: queue.SimpleQueue[GpuListing] = queue.SimpleQueue()
    hangs = GpuListing(failure=f"it gave no answer in {NVML_TIMEOUT_S:.0f} s; `nvidia-smi` tells more")
    if _HANGS.is_set():
        return hangs
    # A thread, as a call into the driver cannot be broken off; a daemon, as the process may end before it.
    threading.Thread(target=lambda: answers.put(_ask_nvml()), daemon=True).start()
    try:
        return answers.get(timeout=NVML_TIMEOUT_S)
    except queue.Empty:
        _HANGS.set()
        return hangs


def _ask_nvml() -> GpuListing:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return GpuListing()
    except pynvml.NVMLError as error:
        return GpuListing(failure=str(error))
    try:
        return _listing(str(pynvml.nvmlSystemGetDriverVersion()))
    except pynvml.NVMLError as error:
        return GpuListing(failure=str(error))
    finally:
        pynvml.nvmlShutdown()


def _listing(driver: str) -> GpuListing:
    gpus: list[Gpu] = []
    failure = "it lists none"
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            units = _mig_slices(handle) if _is_sliced(handle) else [handle]
            capability = tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle))
            gpus += [_gpu(index, unit, capability, driver) for unit in units]
        except pynvml.NVMLError as error:  # one that fell off the bus leaves the others
            failure = f"GPU {index}: {error}"
        else:
            failure = failure if units else f"GPU {index} is in MIG mode and has no slice"
    return GpuListing(tuple(gpus), None if gpus else failure)


def _is_sliced(handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return False  # a GPU, or a driver, that knows no MIG


def _mig_slices(handle: Any) -> list[Any]:
    slices = []
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            slices.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number))
        except pynvml.NVMLError_NotFound:  # numbers may have gaps
            continue
    return slices


_DRIVERS_OWN_BYTES = 2**30
"""So much the driver, and the contexts of a run's own ranks, may hold of a GPU that nobody else uses; the
planner's usable share leaves room for it."""


def _gpu(index: int, unit: Any, capability: tuple[int, int], driver: str) -> Gpu:
    """A GPU, or a slice of one."""
    taken_bytes = 0
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(unit)
        memory_bytes, is_unified = int(memory.total), False
        taken_bytes = int(memory.used) if memory.used > _DRIVERS_OWN_BYTES else 0
    except pynvml.NVMLError_NotSupported:
        memory_bytes, is_unified = int(psutil.virtual_memory().total), True
    uuid, name = str(pynvml.nvmlDeviceGetUUID(unit)), str(pynvml.nvmlDeviceGetName(unit))
    return Gpu(index, uuid, name, memory_bytes, capability, driver, is_unified, taken_bytes)


def detect_gpus() -> tuple[Gpu, ...]:
    """The machine's NVIDIA GPUs; none where there is no driver, or where it does not answer."""
    return list_gpus().gpus


def no_gpu_reason() -> str:
    """What NVML says where there is a driver and no GPU, in brackets; else nothing."""
    failure = list_gpus().failure
    return f" (NVML: {failure})" if failure else ""


def select_gpus(gpus: Sequence[Gpu], asked: str | None) -> tuple[Gpu, ...]:
    """The GPUs that a list such as `2,3`, `GPU-1a2b` or `MIG-3c4d` names, in its order; None means all.

    This is the syntax of CUDA_VISIBLE_DEVICES; an empty list or `-1` hides every GPU. CUDA shows a process
    one MIG slice, and nothing beside it: of several, the first is left. Without a GPU there is nothing to
    select: DeepSpeed's launcher numbers CPU ranks in that variable too.
    """
    if asked is None or not gpus:
        return _as_cuda_shows(gpus)
    selected: list[Gpu] = []
    for part in filter(None, (part.strip() for part in asked.split(","))):
        if part == "-1":
            break
        matches = [
            gpu for gpu in gpus if part == str(gpu.index) or (len(part) > 4 and gpu.uuid.startswith(part))
        ]
        if not matches or matches[0] in selected:
            present = list(dict.fromkeys(gpu.index for gpu in gpus))
            raise GpuSelectionError(part, present, twice=bool(matches))
        selected.append(matches[0])
    return _as_cuda_shows(selected)


def _as_cuda_shows(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    return tuple(gpus[:1] if any(gpu.is_slice for gpu in gpus) else gpus)


def launcher_indices(selected: Sequence[Gpu], present: Sequence[Gpu]) -> list[int]:
    """Numbers for DeepSpeed's launcher, which knows no other names; one means the first slice of a GPU.

    Raises:
        ValueError: another slice was selected.
    """
    for gpu in selected:
        if gpu != next(one for one in present if one.index == gpu.index):
            raise ValueError(
                f"chooses the MIG slice {gpu.uuid}, and DeepSpeed's launcher finds a GPU's first one only; "
                "train_lora.py under plain python takes any"
            )
    return [gpu.index for gpu in selected]


def describe(gpus: Sequence[Gpu]) -> str:
    """One phrase, such as `2 x NVIDIA A100-SXM4-40GB (40 GiB)`."""
    if not gpus:
        return f"no GPU{no_gpu_reason()}"
    kinds = Counter((gpu.name, gpu.memory_bytes, _about_memory(gpu)) for gpu in gpus)
    return ", ".join(
        f"{count} x {name} ({memory_bytes / 2**30:.0f} GiB{about})"
        for (name, memory_bytes, about), count in kinds.items()
    )


def _about_memory(gpu: Gpu) -> str:
    if gpu.is_unified:
        return ", the memory of the machine"
    return f", {gpu.taken_bytes / 2**30:.0f} of them in use by others" if gpu.taken_bytes else ""


def torch_mismatch(gpus: Sequence[Gpu], torch_version: str, torch_cuda: str | None) -> Problem:
    """What to say when there are GPUs that torch cannot use.

    The wheel of torch 2.6.0 on the package index is built for CUDA 12.4, which every driver from 525 on runs,
    for compute capabilities 5.0 to 9.0. Blackwell, 10.0 and later, begins with CUDA 12.8, torch 2.7 and
    driver 570.
    """
    newest = max(gpus, key=lambda gpu: gpu.compute_capability)
    built_for = f"built for CUDA {torch_cuda}" if torch_cuda else "built for CPU only"
    capability = ".".join(map(str, newest.compute_capability))
    way_out = "Run `pip install torch==2.6.0 torchvision==0.21.0`, or update the driver."
    if newest.compute_capability >= BLACKWELL_CAPABILITY:
        way_out = (
            "Run `pip install torch==2.7.1 torchvision==0.22.1 --index-url "
            "https://download.pytorch.org/whl/cu128`, or any later torch for CUDA 12.8 or more; the driver "
            "has to be 570 or later."
        )
    return Problem(
        "torch",
        f"{torch_version} ({built_for}) cannot use {newest.name} (compute capability {capability}) with "
        f"driver {newest.driver}.",
        way_out,
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
