"""The twelve classes: where a move of so many percent belongs, and what a class stands for."""

from __future__ import annotations

from typing import Any

import pytest

from forecaster.records import ALL_LABELS, Label


@pytest.mark.parametrize(
    ("size_pct", "text"),
    [
        (0, "up by 0-1%"),
        (0.01, "up by 0-1%"),
        (1.0, "up by 0-1%"),
        (1.01, "up by 1-2%"),
        (2.0, "up by 1-2%"),
        (4.99, "up by 4-5%"),
        (5.0, "up by 4-5%"),
        (5.01, "up by more than 5%"),
        (80.0, "up by more than 5%"),
    ],
)
def test_a_move_falls_into_the_bin_whose_upper_edge_it_does_not_pass(size_pct: float, text: str) -> None:
    assert Label.of_move("up", size_pct).text == text


def test_a_fall_has_the_same_bins_as_a_rise() -> None:
    assert Label.of_move("down", 5.0).text == "down by 4-5%"
    assert Label.of_move("down", 5.01).text == "down by more than 5%"


def test_midpoints_are_signed_and_the_open_bin_counts_as_five_and_a_half() -> None:
    assert [label.midpoint_pct for label in ALL_LABELS] == [
        *(0.5, 1.5, 2.5, 3.5, 4.5, 5.5),
        *(-0.5, -1.5, -2.5, -3.5, -4.5, -5.5),
    ]


def test_there_are_twelve_labels_with_twelve_texts() -> None:
    assert [label.text for label in ALL_LABELS] == [
        "up by 0-1%",
        "up by 1-2%",
        "up by 2-3%",
        "up by 3-4%",
        "up by 4-5%",
        "up by more than 5%",
        "down by 0-1%",
        "down by 1-2%",
        "down by 2-3%",
        "down by 3-4%",
        "down by 4-5%",
        "down by more than 5%",
    ]


@pytest.mark.parametrize(
    ("direction", "lower_pct"), [("sideways", 1), ("UP", 1), ("", 0), ("up", -1), ("up", 6)]
)
def test_a_label_outside_the_twelve_cannot_be_made(direction: Any, lower_pct: int) -> None:
    with pytest.raises(ValueError, match="no such label"):
        Label(direction, lower_pct)


def test_labels_are_values_that_can_be_counted_and_sorted() -> None:
    assert Label("up", 2) == Label("up", 2)
    assert len({Label("up", 2), Label("up", 2), Label("down", 2)}) == 2
    assert sorted([Label("up", 0), Label("down", 3), Label("down", 1)]) == [
        Label("down", 1),
        Label("down", 3),
        Label("up", 0),
    ]
