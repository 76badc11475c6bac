"""The table of GPUs and models in docs/gpus.md, computed by the planner.

python bench/gpu_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tabulate import tabulate

from forecaster.fit.gpus import KNOWN_GPUS, Gpu
from forecaster.fit.hardware import Asked, HardwareChoice, choose
from forecaster.models.registry import MODELS, ModelSpec

LENGTHS = (4096, 2048, 1024)


def cell(gpu: Gpu, model: ModelSpec) -> str:
    """How the planner trains the model on this GPU, 16 rows a step, without offload: at the longest length in
    16 bit, else in 4 bit."""
    for quantization, name in (("none", "16-bit"), ("4bit", "4-bit")):
        for length in LENGTHS[: 2 if quantization == "none" else 3]:
            asked = Asked(length, 1, 16, quantization=quantization)
            choice = choose([gpu], 1, shape=model.shape, asked=asked)
            if (
                isinstance(choice, HardwareChoice)
                and choice.ds_config
                and "offload" not in choice.ds_config.stem
            ):
                checkpointing = "" if choice.gradient_checkpointing else " no ckpt"
                return f"{name} {length}, {choice.micro_batch_size} rows{checkpointing}"
    return "-"


def table() -> str:
    rows = []
    for name, gpu in KNOWN_GPUS.items():
        choice = choose([gpu], 1, shape=None, asked=Asked(LENGTHS[0]))
        assert isinstance(choice, HardwareChoice) and choice.ds_config
        rows.append([name, choice.precision, choice.ds_config.stem, *(cell(gpu, model) for model in MODELS)])
    rows.append(["CPU", "fp32", "fp32_zero0", *["embedded base only"] + ["-"] * (len(MODELS) - 1)])
    headers = ["GPU", "precision", "ds_config", *(model.alias for model in MODELS)]
    return str(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    print(table())
