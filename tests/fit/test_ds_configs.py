"""Every DeepSpeed file: DeepSpeed itself accepts it, and it is what its name says and nothing more."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import ROOT, free_port, run

from forecaster.fit.ds_files import (
    DS_CONFIG_FOLDER,
    DsConfig,
    check_ds_config,
    ds_config_files,
    read_ds_config,
)
from forecaster.models.numerics import Precision

FILES = {path.stem: path for path in ds_config_files()}
NAME = re.compile(r"(?P<precision>fp32|fp16|bf16)_(?P<method>zero(?P<stage>[0-3])(?P<offload>_offload)?)")
# What the Trainer would put where a file says "auto".
AUTO: dict[str, Any] = {
    "train_batch_size": 16,
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 8,
    "gradient_clipping": 1.0,
    "lr": 5e-5,
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0.01,
    "reduce_bucket_size": 1_000_000,
    "stage3_prefetch_bucket_size": 900_000,
    "stage3_param_persistence_threshold": 10_000,
}


def _read(name: str) -> dict[str, Any]:
    content = json.loads(FILES[name].read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def _filled_in(section: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _filled_in(value) if isinstance(value, dict) else AUTO[key] if value == "auto" else value
        for key, value in section.items()
    }


def _precision(name: str) -> Precision:
    match = NAME.fullmatch(name)
    assert match
    return match["precision"]  # type: ignore[return-value]


def _config(name: str) -> DsConfig:
    config = read_ds_config(FILES[name])
    assert isinstance(config, DsConfig)
    return config


@pytest.fixture(scope="module")
def trained() -> dict[str, dict[str, Any]]:
    """What three steps under each 16-bit file without offload did, and three in a plain loop in fp32."""
    names = sorted(name for name in FILES if not name.startswith("fp32") and not name.endswith("offload"))
    script = ROOT / "tests" / "sixteen_bit.py"
    done = run([sys.executable, str(script), str(free_port()), *names], ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert result.keys() == {"fp32", *names}
    return result


def test_16_bit_files_learn_as_a_plain_loop_in_fp32_does(trained: dict[str, dict[str, Any]]) -> None:
    """Factors in the precision of the file, whose fp32 copies DeepSpeed keeps; in fp16 with a loss scale that
    adapts itself."""
    assert trained["fp32"]["losses"][-1] < trained["fp32"]["losses"][0] - 1
    for name, of in trained.items():
        assert of["losses"] == pytest.approx(trained["fp32"]["losses"], abs=0.04), name
        if name != "fp32":
            precision = _precision(name)
            assert of["dtype"] == {"fp16": "torch.float16", "bf16": "torch.bfloat16"}[precision], name
            assert (of["scaler"] == "DynamicLossScaler") == (precision == "fp16"), name


def test_zero2_adds_16_bit_gradients_up_in_fp32(trained: dict[str, dict[str, Any]]) -> None:
    """16 equal micro steps, each divided by 16, are one: in bf16, the last ones are rounded to what the sum
    can hold."""
    assert trained["bf16_zero2"]["accumulation_error"] < 1e-6
    assert trained["bf16_zero2"]["error_in_16_bit"] > 1e-3
    for name in ("bf16_zero2", "fp16_zero2"):
        assert _read(name)["data_types"] == {"grad_accum_dtype": "fp32"}


def test_the_files_are_these() -> None:
    assert sorted(FILES) == [
        "bf16_zero2",
        "bf16_zero2_offload",
        "bf16_zero3",
        "bf16_zero3_offload",
        "fp16_zero2",
        "fp16_zero2_offload",
        "fp16_zero3",
        "fp16_zero3_offload",
        "fp32_zero0",
        "fp32_zero2",
        "fp32_zero3",
    ]


@pytest.mark.parametrize("name", FILES)
def test_deepspeed_reads_a_file_as_what_its_name_says(name: str) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    match = NAME.fullmatch(name)
    assert match
    read = DeepSpeedConfig(_filled_in(_read(name)))
    assert read.zero_optimization_stage == int(match["stage"] or 0)
    assert read.float16_config.enabled is (match["precision"] == "fp16")
    assert read.bfloat16_config.enabled is (match["precision"] == "bf16")
    assert read.optimizer_name is None
    assert (read.gradient_accumulation_steps, read.gradient_clipping) == (8, 1.0)
    assert (read.zero_config.offload_optimizer is not None) is bool(match["offload"])
    assert (read.zero_config.offload_param is not None) is (match["method"] == "zero3_offload")


@pytest.mark.parametrize("name", FILES)
def test_a_file_passes_the_projects_own_check_for_its_precision_and_no_other(name: str) -> None:
    own = _precision(name)
    assert check_ds_config(_config(name), own, "none") == []
    for other in {"fp32", "fp16", "bf16"} - {own}:
        problems = check_ds_config(_config(name), other, "none")  # type: ignore[arg-type]
        assert len(problems) == 1
        assert f"asks for {own}, but the precision is {other}" in str(problems[0])


@pytest.mark.parametrize("name", [name for name in FILES if "zero3" not in name])
def test_four_bit_weights_work_with_every_file_but_those_of_stage_3(name: str) -> None:
    assert check_ds_config(_config(name), _precision(name), "4bit") == []


@pytest.mark.parametrize("method", sorted({name.split("_", 1)[1] for name in FILES}))
def test_files_of_one_method_differ_in_the_precision_only(method: str) -> None:
    without_precision = [
        {key: value for key, value in _read(name).items() if key not in ("fp16", "bf16")}
        for name in FILES
        if name.split("_", 1)[1] == method
    ]
    assert all(content == without_precision[0] for content in without_precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_files_of_one_precision_have_one_precision_block(precision: str) -> None:
    blocks = [
        {key: value for key, value in _read(name).items() if key in ("fp16", "bf16")}
        for name in FILES
        if _precision(name) == precision
    ]
    assert all(block == blocks[0] for block in blocks)
    assert list(blocks[0]) == ([] if precision == "fp32" else [precision])


@pytest.mark.parametrize("name", FILES)
def test_what_the_trainer_knows_is_left_to_it(name: str) -> None:
    content = _read(name)
    for key in (
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "gradient_clipping",
    ):
        assert content[key] == "auto"
    assert "scheduler" not in content
    assert "optimizer" not in content


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_stage_3_saves_whole_weights(name: str) -> None:
    section = _read(name)["zero_optimization"]
    assert section.get("stage3_gather_16bit_weights_on_model_save", False) is (section["stage"] == 3)


@pytest.mark.parametrize("name", FILES)
def test_the_readme_explains_both_parts_of_a_name(name: str) -> None:
    text = (DS_CONFIG_FOLDER / "README.md").read_text(encoding="utf-8")
    for part in name.split("_", 1):
        assert f"| `{part}` |" in text


def test_nothing_but_json_and_the_readme_lies_beside_the_files() -> None:
    assert {path.name for path in DS_CONFIG_FOLDER.iterdir() if path.suffix != ".json"} <= {"README.md"}
    assert all(isinstance(path, Path) and path.is_file() for path in FILES.values())
