"""--push_to_hub: the real client uploads to a hub on the loopback interface, and what arrived loads again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from loopback_hub import serve
from processes import ROOT, free_port, run_entry

import data_pipeline

TOKEN = "hf_CanaryForTheLoopbackHub"
REPO = "someone/weekly-rows"
NAME = "fingpt-forecaster-aapl-msft-20250825-20260424-1-4-06"
FLAGS = ("--index_name", "AAPL,MSFT", "--start_date", "2025-08-25", "--end_date", "2026-04-24")
FLAGS += ("--news_file", str(ROOT / "sample" / "news.csv"), "--teacher", "template")
FLAGS += ("--price_file", str(ROOT / "sample" / "weekly_closes.csv"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@dataclass(frozen=True)
class Uploaded:
    """A folder in which the whole pipeline ran, and the hub to which it uploaded."""

    cwd: Path
    hub: Path
    endpoint: str
    requests: list[tuple[str, str, str]]
    done: subprocess.CompletedProcess[str]

    def run(self, entry: str, *flags: str) -> subprocess.CompletedProcess[str]:
        return run_entry(entry, self.cwd, *flags, **environment(self.cwd, self.endpoint))


def environment(cwd: Path, endpoint: str) -> dict[str, str]:
    return {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cwd / "cache"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "FINNHUB_API_KEY": "",
    }


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uploaded]:
    cwd, hub = tmp_path_factory.mktemp("push"), tmp_path_factory.mktemp("hub")
    with serve(hub) as (endpoint, requests):
        flags = (*FLAGS, "--push_to_hub", REPO)
        done = run_entry("data_pipeline.py", cwd, *flags, **environment(cwd, endpoint))
        yield Uploaded(cwd, hub, endpoint, requests, done)


def test_the_finished_folder_is_uploaded_as_a_private_dataset(uploaded: Uploaded) -> None:
    done = uploaded.done
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    folder = uploaded.cwd / "data" / NAME
    assert content(uploaded.hub / "datasets" / REPO) == content(folder)
    assert {"README.md", "manifest.json", "parquet/test.parquet", "train/state.json"} <= content(
        folder
    ).keys()
    # Nothing that fails its audit leaves this machine.
    assert done.stdout.index("Passed: no leak and no error.") < done.stdout.index(
        f"uploaded to {REPO} (private)"
    )
    assert TOKEN not in done.stdout + done.stderr
    assert all(TOKEN.encode() not in found for found in content(uploaded.cwd).values())
    sent = {path: authorization for method, path, authorization in uploaded.requests if method == "POST"}
    assert sent["api/repos/create"] == sent[f"api/datasets/{REPO}/commit/main"] == f"Bearer {TOKEN}"
    with pytest.raises(RepositoryNotFoundError):
        HfApi(uploaded.endpoint, token=False).dataset_info(REPO)


def test_what_arrived_is_described_and_trained_on(uploaded: Uploaded) -> None:
    done = uploaded.run("data_pipeline.py", "describe", REPO, "--from_remote")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| rows                       |                       40 |" in done.stdout
    base = ("--base_model", str(ROOT / "sample" / "base"), "--report_to", "none", "--max_length", "2048")
    done = uploaded.run("train_lora.py", *base, "--dataset", REPO, "--from_remote", "--dry_run")
    assert done.returncode == 0, done.stderr[-3000:]
    assert TOKEN not in done.stdout + done.stderr


# --- in this process ----------------------------------------------------------------------------------------


Push = Callable[[str, str], int]


@pytest.fixture
def push(uploaded: Uploaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Push:
    """Builds from the ledger of the first run, and uploads: endpoint and dataset give the exit status."""
    shutil.copytree(uploaded.cwd / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def run(endpoint: str, repo: str) -> int:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        return data_pipeline.main(["build", *FLAGS, "--push_to_hub", repo])

    return run


def test_an_equal_dataset_is_not_sent_again(uploaded: Uploaded, push: Push) -> None:
    uploaded.requests.clear()
    assert push(uploaded.endpoint, REPO) == 0
    asked = [path for _, path, _ in uploaded.requests]
    assert f"api/datasets/{REPO}/preupload/main" in asked
    assert f"api/datasets/{REPO}/commit/main" not in asked


def test_a_dataset_that_was_public_before_is_called_so(
    push: Push, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "hub" / "datasets" / "someone" / "shown-to-all"
    there.mkdir(parents=True)
    with serve(tmp_path / "hub") as (endpoint, _):
        assert push(endpoint, "someone/shown-to-all") == 0
    assert "uploaded to someone/shown-to-all (public)" in capsys.readouterr().out
    assert content(there) == content(tmp_path / "data" / NAME)


@pytest.mark.parametrize(
    ("refusals", "found"),
    [
        ({"repos/create": 401}, "401 Unauthorized"),
        ({"repos/create": 500}, "500 Internal Server Error"),
        ({"commit/": 403}, "403 Forbidden"),
        (None, "Connection refused"),
    ],
    ids=["token refused", "out of order", "no right to write", "unreachable"],
)
def test_a_hub_that_does_not_take_it_leaves_the_folder_and_is_told_in_one_line(
    push: Push,
    uploaded: Uploaded,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    refusals: Mapping[str, int] | None,
    found: str,
) -> None:
    (tmp_path / "hub").mkdir()
    with serve(tmp_path / "hub", refusals or {}) as (endpoint, _):
        status = push(endpoint if refusals else f"http://127.0.0.1:{free_port()}", REPO)
    assert status == 1
    printed = capfd.readouterr()
    (told,) = [line for line in printed.err.splitlines() if "build:" not in line and line]
    assert told.startswith(f"data/{NAME} stands, but is not at {REPO}: ") and found in told
    assert told.endswith("Check HF_TOKEN, its rights and the network; the same command uploads it.")
    assert "uploaded" not in printed.out
    assert TOKEN not in printed.out + printed.err
    assert content(tmp_path / "data" / NAME) == content(uploaded.cwd / "data" / NAME)
    assert list((tmp_path / "hub").rglob("*.parquet")) == []


def test_a_hub_that_cannot_be_reached_is_no_fault_of_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda _: None)
    assert data_pipeline.main(["describe", REPO, "--from_remote"]) == 2
    told = capsys.readouterr().err
    assert f"{REPO}: the hub did not serve it (ConnectionError). Check the name, the network" in told
