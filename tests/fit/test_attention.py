"""Which attention kernels a run uses, and batches without padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from forecaster.fit.attention import choose_attention, length_multiple
from forecaster.fit.gpus import KNOWN_GPUS
from forecaster.models.loading import load_base
from forecaster.models.numerics import Precision
from forecaster.training.loss import add_answer_loss
from forecaster.training.trainer import RowCollator


def tiny_model() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=99,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )


@pytest.mark.parametrize(
    ("gpus", "precision", "installed", "implementation", "reason"),
    [
        (["a100-40"], "bf16", True, "flash_attention_2", "FlashAttention 2, batches without padding"),
        (["a100-40"], "bf16", False, "sdpa", "SDPA attention, because flash_attn is not installed"),
        (
            ["a100-40"],
            "fp32",
            True,
            "sdpa_repeated",
            "SDPA attention, because FlashAttention 2 computes in 16 bit only",
        ),
        (
            ["a100-40", "t4"],
            "fp16",
            True,
            "sdpa_repeated",
            "SDPA attention, because Tesla T4 is too old for FlashAttention 2",
        ),
        ([], "fp32", True, "sdpa", "SDPA attention, because there is no GPU"),
    ],
)
def test_flash_attention_is_taken_where_it_can_run(
    gpus: list[str], precision: Precision, installed: bool, implementation: str, reason: str
) -> None:
    chosen = choose_attention([KNOWN_GPUS[name] for name in gpus], precision, installed)
    assert (chosen.implementation, chosen.reason) == (implementation, reason)
    assert chosen.padding_free == (implementation == "flash_attention_2")


def test_repeated_heads_attend_as_shared_ones_without_asking_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's fused kernels for older GPUs and fp32 do not know shared heads."""
    torch.manual_seed(0)
    tiny_model().save_pretrained(tmp_path)
    ids = torch.randint(99, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    asked: list[bool] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def recorded(*args: Any, enable_gqa: bool = False, **kwargs: Any) -> torch.Tensor:
        asked.append(enable_gqa)
        return attend(*args, enable_gqa=enable_gqa, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)
    logits = []
    for name in ("sdpa", "sdpa_repeated"):
        model = load_base(str(tmp_path), "fp32", attention=name).eval()  # type: ignore[arg-type]
        with torch.no_grad():
            logits.append([model(ids).logits, model(ids, attention_mask=mask).logits[0, 3:]])
    assert asked == [True, True, False, False, False, False, False, False]
    for shared, repeated in zip(*logits, strict=True):
        torch.testing.assert_close(shared, repeated)


def test_rows_laid_end_to_end_lose_what_they_lose_padded() -> None:
    """SDPA can keep such rows apart as well, at the price of a mask: the sums are then the same."""
    torch.manual_seed(0)
    model = tiny_model()
    add_answer_loss(model)
    rows = [
        {"row_id": "short", "input_ids": list(range(10, 30)), "labels": [-100] * 15 + list(range(25, 30))},
        {"row_id": "long", "input_ids": list(range(30, 90)), "labels": [-100] * 40 + list(range(70, 90))},
    ]
    sums = []
    for padding_free, shape in ((False, (2, 60)), (True, (1, 80))):
        batch = RowCollator(0, padding_free)(rows)
        assert tuple(batch["input_ids"].shape) == shape
        assert (batch.pop("row_ids"), batch.pop("tokens")) == (["short", "long"], 80)
        loss = model(answer_labels=batch.pop("labels"), **batch)
        assert int(loss.tokens) == 25
        sums.append(loss.nll_sum.item())
    assert sums[1] == pytest.approx(sums[0], rel=1e-5)


@pytest.mark.parametrize(
    ("gpus", "precision", "multiple"),
    [
        (["h100"], "bf16", 128),
        (["a100-80", "h200"], "fp16", 128),
        (["h100"], "fp32", 1),  # cuDNN's attention is for 16 bit
        (["a100-80"], "bf16", 1),
        (["t4"], "fp16", 1),
        ([], "fp32", 1),
    ],
)
def test_batches_have_few_lengths_where_torch_takes_cudnns_attention(
    gpus: list[str], precision: Precision, multiple: int
) -> None:
    assert length_multiple([KNOWN_GPUS[name] for name in gpus], precision) == multiple


def test_padding_to_a_multiple_changes_no_loss() -> None:
    torch.manual_seed(0)
    model = tiny_model()
    add_answer_loss(model)
    row = {"row_id": "r", "input_ids": list(range(10, 70)), "labels": [-100] * 40 + list(range(50, 70))}
    sums = []
    for multiple, shape in ((1, (1, 60)), (128, (1, 128))):
        batch = RowCollator(0, multiple=multiple)([row])
        assert tuple(batch["input_ids"].shape) == tuple(batch["labels"].shape) == shape
        assert (batch.pop("row_ids"), batch.pop("tokens")) == (["r"], 60)
        loss = model(answer_labels=batch.pop("labels"), **batch)
        assert int(loss.tokens) == 20
        sums.append(loss.nll_sum.item())
    assert sums[1] == pytest.approx(sums[0], rel=1e-5)
    assert tuple(RowCollator(0, multiple=128)([])["input_ids"].shape) == (1, 128)
    assert tuple(RowCollator(0, padding_free=True, multiple=128)([row])["input_ids"].shape) == (1, 60)
