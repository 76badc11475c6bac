"""What a run that goes on reads of its former session, and refuses before anything loads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small_runs import BASE, finished_run, write_dataset

from forecaster.errors import ConfigurationError
from forecaster.fit.hardware import HardwareChoice
from forecaster.models import registry
from forecaster.training import resuming, train_config
from forecaster.training.run import Run
from forecaster.training.survival import checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable

STATE = {"global_step": 20, "max_steps": 60, "epoch": 1.0, "log_history": [{"step": 20, "loss": 1.5}]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    write_dataset(data, train_weeks=1, test_weeks=1)
    folder = finished_run(tmp_path_factory.mktemp("runs") / "run", data, steps=(20,))
    (folder / "checkpoint-20" / "trainer_state.json").write_text(json.dumps(STATE))
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    folder = shutil.copytree(made, tmp_path / "run")
    config = train_config.parse_flags(["--base_model", str(BASE), "--dataset", "rows.jsonl", "--resume"])
    base = registry.resolve(str(BASE))
    assert isinstance(base, registry.BaseModel)
    choice = HardwareChoice("fp32", "none", False, None, ())
    return Run(config, base, choice, (), folder, folder / "checkpoint-20")


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_whole_run_and_one_that_begins_are_not_refused(run: Run, tmp_path: Path) -> None:
    resuming.check_files(run)
    resuming.check_files(replace(run, output_dir=tmp_path / "new", resume_from=None))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda run: (run / "run_config.json").write_text("{"), "run_config.json: is not whole JSON (line 1"),
        (
            lambda run: change(run / "run_config.json", flags={"dataset": "a"}),
            "run_config.json: flags.run_name is missing; flags.max_length is missing; flags.max_new_tokens",
        ),
        (
            lambda run: change(run / "dataset.json", fingerprint_sha256=5),
            "dataset.json: fingerprint_sha256 is 5: it should be a valid string.",
        ),
        (
            lambda run: change(run / "checkpoint-20" / "trainer_state.json", global_step="20"),
            "checkpoint-20/trainer_state.json: global_step is '20': it should be a valid integer.",
        ),
        (
            lambda run: change(run / "checkpoint-20" / "trainer_state.json", log_history={}),
            "checkpoint-20/trainer_state.json: log_history is {}: it should be a valid list.",
        ),
        (
            lambda run: change(run / "checkpoint-20" / "adapter_config.json", megatron_config={"a": 1}),
            "checkpoint-20/adapter_config.json: megatron_config is set.",
        ),
        (
            lambda run: (run / "checkpoint-20" / "adapter_model.safetensors").write_bytes(b""),
            "checkpoint-20/adapter_model.safetensors: is no whole safetensors file (",
        ),
        (
            lambda run: (run / "row_order").symlink_to(run.parent),
            "row_order: is a link to {parent}: what is written there would go elsewhere.",
        ),
    ],
    ids=["record cut", "flags missing", "rows", "steps", "log", "adapter", "weights", "link"],
)
def test_what_is_damaged_is_told_with_file_and_field(
    spoil: Callable[[Path], object], expected: str, run: Run
) -> None:
    spoil(run.output_dir)
    with pytest.raises(ConfigurationError) as caught:
        resuming.check_files(run)
    found = expected.replace("{parent}", str(run.output_dir.parent))
    assert str(caught.value).startswith(f"{run.output_dir}/{found}")


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/passwd"])
def test_a_manifest_names_files_of_its_checkpoint_only(name: str, run: Run) -> None:
    folder = run.output_dir / "checkpoint-20"
    checkpoints.mark_complete(folder)
    assert checkpoints.fault(folder) is None
    change(folder / "manifest.json", **{name: "0"})
    assert checkpoints.fault(folder) == f"its manifest names {name}"
