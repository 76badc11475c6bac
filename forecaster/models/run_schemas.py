"""What the records in a run's folder may hold, one type for each kind of file.

Fields that are not named here are not read, or only shown.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from forecaster.models.numerics import Precision, Quantization
from forecaster.models.tuners import DEFAULT_TUNER, TUNERS
from forecaster.schemas import Count, FileName, Finite
from forecaster.tasks.calibration import TEMPERATURES, Calibration
from forecaster.tasks.distributions import BINS, Distribution
from forecaster.tasks.registry import DEFAULT_TASK, TASKS

Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]


def _day(text: str) -> str:
    date.fromisoformat(text)
    return text


def _known_tuner(name: str) -> str:
    if name not in TUNERS:
        raise ValueError(f"should be one of {', '.join(TUNERS)}")
    return name


def _known_task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"should be one of {', '.join(TASKS)}")
    return name


Day = Annotated[str, AfterValidator(_day)]


class RunFlags(BaseModel):
    """Flags of a training that benchmark, forecast and resuming read; those that came later have defaults."""

    dataset: Text
    test_dataset: Text | None = None
    from_remote: bool = False
    test_from: Day | None = None
    test_until: Day | None = None
    train_from: Day | None = None
    train_until: Day | None = None
    validation_share: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    task: Annotated[str, AfterValidator(_known_task)] = DEFAULT_TASK
    run_name: FileName
    report_to: Literal["wandb", "none"] = "none"
    max_length: Count
    max_new_tokens: Count
    lora_r: Count
    lora_alpha: Count | None = None
    target_modules: Text | None = None


class ResumableFlags(RunFlags):
    """What a run that goes on is compared by."""

    batch_size: Count
    gradient_accumulation_steps: Count
    num_epochs: Finite
    max_steps: int


class Resolved(BaseModel):
    """What the flags came to."""

    base_model: Text
    precision: Precision
    quantization: Quantization
    tuner: Annotated[str, AfterValidator(_known_tuner)] = DEFAULT_TUNER
    ds_config: FileName | None = None
    rows_per_group: Count = 1


class RunConfigFile(BaseModel):
    """run_config.json."""

    flags: RunFlags
    resolved: Resolved


class ResumableConfigFile(RunConfigFile):
    """run_config.json of a run that goes on."""

    flags: ResumableFlags


class Counts(BaseModel):
    train_after_repeats: Annotated[int, Field(ge=0)]


Labels: TypeAlias = dict[str, Annotated[int, Field(ge=0)]]
"""Rows by label."""


class DatasetFile(BaseModel):
    """dataset.json."""

    fingerprint_sha256: Annotated[str, StringConstraints(max_length=64)]
    training_labels: Labels
    training_labels_by_symbol: dict[str, Labels] = {}
    """Runs of former versions have none."""
    trained_until: Day | None = None
    counts: Counts | None = None


def _climatology(shares: dict[str, float]) -> dict[str, float]:
    texts = [label.text for label in BINS]
    if shares.keys() != set(texts):
        raise ValueError(f"should hold {', '.join(texts)}, and no other label")
    try:
        Distribution(tuple(shares[text] for text in texts))
    except ValueError as error:
        raise ValueError(f"should hold probabilities that sum to one ({error})") from error
    return shares


class FittedCalibration(BaseModel):
    """What the validation weeks make of a model's probabilities; of a benchmark's record, too."""

    temperature: Annotated[float, Field(ge=TEMPERATURES[0], le=TEMPERATURES[1])]
    model_weight: Annotated[float, Field(ge=0, le=1)]
    climatology: Annotated[dict[str, Finite], AfterValidator(_climatology)]
    """Probability of each label, of the training rows."""
    rows: Count
    weeks: Count

    @property
    def calibration(self) -> Calibration:
        climatology = Distribution(tuple(self.climatology[label.text] for label in BINS))
        return Calibration(self.temperature, self.model_weight, climatology)

    @property
    def in_words(self) -> str:
        rows = f"{self.rows} rows of {self.weeks} validation week{'s' if self.weeks > 1 else ''}"
        return (
            f"temperature {self.temperature:.3g}, {self.model_weight:.0%} of the model and the rest "
            f"climatology, fitted on {rows}"
        )


class CalibrationFile(FittedCalibration):
    """calibration.json."""

    adapter_sha256: Annotated[str, StringConstraints(max_length=64)]
    """Of the weights that answered: those of another training need another one."""


class WeightIndexFile(BaseModel):
    """model.safetensors.index.json: the file of each tensor."""

    weight_map: Annotated[dict[str, FileName], Field(min_length=1)]


class TrainerStateFile(BaseModel):
    """trainer_state.json of a checkpoint."""

    global_step: Annotated[int, Field(ge=0)]
    max_steps: int
    epoch: Finite | None
    log_history: list[dict[str, Any]]


class SumsFile(BaseModel):
    """sums_RANK.json of a checkpoint: what a rank has summed up since the last log line."""

    loss: float
    last_logged_step: Annotated[int, Field(ge=0)]
    total_loss: float
    train_tokens: int | float
    metrics: dict[str, list[int | float]]
