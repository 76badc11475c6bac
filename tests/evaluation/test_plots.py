"""The picture of a run: written, readable, and not empty, whatever the run left out."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from matplotlib.image import imread

from forecaster.evaluation.baselines import Baseline
from forecaster.evaluation.metrics import Metrics
from forecaster.evaluation.plots import draw_run

LOG = [
    {"step": 1, "loss": 3.5, "learning_rate": 1e-5},
    {"step": 10, "loss": 2.25},
    {"step": 10, "eval_loss": 2.5},
    {"step": 20, "loss": 1.5},
    {"step": 20, "eval_loss": 2.0},
    {"step": 20, "train_runtime": 12.0, "train_loss": 2.4},
]
GOOD = Metrics(300, 297, 0.542, 7.13, None, 1.0, {})
MUTE = Metrics(300, 0, None, None, None, None, {"no answer": 300})
LINES = [Baseline("always up", 0.458, None), Baseline("zero forecast", None, 7.13)]


def _size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def test_a_picture_of_two_panels_is_written(tmp_path: Path) -> None:
    draw_run(tmp_path / "report.png", LOG, {"base": MUTE, "fine-tuned": GOOD}, LINES)
    assert _size(tmp_path / "report.png") == (1500, 540)
    grey = imread(tmp_path / "report.png")[:, :, 0]
    # Axes, curves, bars and words: some ink on either side, and mostly paper.
    for half in (grey[:, :750], grey[:, 750:]):
        assert 0.01 < (half < 0.5).mean() < 0.5


def test_the_same_run_gives_the_same_bytes_and_another_one_does_not(tmp_path: Path) -> None:
    draw_run(tmp_path / "a.png", LOG, {"m": GOOD}, LINES)
    draw_run(tmp_path / "b.png", LOG, {"m": GOOD}, LINES)
    draw_run(tmp_path / "c.png", LOG[:3], {"m": GOOD}, LINES)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()


@pytest.mark.filterwarnings("ignore:No artists with labels found")
@pytest.mark.parametrize(
    ("log", "models"),
    [
        pytest.param([{"step": 10, "loss": 2.0}], {"m": GOOD}, id="no test loss"),
        pytest.param([], {"m": GOOD}, id="stopped before the first log line"),
        pytest.param(LOG, {"m": MUTE}, id="no readable answer"),
        pytest.param([{"step": 1, "loss": float("nan")}], {"m": GOOD}, id="a loss that is not a number"),
        pytest.param([{"step": 1, "loss": 0.0}], {"m": GOOD}, id="a loss of zero"),
    ],
)
def test_a_run_that_left_something_out_has_its_picture_too(
    log: list[dict[str, float]], models: dict[str, Metrics], tmp_path: Path
) -> None:
    draw_run(tmp_path / "report.png", log, models, LINES)
    assert _size(tmp_path / "report.png") == (1500, 540)
