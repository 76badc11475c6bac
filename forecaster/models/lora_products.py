"""PEFT's LoRA layer with fewer passes over its output."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch.nn.functional import linear


def join_products(model: torch.nn.Module) -> int:
    """Let each plain LoRA layer add its update to the frozen product in place.

    PEFT scales the update and adds it in two further passes over tokens x outputs; here the scale is on
    tokens x rank, and the sum is part of the second product. What is not plain (DoRA, 4-bit weights, several
    adapters, a merged or disabled one) stays PEFT's. Not for ZeRO-3, which gathers a factor for a call of its
    layer only.

    Returns:
        The number of layers that were changed.
    """
    layers = [module for module in model.modules() if _is_plain(module)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return len(layers)


def _is_plain(module: Any) -> bool:
    """Exact types: subclasses compute something else."""
    return (
        type(module) is Linear
        and type(module.base_layer) is torch.nn.Linear
        and not module.lora_variant
        and not any(module.lora_bias.values())
        and len(module.lora_A) == 1
    )


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Shapes: x (..., inputs); returns (..., outputs)."""
    (name,) = layer.lora_A
    if args or kwargs or layer.disable_adapters or layer.merged or list(layer.active_adapters) != [name]:
        return Linear.forward(layer, x, *args, **kwargs)
    output = layer.base_layer(x)
    # Factors that train in fp32 compute in the precision of what they meet, as under autocast.
    low = linear(layer.lora_dropout[name](x), layer.lora_A[name].weight.to(x.dtype)).to(output.dtype)
    low = low.flatten(0, -2) * layer.scaling[name]
    b = layer.lora_B[name].weight.to(output.dtype)
    return output.flatten(0, -2).addmm_(low, b.T).view_as(output)
