"""What a dataset holds, in numbers: published rows, rows with faults, and none at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from forecaster.data.describe import Spread, describe, render_markdown, spread
from forecaster.errors import ConfigurationError

READABLE = """[Positive Developments]:
1. Sales grew.

[Potential Concerns]:
1. Costs grew.

[Prediction & Analysis]:
Prediction: Up by 1-2%
Analysis: Sales outweigh costs."""

WEEK_1, WEEK_2, WEEK_3 = (
    "2024-12-20 to 2024-12-27",
    "2024-12-27 to 2025-01-03",
    "2025-01-03 to 2025-01-10",
)
TRAIN = [
    {"prompt": "abcd", "answer": READABLE, "period": WEEK_2, "label": "up by 1-2%", "symbol": "ACME"},
    {"prompt": "ab c", "answer": READABLE, "period": WEEK_1, "label": "Up by 1-2%", "symbol": "ACME"},
    {
        "prompt": "a b c d e",
        "answer": "",
        "period": WEEK_1,
        "label": "down by more than 5%",
        "symbol": "BETA",
    },
    {"prompt": "abc", "answer": "No.", "period": WEEK_1, "label": "sideways", "symbol": "BETA"},
]
TEST = [
    {"prompt": "abcde", "answer": READABLE, "period": WEEK_3, "label": "down by 0-1%", "symbol": "ACME"},
    {"prompt": "abcde", "answer": READABLE, "period": WEEK_1, "label": "down by 0-1%", "symbol": "ACME"},
]


def _words(text: str) -> int:
    return len(text.split())


def _parts() -> dict[str, Dataset]:
    return {"train": Dataset.from_list(TRAIN), "test": Dataset.from_list(TEST)}


def test_a_split_is_counted() -> None:
    train = describe(_parts()).splits["train"]
    assert (train.rows, train.symbols, train.periods) == (4, 2, 2)
    assert (train.first_period, train.last_period) == (WEEK_1, WEEK_2)
    assert train.prompt_chars == (4, 4, 9, 3)
    assert train.answer_chars == (len(READABLE), len(READABLE), 0, 3)
    assert train.unreadable_answers == {"no section [Positive Developments]": 2}


def test_labels_run_from_fall_to_rise_and_what_is_none_of_them_is_other() -> None:
    train = describe(_parts()).splits["train"]
    assert list(train.label_counts.items()) == [
        ("down by more than 5%", 1),
        ("down by 4-5%", 0),
        ("down by 3-4%", 0),
        ("down by 2-3%", 0),
        ("down by 1-2%", 0),
        ("down by 0-1%", 0),
        ("up by 0-1%", 0),
        ("up by 1-2%", 2),
        ("up by 2-3%", 0),
        ("up by 3-4%", 0),
        ("up by 4-5%", 0),
        ("up by more than 5%", 0),
        ("other", 1),
    ]
    assert train.share_of_rises == pytest.approx(2 / 3)


def test_a_symbol_and_period_are_repeated_within_a_split_and_across_splits() -> None:
    splits = describe(_parts()).splits
    assert (splits["train"].repeated_rows, splits["test"].repeated_rows) == (1, 1)


def test_tokens_are_counted_when_somebody_counts_them() -> None:
    assert describe(_parts()).splits["train"].prompt_tokens is None
    train = describe(_parts(), _words).splits["train"]
    assert train.prompt_tokens == (1, 2, 5, 1)
    assert train.answer_tokens == (21, 21, 0, 1)


def test_more_rows_than_are_held_at_once_are_all_counted() -> None:
    rows = [{**TRAIN[0], "symbol": f"S{i}", "prompt": "x" * i} for i in range(2001)]
    split = describe({"train": Dataset.from_list(rows)}).splits["train"]
    assert (split.rows, split.symbols, split.label_counts["up by 1-2%"]) == (2001, 2001, 2001)
    assert spread(split.prompt_chars) == Spread(0, 1000, 1900, 2000)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        pytest.param([], None, id="none"),
        pytest.param([7], Spread(7, 7, 7, 7), id="one"),
        pytest.param([4, 1, 3, 2], Spread(1, 2.5, 4, 4), id="an even number"),
        pytest.param(list(range(1, 101)), Spread(1, 50.5, 95, 100), id="a hundred"),
    ],
)
def test_a_spread_is_that_of_the_sorted_lengths(lengths: list[int], expected: Spread | None) -> None:
    assert spread(lengths) == expected


def test_columns_beyond_the_five_change_nothing() -> None:
    more = Dataset.from_list([{**row, "flags": ["x"], "weekly_return_pct": 1.5} for row in TRAIN])
    assert describe({"train": more}) == describe({"train": Dataset.from_list(TRAIN)})


def test_empty_cells_are_rows_without_symbol_period_and_label() -> None:
    nothing = dict.fromkeys(TRAIN[0])
    split = describe({"train": Dataset.from_list([TRAIN[0], nothing])}).splits["train"]
    assert (split.rows, split.symbols, split.periods, split.first_period) == (2, 1, 1, WEEK_2)
    assert split.label_counts["other"] == 1
    assert split.prompt_chars == (4, 0)


def test_prompts_that_tell_the_outcome_are_counted_where_there_are_some() -> None:
    told = {**TEST[0], "prompt": "Let's assume your prediction for next week is down by 0-1%."}
    page = render_markdown(describe({"train": Dataset.from_list(TRAIN), "test": Dataset.from_list([told])}))
    assert "| prompts that tell the outcome | 0 | 1 |" in " ".join(page.split())
    assert "outcome" not in render_markdown(describe(_parts()))


def test_every_missing_column_of_every_split_is_told_at_once() -> None:
    train = Dataset.from_list(TRAIN).remove_columns(["label", "symbol"])
    test = Dataset.from_list(TEST).remove_columns(["answer"])
    with pytest.raises(ConfigurationError) as caught:
        describe({"train": train, "test": test})
    told = [(problem.where, problem.found) for problem in caught.value.problems]
    assert told == [
        ("split train", "it has no column label, symbol."),
        ("split test", "it has no column answer."),
    ]


def test_the_page_shows_each_split_in_a_column() -> None:
    lines = [" ".join(line.split()) for line in render_markdown(describe(_parts(), _words)).splitlines()]
    assert lines[0] == "# Dataset"
    for line in (
        "| rows | 4 | 2 |",
        "| first period | 2024-12-20 to 2024-12-27 | 2024-12-20 to 2024-12-27 |",
        "| share of rises | 66.7 % | 0.0 % |",
        "| unreadable answers | 2 | 0 |",
        "| up by 1-2% | 2 (50.0 %) | 0 (0.0 %) |",
        "| down by 0-1% | 0 (0.0 %) | 2 (100.0 %) |",
        "| other | 1 (25.0 %) | 0 (0.0 %) |",
        "| no section [Positive Developments] | 2 | 0 |",
        "| train | prompt, characters | 3 | 4 | 9 | 9 |",
        "| train | prompt, tokens | 1 | 2 | 5 | 5 |",
        "| test | answer, tokens | 21 | 21 | 21 | 21 |",
    ):
        assert line in lines


def test_a_split_without_rows_has_its_page_too() -> None:
    empty = Dataset.from_dict({column: [] for column in TRAIN[0]})
    description = describe({"train": empty})
    assert description.splits["train"].share_of_rises is None
    page = render_markdown(description)
    assert "| up by 0-1%           |   0 (-) |" in page
    assert page.endswith("## Lengths\n\nThere are no rows.\n")


def test_a_text_of_the_dataset_cannot_break_a_table() -> None:
    row = {**TRAIN[0], "period": "2024-01-05 | x\n## Fake"}
    page = render_markdown(describe({"train": Dataset.from_list([row])}))
    assert "2024-01-05 / x ## Fake" in page


def test_published_rows_are_described(real_data: Path, tmp_path: Path) -> None:
    rows = Dataset.from_json(str(real_data / "forecaster_dow30" / "test_300.jsonl"), cache_dir=str(tmp_path))
    split = describe({"test": rows}).splits["test"]
    assert (split.rows, split.symbols, split.periods, split.repeated_rows) == (300, 30, 10, 0)
    assert split.first_period == "2024-02-25 to 2024-03-03"
    assert split.last_period == "2024-04-28 to 2024-05-05"
    assert list(split.label_counts.values()) == [20, 9, 18, 23, 42, 51, 41, 40, 23, 17, 6, 10, 0]
    assert split.share_of_rises == pytest.approx(137 / 300)
    assert split.unreadable_answers == {'no "Analysis:" line': 3}
    assert spread(split.prompt_chars) == Spread(2920, 5663, 8366, 10761)
    assert spread(split.answer_chars) == Spread(1263, 1945.5, 2450, 3095)
