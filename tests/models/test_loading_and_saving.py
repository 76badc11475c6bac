"""LoRA on a real tiny model: what trains, what stays, what is saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from forecaster.errors import AdapterNotTrainedError, ConfigurationError
from forecaster.models.loading import load_base
from forecaster.models.registry import ALL_PROJECTIONS
from forecaster.models.tuners.base import TunerSettings
from forecaster.models.tuners.lora import LORA
from forecaster.models.weights import sort_adapter_config
from forecaster.run_folder import ADAPTER_WEIGHTS


@pytest.fixture
def base_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def lora(
    base: Path, dropout: float = 0.0, quantization: str = "none", checkpointing: bool = False
) -> PeftModel:
    model = load_base(str(base), "fp32", quantization)  # type: ignore[arg-type]
    return LORA.attach(  # type: ignore[return-value]
        model, TunerSettings(rank=4, alpha=8, dropout=dropout), gradient_checkpointing=checkpointing
    )


def train_two_steps(model: PeftModel) -> None:
    model.train()
    ids = torch.arange(20).reshape(2, 10)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


def test_training_changes_the_adapter_and_nothing_of_the_base(base_folder: Path, tmp_path: Path) -> None:
    model = lora(base_folder)
    base_before = {name: p.clone() for name, p in model.named_parameters() if "lora" not in name}
    lora_before = {name: p.clone() for name, p in model.named_parameters() if "lora" in name}
    train_two_steps(model)
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], p) for name, p in base_before.items())
    assert all(not torch.equal(after[name], p) for name, p in lora_before.items())
    assert len(lora_before) == 2 * 2 * 7


def test_a_reloaded_adapter_gives_the_same_logits(base_folder: Path, tmp_path: Path) -> None:
    model = lora(base_folder)
    train_two_steps(model)
    model.save_pretrained(tmp_path / "adapter")
    reloaded = PeftModel.from_pretrained(load_base(str(base_folder), "fp32"), str(tmp_path / "adapter"))
    ids = torch.arange(10).reshape(1, 10)
    with torch.no_grad():
        assert torch.equal(model.eval()(ids).logits, reloaded.eval()(ids).logits)


def test_a_trained_adapter_passes_the_check_and_an_untrained_one_does_not(
    base_folder: Path, tmp_path: Path
) -> None:
    model = lora(base_folder)
    model.save_pretrained(tmp_path / "untrained")
    with pytest.raises(AdapterNotTrainedError, match="still zero, as before training"):
        LORA.check_trained(tmp_path / "untrained", str(base_folder))
    train_two_steps(model)
    model.save_pretrained(tmp_path / "trained")
    assert LORA.check_trained(tmp_path / "trained", str(base_folder)) == 28


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda tensor: tensor[:0], "is empty"),
        (lambda tensor: tensor * float("nan"), "holds NaN or infinite values"),
    ],
)
def test_a_damaged_adapter_is_named_by_tensor(
    base_folder: Path, tmp_path: Path, damage, message: str
) -> None:  # type: ignore[no-untyped-def]
    model = lora(base_folder)
    train_two_steps(model)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / ADAPTER_WEIGHTS)
    name = sorted(tensors)[3]
    save_file(tensors | {name: damage(tensors[name]).contiguous()}, tmp_path / ADAPTER_WEIGHTS)
    with pytest.raises(AdapterNotTrainedError, match=message) as caught:
        LORA.check_trained(tmp_path, "base")
    assert caught.value.tensor == name


def test_a_missing_adapter_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(AdapterNotTrainedError, match="is missing"):
        LORA.check_trained(tmp_path, "base")


def test_adapter_config_is_written_in_sorted_order(base_folder: Path, tmp_path: Path) -> None:
    lora(base_folder).save_pretrained(tmp_path)
    sort_adapter_config(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == sorted(
        ALL_PROJECTIONS
    )


def test_gradients_reach_the_adapters_through_checkpointed_layers(base_folder: Path) -> None:
    model = lora(base_folder, checkpointing=True)
    model.gradient_checkpointing_enable()
    model.train()
    ids = torch.arange(20).reshape(2, 10)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    gradients = [p.grad for name, p in model.named_parameters() if "lora_B" in name]
    assert all(gradient is not None and gradient.any() for gradient in gradients)


def test_four_bit_base_weights_train_lora_on_cpu(base_folder: Path) -> None:
    model = lora(base_folder, quantization="4bit")
    quantised = [p for p in model.parameters() if p.dtype == torch.uint8]
    assert len(quantised) == 2 * 7
    before = [p.clone() for p in quantised]
    train_two_steps(model)
    assert all(torch.equal(p, q) for p, q in zip(before, quantised, strict=True))
    assert any(p.any() for name, p in model.named_parameters() if "lora_B" in name)


def test_a_base_that_lacks_weights_is_refused_instead_of_started_at_random(base_folder: Path) -> None:
    weights = load_file(base_folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"it lacks 1 tensors, such as model\.layers\.1\.mlp"):
        load_base(str(base_folder), "fp32")


def test_a_config_file_does_not_choose_the_code_of_the_attention(base_folder: Path) -> None:
    config = json.loads((base_folder / "config.json").read_text())
    (base_folder / "config.json").write_text(json.dumps({**config, "_attn_implementation": "owner/kernel"}))
    assert load_base(str(base_folder), "fp32").config._attn_implementation == "sdpa"


def test_a_padding_id_beyond_the_vocabulary_is_told(base_folder: Path) -> None:
    config = json.loads((base_folder / "config.json").read_text())
    (base_folder / "config.json").write_text(json.dumps({**config, "pad_token_id": 10**9}))
    with pytest.raises(ConfigurationError, match="Padding_idx must be within num_embeddings"):
        load_base(str(base_folder), "fp32")


@pytest.mark.parametrize("quantization", ["none", "4bit"])
@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_base_weights_that_are_no_numbers_are_told_with_file_and_tensor(
    base_folder: Path, quantization: str, number: float
) -> None:
    path, name = base_folder / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(path)
    tensors[name][3, 7] = number
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ConfigurationError) as caught:
        load_base(str(base_folder), "fp32", quantization)  # type: ignore[arg-type]
    assert str(caught.value) == (
        f"{path}: {name} holds NaN or infinite values. Take a whole copy, or name another model."
    )
