"""Text from outside has one form, whatever system wrote it, in every file that holds text alone."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from forecaster import plain_text
from forecaster.cluster.nodes import read_hostfile
from forecaster.data.universe import find_universe
from forecaster.errors import Problem
from forecaster.fit.ds_files import read_ds_config
from forecaster.flags import read_yaml
from forecaster.plain_text import in_one_form, read_text
from forecaster.settings import load_settings
from forecaster.training.train_config import PROGRAM

LINE_ENDS = {
    "CRLF": "\r\n",
    "CRLF twice": "\r\r\n",
    "CR": "\r",
    "VT": "\v",
    "FF": "\f",
    "NEL": "\x85",
    "LS": "\u2028",
    "PS": "\u2029",
}


@pytest.mark.parametrize("end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_every_line_end_is_a_line_feed(end: str) -> None:
    assert in_one_form(f"one{end}{end}three{end}") == "one\n\nthree\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\ttabs  stay\n", "one\ntwo\ttabs  stay\n"),
        ("a\u00a0b\u202fc\u2009d\u3000e", "a b c d e"),
        ("\ufeffa\ufeffb", "ab"),
        ("Caf" + "e\u0301", "Caf\u00e9"),
        ("1\uff05 \u00bd \u2019", "1\uff05 \u00bd \u2019"),
        ("", ""),
        ("lone \ud800 surrogate\r", "lone \ud800 surrogate\n"),
    ],
    ids=["plain", "spaces", "byte-order marks", "accents", "other signs stay", "empty", "surrogate"],
)
def test_what_is_the_same_text_becomes_equal_and_nothing_else_changes(text: str, expected: str) -> None:
    assert in_one_form(text) == expected
    assert in_one_form(expected) == expected


@pytest.mark.parametrize(
    "marks",
    ["\u0327\u0301", "\u0301\u0327", "\u0344", "\u0f73", "\u0f81", "\u0301\u0327\u0f73\u0327"],
    ids=ascii,
)
def test_a_letter_keeps_thirty_of_the_marks_that_a_normal_form_has_to_sort(marks: str) -> None:
    once = in_one_form("e" + marks * 50_000)  # minutes, when they are all sorted
    assert len(once) <= 1 + 2 * 30
    assert in_one_form(once) == once


def test_marks_that_are_in_order_already_stay() -> None:
    assert in_one_form("x" + "\u0327" * 100) == "x" + "\u0327" * 100


@pytest.fixture(params=["", "\ufeff"], ids=["no mark", "mark"])
def mark(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_files_of_settings_say_the_same_with_every_line_end(
    tmp_path: Path, end: str, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Set first, so that what load_settings puts there is taken back after the test.
    for name in ("FINNHUB_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "")

    def written(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_bytes((mark + text.replace("\n", end)).encode())
        return path

    assert read_text(written("prompt.txt", "How is it?\n\nWell.\n")) == "How is it?\n\nWell.\n"

    path = written("run.yaml", "lora_r: 16  # more\nlearning_rate:\u00a05e-5\n")
    assert read_yaml(PROGRAM, str(path)) == {"lora_r": "16", "learning_rate": "5e-5"}

    written(".env", "FINNHUB_API_KEY=one\n# a note\nOPENAI_API_KEY='two'\n")
    settings = load_settings()
    assert (settings.finnhub_api_key, settings.openai_api_key) == ("one", "two")

    tickers = find_universe(str(written("mine.txt", "# the first\nAAPL\nMSFT # the second\n")))
    assert tickers.symbols == ("AAPL", "MSFT")

    problems: list[Problem] = []
    nodes = read_hostfile(written("hosts", "10.0.0.1 slots=2\n10.0.0.2 slots=4\n"), problems)
    assert ([node.name for node in nodes], problems) == (["10.0.0.1", "10.0.0.2"], [])

    config = read_ds_config(written("ds.json", '{"zero_optimization":\n {"stage": 2}}\n'))
    assert not isinstance(config, Problem)
    assert config.zero_stage == 2


def test_a_file_that_does_not_end_is_not_read_for_ever() -> None:
    with pytest.raises(OSError, match="it is longer than 64 MiB"):
        read_text(Path("/dev/zero"))


def test_a_pipe_is_read_to_its_end_and_not_waited_for_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_text, "LONGEST_WAIT_S", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match=r"it gives no whole text in 0\.2 s"):
        read_text(pipe)

    def write() -> None:
        with pipe.open("w") as file:
            file.write("How is it?\n" * 20_000)  # more than a pipe holds

    monkeypatch.setattr(plain_text, "LONGEST_WAIT_S", 10.0)
    writer = threading.Thread(target=write)
    writer.start()
    assert read_text(pipe) == "How is it?\n" * 20_000
    writer.join()


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_text(tmp_path)
