"""Every weight of the base model is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forecaster.models.registry import ModelShape
from forecaster.models.tuners.base import TrainedTensors, TunerSettings, WholeModelTuner

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FullTuner(WholeModelTuner):
    """Full fine-tuning: a model of its own, as large as its base."""

    name = "full"
    result = "A fully fine-tuned model"
    wrong_base = (
        "is full, but weights in 4 bit cannot be trained.",
        "Use --tuner qlora, or leave --quantization out.",
    )
    note = "Every weight is trained: --lora_... flags and --target_modules are not used."
    instead = ("lora", "qlora")

    def make_trainable(
        self, model: PreTrainedModel, settings: TunerSettings, gradient_checkpointing: bool
    ) -> PreTrainedModel:
        return model.requires_grad_(True)

    def trained(self, shape: ModelShape, settings: TunerSettings) -> TrainedTensors:
        return TrainedTensors(of_base=shape.tensors())

    def describe(self, settings: TunerSettings) -> str:
        return "every weight"

    def kept_bytes_per_token(self, shape: ModelShape, settings: TunerSettings, bytes_each: int) -> int:
        """Both norms' outputs, before and after their weight, and the input of the MLP's last projection."""
        return bytes_each * (4 * shape.hidden_size + shape.intermediate_size)
