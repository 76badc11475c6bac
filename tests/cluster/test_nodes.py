"""Several machines: what hostfiles and the environments of rented clusters say, what is refused, and what the
launcher gets."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
from pathlib import Path

import pytest
from deepspeed.launcher import runner
from processes import ROOT, call_entry, run_entry

from forecaster.cluster import launch_command, nodes
from forecaster.errors import ConfigurationError
from forecaster.settings import Settings


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in nodes.NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch_command, "detect_gpus", lambda: ())


def this_node(
    monkeypatch: pytest.MonkeyPatch, hostfile: Path | None = None, **variables: str
) -> nodes.Cluster:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cluster = nodes.find_cluster(str(hostfile) if hostfile else None, True, None, [0, 1], False, None)
    assert cluster
    return cluster


def over_ssh(hostfile: Path, *gpus: int, ssh_port: int | None = None) -> nodes.Cluster:
    cluster = nodes.find_cluster(str(hostfile), False, ssh_port, gpus or [0], bool(gpus), None)
    assert cluster
    return cluster


def hostfile(
    folder: Path, text: str = "10.0.0.1 slots=2  # the first\n\n# a rest\n10.0.0.2 slots=4\n"
) -> Path:
    path = folder / "hosts"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "variables",
    [
        {"NODE_RANK": "1", "NNODES": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29501"},
        {"GROUP_RANK": "1", "NNODES": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29501"},
        {"NODE_RANK": "1", "NUM_NODES": "2", "PRIMARY_ADDR": "10.0.0.1", "PRIMARY_PORT": "29501"}
        | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29501", "NUM_TRAINERS": "2", "WORLD_SIZE": "4"},
        {"SLURM_NODEID": "1", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "10.0.0.[1-2]"}
        | {"SLURM_JOB_NUM_NODES": "2", "MASTER_PORT": "29501"},
    ],
    ids=["torchrun", "torchrun's group", "RunPod", "SLURM"],
)
def test_rented_clusters_say_which_node_this_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    cluster = this_node(monkeypatch, None, **variables)
    assert (cluster.node_rank, cluster.master_addr, cluster.master_port) == (1, "10.0.0.1", 29501)
    assert cluster.nodes == (nodes.Node("node-0", (0, 1)), nodes.Node("node-1", (0, 1)))
    assert (cluster.ranks, cluster.keeps_results) == (4, False)


@pytest.mark.parametrize(
    ("node_list", "first"),
    [
        ("gpu[03-05,9],login1", "gpu03"),
        ("gpu7", "gpu7"),
        ("a1,b2", "a1"),
        ("rack[2,4]node[1-3]", "rack2node1"),
    ],
)
def test_the_first_host_of_a_slurm_list(node_list: str, first: str) -> None:
    assert nodes.first_host(node_list) == first


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {},
            "--no_ssh: nothing in the environment gives the number of this node (NODE_RANK, GROUP_RANK, "
            "SLURM_NODEID), or the number of nodes (NNODES, NUM_NODES, SLURM_NNODES, SLURM_JOB_NUM_NODES), "
            "or the address of node 0 (MASTER_ADDR, PRIMARY_ADDR, SLURM_JOB_NODELIST). Set them on each "
            "node, such as NODE_RANK=0 NNODES=2 MASTER_ADDR=10.0.0.1.",
        ),
        (
            {"NODE_RANK": "0", "SLURM_NODEID": "1", "NNODES": "2", "MASTER_ADDR": "a"},
            "--no_ssh: NODE_RANK is 0 and SLURM_NODEID is 1. They have to agree; unset one.",
        ),
        (
            {"NODE_RANK": "0", "NNODES": "2", "MASTER_ADDR": "a", "PRIMARY_ADDR": "b"},
            "--no_ssh: MASTER_ADDR is a and PRIMARY_ADDR is b. They have to agree; unset one.",
        ),
        (
            {"NODE_RANK": "2", "NNODES": "2", "MASTER_ADDR": "a"},
            "--no_ssh: NODE_RANK is 2, and there are 2 node(s). Nodes count from 0.",
        ),
        (
            {"NODE_RANK": "0", "NNODES": "1:4", "MASTER_ADDR": "a"},
            "--no_ssh: NNODES is 1:4. It has to be a whole number.",
        ),
        (
            {"NODE_RANK": "0", "NNODES": "2", "MASTER_ADDR": "a", "MASTER_PORT": "70000"},
            "--no_ssh: MASTER_PORT is 70000. A port is 1 to 65535.",
        ),
        (
            {"NODE_RANK": "0", "NNODES": "2", "MASTER_ADDR": "a", "NUM_TRAINERS": "8"},
            "NUM_TRAINERS: is 8, and this node shows 2 GPU(s). Replace the node, or give the same --gpus on "
            "all nodes.",
        ),
    ],
)
def test_an_environment_that_does_not_say_enough_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        this_node(monkeypatch, None, **variables)
    assert message in str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a slots=8x\nb slots=1",
            "line 1, is 'a slots=8x'. A line is a host and its GPUs: `10.0.0.1 slots=8`.",
        ),
        ("a slots=8\nb", "line 2, is 'b'. A line is a host"),
        ("a slots=0\nb slots=1", "line 1, is 'a slots=0'. A line is a host"),
        ("::1 slots=1\nb slots=1", "line 1, is '::1 slots=1'. A line is a host"),
        ("a slots=8\na slots=8", "line 2, names a again. A host has one line, with all of its slots."),
        ("# nobody\n", "names no host. Write `10.0.0.1 slots=8` a line."),
        (
            "a slots=8\n",
            "names a only, and the launcher would start its ranks on this machine. Name two hosts",
        ),
    ],
)
def test_a_hostfile_that_the_launcher_would_misread_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        over_ssh(hostfile(tmp_path, text))
    assert message in str(caught.value)


def test_flags_of_several_machines_that_do_not_go_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = str(hostfile(tmp_path))

    def refusal(*arguments: object) -> str:
        with pytest.raises(ConfigurationError) as caught:
            nodes.find_cluster(*arguments)  # type: ignore[arg-type]
        return str(caught.value)

    missing = refusal(str(tmp_path / "none"), False, None, [0], False, None)
    assert "none cannot be read (No such file or directory). Give a file with lines" in missing
    assert refusal(None, False, 22, [0], False, None).startswith("--ssh_port: goes with --hostfile")
    assert refusal(hosts, False, 99999, [0], False, None) == (
        "--ssh_port: is 99999. A port is a number from 1 to 65535."
    )
    assert refusal(hosts, False, None, [0], False, "0") == (
        "CUDA_VISIBLE_DEVICES: is '0', which says nothing about the other nodes. Unset it; the slots of the "
        "hostfile count, or give --gpus 0,1 for all nodes."
    )
    assert "--gpus: names 3, and 10.0.0.1 has 2 slot(s)" in refusal(hosts, False, None, [3], True, None)
    monkeypatch.setenv("NODE_RANK", "0")
    monkeypatch.setenv("NNODES", "3")
    assert "names 2 host(s), and NNODES is 3. Make them agree." in refusal(
        hosts, True, None, [0], False, None
    )
    monkeypatch.delenv("NNODES")
    assert refusal(hosts, True, None, [0], False, None) == (
        "--hostfile: gives 10.0.0.1 2 slot(s), and this node takes 1 device(s). Correct the slots, or give "
        "--gpus."
    )


def test_without_flags_there_is_no_cluster() -> None:
    assert nodes.find_cluster(None, False, None, [0], False, None) is None


def launched_with(flags: list[str], hosts: str, folder: Path) -> dict[str, list[int]]:
    """The devices by host that the real launcher makes of our flags."""
    path = folder / "hostfile"
    path.write_text(hosts)
    args = runner.parse_args([*flags, "train_lora.py"])
    return dict(
        runner.parse_inclusion_exclusion(runner.fetch_hostfile(str(path)), args.include, args.exclude)
    )


def test_the_launcher_reads_this_node_s_own_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv("NNODES", "2")
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    cluster = nodes.find_cluster(None, True, None, [2, 3], True, None)
    assert cluster
    flags = nodes.launcher_flags(cluster, Path("H"))
    assert flags == [
        *("--hostfile", "H", "--master_port", "29500", "--master_addr", "10.0.0.1"),
        *("--no_ssh", "--node_rank", "1", "--include", "node-0:0,1@node-1:2,3"),
    ]
    assert launched_with(flags, nodes.hostfile_text(cluster), tmp_path) == {
        "node-0": [0, 1],
        "node-1": [2, 3],
    }


def test_nodes_of_different_size_are_named_by_a_hostfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = hostfile(tmp_path, "10.0.0.1 slots=4\n10.0.0.2 slots=2\n")
    cluster = this_node(monkeypatch, hosts, NODE_RANK="1")
    assert (cluster.ranks, cluster.master_addr) == (6, "10.0.0.1")
    flags = nodes.launcher_flags(cluster, Path("H"))
    assert flags[-1] == "10.0.0.1:0,1,2,3@10.0.0.2:0,1"


def test_over_ssh_the_hostfile_counts_unless_gpus_are_named(tmp_path: Path) -> None:
    hosts = hostfile(tmp_path)
    assert over_ssh(hosts).ranks == 6
    assert nodes.launcher_flags(over_ssh(hosts, ssh_port=2222), hosts) == [
        *("--hostfile", str(hosts), "--master_port", "29500", "--ssh_port", "2222")
    ]
    chosen = over_ssh(hosts, 1)
    assert chosen.ranks == 2
    flags = nodes.launcher_flags(chosen, hosts)
    assert launched_with(flags, hosts.read_text(), tmp_path) == {"10.0.0.1": [1], "10.0.0.2": [1]}


def test_a_port_in_use_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = str(busy.getsockname()[1])
        variables = {"NODE_RANK": "0", "NNODES": "2", "MASTER_ADDR": "a", "MASTER_PORT": port}
        (problem,) = nodes.find_start_problems(this_node(monkeypatch, None, **variables))
    assert str(problem) == (
        f"--no_ssh: port {port} is in use on this node. Stop what listens there, or set another MASTER_PORT "
        "on all nodes."
    )


def test_over_ssh_pdsh_is_needed_and_a_file_of_keys_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(ROOT)
    (tmp_path / ".deepspeed_env").write_text("NCCL_DEBUG=INFO\nWANDB_API_KEY=abcdef123456\nMY_TOKEN=x\n")
    no_pdsh, keys = map(str, nodes.find_start_problems(over_ssh(hostfile(tmp_path))))
    assert no_pdsh == (
        "--hostfile: needs pdsh, which is not installed. Install it (`apt-get install pdsh`), or start each "
        "node with --no_ssh."
    )
    assert "holds MY_TOKEN, WANDB_API_KEY, which would be readable in every node's process list" in keys
    assert "abcdef123456" not in keys


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_over_ssh_an_address_that_each_host_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("MASTER_ADDR", address)
    problems = list(map(str, nodes.find_start_problems(over_ssh(hostfile(tmp_path)))))
    assert problems[0] == (
        f"MASTER_ADDR: is {address}, which each host takes for itself. Set an address of the first host that "
        "the others reach, or unset it."
    )


def test_over_ssh_gpus_are_those_of_the_hosts() -> None:
    assert launch_command.gpu_indices("0,7", Settings(), of_hosts=True) == [0, 7]


RECORD = """#!/bin/sh
for word in "$@"; do printf '%s\\0' "$word"; done > "{0}/$(basename "$0").argv"
env > "{0}/$(basename "$0").env"
echo 10.0.0.1
"""
KEYS = {
    "WANDB_API_KEY": "key-of-wandb",
    "HF_TOKEN": "key-of-hf",
    "FINNHUB_API_KEY": "key-of-finnhub",
    "OPENAI_API_KEY": "key-of-openai",
    "MLFLOW_TRACKING_PASSWORD": "key-of-mlflow",
    "AWS_SECRET_ACCESS_KEY": "key-of-aws",
}


def test_no_key_reaches_ssh_or_the_other_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real launcher, with stand-ins for the two programs that talk to other machines."""
    for name in ("pdsh", "ssh"):
        (tmp_path / name).write_text(RECORD.format(tmp_path))
        (tmp_path / name).chmod(0o755)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    cluster = over_ssh(hostfile(tmp_path), ssh_port=2222)
    words = ["--dataset", "rows.jsonl*2", "--run_name", "a", "--output_dir", "a $HOME folder"]
    command = launch_command.deepspeed_command([0], words, cluster)
    env = nodes.environment(cluster, launch_command.rank_environment([0]))
    assert not set(KEYS.values()) & set(env.values())
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("pdsh", "ssh"):
        seen = (tmp_path / f"{name}.argv").read_text() + (tmp_path / f"{name}.env").read_text()
        assert "key-of" not in seen
    assert "key-of" not in done.stdout + done.stderr
    remote = (tmp_path / "pdsh.argv").read_text().split("\0")
    world = next(word for word in remote if word.startswith("--world_info="))
    assert json.loads(base64.urlsafe_b64decode(world.partition("=")[2])) == {
        "10.0.0.1": [0, 1],
        "10.0.0.2": [0, 1, 2, 3],
    }
    # What a remote shell makes of it is what was meant.
    script = " ".join(remote[remote.index(str(ROOT / "train_lora.py")) + 1 :])
    shown = subprocess.run(["bash", "-c", f"printf '%s|' {script}"], capture_output=True, text=True).stdout
    assert shown == "|".join(words) + "|"


def test_train_sh_shows_what_each_node_would_run(tmp_path: Path) -> None:
    variables = {"NODE_RANK": "1", "NNODES": "2", "MASTER_ADDR": "127.0.0.1", "RANK": "1", "WORLD_SIZE": "2"}
    done = run_entry(
        "train.sh", ROOT, "--no_ssh", "--dry_run", "--output_dir", str(tmp_path / "r"), **variables
    )
    assert done.returncode == 0, done.stderr
    assert "2 rank(s)" in done.stdout
    commands = [line for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert len(commands) == 1  # the benchmark belongs to node 0
    assert re.search(r"--no_ssh --node_rank 1 --include node-0:0@node-1:0 \S+/train_lora.py", commands[0])


def test_train_sh_refuses_before_it_checks_the_rest() -> None:
    done = call_entry("train.sh", ROOT, "--no_ssh")
    assert done.returncode == 2
    assert "train.sh cannot start, 1 to mend:" in done.stderr
    assert "--no_ssh: nothing in the environment gives the number of this node (NODE_RANK" in done.stderr
