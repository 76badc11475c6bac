"""Which checkpoints may be resumed from: only those that are on disk to the last byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from forecaster.training.survival.checkpoints import Skipped, fault, mark_complete, newest_complete


def _checkpoint(run: Path, name: str, complete: bool = True) -> Path:
    folder = run / name
    (folder / "global_step").mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights of " + name.encode())
    (folder / "global_step" / "rank_0.pt").write_bytes(b"optimizer")
    if complete:
        mark_complete(folder)
    return folder


def test_a_checkpoint_whose_files_are_as_its_manifest_says_has_no_fault(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, "checkpoint-1")
    assert fault(folder) is None
    assert not (folder / ".manifest.json").exists()


def test_marking_twice_is_the_same_as_marking_once(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, "checkpoint-1")
    first = (folder / "manifest.json").read_bytes()
    mark_complete(folder)
    assert (folder / "manifest.json").read_bytes() == first
    assert fault(folder) is None


def test_without_a_manifest_a_checkpoint_was_not_finished(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, "checkpoint-1", complete=False)
    assert fault(folder) == "it has no manifest: it was not finished"


def test_a_manifest_that_was_only_begun_does_not_count(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, "checkpoint-1", complete=False)
    (folder / ".manifest.json").write_text('{"adapter_model')
    assert fault(folder) == "it has no manifest: it was not finished"
    mark_complete(folder)
    assert fault(folder) is None


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "global_step/rank_0.pt"])
def test_a_single_changed_byte_is_noticed(name: str, tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, "checkpoint-1")
    content = bytearray((folder / name).read_bytes())
    content[3] ^= 1
    (folder / name).write_bytes(content)
    assert fault(folder) == f"{name} has changed since it was saved"


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "global_step/rank_0.pt"])
def test_a_missing_and_an_emptied_file_are_noticed(name: str, tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, "checkpoint-1")
    (folder / name).write_bytes(b"")
    assert fault(folder) == f"{name} has changed since it was saved"
    (folder / name).unlink()
    assert fault(folder) == f"{name} is missing"
    (folder / name).mkdir()
    assert fault(folder) == f"{name} is missing"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"adapter_model', id="cut off"),
        pytest.param(b"\x00" * 20, id="zeros"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
        pytest.param(b"[]", id="not an object"),
        pytest.param(b"null", id="null"),
    ],
)
def test_a_damaged_manifest_is_a_fault_and_no_crash(content: bytes, tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, "checkpoint-1")
    (folder / "manifest.json").write_bytes(content)
    assert fault(folder) == "its manifest is damaged"


def test_the_newest_complete_checkpoint_is_taken_by_number_not_by_letter(tmp_path: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-2"):
        _checkpoint(tmp_path, name)
    assert newest_complete(tmp_path) == (tmp_path / "checkpoint-10", [])


def test_newer_broken_checkpoints_are_passed_over_with_the_reason(tmp_path: Path) -> None:
    good = _checkpoint(tmp_path, "checkpoint-5")
    _checkpoint(tmp_path, "checkpoint-4", complete=False)
    (_checkpoint(tmp_path, "checkpoint-10") / "global_step" / "rank_0.pt").unlink()
    _checkpoint(tmp_path, "checkpoint-15", complete=False)
    assert newest_complete(tmp_path) == (
        good,
        [
            Skipped(tmp_path / "checkpoint-15", "it has no manifest: it was not finished"),
            Skipped(tmp_path / "checkpoint-10", "global_step/rank_0.pt is missing"),
        ],
    )


def test_when_none_is_complete_all_are_passed_over(tmp_path: Path) -> None:
    _checkpoint(tmp_path, "checkpoint-1", complete=False)
    _checkpoint(tmp_path, "checkpoint-2", complete=False)
    found, skipped = newest_complete(tmp_path)
    assert found is None
    assert [one.folder.name for one in skipped] == ["checkpoint-2", "checkpoint-1"]


def test_folders_of_other_names_are_ignored(tmp_path: Path) -> None:
    good = _checkpoint(tmp_path, "checkpoint-1")
    for name in ("checkpoint-best", "checkpoint-", "checkpoint-7-old", "checkpoint--8", "backup-9", "9"):
        _checkpoint(tmp_path, name)
    assert newest_complete(tmp_path) == (good, [])


def test_a_plain_file_with_the_name_of_a_checkpoint_is_not_taken_for_one(tmp_path: Path) -> None:
    good = _checkpoint(tmp_path, "checkpoint-1")
    (tmp_path / "checkpoint-2").write_text("no folder")
    assert newest_complete(tmp_path)[0] == good


def test_a_run_without_checkpoints_or_without_a_folder_has_none(tmp_path: Path) -> None:
    assert newest_complete(tmp_path) == (None, [])
    assert newest_complete(tmp_path / "nowhere") == (None, [])
