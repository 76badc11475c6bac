"""The loss on answers equals the one of a plain loop with full logits, and so do its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from forecaster.training import loss
from forecaster.training.loss import add_answer_loss, has_plain_head

VOCABULARY = 99
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def llama(tied: bool) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=tied))


def gemma() -> Any:
    """Its logits are squeezed behind the head."""
    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=8, final_logit_softcapping=3.0))


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """Three rows of 40 tokens; 20, 10 and 20 of them are the answer."""
    ids = torch.randint(0, VOCABULARY, (3, 40), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[:, :20] = -100
    labels[1, 30:] = -100
    return ids, labels


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("head_is_trained", [False, True])
@pytest.mark.parametrize("make", [lambda: llama(tied=False), lambda: llama(tied=True), gemma])
def test_loss_and_gradients_are_those_of_full_logits(
    make: Callable[[], Any], head_is_trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "LOSS_CHUNK_TOKENS", 7)  # 50 answer tokens are then eight chunks
    model, (ids, labels) = make(), rows()
    model.get_output_embeddings().weight.requires_grad_(head_is_trained)
    logits = model(input_ids=ids).logits[:, :-1].reshape(-1, VOCABULARY)
    plain = torch.nn.functional.cross_entropy(logits, labels[:, 1:].reshape(-1), reduction="sum") / 50
    plain.backward()
    expected = gradients(model)
    add_answer_loss(model)
    own = model(input_ids=ids, answer_labels=labels)
    (own.nll_sum / 50).backward()
    assert int(own.tokens) == 50
    assert own.nll_sum.item() / 50 == pytest.approx(plain.item(), abs=1e-6)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5)


def test_a_batch_without_an_answer_has_no_loss_and_gradients_of_zero() -> None:
    model = llama(tied=False)
    model.lm_head.weight.requires_grad_(False)
    add_answer_loss(model)
    own = model(input_ids=torch.zeros(1, 2, dtype=torch.long), answer_labels=torch.full((1, 2), -100))
    own.nll_sum.backward()
    assert (own.nll_sum.item(), int(own.tokens)) == (0.0, 0)
    assert not any(gradient.any() for gradient in gradients(model).values())


def test_a_call_without_answer_labels_gives_logits_as_before() -> None:
    model, (ids, _) = llama(tied=False), rows()
    before = model(input_ids=ids).logits
    add_answer_loss(model)
    assert torch.equal(model(input_ids=ids).logits, before)


def test_a_head_behind_which_more_happens_is_not_plain() -> None:
    assert has_plain_head(llama(tied=True))
    assert not has_plain_head(gemma())
