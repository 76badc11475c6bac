"""Fine-tuning proper: from a resolved run to a checked adapter folder. Everything heavy is imported here."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import datasets
import deepspeed
import torch
import torch.distributed as dist
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import TrainOutput
from trl import SFTConfig

from forecaster.errors import ConfigurationError, Problem, RunOutOfMemoryError
from forecaster.files import write_json
from forecaster.fit.attention import Attention, choose_attention, length_multiple
from forecaster.fit.planner import out_of_memory_message
from forecaster.models import liger, loading
from forecaster.models.finished import weights_sha256
from forecaster.models.lora_products import join_products
from forecaster.models.weights import sort_adapter_config
from forecaster.processes import unlink_shared_buffers
from forecaster.run_folder import (
    ADAPTER_WEIGHTS,
    DATASET_FILE,
    DS_CONFIG,
    LOG_HISTORY,
    ROW_ORDER_FOLDER,
    RUN_CONFIG,
    TRAINER_STATE,
)
from forecaster.tasks.base import Task
from forecaster.training import resuming
from forecaster.training.callbacks import EvaluatedPart, ProgressLines
from forecaster.training.run import PART_NAMES, Run, RunFolder, claimed
from forecaster.training.survival.checkpoints import newest_complete
from forecaster.training.survival.durable import DurableTrainer
from forecaster.training.survival.pickles import reading_data_only
from forecaster.training.survival.stopping import StopWatch
from forecaster.training.tokenising import RowReport, tokenise
from forecaster.training.train_config import as_flags, resolve_scheduler
from forecaster.training.trainer import ForecasterTrainer, RowCollator, peak_memory_bytes

LONGEST_TOKENISING = timedelta(hours=12)
FEWEST_MEASURED_ROWS = 4
"""Rows of a batch that is only measured, at least: without a backward pass these need less memory than one
row does in training with checkpointing."""


class TrainingArguments(SFTConfig):
    """TRL's, whose warm-up never takes the only step of a run."""

    def get_warmup_steps(self, num_training_steps: int) -> int:
        return 0 if num_training_steps == 1 else super().get_warmup_steps(num_training_steps)


def sft_config(run: Run) -> SFTConfig:
    """Our flags as TRL's; creating it joins the process group when a launcher started us."""
    config, choice = run.config, run.choice
    save_strategy = "epoch" if config.evaluation_strategy == "no" else config.evaluation_strategy
    every = int(config.eval_steps) if config.eval_steps >= 1 else config.eval_steps
    args = TrainingArguments(
        output_dir=str(run.output_dir),
        run_name=config.run_name,
        seed=config.seed,
        use_cpu=not run.gpus,
        fp16=choice.precision == "fp16",
        bf16=choice.precision == "bf16",
        deepspeed=str(choice.ds_config) if choice.ds_config else None,
        activation_checkpointing=choice.gradient_checkpointing,
        per_device_train_batch_size=run.micro_batch_size,
        per_device_eval_batch_size=max(run.micro_batch_size, FEWEST_MEASURED_ROWS),
        gradient_accumulation_steps=choice.gradient_accumulation_steps or config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        num_train_epochs=config.num_epochs,
        max_steps=config.max_steps,
        warmup_steps=config.warmup_ratio,
        lr_scheduler_type=resolve_scheduler(config).name,
        logging_steps=config.log_interval,
        eval_strategy=config.evaluation_strategy,
        eval_steps=every if config.evaluation_strategy == "steps" else None,
        save_strategy=save_strategy,
        save_steps=every,
        save_total_limit=config.save_total_limit,
        dataloader_num_workers=config.num_workers,
        remove_unused_columns=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        disable_tqdm=True,
        logging_nan_inf_filter=False,
        report_to=[] if config.report_to == "none" else [config.report_to],
    )
    if choice.ds_config:
        # The Trainer opens torch's process group only. ZeRO-3 asks DeepSpeed's own for the number of ranks
        # while the model loads, and would count one.
        deepspeed.init_distributed(auto_mpi_discovery=False)
        if not run.gpus:
            dist.barrier()  # every rank has opened the others' buffers
            unlink_shared_buffers()
    return args


@contextmanager
def claim_output_dir(args: SFTConfig, run: Run) -> Iterator[Path]:
    """Hold the run's folder while it trains: rank 0's for all, as the default name holds the time, which
    ranks read a moment apart.

    Raises:
        ConfigurationError: on all ranks, where another run has the folder, or where one would start from
            another checkpoint than the others.
    """
    with ExitStack() as claim:
        outcome: list[Any] = [None]
        if args.process_index == 0:
            try:
                outcome = [
                    claim.enter_context(claimed(run.config, RunFolder(run.output_dir, run.resume_from)))
                ]
            except ConfigurationError as error:
                outcome = [error]
        if dist.is_available() and dist.is_initialized():
            dist.broadcast_object_list(outcome, src=0)
            _check_same_start(run.resume_from)
        if isinstance(outcome[0], ConfigurationError):
            raise outcome[0]
        args.output_dir = str(outcome[0])
        yield outcome[0]


def _check_same_start(resume_from: Path | None) -> None:
    starts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(starts, resume_from.name if resume_from else "no checkpoint")
    if len(set(starts)) > 1:
        found = f"machines see different things to go on from: {', '.join(sorted(set(starts)))}."
        way_out = "--output_dir has to be on a disk that all of them share."
        raise ConfigurationError([Problem("--resume", found, way_out)])


@dataclass(frozen=True)
class TokenisedParts:
    """Rows as token ids, by part, and what made them so."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    """Name of its chat template."""
    parts: Mapping[str, datasets.Dataset]
    reports: Mapping[str, RowReport]

    def summaries(self) -> Iterator[str]:
        for name, report in self.reports.items():
            yield report.summary(PART_NAMES[name].capitalize())


def tokenise_parts(
    args: SFTConfig,
    checked_tokenizer: tuple[PreTrainedTokenizerBase, str],
    max_length: int,
    task: Task,
    **parts: datasets.Dataset,
) -> TokenisedParts:
    """Tokenise each part on the first rank of each machine; the others then read its cache.

    The others wait in a group of their own: a million rows take longer than `ddp_timeout`, after which a wait
    in the default group ends the run.

    Args:
        checked_tokenizer: the tokenizer, and the name of its template.
    """
    tokenizer, template = checked_tokenizer

    def tokenised() -> dict[str, tuple[datasets.Dataset, RowReport]]:
        return {name: tokenise(rows, tokenizer, max_length, task) for name, rows in parts.items()}

    if not dist.is_initialized():
        done = tokenised()
    else:
        patient = dist.new_group(timeout=LONGEST_TOKENISING)
        first = tokenised() if args.local_process_index == 0 else None
        dist.barrier(patient)
        done = first or tokenised()
        dist.destroy_process_group(patient)
    rows = {name: part for name, (part, _) in done.items()}
    return TokenisedParts(tokenizer, template, rows, {name: report for name, (_, report) in done.items()})


def attention_of(run: Run) -> Attention:
    """The attention kernels of this run on this machine."""
    installed = importlib.util.find_spec("flash_attn") is not None
    return choose_attention(run.gpus, run.choice.precision, installed)


def build_model(run: Run) -> PreTrainedModel | PeftModel:
    """Base model, trainable in the run's way. Call it after `sft_config`, which tells transformers about
    ZeRO-3."""
    config, choice = run.config, run.choice
    # LoRA's factors start at random: the same on every rank and in every run of this seed.
    set_seed(config.seed)
    # Straight onto the GPU, without a whole copy in CPU memory first; a quantised model could not be moved.
    # ZeRO-3 divides a model while it loads.
    on_gpu = bool(run.gpus) and not is_deepspeed_zero3_enabled()
    device_map = {"": torch.cuda.current_device()} if on_gpu else None
    if config.liger:
        liger.check_type(run.model.location, config.trust_remote_code)
    # DeepSpeed keeps fp32 copies of weights that train in 16 bit. Without it nobody does, and most updates
    # are smaller than 16 bit can add to a weight: the weights are fp32 then, and computing is autocast.
    in_fp32 = run.tuner.trains_base and choice.ds_config is None
    precision = "fp32" if in_fp32 else choice.precision
    base = loading.load_base(
        run.model.location,
        precision,
        choice.quantization,
        config.trust_remote_code,
        device_map,
        attention_of(run).implementation,
    )
    if config.liger:
        liger.use_kernels(base)
    model = run.tuner.attach(
        base, config.tuner_settings, gradient_checkpointing=choice.gradient_checkpointing
    )
    if config.from_adapter and not run.resume_from:
        loading.load_factors(model, config.from_adapter / ADAPTER_WEIGHTS)
    if choice.ds_config is None:
        leave_inputs_as_they_are(model)
    if on_gpu:
        join_products(model)
    return model


def leave_inputs_as_they_are(model: torch.nn.Module) -> None:
    """PEFT would copy the 16-bit input of each adapted layer to the fp32 of its factors, and autocast the
    copy back. Call it where autocast is on: without DeepSpeed."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False


def make_trainer(
    run: Run,
    args: SFTConfig,
    model: PreTrainedModel | PeftModel,
    rows: TokenisedParts,
    evaluated: EvaluatedPart,
    watch: StopWatch,
    rows_per_group: int,
) -> DurableTrainer:
    """The trainer of a run; `evaluated` says which part is measured while it trains."""
    trainer = DurableTrainer(
        model=model,
        args=args,
        train_dataset=rows.parts["train"],
        eval_dataset=rows.parts[evaluated],
        processing_class=rows.tokenizer,
        data_collator=RowCollator(
            rows.tokenizer.pad_token_id,
            padding_free=attention_of(run).padding_free,
            multiple=length_multiple(run.gpus, run.choice.precision),
        ),
        callbacks=[ProgressLines(evaluated)],
        rows_per_group=rows_per_group,
        row_order_file=run.output_dir / ROW_ORDER_FOLDER / f"rank_{args.process_index}.jsonl",
        watch=watch,
        keep_best=run.config.keep_best,
        max_skipped_steps=run.config.max_skipped_steps,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def run_training(run: Run, trainer: ForecasterTrainer) -> TrainOutput:
    """Train to the end.

    Raises:
        RunOutOfMemoryError: with the setting to go on with.
    """
    try:
        with reading_data_only():
            return trainer.train(resume_from_checkpoint=str(run.resume_from) if run.resume_from else None)
    except torch.OutOfMemoryError as error:
        smallest = min((gpu.memory_bytes for gpu in run.gpus), default=None)
        saved, _ = newest_complete(run.output_dir)
        message = out_of_memory_message(run.choice.plan, peak_memory_bytes(), smallest, saved is not None)
        raise RunOutOfMemoryError(message) from error


def save_run(
    run: Run,
    trainer: ForecasterTrainer,
    tokenizer: PreTrainedTokenizerBase,
    record: Mapping[str, Any],
    dataset_record: Mapping[str, Any],
    model_card: str,
) -> int:
    """Save adapter or model, tokenizer, template, logs and records into the output folder, then check what
    was trained.

    All ranks take part, because ZeRO-3 gathers the weights on save; rank 0 writes.

    Returns:
        Tensors in the adapter or model.
    """
    if not run.tuner.saves_adapter:
        # It was switched off for training; who loads this model generates with it.
        trainer.model.config.use_cache = True
    trainer.save_model(str(run.output_dir))
    if not trainer.is_world_process_zero():
        return 0
    folder = run.output_dir
    sort_adapter_config(folder)
    tokenizer.save_pretrained(folder)
    trainer.state.save_to_json(str(folder / TRAINER_STATE))
    write_json(folder / DATASET_FILE, dataset_record)
    write_json(folder / RUN_CONFIG, record)
    if run.choice.ds_config:
        # As it ran: the Trainer has put its values where the file says "auto".
        write_json(folder / DS_CONFIG, trainer.args.hf_deepspeed_config.config)
    (folder / "README.md").write_text(model_card, encoding="utf-8")
    tensors = run.tuner.check_trained(folder, run.model.location)
    # Last: a run with this file has ended.
    write_json(folder / LOG_HISTORY, trainer.state.log_history)
    return tensors


def run_record(
    run: Run, template: str, effective_batch: int, versions: Mapping[str, str], rows_per_group: int
) -> dict[str, Any]:
    """What run_config.json holds: flags, what they resolved to, and what ran."""
    # A relative folder would mean another one to a benchmark that is started elsewhere.
    location = str(Path(run.model.location).resolve()) if run.model.is_local else run.model.location
    return {
        "flags": as_flags(run.config),
        "resolved": {
            "base_model": location,
            "chat_template": template,
            "tuner": run.tuner.name,
            "from_adapter_sha256": _sha256_of_start(run),
            "precision": run.choice.precision,
            "quantization": run.choice.quantization,
            "gradient_checkpointing": run.choice.gradient_checkpointing,
            "ds_config": run.choice.ds_config.name if run.choice.ds_config else None,
            "scheduler": resolve_scheduler(run.config).name,
            "rows_per_optimizer_step": effective_batch,
            "micro_batch_size": run.micro_batch_size,
            "rows_per_group": rows_per_group,
            "reasons": [*run.choice.reasons, attention_of(run).reason],
            "planned_bytes_per_gpu": planned.bytes.parts() | {"total": planned.bytes.total}
            if (planned := run.choice.plan and run.choice.plan.chosen)
            else None,
        },
        "versions": dict(versions),
    }


def _sha256_of_start(run: Run) -> str | None:
    """Of the weights that the run began with, where they were another training's; the one of a run that goes
    on is in its record, as that training may be gone."""
    if run.config.from_adapter is None:
        return None
    if run.resume_from:
        known: str | None = resuming.read_record(run.output_dir)["resolved"].get("from_adapter_sha256")
        return known
    return weights_sha256(run.config.from_adapter)


def final_test_loss(
    trainer: ForecasterTrainer, test_rows: datasets.Dataset, evaluated: EvaluatedPart
) -> float | None:
    """Test loss after the last step; None for a run that evaluates nothing. All ranks.

    It is logged as `test_loss` beside a validation part, whose loss is the `eval_loss`. Otherwise the
    `eval_loss` is the test rows', and it is computed only when the run did not end with an evaluation.
    """
    if trainer.args.eval_strategy == "no":
        return None
    if evaluated == "validation":
        return float(trainer.evaluate(test_rows, metric_key_prefix="test")["test_loss"])
    last = next((entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry), None)
    if last and last["step"] == trainer.state.global_step:
        return float(last["eval_loss"])
    return float(trainer.evaluate()["eval_loss"])


def dataset_record(
    fingerprint: str,
    counts: Any,
    training_labels: Sequence[str],
    training_series: Sequence[str],
    reports: Mapping[str, RowReport],
    recipe: Mapping[str, Any] | None,
    trained_until: date | None,
) -> dict[str, Any]:
    """What dataset.json holds: which rows, what became of them, what baselines need, how prompts were
    made where that is known, and the last day of the training rows where they have dates.

    Args:
        training_labels: of each training row.
        training_series: the symbol of each; empty for a task whose rows have none.
    """
    by_series: dict[str, Counter[str]] = {}
    for series, label in zip(training_series, training_labels, strict=False):
        by_series.setdefault(series, Counter())[label] += 1
    record = {
        "trained_until": trained_until and trained_until.isoformat(),
        "training_labels": dict(Counter(training_labels)),
        "training_labels_by_symbol": {series: dict(by_series[series]) for series in sorted(by_series)},
        "fingerprint_sha256": fingerprint,
        "counts": asdict(counts),
        "tokenised": {name: asdict(report) for name, report in reports.items()},
    }
    return record if recipe is None else record | {"recipe": dict(recipe)}
