"""Rows of text to answers of one or several models: who answers, on which engine, on which rank."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from forecaster.answering import hf_engine, vllm_engine
from forecaster.answering.hf_engine import Generated, GeneratedBatch, Prompt
from forecaster.models.finished import holds_adapter
from forecaster.models.numerics import Precision, Quantization
from forecaster.models.registry import BaseModel
from forecaster.models.templates import (
    check_template,
    holds_markers,
    load_saved_tokenizer,
    load_tokenizer,
    naming_row,
    rendered_parts,
)
from forecaster.models.tuners.base import Tuner
from forecaster.progress import Listener
from forecaster.records import Messages
from forecaster.tasks.base import Task
from prompts import split_published

Engine = Literal["hf", "vllm"]


@dataclass(frozen=True)
class Answerer:
    """A base model, or one with an adapter."""

    name: str
    adapter: Path | None = None
    """Folder of what was trained: an adapter, or a whole model."""


@dataclass(frozen=True)
class EngineSettings:
    """How answers are made."""

    base: BaseModel
    tokenizer_folder: Path | None
    """The run whose tokenizer and chat template are used; None: the base model's own."""
    precision: Precision
    quantization: Quantization
    trust_remote_code: bool
    max_length: int
    """Tokens of prompt and answer."""
    max_new_tokens: int
    task: Task
    """It knows what a prompt that is too long can spare."""
    batch_size: int | None = None
    """None: 16, or what the GPU holds."""
    engine: Engine = "hf"
    lora_rank: int | None = None
    """What vLLM has to make room for."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the rows."""

    rank: int = 0
    count: int = 1


@dataclass(frozen=True)
class Reply:
    """One model's answer to one row; None where the prompt did not fit."""

    model: str
    row_id: str
    text: str | None
    prompt_tokens: int | None
    news_dropped: int
    new_tokens: int | None
    label_log_likelihoods: Mapping[str, float] | None = None
    """Of the task's choices by label; None where the answer has no place for them, or the engine does not
    tell."""


Record = Callable[[Sequence[Reply], float], None]


def choose_engine(
    asked: Literal["auto", "hf", "vllm"],
    quantization: Quantization,
    ranks: int,
    tuner: Tuner | None = None,
    lora_rank: int | None = None,
) -> Engine:
    """vLLM when it is asked for, or is there with a GPU and can do what is needed; else Hugging Face."""
    if asked != "auto":
        return asked
    found = vllm_engine.problems(quantization, ranks, torch.cuda.is_available(), tuner, lora_rank)
    return "hf" if found else "vllm"


def answer(
    plan: EngineSettings,
    answerers: Sequence[Answerer],
    texts: Sequence[tuple[str, str]],
    is_known: Callable[[str, str], bool],
    record: Record,
    listener: Listener,
    ranks: Ranks = Ranks(),
) -> None:
    """Have every model answer its share of the rows, and hand over each batch as it comes.

    Args:
        texts: row ids and prompts in the published form.
        is_known: whether a model (by name) has answered a row (by id) already.
        record: takes a batch of replies, and the seconds that it took.
        listener: is shown this rank's share, a model at a time.
    """
    tokenizer = _tokenizer(plan)
    prompts = list(_rendered(plan, tokenizer, texts))
    if ranks.rank == 0 and (count := sum(holds_markers(tokenizer, split_published(t)) for _, t in texts)):
        listener.say(
            f"{count} of {len(texts)} prompts hold control tokens or turn marks of this model; they are "
            "tokenised as plain text."
        )
    prompt_of = {prompt.row_id: prompt for prompt in prompts}
    batch_size = plan.batch_size or hf_engine.largest_batch_size(
        plan.base, plan.quantization, plan.max_length, ranks.count
    )
    batches = hf_engine.plan_batches(prompts, batch_size)[ranks.rank :: ranks.count]
    todo = []
    for answerer in answerers:
        if ranks.rank == 0:
            too_long = [p for p in prompts if p.token_ids is None and not is_known(answerer.name, p.row_id)]
            record([Reply(answerer.name, p.row_id, None, None, 0, None) for p in too_long], 0.0)
        left = [[p for p in batch if not is_known(answerer.name, p.row_id)] for batch in batches]
        if any(left):
            todo.append((answerer, left))
    for answerer, count, generated in _generate(plan, tokenizer, todo, listener.warn, ranks):
        with listener.bar(answerer.name, "answer", count) as advance:
            for batch in generated:
                replies = [_reply(answerer, prompt_of[each.row_id], each) for each in batch.answers]
                record(replies, batch.seconds)
                advance(len(replies))


def _reply(answerer: Answerer, prompt: Prompt, generated: Generated) -> Reply:
    return Reply(
        answerer.name,
        prompt.row_id,
        generated.text,
        len(prompt.token_ids or ()),
        prompt.news_dropped,
        generated.new_tokens,
        generated.label_log_likelihoods,
    )


def _tokenizer(plan: EngineSettings) -> PreTrainedTokenizerBase:
    if plan.tokenizer_folder is not None:
        return load_saved_tokenizer(plan.tokenizer_folder, plan.trust_remote_code)
    tokenizer, _ = load_tokenizer(plan.base, plan.trust_remote_code)
    tokenizer.padding_side = "left"
    return tokenizer


def _of_whom(plan: EngineSettings) -> tuple[object, str]:
    """Whose chat template it is, and the flag that names it."""
    if plan.tokenizer_folder is None:
        return plan.base.location, "--base_model"
    return plan.tokenizer_folder, "--adapter"


def _rendered(
    plan: EngineSettings, tokenizer: PreTrainedTokenizerBase, texts: Sequence[tuple[str, str]]
) -> Iterator[Prompt]:
    """Raises ConfigurationError where the template loses a part of a prompt, or an answer to it; what a run
    was trained without, it is also asked without."""
    limit = plan.max_length - plan.max_new_tokens
    for number, (row_id, text) in enumerate(texts, start=1):
        asked = split_published(text)
        if plan.tokenizer_folder is not None:
            asked = Messages("", asked.user)
        if number == 1:
            check_template(tokenizer, asked, "an answer", *_of_whom(plan))
        with naming_row(f"{number} of {len(texts)}, {row_id}", *_of_whom(plan)):
            rendered_parts(tokenizer, asked, "an answer")
            prompt = hf_engine.render_prompt(tokenizer, row_id, text, limit, plan.task)
        yield prompt


Todo = Sequence[tuple[Answerer, Sequence[Sequence[Prompt]]]]
Underway = tuple[Answerer, int, Iterator[GeneratedBatch]]
"""Whose model is loaded, how many answers it owes, and these as they come."""


def _generate(
    plan: EngineSettings,
    tokenizer: PreTrainedTokenizerBase,
    todo: Todo,
    warn: Callable[[str], None],
    ranks: Ranks,
) -> Iterator[Underway]:
    """Each is to be drained before the next is asked for, whose model may need the room."""
    if not todo:
        return
    if plan.engine == "vllm":
        yield from _with_vllm(plan, tokenizer, todo)
    else:
        yield from _with_transformers(plan, tokenizer, todo, warn, ranks)


def _with_vllm(plan: EngineSettings, tokenizer: PreTrainedTokenizerBase, todo: Todo) -> Iterator[Underway]:
    engine = vllm_engine.load(
        plan.base.location, plan.precision, plan.max_length, plan.lora_rank, plan.trust_remote_code
    )
    for answerer, batches in todo:
        prompts = [prompt for batch in batches for prompt in batch]
        generated = vllm_engine.generate(
            engine,
            tokenizer,
            prompts,
            answerer.adapter,
            max_new_tokens=plan.max_new_tokens,
            max_length=plan.max_length,
            choices=plan.task.choices,
        )
        yield answerer, len(prompts), generated


def _with_transformers(
    plan: EngineSettings,
    tokenizer: PreTrainedTokenizerBase,
    todo: Todo,
    warn: Callable[[str], None],
    ranks: Ranks,
) -> Iterator[Underway]:
    # Merging changes the base weights: they serve one adapter, and are then loaded anew.
    model: PreTrainedModel | None = None
    answering: PreTrainedModel | None = None
    for answerer, batches in todo:
        adapter, base = answerer.adapter, plan.base
        if adapter and not holds_adapter(adapter):
            # A model of its own takes the base's place: both together may not fit.
            model = answering = None
            base, adapter = replace(base, location=str(adapter)), None
        if model is None:
            gpu = torch.cuda.current_device() if ranks.count > 1 and torch.cuda.is_available() else None
            model = hf_engine.load_for_generation(
                base, plan.precision, plan.quantization, plan.trust_remote_code, gpu
            )
        answering = hf_engine.with_adapter(model, adapter) if adapter else model
        generated = hf_engine.generate(
            answering,
            tokenizer,
            batches,
            max_new_tokens=plan.max_new_tokens,
            warn=warn,
            choices=plan.task.choices,
        )
        yield answerer, sum(map(len, batches)), generated
        if answerer.adapter:
            model = answering = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def join(ranks: Ranks, local_rank: int) -> None:
    """Meet the other ranks, and take this rank's GPU; a launcher started us."""
    if ranks.count > 1:
        # As long as the slowest rank's share may take: days.
        dist.init_process_group("gloo", timeout=timedelta(days=7))
        if torch.cuda.is_available():
            torch.cuda.set_device(max(local_rank, 0) % torch.cuda.device_count())


def wait_for_all(ranks: Ranks) -> None:
    if ranks.count > 1:
        dist.barrier()


def leave(ranks: Ranks) -> None:
    if ranks.count > 1:
        dist.destroy_process_group()


def answer_one(plan: EngineSettings, adapter: Path, prompt: str, listener: Listener) -> Reply:
    """One prompt, for a forecast; the reply's text is None when it does not fit."""
    replies: list[Reply] = []

    def keep(found: Iterable[Reply], _: float) -> None:
        replies.extend(found)

    answer(plan, [Answerer("fine-tuned", adapter)], [("prompt", prompt)], lambda *_: False, keep, listener)
    return replies[0]
