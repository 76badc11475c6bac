"""Loss on answers: logits of answer tokens only, a chunk of them at a time."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import maybe_gather_lm_head_ctx

from forecaster.fit.memory import LOSS_CHUNK_TOKENS
from forecaster.training.tokenising import IGNORED

_CHANGED_LOGITS = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
)
"""What some architectures (Gemma 2, Cohere, Granite) do to the logits behind the head."""


class AnswerLoss(NamedTuple):
    """Sum of the negative log-likelihoods of a batch's answer tokens, and their count; both scalars."""

    nll_sum: torch.Tensor
    tokens: torch.Tensor


def has_plain_head(model: PreTrainedModel) -> bool:
    """Whether the model's logits are one unquantised linear layer of its last hidden states.

    They are in Llama, Qwen2 and Mistral.
    """
    head = model.get_output_embeddings()
    config = model.config.get_text_config()
    return (
        isinstance(head, torch.nn.Linear)
        and head.weight.is_floating_point()
        and getattr(config, "router_aux_loss_coef", None) is None
        and all(getattr(config, name, None) is None for name in _CHANGED_LOGITS)
    )


def add_answer_loss(model: PreTrainedModel) -> None:
    """Make `model(..., answer_labels=labels)` return an `AnswerLoss`; other calls stay as they were.

    It has to be a forward of the model: PEFT, ZeRO-3 and checkpointing hook into that. Call it before the
    model is wrapped by DeepSpeed. A model whose head is not plain computes all its logits itself.
    """
    former = model.forward
    plain = has_plain_head(model)

    # `generate` checks its arguments against the signature.
    @functools.wraps(former)
    def forward(*args: Any, answer_labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if answer_labels is None:
            return former(*args, **kwargs)
        kwargs["use_cache"] = False
        next_ids = answer_labels[:, 1:]
        # Found once, and before the layers are queued: this waits for a GPU.
        rows, columns = (next_ids != IGNORED).nonzero(as_tuple=True)
        targets = next_ids[rows, columns]
        if plain:
            hidden = model.base_model(*args, **kwargs).last_hidden_state[rows, columns]
            head = model.get_output_embeddings()
            # ZeRO-3 gathers the head for a call of the layer, which this is not.
            with maybe_gather_lm_head_ctx(head.weight, head.bias):
                nll = TokenLosses.apply(hidden, head.weight, head.bias, targets)  # type: ignore[no-untyped-call]
            nll_sum = nll.sum()
        else:
            logits = former(*args, **kwargs).logits[rows, columns]
            nll_sum = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
        return AnswerLoss(nll_sum, torch.tensor(len(targets), device=targets.device))

    model.forward = forward


class TokenLosses(torch.autograd.Function):
    """Negative log-likelihood of each target under `hidden @ weight.T + bias`, in fp32.

    Logits live for one chunk of tokens only. A token's loss depends on its own hidden state alone, so the
    gradient of the latter is computed while the logits are there and scaled in the backward pass: two matrix
    products with the head in all. Only a head that is trained itself (full fine-tuning) needs the logits once
    more.

    Shapes: hidden (tokens, hidden size), weight (vocabulary, hidden size), bias (vocabulary) or None, targets
    (tokens); returns (tokens).
    """

    # As in the forward pass under autocast, so in the backward pass, which runs outside of it.
    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        ctx.head_is_trained = any(ctx.needs_input_grad[1:3])
        nll = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] and not ctx.head_is_trained else None
        for start in range(0, len(targets), LOSS_CHUNK_TOKENS):
            part = slice(start, start + LOSS_CHUNK_TOKENS)
            residual, nll[part] = _probabilities(hidden[part], weight, bias, targets[part])
            if gradient is not None:
                residual.scatter_add_(1, targets[part, None], residual.new_full((len(residual), 1), -1))
                gradient[part] = residual.to(weight.dtype) @ weight
        if ctx.head_is_trained:
            ctx.save_for_backward(hidden, weight, bias, targets)
        else:
            ctx.save_for_backward(gradient)
        return nll

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *outputs: torch.Tensor) -> Any:
        (scale,) = outputs
        if not ctx.head_is_trained:
            (gradient,) = ctx.saved_tensors
            # The scale stays fp32: rounded, it would be off for all tokens alike, or infinite in fp16.
            return (gradient * scale[:, None]).to(gradient.dtype), None, None, None
        hidden, weight, bias, targets = ctx.saved_tensors
        with maybe_gather_lm_head_ctx(weight, bias):
            gradient = torch.empty_like(hidden)
            of_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
            of_bias = None if bias is None else torch.zeros_like(bias, dtype=torch.float32)
            for start in range(0, len(targets), LOSS_CHUNK_TOKENS):
                part = slice(start, start + LOSS_CHUNK_TOKENS)
                residual, _ = _probabilities(hidden[part], weight, bias, targets[part])
                residual.scatter_add_(1, targets[part, None], residual.new_full((len(residual), 1), -1))
                residual *= scale[part, None]
                gradient[part] = residual.to(weight.dtype) @ weight
                of_weight += residual.to(weight.dtype).T @ hidden[part].to(weight.dtype)
                if of_bias is not None:
                    of_bias += residual.sum(0)
        return gradient, of_weight.to(weight.dtype), None if of_bias is None else of_bias.to(bias.dtype), None


def _probabilities(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (tokens, vocabulary) in fp32, in the logits' memory, and the losses of `targets`."""
    logits = torch.nn.functional.linear(hidden.to(weight.dtype), weight, bias).float()
    logits -= logits.amax(1, keepdim=True)
    at_targets = logits.gather(1, targets[:, None])
    total = logits.exp_().sum(1, keepdim=True)
    logits /= total
    return logits, (total.log() - at_targets).squeeze(1)
