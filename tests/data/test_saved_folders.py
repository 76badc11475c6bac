"""What the files of a dataset's folder may say: nothing that they name lies, or is written, elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from forecaster.data import saved_folders
from forecaster.data.sources import read_parts
from forecaster.errors import ConfigurationError
from forecaster.tasks.weekly import WEEKLY

ROW = {
    "prompt": "How is A?",
    "answer": "It is well.",
    "period": "2024-01-07 to 2024-01-14",
    "label": "up by 1-2%",
    "symbol": "A",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = datasets.Dataset.from_list([ROW])
    datasets.DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "a" / "set")
    return tmp_path / "a" / "set"


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_parts(str(folder), False, WEEKLY)
    (problem,) = caught.value.problems
    return str(problem)


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_folder_as_it_is_saved_is_read(folder: Path) -> None:
    assert list(read_parts(str(folder), False, WEEKLY)) == ["train", "test"]


@pytest.mark.parametrize(
    "name",
    ["../../rows", "/tmp/rows", "a/b", "..", ".", ".hidden", "", "train\n", "tr\0ain", "a\\b", 5, None],
)
def test_a_split_is_a_folder_beside_the_list_and_nowhere_else(folder: Path, name: Any) -> None:
    """Its name becomes that of a file when it is converted."""
    change(folder / "dataset_dict.json", splits=["train", name])
    assert refusal(folder).startswith(f"{folder / 'dataset_dict.json'}: splits.1 is {name!r}: it should ")


@pytest.mark.parametrize(
    "content", ["[]", "5", "{}", '{"splits": []}', '{"splits": "train"}', "{", "[" * 100_000]
)
def test_a_list_of_splits_of_another_form_is_told(folder: Path, content: str) -> None:
    (folder / "dataset_dict.json").write_text(content)
    assert refusal(folder).startswith(f"{folder / 'dataset_dict.json'}: ")


@pytest.mark.parametrize("name", ["../../../rows.arrow", "/etc/passwd", ".."])
def test_a_data_file_lies_in_its_split(folder: Path, name: str) -> None:
    change(folder / "test" / "state.json", _data_files=[{"filename": name}])
    found = f"{folder / 'test' / 'state.json'}: _data_files.0.filename is {name!r}: it should match pattern"
    assert refusal(folder).startswith(found)


def test_a_fingerprint_that_names_another_folder_is_refused(folder: Path) -> None:
    change(folder / "train" / "state.json", _fingerprint="../../a")
    assert "state.json: _fingerprint is '../../a': it should match pattern" in refusal(folder)


def test_a_split_that_is_a_link_is_refused(folder: Path) -> None:
    (folder / "train").rename(folder.parent / "elsewhere")
    (folder / "train").symlink_to(folder.parent / "elsewhere")
    assert refusal(folder) == (
        f"{folder / 'train'}: leads to {folder.parent / 'elsewhere'}. {saved_folders.WAY_OUT}"
    )


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_file_that_a_split_lacks_is_named(folder: Path, name: str) -> None:
    (folder / "test" / name).unlink()
    assert name in refusal(folder)
