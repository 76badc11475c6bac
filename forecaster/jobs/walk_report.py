"""One report over all test weeks of a walk: its blocks' answers joined, seeds averaged, the score by cut."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from tabulate import tabulate

from forecaster.data.splits import Block
from forecaster.evaluation import predictions
from forecaster.evaluation.benchmark_config import BenchmarkConfig
from forecaster.evaluation.metrics import skill
from forecaster.evaluation.predictions import Prediction
from forecaster.evaluation.report.tables import NONE, with_interval
from forecaster.evaluation.scorecard import ModelScorecard, Scoreboard
from forecaster.evaluation.seed_means import mean_of_seeds
from forecaster.evaluation.statistics import Estimate
from forecaster.files import write_json, write_whole
from forecaster.jobs.benchmark import score_stage
from forecaster.jobs.benchmark_checks import TUNED
from forecaster.progress import Listener
from forecaster.provenance import versions
from forecaster.run_folder import BENCHMARK
from forecaster.settings import Settings

BY_CUT = "by_cut"
"""Of the files with the score by cut, without their endings."""


@dataclass(frozen=True)
class Cut:
    """One cut: its weeks, and rows."""

    block: Block
    train_rows: int
    """Repeats included."""
    test_rows: int


def report(
    folder: Path,
    cuts: Sequence[Cut],
    benchmarks: Sequence[Path],
    facts: Mapping[str, str],
    run_name: str,
    settings: Settings,
    listener: Listener,
) -> None:
    """Join the answers of finished trainings and write the report of all of them into `folder`/benchmark.

    Nothing in it tells how long anything took: the same answers give the same bytes.

    Args:
        benchmarks: of the trainings, by cut and then by seed.
        facts: settings to show.

    Raises:
        ConfigurationError: an answer is missing or damaged.
    """
    seeds = len(benchmarks) // len(cuts)
    home = folder / BENCHMARK
    home.mkdir(exist_ok=True)
    by_cut = [benchmarks[at : at + seeds] for at in range(0, len(benchmarks), seeds)]
    join(home, by_cut, facts)
    title = f"{run_name}, walked forward"
    config = BenchmarkConfig(stage="report", runs=(str(home),), name=title, report_to="none")
    (result,) = score_stage(config, settings, listener)
    assert isinstance(result.board, Scoreboard)  # rows are the weekly forecast's
    scores = [score_of(cut, result.board, model) for model in result.board.models for cut in cuts]
    write_json(home / f"{BY_CUT}.json", [dict(score) for score in scores])
    shown = tabulate([_shown(score) for score in scores], HEADERS, "github", disable_numparse=True)
    write_whole(home / f"{BY_CUT}.md", f"# {title}: score by cut\n\n{shown}\n\n{NOTE}\n")
    listener.say(f"By cut: {home / BY_CUT}.md")


def join(home: Path, by_cut: Sequence[Sequence[Path]], facts: Mapping[str, str]) -> None:
    """Make a benchmark's folder of the blocks' rows, one after another, and of their answers.

    Args:
        by_cut: the benchmark of each seed, by cut.
    """
    records = [[predictions.read_record(seed) for seed in of] for of in by_cut]
    seeds = len(by_cut[0])
    tuned = TUNED if seeds == 1 else f"{TUNED} (mean of {seeds} seeds)"
    answers = [answer for of in by_cut for answer in _answers(of, tuned)]
    rows = [(of[0] / predictions.ROWS).read_text(encoding="utf-8") for of in by_cut]
    write_whole(home / predictions.ROWS, "".join(rows))
    models = list(dict.fromkeys(answer.model for answer in answers))
    predictions.write_predictions(home, sorted(answers, key=lambda a: models.index(a.model)))
    known = [predictions.read_training(of[0]) for of in by_cut]
    if known[0]:
        # What the first cut's rows tell was known before every test week; words are read anew at each cut.
        said = {row_id: words for of in known if of for row_id, words in of.text_forecasts.items()}
        predictions.write_training(home, replace(known[0], text_forecasts=said))
    # No day is named as the end of training: each block's weeks come after its own.
    cutoffs = [maker.get("knowledge_cutoff") for maker in records[0][0].get("models", {}).values()]
    record: dict[str, Any] = {
        "dataset": facts["dataset"],
        "settings": dict(facts),
        "versions": versions(),
        "models": {name: {"knowledge_cutoff": cutoffs[0] if cutoffs else None} for name in models},
    }
    write_whole(home / predictions.RECORD, json.dumps(record, indent=1) + "\n")


def _answers(seeds: Sequence[Path], tuned: str) -> Iterator[Prediction]:
    """The answers to a block's rows: the base's, which are the same for each seed, and the seeds' mean."""
    found = [predictions.read_predictions(seed) for seed in seeds]
    yield from (answer for answer in found[0] if answer.model != TUNED)
    of_tuned = [[answer for answer in of if answer.model == TUNED] for of in found]
    for answers in zip(*of_tuned, strict=True):
        yield replace(mean_of_seeds(answers), model=tuned)


# --- by cut -------------------------------------------------------------------------------------------------

HEADERS = (
    *("model", "cut", "training rows", "test weeks", "rows", "read"),
    *("accuracy, all rows", "rank correlation", "log score"),
)
NOTE = (
    "A cut's weeks are those from its day up to the next cut, forecast by what was trained before it. In "
    "brackets 95 % intervals over weeks. One cut has few weeks: the report's figures are over all of them."
)


def score_of(cut: Cut, board: Scoreboard, model: ModelScorecard) -> dict[str, Any]:
    """Figures of one model over one cut's weeks."""
    at = [place for place, row in enumerate(board.rows) if _is_tested(row.start, cut.block)]
    found = skill([model.forecasts[place] for place in at], [board.rows[place] for place in at])
    figures = {
        "read": found.coverage,
        "accuracy_of_all_rows": found.accuracy_of_all_rows,
        "rank_correlation": found.rank_correlation,
        "log_score": found.log_score,
    }
    return {
        "model": model.name,
        "cut": str(cut.block.test_from),
        "training_rows": cut.train_rows,
        "weeks": found.weeks,
        "rows": len(at),
        **{name: {"value": e.value, "low": e.low, "high": e.high} for name, e in figures.items()},
    }


def _is_tested(start: date | None, block: Block) -> bool:
    return start is not None and start >= block.test_from and block.holds(start)


def _shown(score: Mapping[str, Any]) -> list[str]:
    plain = [str(score[name]) for name in ("model", "cut", "training_rows", "weeks", "rows")]
    read = score["read"]["value"]
    figures = [
        with_interval(Estimate(**score[name]), 3)
        for name in ("accuracy_of_all_rows", "rank_correlation", "log_score")
    ]
    return [*plain, NONE if read is None else f"{read:.0%}", *figures]
