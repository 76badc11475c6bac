"""The figures as the field's reference computes them, by its own parser and over its own choice of rows.

They make a score comparable with published ones; what they get wrong is kept. The source is
fingpt/FinGPT_Forecaster/utils.py (`parse_answer`, `calc_metrics`) of AI4Finance-Foundation/FinGPT.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer, tokenize, tokenizers

SECTIONS = {
    "pros_rouge_scores": "positive_developments",
    "cons_rouge_scores": "potential_concerns",
    "anal_rouge_scores": "analysis",
}
"""The field's key for each section's ROUGE scores, and the section."""
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")

_POSITIVE, _CONCERNS = "[Positive Developments]:", "[Potential Concerns]:"
_FORECASTS = ("[Prediction & Analysis]:", "[Prediction and Analysis]:")
_PREDICTION, _ANALYSIS = "Prediction:", "Analysis:"
_RANGE = re.compile(r"(\d)-\d%")
_LAST_DIGIT = re.compile(r"\d(?=%)")


@dataclass(frozen=True)
class PublishedAnswer:
    """An answer as the reference reads it."""

    positive_developments: str
    potential_concerns: str
    direction: int
    """1 up, -1 down, 0 neither."""
    size_pct: float
    """Signed middle of the bin; 0.0 without a number or a direction."""
    analysis: str


@dataclass(frozen=True)
class Published:
    """One model's figures; without a valid row there are none but the count."""

    valid_count: int
    """Rows whose answer and reference answer both read; the others leave every average."""
    bin_acc: float | None
    """Share of valid rows with the direction of the reference answer."""
    mse: float | None
    """Mean squared difference from the size of the reference answer, in percent squared."""
    rouge: dict[str, dict[str, float]] | None
    """Section key -> rouge1, rouge2, rougeL: F-measure with stemming, mean over valid rows."""


class RougeCache:
    """ROUGE F-measures with stemming; each distinct pair of texts is computed once."""

    def __init__(self) -> None:
        self._scores: dict[tuple[str, str], dict[str, float]] = {}

    @property
    def scored(self) -> int:
        """Pairs that were computed."""
        return len(self._scores)

    def score(self, reference: str, answer: str) -> dict[str, float]:
        """rouge1, rouge2 and rougeL of an answer's text against the reference's."""
        pair = reference, answer
        if pair not in self._scores:
            computed = self._scorer.score(reference, answer)
            self._scores[pair] = {kind: float(computed[kind].fmeasure) for kind in ROUGE_TYPES}
        return dict(self._scores[pair])

    @cached_property
    def _scorer(self) -> rouge_scorer.RougeScorer:
        return rouge_scorer.RougeScorer(list(ROUGE_TYPES), tokenizer=_Tokenizer())


class _Tokenizer(tokenizers.Tokenizer):
    """The library's tokens with stemming; each word is stemmed once, which is half of all the work."""

    def __init__(self) -> None:
        self._stemmer = PorterStemmer()
        self.stem = lru_cache(maxsize=100_000)(self._stemmer.stem)

    def tokenize(self, text: str) -> list[str]:
        return list(tokenize.tokenize(text, self))


def parse_as_published(text: str) -> PublishedAnswer | None:
    """Read an answer as the reference does; None where it finds none.

    Each header has to stand to the letter, the first at the very start; of a header that is written twice
    the last counts. "up" anywhere in the prediction, also inside a word, makes it a rise, and the size is
    the first digit of the first range of two digits, or else the digit before the first percent sign that
    has one. Never raises.
    """
    text = text.strip()
    forecast_at, forecast = max((text.rfind(header), header) for header in _FORECASTS)
    concerns_at = text.rfind(_CONCERNS, 0, max(forecast_at, 0))
    if not text.startswith(_POSITIVE) or concerns_at < 0:
        return None
    last_part = text[forecast_at + len(forecast) :].strip()
    analysis_at = last_part.rfind(_ANALYSIS)
    if not last_part.startswith(_PREDICTION) or analysis_at < len(_PREDICTION):
        return None
    prediction = last_part[len(_PREDICTION) : analysis_at]
    direction = _direction(prediction)
    return PublishedAnswer(
        positive_developments=text[len(_POSITIVE) : concerns_at].strip(),
        potential_concerns=text[concerns_at + len(_CONCERNS) : forecast_at].strip(),
        direction=direction,
        size_pct=_signed_size_pct(prediction, direction),
        analysis=last_part[analysis_at + len(_ANALYSIS) :].strip(),
    )


def _direction(prediction: str) -> int:
    prediction = prediction.lower()
    if any(word in prediction for word in ("up", "increase")):
        return 1
    return -1 if any(word in prediction for word in ("down", "decrease", "decline")) else 0


def _signed_size_pct(prediction: str, direction: int) -> float:
    if in_range := _RANGE.search(prediction):
        return direction * (int(in_range[1]) + 0.5)
    digit = _LAST_DIGIT.search(prediction)
    return direction * (int(digit[0]) + 0.5) if digit else 0.0


def score_as_published(
    answers: Sequence[PublishedAnswer | None],
    references: Sequence[PublishedAnswer | None],
    rouge: RougeCache,
) -> Published:
    """The published figures of one model.

    Args:
        answers: as `parse_as_published` reads them, one for each reference; None where it does not.
        references: the reference answers, read alike, which stand for the truth here.
        rouge: shared between models, and with figures of other parsers.
    """
    pairs = [
        (answer, reference)
        for answer, reference in zip(answers, references, strict=True)
        if answer and reference
    ]
    if not pairs:
        return Published(0, None, None, None)
    rouge_scores = [
        {key: rouge.score(getattr(reference, part), getattr(answer, part)) for key, part in SECTIONS.items()}
        for answer, reference in pairs
    ]
    return Published(
        valid_count=len(pairs),
        bin_acc=sum(answer.direction == reference.direction for answer, reference in pairs) / len(pairs),
        mse=sum((answer.size_pct - reference.size_pct) ** 2 for answer, reference in pairs) / len(pairs),
        rouge=mean_rouge(rouge_scores),
    )


def mean_rouge(
    scores: Sequence[Mapping[str, Mapping[str, float]]],
) -> dict[str, dict[str, float]] | None:
    """Means over answers, by section key and ROUGE type; None without an answer."""
    if not scores:
        return None
    return {
        key: {kind: sum(score[key][kind] for score in scores) / len(scores) for kind in ROUGE_TYPES}
        for key in SECTIONS
    }
