"""Every command of the README works: what needs a GPU or a key with --dry_run for the GPU that it names."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import processes
import pytest
from processes import ROOT
from small_runs import finished_run, write_dataset

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


def of_a_small_run(words: list[str], folder: Path) -> list[str]:
    """A command with a run and a file of answers that there are, for those that the README only names."""
    if "finetuned_models/RUN" in words:
        write_dataset(folder, train_weeks=6)
        checkpoints = {"steps": (20, 40)} if "--checkpoints" in words else {}
        made = finished_run(folder / "run", folder, "--validation_share", "0.2", **checkpoints)
        if "compare" in words:
            done = run([sys.executable, "benchmark.py", "generate", "--adapter", str(made)])
            assert done.returncode == 0, done.stderr
        words = [str(made) if word == "finetuned_models/RUN" else word for word in words]
    if any("answers.csv" in word for word in words):
        write_dataset(folder)
        answers = folder / "answers.csv"
        rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
        with answers.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("prompt", "reference", "prediction"))
            table.writerows((row["prompt"], row["answer"], row["answer"]) for row in rows)
        words = [word.replace("answers.csv", str(answers)) for word in words]
    return words


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
        (tmp_path / "hosts").write_text("10.0.0.1 slots=2\n10.0.0.2 slots=2\n")
        flags = [str(tmp_path / word) if word == "hosts" else word for word in flags]
        node = {"NODE_RANK": "0", "NNODES": "2", "MASTER_ADDR": "10.0.0.1"} if "--no_ssh" in flags else {}
        done = run(["./train.sh", *flags, "--dry_run", *asked], **node)
    elif words[:2] == ["python", "benchmark.py"]:
        done = run(
            [sys.executable, *of_a_small_run(words[1:], tmp_path), "--output_dir", str(tmp_path / "out")]
        )
    elif words[:2] == ["python", "forecast.py"]:
        files = ("--news_file", "sample/news.csv", "--price_file", "sample/weekly_closes.csv")
        folder = ("--data_folder", str(tmp_path / "data"))
        asked = of_a_small_run(words[1:], tmp_path)
        # From today on the sample knows nothing: what is said is what is tested.
        done = run([sys.executable, *asked, *files, *folder])
        if "--date" not in asked:
            assert "no " in done.stderr
            return
    elif words[:2] == ["python", "data_pipeline.py"]:
        done = run([sys.executable, *words[1:], "--data_folder", str(tmp_path / "data")])
    else:
        assert words[0] == "python" and {"--dry_run", "--plan"} & set(words), command
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
