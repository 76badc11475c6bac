"""Figures to a table, metrics.json and report.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from forecaster.evaluation.baselines import Baseline
from forecaster.evaluation.metrics import SECTIONS, Metrics

COLUMNS = (
    "",
    "valid",
    "valid share",
    "binary accuracy",
    "MSE",
    "ROUGE-1/2/L positive",
    "ROUGE-1/2/L concerns",
    "ROUGE-1/2/L analysis",
    "s/answer",
)
_NONE = "-"


def table_rows(models: Mapping[str, Metrics], baselines: Sequence[Baseline]) -> list[list[str]]:
    """One row per model, then one per baseline, under COLUMNS."""
    rows = []
    for name, m in models.items():
        rouge = [
            "/".join(f"{value:.3f}" for value in m.rouge[key].values()) if m.rouge else _NONE
            for key in SECTIONS
        ]
        rows.append(
            [
                name,
                f"{m.valid_count}/{m.rows}",
                f"{m.valid_share:.1%}",
                _number(m.bin_acc, 3),
                _number(m.mse, 2),
                *rouge,
                _number(m.seconds_per_answer, 2),
            ]
        )
    for b in baselines:
        rows.append([b.name, _NONE, _NONE, _number(b.bin_acc, 3), _number(b.mse, 2), *[_NONE] * 4])
    return rows


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def render_table(rows: Sequence[Sequence[str]], fmt: str = "simple") -> str:
    return str(tabulate(rows, headers=COLUMNS, tablefmt=fmt, disable_numparse=True))


def metrics_json(models: Mapping[str, Metrics], baselines: Sequence[Baseline]) -> dict[str, Any]:
    """The field's key names for each model, then what the field leaves out."""
    return {
        "models": {
            name: {
                "valid_count": m.valid_count,
                "bin_acc": m.bin_acc,
                "mse": m.mse,
                **(m.rouge or dict.fromkeys(SECTIONS)),
                "rows": m.rows,
                "valid_share": m.valid_share,
                "seconds_per_answer": m.seconds_per_answer,
                "unreadable": m.unreadable,
            }
            for name, m in models.items()
        },
        "baselines": {b.name: {"bin_acc": b.bin_acc, "mse": b.mse} for b in baselines},
    }


def render_report(
    title: str,
    models: Mapping[str, Metrics],
    baselines: Sequence[Baseline],
    settings: Mapping[str, Any],
    picture: str,
) -> str:
    """report.md: the table, how to read it, what could not be read, and the settings."""
    unreadable = [
        f"| {name} | {reason} | {count} |"
        for name, m in models.items()
        for reason, count in sorted(m.unreadable.items(), key=lambda item: -item[1])
    ]
    lines = [
        f"# {title}",
        "",
        render_table(table_rows(models, baselines), "github"),
        "",
        f"![loss and binary accuracy]({picture})",
        "",
        "**valid**: answers that hold the four parts and one prediction; every other figure of a model is "
        "over these only. **binary accuracy**: right direction. **MSE**: squared difference of bin "
        "midpoints, in percent squared. **ROUGE**: overlap with the reference answer's wording, no measure "
        "of forecasting skill. A model that does not beat the lines below it has shown no skill.",
        "",
    ]
    if unreadable:
        lines += [
            "## Unreadable answers",
            "",
            "| model | reason | answers |",
            "|---|---|---|",
            *unreadable,
            "",
        ]
    lines += ["## Settings", "", *[f"- {name}: {value}" for name, value in settings.items()], ""]
    lines.append("Not financial advice.")
    return "\n".join(lines) + "\n"
