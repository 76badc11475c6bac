"""What the picture of a forecast says."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from forecaster.evaluation.plots import draw_forecast
from forecaster.records import Label
from forecaster.tasks.distributions import BINS, Distribution, climatology

USUAL = climatology({Label("up", 0): 4})
FORECAST = Distribution((0.05, 0.03, 0.05, 0.08, 0.12, 0.12, 0.2, 0.15, 0.1, 0.05, 0.02, 0.03))


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in (*figure.axes[0].texts, *figure.legends[0].get_texts())]


def test_bars_of_the_forecast_stand_in_front_of_what_happened_before() -> None:
    figure = draw_forecast("AAPL, a week", "forecast", FORECAST, USUAL, "AAPL in training (4 rows)")
    (axes,) = figure.axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights[:12] == pytest.approx([*[1 / 16] * 6, 5 / 16, *[1 / 16] * 5])
    assert heights[12:] == pytest.approx(FORECAST.shares)
    assert axes.get_title(loc="left") == (
        "AAPL, a week\nP(up) 55%, median up by 0-1%, 80 % from down by 3-4% to up by 2-3%"
    )
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        *("over 5", "4-5", "3-4", "2-3", "1-2", "0-1"),
        *("0-1", "1-2", "2-3", "3-4", "4-5", "over 5"),
    ]
    assert words(figure) == [
        *("median", "80 %", "down by so many percent", "up by so many percent"),
        *("forecast", "AAPL in training (4 rows)"),
    ]
    spans = [[float(at) for at in line.get_xdata()] for line in axes.lines[1:]]
    assert spans == [[1.6, 8.4], [1.6, 1.6], [8.4, 8.4], [6.0]]


def test_a_certain_forecast_has_no_ticks_above_one() -> None:
    certain = Distribution(tuple(float(label == Label("down", 5)) for label in BINS))
    figure = draw_forecast("a prompt", "forecast", certain, None)
    (axes,) = figure.axes
    assert "80 % within down by more than 5%" in axes.get_title(loc="left")
    assert max(axes.get_yticks()) == 1.0
    assert len(axes.patches) == 12
    assert words(figure)[-1] == "forecast"
