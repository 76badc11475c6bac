"""The look that all pictures share, and the files that they become."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib.figure import Figure

from forecaster.evaluation.plots.style import (
    fill_look,
    legend_below,
    line_look,
    number,
    save_png,
    save_svg,
    styled,
    svg_text,
    wrapped,
)

SVG = "{http://www.w3.org/2000/svg}"


@styled()
def _figure(title: str = "Title") -> Figure:
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    (line,) = axes.plot([1, 2, 3], [3, 1, 2], **line_look(0))
    axes.bar([1, 2], [1, 2], **fill_look(2))
    axes.set_title(title)
    legend_below(figure, [(line, "run")], columns=2)
    return figure


def test_equal_figures_give_equal_files_and_others_do_not(tmp_path: Path) -> None:
    for name, title in (("a", "Title"), ("b", "Title"), ("c", "Another")):
        save_png(_figure(title), tmp_path / f"{name}.png")
        save_svg(_figure(title), tmp_path / f"{name}.svg")
    for ending in ("png", "svg"):
        first, second, third = (tmp_path.joinpath(f"{name}.{ending}").read_bytes() for name in "abc")
        assert first == second != third


def test_a_figure_can_be_saved_twice_and_as_both_kinds() -> None:
    figure = _figure()
    assert svg_text(figure) == svg_text(figure) == svg_text(_figure())


def test_the_users_own_settings_change_nothing() -> None:
    plain = svg_text(_figure())
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "none", "axes.facecolor": "red"}):
        assert svg_text(_figure()) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_an_svg_is_one_element_of_outlines_without_date_program_or_numbered_groups() -> None:
    text = svg_text(_figure())
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert text.startswith("<svg ")
    assert list(root.iter(f"{SVG}text")) == []
    assert len(list(root.iter(f"{SVG}use"))) > 20
    for word in ("Matplotlib", "matplotlib", "<!--", "dc:date", 'id="text_', 'id="axes_', "DejaVu"):
        assert word not in text


def test_every_reference_within_an_svg_has_its_target() -> None:
    root = ElementTree.fromstring(svg_text(_figure()))
    ids = {element.get("id") for element in root.iter()}
    links = {element.get("{http://www.w3.org/1999/xlink}href") for element in root.iter(f"{SVG}use")}
    clips = {element.get("clip-path") for element in root.iter()} - {None}
    assert links and clips
    assert {str(link).removeprefix("#") for link in links} <= ids
    assert {str(clip).removeprefix("url(#").removesuffix(")") for clip in clips} <= ids


def test_a_png_names_no_program(tmp_path: Path) -> None:
    save_png(_figure(), tmp_path / "a.png")
    assert b"Software" not in (tmp_path / "a.png").read_bytes()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["_base", "$a$ and $b$", "a\nb", "", "x" * 500, "100% & <b>"])
def test_any_name_can_stand_in_a_title_and_a_legend(name: str) -> None:
    figure = _figure(wrapped(name))
    legend_below(figure, [(figure.axes[0].lines[0], name)], columns=1)
    assert ElementTree.fromstring(svg_text(figure)).tag == f"{SVG}svg"
    assert figure.legends[-1].get_texts()[0].get_text() == wrapped(name, 40)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("short", "short"),
        ("  two \n words ", "two words"),
        ("exactly-12-ch", "exactly-12-\nch"),
        ("Qwen/Qwen2.5-7B", "Qwen/\nQwen2.5-7B"),
        ("abcdefghijklmnop", "abcdefghijkl\nmnop"),
        ("aaaa-bbbbbbbbbbbb-c", "aaaa-bbbbbbb\nbbbbb-c"),
        ("start-of-a-very-long-name-to-its-end", "start-of-a-…\ne-to-its-end"),
        ("", ""),
    ],
)
def test_names_are_broken_where_they_can_be(name: str, expected: str) -> None:
    assert wrapped(name, 12) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (0.25, "0.25"),
        (0.30347, "0.3035"),
        (5e-05, "5e-5"),
        (-2.5e-4, "-2.5e-4"),
        (13209.78, "13,210"),
        (2.5e8, "2.5e8"),
        (float("nan"), "not finite"),
        (float("-inf"), "not finite"),
    ],
)
def test_numbers_are_short(value: float, expected: str) -> None:
    assert number(value) == expected


def test_the_looks_of_many_lines_and_of_six_bars_differ() -> None:
    assert len({str(line_look(place)) for place in range(140)}) == 140
    assert len({str(fill_look(place)) for place in range(6)}) == 6
