"""How much batches and a merged adapter gain on this machine, on the embedded run (`make demo` makes one).

    python bench/generation_speed.py [--adapter finetuned_models/embedded_...]

The two sides of each comparison take turns, and the median ratio counts: a machine's speed changes by the
minute. Answers have to be the same ones.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from forecaster.settings import calm_openmp

calm_openmp()

from peft import PeftModel
from tabulate import tabulate

from forecaster.answering import hf_engine
from forecaster.data import sources
from forecaster.models.finished import FinishedRun, read_finished
from forecaster.models.templates import load_saved_tokenizer

ROUNDS = 5
BATCHED_ROWS, MERGED_ROWS = 64, 8
"""All test rows, so that batches of eight hold prompts of similar length, as in a benchmark; a few where each
row goes alone."""


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--adapter", type=Path, help="default: the newest embedded run")
    parser.add_argument("--max_new_tokens", type=int, help="default: as given to the run")
    args = parser.parse_args(argv)
    found = sorted((ROOT / "finetuned_models").glob("embedded_*/adapter_model.safetensors"))
    if args.adapter is None and not found:
        print("There is no embedded run; `make demo` makes one.", file=sys.stderr)
        return 2
    run = read_finished(args.adapter or found[-1].parent)
    max_new_tokens = args.max_new_tokens or run.flags["max_new_tokens"]
    tokenizer = load_saved_tokenizer(run.folder)
    limit = run.flags["max_length"] - max_new_tokens
    rows = sources.read_parts(run.flags["test_dataset"], from_remote=False, task=run.task)
    part = next(iter(rows.values()))
    prompts = [
        hf_engine.render_prompt(tokenizer, f"row {i}", row["prompt"], limit, run.task)
        for i, row in enumerate(part)
    ]
    merged = hf_engine.with_adapter(load(run), run.folder)
    unmerged = PeftModel.from_pretrained(load(run), str(run.folder)).eval()

    def answers(model: Any, batch_size: int, rows: int) -> Callable[[], dict[str, str]]:
        def make() -> dict[str, str]:
            batches = hf_engine.generate(
                model,
                tokenizer,
                hf_engine.plan_batches(prompts[:rows], batch_size),
                max_new_tokens=max_new_tokens,
                warn=print,
            )
            return {generated.row_id: generated.text for batch in batches for generated in batch.answers}

        return make

    table = [
        (
            f"batch 8 against one by one (merged, {BATCHED_ROWS} rows)",
            *compare(answers(merged, 8, BATCHED_ROWS), answers(merged, 1, BATCHED_ROWS)),
            5.0,
        ),
        (
            f"merged against unmerged (one by one, {MERGED_ROWS} rows)",
            *compare(answers(merged, 1, MERGED_ROWS), answers(unmerged, 1, MERGED_ROWS)),
            1.5,
        ),
    ]
    print(
        tabulate(
            [
                (
                    name,
                    f"{fast:.1f}",
                    f"{slow:.1f}",
                    f"{ratio:.2f}x",
                    f"{least:.1f}x",
                    "yes" if same else "NO",
                )
                for name, fast, slow, ratio, same, least in table
            ],
            headers=("", "s", "s", "median ratio", "wanted", "same answers"),
        )
    )
    print(f"Up to {max_new_tokens} new tokens, {ROUNDS} rounds of both sides in turn")
    return 0 if all(same and ratio >= least for *_, ratio, same, least in table) else 1


def load(run: FinishedRun) -> Any:
    return hf_engine.load_for_generation(run.base, "fp32", "none", trust_remote_code=False)


def compare(
    fast: Callable[[], dict[str, str]], slow: Callable[[], dict[str, str]]
) -> tuple[float, float, float, bool]:
    """Median seconds of both, the median ratio, and whether all answers are equal."""
    fast(), slow()  # warm caches
    times = []
    same = True
    for _ in range(ROUNDS):
        began = time.perf_counter()
        first = fast()
        middle = time.perf_counter()
        same &= first == slow()
        times.append((middle - began, time.perf_counter() - middle))
    ratio = statistics.median(b / a for a, b in times)
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times), ratio, same


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
