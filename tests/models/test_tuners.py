"""Each way to tune, on the embedded base model: what it counts, what it changes, what it leaves on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from processes import ROOT
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from forecaster.answering.hf_engine import with_adapter
from forecaster.errors import AdapterNotTrainedError
from forecaster.fit.hardware import HardwareChoice
from forecaster.models import registry
from forecaster.models.finished import trained_weights, weights_sha256
from forecaster.models.loading import load_base
from forecaster.models.numerics import Quantization
from forecaster.models.tuners import TUNERS
from forecaster.models.tuners.base import TunerSettings
from forecaster.models.weights import count_parameters
from forecaster.training.run import Run
from forecaster.training.train_config import TrainConfig

BASE = ROOT / "sample" / "base"
IDS = torch.arange(10, 70).reshape(2, 30)
LORA_LIKE = ("lora", "rslora", "dora")


def tuned(tuner: str, rank: int = 8, checkpointing: bool = False) -> PreTrainedModel | PeftModel:
    torch.manual_seed(0)
    quantization: Quantization = "4bit" if tuner == "qlora" else "none"
    return TUNERS[tuner].attach(
        load_base(str(BASE), "fp32", quantization),
        TunerSettings(rank, dropout=0.0),
        gradient_checkpointing=checkpointing,
    )


def train(model: torch.nn.Module, steps: int = 2) -> None:
    """Steps that are large enough to see."""
    model.train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("tuner", "trainable", "total"),
    [
        # 4 layers x 8 x (q 256 + k 160 + v 160 + o 256 + gate, up and down 472 each)
        ("lora", 71_936, 933_504),
        ("qlora", 71_936, 933_504),
        ("rslora", 71_936, 933_504),
        # and 4 layers x (q 128 + k 32 + v 32 + o 128 + gate 344 + up 344 + down 128) magnitudes
        ("dora", 76_480, 938_048),
        ("full", 861_568, 861_568),
    ],
)
def test_as_many_parameters_train_as_the_shape_of_the_model_tells(
    tuner: str, trainable: int, total: int
) -> None:
    base = registry.resolve(str(BASE))
    assert isinstance(base, registry.BaseModel)
    assert base.shape is not None
    assert TUNERS[tuner].parameter_counts(base.shape, TunerSettings()) == (trainable, total)
    assert count_parameters(tuned(tuner)) == (trainable, total)


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_step_changes_what_is_tuned_and_every_bit_else_stays(tuner: str) -> None:
    model = tuned(tuner)
    before = {name: (p.clone(), p.requires_grad) for name, p in model.named_parameters()}
    assert {"lora" in name for name, (_, trains) in before.items() if trains} == {tuner != "full"}
    train(model)
    for name, tensor in model.named_parameters():
        former, trains = before[name]
        assert torch.equal(tensor, former) != trains, name


@pytest.mark.parametrize("tuner", LORA_LIKE)
def test_a_merged_an_unmerged_and_a_reloaded_adapter_give_the_same_logits(tuner: str, tmp_path: Path) -> None:
    model = tuned(tuner)
    untrained = logits(load_base(str(BASE), "fp32"))
    assert logits(model) == pytest.approx(untrained, abs=1e-4)
    train(model)
    expected = logits(model)
    assert not torch.allclose(expected, untrained, atol=1e-2)
    model.save_pretrained(tmp_path)
    reloaded = PeftModel.from_pretrained(load_base(str(BASE), "fp32"), str(tmp_path))
    assert torch.equal(logits(reloaded), expected)
    merged = with_adapter(load_base(str(BASE), "fp32"), tmp_path)
    assert not isinstance(merged, PeftModel)
    # Merging rounds each weight once: on some processors this moves the sum of a logit by just over 1e-5.
    assert (logits(merged) - expected).abs().max() < 2e-5


@pytest.mark.parametrize(("tuner", "scale"), [("lora", 4.0), ("dora", 4.0), ("rslora", 8.0)])
def test_rslora_divides_by_the_root_of_the_rank(tuner: str, scale: float) -> None:
    layers = [m for m in tuned(tuner, rank=4).modules() if hasattr(m, "lora_B") and hasattr(m, "scaling")]
    assert [layer.scaling for layer in layers] == [{"default": scale}] * 28


@pytest.mark.parametrize("tuner", TUNERS)
def test_gradients_are_the_same_with_and_without_checkpointed_layers(tuner: str) -> None:
    found = []
    for checkpointing in (False, True):
        model = tuned(tuner, checkpointing=checkpointing)
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        model(input_ids=IDS, labels=IDS).loss.backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    plain, checkpointed = found
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        assert torch.allclose(gradient, checkpointed[name], atol=1e-6), name


# --- a fully fine-tuned model on disk -----------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Path:
    model = tuned("full")
    train(model)
    model.save_pretrained(tmp_path / "full")
    return tmp_path / "full"


def fault(folder: Path) -> str:
    with pytest.raises(AdapterNotTrainedError) as caught:
        TUNERS["full"].check_trained(folder, str(BASE))
    return f"{caught.value.tensor} {caught.value.reason}"


def test_a_trained_model_passes_the_check_and_its_base_does_not(full: Path, tmp_path: Path) -> None:
    assert TUNERS["full"].check_trained(full, str(BASE)) == 38
    load_base(str(BASE), "fp32").save_pretrained(tmp_path / "untrained")
    assert fault(tmp_path / "untrained") == f"every weight is still that of {BASE}"


def test_a_base_that_is_no_safetensors_file_leaves_the_other_checks(full: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert TUNERS["full"].check_trained(full, str(tmp_path / "other")) == 38
    assert TUNERS["full"].check_trained(full, "owner/not-in-the-cache") == 38


def test_a_damaged_model_is_named_by_tensor(full: Path) -> None:
    tensors = load_file(full / "model.safetensors")
    name = "model.layers.2.mlp.up_proj.weight"
    for damaged, what in (
        (tensors[name] * float("nan"), "holds NaN or infinite values"),
        (tensors[name][:0].clone(), "is empty"),
    ):
        save_file(tensors | {name: damaged}, full / "model.safetensors", metadata={"format": "pt"})
        assert fault(full) == f"{name} {what}"
    (full / "model.safetensors").unlink()
    assert fault(full) == "model.safetensors is missing"


def test_a_model_in_shards_is_checked_and_hashed_whole(full: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    load_base(str(full), "fp32").save_pretrained(sharded, max_shard_size="2MB")
    assert [path.name for path in trained_weights(sharded)] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert TUNERS["full"].check_trained(sharded, str(BASE)) == 38
    before = weights_sha256(sharded)
    assert len(before) == 64
    assert before != weights_sha256(full)
    shutil.copy(sharded / "model-00001-of-00002.safetensors", sharded / "model-00002-of-00002.safetensors")
    assert weights_sha256(sharded) != before


# --- what a run is recorded as ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "quantization", "recorded"),
    [
        ("lora", "none", "lora"),
        ("lora", "4bit", "qlora"),
        ("qlora", "4bit", "qlora"),
        ("dora", "4bit", "dora"),
        ("rslora", "4bit", "rslora"),
        ("full", "none", "full"),
    ],
)
def test_lora_over_4_bit_weights_is_recorded_as_qlora(
    asked: str, quantization: Quantization, recorded: str
) -> None:
    config = TrainConfig(base_model="m", dataset="d", tuner=asked)
    choice = HardwareChoice("fp32", quantization, False, None, ())
    run = Run(config, registry.BaseModel("m", True), choice, (), Path("r"), None)
    assert run.tuner.name == recorded


@pytest.mark.parametrize("tuner", ["dora", "rslora"])
def test_the_kind_of_adapter_is_saved_with_it(tuner: str, tmp_path: Path) -> None:
    tuned(tuner).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["use_dora"], config["use_rslora"]) == (tuner == "dora", tuner == "rslora")
