"""The trainer that survives: checkpoints complete or absent, stops between steps, and goes on as if nothing
had happened."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from transformers import TrainerCallback, TrainerControl, TrainerState

from forecaster.errors import SAVED_UNFINISHED, WOULD_FAIL_AGAIN, TrainingFailedError, TrainingStoppedError
from forecaster.models.finished import WAY_OUT
from forecaster.models.run_schemas import SumsFile
from forecaster.models.weights import sort_adapter_config
from forecaster.run_folder import ADAPTER_CONFIG
from forecaster.schemas import read_checked
from forecaster.training.survival import checkpoints
from forecaster.training.survival.stopping import StopWatch, ignore_stop_signals
from forecaster.training.trainer import ForecasterTrainer

_PENDING = "evaluation_pending"
"""A file of this name in a checkpoint: it was saved at a step whose evaluation was broken off."""


class DurableTrainer(ForecasterTrainer):
    """Saves atomically, stops on request at a step that all ranks agree on, and refuses to train on NaN."""

    def __init__(
        self, *args: Any, watch: StopWatch, keep_best: bool, max_skipped_steps: int, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._watch, self._keep_best, self._max_skipped_steps = watch, keep_best, max_skipped_steps
        self._output_dir = Path(self.args.output_dir)
        self._saving_into: Path | None = None
        self._resumed_from: Path | None = None
        self._stop_after_step = False
        self._skipped_in_a_row = 0
        self._step_losses: list[torch.Tensor] = []
        self._step_rows: list[list[str]] = []
        self.add_callback(_Course(self))

    def train(self, resume_from_checkpoint: Any = None, **kwargs: Any) -> Any:
        self._resumed_from = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        loader = super()._get_dataloader(*args, **kwargs)
        inner = getattr(loader, "base_dataloader", loader)
        inner.worker_init_fn = functools.partial(ignore_stop_signals, inner.worker_init_fn)
        return loader

    # --- the course of a training ---------------------------------------------------------------------------

    def take_up(self) -> None:
        """Before the first step of this session: what the Trainer itself does not take from a checkpoint."""
        self._watch.enter_steps()
        if self._resumed_from is None:
            return
        path = self._resumed_from / _sums_name(self.args.process_index)
        if path.exists():  # checkpoints of older versions have none
            sums = read_checked(path, SumsFile, WAY_OUT)
            self._tr_loss += torch.tensor(sums.loss, dtype=self._tr_loss.dtype)
            self._globalstep_last_logged = sums.last_logged_step
            self._total_loss_scalar = sums.total_loss
            self._initial_global_step = 0
            self._total_train_tokens = sums.train_tokens
            self._metrics["train"].update(sums.metrics)
        if (self._resumed_from / _PENDING).exists():
            try:
                self._evaluate(None, None)
            except _EvaluationStopped:
                self._leave_all(f"checkpoint-{self.state.global_step} is complete, as before")

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        self._step_rows.append(list(inputs["row_ids"]))
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._step_losses.append(loss.detach())
        return loss

    def end_step(self, control: TrainerControl) -> None:
        """After a step, on all ranks: refuse what cannot be trained on, and agree whether to stop."""
        bad = (~torch.isfinite(torch.stack(self._step_losses))).float()
        asked = torch.full((1,), float(self._watch.reason is not None), device=bad.device)
        # One exchange, and one wait for the device, for both.
        asked_to_stop, has_bad_loss = self._any_rank(torch.stack([asked[0], bad.max()]))
        skipped = bool(self.accelerator.optimizer_step_was_skipped)
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if has_bad_loss:
            marks = bad.tolist()
            rows = [row for ids, mark in zip(self._step_rows, marks, strict=True) if mark for row in ids]
            self._fail(f"The loss of step {self.state.global_step} is NaN or infinite", rows)
        if self._skipped_in_a_row > self._max_skipped_steps:
            rows = [row for ids in self._step_rows for row in ids]
            found = (
                f"{self._skipped_in_a_row} steps in a row were skipped, as their fp16 gradients overflowed"
            )
            self._fail(f"{found} (--max_skipped_steps {self._max_skipped_steps})", rows)
        self._step_losses.clear()
        self._step_rows.clear()
        if asked_to_stop:
            self._stop_after_step = True
            control.should_save = True
            epoch_ends = self.args.eval_strategy == "epoch" and float(self.state.epoch or 0).is_integer()
            control.should_evaluate = control.should_evaluate or epoch_ends

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self._watch.is_between_steps:
            asked = float(self._stop_after_step or self._watch.reason is not None)
            if self._any_rank(torch.tensor([asked], device=self.args.device))[0]:
                self._stop_after_step = True
                raise _EvaluationStopped
        return super().prediction_step(model, inputs, *args, **kwargs)

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: Any, *args: Any, **kw: Any
    ) -> None:
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, *args, **kw)
        except _EvaluationStopped:
            self._save_checkpoint(model, None, evaluation_pending=True)
        if self._stop_after_step:
            self._leave_all(f"checkpoint-{self.state.global_step} is complete")

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            # Killed after the last step: the Trainer would make one more before it looks.
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: float) -> Any:
        self._watch.leave_steps()
        # The loss is that of all sessions; so is the time, for the speeds beside it.
        earlier_s = self._earlier_s if self._initial_global_step == 0 else 0.0
        return super()._finalize_training(trial, num_train_samples, start_time - earlier_s)

    def _any_rank(self, marks: torch.Tensor) -> list[bool]:
        """Which marks (floats, above 0: set) are set on any rank."""
        if self.args.world_size > 1:
            dist.all_reduce(marks, op=dist.ReduceOp.MAX)
        return [mark > 0 for mark in marks.tolist()]

    def _leave_all(self, saved: str) -> NoReturn:
        self._watch.leave(SAVED_UNFINISHED)
        reason = self._watch.reason or "another rank"
        step = f"step {self.state.global_step} of {self.state.max_steps}"
        raise TrainingStoppedError(f"Stopped by {reason} at {step}: {saved}.")

    def _fail(self, found: str, own_rows: Sequence[str]) -> NoReturn:
        """End all ranks with one message that names the rows of every rank."""
        rows: list[Sequence[str]] = [own_rows]
        if self.args.world_size > 1:
            rows = [[]] * self.args.world_size
            dist.all_gather_object(rows, own_rows)
        self._watch.leave(WOULD_FAIL_AGAIN)
        if self._row_order is not None:
            self._row_order.flush()
        way_out = "Look at these rows, lower --learning_rate"
        way_out += ", or use --precision bf16" if self.args.fp16 else ", or lengthen --warmup_ratio"
        names = ", ".join(row for part in rows for row in part)
        way_out += "; then start anew, as a run goes on with the settings that it began with."
        raise TrainingFailedError(f"{found}; its rows: {names}. {way_out}")

    # --- saving ---------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._saving_into) if self._saving_into else str(super()._get_output_dir(trial))

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing: TRL would put its card into the run's folder before the first checkpoint is there, and
        the run's own is written when it ends."""

    def _save_checkpoint(self, model: Any, trial: Any, evaluation_pending: bool = False) -> None:
        """Write a checkpoint under another name, on all ranks, and give it its own once it is complete.

        Raises:
            TrainingFailedError: the disk is full.
        """
        step = self.state.global_step
        unfinished = checkpoints.unfinished_folder(self._output_dir, step)
        needed_bytes = self._checkpoint_bytes()
        if self._row_order is not None:
            self._row_order.flush()
        try:
            self._check_room(needed_bytes)
            self._saving_into = unfinished
            # The Trainer prunes in the folder that it writes into: there is nothing but this checkpoint.
            super()._save_checkpoint(model, trial)
            inside = unfinished / f"checkpoint-{step}"
            sums = inside / _sums_name(self.args.process_index)
            sums.write_text(json.dumps(self._sums(), default=float))
            self._barrier()
            if self.is_world_process_zero():
                if evaluation_pending:
                    (inside / _PENDING).touch()
                if (inside / ADAPTER_CONFIG).exists():
                    sort_adapter_config(inside)
                checkpoints.commit(self._output_dir, step)
                best = checkpoints.best_step(self.state.log_history) if self._keep_best else None
                checkpoints.prune(self._output_dir, step, int(self.args.save_total_limit or 1), best)
        except (OSError, RuntimeError, SafetensorError) as error:  # each of the writers has its own
            if shutil.disk_usage(self._output_dir).free >= needed_bytes:
                raise
            shutil.rmtree(unfinished, ignore_errors=True)
            raise self._disk_full(needed_bytes) from error
        finally:
            self._saving_into = None
        self._barrier()
        if self.args.local_process_index == 0:
            # On a machine without rank 0's disk: parts of checkpoints that nobody else has.
            shutil.rmtree(unfinished, ignore_errors=True)

    def _check_room(self, needed_bytes: int) -> None:
        free = torch.tensor([float(shutil.disk_usage(self._output_dir).free < needed_bytes)])
        if self._any_rank(free.to(self.args.device))[0]:
            raise self._disk_full(needed_bytes)

    def _disk_full(self, needed_bytes: int) -> TrainingFailedError:
        self._watch.leave(WOULD_FAIL_AGAIN)
        free_bytes = shutil.disk_usage(self._output_dir).free
        return TrainingFailedError(
            f"The disk of {self._output_dir} is full: checkpoint-{self.state.global_step} needs about "
            f"{needed_bytes / 1e6:.0f} MB, and {free_bytes / 1e6:.0f} MB are free. Earlier checkpoints stay. "
            "Free some space, and go on with --resume."
        )

    def _checkpoint_bytes(self) -> int:
        """Bytes that a checkpoint takes: as the one before, or by the number of trainable parameters.

        Adapter, fp32 copy and two Adam moments are 16 bytes a parameter; the tokenizer is beside them.
        """
        earlier = [checkpoints.size_bytes(path) for path in checkpoints.folders(self._output_dir)]
        trainable = sum(getattr(p, "ds_numel", p.numel()) for p in self.model.parameters() if p.requires_grad)
        return max([16 * trainable + 2_000_000, *earlier])

    def _sums(self) -> dict[str, Any]:
        """What this rank has summed up since the last log line; without it, the next one would differ."""
        return {
            "loss": self._tr_loss.item(),
            "last_logged_step": self._globalstep_last_logged,
            "total_loss": self._total_loss_scalar,
            "train_tokens": self._total_train_tokens,
            "metrics": dict(self._metrics["train"]),
        }

    def _barrier(self) -> None:
        if self.args.world_size > 1:
            dist.barrier()


class _EvaluationStopped(Exception):
    """Breaks an evaluation off, on all ranks at the same batch."""


class _Course(TrainerCallback):
    """Tells the trainer where it is."""

    def __init__(self, trainer: DurableTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.take_up()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.end_step(control)


def _sums_name(rank: int) -> str:
    return f"sums_{rank}.json"
