"""Liger's fused kernels (`--liger`): norms, the gated MLP and rotary positions in one kernel each."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from forecaster.errors import ConfigurationError, Problem
from forecaster.models.registry import BaseModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL_TYPES = ("llama", "qwen2", "mistral")
"""Those that models of this project have; Liger knows more."""


def find_problems(model: BaseModel, has_gpu: bool) -> list[Problem]:
    """What can be known before loading."""
    if not has_gpu:
        return [Problem("--liger", "needs a GPU; there is none.", "Leave --liger out.")]
    if any(importlib.util.find_spec(name) is None for name in ("liger_kernel", "triton")):
        way_out = "Run `pip install -r requirements-gpu.txt`, or leave --liger out."
        return [Problem("--liger", "needs liger-kernel, which is not installed.", way_out)]
    if model.is_local and model.shape is None:
        return [_unknown(model.location)]
    return []


def check_type(location: str, trust_remote_code: bool) -> None:
    """Raises ConfigurationError for a model that these kernels are not known to fit, from its configuration
    alone."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(location, trust_remote_code=trust_remote_code)
    if config.model_type not in MODEL_TYPES:
        raise ConfigurationError([_unknown(location)])


def use_kernels(model: PreTrainedModel) -> None:
    """Put the kernels into a loaded model, before an adapter is attached. The loss stays this project's."""
    from liger_kernel.transformers import monkey_patch

    apply = {
        "llama": monkey_patch.apply_liger_kernel_to_llama,
        "qwen2": monkey_patch.apply_liger_kernel_to_qwen2,
        "mistral": monkey_patch.apply_liger_kernel_to_mistral,
    }[model.config.model_type]
    apply(
        rope=True,
        rms_norm=True,
        swiglu=True,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
        model=model,
    )


def _unknown(location: str) -> Problem:
    found = f"{location} is no {', '.join(MODEL_TYPES[:-1])} or {MODEL_TYPES[-1]} model."
    return Problem("--liger", found, "Leave --liger out.")
