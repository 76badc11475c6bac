"""Loading a base model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from forecaster.errors import ConfigurationError, Problem
from forecaster.models.numerics import AttentionName, Precision, Quantization
from forecaster.models.registry import cannot_load
from forecaster.models.tensor_files import read_header

if TYPE_CHECKING:
    from peft import PeftModel

_LOADING_FAULTS = (
    *(OSError, SafetensorError, RuntimeError, ValueError, LookupError, TypeError),
    *(AssertionError, ImportError),
)
"""What files raise that do not fit each other or this software; torch asserts what a padding id may be."""
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
        config = AutoConfig.from_pretrained(location, trust_remote_code=trust_remote_code)
        # A config.json may name code of a hub here, which transformers would take over the argument below.
        config._attn_implementation = attention
        model, loaded = AutoModelForCausalLM.from_pretrained(
            location,
            config=config,
            dtype=DTYPES[precision],
            quantization_config=four_bit,
            trust_remote_code=trust_remote_code,
            attn_implementation=attention,
            device_map=device_map,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError:
        raise
    except _LOADING_FAULTS as error:
        raise ConfigurationError([cannot_load(location, str(error))]) from error
    if missing := sorted(loaded["missing_keys"]):
        # transformers would start these at random, and only print a table.
        found = f"it lacks {len(missing)} tensors, such as {missing[0]}"
        raise ConfigurationError([cannot_load(location, found)])
    _check_numbers(model, location)
    return model


def load_factors(model: PreTrainedModel | PeftModel, weights: Path) -> None:
    """Put an adapter's saved factors, which were checked to be all of them, in the place of the new ones."""
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, load_file(weights))


_AT_ONCE = 2**24


def _check_numbers(model: PreTrainedModel, location: str) -> None:
    """Raises ConfigurationError for the first tensor with NaN or infinities, which make every loss NaN.

    Reading a file for it beforehand would take as long as loading it. Under ZeRO-3 a rank has parts alone,
    and a training then tells with its first step.
    """
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)  # of 4-bit weights: the mean of the blocks' scales
        tensor = parameter if state is None else state.offset
        if tensor is None or not tensor.is_floating_point():
            continue
        if not all(torch.isfinite(part).all() for part in tensor.detach().flatten().split(_AT_ONCE)):
            file, found = _file_of(name, location), f"{name} holds NaN or infinite values."
            raise ConfigurationError([Problem(file, found, "Take a whole copy, or name another model.")])


def _file_of(name: str, location: str) -> str:
    """The file of a tensor, where it can be told."""
    for path in sorted(Path(location).glob("model*.safetensors")):
        if name in read_header(path):
            return str(path)
    return location
