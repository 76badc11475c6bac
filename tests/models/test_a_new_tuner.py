"""A tuner that nobody wrote yet is one class and one entry: everything else takes it as it takes its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from processes import ROOT
from safetensors.torch import load_file
from transformers import PreTrainedModel

import train_lora
from forecaster.answering import vllm_engine
from forecaster.errors import AdapterNotTrainedError
from forecaster.fit.memory import Layout, training_bytes
from forecaster.models import registry
from forecaster.models.finished import read_finished, trained_weights
from forecaster.models.loading import load_base
from forecaster.models.registry import ModelShape, WeightTensors
from forecaster.models.tuners import TUNERS
from forecaster.models.tuners.base import TrainedTensors, TunerSettings, WholeModelTuner
from forecaster.models.weights import count_parameters

BASE = ROOT / "sample" / "base"


class NormTuner(WholeModelTuner):
    """Norms (and biases, where a model has them) only, after BitFit (Ben Zaken et al. 2021)."""

    name = "norms"
    note = "Norms alone are trained."

    def make_trainable(
        self, model: PreTrainedModel, settings: TunerSettings, gradient_checkpointing: bool
    ) -> PreTrainedModel:
        if gradient_checkpointing:
            model.enable_input_require_grads()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("norm" in name or name.endswith(".bias"))
        return model

    def trained(self, shape: ModelShape, settings: TunerSettings) -> TrainedTensors:
        return TrainedTensors(of_base=WeightTensors(plain=shape.tensors().plain))

    def describe(self, settings: TunerSettings) -> str:
        return "norms and biases"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> NormTuner:
    tuner = NormTuner()
    monkeypatch.setitem(TUNERS, tuner.name, tuner)
    return tuner


def shape_of_base() -> ModelShape:
    base = registry.resolve(str(BASE))
    assert isinstance(base, registry.BaseModel)
    assert base.shape
    return base.shape


def test_it_opens_the_parameters_that_it_says_it_trains(registered: NormTuner) -> None:
    # 4 layers with two norms, and a last one, of 128 each
    counts = (9 * 128, 861_568)
    assert registered.parameter_counts(shape_of_base(), TunerSettings()) == counts
    assert count_parameters(registered.attach(load_base(str(BASE), "fp32"), TunerSettings())) == counts


def test_its_bytes_are_planned(registered: NormTuner) -> None:
    shape = shape_of_base()
    needed = training_bytes(shape, Layout("bf16", registered, zero_stage=2, ranks=2, length=64))
    assert needed.weights == 2 * 861_568
    assert needed.adapters == 0
    assert (needed.gradients, needed.optimizer) == (4 * 576, 12 * 576)
    plain = training_bytes(shape, Layout("bf16", registered, under_deepspeed=False, length=64))
    assert (plain.weights, plain.gradients, plain.optimizer) == (4 * 861_568, 4 * 1152, 8 * 1152)


@pytest.mark.usefixtures("trained_here")
def test_it_is_trained_saved_checked_and_read_back(
    registered: NormTuner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    flags = ["--config", str(ROOT / "configs" / "embedded.yaml"), "--tuner", "norms", "--max_steps", "1"]
    flags += [
        "--warmup_ratio",
        "0",
        "--report_to",
        "none",
        "--evaluation_strategy",
        "no",
        "--output_dir",
        str(folder),
    ]
    rows = ROOT / "sample" / "dataset"
    flags += ["--dataset", str(rows / "train.jsonl"), "--test_dataset", str(rows / "test.jsonl")]
    flags += ["--base_model", str(BASE), "--batch_size", "1", "--gradient_accumulation_steps", "1"]
    assert train_lora.main(flags) == 0
    told = capsys.readouterr().out
    assert "Norms alone are trained.\n" in told
    assert f"tuner norms (1,152 trainable of {861_568:,} parameters)" in told
    assert f"Model with 38 tensors, trained: {folder}" in told

    run = read_finished(folder)
    assert run.tuner is registered
    assert run.lora_rank is None
    assert trained_weights(folder) == [folder / "model.safetensors"]
    assert json.loads((folder / "run_config.json").read_text())["resolved"]["tuner"] == "norms"
    assert "| tuner | norms: norms and biases |" in (folder / "README.md").read_text()
    before, after = load_file(BASE / "model.safetensors"), load_file(folder / "model.safetensors")
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name].to(tensor.dtype))}
    assert moved
    assert all("norm" in name for name in moved)


def test_what_it_left_untrained_is_told(registered: NormTuner, tmp_path: Path) -> None:
    load_base(str(BASE), "fp32").save_pretrained(tmp_path)
    with pytest.raises(AdapterNotTrainedError, match="every weight is still that of"):
        registered.check_trained(tmp_path, str(BASE))


def test_vllm_says_why_it_cannot_serve_a_whole_model(registered: NormTuner) -> None:
    told = [str(found) for found in vllm_engine.problems("none", 1, True, registered)]
    assert told[-1].startswith("--engine vllm: holds one set of weights;")
