"""What a checkpoint holds as pickles is data: a file from elsewhere cannot make code run.

Trainer and DeepSpeed keep optimizer, schedule and random numbers in pickles, and DeepSpeed has torch call
whatever those ask for. torch's restricted reader makes tensors, plain values, and the few classes named here.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from zipfile import is_zipfile

import numpy as np

from forecaster.errors import ConfigurationError
from forecaster.models.finished import WAY_OUT
from forecaster.schemas import refused
from forecaster.settings import unpickle_data_only

_DEEPSPEED_CLASSES = (
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)
"""All that the states of ZeRO 0 to 3 hold: numbers under a name each."""
_SUFFIXES = {".pt", ".pth", ".bin"}
_NEVER_READ = {"training_args.bin"}
_LATEST = "latest"
_UNREADABLE = (
    *(pickle.UnpicklingError, RuntimeError, ValueError, LookupError, TypeError, AttributeError),
    *(EOFError, OSError, AssertionError, struct.error, MemoryError, OverflowError),
)
"""What torch's reader raises for files that are no whole states."""


class _Stand:
    """In place of a class of DeepSpeed, which takes long to import."""

    def __init__(self, *_: Any) -> None:
        pass


def check_pickles(checkpoint: Path) -> None:
    """Read every pickle of a checkpoint as torch's restricted reader does, without the bytes of its tensors.

    Raises:
        ConfigurationError: with the file that asks for anything but data, or is damaged.
    """
    import torch  # seconds to import; only a run that goes on needs it here

    latest = checkpoint / _LATEST
    if latest.exists() and not re.fullmatch(r"global_step\d+", latest.read_bytes().decode("latin-1").strip()):
        raise refused(latest, "does not name a folder of its checkpoint, such as global_step20.", WAY_OUT)
    known = [*_numpy_classes(), *((_Stand, name) for name in _DEEPSPEED_CLASSES)]
    with torch.serialization.safe_globals(known):
        for path in sorted(checkpoint.rglob("*")):
            if path.suffix in _SUFFIXES and path.name not in _NEVER_READ and path.is_file():
                try:
                    torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
                except _UNREADABLE as error:
                    raise _refused(path, error) from error


@contextmanager
def reading_data_only() -> Iterator[None]:
    """While it lasts, every `torch.load` of this process makes data only, whatever its caller asks for."""
    import torch

    unpickle_data_only()
    with torch.serialization.safe_globals([*_numpy_classes(), *map(resolve_name, _DEEPSPEED_CLASSES)]):
        yield


def _numpy_classes() -> list[Any]:
    """What numpy's random state is made of."""
    return [np.empty(0).__reduce__()[0], np.ndarray, np.dtype, type(np.dtype(np.uint32))]


def _refused(path: Path, error: BaseException) -> ConfigurationError:
    if name := re.search(r"GLOBAL ([\w.<>]+)", str(error)):
        found = f"asks for {name[1]}, which is no data of a training: it could run code."
        return refused(path, found, "Do not trust this run; start anew without --resume.")
    return refused(path, "is damaged, or holds more than the data of a training.", WAY_OUT)
