"""Every way to stop or kill a training, through the real launcher on two CPU ranks.

    python bench/kill_matrix.py                    everything: about an hour on two cores
    python bench/kill_matrix.py --only random      20 random SIGKILLs, at least a quarter inside a save
    python bench/kill_matrix.py --only signals --zero 2

Per line: what was done, the exit status, the seconds that the ranks needed to leave, the checkpoints that are
there then, and whether losses, rates, row order and adapter bytes end as those of the undisturbed training.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[1] / "tests")]

from kills import (
    STEPS,
    Training,
    about_to_train,
    complete_checkpoints,
    loading,
    result,
    saved,
    saving,
    stepping,
    write_rows,
)

TARGETS = ("train.sh", "deepspeed", "launch.py", "rank")
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
Moment = Callable[[Training], bool]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=("signals", "kills", "random"))
    parser.add_argument("--zero", type=int, choices=(2, 3), action="append")
    parser.add_argument("--kills", type=int, default=20, help="random SIGKILLs")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args(argv)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        data = write_rows(Path(folder))
        for stage in asked.zero or (2, 3):
            matrix = Matrix(data, f"fp32_zero{stage}")
            if asked.only in (None, "signals"):
                bad += sum(matrix.signalled(number, target) for target in TARGETS for number in SIGNALS)
            if asked.only in (None, "kills"):
                bad += matrix.rank_killed() + matrix.killed_in_save() + matrix.truncated_shard()
            if asked.only in (None, "random"):
                bad += matrix.random_kills(asked.kills, random.Random(asked.seed))
    print(f"{bad} ended otherwise.")
    return min(bad, 1)


class Matrix:
    """Disturbed trainings beside an undisturbed one."""

    def __init__(self, data: Path, ds_config: str) -> None:
        self._data, self._ds_config = data, ds_config
        undisturbed = self._start("undisturbed")
        assert undisturbed.wait() == 0, undisturbed.output()
        self._expected = result(undisturbed.output_dir)

    def signalled(self, number: signal.Signals, target: str) -> bool:
        """Signal one process in the first steps."""
        name = f"{number.name}-{target}"
        training = self._start(name).when(stepping).send(number, target)
        return self._finish(name, training)

    def rank_killed(self) -> bool:
        return self._finish("rank", self._start("rank").when(saved(2)).send(signal.SIGKILL, "rank"))

    def killed_in_save(self) -> bool:
        training = self._start("save").when(saving(4))
        training.kill_everything()
        return self._finish("save", training)

    def truncated_shard(self) -> bool:
        training = self._start("shard").when(saved(4))
        training.kill_everything()
        shard = next((training.output_dir / "checkpoint-4" / "global_step4").glob("*optim_states.pt"))
        shard.write_bytes(shard.read_bytes()[:1000])
        return self._finish("shard", training)

    def random_kills(self, kills: int, chance: random.Random) -> int:
        """SIGKILLs of everything, one in each start of a training, until most of its steps are done."""
        in_save = [True] * max(1, -(-kills // 4))
        kinds = in_save + [chance.random() < 0.3 for _ in range(kills - len(in_save))]
        chance.shuffle(kinds)
        bad = 0
        while kinds:
            name, done = f"random, {len(kinds)} to go", 0
            training: Training | None = None
            while kinds and done < 4:
                training = self._start(name, training)
                training.when(self._moment(kinds.pop(), done, chance)).kill_everything()
                done = max(map(_step, complete_checkpoints(training.output_dir)), default=0)
            assert training is not None
            bad += self._finish(name, training)
        return bad

    def _moment(self, in_save: bool, done: int, chance: random.Random) -> Moment:
        if in_save:
            return saving(chance.choice(range(done + 2, STEPS + 1, 2)))
        return chance.choice([loading, about_to_train, stepping])

    def _start(self, name: str, earlier: Training | None = None) -> Training:
        folder = self._data / f"{self._ds_config}-{name.replace(', ', '-').replace(' ', '-')}"
        more = ["--resume"] if earlier and complete_checkpoints(folder) else []
        return Training(self._data, folder, self._ds_config, *more)

    def _finish(self, name: str, training: Training) -> bool:
        """Let the disturbed training end, resume it, and compare; returns whether it differs."""
        began_s = time.monotonic()
        status = training.wait()
        left_s = time.monotonic() - began_s
        left = ", ".join(complete_checkpoints(training.output_dir)) or "no checkpoint"
        going_on = self._start(name, training)
        ended = going_on.wait()
        same = ended == 0 and result(training.output_dir) == self._expected
        line = f"{self._ds_config} {name:20} status {status:4}  left after {left_s:4.1f} s  {left:28}"
        print(f"{line} {'same' if same else f'DIFFERS (status {ended})'}", flush=True)
        if not same:
            print(going_on.output()[-2000:], file=sys.stderr)
        return not same


def _step(checkpoint: str) -> int:
    return int(checkpoint.rpartition("-")[2])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
