"""Rows, prompts and models of random weights to measure with."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from forecaster.answering.hf_engine import Prompt
from forecaster.models.registry import MODELS, ModelShape

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample"
PUBLISHED_ROWS = Path(__file__).with_name("published_rows.jsonl")
"""Made by prepare.sh."""
SHAPE_8B = next(model.shape for model in MODELS if model.alias == "llama3.1-8b")
SHAPE_TINY = ModelShape(64, 2, 4, 4, 16, 128, 1500)


def random_llama(shape: ModelShape, **options: Any) -> LlamaForCausalLM:
    """A Llama of this shape, made where it will run; in bf16 on a GPU."""
    config = LlamaConfig(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        **options,
    )
    on_gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    with torch.device("cuda" if on_gpu else "cpu"):
        return LlamaForCausalLM._from_config(config, dtype=torch.bfloat16 if on_gpu else torch.float32)


def save_8b(folder: Path) -> None:
    """Llama-3.1-8B's shape and the sample's tokenizer: 16 GB on disk."""
    random_llama(SHAPE_8B).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SAMPLE / "base" / name, folder / name)


def write_full_rows(path: Path, count: int, length: int) -> None:
    """Rows of the sample with their news repeated beyond `length` tokens: tokenising trims them to it."""
    lines = (SAMPLE / "dataset" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = json.loads(lines[number % len(lines)])
            before, news = row["prompt"].split("\n\n[Headline]:", 1)
            items, after = news.split("\n\nFinancials of", 1)
            # An item takes about 25 tokens.
            many = "\n\n[Headline]:".join([items] * (length // 40))
            row["prompt"] = f"{before}\n\n[Headline]:{many}\n\nFinancials of{after}"
            file.write(json.dumps(row | {"symbol": f"S{number}"}) + "\n")


def write_published_rows(path: Path, count: int) -> None:
    """Rows of published lengths; where prepare.sh has not made any, the sample's, which are short."""
    source = PUBLISHED_ROWS if PUBLISHED_ROWS.exists() else SAMPLE / "dataset" / "train.jsonl"
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:count]), encoding="utf-8")


def random_prompts(count: int, vocab_size: int) -> list[Prompt]:
    """Prompts of about 1,600 tokens, between 600 and 3,400 as the published ones."""
    rng = random.Random(0)
    lengths = [min(max(round(rng.gauss(1600, 500)), 600), 3400) for _ in range(count)]
    return [
        Prompt(f"row {i}", tuple(rng.randrange(300, vocab_size) for _ in range(length)), 0)
        for i, length in enumerate(lengths)
    ]
