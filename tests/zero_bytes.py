"""Bytes that real DeepSpeed engines hold on each rank, for a tiny model in every layout: run by the launcher.

    deepspeed --include localhost:0,1 tests/zero_bytes.py FOLDER

FOLDER/base holds the model; FOLDER/rank_0.json and rank_1.json are written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import deepspeed
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from forecaster.models import loading
from forecaster.processes import unlink_shared_buffers

LORA_RANK = 3
PRECISIONS, STAGES = ("fp32", "bf16"), (0, 1, 2, 3)
CASES = [
    *product(("lora", "dora", "full"), PRECISIONS, STAGES),
    *product(("qlora",), ("bf16",), (0, 1, 2)),
]


def ds_config(precision: str, stage: int, hidden_size: int) -> dict[str, Any]:
    zero = {"stage": stage, "contiguous_gradients": True, "reduce_bucket_size": hidden_size**2}
    if stage == 3:
        # What the Trainer puts for "auto".
        zero["stage3_param_persistence_threshold"] = 10 * hidden_size
        zero["stage3_prefetch_bucket_size"] = int(0.9 * hidden_size**2)
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "bf16": {"enabled": precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32" if stage == 2 else precision},  # as in ds_configs/
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
    }


def parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """As the Trainer's: norms and biases apart, because they do not decay."""
    groups: tuple[list[Any], list[Any]] = ([], [])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups["norm" in name or "bias" in name].append(parameter)
    return [{"params": group} for group in groups]


def storage_bytes(tensors: Iterable[Any]) -> int:
    """Bytes behind tensors, each storage once: flat buffers are seen through many views."""
    storages = {}
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def view_bytes(tensors: Iterable[Any]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))


def weights(model: torch.nn.Module) -> list[Any]:
    """Every tensor of the model's parameters: ZeRO-3's shares and bitsandbytes' scales with them."""
    found: list[Any] = []
    for parameter in model.parameters():
        found += [parameter, getattr(parameter, "ds_tensor", None)]
        for state in (getattr(parameter, "quant_state", None),):
            if state is not None:
                found += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    return found


def gradients(engine: Any) -> list[Any]:
    wrapper = engine.optimizer
    if hasattr(wrapper, "fp16_partitioned_groups"):  # ZeRO-3
        shares: dict[int, Any] = wrapper._DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition
        return list(shares.values())
    if hasattr(wrapper, "averaged_gradients"):  # ZeRO-1 and 2
        return [tensor for group in wrapper.averaged_gradients.values() for tensor in group]
    return [parameter.grad for parameter in engine.module.parameters()]


def optimizer_tensors(engine: Any) -> list[Any]:
    """fp32 copies where there are any, and moments; the step counters, of one element, are left out."""
    wrapper = engine.optimizer
    inner = getattr(wrapper, "optimizer", wrapper)
    own = {id(parameter) for parameter in engine.module.parameters()}
    copies = getattr(wrapper, "fp32_partitioned_groups_flat", None)
    if copies is None:
        copies = [p for group in inner.param_groups for p in group["params"] if id(p) not in own]
    moments = [value for state in inner.state.values() for value in state.values()]
    return [*copies, *(m for m in moments if isinstance(m, torch.Tensor) and m.numel() > 1)]


def measure(folder: Path, tuner: str, precision: str, stage: int) -> dict[str, Any]:
    hidden_size = json.loads((folder / "base" / "config.json").read_text())["hidden_size"]
    config = ds_config(precision, stage, hidden_size)
    # transformers divides a model while it loads as long as this object lives.
    divides_on_load = HfDeepSpeedConfig(config) if stage == 3 else None
    quantization = "4bit" if tuner == "qlora" else "none"
    model: Any = loading.load_base(str(folder / "base"), precision, quantization)  # type: ignore[arg-type]
    if tuner != "full":
        lora = LoraConfig(
            task_type="CAUSAL_LM", r=LORA_RANK, use_dora=tuner == "dora", target_modules="all-linear"
        )
        model = get_peft_model(model, lora, autocast_adapter_dtype=stage != 3)  # as the tuners do
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=1e-3)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    engine.train()  # as the trainer does
    tokens = torch.arange(8).reshape(1, 8)
    engine.backward(engine(input_ids=tokens, labels=tokens).loss)
    gradient_bytes = view_bytes(gradients(engine))
    engine.step()
    del divides_on_load
    return {
        "tuner": tuner,
        "precision": precision,
        "stage": stage,
        "weights": storage_bytes(weights(engine.module)),
        "gradients": gradient_bytes,
        "optimizer": storage_bytes(optimizer_tensors(engine)),
    }


def main() -> None:
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    dist.barrier()
    unlink_shared_buffers()
    folder = Path(sys.argv[-1])
    results = [measure(folder, *case) for case in CASES]
    (folder / f"rank_{dist.get_rank()}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
