"""Which GPU leads to which precision, method, batch and DeepSpeed configuration, and why. Pure but for
`detect_gpus`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from forecaster.errors import Problem
from forecaster.fit import ds_values, planner
from forecaster.fit.attention import length_multiple
from forecaster.fit.ds_files import (
    FIELD_NAMES_FOR_AUTO,
    DsConfig,
    check_ds_config,
    locate_ds_config,
    named_ds_config,
    read_ds_config,
)
from forecaster.fit.gpu_cards import speed_of
from forecaster.fit.gpus import Gpu, no_gpu_reason
from forecaster.fit.memory import Layout, host_bytes
from forecaster.fit.planner import FitPlan, FitRequest
from forecaster.models.numerics import Precision, Quantization
from forecaster.models.registry import ModelShape
from forecaster.models.tuners import DEFAULT_TUNER, TUNERS
from forecaster.models.tuners.base import Tuner, TunerSettings

LARGEST_ON_CPU_PARAMETERS = 1_000_000_000


@dataclass(frozen=True)
class HardwareChoice:
    """What a run uses, with every `auto` resolved."""

    precision: Precision
    quantization: Quantization
    gradient_checkpointing: bool
    ds_config: Path | None
    """None: no DeepSpeed (plain `python` on one device)."""
    reasons: tuple[str, ...]
    micro_batch_size: int | None = None
    """None, as is the next: the flags' own."""
    gradient_accumulation_steps: int | None = None
    plan: FitPlan | None = None
    """None: nothing to plan, because there is no GPU or the model's shape is not known."""


@dataclass(frozen=True)
class Asked:
    """What the flags of a run say about memory."""

    length: int
    """Tokens of a row at most."""
    batch_size: int = 1
    gradient_accumulation_steps: int = 1
    division_is_fixed: bool = False
    """Whether micro batch and accumulation are kept, and not only their product."""
    max_new_tokens: int = 0
    """Of the benchmark, which no `--max_length` that is advised may fall below."""
    fit: Literal["auto", "off"] = "auto"
    tuner: Tuner = TUNERS[DEFAULT_TUNER]
    tuner_settings: TunerSettings = field(default_factory=TunerSettings)
    precision: Precision | Literal["auto"] = "auto"
    quantization: Quantization | Literal["auto"] = "auto"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    ds_config: str = "auto"
    """A path, a name in ds_configs/, or `auto`."""
    liger: bool = False


def choose(
    gpus: Sequence[Gpu],
    ranks: int,
    *,
    shape: ModelShape | None,
    asked: Asked,
    under_deepspeed: bool = True,
) -> HardwareChoice | list[Problem]:
    """Resolve what the user left `auto`, and check what the user fixed against the hardware.

    Args:
        gpus: The GPUs that this run uses; empty for CPU. The oldest decides the precision, the smallest what
            fits and how long it takes.
        shape: Of the base model; None where it is not known, and nothing is planned.
    """
    reasons: list[str] = []
    problems: list[Problem] = []
    named = _named(asked, under_deepspeed)
    asked = _divided(asked, named, ranks, problems)
    smallest = _smallest(gpus) if gpus else None
    precision = _choose_precision(asked.precision, gpus, named, reasons, problems)

    plan: FitPlan | None = None
    checkpointing = bool(gpus) if asked.gradient_checkpointing == "auto" else asked.gradient_checkpointing
    # On CPU, and for models of unknown sizes.
    automatic = f"{precision}_zero{planner.fewest_divided(precision, ranks, under_deepspeed)}"
    four_bit = asked.quantization == "4bit"
    if shape and smallest:
        plan = planner.plan(_request(shape, ranks, asked, precision, named, gpus, under_deepspeed))
        if plan.chosen:
            layout = plan.chosen.layout
            four_bit, checkpointing = layout.four_bit, layout.checkpointing
            automatic = planner.ds_config_name(layout)
            reasons += _plan_reasons(plan, asked, smallest)
    elif shape and shape.parameters > LARGEST_ON_CPU_PARAMETERS:
        problems.append(_no_gpu(shape))
    quantization: Quantization = "4bit" if four_bit else "none"

    path: Path | None = None
    if under_deepspeed:
        located = locate_ds_config(asked.ds_config, ranks, automatic)
        if isinstance(located, Problem):
            problems.append(located)
        else:
            path, why = located
            reasons.append(why)
            config = named or read_ds_config(path)
            problems += (
                [config] if isinstance(config, Problem) else check_ds_config(config, precision, quantization)
            )
    else:
        reasons.append("no DeepSpeed under plain python")
        problems += _check_plain_python(asked.ds_config, precision, quantization)
    # Settings that contradict each other fit nothing.
    if shape and smallest and plan and not plan.chosen and not problems:
        loosened = _loosened(shape, ranks, asked, gpus, under_deepspeed)
        problems.append(_does_not_fit(plan, smallest, loosened))
    if problems:
        return problems
    sizes: tuple[int | None, int | None] = (None, None)
    if plan and plan.chosen:
        sizes = plan.chosen.layout.micro_batch_size, plan.chosen.gradient_accumulation_steps
    elif named and asked.division_is_fixed:
        sizes = asked.batch_size, asked.gradient_accumulation_steps
    return HardwareChoice(precision, quantization, checkpointing, path, tuple(reasons), *sizes, plan)


def _smallest(gpus: Sequence[Gpu]) -> Gpu:
    return min(gpus, key=lambda gpu: gpu.free_bytes)


def _named(asked: Asked, under_deepspeed: bool) -> DsConfig | None:
    """What the user's own file says; None also where it cannot be read, which `choose` reports."""
    path = named_ds_config(asked.ds_config) if under_deepspeed else None
    config = read_ds_config(path) if path else None
    return None if isinstance(config, Problem) else config


def _divided(asked: Asked, named: DsConfig | None, ranks: int, problems: list[Problem]) -> Asked:
    """What the flags say, with micro batch and accumulation as the user's own file fixes them."""
    if named is None:
        return asked
    sizes = asked.batch_size, asked.gradient_accumulation_steps
    is_given = asked.division_is_fixed or asked.fit == "off"
    fixed = ds_values.division(
        named.content, named.path.name, sizes[0] * sizes[1], ranks, sizes if is_given else None
    )
    if isinstance(fixed, Problem):
        problems.append(fixed)
    elif fixed:
        return replace(
            asked,
            batch_size=fixed[0],
            gradient_accumulation_steps=fixed[1],
            division_is_fixed=True,
        )
    return asked


def _request(
    shape: ModelShape,
    ranks: int,
    asked: Asked,
    precision: Precision,
    ds_config: DsConfig | None,
    gpus: Sequence[Gpu],
    under_deepspeed: bool,
) -> FitRequest:
    """What the planner is asked: with `--fit off` as given, checkpointing on, ZeRO by the number of ranks."""
    is_off, gpu = asked.fit == "off", _smallest(gpus)
    zero, bucket_elements, sums_in_fp32 = None, None, None
    if ds_config:
        zero = (ds_config.zero_stage, ds_config.offloads)
        bucket_elements = ds_config.bucket_elements(shape)
        sums_in_fp32 = ds_config.sums_in_fp32
    elif is_off:
        zero = (planner.fewest_divided(precision, ranks, under_deepspeed), False)
    checkpointing = True if is_off else None
    return FitRequest(
        shape=shape,
        layout=Layout(
            precision,
            tuner=asked.tuner,
            tuner_settings=asked.tuner_settings,
            ranks=ranks,
            length=asked.length,
            length_multiple=length_multiple(gpus, precision),
            under_deepspeed=under_deepspeed,
            liger=asked.liger,
            bucket_elements=bucket_elements,
            sums_in_fp32=sums_in_fp32,
        ),
        rows=asked.batch_size * asked.gradient_accumulation_steps,
        gpu_bytes=gpu.free_bytes,
        speed=speed_of(gpu.name),
        four_bit=None if asked.quantization == "auto" else asked.quantization == "4bit",
        checkpointing=checkpointing
        if asked.gradient_checkpointing == "auto"
        else asked.gradient_checkpointing,
        micro_batch_size=asked.batch_size if asked.division_is_fixed or is_off else None,
        zero=zero,
        max_new_tokens=asked.max_new_tokens,
    )


def _loosened(
    shape: ModelShape, ranks: int, asked: Asked, gpus: Sequence[Gpu], under_deepspeed: bool
) -> dict[str, FitRequest]:
    """Requests that leave open what the user fixed as a whole, by the flag that makes each."""
    looser = {}
    if asked.ds_config != "auto" and under_deepspeed:
        looser["--ds_config auto"] = replace(asked, ds_config="auto")
    if asked.fit == "off":
        looser["--fit auto"] = replace(asked, fit="auto")
    requests = {}
    for flag, one in looser.items():
        named = _named(one, under_deepspeed)
        precision = _choose_precision(one.precision, gpus, named, [], [])
        requests[flag] = _request(shape, ranks, one, precision, named, gpus, under_deepspeed)
    return requests


def _plan_reasons(plan: FitPlan, asked: Asked, gpu: Gpu) -> list[str]:
    """Why the planner's setting is what it is; one phrase for each decision."""
    chosen = plan.chosen
    assert chosen
    layout, reasons = chosen.layout, []
    if layout.four_bit and asked.quantization == "auto":
        # Where the user's file offloads, whole weights were considered with offload only.
        whole = min(
            one.bytes.total
            for one in plan.considered
            if not one.layout.four_bit and (plan.request.zero or not one.layout.offload)
        )
        reasons.append(
            f"4-bit base weights, because {planner.whole_bits(layout)} ones need about "
            f"{whole / 2**30:.0f} GiB of {gpu.free_bytes / 2**30:.0f} (this changes the numerics)"
        )
    rows = (layout.micro_batch_size, chosen.gradient_accumulation_steps)
    if rows != (asked.batch_size, asked.gradient_accumulation_steps):
        reasons.append(f"{rows[0]} rows at a time and {rows[1]} accumulated, the fastest that fit")
    if asked.gradient_checkpointing == "auto" and asked.fit == "auto":
        reasons.append(_checkpointing_reason(plan, layout))
    if layout.offload and asked.ds_config == "auto":
        on_host = host_bytes(plan.request.shape, layout) / 2**30
        reasons.append(f"offload to CPU memory ({on_host:.1f} GiB a rank), because nothing faster fits")
        if layout.zero_stage == 2 and layout.precision != "fp32":
            reasons.append("gradients of micro steps summed in 16 bit, as DeepSpeed offloads no fp32 sum")
    if plan.is_tight:
        reasons.append("a tight fit: it may run out of memory")
    return reasons


def _checkpointing_reason(plan: FitPlan, layout: Layout) -> str:
    """Why activations are computed anew, or kept."""
    if not layout.checkpointing:
        return "no checkpointing, as it fits"
    kept = (
        one
        for one in plan.considered
        if not one.layout.checkpointing
        and (one.layout.four_bit, one.layout.offload) == (layout.four_bit, layout.offload)
    )
    if any(plan.fits(one) for one in kept):
        return "checkpointing, as what fits without it is slower"
    return "checkpointing, which it needs"


def _choose_precision(
    asked: Precision | Literal["auto"],
    gpus: Sequence[Gpu],
    ds_config: DsConfig | None,
    reasons: list[str],
    problems: list[Problem],
) -> Precision:
    """The precision of a run; adds to `reasons` and `problems`."""
    oldest = min(gpus, key=lambda gpu: gpu.compute_capability, default=None)
    capability = ".".join(map(str, oldest.compute_capability)) if oldest else ""
    precision: Precision
    if asked != "auto":
        precision = asked
        reasons.append(f"{asked} as asked")
    elif ds_config and ds_config.precision:
        precision = ds_config.precision
        reasons.append(f"{precision} as {ds_config.path.name} says")
    elif oldest is None:
        precision = "fp32"
        reasons.append("fp32 on CPU")
    else:
        precision = "bf16" if oldest.has_bf16 else "fp16"
        reasons.append(f"{precision} for compute capability {capability}")
    if oldest and precision == "bf16" and not oldest.has_bf16:
        problems.append(
            Problem(
                "--precision",
                f"is bf16, which {oldest.name} (compute capability {capability}) does not have.",
                "Use --precision fp16, or a GPU of compute capability 8.0 or more.",
            )
        )
    if oldest is None and precision == "fp16":
        problems.append(
            Problem(
                "--precision", "is fp16, which needs a GPU; there is none.", "Use --precision fp32, or auto."
            )
        )
    return precision


def _check_plain_python(ds_config: str, precision: Precision, quantization: Quantization) -> list[Problem]:
    """What only works under DeepSpeed's launcher."""
    way_out = "Start with `deepspeed --include localhost:0 train_lora.py ...`"
    problems = []
    if ds_config != "auto" and ds_config not in FIELD_NAMES_FOR_AUTO:
        found = f"is {ds_config!r}, but this is plain python."
        problems.append(Problem("--ds_config", found, f"{way_out}, or leave --ds_config out."))
    if precision == "fp16" and quantization == "4bit":
        # TRL makes a 4-bit model's adapters bf16; torch's fp16 gradient scaler cannot unscale those.
        found = "is 4bit with fp16, which plain python cannot train."
        problems.append(Problem("--quantization", found, f"{way_out}."))
    return problems


def _no_gpu(shape: ModelShape) -> Problem:
    """A model that no CPU trains in reasonable time."""
    return Problem(
        "--base_model",
        f"has {shape.parameters / 1e9:.1f}e9 parameters, and there is no GPU{no_gpu_reason()}.",
        "Run it on a GPU machine, or check it for one with --plan --gpu NAME.",
    )


def _does_not_fit(plan: FitPlan, gpu: Gpu, loosened: dict[str, FitRequest]) -> Problem:
    """No setting that the user left open fits; the way out is what the planner finds to fit."""
    smallest = plan.smallest
    weights = smallest.bytes.weights / 2**30
    ways = planner.ways_out(plan.request, loosened)
    way_out = f"What would fit: {', or '.join(ways)}." if ways else "Use a smaller model or several GPUs."
    return Problem(
        "--base_model",
        f"needs about {smallest.bytes.total / 2**30:.1f} GiB ({weights:.1f} of them weights) on each GPU, "
        f"even with {smallest.describe()}, and {gpu.name} has {gpu.free_bytes / 2**30:.1f}"
        f"{' that others leave free' if gpu.taken_bytes else ''}.",
        way_out,
    )
