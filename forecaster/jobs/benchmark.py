"""A benchmark as a job: answers, figures, report; and figures of answers that are there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from forecaster import tracking
from forecaster.claims import LOCK_FILE, WRITING_S, held, own_folder
from forecaster.data.price_files import closes_of
from forecaster.data.sources import told_line
from forecaster.errors import ConfigurationError, Problem
from forecaster.evaluation import predictions
from forecaster.evaluation.benchmark_config import BenchmarkConfig
from forecaster.evaluation.loading import Loaded, is_there, load_run, side_by_side
from forecaster.evaluation.report import pages, tracked
from forecaster.evaluation.rows import rows_of_dataset
from forecaster.evaluation.scorecard import Scoreboard
from forecaster.evaluation.task_scores import (
    TaskScore,
    figures_by_name,
    render_report,
    render_scores,
    score_task,
    scores_json,
)
from forecaster.evaluation.text_forecasts import training_of
from forecaster.evaluation.training_log import read_training_log
from forecaster.files import write_json, write_whole
from forecaster.jobs.benchmark_answers import generate, locked, refuse_links
from forecaster.jobs.benchmark_checks import BENCHMARKS, Benchmark, read_rows, resolve
from forecaster.models.finished import FinishedRun, read_finished
from forecaster.progress import Listener
from forecaster.run_folder import BENCHMARK
from forecaster.settings import Settings
from forecaster.tasks.told_outcome import told_outcome
from forecaster.tasks.weekly import WEEKLY


@dataclass(frozen=True)
class BenchmarkResult:
    """The figures of one or several runs, and where they lie."""

    board: Scoreboard | Sequence[TaskScore]
    """Of the weekly forecast, or of another task."""
    folder: Path
    report: Path | None
    """None: only figures were asked for."""

    @property
    def metrics(self) -> Path:
        return self.folder / predictions.METRICS


def run_benchmark(
    config: BenchmarkConfig, settings: Settings, listener: Listener
) -> tuple[BenchmarkResult, ...]:
    """Answers, figures and report, as far as the stage goes; a stopped run goes on.

    Returns:
        One result for each set of figures; none where only answers were asked for, and on every rank but the
        first.

    Raises:
        ConfigurationError: with everything that is wrong.
        KeyRefusedError, VendorError, OSError: answers that came are kept.
    """
    if not config.answers:
        return score_stage(config, settings, listener)
    job = resolve(config, settings)
    if config.stage == "all" and goes_to_wandb(config, job.run):
        check_wandb(settings)
    if job.told_outcomes and not settings.rank:
        listener.warn(copying_line(job.told_outcomes, len(job.rows)))
    with locked(job.folder, settings):
        generate(job, config, settings, listener)
        if settings.rank or config.stage == "generate":
            return ()
        if job.task is not WEEKLY:
            return (finish_task(job, config, settings, listener),)
        loaded = load_run(str(job.folder), config.columns, job.task)
        if job.run and not loaded.log:  # the benchmark lies elsewhere
            loaded = replace(loaded, log=read_training_log(job.run.log_history))
        loaded = replace(loaded, name=job.name)
        claim = claimed(config, job.folder, job.folder, ())
        return (finish([loaded], claim, job.name, config, settings, listener, job.run),)


def finish_task(
    job: Benchmark, config: BenchmarkConfig, settings: Settings, listener: Listener
) -> BenchmarkResult:
    """Figures and report of a task that has no scorecard of its own."""
    answers = {(p.model, p.row_id): p.answer for p in predictions.read_predictions(job.folder)}
    labels = job.run.dataset_record["training_labels"] if job.run else {}
    scores = score_task(
        job.task,
        job.dataset_rows,
        {asked.name: [answers.get((asked.name, row.row_id)) for row in job.rows] for asked in job.answerers},
        labels,
    )
    write_json(job.folder / predictions.METRICS, scores_json(job.task, scores))
    report = job.folder / "report.md"
    write_whole(report, render_report(job.task, scores, job.name, f"{len(job.rows)} rows of {job.dataset}"))
    if goes_to_wandb(config, job.run):
        tracking.start(job.run.folder if job.run else job.folder, job.name, {}, settings)
        for name, figures in figures_by_name(scores).items():
            tracking.log_summary(f"benchmark/{name}", figures)
        tracking.finish()
    listener.say(f"\n{render_scores(job.task, scores)}\n\nReport: {report}")
    return BenchmarkResult(scores, job.folder, report)


def score_stage(
    config: BenchmarkConfig, settings: Settings, listener: Listener
) -> tuple[BenchmarkResult, ...]:
    """`score`, `report` and `compare`: no model is needed."""
    refuse_other_tasks(config.runs)
    rows, training = None, None
    if config.dataset:
        given = read_rows(config, None)
        rows = rows_of_dataset(given.asked, WEEKLY)
        training = training_of(rows_of_dataset(given.training, WEEKLY), rows)
    name = config.name if len(config.runs) == 1 else None
    runs = [
        load_run(spec, config.columns, WEEKLY, name=name, rows=rows, knowledge_cutoff=config.knowledge_cutoff)
        for spec in config.runs
    ]
    runs = [replace(run, training=run.training or training) for run in runs]
    for run in runs:
        warn_of_told_outcomes(run, listener)
    if config.stage == "compare":
        title = " and ".join(run.name for run in runs) if len(runs) < 4 else f"{len(runs)} runs"
        slugs = "-".join(slug(run.name) for run in runs)[:80].encode()[:200].decode(errors="ignore")
        home = BENCHMARKS / f"compare-{slugs}"
        claim = claimed(config, None, home, config.runs)
        return (finish(runs, claim, title, config, settings, listener),)
    results = []
    for spec, run in zip(config.runs, runs, strict=True):
        home = run.folder or BENCHMARKS / slug(run.name)
        finished = _run_of(home)
        if finished and run.name in (home.resolve().name, home.resolve().parent.name):
            run = replace(run, name=str(finished.flags["run_name"]))  # as right after the answers
        claim = claimed(config, run.folder, home, [spec])
        results.append(finish([run], claim, run.name, config, settings, listener, finished))
    return tuple(results)


def warn_of_told_outcomes(run: Loaded, listener: Listener) -> None:
    """Tell of answers to prompts that say how their week ends."""
    rows = {row.row_id: row for answers in run.answers for row in answers.rows if row.prompt}
    said = {row_id: told_outcome(row.prompt, row.actual) for row_id, row in rows.items()}
    if told := {row_id: words for row_id, words in said.items() if words}:
        listener.warn(f"{run.name}: {copying_line(told, len(rows))}")


def copying_line(told: Mapping[str, str], rows: int) -> str:
    return f"WARNING: {told_line(told, f'of {rows} rows')}; what is measured on them is copying, not skill."


@contextmanager
def claimed(config: BenchmarkConfig, own: Path | None, default: Path, specs: Sequence[str]) -> Iterator[Path]:
    """The folder for the figures of these runs, held while they are written.

    Args:
        own: the run's own folder, which others wait for: what they write is made of the same answers.
        default: where there is none, and no `--output_dir`; other answers of the same name get a neighbour.
    """
    if config.output_dir or own:
        folder = config.output_dir or own or default
        wait_s = 0.0 if config.output_dir else WRITING_S
        refuse_links(folder)
        with held(folder, LOCK_FILE, "--output_dir", wait_s=wait_s):
            yield folder
        return
    made_of = [part for spec in specs for part in (_resolved(spec), *astuple(config.columns))]
    with own_folder(default, "\n".join(made_of)) as folder:
        yield folder


def _resolved(spec: str) -> str:
    """A run as it is named from any folder."""
    return str(Path(spec).resolve()) if is_there(spec) else f"{Path.cwd()}: {spec}"


def refuse_other_tasks(specs: Sequence[str]) -> None:
    """Raises ConfigurationError for runs of a task that the weekly scorecard does not know."""
    problems = []
    for spec in filter(is_there, specs):
        folder = Path(spec)
        run = _run_of(folder / BENCHMARK) or _run_of(folder)
        if run and run.task is not WEEKLY:
            found = f"was trained for {run.task.name}, which is scored when it has answered."
            problems.append(Problem(spec, found, f"Run benchmark.py --adapter {run.folder}."))
    if problems:
        raise ConfigurationError(problems)


def slug(name: str) -> str:
    """A name as that of a folder: never one above, and never none."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"


def _run_of(folder: Path) -> FinishedRun | None:
    """The run that a benchmark folder lies in."""
    try:
        return read_finished(folder.parent)
    except ConfigurationError:
        return None


def finish(
    runs: Sequence[Loaded],
    claim: AbstractContextManager[Path],
    title: str,
    config: BenchmarkConfig,
    settings: Settings,
    listener: Listener,
    run: FinishedRun | None = None,
) -> BenchmarkResult:
    """Figures, and the report unless only figures were asked for.

    Args:
        claim: of the folder that they go to; it is made when there are figures.
        run: the training whose W&B run takes the figures; None: they have one of their own.
    """
    board = side_by_side(runs, closes_of(config.price_file), cost_bps=config.cost_bps)
    with claim as folder:
        pages.write_metrics(folder / predictions.METRICS, board)
        listener.say(f"\n{pages.render_summary(board)}")
        if config.stage == "score":
            listener.say(f"\nFigures: {folder / predictions.METRICS}")
            return BenchmarkResult(board, folder, None)
        facts = (
            {name: value for loaded in runs for name, value in loaded.facts.items()} if len(runs) == 1 else {}
        )
        pictures = pages.write_report(folder, board, title, facts)
        if goes_to_wandb(config, run):
            name = run.flags["run_name"] if run else title
            tracking.start(run.folder if run else folder, name, {}, settings)
            tracked.log_board(board, pictures)
            tracking.finish()
    report = folder / "report.md"
    listener.say(f"\nReport: {report}")
    return BenchmarkResult(board, folder, report)


def goes_to_wandb(config: BenchmarkConfig, run: FinishedRun | None) -> bool:
    return (config.report_to or (run.flags.get("report_to", "none") if run else "none")) == "wandb"


def check_wandb(settings: Settings) -> None:
    """Raises ConfigurationError now for what would fail after hours of answers."""
    if problems := tracking.find_problems(settings):
        raise ConfigurationError(problems)
