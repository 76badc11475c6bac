"""LoRA layers that add their update in place: PEFT's outputs and gradients, and PEFT's own path elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from forecaster.models.lora_products import join_products


class Two(nn.Module):
    """Two linear layers, one of them with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(24, 40), nn.Linear(40, 16, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.two(torch.tanh(self.one(x)))
        return output


def adapted(joined: bool, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"r": 4, "lora_alpha": 12, "lora_dropout": 0.3} | options
    model = get_peft_model(Two().to(dtype), LoraConfig(target_modules=["one", "two"], **options))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.2)
    assert not joined or join_products(model) == 2
    return model.train()


def results(model: Any, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Output, and the gradients of the input and of every factor."""
    torch.manual_seed(1)
    x = torch.randn(3, 5, 24).to(dtype).requires_grad_()
    output = model(x)
    output.float().square().sum().backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    return {"output": output, "input": x.grad, **gradients}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients_are_pefts_to_1e_5(dropout: float) -> None:
    pefts, own = (results(adapted(joined, lora_dropout=dropout)) for joined in (False, True))
    assert len(own) == 2 + 4
    for name, expected in pefts.items():
        assert float((own[name] - expected).norm() / expected.norm()) < 1e-5, name


@pytest.mark.parametrize("factors", [torch.float32, torch.bfloat16])
def test_in_16_bit_they_differ_by_rounding(factors: torch.dtype) -> None:
    """With the fp32 factors of plain python under autocast, and with DeepSpeed's 16-bit ones."""
    found = []
    for joined in (False, True):
        model = adapted(joined, torch.bfloat16)
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.to(factors)
        with torch.autocast("cpu", torch.bfloat16, enabled=factors == torch.float32):
            found.append(results(model, torch.bfloat16))
    pefts, own = found
    for name, expected in pefts.items():
        assert own[name].dtype == expected.dtype, name
        difference = (own[name].float() - expected.float()).norm() / expected.float().norm()
        assert float(difference) < 0.02, name


def test_what_is_switched_off_or_merged_is_pefts() -> None:
    torch.manual_seed(2)
    x = torch.randn(2, 24)
    plain, own = adapted(False).eval(), adapted(True).eval()
    with plain.disable_adapter(), own.disable_adapter():
        assert torch.equal(plain(x), own(x))
    torch.testing.assert_close(own.merge_and_unload()(x), plain(x))


def test_other_layers_stay_as_they_are() -> None:
    assert join_products(adapted(False, use_dora=True)) == 0
    two_adapters = adapted(False)
    two_adapters.add_adapter("other", LoraConfig(target_modules=["one", "two"], r=2))
    assert join_products(two_adapters) == 0
    assert join_products(adapted(False, use_rslora=True)) == 2  # plain, but for its scale
    assert join_products(Two()) == 0
