"""How long 300 answers take to be scored again, and how many pairs of texts that takes.

    python bench/rescoring.py [answers.csv ...]

Without files: 300 answers made here, each with three sections of about the published lengths.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from forecaster.evaluation import published
from forecaster.evaluation.answer_files import Columns
from forecaster.evaluation.loading import Loaded, load_run, side_by_side
from forecaster.evaluation.rows import ModelAnswers, numbered
from forecaster.records import ALL_LABELS, Answer
from forecaster.tasks.weekly import WEEKLY
from forecaster.tasks.weekly_rows import make_row
from prompts import render_answer

ROUNDS = 5
ROWS, SYMBOLS = 300, 30
_WORDS = ("revenue", "margin", "orders", "demand", "guidance", "debt", "rates", "buyback", "oil", "growth")


def main(argv: Sequence[str]) -> int:
    runs = [load_run(spec, Columns(), WEEKLY) for spec in argv] or [Loaded("made here", (made_answers(),))]
    computed = 0
    score = published.RougeCache.score

    def counted(cache: published.RougeCache, reference: str, answer: str) -> dict[str, float]:
        nonlocal computed
        before = cache.scored
        found = score(cache, reference, answer)
        computed += cache.scored - before
        return found

    published.RougeCache.score = counted  # type: ignore[method-assign]
    seconds = []
    for _ in range(ROUNDS):
        computed = 0
        began = time.perf_counter()
        board = side_by_side(runs, lambda symbol: None, cost_bps=10)
        seconds.append(time.perf_counter() - began)
    answers = sum(model.rows for model in board.models)
    print(
        f"{answers} answers of {len(board.models)} models: median {statistics.median(seconds):.2f} s of "
        f"{ROUNDS} ({min(seconds):.2f} to {max(seconds):.2f}); {computed} pairs of texts scored; "
        f"torch imported: {'torch' in sys.modules}"
    )
    return 0


def made_answers() -> ModelAnswers:
    rng = random.Random(0)

    def text(words: int) -> str:
        return " ".join(rng.choice(_WORDS) for _ in range(words))

    def answer() -> str:
        factors = (f"1. {text(25)}\n2. {text(25)}\n3. {text(25)}" for _ in range(2))
        return render_answer(Answer(*factors, rng.choice(ALL_LABELS), text(125)))

    rows = []
    for at in range(ROWS):
        start = date(2026, 1, 2) + timedelta(weeks=at // SYMBOLS)
        period = f"{start} to {start + timedelta(weeks=1)}"
        rows.append(make_row(text(900), answer(), symbol=f"S{at % SYMBOLS}", period=period))
    return ModelAnswers("made here", numbered(rows), tuple(answer() for _ in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
