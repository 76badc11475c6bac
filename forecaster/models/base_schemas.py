"""What the small files of a model's folder may hold, of the fields that are read: libraries blame others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from forecaster.schemas import read_checked

Number = Annotated[float, Field(gt=0)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Side = Literal["left", "right"]


class AddedToken(BaseModel):
    content: str


Token = str | AddedToken


class SpecialTokens(BaseModel):
    """special_tokens_map.json."""

    bos_token: Token | None = None
    eos_token: Token | None = None
    pad_token: Token | None = None
    unk_token: Token | None = None
    additional_special_tokens: list[Token] | None = None
    extra_special_tokens: list[Token] | dict[str, Token] | None = None


class TokenizerConfigFile(SpecialTokens):
    """tokenizer_config.json."""

    model_max_length: Number | None = None
    """Of tokens; 1e30 stands for none."""
    chat_template: str | list[dict[str, str]] | dict[str, str] | None = None
    added_tokens_decoder: dict[str, AddedToken] = {}
    tokenizer_class: str | None = None
    padding_side: Side | None = None
    truncation_side: Side | None = None
    model_input_names: list[str] | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None


class NumberedToken(AddedToken):
    id: TokenId


class TokenizerFile(BaseModel):
    """tokenizer.json; what else it holds, its library tells."""

    model: dict[str, Any] | None = None
    added_tokens: list[NumberedToken] | None = None


class GenerationConfigFile(BaseModel):
    """generation_config.json."""

    bos_token_id: TokenId | list[TokenId] | None = None
    eos_token_id: TokenId | list[TokenId] | None = None
    pad_token_id: TokenId | None = None
    max_length: TokenId | None = None
    max_new_tokens: TokenId | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


_FILES: dict[str, Any] = {
    "tokenizer.json": TokenizerFile,
    "tokenizer_config.json": TokenizerConfigFile,
    "special_tokens_map.json": SpecialTokens,
    "added_tokens.json": dict[str, TokenId],
    "generation_config.json": GenerationConfigFile,
}


def check_small_files(folder: Path, way_out: str) -> None:
    """Check those that are there; raises ConfigurationError with file and field."""
    for name, kind in _FILES.items():
        if (folder / name).exists():
            read_checked(folder / name, kind, way_out)
