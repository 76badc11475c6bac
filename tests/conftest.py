"""Fixtures that every test shares: a calm environment, rows on disk, and real data where there is some."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from small_runs import JsonlWriter

if TYPE_CHECKING:
    from loopback_endpoint import Endpoint

# Before anything imports yfinance: it then talks through requests, which a loopback server can stand behind.
os.environ["YF_DISABLE_CURL_CFFI"] = "1"
# Before anything imports torch, and for every process that a test starts: models this small gain nothing from
# a second thread, and threads that wait for one another take the cores from whatever else runs.
os.environ["OMP_NUM_THREADS"] = "1"

_LONGEST_FILES = (
    "test_training_runs.py",
    "test_main_job.py",
    "test_data_pipeline.py",
    "test_benchmark.py",
    "test_forecast.py",
    "test_readme.py",
    "test_ds_configs.py",
    "test_memory.py",
    "test_pictures.py",
)
"""Those that start ranks or draw: `make test` gives each worker a file at a time, and a long one at the end
would leave the other worker idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: place for place, name in enumerate(_LONGEST_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


_CLEARED = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "CUDA_VISIBLE_DEVICES",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An OpenAI-compatible endpoint on the loopback interface."""
    from loopback_endpoint import endpoint_on_loopback

    with endpoint_on_loopback() as server:
        yield server


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are made again are made at once."""
    from forecaster import chat

    monkeypatch.setattr(chat, "_BACKOFF", lambda state: 0.0)


@pytest.fixture
def environment_as_it_was() -> Iterator[None]:
    """What a test leaves in the environment does not reach the next one: the entry points put the keys of
    `.env` there, and patches of a test may end in another order than they began."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """Who takes over the stop signals of the tests' own process would take them from every later test."""
    watched = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(each) for each in watched]
    yield
    assert [signal.getsignal(each) for each in watched] == before


@pytest.fixture
def trained_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a training in the tests' own process: its watch would own the process's signals, and end it."""
    from forecaster.training.survival.stopping import StopWatch

    monkeypatch.setattr(StopWatch, "start", lambda watch: None)


@pytest.fixture(autouse=True)
def calm_environment(environment_as_it_was: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, rank or GPU choice of the person who runs the tests reaches them, and nothing asks the hub."""
    for name in [*_CLEARED, *(name for name in os.environ if name.startswith("WANDB_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def real_data() -> Path:
    """Folder with real rows; the tests that need it are skipped where it is not given."""
    if folder := os.environ.get("FORECASTER_REAL_DATA"):
        return Path(folder)
    pytest.skip("FORECASTER_REAL_DATA is not set: no real data here")


@pytest.fixture
def jsonl(tmp_path: Path) -> JsonlWriter:
    """Writes rows (prompt, answer, period, label, symbol) as they are; a relative name lies in `tmp_path`."""

    def write(name: str | Path, rows: Sequence[Mapping[str, Any]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write
