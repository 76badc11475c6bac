"""GPUs that are sold and rented, in one table: names, memory, speed. A new one is an entry in `CHIPS`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class GpuSpeed:
    """What a GPU can do at best."""

    flops_16bit: float
    """Dense tensor-core operations a second with fp32 accumulation."""
    flops_fp32: float
    memory_bytes_per_s: float
    link_bytes_per_s: float
    """One way between two GPUs of a machine: NVLink, else PCIe."""
    host_link_bytes_per_s: float
    """One way to CPU memory."""


@dataclass(frozen=True)
class GpuCard:
    """A GPU that a run can be checked for without having one."""

    flag: str
    """What `--gpu` calls it."""
    name: str
    mebibytes: int
    """As nvidia-smi reports it."""
    sold_as_gb: int


@dataclass(frozen=True)
class GpuChip:
    """What the cards of one kind share."""

    in_name: str
    """What their names hold, no digit behind it: an RTX A1000 is no A100."""
    compute_capability: tuple[int, int]
    speed: GpuSpeed
    cards: tuple[GpuCard, ...] = ()


# Speeds from NVIDIA's data sheets: T4 (2019), V100 (2020), L4, A10, A100, H100, H200; GeForce from the
# whitepapers of the Ampere GA102 and Ada architectures. Where a sheet gives a figure with sparsity, half of
# it. PCIe at 80 %. Compute capabilities from NVIDIA's list of CUDA GPUs.
_PCIE3, _PCIE4, _PCIE5 = 12.5e9, 25e9, 50e9
CHIPS = (
    GpuChip(
        "T4",
        (7, 5),
        GpuSpeed(65e12, 8.1e12, 320e9, _PCIE3, _PCIE3),
        (GpuCard("t4", "Tesla T4", 15360, 16),),
    ),
    GpuChip(
        "V100",
        (7, 0),
        GpuSpeed(125e12, 15.7e12, 900e9, 150e9, _PCIE3),
        (GpuCard("v100", "Tesla V100 16 GB", 16384, 16),),
    ),
    GpuChip("L40", (8, 9), GpuSpeed(181e12, 90e12, 864e9, _PCIE4, _PCIE4)),
    GpuChip(
        "L4",
        (8, 9),
        GpuSpeed(121e12, 30e12, 300e9, _PCIE4, _PCIE4),
        (GpuCard("l4", "NVIDIA L4", 23034, 24),),
    ),
    GpuChip(
        "A10",
        (8, 6),
        GpuSpeed(125e12, 31e12, 600e9, _PCIE4, _PCIE4),
        (GpuCard("a10", "NVIDIA A10", 23028, 24),),
    ),
    GpuChip(
        "3090",
        (8, 6),
        GpuSpeed(71e12, 35.6e12, 936e9, _PCIE4, _PCIE4),
        (GpuCard("rtx3090", "NVIDIA GeForce RTX 3090", 24576, 24),),
    ),
    GpuChip(
        "4090",
        (8, 9),
        GpuSpeed(165e12, 82.6e12, 1008e9, _PCIE4, _PCIE4),
        (GpuCard("rtx4090", "NVIDIA GeForce RTX 4090", 24564, 24),),
    ),
    GpuChip(
        "A100",
        (8, 0),
        GpuSpeed(312e12, 19.5e12, 1555e9, 300e9, _PCIE4),
        (
            GpuCard("a100-40", "NVIDIA A100 40 GB", 40960, 40),
            GpuCard("a100-80", "NVIDIA A100 80 GB", 81920, 80),
        ),
    ),
    GpuChip(
        "H100",
        (9, 0),
        GpuSpeed(989e12, 67e12, 3350e9, 450e9, _PCIE5),
        (GpuCard("h100", "NVIDIA H100 80 GB", 81559, 80),),
    ),
    GpuChip(
        "H200",
        (9, 0),
        GpuSpeed(989e12, 67e12, 4800e9, 450e9, _PCIE5),
        (GpuCard("h200", "NVIDIA H200", 143771, 141),),
    ),
)
UNKNOWN = GpuSpeed(100e12, 20e12, 600e9, _PCIE4, _PCIE4)
"""A GPU of which only the size is known: between a T4 and an A100."""
_OTHER_SIZES_GB = (8, 12, 48)
"""Of cards that are not in the table, or have no flag there."""
CARD_SIZES_GB = tuple(sorted({*_OTHER_SIZES_GB, *(card.sold_as_gb for chip in CHIPS for card in chip.cards)}))


_MIG_PROFILE = re.compile(r"\bMIG (\d)g\.\d+gb")


def speed_of(gpu_name: str) -> GpuSpeed:
    """Of a GPU, or of a MIG slice: the sevenths of its chip (quarters of an A30) that the slice has.

    That of memory goes with them, which is a little low where a slice has more memory than processors.
    """
    found = (chip.speed for chip in CHIPS if re.search(rf"{chip.in_name}(?!\d)", gpu_name))
    whole, cut = next(found, UNKNOWN), _MIG_PROFILE.search(gpu_name)
    if not cut:
        return whole
    share = int(cut[1]) / (4 if re.search(r"A30(?!\d)", gpu_name) else 7)
    return replace(
        whole,
        flops_16bit=share * whole.flops_16bit,
        flops_fp32=share * whole.flops_fp32,
        memory_bytes_per_s=share * whole.memory_bytes_per_s,
    )
