"""The table, metrics.json and report.md of a benchmark, to the letter."""

from __future__ import annotations

import json

from forecaster.evaluation.baselines import Baseline
from forecaster.evaluation.metrics import Metrics
from forecaster.evaluation.report import COLUMNS, metrics_json, render_report, render_table, table_rows

ROUGE = {
    "pros_rouge_scores": {"rouge1": 0.5, "rouge2": 0.25, "rougeL": 0.4},
    "cons_rouge_scores": {"rouge1": 0.1, "rouge2": 0.0, "rougeL": 0.0996},
    "anal_rouge_scores": {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0},
}
TUNED = Metrics(8, 6, 2 / 3, 6.125, ROUGE, 1.234, {"no answer": 1, 'no "Analysis:" line': 3})
MUTE = Metrics(8, 0, None, None, None, None, {"no section [Positive Developments]": 8})
MODELS = {"base": MUTE, "fine-tuned": TUNED}
LINES = [Baseline("always down", 0.542, None), Baseline("zero forecast", None, 7.1279)]


def test_a_model_has_one_row_and_a_baseline_one_below() -> None:
    assert table_rows(MODELS, LINES) == [
        ["base", "0/8", "0.0%", "-", "-", "-", "-", "-", "-"],
        [
            "fine-tuned",
            "6/8",
            "75.0%",
            "0.667",
            "6.12",
            "0.500/0.250/0.400",
            "0.100/0.000/0.100",
            "1.000/1.000/1.000",
            "1.23",
        ],
        ["always down", "-", "-", "0.542", "-", "-", "-", "-", "-"],
        ["zero forecast", "-", "-", "-", "7.13", "-", "-", "-", "-"],
    ]
    assert all(len(row) == len(COLUMNS) for row in table_rows(MODELS, LINES))


def test_a_score_of_zero_is_shown_and_is_not_taken_for_an_absent_one() -> None:
    (row,) = table_rows({"m": Metrics(2, 2, 0.0, 0.0, None, 0.0, {})}, [])
    assert row == ["m", "2/2", "100.0%", "0.000", "0.00", "-", "-", "-", "0.00"]


def test_the_rendered_table_has_a_line_for_each_row_and_keeps_numbers_as_written() -> None:
    lines = render_table(table_rows(MODELS, LINES)).splitlines()
    assert len(lines) == 2 + 4
    assert lines[3].split()[:5] == ["fine-tuned", "6/8", "75.0%", "0.667", "6.12"]


def test_metrics_json_has_the_fields_key_names_and_survives_writing() -> None:
    content = json.loads(json.dumps(metrics_json(MODELS, LINES), allow_nan=False))
    assert content == {
        "models": {
            "base": {
                "valid_count": 0,
                "bin_acc": None,
                "mse": None,
                "pros_rouge_scores": None,
                "cons_rouge_scores": None,
                "anal_rouge_scores": None,
                "rows": 8,
                "valid_share": 0.0,
                "seconds_per_answer": None,
                "unreadable": {"no section [Positive Developments]": 8},
            },
            "fine-tuned": {
                "valid_count": 6,
                "bin_acc": 2 / 3,
                "mse": 6.125,
                **ROUGE,
                "rows": 8,
                "valid_share": 0.75,
                "seconds_per_answer": 1.234,
                "unreadable": {"no answer": 1, 'no "Analysis:" line': 3},
            },
        },
        "baselines": {
            "always down": {"bin_acc": 0.542, "mse": None},
            "zero forecast": {"bin_acc": None, "mse": 7.1279},
        },
    }


def test_the_report_has_title_table_picture_reasons_settings_and_the_disclaimer() -> None:
    lines = render_report("Benchmark of toy", MODELS, LINES, {"test rows": 8}, "report.png").splitlines()
    assert lines[0] == "# Benchmark of toy"
    assert "![loss and binary accuracy](report.png)" in lines
    assert sum(line.startswith("| fine-tuned ") and " 6/8 " in line for line in lines) == 1
    assert sum(line.startswith("| always down ") for line in lines) == 1
    at = lines.index("## Unreadable answers")
    assert lines[at + 2 : at + 7] == [
        "| model | reason | answers |",
        "|---|---|---|",
        "| base | no section [Positive Developments] | 8 |",
        '| fine-tuned | no "Analysis:" line | 3 |',
        "| fine-tuned | no answer | 1 |",
    ]
    assert lines[lines.index("## Settings") + 2] == "- test rows: 8"
    assert lines[-1] == "Not financial advice."


def test_a_report_in_which_every_answer_reads_has_no_list_of_unreadable_ones() -> None:
    text = render_report("t", {"m": Metrics(2, 2, 1.0, 0.0, ROUGE, None, {})}, LINES, {}, "p.png")
    assert "Unreadable" not in text
    assert text.endswith("Not financial advice.\n")
