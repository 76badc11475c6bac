"""What a way to tune tells about itself: the base of every tuner, and the flags that they share.

Light: torch, transformers and PEFT are imported where a model is at hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forecaster.errors import Problem
from forecaster.models.numerics import Quantization
from forecaster.models.registry import ALL_PROJECTIONS, ModelShape, Tensors, WeightTensors, elements

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TunerSettings:
    """The flags of a run that tuners read; each takes those that mean something to it."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.1
    targets: tuple[str, ...] = ALL_PROJECTIONS
    """Linear layers to adapt."""


@dataclass(frozen=True)
class TrainedTensors:
    """The tensors that an optimizer updates."""

    of_base: WeightTensors = field(default_factory=WeightTensors)
    added: Tensors = field(default_factory=Counter)
    """Beside the base model's own."""

    def groups(self) -> list[Tensors]:
        """As the parameter groups of the Trainer's AdamW: norms and biases have one of their own, without
        weight decay."""
        decayed = self.added + self.of_base.projections + self.of_base.embeddings
        return [group for group in (decayed, self.of_base.plain) if group]

    @property
    def elements(self) -> int:
        return sum(map(elements, self.groups()))


class Tuner(ABC):
    """A way to make a base model trainable. A new one is a subclass in a file of this folder, and an entry in
    `TUNERS`.

    What a subclass has to say are `name`, `make_trainable`, `trained` and `check_trained`; the rest has
    defaults for an adapter that vLLM can serve, over base weights of any kind.
    """

    name: str
    """The value of `--tuner`, and what the record of a run calls it."""
    saves_adapter: bool = True
    """Whether a run leaves an adapter beside its base model; else it leaves a whole model."""
    result: str = "An adapter"
    """What a run leaves, for its model card."""
    trains_base: bool = False
    """Whether weights of the base are among what is trained: without DeepSpeed, which keeps fp32 copies, the
    base is loaded in fp32 then."""
    base_quantization: Quantization | None = None
    """What base weights have to be; None: either."""
    wrong_base: tuple[str, str] | None = None
    """What is said about base weights of the other kind: what was found, and the way out."""
    has_lora_rank: bool = False
    """Whether an engine has to make room for a rank."""
    not_served_by: Mapping[str, str] = {}
    """Engines that cannot load the result, with the reason as the rest of a sentence."""
    note: str | None = None
    """A line that the user is shown before a run."""
    instead: Sequence[str] = ()
    """Tuners that need less memory, to be advised in this order where this one does not fit."""
    transient_matrices: int = 0
    """Weight matrices that exist for a moment of each product, besides those that 4-bit weights need."""

    def attach(
        self, model: PreTrainedModel, settings: TunerSettings, *, gradient_checkpointing: bool = False
    ) -> PreTrainedModel | PeftModel:
        """The model with what this tuner trains open, and everything else frozen."""
        model.config.use_cache = False
        return self.make_trainable(model, settings, gradient_checkpointing)

    @abstractmethod
    def make_trainable(
        self, model: PreTrainedModel, settings: TunerSettings, gradient_checkpointing: bool
    ) -> PreTrainedModel | PeftModel:
        """The part of `attach` that differs."""

    @abstractmethod
    def trained(self, shape: ModelShape, settings: TunerSettings) -> TrainedTensors:
        """What is trained in a model of this shape: parameters, optimizer and planned bytes follow."""

    @abstractmethod
    def check_trained(self, folder: Path, base: str) -> int:
        """Check what a training saved: no empty tensor, no non-finite one, and something that moved.

        Args:
            base: folder or hub id of the base model.

        Returns:
            The number of tensors.

        Raises:
            AdapterNotTrainedError: naming the first bad tensor.
        """

    def check_files(
        self, folder: Path, weights: Sequence[Path], shape: ModelShape | None, flags: Mapping[str, Any]
    ) -> None:
        """Check what a run's folder or a checkpoint holds of this tuner before anything loads it, as it may
        come from anyone.

        Args:
            weights: the files with what was trained.
            shape: of the base model; None: it is not known.
            flags: of the training.

        Raises:
            ConfigurationError: with file and field or tensor.
        """
        from forecaster.models.tensor_files import check_model

        check_model(weights)

    @abstractmethod
    def describe(self, settings: TunerSettings) -> str:
        """What is trained, in a few words for the model card."""

    def kept_bytes_per_token(self, shape: ModelShape, settings: TunerSettings, bytes_each: int) -> int:
        """Bytes a token that one layer keeps for its backward pass, besides those over a frozen base."""
        return 0

    def forward_products(self, settings: TunerSettings) -> float:
        """How often the forward pass computes each product with the base's weights."""
        return 1.0

    def over(self, quantization: Quantization) -> Tuner:
        """The tuner that the record of a run names, over base weights of this kind."""
        return self

    def parameter_counts(self, shape: ModelShape, settings: TunerSettings) -> tuple[int, int]:
        """Trainable parameters, and all of them, the adapter's included."""
        trained = self.trained(shape, settings)
        return trained.elements, shape.parameters + elements(trained.added)

    def saved_parameters(self, shape: ModelShape, settings: TunerSettings) -> int:
        """Parameters in the files that a run or a checkpoint holds."""
        trained, every = self.parameter_counts(shape, settings)
        return trained if self.saves_adapter else every

    def quantization_problems(self, asked: str) -> list[Problem]:
        """Whether `--quantization` asks for base weights that this tuner cannot have."""
        needed = self.base_quantization
        if needed is None or asked in ("auto", needed):
            return []
        found, way_out = self.wrong_base or (
            f"is {self.name}, which needs base weights of another kind, but --quantization is {asked}.",
            f"Use --quantization {needed}.",
        )
        return [Problem("--tuner", found, way_out)]

    def asked_quantization(self, asked: Literal["auto", "none", "4bit"]) -> Literal["auto", "none", "4bit"]:
        """What this tuner leaves open of `--quantization`."""
        return self.base_quantization or asked


class WholeModelTuner(Tuner):
    """A tuner of the base's own weights, which saves all of them."""

    saves_adapter = False
    result = "A fine-tuned model"
    trains_base = True
    base_quantization: Quantization | None = "none"

    def check_trained(self, folder: Path, base: str) -> int:
        """Where the base has no safetensors files there is nothing to compare with."""
        from forecaster.models.weights import check_changed

        return check_changed(folder, base)
