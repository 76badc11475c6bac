"""The README's table of GPUs and models, computed from the memory model.

python bench/gpu_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tabulate import tabulate

from forecaster.modeling.hardware import KNOWN_GPUS, Choice, Gpu, choose
from forecaster.modeling.memory import USABLE_SHARE, training_bytes
from forecaster.modeling.registry import MODELS, ModelSpec

LENGTHS = (4096, 2048, 1024)


def cell(gpu: Gpu, model: ModelSpec) -> str:
    """How the model trains on this GPU at one row a step: at the longest length at which 16 bit fits, else 4
    bit."""
    for four_bit in (False, True):
        for length in LENGTHS[: 2 if not four_bit else 3]:
            needed = training_bytes(model.shape, lora_rank=8, tokens=length, four_bit=four_bit)
            if needed <= USABLE_SHARE * gpu.memory_bytes:
                return f"{'4-bit' if four_bit else '16-bit'} {length}"
    return "-"


def table() -> str:
    rows = []
    for name, gpu in KNOWN_GPUS.items():
        choice = choose([gpu], 1, shape=None, lora_rank=8, tokens=1)
        assert isinstance(choice, Choice) and choice.ds_config
        rows.append([name, choice.precision, choice.ds_config.stem, *(cell(gpu, model) for model in MODELS)])
    rows.append(["CPU", "fp32", "fp32_zero0", *["embedded base only"] + ["-"] * (len(MODELS) - 1)])
    headers = ["GPU", "precision", "ds_config", *(model.alias for model in MODELS)]
    return str(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    print(table())
