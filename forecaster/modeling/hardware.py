"""Which GPU leads to which precision, method, batch and DeepSpeed configuration, and why. Pure but for
`detect_gpus`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from forecaster.errors import Problem
from forecaster.modeling import planner
from forecaster.modeling.memory import Layout, host_bytes
from forecaster.modeling.planner import Plan, Request
from forecaster.modeling.registry import ALL_PROJECTIONS, ModelShape
from forecaster.modeling.step_time import speed_of
from forecaster.modeling.tuner import Tuner

Precision = Literal["fp32", "fp16", "bf16"]
Quantization = Literal["none", "4bit"]

DS_CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "ds_configs"
FIELD_NAMES_FOR_AUTO = ("ds_config.json", "config.json", "config_new.json")
"""What other projects' launch commands call their DeepSpeed file."""
BF16_CAPABILITY = (8, 0)
LARGEST_ON_CPU_PARAMETERS = 1_000_000_000
_ONE_BIT_OPTIMIZERS = ("zerooneadam", "onebitadam", "onebitlamb")


@dataclass(frozen=True)
class Gpu:
    index: int
    uuid: str
    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    driver: str

    @property
    def has_bf16(self) -> bool:
        return self.compute_capability >= BF16_CAPABILITY


def _known(name: str, mebibytes: int, capability: tuple[int, int]) -> Gpu:
    return Gpu(0, "", name, mebibytes * 2**20, capability, "")


# Memory as nvidia-smi reports it, in MiB; compute capabilities from NVIDIA's list of CUDA GPUs.
KNOWN_GPUS = {
    "t4": _known("Tesla T4", 15360, (7, 5)),
    "v100": _known("Tesla V100 16 GB", 16384, (7, 0)),
    "l4": _known("NVIDIA L4", 23034, (8, 9)),
    "a10": _known("NVIDIA A10", 23028, (8, 6)),
    "rtx3090": _known("NVIDIA GeForce RTX 3090", 24576, (8, 6)),
    "rtx4090": _known("NVIDIA GeForce RTX 4090", 24564, (8, 9)),
    "a100-40": _known("NVIDIA A100 40 GB", 40960, (8, 0)),
    "a100-80": _known("NVIDIA A100 80 GB", 81920, (8, 0)),
    "h100": _known("NVIDIA H100 80 GB", 81559, (9, 0)),
    "h200": _known("NVIDIA H200", 143771, (9, 0)),
}
"""GPUs that a run can be checked for without having one."""
GPU_SYNTAX = f"{', '.join(KNOWN_GPUS)}, or a size such as 24GiB; 8xa100-80 is eight of them"


def parse_gpus(text: str) -> tuple[int | None, Gpu] | None:
    """`t4`, `24GiB`, or several: `8xa100-80`. Their number (None: not given) and the GPU; else None.

    A GPU of which only the size is given is taken for one with bf16.
    """
    match = re.fullmatch(r"(?:([1-9]\d{0,3})x)?([a-z0-9-]+|\d+(?:\.\d+)?Gi?B)", text)
    if not match:
        return None
    count, name = int(match[1]) if match[1] else None, match[2]
    if name in KNOWN_GPUS:
        return count, KNOWN_GPUS[name]
    size = re.fullmatch(r"(\d+(?:\.\d+)?)(Gi?B)", name)
    if not size or not float(size[1]):
        return None
    memory_bytes = int(float(size[1]) * (2**30 if size[2] == "GiB" else 10**9))
    return count, Gpu(0, "", f"GPU of {name}", memory_bytes, BF16_CAPABILITY, "")


class GpuSelectionError(Exception):
    """A GPU was asked for that the machine does not have, or one was asked for twice."""

    def __init__(self, asked: str, present: Sequence[int], twice: bool = False) -> None:
        self.asked, self.present = asked, tuple(present)
        super().__init__(
            f"{asked!r} asked for{' twice' if twice else ''}, GPUs present: {', '.join(map(str, present))}"
        )


def detect_gpus() -> tuple[Gpu, ...]:
    """The machine's NVIDIA GPUs as nvidia-smi lists them; none where there is no nvidia-smi or no driver."""
    if not shutil.which("nvidia-smi"):
        return ()
    fields = "index,uuid,name,memory.total,compute_cap,driver_version"
    listing = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        errors="replace",
    )
    return parse_gpu_listing(listing.stdout) if listing.returncode == 0 else ()


def no_gpu_reason() -> str:
    """What nvidia-smi says where it is installed and shows no GPU, in brackets; else nothing."""
    if not shutil.which("nvidia-smi"):
        return ""
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    said = " ".join((done.stdout + done.stderr).split())[:150]
    return f" (nvidia-smi: {said or f'status {done.returncode}'})"


def parse_gpu_listing(text: str) -> tuple[Gpu, ...]:
    """GPUs of a listing; lines of another form, such as `[N/A]` for a memory size, are left out."""
    gpus = []
    for line in text.strip().splitlines():
        match = re.fullmatch(r"(\d+), (\S+), (.+), (\d+), (\d+)\.(\d+), (\S+)", line.strip())
        if not match:
            continue
        index, uuid, name, mebibytes, major, minor, driver = match.groups()
        gpus.append(Gpu(int(index), uuid, name, int(mebibytes) * 2**20, (int(major), int(minor)), driver))
    return tuple(gpus)


def select_gpus(gpus: Sequence[Gpu], asked: str | None) -> tuple[Gpu, ...]:
    """The GPUs that a list such as `2,3` or `GPU-1a2b` names, in its order; None means all.

    This is the syntax of CUDA_VISIBLE_DEVICES; an empty list or `-1` hides every GPU. Without a GPU there is
    nothing to select: DeepSpeed's launcher numbers CPU ranks in that variable too.
    """
    if asked is None or not gpus:
        return tuple(gpus)
    selected = []
    for part in filter(None, (part.strip() for part in asked.split(","))):
        if part == "-1":
            break
        matches = [
            gpu for gpu in gpus if part == str(gpu.index) or (len(part) > 4 and gpu.uuid.startswith(part))
        ]
        if not matches or matches[0] in selected:
            raise GpuSelectionError(part, [gpu.index for gpu in gpus], twice=bool(matches))
        selected.append(matches[0])
    return tuple(selected)


def describe(gpus: Sequence[Gpu]) -> str:
    """One phrase, such as `2 x NVIDIA A100-SXM4-40GB (40 GiB)`."""
    if not gpus:
        return f"no GPU{no_gpu_reason()}"
    kinds = {gpu.name: gpu for gpu in gpus}
    return ", ".join(
        f"{sum(gpu.name == name for gpu in gpus)} x {name} ({one.memory_bytes / 2**30:.0f} GiB)"
        for name, one in kinds.items()
    )


@dataclass(frozen=True)
class Choice:
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
    plan: Plan | None = None
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
    tuner: Tuner = "lora"
    lora_rank: int = 8
    targets: tuple[str, ...] = ALL_PROJECTIONS
    lora_dropout: float = 0.1
    precision: Precision | Literal["auto"] = "auto"
    quantization: Quantization | Literal["auto"] = "auto"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    ds_config: str = "auto"
    """A path, a name in ds_configs/, or `auto`."""


def choose(
    gpus: Sequence[Gpu],
    ranks: int,
    *,
    shape: ModelShape | None,
    asked: Asked,
    under_deepspeed: bool = True,
) -> Choice | list[Problem]:
    """Resolve what the user left `auto`, and check what the user fixed against the hardware.

    Args:
        gpus: The GPUs that this run uses; empty for CPU. The oldest decides the precision, the smallest what
            fits and how long it takes.
        shape: Of the base model; None where it is not known, and nothing is planned.
    """
    reasons: list[str] = []
    problems: list[Problem] = []
    named = named_ds_config(asked.ds_config) if under_deepspeed else None
    smallest = min(gpus, key=lambda gpu: gpu.memory_bytes, default=None)
    precision = _choose_precision(asked.precision, gpus, named, reasons, problems)

    plan: Plan | None = None
    checkpointing = bool(gpus) if asked.gradient_checkpointing == "auto" else asked.gradient_checkpointing
    # On CPU, and for models of unknown sizes.
    automatic = f"{precision}_zero{planner.fewest_divided(precision, ranks, under_deepspeed)}"
    four_bit = asked.quantization == "4bit"
    if shape and smallest:
        plan = planner.plan(_request(shape, ranks, asked, precision, named, smallest, under_deepspeed))
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
            problems += check_ds_config(path, precision, quantization)
    else:
        reasons.append("no DeepSpeed under plain python")
        problems += _check_plain_python(asked.ds_config, precision, quantization)
    # Settings that contradict each other fit nothing.
    if shape and smallest and plan and not plan.chosen and not problems:
        loosened = _loosened(shape, ranks, asked, gpus, smallest, under_deepspeed)
        problems.append(_does_not_fit(plan, smallest, loosened))
    if problems:
        return problems
    choice = Choice(precision, quantization, checkpointing, path, tuple(reasons), plan=plan)
    if not plan or not plan.chosen:
        return choice
    accumulation = plan.chosen.gradient_accumulation_steps
    return replace(
        choice,
        micro_batch_size=plan.chosen.layout.micro_batch_size,
        gradient_accumulation_steps=accumulation,
    )


def _request(
    shape: ModelShape,
    ranks: int,
    asked: Asked,
    precision: Precision,
    ds_config: Path | None,
    gpu: Gpu,
    under_deepspeed: bool,
) -> Request:
    """What the planner is asked: with `--fit off` as given, checkpointing on, ZeRO by the number of ranks."""
    is_off = asked.fit == "off"
    zero, bucket_elements = None, None
    if ds_config:
        zero, bucket_elements = _zero_of(ds_config), _bucket_elements_of(ds_config, shape)
    elif is_off:
        zero = (planner.fewest_divided(precision, ranks, under_deepspeed), False)
    checkpointing = True if is_off else None
    return Request(
        shape=shape,
        layout=Layout(
            precision,
            tuner=asked.tuner,
            lora_rank=asked.lora_rank,
            targets=asked.targets,
            lora_dropout=asked.lora_dropout,
            ranks=ranks,
            length=asked.length,
            under_deepspeed=under_deepspeed,
            bucket_elements=bucket_elements,
        ),
        rows=asked.batch_size * asked.gradient_accumulation_steps,
        gpu_bytes=gpu.memory_bytes,
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
    shape: ModelShape, ranks: int, asked: Asked, gpus: Sequence[Gpu], gpu: Gpu, under_deepspeed: bool
) -> dict[str, Request]:
    """Requests that leave open what the user fixed as a whole, by the flag that makes each."""
    looser = {}
    if asked.ds_config != "auto" and under_deepspeed:
        looser["--ds_config auto"] = replace(asked, ds_config="auto")
    if asked.fit == "off":
        looser["--fit auto"] = replace(asked, fit="auto")
    requests = {}
    for flag, one in looser.items():
        named = named_ds_config(one.ds_config) if under_deepspeed else None
        precision = _choose_precision(one.precision, gpus, named, [], [])
        requests[flag] = _request(shape, ranks, one, precision, named, gpu, under_deepspeed)
    return requests


def _plan_reasons(plan: Plan, asked: Asked, gpu: Gpu) -> list[str]:
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
            f"{whole / 2**30:.0f} GiB of {gpu.memory_bytes / 2**30:.0f} (this changes the numerics)"
        )
    rows = (layout.micro_batch_size, chosen.gradient_accumulation_steps)
    if rows != (asked.batch_size, asked.gradient_accumulation_steps):
        reasons.append(f"{rows[0]} rows at a time and {rows[1]} accumulated, the fastest that fit")
    if asked.gradient_checkpointing == "auto" and asked.fit == "auto":
        reasons.append(_checkpointing_reason(plan, layout))
    if layout.offload and asked.ds_config == "auto":
        on_host = host_bytes(plan.request.shape, layout) / 2**30
        reasons.append(f"offload to CPU memory ({on_host:.1f} GiB a rank), because nothing faster fits")
    if plan.is_tight:
        reasons.append("a tight fit: it may run out of memory")
    return reasons


def _checkpointing_reason(plan: Plan, layout: Layout) -> str:
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
    ds_config: Path | None,
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
    elif ds_config and (written := _written_precision(ds_config)):
        precision = written
        reasons.append(f"{written} as {ds_config.name} says")
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


def _does_not_fit(plan: Plan, gpu: Gpu, loosened: dict[str, Request]) -> Problem:
    """No setting that the user left open fits; the way out is what the planner finds to fit."""
    smallest = plan.smallest
    weights = smallest.bytes.weights / 2**30
    ways = planner.ways_out(plan.request, loosened)
    way_out = f"What would fit: {', or '.join(ways)}." if ways else "Use a smaller model or several GPUs."
    return Problem(
        "--base_model",
        f"needs about {smallest.bytes.total / 2**30:.1f} GiB ({weights:.1f} of them weights) on each GPU, "
        f"even with {smallest.describe()}, and {gpu.name} has {gpu.memory_bytes / 2**30:.1f}.",
        way_out,
    )


def _zero_of(path: Path) -> tuple[int, bool]:
    """ZeRO stage of a readable DeepSpeed file, 0 where it names none, and whether it offloads all it can.

    A file for stage 3 that leaves the weights on the GPU counts as one without offload: more bytes than it
    will need, not fewer.
    """
    try:
        section = _zero_section(path)
        stage = int(section.get("stage", 0))
        offloaded = ("offload_optimizer", "offload_param") if stage == 3 else ("offload_optimizer",)
        return stage, all((section.get(part) or {}).get("device", "none") != "none" for part in offloaded)
    except (OSError, ValueError, AttributeError, TypeError):
        return 0, False


def _bucket_elements_of(path: Path, shape: ModelShape) -> int | None:
    """Elements of a DeepSpeed file's buckets of gradients together; None where it cannot be read.

    Without a size DeepSpeed takes 5e8; for `auto` the Trainer takes the square of the hidden size.
    `overlap_comm` makes them two, and is stage 3's default.
    """
    try:
        section = _zero_section(path)
        size = section.get("reduce_bucket_size", 5e8)
        elements = shape.hidden_size**2 if size == "auto" else int(size)
        return elements * (2 if section.get("overlap_comm", section.get("stage") == 3) else 1)
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _zero_section(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()).get("zero_optimization", {})


def locate_ds_config(name: str, ranks: int, automatic: str) -> tuple[Path, str] | Problem:
    """Path of a DeepSpeed configuration given by path, name or `auto`, and why it was taken.

    Args:
        automatic: The name in ds_configs/ for `auto`.
    """
    if named := named_ds_config(name):
        return named, f"ds_config {named.name} as asked"
    note = ""
    if name != "auto":
        if name not in FIELD_NAMES_FOR_AUTO:
            return Problem(
                "--ds_config",
                f"{name!r} does not exist.",
                f"Use auto, a path, or one of {', '.join(sorted(path.stem for path in ds_config_files()))}.",
            )
        note = f" (no file {name} here, so auto)"
    path = DS_CONFIG_FOLDER / f"{automatic}.json"
    return path, f"ds_config {path.name} for {ranks} rank{'s' if ranks > 1 else ''}{note}"


def named_ds_config(name: str) -> Path | None:
    """The file that a path or a name in ds_configs/ stands for, if there is one."""
    for candidate in (Path(name), DS_CONFIG_FOLDER / name, DS_CONFIG_FOLDER / f"{name}.json"):
        if candidate.is_file():
            return candidate
    return None


def _written_precision(path: Path) -> Precision | None:
    """The precision that a DeepSpeed file fixes; None when it leaves that open or cannot be read.

    A file that mentions neither 16-bit format makes DeepSpeed compute in fp32.
    """
    try:
        config = json.loads(path.read_text())
        blocks = {name: config[name].get("enabled") for name in ("fp16", "bf16") if name in config}
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    if blocks.get("fp16") is True:
        return "fp16"
    if blocks.get("bf16") is True:
        return "bf16"
    return None if "auto" in blocks.values() else "fp32"


def ds_config_files() -> list[Path]:
    return sorted(DS_CONFIG_FOLDER.glob("*.json"))


def check_ds_config(path: Path, precision: Precision, quantization: Quantization) -> list[Problem]:
    """What in a DeepSpeed configuration cannot work, before anything is loaded."""
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        stage = int(config.get("zero_optimization", {}).get("stage", 0))
        optimizer = str(config.get("optimizer", {}).get("type", ""))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return [
            Problem(
                "--ds_config",
                f"{path} is no DeepSpeed configuration ({type(error).__name__}: {error}).",
                f"It has to be a JSON object; {DS_CONFIG_FOLDER.name}/ has working ones.",
            )
        ]
    problems = []
    if optimizer.lower() in _ONE_BIT_OPTIMIZERS:
        found = f"joins {optimizer} with ZeRO stage {stage}" if stage else f"asks for {optimizer}"
        problems.append(
            Problem(
                "--ds_config",
                f"{path.name} {found}; 1-bit optimizers never worked with a stage above 0, and DeepSpeed "
                "0.19 has none any more.",
                "Leave the optimizer section out: the Trainer's AdamW takes its place.",
            )
        )
    if stage not in (0, 1, 2, 3) or "zero_optimization" not in config:
        problems.append(
            Problem(
                "--ds_config",
                f"{path.name} names no ZeRO stage from 0 to 3.",
                'Add "zero_optimization": {"stage": 0} to it.',
            )
        )
    written = _written_precision(path)
    if stage == 0 and written == "fp16":
        found = f"{path.name} joins fp16 with ZeRO stage 0, where DeepSpeed 0.19 scales gradients wrongly."
        problems.append(Problem("--ds_config", found, "Use stage 2, such as fp16_zero2, on one GPU too."))
    if stage == 3 and quantization == "4bit":
        problems.append(
            Problem(
                "--quantization",
                f"4bit does not work with ZeRO stage 3 ({path.name}).",
                "Use a stage 2 configuration, or --quantization none.",
            )
        )
    if written and precision != written:
        problems.append(
            Problem(
                "--ds_config",
                f"{path.name} asks for {written}, but the precision is {precision}.",
                f"Use a configuration for {precision}, --ds_config auto, or --precision {written}.",
            )
        )
    return problems


def torch_mismatch(gpus: Sequence[Gpu], torch_version: str, torch_cuda: str | None) -> Problem:
    """What to say when nvidia-smi shows GPUs that torch cannot use.

    The wheel of torch 2.6.0 on the package index is built for CUDA 12.4, which every driver from 525 on runs,
    for compute capabilities 5.0 to 9.0.
    """
    built_for = f"built for CUDA {torch_cuda}" if torch_cuda else "built for CPU only"
    return Problem(
        "torch",
        f"{torch_version} ({built_for}) cannot use {gpus[0].name} with driver {gpus[0].driver}.",
        "Run `pip install torch==2.6.0 torchvision==0.21.0`, or update the driver.",
    )


def built_for(architectures: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether torch's kernels (`torch.cuda.get_arch_list()`, such as sm_80) run on a GPU.

    A binary runs on its own major version from its minor version on; PTX (compute_80) on everything later.
    """
    for name in architectures:
        kind, _, digits = name.partition("_")
        number = int("".join(filter(str.isdecimal, digits)) or 0)
        built = divmod(number, 10)
        if (kind == "sm" and built[0] == capability[0] and built <= capability) or (
            kind == "compute" and built <= capability
        ):
            return True
    return False
