"""Pictures of scores: what is drawn is what was given, at one model, at six, and with figures missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from forecaster.evaluation.plots import (
    Bar,
    CheckpointPoint,
    draw_accuracy,
    draw_checkpoints,
    draw_confusion,
    draw_equity,
    draw_mse,
    draw_rouge,
    draw_shares_by_symbol,
    draw_shares_by_week,
    save_png,
    svg_text,
)

pytestmark = pytest.mark.filterwarnings("error")

NAMES = [
    "base",
    "Llama-3.1-8B LoRA",
    "Qwen/Qwen2.5-7B-Instruct-lora_r=16_alpha=32_seed_1234_epoch5",
    "d",
    "e",
    "f",
]
WEEKS = [date(2024, 3, 3) + timedelta(weeks=week) for week in range(4)]
BARS = [
    Bar("tuned", 0.55, 0.48, 0.62, False),
    Bar("mute", None, None, None, False),
    Bar("always up", 0.46, None, None, True),
]


@dataclass(frozen=True)
class Equity:
    weeks: tuple[date, ...]
    equity: tuple[float, ...]
    band_low: tuple[float, ...] = ()
    band_high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Line:
    name: str
    bin_acc: float | None
    mse: float | None


HOLD = Equity(tuple(WEEKS), (1.0, 1.02, 1.01, 1.03, 1.05))
TRADED = Equity(
    tuple(WEEKS), (1.0, 0.99, 1.0, 1.01, 0.98), (1.0, 0.98, 0.97, 0.96, 0.95), (1.0, 1.02, 1.03, 1.04, 1.05)
)
STRATEGIES = {"long/short": TRADED, "long/flat": TRADED, "buy and hold": HOLD}
POINTS = [
    CheckpointPoint(40, 0.50, 9.0, 1.0),
    CheckpointPoint(20, 0.48, 10.0, 0.9),
    CheckpointPoint(60, None, None, 0.0),
]


def _rouge(value: float) -> dict[str, dict[str, float]]:
    sections = ("pros_rouge_scores", "cons_rouge_scores", "anal_rouge_scores")
    return {section: {"rouge1": value, "rouge2": value / 2, "rougeL": value / 4} for section in sections}


def _counts(**cells: int) -> np.ndarray:
    counts = np.zeros((12, 13), dtype=int)
    for place, count in cells.items():
        line, column = place.strip("c").split("_")
        counts[int(line), int(column)] = count
    return counts


def _words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def _legend(of: Figure | Axes) -> list[str]:
    legend = of.legends[0] if isinstance(of, Figure) else of.get_legend()
    return [text.get_text().replace("\n", " ") for text in legend.get_texts()]


# --- accuracy and error -------------------------------------------------------------------------------------


def test_bars_have_the_length_of_their_figures_and_baselines_are_lighter() -> None:
    (axes,) = draw_accuracy(BARS, "actual: 46 % of 300 rows rose").axes
    tuned, always_up = axes.patches
    assert (tuned.get_width(), always_up.get_width()) == (0.55, 0.46)
    assert sum(tuned.get_facecolor()[:3]) < sum(always_up.get_facecolor()[:3])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["tuned", "mute", "always up"]
    assert _words(axes) == ["0.550  [0.480, 0.620]", "no readable answer", "0.460"]
    assert axes.get_xlabel() == "share of right directions, with 95 % interval\nactual: 46 % of 300 rows rose"
    assert axes.get_xlim() == (0, 1)


def test_an_interval_is_a_whisker_and_a_coin_a_dotted_line() -> None:
    (axes,) = draw_accuracy(BARS).axes
    whiskers = [line for line in axes.lines if list(line.get_xdata()) == [0.48, 0.62]]
    assert {tuple(line.get_ydata()) for line in whiskers} == {(0, 0)}
    (coin,) = [line for line in axes.lines if list(line.get_xdata()) == [0.5, 0.5]]
    assert coin.get_linestyle() == ":"
    assert len(axes.lines) == len(whiskers) + 1


def test_errors_are_in_percent_squared_and_their_axis_holds_every_whisker() -> None:
    (axes,) = draw_mse([Bar("m", 7.0, 5.0, 20.0, False), Bar("zero forecast", 8.0, 7.5, 8.5, True)]).axes
    assert axes.get_xlabel() == "percent squared, with 95 % interval; less is better"
    assert axes.get_xlim() == (0, 21.0)
    assert _words(axes) == ["7.00  [5.00, 20.00]", "8.00  [7.50, 8.50]"]


# --- ROUGE --------------------------------------------------------------------------------------------------


def test_rouge_has_a_panel_a_section_and_a_bar_a_model() -> None:
    figure = draw_rouge({"a": _rouge(0.4), "b": _rouge(0.2), "mute": None})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Positive developments", "Potential concerns", "Prediction and analysis"]
    for axes in figure.axes:
        assert [bar.get_height() for bar in axes.patches] == [0.4, 0.2, 0.1, 0.2, 0.1, 0.05]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["ROUGE-1", "ROUGE-2", "ROUGE-L"]
    assert figure.axes[0].get_ylabel() == "mean F-measure"
    assert _legend(figure) == ["a", "b", "mute (no readable answer)"]
    looks = {(str(h.get_facecolor()), h.get_hatch()) for h in figure.legends[0].legend_handles}
    assert len(looks) == 3


def test_bars_of_six_models_do_not_touch() -> None:
    figure = draw_rouge({name: _rouge(0.4) for name in NAMES})
    for axes in figure.axes:
        spans = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches)
        assert len(spans) == 18
        assert all(end < start for (_, end), (start, _) in pairwise(spans))


# --- forecast against outcome -------------------------------------------------------------------------------


def test_counts_stand_in_their_cells_and_more_rows_are_darker() -> None:
    figure = draw_confusion({"m": _counts(c0_11=2, c5_5=8, c6_12=1)})
    (axes,) = figure.axes
    assert [(*text.get_position(), text.get_text()) for text in axes.texts] == [
        (11, 0, "2"),
        (5, 5, "8"),
        (12, 6, "1"),
    ]
    cells, frames = (c for c in axes.collections if isinstance(c, PathCollection))
    assert cells.get_offsets().tolist() == [[11, 0], [5, 5], [12, 6]]
    two, eight, one = (shade[0] for shade in cells.get_facecolors())
    assert eight < two < one
    assert [text.get_color() for text in axes.texts] == ["black", "white", "black"]
    assert frames.get_offsets().tolist() == [[at, at] for at in range(12)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "actual")


def test_bins_run_from_the_strongest_fall_to_the_strongest_rise() -> None:
    (axes,) = draw_confusion({"m": _counts()}).axes
    actual = [label.get_text() for label in axes.get_yticklabels()]
    assert actual[:2] + actual[5:7] + actual[-1:] == [
        "down >5%",
        "down 4-5%",
        "down 0-1%",
        "up 0-1%",
        "up >5%",
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == [*actual, "unreadable"]
    # The strongest fall on top.
    assert axes.get_ylim() == (11.5, -0.5)


def test_counts_may_be_plain_tuples_and_a_wrong_shape_is_refused() -> None:
    plain = tuple(tuple(int(count) for count in line) for line in _counts(c1_2=3))
    assert _words(draw_confusion({"m": plain}).axes[0]) == ["3"]
    with pytest.raises(ValueError, match=r"m: counts of shape \(12, 12\) are not 12 x 13"):
        draw_confusion({"m": np.zeros((12, 12))})


def test_three_tables_name_their_bins_once_a_line_and_once_a_column() -> None:
    figure = draw_confusion({name: _counts(c1_2=3) for name in NAMES[:3]})
    first, second, third, unused = figure.axes
    assert [axes.get_ylabel() for axes in (first, second, third)] == ["actual", "", "actual"]
    assert [axes.get_xlabel() for axes in (first, second, third)] == ["", "predicted", "predicted"]
    assert not unused.axison


# --- by symbol, by week -------------------------------------------------------------------------------------


def test_shares_by_symbol_are_dots_and_symbols_without_rows_have_none() -> None:
    figure = draw_shares_by_symbol(
        {"a": {"MSFT": (3, 4), "AAPL": (1, 2), "XOM": (0, 0)}, "b": {"XOM": (1, 10)}}
    )
    first, second = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["AAPL", "MSFT", "XOM"]
    (dots,) = [line for line in first.lines if line.get_marker() == "o"]
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([0.5, 0.75], [0, 1])
    (dots,) = [line for line in second.lines if line.get_marker() == "o"]
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([0.1], [2])
    assert [axes.get_xlabel() for axes in figure.axes] == ["2 to 4 rows a symbol", "10 rows a symbol"]
    assert figure.get_supxlabel() == "share of right directions"


def test_a_hundred_symbols_have_room_for_their_names() -> None:
    shares = {"m": {f"S{place:03d}": (5, 10) for place in range(100)}}
    figure = draw_shares_by_symbol(shares)
    figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(labels) == 100
    assert all(above.y0 >= below.y1 for above, below in pairwise(labels))


def test_shares_by_week_are_a_line_before_the_share_of_rises() -> None:
    by_week = {WEEKS[0]: (3, 4), WEEKS[2]: (1, 2), WEEKS[3]: (0, 0)}
    rises = dict(zip(WEEKS, (0.2, 0.4, 0.6, 0.8), strict=True))
    figure = draw_shares_by_week({"m": by_week}, rises)
    (axes,) = figure.axes
    (line,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert list(line.get_xdata()) == list(date2num(WEEKS))
    np.testing.assert_array_equal(line.get_ydata(), [0.75, np.nan, 0.5, np.nan])
    assert [bar.get_height() for bar in axes.patches] == [0.2, 0.4, 0.6, 0.8]
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(week) for week in WEEKS]
    assert _legend(figure) == ["right directions", "actual rises"]


# --- over time ----------------------------------------------------------------------------------------------


def test_capital_has_a_panel_a_strategy_with_its_band_and_buy_and_hold_dashed() -> None:
    figure = draw_equity({"m": STRATEGIES})
    assert [axes.get_title() for axes in figure.axes] == ["m\nlong/short", "m\nlong/flat"]
    for axes in figure.axes:
        traded, held, level = axes.lines
        assert list(traded.get_ydata()) == [1.0, 0.99, 1.0, 1.01, 0.98]
        assert list(traded.get_xdata()) == list(date2num([WEEKS[0] - timedelta(weeks=1), *WEEKS]))
        assert list(held.get_ydata()) == [1.0, 1.02, 1.01, 1.03, 1.05]
        assert (traded.get_linestyle(), held.get_linestyle(), list(level.get_ydata())) == ("-", "--", [1, 1])
        (band,) = axes.collections
        assert {0.95, 1.05} <= set(band.get_paths()[0].vertices[:, 1].tolist())
    assert figure.axes[0].get_ylabel() == "capital (start = 1)"
    assert _legend(figure) == ["strategy", "buy and hold", "shuffled directions, 5 % to 95 %"]


def test_a_model_without_a_backtest_has_no_panel() -> None:
    figure = draw_equity({"mute": {}, "m": STRATEGIES, "only held": {"buy and hold": HOLD}})
    assert [axes.get_title() for axes in figure.axes] == [
        "m\nlong/short",
        "m\nlong/flat",
        "only held\nlong/short",
        "only held\nlong/flat",
    ]
    assert [len(axes.lines) for axes in figure.axes] == [3, 3, 2, 2]


def test_capital_that_grows_tenfold_is_logarithmic() -> None:
    rich = Equity(tuple(WEEKS), (1.0, 2.0, 4.0, 8.0, 16.0))
    assert draw_equity({"m": {"long/short": rich}}).axes[0].get_yscale() == "log"
    lost = Equity(tuple(WEEKS), (1.0, 2.0, 4.0, 16.0, 0.0))
    assert draw_equity({"m": {"long/short": lost}}).axes[0].get_yscale() == "linear"


def test_checkpoints_are_in_order_and_the_best_one_is_ringed() -> None:
    lines = [Line("always up", 0.46, None), Line("zero forecast", None, 7.13)]
    figure = draw_checkpoints(POINTS, 40, lines)
    accuracy, error, coverage = figure.axes
    assert (list(accuracy.lines[0].get_xdata()), list(accuracy.lines[0].get_ydata())) == (
        [20, 40],
        [0.48, 0.5],
    )
    assert list(error.lines[0].get_ydata()) == [10.0, 9.0]
    assert list(coverage.lines[0].get_ydata()) == [0.9, 1.0, 0.0]
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "share of right directions",
        "percent squared",
        "share of rows",
    ]
    for axes in figure.axes:
        ring = axes.lines[1]
        assert (list(ring.get_xdata()), ring.get_markersize()) == ([40], 11)
    assert _legend(figure) == ["best checkpoint: step 40"]
    assert (_legend(accuracy), _legend(error)) == (["always up: 0.46"], ["zero forecast: 7.13"])


def test_without_a_best_checkpoint_nothing_is_ringed() -> None:
    figure = draw_checkpoints(POINTS, None)
    assert figure.legends == []
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 1]


# --- all of them --------------------------------------------------------------------------------------------

DRAWINGS: dict[str, Callable[[int], Figure]] = {
    "accuracy": lambda n: draw_accuracy([Bar(name, 0.5, 0.4, 0.6, False) for name in NAMES[:n]]),
    "mse": lambda n: draw_mse([Bar(name, 9.0, 8.0, 10.0, False) for name in NAMES[:n]]),
    "rouge": lambda n: draw_rouge({name: _rouge(0.4) for name in NAMES[:n]}),
    "confusion": lambda n: draw_confusion({name: _counts(c1_2=3) for name in NAMES[:n]}),
    "symbol": lambda n: draw_shares_by_symbol({name: {"AAPL": (1, 2), "XOM": (3, 4)} for name in NAMES[:n]}),
    "week": lambda n: draw_shares_by_week({n: dict.fromkeys(WEEKS, (1, 2)) for n in NAMES[:n]}, {}),
    "equity": lambda n: draw_equity(dict.fromkeys(NAMES[:n], STRATEGIES)),
    "checkpoints": lambda n: draw_checkpoints(
        [CheckpointPoint(20 * (i + 1), 0.5, 9.0, 1.0) for i in range(n)], 20
    ),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_equal_scores_give_equal_files(name: str, tmp_path: Path) -> None:
    for file in ("a.png", "b.png"):
        save_png(DRAWINGS[name](2), tmp_path / file)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert svg_text(DRAWINGS[name](2)) == svg_text(DRAWINGS[name](2)) != svg_text(DRAWINGS[name](1))


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_picture_of_six_models_is_whole_and_small(name: str) -> None:
    text = svg_text(DRAWINGS[name](6))
    assert ElementTree.fromstring(text).tag.endswith("}svg")
    assert len(text) < 150_000


@pytest.mark.parametrize("name", DRAWINGS)
def test_no_scores_are_said_in_words(name: str) -> None:
    assert all("no scores" in _words(axes) for axes in DRAWINGS[name](0).axes)


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("count", [1, 6])
def test_nothing_is_cut_off_at_the_edges(name: str, count: int) -> None:
    figure = DRAWINGS[name](count)
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    box = figure.get_tightbbox()
    dots = figure.dpi
    assert box.x0 * dots >= -1 and box.y0 * dots >= -1
    assert box.x1 * dots <= width + 1 and box.y1 * dots <= height + 1


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_shade_is_grey(name: str) -> None:
    figure = DRAWINGS[name](6)
    lines = [line.get_color() for axes in figure.axes for line in axes.lines if line.get_color() != "none"]
    fills = [patch.get_facecolor()[:3] for axes in figure.axes for patch in axes.patches]
    assert lines or fills
    assert all(len(set(to_rgb(shade))) == 1 for shade in [*lines, *fills])


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda: draw_accuracy([Bar("mute", None, None, None, False)]), id="accuracy"),
        pytest.param(lambda: draw_mse([Bar("mute", None, None, None, False)]), id="mse"),
        pytest.param(lambda: draw_rouge({"mute": None}), id="rouge"),
        pytest.param(lambda: draw_checkpoints([CheckpointPoint(1, None, None, None)], 1), id="checkpoints"),
    ],
)
def test_a_model_without_a_readable_answer_says_so(draw: Callable[[], Figure]) -> None:
    figure = draw()
    assert all("no readable answer" in _words(axes) for axes in figure.axes)
    assert svg_text(figure)


def test_models_without_rows_have_their_panels_too() -> None:
    by_week = draw_shares_by_week({"mute": {}, "m": {WEEKS[0]: (1, 2)}}, {})
    assert [_words(axes) for axes in by_week.axes] == [["no scores"], []]
    by_symbol = draw_shares_by_symbol({"mute": {}, "m": {"XOM": (1, 2)}})
    assert [axes.get_xlabel() for axes in by_symbol.axes] == ["no rows a symbol", "2 rows a symbol"]
    assert svg_text(by_week) and svg_text(by_symbol)
