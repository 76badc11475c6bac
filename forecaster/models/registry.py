"""The models of the field: alias, hub id, shape and context length. Pure; loads nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from forecaster.errors import ConfigurationError, Problem
from forecaster.files import is_lfs_pointer
from forecaster.models.base_files import find_file_problems
from forecaster.schemas import Count, Finite, check, read_json

ALL_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Tensors = Counter[int]
"""How many tensors have that many elements."""


def elements(tensors: Tensors) -> int:
    return sum(size * count for size, count in tensors.items())


@dataclass(frozen=True)
class WeightTensors:
    """Tensors of a base model, or some of them, by kind."""

    projections: Tensors = field(default_factory=Counter)
    """Linear layers: what 4-bit quantisation packs."""
    embeddings: Tensors = field(default_factory=Counter)
    """Input embedding, and the output head where they are two."""
    plain: Tensors = field(default_factory=Counter)
    """Norms and biases."""

    def together(self) -> Tensors:
        return self.projections + self.embeddings + self.plain


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a Llama-architecture model (Llama, Qwen2, Mistral), from which parameter counts follow."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied_embeddings: bool = False
    qkv_bias: bool = False

    def projection_sizes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear projection in one layer."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        h, f = self.hidden_size, self.intermediate_size
        return {
            "q_proj": (h, q),
            "k_proj": (h, kv),
            "v_proj": (h, kv),
            "o_proj": (q, h),
            "gate_proj": (h, f),
            "up_proj": (h, f),
            "down_proj": (f, h),
        }

    @property
    def linear_parameters(self) -> int:
        """Weights of all projections in all layers: what 4-bit quantisation shrinks."""
        return self.layers * sum(i * o for i, o in self.projection_sizes().values())

    @property
    def embedding_parameters(self) -> int:
        """Input embedding and output head, which stay in 16 bit."""
        return self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)

    @property
    def parameters(self) -> int:
        bias = self.layers * (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        norms = (2 * self.layers + 1) * self.hidden_size
        return self.linear_parameters + self.embedding_parameters + bias + norms

    def tensors(self) -> WeightTensors:
        projections = Counter(inputs * outputs for inputs, outputs in self.projection_sizes().values())
        plain = Counter({self.hidden_size: 2 * self.layers + 1})
        if self.qkv_bias:
            for heads in (self.heads, self.kv_heads, self.kv_heads):
                plain[heads * self.head_dim] += self.layers
        return WeightTensors(
            Counter({size: count * self.layers for size, count in projections.items()}),
            Counter({self.vocab_size * self.hidden_size: 1 if self.tied_embeddings else 2}),
            plain,
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ModelShape | None:
        """Shape from a `config.json`; None when the architecture has other parts than these."""
        needed = (
            "num_attention_heads",
            "hidden_size",
            "num_hidden_layers",
            "intermediate_size",
            "vocab_size",
        )
        if config.get("model_type") not in ("llama", "qwen2", "mistral") or not set(needed) <= set(config):
            return None
        heads = config["num_attention_heads"]
        return cls(
            hidden_size=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            intermediate_size=config["intermediate_size"],
            vocab_size=config["vocab_size"],
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=config["model_type"] == "qwen2",
        )


Size = Annotated[int, Field(ge=1, le=2**24)]


class RopeFile(pydantic.BaseModel):
    """How positions are turned, in config.json."""

    rope_theta: Annotated[Finite, Field(gt=0)] | None = None
    factor: Annotated[Finite, Field(ge=1)] | None = None


class ModelConfigFile(pydantic.BaseModel):
    """config.json of a base model: the fields that planning reads, and numbers that transformers takes as
    they are and that then make every loss NaN."""

    model_type: str | None = None
    num_hidden_layers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    num_attention_heads: Size | None = None
    hidden_size: Size | None = None
    intermediate_size: Size | None = None
    vocab_size: Size | None = None
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    max_position_embeddings: Count | None = None
    rms_norm_eps: Annotated[Finite, Field(gt=0)] | None = None
    attention_dropout: Annotated[Finite, Field(ge=0, lt=1)] | None = None
    rope_theta: Annotated[Finite, Field(gt=0)] | None = None
    rope_parameters: RopeFile | None = None
    rope_scaling: RopeFile | None = None


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a published model."""

    alias: str
    hub_id: str
    shape: ModelShape
    context_length: int
    knowledge_cutoff: date
    """Last day whose news the model may have read."""
    cutoff_is_stated: bool
    """Whether its makers state that day; else it is the day of release, which is as late as it can be."""
    gated: bool = False
    other_aliases: tuple[str, ...] = ()
    """Names of other projects for it."""


_LLAMA_3_8B = ModelShape(4096, 32, 32, 8, 128, 14336, 128256)

MODELS: tuple[ModelSpec, ...] = (
    ModelSpec(
        "llama3.1-8b",
        "meta-llama/Llama-3.1-8B-Instruct",
        _LLAMA_3_8B,
        131072,
        date(2023, 12, 31),  # its model card
        cutoff_is_stated=True,
        gated=True,
    ),
    ModelSpec(
        "deepseek-r1-8b",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        _LLAMA_3_8B,
        131072,
        # Its release: Llama-3.1-8B trained further on answers of DeepSeek-R1; its card gives no cutoff.
        date(2025, 1, 20),
        cutoff_is_stated=False,
    ),
    ModelSpec(
        "qwen2.5-1.5b",
        "Qwen/Qwen2.5-1.5B-Instruct",
        ModelShape(1536, 28, 12, 2, 128, 8960, 151936, tied_embeddings=True, qkv_bias=True),
        32768,
        date(2024, 9, 19),  # its release: its card gives no cutoff
        cutoff_is_stated=False,
    ),
    ModelSpec(
        "qwen2.5-7b",
        "Qwen/Qwen2.5-7B-Instruct",
        ModelShape(3584, 28, 28, 4, 128, 18944, 152064, qkv_bias=True),
        32768,
        date(2024, 9, 19),  # its release: its card gives no cutoff
        cutoff_is_stated=False,
    ),
    ModelSpec(
        "llama2-7b",
        "meta-llama/Llama-2-7b-chat-hf",
        ModelShape(4096, 32, 32, 32, 128, 11008, 32000),
        4096,
        # Its card: pretraining until September 2022, tuning (of the chat models) until this month.
        date(2023, 7, 31),
        cutoff_is_stated=True,
        gated=True,
        other_aliases=("llama2",),  # FinGPT's, for its default model
    ),
    ModelSpec(
        "llama2-13b",
        "meta-llama/Llama-2-13b-chat-hf",
        ModelShape(5120, 40, 40, 40, 128, 13824, 32000),
        4096,
        # Its card: pretraining until September 2022, tuning (of the chat models) until this month.
        date(2023, 7, 31),
        cutoff_is_stated=True,
        gated=True,
    ),
)

_ALIASES = {name: model for model in MODELS for name in (model.alias, *model.other_aliases)}
_BY_HUB_ID = {model.hub_id.lower(): model for model in MODELS}


@dataclass(frozen=True)
class BaseModel:
    """A resolved `--base_model`."""

    location: str
    """Folder, or hub id."""
    is_local: bool
    shape: ModelShape | None = None
    context_length: int | None = None
    spec: ModelSpec | None = None
    """None: a folder, or a hub id that is not listed. Its knowledge cutoff is then not known."""


def resolve(base_model: str, weights_needed: bool = True) -> BaseModel | Problem:
    """Resolve an alias, hub id or folder without network access; a folder wins over a hub id of the same
    name. Without `weights_needed` a folder needs no more than its config.json."""
    path = Path(base_model)
    if path.is_dir():
        try:
            if (path / "config.json").is_file() and is_lfs_pointer(path / "config.json"):
                return find_file_problems(path)[0]
            config = read_json(path / "config.json", "")
            check(config, ModelConfigFile, path / "config.json", "")
            shape = ModelShape.from_config(config)
        except ConfigurationError as error:
            return Problem(
                "--base_model",
                f"the folder {base_model} has no readable config.json ({error.problems[0].found[:-1]}).",
                "Give a folder made by save_pretrained (model and tokenizer).",
            )
        if not weights_needed:
            return BaseModel(base_model, True, shape, config.get("max_position_embeddings"), None)
        if not any((path / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
            return Problem(
                "--base_model",
                f"the folder {base_model} has no tokenizer.",
                "Save the tokenizer beside the model.",
            )
        if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
            return Problem(
                "--base_model",
                f"the folder {base_model} has no weights.",
                "Copy its *.safetensors files there.",
            )
        if problems := find_file_problems(path, layers=shape.layers if shape else None):
            return problems[0]
        return BaseModel(base_model, True, shape, config.get("max_position_embeddings"), None)
    if spec := _ALIASES.get(base_model.lower()) or _BY_HUB_ID.get(base_model.lower()):
        return BaseModel(spec.hub_id, False, spec.shape, spec.context_length, spec)
    if base_model.count("/") == 1 and not base_model.startswith(("/", ".")) and not base_model.endswith("/"):
        return BaseModel(base_model, False)
    return Problem(
        "--base_model",
        f"{base_model!r} is no known alias and no folder.",
        f"Use an alias ({', '.join(sorted(_ALIASES))}), a hub id (owner/name) or a folder.",
    )


def cannot_load(location: str, why: str, where: str = "--base_model") -> Problem:
    """A model or tokenizer that is not there, not whole, or not for this user."""
    reason = " ".join(why.split())[:300]
    if "trust_remote_code" in why:  # transformers, on what has an `auto_map`
        found = f"{location} brings Python code of its own."
        return Problem(where, found, "Read it; --trust_remote_code on the command line runs it.")
    return Problem(
        where,
        f"{location} cannot be loaded ({reason}).",
        "Check its name and files, the network, and HF_TOKEN if the model is gated or private.",
    )
