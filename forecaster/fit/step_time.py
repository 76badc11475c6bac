"""How long an optimizer step takes, predicted: operations, bytes read, bytes sent. Pure arithmetic.

A model for choosing between settings, not a promise. It knows nothing of row lengths: every row is as long as
`--max_length`.
"""

from __future__ import annotations

from dataclasses import dataclass

from forecaster.fit.gpu_cards import GpuSpeed
from forecaster.fit.memory import Layout, trained_tensors
from forecaster.models.registry import ModelShape, elements

ACHIEVED_SHARE = 0.31
"""Share of a GPU's peak that matrix products reach over a whole step. Measured on an H100 for LoRA on an 8B
shape at 4096 tokens (docs/gpus.md): 30 % without checkpointing, 32 % with it. Published: 41 % on an H100 with
fused kernels (NeMo AutoModel), about 32 % on an A100 (transformers with FlashAttention 2)."""
LAYER_OVERHEAD_S = 0.5e-3
"""Starting the kernels of one layer in one pass, adapters included (about 50 at 10 microseconds): assumed."""
ZERO3_LAYER_OVERHEAD_S = 1.5e-3
"""Gathering and freeing one layer's tensors in one pass, besides their bytes: DeepSpeed's hooks are Python,
some twenty a layer with adapters: assumed."""
CPU_ADAM_ELEMENTS_PER_S = 1e9
"""Parameters that AdamW on a CPU updates in a second (28 bytes each of about 30 GB/s): assumed."""
HIDDEN_SHARE = 0.5
"""Share of ZeRO's traffic during a backward pass that costs no time, at best all computing: assumed."""
GPUS_PER_MACHINE = 8
NETWORK_BYTES_PER_S = 25e9
"""For each GPU between machines: 200 Gbit/s, as in NVIDIA's DGX A100. Rented clusters often have less."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step on each rank."""

    compute_s: float
    communication_s: float
    """What is left of it beside computing."""
    offload_s: float
    """Copies to and from CPU memory, and AdamW there."""

    @property
    def total_s(self) -> float:
        return self.compute_s + self.communication_s + self.offload_s


def step_time(shape: ModelShape, layout: Layout, accumulation: int, speed: GpuSpeed) -> StepTime:
    """Seconds of an optimizer step of `accumulation` micro steps on each rank."""
    compute_s = accumulation * micro_step_s(shape, layout, speed)
    hidden, exposed = bytes_on_the_wire(shape, layout, accumulation)
    link = speed.link_bytes_per_s
    if layout.ranks > GPUS_PER_MACHINE:  # a ring is as fast as its slowest part
        link = min(link, NETWORK_BYTES_PER_S)
    beside_s = min(HIDDEN_SHARE * hidden / link, compute_s)
    communication_s = hidden / link - beside_s + exposed / link
    return StepTime(compute_s, communication_s, _offload_s(shape, layout, accumulation, speed))


def forward_passes(shape: ModelShape, layout: Layout) -> tuple[float, float]:
    """How often a step computes with the weights, counted in forward passes: of the layers, of the head.

    Forward, and backward to the inputs; trained weights cost another backward. Checkpointing repeats the
    layers' forward.
    """
    of_base = trained_tensors(shape, layout).of_base
    backward = 1.0 + elements(of_base.projections) / shape.linear_parameters
    forward = layout.tuner.forward_products(layout.tuner_settings)
    layers = forward * (2.0 if layout.checkpointing else 1.0) + backward
    return layers, 3.0 if of_base.embeddings else 2.0


def flops_per_token(shape: ModelShape, layout: Layout) -> float:
    """4 N without checkpointing, 6 N with it (N: weights of the layers), the head on tokens with a loss, and
    causal attention, whose backward costs 2.5 forwards (Dao 2023)."""
    layers, head = forward_passes(shape, layout)
    attention = 2.0 * layout.padded_length * shape.heads * shape.head_dim * shape.layers
    attention *= (2.0 if layout.checkpointing else 1.0) + 2.5
    head_weights = shape.vocab_size * shape.hidden_size * layout.logits_share
    return 2.0 * (layers * shape.linear_parameters + head * head_weights) + attention


def micro_step_s(shape: ModelShape, layout: Layout, speed: GpuSpeed) -> float:
    """Seconds of one micro step: computing, or reading the weights where that takes longer; unpacking 4-bit
    weights for each product; and starting kernels."""
    passes, _ = forward_passes(shape, layout)
    peak = speed.flops_fp32 if layout.precision == "fp32" else speed.flops_16bit
    compute_s = layout.tokens * flops_per_token(shape, layout) / (ACHIEVED_SHARE * peak)
    read_s = passes * layout.bytes_each * shape.linear_parameters / speed.memory_bytes_per_s
    # Read half a byte, write two.
    unpack_s = passes * 2.5 * shape.linear_parameters / speed.memory_bytes_per_s if layout.four_bit else 0.0
    layer_s = LAYER_OVERHEAD_S + (ZERO3_LAYER_OVERHEAD_S if layout.zero_stage == 3 else 0.0)
    return max(compute_s, read_s) + unpack_s + passes * shape.layers * layer_s


def bytes_on_the_wire(shape: ModelShape, layout: Layout, accumulation: int) -> tuple[float, float]:
    """Bytes that each rank sends in an optimizer step: while it computes, and while it waits.

    A ring passes (R - 1) / R of a buffer for a reduce-scatter or an all-gather. Stage 0 does both with the
    gradients, once, at the end. Stages 1 and 2 gather the updated weights at the end; stage 1 scatters
    gradients once, stage 2 in every micro step. Stage 3 also gathers all weights for the forward pass of
    every micro step, and again for the backward.
    """
    if layout.ranks == 1:
        return 0.0, 0.0
    share = (layout.ranks - 1) / layout.ranks
    trained = share * layout.bytes_each * trained_tensors(shape, layout).elements
    if layout.zero_stage == 0:
        return 0.0, 2 * trained
    if layout.zero_stage == 1:
        return trained, trained
    if layout.zero_stage == 2:
        return accumulation * trained, trained
    weights = share * layout.bytes_each * shape.parameters
    return accumulation * (2 * weights + trained), 0.0


def _offload_s(shape: ModelShape, layout: Layout, accumulation: int, speed: GpuSpeed) -> float:
    if not layout.offload:
        return 0.0
    own = trained_tensors(shape, layout).elements / layout.ranks
    copied = 2.0 * layout.bytes_each * own
    if layout.zero_stage == 3:
        copied += accumulation * 2.0 * layout.bytes_each * shape.parameters / layout.ranks
    return copied / speed.host_link_bytes_per_s + own / CPU_ADAM_ELEMENTS_PER_S
