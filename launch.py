"""The whole job behind train.sh: check, fine-tune under DeepSpeed, benchmark.

The embedded default, on any machine:

    ./train.sh

A rented GPU:

    ./train.sh configs/llama3.1-8b-a100.yaml --gpus 0,1
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from forecaster.errors import ConfigurationError, Problem
from forecaster.modeling import config, hardware, plan_tables
from forecaster.modeling.run import RunFolder, find_run_folder
from forecaster.settings import Settings, calm_openmp, load_settings, report_problems

ROOT = Path(__file__).resolve().parent
EMBEDDED = "configs/embedded.yaml"


def main(argv: Sequence[str]) -> int:
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return report_problems("launch.py", error)
    calm_openmp()
    own, train_flags = split_flags(argv)
    try:
        flags = config.parse_flags(train_flags)
        indices = gpu_indices(own.gpus, settings)
        if flags.gpu and not (flags.dry_run or flags.plan):
            found = f"{flags.gpu} goes with --plan and --dry_run only."
            raise ConfigurationError([Problem("--gpu", found, "Choose GPUs with --gpus 0,1.")])
    except ConfigurationError as error:
        return report_problems("train.sh", error)
    if flags.plan:
        command = [sys.executable, str(ROOT / "train_lora.py"), *train_flags]
        return subprocess.run(
            command, env=os.environ | {"WORLD_SIZE": str(len(indices))} | cuda_visible(indices)
        ).returncode
    folder = find_run_folder(flags)
    output_dir = folder.path if isinstance(folder, RunFolder) else flags.output_dir
    if output_dir and not flags.output_dir:
        train_flags += ["--output_dir", str(output_dir)]
    env = rank_environment(indices)

    # The check runs first, without the launcher: its messages stand alone, and it takes seconds.
    check = subprocess.run(
        [sys.executable, str(ROOT / "train_lora.py"), *train_flags, "--dry_run"],
        env=env | {"WORLD_SIZE": str(len(indices))} | cuda_visible(indices),
        stdout=subprocess.PIPE,
        text=True,
    )
    if check.returncode:
        return check.returncode
    print(check.stdout if flags.dry_run else plan_tables.head(check.stdout))
    training = deepspeed_command(indices, without_checking_flags(train_flags))
    benchmark = [sys.executable, str(ROOT / "benchmark.py"), "--adapter", str(output_dir)]
    commands = [training] if own.no_benchmark else [training, benchmark]
    if flags.dry_run:
        print("\n".join(f"$ {shlex.join(command)}" for command in commands))
        return 0

    for command in commands:
        print(f"$ {shlex.join(command)}", flush=True)
        is_training = command is training
        status = subprocess.run(command, env=env if is_training else env | cuda_visible(indices)).returncode
        if status:
            way_out = way_on(own, train_flags, output_dir) if is_training else "The same command goes on."
            if status == ConfigurationError.exit_status:
                way_out = "Mend what is listed above."
            name = "Training" if is_training else "The adapter is complete, but the benchmark"
            print(f"\n{name} stopped with status {status}. {way_out}", file=sys.stderr)
            return status
    return 0


def without_checking_flags(train_flags: Sequence[str]) -> list[str]:
    """The flags of the run that --dry_run and --gpu only asked about."""
    kept: list[str] = []
    words = iter(train_flags)
    for word in words:
        name, separator, _ = word.partition("=")
        name = name.replace("-", "_")
        if name == "__gpu" and not separator:
            next(words, None)
        elif name not in ("__gpu", "__dry_run"):
            kept.append(word)
    return kept


def split_flags(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """train.sh's own flags, and those of train_lora.py; a leading YAML file becomes --config."""
    words = list(argv)
    if words and not words[0].startswith("-"):
        words[:1] = ["--config", words[0]]
    parser = argparse.ArgumentParser(
        prog="train.sh",
        allow_abbrev=False,
        usage="train.sh [CONFIG.yaml] [--gpus 0,1] [--no_benchmark] [--dry_run] [any flag of train_lora.py]",
        description="Fine-tune under DeepSpeed, then benchmark. Without flags: the embedded default.",
        epilog="`python train_lora.py --help` lists its flags.",
    )
    parser.add_argument(
        "--gpus", help="GPUs to use, for example 2,3 (without a GPU: CPU ranks); default: all"
    )
    parser.add_argument("--no_benchmark", action="store_true", help="stop after training")
    own, rest = parser.parse_known_args(words)
    if not config.flag_names(rest) & {"config", "base_model"}:
        rest = ["--config", EMBEDDED, *rest]
    return own, rest


def gpu_indices(asked: str | None, settings: Settings) -> list[int]:
    """Indices for `--include`: what --gpus names, else what CUDA_VISIBLE_DEVICES shows, else all.

    Without a GPU these are CPU ranks.
    """
    gpus = hardware.detect_gpus()
    flag = "--gpus" if asked is not None else "CUDA_VISIBLE_DEVICES"
    if asked is not None and not re.fullmatch(r"\w[\w-]*(,\w[\w-]*)*", asked):
        raise ConfigurationError(
            [Problem(flag, f"is {asked!r}.", "Give a comma list of indices, such as 0,1.")]
        )
    try:
        if not gpus:
            ranks = [int(part) for part in asked.split(",")] if asked else [0]
            if len(set(ranks)) < len(ranks) or min(ranks) < 0:
                raise ValueError(f"{asked!r} names no set of ranks")
            return ranks
        selected = hardware.select_gpus(gpus, asked or settings.cuda_visible_devices)
        if not selected:
            raise ValueError("hides every GPU of this machine")
    except (hardware.GpuSelectionError, ValueError) as error:
        raise ConfigurationError(
            [
                Problem(
                    flag, f"{error}.", "Give a comma list of indices that `nvidia-smi -L` shows, such as 0,1."
                )
            ]
        ) from error
    if asked and settings.cuda_visible_devices:
        print(f"--gpus {asked} is used; CUDA_VISIBLE_DEVICES={settings.cuda_visible_devices} is not.")
    return [gpu.index for gpu in selected]


def cuda_visible(indices: Sequence[int]) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, indices))} if hardware.detect_gpus() else {}


def rank_environment(indices: Sequence[int]) -> dict[str, str]:
    """Environment of the launched processes.

    `--include` collides with a set CUDA_VISIBLE_DEVICES (DeepSpeed#5818), so that goes: its choice is in
    `--include`. On CPU, DeepSpeed counts NUMA nodes as slots unless LOCAL_SIZE says otherwise, and each
    rank's OpenMP would take every core.
    """
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    # nvidia-smi counts by bus, CUDA by speed unless told otherwise: one numbering for both.
    env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    if not hardware.detect_gpus():
        cores = len(os.sched_getaffinity(0))
        env |= {"LOCAL_SIZE": str(max(indices) + 1)}
        env.setdefault("OMP_NUM_THREADS", str(max(cores // len(indices), 1)))
    return env


def deepspeed_command(indices: Sequence[int], train_flags: Sequence[str]) -> list[str]:
    script = Path(sys.executable).with_name("deepspeed")
    found = str(script) if script.exists() else shutil.which("deepspeed")
    launcher = [found] if found else [sys.executable, "-m", "deepspeed.launcher.runner"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    include = f"localhost:{','.join(map(str, indices))}"
    return [
        *launcher,
        "--include",
        include,
        "--master_port",
        str(port),
        str(ROOT / "train_lora.py"),
        *train_flags,
    ]


def way_on(own: argparse.Namespace, train_flags: Sequence[str], output_dir: Path | str | None) -> str:
    if not output_dir or not any(Path(output_dir).glob("checkpoint-*/manifest.json")):
        return "It had saved no checkpoint yet; start it again."
    flags = [word for word in train_flags if word != "--resume"] + ["--resume"]
    flags += ["--gpus", own.gpus] if own.gpus else []
    flags += ["--no_benchmark"] if own.no_benchmark else []
    return f"Go on from its newest checkpoint with:\n  ./train.sh {shlex.join(flags)}"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nStopped. The same command with --resume, and its --output_dir, goes on.", file=sys.stderr)
        sys.exit(130)
