"""Which GPU leads to which precision, method and DeepSpeed configuration, and why. Pure but for
`detect_gpus`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from forecaster.errors import Problem
from forecaster.modeling.memory import USABLE_SHARE, training_bytes, weight_bytes
from forecaster.modeling.registry import ModelShape

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


def choose(
    gpus: Sequence[Gpu],
    ranks: int,
    *,
    shape: ModelShape | None,
    lora_rank: int,
    tokens: int,
    precision: Precision | Literal["auto"] = "auto",
    quantization: Quantization | Literal["auto"] = "auto",
    gradient_checkpointing: bool | Literal["auto"] = "auto",
    ds_config: str = "auto",
    under_deepspeed: bool = True,
) -> Choice | list[Problem]:
    """Resolve what the user left `auto`, and check what the user fixed against the hardware.

    Args:
        gpus: The GPUs that this run uses; empty for CPU. The oldest decides the precision, the smallest what
            fits.
        tokens: Micro batch times maximal length.
        ds_config: A path, a name in ds_configs/, or `auto`.
    """
    reasons: list[str] = []
    problems: list[Problem] = []
    named = named_ds_config(ds_config) if under_deepspeed else None
    smallest = min(gpus, key=lambda gpu: gpu.memory_bytes, default=None)

    checkpointing = bool(gpus) if gradient_checkpointing == "auto" else gradient_checkpointing
    chosen_precision = _choose_precision(precision, gpus, named, reasons, problems)
    chosen_quantization = quantization if quantization != "auto" else "none"
    if quantization == "auto" and smallest and shape and not (named and _zero_stage(named) == 3):
        needed = training_bytes(shape, lora_rank=lora_rank, tokens=tokens, checkpointing=checkpointing)
        if needed > USABLE_SHARE * smallest.memory_bytes:
            chosen_quantization = "4bit"
            reasons.append(
                f"4-bit base weights, because 16-bit ones need about {needed / 2**30:.0f} GiB of "
                f"{smallest.memory_bytes / 2**30:.0f} (this changes the numerics)"
            )

    path: Path | None = None
    if under_deepspeed:
        located = locate_ds_config(ds_config, chosen_precision, ranks)
        if isinstance(located, Problem):
            problems.append(located)
        else:
            path, why = located
            reasons.append(why)
            problems += check_ds_config(path, chosen_precision, chosen_quantization)
    else:
        reasons.append("no DeepSpeed under plain python")
        problems += _check_plain_python(ds_config, chosen_precision, chosen_quantization)
    if shape and not (path and _zero_stage(path) == 3):
        needed = training_bytes(
            shape,
            lora_rank=lora_rank,
            tokens=tokens,
            four_bit=chosen_quantization == "4bit",
            checkpointing=checkpointing,
        )
        problems += _check_fit(shape, needed, chosen_quantization, smallest)
    return problems or Choice(chosen_precision, chosen_quantization, checkpointing, path, tuple(reasons))


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


def _check_fit(
    shape: ModelShape, needed_bytes: int, quantization: Quantization, gpu: Gpu | None
) -> list[Problem]:
    """A model that no CPU trains in reasonable time, or a run that exceeds the GPU's memory."""
    if gpu is None:
        if shape.parameters <= LARGEST_ON_CPU_PARAMETERS:
            return []
        return [
            Problem(
                "--base_model",
                f"has {shape.parameters / 1e9:.1f}e9 parameters, and there is no GPU{no_gpu_reason()}.",
                "Run it on a GPU machine, or check it for one with --dry_run --gpu NAME.",
            )
        ]
    if needed_bytes <= gpu.memory_bytes:
        return []
    weights = weight_bytes(shape, quantization == "4bit") / 2**30
    four_bit = ", --quantization 4bit" if quantization == "none" else ""
    return [
        Problem(
            "--base_model",
            f"needs about {needed_bytes / 2**30:.1f} GiB ({weights:.1f} of them weights), and {gpu.name} has "
            f"{gpu.memory_bytes / 2**30:.1f}.",
            f"Use a smaller --batch_size or --max_length{four_bit}, a smaller model or a larger GPU.",
        )
    ]


def _zero_stage(path: Path) -> int:
    """The ZeRO stage of a readable DeepSpeed file, 0 where it names none."""
    try:
        return int(json.loads(path.read_text()).get("zero_optimization", {}).get("stage", 0))
    except (OSError, ValueError, AttributeError, TypeError):
        return 0


def locate_ds_config(name: str, precision: Precision, ranks: int) -> tuple[Path, str] | Problem:
    """Path of a DeepSpeed configuration given by path, name or `auto`, and why it was taken."""
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
    # Partitioning optimizer state over one rank only costs time; LoRA's state is small, so stage 3 is never
    # needed.
    stage = 0 if ranks == 1 else 2
    path = DS_CONFIG_FOLDER / f"{precision}_zero{stage}.json"
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
    if stage == 3 and quantization == "4bit":
        problems.append(
            Problem(
                "--quantization",
                f"4bit does not work with ZeRO stage 3 ({path.name}).",
                "Use a stage 0 or 2 configuration, or --quantization none.",
            )
        )
    if (written := _written_precision(path)) and precision != written:
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
