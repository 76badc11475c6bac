"""Pictures of datasets: written, readable, and not empty, whatever was left out."""

from __future__ import annotations

import struct
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from forecaster.evaluation.plots import draw_dataset, draw_description


def _size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


FIRST_FRIDAY = date(2025, 1, 3)


def _friday(week: int) -> date:
    return FIRST_FRIDAY + timedelta(weeks=week)


def _states(symbols: int, weeks: int) -> dict[tuple[str, date], str]:
    """Three quarters of the weeks for training, one week apart, the rest for testing."""
    last = weeks * 3 // 4
    kinds = ["train"] * last + ["gap"] + ["test"] * (weeks - last - 1)
    return {(f"S{s:03d}", _friday(w)): kinds[w] for s in range(symbols) for w in range(weeks)}


ARTICLES = {("S000", _friday(week)): 10 * week for week in range(12)}
LABELS = {"train": ["up by 0-1%"] * 3 + ["down by more than 5%"], "test": ["down by 1-2%"]}
RETURNS = [0.5, 0.7, 0.0, -6.2, -1.5]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def _panel(figure: Figure, title: str) -> Axes:
    (found,) = [axes for axes in figure.axes if axes.get_title().startswith(title)]
    return found


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [" ".join(text.get_text().split()) for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("symbols", "weeks", "height"),
    [
        pytest.param(4, 12, 915, id="few symbols"),
        pytest.param(110, 60, 2640, id="an index"),
        pytest.param(400, 4, 2910, id="more symbols than the page has room for"),
    ],
)
def test_the_picture_of_a_dataset_grows_with_its_symbols(
    symbols: int, weeks: int, height: int, tmp_path: Path
) -> None:
    draw_dataset(tmp_path / "overview.png", _states(symbols, weeks), ARTICLES, LABELS, RETURNS)
    assert _size(tmp_path / "overview.png") == (1800, height)
    grey = imread(tmp_path / "overview.png")[:, :, 0]
    # The three lower panels: some ink in each, and mostly paper.
    for left in (0, 600, 1200):
        assert 0.01 < (grey[-510:, left : left + 600] < 0.5).mean() < 0.5


def test_every_symbol_week_is_counted_in_the_legend(tmp_path: Path, drawn: list[Figure]) -> None:
    words = [
        "train",
        "train",
        "test",
        "gap",
        "no usable answer from the teacher",
        "no news in its past weeks",
        "no closing price at the week's start or end",
        "the price vendor does not serve the symbol",
        "fewer than 4 past weeks with prices",
        "something new",
    ]
    states = {("AB"[week % 2], _friday(week)): word for week, word in enumerate(words)}
    draw_dataset(tmp_path / "overview.png", states, ARTICLES, LABELS, RETURNS)
    assert _legend(_panel(drawn[0], "Coverage (symbols: 2, weeks: 10)")) == [
        "train (2)",
        "test (1)",
        "gap, between training and test (1)",
        "no usable answer from the teacher (1)",
        "no news in its past weeks (1)",
        "without prices, or too few past weeks (3)",
        "another reason (1)",
        "not a member (10)",
    ]


def test_no_two_kinds_of_symbol_weeks_look_alike(tmp_path: Path, drawn: list[Figure]) -> None:
    words = ["train", "test", "gap", "no usable answer from the teacher"]
    words += ["no news in its past weeks", "fewer than 4 past weeks with prices", "something new"]
    states = {("A", _friday(week)): word for week, word in enumerate(words)}
    draw_dataset(tmp_path / "overview.png", states, ARTICLES, LABELS, RETURNS)
    kinds = _panel(drawn[0], "Coverage").collections
    assert len({(str(kind.get_facecolor()), kind.get_hatch()) for kind in kinds}) == 7


def test_every_axis_says_what_it_shows(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_dataset(tmp_path / "overview.png", _states(4, 12), ARTICLES, LABELS, RETURNS)
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in drawn[0].axes] == [
        ("end of the week", "symbol"),
        ("share of the split's rows (%)", ""),
        ("end of the week", "articles per symbol and week"),
        ("weekly return (%)", "rows"),
    ]
    words = [text.get_text() for text in _panel(drawn[0], "Labels").get_yticklabels()]
    assert (words[0], words[5], words[6], words[11]) == (
        "down by more than 5%",
        "down by 0-1%",
        "up by 0-1%",
        "up by more than 5%",
    )


def test_labels_are_shares_of_their_split(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_dataset(tmp_path / "overview.png", _states(4, 12), ARTICLES, LABELS, RETURNS)
    panel = _panel(drawn[0], "Labels")
    assert _legend(panel) == ["train (4 rows)", "test (1 rows)"]
    widths = [bar.get_width() for bar in panel.patches]
    assert widths[:12] == [25, 0, 0, 0, 0, 0, 75, 0, 0, 0, 0, 0]
    assert widths[12:] == [0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0]


def test_articles_are_the_median_of_the_symbols(tmp_path: Path, drawn: list[Figure]) -> None:
    articles = {("A", _friday(0)): 1, ("B", _friday(0)): 4, ("C", _friday(0)): 30, ("A", _friday(1)): 7}
    draw_dataset(tmp_path / "overview.png", _states(4, 12), articles, LABELS, RETURNS)
    (line,) = _panel(drawn[0], "Articles").lines
    assert list(line.get_ydata()) == [4, 7]


def test_a_return_far_outside_is_counted_in_the_outer_bar(tmp_path: Path, drawn: list[Figure]) -> None:
    returns = [0.5] * 200 + [-0.5] * 100 + [80.0]
    draw_dataset(tmp_path / "overview.png", _states(4, 12), ARTICLES, LABELS, returns)
    panel = _panel(drawn[0], "Weekly returns")
    assert [bar.get_height() for bar in panel.patches] == [0, 0, 0, 0, 0, 100, 200, 0, 0, 0, 0, 1]
    assert _legend(panel) == ["301 rows (1 in the outer bars lie beyond)"]


def test_many_symbols_and_weeks_have_room_for_their_names(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_dataset(tmp_path / "overview.png", _states(400, 60), ARTICLES, LABELS, RETURNS)
    panel = _panel(drawn[0], "Coverage")
    assert [text.get_text() for text in panel.get_yticklabels()][:3] == ["S000", "S003", "S006"]
    assert [text.get_text() for text in panel.get_xticklabels()][:2] == ["2025-01-03", "2025-02-14"]


def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_dataset(tmp_path / name, _states(4, 12), ARTICLES, LABELS, RETURNS)
        draw_description(
            tmp_path / f"d{name}", {"train": {"up by 0-1%": 2}}, {"train": [3, 4]}, {"train": [5]}
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "da.png").read_bytes() == (tmp_path / "db.png").read_bytes()


@pytest.mark.filterwarnings("error")
def test_a_dataset_with_nothing_in_it_has_its_pictures_too(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "overview.png", {}, {}, {"train": [], "test": []}, [])
    draw_description(tmp_path / "description.png", {"train": {}}, {"train": []}, {"train": []})
    assert _size(tmp_path / "overview.png") == (1800, 915)
    assert _size(tmp_path / "description.png") == (1800, 570)


def test_a_description_shows_labels_and_both_lengths(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_description(
        tmp_path / "description.png",
        {"train": {"up by 0-1%": 3, "other": 1}, "test": {"up by 0-1%": 2}},
        {"train": [100, 200, 300, 400], "test": [150, 250]},
        {"train": [10, 20, 30, 40], "test": [15, 25]},
        "tokens",
    )
    assert _size(tmp_path / "description.png") == (1800, 570)
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == ["Labels", "Prompts", "Answers"]
    assert _panel(figure, "Labels").get_yticklabels()[0].get_text() == "other"
    assert _panel(figure, "Labels").patches[0].get_width() == 25
    assert _panel(figure, "Prompts").get_xlabel() == "length of a prompt (tokens)"
    assert _legend(_panel(figure, "Answers")) == ["train (4 rows)", "test (2 rows)"]
