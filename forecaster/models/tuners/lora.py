"""Low-rank factors over a frozen base model (Hu et al. 2021), and the kinds of them that PEFT knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forecaster.errors import AdapterNotTrainedError
from forecaster.models.numerics import Quantization
from forecaster.models.registry import ModelShape, Tensors
from forecaster.models.tuners.base import TrainedTensors, Tuner, TunerSettings
from forecaster.run_folder import ADAPTER_WEIGHTS

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class LoraTuner(Tuner):
    """Two factors on every linear layer of `targets`."""

    name = "lora"
    has_lora_rank = True
    peft_options: dict[str, bool] = {}  # noqa: RUF012 - read only
    """Which kind of LoRA, as PEFT's LoraConfig names it."""

    def make_trainable(
        self, model: PreTrainedModel, settings: TunerSettings, gradient_checkpointing: bool
    ) -> PeftModel:
        from peft import LoraConfig, get_peft_model
        from transformers.integrations import is_deepspeed_zero3_enabled

        if gradient_checkpointing:
            # Without this, no input of a checkpointed layer needs a gradient, and the adapters inside get
            # none.
            model.enable_input_require_grads()
        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=list(settings.targets),
            bias="none",
            **self.peft_options,
        )
        # PEFT makes 16-bit factors fp32. DeepSpeed casts them back and keeps fp32 copies, but not under
        # ZeRO-3: their fp32 would be taken for the precision of the run, and fp16 left without loss scaling.
        return get_peft_model(model, config, autocast_adapter_dtype=not is_deepspeed_zero3_enabled())

    def trained(self, shape: ModelShape, settings: TunerSettings) -> TrainedTensors:
        added: Tensors = Counter()
        for inputs, outputs in self._adapted(shape, settings):
            for size in self._sizes(inputs, outputs, settings.rank):
                added[size] += shape.layers
        return TrainedTensors(added=added)

    def _sizes(self, inputs: int, outputs: int, rank: int) -> tuple[int, ...]:
        """Elements of each tensor beside one projection."""
        return inputs * rank, outputs * rank

    @staticmethod
    def _adapted(shape: ModelShape, settings: TunerSettings) -> list[tuple[int, int]]:
        """(inputs, outputs) of each adapted projection in one layer."""
        return [sizes for name, sizes in shape.projection_sizes().items() if name in settings.targets]

    def check_trained(self, folder: Path, base: str) -> int:
        """LoRA-B factors start at zero: one that is not has moved."""
        from forecaster.models.weights import sound_tensors

        path = folder / ADAPTER_WEIGHTS
        if not path.exists():
            raise AdapterNotTrainedError(str(folder), ADAPTER_WEIGHTS, "is missing")
        names, any_b_moved = 0, False
        for name, tensor in sound_tensors([path]):
            names += 1
            any_b_moved = any_b_moved or ("lora_B" in name and bool(tensor.any()))
        if not names:
            raise AdapterNotTrainedError(str(folder), ADAPTER_WEIGHTS, "holds no tensors")
        if not any_b_moved:
            raise AdapterNotTrainedError(
                str(folder), "every LoRA-B factor", "is still zero, as before training"
            )
        return names

    def check_files(
        self, folder: Path, weights: Sequence[Path], shape: ModelShape | None, flags: Mapping[str, Any]
    ) -> None:
        """Both factors of every target in every layer, in the shapes of the base model, and what PEFT reads
        beside them."""
        from forecaster.models.adapter_files import check_low_rank

        check_low_rank(folder, shape, flags, self.peft_options)

    def describe(self, settings: TunerSettings) -> str:
        lora = f"r {settings.rank}, alpha {settings.alpha}"
        return f"{lora}, dropout {settings.dropout}, {','.join(settings.targets)}"

    def kept_bytes_per_token(self, shape: ModelShape, settings: TunerSettings, bytes_each: int) -> int:
        """An adapted projection needs its input: dropout gives each its own copy and a mask of one byte;
        without, those behind one norm share it."""
        targets = set(settings.targets)
        if settings.dropout > 0:
            return (bytes_each + 1) * sum(inputs for inputs, _ in self._adapted(shape, settings))
        after_norms = [{"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}]
        kept = bytes_each * shape.hidden_size * sum(bool(names & targets) for names in after_norms)
        return kept + bytes_each * shape.intermediate_size * ("down_proj" in targets)

    def over(self, quantization: Quantization) -> Tuner:
        """LoRA over 4-bit weights is QLoRA, whether it was asked for or is what fits."""
        return QLORA if self is LORA and quantization == "4bit" else self


class QLoraTuner(LoraTuner):
    """LoRA over 4-bit base weights (Dettmers et al. 2023): what differs is how the base is loaded."""

    name = "qlora"
    base_quantization: Quantization | None = "4bit"
    wrong_base = (
        "is qlora, which is LoRA over 4-bit base weights, but --quantization is none.",
        "Use --tuner lora, or --quantization 4bit.",
    )


class DoraTuner(LoraTuner):
    """LoRA with a trained magnitude for each output (Liu et al. 2024, section 4.1)."""

    name = "dora"
    peft_options = {"use_dora": True}  # noqa: RUF012 - read only
    not_served_by = {"vllm": "cannot load DoRA adapters."}  # noqa: RUF012 - read only
    instead = ("lora",)
    transient_matrices = 3  # where it computes a weight's norm

    def _sizes(self, inputs: int, outputs: int, rank: int) -> tuple[int, ...]:
        return *super()._sizes(inputs, outputs, rank), outputs

    def kept_bytes_per_token(self, shape: ModelShape, settings: TunerSettings, bytes_each: int) -> int:
        """Its two outputs as well."""
        outputs = sum(outputs for _, outputs in self._adapted(shape, settings))
        return super().kept_bytes_per_token(shape, settings, bytes_each) + 2 * bytes_each * outputs

    def forward_products(self, settings: TunerSettings) -> float:
        """The frozen product is computed twice when there is dropout."""
        return 2.0 if settings.dropout > 0 else 1.0


class RsLoraTuner(LoraTuner):
    """LoRA scaled by alpha / sqrt(r) (Kalajdzievski 2023)."""

    name = "rslora"
    peft_options = {"use_rslora": True}  # noqa: RUF012 - read only


LORA, QLORA, DORA, RSLORA = LoraTuner(), QLoraTuner(), DoraTuner(), RsLoraTuner()
