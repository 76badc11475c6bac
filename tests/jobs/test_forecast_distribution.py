"""What a forecast says of the probabilities that its model gave."""

from __future__ import annotations

import math

import pytest

from forecaster.jobs.forecast import distribution_of, in_words
from forecaster.records import ALL_LABELS

LIKELY = {label.text: math.log(0.02) for label in ALL_LABELS} | {
    "up by 1-2%": math.log(0.4),
    "down by 0-1%": math.log(0.1),
}
"""0.7 in all: ten with 0.02, and these two."""


def test_a_record_holds_each_probability_and_what_they_come_to() -> None:
    found = distribution_of(LIKELY)
    assert found["label_mass"] == pytest.approx(0.7)
    assert found["probabilities"]["up by 1-2%"] == pytest.approx(0.4 / 0.7)
    assert list(found["probabilities"])[5:8] == ["down by 0-1%", "up by 0-1%", "up by 1-2%"]
    assert found["up"] == pytest.approx(0.5 / 0.7)
    # A tenth of 0.7 is 0.07, which the fourth bin from below reaches; nine tenths are 0.63, and the three
    # highest bins leave 0.64.
    assert (found["median"], found["central_80_percent"]) == ("up by 1-2%", ["down by 2-3%", "up by 2-3%"])


def test_it_is_told_in_a_sentence() -> None:
    assert in_words(distribution_of(LIKELY)) == (
        "Likelihoods of the labels: up 71%, median up by 1-2%, 80 % from down by 2-3% to up by 2-3%; they "
        "have 70.0% of all that it could have written."
    )
