"""What the figures say of each model, in a few sentences; nothing that they do not show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from forecaster.evaluation.best_of_several import RANK_CORRELATION
from forecaster.evaluation.figures import contests_of
from forecaster.evaluation.gains import Gain, decisive
from forecaster.evaluation.metrics import Skill, cases_of
from forecaster.evaluation.report.tables import NO_INTERVAL, method_in_words, with_interval
from forecaster.evaluation.scorecard import ModelScorecard, Pair, Scoreboard
from forecaster.evaluation.statistics import Estimate, is_sure, negated
from forecaster.records import Row

ACCURACY = contests_of(Skill)["accuracy_of_all_rows"].name

Finding = Literal["skill", "no skill seen", "nothing to score"]


@dataclass(frozen=True)
class Part:
    """One question, what is found, and why."""

    question: Literal["direction", "probabilities"]
    finding: Finding
    reason: str


@dataclass(frozen=True)
class Verdict:
    """One model's."""

    model: str
    direction: Part
    """Whether it orders a week's symbols as their returns then did."""
    probabilities: Part
    """Whether its probabilities are better than the best that anyone has without a model."""
    visible: str
    """What rank correlation this test could have seen; empty where there is nothing to score."""
    notes: str
    """Sentences on answers read, accuracy, sizes, and what the model may remember."""

    @property
    def finding(self) -> str:
        """What is found of each question that there is an answer to, in a few words."""
        found = [p for p in (self.direction, self.probabilities) if p.finding != "nothing to score"]
        return "; ".join(f"{part.question}: {part.finding}" for part in found) or "nothing to score"

    @property
    def reasons(self) -> str:
        """All sentences."""
        parts = (self.direction.reason, self.probabilities.reason, self.visible, self.notes)
        return " ".join(filter(None, parts))


def verdicts(board: Scoreboard) -> tuple[Verdict, ...]:
    """One for each model, in their order."""
    return tuple(_verdict(model, board) for model in board.models)


def best_in_words(board: Scoreboard) -> str:
    """Which model leads, if that can be said, and that several were tried; empty for one model."""
    sentences = []
    choice = next((choice for choice in board.choices if choice.figure == ACCURACY), None)
    if choice:
        lead = with_interval(choice.difference, 3)
        sentences.append(
            f"{choice.best} is the most accurate: ahead of {choice.runner_up} by {lead}."
            if choice.best
            else f"No model is shown to be the most accurate: {choice.leader} is ahead of "
            f"{choice.runner_up} by {lead}, which can be chance."
        )
    for of in board.best_of_several:
        if of.figure == RANK_CORRELATION and of.p_value is not None:
            sentences.append(
                f"The best weekly rank correlation of {of.tried} models, {of.value:.3f} of {of.model}, comes "
                f"about without skill with a probability of {of.p_value:.2g}."
            )
    return " ".join(sentences)


def _verdict(model: ModelScorecard, board: Scoreboard) -> Verdict:
    nothing = ""
    if model.skill.rows == 0:
        nothing = "No row has a known outcome."
    elif model.valid_count == 0:
        nothing = f"None of its {model.rows} answers can be read."
    if nothing:
        parts = (
            Part("direction", "nothing to score", ""),
            Part("probabilities", "nothing to score", ""),
        )
        return Verdict(model.name, *parts, "", nothing)
    has_dates = any(row.week for row in board.rows)
    notes = [
        f"{model.valid_count} of {model.rows} answers can be read{_in_form(model)}.",
        _of_accuracy(model, board),
        _of_size(model, board.rows, has_dates),
        _of_memory(model),
    ]
    return Verdict(
        model.name,
        _of_direction(model, board.pairs, has_dates),
        _of_probabilities(model, board.gains, has_dates),
        _visible(model, board.rows),
        " ".join(filter(None, notes)),
    )


def _against_constant(model: ModelScorecard, pairs: Sequence[Pair]) -> Pair:
    return next(p for p in pairs if p.first == model.name and p.p_value is None)


def _of_direction(model: ModelScorecard, pairs: Sequence[Pair], has_dates: bool) -> Part:
    """By the order within weeks, which what moves all symbols alike takes no part in; where weeks are too
    small for an order, by the lead in accuracy over the constant that training favours."""
    found = model.skill.rank_correlation
    if has_dates and found.value is not None:
        said = f"Its weekly rank correlation with returns is {with_interval(found, 3)}"
        if is_sure(found, model.skill.weeks):
            return Part("direction", "skill", f"{said}, beyond chance.")
        if is_sure(found, model.skill.weeks, -1):
            return Part("direction", "no skill seen", f"{said}: the wrong way round, beyond chance.")
        if found.value == 0 and found.low is None:
            return Part("direction", "no skill seen", "It orders no week's symbols: it says the same of all.")
        return Part("direction", "no skill seen", f"{said}, which can be chance.")
    pair = _against_constant(model, pairs)
    lead = pair.difference
    said = f"Its accuracy, less that of {pair.second}, is {with_interval(lead, 3)}"
    if is_sure(lead, model.skill.weeks):
        return Part("direction", "skill", f"{said}, beyond chance.")
    if lead.low is None:
        return Part("direction", "no skill seen", f"{said}, but {_without_interval(lead, has_dates)}")
    return Part("direction", "no skill seen", f"{said}, which can be chance.")


def _of_probabilities(model: ModelScorecard, gains: Sequence[Gain], has_dates: bool) -> Part:
    """Of the calibrated ones, where validation weeks have calibrated them."""
    card = model.calibrated or model
    gain = decisive(gains, card.name)
    if gain is None:
        return Part("probabilities", "nothing to score", "")
    score = gain.log_score
    which = "calibrated probabilities" if model.calibrated else "probabilities"
    said = f"The log score of its {which}, beside that of {gain.over}, is"
    if is_sure(score, gain.weeks):
        return Part("probabilities", "skill", f"{said} better by {with_interval(score, 3)} nats a row.")
    if score.value is None or score.value <= 0:
        worse = with_interval(negated(score), 3)
        return Part("probabilities", "no skill seen", f"{said} worse by {worse} nats a row.")
    if score.low is None:
        reason = f"{said} better by {score.value:.3f} nats a row, but {_without_interval(score, has_dates)}"
        return Part("probabilities", "no skill seen", reason)
    chance = f"{said} better by {with_interval(score, 3)} nats a row, which can be chance."
    return Part("probabilities", "no skill seen", chance)


def _visible(model: ModelScorecard, rows: Sequence[Row]) -> str:
    smallest = model.skill.detectable_rank_correlation
    weeks = {row.week for row in rows if row.week}
    if smallest is None or not weeks:
        return ""
    a_week = round(sum(row.week is not None for row in rows) / len(weeks))
    said = f"{len(weeks)} weeks of {a_week} symbols"
    if smallest >= 1:
        return f"{said} are too few to see any rank correlation."
    return f"{said} could only have shown a rank correlation of {smallest:.2f} or more."


def _of_accuracy(model: ModelScorecard, board: Scoreboard) -> str:
    constant = _against_constant(model, board.pairs).second
    known = next(line.skill for line in board.baselines if line.name == constant)
    said = f"Its accuracy over all rows is {with_interval(model.skill.accuracy_of_all_rows, 3)}"
    return f"{said}, that of {constant} {known.accuracy_of_all_rows.value or 0.0:.3f}."


def _of_size(model: ModelScorecard, rows: Sequence[Row], has_dates: bool) -> str:
    """Squared error against that of forecasting no move, on the rows for which the model names a size."""
    mse, zero, apart = model.skill.mse, model.skill.mse_of_no_move, model.skill.mse_against_no_move
    if mse.value is None or zero.value is None or apart.value is None:
        return ""
    sized = {case.week for case in cases_of(model.forecasts, rows) if case.forecast.label}
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
