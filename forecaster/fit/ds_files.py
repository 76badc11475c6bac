"""DeepSpeed configurations: where they lie, what they say, and what in them cannot work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from forecaster.errors import Problem
from forecaster.models.numerics import Precision, Quantization
from forecaster.models.registry import ModelShape
from forecaster.plain_text import read_text

DS_CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "ds_configs"
FIELD_NAMES_FOR_AUTO = ("ds_config.json", "config.json", "config_new.json")
"""What other projects' launch commands call their DeepSpeed file."""
_ONE_BIT_OPTIMIZERS = ("zerooneadam", "onebitadam", "onebitlamb")


@dataclass(frozen=True)
class DsConfig:
    """What a DeepSpeed configuration says, as far as it matters here."""

    path: Path
    zero_stage: int
    names_stage: bool
    """Whether there is a `zero_optimization` section at all."""
    offloads: bool
    """Whether it offloads all it can. A file for stage 3 that leaves the weights on the GPU counts as one
    without offload: more bytes than it will need, not fewer."""
    reduce_bucket_size: int | Literal["auto"] | None
    """None: it cannot be read."""
    overlap_comm: bool
    precision: Precision | None
    """None: left open. A file that mentions neither 16-bit format makes DeepSpeed compute in fp32."""
    optimizer: str
    """Empty: the Trainer's own."""
    sums_in_fp32: bool
    """Whether the gradients of micro steps are added up in fp32, and not in the precision of the run."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """All that it says."""

    def bucket_elements(self, shape: ModelShape) -> int | None:
        """Elements of its buckets of gradients together; None where their size cannot be read.

        For `auto` the Trainer takes the square of the hidden size. `overlap_comm` makes them two.
        """
        size = shape.hidden_size**2 if self.reduce_bucket_size == "auto" else self.reduce_bucket_size
        return None if size is None else size * (2 if self.overlap_comm else 1)


def read_ds_config(path: Path) -> DsConfig | Problem:
    try:
        content: dict[str, Any] = json.loads(read_text(path), object_pairs_hook=_without_repeats)
        section = content.get("zero_optimization", {})
        stage = int(section.get("stage", 0))
        optimizer = str(content.get("optimizer", {}).get("type", ""))
        sums_in = content.get("data_types", {}).get("grad_accum_dtype")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return Problem(
            "--ds_config",
            f"{path} is no DeepSpeed configuration ({type(error).__name__}: {error}).",
            f"It has to be a JSON object; {DS_CONFIG_FOLDER.name}/ has working ones.",
        )
    offloaded = ("offload_optimizer", "offload_param") if stage == 3 else ("offload_optimizer",)
    return DsConfig(
        path,
        zero_stage=stage,
        names_stage="zero_optimization" in content,
        offloads=all(_device(section.get(part)) != "none" for part in offloaded),
        reduce_bucket_size=_bucket_size(section),
        overlap_comm=bool(section.get("overlap_comm", stage == 3)),  # stage 3's default
        precision=_precision(content),
        optimizer=optimizer,
        sums_in_fp32=sums_in == "fp32",
        content=content,
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; DeepSpeed refuses one that names a key twice, and others take the last."""
    names = [name for name, _ in pairs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"it names {', '.join(repeated)} twice")
    return dict(pairs)


def _device(part: Any) -> str:
    return str(part.get("device", "none")) if isinstance(part, dict) else "none"


def _bucket_size(section: dict[str, Any]) -> int | Literal["auto"] | None:
    """Without a size DeepSpeed takes 5e8."""
    size = section.get("reduce_bucket_size", 5e8)
    try:
        return "auto" if size == "auto" else int(size)
    except (ValueError, TypeError):
        return None


def _precision(content: dict[str, Any]) -> Precision | None:
    try:
        blocks = {name: content[name].get("enabled") for name in ("fp16", "bf16") if name in content}
    except AttributeError:
        return None
    if blocks.get("fp16") is True:
        return "fp16"
    if blocks.get("bf16") is True:
        return "bf16"
    return None if "auto" in blocks.values() else "fp32"


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


def ds_config_files() -> list[Path]:
    return sorted(DS_CONFIG_FOLDER.glob("*.json"))


def check_ds_config(config: DsConfig, precision: Precision, quantization: Quantization) -> list[Problem]:
    """What in a DeepSpeed configuration cannot work, before anything is loaded."""
    path, stage, optimizer, written = config.path, config.zero_stage, config.optimizer, config.precision
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
    if stage not in (0, 1, 2, 3) or not config.names_stage:
        problems.append(
            Problem(
                "--ds_config",
                f"{path.name} names no ZeRO stage from 0 to 3.",
                'Add "zero_optimization": {"stage": 0} to it.',
            )
        )
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
