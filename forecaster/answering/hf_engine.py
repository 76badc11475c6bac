"""Prompts to answers: batched greedy generation with the Hugging Face engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from forecaster.answering.choice_likelihoods import (
    ChoiceTree,
    choice_log_likelihoods,
    choice_tree,
    find_place,
)
from forecaster.fit.attention import sdpa_for
from forecaster.fit.memory import RESERVE_BYTES, USABLE_SHARE, generation_batch_size, weight_bytes
from forecaster.models.loading import load_base
from forecaster.models.numerics import Precision, Quantization
from forecaster.models.registry import BaseModel
from forecaster.models.templates import end_token_ids, prompt_ids
from forecaster.tasks.base import Choices, Task
from forecaster.tasks.trimming import fit
from prompts import split_published

WITHOUT_CUDNN = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""cuDNN's attention builds a plan for each new shape, and every step of decoding is one: 42 to 67 ms on an
H100 (docs/gpus.md)."""


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt, ready for the model."""

    row_id: str
    token_ids: tuple[int, ...] | None
    """None: too long even without news."""
    news_dropped: int


@dataclass(frozen=True)
class Generated:
    row_id: str
    text: str
    new_tokens: int
    label_log_likelihoods: Mapping[str, float] | None = None
    """Of the task's choices by label, given the answer up to their place; None where it has no such
    place."""


@dataclass(frozen=True)
class GeneratedBatch:
    answers: tuple[Generated, ...]
    seconds: float


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, row_id: str, prompt: str, limit: int, task: Task
) -> Prompt:
    """A row's prompt (in the published form) with at most `limit` tokens, losing what its task can spare, as
    in training."""
    fitted = fit(task, split_published(prompt), limit, lambda messages: len(prompt_ids(tokenizer, messages)))
    if fitted is None:
        return Prompt(row_id, None, 0)
    return Prompt(row_id, tuple(prompt_ids(tokenizer, fitted.messages)), fitted.news_dropped)


def load_for_generation(
    base: BaseModel,
    precision: Precision,
    quantization: Quantization,
    trust_remote_code: bool,
    gpu: int | None = None,
) -> PreTrainedModel:
    """Base model on one GPU, over all visible ones when it does not fit there, or on the CPU.

    Args:
        gpu: the GPU of this rank, where several ranks share the rows; None takes the first, or all.
    """
    device_map: dict[str, int] | str | None = None
    if torch.cuda.is_available():
        weights = weight_bytes(base.shape, quantization == "4bit") if base.shape else 0
        memory = torch.cuda.get_device_properties(gpu or 0).total_memory
        on_one = gpu is not None or weights + RESERVE_BYTES < USABLE_SHARE * memory
        device_map = {"": gpu or 0} if on_one else "auto"
    chosen = precision if torch.cuda.is_available() else "fp32"
    attention = sdpa_for(torch.cuda.get_device_capability() if torch.cuda.is_available() else None, chosen)
    return load_base(base.location, chosen, quantization, trust_remote_code, device_map, attention).eval()


def largest_batch_size(
    base: BaseModel, quantization: Quantization, tokens: int, ranks: int = 1, largest: int = 16
) -> int:
    """Prompts to generate together: `largest`, or on a GPU what fits beside the weights."""
    if not torch.cuda.is_available() or base.shape is None:
        return largest
    count = torch.cuda.device_count() if ranks == 1 else 1
    total = sum(torch.cuda.get_device_properties(i).total_memory for i in range(count))
    return generation_batch_size(base.shape, quantization == "4bit", tokens, total, largest)


def with_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """The fine-tuned model: LoRA merged into 16- or 32-bit weights, kept beside 4-bit ones."""
    tuned = PeftModel.from_pretrained(model, str(adapter))
    if not getattr(model, "is_loaded_in_4bit", False):
        return tuned.merge_and_unload()
    return tuned.eval()


def plan_batches(prompts: Sequence[Prompt], batch_size: int) -> list[list[Prompt]]:
    """Batches of prompts of similar length, longest first: what does not fit the memory shows at once.

    They depend on the prompts alone, so that a run that goes on forms the same ones. Prompts without tokens
    are in none.
    """
    ready = sorted((p for p in prompts if p.token_ids is not None), key=lambda p: -len(p.token_ids or ()))
    return [ready[at : at + batch_size] for at in range(0, len(ready), batch_size)]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batches: Sequence[Sequence[Prompt]],
    *,
    max_new_tokens: int,
    warn: Callable[[str], None],
    choices: Choices | None = None,
) -> Iterator[GeneratedBatch]:
    """Greedy answers batch by batch, and how likely each of the choices was; a batch that runs out of GPU
    memory is cut into halves, and so are those after it, which `warn` is told."""
    ends = end_token_ids(tokenizer)
    tree = choice_tree(tokenizer, choices) if choices else None
    # Instead of the model's own settings, not beside them: Qwen2.5 brings a repetition penalty, which would
    # act on every word of the prompt.
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        # A cache that grows is copied at every step: on a CPU a third of the time of a batch of 8.
        cache_implementation="static" if model.device.type == "cpu" else None,
        disable_compile=True,
    )
    waiting = [list(batch) for batch in batches if batch]
    most = max(map(len, waiting), default=1)
    while waiting:
        batch = waiting.pop(0)
        if len(batch) > most:
            waiting.insert(0, batch[most:])
            batch = batch[:most]
        began = time.perf_counter()
        try:
            answers = _answer(model, tokenizer, batch, ends, tree)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            most = (len(batch) + 1) // 2
            torch.cuda.empty_cache()
            warn(f"Out of GPU memory: going on with {most} prompts at a time.")
            waiting.insert(0, batch)
            continue
        yield GeneratedBatch(answers, time.perf_counter() - began)


def _answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Prompt],
    ends: set[int],
    tree: ChoiceTree | None,
) -> tuple[Generated, ...]:
    padded = tokenizer.pad({"input_ids": [list(p.token_ids or ()) for p in batch]}, return_tensors="pt")
    with torch.inference_mode(), sdpa_kernel(WITHOUT_CUDNN):
        output = model.generate(**padded.to(model.device), return_dict_in_generate=True)
        written = output.sequences[:, padded["input_ids"].shape[1] :].tolist()
        answers = [
            ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))] for ids in written
        ]
        likely: list[dict[str, float] | None] = [None] * len(batch)
        if tree:
            places = [find_place(tokenizer, tree, ids) for ids in answers]
            likely = choice_log_likelihoods(
                model, tree, output.past_key_values, padded["attention_mask"], output.sequences, places
            )
    return tuple(
        Generated(
            prompt.row_id,
            str(tokenizer.decode(ids, skip_special_tokens=True)).strip(),
            min(len(ids) + 1, len(whole)),
            of_labels,
        )
        for prompt, ids, whole, of_labels in zip(batch, answers, written, likely, strict=True)
    )
