"""train.sh from flags to report, with real W&B offline, and what it leaves behind."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from processes import ROOT, run_entry

CANARIES = {"WANDB_API_KEY": "c0ffee" * 6 + "cafe", "HF_TOKEN": "hf_CanaryCanaryCanaryCanary"}


def train_sh(cwd: Path, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run_entry("train.sh", cwd, *flags, **env)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A whole job on 8 training and 6 test rows, its keys in .env."""
    folder = tmp_path_factory.mktemp("job")
    for name, count in (("train", 8), ("test", 6)):
        lines = (
            (ROOT / "sample" / "dataset" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        )
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    keys = "".join(f"{name}={value}\n" for name, value in CANARIES.items())
    (folder / ".env").write_text(keys + "WANDB_MODE=offline\n")
    done = train_sh(
        folder,
        *(
            "--base_model",
            str(ROOT / "sample/base"),
            "--dataset",
            "train.jsonl",
            "--test_dataset",
            "test.jsonl",
        ),
        *(
            "--run_name",
            "job",
            "--max_length",
            "1024",
            "--batch_size",
            "4",
            "--gradient_accumulation_steps",
            "1",
        ),
        *("--num_epochs", "1", "--learning_rate", "5e-3", "--max_new_tokens", "24", "--log_interval", "1"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (output_dir,) = (folder / "finetuned_models").glob("job_*")
    return output_dir, done


def test_it_says_what_it_found_and_chose_and_prints_the_command(
    job: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    lines = job[1].stdout.splitlines()
    assert lines[0] == "Found no GPU; 1 rank(s). Chose fp32 on CPU; ds_config fp32_zero0.json for 1 rank."
    assert lines[1].startswith("$ ")
    assert "deepspeed --include localhost:0 --master_port" in lines[1]
    assert f"--output_dir finetuned_models/{job[0].name}" in lines[1]


def test_it_ends_with_the_table_and_the_report(job: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output_dir, done = job
    table = done.stdout[done.stdout.rindex("long/short") :]
    for line in ("base", "fine-tuned", "always up", "always down", "training majority", "zero forecast"):
        assert f"\n{line}" in table
    assert done.stdout.splitlines()[-1] == f"Report: finetuned_models/{output_dir.name}/benchmark/report.md"
    metrics = json.loads((output_dir / "benchmark" / "metrics.json").read_text())
    assert [(name, of["project"]["rows"]) for name, of in metrics["models"].items()] == [
        ("base", 6),
        ("fine-tuned", 6),
    ]
    assert (output_dir / "benchmark" / "plots" / "overview.png").stat().st_size > 10_000
    assert "<svg" not in (output_dir / "benchmark" / "report.md").read_text(encoding="utf-8")
    assert "data:image/svg+xml;base64," in (output_dir / "benchmark" / "report.html").read_text(
        encoding="utf-8"
    )
    predictions = (output_dir / "benchmark" / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 2 * 6


def test_training_and_benchmark_are_one_wandb_run(job: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output_dir, _ = job
    run_id = json.loads((output_dir / "wandb_run.json").read_text())["id"]
    logs = sorted((output_dir / "wandb").glob("offline-run-*"))
    assert len(logs) == 2
    assert all(path.name.endswith(f"-{run_id}") for path in logs)
    media = [logs[-1] / "files" / "media" / kind / "benchmark" for kind in ("table", "images")]
    tables, pictures = ({path.name.split("_0_")[0] for path in folder.iterdir()} for folder in media)
    assert any(name.startswith("at_a_glance") for name in tables)
    assert any(name.startswith("overview") for name in pictures)


def test_no_key_is_written_or_printed(job: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    output_dir, done = job
    for canary in CANARIES.values():
        assert canary not in done.stdout + done.stderr
        for path in output_dir.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert canary.encode() not in path.read_bytes(), path


def test_every_row_is_accounted_for(job: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    record = json.loads((job[0] / "dataset.json").read_text())
    assert record["counts"]["train_read"] == 8
    assert record["counts"]["test_read"] == 6
    for part, rows in (("train", 8), ("test", 6)):
        report = record["tokenised"][part]
        assert report["kept"] + len(report["dropped_row_ids"]) == rows
    assert sum(record["training_labels"].values()) == 8
    assert sum(sum(of.values()) for of in record["training_labels_by_symbol"].values()) == 8


def test_a_benchmark_cut_off_in_the_middle_of_a_line_ends_in_the_same_predictions(
    job: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    output_dir = tmp_path / "copy"
    shutil.copytree(job[0], output_dir)
    path = output_dir / "benchmark" / "predictions.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 5])
    (output_dir / "benchmark" / "metrics.json").unlink()
    done = run_entry("benchmark.py", job[0].parents[1], "--adapter", str(output_dir), WANDB_MODE="disabled")
    assert done.returncode == 0, done.stderr
    kept = whole[: len(whole) * 3 // 5].count(b"\n")
    assert f"\n{kept} answers are there already.\n" in f"\n{done.stdout}"
    assert (output_dir / "benchmark" / "metrics.json").exists()

    def answers(content: bytes) -> list[tuple[str, str, str]]:
        rows = [json.loads(line) for line in content.decode().splitlines()]
        return [(row["model"], row["row_id"], row["answer"]) for row in rows]

    assert answers(path.read_bytes()) == answers(whole)


def test_dry_run_prints_everything_and_starts_nothing(tmp_path: Path) -> None:
    done = train_sh(
        tmp_path,
        *("--base_model", str(ROOT / "sample/base"), "--dataset", str(ROOT / "sample/dataset/train.jsonl")),
        *("--dry_run", "--gpus", "0,1", "--max_length", "1024"),
    )
    assert done.returncode == 0, done.stderr
    assert "2 rank(s). Chose fp32 on CPU; ds_config fp32_zero2.json for 2 ranks" in done.stdout
    assert "Rows: 160 training and 48 test rows read" in done.stdout
    assert "deepspeed --include localhost:0,1" in done.stdout
    assert "benchmark.py --adapter" in done.stdout
    assert '"learning_rate": 5e-05' in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_no_arguments_mean_the_embedded_default() -> None:
    done = train_sh(ROOT, "--dry_run", "--no_benchmark")
    assert done.returncode == 0, done.stderr
    assert "--config configs/embedded.yaml" in done.stdout
    assert "benchmark.py" not in done.stdout
