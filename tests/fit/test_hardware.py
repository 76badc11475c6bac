"""From the GPUs of a machine to precision, quantisation and DeepSpeed file, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nvml_edge
import pytest

from forecaster.errors import Problem
from forecaster.fit import ds_files
from forecaster.fit import gpus as gpus_module
from forecaster.fit.ds_files import DS_CONFIG_FOLDER, check_ds_config, locate_ds_config, read_ds_config
from forecaster.fit.gpu_cards import speed_of
from forecaster.fit.gpus import (
    KNOWN_GPUS,
    Gpu,
    GpuSelectionError,
    built_for,
    describe,
    detect_gpus,
    launcher_indices,
    no_gpu_reason,
    parse_gpus,
    select_gpus,
    torch_mismatch,
)
from forecaster.fit.hardware import Asked, HardwareChoice, choose
from forecaster.models.registry import MODELS
from forecaster.models.tuners import TUNERS

T4 = Gpu(0, "GPU-1a2b3c4d-0000-1111-2222-333344445555", "Tesla T4", 15 * 2**30, (7, 5), "550.54.15")
A100 = Gpu(
    1, "GPU-9f8e7d6c-0000-1111-2222-333344445555", "NVIDIA A100-SXM4-40GB", 40 * 2**30, (8, 0), "550.54.15"
)
SHAPES = {model.alias: model.shape for model in MODELS}


@pytest.fixture(autouse=True)
def empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ask(
    gpus: list[Gpu], ranks: int = 1, alias: str | None = "llama3.1-8b", **flags: Any
) -> HardwareChoice | list[Problem]:
    shape = SHAPES[alias] if alias and gpus else None  # no model of the registry trains on a CPU
    under_deepspeed = flags.pop("under_deepspeed", True)
    asked = Asked(**{"length": 2048, "gradient_accumulation_steps": 16} | flags)
    return choose(gpus, ranks, shape=shape, asked=asked, under_deepspeed=under_deepspeed)


def chosen(gpus: list[Gpu], ranks: int = 1, **flags: Any) -> HardwareChoice:
    choice = ask(gpus, ranks, **flags)
    assert isinstance(choice, HardwareChoice), [str(problem) for problem in choice]
    return choice


def refused(gpus: list[Gpu], ranks: int = 1, **flags: Any) -> list[str]:
    problems = ask(gpus, ranks, **flags)
    assert isinstance(problems, list), problems
    return [str(problem) for problem in problems]


def ds_file(name: str, **content: Any) -> str:
    Path(name).write_text(json.dumps(content))
    return name


# --- what the machine has -----------------------------------------------------------------------------------


def test_gpus_are_those_that_nvml_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml_edge.show(monkeypatch, tmp_path, nvml_edge.T4, nvml_edge.A100)
    assert detect_gpus() == (T4, A100)
    assert no_gpu_reason() == ""
    assert (T4.has_bf16, A100.has_bf16) == (False, True)


def test_each_slice_of_a_gpu_in_mig_mode_is_a_gpu_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sliced = nvml_edge.A100.removesuffix("0") + "1"
    slices = (
        "slice|MIG-aaaa1|A100 MIG 3g.20gb|20937965568",
        "slice|-",
        "slice|MIG-bbbb2|A100 MIG 1g.5gb|5100273664",
    )
    nvml_edge.show(monkeypatch, tmp_path, nvml_edge.T4, sliced, *slices)
    gpus = detect_gpus()
    large = Gpu(1, "MIG-aaaa1", "A100 MIG 3g.20gb", 20_937_965_568, (8, 0), "550.54.15")
    small = Gpu(1, "MIG-bbbb2", "A100 MIG 1g.5gb", 5_100_273_664, (8, 0), "550.54.15")
    assert gpus == (T4, large, small)
    assert [gpu.cuda_name for gpu in gpus] == ["0", "MIG-aaaa1", "MIG-bbbb2"]
    # CUDA shows one slice, and nothing beside it; a number means a GPU's first.
    assert select_gpus(gpus, "MIG-bbbb2") == (small,)
    assert select_gpus(gpus, "1") == (large,)
    assert select_gpus(gpus, "MIG-bbbb2,MIG-aaaa1") == (small,)
    assert select_gpus(gpus[1:], None) == (large,)
    with pytest.raises(GpuSelectionError, match="'MIG-cccc' asked for, GPUs present: 0, 1"):
        select_gpus(gpus, "MIG-cccc")
    assert launcher_indices([large], gpus) == [1]
    with pytest.raises(ValueError, match="chooses the MIG slice MIG-bbbb2, and DeepSpeed's launcher"):
        launcher_indices([small], gpus)
    assert describe([small]) == "1 x A100 MIG 1g.5gb (5 GiB)"


def test_a_gpu_without_memory_of_its_own_has_that_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml_edge.show(monkeypatch, tmp_path, "gpu|GPU-dd|NVIDIA GB10|-|12.1|-")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=119 * 2**30))
    gpus = detect_gpus()
    assert gpus == (Gpu(0, "GPU-dd", "NVIDIA GB10", 119 * 2**30, (12, 1), "550.54.15", is_unified=True),)
    assert describe(gpus) == "1 x NVIDIA GB10 (119 GiB, the memory of the machine)"


def test_a_gpu_that_is_lost_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml_edge.show(monkeypatch, tmp_path, "lost|15", nvml_edge.A100)
    assert detect_gpus() == (A100,)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["init|9"], " (NVML: Driver Not Loaded)"),
        (["init|18"], " (NVML: RM has detected an NVML/RM version mismatch.)"),
        (["lost|15"], " (NVML: GPU 0: GPU is lost)"),
        ([], " (NVML: it lists none)"),
        (["gpu|GPU-9|A100|42949672960|8.0|1"], " (NVML: GPU 0 is in MIG mode and has no slice)"),
    ],
)
def test_a_driver_that_shows_no_gpu_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], reason: str
) -> None:
    nvml_edge.show(monkeypatch, tmp_path, *lines)
    assert detect_gpus() == ()
    assert no_gpu_reason() == reason
    assert describe([]) == f"no GPU{reason}"


def test_a_machine_without_a_driver_has_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml_edge.hide(monkeypatch, tmp_path)
    assert detect_gpus() == ()
    assert no_gpu_reason() == ""


@pytest.mark.parametrize(
    ("asked", "indices"),
    [
        (None, [0, 1]),
        ("0,1", [0, 1]),
        ("1,0", [1, 0]),
        (" 1 ", [1]),
        ("GPU-9f8e", [1]),
        ("GPU-9f8e7d6c-0000-1111-2222-333344445555,0", [1, 0]),
        ("-1", []),
        ("0,-1,1", [0]),
        ("", []),
    ],
)
def test_gpus_are_selected_as_cuda_visible_devices_does(asked: str | None, indices: list[int]) -> None:
    assert [gpu.index for gpu in select_gpus([T4, A100], asked)] == indices


@pytest.mark.parametrize("asked", ["7", "0,7", "GPU-0000", "GPU-", "MIG-1", "all", "0;1", "01"])
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(asked: str) -> None:
    with pytest.raises(GpuSelectionError) as caught:
        select_gpus([T4, A100], asked)
    assert caught.value.present == (0, 1)
    assert caught.value.asked == asked.removeprefix("0,")
    assert str(caught.value).endswith("asked for, GPUs present: 0, 1")


def test_without_a_gpu_there_is_nothing_to_select() -> None:
    assert select_gpus([], "0,1") == ()


def test_gpus_that_a_run_can_be_checked_for_are_as_nvidia_smi_would_list_them() -> None:
    t4, a100 = KNOWN_GPUS["t4"], KNOWN_GPUS["a100-40"]
    assert (t4.name, t4.memory_bytes, t4.compute_capability) == (T4.name, T4.memory_bytes, (7, 5))
    assert (a100.memory_bytes, a100.compute_capability) == (40 * 2**30, (8, 0))
    assert [name for name, gpu in KNOWN_GPUS.items() if not gpu.has_bf16] == ["t4", "v100"]


def test_gpus_are_described_by_kind_and_number() -> None:
    assert describe([]) == "no GPU"
    assert describe([T4, A100, T4]) == "2 x Tesla T4 (15 GiB), 1 x NVIDIA A100-SXM4-40GB (40 GiB)"


# --- what is chosen -----------------------------------------------------------------------------------------


def test_an_8b_on_a_t4_runs_in_fp16_on_four_bit_weights() -> None:
    choice = chosen([T4])
    assert (choice.precision, choice.quantization, choice.gradient_checkpointing) == ("fp16", "4bit", True)
    assert choice.ds_config == DS_CONFIG_FOLDER / "fp16_zero2.json"
    assert choice.reasons[0] == "fp16 for compute capability 7.5"
    assert choice.reasons[1].startswith("4-bit base weights, because 16-bit ones need about 18 GiB of 15")
    assert choice.reasons[2:] == (
        "4 rows at a time and 4 accumulated, the fastest that fit",
        "checkpointing, which it needs",
        "ds_config fp16_zero2.json for 1 rank",
    )
    assert (choice.micro_batch_size, choice.gradient_accumulation_steps) == (4, 4)


def test_a_small_model_on_a_t4_stays_unquantised() -> None:
    assert chosen([T4], alias="qwen2.5-1.5b", length=4096).quantization == "none"


@pytest.mark.parametrize(("length", "checkpointing"), [(2048, False), (4096, True)])
def test_an_8b_on_an_a100_of_40_gib_runs_in_bf16_unquantised(length: int, checkpointing: bool) -> None:
    choice = chosen([A100], length=length)
    assert (choice.precision, choice.quantization) == ("bf16", "none")
    assert choice.gradient_checkpointing is checkpointing
    assert choice.ds_config == DS_CONFIG_FOLDER / "bf16_zero2.json"


def test_a_cpu_runs_in_fp32_without_checkpointing() -> None:
    choice = chosen([])
    assert (choice.precision, choice.quantization, choice.gradient_checkpointing) == ("fp32", "none", False)
    assert choice.ds_config == DS_CONFIG_FOLDER / "fp32_zero0.json"
    assert choice.reasons == ("fp32 on CPU", "ds_config fp32_zero0.json for 1 rank")


@pytest.mark.parametrize(
    ("gpus", "alias", "name"),
    [
        ([], None, "fp32_zero2"),
        ([A100, A100], None, "bf16_zero2"),
        ([A100, A100], "llama3.1-8b", "bf16_zero2"),
        ([T4, T4], "llama3.1-8b", "fp16_zero3"),
    ],
)
def test_two_ranks_divide_the_base_only_where_it_does_not_fit(
    gpus: list[Gpu], alias: str | None, name: str
) -> None:
    """LoRA's gradients are sent once a step at stage 0, once a micro step at stage 2."""
    choice = chosen(gpus, ranks=2, alias=alias)
    assert choice.ds_config == DS_CONFIG_FOLDER / f"{name}.json"
    assert choice.reasons[-1] == f"ds_config {name}.json for 2 ranks"


def test_of_unequal_gpus_the_older_one_decides_the_precision() -> None:
    choice = chosen([A100, T4], ranks=2, ds_config="fp16_zero2")
    assert (choice.precision, choice.quantization) == ("fp16", "4bit")


def test_of_unequal_gpus_the_smaller_one_decides_what_fits() -> None:
    small_but_newer = Gpu(2, "GPU-3", "NVIDIA GeForce RTX 3060", 12 * 2**30, (8, 6), "550.54.15")
    choice = chosen([A100, small_but_newer], ranks=2, ds_config="bf16_zero2")
    assert (choice.precision, choice.quantization) == ("bf16", "4bit")


def test_a_model_of_unknown_shape_is_not_quantised_on_a_guess() -> None:
    assert chosen([T4], alias=None).quantization == "none"


def test_what_the_user_fixed_is_kept() -> None:
    choice = chosen([A100], precision="fp16", quantization="4bit", gradient_checkpointing=False)
    assert (choice.precision, choice.quantization, choice.gradient_checkpointing) == ("fp16", "4bit", False)
    assert choice.ds_config == DS_CONFIG_FOLDER / "fp16_zero2.json"
    assert choice.reasons[0] == "fp16 as asked"


def test_plain_python_uses_no_deepspeed_file() -> None:
    choice = chosen([], under_deepspeed=False)
    assert choice.ds_config is None
    assert choice.reasons[-1] == "no DeepSpeed under plain python"


# --- which file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bf16_zero3", "bf16_zero3.json", str(DS_CONFIG_FOLDER / "bf16_zero3.json")])
def test_a_file_is_found_by_name_and_by_path(name: str) -> None:
    choice = chosen([A100], ds_config=name)
    assert choice.ds_config == DS_CONFIG_FOLDER / "bf16_zero3.json"
    assert choice.reasons[-1] == "ds_config bf16_zero3.json as asked"


def test_a_file_of_the_working_folder_wins_over_one_of_the_same_name() -> None:
    choice = chosen([], ds_config=ds_file("fp32_zero0", zero_optimization={"stage": 0}))
    assert choice.ds_config == Path("fp32_zero0")


@pytest.mark.parametrize("name", ["ds_config.json", "config.json", "config_new.json"])
def test_field_names_that_do_not_exist_here_mean_auto(name: str) -> None:
    choice = chosen([A100], ds_config=name)
    assert choice.ds_config == DS_CONFIG_FOLDER / "bf16_zero2.json"
    assert choice.reasons[-1] == f"ds_config bf16_zero2.json for 1 rank (no file {name} here, so auto)"
    assert chosen([], ds_config=name, under_deepspeed=False).ds_config is None


def test_a_field_name_that_exists_here_is_that_file() -> None:
    choice = chosen(
        [T4], ds_config=ds_file("ds_config.json", fp16={"enabled": True}, zero_optimization={"stage": 2})
    )
    assert choice.ds_config == Path("ds_config.json")


def test_fp16_without_zero_is_refused() -> None:
    (problem,) = refused(
        [T4], ds_config=ds_file("mine.json", fp16={"enabled": True}, zero_optimization={"stage": 0})
    )
    assert problem == (
        "--ds_config: mine.json joins fp16 with ZeRO stage 0, where DeepSpeed 0.19 scales gradients wrongly. "
        "Use stage 2, such as fp16_zero2, on one GPU too."
    )


def test_an_unknown_name_is_refused_with_the_list() -> None:
    (problem,) = refused([], ds_config="zero9")
    assert problem.startswith(
        "--ds_config: 'zero9' does not exist. Use auto, a path, or one of bf16_zero2, bf16_zero2_offload, "
    )
    assert "fp16_zero3_offload, fp32_zero0, fp32_zero2, fp32_zero3" in problem


def test_a_folder_is_no_file() -> None:
    assert isinstance(locate_ds_config(str(DS_CONFIG_FOLDER), 1, "fp32_zero0"), Problem)


def test_a_file_under_plain_python_is_refused_with_the_launch_command() -> None:
    (problem,) = refused([], ds_config="fp32_zero0", under_deepspeed=False)
    assert "is 'fp32_zero0', but this is plain python." in problem
    assert "deepspeed --include localhost:0 train_lora.py" in problem


def test_a_file_that_fixes_fp16_is_followed_on_an_a100() -> None:
    choice = chosen([A100], ds_config="fp16_zero2")
    assert (choice.precision, choice.reasons[0]) == ("fp16", "fp16 as fp16_zero2.json says")


# --- what is refused ----------------------------------------------------------------------------------------


def test_bf16_on_a_t4_is_refused() -> None:
    assert refused([T4], precision="bf16") == [
        "--precision: is bf16, which Tesla T4 (compute capability 7.5) does not have. Use --precision fp16, "
        "or a GPU of compute capability 8.0 or more."
    ]


def test_a_file_that_fixes_bf16_is_refused_on_a_t4() -> None:
    (problem,) = refused([T4], ds_config="bf16_zero2")
    assert problem.startswith("--precision: is bf16, which Tesla T4")


def test_fp16_on_a_cpu_is_refused() -> None:
    assert refused([], precision="fp16") == [
        "--precision: is fp16, which needs a GPU; there is none. Use --precision fp32, or auto."
    ]


@pytest.mark.parametrize("optimizer", ["ZeroOneAdam", "OneBitAdam", "onebitlamb"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_optimizer_that_sends_single_bits_is_refused_with_a_zero_stage(optimizer: str, stage: int) -> None:
    name = ds_file(
        "mine.json",
        fp16={"enabled": True},
        optimizer={"type": optimizer},
        zero_optimization={"stage": stage},
    )
    problems = refused([T4], ds_config=name, quantization="none", alias="qwen2.5-1.5b")
    assert problems == [
        f"--ds_config: mine.json joins {optimizer} with ZeRO stage {stage}; 1-bit optimizers never worked "
        "with a stage above 0, and DeepSpeed 0.19 has none any more. Leave the optimizer section out: the "
        "Trainer's AdamW takes its place."
    ]


def test_an_optimizer_that_sends_single_bits_is_refused_at_stage_0_as_deepspeed_has_none() -> None:
    name = ds_file("mine.json", optimizer={"type": "ZeroOneAdam"}, zero_optimization={"stage": 0})
    (problem,) = refused([A100], ds_config=name)
    assert problem.startswith("--ds_config: mine.json asks for ZeroOneAdam; ")
    assert importlib.util.find_spec("deepspeed.runtime.fp16.onebit") is None


def test_a_model_that_no_cpu_trains_is_refused_without_a_gpu() -> None:
    problems = choose([], 1, shape=SHAPES["qwen2.5-1.5b"], asked=Asked(2048))
    assert [str(problem) for problem in problems] == [  # type: ignore[union-attr]
        "--base_model: has 1.5e9 parameters, and there is no GPU. Run it on a GPU machine, or check it for "
        "one with --plan --gpu NAME."
    ]


def test_rows_that_exceed_the_gpu_beside_four_bit_weights_are_refused() -> None:
    assert refused([T4], length=8 * 4096, ds_config="fp16_zero2") == [
        "--base_model: needs about 25.4 GiB (5.3 of them weights) on each GPU, even with 4-bit, 1 x 16 rows, "
        "checkpointing on, ZeRO-2, and Tesla T4 has 15.0. What would fit: "
        "--base_model qwen2.5-1.5b, or --max_length 8192, or a 40 GB card."
    ]


def test_fp16_with_four_bit_weights_is_refused_under_plain_python() -> None:
    (problem,) = refused([T4], under_deepspeed=False)
    assert problem.startswith(
        "--quantization: is 4bit with fp16, which plain python cannot train. Start with"
    )


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (["sm_75", "sm_80", "sm_90a", "compute_90"], (7, 5), True),
        (["sm_75", "sm_80", "sm_90a", "compute_90"], (7, 0), False),
        (["sm_75", "sm_80", "sm_90a", "compute_90"], (8, 9), True),
        (["sm_86"], (8, 0), False),
        (["sm_80", "compute_90"], (12, 0), True),
        (["sm_100", "sm_120"], (12, 0), True),
        ([], (8, 0), False),
    ],
)
def test_torch_runs_on_the_architectures_that_it_was_built_for(
    architectures: list[str], capability: tuple[int, int], runs: bool
) -> None:
    assert built_for(architectures, capability) is runs


def test_four_bit_weights_with_zero_stage_3_are_refused() -> None:
    assert refused([A100], ds_config="bf16_zero3", quantization="4bit") == [
        "--quantization: 4bit does not work with ZeRO stage 3 (bf16_zero3.json). Use a stage 2 "
        "configuration, or --quantization none."
    ]


@pytest.mark.parametrize(
    ("file", "precision"), [("fp16_zero2", "bf16"), ("bf16_zero2", "fp16"), ("bf16_zero2", "fp32")]
)
def test_a_file_and_a_precision_that_disagree_are_refused(file: str, precision: str) -> None:
    (problem,) = refused([A100], ds_config=file, precision=precision)
    written = file[:4]
    assert problem == (
        f"--ds_config: {file}.json asks for {written}, but the precision is {precision}. Use a configuration "
        f"for {precision}, --ds_config auto, or --precision {written}."
    )


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"zero_optimization": {"stage": 2', id="cut off"),
        pytest.param(b"[]", id="not an object"),
        pytest.param(b'{"zero_optimization": 2}', id="section that is no object"),
        pytest.param(b'{"zero_optimization": {"stage": "two"}}', id="stage that is no number"),
        pytest.param(b'{"zero_optimization": {"stage": null}}', id="stage that is null"),
        pytest.param(b'{"optimizer": "adam"}', id="optimizer that is no object"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
    ],
)
def test_a_malformed_file_is_refused(content: bytes) -> None:
    Path("mine.json").write_bytes(content)
    (problem,) = refused([A100], ds_config="mine.json")
    assert problem.startswith("--ds_config: mine.json is no DeepSpeed configuration (")
    assert problem.endswith("It has to be a JSON object; ds_configs/ has working ones.")


@pytest.mark.parametrize("content", ["{}", '{"zero_optimization": {"stage": 9}}'])
def test_a_file_without_a_zero_stage_is_refused(content: str) -> None:
    Path("mine.json").write_text(content)
    config = read_ds_config(Path("mine.json"))
    assert not isinstance(config, Problem)
    (problem,) = check_ds_config(config, "fp32", "none")
    assert problem.found == "mine.json names no ZeRO stage from 0 to 3."


def test_weights_that_are_larger_than_the_gpu_are_refused_with_what_would_fit() -> None:
    assert refused([T4], alias="llama2-13b", quantization="none", ds_config="fp16_zero2") == [
        "--base_model: needs about 27.5 GiB (24.2 of them weights) on each GPU, even with 16-bit, 1 x 16 "
        "rows, checkpointing on, ZeRO-2, and Tesla T4 has 15.0. What would fit: --ds_config auto, or "
        "--quantization 4bit, or --base_model qwen2.5-1.5b, or a 40 GB card."
    ]


def test_each_way_out_of_a_refusal_fits_by_itself() -> None:
    fixed = {"quantization": "none", "ds_config": "fp16_zero2", "batch_size": 16}
    fixed |= {"gradient_accumulation_steps": 1, "division_is_fixed": True, "alias": "qwen2.5-1.5b"}
    (problem,) = refused([T4], length=4096, **fixed)
    ways = (
        "What would fit: --batch_size 8 --gradient_accumulation_steps 2, or --max_length 2048, or a 24 GB "
        "card."
    )
    assert problem.endswith(ways), problem
    assert chosen([T4], length=2048, **fixed)
    assert chosen([T4], length=4096, **fixed | {"batch_size": 8, "gradient_accumulation_steps": 2})


def test_weights_that_leave_no_room_on_the_gpu_go_to_cpu_memory_but_not_under_plain_python() -> None:
    # 14.96 GiB of weights would go into the 15 GiB of a T4, and nothing else.
    choice = chosen([T4], quantization="none")
    assert choice.ds_config == DS_CONFIG_FOLDER / "fp16_zero3_offload.json"
    assert "offload to CPU memory (15.3 GiB a rank), because nothing faster fits" in choice.reasons
    (problem,) = refused([T4], quantization="none", under_deepspeed=False)
    assert problem.startswith("--base_model: needs about 17.7 GiB (15.0 of them weights) on each GPU")


def test_weights_that_zero_stage_3_divides_may_be_larger_than_one_gpu() -> None:
    assert chosen([T4] * 4, ranks=4, alias="llama2-13b", quantization="none", ds_config="fp16_zero3")


def test_the_way_out_of_too_large_four_bit_weights_is_not_four_bit_weights() -> None:
    tiny = Gpu(0, "GPU-0", "Small", 2 * 2**30, (8, 0), "550.54.15")
    (problem,) = refused([tiny], quantization="4bit")
    assert problem.endswith("What would fit: a 12 GB card."), problem


@pytest.mark.parametrize(
    ("section", "offload"),
    [
        ({"stage": 2, "offload_optimizer": {"device": "cpu"}}, True),
        ({"stage": 2, "offload_optimizer": {"device": "none"}}, False),
        ({"stage": 2, "offload_optimizer": {}}, False),
        ({"stage": 2, "offload_optimizer": None}, False),
        ({"stage": 3, "offload_optimizer": {"device": "cpu"}}, False),
        ({"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}, True),
    ],
)
def test_a_file_offloads_when_it_sends_all_that_its_stage_can_to_the_cpu(
    section: dict[str, Any], offload: bool
) -> None:
    name = ds_file("mine.json", bf16={"enabled": True}, zero_optimization=section)
    plan = chosen([A100] * 2, ranks=2, alias="qwen2.5-1.5b", ds_config=name).plan
    assert plan is not None
    assert plan.request.zero == (section["stage"], offload)


@pytest.mark.parametrize(
    ("section", "elements"),
    [
        ({"stage": 2}, 500_000_000),
        ({"stage": 2, "overlap_comm": True}, 1_000_000_000),
        ({"stage": 2, "overlap_comm": True, "reduce_bucket_size": 5e7}, 100_000_000),
        ({"stage": 2, "reduce_bucket_size": "auto"}, 1536**2),
        ({"stage": 3, "reduce_bucket_size": "auto"}, 2 * 1536**2),
    ],
)
def test_the_buckets_of_a_file_are_counted_as_it_sizes_them(section: dict[str, Any], elements: int) -> None:
    name = ds_file("mine.json", bf16={"enabled": True}, zero_optimization=section)
    plan = chosen([A100] * 2, ranks=2, alias="qwen2.5-1.5b", ds_config=name).plan
    assert plan is not None
    assert plan.request.layout.bucket_elements == elements


def test_16_bit_weights_that_fit_beside_an_offload_that_was_asked_for_are_kept() -> None:
    gpu = Gpu(0, "", "GPU of 20GiB", 20 * 2**30, (8, 0), "")
    assert chosen([gpu], ds_config="bf16_zero2_offload").quantization == "none"
    smaller = Gpu(0, "", "GPU of 12GiB", 12 * 2**30, (8, 0), "")
    reasons = chosen([smaller], ds_config="bf16_zero2_offload").reasons
    assert (
        "4-bit base weights, because 16-bit ones need about 18 GiB of 12 (this changes the numerics)"
        in reasons
    )


def test_the_reason_for_four_bit_names_the_precision_that_does_not_fit() -> None:
    reasons = chosen([T4], alias="qwen2.5-7b", length=4096, precision="fp32").reasons
    assert any(
        reason.startswith("4-bit base weights, because 32-bit ones need about 3") for reason in reasons
    )


def test_checkpointing_is_needed_only_where_nothing_of_its_kind_fits_without() -> None:
    assert (
        "checkpointing, as what fits without it is slower" in chosen([T4] * 8, ranks=8, length=1024).reasons
    )
    assert "checkpointing, which it needs" in chosen([A100], length=4096).reasons


# --- --fit --------------------------------------------------------------------------------------------------


def test_the_rows_of_a_step_are_kept_whatever_fits() -> None:
    for gpu in (T4, A100):
        choice = chosen([gpu], batch_size=2, gradient_accumulation_steps=9)
        assert (choice.micro_batch_size or 0) * (choice.gradient_accumulation_steps or 0) == 18


def test_a_micro_batch_that_is_fixed_stays() -> None:
    choice = chosen([T4], batch_size=2, gradient_accumulation_steps=8, division_is_fixed=True)
    assert (choice.micro_batch_size, choice.gradient_accumulation_steps) == (2, 8)
    assert not any("rows at a time" in reason for reason in choice.reasons)


def test_with_fit_off_everything_is_as_given() -> None:
    choice = chosen([A100, A100], ranks=2, batch_size=2, gradient_accumulation_steps=8, fit="off")
    assert (choice.micro_batch_size, choice.gradient_accumulation_steps) == (2, 8)
    assert (choice.gradient_checkpointing, choice.quantization) == (True, "none")
    assert choice.ds_config == DS_CONFIG_FOLDER / "bf16_zero2.json"


def test_what_was_fixed_as_a_whole_is_named_as_a_way_out() -> None:
    (problem,) = refused([A100], tuner=TUNERS["full"], fit="off")
    assert "What would fit: --fit auto, or " in problem
    assert "--ds_config auto" not in problem
    (problem,) = refused([A100], tuner=TUNERS["full"], ds_config="bf16_zero2")
    assert "What would fit: --ds_config auto, or " in problem
    assert "--fit auto" not in problem


def test_full_fine_tuning_divides_or_offloads_what_does_not_fit() -> None:
    assert (
        chosen([A100], alias="qwen2.5-1.5b", tuner=TUNERS["full"]).ds_config
        == DS_CONFIG_FOLDER / "bf16_zero2.json"
    )
    eight = chosen([A100] * 8, ranks=8, tuner=TUNERS["full"])
    assert eight.ds_config == DS_CONFIG_FOLDER / "bf16_zero3.json"
    offloaded = chosen([A100], tuner=TUNERS["full"])
    assert offloaded.ds_config == DS_CONFIG_FOLDER / "bf16_zero2_offload.json"
    summed = "gradients of micro steps summed in 16 bit, as DeepSpeed offloads no fp32 sum"
    assert summed in offloaded.reasons
    assert summed not in chosen([T4], quantization="none").reasons  # of ZeRO-2 alone


@pytest.mark.parametrize(
    ("text", "count", "gib", "has_bf16"),
    [
        ("t4", None, 15, False),
        ("8xa100-80", 8, 80, True),
        ("24GiB", None, 24, True),
        ("2x11.5GiB", 2, 11.5, True),
    ],
)
def test_gpus_are_named_by_kind_or_size_and_number(
    text: str, count: int | None, gib: float, has_bf16: bool
) -> None:
    parsed = parse_gpus(text)
    assert parsed is not None
    assert (parsed[0], parsed[1].memory_bytes / 2**30, parsed[1].has_bf16) == (count, gib, has_bf16)


@pytest.mark.parametrize("text", ["", "t5", "0xt4", "24", "0GiB", "xt4", "8x", "24gib"])
def test_what_names_no_gpu_is_none(text: str) -> None:
    assert parse_gpus(text) is None


def test_several_problems_are_found_at_once() -> None:
    name = ds_file(
        "mine.json",
        fp16={"enabled": True},
        optimizer={"type": "OneBitAdam"},
        zero_optimization={"stage": 3},
    )
    problems = refused([T4], precision="bf16", quantization="4bit", ds_config=name)
    assert [problem.split(" ")[0:3] for problem in problems] == [
        ["--precision:", "is", "bf16,"],
        ["--ds_config:", "mine.json", "joins"],
        ["--quantization:", "4bit", "does"],
        ["--ds_config:", "mine.json", "asks"],
    ]
    assert len(refused([T4], precision="bf16", ds_config="zero9")) == 2


@pytest.mark.parametrize(
    ("cuda", "built_for"), [("13.0", "built for CUDA 13.0"), (None, "built for CPU only")]
)
def test_a_torch_that_cannot_use_the_gpu_is_named_with_driver_and_way_out(
    cuda: str | None, built_for: str
) -> None:
    problem = torch_mismatch([T4], "2.13.0", cuda)
    assert problem.where == "torch"
    assert problem.found == (
        f"2.13.0 ({built_for}) cannot use Tesla T4 (compute capability 7.5) with driver 550.54.15."
    )
    assert "pip install torch==2.6.0 torchvision==0.21.0" in problem.way_out


def test_the_folder_of_deepspeed_files_does_not_depend_on_the_working_folder() -> None:
    assert ds_files.ds_config_files()


@pytest.mark.parametrize("capability", [(10, 0), (12, 0), (12, 1)])
def test_a_blackwell_gpu_is_advised_a_torch_that_has_its_kernels(capability: tuple[int, int]) -> None:
    card = replace(T4, name="NVIDIA GeForce RTX 5090", compute_capability=capability, driver="570.124.06")
    problem = torch_mismatch([T4, card], "2.6.0+cu124", "12.4")
    shown = ".".join(map(str, capability))
    assert f"cannot use NVIDIA GeForce RTX 5090 (compute capability {shown}) with driver" in problem.found
    assert "torch==2.7.1 torchvision==0.22.1 --index-url https://download.pytorch.org/whl/cu128" in (
        problem.way_out
    )


def test_memory_in_use_by_others_is_not_planned_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml_edge.show(
        monkeypatch, tmp_path, nvml_edge.T4, f"used|{10 * 2**30}", nvml_edge.A100, "used|500000000"
    )
    shared, alone = detect_gpus()
    assert (shared.free_bytes, alone.free_bytes) == (5 * 2**30, 40 * 2**30)
    assert describe([shared]) == "1 x Tesla T4 (15 GiB, 10 of them in use by others)"
    assert describe([alone]) == "1 x NVIDIA A100-SXM4-40GB (40 GiB)"


def test_a_driver_that_hangs_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus_module.NVML_TIMEOUT_S == 10.0
    monkeypatch.setattr(gpus_module, "NVML_TIMEOUT_S", 0.2)
    monkeypatch.setattr(gpus_module, "_HANGS", threading.Event())
    nvml_edge.show(monkeypatch, tmp_path, nvml_edge.T4, "hang|1")
    begun = time.monotonic()
    assert detect_gpus() == ()
    assert no_gpu_reason() == " (NVML: it gave no answer in 0 s; `nvidia-smi` tells more)"
    assert time.monotonic() - begun < 0.9
    for thread in threading.enumerate():  # while the library that hangs is still the one of this test
        if thread.daemon and thread.name.endswith("(<lambda>)"):
            thread.join(5)


def test_a_slice_has_its_share_of_the_chips_speed() -> None:
    whole, cut = speed_of("NVIDIA H100 80GB HBM3"), speed_of("NVIDIA H100 80GB HBM3 MIG 1g.10gb")
    assert whole.flops_16bit == 989e12
    assert cut.flops_16bit == pytest.approx(989e12 / 7)
    assert cut.memory_bytes_per_s == pytest.approx(3350e9 / 7)
    assert speed_of("NVIDIA H100 80GB HBM3 MIG 3g.40gb").flops_16bit == pytest.approx(989e12 * 3 / 7)
