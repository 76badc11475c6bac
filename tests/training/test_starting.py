"""Training on from another training's adapter: what it is refused for, and that its weights are taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import ROOT, call_entry
from safetensors.torch import load_file
from small_runs import finished_run, write_dataset

from forecaster.fit.hardware import HardwareChoice
from forecaster.models.registry import BaseModel, resolve
from forecaster.training import fine_tuning, starting
from forecaster.training.run import Run
from forecaster.training.train_config import TrainConfig

BASE = str(ROOT / "sample" / "base")


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with r 2, on the sample's base."""
    data = tmp_path_factory.mktemp("former")
    write_dataset(data)
    return finished_run(data / "run", data)


def config(former: Path, **flags: Any) -> TrainConfig:
    return replace(TrainConfig(BASE, "rows.jsonl", from_adapter=former, lora_r=2), **flags)


def told(asked: TrainConfig) -> list[str]:
    base = resolve(asked.base_model)
    assert isinstance(base, BaseModel)
    return [str(problem).strip() for problem in starting.find_problems(asked, base)]


def test_an_adapter_of_the_same_form_has_no_problem(former: Path) -> None:
    assert told(config(former)) == []
    assert told(config(former, from_adapter=None)) == []


@pytest.mark.parametrize(
    ("flags", "found", "given", "names"),
    [
        ({"lora_r": 8}, "lora_r 2", "lora_r 8", "--lora_r"),
        (
            {"lora_r": 4, "lora_alpha": 8},
            "lora_r 2, lora_alpha 16",
            "lora_r 4, lora_alpha 8",
            "--lora_r and --lora_alpha",
        ),
        (
            {"target_modules": "v_proj, q_proj"},
            "target_modules down_proj,gate_proj,k_proj,o_proj,q_proj,up_proj,v_proj",
            "target_modules q_proj,v_proj",
            "--target_modules",
        ),
        ({"tuner": "dora"}, "tuner lora", "tuner dora", "--tuner"),
    ],
)
def test_an_adapter_of_another_form_is_refused(
    former: Path, flags: dict[str, Any], found: str, given: str, names: str
) -> None:
    assert told(config(former, **flags)) == [
        f"--from_adapter: {former} was trained with {found}; this run has {given}. "
        f"Give the former {names}, or start anew without it."
    ]


def test_low_rank_factors_do_not_start_a_whole_model(former: Path) -> None:
    assert told(config(former, tuner="full")) == [
        "--from_adapter: goes with low-rank factors, and --tuner is full. Use --tuner lora, or leave it out."
    ]


def test_no_run_and_a_damaged_adapter_are_told_by_file(former: Path, tmp_path: Path) -> None:
    assert told(config(tmp_path / "nowhere")) == [
        f"--from_adapter: {tmp_path / 'nowhere'} is no folder. Give the output folder of a training that has "
        "ended."
    ]
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in former.iterdir():
        if file.is_file():
            (damaged / file.name).write_bytes(
                file.read_bytes()[:900] if file.suffix == ".safetensors" else file.read_bytes()
            )
    (message,) = told(config(damaged))
    assert message.startswith(f"--from_adapter: {damaged / 'adapter_model.safetensors'}: ")


def test_the_factors_are_those_of_the_adapter_and_the_record_names_them(former: Path, tmp_path: Path) -> None:
    run = Run(
        config(former),
        BaseModel(BASE, is_local=True),
        HardwareChoice("fp32", "none", False, None, ()),
        (),
        tmp_path,
        None,
    )
    model = fine_tuning.build_model(run)
    saved = load_file(former / "adapter_model.safetensors")
    found = {name.replace(".default", ""): t for name, t in model.named_parameters() if "lora_" in name}
    assert found.keys() == saved.keys() and len(saved) == 56
    assert all(torch.equal(found[name], tensor) for name, tensor in saved.items())
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" in name)
    record = fine_tuning.run_record(run, "llama", 4, {}, 1)
    assert record["flags"]["from_adapter"] == str(former)
    assert len(record["resolved"]["from_adapter_sha256"]) == 64


def test_a_dry_run_refuses_it_with_status_2(former: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path)
    words = ["--base_model", BASE, "--dataset", "train.jsonl", "--test_dataset", "test.jsonl", "--dry_run"]
    words += ["--max_length", "1024", "--report_to", "none", "--from_adapter", str(former), "--lora_r", "3"]
    done = call_entry("train_lora.py", tmp_path, *words)
    assert (done.returncode, done.stderr) == (
        2,
        "\ntrain_lora.py cannot start, 1 to mend:\n"
        f"  - --from_adapter: {former} was trained with lora_r 2; this run has lora_r 3. Give the former "
        "--lora_r, or start anew without it.\n",
    )
