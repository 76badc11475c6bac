"""Batched greedy answers from a real tiny model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_tokenizers
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from forecaster.answering.hf_engine import Generated, Prompt, generate, plan_batches, render_prompt
from forecaster.fit.memory import cache_bytes_per_token, generation_batch_size
from forecaster.models.registry import MODELS
from forecaster.models.templates import prepare_tokenizer
from forecaster.records import Messages
from forecaster.tasks.weekly import WEEKLY
from prompts import render_published


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizers.llama2()
    prepare_tokenizer(tokenizer)
    tokenizer.padding_side = "left"
    return tokenizer


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=23, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    return LlamaForCausalLM(config).eval()


PROMPTS = [Prompt(f"r#{i}", (1, *range(3, 4 + 2 * i)), 0) for i in range(5)]


def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    batch_size: int,
    warn: Callable[[str], None] = pytest.fail,
) -> dict[str, Generated]:
    batches = generate(model, tokenizer, plan_batches(prompts, batch_size), max_new_tokens=6, warn=warn)
    return {generated.row_id: generated for batch in batches for generated in batch.answers}


def test_batches_answer_as_one_by_one_does(model: Any, tokenizer: Any) -> None:
    alone = answers(model, tokenizer, PROMPTS, 1)
    together = answers(model, tokenizer, PROMPTS, 4)
    assert alone.keys() == together.keys() == {prompt.row_id for prompt in PROMPTS}
    assert {key: g.text for key, g in alone.items()} == {key: g.text for key, g in together.items()}


def test_a_repetition_penalty_that_a_model_brings_along_changes_nothing(model: Any, tokenizer: Any) -> None:
    plain = {key: g.text for key, g in answers(model, tokenizer, PROMPTS, 2).items()}
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.do_sample = True
    assert {key: g.text for key, g in answers(model, tokenizer, PROMPTS, 2).items()} == plain


def test_an_answer_ends_before_its_end_token(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buy_it(input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        # "buy it </s>", then padding as other rows of a batch would need it
        return SimpleNamespace(sequences=torch.cat([input_ids, torch.tensor([[11, 13, 12, 2, 0, 0]])], dim=1))

    monkeypatch.setattr(model, "generate", buy_it)
    generated = answers(model, tokenizer, PROMPTS[:1], 1)["r#0"]
    assert generated.text.split() == ["buy", "it"]
    assert generated.new_tokens == 4


def test_running_out_of_memory_halves_the_batch_and_loses_nothing(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {key: g.text for key, g in answers(model, tokenizer, PROMPTS, 1).items()}
    whole, sizes, told = model.generate, [], list[str]()

    def generate_with_room_for_one(input_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        sizes.append(len(input_ids))
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError
        return whole(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "generate", generate_with_room_for_one)
    assert {key: g.text for key, g in answers(model, tokenizer, PROMPTS, 4, told.append).items()} == expected
    assert sizes == [4, 2, 1, 1, 1, 1, 1]
    assert told == [f"Out of GPU memory: going on with {most} prompts at a time." for most in (2, 1)]


def test_batches_hold_prompts_of_similar_length_longest_first_whatever_their_order() -> None:
    batches = plan_batches(PROMPTS, 2)
    assert [[prompt.row_id for prompt in batch] for batch in batches] == [
        ["r#4", "r#3"],
        ["r#2", "r#1"],
        ["r#0"],
    ]
    assert plan_batches([Prompt("long", None, 0)], 2) == []


def test_a_prompt_that_cannot_fit_is_not_generated(tokenizer: Any, model: Any) -> None:
    text = render_published(Messages("be brief", "AAPL?"))
    assert render_prompt(tokenizer, "r#9", text, limit=5, task=WEEKLY) == Prompt("r#9", None, 0)
    fitting = render_prompt(tokenizer, "r#9", text, limit=29, task=WEEKLY)
    assert fitting.token_ids is not None
    assert len(fitting.token_ids) == 29
    assert answers(model, tokenizer, [Prompt("r#9", None, 0), PROMPTS[0]], 2).keys() == {"r#0"}


def test_the_generation_batch_is_what_the_cache_leaves_room_for() -> None:
    shapes = {model.alias: model.shape for model in MODELS}
    # Llama-3.1-8B: 32 layers x 8 heads x 128 x (key, value) x 2 bytes; Llama-2-13B: 40 x 40 x 128 x 4.
    assert cache_bytes_per_token(shapes["llama3.1-8b"]) == 131_072
    assert cache_bytes_per_token(shapes["llama2-13b"]) == 819_200
    a100 = 40 * 2**30
    assert generation_batch_size(shapes["llama3.1-8b"], False, 4096, a100, 16) == 16
    # (0.94 x 42.95e9 - 26.03e9 - 1e9) / (4096 x 819,200)
    assert generation_batch_size(shapes["llama2-13b"], False, 4096, a100, 16) == 3
    assert generation_batch_size(shapes["llama2-13b"], False, 4096, 16 * 2**30, 16) == 1


def test_cudnns_attention_is_off_while_answers_are_made(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It builds a plan for each new shape, and every step of decoding is one."""
    seen = []
    former = model.forward

    @functools.wraps(former)
    def forward(*args: Any, **kwargs: Any) -> Any:
        cuda = torch.backends.cuda
        seen.append((cuda.cudnn_sdp_enabled(), cuda.flash_sdp_enabled(), cuda.math_sdp_enabled()))
        return former(*args, **kwargs)

    monkeypatch.setattr(model, "forward", forward)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    answers(model, tokenizer, PROMPTS[:1], 1)
    assert set(seen) == {(False, True, True)}
    assert torch.backends.cuda.cudnn_sdp_enabled() == before
