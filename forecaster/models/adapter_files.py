"""Whether an adapter's files fit each other, their base model and the record of their training.

Nothing is loaded into a model, and torch is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from forecaster.models.registry import ModelShape
from forecaster.models.tensor_files import WAY_OUT, Tensor, check_numbers, read_header
from forecaster.run_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from forecaster.schemas import Count, read_checked, refused

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


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
) -> list[str]:
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


def _some(names: Sequence[str]) -> str:
    return f"{names[0]}{f' and {len(names) - 1} more tensors' if len(names) > 1 else ''}"
