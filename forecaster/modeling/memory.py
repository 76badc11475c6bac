"""How many bytes a LoRA run needs on one GPU. Pure arithmetic on the model's shape."""

from __future__ import annotations

from forecaster.modeling.registry import ModelShape

RESERVE_BYTES = 1_000_000_000
"""CUDA context, allocator slack and communication buffers."""
USABLE_SHARE = 0.94
"""Share of a GPU's memory that the sum below may reach: drivers and fragmentation take the rest."""


def weight_bytes(shape: ModelShape, four_bit: bool) -> int:
    """Base weights: two bytes each, or half a byte (plus 0.1 GB of scales) for the quantised projections."""
    if four_bit:
        return shape.linear_parameters // 2 + 100_000_000 + 2 * shape.embedding_parameters
    return 2 * shape.parameters


def cache_bytes_per_token(shape: ModelShape) -> int:
    """Keys and values of one token in all layers, two bytes each."""
    return 2 * 2 * shape.layers * shape.kv_heads * shape.head_dim


def generation_batch_size(
    shape: ModelShape, four_bit: bool, tokens: int, gpu_bytes: int, largest: int
) -> int:
    """Prompts of up to `tokens` tokens, answer included, whose caches fit beside the weights; at least 1."""
    free = USABLE_SHARE * gpu_bytes - weight_bytes(shape, four_bit) - RESERVE_BYTES
    return max(1, min(largest, int(free // (tokens * cache_bytes_per_token(shape)))))


def training_bytes(
    shape: ModelShape,
    *,
    lora_rank: int,
    tokens: int,
    four_bit: bool = False,
    checkpointing: bool = True,
    answer_share: float = 0.2,
) -> int:
    """Peak bytes of one LoRA training step of `tokens` tokens (micro batch x length) on one GPU without
    partitioning.

    Adapters cost 16 bytes a parameter (weights, gradients, fp32 copy and two Adam moments). Activations
    follow Korthikanti et al. 2022 for a Llama layer with fused attention: the layer inputs (2 bytes x hidden)
    stay in any case; a layer's inner values and their gradients are held for one layer with checkpointing,
    for all without. Logits (about 10 bytes a vocabulary entry) are built for answer tokens only.
    """
    inner = 2 * (8 * shape.hidden_size + 3 * shape.intermediate_size)
    per_token = 2 * shape.layers * shape.hidden_size + inner * (2 if checkpointing else shape.layers + 1)
    per_token += round(10 * shape.vocab_size * answer_share)
    return (
        weight_bytes(shape, four_bit)
        + 16 * shape.lora_parameters(lora_rank)
        + tokens * per_token
        + RESERVE_BYTES
    )
