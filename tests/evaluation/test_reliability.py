"""P(up) in groups beside the share that rose, against counts made by hand, and their picture."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from boards import UP_1, row, written
from matplotlib.figure import Figure

from forecaster.evaluation.plots import save_png
from forecaster.evaluation.reliability import reliability, up_probabilities
from forecaster.evaluation.report.pictures import drawings
from forecaster.evaluation.rows import ModelAnswers, numbered
from forecaster.evaluation.scorecard import Scoreboard, scoreboard
from forecaster.models.run_schemas import FittedCalibration
from forecaster.records import ALL_LABELS, Label
from forecaster.tasks.distributions import BINS, Distribution
from forecaster.tasks.weekly_rows import SILENT, Forecast

ROWS = numbered([row(f"S{at}", at % 4, Label("up" if at % 2 else "down", 1)) for at in range(40)])
"""Every second one rises; those of even weeks fall."""


def saying(up: float) -> Forecast:
    shares = tuple(up / 6 if label.direction == "up" else (1 - up) / 6 for label in BINS)
    return Forecast(distribution=Distribution(shares))


def test_rows_are_grouped_by_what_they_were_given() -> None:
    groups = reliability([saying(0.2 if at % 2 == 0 else 0.6 + at / 1000) for at in range(40)], ROWS)
    assert [group.rows for group in groups] == [20, 10, 10]
    assert [group.rose.value for group in groups] == [0.0, 1.0, 1.0]
    # 1, 3, ... 19 thousandths, and 21 to 39.
    assert [group.up for group in groups] == pytest.approx([0.2, 0.61, 0.63])
    assert groups[0].rose.method == "bound from 2 weeks that are all the same"


def test_the_same_p_up_stays_in_one_group_and_rows_without_any_are_left_out() -> None:
    (group,) = reliability([saying(0.5)] * 39 + [SILENT], ROWS)
    assert (group.rows, group.rose.value, group.up) == (39, pytest.approx(19 / 39), pytest.approx(0.5))
    assert up_probabilities([saying(0.7), *[SILENT] * 39], ROWS) == pytest.approx([0.7])
    assert reliability([SILENT] * 40, ROWS) == ()


def board(with_calibration: bool) -> Scoreboard:
    logs = tuple(
        {
            each.text: math.log((0.9 if (each.direction == "up") == bool(at % 2) else 0.1) / 6)
            for each in ALL_LABELS
        }
        for at in range(40)
    )
    usual = {label.text: 1 / 12 for label in ALL_LABELS}
    fitted = FittedCalibration(temperature=1.0, model_weight=0.5, climatology=usual, rows=40, weeks=4)
    model = ModelAnswers(
        "m",
        ROWS,
        (written(UP_1),) * 40,
        label_log_likelihoods=logs,
        calibration=fitted if with_calibration else None,
    )
    silent = ModelAnswers("silent", ROWS, (written(UP_1),) * 40)
    return scoreboard([model, silent], None, cost_bps=0.0)


def curves_of(figure: Figure) -> list[tuple[list[float], list[float]]]:
    """Points of each curve with markers, from the upper panel."""
    return [
        ([float(x) for x in line.get_xdata()], [float(y) for y in line.get_ydata()])
        for line in figure.axes[0].lines
        if line.get_marker() in ("o", "s")
    ]


def test_raw_and_calibrated_stand_in_one_panel_and_a_model_without_probabilities_has_none() -> None:
    figure = drawings(board(with_calibration=True))["reliability"].draw()
    raw, calibrated = curves_of(figure)
    assert raw == (pytest.approx([0.1, 0.9]), [0.0, 1.0])
    assert calibrated == (pytest.approx([0.3, 0.7]), [0.0, 1.0])
    assert len(figure.axes) == 2
    assert figure.axes[0].get_title(loc="left") == "m"
    assert figure.axes[1].get_xlabel() == "P(up), 40 rows"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["raw", "calibrated", "as said"]
    assert len(curves_of(drawings(board(with_calibration=False))["reliability"].draw())) == 1


def test_equal_rows_give_equal_files(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save_png(drawings(board(with_calibration=True))["reliability"].draw(), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
