"""The whole job behind train.sh: check, fine-tune under DeepSpeed, benchmark.

The embedded default, on any machine:

    ./train.sh

A rented GPU:

    ./train.sh configs/llama3.1-8b-a100.yaml --gpus 0,1
"""

from __future__ import annotations

import atexit
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_exponential

from forecaster.cluster import doctor, nodes
from forecaster.cluster.launch_config import LaunchConfig, split_flags
from forecaster.cluster.supervision import StopSignals, remove_dead_build_locks, supervise
from forecaster.errors import SAVED_UNFINISHED, WOULD_FAIL_AGAIN, ConfigurationError, Problem
from forecaster.exits import report_problems
from forecaster.fit import plan_tables
from forecaster.fit.gpus import GpuSelectionError, detect_gpus, launcher_indices, select_gpus
from forecaster.processes import say
from forecaster.run_folder import LOG_HISTORY
from forecaster.settings import Settings, calm_openmp, load_settings
from forecaster.training import train_config
from forecaster.training.run import RunFolder, find_run_folder
from forecaster.training.survival import checkpoints

ROOT = Path(__file__).resolve().parent
REFUSED = ConfigurationError.exit_status
NOT_WORTH_A_RESTART = (0, REFUSED, SAVED_UNFINISHED, WOULD_FAIL_AGAIN)
LAUNCHER_LOST = 128 + signal.SIGKILL
"""`deepspeed` itself ends with 0 when its launch.py was killed."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0


def main(argv: Sequence[str]) -> int:
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return report_problems("launch.py", error)
    calm_openmp()
    try:
        own, train_flags = split_flags(argv)
        flags = train_config.parse_flags(train_flags)
        indices = gpu_indices(own.gpus, settings, of_hosts=bool(own.hostfile) and not own.no_ssh)
        cluster = nodes.find_cluster(
            *(own.hostfile, own.no_ssh, own.ssh_port, indices, own.gpus is not None),
            settings.cuda_visible_devices,
        )
        if own.doctor:
            return doctor.run(cluster, indices)
        if flags.gpu and not (flags.dry_run or flags.plan):
            found = f"{flags.gpu} goes with --plan and --dry_run only."
            raise ConfigurationError([Problem("--gpu", found, "Choose GPUs with --gpus 0,1.")])
    except ConfigurationError as error:
        return report_problems("train.sh", error)
    ranks = cluster.ranks if cluster else len(indices)
    if flags.plan:
        command = [sys.executable, str(ROOT / "train_lora.py"), *train_flags]
        asked = os.environ | {"WORLD_SIZE": str(ranks)} | cuda_visible(indices)
        return subprocess.run(command, env=asked).returncode
    folder = find_run_folder(flags)
    output_dir = folder.path if isinstance(folder, RunFolder) else flags.output_dir
    if output_dir and not flags.output_dir:
        train_flags += ["--output_dir", str(output_dir)]
    env = nodes.environment(None, rank_environment(indices))
    visible = {} if cluster and cluster.node_rank is None else cuda_visible(indices)

    with StopSignals() as signals:
        # The check runs first, without the launcher: its messages stand alone, and it takes seconds.
        check = subprocess.run(
            [sys.executable, str(ROOT / "train_lora.py"), *train_flags, "--dry_run"],
            env=env | {"WORLD_SIZE": str(ranks)} | visible,
            stdout=subprocess.PIPE,
            text=True,
        )
        if signals.received:
            print(f"\nStopped by {signals.received.name} before anything began.", file=sys.stderr)
            return SAVED_UNFINISHED
        if check.returncode:
            return check.returncode
        print(check.stdout if flags.dry_run else plan_tables.head(check.stdout))
        train_flags = without_checking_flags(train_flags)
        benchmark = [sys.executable, str(ROOT / "benchmark.py"), "--adapter", str(output_dir)]
        is_benchmarked = not own.no_benchmark and (cluster is None or cluster.keeps_results)
        if flags.dry_run:
            training = deepspeed_command(indices, train_flags, cluster)
            for command in [training, benchmark] if is_benchmarked else [training]:
                print(f"$ {shlex.join(command)}")
            return 0
        if cluster and (problems := nodes.find_start_problems(cluster)):
            return report_problems("train.sh", ConfigurationError(problems))
        folder_of_run = Path(output_dir or ".")
        job = Launch(own, train_flags, indices, cluster, env, folder_of_run, flags.grace_seconds, signals)
        if status := job.train():
            return status
        return job.benchmark(benchmark) if is_benchmarked else 0


@dataclass(frozen=True)
class Launch:
    """What was checked and now runs, under the eyes of this process."""

    own: LaunchConfig
    train_flags: Sequence[str]
    indices: Sequence[int]
    cluster: nodes.Cluster | None
    env: Mapping[str, str]
    output_dir: Path
    grace_s: float
    signals: StopSignals

    def train(self) -> int:
        """Train, as often as --restarts allows. Returns 0 when the adapter is complete."""
        attempts = Retrying(
            stop=stop_after_attempt(self.own.restarts + 1),
            wait=wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            retry=retry_if_result(lambda status: status not in NOT_WORTH_A_RESTART),
            sleep=self._pause,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else 1,
        )
        status: int = attempts(self._train_once)
        if status in (REFUSED, WOULD_FAIL_AGAIN):
            say(f"\nTraining stopped with status {status}. Mend what is listed above.", sys.stderr)
        elif self.signals.received and status:
            say(f"\nStopped by {self.signals.received.name}. {self._way_on()}", sys.stderr)
        elif status:
            say(f"\nTraining stopped with status {status}. {self._way_on()}", sys.stderr)
        return status

    def benchmark(self, command: Sequence[str]) -> int:
        if self.signals.received:
            say(
                f"\nTraining had ended when {self.signals.received.name} came, before the benchmark.",
                sys.stderr,
            )
            say(f"Make it with:\n  {shlex.join(command)}", sys.stderr)
            return SAVED_UNFINISHED
        say(f"$ {shlex.join(command)}")
        env = {**self.env, **cuda_visible(self.indices)}
        status = supervise(command, env, self.signals, self.grace_s)
        if status:
            mend = "Mend what is listed above. " if status == REFUSED else ""
            found = f"The adapter is complete, but the benchmark stopped with status {status}."
            say(f"\n{found} {mend}Go on with:\n  {shlex.join(command)}", sys.stderr)
        return status

    def _train_once(self) -> int:
        if self.signals.received:
            return SAVED_UNFINISHED
        if self.cluster is None:  # on a shared disk it may be another machine's
            for lock in remove_dead_build_locks(torch_extensions_folder()):
                say(f"Removed {lock}, which a killed build left.")
        flags = list(self.train_flags)
        if "--resume" not in flags and self._has_checkpoint():
            flags.append("--resume")
        command = deepspeed_command(self.indices, flags, self.cluster)
        say(f"$ {shlex.join(command)}")
        env = nodes.environment(self.cluster, self.env)
        ended_before = self._ended_at_ns()
        status = supervise(command, env, self.signals, self.grace_s)
        if self.cluster and not self.cluster.keeps_results:  # the run's folder is on another machine
            return SAVED_UNFINISHED if self.signals.received else status
        if self._ended_at_ns() not in (None, ended_before):
            return 0 if self.signals.received else status
        if self.signals.received:
            return status if status in (REFUSED, WOULD_FAIL_AGAIN) else SAVED_UNFINISHED
        return status or LAUNCHER_LOST

    def _pause(self, seconds: float) -> None:
        say(f"\nTraining stopped; it starts again in {seconds:.0f} s.", sys.stderr)
        self.signals.wait(seconds)

    def _ended_at_ns(self) -> int | None:
        """When the run's last file was written; None: it has not ended."""
        last = self.output_dir / LOG_HISTORY
        return last.stat().st_mtime_ns if last.exists() else None

    def _has_checkpoint(self) -> bool:
        return checkpoints.newest_complete(self.output_dir)[0] is not None

    def _way_on(self) -> str:
        flags = [word for word in self.train_flags if word != "--resume"]
        for name in ("gpus", "hostfile", "ssh_port", "restarts"):
            if value := getattr(self.own, name):
                flags += [f"--{name}", str(value)]
        flags += [f"--{name}" for name in ("no_ssh", "no_benchmark") if getattr(self.own, name)]
        if not self._has_checkpoint():
            return f"It had saved no checkpoint yet; start it again with:\n  ./train.sh {shlex.join(flags)}"
        return f"Go on from its newest checkpoint with:\n  ./train.sh {shlex.join([*flags, '--resume'])}"


def torch_extensions_folder() -> Path:
    """Where torch builds DeepSpeed's extensions."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path(cache) / "torch_extensions")


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


def gpu_indices(asked: str | None, settings: Settings, of_hosts: bool = False) -> list[int]:
    """Indices for `--include`: what --gpus names, else what CUDA_VISIBLE_DEVICES shows, else all.

    Without a GPU these are CPU ranks.

    Args:
        of_hosts: whether --gpus chooses on the hosts of a hostfile, and this machine's GPUs do not matter.
    """
    gpus = detect_gpus()
    flag = "--gpus" if asked is not None else "CUDA_VISIBLE_DEVICES"
    if asked is not None and not re.fullmatch(r"\w[\w-]*(,\w[\w-]*)*", asked):
        raise ConfigurationError(
            [Problem(flag, f"is {asked!r}.", "Give a comma list of indices, such as 0,1.")]
        )
    if asked and of_hosts and re.fullmatch(r"\d+(,\d+)*", asked):
        return sorted({int(index) for index in asked.split(",")})
    try:
        if not gpus:
            ranks = [int(part) for part in asked.split(",")] if asked else [0]
            if len(set(ranks)) < len(ranks) or min(ranks) < 0:
                raise ValueError(f"{asked!r} names no set of ranks")
            return ranks
        selected = select_gpus(gpus, asked or settings.cuda_visible_devices)
        if not selected:
            raise ValueError("hides every GPU of this machine")
        indices = launcher_indices(selected, gpus)
    except (GpuSelectionError, ValueError) as error:
        raise ConfigurationError(
            [
                Problem(
                    flag, f"{error}.", "Give a comma list of indices that `nvidia-smi -L` shows, such as 0,1."
                )
            ]
        ) from error
    if asked and settings.cuda_visible_devices:
        print(f"--gpus {asked} is used; CUDA_VISIBLE_DEVICES={settings.cuda_visible_devices} is not.")
    return indices


def cuda_visible(indices: Sequence[int]) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, indices))} if detect_gpus() else {}


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
    if not detect_gpus():
        cores = len(os.sched_getaffinity(0))
        env |= {"LOCAL_SIZE": str(max(indices) + 1)}
        env.setdefault("OMP_NUM_THREADS", str(max(cores // len(indices), 1)))
    return env


def deepspeed_command(
    indices: Sequence[int], train_flags: Sequence[str], cluster: nodes.Cluster | None = None
) -> list[str]:
    script = Path(sys.executable).with_name("deepspeed")
    found = str(script) if script.exists() else shutil.which("deepspeed")
    launcher = [found] if found else [sys.executable, "-m", "deepspeed.launcher.runner"]
    if cluster:
        where = nodes.launcher_flags(cluster, cluster.hostfile or temporary_hostfile(cluster))
        return [*launcher, *where, str(ROOT / "train_lora.py"), *nodes.script_flags(cluster, train_flags)]
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


def temporary_hostfile(cluster: nodes.Cluster) -> Path:
    """The nodes that the environment described, as the launcher reads them; gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="forecaster-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "hostfile"
    path.write_text(nodes.hostfile_text(cluster), encoding="utf-8")
    return path


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nStopped. The same command with --resume, and its --output_dir, goes on.", file=sys.stderr)
        sys.exit(130)
