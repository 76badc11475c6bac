"""Which attention kernels a training run uses, and whether its batches need padding. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forecaster.fit.gpus import Gpu
from forecaster.models.numerics import AttentionName, Precision

FLASH_CAPABILITY = (8, 0)
"""FlashAttention 2 has no kernels for older GPUs (its README), nor has torch's own of that kind."""
CUDNN_CAPABILITIES = ((9, 0), (10, 0))
"""Where torch's SDPA takes cuDNN's attention before its own (`check_prefer_cudnn_attention` in its
sdp_utils.cpp): Hopper and Blackwell."""
LENGTH_MULTIPLE = 128


@dataclass(frozen=True)
class Attention:
    """transformers' name of the kernels, and why they were taken."""

    implementation: AttentionName
    reason: str

    @property
    def padding_free(self) -> bool:
        """Whether the rows of a batch are laid end to end. SDPA would need a mask of tokens x tokens for
        that, to keep them apart."""
        return self.implementation == "flash_attention_2"


def choose_attention(gpus: Sequence[Gpu], precision: Precision, flash_installed: bool) -> Attention:
    """FlashAttention 2 where it is installed and can run; else SDPA, which torch brings along."""
    too_old = next((gpu for gpu in gpus if gpu.compute_capability < FLASH_CAPABILITY), None)
    if not gpus:
        why_not = "there is no GPU"
    elif too_old is not None:
        why_not = f"{too_old.name} is too old for FlashAttention 2"
    elif precision == "fp32":
        why_not = "FlashAttention 2 computes in 16 bit only"
    elif not flash_installed:
        why_not = "flash_attn is not installed"
    else:
        return Attention("flash_attention_2", "FlashAttention 2, batches without padding")
    oldest = min((gpu.compute_capability for gpu in gpus), default=None)
    return Attention(sdpa_for(oldest, precision), f"SDPA attention, because {why_not}")


def sdpa_for(compute_capability: tuple[int, int] | None, precision: Precision) -> AttentionName:
    """The kind of SDPA that has a fused kernel, which keeps no scores of every token to every other one.

    Torch's flash kernel knows shared heads, needs 16 bit and a GPU of 8.0; its memory-efficient one, all that
    older GPUs and fp32 have, does not know them (transformers#48633). None: the CPU, whose kernel knows them.
    """
    has_flash = compute_capability is None or (compute_capability >= FLASH_CAPABILITY and precision != "fp32")
    return "sdpa" if has_flash else "sdpa_repeated"


def length_multiple(gpus: Sequence[Gpu], precision: Precision) -> int:
    """Tokens to a multiple of which batches are padded.

    cuDNN builds a plan for each new shape, 0.1 s in training on an H100 (docs/gpus.md): with 128 a run meets
    few shapes, for 64 tokens of padding a row on average. Other kernels take any length at once.
    """
    takes_cudnn = any(gpu.compute_capability in CUDNN_CAPABILITIES for gpu in gpus)
    return LENGTH_MULTIPLE if takes_cudnn and precision != "fp32" else 1
