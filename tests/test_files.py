"""Files that are whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forecaster.files import write_json, write_whole


def test_a_write_that_fails_halfway_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    write_whole(path, "former\n")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new\n")
    assert path.read_text() == "former\n"
    monkeypatch.undo()
    write_whole(path, "newer\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]
    assert path.read_text() == "newer\n"


def test_json_is_written_in_sorted_order_and_what_it_does_not_know_as_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": Path("x"), "a": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n "a": [\n  1\n ],\n "b": "x"\n}\n'
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1], "b": "x"}


def test_lone_surrogates_of_a_user_pass_where_they_may(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", "\ud800", errors="surrogatepass")
    assert (tmp_path / "a").read_bytes() == b"\xed\xa0\x80"
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "b", "\ud800")
