"""Every command of the README and of docs/ is run, and says what it has to; links, pictures and tables hold.

What needs a GPU or a key is a dry run for the GPU that it names. Commands run in this process where they can.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import processes
import pytest
from processes import ROOT
from small_runs import finished_run, write_dataset

import benchmark
import data_pipeline
import forecast
import launch
import train_lora
import walk_forward
from forecaster.calls import Request
from forecaster.cluster.launch_command import first_rank_environment
from forecaster.evaluation.figures import Case, figures_of
from forecaster.evaluation.metrics import Skill
from forecaster.models import registry
from forecaster.models.tuners.base import TunerSettings
from forecaster.records import Label
from forecaster.tasks.weekly_rows import Forecast
from forecaster.vendors.pace import Pace
from forecaster.vendors.payloads import is_article

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
LINKING_PAGES = (*PAGES, "ds_configs/README.md", "sample/README.md")
LONGEST_README_WORDS = 1200
NEWEST_OF_THE_DEMO = "$(ls -d finetuned_models/embedded_* | tail -1)"
SAMPLE_FILES = ("--news_file", "sample/news.csv", "--price_file", "sample/weekly_closes.csv")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


COUNTS = {
    "README.md": 11,
    "docs/benchmark.md": 5,
    "docs/datasets.md": 1,
    "docs/gpus.md": 13,
    "docs/machines.md": 3,
    "docs/pipeline.md": 5,
    "docs/stopping.md": 2,
    "docs/walk_forward.md": 1,
}


def test_every_page_has_the_commands_that_are_tested_here() -> None:
    counts = {name: len(commands(page)) for name, page in PAGES.items()}
    assert {name: count for name, count in counts.items() if count} == COUNTS


def test_the_readme_is_one_page() -> None:
    assert len(PAGES["README.md"].split()) <= LONGEST_README_WORDS


# --- what each command says ---------------------------------------------------------------------------------

T4_PLAN = "->  4-bit, 4 x 4 rows, checkpointing on, ZeRO-2             11.8   yes     73.63"
SAYS = {
    "./train.sh configs/llama3.1-8b-a100.yaml": "16 rows per optimizer step: 8 x 2 accumulated x 1 rank(s).",
    "./train.sh configs/llama3.1-8b-a100.yaml --dry_run": "deepspeed --include localhost:0 --master_port",
    "./train.sh configs/llama3.1-8b-a100.yaml --hostfile": "Asked about 4 x NVIDIA A100 40 GB (40 GiB)",
    "./train.sh configs/llama3.1-8b-a100.yaml --no_ssh": "--no_ssh --node_rank 0 --include node-0:0@node-1:0",
    "./train.sh configs/qwen2.5-7b-a100.yaml --gpus 0,1": "deepspeed --include localhost:0,1 --master_port",
    "./train.sh configs/deepseek-r1-8b-t4.yaml --plan": "->  4-bit, 4 x 4 rows, checkpointing on, ZeRO-2 ",
    "./train.sh configs/qwen2.5-1.5b-t4.yaml": "ds_config fp16_zero2.json for 1 rank.",
    "./train.sh configs/qwen2.5-1.5b-t4.yaml --num_epochs 1": "t4.yaml --num_epochs 1 --output_dir",
    "./train.sh configs/qwen2.5-1.5b-t4.yaml --restarts 3": "benchmark.py --adapter finetuned_models/qwen2.5",
    "./train.sh configs/qwen2.5-1.5b-t4.yaml --resume": (
        "--resume: finds no complete checkpoint in finetuned_models/qwen2.5-1.5b-t4_*. "
        "Start anew without --resume."
    ),
    "./train.sh --doctor": "node  check         found",
    "deepspeed --include localhost:0 train_lora.py --run_name lora_t4_16g": (
        "24 rows per optimizer step: 1 x 24 accumulated x 1 rank(s)."
    ),
    "python train_lora.py --plan --base_model llama3.1-8b": T4_PLAN,
    "python train_lora.py --plan --base_model qwen2.5-7b --tuner full": (
        "qwen2.5-7b on 8 x NVIDIA A100 80 GB (80 GiB). Chose:"
    ),
    "python train_lora.py --base_model sample/base": "160 training rows after repeats, 48 test rows.",
    "python benchmark.py --adapter finetuned_models/RUN": "fine-tuned               0 of 6 ",
    "python benchmark.py --adapter finetuned_models/RUN --checkpoints all": (
        "Checkpoint 20 is the best of 2 on 6 validation rows."
    ),
    "python benchmark.py --base_model sample/base": (
        "sample/base: nothing to score. None of its 64 answers can be read."
    ),
    "python benchmark.py score answers.csv": "answers                  6 of 6  1.000 ",
    "python benchmark.py compare finetuned_models/RUN": "GPT                      6 of 6  1.000 ",
    "python data_pipeline.py --index_name AAPL,MSFT": "40 training and 20 test rows",
    "python data_pipeline.py plan --index_name nasdaq": (
        "teacher: openai, about 3.4 M tokens in and 1.0 M out, about $1.14"
    ),
    "python data_pipeline.py describe": "| rows                       |                      208 |",
    "python data_pipeline.py audit": "Passed: no leak and no error. Not everything could be compared",
    "python data_pipeline.py convert": "train.jsonl: 208 rows",
    "python forecast.py --adapter $(": "AAPL, from the close of 2026-03-06 to that of 2026-03-13",
    "python forecast.py --adapter finetuned_models/RUN --symbol AAPL": (
        "--date: there is no closing price of AAPL on 2026-11-20; the last one before is of 2026-04-24. "
        "Yahoo shows some closes hours late: run this again later, or give an earlier --date."
    ),
    "python forecast.py --adapter finetuned_models/RUN --symbol AAPL --date": (
        "15 articles of 4 weeks, filing none; prices_adjusted_only"
    ),
    "python walk_forward.py --config configs/embedded.yaml": "2 trainings (2 cuts x 1 seed(s)), 0 of them",
    "make demo": "./train.sh",
    "make test": "-m pytest",
    "pip install": "",
    "cp .env.example .env": "",
    "source .venv/bin/activate": "",
}
"""What a command has to say, by how it begins: the longest beginning counts."""
REFUSED = {
    "./train.sh configs/qwen2.5-1.5b-t4.yaml --resume",  # there is nothing yet to go on from
    "python forecast.py --adapter finetuned_models/RUN --symbol AAPL",  # the sample ends before today
}
ALL_COMMANDS = sorted({command for page in PAGES.values() for command in commands(page)})


def beginning_of(command: str) -> str:
    return max((known for known in SAYS if command.startswith(known)), key=len, default="")


def test_every_command_has_something_to_say_and_nothing_else_has() -> None:
    assert {beginning_of(command) for command in ALL_COMMANDS} == SAYS.keys()


# --- commands that run in this process ----------------------------------------------------------------------

ENTRIES: dict[str, Callable[[list[str]], int]] = {
    "./train.sh": launch.main,
    "train_lora.py": train_lora.main,
    "benchmark.py": benchmark.main,
    "data_pipeline.py": data_pipeline.main,
    "forecast.py": forecast.main,
    "walk_forward.py": walk_forward.main,
}
NODES = {"NODE_RANK": "0", "NNODES": "2", "MASTER_ADDR": "10.0.0.1"}
A_FRIDAY_LATER = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a benchmarked run and a file of answers, for the commands that only name them."""
    folder = tmp_path_factory.mktemp("prepared")
    write_dataset(folder, train_weeks=6)
    run = finished_run(folder / "run", folder, "--validation_share", "0.2", steps=(20, 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        assert benchmark.main(["generate", "--adapter", str(run)]) == 0
    rows = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    with (folder / "answers.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("prompt", "reference", "prediction"))
        table.writerows((row["prompt"], row["answer"], row["answer"]) for row in rows)
    return folder


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which commands work as in a clone, and which they may fill; it is the current one.

    The check that train.sh starts as a process of its own is a call in this one.
    """
    for name in ("configs", "ds_configs", "sample"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "hosts").write_text("10.0.0.1 slots=2\n10.0.0.2 slots=2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_for_dry_runs")
    start = subprocess.run

    def run(command: Any, **how: Any) -> subprocess.CompletedProcess[str]:
        if command[:2] != [sys.executable, str(ROOT / "train_lora.py")]:
            return start(command, **how)
        before, told = dict(os.environ), io.StringIO()
        os.environ.clear()
        os.environ.update(how["env"])
        try:
            with contextlib.redirect_stdout(told) if "stdout" in how else contextlib.nullcontext():
                status = train_lora.main(list(command[2:]))
        finally:
            os.environ.clear()
            os.environ.update(before)
        return subprocess.CompletedProcess(command, status, told.getvalue())

    monkeypatch.setattr(subprocess, "run", run)
    return tmp_path


def as_dry_run(words: list[str]) -> list[str]:
    """Flags of a training for the GPU of its configuration's name, which starts nothing."""
    if {"--plan", "--doctor"} & set(words):
        return words
    asked = "a100-40" if any(word.startswith("configs/") and "a100" in word for word in words) else "t4"
    return [*words, "--gpu", asked, *([] if "--dry_run" in words else ["--dry_run"])]


def with_the_run(prepared: Path, clone: Path) -> None:
    for name in ("RUN", "embedded_20260101000000"):
        shutil.copytree(prepared / "run", clone / "finetuned_models" / name)
    shutil.copy(prepared / "answers.csv", clone)


@pytest.mark.parametrize(
    "command", [command for command in ALL_COMMANDS if command.startswith(("./train.sh", "deepspeed"))]
)
def test_a_command_that_trains(
    command: str, clone: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    if words[0] == "deepspeed":
        words = words[words.index("train_lora.py") :]
        for name, value in first_rank_environment(1).items():
            monkeypatch.setenv(name, value)
    for name, value in NODES.items() if "--no_ssh" in words else ():
        monkeypatch.setenv(name, value)
    status = ENTRIES[words[0]](as_dry_run(words[1:]))
    told = "".join(capfd.readouterr())
    assert SAYS[beginning_of(command)] in told
    if "--doctor" not in words:  # it judges the machine that this runs on
        assert status == (2 if command in REFUSED else 0), told


@pytest.mark.parametrize("command", [command for command in ALL_COMMANDS if command.startswith("python ")])
def test_a_command_in_python(
    command: str, prepared: Path, clone: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with_the_run(prepared, clone)
    _, entry, *flags = shlex.split(
        command.replace(NEWEST_OF_THE_DEMO, "finetuned_models/embedded_20260101000000")
    )
    if entry == "forecast.py":
        files = [] if "--news_file" in flags else SAMPLE_FILES  # in place of a key
        status = forecast.main([*flags, *files], A_FRIDAY_LATER)
    else:
        status = ENTRIES[entry](flags)
    told = "".join(capfd.readouterr())
    assert SAYS[beginning_of(command)] in told
    assert status == (2 if command in REFUSED else 0), told


# --- commands that are processes ----------------------------------------------------------------------------


def started(*command: str) -> str:
    done = processes.run([*command], ROOT, HF_TOKEN="hf_for_dry_runs")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", [command for command in ALL_COMMANDS if command.startswith("make ")])
def test_a_make_command_has_its_target(command: str) -> None:
    assert SAYS[command] in started("make", "--dry-run", *command.split()[1:])


def test_the_files_that_pip_installs_from_can_be_read(tmp_path: Path) -> None:
    (command,) = (command for command in ALL_COMMANDS if command.startswith("pip install"))
    lines = [line for word in command.split() if word.endswith(".txt") for line in (ROOT / word).open()]
    assert any(line.startswith("torch") for line in lines)
    assert any(line.startswith("bitsandbytes") for line in lines)
    # Resolved against what is installed, and an empty wheel of what is for GPUs alone: nothing is fetched,
    # and each file has to read.
    pin = next(line.strip() for line in lines if line.startswith("liger-kernel=="))
    name, version = pin.replace("-", "_").split("==")
    with zipfile.ZipFile(tmp_path / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        info = f"{name}-{version}.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    offline = ("--dry-run", "--no-deps", "--no-index", "--quiet", "--find-links", str(tmp_path))
    started(sys.executable, "-m", "pip", "install", *offline, *command.split()[2:])


def test_the_example_of_env_names_the_keys_that_pages_name() -> None:
    keys = (ROOT / ".env.example").read_text(encoding="utf-8")
    for key in ("HF_TOKEN", "WANDB_API_KEY", "FINNHUB_API_KEY", "OPENAI_API_KEY", "OPENAI_MODEL"):
        assert f"{key}=" in keys


def test_the_environment_that_is_activated_is_the_one_that_make_makes() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "$(PYTHON) -m venv .venv" in makefile


def test_train_sh_and_an_entry_script_start_as_processes() -> None:
    told = started("./train.sh", "configs/qwen2.5-1.5b-t4.yaml", "--gpu", "t4", "--dry_run")
    assert "ds_config fp16_zero2.json for 1 rank." in told
    assert "usage" in started(sys.executable, "train_lora.py", "--help")


@pytest.mark.parametrize("entry", ENTRIES)
def test_entry_points_show_help_with_exit_status_0(entry: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        ENTRIES[entry](["--help"])
    assert left.value.code == 0
    assert "usage" in capsys.readouterr().out


# --- what pages hold beside commands ------------------------------------------------------------------------


def test_the_gpu_table_is_what_its_script_prints() -> None:
    table = started(sys.executable, "bench/gpu_table.py").strip()
    assert table.count("\n") > 10
    assert table in PAGES["docs/gpus.md"]


@pytest.mark.parametrize("name", LINKING_PAGES)
def test_links_and_pictures_exist(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", PAGES["README.md"]))
    assert PAGES.keys() - {"README.md"} <= linked


def test_the_code_on_the_page_about_extending_runs() -> None:
    found: dict[str, Any] = {}
    for block in blocks(PAGES["docs/extending.md"], "python"):
        exec(block, found)
    assert {name: len(blocks(page, "python")) for name, page in PAGES.items() if "```python" in page} == {
        "docs/extending.md": 5
    }
    assert found["SPEC"].shape.parameters == 7_248_023_552
    base = registry.resolve(str(ROOT / "sample" / "base"))
    assert isinstance(base, registry.BaseModel) and base.shape
    tuner = found["NormTuner"]()
    assert tuner.parameter_counts(base.shape, TunerSettings()) == (9 * 128, 861_568)
    assert figures_of(found["WiderSkill"]).keys() - figures_of(Skill).keys() == {"far_off_share"}
    case = Case(Forecast.of_label(Label("up", 3)), Label("up", 0), "a week")
    assert figures_of(found["WiderSkill"])["far_off_share"].of([case]).value == 1.0
    (article,) = found["Bulletin"](Pace(600)).ask(Request("bulletin-news", "AAPL"))
    assert is_article(article) and article["headline"] == "AAPL opens a plant"
    assert [endpoint.kind for endpoint in found["BULLETIN"].endpoints_of("news", "prices")] == ["news"]
    mood, row = found["Mood"](), {"headline": "Sales double", "mood": "good"}
    assert (mood.faults(row), mood.read(mood.answer(row)), mood.actual(row)) == ([], "good", "good")
    assert mood.messages(row).user == "Sales double"
    assert mood.metrics[0].value("good", mood.read("Bad")) == 0.0
