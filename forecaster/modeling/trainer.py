"""TRL's trainer with this project's collator, and the record of each step's rows, speed and memory."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from trl import SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling


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

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Saves tied weights once: below ZeRO-3 accelerate hands over clones, which no longer look tied."""
        if state_dict:
            state_dict = {k: v for k, v in state_dict.items() if k not in self.model.all_tied_weights_keys}
        super()._save(output_dir, state_dict)

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
