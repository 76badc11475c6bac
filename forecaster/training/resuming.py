"""Whether a run that goes on is the run that it began as."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forecaster.errors import ConfigurationError, Problem
from forecaster.files import leads_elsewhere, links_in
from forecaster.models.finished import WAY_OUT, trained_weights
from forecaster.models.run_schemas import DatasetFile, ResumableConfigFile, TrainerStateFile
from forecaster.models.tuners import DEFAULT_TUNER
from forecaster.run_folder import DATASET_FILE, LOG_HISTORY, RUN_CONFIG, TRAINER_STATE
from forecaster.schemas import check, read_checked, read_json, refused
from forecaster.training import train_config
from forecaster.training.run import Run
from forecaster.training.survival import checkpoints
from forecaster.training.survival.pickles import check_pickles

MAY_CHANGE_ON_RESUME = frozenset(
    {"config", "run_name", "output_dir", "resume", "dry_run", "gpu", "local_rank", "report_to", "num_workers"}
    | {"plan", "fit", "batch_size", "gradient_accumulation_steps", "gradient_checkpointing"}
    | {"dataset", "test_dataset", "from_remote", "trust_remote_code", "ds_config", "max_new_tokens"}
    | {"num_epochs", "max_steps", "evaluation_strategy", "eval_steps", "log_interval", "save_total_limit"}
    | {"grace_seconds", "max_skipped_steps", "keep_best", "allow_told_outcome"}
)


def rows_per_group(run: Run) -> int:
    """How many rows of like length stay together in the order of an epoch: the micro batch that the run began
    with. One that goes on with another, because memory ran out, keeps its order."""
    if not run.resume_from:
        return run.micro_batch_size
    resolved = read_record(run.output_dir)["resolved"]
    return int(resolved.get("rows_per_group", run.micro_batch_size))


def read_record(output_dir: Path) -> dict[str, Any]:
    """run_config.json of a run that goes on; raises ConfigurationError where it is damaged."""
    record: dict[str, Any] = read_json(output_dir / RUN_CONFIG, WAY_OUT)
    check(record, ResumableConfigFile, output_dir / RUN_CONFIG, WAY_OUT)
    return record


def check_files(run: Run) -> None:
    """Check what a run that goes on is about to load and to write over, before anything does; raises
    ConfigurationError with file and field."""
    if run.resume_from is None:
        return
    if links := links_in(run.output_dir):
        raise refused(links[0], leads_elsewhere(links[0]), "Put the file itself there.")
    record = read_record(run.output_dir)
    read_checked(run.output_dir / DATASET_FILE, DatasetFile, WAY_OUT)
    read_checked(run.resume_from / TRAINER_STATE, TrainerStateFile, WAY_OUT)
    weights = trained_weights(run.resume_from)
    run.tuner.check_files(run.resume_from, weights, run.model.shape, record["flags"])
    check_pickles(run.resume_from)


def check_same_run(run: Run, fingerprint: str, ranks: int) -> None:
    """A resumed run has to see the rows and settings that it began with, on as many ranks, and must not have
    ended.

    Args:
        fingerprint: of the rows that were read now.

    Raises:
        ConfigurationError: with everything that differs.
    """
    record = read_record(run.output_dir)
    known = read_json(run.output_dir / DATASET_FILE, WAY_OUT)
    # Runs older than these flags held nothing out, and had LoRA, started anew, and torch's own kernels.
    older = {"validation_share": 0.0, "tuner": DEFAULT_TUNER, "liger": False} | dict.fromkeys(
        ("test_from", "test_until", "train_from", "train_until", "from_adapter")
    )
    before, now = older | record["flags"], train_config.as_flags(run.config)
    problems = [
        Problem(f"--{name}", f"is {now[name]}; the run began with {before[name]}.", "Give the former value.")
        for name in sorted(before.keys() & now.keys() - MAY_CHANGE_ON_RESUME)
        if before[name] != now[name]
    ]
    rows = ("batch_size", "gradient_accumulation_steps")
    if math.prod(before[name] for name in rows) != math.prod(now[name] for name in rows):
        was, given = (" x ".join(str(flags[name]) for name in rows) for flags in (before, now))
        problems.append(
            Problem(
                "--batch_size",
                f"x --gradient_accumulation_steps is {given}; the run began with {was}.",
                "Give flags with the same product, so that a step has as many rows.",
            )
        )
    same_parts = before["validation_share"] == now["validation_share"]
    if same_parts and known["fingerprint_sha256"] != fingerprint:
        problems.append(
            Problem(
                "--resume",
                f"the rows differ from those that {run.output_dir} was started with.",
                "Give the same --dataset and --test_dataset, or start anew without --resume.",
            )
        )
    problems += find_changed_choices(run, record["resolved"])
    # ZeRO's shards would not fit another number of ranks.
    saved = checkpoints.ranks_of(run.resume_from) if run.resume_from else ranks
    if saved != ranks:
        found = f"goes on from {run.resume_from}, which {saved} rank(s) saved; this run has {ranks}."
        way_out = f"Use {saved} GPU(s) (--gpus), or start anew without --resume."
        problems.append(Problem("--resume", found, way_out))
    length = ("num_epochs", "max_steps")
    if (run.output_dir / LOG_HISTORY).exists() and all(before[name] == now[name] for name in length):
        problems.append(
            Problem(
                "--resume",
                f"{run.output_dir} has ended.",
                "Give more --num_epochs to train on, or run benchmark.py on it.",
            )
        )
    if problems:
        raise ConfigurationError(problems)


def find_changed_choices(run: Run, began: Mapping[str, Any]) -> list[Problem]:
    """What `auto` resolves to by the GPU, and cannot change under an adapter or a checkpoint."""
    ds_config = run.choice.ds_config.name if run.choice.ds_config else None
    now = {"precision": run.choice.precision, "quantization": run.choice.quantization, "ds_config": ds_config}
    return [
        Problem(
            f"--{name}",
            f"comes out as {value} here; the run began with {began[name]}.",
            f"Give --{name} {began[name]}, or go on where it began."
            if began[name]
            else "Start it without `deepspeed`, as before.",
        )
        for name, value in now.items()
        if began.get(name, value) != value
    ]
