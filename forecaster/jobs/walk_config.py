"""The flags of `walk_forward.py` beside those of train.sh, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forecaster.cluster.launch_config import LaunchConfig
from forecaster.cluster.launch_config import split_flags as split_launch_flags
from forecaster.errors import ConfigurationError, Problem
from forecaster.flags import Program, flag, flag_names, split_words, typed
from forecaster.tasks.registry import TASKS
from forecaster.tasks.weekly import WEEKLY
from forecaster.training import train_config
from forecaster.training.train_config import TrainConfig

WALKS = Path("walks")
EXPANDING = "expanding"
WHEN, HOW, RUN = "when it trains", "how it trains", "the walk"


@dataclass(frozen=True)
class WalkConfig:
    """Every flag of walk_forward.py's own."""

    every: int = flag(13, "weeks between two cuts: at each, a training, which forecasts up to the next", WHEN)
    window: str = flag(
        EXPANDING, "weeks that a training uses, the latest; expanding: all since the first", WHEN, metavar="N"
    )
    seeds: int = flag(1, "trainings at each cut, from --seed on; their probabilities are averaged", HOW)
    from_last: bool = flag(False, "each cut trains on from the adapter of the one before it", HOW)
    output_dir: Path | None = flag(
        None, "folder of the walk: its trainings, its report", RUN, shown="walks/<run_name>"
    )
    dry_run: bool = flag(False, "check everything and print the plan; start nothing", RUN)

    @property
    def window_weeks(self) -> int | None:
        """None: all weeks."""
        return None if self.window == EXPANDING else int(self.window)


PROGRAM = Program(
    "walk_forward.py",
    WalkConfig,
    "Train at one date after another on what was known then, and forecast the weeks up to the next. The rows "
    "are those of --dataset and of a file's test_dataset, whatever splits they have; --test_from names the "
    "first cut. Any flag of train.sh and of train_lora.py may follow.",
    (
        "python walk_forward.py --config configs/embedded.yaml --every 13 --dry_run",
        "python walk_forward.py --config configs/llama3.1-8b-a100.yaml --window 52 --seeds 3",
    ),
)


@dataclass(frozen=True)
class AskedWalk:
    """What a command line asks for."""

    walk: WalkConfig
    launch: LaunchConfig
    words: tuple[str, ...]
    """Of train_lora.py, for every training."""
    train: TrainConfig
    """What they say."""

    @property
    def folder(self) -> Path:
        return self.walk.output_dir or WALKS / self.train.run_name

    @property
    def dataset(self) -> str:
        """All rows, as `--dataset` names them: a walk makes its own splits."""
        named = [self.train.dataset, self.train.test_dataset]
        return ",".join(dict.fromkeys(filter(None, named)))


_NO_PLACE = {
    "resume": "Leave it out: the same command goes on by itself.",
    "test_dataset": "Leave it out: name all rows with --dataset, and the walk cuts them.",
    **dict.fromkeys(
        ("test_until", "train_from", "train_until"),
        "Leave it out: --every and --window decide it at each cut.",
    ),
    "from_adapter": "Leave it out: --from_last trains on from the last cut's.",
    **dict.fromkeys(("plan", "gpu", "doctor"), "Ask train.sh for it."),
    **dict.fromkeys(("hostfile", "no_ssh", "ssh_port"), "A walk trains on the GPUs of one machine."),
    "no_benchmark": "Leave it out: what a training is benchmarked on is what the walk reports.",
}
"""Flags of train.sh and train_lora.py that mean nothing here, and the way out."""


def parse_flags(argv: Sequence[str]) -> AskedWalk:
    """
    Raises:
        ConfigurationError: with everything wrong, but for what the trainings check themselves.
        SystemExit: the help was asked for (status 0).
    """
    texts, rest = split_words(PROGRAM, argv)
    walk, problems = typed(WalkConfig, texts)
    given = flag_names(rest)
    problems += [
        Problem(f"--{name}", "has no place in a walk.", way_out)
        for name, way_out in _NO_PLACE.items()
        if name in given
    ]
    problems += _value_problems(walk)
    if problems:
        raise ConfigurationError(problems)
    launch, words = split_launch_flags(rest)
    train = train_config.parse_flags(words)
    problems = train_config.find_value_problems(train)
    if TASKS[train.task] is not WEEKLY:
        problems.append(Problem("--task", f"is {train.task}.", "A walk forecasts weeks: leave it out."))
    if train.seed + walk.seeds > 2**32:
        problems.append(Problem("--seeds", f"go beyond 2**32 from --seed {train.seed}.", "Use a lower one."))
    problems += [  # of a file
        Problem(f"--{name}", "has no place in a walk.", _NO_PLACE[name])
        for name in ("test_until", "train_from", "train_until", "from_adapter")
        if getattr(train, name) is not None
    ]
    # A file's test rows are rows like the others.
    problems = [p for p in problems if not (p.where == "--test_from" and "--test_dataset" in p.found)]
    if problems:
        raise ConfigurationError(problems)
    return AskedWalk(walk, launch, tuple(words), train)


def _value_problems(walk: WalkConfig) -> list[Problem]:
    problems = [
        Problem(f"--{name}", f"is {value}.", "It has to be 1 or more.")
        for name, value in (("every", walk.every), ("seeds", walk.seeds))
        if value < 1
    ]
    if walk.window != EXPANDING and not (walk.window.isdecimal() and int(walk.window) >= 1):
        way_out = f"Give a number of weeks, 1 or more, or {EXPANDING}."
        problems.append(Problem("--window", f"is {walk.window!r}.", way_out))
    return problems
