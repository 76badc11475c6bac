"""Prompts to answers with vLLM, where it is installed: the only importer of vllm.

Written for vLLM 0.33, which needs another torch and transformers than training: an environment of its own.
"""

from __future__ import annotations

import importlib.util
import time
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from forecaster.answering.hf_engine import Generated, GeneratedBatch, Prompt
from forecaster.errors import Problem
from forecaster.models.numerics import Precision, Quantization
from forecaster.models.templates import end_token_ids
from forecaster.models.tuners.base import Tuner

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
) -> Iterator[GeneratedBatch]:
    """Greedy answers; with `adapter`, of the fine-tuned model."""
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    ends = end_token_ids(tokenizer)
    params = SamplingParams(temperature=0.0, max_tokens=max_new_tokens, stop_token_ids=sorted(ends))
    lora = LoRARequest(str(adapter), lora_id(adapter), str(adapter)) if adapter else None
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
        seconds = time.perf_counter() - began
        yield GeneratedBatch(
            tuple(
                Generated(prompt.row_id, output.outputs[0].text.strip(), len(output.outputs[0].token_ids))
                for prompt, output in zip(batch, outputs, strict=True)
            ),
            seconds,
        )
