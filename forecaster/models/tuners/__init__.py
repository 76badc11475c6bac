"""How the weights of a base model are tuned: the values of `--tuner`."""

from __future__ import annotations

from forecaster.models.tuners.base import Tuner
from forecaster.models.tuners.full import FullTuner
from forecaster.models.tuners.lora import DORA, LORA, QLORA, RSLORA

TUNERS: dict[str, Tuner] = {tuner.name: tuner for tuner in (LORA, QLORA, DORA, RSLORA, FullTuner())}
DEFAULT_TUNER = LORA.name
"""Of the flag, and of runs that are older than it."""
