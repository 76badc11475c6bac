"""Train at one date after another on what was known then, and forecast the weeks up to the next one.

    python walk_forward.py --config configs/embedded.yaml --every 13 --dry_run
    python walk_forward.py --config configs/llama3.1-8b-a100.yaml --every 13 --window 52 --seeds 3

Each training is a run of train.sh in a folder of its own; several GPUs train several at once. Stop it
whenever you like, or kill it: the same command goes on, and nothing that was finished is done again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from forecaster import exits
from forecaster.jobs import walk_config
from forecaster.settings import Settings

WAYS_ON = exits.WaysOn(
    disk="Mend this (is the disk full?); the same command then goes on.",
    interrupted="Stopped; the same command goes on.",
)


def main(argv: Sequence[str]) -> int:
    return exits.run_entry("walk_forward.py", WAYS_ON, lambda settings: run(argv, settings))


def run(argv: Sequence[str], settings: Settings) -> int:
    asked = walk_config.parse_flags(argv)
    # Only now: what a help or a misspelt flag needs is light.
    import datasets

    from forecaster.jobs.walk_forward import walk_forward
    from forecaster.progress import at_terminal

    datasets.disable_progress_bars()
    return walk_forward(asked, settings, at_terminal())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
