"""What the small files of a `save_to_disk` folder may say, checked before anything follows them.

A split is a folder beside them, and its name becomes the name of a file; a data file lies in its split's
folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from forecaster.schemas import FileName, read_checked, read_json, refused

DICT_FILE, STATE_FILE, INFO_FILE = "dataset_dict.json", "state.json", "dataset_info.json"
WAY_OUT = "Make it anew with save_to_disk, or take a whole copy."


class DatasetDictFile(BaseModel):
    """dataset_dict.json."""

    splits: Annotated[list[FileName], Field(min_length=1)]


class DataFile(BaseModel):
    filename: FileName


class StateFile(BaseModel):
    """state.json, beside the data files of one split."""

    data_files: Annotated[list[DataFile], Field(alias="_data_files", min_length=1)]
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[\w-]{1,64}$"), Field(alias="_fingerprint")]
    """Names what is kept of the rows in the cache."""


def check(folder: Path) -> None:
    """Raises ConfigurationError for a file of a `save_to_disk` folder that is damaged or names what lies
    elsewhere."""
    splits = [folder]
    if (folder / DICT_FILE).is_file():
        named = read_checked(folder / DICT_FILE, DatasetDictFile, WAY_OUT)
        splits = [folder / name for name in named.splits]
    for split in splits:
        if split != folder and split.is_symlink():
            raise refused(split, f"leads to {split.resolve()}.", WAY_OUT)
        state = read_checked(split / STATE_FILE, StateFile, WAY_OUT)
        names = [file.filename for file in state.data_files]
        if lacking := [name for name in names if not (split / name).is_file()]:
            raise refused(split, f"lacks {', '.join(lacking)}.", WAY_OUT)
        read_json(split / INFO_FILE, WAY_OUT)
