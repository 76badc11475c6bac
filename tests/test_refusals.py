"""What a user can get wrong: one clear message each, exit status 2, nothing loaded and nothing written."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nvml_edge
import pytest
from processes import ROOT, call_entry, run_entry

SAMPLE = ["--base_model", str(ROOT / "sample/base"), "--dataset", str(ROOT / "sample/dataset/train.jsonl")]


def train(cwd: Path, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    return call_entry("train_lora.py", cwd, *flags, **env)


def assert_refused(cwd: Path, done: subprocess.CompletedProcess[str], *messages: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    for message in messages:
        assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (cwd / "finetuned_models").exists()


@pytest.mark.parametrize(
    ("flags", "env", "messages"),
    [
        pytest.param(
            ["--base_model", "llama9", *SAMPLE[2:]],
            {},
            [
                "--base_model: 'llama9' is no known alias and no folder",
                "llama3.1-8b",
                "a hub id (owner/name)",
            ],
            id="unknown alias",
        ),
        pytest.param(
            [*SAMPLE[:2], "--dataset", "nowhere.jsonl,AI/rows"],
            {},
            ["'nowhere.jsonl' does not exist", "'AI/rows' does not exist here (add --from_remote"],
            id="missing datasets",
        ),
        pytest.param(
            ["--base_model", "llama3.1-8b", *SAMPLE[2:]],
            {},
            ["meta-llama/Llama-3.1-8B-Instruct is gated, and there is no HF_TOKEN", "put HF_TOKEN into .env"],
            id="gated without token",
        ),
        pytest.param(
            [*SAMPLE, "--dry_run"],
            {"WORLD_SIZE": "1"},
            ["1 to mend", "WORLD_SIZE=1 without RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"],
            id="a launch in part",
        ),
        pytest.param(
            [*SAMPLE, "--dry_run"],
            {"RANK": "1"},
            ["RANK=1 without WORLD_SIZE"],
            id="a rank that is not the first, alone",
        ),
        pytest.param(
            SAMPLE,
            {"WANDB_MODE": "online"},
            ["WANDB_MODE: is online, but there is no WANDB_API_KEY", "leave WANDB_MODE out to log offline"],
            id="wandb online without key",
        ),
        pytest.param(
            [*SAMPLE, "--precision", "fp16"],
            {},
            ["--precision: is fp16, which needs a GPU"],
            id="fp16 on CPU",
        ),
        pytest.param(
            [*SAMPLE, "--ds_config", "zero7"],
            {"WORLD_SIZE": "1"},
            ["--ds_config: 'zero7' does not exist", "fp32_zero2"],
            id="unknown ds_config",
        ),
        pytest.param(
            [*SAMPLE, "--quantization", "4bit", "--ds_config", "fp32_zero3"],
            {"WORLD_SIZE": "2"},
            ["4bit does not work with ZeRO stage 3"],
            id="4-bit with ZeRO-3",
        ),
        pytest.param(
            [*SAMPLE, "--resume"],
            {},
            ["--resume: finds no complete checkpoint in finetuned_models/forecaster_*"],
            id="nothing to resume",
        ),
        pytest.param(
            [*SAMPLE, "--max_length", "9000", "--max_new_tokens", "9001", "--lora_dropout", "1"],
            {},
            [
                "3 to mend",
                "--max_new_tokens: is 9001. It has to be below --max_length",
                "--lora_dropout: is 1.0",
                "reads 4096 tokens. Use --max_length 4096 or less",
            ],
            id="values out of range, all at once",
        ),
        pytest.param(
            [*SAMPLE, "--batch_sise", "2"],
            {},
            ["--batch_sise: is no flag. Did you mean --batch_size?"],
            id="misspelt flag",
        ),
        pytest.param(
            [*SAMPLE, "--batch_size", "two"],
            {},
            ["--batch_size: is 'two'. Give a whole number."],
            id="wrong type",
        ),
        pytest.param(
            ["--config", "missing.yaml"],
            {},
            ["--config: missing.yaml cannot be read"],
            id="missing configuration",
        ),
    ],
)
def test_bad_flags_are_refused(
    tmp_path: Path, flags: list[str], env: dict[str, str], messages: list[str]
) -> None:
    assert_refused(tmp_path, train(tmp_path, *flags, **env), *messages)
    assert list(tmp_path.iterdir()) == []


def test_one_bit_adam_with_a_zero_stage_is_refused(tmp_path: Path) -> None:
    config = {"optimizer": {"type": "ZeroOneAdam", "params": {}}, "zero_optimization": {"stage": 2}}
    (tmp_path / "mine.json").write_text(json.dumps(config))
    done = train(tmp_path, *SAMPLE, "--ds_config", "mine.json", WORLD_SIZE="1")
    assert_refused(
        tmp_path, done, "mine.json joins ZeroOneAdam with ZeRO stage 2", "Leave the optimizer section out"
    )


def test_a_precision_that_the_gpu_lacks_and_a_torch_that_cannot_see_it_are_refused_together(
    tmp_path: Path,
) -> None:
    t4 = nvml_edge.environment(tmp_path, nvml_edge.T4)
    done = run_entry("train_lora.py", tmp_path, *SAMPLE, "--precision", "bf16", **t4)
    assert_refused(
        tmp_path,
        done,
        "--precision: is bf16, which Tesla T4 (compute capability 7.5) does not have. Use --precision fp16",
        "cannot use Tesla T4 (compute capability 7.5) with driver 550.54.15. Run `pip install",
    )


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    t4 = nvml_edge.environment(tmp_path, nvml_edge.T4)
    done = run_entry("train.sh", tmp_path, *SAMPLE, "--gpus", "3", **t4)
    assert_refused(tmp_path, done, "--gpus: '3' asked for, GPUs present: 0", "nvidia-smi -L")


@pytest.mark.parametrize(
    ("rows", "messages"),
    [
        (
            [{"prompt": "p", "answer": "a", "period": "2024-01-07 to 2024-01-14", "symbol": "AAPL"}],
            ["rows.jsonl (train): lacks the column label", "prompt, answer, period, label, symbol"],
        ),
        (
            [
                {"prompt": "p", "answer": answer, "period": period, "label": "up by 0-1%", "symbol": "AAPL"}
                for answer, period in (
                    ("fine", "2024-01-07 to 2024-01-14"),
                    (" ", "2024-01-14 to 2024-01-21"),
                    ("fine", "last week"),
                )
            ],
            ["rows.jsonl (train): row 1: the answer is empty", "row 2: the period is 'last week'"],
        ),
    ],
    ids=["missing column", "empty answer and bad period"],
)
def test_bad_rows_are_named_by_file_and_row(
    tmp_path: Path, rows: list[dict[str, str]], messages: list[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    done = train(tmp_path, "--base_model", str(ROOT / "sample/base"), "--dataset", "rows.jsonl")
    assert_refused(tmp_path, done, *messages)


def test_rows_that_cannot_fit_are_refused_before_the_model_loads(tmp_path: Path) -> None:
    done = train(tmp_path, *SAMPLE, "--max_length", "40", "--max_new_tokens", "8", "--report_to", "none")
    assert_refused(
        tmp_path, done, "--max_length: is 40, which leaves 0 training and 0 test rows", "would keep all"
    )
    assert "Loading weights" not in done.stderr
    rehearsed = train(tmp_path, *SAMPLE, "--max_length", "40", "--max_new_tokens", "8", "--dry_run")
    told = "--max_length: is 40, which leaves 0 training and 0 test rows. --max_length 418 would keep all."
    assert_refused(tmp_path, rehearsed, told)


def test_an_own_ds_config_that_differs_from_the_flags_is_refused_in_a_dry_run(tmp_path: Path) -> None:
    config = {
        "zero_optimization": {"stage": 0},
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 8,
        "gradient_clipping": 0.5,
    }
    (tmp_path / "mine.json").write_text(json.dumps(config))
    rank = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    rank |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    done = train(tmp_path, *SAMPLE, "--ds_config", "mine.json", "--dry_run", **rank)
    rows = "gradient_accumulation_steps 8; the flags (--batch_size x --gradient_accumulation_steps) say 16"
    assert_refused(tmp_path, done, rows)
    config["gradient_accumulation_steps"] = 4
    (tmp_path / "mine.json").write_text(json.dumps(config))
    done = train(tmp_path, *SAMPLE, "--ds_config", "mine.json", "--dry_run", **rank)
    assert_refused(
        tmp_path, done, "1 to mend", "mine.json says gradient_clipping 0.5, and the clipping is 1.0."
    )


def test_rows_that_are_a_pointer_are_refused_in_a_dry_run(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    )
    done = train(tmp_path, *SAMPLE[:2], "--dataset", "rows.jsonl", "--dry_run", "--report_to", "none")
    assert_refused(tmp_path, done, "holds a pointer of Git LFS in place of rows.jsonl. Run `git lfs pull`")


def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.strip()}")
    try:
        done = train(tmp_path, *SAMPLE, "--output_dir", str(disk / "out"))
        assert_refused(tmp_path, done, "0.00 GB free, and the run may need 0.05 GB", "on a larger disk")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_existing_output_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    done = train(tmp_path, *SAMPLE, "--output_dir", "out")
    assert_refused(tmp_path, done, "out exists already. Add --resume to go on with that run")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious.txt"]


def test_train_sh_reports_the_same_problems_and_starts_nothing(tmp_path: Path) -> None:
    done = run_entry("train.sh", tmp_path, "--base_model", "nope", "--dataset", "nowhere.jsonl")
    assert_refused(tmp_path, done, "2 to mend", "'nope' is no known alias", "'nowhere.jsonl' does not exist")
    assert "$ " not in done.stdout


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "is no folder"),
        (lambda folder: folder.mkdir(), "lacks run_config.json, dataset.json, log_history.json"),
    ],
    ids=["no folder", "empty folder"],
)
def test_the_benchmark_refuses_what_is_no_finished_run(tmp_path: Path, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "adapter")
    done = call_entry("benchmark.py", tmp_path, "--adapter", "adapter")
    assert_refused(tmp_path, done, message, "Give the output folder of a training that has ended")


@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        (
            [],
            [
                "2 to mend",
                "--adapter, --base_model: neither is given. Give one",
                "--dataset: is missing. Name the rows to answer",
            ],
        ),
        (["--dataset", "a.jsonl"], ["--adapter, --base_model: neither is given."]),
        (
            ["--base_model", "b", "--dataset", "d", "--checkpoints", "all"],
            ["--checkpoints: goes with --adapter only. Name the run's output folder."],
        ),
        (
            ["--adapter", "a", "--checkpoints", "all", "--engine", "api"],
            ["--checkpoints: has nothing to load with --engine api."],
        ),
        (["socre", "a.csv"], ["'socre' is no stage. Stages: generate, score, compare, report."]),
        (["score"], ["score needs something to work on. Name a run's folder, or a file of answers."]),
        (["report", "a", "b"], ["report takes one run. `compare` puts several side by side."]),
        (["generate", "a.csv", "--adapter", "a"], ["generate takes no 'a.csv'."]),
        (
            ["--adapter", "a", "--batch_size", "0", "--concurrency", "-1", "--cost_bps", "-2"],
            ["3 to mend", "--batch_size: is 0.", "--concurrency: is -1.", "--cost_bps: is -2."],
        ),
        (
            ["--adapter", "a", "--knowledge_cutoff", "2024"],
            ["--knowledge_cutoff: is '2024'. Give a day as YYYY-MM-DD."],
        ),
        (
            ["--adapter", "a", "--batch_sise", "2"],
            ["--batch_sise: is no flag. Did you mean --batch_size?"],
        ),
        *(
            (
                [*stage, *more],
                [f"--name, NAME=PATH: {shown} is no name of a run ({size} characters). Use up to 200 bytes"],
            )
            for stage, more, shown, size in (
                (["compare", f"{'x' * 5000}=a.csv"], ["b=b.csv"], f"'{'x' * 60}'...", "5,000"),
                (["score", f"{'é' * 101}=a.csv"], [], f"'{'é' * 60}'...", "101"),
                (["score", "x\ny=a.csv"], [], "'x\\ny'", "3"),
                (["score", "x\0y=a.csv"], [], "'x\\x00y'", "3"),
                (["score", "a.csv"], ["--name", "x\ty"], "'x\\ty'", "3"),
            )
        ),
        (
            ["score", "a.csv", "--output_dir", "x\0y"],
            ["--output_dir: is 'x\\x00y'. A path holds no NUL sign."],
        ),
        (["score", "nowhere.csv"], ["nowhere.csv: is no file. Give a .csv, .jsonl, .parquet, .json file."]),
        (["report", "empty"], ["empty holds no rows.jsonl. Run `benchmark.py generate` first."]),
        (["--base_model", "llama9", "--dataset", "rows.jsonl"], ["'llama9' is no known alias and no folder"]),
        (["--base_model", SAMPLE[1], "--dataset", "nowhere.jsonl"], ["'nowhere.jsonl' does not exist"]),
        (
            ["--base_model", SAMPLE[1], "--dataset", "rows.jsonl"],
            ["rows.jsonl (train): lacks the columns period, label, symbol (it has prompt, answer)."],
        ),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else None,
)
def test_the_benchmark_refuses_bad_flags_and_files(
    tmp_path: Path, flags: list[str], messages: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "answer": "a"}\n')
    done = call_entry("benchmark.py", tmp_path, *flags)
    assert_refused(tmp_path, done, *messages)
    assert done.stderr.count("benchmark.py cannot start") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "rows.jsonl"}
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_truncated_model_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sample" / "base", tmp_path / "base")
    weights = (tmp_path / "base" / "model.safetensors").read_bytes()
    (tmp_path / "base" / "model.safetensors").write_bytes(weights[:100_000])
    flags = ["--base_model", "base", "--dataset", str(ROOT / "sample/dataset/train.jsonl")]
    done = train(tmp_path, *flags, "--max_length", "1024", "--report_to", "none")
    assert_refused(tmp_path, done, "--base_model: base cannot be loaded (", "Check its name and files")


def test_a_template_that_loses_the_answer_is_refused_before_loading_and_in_a_dry_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "sample" / "base", tmp_path / "base")
    config = json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())
    config["chat_template"] = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    (tmp_path / "base" / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "base" / "chat_template.jinja").unlink(missing_ok=True)
    flags = ["--base_model", "base", *SAMPLE[2:], "--max_length", "1024", "--report_to", "none"]
    for more in (["--dry_run"], []):
        done = train(tmp_path, *flags, *more)
        assert_refused(
            tmp_path, done, "--base_model: the chat template of base loses or changes the system text;"
        )


def test_rows_that_tell_their_outcome_are_refused_with_their_number(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in Path(SAMPLE[3]).read_text(encoding="utf-8").splitlines()]
    for row in rows[:3]:
        told = f"Let's assume your prediction for next week is {row['label']}.[/INST]"
        row["prompt"] = row["prompt"].replace("[/INST]", f" {told}")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    flags = [*SAMPLE[:2], "--dataset", "rows.jsonl", "--report_to", "none", "--dry_run"]
    done = train(tmp_path, *flags)
    assert_refused(
        tmp_path, done, "--dataset: 3 train rows tell the outcome in their prompt, as rows.jsonl:train#0"
    )
    assert train(tmp_path, *flags, "--allow_told_outcome").returncode == 0


def test_a_benchmark_of_rows_that_tell_their_outcome_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    rows = [
        json.loads(line)
        for line in (ROOT / "sample/dataset/test.jsonl").read_text(encoding="utf-8").splitlines()
    ][:3]
    for row in rows[1:]:
        told = f"Let's assume your prediction for next week is {row['label']}.[/INST]"
        row["prompt"] = row["prompt"].replace("[/INST]", f" {told}")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    flags = [*SAMPLE[:2], "--dataset", "rows.jsonl", "--max_new_tokens", "2", "--report_to", "none"]
    first = f"{rows[1]['symbol']} {rows[1]['period']}"
    told = f"2 of 3 rows tell the outcome in their prompt, as {first} does: \"Let's assume your prediction"
    done = call_entry("benchmark.py", tmp_path, *flags)
    assert_refused(tmp_path, done, f"--dataset: {told}", "give --allow_told_outcome to answer them")
    meant = call_entry("benchmark.py", tmp_path, *flags, "--allow_told_outcome")
    assert meant.returncode == 0
    assert f"WARNING: {told}" in meant.stderr
    (report,) = tmp_path.glob("benchmarks/*/report.md")
    assert "2: what answers them may copy it" in report.read_text(encoding="utf-8")
    scored = call_entry("benchmark.py", tmp_path, "score", str(report.parent))
    assert f"WARNING: {told}" in scored.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run_name", "a/../b"], "--run_name: is 'a/../b'. It names a folder"),
        (["--output_dir", "notes.txt/out"], "--output_dir: notes.txt/out cannot be made in"),
    ],
)
def test_an_output_folder_that_cannot_be_is_refused(tmp_path: Path, flags: list[str], message: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert_refused(tmp_path, train(tmp_path, *SAMPLE, *flags), message)
