"""What safetensors files hold, by their headers and their bytes.

Nothing is loaded into a model, and torch is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from forecaster.files import is_lfs_pointer
from forecaster.schemas import refused

WAY_OUT = "Take a whole copy, or train again."
_EXPONENTS: dict[str, tuple[Any, int]] = {
    "F64": (np.uint64, 0x7FF0 << 48),
    "F32": (np.uint32, 0x7F80 << 16),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
"""By type of number: its bits as an integer, and those that are all set in NaN and infinities."""
_AT_ONCE = 2**22


@dataclass(frozen=True)
class Tensor:
    """A tensor as a header tells it."""

    kind: str
    """Such as `F32`."""
    shape: tuple[int, ...]
    start: int
    """Its first byte in the file."""
    end: int


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name; raises ConfigurationError for a file that is not whole."""
    if path.is_file() and is_lfs_pointer(path):
        found = "is a pointer of Git LFS in place of the weights."
        raise refused(path, found, "Run `git lfs pull` there, or download the file itself.")
    try:
        with safe_open(path, framework="np"):  # checks sizes, offsets and names
            pass
    except (SafetensorError, OSError) as error:
        found = f"is no whole safetensors file ({' '.join(str(error).split())[:120]})."
        raise refused(path, found, WAY_OUT) from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if not header:
        raise refused(path, "holds no tensors.", WAY_OUT)
    return {
        name: Tensor(of["dtype"], tuple(of["shape"]), *(8 + length + at for at in of["data_offsets"]))
        for name, of in header.items()
    }


def check_numbers(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises ConfigurationError for the first tensor that is empty, holds NaN or infinities, or numbers of
    another kind."""
    content = np.memmap(path, dtype=np.uint8, mode="r")
    for name, tensor in sorted(tensors.items()):
        if tensor.start == tensor.end:
            raise refused(path, f"{name} is empty.", WAY_OUT)
        if tensor.kind not in _EXPONENTS:
            raise refused(path, f"{name} holds numbers of the type {tensor.kind}.", WAY_OUT)
        kind, mask = _EXPONENTS[tensor.kind]
        for start in range(tensor.start, tensor.end, _AT_ONCE):
            bits = content[start : min(start + _AT_ONCE, tensor.end)].view(kind)
            if ((bits & kind(mask)) == kind(mask)).any():
                raise refused(path, f"{name} holds NaN or infinite values.", WAY_OUT)


def check_model(paths: Sequence[Path]) -> None:
    """Check the files of a whole model; raises ConfigurationError with file and tensor."""
    for path in paths:
        check_numbers(path, read_header(path))
