"""The task file for rented machines: what it names exists, and its command is one that train.sh takes.

The real `sky` package reads it in bench/skypilot_schema.py; its 460 MB stay out of the tests.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import ROOT

from forecaster.cluster.launch_config import split_flags
from forecaster.training import train_config

TASK_FILE = ROOT / "cloud" / "skypilot.yaml"
TASK: dict[str, Any] = yaml.safe_load(TASK_FILE.read_text(encoding="utf-8"))


def run_on_a_node(tmp_path: Path, **env: str) -> list[str]:
    """The words that the task's `run` gives to train.sh, in a folder where that only repeats them."""
    script = tmp_path / "train.sh"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "$NODE_RANK/$NNODES/$MASTER_ADDR"\n')
    script.chmod(0o755)
    commands = TASK["run"].replace("/outputs", str(tmp_path / "outputs"))
    node = {"SKYPILOT_NUM_NODES": "1", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "10.0.0.5"}
    given = {name: value or "" for name, value in TASK["envs"].items()}
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]} | given | node | env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_its_command_is_one_that_train_sh_takes(tmp_path: Path) -> None:
    *words, _ = run_on_a_node(tmp_path, FLAGS="--gradient_accumulation_steps 2")
    _, flags = split_flags(words)
    parsed = train_config.parse_flags(["--config", str(ROOT / flags[1]), *flags[2:]])
    assert parsed.base_model == "qwen2.5-1.5b"
    assert parsed.gradient_accumulation_steps == 2
    assert parsed.output_dir == str(tmp_path / "outputs" / "qwen2.5-1.5b")
    assert parsed.resume is False


def test_a_machine_that_follows_another_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "outputs" / "mine" / "checkpoint-20"
    checkpoint.mkdir(parents=True)
    assert "--resume" not in run_on_a_node(tmp_path, RUN_NAME="mine")  # begun, not complete
    (checkpoint / "manifest.json").touch()
    assert "--resume" in run_on_a_node(tmp_path, RUN_NAME="mine")


def test_several_nodes_find_one_another(tmp_path: Path) -> None:
    nodes = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NODE_IPS": "10.0.0.5\n10.0.0.6"}
    *words, environment = run_on_a_node(tmp_path, **nodes)
    assert split_flags(words)[0].no_ssh is True
    assert environment == "1/2/10.0.0.5"


def test_what_it_names_exists() -> None:
    text = TASK_FILE.read_text(encoding="utf-8")
    files = re.findall(r"\b(?:configs|bench|cloud)/[\w./-]+\b|requirements[\w-]*\.txt|train\.sh", text)
    assert {"cloud/skypilot.yaml", "requirements-gpu.txt", "configs/llama3.1-8b-a100.yaml"} <= set(files)
    for file in files:
        assert (ROOT / file).exists(), file


def test_it_resumes_what_was_saved_and_holds_no_key() -> None:
    assert TASK["resources"]["use_spot"] is True
    assert TASK["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    assert TASK["secrets"] == {"HF_TOKEN": None, "WANDB_API_KEY": None}


@pytest.mark.parametrize("gpus", ["T4:1", "A100:1", "A100:8"])
def test_it_says_how_to_rent_each_size(gpus: str) -> None:
    text = TASK_FILE.read_text(encoding="utf-8")
    assert f"--gpus {gpus}" in text or TASK["resources"]["accelerators"] == gpus
