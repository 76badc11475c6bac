"""Fine-tuning proper: from a resolved run to a checked adapter folder. Everything heavy is imported here."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TextIO

import datasets
import deepspeed
import torch
import torch.distributed as dist
from peft import PeftModel
from tqdm import tqdm
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from forecaster.modeling import adapters, checkpoints
from forecaster.modeling.config import as_flags, resolve_scheduler
from forecaster.modeling.rows import RowReport, tokenise
from forecaster.modeling.run import (
    DATASET_FILE,
    DS_CONFIG,
    LOG_HISTORY,
    ROW_ORDER_FOLDER,
    RUN_CONFIG,
    TRAINER_STATE,
    Run,
)

EvaluatedPart = Literal["validation", "test"]
"""The part whose loss is computed in the course of training, as `eval_loss`."""


def sft_config(run: Run) -> SFTConfig:
    """Our flags as TRL's; creating it joins the process group when a launcher started us."""
    config, choice = run.config, run.choice
    save_strategy = "epoch" if config.evaluation_strategy == "no" else config.evaluation_strategy
    every = int(config.eval_steps) if config.eval_steps >= 1 else config.eval_steps
    args = SFTConfig(
        output_dir=str(run.output_dir),
        run_name=config.run_name,
        seed=config.seed,
        use_cpu=not run.gpus,
        fp16=choice.precision == "fp16",
        bf16=choice.precision == "bf16",
        deepspeed=str(choice.ds_config) if choice.ds_config else None,
        activation_checkpointing=choice.gradient_checkpointing,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
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
    return args


def agree_on_output_dir(args: SFTConfig, output_dir: Path) -> Path:
    """Rank 0's folder for all: the default name holds the time, which ranks read a moment apart."""
    shared = [str(output_dir)]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(shared, src=0)
    args.output_dir = shared[0]
    return Path(shared[0])


class RowCollator:
    """Pads a batch on the right, and carries the row ids along."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        row_ids = [row["row_id"] for row in rows]
        batch: dict[str, Any] = self._pad([{k: row[k] for k in ("input_ids", "labels")} for row in rows])
        batch["row_ids"] = row_ids
        return batch


class ForecasterTrainer(SFTTrainer):
    """TRL's trainer (token-mean loss over answers, computed in chunks) that records which rows made each
    step."""

    def __init__(self, *args: Any, row_order_file: Path, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._row_order_file = row_order_file
        self._row_order: TextIO | None = None
        self._started_s = 0.0
        self._earlier_s = 0.0
        self._evaluating_s = 0.0
        self._tokens_at_start = 0.0

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        if self._row_order is None:
            self._row_order = open_row_order(self._row_order_file, self.state.global_step)
            self._started_s, self._tokens_at_start = time.monotonic(), self._total_train_tokens
            self._earlier_s = last_elapsed_s(self.state.log_history)
        step = self.state.global_step + 1
        self._row_order.write(json.dumps({"step": step, "row_ids": inputs.pop("row_ids")}) + "\n")
        return super().training_step(model, inputs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        began_s = time.monotonic()
        metrics = super().evaluate(*args, **kwargs)
        self._evaluating_s += time.monotonic() - began_s
        return metrics

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        inputs.pop("row_ids", None)
        return super().prediction_step(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds speed and memory to a training loss, and to every loss `elapsed_s`.

        That is wall time since the first step, with evaluating and saving. A resumed run goes on counting at
        the last entry that its checkpoint holds, so that steps which a kill undid do not count twice.
        """
        if self._row_order is not None and {"loss", "eval_loss", "test_loss"} & logs.keys():
            session_s = time.monotonic() - self._started_s
            logs["elapsed_s"] = round(self._earlier_s + session_s, 2)
            if "loss" in logs:
                self._row_order.flush()
                trained_s = max(session_s - self._evaluating_s, 1e-9)
                trained_tokens = self._total_train_tokens - self._tokens_at_start
                logs["tokens_per_s"] = round(trained_tokens / trained_s, 1)
                logs["peak_memory_gib"] = round(peak_memory_bytes() / 2**30, 3)
        if "test_loss" in logs:
            # TRL would add its own figures of these rows under the names of the validation part's: eval_...
            self._metrics["eval"].clear()
        super().log(logs, start_time)


def last_elapsed_s(log_history: Iterable[Mapping[str, Any]]) -> float:
    """Seconds that the sessions before this one took; 0 without any, or where none were written down."""
    return max((float(entry["elapsed_s"]) for entry in log_history if "elapsed_s" in entry), default=0.0)


def open_row_order(path: Path, steps_done: int) -> TextIO:
    """The file of each step's rows, for appending; steps after the resumed one are taken again, and go."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    whole = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= steps_done]
    path.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
    return path.open("a", encoding="utf-8")


def peak_memory_bytes() -> int:
    """Peak bytes of this rank so far: GPU memory where there is a GPU, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class ProgressLines(TrainerCallback):
    """A bar at a terminal, and a line at every log interval, on rank 0."""

    def __init__(self, evaluated: EvaluatedPart) -> None:
        self._evaluated = evaluated
        self._bar: tqdm[Any] | None = None
        self._started_s = 0.0
        self._first_step = 0

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self._started_s, self._first_step = time.monotonic(), state.global_step
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="Training",
                unit="step",
                file=sys.stdout,
                disable=not sys.stdout.isatty(),
            )

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if self._bar is None or not logs:
            return
        if "loss" in logs:
            self._write(
                f"step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}  "
                f"lr {logs['learning_rate']:.2e}  "
                f"{logs['tokens_per_s']:,.0f} tokens/s  peak {logs['peak_memory_gib']:.2f} GiB  "
                f"{self._time_left(state)} left"
            )
        for name, key in ((self._evaluated, "eval_loss"), ("test", "test_loss")):
            if key in logs:
                self._write(f"step {state.global_step}/{state.max_steps}  {name} loss {logs[key]:.4f}")

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._bar is not None:
            self._bar.close()

    def _time_left(self, state: TrainerState) -> str:
        done = state.global_step - self._first_step
        per_step_s = (time.monotonic() - self._started_s) / max(done, 1)
        return str(tqdm.format_interval(per_step_s * (state.max_steps - state.global_step)))

    def _write(self, line: str) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.write(line)
        else:
            print(line, flush=True)


class MarkComplete(TrainerCallback):
    """Writes a checkpoint's manifest once every rank has saved its part."""

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if dist.is_available() and dist.is_initialized():
            dist.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            adapters.sort_adapter_config(folder)
            checkpoints.mark_complete(folder)


def tokenise_parts(
    args: SFTConfig, tokenizer: PreTrainedTokenizerBase, max_length: int, **parts: datasets.Dataset
) -> dict[str, tuple[datasets.Dataset, RowReport]]:
    """Tokenise each part on rank 0 first; the other ranks then read its cache."""
    with args.main_process_first(desc="tokenising"):
        return {name: tokenise(rows, tokenizer, max_length) for name, rows in parts.items()}


def build_model(run: Run) -> PeftModel:
    """Base model with fresh adapters. Call it after `sft_config`, which tells transformers about ZeRO-3."""
    config, choice = run.config, run.choice
    # LoRA's factors start at random: the same on every rank and in every run of this seed.
    set_seed(config.seed)
    # A quantised model cannot be moved later: it is put on its GPU while it loads.
    device_map = {"": torch.cuda.current_device()} if choice.quantization == "4bit" and run.gpus else None
    base = adapters.load_base(
        run.model.location, choice.precision, choice.quantization, config.trust_remote_code, device_map
    )
    return adapters.attach_lora(
        base,
        rank=config.lora_r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        target_modules=config.target_module_names,
        gradient_checkpointing=choice.gradient_checkpointing,
    )


def make_trainer(
    run: Run,
    args: SFTConfig,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: datasets.Dataset,
    evaluated_rows: datasets.Dataset,
    evaluated: EvaluatedPart,
) -> ForecasterTrainer:
    """The trainer of a run; `evaluated` says which part the `evaluated_rows` are."""
    trainer = ForecasterTrainer(
        model=model,
        args=args,
        train_dataset=train_rows,
        eval_dataset=evaluated_rows,
        processing_class=tokenizer,
        data_collator=RowCollator(tokenizer.pad_token_id),
        callbacks=[ProgressLines(evaluated), MarkComplete()],
        row_order_file=run.output_dir / ROW_ORDER_FOLDER / f"rank_{args.process_index}.jsonl",
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def save_run(
    run: Run,
    trainer: ForecasterTrainer,
    tokenizer: PreTrainedTokenizerBase,
    record: Mapping[str, Any],
    dataset_record: Mapping[str, Any],
    model_card: str,
) -> int:
    """Save adapter, tokenizer, template, logs and records into the output folder, then check the adapter.

    All ranks take part, because ZeRO-3 gathers the weights on save; rank 0 writes.

    Returns:
        Tensors in the adapter.
    """
    trainer.save_model(str(run.output_dir))
    if not trainer.is_world_process_zero():
        return 0
    folder = run.output_dir
    adapters.sort_adapter_config(folder)
    tokenizer.save_pretrained(folder)
    trainer.state.save_to_json(str(folder / TRAINER_STATE))
    write_json(folder / LOG_HISTORY, trainer.state.log_history)
    write_json(folder / DATASET_FILE, dataset_record)
    write_json(folder / RUN_CONFIG, record)
    if run.choice.ds_config:
        # As it ran: the Trainer has put its values where the file says "auto".
        write_json(folder / DS_CONFIG, trainer.args.hf_deepspeed_config.config)
    (folder / "README.md").write_text(model_card, encoding="utf-8")
    return adapters.check_trained(folder)


def run_record(run: Run, template: str, effective_batch: int, versions: Mapping[str, str]) -> dict[str, Any]:
    """What run_config.json holds: flags, what they resolved to, and what ran."""
    # A relative folder would mean another one to a benchmark that is started elsewhere.
    location = str(Path(run.model.location).resolve()) if run.model.is_local else run.model.location
    return {
        "flags": as_flags(run.config),
        "resolved": {
            "base_model": location,
            "chat_template": template,
            "precision": run.choice.precision,
            "quantization": run.choice.quantization,
            "gradient_checkpointing": run.choice.gradient_checkpointing,
            "ds_config": run.choice.ds_config.name if run.choice.ds_config else None,
            "scheduler": resolve_scheduler(run.config).name,
            "rows_per_optimizer_step": effective_batch,
            "reasons": list(run.choice.reasons),
        },
        "versions": dict(versions),
    }


def final_test_loss(
    trainer: ForecasterTrainer, test_rows: datasets.Dataset, evaluated: EvaluatedPart
) -> float:
    """Test loss after the last step. All ranks.

    It is logged as `test_loss` beside a validation part, whose loss is the `eval_loss`. Otherwise the
    `eval_loss` is the test rows', and it is computed only when the run did not end with an evaluation.
    """
    if evaluated == "validation":
        return float(trainer.evaluate(test_rows, metric_key_prefix="test")["test_loss"])
    last = next((entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry), None)
    if last and last["step"] == trainer.state.global_step:
        return float(last["eval_loss"])
    return float(trainer.evaluate()["eval_loss"])


def dataset_record(
    fingerprint: str,
    counts: Any,
    training_labels: Iterable[str],
    reports: Mapping[str, RowReport],
    recipe: Mapping[str, Any] | None,
    trained_until: str,
) -> dict[str, Any]:
    """What dataset.json holds: which rows, what became of them, what the majority baseline needs, how the
    prompts were made where that is known, and the last day of the training weeks."""
    record = {
        "trained_until": trained_until,
        "training_labels": dict(Counter(training_labels)),
        "fingerprint_sha256": fingerprint,
        "counts": asdict(counts),
        "tokenised": {name: asdict(report) for name, report in reports.items()},
    }
    return record if recipe is None else record | {"recipe": dict(recipe)}


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, default=str) + "\n", encoding="utf-8")
