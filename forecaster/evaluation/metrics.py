"""Answers to figures. Every figure counts what could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from rouge_score import rouge_scorer

from forecaster.prompts import parse_answer
from forecaster.records import Answer, Label, Unreadable

SECTIONS = {
    "pros_rouge_scores": "positive_developments",
    "cons_rouge_scores": "potential_concerns",
    "anal_rouge_scores": "analysis",
}
"""The field's key for each section's ROUGE scores, and the section."""
_ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Scored:
    """One model's answer to one row; `answer` is None when the prompt did not fit."""

    actual: Label
    reference: str
    answer: str | None
    latency_s: float | None = None


@dataclass(frozen=True)
class Metrics:
    """Figures over one model's answers; those that need a readable answer are None when there is none."""

    rows: int
    valid_count: int
    bin_acc: float | None
    """Share of readable answers with the right direction."""
    mse: float | None
    """Mean squared difference of bin midpoints in percent squared, over readable answers."""
    rouge: dict[str, dict[str, float]] | None
    """Section key -> rouge1, rouge2, rougeL: F-measure with stemming, as published; rows whose reference
    reads too."""
    seconds_per_answer: float | None
    unreadable: dict[str, int]
    """Reason -> count."""

    @property
    def valid_share(self) -> float:
        return self.valid_count / self.rows


def score(rows: Sequence[Scored]) -> Metrics:
    """Figures over the answers of one model."""
    answers = [
        parse_answer(row.answer) if row.answer is not None else Unreadable("no answer") for row in rows
    ]
    pairs = [(row, a) for row, a in zip(rows, answers, strict=True) if isinstance(a, Answer)]
    latencies = [row.latency_s for row in rows if row.latency_s is not None]
    return Metrics(
        rows=len(rows),
        valid_count=len(pairs),
        bin_acc=direction_accuracy([(a.label, row.actual) for row, a in pairs]),
        mse=mean_squared_error([(a.label.midpoint_pct, row.actual) for row, a in pairs]),
        rouge=_mean_rouge([(reference, a) for row, a in pairs if (reference := _reference(row.reference))]),
        seconds_per_answer=sum(latencies) / len(latencies) if latencies else None,
        unreadable=dict(Counter(a.reason for a in answers if isinstance(a, Unreadable))),
    )


def direction_accuracy(pairs: Sequence[tuple[Label, Label]]) -> float | None:
    """Share of (predicted, actual) pairs with the same direction."""
    return sum(p.direction == a.direction for p, a in pairs) / len(pairs) if pairs else None


def mean_squared_error(pairs: Sequence[tuple[float, Label]]) -> float | None:
    """Mean squared difference between predicted percent and the actual bin's midpoint."""
    return sum((p - a.midpoint_pct) ** 2 for p, a in pairs) / len(pairs) if pairs else None


@cache
def _reference(text: str) -> Answer | None:
    answer = parse_answer(text)
    return answer if isinstance(answer, Answer) else None


def _mean_rouge(pairs: Sequence[tuple[Answer, Answer]]) -> dict[str, dict[str, float]] | None:
    if not pairs:
        return None
    scorer = rouge_scorer.RougeScorer(list(_ROUGE_TYPES), use_stemmer=True)
    means = {}
    for key, section in SECTIONS.items():
        scores = [
            scorer.score(getattr(reference, section), getattr(answer, section)) for reference, answer in pairs
        ]
        means[key] = {kind: sum(s[kind].fmeasure for s in scores) / len(scores) for kind in _ROUGE_TYPES}
    return means
