"""Two machines, as two loopback addresses: the real train.sh and launcher on each, one CPU rank each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes import ROOT

from forecaster.cluster import nodes

pytestmark = pytest.mark.slow
TIMEOUT_S = 300
"""Ten times what an idle machine needs; a hang ends here."""


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that a test starts; none of theirs outlives it."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        kill_everything(process)


def kill_everything(process: subprocess.Popen[bytes]) -> None:
    """What a machine's loss leaves: nothing of the process and its children, and no farewell."""
    if process.poll() is None:
        top = psutil.Process(process.pid)
        for victim in [*top.children(recursive=True), top]:
            if victim.is_running():
                victim.kill()
    process.wait(TIMEOUT_S)


def start(folder: Path, rank: int, port: int, hosts: Path, output_dir: Path) -> subprocess.Popen[bytes]:
    """`train.sh --no_ssh` as on the machine of this rank; far more steps than the test waits for."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {name: value for name, value in os.environ.items() if name not in nodes.NAMES}
    env |= {"NODE_RANK": str(rank), "MASTER_PORT": str(port), "PATH": path, "VIRTUAL_ENV": sys.prefix}
    data = ROOT / "sample" / "dataset"
    command = [
        *(str(ROOT / "train.sh"), "--no_ssh", "--hostfile", str(hosts), "--no_benchmark"),
        *("--base_model", str(ROOT / "sample" / "base"), "--dataset", "train.jsonl"),
        *("--test_dataset", str(data / "test.jsonl"), "--max_length", "1024", "--lora_r", "2"),
        *("--gradient_accumulation_steps", "1", "--max_steps", "5000", "--eval_steps", "5000"),
        *("--log_interval", "1", "--report_to", "none", "--output_dir", str(output_dir)),
    ]
    with (folder / f"node_{rank}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)


def taken_rows(output_dir: Path, rank: int) -> list[str]:
    """Ids of the rows that a rank has trained on, in order."""
    path = output_dir / "row_order" / f"rank_{rank}.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [row_id for line in lines for row_id in json.loads(line)["row_ids"]]


def processes_of(folder: Path) -> list[list[str]]:
    """Command lines of this machine that name the folder."""
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [command for command in commands if any(str(folder) in word for word in command)]


def test_two_machines_train_together_and_the_loss_of_one_ends_the_other(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    rows = (ROOT / "sample" / "dataset" / "train.jsonl").read_text(encoding="utf-8").splitlines()[:16]
    (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 slots=1\n127.0.0.2 slots=1\n")
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    folders = [tmp_path / f"run_{rank}" for rank in (0, 1)]
    started += [start(tmp_path, rank, port, hosts, folders[rank]) for rank in (0, 1)]

    deadline = time.monotonic() + TIMEOUT_S
    while not all(len(taken_rows(folders[0], rank)) >= 8 for rank in (0, 1)):
        logs = "".join((tmp_path / f"node_{rank}.log").read_text()[-3000:] for rank in (0, 1))
        assert time.monotonic() < deadline, logs
        assert [process.poll() for process in started] == [None, None], logs
        time.sleep(0.2)
    kill_everything(started[1])
    assert started[0].wait(TIMEOUT_S) not in (0, 75)

    # One epoch, shared: each row once, on one of the two machines. Rank 0's folder is that of both.
    first_epoch = [row_id for rank in (0, 1) for row_id in taken_rows(folders[0], rank)[:8]]
    assert sorted(first_epoch) == sorted(f"train.jsonl:train#{i}" for i in range(16))
    assert not folders[1].exists()
    assert "step 2/5000  loss" in (tmp_path / "node_0.log").read_text()
    assert "step 2/5000  loss" not in (tmp_path / "node_1.log").read_text()
    assert processes_of(tmp_path) == []
