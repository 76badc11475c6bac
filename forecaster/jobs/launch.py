"""The whole job behind train.sh: check, fine-tune under DeepSpeed, benchmark; started again where it died."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_exponential

from forecaster.claims import new_folder
from forecaster.cluster import doctor, nodes
from forecaster.cluster.launch_command import (
    ROOT,
    cuda_visible,
    deepspeed_command,
    first_rank_environment,
    gpu_indices,
    rank_environment,
)
from forecaster.cluster.launch_config import LaunchConfig
from forecaster.cluster.supervision import StopSignals, remove_dead_build_locks, supervise
from forecaster.errors import SAVED_UNFINISHED, WOULD_FAIL_AGAIN, ConfigurationError, Problem
from forecaster.fit import plan_tables
from forecaster.fit.gpus import detect_gpus
from forecaster.progress import Listener
from forecaster.run_folder import LOG_HISTORY
from forecaster.settings import Settings, inherited_environment, torch_extensions_folder
from forecaster.training.run import RunFolder, find_run_folder
from forecaster.training.survival import checkpoints
from forecaster.training.train_config import TrainConfig

REFUSED = ConfigurationError.exit_status
NOT_WORTH_A_RESTART = (0, REFUSED, SAVED_UNFINISHED, WOULD_FAIL_AGAIN)
LAUNCHER_LOST = 128 + signal.SIGKILL
"""`deepspeed` itself ends with 0 when its launch.py was killed."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0


def launch(
    own: LaunchConfig, words: Sequence[str], config: TrainConfig, settings: Settings, listener: Listener
) -> int:
    """Check, train and benchmark, or whatever part of it was asked for.

    Args:
        own: train.sh's flags.
        words: those of train_lora.py, as they are passed on.
        config: what `words` say.

    Returns:
        0 done; 1 the doctor or the benchmark found a fault; 2 something has to be mended first; 70 it would
        fail again as it is; 75 stopped, and can go on; else the status of what ended.

    Raises:
        ConfigurationError: GPUs, hosts or variables that cannot be used.
    """
    indices = gpu_indices(own.gpus, settings, of_hosts=bool(own.hostfile) and not own.no_ssh)
    if own.gpus and settings.cuda_visible_devices and detect_gpus():
        said = f"CUDA_VISIBLE_DEVICES={settings.cuda_visible_devices}"
        listener.say(f"--gpus {own.gpus} is used; {said} is not.")
    cluster = nodes.find_cluster(
        *(own.hostfile, own.no_ssh, own.ssh_port, indices, own.gpus is not None),
        settings.cuda_visible_devices,
    )
    if own.doctor:
        return doctor.run(cluster, indices)
    if config.gpu and not (config.dry_run or config.plan):
        found = f"{config.gpu} goes with --plan and --dry_run only."
        raise ConfigurationError([Problem("--gpu", found, "Choose GPUs with --gpus 0,1.")])
    ranks = first_rank_environment(cluster.ranks if cluster else len(indices))
    train_lora = [sys.executable, str(ROOT / "train_lora.py")]
    if config.plan:
        env = inherited_environment() | ranks | cuda_visible(indices)
        return subprocess.run([*train_lora, *words], env=env).returncode
    folder = find_run_folder(config)
    output_dir = folder.path if isinstance(folder, RunFolder) else config.output_dir
    env = nodes.environment(None, rank_environment(indices))
    visible = {} if cluster and cluster.node_rank is None else cuda_visible(indices)

    with StopSignals(settings.supervisor_pid) as signals:
        # The check runs first, without the launcher: its messages stand alone, and it takes seconds.
        asked = [*train_lora, *_into(output_dir, config, words), "--dry_run"]
        check = subprocess.run(asked, env=env | ranks | visible, stdout=subprocess.PIPE, text=True)
        if signals.received:
            listener.warn(f"\nStopped by {signals.received.name} before anything began.")
            return SAVED_UNFINISHED
        if check.returncode:
            return check.returncode
        listener.say(check.stdout if config.dry_run else plan_tables.head(check.stdout))
        words = without_checking_flags(words)
        keeps_results = cluster is None or cluster.keeps_results
        is_benchmarked = keeps_results and not own.no_benchmark
        if config.dry_run:
            training = deepspeed_command(indices, _into(output_dir, config, words), cluster)
            for command in (training, benchmark_command(output_dir, config))[: 1 + is_benchmarked]:
                listener.say(f"$ {shlex.join(command)}")
            return 0
        if cluster and (problems := nodes.find_start_problems(cluster)):
            raise ConfigurationError(problems)
        if output_dir and keeps_results and not (config.output_dir or config.resume):
            output_dir = claim_folder(Path(output_dir), listener)
        words = _into(output_dir, config, words)
        folder_of_run, grace_s = Path(output_dir or "."), config.grace_seconds
        started = Launch(own, words, indices, cluster, env, folder_of_run, grace_s, signals, listener)
        if (status := started.train()) or not is_benchmarked:
            return status
        return started.benchmark(benchmark_command(output_dir, config))


def claim_folder(path: Path, listener: Listener) -> Path:
    """Make the folder of a new run, under another name than was told where another run was faster."""
    claimed = new_folder(path)
    if claimed != path:
        listener.say(f"Another run has taken {path}. Output folder {claimed}.")
    return claimed


def _into(output_dir: Path | str | None, config: TrainConfig, words: Sequence[str]) -> list[str]:
    """Flags of train_lora.py with the folder that was found for it."""
    is_named = config.output_dir or not output_dir
    return list(words) if is_named else [*words, "--output_dir", str(output_dir)]


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
    listener: Listener

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
            self.listener.warn(f"\nTraining stopped with status {status}. Mend what is listed above.")
        elif self.signals.received and status:
            self.listener.warn(f"\nStopped by {self.signals.received.name}. {self._way_on()}")
        elif status:
            self.listener.warn(f"\nTraining stopped with status {status}. {self._way_on()}")
        return status

    def benchmark(self, command: Sequence[str]) -> int:
        if self.signals.received:
            self.listener.warn(
                f"\nTraining had ended when {self.signals.received.name} came, before the benchmark.",
            )
            self.listener.warn(f"Make it with:\n  {shlex.join(command)}")
            return SAVED_UNFINISHED
        self.listener.say(f"$ {shlex.join(command)}")
        env = {**self.env, **cuda_visible(self.indices)}
        status = supervise(command, env, self.signals, self.grace_s)
        if status:
            mend = "Mend what is listed above. " if status == REFUSED else ""
            found = f"The adapter is complete, but the benchmark stopped with status {status}."
            self.listener.warn(f"\n{found} {mend}Go on with:\n  {shlex.join(command)}")
        return status

    def _train_once(self) -> int:
        if self.signals.received:
            return SAVED_UNFINISHED
        if self.cluster is None:  # on a shared disk it may be another machine's
            for lock in remove_dead_build_locks(torch_extensions_folder()):
                self.listener.say(f"Removed {lock}, which a killed build left.")
        flags = list(self.train_flags)
        if "--resume" not in flags and self._has_checkpoint():
            flags.append("--resume")
        command = deepspeed_command(self.indices, flags, self.cluster)
        self.listener.say(f"$ {shlex.join(command)}")
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
        self.listener.warn(f"\nTraining stopped; it starts again in {seconds:.0f} s.")
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


def benchmark_command(output_dir: Path | str | None, config: TrainConfig) -> list[str]:
    """The benchmark of a run. Code of the base model is trusted where the training was told to."""
    command = [sys.executable, str(ROOT / "benchmark.py"), "--adapter", str(output_dir)]
    return [*command, "--trust_remote_code"] if config.trust_remote_code else command


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
