"""Have models answer test rows, and tell skill from luck.

A fine-tuned adapter beside its base model, on the test rows of its training:

    python benchmark.py --adapter finetuned_models/embedded_20260101000000

Any model without training it; several GPUs; an OpenAI-compatible endpoint; answers made elsewhere; several
runs side by side:

    python benchmark.py --base_model qwen2.5-1.5b --dataset rows.jsonl
    deepspeed --include localhost:0,1 benchmark.py --adapter DIR --batch_size 32
    python benchmark.py --adapter DIR --engine api --api_model gpt-4o
    python benchmark.py score answers.csv --prediction_column prediction --reference_column reference
    python benchmark.py compare finetuned_models/a finetuned_models/b "GPT=answers.csv"

Stop it whenever you like: the same command goes on, and no answer is made twice.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from forecaster import exits
from forecaster.evaluation.benchmark_config import parse_flags
from forecaster.settings import Settings

WAYS_ON = exits.WaysOn(
    vendor="Nothing is lost: the same command goes on.",
    disk="Mend this (is the disk full?); the same command then goes on.",
    interrupted="Stopped; the same command goes on.",
)


def main(argv: Sequence[str]) -> int:
    return exits.run_entry("benchmark.py", WAYS_ON, lambda settings: run(argv, settings))


def run(argv: Sequence[str], settings: Settings) -> int:
    config = parse_flags(argv)
    # Only now: what a help or a misspelt flag needs is light.
    import datasets

    from forecaster.jobs.benchmark import run_benchmark
    from forecaster.progress import at_terminal

    datasets.disable_progress_bars()
    run_benchmark(config, settings, at_terminal())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
