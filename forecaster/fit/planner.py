"""Which settings fit a GPU, how long their steps take, and which one to run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

from forecaster.fit.gpu_cards import CARD_SIZES_GB, GpuSpeed
from forecaster.fit.memory import USABLE_SHARE, GpuBytes, Layout, training_bytes
from forecaster.fit.step_time import step_time
from forecaster.models.registry import MODELS, ModelShape
from forecaster.models.tuners import TUNERS

LENGTHS = (16384, 8192, 6144, 4096, 3072, 2048, 1536, 1024, 768, 512, 256)

GIB = 2**30


@dataclass(frozen=True)
class FitRequest:
    """What a run is to be, and what of it is open."""

    shape: ModelShape
    layout: Layout
    """Precision, tuner, length, ranks and so on as fixed; what the fields below leave open is overwritten."""
    rows: int
    """Rows of an optimizer step on each rank: the user's micro batch times accumulation."""
    gpu_bytes: int
    """Memory of the smallest GPU."""
    speed: GpuSpeed
    four_bit: bool | None = None
    checkpointing: bool | None = None
    micro_batch_size: int | None = None
    zero: tuple[int, bool] | None = None
    """Stage, and whether it offloads."""
    max_new_tokens: int = 0
    """Of the benchmark: no `--max_length` that is not longer may be advised."""


@dataclass(frozen=True)
class Setting:
    """One way to run a request."""

    layout: Layout
    gradient_accumulation_steps: int
    bytes: GpuBytes
    step_s: float

    def describe(self) -> str:
        layout = self.layout
        bits = "4-bit" if layout.four_bit else whole_bits(layout)
        zero = f", ZeRO-{layout.zero_stage}" if layout.under_deepspeed else ""
        return (
            f"{bits}, {layout.micro_batch_size} x {self.gradient_accumulation_steps} rows, "
            f"checkpointing {'on' if layout.checkpointing else 'off'}{zero}{' offload' * layout.offload}"
        )


def whole_bits(layout: Layout) -> str:
    """What base weights are in that are not quantised."""
    return f"{8 * layout.bytes_each}-bit"


@dataclass(frozen=True)
class FitPlan:
    """Every setting considered, fastest first, and the one to run."""

    request: FitRequest
    considered: tuple[Setting, ...]
    chosen: Setting | None
    """None: nothing fits."""
    is_tight: bool = False
    """It fits into all of the memory, but not into the share that usually can be used."""

    @property
    def share(self) -> float:
        """The share of the GPU's memory that a setting may take."""
        return 1.0 if self.is_tight else USABLE_SHARE

    def fits(self, setting: Setting) -> bool:
        return setting.bytes.total <= self.share * self.request.gpu_bytes

    @property
    def smallest(self) -> Setting:
        return min(self.considered, key=lambda setting: setting.bytes.total)


def plan(request: FitRequest) -> FitPlan:
    """The fastest setting that fits; in 4 bit only where nothing else does, with offload only after that.

    Offload that the request fixes is no last resort.
    """
    considered = tuple(sorted(settings(request), key=lambda one: (one.step_s, one.bytes.total)))
    for is_tight in (False, True):
        whole = FitPlan(request, considered, None, is_tight)
        fitting = [setting for setting in considered if whole.fits(setting)]
        as_wished = [one for one in fitting if request.zero or not one.layout.offload]
        for group in (_whole(as_wished), as_wished, _whole(fitting), fitting):
            if group:
                return replace(whole, chosen=group[0])
    return replace(whole, is_tight=False)


def _whole(settings: list[Setting]) -> list[Setting]:
    """Those whose base weights are not quantised."""
    return [one for one in settings if not one.layout.four_bit]


def settings(request: FitRequest) -> list[Setting]:
    """Every combination of what the request leaves open."""
    micro_batch_sizes = [request.micro_batch_size] if request.micro_batch_size else divisors(request.rows)
    found = []
    for four_bit in _open(request.four_bit, (False, True) if _may_be_four_bit(request) else (False,)):
        for stage, offload in [request.zero] if request.zero else _zero_settings(request.layout):
            if four_bit and stage == 3 and not (request.four_bit and request.zero):
                continue  # PEFT's documentation excludes it; where both are asked for, hardware.py says so
            for checkpointing in _open(request.checkpointing, (False, True)):
                for micro_batch_size in micro_batch_sizes:
                    layout = replace(
                        request.layout,
                        four_bit=four_bit,
                        zero_stage=stage,
                        offload=offload,
                        checkpointing=checkpointing,
                        micro_batch_size=micro_batch_size,
                    )
                    found.append(_setting(request, layout))
    return found


def _may_be_four_bit(request: FitRequest) -> bool:
    return request.layout.tuner.base_quantization != "none"


def _setting(request: FitRequest, layout: Layout) -> Setting:
    accumulation = request.rows // layout.micro_batch_size
    step_s = step_time(request.shape, layout, accumulation, request.speed).total_s
    return Setting(layout, accumulation, training_bytes(request.shape, layout), step_s)


def _open(fixed: bool | None, choices: tuple[bool, ...]) -> tuple[bool, ...]:
    return choices if fixed is None else (fixed,)


def _zero_settings(layout: Layout) -> list[tuple[int, bool]]:
    """Stages and offload that a file of ds_configs/ stands for.

    Stage 0 is for fp32 only. In 16 bit, DeepSpeed 0.19.8 takes an empty step of Adam there before the first,
    and in fp16 divides gradients by a loss scale that the loss was never multiplied by (DeepSpeed#8393).
    """
    if not layout.under_deepspeed:
        return [(0, False)]
    divided = [(2, False), (3, False)] if layout.ranks > 1 else []
    if layout.precision == "fp32":
        return [(0, False), *divided]
    return [*(divided or [(2, False)]), (2, True), (3, True)]


def fewest_divided(precision: str, ranks: int, under_deepspeed: bool) -> int:
    """The ZeRO stage where nothing is planned."""
    return 0 if not under_deepspeed or (precision == "fp32" and ranks == 1) else 2


def divisors(number: int) -> list[int]:
    small = [size for size in range(1, isqrt(number) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})


# --- what would fit instead ---------------------------------------------------------------------------------


def ways_out(request: FitRequest, loosened: Mapping[str, FitRequest]) -> list[str]:
    """The nearest changes with which a request that does not fit would fit, each by itself.

    Args:
        loosened: Requests that leave more open, by the flag that makes each of this one.
    """
    found = [flag for flag, looser in loosened.items() if _would_fit(looser)]
    found += _other_tuners(request)
    if request.checkpointing is False and _would_fit(replace(request, checkpointing=True)):
        found.append("--gradient_checkpointing true")
    if request.micro_batch_size:
        smaller = [size for size in divisors(request.rows) if size < request.micro_batch_size]
        for size in reversed(smaller):
            if _would_fit(replace(request, micro_batch_size=size)):
                found.append(f"--batch_size {size} --gradient_accumulation_steps {request.rows // size}")
                break
    for model in sorted(MODELS, key=lambda model: -model.shape.parameters):
        is_smaller = model.shape.parameters < request.shape.parameters
        reads_the_rows = model.context_length >= request.layout.length
        if is_smaller and reads_the_rows and _would_fit(replace(request, shape=model.shape)):
            found.append(f"--base_model {model.alias}")
            break
    for length in shorter_lengths(request):
        if _would_fit(_with(request, length=length)):
            found.append(f"--max_length {length}")
            break
    for gib in CARD_SIZES_GB:
        if gib * GIB > request.gpu_bytes and _would_fit(replace(request, gpu_bytes=gib * GIB)):
            found.append(f"{'an' if gib in (8, 80) else 'a'} {gib} GB card")
            break
    return found


def _other_tuners(request: FitRequest) -> list[str]:
    """Flags of a tuner, or of base weights, with which a request would fit."""
    found = []
    if request.four_bit is False and _may_be_four_bit(request) and _would_fit_in_four_bit(request):
        found.append("--quantization 4bit")
    for name in request.layout.tuner.instead:
        tuner = TUNERS[name]
        would_fit = _would_fit_in_four_bit if tuner.base_quantization == "4bit" else _would_fit
        if would_fit(_with(request, tuner=tuner)):
            return [*found, f"--tuner {name}"]
    return found


def _would_fit_in_four_bit(request: FitRequest) -> bool:
    """Whether it would fit, where hardware.py takes 4-bit weights: not with a file for ZeRO stage 3, and with
    fp16 only under DeepSpeed."""
    layout = request.layout
    is_refused = (request.zero and request.zero[0] == 3) or (
        layout.precision == "fp16" and not layout.under_deepspeed
    )
    return not is_refused and _would_fit(replace(request, four_bit=True))


def shorter_lengths(request: FitRequest) -> list[int]:
    """Values of `--max_length` below that of a request, longest first, that leave room for the benchmark."""
    return [length for length in LENGTHS if request.max_new_tokens < length < request.layout.length]


def _with(request: FitRequest, **layout: Any) -> FitRequest:
    return replace(request, layout=replace(request.layout, **layout))


def _would_fit(request: FitRequest) -> bool:
    made = plan(request)
    return made.chosen is not None and not made.is_tight


# --- after a run that ran out of memory ---------------------------------------------------------------------


def next_smaller(made: FitPlan, used: Setting) -> Setting | None:
    """The fastest setting that needs less than `used` and with which a checkpoint of it can go on.

    That is one with weights of the same kind and the same ZeRO stage, but fewer rows at a time, or
    checkpointing.
    """
    same = ("four_bit", "zero_stage", "offload")
    for setting in made.considered:
        smaller = setting.layout.micro_batch_size <= used.layout.micro_batch_size
        frugal = setting.layout.checkpointing >= used.layout.checkpointing
        if (
            smaller
            and frugal
            and setting.bytes.total < used.bytes.total
            and all(getattr(setting.layout, name) == getattr(used.layout, name) for name in same)
        ):
            return setting
    return None


def resume_flags(made: FitPlan, setting: Setting) -> str:
    """A setting of a plan as flags of train_lora.py that fix it.

    The DeepSpeed file is among them unless the user named it: another stage's checkpoints cannot be read.
    """
    layout = setting.layout
    flags = (
        f"--batch_size {layout.micro_batch_size} "
        f"--gradient_accumulation_steps {setting.gradient_accumulation_steps} "
        f"--gradient_checkpointing {str(layout.checkpointing).lower()}"
    )
    if layout.under_deepspeed and made.request.zero is None:
        flags += f" --ds_config {ds_config_name(layout)}"
    return flags


def ds_config_name(layout: Layout) -> str:
    """The file of ds_configs/ for a layout, without `.json`."""
    return f"{layout.precision}_zero{layout.zero_stage}{'_offload' * layout.offload}"


def out_of_memory_message(
    made: FitPlan | None, measured_bytes: int, gpu_bytes: int | None, has_checkpoint: bool
) -> str:
    """What was planned, what was measured, and with which flags to go on."""
    room = f" of {gpu_bytes / GIB:.1f}" if gpu_bytes else ""
    if not made or not made.chosen:
        return (
            f"Out of memory: {measured_bytes / GIB:.1f}{room} GiB were in use, nothing was planned. "
            "Use a smaller --batch_size with more --gradient_accumulation_steps, or a smaller --max_length."
        )
    used = made.chosen
    message = (
        f"Out of memory: {used.bytes.total / GIB:.1f} GiB were planned ({used.describe()}), "
        f"{measured_bytes / GIB:.1f}{room} GiB were in use."
    )
    smaller = next_smaller(made, used)
    if smaller is None:
        shorter = shorter_lengths(made.request)
        change = f"--max_length {shorter[0]}" if shorter else "a larger GPU"
        return f"{message} No smaller setting can go on from a checkpoint: start anew with {change}."
    flags = resume_flags(made, smaller) + (" --resume" if has_checkpoint else "")
    return (
        f"{message} The next smaller setting needs {smaller.bytes.total / GIB:.1f}: "
        f"{'go on' if has_checkpoint else 'start again'} with\n  {flags}"
    )
