"""Python code that a base model brings along runs where the command line says so, and nowhere else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import BASE, finished_run, write_dataset

import benchmark
import forecast

OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

open({ran!r}, "w").close()


class OwnConfig(LlamaConfig):
    pass


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    write_dataset(data, train_weeks=1, test_weeks=1)
    return finished_run(tmp_path_factory.mktemp("runs") / "run", data)


@pytest.fixture
def asks_for_code(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run whose record says that code is trusted, over a base with code, and the file that this makes."""
    folder, base, ran = tmp_path / "run", tmp_path / "base", tmp_path / "ran"
    shutil.copytree(made, folder)
    shutil.copytree(BASE, base)
    (base / "own.py").write_text(OWN_CODE.format(ran=str(ran)))
    config = json.loads((base / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (base / "config.json").write_text(json.dumps(config))
    record = json.loads((folder / "run_config.json").read_text())
    record["flags"]["trust_remote_code"] = True
    record["resolved"]["base_model"] = str(base)
    (folder / "run_config.json").write_text(json.dumps(record))
    return folder, ran


def forecast_of(folder: Path, *flags: str) -> int:
    prompt = folder.parent / "prompt.txt"
    prompt.write_text("What comes next?")
    return forecast.main(["--adapter", str(folder), "--prompt", str(prompt), *flags])


def benchmark_of(folder: Path, *flags: str) -> int:
    return benchmark.main(["generate", "--adapter", str(folder), *flags])


@pytest.mark.parametrize("command", [forecast_of, benchmark_of], ids=["forecast", "benchmark"])
def test_the_record_of_a_run_is_no_consent(
    command: Callable[..., int],
    asks_for_code: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder, ran = asks_for_code
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    assert command(folder) == 0  # as the Llama that its architecture is
    assert not ran.exists()
    shutil.rmtree(folder / "benchmark", ignore_errors=True)
    assert command(folder, "--trust_remote_code") == 0
    assert ran.exists()


def test_a_benchmark_writes_through_no_link(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(made, tmp_path / "run")
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (folder / "benchmark").mkdir()
    for name in ("benchmark.lock", "report.md", ".report.md", "predictions.0.jsonl"):
        link = folder / "benchmark" / name
        link.symlink_to(mine)
        assert benchmark_of(folder) == 2
        assert (
            f"{link}: is a link to {mine}: what is written there would go elsewhere."
            in capsys.readouterr().err
        )
        link.unlink()
    (folder / "benchmark").rmdir()
    (folder / "benchmark").symlink_to(tmp_path)
    assert benchmark_of(folder) == 2
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "run"]
