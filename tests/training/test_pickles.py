"""A checkpoint that somebody else made is loaded as data: what would run code is refused before, and would
not run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forecaster.errors import ConfigurationError
from forecaster.training.survival.pickles import check_pickles, reading_data_only

CANARY = "canary"
SHARD = "global_step20/zero_pp_rank_0_mp_rank_00_optim_states.pt"


class Canary:
    """Writes a file where it is unpickled by Python's own reader."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {CANARY}",)


class Evaluated:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({CANARY!r}, 'w').close()",)


def deepspeed_state() -> dict[str, Any]:
    """What ZeRO keeps beside tensors."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return {
        "loss_scaler": LossScaler(1.0),
        "fp16": DynamicLossScaler(2**12, 2.0, 1000, 1.0, 2, False, torch.float16),
        "zero_stage": ZeroStageEnum.gradients,
        "param_slice_mappings": [{"lora_A": fragment_address(numel=8, start=4)}],
        "fp32": torch.arange(3.0),
    }


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As Trainer and DeepSpeed write one; its working folder is where a canary would be."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoint-20"
    (folder / SHARD).parent.mkdir(parents=True)
    torch.save(deepspeed_state(), folder / SHARD)
    torch.save({"last_epoch": 20, "base_lrs": [5e-4]}, folder / "scheduler.pt")
    torch.save(
        {"numpy": np.random.get_state(), "cpu": torch.get_rng_state()},
        folder / "rng_state_0.pth",
    )
    (folder / "latest").write_text("global_step20\n")
    return folder


def test_a_checkpoint_of_this_program_is_read(checkpoint: Path) -> None:
    check_pickles(checkpoint)


@pytest.mark.parametrize("name", ["rng_state_0.pth", "optimizer.pt", "scheduler.pt", "scaler.pt", SHARD])
@pytest.mark.parametrize(("content", "asked"), [(Canary(), "posix.system"), (Evaluated(), "eval")])
def test_a_state_that_would_run_code_is_refused_with_its_file(
    checkpoint: Path, name: str, content: object, asked: str
) -> None:
    torch.save({"fp32": content}, checkpoint / name)
    with pytest.raises(ConfigurationError) as caught:
        check_pickles(checkpoint)
    assert str(caught.value) == (
        f"{checkpoint / name}: asks for {asked}, which is no data of a training: it could run code. "
        "Do not trust this run; start anew without --resume."
    )
    assert not Path(CANARY).exists()


def test_a_plain_pickle_under_the_name_is_no_way_around(checkpoint: Path) -> None:
    (checkpoint / "scheduler.pt").write_bytes(pickle.dumps(Evaluated()))
    with pytest.raises(ConfigurationError, match=r"scheduler\.pt: (asks for (builtins\.)?eval|is damaged)"):
        check_pickles(checkpoint)
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00", b"text"])
def test_a_damaged_state_is_told(checkpoint: Path, content: bytes) -> None:
    (checkpoint / "scheduler.pt").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"scheduler\.pt: is damaged, or holds more than the data"):
        check_pickles(checkpoint)


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "", "global_step20/.."])
def test_the_states_are_those_of_the_checkpoint(checkpoint: Path, name: str) -> None:
    (checkpoint / "latest").write_text(name)
    with pytest.raises(ConfigurationError, match="latest: does not name a folder of its checkpoint"):
        check_pickles(checkpoint)


def test_deepspeed_itself_reads_data_only(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        monkeypatch.setenv(name, "0")  # as before, when the test has ended
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    before, spoilt = deepspeed_state(), checkpoint / "spoilt.pt"
    torch.save({"fp32": Evaluated()}, spoilt)
    with reading_data_only():
        after = TorchCheckpointEngine().load(str(checkpoint / SHARD))
        with pytest.raises(pickle.UnpicklingError):
            TorchCheckpointEngine().load(str(spoilt))
    assert not Path(CANARY).exists()
    assert vars(after["fp16"]) == vars(before["fp16"])
    assert vars(after["loss_scaler"]) == vars(before["loss_scaler"])
    assert after["zero_stage"] is before["zero_stage"]
    assert after["param_slice_mappings"] == before["param_slice_mappings"]
    assert after["fp32"].tolist() == [0.0, 1.0, 2.0]
