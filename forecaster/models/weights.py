"""Weights in memory and on disk: counted, put in order, and checked after a training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from peft import PeftModel
from safetensors import safe_open
from transformers import PreTrainedModel

from forecaster.errors import AdapterNotTrainedError
from forecaster.files import write_whole
from forecaster.run_folder import ADAPTER_CONFIG, MODEL_CONFIG, MODEL_WEIGHTS


def count_parameters(model: PreTrainedModel | PeftModel) -> tuple[int, int]:
    """Trainable parameters, and all; weights that ZeRO-3 has divided, or that are in 4 bit, count whole."""
    if isinstance(model, PeftModel):
        return model.get_nb_trainable_parameters()
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def trainable_share(model: PreTrainedModel | PeftModel) -> str:
    """`count_parameters` as a sentence."""
    trainable, total = count_parameters(model)
    return f"Trainable: {trainable:,} of {total:,} parameters ({trainable / total:.2%})."


def sort_adapter_config(folder: Path) -> None:
    """Rewrite adapter_config.json in sorted order: PEFT writes `target_modules` in the order of a set.

    A whole model has none.
    """
    path = folder / ADAPTER_CONFIG
    if not path.exists():
        return
    config = json.loads(path.read_text())
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    write_whole(path, json.dumps(config, indent=2, sort_keys=True) + "\n")


def check_changed(folder: Path, base: str) -> int:
    """Check that a saved model has no empty tensor, no non-finite one, and other weights than its base.

    Args:
        base: folder or hub id. Where it has no safetensors files there is nothing to compare with.

    Returns:
        The number of tensors.

    Raises:
        AdapterNotTrainedError: naming the first bad tensor.
    """
    base_of: dict[str, Path] = {}
    for path in _weight_files(base):
        with safe_open(path, framework="pt") as tensors:
            base_of |= dict.fromkeys(tensors.keys(), path)
    names, any_moved = 0, not base_of
    for name, tensor in sound_tensors(_weight_files(str(folder))):
        names += 1
        if not any_moved and name in base_of:
            with safe_open(base_of[name], framework="pt") as tensors:
                any_moved = not torch.equal(tensor, tensors.get_tensor(name).to(tensor.dtype))
    if not names:
        raise AdapterNotTrainedError(str(folder), MODEL_WEIGHTS, "is missing")
    if not any_moved:
        raise AdapterNotTrainedError(str(folder), "every weight", f"is still that of {base}")
    return names


def _weight_files(location: str) -> list[Path]:
    """The safetensors files of a folder, or of a hub model in the cache."""
    cached = None if Path(location).is_dir() else try_to_load_from_cache(location, MODEL_CONFIG)
    folder = Path(cached).parent if isinstance(cached, str) else Path(location)
    return sorted(folder.glob("model*.safetensors"))


def sound_tensors(paths: Sequence[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor with its name; raises AdapterNotTrainedError at one that is empty or not finite."""
    for path in paths:
        with safe_open(path, framework="pt") as tensors:
            names = list(tensors.keys())
            for name in names:
                tensor = tensors.get_tensor(name)
                if tensor.numel() == 0:
                    raise AdapterNotTrainedError(str(path.parent), name, "is empty")
                if not torch.isfinite(tensor).all():
                    raise AdapterNotTrainedError(str(path.parent), name, "holds NaN or infinite values")
                yield name, tensor
