"""Pictures of trainings: every curve and bar is that of its log, and nothing missing is made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, isnan, nan
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from forecaster.evaluation.plots import (
    draw_loss_by_step,
    draw_loss_by_time,
    draw_schedule,
    draw_throughput,
    save_png,
    svg_text,
)
from forecaster.evaluation.training_log import TrainingLog, read_training_log, training_log

pytestmark = pytest.mark.filterwarnings("error")

Draw = Callable[[Mapping[str, TrainingLog]], Figure]
ALL: tuple[Draw, ...] = (draw_loss_by_step, draw_loss_by_time, draw_schedule, draw_throughput)
FULL = training_log(
    [
        {"step": 10, "epoch": 0.5, "loss": 2.0, "learning_rate": 1e-4, "grad_norm": 4.0, "elapsed_s": 60.0},
        {"step": 10, "epoch": 0.5, "eval_loss": 1.8, "eval_runtime": 3.0, "eval_samples_per_second": 6.0},
        {"step": 20, "epoch": 1.0, "loss": 1.0, "learning_rate": 5e-5, "grad_norm": 2.0, "elapsed_s": 120.0},
        {"step": 20, "epoch": 1.0, "eval_loss": 1.5, "eval_runtime": 3.0, "eval_steps_per_second": 2.0},
        {
            "train_runtime": 150.0,
            "train_samples_per_second": 8.0,
            "train_steps_per_second": 0.5,
            "epoch": 1.0,
        },
    ]
)
OLD = training_log(
    [
        {"loss": 14.0, "learning_rate": 4e-5, "grad_norm": 5.0, "epoch": 0.5},
        {"loss": 0.5, "learning_rate": 5e-5, "grad_norm": 0.01, "epoch": 1.0},
        {"eval_loss": 0.45, "epoch": 1.0},
        {"loss": 0.4, "learning_rate": 5e-5, "grad_norm": 0.1, "epoch": 2.0},
        {"train_runtime": 14400.0, "epoch": 2.0},
    ]
)
STOPPED = training_log([])
DIVERGED = training_log(
    [{"step": step, "loss": loss, "grad_norm": inf} for step, loss in [(1, 3.0), (2, nan), (3, 2.0)]]
)


def _curves(axes: Axes) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]


def _legend(figure: Figure) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]


def _words(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_the_loss_is_drawn_over_steps_as_a_line_and_markers() -> None:
    figure = draw_loss_by_step({"run": FULL})
    (axes,) = figure.axes
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == (
        "Loss by step",
        "optimizer step",
        "loss (nats per token)",
        "linear",
    )
    assert _curves(axes) == [([10, 20], [2.0, 1.0]), ([10, 20], [1.8, 1.5])]
    training, evaluation = axes.lines
    assert (training.get_linestyle(), evaluation.get_linestyle(), evaluation.get_marker()) == (
        "-",
        "None",
        "o",
    )
    assert _legend(figure) == ["run", "line: training", "marker: evaluation"]


def test_a_loss_that_falls_far_is_logarithmic_and_its_later_part_is_shown_closer_up() -> None:
    whole, close_up = draw_loss_by_step({"old": OLD}).axes
    assert (whole.get_yscale(), close_up.get_yscale()) == ("log", "linear")
    assert (whole.get_xlabel(), close_up.get_xlabel()) == ("epoch", "epoch")
    assert whole.get_title() == "Loss by epoch: whole run"
    assert whole.get_ylabel() == "loss (nats per token), logarithmic"
    low, high = close_up.get_ylim()
    assert close_up.get_xlim()[0] == 0.5
    # The first epoch's 14.0 lies at a quarter of the run, and is still in view.
    assert low < 0.4 and high > 14.0
    low, high = (
        draw_loss_by_step({"late": training_log([{"loss": 20.0, "epoch": 0.1}, *_entries()])})
        .axes[1]
        .get_ylim()
    )
    assert (low, high) == (pytest.approx(0.3 - 0.08 * 0.2), pytest.approx(0.5 + 0.08 * 0.2))


def _entries() -> list[dict[str, float]]:
    return [{"loss": 0.5, "epoch": 1.0}, {"eval_loss": 0.3, "epoch": 2.0}, {"loss": 0.4, "epoch": 2.0}]


def test_a_loss_of_zero_is_not_put_on_a_logarithmic_axis() -> None:
    log = training_log([{"loss": 14.0, "step": 1}, {"loss": 0.0, "step": 2}])
    assert [axes.get_yscale() for axes in draw_loss_by_step({"m": log}).axes] == ["linear"]


def test_time_is_in_minutes_and_an_estimated_time_says_so() -> None:
    (axes,) = draw_loss_by_time({"run": FULL}).axes
    assert axes.get_xlabel() == "training time in minutes"
    assert _curves(axes) == [([1.0, 2.0], [2.0, 1.0]), ([1.0, 2.0], [1.8, 1.5])]
    whole, _ = draw_loss_by_time({"old": OLD}).axes
    assert whole.get_xlabel() == "training time in hours (time estimated)"
    assert _curves(whole)[0] == ([1.0, 2.0, 4.0], [14.0, 0.5, 0.4])


def test_where_only_one_time_is_estimated_its_name_says_so() -> None:
    figure = draw_loss_by_time({"run": FULL, "old": OLD})
    assert figure.axes[0].get_xlabel() == "training time in hours"
    assert _legend(figure)[:2] == ["run", "old (time estimated)"]


def test_runs_share_epochs_where_one_has_no_steps() -> None:
    figure = draw_loss_by_step({"run": FULL, "old": OLD})
    assert figure.axes[0].get_xlabel() == "epoch"
    assert _curves(figure.axes[0])[0] == ([0.5, 1.0], [2.0, 1.0])


def test_six_runs_have_six_looks_in_grey() -> None:
    figure = draw_loss_by_step({f"run {i}": FULL for i in range(6)})
    handles = figure.legends[0].legend_handles[:6]
    looks = {(h.get_color(), h.get_linestyle(), h.get_marker()) for h in handles}
    assert len(looks) == 6
    assert all(len(set(to_rgb(color))) == 1 for color, _, _ in looks)


def test_learning_rate_and_gradient_stand_side_by_side() -> None:
    left, right = draw_schedule({"run": FULL}).axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("learning rate", "norm of the gradient")
    assert _curves(left) == [([10, 20], [1e-4, 5e-5])]
    assert _curves(right) == [([10, 20], [4.0, 2.0])]
    assert (left.get_ylim()[0], right.get_ylim()[0], right.get_yscale()) == (0, 0, "linear")


def test_a_gradient_that_spans_more_than_a_hundredfold_is_logarithmic() -> None:
    right = draw_schedule({"old": OLD}).axes[1]
    assert (right.get_yscale(), right.get_ylabel()) == ("log", "norm of the gradient (logarithmic)")


def test_bars_of_speed_have_the_length_of_their_figures() -> None:
    figure = draw_throughput({"run": FULL, "other": STOPPED})
    found = [(axes.get_xlabel(), [bar.get_width() for bar in axes.patches]) for axes in figure.axes]
    assert found == [
        ("optimizer steps per second", [0.5]),
        ("rows per second", [8.0]),
        ("minutes", [2.5]),
        ("batches per second", [2.0]),
        ("rows per second", [6.0]),
        ("loss (nats per token)", [1.5]),
    ]
    assert _words(figure.axes[2]) == ["2.5", "not recorded"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["run", "other"]


def test_a_long_training_is_in_hours() -> None:
    axes = draw_throughput({"old": OLD, "run": FULL}).axes[2]
    assert (axes.get_xlabel(), [bar.get_width() for bar in axes.patches]) == ("hours", [4.0, 150 / 3600])


def test_what_is_not_finite_leaves_a_gap_and_is_counted() -> None:
    figure = draw_loss_by_step({"bad": DIVERGED, "run": FULL})
    line = figure.axes[0].lines[0]
    assert isnan(line.get_ydata()[1])
    # No line reaches the two points between gaps: dots show them.
    assert (line.get_marker(), line.get_markevery()) == (".", [0, 2])
    assert _legend(figure)[:2] == ["bad (1 not finite)", "run"]
    assert _legend(draw_schedule({"bad": DIVERGED})) == ["bad (3 not finite)"]


@pytest.mark.parametrize("logs", [{}, {"stopped": STOPPED}])
def test_nothing_recorded_is_said_in_every_panel(logs: Mapping[str, TrainingLog]) -> None:
    for draw in ALL:
        for axes in draw(logs).axes:
            assert _words(axes) == ["not recorded"]


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize(
    "logs",
    [
        pytest.param({}, id="no run"),
        pytest.param({"stopped": STOPPED}, id="a run without a line"),
        pytest.param({"one": training_log([{"step": 5, "loss": 2.0}])}, id="a single point"),
        pytest.param({"bad": DIVERGED, "old": OLD, "full": FULL, "stopped": STOPPED}, id="all kinds"),
        pytest.param({"all nan": training_log([{"step": 1, "loss": nan, "eval_loss": nan}])}, id="nan"),
        pytest.param({"flat": training_log([{"step": s, "loss": 0.0} for s in (1, 2)])}, id="zero loss"),
        pytest.param({"same": training_log([{"step": 1, "loss": v} for v in (9.0, 0.1)])}, id="one step"),
        pytest.param({"_$a$_" * 40: FULL, "": OLD}, id="odd names"),
    ],
)
def test_every_log_has_its_pictures(draw: Draw, logs: Mapping[str, TrainingLog], tmp_path: Path) -> None:
    save_png(draw(logs), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert ElementTree.fromstring(svg_text(draw(logs))).tag.endswith("}svg")


@pytest.mark.parametrize("draw", ALL)
def test_equal_logs_give_equal_files(draw: Draw, tmp_path: Path) -> None:
    logs = {"old": OLD, "full": FULL}
    for name in ("a.png", "b.png"):
        save_png(draw(logs), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert svg_text(draw(logs)) == svg_text(draw(logs)) != svg_text(draw({"full": FULL}))


def test_two_published_runs_are_drawn_small(real_data: Path) -> None:
    logs = {
        path.stem: read_training_log(path) for path in sorted((real_data / "trainer_logs").glob("*.json"))
    }
    assert len(logs) == 2
    for draw in ALL:
        assert len(svg_text(draw(logs))) < 150_000
    whole, close_up = draw_loss_by_step(logs).axes
    assert whole.get_yscale() == "log"
    assert close_up.get_ylim()[1] < 0.4
