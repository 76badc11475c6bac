"""Training on from the adapter of another training, in place of a new one."""

from __future__ import annotations

from pathlib import Path

from forecaster.errors import ConfigurationError, Problem
from forecaster.models.finished import FinishedRun, check_weights, read_finished
from forecaster.models.registry import BaseModel
from forecaster.models.tuners import TUNERS
from forecaster.models.tuners.lora import LoraTuner
from forecaster.training.train_config import TrainConfig

FLAG = "--from_adapter"


def find_problems(config: TrainConfig, model: BaseModel) -> list[Problem]:
    """What speaks against going on from the adapter that is named: it is damaged, or of another form or base
    than this run's would be. A run that is resumed has it in its checkpoints."""
    if config.from_adapter is None or config.resume:
        return []
    tuner = TUNERS[config.tuner]
    if not isinstance(tuner, LoraTuner):
        way_out = "Use --tuner lora, or leave it out."
        return [Problem(FLAG, f"goes with low-rank factors, and --tuner is {tuner.name}.", way_out)]
    try:
        run = read_finished(config.from_adapter, config.base_model)
        if differing := _differing(config, run, model, tuner):
            return [differing]
        check_weights(run)
    except ConfigurationError as error:
        return [Problem(FLAG, str(p).removeprefix("--adapter: "), "") for p in error.problems]
    return []


def _differing(config: TrainConfig, run: FinishedRun, model: BaseModel, tuner: LoraTuner) -> Problem | None:
    """How the adapter's training differs from this one in what an adapter cannot change."""
    kind = run.tuner.peft_options if isinstance(run.tuner, LoraTuner) else None
    theirs = {
        "base_model": run.resolved["base_model"],
        "tuner": run.tuner.name,
        "lora_r": run.flags["lora_r"],
        "lora_alpha": run.flags.get("lora_alpha"),
        "target_modules": _targets(str(run.flags.get("target_modules") or "")),
    }
    ours = {
        "base_model": config.base_model,
        "tuner": config.tuner,
        "lora_r": config.lora_r,
        "lora_alpha": config.lora_alpha,
        "target_modules": _targets(config.target_modules),
    }
    same = {
        "base_model": _is_same_base(theirs["base_model"], model),
        "tuner": kind == tuner.peft_options,  # LoRA over 4-bit weights is LoRA
    }
    names = [name for name in theirs if not same.get(name, theirs[name] == ours[name])]
    if not names:
        return None
    found = ", ".join(f"{name} {theirs[name]}" for name in names)
    given = ", ".join(f"{name} {ours[name]}" for name in names)
    way_out = f"Give the former {' and '.join(f'--{name}' for name in names)}, or start anew without it."
    return Problem(FLAG, f"{config.from_adapter} was trained with {found}; this run has {given}.", way_out)


def _targets(names: str) -> str:
    return ",".join(sorted(filter(None, map(str.strip, names.split(",")))))


def _is_same_base(recorded: str, model: BaseModel) -> bool:
    """A folder that is no longer where it was may be this one."""
    if model.is_local and Path(recorded).is_absolute():
        there = Path(recorded)
        return not there.exists() or there.resolve() == Path(model.location).resolve()
    return recorded == model.location
