"""How every picture looks and how it is saved: the same bytes everywhere, readable in black and white."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

PNG: dict[str, Any] = {"format": "png", "dpi": 150, "metadata": {"Software": None}}
"""How a figure is saved, so that equal figures give equal bytes."""
NOT_RECORDED = "not recorded"
_SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # A name with two dollar signs is no formula.
    "text.parse_math": False,
    # Letters as outlines look the same without the font.
    "svg.fonttype": "path",
    "svg.hashsalt": "forecaster",
}
_USER_SETTINGS_KEPT = ("backend", "backend_fallback", "interactive")

# Three cycles without a common divisor: the first 140 combinations differ.
_LINE_SHADES = ("black", "0.55", "0.3", "0.7")
_LINE_DASHES = ("-", "--", (0, (1, 1)), "-.", (0, (5, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_FILLS = (("0.25", ""), ("0.75", ""), ("white", "////"), ("0.5", r"\\\\"), ("white", "xxxx"), ("0.9", "----"))
_NEEDLESS_DIGITS = re.compile(r"(?<=\d\d\.\d\d)\d+")
"""Of coordinates: hundredths of a point are enough."""
_NUMBERED_GROUP = re.compile(r'<g id="[\w.]+_\d+"/?>')
_WORD = re.compile(r"[^\s\-_/]*(?:[\-_/]|\s+|$)")


@contextmanager
def styled() -> Iterator[None]:
    """The pictures' own settings, whatever the user's matplotlib is set to."""
    settings = {k: v for k, v in matplotlib.rcParamsDefault.items() if k not in _USER_SETTINGS_KEPT}
    with matplotlib.rc_context({**settings, **_SETTINGS}):
        yield


@styled()
def save_png(figure: Figure, path: Path) -> None:
    figure.savefig(path, **PNG)


@styled()
def svg_text(figure: Figure) -> str:
    """The picture as an `svg` element, to stand in a page: without XML header, date or program."""
    file = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(file, format="svg", metadata=nothing)
    text = re.sub(r"<!--.*?-->", "", file.getvalue(), flags=re.DOTALL)
    text = _without_numbered_groups(text[text.index("<svg") :])
    text = _NEEDLESS_DIGITS.sub("", text.replace("DejaVuSans-", "d"))
    return re.sub(r"\s*\n\s*", "\n", text)


def _without_numbered_groups(text: str) -> str:
    """Without the groups that only number a part, such as `<g id="text_7">`: nothing refers to them, and a
    page of several pictures would hold their names twice."""
    is_kept: list[bool] = []

    def tag(found: re.Match[str]) -> str:
        if found[0] == "</g>":
            return found[0] if is_kept.pop() else ""
        is_numbered = _NUMBERED_GROUP.fullmatch(found[0]) is not None
        if not found[0].endswith("/>"):
            is_kept.append(not is_numbered)
        return "" if is_numbered else found[0]

    return re.sub(r"</?g\b[^>]*>", tag, text)


def save_svg(figure: Figure, path: Path) -> None:
    path.write_text(svg_text(figure), encoding="utf-8")


def line_look(place: int) -> dict[str, Any]:
    """Shade, dashes and marker of the line at `place`."""
    return {
        "color": _LINE_SHADES[place % len(_LINE_SHADES)],
        "linestyle": _LINE_DASHES[place % len(_LINE_DASHES)],
        "marker": _MARKERS[place % len(_MARKERS)],
    }


def fill_look(place: int) -> dict[str, Any]:
    """Shade and hatch of the bars at `place`."""
    shade, hatch = _FILLS[place % len(_FILLS)]
    return {
        "facecolor": shade,
        "hatch": hatch,
        "edgecolor": "black",
        "linewidth": 0.6,
        "hatch_linewidth": 0.6,
    }


def wrapped(name: str, width: int = 24, lines: int = 2) -> str:
    """A name on at most `lines` lines of `width` characters, broken after blanks, hyphens and slashes; what
    is too long loses its middle, as names of one kind differ at their ends."""
    name = " ".join(name.split())
    if len(name) > width * lines:
        kept = width * lines - 1
        name = f"{name[: kept // 2]}…{name[len(name) - kept + kept // 2 :]}"
    found = [""]
    for word in _WORD.findall(name):
        if len(found[-1]) + len(word.rstrip()) <= width:
            found[-1] += word
        else:
            found.append(word)
    if len(found) > lines or any(len(line.rstrip()) > width for line in found):
        found = [name[at : at + width] for at in range(0, len(name), width)]
    return "\n".join(line.strip() for line in found if line.strip())


def say(axes: Axes, words: str, has_scale: bool = False) -> None:
    """Words in place of a curve or bars that there is nothing to draw of."""
    axes.text(0.5, 0.5, words, ha="center", va="center", color="0.35", transform=axes.transAxes)
    if not has_scale:
        axes.set(xticks=[], yticks=[])


def legend_below(
    figure: Figure, entries: Sequence[tuple[Line2D | Patch, str]], columns: int, width: int = 40
) -> None:
    """A legend under all panels, where it hides nothing."""
    if entries:
        handles, names = zip(*entries, strict=True)
        figure.legend(
            handles,
            [wrapped(name, width) for name in names],
            loc="outside lower center",
            ncols=min(columns, len(entries)),
            handlelength=3.2,
        )


def plain_log_axis(axis: Any) -> None:
    """Logarithmic ticks written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def plain_numbers(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def number(value: float) -> str:
    """Up to four digits; powers of ten only far from one."""
    if not isfinite(value):
        return "not finite"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def grid_of(count: int, columns: int) -> tuple[int, int]:
    """Lines and columns of `count` panels, at most `columns` side by side."""
    return max(ceil(count / columns), 1), max(min(count, columns), 1)
