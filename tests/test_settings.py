"""Keys come from .env or the environment, and go nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forecaster import tracking
from forecaster.errors import ConfigurationError, Problem
from forecaster.exits import report_problems
from forecaster.settings import Settings, let_segments_grow, load_settings, redact

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Set first, so that what load_settings puts there is taken back after the test.
    for name in ("WANDB_API_KEY", "HF_TOKEN", "FINNHUB_API_KEY"):
        monkeypatch.setenv(name, "")


def test_keys_are_read_from_the_env_file_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"WANDB_API_KEY={KEY}\nHF_TOKEN='hf_abcdefgh'\nFINNHUB_API_KEY=\n")
    for name in ("WANDB_API_KEY", "HF_TOKEN"):
        del os.environ[name]
    settings = load_settings()
    assert (settings.wandb_api_key, settings.hf_token) == (KEY, "hf_abcdefgh")
    assert KEY not in repr(settings)
    assert "hf_abcdefgh" not in repr(settings)


def test_the_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("WANDB_API_KEY=from_file\n")
    monkeypatch.setenv("WANDB_API_KEY", "from_environment")
    assert load_settings().wandb_api_key == "from_environment"


def test_problems_are_reported_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FINNHUB_API_KEY", KEY)
    assert redact(f"GET /news?token={KEY} failed") == "GET /news?token=<FINNHUB_API_KEY> failed"
    error = ConfigurationError([Problem("--dataset", f"has {KEY}.", "Mend it."), Problem("a", "b", "c")])
    assert report_problems("train_lora.py", error) == 2
    shown = capsys.readouterr().err
    assert "train_lora.py cannot start, 2 to mend:" in shown
    assert "--dataset: has <FINNHUB_API_KEY>. Mend it." in shown
    assert KEY not in shown


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        (Settings(), "offline"),
        (Settings(wandb_api_key=KEY), "online"),
        (Settings(wandb_api_key=KEY, wandb_mode="offline"), "offline"),
        (Settings(wandb_api_key=KEY, wandb_mode="disabled"), "disabled"),
        (Settings(wandb_mode="disabled"), "disabled"),
    ],
)
def test_wandb_is_online_with_a_key_and_offline_without(settings: Settings, mode: str) -> None:
    assert tracking.resolve_mode(settings)[0] == mode
    assert tracking.find_problems(settings) == []


@pytest.mark.parametrize("mode", ["online", "sometimes"])
def test_a_wandb_mode_that_cannot_be_is_a_problem(mode: str) -> None:
    (problem,) = tracking.find_problems(Settings(wandb_mode=mode))
    assert problem.where == "WANDB_MODE"


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({"WANDB_DISABLED": "true"}, "disabled"),
        ({"WANDB_DISABLED": "true", "WANDB_MODE": "online"}, "disabled"),
        ({"WANDB_DISABLED": "false"}, None),
        ({"WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "run"}, "online"),
    ],
)
def test_switches_of_wandb_are_honoured(
    variables: dict[str, str], mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_DISABLED", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert load_settings().wandb_mode == mode


@pytest.mark.parametrize("project", ["a/b", "a#b", "x" * 129])
def test_a_project_that_wandb_does_not_take_is_named(project: str) -> None:
    (problem,) = tracking.find_problems(Settings(wandb_project=project))
    assert (problem.where, problem.found) == ("WANDB_PROJECT", f"is {project!r}, which W&B does not take.")
    assert not tracking.find_problems(Settings(wandb_project=project, wandb_mode="disabled"))


@pytest.mark.parametrize("name", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_blocks_of_gpu_memory_may_grow_unless_the_user_said_otherwise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.setenv(one, "")  # so that it is put back afterwards
        monkeypatch.delenv(one)
    monkeypatch.setenv(name, "max_split_size_mb:64")
    let_segments_grow()
    names = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
    assert {one: os.environ[one] for one in names if one in os.environ} == {name: "max_split_size_mb:64"}
    monkeypatch.delenv(name)
    let_segments_grow()
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"


WHOLE = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (WHOLE, None),
        ({}, None),
        ({"MASTER_ADDR": "10.0.0.1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, None),
        (
            {"WORLD_SIZE": "1"},
            "WORLD_SIZE: WORLD_SIZE=1 without RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT. Start it with "
            "`./train.sh`, `deepspeed` or `torchrun`, which set all of them, or unset WORLD_SIZE.",
        ),
        ({"RANK": "1"}, "RANK: RANK=1 without WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT."),
        ({**WHOLE, "MASTER_PORT": " "}, "without MASTER_PORT."),
        (
            {"WORLD_SIZE": "2", "SLURM_PROCID": "1"},
            "SLURM and MPI do not set these: give each task its own.",
        ),
        (
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
            "OMPI_COMM_WORLD_SIZE: is 2, and RANK and WORLD_SIZE are not set: each would train alone. Start "
            "one `./train.sh`, `deepspeed` or `torchrun` instead, or unset it.",
        ),
        ({"PMI_SIZE": "4"}, "PMI_SIZE: is 4"),
        ({**WHOLE, "RANK": "2"}, "RANK: is 2, and WORLD_SIZE is 2. Ranks count from 0"),
    ],
)
def test_a_launch_that_is_there_in_part_is_told(
    variables: dict[str, str], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    if told is None:
        assert settings.launch_problem is None
        assert settings.rank == int(variables.get("RANK", 0))
    else:
        assert told in str(settings.launch_problem)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("MASTER_PORT", "evil", "a port from 1 to 65535"),
        ("MASTER_PORT", "0", "a port from 1 to 65535"),
        ("MASTER_PORT", "65536", "a port from 1 to 65535"),
        ("MASTER_PORT", "-1", "a port from 1 to 65535"),
        ("MASTER_PORT", "tcp://10.0.0.1:29500", "a port from 1 to 65535"),
        ("MASTER_ADDR", "http://10.0.0.1", "a host or address"),
        ("MASTER_ADDR", "-oProxyCommand=x", "a host or address"),
        ("MASTER_ADDR", "a host", "a host or address"),
        ("LOCAL_RANK", "-1", "a whole number from 0 on, as `torchrun` and `deepspeed` set it"),
        ("LOCAL_SIZE", "0", "a whole number from 1 on"),
        ("OMP_NUM_THREADS", "all", "a whole number from 1 on"),
        ("DS_ACCELERATOR", "gpu", "cpu or cuda"),
        ("CUDA_DEVICE_ORDER", "FAST", "PCI_BUS_ID or FASTEST_FIRST"),
        ("PYTORCH_CUDA_ALLOC_CONF", "True", "name:value,name:value, such as expandable_segments:True"),
        ("NCCL_DEBUG", "LOUD", "VERSION, WARN, INFO or TRACE"),
        ("NCCL_IB_DISABLE", "yes", "0 or 1"),
        ("TORCH_NCCL_BLOCKING_WAIT", "on", "0, 1, 2 or 3"),
    ],
)
def test_a_variable_that_is_not_what_its_library_takes_is_told(
    name: str, value: str, allowed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    expected = Problem(name, f"is {value!r}.", f"It takes {allowed}; unset it otherwise.")
    assert load_settings().variable_problems == (expected,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("MASTER_PORT", port) for port in ("1", "29500", "65535", "")),
        *(("MASTER_ADDR", host) for host in ("10.0.0.1", "node-1.lan", "fe80::1%eth0", "::1", "gpu_1", "")),
        ("LOCAL_RANK", "0"),
        ("OMP_NUM_THREADS", "4,2"),
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True,garbage_collection_threshold:0.8"),
        ("PYTORCH_ALLOC_CONF", "roundup_power2_divisions:[256:1,512:2,>:8]"),
        ("NCCL_DEBUG", "info"),
        ("NCCL_SOCKET_IFNAME", "^docker0,lo"),
        ("NCCL_SOCKET_IFNAME", "=eth0"),
        ("NCCL_P2P_LEVEL", "NVL"),
    ],
)
def test_a_variable_that_is_as_its_library_takes_it_is_not_told(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert load_settings().variable_problems == ()


def test_a_rank_on_a_machine_is_one_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (WHOLE | {"LOCAL_RANK": "2"}).items():
        monkeypatch.setenv(name, value)
    assert list(map(str, load_settings().variable_problems)) == [
        "LOCAL_RANK: is 2, and WORLD_SIZE is 2. Ranks count from 0."
    ]


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 5000, "\u0661"])
def test_a_number_of_ranks_is_a_whole_number(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(ConfigurationError, match="A launcher sets it to a whole number; unset it otherwise"):
        load_settings()


def test_an_env_file_with_zero_bytes_is_refused_without_its_words(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(f"WANDB_API_KEY={KEY}\n".encode("utf-16-le"))
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert list(caught.value.problems) == [Problem(".env", "holds zero bytes.", "Save it as UTF-8.")]
