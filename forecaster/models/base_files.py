"""What can be known of a model's folder before it is loaded: whether its files are whole, and whether its
tokenizer fits its embedding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from forecaster.errors import ConfigurationError, Problem
from forecaster.files import LFS_HELP, is_lfs_pointer
from forecaster.models.base_schemas import check_small_files
from forecaster.models.tensor_files import read_header
from forecaster.run_folder import ADAPTER_CONFIG, MODEL_INDEX, MODEL_WEIGHTS
from forecaster.schemas import FileName, check, read_json

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


def find_file_problems(folder: Path, flag: str = "--base_model", layers: int | None = None) -> list[Problem]:
    """Weights and tokenizer files that are pointers, cut off or missing, an adapter among them, a tokenizer
    of more tokens than the embedding has rows, small files with fields of other types, and weights of another
    number of layers.

    Args:
        layers: as the folder's config.json says; None: not known.
    """
    if (folder / ADAPTER_CONFIG).exists():  # transformers would load it too, over the base that it names
        found = f"{folder} holds an adapter ({ADAPTER_CONFIG}) beside a model."
        return [Problem(flag, found, "Merge it into the model, or keep it in a folder of its own.")]
    pointers = [path.name for path in sorted(folder.iterdir()) if path.is_file() and is_lfs_pointer(path)]
    if pointers:
        found = f"{folder} holds pointers of Git LFS in place of {', '.join(pointers)}."
        return [Problem(flag, found, LFS_HELP)]
    try:
        check_small_files(folder, "Take a whole copy, or name another model.")
    except ConfigurationError as error:
        return list(error.problems)
    try:
        shapes = dict(_tensor_shapes(folder))
    except (ConfigurationError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        if isinstance(error, ConfigurationError):
            (problem,) = error.problems
            reason = f"{Path(problem.where).name} {problem.found[:-1]}"
        found = f"{folder} cannot be loaded ({reason})."
        return [Problem(flag, found, "Check its name and files: take a whole copy.")]
    held = 1 + max((int(match[1]) for name in shapes if (match := _LAYER.match(name))), default=-1)
    if layers is not None and held and held != layers:
        found = f"{folder} has a config.json with num_hidden_layers {layers}, and weights of {held} layers."
        return [Problem(flag, found, "Take the config.json that belongs to the weights.")]
    rows = next((shape[0] for name, shape in shapes.items() if name.endswith(_EMBEDDINGS)), None)
    if rows is not None and (too_many := too_many_tokens(folder, folder, rows)):
        way_out = "Take the tokenizer that belongs to the weights, or resize the embedding and save both."
        return [Problem(flag, too_many, way_out)]
    return []


def _tensor_shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor in the folder's safetensors files.

    Raises:
        ConfigurationError: a file is not whole.
        ValueError: one is missing, or the index is no JSON.
    """
    paths = sorted(folder.glob("model*.safetensors"))
    index = folder / MODEL_INDEX
    if index.exists() and folder / MODEL_WEIGHTS not in paths:
        files = read_json(index, "")["weight_map"]
        names = set(check(files, dict[str, FileName], index, "").values())
        if missing := sorted(name for name in names if not (folder / name).is_file()):
            raise ValueError(f"{index.name} names {', '.join(missing)}, which {folder} lacks")
    for path in paths:
        for name, tensor in read_header(path).items():
            yield name, tensor.shape


def too_many_tokens(model: object, folder: Path, embedding_rows: int) -> str | None:
    """What is found where the tokenizer in a folder has more tokens than the model's embedding has rows."""
    tokens = _tokens_of(folder)
    if tokens is None or tokens <= embedding_rows:
        return None
    return f"{model} has a tokenizer of {tokens:,} tokens, and an embedding of {embedding_rows:,}."


def _tokens_of(folder: Path) -> int | None:
    """One more than the highest token id; None where no tokenizer.json tells."""
    try:
        content = read_json(folder / "tokenizer.json", "")
        vocabulary = content["model"]["vocab"]
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        return 1 + max([*ids, *(token["id"] for token in content.get("added_tokens", ()))])
    except (ConfigurationError, ValueError, LookupError, TypeError, AttributeError):
        return None  # what the tokenizer's own loader says of it
