"""TRL's trainer with this project's batches and loss, and the record of its rows, speed and memory."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import datasets
import numpy as np
import torch
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_pt_utils import BatchRebalanceSampler
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from forecaster.training import batching
from forecaster.training.batching import Batching
from forecaster.training.loss import AnswerLoss, add_answer_loss, has_plain_head
from forecaster.training.tokenising import IGNORED


class RowCollator:
    """Pads a batch on the right, to a `multiple` of tokens, or lays its rows end to end with their positions
    (`padding_free`), and carries the row ids and the number of real tokens along.

    There is no attention mask: a token attends to earlier ones only, and padding comes behind them all.
    Without a mask, SDPA takes its causal kernels, which skip half of the products.
    """

    def __init__(self, pad_token_id: int, padding_free: bool = False, multiple: int = 1) -> None:
        self._pad_token_id, self._fewest_tokens = pad_token_id, max(multiple, 2)
        self._pad = DataCollatorForLanguageModeling(
            pad_token_id=pad_token_id,
            padding_free=padding_free,
            pad_to_multiple_of=None if padding_free or multiple == 1 else multiple,
        )

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        if rows:
            batch: dict[str, Any] = self._pad([{k: row[k] for k in ("input_ids", "labels")} for row in rows])
            batch.pop("attention_mask", None)
        else:  # a rank without a row in a short last step: it computes along, for a loss of zero
            nothing = torch.full((1, self._fewest_tokens), self._pad_token_id)
            batch = {"input_ids": nothing, "labels": torch.full_like(nothing, IGNORED)}
        batch["row_ids"] = [row["row_id"] for row in rows]
        batch["tokens"] = sum(len(row["input_ids"]) for row in rows)
        return batch


class RankBatches(BatchRebalanceSampler):
    """Batches of this rank for transformers, which hands this class on to the DataLoader unsplit.

    Args:
        batches: Called at the start of each pass.
        count: How many there are in each.
    """

    def __init__(self, batches: Callable[[], Iterable[list[int]]], count: int) -> None:
        self._batches, self._count = batches, count

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches())

    def __len__(self) -> int:
        return self._count


class ForecasterTrainer(SFTTrainer):
    """TRL's trainer with batches of rows of similar length, and the token-mean loss over answers.

    It records which rows made each step.

    Args:
        rows_per_group: Rows of like length that stay together in the order of an epoch.
        row_order_file: Where each step's rows are written down.
    """

    def __init__(self, *args: Any, rows_per_group: int, row_order_file: Path, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rows_per_group = rows_per_group
        if not self.is_deepspeed_enabled:
            # TRL makes the factors of a 4-bit model bf16, in which small updates are lost.
            for weight in self.model.parameters():
                if weight.requires_grad:
                    weight.data = weight.data.float()
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        if not has_plain_head(base):  # all logits of every row: as few rows as in training
            self.args.per_device_eval_batch_size = self.args.per_device_train_batch_size
        add_answer_loss(base)
        self._row_order_file = row_order_file
        self._row_order: TextIO | None = None
        self._started_s = 0.0
        self._earlier_s = 0.0
        self._evaluating_s = 0.0
        self._tokens = 0
        self._measured = torch.zeros(2, dtype=torch.float64)

    # --- batches ---

    def _batching(self, micro_batch_size: int, accumulation: int) -> Batching:
        return Batching(micro_batch_size, accumulation, self.args.world_size)

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> RankBatches:
        lengths = row_lengths(self.train_dataset if train_dataset is None else train_dataset)
        shape = self._batching(self.args.train_batch_size, self.args.gradient_accumulation_steps)

        def epoch() -> Iterator[list[int]]:
            # From the steps done, which a checkpoint holds: a resumed epoch has the order it began with.
            number = self.state.global_step // shape.steps(len(lengths))
            order = batching.epoch_order(lengths, self._rows_per_group, self.args.seed, number)
            return batching.micro_batches(order, lengths, shape, self.args.process_index)

        return RankBatches(epoch, shape.micro_steps(len(lengths)))

    def _get_eval_sampler(self, eval_dataset: datasets.Dataset) -> RankBatches:
        lengths = row_lengths(eval_dataset)
        shape = self._batching(self.args.eval_batch_size, 1)

        def once() -> Iterator[list[int]]:
            order = batching.longest_first(lengths)
            return batching.micro_batches(order, lengths, shape, self.args.process_index)

        return RankBatches(once, shape.micro_steps(len(lengths)))

    # --- steps ---

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        if self._row_order is None:
            self._row_order = open_row_order(self._row_order_file, self.state.global_step)
            self._started_s, self._tokens = time.monotonic(), 0
            self._earlier_s = last_elapsed_s(self.state.log_history)
        step = self.state.global_step + 1
        self._row_order.write(json.dumps({"step": step, "row_ids": inputs.pop("row_ids")}) + "\n")
        self._tokens += inputs.pop("tokens")
        return super().training_step(model, inputs, *args, **kwargs)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean over the answer tokens of the whole accumulated batch on all ranks, whose number is
        `num_items_in_batch`."""
        loss: AnswerLoss = model(**without_labels(inputs), answer_labels=inputs["labels"])
        # The gradients of the ranks are averaged, not summed.
        return loss.nll_sum * (self.accelerator.num_processes / num_items_in_batch)

    # --- evaluation ---

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        began_s = time.monotonic()
        metrics = super().evaluate(*args, **kwargs)
        self._evaluating_s += time.monotonic() - began_s
        return metrics

    def prediction_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Adds the batch to what was measured; the Trainer is handed nothing to average."""
        inputs = self._prepare_inputs(inputs)
        del inputs["row_ids"], inputs["tokens"]
        with torch.no_grad(), self.compute_loss_context_manager():
            loss: AnswerLoss = model(**without_labels(inputs), answer_labels=inputs["labels"])
        self._measured += torch.stack([loss.nll_sum.double(), loss.tokens.double()]).cpu()
        return None, None, None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """The loss is the mean over all answer tokens, each once, whatever the batches and ranks."""
        self._measured = torch.zeros(2, dtype=torch.float64)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        nll_sum, tokens = self.accelerator.reduce(self._measured.to(self.args.device)).tolist()
        output.metrics[f"{metric_key_prefix}_loss"] = nll_sum / tokens
        return output

    # --- logging ---

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Saves tied weights once: below ZeRO-3 accelerate hands over clones, which no longer look tied.

        No pickle of the arguments is left: run_config.json says them, and nothing reads it.
        """
        if state_dict:
            state_dict = {k: v for k, v in state_dict.items() if k not in self.model.all_tied_weights_keys}
        super()._save(output_dir, state_dict)
        Path(output_dir or self.args.output_dir, TRAINING_ARGS_NAME).unlink(missing_ok=True)

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
                tokens = self.accelerator.reduce(torch.tensor(self._tokens, device=self.args.device))
                logs["tokens_per_s"] = round(int(tokens) / trained_s, 1)
                logs["peak_memory_gib"] = round(peak_memory_bytes() / 2**30, 3)
        super().log(logs, start_time)


def without_labels(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "labels"}


def row_lengths(rows: datasets.Dataset) -> batching.Lengths:
    """Tokens of each row, as tokenising counted them."""
    return np.asarray(rows["tokens"][:], dtype=np.int64)


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
