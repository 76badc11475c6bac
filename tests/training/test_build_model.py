"""The model of a run: where its weights are loaded, and which path its adapters take."""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from processes import ROOT

from forecaster.fit.gpus import KNOWN_GPUS
from forecaster.fit.hardware import HardwareChoice
from forecaster.models import loading
from forecaster.models.registry import BaseModel
from forecaster.models.tuners.base import TunerSettings
from forecaster.models.tuners.lora import LORA
from forecaster.training import fine_tuning
from forecaster.training.loss import add_answer_loss
from forecaster.training.run import Run
from forecaster.training.train_config import TrainConfig

BASE = str(ROOT / "sample" / "base")


def run_on(gpu: str | None, ds_config: Path | None, precision: Any = "bf16") -> Run:
    gpus = (KNOWN_GPUS[gpu],) if gpu else ()
    choice = HardwareChoice(precision, "none", False, ds_config, ())
    return Run(TrainConfig(BASE, "d"), BaseModel(BASE, is_local=True), choice, gpus, Path("out"), None)


@pytest.fixture
def placed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Where each base was to be loaded; it is loaded into CPU memory."""
    found: list[Any] = []

    def load(location: str, precision: Any, quantization: Any, trust: bool, device_map: Any, *_: Any) -> Any:
        found.append(device_map)
        return loading.load_base(location, precision)

    monkeypatch.setattr(fine_tuning, "loading", type("Loading", (), {"load_base": staticmethod(load)}))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    return found


def layer(model: Any) -> Any:
    return model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")


@pytest.mark.parametrize(
    ("gpu", "ds_config", "zero3", "device_map", "casts", "joined"),
    [
        ("h100", None, False, {"": 3}, False, True),
        ("h100", Path("bf16_zero2.json"), False, {"": 3}, True, True),
        ("h100", Path("bf16_zero3.json"), True, None, True, False),
        (None, Path("fp32_zero0.json"), False, None, True, False),
        (None, None, False, None, False, False),
    ],
    ids=["plain python", "ZeRO-2", "ZeRO-3", "CPU ranks", "CPU"],
)
def test_weights_go_straight_onto_a_gpu_and_adapters_take_the_short_path_there(
    gpu: str | None,
    ds_config: Path | None,
    zero3: bool,
    device_map: Any,
    casts: bool,
    joined: bool,
    placed: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fine_tuning, "is_deepspeed_zero3_enabled", lambda: zero3)
    adapted = layer(fine_tuning.build_model(run_on(gpu, ds_config)))
    assert placed == [device_map]
    assert adapted.cast_input_dtype_enabled is casts
    assert isinstance(vars(adapted).get("forward"), MethodType) is joined


def test_without_pefts_casts_16_bit_losses_and_gradients_stay() -> None:
    """fp32 factors over a bf16 base under autocast, with dropout at equal seeds."""
    found = []
    for casts in (True, False):
        torch.manual_seed(0)
        base = loading.load_base(BASE, "bf16")
        add_answer_loss(base)
        model: Any = LORA.attach(base, TunerSettings(dropout=0.1)).train()
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.05)
        if not casts:
            fine_tuning.leave_inputs_as_they_are(model)
        ids = torch.arange(5, 65)[None]
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, answer_labels=ids).nll_sum / 59
        loss.backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        found.append((loss.item(), torch.cat([gradient.flatten() for gradient in gradients])))
    (loss, gradient), (own_loss, own_gradient) = found
    assert own_loss == pytest.approx(loss, rel=1e-3)
    assert float((own_gradient - gradient).norm() / gradient.norm()) < 0.02
