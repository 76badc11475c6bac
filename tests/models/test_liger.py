"""Liger's kernels: refused before loading where they cannot be; where they are installed, the same loss."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT

from forecaster.errors import ConfigurationError
from forecaster.models import liger
from forecaster.models.registry import BaseModel, ModelShape, resolve

TINY = ModelShape(4, 2, 2, 1, 2, 8, 10)
LLAMA = BaseModel("base", is_local=True, shape=TINY)


def test_without_a_gpu_the_flag_is_refused() -> None:
    (problem,) = liger.find_problems(LLAMA, has_gpu=False)
    assert str(problem) == "--liger: needs a GPU; there is none. Leave --liger out."


@pytest.mark.parametrize("missing", ["liger_kernel", "triton"])
def test_what_is_not_installed_is_named_with_the_command(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else name)
    (problem,) = liger.find_problems(LLAMA, has_gpu=True)
    assert "Run `pip install -r requirements-gpu.txt`" in str(problem)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert liger.find_problems(LLAMA, has_gpu=True) == []


def test_a_model_of_another_type_is_refused_by_its_configuration_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    folder = str(tmp_path)
    found = f"--liger: {folder} is no llama, qwen2 or mistral model. Leave --liger out."
    model = resolve(folder, weights_needed=False)
    assert isinstance(model, BaseModel)
    assert [str(problem) for problem in liger.find_problems(model, has_gpu=True)] == [found]
    with pytest.raises(ConfigurationError) as refused:
        liger.check_type(folder, trust_remote_code=False)
    assert [str(problem) for problem in refused.value.problems] == [found]
    liger.check_type(str(ROOT / "sample" / "base"), trust_remote_code=False)


SAME_LOSS = """
import numpy
import torch
import triton.language as tl
from triton.language.extra import libdevice
from triton.runtime import interpreter

# Two things that Triton's interpreter lacks: functions of CUDA's library, and floats as arguments.
libdevice.rsqrt = lambda x: tl.rsqrt(x)
former = interpreter._implicit_cvt

def convert(argument):
    if type(argument) is float:
        handle = interpreter.TensorHandle(numpy.array([argument], dtype=numpy.float32), tl.float32)
        return tl.tensor(handle, tl.float32)
    return former(argument)

interpreter._implicit_cvt = convert

from forecaster.models import liger, loading
from forecaster.models.tuners.base import TunerSettings
from forecaster.models.tuners.lora import LORA
from forecaster.training.loss import add_answer_loss

ids = torch.arange(5, 45)[None]
found = []
for with_kernels in (False, True):
    torch.manual_seed(0)
    base = loading.load_base("sample/base", "fp32")
    if with_kernels:
        liger.use_kernels(base)
    add_answer_loss(base)
    model = LORA.attach(base, TunerSettings(dropout=0.0))
    loss = model(input_ids=ids, answer_labels=ids).nll_sum
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    found.append((loss.item(), gradient))
(loss, gradient), (own, own_gradient) = found
assert "Liger" in type(base.model.norm).__name__ + base.model.norm.extra_repr.__qualname__
print(abs(own - loss) / loss, float((own_gradient - gradient).norm() / gradient.norm()))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("liger_kernel", "triton")),
    reason="liger-kernel and triton are for GPU machines",
)
def test_where_they_are_installed_loss_and_gradients_stay_to_1e_3() -> None:
    """Interpreted, without a GPU: in a process of its own, as they are put into transformers' modules."""
    env = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", SAME_LOSS], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    of_loss, of_gradients = map(float, done.stdout.split())
    assert of_loss < 1e-3
    assert of_gradients < 1e-3
