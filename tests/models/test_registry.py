"""Names to models, and parameter counts that agree with the published ones and with real model classes."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from forecaster.errors import Problem
from forecaster.models.registry import ALL_PROJECTIONS, MODELS, BaseModel, ModelShape, resolve
from forecaster.models.tuners.base import TunerSettings
from forecaster.models.tuners.lora import LORA

SPECS = {model.alias: model for model in MODELS}


def lora_parameters(shape: ModelShape, rank: int, targets: tuple[str, ...] = ALL_PROJECTIONS) -> int:
    return LORA.trained(shape, TunerSettings(rank, targets=targets)).elements


@pytest.mark.parametrize(
    ("alias", "parameters"),
    [
        ("llama3.1-8b", 8_030_261_248),
        ("deepseek-r1-8b", 8_030_261_248),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-7b", 7_615_616_512),
        ("llama2-7b", 6_738_415_616),
        ("llama2-13b", 13_015_864_320),
    ],
)
def test_a_model_has_as_many_parameters_as_published(alias: str, parameters: int) -> None:
    assert SPECS[alias].shape.parameters == parameters


@pytest.mark.parametrize(
    ("alias", "trainable", "total"),
    [("qwen2.5-1.5b", 9_232_384, 1_552_946_688), ("llama3.1-8b", 20_971_520, 8_051_232_768)],
)
def test_lora_of_rank_8_adds_its_known_number_of_parameters(alias: str, trainable: int, total: int) -> None:
    shape = SPECS[alias].shape
    assert lora_parameters(shape, 8) == trainable
    assert shape.parameters + lora_parameters(shape, 8) == total


def test_lora_grows_with_rank_and_targets() -> None:
    shape = SPECS["qwen2.5-1.5b"].shape
    assert lora_parameters(shape, 16) == 2 * 9_232_384
    # q: 1536 + 1536, v: 1536 + 256, in 28 layers
    assert lora_parameters(shape, 8, ("q_proj", "v_proj")) == 28 * 8 * (3072 + 1792)
    assert lora_parameters(shape, 8, ("no_such_layer",)) == 0


def _real_config(alias: str) -> Any:
    from transformers import LlamaConfig, Qwen2Config

    shape = SPECS[alias].shape
    kind = Qwen2Config if shape.qkv_bias else LlamaConfig
    return kind(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        tie_word_embeddings=shape.tied_embeddings,
    )


@pytest.mark.parametrize(
    ("alias", "trainable", "total"),
    [("qwen2.5-1.5b", 9_232_384, 1_552_946_688), ("llama3.1-8b", 20_971_520, 8_051_232_768)],
)
def test_a_real_model_with_lora_of_rank_8_has_exactly_these_parameters(
    alias: str, trainable: int, total: int
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(_real_config(alias))
        model = LORA.attach(base, TunerSettings())
    assert model.get_nb_trainable_parameters() == (trainable, total)


@pytest.mark.parametrize("alias", SPECS)
def test_the_shape_read_from_a_config_file_is_the_shape_in_the_registry(alias: str) -> None:
    config = _real_config(alias).to_dict()
    assert ModelShape.from_config(config) == SPECS[alias].shape


def test_an_unknown_architecture_has_no_shape() -> None:
    assert ModelShape.from_config({"model_type": "gpt2", "n_embd": 8}) is None


# --- resolve ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("llama3.1-8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("QWEN2.5-1.5B", "Qwen/Qwen2.5-1.5B-Instruct"),
        ("llama2", "meta-llama/Llama-2-7b-chat-hf"),
        ("META-LLAMA/llama-2-7B-chat-hf", "meta-llama/Llama-2-7b-chat-hf"),
        ("deepseek-ai/deepseek-r1-distill-llama-8b", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
    ],
)
def test_an_alias_or_hub_id_in_any_letter_case_is_that_model(name: str, hub_id: str) -> None:
    model = resolve(name)
    assert isinstance(model, BaseModel)
    assert (model.location, model.is_local) == (hub_id, False)
    assert model.spec is not None
    assert (model.shape, model.context_length) == (model.spec.shape, model.spec.context_length)


@pytest.mark.parametrize(
    ("alias", "cutoff", "is_stated"),
    [
        ("llama3.1-8b", date(2023, 12, 31), True),
        ("llama2-7b", date(2023, 7, 31), True),
        ("llama2-13b", date(2023, 7, 31), True),
        ("qwen2.5-1.5b", date(2024, 9, 19), False),
        ("qwen2.5-7b", date(2024, 9, 19), False),
        ("deepseek-r1-8b", date(2025, 1, 20), False),
    ],
)
def test_a_model_read_no_news_after_its_stated_cutoff_or_else_its_release(
    alias: str, cutoff: date, is_stated: bool
) -> None:
    model = resolve(alias)
    assert isinstance(model, BaseModel)
    assert model.spec is not None
    assert (model.spec.knowledge_cutoff, model.spec.cutoff_is_stated) == (cutoff, is_stated)


def test_a_hub_id_that_is_not_listed_is_taken_without_a_shape() -> None:
    assert resolve("owner/some-model") == BaseModel("owner/some-model", is_local=False)


@pytest.mark.parametrize("name", ["llama9", "a/b/c", "/nowhere/at/all", "./nowhere", "owner/"])
def test_an_unknown_name_is_answered_with_the_aliases(name: str) -> None:
    problem = resolve(name)
    assert isinstance(problem, Problem)
    assert problem.where == "--base_model"
    assert problem.found == f"{name!r} is no known alias and no folder."
    assert "llama2-13b, llama2-7b, llama3.1-8b, qwen2.5-1.5b, qwen2.5-7b" in problem.way_out


TOY = {
    "model_type": "llama",
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 8,
    "vocab_size": 10,
    "max_position_embeddings": 512,
}


def _folder(path: Path, config: bytes | None, tokenizer: str | None = "tokenizer.json") -> str:
    path.mkdir(parents=True)
    if config is not None:
        (path / "config.json").write_bytes(config)
    if tokenizer:
        (path / tokenizer).write_text("{}")
    save_file({"lm_head.weight": np.zeros((10, 4))}, path / "model.safetensors")
    return str(path)


@pytest.mark.parametrize("tokenizer", ["tokenizer.json", "tokenizer.model"])
def test_a_folder_is_a_local_model_with_the_shape_of_its_config(tokenizer: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "base", json.dumps(TOY).encode(), tokenizer)
    assert resolve(folder) == BaseModel(folder, True, ModelShape(4, 2, 2, 1, 2, 8, 10), 512)


def test_a_folder_wins_over_a_hub_id_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _folder(tmp_path / "Qwen/Qwen2.5-1.5B-Instruct", json.dumps(TOY).encode())
    model = resolve("Qwen/Qwen2.5-1.5B-Instruct")
    assert isinstance(model, BaseModel)
    assert (model.is_local, model.context_length, model.spec) == (True, 512, None)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"model_type": ', id="cut off"),
        pytest.param(b"[]", id="not an object"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
    ],
)
def test_a_folder_without_a_readable_config_is_refused(config: bytes | None, tmp_path: Path) -> None:
    problem = resolve(_folder(tmp_path / "base", config))
    assert isinstance(problem, Problem)
    assert problem.where == "--base_model"
    assert "base has no readable config.json (" in problem.found


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        (
            "max_position_embeddings",
            "4096",
            "max_position_embeddings is '4096': it should be a valid integer",
        ),
        ("hidden_size", -1, "hidden_size is -1: it should be greater than or equal to 1"),
        (
            "num_hidden_layers",
            10**9,
            "num_hidden_layers is 1000000000: it should be less than or equal to 10000",
        ),
        ("rms_norm_eps", float("nan"), "rms_norm_eps is nan: it should be a finite number"),
        ("attention_dropout", 7.5, "attention_dropout is 7.5: it should be less than 1"),
        (
            "rope_parameters",
            {"rope_type": "linear", "factor": -3},
            "rope_parameters.factor is -3: it should be greater than or equal to 1",
        ),
        ("vocab_size", [1], "vocab_size is [1]: it should be a valid integer"),
    ],
)
def test_a_config_with_a_wrong_field_is_refused_by_name(
    field: str, value: Any, found: str, tmp_path: Path
) -> None:
    problem = resolve(_folder(tmp_path / "base", json.dumps({"model_type": "llama", field: value}).encode()))
    assert isinstance(problem, Problem)
    assert problem.found.endswith(f"base has no readable config.json ({found}).")


def test_a_config_that_lacks_the_sizes_of_its_architecture_does_not_raise(tmp_path: Path) -> None:
    model = resolve(_folder(tmp_path / "base", b'{"model_type": "llama"}'))
    assert isinstance(model, Problem) or model.shape is None


def test_weights_of_more_layers_than_the_config_says_are_refused(tmp_path: Path) -> None:
    folder = Path(_folder(tmp_path / "base", json.dumps(TOY).encode()))
    tensors = {f"model.layers.{layer}.mlp.up_proj.weight": np.zeros((8, 4)) for layer in range(3)}
    save_file(tensors, folder / "model.safetensors")
    problem = resolve(str(folder))
    assert isinstance(problem, Problem)
    assert problem.found.endswith("base has a config.json with num_hidden_layers 2, and weights of 3 layers.")


def test_an_index_names_no_files_elsewhere(tmp_path: Path) -> None:
    folder = Path(_folder(tmp_path / "base", json.dumps(TOY).encode()))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"lm_head.weight": "../other"}}')
    problem = resolve(str(folder))
    assert isinstance(problem, Problem)
    assert "(model.safetensors.index.json lm_head.weight is '../other': it should match" in problem.found


def test_a_base_folder_that_holds_an_adapter_is_refused(tmp_path: Path) -> None:
    folder = Path(_folder(tmp_path / "base", json.dumps(TOY).encode()))
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "another/base"}')
    problem = resolve(str(folder))
    assert isinstance(problem, Problem)
    assert problem.found.endswith("base holds an adapter (adapter_config.json) beside a model.")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = Path(_folder(tmp_path / "base", json.dumps(TOY).encode()))
    (folder / "model.safetensors").unlink()
    problem = resolve(str(folder))
    assert isinstance(problem, Problem)
    assert problem.found.endswith("base has no weights.")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    problem = resolve(_folder(tmp_path / "base", json.dumps(TOY).encode(), tokenizer=None))
    assert isinstance(problem, Problem)
    assert problem.found.endswith("base has no tokenizer.")
