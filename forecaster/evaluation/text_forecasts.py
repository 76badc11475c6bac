"""A classifier of words: what seconds make of the prompts that language models are tuned on.

Words and pairs of words, weighted by TF-IDF, and a logistic regression of the direction, as in Wang and
Manning (2012), Baselines and Bigrams. It says nothing of sizes: those are the symbol's own, given the
direction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from forecaster.records import Label, Row
from forecaster.tasks.distributions import BINS, Distribution
from forecaster.tasks.weekly_baselines import Training, symbol_climatology
from prompts import split_published

LEAST_ROWS = 20
"""Fewer training rows are too few to tell words apart."""


def text_forecasts(training: Sequence[Row], rows: Sequence[Row]) -> dict[str, Distribution]:
    """Probabilities of each row, by its id; empty where training has too few rows or a single direction.

    The same rows give the same probabilities, to eight decimals.
    """
    known = [(row, row.actual) for row in training if row.actual is not None]
    directions = [label.direction == "up" for _, label in known]
    if len(known) < LEAST_ROWS or len(set(directions)) < 2 or not rows:
        return {}
    # Seconds to import, and needed in a benchmark alone.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    # Terms of a single row tell nothing of others.
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    try:
        seen = vectors.fit_transform([_words(row) for row, _ in known])
    except ValueError:  # no term is in two rows
        return {}
    classifier = LogisticRegression(max_iter=1000).fit(seen, directions)
    ups = classifier.predict_proba(vectors.transform([_words(row) for row in rows]))[:, 1]
    counts = _counted(training)
    sizes = {symbol: symbol_climatology(counts, symbol) for symbol in {row.symbol for row in rows}}
    return {
        row.row_id: with_direction(sizes[row.symbol], round(float(up), 8))
        for row, up in zip(rows, ups, strict=True)
    }


def training_of(training: Sequence[Row], rows: Sequence[Row]) -> Training | None:
    """What training rows tell of test rows without a model; None where there are no training rows."""
    counts = _counted(training)
    return replace(counts, text_forecasts=text_forecasts(training, rows)) if counts.labels else None


def _counted(training: Sequence[Row]) -> Training:
    by_symbol: dict[str, Counter[Label]] = {}
    for row in training:
        if row.actual is not None:
            by_symbol.setdefault(row.symbol.strip().upper(), Counter())[row.actual] += 1
    return Training(sum(by_symbol.values(), Counter[Label]()), by_symbol)


def with_direction(sizes: Distribution, up: float) -> Distribution:
    """The same sizes given the direction, at another probability of a rise."""
    factor = {"up": up / sizes.up, "down": (1 - up) / (1 - sizes.up)}
    return Distribution(
        tuple(share * factor[label.direction] for label, share in zip(BINS, sizes.shares, strict=True))
    )


def _words(row: Row) -> str:
    return split_published(row.prompt).user
