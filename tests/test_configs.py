"""Every named run: its file parses, its commands work, and it fits the GPU that it names."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from forecaster.cluster.launch_config import split_flags
from forecaster.fit.gpus import Gpu
from forecaster.fit.hardware import HardwareChoice, choose
from forecaster.fit.memory import USABLE_SHARE
from forecaster.models import registry
from forecaster.training.train_config import (
    TrainConfig,
    asked_of_hardware,
    find_model_problems,
    find_value_problems,
    parse_flags,
)

ROOT = Path(__file__).resolve().parents[1]
FILES = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
GPUS = {
    "t4": Gpu(0, "GPU-0", "Tesla T4", 15360 * 2**20, (7, 5), "550.54.15"),
    "a100": Gpu(0, "GPU-1", "NVIDIA A100-SXM4-40GB", 40960 * 2**20, (8, 0), "550.54.15"),
}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def _flags(name: str) -> TrainConfig:
    return parse_flags(["--config", f"configs/{name}.yaml"])


def _model(name: str) -> registry.BaseModel:
    model = registry.resolve(_flags(name).base_model)
    assert isinstance(model, registry.BaseModel), str(model)
    return model


def _gpu(name: str) -> Gpu | None:
    if name == "embedded":
        return None
    return GPUS["t4" if name.endswith("-t4") else "a100"]


def _content(name: str) -> dict[str, Any]:
    content = yaml.safe_load(FILES[name].read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def _differing(one: str, other: str) -> set[str]:
    a, b = _content(one), _content(other)
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def test_every_known_model_has_a_run_for_either_gpu() -> None:
    for model in registry.MODELS:
        assert {f"{model.alias}-t4", f"{model.alias}-a100"} <= set(FILES)
    assert "embedded" in FILES


@pytest.mark.parametrize("name", FILES)
def test_a_run_parses_and_has_no_bad_value(name: str) -> None:
    flags = _flags(name)
    assert flags.run_name == name
    assert find_value_problems(flags) == []


@pytest.mark.parametrize("name", FILES)
def test_the_model_of_a_run_is_known_and_reads_its_length(name: str) -> None:
    model = _model(name)
    assert find_model_problems(_flags(name), model) == []
    assert model.shape is not None
    assert model.is_local is (name == "embedded")


@pytest.mark.parametrize("name", FILES)
def test_the_two_commands_on_top_of_a_file_start_that_file(name: str) -> None:
    title, first, second = FILES[name].read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ")
    expected = parse_flags(["--config", f"configs/{name}.yaml"])

    program, *words = shlex.split(first.removeprefix("#"))
    assert program == "./train.sh"
    own, rest = split_flags(words)
    # Published settings count rows per step: several GPUs would multiply them.
    assert (own.gpus, own.no_benchmark) == ("0" if "published" in name else None, False)
    assert parse_flags(rest) == expected

    words = shlex.split(second.removeprefix("#"))
    assert words[:4] == ["deepspeed", "--include", "localhost:0", "train_lora.py"]
    assert parse_flags(words[4:]) == expected


@pytest.mark.parametrize("name", FILES)
def test_the_hardware_that_a_run_names_accepts_it(name: str) -> None:
    flags, model, gpu = _flags(name), _model(name), _gpu(name)
    choice = choose([gpu] if gpu else [], 1, shape=model.shape, asked=asked_of_hardware(flags, ()))
    assert isinstance(choice, HardwareChoice), [str(problem) for problem in choice]
    expected = "fp32" if gpu is None else "bf16" if gpu.has_bf16 else "fp16"
    assert choice.precision == expected
    assert choice.ds_config is not None
    assert choice.ds_config.name == ("fp32_zero0.json" if gpu is None else f"{expected}_zero2.json")


@pytest.mark.parametrize("name", [name for name in FILES if name != "embedded"])
def test_a_run_fits_the_memory_of_the_gpu_that_it_names(name: str) -> None:
    flags, model, gpu = _flags(name), _model(name), _gpu(name)
    assert model.shape is not None
    assert gpu is not None
    choice = choose([gpu], 1, shape=model.shape, asked=asked_of_hardware(flags, ()))
    assert isinstance(choice, HardwareChoice)
    assert choice.plan
    assert choice.plan.chosen
    assert choice.plan.chosen.bytes.total <= USABLE_SHARE * gpu.memory_bytes
    rows = (choice.micro_batch_size or 0) * (choice.gradient_accumulation_steps or 0)
    assert rows == flags.batch_size * flags.gradient_accumulation_steps


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("-t4")])
def test_a_t4_runs_fp16(name: str) -> None:
    assert _flags(name).precision == "fp16"


@pytest.mark.parametrize("alias", [model.alias for model in registry.MODELS])
def test_the_runs_of_one_model_differ_by_what_the_gpu_asks_for_only(alias: str) -> None:
    assert _differing(f"{alias}-t4", f"{alias}-a100") <= {
        "run_name",
        "max_length",
        "precision",
        "quantization",
        "batch_size",
        "gradient_accumulation_steps",
    }


@pytest.mark.parametrize("gpu", ["t4", "a100"])
@pytest.mark.parametrize("alias", [model.alias for model in registry.MODELS])
def test_the_runs_for_one_gpu_differ_by_the_model_and_what_it_needs_only(alias: str, gpu: str) -> None:
    assert _differing(f"{alias}-{gpu}", f"llama3.1-8b-{gpu}") <= {
        "run_name",
        "base_model",
        "max_length",
        "quantization",
        "batch_size",
        "gradient_accumulation_steps",
    }


@pytest.mark.parametrize("name", [name for name in FILES if name != "embedded"])
def test_every_run_takes_16_rows_for_an_optimizer_step(name: str) -> None:
    flags = _flags(name)
    assert flags.batch_size * flags.gradient_accumulation_steps == 16


@pytest.mark.parametrize("alias", ["llama3.1-8b", "deepseek-r1-8b"])
def test_the_published_settings_are_rank_6_for_one_epoch_and_rank_8_for_three(alias: str) -> None:
    r6, r8 = _flags(f"{alias}-published-r6"), _flags(f"{alias}-published-r8")
    assert (r6.lora_r, r6.lora_alpha, r6.learning_rate, r6.num_epochs) == (6, 12, 1e-5, 1.0)
    assert (r8.lora_r, r8.lora_alpha, r8.learning_rate, r8.num_epochs) == (8, 16, 5e-5, 3.0)
    assert _differing(f"{alias}-published-r6", f"{alias}-published-r8") == {
        "run_name",
        "lora_r",
        "lora_alpha",
        "learning_rate",
        "num_epochs",
    }


@pytest.mark.parametrize("rank", ["r6", "r8"])
def test_the_published_settings_are_the_same_for_both_models(rank: str) -> None:
    assert _differing(f"llama3.1-8b-published-{rank}", f"deepseek-r1-8b-published-{rank}") == {
        "run_name",
        "base_model",
    }


def test_the_embedded_run_needs_nothing_from_elsewhere() -> None:
    flags = _flags("embedded")
    assert flags.from_remote is False
    assert Path(flags.base_model).is_dir()
    assert Path(flags.dataset).is_file()
    assert flags.test_dataset is not None
    assert Path(flags.test_dataset).is_file()
