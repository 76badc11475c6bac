"""What a person at a terminal sees of a job."""

from __future__ import annotations

import pytest

from forecaster.progress import at_terminal, without_bars


def test_a_bar_says_how_much_is_done_and_how_much_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    with at_terminal().bar("base", "answer", 12) as advance:
        advance()
        advance(11)
    printed = capsys.readouterr()
    assert printed.out == ""
    first, last = printed.err.split("\r")[1], printed.err.split("\r")[-1]
    assert first.startswith("base:   0%") and "0/12 [00:00<?" in first
    assert last.startswith("base: 100%") and "12/12 [00:00<00:00" in last


def test_a_line_takes_the_place_of_a_bar_which_comes_back_below(capsys: pytest.CaptureFixture[str]) -> None:
    listener = at_terminal()
    with listener.bar("base", "answer", 12):
        capsys.readouterr()
        listener.warn("Out of memory")
        erased, back = capsys.readouterr().err.split("Out of memory\n")
    assert erased.strip(" \r") == "" and erased.endswith("\r")
    assert back.startswith("\rbase:   0%")


def test_without_bars_only_lines_are_left(capsys: pytest.CaptureFixture[str]) -> None:
    listener = without_bars(at_terminal())
    with listener.bar("base", "answer", 12) as advance:
        advance(12)
        listener.say("said")
        listener.warn("warned")
    assert capsys.readouterr() == ("said\n", "warned\n")
