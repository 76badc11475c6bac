"""How many bytes a training run needs on each GPU, part by part. Pure arithmetic on the model's shape.

Weights, adapters, gradients and optimizer are exact: tests/fit/test_memory.py compares them with the
tensors of real models under DeepSpeed 0.19.8, PEFT and bitsandbytes. Activations, logits and buffers are an
estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import ceil

from forecaster.models.numerics import BYTES_OF, Precision
from forecaster.models.registry import ModelShape, Tensors, elements
from forecaster.models.tuners import DEFAULT_TUNER, TUNERS
from forecaster.models.tuners.base import TrainedTensors, Tuner, TunerSettings

RESERVE_BYTES = 1_000_000_000
"""CUDA context (about half of it) and allocator slack."""
USABLE_SHARE = 0.94
"""Share of a GPU's memory that the sum below may reach: drivers and fragmentation take the rest."""
LOSS_CHUNK_TOKENS = 256
"""Answer tokens whose logits live at the same time (training/loss.py): at 128,256 vocabulary entries one
chunk's logits in fp32 are 0.13 GB."""
REDUCE_BUCKET_ELEMENTS = 50_000_000
"""`reduce_bucket_size` of the ZeRO-2 files in ds_configs/, which have two such buckets (`overlap_comm`)."""
MAX_LIVE_ELEMENTS = 1_000_000_000
"""DeepSpeed's default for `stage3_max_live_parameters`: how much of a divided model it keeps gathered."""

# An entry of full logits: 16-bit logits, their fp32 copy, its log-softmax, and the gradient in 16 bit.
_FULL_LOGIT_BYTES = 12
# An entry of one chunk: 16-bit logits, their fp32 copy, probabilities, and those in 16 bit.
_CHUNK_LOGIT_BYTES = 12


@dataclass(frozen=True)
class Layout:
    """All that decides the bytes of a run on each GPU, besides the model's shape."""

    precision: Precision
    tuner: Tuner = TUNERS[DEFAULT_TUNER]
    tuner_settings: TunerSettings = field(default_factory=TunerSettings)
    four_bit: bool = False
    zero_stage: int = 0
    offload: bool = False
    """To CPU memory: the optimizer, and with stage 3 the base weights too."""
    ranks: int = 1
    micro_batch_size: int = 1
    length: int = 2048
    length_multiple: int = 1
    """Of tokens, to which batches are padded."""
    checkpointing: bool = True
    logits_share: float = 0.22
    """Share of the tokens whose logits are needed: answers of 450 tokens behind prompts of 1,600."""
    logits_in_chunks: bool = True
    under_deepspeed: bool = True
    liger: bool = False
    """Whether Liger's kernels take the place of norms, gated MLP and rotary positions."""
    bucket_elements: int | None = None
    """Of ZeRO's buckets of gradients together; None: as in the files of ds_configs/."""
    sums_in_fp32: bool | None = None
    """Whether ZeRO-2 adds the gradients of micro steps up in fp32; None: as in the files of ds_configs/."""

    @property
    def padded_length(self) -> int:
        return ceil(self.length / self.length_multiple) * self.length_multiple

    @property
    def tokens(self) -> int:
        """Tokens of a micro step on one GPU."""
        return self.micro_batch_size * self.padded_length

    @property
    def bytes_each(self) -> int:
        return BYTES_OF[self.precision]

    @property
    def has_fp32_sums(self) -> bool:
        """Whether the GPU holds an fp32 sum of 16-bit gradients; with offload too, where a file asks for
        it."""
        asked = not self.offload if self.sums_in_fp32 is None else self.sums_in_fp32
        return asked and self.zero_stage == 2 and self.precision != "fp32"


@dataclass(frozen=True)
class GpuBytes:
    """Bytes on one GPU at the peak of a training step, by what they hold."""

    weights: int
    """The base model, frozen or trained."""
    adapters: int
    """Trainable parameters beside the base."""
    gradients: int
    """Of the trainable parameters, at the end of an accumulated step."""
    optimizer: int
    """fp32 copies of 16-bit parameters, and Adam's two moments."""
    activations: int
    logits: int
    """And what else the loss needs beside the stored activations: a trained head's gradient."""
    communication: int
    """Buckets of gradients on their way, and weights gathered by ZeRO-3."""
    reserve: int
    update: int
    """fp32 copies of gradients inside the optimizer's step, when activations and logits are gone."""

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """What is there at the peak, by name, in order: `update`, or activations and logits."""
        is_update = self.update > self.activations + self.logits
        gone = ("activations", "logits") if is_update else ("update",)
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in gone}


def training_bytes(shape: ModelShape, layout: Layout) -> GpuBytes:
    """Bytes of one training step on the fullest GPU."""
    return GpuBytes(
        weights=base_bytes(shape, layout),
        adapters=adapter_bytes(shape, layout),
        gradients=gradient_bytes(shape, layout),
        optimizer=optimizer_bytes(shape, layout),
        activations=activation_bytes(shape, layout),
        logits=logit_bytes(shape, layout),
        communication=communication_bytes(shape, layout),
        reserve=RESERVE_BYTES,
        update=_update_bytes(shape, layout),
    )


# --- tensors: their sizes decide padding and what ZeRO-3 leaves whole ---------------------------------------


def trained_tensors(shape: ModelShape, layout: Layout) -> TrainedTensors:
    return layout.tuner.trained(shape, layout.tuner_settings)


def _padded(shape: ModelShape, layout: Layout) -> int:
    """Trainable elements with ZeRO-1/2's padding: each group to a multiple of twice the number of ranks
    (`nccl_start_alignment_factor`)."""
    unit = 2 * layout.ranks
    groups = trained_tensors(shape, layout).groups()
    return sum(ceil(elements(group) / unit) * unit for group in groups)


def _divided(tensors: Tensors, ranks: int) -> int:
    """Elements on one rank when ZeRO-3 divides each tensor by itself."""
    return sum(ceil(size / ranks) * count for size, count in tensors.items())


def _kept_whole(shape: ModelShape, tensors: Tensors, ranks: int) -> int:
    """Elements of small tensors, which ZeRO-3 also keeps gathered on each rank.

    The Trainer sets `stage3_param_persistence_threshold` to ten times the hidden size.
    """
    small = 10 * shape.hidden_size
    return sum(ceil(size / ranks) * ranks * count for size, count in tensors.items() if size <= small)


def _zero3(shape: ModelShape, tensors: Tensors, layout: Layout, element_bytes: int) -> int:
    whole = _kept_whole(shape, tensors, layout.ranks)
    own = 0 if layout.offload else _divided(tensors, layout.ranks)
    return element_bytes * (own + whole)


# --- the exact parts ----------------------------------------------------------------------------------------


def four_bit_bytes(elements: int) -> int:
    """One NF4 weight with double quantisation (Dettmers et al. 2023), as bitsandbytes stores it.

    Half a byte an element; a byte for each block of 64 (its scale); an fp32 number for each 256 of those and
    one for their mean; in fp32, the 16 values of the weights' code and the 256 of the scales'.
    """
    blocks = ceil(elements / 64)
    return ceil(elements / 2) + blocks + 4 * ceil(blocks / 256) + 4 + 4 * (16 + 256)


def weight_bytes(shape: ModelShape, four_bit: bool, element_bytes: int = 2) -> int:
    """The whole base model on one GPU; in 4 bit, embeddings, head, norms and biases stay as they are."""
    if not four_bit:
        return element_bytes * shape.parameters
    tensors = shape.tensors()
    packed = sum(four_bit_bytes(size) * count for size, count in tensors.projections.items())
    rest = elements(tensors.plain + tensors.embeddings)
    return packed + element_bytes * rest


def _trainable_element_bytes(layout: Layout) -> int:
    """Bytes of a trainable weight: in the precision of the run under DeepSpeed, which keeps fp32 copies, and
    fp32 without it."""
    return layout.bytes_each if layout.under_deepspeed else 4


def base_bytes(shape: ModelShape, layout: Layout) -> int:
    """Weights of the base model on one GPU."""
    each = _trainable_element_bytes(layout) if layout.tuner.trains_base else layout.bytes_each
    if layout.zero_stage == 3:
        return _zero3(shape, shape.tensors().together(), layout, each)
    padding, trained = 0, trained_tensors(shape, layout)
    if not trained.added and layout.zero_stage in (1, 2):
        padding = each * (_padded(shape, layout) - trained.elements)
    return weight_bytes(shape, layout.four_bit, each) + padding


def adapter_bytes(shape: ModelShape, layout: Layout) -> int:
    """Weights of the adapters on one GPU."""
    trained, each = trained_tensors(shape, layout), _trainable_element_bytes(layout)
    if not trained.added:
        return 0
    if layout.zero_stage == 3:
        return _zero3(shape, trained.added, layout, each)
    padding = _padded(shape, layout) - trained.elements if layout.zero_stage in (1, 2) else 0
    return each * (elements(trained.added) + padding)


def _own_trainable(shape: ModelShape, layout: Layout) -> int:
    """Trainable elements whose optimizer state lives on one rank."""
    trained = trained_tensors(shape, layout)
    if layout.zero_stage == 3:
        return sum(_divided(group, layout.ranks) for group in trained.groups())
    if layout.zero_stage in (1, 2):
        return _padded(shape, layout) // layout.ranks
    return trained.elements


def gradient_bytes(shape: ModelShape, layout: Layout) -> int:
    """Gradients at the end of an accumulated step: an fp32 sum, or in the dtype of the run, which offload
    keeps in CPU memory."""
    if layout.has_fp32_sums:
        return 4 * _own_trainable(shape, layout)
    if layout.offload:
        return 0
    if not layout.under_deepspeed:
        return _trainable_element_bytes(layout) * trained_tensors(shape, layout).elements
    return layout.bytes_each * _own_trainable(shape, layout)


def optimizer_bytes(shape: ModelShape, layout: Layout) -> int:
    """fp32 copies and AdamW's two moments on one GPU; with offload, in CPU memory.

    ZeRO copies what it divides even when that is fp32 already. Plain python has no copies, and moments in the
    dtype of the weight.
    """
    if layout.offload:
        return 0
    if not layout.under_deepspeed:
        return 2 * gradient_bytes(shape, layout)
    copies = layout.precision != "fp32" or layout.zero_stage > 0
    return (12 if copies else 8) * _own_trainable(shape, layout)


def host_bytes(shape: ModelShape, layout: Layout) -> int:
    """CPU memory of one rank that offload takes: gradients and optimizer in fp32, and ZeRO-3's weights."""
    if not layout.offload:
        return 0
    weights = 0
    if layout.zero_stage == 3:
        weights = layout.bytes_each * _divided(shape.tensors().together(), layout.ranks)
    return 16 * _own_trainable(shape, layout) + weights


def _update_bytes(shape: ModelShape, layout: Layout) -> int:
    """None where the sum of the gradients is fp32 already: the optimizer steps with that itself."""
    if layout.offload or not layout.under_deepspeed or (layout.precision == "fp32" and not layout.zero_stage):
        return 0
    return 0 if layout.has_fp32_sums else 4 * _own_trainable(shape, layout)


# --- the estimated parts ------------------------------------------------------------------------------------


def layer_activation_bytes(shape: ModelShape, layout: Layout) -> int:
    """Bytes a token that one layer keeps for its backward pass.

    Counted operation by operation in transformers' Llama layer with fused attention (as Korthikanti et al.
    2022 did for GPT): each norm keeps its input in fp32; attention keeps queries, keys, values and its
    output; the gated MLP keeps gate, its activation and up. A frozen projection needs no input; the tuner
    says what is kept beside. Liger's norms keep their input as it is, and its MLP computes the activation
    anew.
    """
    each, h, f = layout.bytes_each, shape.hidden_size, shape.intermediate_size
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    of_norms, of_mlp = (2 * each * h, 2 * each * f) if layout.liger else (2 * 4 * h, 3 * each * f)
    kept = of_norms + each * (2 * q + 2 * kv) + of_mlp
    return kept + layout.tuner.kept_bytes_per_token(shape, layout.tuner_settings, each)


def activation_bytes(shape: ModelShape, layout: Layout) -> int:
    """With checkpointing: the input of each layer, and one layer's activations; else those of all layers.

    To either come a layer's gradients (of the gated MLP, mostly), and one weight matrix where 4-bit weights
    are unpacked for a product, or as many as the tuner makes.
    """
    each = layout.bytes_each
    per_token = each * shape.hidden_size if layout.checkpointing else layer_activation_bytes(shape, layout)
    stored = layout.tokens * per_token * shape.layers
    matrices = layout.tuner.transient_matrices or int(layout.four_bit)
    unpacked = each * matrices * max(shape.tensors().projections)
    return stored + _layer_backward_bytes(shape, layout) + unpacked + _autocast_bytes(shape, layout)


def _layer_backward_bytes(shape: ModelShape, layout: Layout) -> int:
    """What comes and goes with each layer of the backward pass: its gradients, and with checkpointing its
    activations, computed anew."""
    per_token = layout.bytes_each * 2 * (shape.hidden_size + shape.intermediate_size)
    if layout.checkpointing:
        per_token += layer_activation_bytes(shape, layout)
    return layout.tokens * per_token


def _autocast_bytes(shape: ModelShape, layout: Layout) -> int:
    """16-bit copies of fp32 weights, which torch's autocast makes where they are trained without DeepSpeed.

    The backward pass needs them; with checkpointing, autocast's cache still holds them until the loss.
    """
    is_autocast = layout.tuner.trains_base and not layout.under_deepspeed and layout.precision != "fp32"
    return layout.bytes_each * shape.linear_parameters if is_autocast else 0


def logit_bytes(shape: ModelShape, layout: Layout) -> int:
    """Logits and their gradient: of one chunk of answer tokens, or of all that need them at once.

    The gradient of a trained head (loss.py) is there before the first layer's backward pass begins: of the
    two, what is more counts.
    """
    needed = ceil(layout.tokens * layout.logits_share)
    if not layout.logits_in_chunks:
        return _FULL_LOGIT_BYTES * shape.vocab_size * needed
    hidden = 2 * layout.bytes_each * shape.hidden_size * needed
    chunk = _CHUNK_LOGIT_BYTES * shape.vocab_size * min(needed, LOSS_CHUNK_TOKENS)
    return hidden + chunk + max(0, _head_gradient_bytes(shape, layout) - _layer_backward_bytes(shape, layout))


def _head_gradient_bytes(shape: ModelShape, layout: Layout) -> int:
    """The gradient of a trained head: summed in fp32, then copied into a 16-bit weight's own dtype."""
    if not trained_tensors(shape, layout).of_base.embeddings:
        return 0
    each = _trainable_element_bytes(layout)
    return (4 + (each if each < 4 else 0)) * shape.vocab_size * shape.hidden_size


def communication_bytes(shape: ModelShape, layout: Layout) -> int:
    """Buffers of ZeRO: buckets of gradients, and with stage 3 the layers that are gathered.

    Stages 1 to 3 allocate their buckets whole, however few parameters train and on one rank too
    (`setup_buckets` in DeepSpeed's stage_1_and_2.py).
    """
    if not layout.under_deepspeed:
        return 0
    if layout.zero_stage == 0:
        bucket = min(trained_tensors(shape, layout).elements, REDUCE_BUCKET_ELEMENTS)
        return layout.bytes_each * bucket if layout.ranks > 1 else 0
    # The files for stage 3 leave the bucket to the Trainer, which takes the square of the hidden size.
    bucket = shape.hidden_size**2 if layout.zero_stage == 3 else REDUCE_BUCKET_ELEMENTS
    buckets = 2 * bucket if layout.bucket_elements is None else layout.bucket_elements
    gathered = 0
    if layout.zero_stage == 3 and (layout.ranks > 1 or layout.offload):
        gathered = min(shape.parameters, MAX_LIVE_ELEMENTS)
    return layout.bytes_each * (buckets + gathered)


# --- generation ---------------------------------------------------------------------------------------------


def cache_bytes_per_token(shape: ModelShape) -> int:
    """Keys and values of one token in all layers, two bytes each."""
    return 2 * 2 * shape.layers * shape.kv_heads * shape.head_dim


def generation_batch_size(
    shape: ModelShape, four_bit: bool, tokens: int, gpu_bytes: int, largest: int
) -> int:
    """Prompts of up to `tokens` tokens, answer included, whose caches fit beside the weights; at least 1."""
    free = USABLE_SHARE * gpu_bytes - weight_bytes(shape, four_bit) - RESERVE_BYTES
    return max(1, min(largest, int(free // (tokens * cache_bytes_per_token(shape)))))
