"""Bytes that a run needs, by hand for a toy shape and by the known limits of real ones."""

from __future__ import annotations

import pytest

from forecaster.modeling.memory import training_bytes, weight_bytes
from forecaster.modeling.registry import MODELS, ModelShape

GIB = 2**30
TINY = ModelShape(
    hidden_size=4, layers=2, heads=2, kv_heads=1, head_dim=2, intermediate_size=8, vocab_size=10
)
SHAPES = {model.alias: model.shape for model in MODELS}


def test_the_parts_of_a_toy_model_are_those_counted_by_hand() -> None:
    # One layer: q 16, k 8, v 8, o 16, gate 32, up 32, down 32. Embedding and head: 40 each. Norms: 5 x 4.
    assert TINY.linear_parameters == 2 * 144
    assert TINY.embedding_parameters == 80
    assert TINY.parameters == 388
    # Inputs plus outputs in one layer: q 8, k 6, v 6, o 8, gate 12, up 12, down 12.
    assert TINY.lora_parameters(2) == 2 * 2 * 64


def test_weights_are_two_bytes_each_or_half_a_byte_for_the_quantised_ones() -> None:
    assert weight_bytes(TINY, four_bit=False) == 776
    assert weight_bytes(TINY, four_bit=True) == 144 + 100_000_000 + 160


@pytest.mark.parametrize(
    ("four_bit", "checkpointing", "expected"),
    [
        # weights + 16 x 256 for the adapters + 100 tokens x (activations + logits) + 1 GB in reserve
        (False, True, 776 + 4096 + 100 * (16 + 224 + 20) + 1_000_000_000),
        (False, False, 776 + 4096 + 100 * (16 + 336 + 20) + 1_000_000_000),
        (True, True, 100_000_304 + 4096 + 26_000 + 1_000_000_000),
    ],
)
def test_a_training_step_of_a_toy_model_needs_the_bytes_counted_by_hand(
    four_bit: bool, checkpointing: bool, expected: int
) -> None:
    needed = training_bytes(TINY, lora_rank=2, tokens=100, four_bit=four_bit, checkpointing=checkpointing)
    assert needed == expected


@pytest.mark.parametrize("alias", SHAPES)
def test_four_bit_weights_are_smaller_than_sixteen_bit_ones(alias: str) -> None:
    assert weight_bytes(SHAPES[alias], four_bit=True) < weight_bytes(SHAPES[alias], four_bit=False)


@pytest.mark.parametrize("alias", SHAPES)
def test_more_tokens_a_higher_rank_and_kept_activations_cost_memory(alias: str) -> None:
    needed = training_bytes(SHAPES[alias], lora_rank=8, tokens=2048)
    assert needed < training_bytes(SHAPES[alias], lora_rank=8, tokens=4096)
    assert needed < training_bytes(SHAPES[alias], lora_rank=16, tokens=2048)
    assert needed < training_bytes(SHAPES[alias], lora_rank=8, tokens=2048, checkpointing=False)


def test_an_8b_at_2048_tokens_fits_15_gib_in_four_bit_only() -> None:
    shape = SHAPES["llama3.1-8b"]
    assert training_bytes(shape, lora_rank=8, tokens=2048, four_bit=True) < 15 * GIB
    assert training_bytes(shape, lora_rank=8, tokens=2048) > 15 * GIB


def test_an_8b_at_4096_tokens_fits_an_a100_of_40_gib_unquantised() -> None:
    assert training_bytes(SHAPES["llama3.1-8b"], lora_rank=8, tokens=4096) < 40 * GIB
