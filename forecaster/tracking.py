"""Weights & Biases: the only module that imports wandb. A run is one W&B run from training to benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import wandb
from pydantic import BaseModel, StringConstraints

from forecaster.errors import ConfigurationError, Problem
from forecaster.files import write_whole
from forecaster.network_settings import network_problems
from forecaster.schemas import read_checked
from forecaster.settings import Settings, redact

RUN_FILE = "wandb_run.json"


class WandbRunFile(BaseModel):
    """wandb_run.json. The id becomes part of a folder's name."""

    id: Annotated[str, StringConstraints(pattern=r"^[\w-]{1,128}$")] | None = None
    project: Annotated[str, StringConstraints(pattern=r"^[^/\\#?%:]{1,128}$")] | None = None


_MODES = ("online", "offline", "disabled")


def resolve_mode(settings: Settings) -> tuple[str, str]:
    """W&B mode for a run, and the line that says why."""
    if settings.wandb_mode in ("offline", "disabled"):
        return settings.wandb_mode, f"W&B: {settings.wandb_mode}, as the environment says."
    if settings.wandb_api_key:
        return "online", f"W&B: online, project {settings.wandb_project}."
    return "offline", "W&B: offline, there is no WANDB_API_KEY; `wandb sync` uploads the run later."


_LONGEST_PROJECT = 128
_NOT_IN_PROJECT = "/\\#?%:"


def find_problems(settings: Settings) -> list[Problem]:
    """What W&B would refuse, before anything is done for it."""
    project = settings.wandb_project
    if settings.wandb_mode != "disabled" and (
        len(project) > _LONGEST_PROJECT or set(project) & set(_NOT_IN_PROJECT)
    ):
        allowed = f"Use at most {_LONGEST_PROJECT} characters, and none of {' '.join(_NOT_IN_PROJECT)}."
        return [Problem("WANDB_PROJECT", f"is {project!r}, which W&B does not take.", allowed)]
    if settings.wandb_mode not in (None, *_MODES):
        return [Problem("WANDB_MODE", f"is {settings.wandb_mode!r}.", f"Use one of {', '.join(_MODES)}.")]
    if settings.wandb_mode == "online" and not settings.wandb_api_key:
        return [
            Problem(
                "WANDB_MODE",
                "is online, but there is no WANDB_API_KEY.",
                "Put the key into .env, or leave WANDB_MODE out to log offline.",
            )
        ]
    return network_problems() if resolve_mode(settings)[0] == "online" else []


def start(output_dir: Path, run_name: str, config: Mapping[str, Any], settings: Settings) -> None:
    """Open the W&B run of `output_dir`: a new one, or the one that training opened there."""
    mode, _ = resolve_mode(settings)
    run_file = output_dir / RUN_FILE
    known = WandbRunFile()
    if run_file.exists():
        known = read_checked(run_file, WandbRunFile, "Delete it: another W&B run is then opened.")
    run_id, project = known.id, known.project or settings.wandb_project
    try:
        run = _init(output_dir, run_name, config, project, run_id, mode)
    except wandb.errors.Error as error:
        found = f"W&B did not open a run ({redact(' '.join(str(error).split()))[:200]})."
        raise ConfigurationError(
            [Problem("WANDB_API_KEY", found, "Mend the key, or set WANDB_MODE=offline.")]
        ) from None
    # Whole, or as before: a kill in between must not part one run in two.
    write_whole(run_file, json.dumps({"id": run.id, "project": project, "mode": mode}) + "\n")


def _init(
    output_dir: Path, run_name: str, config: Mapping[str, Any], project: str, run_id: str | None, mode: str
) -> Any:
    return wandb.init(
        project=project,
        name=run_name,
        id=run_id,
        resume="allow" if run_id else None,
        dir=output_dir,
        mode=mode,  # type: ignore[arg-type]
        config=dict(config) or None,
        settings=wandb.Settings(silent=True, console="off"),
    )


def log_summary(prefix: str, figures: Mapping[str, Any]) -> None:
    """Put final figures into the run's summary, as `prefix/name`."""
    if wandb.run:
        wandb.run.summary.update({f"{prefix}/{name}": value for name, value in figures.items()})


def log_table(name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if wandb.run:
        wandb.run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})


def log_image(name: str, path: Path) -> None:
    if wandb.run:
        wandb.run.log({name: wandb.Image(str(path))})


def finish() -> None:
    if wandb.run:
        wandb.finish()
