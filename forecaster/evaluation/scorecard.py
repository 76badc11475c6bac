"""All figures of one model, and of several side by side beside the baselines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import combinations
from typing import TypeVar

import numpy as np

from forecaster.evaluation.backtest import LONG_SHORT, WEEKS_PER_YEAR, Backtest, Signal, backtest
from forecaster.evaluation.best_of_several import (
    RANK_CORRELATION,
    BestOfSeveral,
    best_by_weekly_mean,
    deflated_sharpe,
)
from forecaster.evaluation.figures import Contest, contests_of
from forecaster.evaluation.gains import CHEAP, Gain, decisive, gain, weekly_gains
from forecaster.evaluation.metrics import (
    Skill,
    cases_by_row,
    cases_of,
    confusion,
    forecasts_of,
    mean_rouge_of,
    rouge_by_row,
    skill,
)
from forecaster.evaluation.price_forecasts import Closes, price_forecasts
from forecaster.evaluation.published import Published, RougeCache, score_as_published
from forecaster.evaluation.readings import Reading, read_forecasts, read_texts
from forecaster.evaluation.rows import AnswerSpeed, ModelAnswers
from forecaster.evaluation.statistics import (
    Estimate,
    design_effect,
    is_sure,
    mcnemar,
    over_weeks,
    rows_needed_paired,
)
from forecaster.evaluation.text import TextQuality, text_quality
from forecaster.evaluation.training_log import TrainingLog
from forecaster.records import Answer, Label, Row, Unreadable
from forecaster.tasks.weekly_baselines import ALWAYS_DOWN, ALWAYS_UP, Training, baselines, majority_name
from forecaster.tasks.weekly_rows import SILENT, Forecast

Key = TypeVar("Key", str, date)
Values = Sequence[float | None]


@dataclass(frozen=True)
class Scorecard:
    """Figures of one model, or of a baseline, which has no answers and so no text."""

    name: str
    forecasts: tuple[Forecast, ...]
    skill: Skill
    backtest: Mapping[str, Backtest]
    """By strategy; empty where no dates or no outcomes are known."""
    confusion: tuple[tuple[int, ...], ...]
    by_symbol: Mapping[str, tuple[int, int]]
    """Right directions, and rows with a known outcome; unreadable is wrong."""
    by_week: Mapping[date, tuple[int, int]]


@dataclass(frozen=True)
class ModelScorecard(Scorecard):
    """What only answers have."""

    rows: int
    valid_count: int
    """Answers with a forecast that the project's parser reads, in whatever form."""
    form_followed: int
    """Those of them that have all the parts of an answer."""
    unreadable: Mapping[str, int]
    """Answers without such a forecast, by the reason."""
    as_published: Published
    as_published_without_think: Published | None
    """With closed think blocks removed first; None where no answer has one."""
    rouge: Mapping[str, Mapping[str, float]] | None
    rouge_l: tuple[float | None, ...]
    """Mean ROUGE-L of the three sections, by row."""
    text: TextQuality
    speed: AnswerSpeed | None
    knowledge_cutoff: date | None
    calibrated: Scorecard | None
    """With its probabilities as validation weeks made them; None where there were none."""
    maybe_remembered: Skill | None
    """Over weeks that begin on or before the model's knowledge cutoff; None where there is none."""
    not_remembered: Skill | None


@dataclass(frozen=True)
class Pair:
    """Two models, or a model and what training rows mostly did, on the same rows; an unreadable answer is
    wrong."""

    first: str
    second: str
    only_first_right: int
    only_second_right: int
    p_value: float | None
    """McNemar's exact test, two-sided, as if rows were independent; None against a constant, which is right
    in whole weeks, so that the test finds what is not there."""
    difference: Estimate
    """Accuracy of the first minus that of the second, rows of one week kept together."""
    rows_needed: int | None


@dataclass(frozen=True)
class Choice:
    """Which model leads by one figure, and whether its lead over the next one is more than chance."""

    figure: str
    best: str | None
    """None: a tie, as the interval of the difference holds zero or there is none."""
    leader: str
    runner_up: str
    difference: Estimate
    """Leader minus runner-up, over the rows that all models with any value have one for."""


@dataclass(frozen=True)
class CheckpointScore:
    """One checkpoint on the validation rows."""

    step: int
    skill: Skill


@dataclass(frozen=True)
class Scoreboard:
    """Models side by side on the same rows."""

    rows: tuple[Row, ...]
    models: tuple[ModelScorecard, ...]
    baselines: tuple[Scorecard, ...]
    pairs: tuple[Pair, ...]
    choices: tuple[Choice, ...]
    gains: tuple[Gain, ...] = ()
    """Of every model over every cheap forecast that has probabilities."""
    best_of_several: tuple[BestOfSeveral, ...] = ()
    """Empty unless several models forecast."""
    logs: Mapping[str, TrainingLog] = field(default_factory=dict)
    """Training logs by run."""
    checkpoints: tuple[CheckpointScore, ...] = ()
    """On validation rows, by step; empty unless checkpoints were compared."""
    best_step: int | None = None
    checkpoint_baselines: Mapping[str, Skill] = field(default_factory=dict)
    """Of the validation rows, by baseline."""
    cost_bps: float = 0.0
    notes: tuple[str, ...] = ()
    """What a reader has to know of these rows."""


def scoreboard(
    runs: Sequence[ModelAnswers],
    training: Training | None,
    *,
    cost_bps: float,
    seed: int = 0,
    logs: Mapping[str, TrainingLog] | None = None,
    notes: Sequence[str] = (),
    closes: Closes | None = None,
) -> Scoreboard:
    """Figures of every run; all have the same rows, in the same order.

    Args:
        closes: what forecasts from closes alone are made of; None: there are none.
    """
    rows = runs[0].rows if runs else ()
    cache = RougeCache()
    readings = read_texts(
        text for run in runs for text in (*run.answers, *(row.reference for row in run.rows))
    )
    models = tuple(_model_scorecard(run, readings, cache, cost_bps, seed) for run in runs)
    lines = tuple(
        _scorecard(name, forecasts, rows, cost_bps, seed, permutations=0)
        for name, forecasts in (
            baselines(rows, training, seed=seed) | _from_closes(rows, closes)
        ).items()
    ) if rows else ()  # fmt: skip
    gains = tuple(_gains(models, lines, rows))
    return Scoreboard(
        rows=rows,
        models=models,
        baselines=lines,
        pairs=tuple(_pairs(models, lines, training, rows)),
        choices=tuple(_choices(models, rows)),
        gains=gains,
        best_of_several=tuple(_best_of_several(models, lines, gains, rows)),
        logs=logs or {},
        cost_bps=cost_bps,
        notes=(*notes, *_notes(rows), *_trained_on(runs), *_calibrations(runs)),
    )


def _from_closes(rows: Sequence[Row], closes: Closes | None) -> dict[str, list[Forecast]]:
    """Those that have a forecast for any row; they say how far, and nothing of where to."""
    found = price_forecasts(rows, closes) if closes else {}
    return {
        name: [Forecast(distribution=given) if given else SILENT for given in of]
        for name, of in found.items()
        if any(of)
    }


def _scorecard(
    name: str,
    forecasts: Sequence[Forecast],
    rows: Sequence[Row],
    cost_bps: float,
    seed: int,
    permutations: int,
) -> Scorecard:
    return Scorecard(
        name=name,
        forecasts=tuple(forecasts),
        skill=skill(forecasts, rows),
        backtest=backtest(_signals(forecasts, rows), cost_bps=cost_bps, permutations=permutations, seed=seed),
        confusion=confusion(forecasts, rows),
        by_symbol=_right_by([row.symbol or None for row in rows], forecasts, rows),
        by_week=_right_by([row.week for row in rows], forecasts, rows),
    )


def _model_scorecard(
    run: ModelAnswers, readings: Mapping[str | None, Reading], cache: RougeCache, cost_bps: float, seed: int
) -> ModelScorecard:
    answers = [readings[text] for text in run.answers]
    references = [readings[row.reference] for row in run.rows]
    own = [answer.own for answer in answers]
    rouge = rouge_by_row(own, [reference.own for reference in references], cache)
    said = [answer.forecast for answer in answers]
    forecasts = forecasts_of(said, run.label_log_likelihoods, run.distributions)
    plain = _scorecard(run.name, forecasts, run.rows, cost_bps, seed, permutations=1000)
    before = [_may_be_remembered(row, run.knowledge_cutoff) for row in run.rows]
    as_published, without_think = _as_published(answers, references, cache)
    return ModelScorecard(
        **vars(plain),
        rows=len(run.rows),
        valid_count=sum(isinstance(label, Label) for label in said),
        form_followed=sum(isinstance(reading, Answer) for reading in own),
        unreadable=dict(Counter(r.reason for r in said if isinstance(r, Unreadable)).most_common()),
        as_published=as_published,
        as_published_without_think=without_think,
        rouge=mean_rouge_of(rouge),
        rouge_l=tuple(_mean_rouge_l(scores) if scores else None for scores in rouge),
        text=text_quality(answers, [row.prompt for row in run.rows]),
        speed=run.speed,
        knowledge_cutoff=run.knowledge_cutoff,
        calibrated=_calibrated(run, plain.forecasts, cost_bps, seed),
        maybe_remembered=_part(plain.forecasts, run.rows, before, True),
        not_remembered=_part(plain.forecasts, run.rows, before, False),
    )


def _calibrated(
    run: ModelAnswers, forecasts: Sequence[Forecast], cost_bps: float, seed: int
) -> Scorecard | None:
    if run.calibration is None or not run.label_log_likelihoods:
        return None
    of = run.calibration.calibration.of
    made = [
        replace(forecast, distribution=of(logs)) if logs and forecast.distribution else forecast
        for forecast, logs in zip(forecasts, run.label_log_likelihoods, strict=True)
    ]
    return _scorecard(f"{run.name}, calibrated", made, run.rows, cost_bps, seed, permutations=0)


def _as_published(
    answers: Sequence[Reading], references: Sequence[Reading], cache: RougeCache
) -> tuple[Published, Published | None]:
    """The published figures, and those without closed think blocks, where an answer has one."""
    truths = [reference.published for reference in references]
    whole = score_as_published([answer.published for answer in answers], truths, cache)
    if not any(answer.has_think_block for answer in answers):
        return whole, None
    return whole, score_as_published([answer.published_spoken for answer in answers], truths, cache)


def _may_be_remembered(row: Row, cutoff: date | None) -> bool | None:
    return None if cutoff is None or row.start is None else row.start <= cutoff


def _part(
    forecasts: Sequence[Forecast], rows: Sequence[Row], marks: Sequence[bool | None], wanted: bool
) -> Skill | None:
    places = [place for place, mark in enumerate(marks) if mark is wanted]
    return skill([forecasts[at] for at in places], [rows[at] for at in places]) if places else None


def _signals(forecasts: Sequence[Forecast], rows: Sequence[Row]) -> list[Signal]:
    return [
        Signal(row.week, row.symbol, forecast.direction, row.realised_pct)
        for forecast, row in zip(forecasts, rows, strict=True)
        if row.week is not None and row.realised_pct is not None
    ]


def _is_right(forecast: Forecast, row: Row) -> bool:
    return row.actual is not None and forecast.direction == row.actual.direction


def _right_by(
    keys: Sequence[Key | None], forecasts: Sequence[Forecast], rows: Sequence[Row]
) -> dict[Key, tuple[int, int]]:
    found: dict[Key, tuple[int, int]] = {}
    for key, forecast, row in zip(keys, forecasts, rows, strict=True):
        if key is not None and row.actual is not None:
            right, total = found.get(key, (0, 0))
            found[key] = (right + _is_right(forecast, row), total + 1)
    return dict(sorted(found.items()))


# --- checkpoints --------------------------------------------------------------------------------------------


def checkpoint_scores(runs: Sequence[ModelAnswers]) -> tuple[CheckpointScore, ...]:
    """Scores of models that are named by their step, on the validation rows, in the order of training."""
    scores = [
        CheckpointScore(int(run.name), skill(forecasts_of(read_forecasts(run.answers)), run.rows))
        for run in runs
    ]
    return tuple(sorted(scores, key=lambda score: score.step))


def baseline_skills(rows: Sequence[Row], training: Training | None, seed: int = 0) -> dict[str, Skill]:
    """Figures of the baselines on these rows."""
    lines = baselines(rows, training, seed=seed)
    return {name: skill(forecasts, rows) for name, forecasts in lines.items()}


def best_checkpoint(scores: Sequence[CheckpointScore]) -> CheckpointScore | None:
    """The most right directions, unreadable being wrong; then the smaller squared error, beside that of no
    move on the same rows; then the earlier step."""

    def rank(score: CheckpointScore) -> tuple[float, float, int]:
        mse = score.skill.mse_against_no_move.value  # checkpoints may name sizes of other rows
        return (
            -(score.skill.accuracy_of_all_rows.value or 0.0),
            float("inf") if mse is None else mse,
            score.step,
        )

    return min(scores, key=rank, default=None)


# --- one model against another ------------------------------------------------------------------------------


def _pairs(
    models: Sequence[ModelScorecard],
    lines: Sequence[Scorecard],
    training: Training | None,
    rows: Sequence[Row],
) -> Iterator[Pair]:
    """Every model against every other one, and against a constant."""
    for first, second in combinations(models, 2):
        yield _pair(first, second, rows)
    if constant := _constant(lines, training):
        for model in models:
            yield replace(_pair(model, constant, rows), p_value=None)


def _constant(lines: Sequence[Scorecard], training: Training | None) -> Scorecard | None:
    """The constant that training rows favour; where none are known the better one of the test rows, which is
    known only afterwards and so is harder to beat than it should be."""
    wanted = (majority_name(training),) if training else (ALWAYS_UP, ALWAYS_DOWN)
    constants = [line for line in lines if line.name in wanted]
    return max(constants, key=lambda line: line.skill.accuracy_of_all_rows.value or 0.0, default=None)


def _pair(first: Scorecard, second: Scorecard, rows: Sequence[Row]) -> Pair:
    known = [
        (_is_right(a, row), _is_right(b, row), row.week or row.row_id)
        for a, b, row in zip(first.forecasts, second.forecasts, rows, strict=True)
        if row.actual is not None
    ]
    only_first = sum(a and not b for a, b, _ in known)
    only_second = sum(b and not a for a, b, _ in known)
    apart, weeks = [(a - b, 1.0) for a, b, _ in known], [week for *_, week in known]
    return Pair(
        first=first.name,
        second=second.name,
        only_first_right=only_first,
        only_second_right=only_second,
        p_value=mcnemar(only_first, only_second),
        difference=over_weeks(apart, weeks, bounds=(-1.0, 1.0)),
        rows_needed=rows_needed_paired(
            only_first, only_second, len(known), design_effect(apart, weeks) or 1.0
        ),
    )


def _gains(
    models: Sequence[ModelScorecard], lines: Sequence[Scorecard], rows: Sequence[Row]
) -> Iterator[Gain]:
    by_name = {line.name: line for line in lines}
    for card in (card for model in models for card in (model, model.calibrated) if card):
        for name in CHEAP:
            if name in by_name and (
                found := gain((card.name, card.forecasts), (name, by_name[name].forecasts), rows)
            ):
                yield found


def _best_of_several(
    models: Sequence[ModelScorecard],
    lines: Sequence[Scorecard],
    gains: Sequence[Gain],
    rows: Sequence[Row],
) -> Iterator[BestOfSeveral]:
    """By the order within weeks, by the log score over the cheap forecast that decides, by the backtest."""
    if len(models) < 2:
        return
    cases = {model.name: cases_of(model.forecasts, rows) for model in models}
    found = [
        best_by_weekly_mean(RANK_CORRELATION, {name: of.rank_correlations for name, of in cases.items()})
    ]
    best_known = [model.calibrated or model for model in models]
    over = {each.over for card in best_known if (each := decisive(gains, card.name))}
    for line in (line for line in lines if over == {line.name}):
        by_week = {card.name: weekly_gains(card.forecasts, line.forecasts, rows) for card in best_known}
        found.append(best_by_weekly_mean(f"log score over {line.name}", by_week))
    books = {model.name: model.backtest[LONG_SHORT] for model in models if model.backtest}
    traded = {name: of for name, of in books.items() if of.hit_rate is not None}
    found.append(
        deflated_sharpe(
            {name: np.array(of.weekly_returns_pct) for name, of in traded.items()}, WEEKS_PER_YEAR
        )
    )
    yield from filter(None, found)


def _choices(models: Sequence[ModelScorecard], rows: Sequence[Row]) -> list[Choice]:
    """The leader by each figure of single rows that decides, and by what the answers' texts are."""
    if len(models) < 2:
        return []
    contests = [
        (contest.name, contest.sign, contest.is_share, [_values(contest, model, rows) for model in models])
        for contest in contests_of(models[0].skill).values()
    ]
    contests += [
        ("answers that read", 1, True, [_readable_values(model) for model in models]),
        ("ROUGE-L", 1, True, [model.rouge_l for model in models]),
    ]
    names = [model.name for model in models]
    choices = [
        _choice(name, sign, is_share, dict(zip(names, values, strict=True)), rows)
        for name, sign, is_share, values in contests
    ]
    return [choice for choice in choices if choice]


def _choice(
    figure: str, is_better: int, is_share: bool, values: Mapping[str, Values], rows: Sequence[Row]
) -> Choice | None:
    """The leader over the rows for which every model with any value has one."""
    candidates = {name: of for name, of in values.items() if any(value is not None for value in of)}
    common = [at for at in range(len(rows)) if all(of[at] is not None for of in candidates.values())]
    if len(candidates) < 2 or not common:
        return None
    sums = {name: sum(of[at] or 0.0 for at in common) for name, of in candidates.items()}
    leader, runner_up = sorted(sums, key=lambda name: -is_better * sums[name])[:2]
    weeks = [rows[at].week or rows[at].row_id for at in common]
    apart = [(candidates[leader][at] or 0.0) - (candidates[runner_up][at] or 0.0) for at in common]
    widest = 1.0 if is_share else math.inf
    difference = over_weeks([(value, 1.0) for value in apart], weeks, bounds=(-widest, widest))
    best = leader if is_sure(difference, len(set(weeks)), is_better) else None
    return Choice(figure, best, leader, runner_up, difference)


def _values(contest: Contest, model: ModelScorecard, rows: Sequence[Row]) -> Values:
    """Of each row; None where it does not count."""
    cases = cases_by_row(model.forecasts, rows)
    return [None if case is None else contest.value(case) for case in cases]


def _readable_values(model: ModelScorecard) -> Values:
    return [float(forecast.direction is not None) for forecast in model.forecasts]


def _mean_rouge_l(scores: Mapping[str, Mapping[str, float]]) -> float:
    return sum(section["rougeL"] for section in scores.values()) / len(scores)


# --- what a reader has to know ------------------------------------------------------------------------------


def _trained_on(runs: Sequence[ModelAnswers]) -> list[str]:
    """A note on each model with rows from before the end of its training."""
    notes = []
    for run in runs:
        seen = sum(
            row.start < run.trained_until for row in run.rows if row.start is not None and run.trained_until
        )
        if seen:
            notes.append(
                f"{seen} of {len(run.rows)} rows begin before the training of {run.name} ended "
                f"({run.trained_until}): it may have been trained on them."
            )
    return notes


def _calibrations(runs: Sequence[ModelAnswers]) -> list[str]:
    return [f"{run.name}, calibrated: {run.calibration.in_words}." for run in runs if run.calibration]


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    if unknown := sum(row.actual is None for row in rows):
        notes.append(f"{unknown} of {len(rows)} rows have no known outcome; figures of skill leave them out.")
    if any(row.week is None for row in rows):
        notes.append(
            "Rows without dates: their intervals take rows as independent, and there is no backtest."
        )
    binned = sum(row.week is not None and row.return_pct is None and row.actual is not None for row in rows)
    if binned:
        notes.append(
            f"{binned} of {len(rows)} rows have a label, but no return: the backtest takes the middle of the "
            "bin (5.5 % beyond five). --price_file gives real returns."
        )
    return notes
