"""What ranks on the CPU need of a machine, asked at the system's edge."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from forecaster.fit.cpu_launch import find_build_problems, find_memory_problems

MIB = 2**20


def shared_memory(monkeypatch: pytest.MonkeyPatch, free: int, total: int) -> None:
    state = SimpleNamespace(f_bavail=free, f_blocks=total, f_frsize=1, f_flag=0)
    monkeypatch.setattr(os, "statvfs", lambda path: state)


@pytest.mark.parametrize(
    ("ranks", "workers", "has_buffers", "is_before", "told"),
    [
        (1, 0, True, True, ["/dev/shm: has 67.1 MB, and 1 rank(s) may need 70.", "--shm-size=1g"]),
        (1, 0, True, False, None),
        (4, 0, True, False, ["has 268.4 MB, and 4 rank(s) may need 281."]),
        (2, 0, False, True, None),
        (1, 2, False, True, None),
        (1, 20, False, True, ["1 rank(s) with --num_workers 20 may need 84.", ", or use --num_workers 0."]),
    ],
)
def test_a_small_shared_memory_is_told(
    ranks: int,
    workers: int,
    has_buffers: bool,
    is_before: bool,
    told: list[str] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared_memory(monkeypatch, 64 * MIB, 256 * MIB)
    problems = find_memory_problems(ranks, workers, has_buffers, is_before)
    assert len(problems) == (0 if told is None else 1)
    for text in told or ():
        assert text in str(problems[0])


def test_a_build_needs_a_compiler_until_it_is_done(tmp_path: Path) -> None:
    (problem,) = find_build_problems(tmp_path / "cache", "no-such-c++")
    assert str(problem).startswith("C++ compiler: no-such-c++ is not installed, and DeepSpeed builds")
    built = tmp_path / "cache" / "py311_cpu" / "deepspeed_shm_comm"
    built.mkdir(parents=True)
    (built / "deepspeed_shm_comm.so").touch()
    assert find_build_problems(tmp_path / "cache", "no-such-c++") == []


def test_a_cache_that_cannot_be_written_or_loaded_from_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as edge:
        edge.setattr(os, "access", lambda path, mode: False)
        (problem,) = find_build_problems(tmp_path / "cache", "sh")
    assert f"TORCH_EXTENSIONS_DIR: {tmp_path / 'cache'} cannot be written." in str(problem)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_NOEXEC))
    (problem,) = find_build_problems(tmp_path / "cache", "sh")
    assert "is on a disk that is mounted noexec" in str(problem)
