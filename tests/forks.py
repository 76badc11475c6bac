"""Entry points in forks of one process that has imported what is heavy, once: what a start of their own costs
is mostly imports.

For what an entry point does, not for how it is started, found or stopped: a fork shows its parent's command
and environment in /proc. Those tests take the real launcher.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from processes import ROOT, free_port

_SERVER = """
import importlib, json, os, sys
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # what imports print is no answer
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    asked = json.loads(line)
    if "pid" in asked:
        print(os.waitstatus_to_exitcode(os.waitpid(asked["pid"], 0)[1]), file=answers)
    elif pid := os.fork():
        print(pid, file=answers)
    else:
        answers.close()
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["cwd"])
        files = [os.open(os.devnull, os.O_RDONLY)]
        files += [os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND) for name in ("out", "err")]
        for number, file in enumerate(files):
            os.dup2(file, number)
        sys.argv = [asked["entry"] + ".py", *asked["argv"]]
        sys.exit(importlib.import_module(asked["entry"]).main(asked["argv"]))
"""
FOR_TRAINING = ("deepspeed", "trl.trainer.sft_trainer", "transformers.models.llama.modeling_llama")
FOR_TRAINING += ("peft", "datasets", "wandb", "train_lora", "forecaster.jobs.train")
FOR_ANSWERS = ("benchmark", "forecaster.answering.engines")


class Forks:
    """Processes that have imported `modules` when they start; with `with`, their parent ends."""

    def __init__(self, *modules: str) -> None:
        # One thread, as in all tests: those of OpenMP would be lost in a fork.
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", _SERVER, *modules]
        pipe = subprocess.PIPE
        self._parent = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, text=True)

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.communicate()

    def start(
        self,
        entry: str,
        *argv: str | Path,
        cwd: Path = ROOT,
        out: str = os.devnull,
        err: str = os.devnull,
        **env: str,
    ) -> int:
        """The id of a process that runs an entry point.

        Args:
            entry: its module, such as `benchmark`.
            out: file to which what it prints is appended; `err` likewise.
            env: on top of this process's environment.
        """
        words = [str(word) for word in argv]
        return self._ask(entry=entry, argv=words, cwd=str(cwd), out=out, err=err, env={**os.environ, **env})

    def wait(self, pid: int) -> int:
        """Exit status; below zero after a kill."""
        return self._ask(pid=pid)

    def run_ranks(
        self, ranks: int, entry: str, cwd: Path, files: Path, *argv: str
    ) -> subprocess.CompletedProcess[str]:
        """An entry point to its end on as many CPU ranks as asked, with the variables and the flag that
        DeepSpeed's launcher gives them.

        Args:
            files: an empty folder; what the ranks print lies there afterwards, in one file each.
        """
        shared = {"WORLD_SIZE": str(ranks), "LOCAL_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1"}
        shared |= {"MASTER_PORT": str(free_port()), "CROSS_RANK": "0", "CROSS_SIZE": "1"}
        paths = {name: str(files / name) for name in ("out", "err")}
        pids = [
            self.start(
                *(entry, f"--local_rank={rank}", *argv),
                cwd=cwd,
                **paths,
                **shared,
                RANK=str(rank),
                LOCAL_RANK=str(rank),
            )
            for rank in range(ranks)
        ]
        statuses = [self.wait(pid) for pid in pids]
        printed = [Path(path).read_text(encoding="utf-8") for path in paths.values()]
        return subprocess.CompletedProcess([entry, *argv], next(filter(None, statuses), 0), *printed)

    def _ask(self, **asked: Any) -> int:
        assert self._parent.stdin and self._parent.stdout
        self._parent.stdin.write(json.dumps(asked) + "\n")
        self._parent.stdin.flush()
        return int(self._parent.stdout.readline())
