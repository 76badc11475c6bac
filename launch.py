"""The whole job behind train.sh: check, fine-tune under DeepSpeed, benchmark.

The embedded default, on any machine:

    ./train.sh

A rented GPU:

    ./train.sh configs/llama3.1-8b-a100.yaml --gpus 0,1
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from forecaster import exits
from forecaster.cluster.launch_config import split_flags
from forecaster.settings import Settings
from forecaster.training import train_config

WAYS_ON = exits.WaysOn(
    interrupted="Stopped. The same command with --resume, and its --output_dir, goes on.",
)


def main(argv: Sequence[str]) -> int:
    return exits.run_entry("train.sh", WAYS_ON, lambda settings: run(argv, settings))


def run(argv: Sequence[str], settings: Settings) -> int:
    own, words = split_flags(argv)
    config = train_config.parse_flags(words)
    # Only now: what a help or a misspelt flag needs is light.
    from forecaster.jobs import launch
    from forecaster.progress import at_terminal

    return launch.launch(own, words, config, settings, at_terminal())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
