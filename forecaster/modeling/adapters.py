"""Loading a base model and attaching LoRA to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from forecaster.errors import AdapterNotTrainedError, ConfigurationError
from forecaster.modeling.hardware import Precision, Quantization
from forecaster.modeling.registry import cannot_load
from forecaster.modeling.run import ADAPTER_CONFIG, ADAPTER_WEIGHTS

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_base(
    location: str,
    precision: Precision,
    quantization: Quantization = "none",
    trust_remote_code: bool = False,
    device_map: dict[str, int] | str | None = None,
    attention: Literal["sdpa", "flash_attention_2"] = "sdpa",
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


def attach_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: int,
    dropout: float,
    target_modules: Sequence[str],
    gradient_checkpointing: bool = False,
) -> PeftModel:
    """Freeze the base and put trainable LoRA factors on every linear layer named in `target_modules`."""
    if gradient_checkpointing:
        # Without this, no input of a checkpointed layer needs a gradient, and the adapters inside get none.
        model.enable_input_require_grads()
    model.config.use_cache = False
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(target_modules),
        bias="none",
    )
    return get_peft_model(model, config)


def sort_adapter_config(folder: Path) -> None:
    """Rewrite adapter_config.json in sorted order: PEFT writes `target_modules` in the order of a set."""
    path = folder / ADAPTER_CONFIG
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
    all_b_zero = True
    with safe_open(path, framework="pt") as tensors:
        names = list(tensors.keys())
        for name in names:
            tensor = tensors.get_tensor(name)
            if tensor.numel() == 0:
                raise AdapterNotTrainedError(str(folder), name, "is empty")
            if not torch.isfinite(tensor).all():
                raise AdapterNotTrainedError(str(folder), name, "holds NaN or infinite values")
            if "lora_B" in name and tensor.any():
                all_b_zero = False
    if not names:
        raise AdapterNotTrainedError(str(folder), ADAPTER_WEIGHTS, "holds no tensors")
    if all_b_zero:
        raise AdapterNotTrainedError(str(folder), "every LoRA-B factor", "is still zero, as before training")
    return len(names)
