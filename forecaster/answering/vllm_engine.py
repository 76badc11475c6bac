"""Prompts to answers with vLLM, where it is installed: the only importer of vllm.

Written for vLLM 0.33, which needs another torch and transformers than training: an environment of its own.
"""

from __future__ import annotations

import importlib.util
import json
import time
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from forecaster.answering.choice_likelihoods import ChoiceTree, choice_tree, find_place
from forecaster.answering.hf_engine import Generated, GeneratedBatch, Prompt
from forecaster.errors import Problem
from forecaster.models.numerics import Precision, Quantization
from forecaster.models.templates import end_token_ids
from forecaster.models.tuners.base import Tuner
from forecaster.run_folder import ADAPTER_CONFIG
from forecaster.tasks.base import Choices

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM can make room for."""
ANSWERS_PER_CALL = 64
"""vLLM batches by itself; calls of this size are what a kill can cost."""


def is_installed() -> bool:
    return importlib.util.find_spec("vllm") is not None


def problems(
    quantization: Quantization,
    ranks: int,
    has_gpu: bool,
    tuner: Tuner | None = None,
    lora_rank: int | None = None,
) -> list[Problem]:
    """What keeps vLLM from answering here, each with its way out; `tuner` is None for a base model alone."""
    found = []
    if not is_installed():
        way_out = "Install it into an environment of its own (it needs another torch), or use --engine hf."
        found.append(Problem("--engine vllm", "vllm is not installed.", way_out))
    if not has_gpu:
        found.append(Problem("--engine vllm", "there is no GPU.", "Use --engine hf."))
    if quantization != "none":
        cannot = f"cannot load the base model in {quantization}."
        found.append(Problem("--engine vllm", cannot, "Use --engine hf."))
    if ranks > 1:
        way_out = "Start one process, or use --engine hf, which shares the rows among ranks."
        found.append(Problem("--engine vllm", f"takes one rank, and there are {ranks}.", way_out))
    if tuner and "vllm" in tuner.not_served_by:
        found.append(Problem("--engine vllm", tuner.not_served_by["vllm"], "Use --engine hf."))
    if tuner and not tuner.saves_adapter:
        cannot = "holds one set of weights; a fully fine-tuned model and its base are two."
        found.append(Problem("--engine vllm", cannot, "Use --engine hf."))
    if lora_rank is not None and room_for(lora_rank) is None:
        most = f"makes room for adapters up to rank {LORA_RANKS[-1]}, and this one has {lora_rank}."
        found.append(Problem("--engine vllm", most, "Use --engine hf."))
    return found


def room_for(lora_rank: int) -> int | None:
    """The smallest rank that vLLM can be told which holds this one; None where none does."""
    return next((rank for rank in LORA_RANKS if rank >= lora_rank), None)


def lora_id(adapter: Path) -> int:
    """A positive 32-bit number, by which vLLM tells an adapter from those that it has loaded before."""
    return 1 + zlib.crc32(bytes(adapter)) % (2**31 - 1)


@lru_cache(maxsize=1)
def load(
    location: str, precision: Precision, max_length: int, lora_rank: int | None, trust_remote_code: bool
) -> Any:
    """The engine, with room for adapters of up to `lora_rank`, base and adapters from one set of weights.

    It is kept: it takes most of the GPU's memory, and a benchmark answers more than one set of rows.
    """
    from vllm import LLM

    room = room_for(lora_rank) if lora_rank is not None else None
    return LLM(
        model=location,
        dtype=DTYPES[precision],
        max_model_len=max_length,
        enable_lora=room is not None,
        max_lora_rank=room or LORA_RANKS[0],
        seed=0,
        trust_remote_code=trust_remote_code,
    )


def generate(
    engine: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    adapter: Path | None,
    *,
    max_new_tokens: int,
    max_length: int,
    choices: Choices | None,
) -> Iterator[GeneratedBatch]:
    """Greedy answers; with `adapter`, of the fine-tuned model.

    Args:
        max_length: tokens of prompt and answer that the engine was loaded for.
        choices: texts whose likelihoods are recorded too, where an answer has a place for one of them.
    """
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    ends = end_token_ids(tokenizer)
    params = SamplingParams(temperature=0.0, max_tokens=max_new_tokens, stop_token_ids=sorted(ends))
    lora = LoRARequest(str(adapter), lora_id(adapter), str(adapter)) if adapter else None
    # vLLM 0.33 leaves a head's factors out of the likelihoods of a prompt (vllm#51594).
    tree = choice_tree(tokenizer, choices) if choices and not (adapter and tunes_head(adapter)) else None
    ready = [prompt for prompt in prompts if prompt.token_ids is not None]
    for at in range(0, len(ready), ANSWERS_PER_CALL):
        batch = ready[at : at + ANSWERS_PER_CALL]
        began = time.perf_counter()
        outputs = engine.generate(
            [{"prompt_token_ids": list(prompt.token_ids or ())} for prompt in batch],
            params,
            use_tqdm=False,
            lora_request=lora,
        )
        answers = [output.outputs[0] for output in outputs]
        begun = [
            _begun(tokenizer, tree, prompt, answer.token_ids, max_length) if tree else None
            for prompt, answer in zip(batch, answers, strict=True)
        ]
        likely = _choice_log_likelihoods(engine, tree, begun, lora) if tree else [None] * len(batch)
        seconds = time.perf_counter() - began
        yield GeneratedBatch(
            tuple(
                Generated(prompt.row_id, answer.text.strip(), len(answer.token_ids), of_labels)
                for prompt, answer, of_labels in zip(batch, answers, likely, strict=True)
            ),
            seconds,
        )


def tunes_head(adapter: Path) -> bool:
    """Whether an adapter has factors of the head; PEFT writes which layers it has them of."""
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return "lm_head" in (config.get("target_modules") or ())


def _begun(
    tokenizer: PreTrainedTokenizerBase,
    tree: ChoiceTree,
    prompt: Prompt,
    answer: Sequence[int],
    max_length: int,
) -> list[int] | None:
    """Tokens of the prompt and of its answer up to the place of a choice; None where it has none, or where no
    room would be left for a choice and the token that vLLM writes behind it."""
    place = find_place(tokenizer, tree, answer)
    if place is None:
        return None
    begun = [*(prompt.token_ids or ()), *answer[:place]]
    return begun if len(begun) + max(map(len, tree.paths)) < max_length else None


def _choice_log_likelihoods(
    engine: Any, tree: ChoiceTree, begun: Sequence[Sequence[int] | None], lora: Any
) -> list[dict[str, float] | None]:
    """The log-likelihood of each choice by its label, by answer: each is read as a prompt of its own, since
    vLLM takes no mask of a tree and ignores its cache where a prompt's likelihoods are asked for."""
    from vllm import SamplingParams

    paths = [[token for _, token in path] for path in tree.paths]
    asked = [[*of, *path] for of in begun if of is not None for path in paths]
    if not asked:
        return [None] * len(begun)
    outputs = engine.generate(
        [{"prompt_token_ids": ids} for ids in asked],
        SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0),
        use_tqdm=False,
        lora_request=lora,
    )
    sums = iter(
        sum(
            float(of[token].logprob)
            for of, token in zip(output.prompt_logprobs[-len(path) :], path, strict=True)
        )
        for output, path in zip(outputs, paths * (len(asked) // len(paths)), strict=True)
    )
    return [None if of is None else {label: next(sums) for label in tree.choices.labels} for of in begun]
