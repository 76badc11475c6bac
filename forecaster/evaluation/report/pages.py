"""The figures for a terminal, as report.md and as one page report.html that needs no other file."""

from __future__ import annotations

import base64
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup, escape
from tabulate import tabulate

from forecaster.evaluation.backtest import BUY_AND_HOLD
from forecaster.evaluation.plots import save_png, save_svg
from forecaster.evaluation.report.metrics_file import metrics_json, write_metrics
from forecaster.evaluation.report.pictures import drawings
from forecaster.evaluation.report.tables import NONE, Table, tables
from forecaster.evaluation.report.verdict import best_in_words, verdicts
from forecaster.evaluation.scorecard import Scoreboard
from forecaster.files import write_whole

__all__ = ["Table", "metrics_json", "render_summary", "tables", "write_metrics", "write_report"]

TERMINAL_COLUMNS = 110
PLOTS = "plots"
"""Folder of the pictures, beside the report."""
_NAME_COLUMNS = 24
_HEADER_COLUMNS = (18, 14, 10)
"""Widest headers of a table for a terminal, narrower ones for a table that would be too wide."""


def render_summary(board: Scoreboard) -> str:
    """The main table for a terminal, and below it what it says."""
    found = tables(board)
    table = found.get("at_a_glance") or found.get("training_cost")
    lines = [f"{verdict.model}: {verdict.finding}. {verdict.reasons}" for verdict in verdicts(board)]
    lines += [best] if (best := best_in_words(board)) else []
    if table is None:
        return "There is nothing to show: no answers, and no training log."
    blocks = (
        [_for_terminal(table)],
        _wrapped(lines),
        _reasons(found.get("unreadable")),
        _wrapped([table.note, *board.notes]),
    )
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _reasons(unreadable: Table | None) -> list[str]:
    """Why answers could not be read."""
    return [f"{unreadable.title}:", _for_terminal(unreadable)] if unreadable else []


def _wrapped(lines: Iterable[str]) -> list[str]:
    return [textwrap.fill(line, TERMINAL_COLUMNS, break_on_hyphens=False) for line in lines]


def _for_terminal(table: Table) -> str:
    others, text = len(table.columns) - 1, ""
    for columns in _HEADER_COLUMNS:
        text = tabulate(
            table.rows,
            headers=table.columns,
            disable_numparse=True,
            maxcolwidths=[_NAME_COLUMNS, *[None] * others],
            maxheadercolwidths=[_NAME_COLUMNS, *[columns] * others],
        )
        if max(map(len, text.splitlines())) <= TERMINAL_COLUMNS:
            break
    return text


# --- the page -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """One picture of the page."""

    slug: str
    title: str
    caption: str
    svg_base64: str


@dataclass(frozen=True)
class Section:
    """What stands under one heading."""

    slug: str
    title: str
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]


_LAYOUT: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("summary", "At a glance", ("at_a_glance",), ("overview",)),
    ("published", "As published", ("as_published",), ()),
    ("skill", "Skill", ("direction", "power", "size", "best_of_several"), ("accuracy", "mse", "confusion")),
    ("probability", "Probabilities", ("probability", "gains"), ("reliability",)),
    ("models", "Model against model", ("pairs", "choices"), ()),
    ("where", "Where forecasts are right", (), ("by_symbol", "by_week")),
    ("memory", "Before and after the knowledge cutoff", ("knowledge_cutoff",), ()),
    ("texts", "Texts", ("text_quality", "unreadable"), ("rouge",)),
    ("backtest", "Backtest", ("backtest",), ("equity",)),
    (
        "cost",
        "Cost",
        ("answer_cost", "training_cost", "training_loss"),
        ("loss_by_step", "loss_by_time", "schedule", "throughput"),
    ),
    ("checkpoints", "Checkpoints", ("checkpoints",), ("checkpoints",)),
)
"""Slug and heading of each section, its tables, its pictures."""


def write_report(folder: Path, board: Scoreboard, title: str, facts: Mapping[str, str]) -> dict[str, Path]:
    """Write report.md, report.html and the pictures; the same figures give the same bytes.

    Args:
        facts: settings to show, by name.

    Returns:
        The png files of the pictures by slug.
    """
    (folder / PLOTS).mkdir(parents=True, exist_ok=True)
    found, pngs = {}, {}
    for slug, drawing in drawings(board).items():
        figure = drawing.draw()
        pngs[slug] = folder / PLOTS / f"{slug}.png"
        save_png(figure, pngs[slug])
        save_svg(figure, pngs[slug].with_suffix(".svg"))
        svg = pngs[slug].with_suffix(".svg").read_bytes()
        found[slug] = Picture(slug, drawing.title, drawing.caption, base64.b64encode(svg).decode("ascii"))
    content = {
        "title": title,
        "baselines": {BUY_AND_HOLD, *(line.name for line in board.baselines)},
        "facts": facts,
        "of_rows": _of_rows(board),
        "verdicts": verdicts(board),
        "best": best_in_words(board),
        "notes": board.notes,
        "sections": _sections(tables(board), found),
    }
    environment = _environment()
    for name in ("report.md", "report.html"):
        text = environment.get_template(name).render(content)
        write_whole(folder / name, text)
    return pngs


def _of_rows(board: Scoreboard) -> str:
    """What the figures are of."""
    if not board.rows:
        return f"Trainings: {', '.join(board.logs)}." if board.logs else "No rows."
    symbols = {row.symbol for row in board.rows if row.symbol}
    starts = [row.start for row in board.rows if row.start]
    ends = [row.end for row in board.rows if row.end]
    weeks = {row.week for row in board.rows if row.week}
    parts = [f"{len(board.rows):,} rows"]
    parts += [f"{len(symbols)} symbols"] if symbols else []
    parts += [f"{len(weeks)} weeks from {min(starts)} to {max(ends)}"] if starts and ends else []
    return ", ".join(parts) + "."


def _sections(found: Mapping[str, Table], drawn: Mapping[str, Picture]) -> list[Section]:
    """Those that have anything in them."""
    sections = [
        Section(
            slug,
            title,
            tuple(found[name] for name in table_slugs if name in found),
            tuple(drawn[name] for name in picture_slugs if name in drawn),
        )
        for slug, title, table_slugs, picture_slugs in _LAYOUT
    ]
    return [section for section in sections if section.tables or section.pictures]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        md=_for_markdown,
        md_table=_markdown_table,
        columns_with_kinds=lambda table: list(zip(table.columns, _kinds(table), strict=True)),
        cells_with_kinds=lambda table, row: list(zip(row, _kinds(table), strict=True))[1:],
        interval_below=_interval_below,
    )
    return environment


# --- cells --------------------------------------------------------------------------------------------------

_FIGURE = re.compile(r"[-+<]? ?\d.*|")
_WITH_INTERVAL = re.compile(r"(.+) (\[[^\[\]]+\])")
_MARKDOWN = re.compile(r"([\\`*<|~]|(?<!\w)_|_(?!\w)|&(?=[#\w])|\](?=[(\[:]))")


def _kinds(table: Table) -> list[str]:
    """Of each column: a "figure" stands on the right."""
    columns = zip(*table.rows, strict=True)
    return [
        "figure" if place and all(cell == NONE or _FIGURE.fullmatch(cell) for cell in column) else "words"
        for place, column in enumerate(columns)
    ]


def _interval_below(cell: str) -> Markup:
    """The interval on a line of its own: tables stay narrow."""
    if match := _WITH_INTERVAL.fullmatch(cell):
        return Markup('{} <span class="interval">{}</span>').format(*match.groups())
    return escape(cell)


def _for_markdown(text: str) -> str:
    """On one line, with nothing left that markdown or HTML would take for its own."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _markdown_table(table: Table) -> str:
    rows = [[_for_markdown(cell) for cell in row] for row in table.rows]
    return tabulate(rows, [_for_markdown(name) for name in table.columns], "github", disable_numparse=True)
