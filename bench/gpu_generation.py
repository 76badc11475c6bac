"""Seconds for 300 answers of an 8B-shaped model with random weights: one by one, in batches, and with vLLM.

    python bench/gpu_generation.py                  # on a GPU
    python bench/gpu_generation.py --shape tiny     # the same on any machine

Prompts have the lengths of the published rows (about 1,600 tokens), answers 450 tokens: a random model ends
none early. One by one is measured on a few rows and scaled up; vLLM is measured where it is installed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecaster.settings import calm_openmp

calm_openmp()

import torch
from tabulate import tabulate
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from forecaster.answering import hf_engine, vllm_engine
from forecaster.answering.hf_engine import Prompt
from forecaster.models.registry import MODELS, ModelShape
from forecaster.provenance import versions

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {
    "8b": next(model.shape for model in MODELS if model.alias == "llama3.1-8b"),
    "tiny": ModelShape(64, 2, 4, 4, 16, 128, 1500),
}
ONE_BY_ONE_ROWS = 8
BATCH_SIZES = (8, 16, 32, 64)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--max_new_tokens", type=int, default=450)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=BATCH_SIZES)
    args = parser.parse_args(argv)
    if args.shape == "8b" and not torch.cuda.is_available():
        print("An 8B model needs a GPU; --shape tiny runs anywhere.", file=sys.stderr)
        return 2
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "sample" / "base")
    tokenizer.padding_side = "left"
    model = random_model(SHAPES[args.shape], tokenizer)
    prompts = random_prompts(args.rows, SHAPES[args.shape].vocab_size)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    few = min(ONE_BY_ONE_ROWS, args.rows)
    rows = []
    timed(model, tokenizer, prompts[:2], 2, 8)  # warm up
    for name, taken, batch_size in [
        (f"one by one ({few} rows, scaled)", prompts[:: max(args.rows // few, 1)][:few], 1),
        *((f"batches of {size}", prompts, size) for size in args.batch_sizes),
    ]:
        seconds = timed(model, tokenizer, taken, batch_size, args.max_new_tokens) * args.rows / len(taken)
        rows.append((name, seconds, args.rows * args.max_new_tokens / seconds))
        print(f"{name}: {seconds:.1f} s", flush=True)
    if vllm_engine.is_installed() and torch.cuda.is_available():
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            del model
            torch.cuda.empty_cache()
            seconds = timed_vllm(folder, tokenizer, prompts, args.max_new_tokens)
        rows.append(("vLLM", seconds, args.rows * args.max_new_tokens / seconds))
    else:
        print("vLLM: not measured, as it is not installed or there is no GPU.")
    print(f"\n{args.rows} answers of {args.max_new_tokens} tokens, {args.shape}, {device}, {versions()}\n")
    shown = [(name, f"{s:.1f}", f"{rate:,.0f}", f"{rows[0][1] / s:.1f}x") for name, s, rate in rows]
    print(tabulate(shown, headers=("", "s", "new tokens/s", "ratio"), tablefmt="github"))
    return 0


def random_model(shape: ModelShape, tokenizer: Any) -> Any:
    """A Llama of this shape, made where it will run; it never ends an answer, as no end token is likely."""
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    on_gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if on_gpu else torch.float32)
    try:
        with torch.device("cuda" if on_gpu else "cpu"):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def random_prompts(count: int, vocab_size: int) -> list[Prompt]:
    """Prompts of about 1,600 tokens, between 600 and 3,400 as the published ones."""
    rng = random.Random(0)
    lengths = [min(max(round(rng.gauss(1600, 500)), 600), 3400) for _ in range(count)]
    return [
        Prompt(f"row {i}", tuple(rng.randrange(300, vocab_size) for _ in range(length)), 0)
        for i, length in enumerate(lengths)
    ]


def timed(model: Any, tokenizer: Any, prompts: Sequence[Prompt], batch_size: int, new_tokens: int) -> float:
    began = time.perf_counter()
    batches = hf_engine.plan_batches(prompts, batch_size)
    for _ in hf_engine.generate(model, tokenizer, batches, max_new_tokens=new_tokens, warn=print):
        pass
    return time.perf_counter() - began


def timed_vllm(folder: str, tokenizer: Any, prompts: Sequence[Prompt], new_tokens: int) -> float:
    """Without loading."""
    engine = vllm_engine.load(folder, "bf16", 8192, None, trust_remote_code=False)
    began = time.perf_counter()
    for _ in vllm_engine.generate(engine, tokenizer, prompts, None, max_new_tokens=new_tokens):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
