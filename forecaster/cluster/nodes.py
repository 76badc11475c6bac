"""Where the processes of a run live when one machine is not all: the hosts of a hostfile, reached over ssh,
or this node of a rented cluster, whose environment says which one it is.

The launcher's traps that this module is for (deepspeed 0.19.8): `--no_ssh` knows no node but this one
without a hostfile; a hostfile of one host is started here, wherever the host is; over ssh, arguments pass
through a remote shell, and the variables MLFLOW*, PYTHON* and those of `.deepspeed_env` go into the
arguments of pdsh.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forecaster.errors import ConfigurationError, Problem
from forecaster.plain_text import read_text
from forecaster.settings import deepspeed_env_files, is_secret, named_variables

DEFAULT_PORT = 29500
"""Where rank 0 listens for the others: the default of deepspeed and of torchrun."""
NODE_RANK = ("NODE_RANK", "GROUP_RANK", "SLURM_NODEID")
NODE_COUNT = ("NNODES", "NUM_NODES", "SLURM_NNODES", "SLURM_JOB_NUM_NODES")
MASTER_ADDR = ("MASTER_ADDR", "PRIMARY_ADDR")
MASTER_PORT = ("MASTER_PORT", "PRIMARY_PORT")
NODE_LIST = "SLURM_JOB_NODELIST"
RANKS_PER_NODE = "NUM_TRAINERS"
NAMES = (*NODE_RANK, *NODE_COUNT, *MASTER_ADDR, *MASTER_PORT, NODE_LIST, RANKS_PER_NODE)
"""What torchrun, RunPod (PRIMARY_..., NUM_NODES, NUM_TRAINERS) and SLURM set on each node."""
RANK_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK")
"""What clusters set for processes that they start themselves; the launcher sets its own."""


@dataclass(frozen=True)
class Node:
    """One machine, and the devices of it that take part, by index."""

    name: str
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Cluster:
    """The machines of one run; the first holds rank 0."""

    nodes: tuple[Node, ...]
    master_addr: str | None
    """None: the launcher asks the first node over ssh."""
    master_port: int
    node_rank: int | None
    """Which node this is; None: this machine starts all of them over ssh."""
    hostfile: Path | None
    """As the user gave it; None: `hostfile_text` has to be written for the launcher."""
    ssh_port: int | None = None
    chosen: bool = False
    """Whether --gpus chose among the slots of the hostfile."""

    @property
    def ranks(self) -> int:
        return sum(len(node.slots) for node in self.nodes)

    @property
    def keeps_results(self) -> bool:
        """Whether the benchmark belongs here: rank 0's machine, or the one that started all."""
        return self.node_rank in (None, 0)


# --- find ---------------------------------------------------------------------------------------------------


def find_cluster(
    hostfile: str | None,
    no_ssh: bool,
    ssh_port: int | None,
    indices: Sequence[int],
    gpus_named: bool,
    cuda_visible_devices: str | None,
) -> Cluster | None:
    """The machines that the flags and the environment name; None: this machine alone.

    Args:
        indices: devices of this machine that take part.
        gpus_named: whether --gpus chose them.

    Raises:
        ConfigurationError: with every problem of the hostfile, or every name that the environment lacks.
    """
    problems: list[Problem] = []
    if ssh_port is not None and (no_ssh or not hostfile):
        problems.append(Problem("--ssh_port", "goes with --hostfile, without --no_ssh.", "Leave it out."))
    if ssh_port is not None and not 0 < ssh_port < 2**16:
        problems.append(Problem("--ssh_port", f"is {ssh_port}.", "A port is a number from 1 to 65535."))
    hosts = read_hostfile(Path(hostfile), problems) if hostfile else ()
    if problems:
        raise ConfigurationError(problems)
    path = Path(hostfile) if hostfile else None
    if no_ssh:
        return _this_node_of(hosts, path, indices, gpus_named, named_variables(NAMES))
    if path is None:
        return None
    return _over_ssh(hosts, path, ssh_port, indices if gpus_named else None, cuda_visible_devices)


def read_hostfile(path: Path, problems: list[Problem]) -> tuple[Node, ...]:
    """The lines `host slots=8` of DeepSpeed's format; adds to `problems`."""
    try:
        lines = read_text(path).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        found = f"{path} cannot be read ({reason})."
        problems.append(Problem("--hostfile", found, "Give a file with lines such as `10.0.0.1 slots=8`."))
        return ()
    nodes: list[Node] = []
    for number, line in enumerate(lines, 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        # Names go into `host:0,1@host:0,1` and into pdsh's list: its signs cannot be part of them.
        match = re.fullmatch(r"([A-Za-z0-9][\w.-]*)\s+slots=([1-9][0-9]{0,3})", text)
        if not match:
            found = f"{path}, line {number}, is {text!r}."
            problems.append(
                Problem("--hostfile", found, "A line is a host and its GPUs: `10.0.0.1 slots=8`.")
            )
        elif match[1] in {node.name for node in nodes}:
            found = f"{path}, line {number}, names {match[1]} again."
            problems.append(Problem("--hostfile", found, "A host has one line, with all of its slots."))
        else:
            nodes.append(Node(match[1], tuple(range(int(match[2])))))
    if not nodes and not problems:
        problems.append(Problem("--hostfile", f"{path} names no host.", "Write `10.0.0.1 slots=8` a line."))
    return tuple(nodes)


def _over_ssh(
    hosts: tuple[Node, ...],
    path: Path,
    ssh_port: int | None,
    chosen: Sequence[int] | None,
    cuda_visible_devices: str | None,
) -> Cluster:
    problems = []
    if len(hosts) < 2:
        found = f"{path} names {hosts[0].name} only, and the launcher would start its ranks on this machine."
        problems.append(Problem("--hostfile", found, "Name two hosts or more, or leave the flag out."))
    if chosen is None and cuda_visible_devices is not None:
        found = f"is {cuda_visible_devices!r}, which says nothing about the other nodes."
        way_out = "Unset it; the slots of the hostfile count, or give --gpus 0,1 for all nodes."
        problems.append(Problem("CUDA_VISIBLE_DEVICES", found, way_out))
    for host in hosts if chosen is not None else ():
        if missing := sorted(set(chosen or ()) - set(host.slots)):
            found = f"names {missing[0]}, and {host.name} has {len(host.slots)} slot(s) in {path}."
            problems.append(Problem("--gpus", found, "Give indices that every host has."))
    if problems:
        raise ConfigurationError(problems)
    nodes = tuple(Node(host.name, tuple(chosen or host.slots)) for host in hosts)
    variables = named_variables((*MASTER_ADDR, *MASTER_PORT))
    address, port = _address(variables, problems), _port(variables, problems)
    if problems:
        raise ConfigurationError(problems)
    return Cluster(nodes, address, port, None, path, ssh_port, chosen is not None)


def _this_node_of(
    hosts: tuple[Node, ...],
    path: Path | None,
    indices: Sequence[int],
    gpus_named: bool,
    variables: Mapping[str, str],
) -> Cluster:
    """The cluster that the environment of this node describes; a hostfile may give the nodes' slots."""
    problems: list[Problem] = []
    rank = _number(variables, NODE_RANK, problems)
    count = _number(variables, NODE_COUNT, problems)
    address, port = _address(variables, problems), _port(variables, problems)
    if hosts:
        address = address or hosts[0].name
        if count is not None and count != len(hosts):
            found = f"{path} names {len(hosts)} host(s), and {_said(variables, NODE_COUNT)}."
            problems.append(Problem("--hostfile", found, "Make them agree."))
        count = len(hosts)
    missing = [
        f"{what} ({', '.join(names)})"
        for what, names, value in (
            ("the number of this node", NODE_RANK, rank),
            ("the number of nodes", NODE_COUNT, count),
            ("the address of node 0", (*MASTER_ADDR, NODE_LIST), address),
        )
        if value is None
    ]
    if not problems and missing:
        found = f"nothing in the environment gives {', or '.join(missing)}."
        way_out = "Set them on each node, such as NODE_RANK=0 NNODES=2 MASTER_ADDR=10.0.0.1."
        problems.append(Problem("--no_ssh", found, way_out))
    if rank is not None and count is not None and rank >= count:
        found = f"{_said(variables, NODE_RANK)}, and there are {count} node(s)."
        problems.append(Problem("--no_ssh", found, "Nodes count from 0."))
    if problems or rank is None or count is None:
        raise ConfigurationError(problems)
    own = _own_slots(hosts[rank] if hosts else None, indices, gpus_named, variables)
    # Without a hostfile each node counts its own devices, and takes the others for alike.
    others = hosts or [Node(f"node-{i}", tuple(range(len(own)))) for i in range(count)]
    nodes = tuple(Node(node.name, own) if i == rank else node for i, node in enumerate(others))
    return Cluster(nodes, address, port, rank, None)


def _own_slots(
    host: Node | None, indices: Sequence[int], gpus_named: bool, variables: Mapping[str, str]
) -> tuple[int, ...]:
    """Devices of this node, as many as the other nodes expect of it."""
    if host is not None:
        if len(indices) < len(host.slots) or (gpus_named and len(indices) > len(host.slots)):
            found = (
                f"gives {host.name} {len(host.slots)} slot(s), and this node takes {len(indices)} device(s)."
            )
            raise ConfigurationError([Problem("--hostfile", found, "Correct the slots, or give --gpus.")])
        return tuple(indices[: len(host.slots)])
    expected = variables.get(RANKS_PER_NODE)
    if expected is not None and not gpus_named and expected != str(len(indices)):
        found = f"is {expected}, and this node shows {len(indices)} GPU(s)."
        way_out = "Replace the node, or give the same --gpus on all nodes."
        raise ConfigurationError([Problem(RANKS_PER_NODE, found, way_out)])
    return tuple(indices)


def _number(variables: Mapping[str, str], names: Sequence[str], problems: list[Problem]) -> int | None:
    """The whole number that all of these names agree on; None where none is set."""
    text = _agreed(variables, names, problems)
    if text is None or re.fullmatch(r"[0-9]{1,6}", text):
        return None if text is None else int(text)
    problems.append(Problem("--no_ssh", f"{_said(variables, names)}.", "It has to be a whole number."))
    return None


def _agreed(variables: Mapping[str, str], names: Sequence[str], problems: list[Problem]) -> str | None:
    found = {variables[name] for name in names if name in variables}
    if len(found) > 1:
        problems.append(Problem("--no_ssh", f"{_said(variables, names)}.", "They have to agree; unset one."))
    return next(iter(found)) if len(found) == 1 else None


def _said(variables: Mapping[str, str], names: Sequence[str]) -> str:
    return " and ".join(f"{name} is {variables[name]}" for name in names if name in variables)


def _address(variables: Mapping[str, str], problems: list[Problem]) -> str | None:
    address = _agreed(variables, MASTER_ADDR, problems)
    if address is None and NODE_LIST in variables:
        address = first_host(variables[NODE_LIST])
    return address


def _port(variables: Mapping[str, str], problems: list[Problem]) -> int:
    port = _number(variables, MASTER_PORT, problems)
    if port is not None and not 0 < port < 2**16:
        problems.append(Problem("--no_ssh", f"{_said(variables, MASTER_PORT)}.", "A port is 1 to 65535."))
    return DEFAULT_PORT if port is None else port


def first_host(node_list: str) -> str:
    """The first of a SLURM list: `gpu[03-05,9],login1` is `gpu03`."""
    first = re.split(r",(?![^\[]*\])", node_list)[0]
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first)


# --- start --------------------------------------------------------------------------------------------------


def find_start_problems(cluster: Cluster) -> list[Problem]:
    """What would stop the launcher: no pdsh, a port in use, keys that would be copied, an address that leads
    nowhere."""
    problems = []
    if cluster.node_rank is None:
        address = cluster.master_addr or ""
        if address == "localhost" or address.startswith("127."):
            way_out = "Set an address of the first host that the others reach, or unset it."
            problems.append(
                Problem("MASTER_ADDR", f"is {address}, which each host takes for itself.", way_out)
            )
        if shutil.which("pdsh") is None:
            way_out = "Install it (`apt-get install pdsh`), or start each node with --no_ssh."
            problems.append(Problem("--hostfile", "needs pdsh, which is not installed.", way_out))
        for path in deepspeed_env_files():
            names = [
                line.partition("=")[0].strip()
                for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
            ]
            if secrets := sorted(filter(is_secret, names)):
                found = f"holds {', '.join(secrets)}, which would be readable in every node's process list."
                problems.append(Problem(str(path), found, "Keys belong into .env; take them out."))
    elif cluster.node_rank == 0 and not port_is_free(cluster.master_port):
        found = f"port {cluster.master_port} is in use on this node."
        way_out = "Stop what listens there, or set another MASTER_PORT on all nodes."
        problems.append(Problem("--no_ssh", found, way_out))
    return problems


def port_is_free(port: int) -> bool:
    """Whether this machine could listen on `port`, on every address."""
    with socket.socket() as probe:
        # As torch's own listener does: a connection that ended a moment ago is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def launcher_flags(cluster: Cluster, hostfile: Path) -> list[str]:
    """Flags of `deepspeed`; `hostfile` holds `hostfile_text`, or is the user's own."""
    flags = ["--hostfile", str(hostfile), "--master_port", str(cluster.master_port)]
    if cluster.master_addr is not None:
        flags += ["--master_addr", cluster.master_addr]
    if cluster.ssh_port is not None:
        flags += ["--ssh_port", str(cluster.ssh_port)]
    if cluster.node_rank is not None:
        flags += ["--no_ssh", "--node_rank", str(cluster.node_rank)]
    if cluster.node_rank is not None or cluster.chosen:
        # Never left to CUDA_VISIBLE_DEVICES, which the launcher overwrites when there is a hostfile.
        slots = (f"{node.name}:{','.join(map(str, node.slots))}" for node in cluster.nodes)
        flags += ["--include", "@".join(slots)]
    return flags


def hostfile_text(cluster: Cluster) -> str:
    """The nodes as the launcher reads them: slots up to the highest device that takes part."""
    return "".join(f"{node.name} slots={max(node.slots) + 1}\n" for node in cluster.nodes)


def script_flags(cluster: Cluster, words: Sequence[str]) -> list[str]:
    """Flags of the trained script, safe from the shells of remote nodes.

    pdsh joins all words for a remote shell. The launcher puts those with a space into double quotes, and
    leaves `rows.jsonl*2` or `$` as they are.
    """
    if cluster.node_rank is not None:
        return list(words)
    return [re.sub(r"([\\$`])", r"\\\1", word) if " " in word else shlex.quote(word) for word in words]


def environment(cluster: Cluster | None, env: Mapping[str, str]) -> dict[str, str]:
    """The launcher's environment: no ranks of another launcher; over ssh, nothing that is a key.

    The ranks over ssh begin with a login's environment and read `.env`; the launcher itself needs no key, and
    would put MLFLOW* (a tracking server's password among them) into the arguments of pdsh.
    """
    kept = {name: value for name, value in env.items() if name not in RANK_NAMES}
    if cluster is None or cluster.node_rank is not None:
        return kept
    return {
        name: value for name, value in kept.items() if not is_secret(name) and not name.startswith("MLFLOW")
    }
