"""What decides whether vLLM answers, and what it is told; the engine itself runs where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal, get_args

import pytest
from small_runs import BASE, finished_run, write_dataset

from forecaster.answering import engines, vllm_engine
from forecaster.errors import ConfigurationError
from forecaster.evaluation.benchmark_config import parse_flags
from forecaster.jobs import benchmark_checks
from forecaster.models.numerics import Precision
from forecaster.models.tuners import TUNERS
from forecaster.settings import Settings

NOT_INSTALLED = (
    "--engine vllm: vllm is not installed. Install it into an environment of its own (it needs another "
    "torch), or use --engine hf."
)
NO_GPU = "--engine vllm: there is no GPU. Use --engine hf."
HERE = importlib.util.find_spec("vllm") is not None
without_vllm = pytest.mark.skipif(HERE, reason="vllm is installed")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "is_installed", lambda: True)


def problems(
    quantization: Literal["none", "4bit"] = "none",
    ranks: int = 1,
    has_gpu: bool = True,
    tuner: str | None = None,
    lora_rank: int | None = None,
) -> list[str]:
    return [
        str(found)
        for found in vllm_engine.problems(
            quantization, ranks, has_gpu, TUNERS[tuner] if tuner else None, lora_rank
        )
    ]


def test_it_says_whether_vllm_can_be_imported() -> None:
    assert vllm_engine.is_installed() is HERE


# --- who answers --------------------------------------------------------------------------------------------


@without_vllm
def test_without_vllm_transformers_answers() -> None:
    assert engines.choose_engine("auto", "none", 1) == "hf"


@pytest.mark.parametrize(
    ("gpu", "quantization", "ranks", "engine"),
    [
        (True, "none", 1, "vllm"),
        (False, "none", 1, "hf"),
        (True, "4bit", 1, "hf"),
        (True, "none", 2, "hf"),
    ],
)
def test_vllm_answers_by_itself_only_where_it_can(
    installed: None,
    monkeypatch: pytest.MonkeyPatch,
    gpu: bool,
    quantization: Literal["none", "4bit"],
    ranks: int,
    engine: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    assert engines.choose_engine("auto", quantization, ranks) == engine


@pytest.mark.parametrize("asked", ["hf", "vllm"])
def test_what_is_asked_for_is_taken(asked: Literal["hf", "vllm"]) -> None:
    assert engines.choose_engine(asked, "4bit", 2) == asked


# --- what stands against it ---------------------------------------------------------------------------------


def test_nothing_stands_against_it_on_one_gpu_with_full_weights(installed: None) -> None:
    assert problems() == problems(tuner="lora", lora_rank=8) == problems(lora_rank=512) == []
    assert problems(tuner="rslora", lora_rank=8) == []


@without_vllm
def test_what_is_not_installed_is_told_with_both_ways_out() -> None:
    assert problems() == [NOT_INSTALLED]


def test_each_hindrance_is_told_with_its_way_out(installed: None) -> None:
    assert problems(has_gpu=False) == [NO_GPU]
    assert problems(quantization="4bit") == [
        "--engine vllm: cannot load the base model in 4bit. Use --engine hf."
    ]
    assert problems(ranks=2) == [
        "--engine vllm: takes one rank, and there are 2. Start one process, or use --engine hf, which shares "
        "the rows among ranks."
    ]
    assert problems(lora_rank=513) == [
        "--engine vllm: makes room for adapters up to rank 512, and this one has 513. Use --engine hf."
    ]
    assert problems(tuner="dora", lora_rank=8) == [
        "--engine vllm: cannot load DoRA adapters. Use --engine hf."
    ]
    assert problems(tuner="full") == [
        "--engine vllm: holds one set of weights; a fully fine-tuned model and its base are two. "
        "Use --engine hf."
    ]


@without_vllm
def test_all_hindrances_are_told_at_once() -> None:
    assert len(problems("4bit", 2, False, "dora", 1024)) == 6


@without_vllm
def test_a_benchmark_that_cannot_use_it_is_refused_before_anything_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_checks, "detect_gpus", lambda: ())
    write_dataset(tmp_path)
    run = finished_run(tmp_path / "run", tmp_path)
    before = sorted(run.rglob("*"))
    base_alone = ("--base_model", str(BASE), "--dataset", str(tmp_path / "test.jsonl"))
    for flags in (("--adapter", str(run)), base_alone):
        with pytest.raises(ConfigurationError) as caught:
            benchmark_checks.resolve(parse_flags([*flags, "--engine", "vllm"]), Settings())
        assert [str(found) for found in caught.value.problems] == [NOT_INSTALLED, NO_GPU]
    assert sorted(run.rglob("*")) == before


# --- what it is told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rank", "room"),
    [(1, 1), (2, 8), (8, 8), (9, 16), (17, 32), (64, 64), (100, 128), (257, 320), (512, 512), (513, None)],
)
def test_room_is_made_for_the_next_rank_that_it_knows(rank: int, room: int | None) -> None:
    assert vllm_engine.room_for(rank) == room


def test_an_adapter_has_a_number_of_its_own_that_fits_into_32_bits() -> None:
    first, second = (vllm_engine.lora_id(Path("runs") / name) for name in ("a", "b"))
    assert first == vllm_engine.lora_id(Path("runs/a"))
    assert first != second
    assert all(1 <= number < 2**31 for number in (first, second))


def test_every_precision_has_a_name_that_vllm_knows() -> None:
    assert vllm_engine.DTYPES == {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
    assert set(get_args(Precision)) == set(vllm_engine.DTYPES)
