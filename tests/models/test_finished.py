"""The folder of a training that has ended, and what can be wrong with it. No weights are loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from forecaster.errors import ConfigurationError
from forecaster.files import sha256_of
from forecaster.models.finished import newest_of_walk, read_finished, weights_sha256

FLAGS = {
    "dataset": "rows.jsonl",
    "lora_r": 8,
    "max_length": 1024,
    "max_new_tokens": 64,
    "run_name": "a",
}
RECORD = {
    "flags": FLAGS,
    "resolved": {"base_model": "qwen2.5-1.5b", "precision": "bf16", "quantization": "none"},
}
DATA = {"fingerprint_sha256": "0", "training_labels": {"up by 1-2%": 3}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    write(path / "run_config.json", RECORD)
    write(path / "dataset.json", DATA)
    write(path / "log_history.json", [])
    write(path / "adapter_config.json", {})
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    (path / "chat_template.jinja").write_text("{{ messages }}")
    return path


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_finished(folder)
    (problem,) = caught.value.problems
    return str(problem)


def test_a_finished_run_tells_its_base_model_its_flags_and_its_data(folder: Path) -> None:
    run = read_finished(folder)
    assert (run.folder, run.flags, run.resolved["precision"]) == (folder, FLAGS, "bf16")
    assert run.dataset_record == DATA
    assert (run.base.location, run.base.is_local) == ("Qwen/Qwen2.5-1.5B-Instruct", False)
    assert run.log_history == folder / "log_history.json"
    assert weights_sha256(run.folder) == sha256_of(folder / "adapter_model.safetensors")


def test_no_folder_and_a_file_are_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("nowhere", "file"):
        assert refusal(tmp_path / name) == (
            f"--adapter: {tmp_path / name} is no folder. Give the output folder of a training that has ended."
        )


@pytest.mark.parametrize(
    "name",
    [
        "run_config.json",
        "dataset.json",
        "log_history.json",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
    ],
)
def test_every_file_that_is_missing_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder) == (
        f"--adapter: {folder} lacks {name}. Give the output folder of a training that has ended."
    )


def test_all_missing_files_are_named_at_once_and_a_folder_is_no_file(folder: Path) -> None:
    (folder / "dataset.json").unlink()
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.safetensors").mkdir()
    assert "lacks dataset.json, adapter_model.safetensors. Give" in refusal(folder)


# --- a fully fine-tuned model -------------------------------------------------------------------------------


@pytest.fixture
def full(folder: Path) -> Path:
    write(folder / "run_config.json", RECORD | {"resolved": RECORD["resolved"] | {"tuner": "full"}})
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).unlink()
    write(folder / "config.json", {})
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_fully_fine_tuned_run_has_a_model_instead_of_an_adapter(full: Path) -> None:
    run = read_finished(full)
    assert (run.tuner.name, run.lora_rank) == ("full", None)
    assert weights_sha256(full) == sha256_of(full / "model.safetensors")


def test_a_run_of_before_the_flag_is_lora(folder: Path) -> None:
    run = read_finished(folder)
    assert (run.tuner.name, run.lora_rank) == ("lora", 8)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_every_file_that_a_model_lacks_is_named(full: Path, name: str) -> None:
    (full / name).unlink()
    assert f"lacks {name}. Give" in refusal(full)


def test_a_model_in_shards_needs_them_all(full: Path) -> None:
    (full / "model.safetensors").unlink()
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    weight_map = {"a": shards[1], "b": shards[0], "c": shards[1]}
    write(full / "model.safetensors.index.json", {"weight_map": weight_map})
    assert f"lacks {', '.join(shards)}. Give" in refusal(full)
    for name in shards:
        (full / name).write_bytes(b"weights")
    assert read_finished(full).tuner.name == "full"
    (full / "model.safetensors.index.json").write_text("{")
    assert f"{full / 'model.safetensors.index.json'}: is not whole JSON (line 1: " in refusal(full)


def test_a_tuner_that_nobody_knows_is_a_damaged_record(full: Path) -> None:
    write(full / "run_config.json", RECORD | {"resolved": RECORD["resolved"] | {"tuner": "none"}})
    assert "lacks adapter_config.json" in refusal(full)
    write(full / "adapter_config.json", {})
    (full / "adapter_model.safetensors").write_bytes(b"weights")
    assert "run_config.json: resolved.tuner is 'none': it should be one of lora, qlora" in refusal(full)


# --- the chat template --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.json", {"chat_template": "{{ messages }}"}),
        ("tokenizer_config.json", {"chat_template": "{{ messages }}"}),
        ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": "{{ messages }}"}]}),
    ],
)
def test_a_template_may_stand_in_another_file(folder: Path, name: str, content: Any) -> None:
    (folder / "chat_template.jinja").unlink()
    write(folder / name, content)
    assert read_finished(folder).folder == folder


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"chat_template": null}', '{"chat_template": ""}', "\udcff"]
)
def test_a_tokenizer_without_a_template_is_no_finished_run(folder: Path, text: str) -> None:
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert "lacks chat_template.jinja. Give" in refusal(folder)


# --- the base model -----------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.mkdir()
    for name in ("tokenizer.json", "config.json"):
        write(path / name, {})
    save_file({"lm_head.weight": np.zeros(1)}, path / "model.safetensors")
    return path


def test_a_base_model_in_a_folder_is_found_there(folder: Path, base: Path) -> None:
    write(folder / "run_config.json", RECORD | {"resolved": RECORD["resolved"] | {"base_model": str(base)}})
    assert (read_finished(folder).base.location, read_finished(folder).base.is_local) == (str(base), True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "is no known alias and no folder. Use an alias ("),
        (lambda base: (base / "config.json").unlink(), "has no readable config.json (is missing). Give"),
        (lambda base: (base / "tokenizer.json").unlink(), "has no tokenizer. Save the tokenizer beside"),
        (lambda base: (base / "model.safetensors").unlink(), "has no weights. Copy its *.safetensors files"),
    ],
    ids=["gone", "without config", "without tokenizer", "without weights"],
)
def test_a_base_model_that_is_no_longer_there_is_told(
    folder: Path, base: Path, spoil: Callable[[Path], object], message: str
) -> None:
    write(folder / "run_config.json", RECORD | {"resolved": RECORD["resolved"] | {"base_model": str(base)}})
    spoil(base)
    found = refusal(folder)
    assert found.startswith("--base_model: ")
    assert str(base) in found
    assert message in found


def test_a_base_model_that_was_moved_is_found_where_it_is_named(folder: Path) -> None:
    record = {"flags": FLAGS, "resolved": RECORD["resolved"] | {"base_model": "/gone/base"}}
    write(folder / "run_config.json", record)
    assert refusal(folder).endswith("If it was moved, name where it lies now with --base_model.")
    assert read_finished(folder, "sample/base").base.location == "sample/base"


# --- a walk's folder ----------------------------------------------------------------------------------------


def ended(walk: Path, *runs: str) -> Path:
    for run in runs:
        (walk / run).mkdir(parents=True)
        write(walk / run / "log_history.json", [])
    walk.mkdir(exist_ok=True)
    write(walk / "walk.json", {})
    return walk


def test_a_walk_keeps_the_first_seed_of_the_last_cut_that_has_ended(tmp_path: Path) -> None:
    walk = ended(tmp_path / "walk", "2023-12-31/seed_9", "2024-06-30/seed_10", "2024-06-30/seed_9")
    (walk / "2024-12-29" / "seed_9").mkdir(parents=True)  # under way
    assert newest_of_walk(walk) == walk / "2024-06-30" / "seed_9"
    assert newest_of_walk(walk / "2023-12-31" / "seed_9") == walk / "2023-12-31" / "seed_9"


def test_a_walk_of_which_nothing_has_ended_says_so(tmp_path: Path) -> None:
    walk = ended(tmp_path / "walk")
    with pytest.raises(ConfigurationError) as caught:
        newest_of_walk(walk)
    assert str(caught.value) == (
        f"--adapter: {walk} is a walk of which no training has ended. Go on with walk_forward.py first."
    )
