"""A training behind train.sh that is signalled or killed at a chosen moment: found by what its folder shows,
never by a clock."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from processes import ROOT, free_port

BASE = ROOT / "sample" / "base"
_MARK = "FORECASTER_KILL_TEST"
_LONGEST_S = 300.0
STEPS = 6


def write_rows(folder: Path) -> Path:
    """16 training and 4 test rows of the embedded sample."""
    for name, count in (("train", 16), ("test", 4)):
        text = (ROOT / "sample" / "dataset" / f"{name}.jsonl").read_text(encoding="utf-8")
        (folder / f"{name}.jsonl").write_text("\n".join(text.splitlines()[:count]) + "\n", encoding="utf-8")
    return folder


class Training:
    """train.sh on two CPU ranks: six steps, evaluation and checkpoint after every second one.

    Losses are logged every third step, so that no checkpoint but the last falls on a log line.
    """

    start: tuple[str, ...] = (str(ROOT / "train.sh"), "--gpus", "0,1", "--no_benchmark")

    def __init__(self, data: Path, output_dir: Path, ds_config: str, *more: str) -> None:
        self.output_dir = output_dir
        self._started_s = time.time()
        self._mark = secrets.token_hex(8)
        self._log = data / f"{output_dir.name}-{self._mark}.log"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(*self.start, "--base_model", str(BASE)),
                    *("--dataset", "train.jsonl", "--test_dataset", "test.jsonl", "--max_length", "1024"),
                    *("--batch_size", "2", "--gradient_accumulation_steps", "2", "--max_steps", str(STEPS)),
                    *("--log_interval", "3", "--eval_steps", "2", "--learning_rate", "5e-3"),
                    *("--report_to", "none", "--ds_config", ds_config, "--output_dir", str(output_dir)),
                    *more,
                ],
                cwd=data,
                env=os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": path, _MARK: self._mark},
                stdout=log,
                stderr=log,
            )

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        """The exit status; fails when a process is left then, or when it takes minutes."""
        try:
            status = self.process.wait(timeout=_LONGEST_S)
        except subprocess.TimeoutExpired:
            self.kill_everything()
            raise AssertionError(f"train.sh did not end:\n{self.output()[-4000:]}") from None
        left = self.members()
        if left:
            self.kill_everything()
        assert left == {}, self.output()[-4000:]
        return status

    def members(self) -> dict[int, str]:
        """Every process that this training started and that still runs, with its command line."""
        return {
            process.pid: " ".join(process.info["cmdline"] or [])
            for process in psutil.process_iter(["environ", "cmdline"])
            if (process.info["environ"] or {}).get(_MARK) == self._mark
        }

    def target(self, name: str) -> int:
        """Process id of `train.sh`, `deepspeed`, its `launch.py`, or a `rank` (the second)."""
        words = {
            "deepspeed": "bin/deepspeed ",
            "launch.py": "deepspeed.launcher.launch",
            "rank": "train_lora.py --local_rank=1",
        }
        if name == "train.sh":
            return self.process.pid
        # A process that was forked and has not become another program yet shows its parent's command.
        found = [
            pid for pid, command in self.members().items() if words[name] in command.partition(" --base")[0]
        ]
        assert found, f"no {name} among {self.members()}"
        return min(found)

    def when(self, moment: Callable[[Training], bool]) -> Training:
        """Wait until `moment` holds."""
        end_s = time.monotonic() + _LONGEST_S
        while not moment(self):
            assert self.process.poll() is None, f"it ended before:\n{self.output()[-4000:]}"
            assert time.monotonic() < end_s, f"it never came:\n{self.output()[-4000:]}"
            time.sleep(0.001)
        return self

    def send(self, number: signal.Signals, target: str) -> Training:
        os.kill(self.target(target), number)
        return self

    def kill_everything(self) -> None:
        # A process that is becoming another program has no environment for a moment.
        while (left := self.members()) or self.process.poll() is None:
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def has_written(self, name: str) -> bool:
        """Whether a file of the output folder was written since the start, not by an earlier training."""
        try:
            return (self.output_dir / name).stat().st_mtime >= self._started_s
        except FileNotFoundError:
            return False

    def resume_command(self) -> str:
        """The last line that train.sh printed: how to go on."""
        return self.output().rstrip().splitlines()[-1].strip()


class UnderDeepspeed(Training):
    """The same training on one rank, under `deepspeed` itself: nobody looks after the rank."""

    def __init__(self, data: Path, output_dir: Path, ds_config: str, *more: str) -> None:
        launcher = str(Path(sys.executable).with_name("deepspeed"))
        words = (launcher, "--include", "localhost:0", "--master_port", str(free_port()))
        self.start = (*words, str(ROOT / "train_lora.py"))
        super().__init__(data, output_dir, ds_config, *more)

    def wait_until_alone(self) -> None:
        """Until all that `deepspeed` left behind has left by itself."""
        end_s = time.monotonic() + _LONGEST_S
        while self.members():
            assert time.monotonic() < end_s, f"{self.members()} stayed:\n{self.output()[-4000:]}"
            time.sleep(0.2)


def loading(training: Training) -> bool:
    """Both ranks are there."""
    return sum("train_lora.py --local_rank" in command for command in training.members().values()) >= 2


def about_to_train(training: Training) -> bool:
    return training.has_written("run_config.json")


def stepping(training: Training) -> bool:
    """The first steps were begun."""
    return training.has_written("row_order/rank_0.jsonl")


def saving(step: int) -> Callable[[Training], bool]:
    """In the middle of writing the checkpoint of a step: a first file of it is there, which is not what an
    earlier training left and this one removes."""

    def is_so(training: Training) -> bool:
        walk = os.walk(training.output_dir / f"tmp-checkpoint-{step}")
        files = (Path(folder, name) for folder, _, names in walk for name in names)
        return any(training.has_written(str(file)) for file in files)

    return is_so


def saved(step: int) -> Callable[[Training], bool]:
    return lambda training: (training.output_dir / f"checkpoint-{step}").exists()


def result(output_dir: Path) -> dict[str, Any]:
    """What two equal trainings have in common: losses, rates, row order by step, and the adapter's bytes."""
    history = json.loads((output_dir / "log_history.json").read_text())
    names = ("step", "epoch", "loss", "eval_loss", "learning_rate", "train_loss", "num_tokens", "entropy")
    lines = [{name: entry[name] for name in names if name in entry} for entry in history]
    ranks = sorted((output_dir / "row_order").iterdir())
    return {
        "lines": lines,
        "rows": {path.name: path.read_text() for path in ranks},
        "adapter": (output_dir / "adapter_model.safetensors").read_bytes(),
        "adapter_config": (output_dir / "adapter_config.json").read_bytes(),
    }


def complete_checkpoints(output_dir: Path) -> list[str]:
    return sorted(path.name for path in output_dir.glob("checkpoint-*"))
