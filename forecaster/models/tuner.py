"""How the weights of a base model are tuned: the values of `--tuner`."""

from __future__ import annotations

from typing import Literal, get_args

from forecaster.models.registry import ModelShape

Tuner = Literal["lora", "qlora", "dora", "rslora", "full"]
"""lora: low-rank factors (Hu et al. 2021). qlora: the same over 4-bit base weights (Dettmers et al. 2023).
dora: with a trained magnitude per output (Liu et al. 2024). rslora: scaled by alpha / sqrt(r) (Kalajdzievski
2023). full: every weight."""

TUNERS: tuple[Tuner, ...] = get_args(Tuner)


def parameter_counts(shape: ModelShape, tuner: Tuner, rank: int, targets: tuple[str, ...]) -> tuple[int, int]:
    """Trainable parameters, and all of them, the adapter's included.

    DoRA adds to LoRA one magnitude for each output of an adapted projection (Liu et al. 2024, section 4.1).
    """
    if tuner == "full":
        return shape.parameters, shape.parameters
    trainable = shape.lora_parameters(rank, targets)
    if tuner == "dora":
        sizes = shape.projection_sizes()
        trainable += shape.layers * sum(sizes[name][1] for name in targets if name in sizes)
    return trainable, shape.parameters + trainable
