"""Folders of models that are not whole are told before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import BASE

from forecaster.errors import Problem
from forecaster.models.registry import resolve

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100_000])


def point(path: Path) -> None:
    path.write_bytes(POINTER)


def page(path: Path) -> None:
    path.write_text("<!doctype html><title>Sign in</title>" * 20)


def add_token(path: Path) -> None:
    content = json.loads(path.read_text())
    highest = max(content["model"]["vocab"].values(), default=0)
    highest = max([highest, *(token["id"] for token in content["added_tokens"])])
    content["added_tokens"].append({**content["added_tokens"][0], "id": highest + 1, "content": "[PAD]"})
    path.write_text(json.dumps(content))


def index(path: Path) -> None:
    path.rename(path.with_name("model-00001-of-00002.safetensors"))
    shards = {
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors",
    }
    path.with_name("model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


@pytest.mark.parametrize(
    ("name", "harm", "told"),
    [
        ("model.safetensors", point, "holds pointers of Git LFS in place of model.safetensors. Run `git lfs"),
        ("tokenizer.json", point, "holds pointers of Git LFS in place of tokenizer.json."),
        ("config.json", point, "holds pointers of Git LFS in place of config.json."),
        (
            "model.safetensors",
            cut,
            "(model.safetensors is no whole safetensors file (Error while deserializing header: incomplete",
        ),
        (
            "model.safetensors",
            page,
            "(model.safetensors is no whole safetensors file (Error while deserializing header: header too",
        ),
        ("model.safetensors", index, "names model-00002-of-00002.safetensors, which"),
        ("tokenizer.json", add_token, "has a tokenizer of 1,315 tokens, and an embedding of 1,314."),
    ],
)
def test_a_model_that_is_not_whole_is_told(
    tmp_path: Path, name: str, harm: Callable[[Path], None], told: str
) -> None:
    shutil.copytree(BASE, tmp_path / "base")
    assert not isinstance(resolve(str(tmp_path / "base")), Problem)
    harm(tmp_path / "base" / name)
    problem = resolve(str(tmp_path / "base"))
    assert isinstance(problem, Problem)
    assert told in str(problem)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "generation_config.json",
            {"eos_token_id": "2"},
            "eos_token_id.constrained-int is '2': it should be",
        ),
        (
            "generation_config.json",
            {"temperature": "hot"},
            "temperature is 'hot': it should be a valid number.",
        ),
        ("tokenizer_config.json", {"model_max_length": "x"}, "model_max_length is 'x': it should be"),
        ("special_tokens_map.json", [], "it is []: it should be a valid dictionary."),
    ],
)
def test_a_field_of_another_type_is_told_with_its_file(
    tmp_path: Path, name: str, content: object, told: str
) -> None:
    folder = shutil.copytree(BASE, tmp_path / "base")
    (folder / name).write_text(json.dumps(content))
    found = resolve(str(folder))
    assert isinstance(found, Problem)
    assert str(found).startswith(f"{folder / name}: {told}")
