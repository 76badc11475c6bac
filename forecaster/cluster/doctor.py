"""Is every node fit for a run? Each node reports on itself; the reports are judged together.

    ./train.sh --doctor                       this machine
    ./train.sh --doctor --hostfile hosts      each host, over ssh
    ./train.sh --doctor --no_ssh              this node of a rented cluster

A node's report comes from `python -m forecaster.cluster.doctor`, which prints it as JSON.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from forecaster.cluster.nodes import Cluster, Node, port_is_free
from forecaster.fit.gpus import detect_gpus
from forecaster.provenance import versions
from forecaster.settings import named_variables, redact

ROOT = Path(__file__).resolve().parents[2]
IFNAME = "NCCL_SOCKET_IFNAME"
LEAST_FREE_BYTES = 5_000_000_000
"""Room for checkpoints and caches; a run checks what its own model needs."""
MOST_SKEW_S = 30.0
"""Clocks further apart mix up logs, and the age of files on a shared disk."""
SSH_TIMEOUT_S = 120
_CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class NodeReport:
    """What a node says about itself."""

    versions: dict[str, str]
    gpus: tuple[str, ...]
    clock_s: float
    """Seconds since 1970."""
    free_bytes: int
    port_free: bool
    interfaces: tuple[str, ...]
    asked_interface: str | None
    """NCCL_SOCKET_IFNAME."""
    route_interface: str | None
    """The one that leads to node 0; None: no way there."""


@dataclass(frozen=True)
class NodeAnswer:
    """A node's report, or why there is none, and when it was asked for."""

    node: Node
    report: NodeReport | None
    failure: str
    asked_s: float
    answered_s: float


@dataclass(frozen=True)
class NodeFinding:
    """One check of one node."""

    node: str
    check: str
    found: str
    way_out: str | None = None
    """None: all is well."""


# --- report -------------------------------------------------------------------------------------------------


def examine_this_machine(folder: Path, master_addr: str | None, port: int) -> NodeReport:
    """The report of the machine that this runs on; `folder` is where the run would write."""
    return NodeReport(
        versions=versions(),
        gpus=tuple(f"{gpu.name}, {gpu.driver}" for gpu in detect_gpus()),
        clock_s=time.time(),
        free_bytes=shutil.disk_usage(folder).free,
        port_free=port_is_free(port),
        interfaces=tuple(psutil.net_if_addrs()),
        asked_interface=named_variables([IFNAME]).get(IFNAME),
        route_interface=interface_towards(master_addr) if master_addr else None,
    )


def interface_towards(address: str) -> str | None:
    """Name of the interface through which this machine would reach `address`; nothing is sent."""
    try:
        host = socket.getaddrinfo(address, None, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host[0], 9))
            own_address = probe.getsockname()[0]
    except OSError:
        return None
    addresses = psutil.net_if_addrs()
    exact = [name for name, known in addresses.items() if any(a.address == own_address for a in known)]
    # All of 127.0.0.0/8 is the loopback interface, which names 127.0.0.1 only.
    return exact[0] if exact else ("lo" if own_address.startswith("127.") else None)


def ask_over_ssh(node: Node, cluster: Cluster, folder: Path) -> NodeAnswer:
    """The report of a host of the hostfile, by the Python and the project of the same paths there.

    No key is part of the command, and ssh never asks for a password.
    """
    master = cluster.master_addr or cluster.nodes[0].name
    words = [sys.executable, "-m", "forecaster.cluster.doctor", "--folder", str(folder), "--master", master]
    words += ["--port", str(cluster.master_port)]
    port = ["-p", str(cluster.ssh_port)] if cluster.ssh_port else []
    command = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_TIMEOUT_S}", *port, node.name]
    asked_s = time.time()
    try:
        done = subprocess.run(
            [*command, f"cd {shlex.quote(str(ROOT))} && {shlex.join(words)}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SSH_TIMEOUT_S,
        )
    except FileNotFoundError:
        return NodeAnswer(node, None, "there is no ssh on this machine", asked_s, time.time())
    except subprocess.TimeoutExpired:
        return NodeAnswer(node, None, f"no answer in {SSH_TIMEOUT_S} s", asked_s, time.time())
    answered_s = time.time()
    try:
        content = json.loads(done.stdout.strip().splitlines()[-1])
        lists = {name: tuple(content[name]) for name in ("gpus", "interfaces")}
        return NodeAnswer(node, NodeReport(**content | lists), "", asked_s, answered_s)
    except (LookupError, ValueError, TypeError):  # no report, or another revision's
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        return NodeAnswer(node, None, redact(said)[:200], asked_s, answered_s)


# --- judge --------------------------------------------------------------------------------------------------


def judge(
    answers: Sequence[NodeAnswer], port: int, master_addr: str | None, first_rank: int = 0
) -> list[NodeFinding]:
    """Every check of every node, in order. Pure.

    Args:
        master_addr: None: one machine, which needs no network.
        first_rank: which node the first answer is.
    """
    reports = [answer.report for answer in answers if answer.report]
    some_gpus = any(report.gpus for report in reports)
    found = []
    for node_rank, answer in enumerate(answers, first_rank):
        name, report = answer.node.name, answer.report
        if report is None:
            remedy = "Mend `ssh` to it without a password (ssh-copy-id), and put the project and its Python "
            found.append(NodeFinding(name, "ssh", answer.failure, remedy + "environment at the same paths."))
            continue
        found.append(_judge_versions(name, report, reports[0]))
        found.append(_judge_gpus(answer.node, report, some_gpus))
        if master_addr is not None:
            if node_rank == 0:
                remedy = "Stop what listens there, or set another MASTER_PORT."
                state, way_out = ("free", None) if report.port_free else ("in use", remedy)
                found.append(NodeFinding(name, "port", f"{port} is {state}", way_out))
            found.append(_judge_interface(name, report, master_addr, node_rank))
            found.append(_judge_clock(name, answer, report))
        full = report.free_bytes < LEAST_FREE_BYTES
        text = f"{report.free_bytes / 1e9:.1f} GB free"
        found.append(NodeFinding(name, "disk", text, "Free some space, 5 GB or more." if full else None))
    return found


def _judge_versions(node: str, report: NodeReport, first: NodeReport) -> NodeFinding:
    packages = {*report.versions, *first.versions}
    others = [
        f"{name} {report.versions.get(name, 'missing')} instead of {first.versions.get(name, 'none')}"
        for name in sorted(packages)
        if report.versions.get(name) != first.versions.get(name)
    ]
    if others:
        way_out = "Install the same on all nodes: `pip install -r requirements.txt`, at the same revision."
        return NodeFinding(node, "versions", ", ".join(others), way_out)
    main = ", ".join(f"{name} {report.versions.get(name, '?')}" for name in ("python", "torch"))
    return NodeFinding(node, "versions", f"{main} and {len(report.versions) - 2} others")


def _judge_gpus(node: Node, report: NodeReport, some_gpus: bool) -> NodeFinding:
    kinds = ", ".join(f"{report.gpus.count(kind)} x {kind}" for kind in sorted(set(report.gpus)))
    if not some_gpus:
        return NodeFinding(node.name, "GPUs", "none: ranks on the CPU")
    highest = max(node.slots)
    if highest < len(report.gpus):
        return NodeFinding(node.name, "GPUs", kinds)
    found = f"{kinds or 'none'}, and the run would use number {highest}"
    return NodeFinding(node.name, "GPUs", found, "Correct the slots or --gpus, or mend `nvidia-smi` there.")


def _judge_interface(name: str, report: NodeReport, master_addr: str, node_rank: int) -> NodeFinding:
    way_out = "Set MASTER_ADDR to an address of node 0 that every node reaches."
    if report.route_interface == "lo" and node_rank > 0:
        return NodeFinding(name, "network", f"{master_addr} is this node itself, and not node 0", way_out)
    asked = report.asked_interface
    if asked is not None:
        found = f"{IFNAME}={asked}"
        if any(nccl_takes(interface, asked) for interface in report.interfaces):
            return NodeFinding(name, "network", found)
        rename = f"Name one of {', '.join(report.interfaces)}, or unset it."
        return NodeFinding(name, "network", f"{found}, which is none of its interfaces", rename)
    if report.route_interface is None:
        return NodeFinding(name, "network", f"no way to {master_addr}", way_out)
    return NodeFinding(name, "network", f"{report.route_interface} leads to {master_addr}")


def nccl_takes(interface: str, asked: str) -> bool:
    """NCCL's reading of NCCL_SOCKET_IFNAME: a comma list of prefixes, after `^` what not, after `=` whole
    names."""
    listed = asked.lstrip("^=").split(",")
    whole, excluded = "=" in asked[:2], asked.startswith("^")
    named = any(interface == part if whole else interface.startswith(part) for part in listed)
    return named is not excluded


def _judge_clock(name: str, answer: NodeAnswer, report: NodeReport) -> NodeFinding:
    """The node read its clock at some moment between question and answer."""
    early, late = answer.asked_s - report.clock_s, report.clock_s - answer.answered_s
    if max(early, late) <= MOST_SKEW_S:
        return NodeFinding(name, "clock", "as here")
    found = f"{max(early, late):.0f} s {'behind' if early > late else 'ahead'}"
    return NodeFinding(name, "clock", found, "Let it follow a time server: `timedatectl set-ntp true`.")


# --- show ---------------------------------------------------------------------------------------------------


def run(cluster: Cluster | None, indices: Sequence[int]) -> int:
    """Examine, print a table and what to mend.

    Returns:
        0: all is well; 1: something is to be mended.
    """
    folder, port = Path.cwd(), cluster.master_port if cluster else 0
    if cluster is not None and cluster.node_rank is None:
        with ThreadPoolExecutor(max_workers=len(cluster.nodes)) as pool:
            answers = list(pool.map(lambda node: ask_over_ssh(node, cluster, folder), cluster.nodes))
        if asked := named_variables([IFNAME]).get(IFNAME):  # the launcher hands it to all nodes
            answers = [
                replace(answer, report=replace(answer.report, asked_interface=asked))
                if answer.report
                else answer
                for answer in answers
            ]
        master: str | None = cluster.master_addr or cluster.nodes[0].name
    else:
        master = cluster.master_addr if cluster else None
        node = Node(socket.gethostname(), tuple(indices))
        asked_s = time.time()
        answers = [NodeAnswer(node, examine_this_machine(folder, master, port), "", asked_s, time.time())]
    first_rank = (cluster.node_rank or 0) if cluster else 0
    findings = judge(answers, port, master, first_rank)
    print(table(findings))
    to_mend = [finding for finding in findings if finding.way_out]
    for finding in to_mend:
        print(f"{finding.node}, {finding.check}: {finding.found}. {finding.way_out}")
    if not to_mend:
        print("All is well.")
    return 1 if to_mend else 0


def table(findings: Sequence[NodeFinding]) -> str:
    rows = [("node", "check", "", "found")]
    rows += [(f.node, f.check, "MEND" if f.way_out else "ok", f.found) for f in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    )


def main() -> None:
    """Print this machine's report as one line of JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--master", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    # A folder that is missing here is made by the run; its disk is that of the nearest one that exists.
    folder = next(path for path in (args.folder, *args.folder.parents) if path.exists())
    print(json.dumps(asdict(examine_this_machine(folder, args.master, args.port))))


if __name__ == "__main__":
    main()
