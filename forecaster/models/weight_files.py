"""What the files with weights hold, by their headers and their bytes.

Nothing is loaded into a model, and torch is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, StringConstraints
from safetensors import SafetensorError, safe_open

from forecaster.models.registry import ModelShape
from forecaster.run_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from forecaster.schemas import Count, read_checked, refused

WAY_OUT = "Take a whole copy, or train again."
_EXPONENTS: dict[str, tuple[Any, int]] = {
    "F64": (np.uint64, 0x7FF0 << 48),
    "F32": (np.uint32, 0x7F80 << 16),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
"""By type of number: its bits as an integer, and those that are all set in NaN and infinities."""
_AT_ONCE = 2**22
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


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


# --- adapters -----------------------------------------------------------------------------------------------


class AdapterConfigFile(BaseModel, extra="allow"):
    """adapter_config.json of low-rank factors, as PEFT writes it for the tuners of this project.

    Every other option of PEFT is refused where it is set: some change the base's weights on loading, and one
    names a Python module to import.
    """

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"]
    r: Count
    lora_alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    lora_dropout: Annotated[float, Field(ge=0, lt=1)]
    target_modules: Annotated[list[Annotated[str, StringConstraints(pattern=r"^\w+$")]], Field(min_length=1)]
    bias: Literal["none"] = "none"
    init_lora_weights: Literal[True] = True
    inference_mode: bool = True
    use_dora: bool = False
    use_rslora: bool = False

    @property
    def other_options(self) -> list[str]:
        """Those that are set, and have no place in an adapter of this project."""
        extra: dict[str, Any] = self.model_extra or {}
        return sorted(name for name, value in extra.items() if value and name not in _IDLE_OPTIONS)


_IDLE_OPTIONS = {
    # Said of the adapter, or read only where another option is set.
    *("base_model_name_or_path", "peft_version", "revision", "megatron_core", "qalora_group_size"),
}


def check_low_rank(
    folder: Path, shape: ModelShape | None, flags: Mapping[str, Any], options: Mapping[str, bool]
) -> None:
    """Check an adapter's configuration and weights against each other, its base and the training's record.

    Args:
        shape: of the base model; None: it is not known.
        flags: of the training.
        options: which kind of LoRA, as PEFT's LoraConfig names it.

    Raises:
        ConfigurationError: with file and field.
    """
    path = folder / ADAPTER_CONFIG
    config = read_checked(path, AdapterConfigFile, WAY_OUT)
    if faults := _config_faults(config, shape, flags, options):
        raise refused(path, f"{'; '.join(faults)}.", WAY_OUT)
    weights = folder / ADAPTER_WEIGHTS
    tensors = read_header(weights)
    wanted = _factors(config, shape) if shape else _factors_like(config, tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if lacking := sorted(wanted.keys() - shapes.keys()):
        raise refused(weights, f"lacks {_some(lacking)}.", WAY_OUT)
    if more := sorted(shapes.keys() - wanted.keys()):
        raise refused(weights, f"holds {_some(more)}, which {ADAPTER_CONFIG} does not name.", WAY_OUT)
    for name, expected in sorted(wanted.items()):
        if shapes[name] != expected:
            found = f"{name} has the shape {list(shapes[name])}, not {list(expected)}."
            raise refused(weights, found, WAY_OUT)
    check_numbers(weights, tensors)


def _config_faults(
    config: AdapterConfigFile,
    shape: ModelShape | None,
    flags: Mapping[str, Any],
    options: Mapping[str, bool],
) -> Iterator[str] | list[str]:
    targets = flags.get("target_modules")
    recorded = {
        "r": flags.get("lora_r"),
        "lora_alpha": flags.get("lora_alpha"),
        "target_modules": sorted(filter(None, map(str.strip, targets.split(",")))) if targets else None,
    }
    held = {**config.model_dump(), "target_modules": sorted(config.target_modules)}
    faults = [
        f"{name} is {held[name]}, and the training was given {value}"
        for name, value in recorded.items()
        if value is not None and held[name] != value
    ]
    for name in ("use_dora", "use_rslora"):
        if held[name] != options.get(name, False):
            faults.append(f"{name} is {str(held[name]).lower()}, which is another tuner's")
    if shape and (unknown := sorted(set(config.target_modules) - shape.projection_sizes().keys())):
        faults.append(f"target_modules names {', '.join(unknown)}, which the base model does not have")
    return faults + [f"{name} is set" for name in config.other_options]


def _factors(config: AdapterConfigFile, shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all factors."""
    sizes = shape.projection_sizes()
    wanted: dict[str, tuple[int, ...]] = {}
    for layer in range(shape.layers):
        for target in config.target_modules:
            inputs, outputs = sizes[target]
            block = "self_attn" if target in _ATTENTION else "mlp"
            module = f"base_model.model.model.layers.{layer}.{block}.{target}"
            wanted |= _factors_of(module, config, inputs, outputs)
    return wanted


def _factors_like(config: AdapterConfigFile, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """As the factors that there are say: for each module, of a model that is not known, both in full."""
    wanted: dict[str, tuple[int, ...]] = {}
    modules = {name.rpartition(".lora_")[0] for name in tensors if ".lora_" in name}
    for module in modules:
        first, second = (tensors.get(f"{module}.lora_{name}.weight") for name in "AB")
        inputs = first.shape[-1] if first and first.shape else 0
        outputs = second.shape[0] if second and second.shape else 0
        wanted |= _factors_of(module, config, inputs, outputs)
    for target in config.target_modules:
        if not any(module.endswith(f".{target}") for module in modules):
            wanted |= _factors_of(f"(any layer).{target}", config, 0, 0)
    return wanted


def _factors_of(
    module: str, config: AdapterConfigFile, inputs: int, outputs: int
) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        f"{module}.lora_A.weight": (config.r, inputs),
        f"{module}.lora_B.weight": (outputs, config.r),
    }
    if config.use_dora:
        found[f"{module}.lora_magnitude_vector"] = (outputs,)
    return found


# --- whole models -------------------------------------------------------------------------------------------


def check_model(paths: Sequence[Path]) -> None:
    """Check the files of a whole model; raises ConfigurationError with file and tensor."""
    for path in paths:
        check_numbers(path, read_header(path))


def _some(names: Sequence[str]) -> str:
    return f"{names[0]}{f' and {len(names) - 1} more tensors' if len(names) > 1 else ''}"
