"""How the weights of a base model are tuned: the values of `--tuner`."""

from __future__ import annotations

from typing import Literal, get_args

Tuner = Literal["lora", "qlora", "dora", "rslora", "full"]
"""lora: low-rank factors (Hu et al. 2021). qlora: the same over 4-bit base weights (Dettmers et al. 2023).
dora: with a trained magnitude per output (Liu et al. 2024). rslora: scaled by alpha / sqrt(r) (Kalajdzievski
2023). full: every weight."""

TUNERS: tuple[Tuner, ...] = get_args(Tuner)
