"""Tables, verdicts, metrics.json, report.md and report.html of a small scoreboard, to the letter."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from boards import DOWN_0, DOWN_3, DOWN_OPEN, UP_0, UP_2, rows
from boards import written as answer_of
from example_board import (
    BASE,
    ROWS,
    TRAINING,
    TUNED,
    board_of_logs,
    board_of_probabilities,
    board_without_dates,
    full_board,
    log,
)

from forecaster.evaluation.report.pages import (
    TERMINAL_COLUMNS,
    metrics_json,
    render_summary,
    tables,
    write_metrics,
    write_report,
)
from forecaster.evaluation.report.tables import (
    NONE,
    duration,
    method_in_words,
    number,
    percent,
    significant,
    with_interval,
)
from forecaster.evaluation.report.verdict import best_in_words, verdicts
from forecaster.evaluation.rows import ModelAnswers
from forecaster.evaluation.scorecard import Choice, Scoreboard, scoreboard
from forecaster.evaluation.statistics import Estimate

PICTURES = {
    "overview",
    "accuracy",
    "mse",
    "rouge",
    "confusion",
    "by_symbol",
    "by_week",
    "equity",
    "loss_by_step",
    "loss_by_time",
    "schedule",
    "throughput",
    "checkpoints",
}
HOSTILE = "<script>alert(1)</script>|`x` [a](http://b) *c*"


@pytest.fixture(scope="module")
def board() -> Scoreboard:
    return full_board()


# --- figures as text ----------------------------------------------------------------------------------------


def test_numbers_keep_their_decimals_and_have_no_negative_zero() -> None:
    assert [number(value, 2) for value in (0.125, -0.001, 12345.6, None)] == [
        "0.12",
        "0.00",
        "12,345.60",
        "-",
    ]
    assert [number(value, 2) for value in (math.nan, math.inf)] == ["not finite", "not finite"]


def test_three_digits_are_significant() -> None:
    values = (0.5, 0.0312, 0.0, 1.234, 9.999, 19.36, 99.94, 99.96, 12473.4, None)
    shown = ["0.500", "0.0312", "0.00", "1.23", "10.0", "19.4", "99.9", "100", "12,473", "-"]
    assert [significant(value) for value in values] == shown


def test_shares_are_percent_and_times_have_words() -> None:
    assert [percent(0.1234), percent(None)] == ["12.3 %", "-"]
    assert [duration(s) for s in (None, 0.0, 40.2, 59.99, 60.0, 725.4, 3600.0, 12345.0)] == [
        "-",
        "0.00 s",
        "40.2 s",
        "60.0 s",
        "1 min 0 s",
        "12 min 5 s",
        "1 h 0 min",
        "3 h 25 min",
    ]


def test_a_figure_stands_before_its_interval_or_alone() -> None:
    assert with_interval(Estimate(0.5, 0.4004, 0.6, "Wilson"), 3) == "0.500 [0.400, 0.600]"
    assert with_interval(Estimate(0.5, method="no interval: one week"), 3) == "0.500"
    assert with_interval(Estimate(None), 3) == NONE


def test_intervals_over_rows_without_dates_do_not_speak_of_weeks() -> None:
    assert method_in_words("bootstrap over 300 weeks", has_dates=False) == "bootstrap over 300 rows"
    assert method_in_words("no interval: one week", has_dates=False) == "no interval: one row"
    assert method_in_words("no interval: one week", has_dates=True) == "no interval: one week"


# --- tables -------------------------------------------------------------------------------------------------


def test_a_board_with_everything_has_all_tables(board: Scoreboard) -> None:
    assert list(tables(board)) == [
        "at_a_glance",
        "as_published",
        "direction",
        "size",
        "probability",
        "pairs",
        "choices",
        "knowledge_cutoff",
        "text_quality",
        "unreadable",
        "backtest",
        "answer_cost",
        "training_cost",
        "training_loss",
        "checkpoints",
    ]


@pytest.mark.parametrize("make", [full_board, board_without_dates, board_of_logs])
def test_every_row_of_a_table_is_as_wide_as_its_columns(make: Callable[[], Scoreboard]) -> None:
    for table in tables(make()).values():
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert len(set(table.columns)) == len(table.columns)


def test_probabilities_and_several_models_have_tables_of_their_own() -> None:
    found = tables(board_of_probabilities())
    # Of seven rows with probabilities three rose by 1-2 %, two fell by 0-1 %: the mean of 3 log 0.3/0.85 and
    # 4 log 0.05/0.85, less that of 3 log 6/19, 2 log 3/19 and 2 log 1/19.
    (gain,) = found["gains"].rows
    assert gain[:3] == ("fine-tuned", "climatology", "7")
    assert gain[3].startswith("-0.203 [")
    assert [row[:2] + row[3:4] for row in found["best_of_several"].rows] == [
        ("Sharpe ratio", "fine-tuned", "2"),
    ]


def test_the_first_table_puts_models_above_the_baselines_that_say_anything(board: Scoreboard) -> None:
    # Right in the four weeks: 2, 2, 1, 1 of 2. Without one of them 4/6, 4/6, 5/6 and 5/6: a standard error of
    # √3 / 12, times Student's 3.182. Two of seven sizes are wrong, by 2 and by 1: (4 + 1) / 7.
    table = tables(board)["at_a_glance"]
    assert [row[0] for row in table.rows] == [
        "base",
        "fine-tuned",
        "always up (hindsight)",
        "always down (hindsight)",
        "zero forecast",
        "coin",
        "training majority (up)",
    ]
    assert table.rows[0] == ("base", "0 of 8", "0.000 [0.000, 0.602]", "-", "-", "0, -, -", "-")
    assert table.rows[1] == (
        "fine-tuned", "7 of 8", "0.750 [0.291, 1.000]", "0.71", "+5.1 %", "7, 0.857, 0.71", "0.500",
    )  # fmt: skip
    assert table.rows[4] == ("zero forecast", "-", "-", "3.25", "-", "-", "-")


def test_published_figures_have_a_second_line_without_think_blocks(board: Scoreboard) -> None:
    rows = {row[0]: row[1:] for row in tables(board)["as_published"].rows}
    perfect = "1.000/1.000/1.000"
    # One word has no pair of words.
    assert rows["fine-tuned"] == (
        "6 of 8", "0.833", "0.83", perfect, perfect, "1.000/0.000/1.000", "0.500",
    )  # fmt: skip
    assert rows["fine-tuned, think block removed"][:3] == ("7 of 8", "0.857", "0.71")
    assert "base, think block removed" not in rows
    assert rows["always down (hindsight)"] == ("-", "0.375", "-", "-", "-", "-", "-")
    assert rows["zero forecast"][:3] == ("-", "-", "3.25")


def test_directions_are_counted_over_all_rows_and_over_forecasts(board: Scoreboard) -> None:
    table = tables(board)["direction"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["base"] == ("0.0 %", "0.000 [0.000, 0.602]", "-", "-", "-", "-", "-", "-")
    coverage, of_all, of_forecasts, _, called, *_ = rows["fine-tuned"]
    assert (coverage, of_all.split()[0], of_forecasts.split()[0]) == ("87.5 %", "0.750", "0.857")
    assert called == "71.4 % / 28.6 %"
    assert rows["always up (hindsight)"][:2] == ("100.0 %", "0.625 [0.000, 1.000]")
    assert "zero forecast" not in rows
    made = "bound from 4 weeks that are all the same; jackknife over 4 weeks, Student's t"
    assert f"Brackets: 95 % intervals ({made})." in table.note.splitlines()


def test_sizes_stand_beside_the_forecast_of_no_move(board: Scoreboard) -> None:
    rows = {row[0]: [cell.split()[0] for cell in row[1:]] for row in tables(board)["size"].rows}
    assert rows == {
        "base": ["-", "-", "-", "-", "-"],
        "fine-tuned": ["0.71", "3.68", "0.43", "0.714", "0.43"],
        "zero forecast": ["3.25", "3.25", "1.50", "-", "-"],
    }


def test_a_pair_has_its_counts_and_its_difference(board: Scoreboard) -> None:
    # 2 · 0.5⁶ = 0.03125
    assert tables(board)["pairs"].rows == (
        ("base against fine-tuned", "0", "6", "0.031", "-0.750 [-1.000, -0.291]", "8"),
        ("base against training majority (up)", "0", "5", "-", "-0.625 [-1.000, 0.137]", "17"),
        ("fine-tuned against training majority (up)", "2", "1", "-", "0.125 [-0.637, 0.887]", "208"),
    )


def test_a_lead_that_can_be_chance_is_a_tie(board: Scoreboard) -> None:
    assert tables(board)["choices"].rows[0] == (
        "accuracy of all rows", "fine-tuned", "fine-tuned", "base", "0.750 [0.291, 1.000]",
    )  # fmt: skip
    tie = Choice("squared error", None, "a", "b", Estimate(-0.5, -1.5, 0.5, "bootstrap over 20 weeks"))
    assert tables(replace(board, choices=(tie,)))["choices"].rows == (
        ("squared error", "tie", "a", "b", "-0.500 [-1.500, 0.500]"),
    )


def test_rows_that_may_be_remembered_are_scored_apart(board: Scoreboard) -> None:
    assert tables(board)["knowledge_cutoff"].rows == (
        (
            "fine-tuned",
            "2026-01-12",
            "4",
            "1.000 [0.158, 1.000]",
            "0.750",
            "4",
            "0.500 [0.079, 0.921]",
            "0.500",
        ),
    )


def test_text_figures_stand_under_execution_depth_and_clarity(board: Scoreboard) -> None:
    table = tables(board)["text_quality"]
    assert table.columns == ("aspect", "figure", "base", "fine-tuned")
    assert table.rows[0] == ("Execution", "answers in the form", "0.0 %", "87.5 %")
    assert ("Depth", "factors per answer", "-", "2.0") in table.rows
    assert {row[0] for row in table.rows} == {"Execution", "Depth", "Clarity"}


def test_unreadable_answers_are_counted_by_reason_the_most_frequent_first(board: Scoreboard) -> None:
    assert tables(board)["unreadable"].rows == (
        ("no section [Positive Developments]", "8", "0"),
        ("no answer", "0", "1"),
    )


def test_the_backtest_leaves_out_who_holds_nothing_and_who_only_buys_and_holds(board: Scoreboard) -> None:
    table = tables(board)["backtest"]
    assert [row[:2] for row in table.rows] == [
        ("fine-tuned", "long/short"),
        ("fine-tuned", "long/flat"),
        ("always down (hindsight)", "long/short"),
        ("coin", "long/short"),
        ("coin", "long/flat"),
        ("buy and hold", "-"),
    ]
    # Weeks of +1.5, -1, -0.5 and +1.5 %, and 0.1 % once for buying: 1.014 · 0.99 · 0.995 · 1.015 = 1.0138.
    assert table.rows[-1] == (
        "buy and hold", "-", "+1.4 %", "-", "1.96 [-10.37, 14.29]", "-1.5 %", "0.625", "0.25", "-",
    )  # fmt: skip
    assert table.rows[0][5] == "0.0 %"
    assert "costs of 10 basis points" in table.note


def test_costs_of_answers_and_of_training_stand_apart(board: Scoreboard) -> None:
    assert tables(board)["answer_cost"].rows == (
        ("fine-tuned", "8", "4.00 s", "0.500", "100", "200", "hf, batch size 4"),
    )
    assert tables(board)["training_cost"].rows == (
        ("run", "1 h 2 min", "12.5", "0.312", "-", "-", "2.00 s", "4.00", "0.500"),
    )
    assert tables(board)["training_loss"].rows == (("run", "1.5000", "1.2500", "1.2500"),)


def test_the_chosen_checkpoint_is_marked(board: Scoreboard) -> None:
    rows = tables(board)["checkpoints"].rows
    assert rows[0] == ("10", "0.0 %", "0.000 [0.000, 0.602]", "0.625", "-", "")
    assert (rows[1][0], rows[1][1], rows[1][-1]) == ("20", "87.5 %", "chosen")


def test_logs_alone_have_only_tables_of_the_training() -> None:
    assert list(tables(board_of_logs())) == ["training_cost", "training_loss"]


def test_rows_without_dates_have_no_backtest_and_no_weeks() -> None:
    found = tables(board_without_dates())
    assert not {"backtest", "choices", "knowledge_cutoff", "answer_cost"} & set(found)
    assert "jackknife over 8 rows" in found["direction"].note
    assert not any("the backtest takes" in note for note in board_without_dates().notes)


# --- verdicts -----------------------------------------------------------------------------------------------


def judged(board: Scoreboard, **figures: Estimate) -> tuple[str, str]:
    """Finding and reasons of the fine-tuned model with other figures."""
    model = board.models[1]
    changed = replace(model, skill=replace(model.skill, **figures), knowledge_cutoff=None)
    (verdict,) = verdicts(replace(board, models=(changed,)))
    return verdict.finding, verdict.reasons


def against_majority(board: Scoreboard, lead: Estimate) -> Scoreboard:
    """The board with another lead of the fine-tuned model over what training rows mostly did."""
    pairs = [replace(p, difference=lead) if p.second == "training majority (up)" else p for p in board.pairs]
    return replace(board, pairs=tuple(pairs))


@pytest.mark.parametrize(
    ("lead", "finding", "sentence"),
    [
        (Estimate(0.075, 0.005, 0.145), "direction: skill", "is 0.075 [0.005, 0.145], beyond chance."),
        (
            Estimate(0.075, 0.0, 0.15),
            "direction: no skill seen",
            "is 0.075 [0.000, 0.150], which can be chance.",
        ),
        (
            Estimate(0.075, method="no interval: one week"),
            "direction: no skill seen",
            "is 0.075, but there is no interval (one week): this can be chance.",
        ),
        (
            Estimate(-0.1, -0.2, 0.0),
            "direction: no skill seen",
            "is -0.100 [-0.200, 0.000], which can be chance.",
        ),
    ],
)
def test_where_weeks_have_no_order_skill_is_a_lead_over_what_training_rows_mostly_did(
    board: Scoreboard, lead: Estimate, finding: str, sentence: str
) -> None:
    accuracy = Estimate(0.7, 0.63, 0.77, "Wilson")
    found, reasons = judged(against_majority(board, lead), accuracy_of_all_rows=accuracy)
    assert found == finding
    assert reasons.startswith(f"Its accuracy, less that of training majority (up), {sentence} 7 of 8 answers")
    assert (
        "Its accuracy over all rows is 0.700 [0.630, 0.770], that of training majority (up) 0.625." in reasons
    )
    assert reasons.endswith("Its knowledge cutoff is not known: it may have read what happened.")


@pytest.mark.parametrize(
    ("apart", "sentence"),
    [
        (
            Estimate(0.0, -1.0, 1.0),
            "is not below that of forecasting no move on the same rows (3.25).",
        ),
        (
            Estimate(-0.25, -1.5, 1.0),
            "is below that of forecasting no move on the same rows (3.25) by 0.25 [-1.00, 1.50], which can "
            "be chance.",
        ),
        (
            Estimate(-0.25, -0.4, -0.1),
            "is below that of forecasting no move on the same rows (3.25) by 0.25 [0.10, 0.40].",
        ),
        (
            Estimate(-0.25, method="no interval: the same in every week"),
            "is below that of forecasting no move on the same rows (3.25), but there is no interval (the "
            "same in every week): this can be chance.",  # in four weeks
        ),
    ],
)
def test_sizes_are_judged_against_forecasting_no_move_on_the_same_rows(
    board: Scoreboard, apart: Estimate, sentence: str
) -> None:
    mse, zero = Estimate(3.0, 2.0, 4.0), Estimate(3.25)
    reasons = judged(board, mse=mse, mse_of_no_move=zero, mse_against_no_move=apart)[1]
    assert f"Its MSE, 3.00 [2.00, 4.00], {sentence} Its knowledge" in reasons


def test_a_model_that_speaks_of_calm_rows_alone_is_not_set_beside_the_others() -> None:
    """Small moves called large, and nothing said of large ones, which no move would miss by 5.5 ** 2."""
    tested = rows(
        *[("CALM", week, UP_0) for week in range(8)], *[("WILD", week, DOWN_OPEN) for week in range(8)]
    )
    run = ModelAnswers("shy", tested, (answer_of(DOWN_3),) * 8 + ("I cannot say.",) * 8)
    board = scoreboard([run], None, cost_bps=0.0)
    (verdict,) = verdicts(board)
    assert (
        "Its MSE, 16.00, is not below that of forecasting no move on the same rows (0.25)." in verdict.reasons
    )


def test_a_perfect_forecast_is_beyond_chance() -> None:
    """Of two symbols a week, which have no order."""
    weeks = [(symbol, week, label) for week in range(12) for symbol, label in (("A", UP_2), ("B", DOWN_0))]
    tested = rows(*weeks)
    board = scoreboard(
        [ModelAnswers("seer", tested, tuple(answer_of(label) for *_, label in weeks))], None, cost_bps=0.0
    )
    (verdict,) = verdicts(board)
    assert verdict.finding == "direction: skill"
    # 0.025 ** (1 / 12) = 0.7354; (2.5 ** 2 + 0.5 ** 2) / 2 = 3.25
    assert verdict.direction.reason == (
        "Its accuracy, less that of always up (hindsight), is 0.500, beyond chance."
    )
    assert "Its accuracy over all rows is 1.000 [0.735, 1.000], that of always up (hindsight) 0.500." in (
        verdict.reasons
    )
    assert "Its MSE, 0.00, is below that of forecasting no move (3.25) by 3.25." in verdict.reasons


def test_where_nothing_reads_there_is_nothing_to_score(board: Scoreboard) -> None:
    verdict = verdicts(board)[0]
    assert (verdict.model, verdict.finding) == ("base", "nothing to score")
    assert verdict.reasons == "None of its 8 answers can be read."


def test_without_known_outcomes_there_is_nothing_to_score() -> None:
    rows = tuple(replace(row, actual=None, return_pct=None) for row in ROWS)
    board = scoreboard([replace(TUNED, rows=rows)], None, cost_bps=10.0)
    (verdict,) = verdicts(board)
    assert (verdict.finding, verdict.reasons) == ("nothing to score", "No row has a known outcome.")
    assert render_summary(board)


def test_a_verdict_says_what_the_model_may_remember(board: Scoreboard) -> None:
    sentence = "rows begin on or before its knowledge cutoff, 2026-01-12: it may have read what happened."
    assert verdicts(board)[1].reasons.endswith(f" 4 of 8 {sentence}")
    model = replace(board.models[1], not_remembered=None)
    (verdict,) = verdicts(replace(board, models=(model,)))
    assert verdict.reasons.endswith(f" All {sentence}")


def test_the_most_accurate_model_is_named_only_where_it_is_no_tie(board: Scoreboard) -> None:
    assert best_in_words(board) == "fine-tuned is the most accurate: ahead of base by 0.750 [0.291, 1.000]."
    tie = replace(board.choices[0], best=None, difference=Estimate(0.1, -0.1, 0.3, "Wilson"))
    assert best_in_words(replace(board, choices=(tie,))) == (
        "No model is shown to be the most accurate: fine-tuned is ahead of base by 0.100 [-0.100, 0.300], "
        "which can be chance."
    )
    assert best_in_words(board_without_dates()) == ""


# --- the terminal -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [full_board, board_without_dates, board_of_logs])
def test_the_summary_fits_a_terminal(make: Callable[[], Scoreboard]) -> None:
    assert max(map(len, render_summary(make()).splitlines())) <= TERMINAL_COLUMNS


def test_the_summary_has_the_verdict_and_the_notes_below_the_table(board: Scoreboard) -> None:
    table, text, reasons, notes = render_summary(board).split("\n\n")
    assert table.splitlines()[-1].startswith("training majority (up)")
    lines = text.splitlines()
    assert lines[0] == "base: nothing to score. None of its 8 answers can be read."
    assert lines[1].startswith("fine-tuned: direction: no skill seen. Its accuracy, less that of training")
    assert lines[-1].startswith("fine-tuned is the most accurate: ahead of base by 0.750")
    assert [line.split() for line in reasons.splitlines()[:1]] == [["Unreadable", "answers:"]]
    assert reasons.splitlines()[1].split() == ["reason", "base", "fine-tuned"]
    assert notes.splitlines()[-1] == "A note."


def test_a_board_of_nothing_says_so() -> None:
    assert render_summary(scoreboard([], None, cost_bps=10.0)) == (
        "There is nothing to show: no answers, and no training log."
    )


# --- metrics.json -------------------------------------------------------------------------------------------


def test_metrics_json_has_the_fields_key_names_and_survives_writing(board: Scoreboard) -> None:
    content = json.loads(json.dumps(metrics_json(board), allow_nan=False))
    assert content["models"]["base"]["as_published"] == {
        "valid_count": 0,
        "bin_acc": None,
        "mse": None,
        "pros_rouge_scores": None,
        "cons_rouge_scores": None,
        "anal_rouge_scores": None,
        "seconds_per_answer": None,
    }
    tuned = content["models"]["fine-tuned"]
    assert tuned["as_published"]["bin_acc"] == 5 / 6
    assert tuned["as_published"]["pros_rouge_scores"] == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}
    assert tuned["as_published_without_think"]["valid_count"] == 7
    assert "as_published_without_think" not in content["models"]["base"]
    assert (tuned["project"]["rows"], tuned["project"]["valid_count"]) == (8, 7)
    assert tuned["project"]["unreadable"] == {"no answer": 1}
    assert tuned["project"]["coverage"]["value"] == 0.875
    assert tuned["project"]["coverage"]["method"] == "Wilson"
    assert tuned["not_remembered"]["rows_with_outcome"] == 4
    assert tuned["text"]["execution"]["readable_share"] == 0.875
    assert tuned["backtest"]["long/short"]["weeks"] == 4
    assert "equity" not in tuned["backtest"]["long/short"]
    assert tuned["cost"]["new_tokens_per_s"] == 200.0
    assert content["models"]["base"]["cost"] is None
    assert content["baselines"]["always up (hindsight)"]["project"]["bin_acc"]["value"] == 0.625
    assert content["pairs"][0]["only_second_right"] == 6
    assert content["training"]["run"]["points"] == 3
    assert [score["step"] for score in content["checkpoints"]] == [10, 20]
    assert (content["best_step"], content["notes"]) == (20, ["A note."])


def test_a_loss_that_diverged_is_null_in_metrics_json() -> None:
    board = replace(board_of_logs(), logs={"run": replace(log(), last_eval_loss=math.nan)})
    assert metrics_json(board)["training"]["run"]["last_eval_loss"] is None
    assert tables(board)["training_loss"].rows == (("run", "1.5000", "1.2500", "not finite"),)


def test_metrics_are_written_whole_and_in_the_same_bytes(board: Scoreboard, tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.json", board)
    first = (tmp_path / "metrics.json").read_bytes()
    write_metrics(tmp_path / "metrics.json", full_board())
    assert (tmp_path / "metrics.json").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert json.loads(first) == metrics_json(board)


# --- the page -----------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, links and text of a page; every tag has to be closed in its turn."""

    VOID = frozenset(("meta", "link", "img", "br"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(" ".join(data.split()))


def read_report(folder: Path) -> tuple[str, Page]:
    html = (folder / "report.html").read_text(encoding="utf-8")
    return (folder / "report.md").read_text(encoding="utf-8"), Page(html)


@pytest.fixture(scope="module")
def written(board: Scoreboard, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the report of everything."""
    folder = tmp_path_factory.mktemp("report")
    assert set(write_report(folder, board, "A run", {"rows": "8 of toy"})) == PICTURES
    return folder


def test_the_page_stands_on_its_own(written: Path) -> None:
    markdown, page = read_report(written)
    assert "script" not in page.tags
    assert {target.split(",")[0] for target in page.targets if not target.startswith("#")} == {
        "data:",
        "data:image/svg+xml;base64",
    }
    assert {target[1:] for target in page.targets if target.startswith("#")} == set(page.ids)
    assert page.tags.count("img") == len(PICTURES)
    for text in ("8 rows, 2 symbols, 4 weeks from 2026-01-02 to 2026-01-30.", "8 of toy", "A note."):
        assert text in page.texts
        assert text in markdown
    assert page.texts[-1] == "Not financial advice."
    assert markdown.endswith("\n\nNot financial advice.\n")


def test_every_picture_is_a_file_that_the_markdown_names(written: Path) -> None:
    markdown, _ = read_report(written)
    for slug in PICTURES:
        assert (written / "plots" / f"{slug}.png").read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(written / "plots" / f"{slug}.svg").getroot().tag.endswith("svg")
        assert f"](plots/{slug}.png)" in markdown


def test_a_second_writing_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    write_report(tmp_path, full_board(), "A run", {"rows": "8 of toy"})
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (written, tmp_path)
    )
    assert len(first) == 2 + 2 * len(PICTURES)
    assert first == second


def test_what_comes_from_outside_is_text_and_nothing_else(tmp_path: Path) -> None:
    answers = ModelAnswers(HOSTILE, ROWS, TUNED.answers)
    board = scoreboard([answers, BASE], TRAINING, cost_bps=10.0, logs={HOSTILE: log()}, notes=[HOSTILE])
    write_report(tmp_path, board, HOSTILE, {HOSTILE: HOSTILE})
    markdown, page = read_report(tmp_path)
    assert "script" not in page.tags
    assert not any(target.startswith("http") for target in page.targets)
    assert HOSTILE in page.texts
    assert not re.search(r"(?<!\\)(<|`|\*c|\]\(http)", markdown)
    table = [line for line in markdown.splitlines() if line.startswith("| \\<script")]
    bars = {line.replace("\\|", "").count("|") for line in table[:1]}
    assert bars == {len(tables(board)["at_a_glance"].columns) + 1}


def test_trainings_alone_have_a_page_too(tmp_path: Path) -> None:
    write_report(tmp_path, board_of_logs(), "A run", {})
    markdown, page = read_report(tmp_path)
    assert "No answers were scored: this report shows trainings alone." in page.texts
    assert "Trainings: run." in page.texts
    assert page.ids == ["cost"]
    assert "## At a glance" not in markdown


def test_one_model_without_dates_has_a_page_without_backtest(tmp_path: Path) -> None:
    write_report(tmp_path, board_without_dates(), "A run", {})
    _, page = read_report(tmp_path)
    assert page.ids == ["summary", "published", "skill", "models", "texts"]
    assert "8 rows." in page.texts
