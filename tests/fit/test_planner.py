"""Which setting is chosen, what is said when none fits or memory runs out, and how long a step takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from forecaster.fit import planner
from forecaster.fit.gpu_cards import CHIPS, UNKNOWN, speed_of
from forecaster.fit.memory import Layout
from forecaster.fit.planner import FitPlan, FitRequest, Setting, plan
from forecaster.fit.step_time import (
    bytes_on_the_wire,
    flops_per_token,
    micro_step_s,
    step_time,
)
from forecaster.models.registry import MODELS, ModelShape
from forecaster.models.tuners import TUNERS
from forecaster.models.tuners.base import TunerSettings
from forecaster.models.tuners.lora import LORA

GIB = 2**30
SPEEDS = {chip.in_name: chip.speed for chip in CHIPS}
SHAPES = {model.alias: model.shape for model in MODELS}
EIGHT_B = SHAPES["llama3.1-8b"]
LLAMA_70B = ModelShape(8192, 80, 64, 8, 128, 28672, 128256)


def request(gib: float, gpu: str = "A100", shape: ModelShape = EIGHT_B, **changes: Any) -> FitRequest:
    layout = Layout("bf16", **changes.pop("layout", {}))
    return FitRequest(shape, layout, 16, int(gib * GIB), SPEEDS[gpu], **changes)


def chosen(asked: FitRequest) -> Setting:
    made = plan(asked)
    assert made.chosen is not None
    return made.chosen


# --- the choice ---------------------------------------------------------------------------------------------


def test_the_chosen_setting_is_the_fastest_of_those_that_fit() -> None:
    made = plan(request(40))
    assert made.chosen is not None
    plain = [one for one in made.considered if not one.layout.four_bit and not one.layout.offload]
    assert made.chosen.step_s == min(one.step_s for one in plain if made.fits(one))
    assert any(one.step_s < made.chosen.step_s and not made.fits(one) for one in plain)


@pytest.mark.parametrize(
    ("gib", "four_bit", "offload"),
    [(40, False, False), (20, False, False), (12, True, False), (7, False, True)],
)
def test_four_bit_comes_after_16_bit_and_offload_last(gib: float, four_bit: bool, offload: bool) -> None:
    layout = chosen(request(gib, layout={"length": 512})).layout
    assert (layout.four_bit, layout.offload) == (four_bit, offload)


def test_with_offload_that_is_fixed_16_bit_that_fits_comes_before_four_bit() -> None:
    assert not chosen(request(20, zero=(2, True))).layout.four_bit
    assert chosen(request(12, zero=(2, True))).layout.four_bit


def test_where_only_offload_fits_whole_weights_come_first_too() -> None:
    made = plan(request(6, layout={"length": 1024}))
    fitting = [one for one in made.considered if made.fits(one)]
    assert {one.layout.four_bit for one in fitting} == {False}
    assert made.chosen is not None
    assert made.chosen.layout.offload


@pytest.mark.parametrize("number", [1, 2, 12, 16, 97, 10**12])
def test_the_divisors_of_a_number_are_all_of_them_in_order(number: int) -> None:
    found = planner.divisors(number)
    assert found == sorted(set(found))
    assert [number // size for size in reversed(found)] == found
    assert len(found) == {1: 1, 2: 2, 12: 6, 16: 5, 97: 2, 10**12: 169}[number]


def test_every_setting_keeps_the_rows_of_a_step() -> None:
    considered = plan(request(40)).considered
    assert {one.layout.micro_batch_size for one in considered} == {1, 2, 4, 8, 16}
    assert {one.layout.micro_batch_size * one.gradient_accumulation_steps for one in considered} == {16}


def test_what_is_fixed_is_never_varied() -> None:
    asked = request(80, four_bit=False, checkpointing=True, micro_batch_size=2, zero=(2, False))
    (only,) = plan(asked).considered
    assert only.describe() == "16-bit, 2 x 8 rows, checkpointing on, ZeRO-2"


def test_a_tight_fit_is_taken_and_said_where_nothing_else_fits() -> None:
    asked = request(40, four_bit=False, checkpointing=True, micro_batch_size=1, zero=(0, False))
    needed = plan(asked).considered[0].bytes.total
    made = plan(replace(asked, gpu_bytes=int(needed / 0.97)))
    assert (made.chosen is not None, made.is_tight) == (True, True)
    assert plan(replace(asked, gpu_bytes=int(needed / 1.01))).chosen is None


def test_four_bit_and_zero_3_do_not_meet() -> None:
    made = plan(request(24, layout={"ranks": 4}))
    assert {one.layout.zero_stage for one in made.considered if one.layout.four_bit} == {2}
    assert {one.layout.zero_stage for one in made.considered if not one.layout.four_bit} == {2, 3}


def test_seventy_billion_parameters_in_full_take_thirty_two_80_gib_gpus_without_offload() -> None:
    def fits(ranks: int) -> bool:
        asked = request(80, "H100", LLAMA_70B, layout={"ranks": ranks, "tuner": TUNERS["full"]})
        made = plan(asked)
        return made.chosen is not None and not made.chosen.layout.offload

    assert [ranks for ranks in (8, 16, 32) if fits(ranks)] == [32]


# --- what would fit instead ---------------------------------------------------------------------------------


def test_every_way_out_fits_and_the_next_larger_length_and_next_smaller_card_do_not() -> None:
    asked = request(15, "T4", four_bit=True, zero=(0, False), layout={"length": 16384})
    assert plan(asked).chosen is None
    # llama2-7b, which is larger, would fit, but reads 4,096 tokens only.
    assert planner.ways_out(asked, {}) == ["--base_model qwen2.5-1.5b", "--max_length 8192", "a 24 GB card"]
    assert plan(replace(asked, layout=replace(asked.layout, length=8192))).chosen
    assert plan(replace(asked, gpu_bytes=16 * GIB)).chosen is None


def test_what_the_user_fixed_is_named_first() -> None:
    asked = request(15, "T4", four_bit=False, checkpointing=False, micro_batch_size=16, zero=(0, False))
    assert plan(asked).chosen is None
    loose = replace(asked, shape=SHAPES["qwen2.5-1.5b"])
    assert planner.ways_out(loose, {})[:2] == [
        "--gradient_checkpointing true",
        "--batch_size 1 --gradient_accumulation_steps 16",
    ]


def test_no_length_is_advised_that_the_longest_answer_would_not_fit_into() -> None:
    asked = request(15, "T4", four_bit=True, zero=(0, False), layout={"length": 16384}, max_new_tokens=8192)
    assert planner.ways_out(asked, {}) == ["--base_model qwen2.5-1.5b", "a 24 GB card"]
    assert planner.shorter_lengths(replace(asked, max_new_tokens=3072)) == [8192, 6144, 4096]


def test_qlora_is_the_way_out_of_full_where_lora_does_not_fit_either() -> None:
    full = {"tuner": TUNERS["full"], "length": 1024}
    asked = {gib: request(gib, four_bit=False, zero=(0, False), layout=full) for gib in (12, 24)}
    assert [planner.ways_out(one, {})[0] for one in asked.values()] == ["--tuner qlora", "--tuner lora"]
    # 4-bit weights are refused with a file for stage 3.
    assert planner.ways_out(replace(asked[12], zero=(3, False)), {}) == []


def test_a_flag_that_leaves_more_open_is_named_only_where_that_fits() -> None:
    asked = request(24, four_bit=False, zero=(0, False), layout={"tuner": TUNERS["full"], "length": 1024})
    loosened = {"--ds_config auto": replace(asked, zero=None), "--fit auto": asked}
    ways = planner.ways_out(asked, loosened)
    assert "--ds_config auto" in ways
    assert "--fit auto" not in ways


# --- memory that ran out ------------------------------------------------------------------------------------


def _ran(asked: FitRequest) -> tuple[FitPlan, Setting]:
    made = plan(asked)
    assert made.chosen is not None
    return made, made.chosen


def test_the_next_smaller_setting_of_kept_activations_is_checkpointing() -> None:
    made, used = _ran(request(40))
    smaller = planner.next_smaller(made, used)
    assert used.describe() == "16-bit, 1 x 16 rows, checkpointing off, ZeRO-2"
    assert smaller is not None
    assert smaller.describe() == "16-bit, 1 x 16 rows, checkpointing on, ZeRO-2"


def test_a_run_out_of_memory_is_told_what_was_planned_and_measured_and_how_to_go_on() -> None:
    made, _ = _ran(request(24))
    message = planner.out_of_memory_message(made, int(23.4 * GIB), 24 * GIB, has_checkpoint=True)
    assert message == (
        "Out of memory: 21.3 GiB were planned (16-bit, 4 x 4 rows, checkpointing on, ZeRO-2), 23.4 of 24.0 "
        "GiB were in use. The next smaller setting needs 19.1: go on with\n"
        "  --batch_size 2 --gradient_accumulation_steps 8 --gradient_checkpointing true "
        "--ds_config bf16_zero2 --resume"
    )
    anew = planner.out_of_memory_message(made, int(23.4 * GIB), 24 * GIB, has_checkpoint=False)
    assert anew.endswith("start again with\n  " + message.split("\n  ")[1].removesuffix(" --resume"))


def test_the_flags_to_go_on_with_lead_to_the_same_zero_stage() -> None:
    asked = request(15, "T4", layout={"ranks": 2})
    made, used = _ran(asked)
    smaller = planner.next_smaller(made, used)
    assert used.layout.zero_stage == 3
    assert smaller is not None
    assert planner.resume_flags(made, smaller).endswith(" --ds_config bf16_zero3")
    fixed = plan(replace(asked, zero=(2, True)))
    assert "--ds_config" not in planner.resume_flags(fixed, smaller)
    plain = plan(request(24, layout={"under_deepspeed": False}))
    assert plain.chosen is not None
    assert "--ds_config" not in planner.resume_flags(plain, plain.chosen)


def test_where_no_setting_is_smaller_the_rows_have_to_be_shorter() -> None:
    made, used = _ran(request(19, four_bit=False, micro_batch_size=1, checkpointing=True, zero=(0, False)))
    assert planner.next_smaller(made, used) is None
    message = planner.out_of_memory_message(made, 19 * GIB, 19 * GIB, has_checkpoint=True)
    assert message.endswith(
        "No smaller setting can go on from a checkpoint: start anew with --max_length 1536."
    )


def test_without_a_plan_the_message_still_says_what_to_change() -> None:
    assert planner.out_of_memory_message(None, 3 * GIB, None, has_checkpoint=False) == (
        "Out of memory: 3.0 GiB were in use, nothing was planned. Use a smaller --batch_size with more "
        "--gradient_accumulation_steps, or a smaller --max_length."
    )


# --- step time ----------------------------------------------------------------------------------------------


def test_a_lora_token_costs_four_operations_a_weight_and_six_with_checkpointing() -> None:
    layout = Layout("bf16", length=1, logits_share=0.0, checkpointing=False)
    assert flops_per_token(EIGHT_B, layout) / EIGHT_B.linear_parameters == pytest.approx(4, rel=1e-3)
    recomputed = replace(layout, checkpointing=True)
    assert flops_per_token(EIGHT_B, recomputed) / EIGHT_B.linear_parameters == pytest.approx(6, rel=1e-3)
    full = replace(layout, tuner=TUNERS["full"])
    assert flops_per_token(EIGHT_B, full) / EIGHT_B.linear_parameters == pytest.approx(6, rel=1e-3)


def test_causal_attention_at_4096_adds_a_gigaflop_to_a_forward_pass_of_an_8b() -> None:
    short, long = (flops_per_token(EIGHT_B, Layout("bf16", length=n, checkpointing=False)) for n in (0, 4096))
    assert (long - short) / 3.5 == pytest.approx(1.07e9, rel=0.01)


@pytest.mark.parametrize(("checkpointing", "measured"), [(False, 8_694), (True, 6_316)])
def test_tokens_per_second_of_an_8b_are_those_measured_on_an_h100(checkpointing: bool, measured: int) -> None:
    layout = Layout("bf16", zero_stage=2, length=4096, checkpointing=checkpointing, logits_share=0.034)
    rate = layout.tokens / micro_step_s(EIGHT_B, layout, SPEEDS["H100"])
    assert rate == pytest.approx(measured, rel=0.05)


def test_an_8b_on_an_a100_reaches_the_published_share_of_its_peak() -> None:
    layout = Layout("bf16", length=4096, micro_batch_size=2, checkpointing=False, logits_share=1.0)
    a100 = layout.tokens / micro_step_s(EIGHT_B, layout, SPEEDS["A100"])
    assert a100 * flops_per_token(EIGHT_B, layout) / 312e12 == pytest.approx(0.32, abs=0.09)


def test_between_machines_a_link_is_no_faster_than_within_one() -> None:
    full = Layout("bf16", tuner=TUNERS["full"], ranks=16)
    within, between = (
        step_time(EIGHT_B, replace(full, ranks=ranks), 1, SPEEDS["T4"]).communication_s for ranks in (8, 16)
    )
    # Stage 0 sends 2 (R - 1) / R of the gradients, at 12.5 GB/s in either case.
    assert between / within == pytest.approx((15 / 16) / (7 / 8))


def test_bytes_on_the_wire_follow_the_zero_stage() -> None:
    adapters = 2 * LORA.trained(EIGHT_B, TunerSettings(rank=8)).elements
    sent = {
        stage: bytes_on_the_wire(EIGHT_B, Layout("bf16", ranks=2, zero_stage=stage), accumulation=8)
        for stage in (0, 1, 2, 3)
    }
    assert sent[0] == (0, adapters)
    assert sent[1] == (adapters / 2, adapters / 2)
    assert sent[2] == (4 * adapters, adapters / 2)
    assert sent[3] == (8 * (2 * EIGHT_B.parameters + adapters / 2), 0)
    assert bytes_on_the_wire(EIGHT_B, Layout("bf16"), 8) == (0, 0)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Tesla T4", "T4"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A10G", "A10"),
    ],
)
def test_a_gpus_speed_is_found_by_its_name(name: str, known: str) -> None:
    assert speed_of(name) == SPEEDS[known]


@pytest.mark.parametrize("name", ["GPU of 24GiB", "NVIDIA RTX A1000", "NVIDIA T400"])
def test_a_gpu_of_an_unknown_name_is_taken_for_a_middling_one(name: str) -> None:
    assert speed_of(name) == UNKNOWN
