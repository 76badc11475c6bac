"""Flags as fields of a record: what words mean, what a help shows, and what it imports."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from processes import ROOT

from forecaster.cluster import launch_config
from forecaster.data import pipeline_config
from forecaster.errors import ConfigurationError
from forecaster.evaluation import benchmark_config
from forecaster.flags import PROJECT, REQUIRED, Program, flag, in_project, read_words, split_words, typed
from forecaster.jobs import forecast_config, walk_config
from forecaster.training import train_config

PROGRAMS: list[Program[Any]] = [
    train_config.PROGRAM,
    benchmark_config.PROGRAM,
    pipeline_config.PROGRAM,
    launch_config.PROGRAM,
    forecast_config.PROGRAM,
    walk_config.PROGRAM,
]
SHOW_HELP = [
    ["train_lora.py", "--help"],
    ["data_pipeline.py", "--help"],
    ["launch.py", "--help"],
    ["forecast.py", "--help"],
    ["benchmark.py", "--help"],
    ["walk_forward.py", "--help"],
]
HEAVY = {"torch", "transformers", "datasets", "pandas", "peft", "trl", "deepspeed", "wandb", "matplotlib"}


@dataclass(frozen=True)
class Trip:
    """A small record with a flag of each kind."""

    to: str = flag(REQUIRED, "the town to go to", "where")
    stops: tuple[str, ...] = flag((), "towns on the way", "where", metavar="TOWN", positional=True)
    day: date | None = flag(None, "when to leave", "when", shown="today")
    speed_kmh: float = flag(80.0, "kilometres an hour, 10 % less in rain", "how")
    seats: int = flag(1, "seats", "how")
    by_night: bool = flag(False, "travel by night", "when")
    vehicle: Literal["train", "bus"] | None = flag(None, "what to take", "how")
    map_file: tuple[Path, ...] = flag((), "maps to carry", "how")


TRIP = Program("trip.py", Trip, "Travel.", ("python trip.py --to Bern", "python trip.py Olten --to Bern"))
TRIP_HELP = """\
usage: trip.py [TOWN ...] --to TEXT [flags]

Travel.

options:
  -h, --help            show this help message and exit

where:
  TOWN                  towns on the way
  --to TEXT             the town to go to (needed)

when:
  --day YYYY-MM-DD      when to leave (default: today)
  --by_night [true|false]
                        travel by night (default: false)

how:
  --speed_kmh X         kilometres an hour, 10 % less in rain (default: 80.0)
  --seats N             seats (default: 1)
  --vehicle {train,bus}
                        what to take
  --map_file PATH [PATH ...]
                        maps to carry

examples:
  python trip.py --to Bern
  python trip.py Olten --to Bern
"""


def trip(line: str) -> Trip:
    found, problems = typed(Trip, read_words(TRIP, line.split()))
    assert problems == []
    return found


def refusals(line: str) -> list[str]:
    try:
        problems = typed(Trip, read_words(TRIP, line.split()))[1]
    except ConfigurationError as error:
        problems = error.problems
    return [str(problem) for problem in problems]


def help_of(
    program: Program[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        read_words(program, ["--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


# --- words --------------------------------------------------------------------------------------------------


def test_each_kind_of_flag_is_typed() -> None:
    assert trip(
        "--to Bern --day 2026-03-06 --speed_kmh 1e2 --seats=-2 --by_night --vehicle bus --map_file a b"
    ) == Trip("Bern", (), date(2026, 3, 6), 100.0, -2, True, "bus", (Path("a"), Path("b")))
    assert trip("--to Bern") == Trip("Bern", (), None, 80.0, 1, False, None, ())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--to=Bern --speed-kmh 5", Trip("Bern", speed_kmh=5.0)),
        ("--to Bern --speed-kmh=-5.5", Trip("Bern", speed_kmh=-5.5)),
        ("--to Bern --seats -3", Trip("Bern", seats=-3)),
        ("--to Bern --seats 2 --seats 3", Trip("Bern", seats=3)),
        ("--to Bern --by-night", Trip("Bern", by_night=True)),
        ("--to Bern --by_night Olten", Trip("Bern", ("Olten",), by_night=True)),
        ("--to Bern --by_night false Olten", Trip("Bern", ("Olten",))),
        ("--to Bern --by_night=NO", Trip("Bern")),
        ("Olten --to Bern Thun", Trip("Bern", ("Olten", "Thun"))),
        ("--to Bern -- Olten", Trip("Bern", ("Olten",))),
        ("--to Bern --map_file a --map-file b c", Trip("Bern", map_file=(Path("a"), Path("b"), Path("c")))),
        ("--to --by_night", None),
    ],
)
def test_words_are_read_in_every_way_that_they_are_written(line: str, expected: Trip | None) -> None:
    if expected is None:
        assert refusals(line) == ["command line: argument --to: expected one argument. See --help."]
    else:
        assert trip(line) == expected


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        ("--to Bern --seat 2", ["--seat: is no flag. Did you mean --seats?"]),
        (
            "--to Bern --Speed-kmh=2 -x",
            ["--Speed-kmh=2: is no flag. Did you mean --speed_kmh?", "-x: is no flag. See --help."],
        ),
        ("--to Bern --zzz Olten", ["--zzz: is no flag. See --help."]),
        ("", ["--to: is missing. Give the town to go to."]),
        (
            "--seats two --by_night=maybe --day soon --speed_kmh fast --vehicle car",
            [
                "--to: is missing. Give the town to go to.",
                "--day: is 'soon'. Give a day as YYYY-MM-DD.",
                "--speed_kmh: is 'fast'. Give a number.",
                "--seats: is 'two'. Give a whole number.",
                "--by_night: is 'maybe'. Use true or false.",
                "--vehicle: is 'car'. Allowed: train, bus.",
            ],
        ),
        (
            "--to Bern --seats 99999999999999999999 --speed_kmh=-1e300",
            [
                "--speed_kmh: is -1e300. No number is above 4,294,967,296 here.",
                "--seats: is 99999999999999999999. No number is above 4,294,967,296 here.",
            ],
        ),
        (
            f"--to Bern --seats {'9' * 5000}",
            [f"--seats: is '{'9' * 40}...'. Give a whole number."],
        ),
        ("--to Bern --seats=", ["--seats: is missing. Give a whole number."]),
    ],
)
def test_everything_that_cannot_be_read_is_told_at_once(line: str, messages: list[str]) -> None:
    assert refusals(line) == messages


def test_an_empty_word_for_what_has_no_default_is_nothing() -> None:
    assert trip("--to Bern --day=") == Trip("Bern")


def test_a_default_stands_in_for_what_cannot_be_read() -> None:
    found, problems = typed(Trip, {"to": "Bern", "seats": "two", "day": "2026-03-06"})
    assert found == Trip("Bern", day=date(2026, 3, 6))
    assert [problem.where for problem in problems] == ["--seats"]


def test_words_of_another_program_are_handed_on_as_they_stand() -> None:
    @dataclass(frozen=True)
    class Own:
        gpus: str | None = flag(None, "GPUs", "own")
        no_ssh: bool = flag(False, "no ssh", "own")

    own: Program[Any] = Program("own", Own, "", ("a", "b"))
    words = ["--max-length", "-5", "--no-ssh", "--resume", "--gpus", "0,1", "--gpu=t4", "--no_ssh_x", "true"]
    assert split_words(own, words) == (
        {"no_ssh": "true", "gpus": "0,1"},
        ["--max-length", "-5", "--resume", "--gpu=t4", "--no_ssh_x", "true"],
    )


# --- help ---------------------------------------------------------------------------------------------------


def test_a_help_shows_groups_units_defaults_and_examples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert help_of(TRIP, capsys, monkeypatch) == TRIP_HELP


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_help_names_every_flag_once_under_its_group_and_gives_two_examples(
    program: Program[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = help_of(program, capsys, monkeypatch)
    head, groups = re.split(r"\n\noptions:\n.*\n", text)
    groups, _, examples = groups.partition("\nexamples:\n")
    assert head.startswith(f"usage: {program.name} ")
    assert examples.splitlines() == [f"  {example}" for example in program.examples]
    assert len(set(program.examples)) == 2
    shown = {
        (title, name)
        for title, body in re.findall(r"\n([^\n ].*):\n((?:  .*\n)+)", groups)
        for name in re.findall(r"^  (?:--)?(\w+)", body, re.MULTILINE)
    }
    expected = set()
    for item in fields(program.record):
        name = item.metadata["metavar"] if item.metadata["positional"] else item.name
        expected.add((item.metadata["group"], name))
    assert shown == expected
    assert not re.findall(r"^  --\w+-", groups, re.MULTILINE)
    assert "%%" not in text


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_the_examples_of_a_help_are_commands_that_are_read(
    program: Program[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for example in program.examples:
        words = shlex.split(example.partition(program.name)[2])
        if program is launch_config.PROGRAM:
            assert train_config.parse_flags(launch_config.split_flags(words)[1])
        elif program is walk_config.PROGRAM:
            assert walk_config.parse_flags(words)
        else:
            assert read_words(program, words)


@pytest.mark.parametrize("words", SHOW_HELP, ids=lambda words: words[0])
def test_a_help_imports_nothing_heavy(words: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\nexamples:\n" in done.stdout
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "argparse" in imported
    assert imported & HEAVY == set()


def test_a_file_of_the_project_is_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_project("configs/embedded.yaml") == str(PROJECT / "configs" / "embedded.yaml")
    assert in_project("no/such.yaml") == "no/such.yaml"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "embedded.yaml").write_text("")
    assert in_project("configs/embedded.yaml") == "configs/embedded.yaml"


def test_scripts_keep_their_line_ends_in_every_checkout() -> None:
    lines = (PROJECT / ".gitattributes").read_text(encoding="utf-8").splitlines()
    assert "*.sh text eol=lf" in lines


def test_a_file_that_sets_a_flag_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("lora_r: 8\nseed: 1\nlora_r: 16\n")
    with pytest.raises(ConfigurationError) as caught:
        train_config.parse_flags(["--config", str(path)])
    (problem,) = caught.value.problems
    assert str(problem) == f"--config: {path} sets lora_r more than once. Keep one line of each."


def test_a_file_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("lora_r: " + "[" * 10_000)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        train_config.parse_flags(["--config", str(path)])
