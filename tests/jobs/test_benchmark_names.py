"""What a run is called in the name of a folder."""

from __future__ import annotations

import pytest

from forecaster.jobs.benchmark import slug


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("GPT 4o, again", "GPT-4o-again"),
        ("a/b", "a-b"),
        ("..", "run"),
        ("...", "run"),
        ("/", "run"),
        ("../../x", "x"),
        ("x..", "x"),
        (".hidden", "hidden"),
        ("llama3.1", "llama3.1"),
        ("\u6a21\u578b", "\u6a21\u578b"),
    ],
)
def test_a_name_of_a_run_leads_nowhere_else(name: str, folder: str) -> None:
    assert slug(name) == folder
