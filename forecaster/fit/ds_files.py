"""DeepSpeed configurations: where they lie, what they say, and what in them cannot work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forecaster.errors import Problem
from forecaster.models.numerics import Precision, Quantization
from forecaster.models.registry import ModelShape

DS_CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "ds_configs"
FIELD_NAMES_FOR_AUTO = ("ds_config.json", "config.json", "config_new.json")
"""What other projects' launch commands call their DeepSpeed file."""
_ONE_BIT_OPTIMIZERS = ("zerooneadam", "onebitadam", "onebitlamb")


def zero_of(path: Path) -> tuple[int, bool]:
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


def bucket_elements_of(path: Path, shape: ModelShape) -> int | None:
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


def written_precision(path: Path) -> Precision | None:
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
    written = written_precision(path)
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
