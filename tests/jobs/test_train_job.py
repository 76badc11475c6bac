"""A training as a job: in a process of its own, its figures given back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import BASE, write_dataset

from forecaster.errors import ConfigurationError
from forecaster.jobs.train import train_in_process
from forecaster.progress import at_terminal
from forecaster.training.train_config import TrainConfig


def config_of(folder: Path) -> TrainConfig:
    write_dataset(folder)
    return TrainConfig(
        base_model=str(BASE),
        dataset=str(folder / "train.jsonl"),
        test_dataset=str(folder / "test.jsonl"),
        output_dir=str(folder / "run"),
        max_length=1024,
        max_steps=2,
        batch_size=2,
        gradient_accumulation_steps=1,
        eval_steps=1,
        log_interval=1,
        report_to="none",
    )


def test_a_training_in_a_process_of_its_own_gives_its_figures_back(tmp_path: Path) -> None:
    lines: list[str] = []
    listener = replace(at_terminal(), say=lines.append)
    result = train_in_process(config_of(tmp_path), ("max_length",), listener)
    assert result.output_dir == tmp_path / "run"
    assert result.steps == 2
    assert result.test_loss is not None and 0 < result.test_loss < 20
    assert result.validation_loss is None
    assert 0 < result.train_loss < 20
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()
    assert any(line.startswith("Rows: 9 training and 6 test rows read") for line in lines)
    assert lines[-1].endswith(f"tensors, trained: {tmp_path / 'run'}")


def test_problems_of_a_training_in_a_process_of_its_own_come_back_as_records(tmp_path: Path) -> None:
    config = replace(config_of(tmp_path), dataset=str(tmp_path / "none.jsonl"), learning_rate=0.0)
    with pytest.raises(ConfigurationError) as caught:
        train_in_process(config, (), at_terminal())
    assert [problem.where for problem in caught.value.problems] == ["--learning_rate", "--dataset"]
