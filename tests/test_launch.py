"""train.sh's own decisions: which flags are whose, which GPUs, which environment."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from processes import ROOT

from forecaster.cluster import launch_command
from forecaster.cluster.launch_config import LaunchConfig, split_flags
from forecaster.errors import ConfigurationError
from forecaster.fit import gpus
from forecaster.jobs.launch import benchmark_command
from forecaster.settings import Settings
from forecaster.training import train_config

launch = importlib.import_module("launch")
A100S = tuple(
    gpus.Gpu(index, f"GPU-{index}abc", "NVIDIA A100", 40 * 2**30, (8, 0), "570.1") for index in range(4)
)


@pytest.fixture
def four_a100s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_command, "detect_gpus", lambda: A100S)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_command, "detect_gpus", lambda: ())


def test_without_a_model_the_embedded_configuration_is_underneath() -> None:
    own, flags = split_flags(["--dataset", "rows.jsonl", "--gpus", "0,1", "--no_benchmark"])
    assert flags == ["--config", "configs/embedded.yaml", "--dataset", "rows.jsonl"]
    assert (own.gpus, own.no_benchmark) == ("0,1", True)


@pytest.mark.parametrize(
    "argv",
    [
        ["--base_model", "llama3.1-8b"],
        ["--base-model", "llama3.1-8b"],
        ["--base_model=llama3.1-8b"],
        ["--config", "mine.yaml"],
    ],
)
def test_a_named_model_or_configuration_never_gets_the_embedded_rate(argv: list[str]) -> None:
    assert split_flags(argv)[1] == argv


def test_a_leading_file_is_the_configuration() -> None:
    assert split_flags(["a.yaml", "--seed", "1"])[1] == ["--config", "a.yaml", "--seed", "1"]


def test_flags_of_both_programs_may_stand_in_any_order_and_with_dashes() -> None:
    words = [
        "a.yaml",
        "--no-ssh",
        "--dry-run",
        "--restarts=2",
        "--learning_rate",
        "-1",
        "--gpus",
        "0",
        "--gpu=t4",
    ]
    own, flags = split_flags(words)
    assert own == LaunchConfig(gpus="0", no_ssh=True, restarts=2)
    assert flags == ["--config", "a.yaml", "--dry-run", "--learning_rate", "-1", "--gpu=t4"]


def test_everything_wrong_with_its_own_flags_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["--ssh_port", "ssh", "--restarts", "-1", "--doctor=perhaps"]) == 2
    assert capsys.readouterr().err == (
        "\ntrain.sh cannot start, 3 to mend:\n"
        "  - --ssh_port: is 'ssh'. Give a whole number.\n"
        "  - --doctor: is 'perhaps'. Use true or false.\n"
        "  - --restarts: is -1. It has to be 0 or more.\n"
    )


@pytest.mark.parametrize(
    ("asked", "visible", "expected"),
    [
        (None, None, [0, 1, 2, 3]),
        ("2,3", None, [2, 3]),
        (None, "3,1", [3, 1]),
        (None, "GPU-2abc", [2]),
        ("0", "3", [0]),
    ],
)
@pytest.mark.usefixtures("four_a100s")
def test_gpus_come_from_the_flag_else_from_the_environment_else_all(
    asked: str | None, visible: str | None, expected: list[int]
) -> None:
    assert launch_command.gpu_indices(asked, Settings(cuda_visible_devices=visible)) == expected


@pytest.mark.parametrize(
    ("asked", "visible", "message"),
    [
        ("7", None, "--gpus: '7' asked for, GPUs present: 0, 1, 2, 3"),
        ("0,0", None, "--gpus: '0' asked for twice"),
        (None, "9", "CUDA_VISIBLE_DEVICES: '9' asked for"),
        (None, "", "CUDA_VISIBLE_DEVICES: hides every GPU of this machine"),
        (None, "-1", "CUDA_VISIBLE_DEVICES: hides every GPU of this machine"),
    ],
)
@pytest.mark.usefixtures("four_a100s")
def test_gpus_that_cannot_be_used_are_refused(asked: str | None, visible: str | None, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        launch_command.gpu_indices(asked, Settings(cuda_visible_devices=visible))
    assert message in str(caught.value)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_indices_are_cpu_ranks() -> None:
    assert launch_command.gpu_indices(None, Settings()) == [0]
    assert launch_command.gpu_indices("0,1", Settings(cuda_visible_devices="0")) == [0, 1]
    for bad in ("a", "0,0", "-1", "", "0,"):
        with pytest.raises(ConfigurationError, match="--gpus"):
            launch_command.gpu_indices(bad, Settings())


@pytest.mark.usefixtures("four_a100s")
def test_cuda_visible_devices_is_translated_and_does_not_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    indices = launch_command.gpu_indices(None, Settings(cuda_visible_devices="2,3"))
    command = launch_command.deepspeed_command(indices, ["--seed", "1"])
    assert command[1:3] == ["--include", "localhost:2,3"]
    assert Path(command[5]).name == "train_lora.py"
    assert command[6:] == ["--seed", "1"]
    assert "CUDA_VISIBLE_DEVICES" not in launch_command.rank_environment(indices)


@pytest.mark.usefixtures("no_gpu")
def test_cpu_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    env = launch_command.rank_environment([0, 1])
    assert (env["LOCAL_SIZE"], env["OMP_NUM_THREADS"]) == ("2", "4")


def test_the_benchmark_trusts_code_of_the_base_model_where_the_training_was_told_to() -> None:
    needed = ["--base_model", "a", "--dataset", "b"]
    plain = benchmark_command("run", train_config.parse_flags(needed))
    assert plain[1:] == [str(ROOT / "benchmark.py"), "--adapter", "run"]
    trusting = benchmark_command("run", train_config.parse_flags([*needed, "--trust_remote_code"]))
    assert trusting == [*plain, "--trust_remote_code"]
