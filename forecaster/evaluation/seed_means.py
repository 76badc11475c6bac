"""Answers of one training by several seeds as one forecast: the mean of their probabilities."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from forecaster.evaluation.predictions import Prediction
from forecaster.records import Label
from forecaster.tasks.distributions import BINS, label_mass, mean_of, of_log_likelihoods
from forecaster.tasks.loose_forecasts import read_forecast
from prompts import PREDICTION, render_label


def mean_of_seeds(found: Sequence[Prediction]) -> Prediction:
    """The answers of several seeds to one row as one.

    Each seed's likelihoods of the twelve labels are made to sum to one, then averaged; the likeliest bin is
    what the answer says, as its prediction line alone. Seeds whose answer tells no likelihoods take no part
    in the mean. Where none tells any, the answer says the bin that most of them name, of two named as often
    that of the earlier seed.

    Args:
        found: at least one, by seed. One alone stays as it is.
    """
    first = found[0]
    if len(found) == 1:
        return first
    told = [
        (label, p.label_log_likelihoods)
        for p in found
        if p.answer is not None and isinstance(label := read_forecast(p.answer), Label)
    ]
    known = [logs for _, logs in told if logs]
    alone = replace(first, prompt_tokens=None, news_dropped=first.news_dropped, new_tokens=None)
    if not known:
        named = Counter(label for label, _ in told).most_common(1)
        text = _said(named[0][0]) if named else ""
        return replace(alone, answer=text, label_log_likelihoods=None)
    mean = mean_of([of_log_likelihoods(logs) for logs in known])
    mass = math.fsum(map(label_mass, known)) / len(known)
    least = sys.float_info.min  # the logarithm of nothing is no number
    likely = {
        label.text: math.log(max(share * mass, least)) for label, share in zip(BINS, mean.shares, strict=True)
    }
    best = max(range(len(BINS)), key=lambda at: mean.shares[at])
    return replace(alone, answer=_said(BINS[best]), label_log_likelihoods=likely)


def _said(label: Label) -> str:
    return f"{PREDICTION} {render_label(label)}"
