"""What a forecast says of the probabilities that its model gave."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forecaster.jobs.forecast import keep
from forecaster.jobs.forecast_distribution import Usual, distribution_of, draw, in_words, usual_of
from forecaster.models import registry
from forecaster.models.finished import FinishedRun
from forecaster.models.run_schemas import FittedCalibration
from forecaster.progress import at_terminal
from forecaster.records import ALL_LABELS, Label
from forecaster.tasks.distributions import climatology

LIKELY = {label.text: math.log(0.02) for label in ALL_LABELS} | {
    "up by 1-2%": math.log(0.4),
    "down by 0-1%": math.log(0.1),
}
"""0.7 in all: ten with 0.02, and these two."""
NOW = datetime(2026, 3, 7, tzinfo=UTC)
BASE = registry.BaseModel("somewhere", is_local=True)


def test_a_record_holds_each_probability_and_what_they_come_to() -> None:
    found = distribution_of(LIKELY)
    assert found["label_mass"] == pytest.approx(0.7)
    assert found["probabilities"]["up by 1-2%"] == pytest.approx(0.4 / 0.7)
    assert list(found["probabilities"])[5:8] == ["down by 0-1%", "up by 0-1%", "up by 1-2%"]
    assert found["up"] == pytest.approx(0.5 / 0.7)
    # A tenth of 0.7 is 0.07, which the fourth bin from below reaches; nine tenths are 0.63, and the three
    # highest bins leave 0.64.
    assert (found["median"], found["central_80_percent"]) == ("up by 1-2%", ["down by 2-3%", "up by 2-3%"])


def test_it_is_told_in_a_sentence_and_a_table() -> None:
    told = in_words(distribution_of(LIKELY)).splitlines()
    assert told[1] == (
        "Likelihoods of the labels: up 71%, median up by 1-2%, 80 % from down by 2-3% to up by 2-3%; they "
        "have 70.0% of all that it could have written."
    )
    assert [line.split() for line in told[3:6]] == [
        ["model"],
        ["--------------------", "-------"],
        ["down", "by", "more", "than", "5%", "2.9%"],
    ]
    assert [line.split()[-1] for line in told[5:]] == ["2.9%"] * 5 + ["14.3%", "2.9%", "57.1%"] + ["2.9%"] * 4


FITTED = FittedCalibration(
    temperature=1.0,
    model_weight=0.5,
    climatology={label.text: 1 / 12 for label in ALL_LABELS},
    rows=40,
    weeks=5,
)
USUAL = Usual("AAPL in training (6 rows)", climatology({Label("down", 0): 4, Label("up", 0): 2}))


def test_raw_and_calibrated_stand_beside_what_happened_before() -> None:
    found = distribution_of(LIKELY, FITTED, USUAL)
    assert found["up"] == pytest.approx(0.5 / 0.7)
    assert found["calibrated"]["up"] == pytest.approx(0.25 / 0.7 + 0.25)
    assert found["calibrated"]["probabilities"]["up by 1-2%"] == pytest.approx(0.2 / 0.7 + 1 / 24)
    assert found["calibrated"]["central_80_percent"] == ["down by 4-5%", "up by 4-5%"]
    assert found["climatology"]["probabilities"]["down by 0-1%"] == pytest.approx(5 / 18)
    told = in_words(found).splitlines()
    assert told[2] == (
        "Calibrated (temperature 1, 50% of the model and the rest climatology, fitted on 40 rows of 5 "
        "validation weeks): up 61%, median up by 1-2%, 80 % from down by 4-5% to up by 4-5%."
    )
    assert told[4].split() == ["model", "calibrated", "AAPL", "in", "training", "(6", "rows)"]
    assert told[6 + 5].split()[-3:] == ["14.3%", "11.3%", "27.8%"]


def test_the_picture_is_the_same_each_time_and_of_the_calibrated_probabilities(tmp_path: Path) -> None:
    found = distribution_of(LIKELY, FITTED, USUAL)
    for name in ("a.png", "b.png"):
        draw(found, "AAPL", tmp_path / name)
    first = (tmp_path / "a.png").read_bytes()
    assert first == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
    draw(distribution_of(LIKELY), "AAPL", tmp_path / "raw.png")
    assert (tmp_path / "raw.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" == first[:8]
    assert (tmp_path / "raw.png").read_bytes() != first


def test_a_symbol_that_was_not_trained_on_is_held_against_all() -> None:
    record = {
        "training_labels": {"up by 0-1%": 2, "down by 1-2%": 1},
        "training_labels_by_symbol": {"AAPL": {"up by 0-1%": 2}},
    }
    run = FinishedRun(Path("run"), BASE, {}, record)
    own, others = usual_of(run, "AAPL"), usual_of(run, "MSFT")
    assert own and others
    assert (own.name, others.name) == ("AAPL in training (2 rows)", "all symbols in training (3 rows)")
    assert own.distribution.shares[6] == pytest.approx((2 + 12 * 3 / 15) / 14)  # leaning on all
    assert others.distribution.shares[4] == pytest.approx(2 / 15)
    assert usual_of(FinishedRun(Path("run"), BASE, {}, {"training_labels": {}}), "AAPL") is None


def test_the_picture_lies_beside_its_record_and_is_set_aside_with_it(tmp_path: Path) -> None:
    path, said = tmp_path / "AAPL_2026-03-06.json", list[str]()
    listener = replace(at_terminal(), say=said.append)
    first = {"answer": "a", "distribution": distribution_of(LIKELY)}
    keep(first, path, "AAPL", NOW, listener)
    assert said[-1] == f"Picture: {path.with_suffix('.png')}"
    picture = path.with_suffix(".png").read_bytes()
    keep(first, path, "AAPL", NOW, listener)
    assert {each.name for each in tmp_path.iterdir()} == {path.name, path.with_suffix(".png").name}
    keep({"answer": "b", "distribution": None}, path, "AAPL", NOW, listener)
    (aside,) = tmp_path.glob("AAPL_2026-03-06.*.json")
    assert aside.with_suffix(".png").read_bytes() == picture
    assert not path.with_suffix(".png").exists()
