"""Bytes that a run needs: by hand for a toy shape, against real tensors, and against published figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
from processes import ROOT

from forecaster.fit import memory
from forecaster.fit.memory import Layout, trained_tensors, training_bytes, weight_bytes
from forecaster.models.registry import ALL_PROJECTIONS, MODELS, ModelShape
from forecaster.models.tuners import TUNERS
from forecaster.models.tuners.base import TunerSettings

GIB = 2**30
TINY = ModelShape(
    hidden_size=4, layers=2, heads=2, kv_heads=1, head_dim=2, intermediate_size=8, vocab_size=10
)
SHAPES = {model.alias: model.shape for model in MODELS}


def bf16(
    tuner: str = "lora",
    lora_rank: int = 8,
    lora_dropout: float = 0.1,
    targets: tuple[str, ...] = ALL_PROJECTIONS,
    **layout: Any,
) -> Layout:
    settings = TunerSettings(lora_rank, dropout=lora_dropout, targets=targets)
    return Layout("bf16", TUNERS[tuner], settings, **layout)


# --- by hand ------------------------------------------------------------------------------------------------


def test_the_parts_of_a_toy_model_are_those_counted_by_hand() -> None:
    # One layer: q 16, k 8, v 8, o 16, gate 32, up 32, down 32. Embedding and head: 40 each. Norms: 5 x 4.
    assert TINY.linear_parameters == 2 * 144
    assert TINY.embedding_parameters == 80
    assert TINY.parameters == 388
    # Inputs plus outputs in one layer: q 8, k 6, v 6, o 8, gate 12, up 12, down 12.
    assert trained_tensors(TINY, bf16(lora_rank=2)).elements == 2 * 2 * 64


def test_four_bit_weights_are_half_a_byte_and_their_scales() -> None:
    # 1000 elements: 500 bytes, 16 blocks of 64, one group of 256 blocks, a mean, 16 and 256 code values.
    assert memory.four_bit_bytes(1000) == 500 + 16 + 4 + 4 + 64 + 1024
    each = 1 + 4 + 4 + 64 + 1024
    packed = 2 * (2 * (8 + each) + 2 * (4 + each) + 3 * (16 + each))
    assert weight_bytes(TINY, four_bit=True) == packed + 2 * 100
    assert weight_bytes(TINY, four_bit=False) == 776


def test_a_lora_step_of_a_toy_model_needs_the_bytes_counted_by_hand() -> None:
    needed = training_bytes(TINY, bf16(lora_rank=2, length=100, logits_share=0.5))
    # A layer keeps: two norms' inputs in fp32 2*4*4, attention 2*(2*4+2*2), gate, activation and up 2*3*8,
    # and copy and mask of what goes into seven adapted projections, 3*(6*4+8).
    layer = 32 + 24 + 48 + 96
    assert needed.parts() == {
        "weights": 776,
        "adapters": 2 * 256,
        "gradients": 2 * 256,
        "optimizer": 12 * 256,
        "activations": 100 * (2 * 4 * 2 + layer + 2 * (2 * 4 + 2 * 8)),
        "logits": 50 * (2 * 2 * 4 + 12 * 10),
        "communication": 0,
        "reserve": 1_000_000_000,
    }
    assert needed.update == 4 * 256
    assert needed.total == sum(needed.parts().values())


def test_without_checkpointing_every_layer_keeps_its_activations() -> None:
    kept = training_bytes(TINY, bf16(length=100, checkpointing=False)).activations
    assert kept == 100 * (2 * 200 + 48)


def test_logits_in_chunks_stop_growing_with_the_answer() -> None:
    whole, chunks = (
        [memory.logit_bytes(SHAPES["llama3.1-8b"], bf16(length=n, logits_in_chunks=c)) for n in (4096, 8192)]
        for c in (False, True)
    )
    assert whole[1] / whole[0] > 1.99
    assert chunks[1] / chunks[0] < 1.05


def test_the_optimizers_copies_of_gradients_count_only_where_they_are_the_peak() -> None:
    needed = training_bytes(SHAPES["qwen2.5-1.5b"], bf16(tuner="full", length=64))
    assert needed.update == 4 * SHAPES["qwen2.5-1.5b"].parameters > needed.activations + needed.logits
    longer = training_bytes(SHAPES["qwen2.5-1.5b"], bf16(tuner="full", length=65536))
    assert longer.update < longer.activations + longer.logits
    assert needed.total - longer.total == needed.update - longer.activations - longer.logits


@pytest.mark.parametrize("length", [64, 65536])
def test_the_parts_add_up_to_the_total_whatever_is_the_peak(length: int) -> None:
    needed = training_bytes(SHAPES["qwen2.5-1.5b"], bf16(tuner="full", length=length))
    assert sum(needed.parts().values()) == needed.total
    assert ("update" in needed.parts()) == ("logits" not in needed.parts()) == (length == 64)


def test_a_trained_heads_gradient_is_there_beside_all_stored_activations() -> None:
    # Of 10 x 4 weights: summed in fp32, copied to bf16. A layer's gradients, 2*(2*4+2*8) a token, come later.
    full = bf16(tuner="full", length=2, logits_share=0.5, checkpointing=False)
    chunk = 1 * (2 * 2 * 4 + 12 * 10)
    assert memory.logit_bytes(TINY, full) == chunk + 6 * 40 - 2 * 48
    assert memory.logit_bytes(TINY, bf16(length=2, logits_share=0.5, checkpointing=False)) == chunk
    # With many tokens, a layer that is computed anew needs more than the head.
    many = bf16(tuner="full", length=100, logits_share=0.01)
    assert memory.logit_bytes(TINY, many) == chunk
    # A gradient of fp32 weights is not copied.
    plain = bf16(tuner="full", length=2, logits_share=0.5, checkpointing=False, under_deepspeed=False)
    assert memory.logit_bytes(TINY, plain) == chunk + 4 * 40 - 2 * 48


def test_full_fine_tuning_without_deepspeed_keeps_autocasts_copies_of_the_weights() -> None:
    under, plain = (bf16(tuner="full", under_deepspeed=under) for under in (True, False))
    more = memory.activation_bytes(TINY, plain) - memory.activation_bytes(TINY, under)
    assert more == 2 * TINY.linear_parameters
    fp32 = Layout("fp32", TUNERS["full"], under_deepspeed=False)
    assert memory.activation_bytes(TINY, fp32) == memory.activation_bytes(
        TINY, Layout("fp32", TUNERS["full"], under_deepspeed=True)
    )


def test_zeros_buckets_are_allocated_whole_on_one_rank_too() -> None:
    assert training_bytes(TINY, bf16(zero_stage=2)).communication == 2 * 2 * 50_000_000
    assert training_bytes(TINY, bf16(zero_stage=2, bucket_elements=7)).communication == 2 * 7
    assert training_bytes(TINY, bf16(zero_stage=3)).communication == 2 * 2 * 4**2


def test_zero2_sums_16_bit_gradients_in_fp32_and_steps_with_that_sum() -> None:
    def of(**layout: Any) -> tuple[int, int]:
        needed = training_bytes(TINY, bf16(lora_rank=2, **layout))
        return needed.gradients, needed.update

    assert of(zero_stage=2) == (4 * 256, 0)
    assert of(zero_stage=2, sums_in_fp32=False) == (2 * 256, 4 * 256)
    assert of(zero_stage=2, offload=True) == (0, 0)
    assert of(zero_stage=2, offload=True, sums_in_fp32=True) == (4 * 256, 0)
    fp32 = training_bytes(TINY, Layout("fp32", tuner_settings=TunerSettings(2), zero_stage=2))
    assert (fp32.gradients, fp32.update) == (4 * 256, 4 * 256)


def test_padded_tokens_cost_what_real_ones_do() -> None:
    padded = bf16(lora_rank=2, length=100, length_multiple=128, micro_batch_size=2)
    assert padded.tokens == 256
    assert memory.activation_bytes(TINY, padded) == memory.activation_bytes(
        TINY, bf16(lora_rank=2, length=128, micro_batch_size=2)
    )


def test_ligers_norms_keep_16_bits_and_its_mlp_two_of_three_tensors() -> None:
    # Of a layer's 200 bytes a token: norms 2*2*4 for 2*4*4, MLP 2*2*8 for 2*3*8.
    assert memory.layer_activation_bytes(TINY, bf16(lora_rank=2)) == 200
    assert memory.layer_activation_bytes(TINY, bf16(lora_rank=2, liger=True)) == 200 - 16 - 16


def test_offload_leaves_the_optimizer_to_the_cpu() -> None:
    shape = SHAPES["qwen2.5-1.5b"]
    layout = bf16(tuner="full", zero_stage=2, ranks=2, offload=True)
    needed = training_bytes(shape, layout)
    assert (needed.gradients, needed.optimizer, needed.update) == (0, 0, 0)
    assert memory.host_bytes(shape, layout) == pytest.approx(16 * shape.parameters / 2, rel=1e-6)
    assert memory.host_bytes(shape, bf16()) == 0


@pytest.mark.parametrize("alias", SHAPES)
def test_more_tokens_a_higher_rank_and_kept_activations_cost_memory(alias: str) -> None:
    def total(**layout: Any) -> int:
        return training_bytes(SHAPES[alias], bf16(**layout)).total

    assert total() < total(length=4096)
    assert total(micro_batch_size=2) == total(length=4096)
    assert total() < total(lora_rank=16)
    assert total() < total(checkpointing=False)
    assert total(four_bit=True) < total()
    assert total() < total(tuner="dora") < total(tuner="full")


# --- against published figures ------------------------------------------------------------------------------

QWEN_7B = ModelShape(4096, 32, 32, 32, 128, 11008, 151936, qkv_bias=True)
# Qwen's finetune scripts: rank 64 on every projection of the layers, dropout 0.05, embeddings and head
# frozen, checkpointing, one row a step, all logits, plain AdamW under DeepSpeed's bf16.
QWEN_RUN = {"lora_rank": 64, "lora_dropout": 0.05, "logits_share": 1.0, "logits_in_chunks": False}
# torchtune's recipes: rank 8 on query, value, output and the MLP, no dropout, checkpointing, two packed rows
# of 2048 with loss on each token, in chunks.
TORCHTUNE_RUN = {
    "lora_rank": 8,
    "lora_dropout": 0.0,
    "logits_share": 1.0,
    "micro_batch_size": 2,
    "targets": ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}


@pytest.mark.parametrize(
    ("length", "four_bit", "published_gb"),
    [(2048, False, 23.8), (4096, False, 29.7), (2048, True, 13.9), (4096, True, 16.9)],
)
def test_qwen_7b_on_an_a100_is_within_15_percent_of_what_its_readme_says(
    length: int, four_bit: bool, published_gb: float
) -> None:
    """Memory in use as nvidia-smi shows it, so with the reserve; its 4-bit weights are GPTQ's, as large as
    NF4 within 2 %."""
    needed = training_bytes(QWEN_7B, bf16(length=length, four_bit=four_bit, **QWEN_RUN))
    assert needed.total / 1e9 == pytest.approx(published_gb, rel=0.15)


@pytest.mark.parametrize(("four_bit", "published_gib"), [(True, 7.4), (False, 16.2)])
def test_an_8b_is_within_15_percent_of_what_torchtunes_readme_says(
    four_bit: bool, published_gib: float
) -> None:
    """The peak of torch's allocator, which knows no CUDA context: without the reserve."""
    needed = training_bytes(SHAPES["llama3.1-8b"], bf16(length=2048, four_bit=four_bit, **TORCHTUNE_RUN))
    assert (needed.total - needed.reserve) / GIB == pytest.approx(published_gib, rel=0.15)


# --- against real tensors -----------------------------------------------------------------------------------

# Odd sizes, so that nothing divides by the number of ranks by chance.
ODD = ModelShape(
    hidden_size=30, layers=2, heads=3, kv_heads=1, head_dim=10, intermediate_size=37, vocab_size=101
)


def save_base(folder: Path, **changes: Any) -> ModelShape:
    """A Llama or (with `tie_word_embeddings`) Qwen2 of the odd shape, with weights."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": ODD.hidden_size,
        "num_hidden_layers": ODD.layers,
        "num_attention_heads": ODD.heads,
        "num_key_value_heads": ODD.kv_heads,
        "intermediate_size": ODD.intermediate_size,
        "vocab_size": ODD.vocab_size,
    }
    if changes:
        model: Any = Qwen2ForCausalLM(Qwen2Config(**sizes, **changes))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    model.save_pretrained(folder)
    shape = ModelShape.from_config(json.loads((folder / "config.json").read_text()))
    assert shape is not None
    return shape


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What tests/zero_bytes.py found on either rank, through the real launcher: 27 engines, about 30 s."""
    folder = tmp_path_factory.mktemp("zero")
    assert save_base(folder / "base") == ODD
    command = ["deepspeed", "--include", "localhost:0,1", "--master_port", str(processes.free_port())]
    script = [str(ROOT / "tests" / "zero_bytes.py"), str(folder)]
    done = processes.run([*command, *script], folder, LOCAL_SIZE="2")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_weights_gradients_and_optimizer_are_exact_for_every_tuner_and_zero_stage_on_two_ranks(
    measured: list[list[dict[str, Any]]],
) -> None:
    ranks = measured
    assert len(ranks[0]) == 3 * 2 * 4 + 3
    wrong = []
    for case in (case for rank in ranks for case in rank):
        layout = Layout(
            case["precision"],
            TUNERS[case["tuner"]],
            TunerSettings(rank=3),
            four_bit=case["tuner"] == "qlora",
            zero_stage=case["stage"],
            ranks=2,
        )
        needed = training_bytes(ODD, layout)
        found = (case["weights"], case["gradients"], case["optimizer"])
        if found != (needed.weights + needed.adapters, needed.gradients, needed.optimizer):
            wrong.append((case, needed))
    assert wrong == []


@pytest.mark.parametrize("tuner", ["lora", "rslora", "dora", "qlora", "full"])
@pytest.mark.parametrize("tied", [False, True])
def test_they_are_exact_for_every_tuner_without_deepspeed(tuner: Any, tied: bool, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from forecaster.models import loading

    sys.path.insert(0, str(ROOT / "tests"))
    from zero_bytes import storage_bytes, weights

    shape = save_base(tmp_path / "base", tie_word_embeddings=tied)
    layout = Layout(
        "fp32" if tuner == "full" else "bf16",
        TUNERS[tuner],
        TunerSettings(rank=4),
        four_bit=tuner == "qlora",
        under_deepspeed=False,
    )
    model: Any = loading.load_base(
        str(tmp_path / "base"), layout.precision, "4bit" if layout.four_bit else "none"
    )
    if tuner != "full":
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=4,
            target_modules="all-linear",
            use_dora=tuner == "dora",
            use_rslora=tuner == "rslora",
        )
        model = get_peft_model(model, lora)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if layout.four_bit:
        for parameter in trainable:  # as the trainer does
            parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(trainable)
    model.train()  # as the trainer does; bitsandbytes packs the weights of a model at rest for its CPU kernel
    tokens = torch.arange(6).reshape(1, 6)
    with torch.autocast("cpu", torch.bfloat16, enabled=tuner != "full"):
        model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.numel() > 1]
    needed = training_bytes(shape, layout)
    assert storage_bytes(weights(model)) == needed.weights + needed.adapters
    assert storage_bytes(parameter.grad for parameter in trainable) == needed.gradients
    assert storage_bytes(moments) == needed.optimizer
