"""Loading a base model, making it trainable, and checking what a training saved."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError, safe_open
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from forecaster.errors import AdapterNotTrainedError, ConfigurationError
from forecaster.modeling.attention import AttentionName
from forecaster.modeling.hardware import Precision, Quantization
from forecaster.modeling.registry import cannot_load
from forecaster.modeling.run import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MODEL_CONFIG, MODEL_WEIGHTS
from forecaster.modeling.tuner import Tuner

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def repeated_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *args: Any,
    **kw: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' SDPA attention of a module whose key and value heads are no longer shared.

    Shapes: query (batch, heads, tokens, size), key and value (batch, key-value heads, tokens, size); returns
    (batch, tokens, heads, size).
    """
    groups = getattr(module, "num_key_value_groups", 1)
    without_groups: Any = SimpleNamespace(is_causal=getattr(module, "is_causal", True))
    return sdpa_attention_forward(
        without_groups, query, repeat_kv(key, groups), repeat_kv(value, groups), *args, **kw
    )


AttentionInterface.register("sdpa_repeated", repeated_sdpa)
AttentionMaskInterface.register("sdpa_repeated", sdpa_mask)


def load_base(
    location: str,
    precision: Precision,
    quantization: Quantization = "none",
    trust_remote_code: bool = False,
    device_map: dict[str, int] | str | None = None,
    attention: AttentionName = "sdpa",
) -> PreTrainedModel:
    """Load base weights in the precision of the run, or in 4 bit (NF4, double quantisation) computing in it.

    The default attention is SDPA: it has kernels on every GPU and, unlike eager attention, does not overflow
    in fp16 on Qwen2.5.
    """
    four_bit = None
    if quantization == "4bit":
        four_bit = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[precision],
        )
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            location,
            dtype=DTYPES[precision],
            quantization_config=four_bit,
            trust_remote_code=trust_remote_code,
            attn_implementation=attention,
            device_map=device_map,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, SafetensorError, RuntimeError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError([cannot_load(location, error)]) from error
    if missing := sorted(loaded["missing_keys"]):
        # transformers would start these at random, and only print a table.
        found = ValueError(f"it lacks {len(missing)} tensors, such as {missing[0]}")
        raise ConfigurationError([cannot_load(location, found)])
    return model


def attach(
    model: PreTrainedModel,
    tuner: Tuner,
    *,
    rank: int,
    alpha: int,
    dropout: float,
    target_modules: Sequence[str],
    gradient_checkpointing: bool = False,
) -> PreTrainedModel | PeftModel:
    """Make a model trainable: all of it, or factors on every linear layer of `target_modules` over a frozen
    base.

    qlora is lora here: what differs is how the base was loaded. The arguments of LoRA mean nothing to `full`.
    """
    model.config.use_cache = False
    if tuner == "full":
        return model.requires_grad_(True)
    if gradient_checkpointing:
        # Without this, no input of a checkpointed layer needs a gradient, and the adapters inside get none.
        model.enable_input_require_grads()
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(target_modules),
        bias="none",
        use_dora=tuner == "dora",
        use_rslora=tuner == "rslora",
    )
    # PEFT makes 16-bit factors fp32. DeepSpeed casts them back and keeps fp32 copies, but not under ZeRO-3:
    # their fp32 would be taken for the precision of the run, and fp16 left without loss scaling.
    return get_peft_model(model, config, autocast_adapter_dtype=not is_deepspeed_zero3_enabled())


def count_parameters(model: PreTrainedModel | PeftModel) -> tuple[int, int]:
    """Trainable parameters, and all; weights that ZeRO-3 has divided, or that are in 4 bit, count whole."""
    if isinstance(model, PeftModel):
        return model.get_nb_trainable_parameters()
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def sort_adapter_config(folder: Path) -> None:
    """Rewrite adapter_config.json in sorted order: PEFT writes `target_modules` in the order of a set.

    A fully fine-tuned model has none.
    """
    path = folder / ADAPTER_CONFIG
    if not path.exists():
        return
    config = json.loads(path.read_text())
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def check_trained(folder: Path) -> int:
    """Check that a saved adapter has no empty tensor, no non-finite one, and LoRA-B factors that moved from
    zero.

    Returns:
        The number of tensors.

    Raises:
        AdapterNotTrainedError: naming the first bad tensor.
    """
    path = folder / ADAPTER_WEIGHTS
    if not path.exists():
        raise AdapterNotTrainedError(str(folder), ADAPTER_WEIGHTS, "is missing")
    names, any_b_moved = 0, False
    for name, tensor in _sound_tensors([path]):
        names += 1
        any_b_moved = any_b_moved or ("lora_B" in name and bool(tensor.any()))
    if not names:
        raise AdapterNotTrainedError(str(folder), ADAPTER_WEIGHTS, "holds no tensors")
    if not any_b_moved:
        raise AdapterNotTrainedError(str(folder), "every LoRA-B factor", "is still zero, as before training")
    return names


def check_fully_trained(folder: Path, base: str) -> int:
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
    for name, tensor in _sound_tensors(_weight_files(str(folder))):
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


def _sound_tensors(paths: Sequence[Path]) -> Iterator[tuple[str, torch.Tensor]]:
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
