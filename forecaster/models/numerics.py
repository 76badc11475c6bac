"""In which numbers weights are held and computed."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "fp16", "bf16"]
BYTES_OF: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Bytes of one number."""
Quantization = Literal["none", "4bit"]
AttentionName = Literal["sdpa", "sdpa_repeated", "flash_attention_2"]
"""`sdpa_repeated` is this project's (see loading.py): SDPA with the shared key and value heads repeated."""
