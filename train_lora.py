"""Fine-tune a chat model into a weekly stock forecaster with LoRA, or as --tuner says.

The embedded default, on any machine:

    python train_lora.py --config configs/embedded.yaml

A rented GPU:

    deepspeed --include localhost:0 train_lora.py --config configs/llama3.1-8b-a100.yaml

Every problem of a configuration is reported before anything heavy is loaded, with exit status 2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from forecaster import exits
from forecaster.errors import SAVED_UNFINISHED
from forecaster.flags import flag_names
from forecaster.settings import Settings, let_segments_grow
from forecaster.training import train_config


def main(argv: Sequence[str]) -> int:
    ways_on = exits.WaysOn(interrupted="Stopped before the training began.")
    status = exits.run_entry("train_lora.py", ways_on, lambda settings: run(argv, settings))
    if status == SAVED_UNFINISHED:  # only now that it is told how to go on: a slow network may take its time
        from forecaster import tracking

        tracking.finish()
    return status


def run(argv: Sequence[str], settings: Settings) -> int:
    config, given = train_config.parse_flags(argv), flag_names(argv)
    let_segments_grow()
    # Only now: what a help or a misspelt flag needs is light.
    from forecaster.jobs import train, train_checks
    from forecaster.progress import at_terminal
    from forecaster.training.survival.stopping import StopWatch

    if config.plan:
        print(train_checks.plan_of(config, settings, given))
        return 0
    checked = train_checks.check(config, settings, given)
    is_main = settings.rank == 0
    if is_main:
        for line in train_checks.run_lines(checked.run, settings):
            print(line, flush=True)
    if config.dry_run:
        train.rehearse(checked, at_terminal())
        return 0
    watch = StopWatch(config.grace_seconds, settings.launched, settings.supervisor_pid, is_main=is_main)
    watch.start()
    train.train(checked, settings, watch, at_terminal())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
