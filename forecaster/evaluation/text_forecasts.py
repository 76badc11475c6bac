"""A forecast from the words of a prompt alone, learnt in seconds: what a language model has to beat.

Words and pairs of words are weighed by TF-IDF, and a logistic regression learns which of them went before a
rise. How far it goes is what moves in that direction did in training. scikit-learn does both.
"""

from __future__ import annotations

from collections.abc import Sequence

from forecaster.tasks.distributions import BINS, Distribution, climatology
from forecaster.records import Label

WORDS = "TF-IDF and logistic regression"
LEAST_ROWS = 20
MOST_WORDS = 50_000


def text_forecasts(
    texts: Sequence[str], labels: Sequence[Label], asked: Sequence[str]
) -> list[Distribution] | None:
    """A distribution for each of `asked`.

    Args:
        texts: prompts of training rows, and their labels.

    Returns:
        None with fewer than twenty rows, or where all went the same way: there is nothing to learn.
    """
    rose = [label.direction == "up" for label in labels]
    if len(texts) < LEAST_ROWS or len(set(rose)) < 2:
        return None
    # Half a second, and not needed to read flags.
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=MOST_WORDS)
    model = make_pipeline(words, LogisticRegression(max_iter=1000))
    model.fit(texts, rose)
    usual = climatology(labels)
    return [_with_usual_sizes(float(up), usual) for up in model.predict_proba(asked)[:, 1]]


def _with_usual_sizes(up: float, usual: Distribution) -> Distribution:
    """P(up) as given, and within each direction the bins as often as usual."""
    shares = [
        share * (up / usual.up if label.direction == "up" else (1 - up) / (1 - usual.up))
        for label, share in zip(BINS, usual.shares, strict=True)
    ]
    return Distribution(tuple(shares))
