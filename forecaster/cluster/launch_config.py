"""The flags of train.sh beside those of train_lora.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forecaster.errors import ConfigurationError, Problem
from forecaster.flags import Program, flag, flag_names, split_words, typed

EMBEDDED = "configs/embedded.yaml"
WHERE, JOB = "where it runs", "what is done"


@dataclass(frozen=True)
class LaunchConfig:
    """Every flag of train.sh's own."""

    gpus: str | None = flag(
        None, "GPUs to use, for example 2,3 (without a GPU: CPU ranks)", WHERE, metavar="0,1", shown="all"
    )
    hostfile: str | None = flag(
        None, "machines to use, reached over ssh: lines such as 10.0.0.1 slots=8", WHERE, metavar="FILE"
    )
    ssh_port: int | None = flag(None, "port of ssh on the machines of --hostfile", WHERE, shown="ssh's own")
    no_ssh: bool = flag(False, "each machine is started by hand; its environment tells its rank", WHERE)
    restarts: int = flag(0, "start a training that died again, this many times", JOB)
    doctor: bool = flag(False, "check this machine, or those of --hostfile; start nothing", JOB)
    no_benchmark: bool = flag(False, "stop after training", JOB)


PROGRAM = Program(
    "train.sh",
    LaunchConfig,
    "Fine-tune under DeepSpeed, then benchmark. Without flags: the embedded default. A YAML file may stand "
    "first, and any flag of train_lora.py behind it: `python train_lora.py --help` lists them.",
    ("./train.sh", "./train.sh configs/llama3.1-8b-a100.yaml --gpus 0,1"),
)


def split_flags(argv: Sequence[str]) -> tuple[LaunchConfig, list[str]]:
    """train.sh's own flags, and the words of train_lora.py; a leading YAML file becomes --config.

    Raises:
        ConfigurationError: with everything that is wrong with train.sh's own.
        SystemExit: the help was asked for (status 0).
    """
    words = list(argv)
    if words and not words[0].startswith("-"):
        words[:1] = ["--config", words[0]]
    texts, rest = split_words(PROGRAM, words)
    own, problems = typed(LaunchConfig, texts)
    if own.restarts < 0:
        problems.append(Problem("--restarts", f"is {own.restarts}.", "It has to be 0 or more."))
    if own.ssh_port is not None and not 1 <= own.ssh_port <= 65535:
        problems.append(Problem("--ssh_port", f"is {own.ssh_port}.", "A port is 1 to 65535."))
    if problems:
        raise ConfigurationError(problems)
    if not flag_names(rest) & {"config", "base_model"}:
        rest = ["--config", EMBEDDED, *rest]
    return own, rest
