"""What happens beside the steps of a training: lines of progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, Literal

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from forecaster.progress import say

EvaluatedPart = Literal["validation", "test"]
"""The part whose loss is computed in the course of training, as `eval_loss`."""


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
            self._bar.clear()
        say(line)
