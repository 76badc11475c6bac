"""Every command of the README works: what needs a GPU or a key with --dry_run for the GPU that it names."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from processes import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def run(command: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    return processes.run(command, ROOT, HF_TOKEN="hf_for_dry_runs", **env)


def gpu_of(words: list[str]) -> str:
    """The GPU that a configuration is for, by its name."""
    config = next((word for word in words if word.startswith("configs/")), "")
    return "a100-40" if "a100" in config else "t4"


def test_the_readme_has_the_commands_that_are_tested_here() -> None:
    assert len(COMMANDS) >= 14


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_readme_command(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        done = run(["make", "--dry-run", *words[1:]])  # this very run is `make test`; CI runs both for real
    elif words[:2] == ["pip", "install"]:
        files = [word for word in words if word.endswith(".txt")]
        # Resolved against what is installed: nothing is fetched, and each file has to read.
        lines = [line for name in files for line in (ROOT / name).read_text().splitlines()]
        assert any(line.startswith(("torch", "bitsandbytes")) for line in lines)
        done = run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--dry-run",
                "--no-deps",
                "--no-index",
                "--quiet",
                *words[2:],
            ]
        )
    elif words[0] == "cp":
        done = run(["cp", words[1], str(tmp_path / words[2])])
    elif words[0] == "deepspeed":
        flags = words[words.index("train_lora.py") :]
        done = run([sys.executable, *flags, "--dry_run", "--gpu", "t4"], WORLD_SIZE="1")
    elif words[0] == "./train.sh":
        flags = [word for word in words[1:] if word not in ("--dry_run", "--resume")]
        asked = [] if "--gpu" in flags else ["--gpu", gpu_of(words)]
        done = run(["./train.sh", *flags, "--dry_run", *asked])
    elif words[:2] == ["python", "data_pipeline.py"]:
        done = run([sys.executable, *words[1:], "--data_folder", str(tmp_path / "data")])
    else:
        assert words[0] == "python" and "--dry_run" in words, command
        done = run([sys.executable, *words[1:]])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gpu_table_is_what_its_script_prints() -> None:
    table = run([sys.executable, "bench/gpu_table.py"]).stdout.strip()
    assert table.count("\n") > 10
    assert table in README


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.parametrize("entry", ["data_pipeline.py", "train_lora.py", "benchmark.py", "launch.py"])
def test_entry_scripts_show_help_with_exit_status_0(entry: str) -> None:
    done = run([sys.executable, entry, "--help"])
    assert done.returncode == 0
    assert "usage" in done.stdout.lower()
