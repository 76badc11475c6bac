"""`train.sh --doctor`: reports of nodes judged, and planted faults found through a stand-in for ssh."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from processes import ROOT, run_entry

from forecaster.cluster import doctor, nodes
from forecaster.cluster.nodes import Node

HEALTHY = doctor.NodeReport(
    versions={"python": "3.11.7", "torch": "2.13.0", "revision": "abc"},
    gpus=("NVIDIA A100, 570.1",) * 2,
    clock_s=1_000_000.0,
    free_bytes=80_000_000_000,
    port_free=True,
    interfaces=("lo", "eth0", "ens1"),
    asked_interface=None,
    route_interface="eth0",
)


def answer(
    name: str, report: doctor.NodeReport | None, slots: int = 2, failure: str = ""
) -> doctor.NodeAnswer:
    return doctor.NodeAnswer(Node(name, tuple(range(slots))), report, failure, 999_999.0, 1_000_002.0)


def to_mend(second: doctor.NodeAnswer) -> list[str]:
    """What is wrong with a second node beside a healthy first one."""
    findings = doctor.judge([answer("a", HEALTHY), second], 29500, "a")
    return [f"{f.node}, {f.check}: {f.found}. {f.way_out}" for f in findings if f.way_out]


def test_two_healthy_nodes_have_nothing_to_mend() -> None:
    findings = doctor.judge([answer("a", HEALTHY), answer("b", HEALTHY)], 29500, "a")
    assert not any(finding.way_out for finding in findings)
    assert doctor.table(findings).splitlines()[:3] == [
        "node  check         found",
        "a     versions  ok  python 3.11.7, torch 2.13.0 and 1 others",
        "a     GPUs      ok  2 x NVIDIA A100, 570.1",
    ]
    assert [finding.check for finding in findings if finding.node == "b"] == [
        *("versions", "GPUs", "network", "clock", "disk")
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"versions": {"python": "3.12.1", "torch": "2.13.0", "revision": "abc"}},
            "b, versions: python 3.12.1 instead of 3.11.7. Install the same on all nodes: `pip install -r "
            "requirements.txt`, at the same revision.",
        ),
        (
            {"gpus": ("NVIDIA A100, 570.1",)},
            "b, GPUs: 1 x NVIDIA A100, 570.1, and the run would use number 1. Correct the slots or --gpus, "
            "or mend `nvidia-smi` there.",
        ),
        (
            {"clock_s": 1_000_600.0},
            "b, clock: 598 s ahead. Let it follow a time server: `timedatectl set-ntp true`.",
        ),
        (
            {"clock_s": 999_400.0},
            "b, clock: 599 s behind. Let it follow a time server: `timedatectl set-ntp true`.",
        ),
        ({"free_bytes": 10_000_000}, "b, disk: 0.0 GB free. Free some space, 5 GB or more."),
        (
            {"asked_interface": "ib0"},
            "b, network: NCCL_SOCKET_IFNAME=ib0, which is none of its interfaces. Name one of lo, eth0, "
            "ens1, or unset it.",
        ),
        (
            {"route_interface": None},
            "b, network: no way to a. Set MASTER_ADDR to an address of node 0 that every node reaches.",
        ),
        (
            {"route_interface": "lo"},
            "b, network: a is this node itself, and not node 0. Set MASTER_ADDR to an address of node 0 that "
            "every node reaches.",
        ),
    ],
)
def test_each_fault_is_told_with_its_remedy(changed: dict[str, object], message: str) -> None:
    assert to_mend(answer("b", dataclasses.replace(HEALTHY, **changed))) == [message]  # type: ignore[arg-type]


def test_a_node_that_examines_itself_knows_which_one_it_is() -> None:
    alone = dataclasses.replace(HEALTHY, route_interface="lo", port_free=False)
    found = {
        rank: [f.check for f in doctor.judge([answer("a", alone)], 29500, "a", rank) if f.way_out]
        for rank in (0, 1)
    }
    assert found == {0: ["port"], 1: ["network"]}


def test_only_node_0_needs_the_port() -> None:
    taken = dataclasses.replace(HEALTHY, port_free=False)
    assert to_mend(answer("b", taken)) == []
    findings = doctor.judge([answer("a", taken)], 29500, "a")
    assert [(f.found, f.way_out) for f in findings if f.check == "port"] == [
        ("29500 is in use", "Stop what listens there, or set another MASTER_PORT.")
    ]


@pytest.mark.parametrize(
    ("interface", "asked", "taken"),
    [
        ("eth0", "eth", True),
        ("eth0", "=eth", False),
        ("eth0", "=eth0", True),
        ("eth0", "ib,eth", True),
        ("docker0", "^docker,lo", False),
        ("eth0", "^docker,lo", True),
    ],
)
def test_interfaces_are_named_as_nccl_reads_them(interface: str, asked: str, taken: bool) -> None:
    assert doctor.nccl_takes(interface, asked) is taken


def test_the_interface_towards_a_loopback_address_is_the_loopback() -> None:
    assert doctor.interface_towards("127.0.0.1") == "lo"
    assert doctor.interface_towards("no-such-host.invalid") is None


# A stand-in for the ssh client: it runs the command here, and spoils the answer of the hosts that say so.
SSH = """#!{python}
import json, subprocess, sys
words = sys.argv[1:]
assert words[:5] == ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-p"] and words[5] == "2222", words
host, command = words[6:]
if host == "refuses":
    sys.exit("ssh: connect to host refuses port 2222: Connection refused")
done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
report = json.loads(done.stdout)
if host == "differs":
    report["versions"]["torch"] = "2.6.0"
    report["clock_s"] += 600
    report["free_bytes"] = 0
print("a greeting of the server")
print(json.dumps(report))
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the stand-in; `hosts` can be written there."""
    (tmp_path / "ssh").write_text(SSH.format(python=sys.executable))
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in (*nodes.NAMES, doctor.IFNAME):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_planted_faults_are_found_over_ssh(ssh: Path) -> None:
    (ssh / "hosts").write_text("fine slots=1\ndiffers slots=1\nrefuses slots=1\n")
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        cluster = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "HF_TOKEN": "key-of-hf"}
        flags = ("--doctor", "--hostfile", str(ssh / "hosts"), "--ssh_port", "2222")
        done = run_entry("train.sh", ROOT, *flags, **cluster)
    assert done.returncode == 1, done.stderr
    marks = [line.split()[:3] for line in done.stdout.splitlines()[1:]]
    assert [words[:2] for words in marks if words[2] == "MEND"] == [
        *(["fine", "port"], ["differs", "versions"], ["differs", "network"], ["differs", "clock"]),
        *(["differs", "disk"], ["refuses", "ssh"]),
    ]
    assert f"fine, port: {port} is in use. Stop what listens there" in done.stdout
    assert "differs, versions: torch 2.6.0 instead of " in done.stdout
    assert "differs, network: 127.0.0.1 is this node itself, and not node 0. Set MASTER_ADDR" in done.stdout
    assert (
        "refuses, ssh: ssh: connect to host refuses port 2222: Connection refused. Mend `ssh` to it without "
        "a password (ssh-copy-id), and put the project and its Python environment at the same paths."
    ) in done.stdout
    assert "key-of-hf" not in done.stdout


def test_a_machine_alone_is_well(ssh: Path) -> None:
    done = run_entry("train.sh", ROOT, "--doctor")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "All is well."), done.stdout + done.stderr


def test_the_report_of_a_node_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    report = doctor.examine_this_machine(ROOT, "127.0.0.1", 0)
    assert json.loads(json.dumps(dataclasses.asdict(report)))["route_interface"] == "lo"
    assert {"python", "torch", "deepspeed"} <= report.versions.keys()
