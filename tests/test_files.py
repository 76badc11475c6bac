"""Files that are whole or absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from forecaster.errors import ConfigurationError
from forecaster.evaluation.answer_files import Columns
from forecaster.evaluation.loading import load_run
from forecaster.files import write_json, write_whole
from forecaster.plain_text import read_text
from forecaster.schemas import read_json
from forecaster.tables import json_lines
from forecaster.tasks.weekly import WEEKLY
from forecaster.vendors.own_files import read_news_file, read_price_file


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


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


def load_answers(path: Path) -> object:
    return load_run(f"GPT={path}", Columns(), WEEKLY)


@pytest.mark.parametrize(
    ("read", "name", "where"),
    [
        *((read_news_file, f"news{end}", "--news_file ") for end in (".csv", ".jsonl", ".parquet")),
        *((read_price_file, f"prices{end}", "--price_file ") for end in (".csv", ".jsonl", ".parquet")),
        *(
            (load_answers, f"answers{end}", "")
            for end in (".csv", ".jsonl", ".parquet", ".json", ".log", ".txt")
        ),
        (read_text, "prompt.txt", ""),
        (lambda path: read_json(path, ""), "run_config.json", ""),
        (lambda path: list(json_lines(path)), "rows.jsonl", ""),
    ],
)
def test_a_pointer_of_git_lfs_is_told_by_every_reader(
    read: Callable[[Path], object], name: str, where: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(POINTER)
    with pytest.raises(ConfigurationError) as refused:
        read(path)
    assert [str(problem) for problem in refused.value.problems] == [
        f"{where}{path}: is a pointer of Git LFS, not the file itself. Run `git lfs pull` there, or download "
        "the files themselves."
    ]


@pytest.mark.parametrize("name", ["rows.jsonl", "predictions.jsonl", "benchmark.json"])
def test_a_pointer_in_a_benchmarks_folder_is_told(name: str, tmp_path: Path) -> None:
    for each in ("rows.jsonl", "predictions.jsonl"):
        (tmp_path / each).write_text("")
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(ConfigurationError, match=rf"{name}: is a pointer of Git LFS"):
        load_run(str(tmp_path), Columns(), WEEKLY)
