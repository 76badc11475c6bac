"""What the figures say of each model, in a sentence or two; nothing that they do not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from forecaster.evaluation.figures import contests_of
from forecaster.evaluation.metrics import Skill, cases_by_row
from forecaster.evaluation.report.tables import NO_INTERVAL, method_in_words, with_interval
from forecaster.evaluation.scorecard import ModelScorecard, Pair, Scoreboard, Scorecard, is_sure
from forecaster.evaluation.statistics import Estimate, negated
from forecaster.records import Row
from forecaster.tasks.weekly_baselines import ALWAYS_DOWN, ALWAYS_UP

ACCURACY = contests_of(Skill)["accuracy_of_all_rows"].name
"""Name of the choice that a verdict goes by."""

Finding = Literal["skill in direction shown", "no skill shown", "nothing to score"]


@dataclass(frozen=True)
class Verdict:
    """One model's."""

    model: str
    finding: Finding
    """Of directions alone."""
    reasons: str
    """Sentences."""


def verdicts(board: Scoreboard) -> tuple[Verdict, ...]:
    """One for each model, in their order."""
    return tuple(_verdict(model, board) for model in board.models)


def best_in_words(board: Scoreboard) -> str:
    """Which model is the most accurate, if that can be said; empty for one model."""
    choice = next((choice for choice in board.choices if choice.figure == ACCURACY), None)
    if choice is None:
        return ""
    lead = with_interval(choice.difference, 3)
    if choice.best is None:
        return (
            f"No model is shown to be the most accurate: {choice.leader} is ahead of {choice.runner_up} by "
            f"{lead}, which can be chance."
        )
    return f"{choice.best} is the most accurate: ahead of {choice.runner_up} by {lead}."


def _verdict(model: ModelScorecard, board: Scoreboard) -> Verdict:
    if model.skill.rows == 0:
        return Verdict(model.name, "nothing to score", "No row has a known outcome.")
    if model.valid_count == 0:
        return Verdict(model.name, "nothing to score", f"None of its {model.rows} answers can be read.")
    has_dates = any(row.week for row in board.rows)
    pair = _against_constant(model, board.pairs)
    constant = next(line for line in board.baselines if line.name == pair.second)
    finding, reason = _of_direction(model, constant, pair, has_dates)
    reasons = [
        f"{model.valid_count} of {model.rows} answers can be read{_in_form(model)}.",
        reason,
        _of_ranks(model.skill),
        _of_size(model, board.rows, has_dates),
        _of_memory(model),
    ]
    return Verdict(model.name, finding, " ".join(filter(None, reasons)))


def _against_constant(model: ModelScorecard, pairs: Sequence[Pair]) -> Pair:
    """Always up or always down. The better of the two is right at least every second time, so that a model
    above it is above a coin too."""
    return next(p for p in pairs if p.first == model.name and p.second in (ALWAYS_UP, ALWAYS_DOWN))


def _of_direction(
    model: ModelScorecard, constant: Scorecard, pair: Pair, has_dates: bool
) -> tuple[Finding, str]:
    accuracy, lead = model.skill.accuracy_of_all_rows, pair.difference
    against = f"{constant.name} ({constant.skill.accuracy_of_all_rows.value or 0.0:.3f})"
    said = f"Its accuracy over all rows, {with_interval(accuracy, 3)},"
    by = f"by {with_interval(lead, 3)}"
    if is_sure(lead, model.skill.weeks):
        return "skill in direction shown", f"{said} beats {against} {by}."
    if lead.value is None or lead.value <= 0:
        return "no skill shown", f"{said} does not beat {against}."
    if lead.low is None:
        return "no skill shown", f"{said} is above {against}, but {_without_interval(lead, has_dates)}"
    return "no skill shown", f"{said} is above {against} {by}, which can be chance."


def _of_ranks(skill: Skill) -> str:
    """What the order of a week's symbols shows, and what so many weeks could have shown."""
    found, smallest = skill.rank_correlation, skill.detectable_rank_correlation
    if found.value is None or found.low is None or found.high is None or smallest is None:
        return ""
    said = f"Its weekly rank correlation with returns is {with_interval(found, 3)}"
    if found.low > 0 or found.high < 0:
        return f"{said}, beyond chance."
    seen = f"only {smallest:.2f} or more could have been seen" if smallest < 1 else "the weeks are too few"
    return f"{said}, which can be chance: {seen}."


def _of_size(model: ModelScorecard, rows: Sequence[Row], has_dates: bool) -> str:
    """Squared error against that of forecasting no move, on the rows for which the model names a size."""
    mse, zero, apart = model.skill.mse, model.skill.mse_of_no_move, model.skill.mse_against_no_move
    if mse.value is None or zero.value is None or apart.value is None:
        return ""
    sized = {case.week for case in cases_by_row(model.forecasts, rows) if case and case.forecast.label}
    where = "" if model.skill.coverage.value == 1 else " on the same rows"
    said = f"Its MSE, {with_interval(mse, 2)},"
    against = f"that of forecasting no move{where} ({zero.value:.2f})"
    if apart.value >= 0:
        return f"{said} is not below {against}."
    by = f"by {with_interval(negated(apart), 2)}"
    if is_sure(apart, len(sized), -1):
        return f"{said} is below {against} {by}."
    if apart.low is None:
        return f"{said} is below {against}, but {_without_interval(apart, has_dates)}"
    return f"{said} is below {against} {by}, which can be chance."


def _without_interval(lead: Estimate, has_dates: bool) -> str:
    why = method_in_words(lead.method, has_dates).removeprefix(NO_INTERVAL)
    return f"there is no interval ({why}): this can be chance."


def _in_form(model: ModelScorecard) -> str:
    return "" if model.form_followed == model.valid_count else f", {model.form_followed} of them in the form"


def _of_memory(model: ModelScorecard) -> str:
    """What of the test the model may have read about."""
    if model.knowledge_cutoff is None:
        return "Its knowledge cutoff is not known: it may have read what happened."
    if model.maybe_remembered is None:
        return ""
    before = model.maybe_remembered.rows
    share = "All" if model.not_remembered is None else f"{before} of {model.skill.rows}"
    return (
        f"{share} rows begin on or before its knowledge cutoff, {model.knowledge_cutoff}: it may have read "
        "what happened."
    )
