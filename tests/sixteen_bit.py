"""Three optimizer steps of LoRA on the embedded base under 16-bit DeepSpeed files, on one CPU rank; prints a
line of JSON. A process of its own, because it opens DeepSpeed's process group.

    python tests/sixteen_bit.py PORT bf16_zero2 fp16_zero3 ...
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from processes import ROOT

STEPS, MOST_TRIES, MICRO_STEPS = 3, 20, 16
SIZES = {
    "reduce_bucket_size": 500_000,
    "stage3_prefetch_bucket_size": 400_000,
    "stage3_param_persistence_threshold": 10_000,
}
"""What the Trainer puts where a file says `auto`."""


def main(port: str, names: list[str]) -> None:
    os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "DS_ACCELERATOR": "cpu"}
    sys.path.insert(0, str(ROOT))
    import deepspeed
    import torch
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    from forecaster.processes import unlink_shared_buffers

    CPU_Accelerator.is_fp16_supported = lambda _: True  # it computes in fp16, slowly
    torch.set_num_threads(1)
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    unlink_shared_buffers()
    print(json.dumps({"fp32": plain(), **{name: under_deepspeed(name) for name in names}}))


def make_model(precision: str) -> Any:
    import torch

    from forecaster.models.loading import load_base
    from forecaster.models.tuners.base import TunerSettings
    from forecaster.models.tuners.lora import LORA
    from forecaster.training.loss import add_answer_loss

    torch.manual_seed(0)
    base = load_base(str(ROOT / "sample" / "base"), precision)  # type: ignore[arg-type]
    add_answer_loss(base)
    return LORA.attach(base, TunerSettings(dropout=0.0))


def loss_of(model: Any) -> Any:
    import torch

    ids = torch.arange(5, 45)[None]
    labels = ids.clone()
    labels[:, :20] = -100
    nll_sum, tokens = model(input_ids=ids, answer_labels=labels)
    return nll_sum / tokens


def optimizer_of(model: Any) -> Any:
    import torch

    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def plain() -> dict[str, Any]:
    import torch

    model = make_model("fp32")
    optimizer, losses = optimizer_of(model), []
    for _ in range(STEPS):
        loss = loss_of(model)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return {"losses": losses}


def under_deepspeed(name: str) -> dict[str, Any]:
    import deepspeed
    from transformers.integrations import HfDeepSpeedConfig, unset_hf_deepspeed_config

    config = json.loads((ROOT / "ds_configs" / f"{name}.json").read_text())
    config |= {"train_batch_size": 1, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
    config |= {"gradient_clipping": 1.0}
    zero = config["zero_optimization"]
    zero |= {key: SIZES[key] for key, value in zero.items() if value == "auto"}
    known = HfDeepSpeedConfig(config) if zero["stage"] == 3 else None
    model = make_model(name.partition("_")[0])
    engine, optimizer, *_ = deepspeed.initialize(model=model, optimizer=optimizer_of(model), config=config)
    losses: list[float] = []
    for _ in range(MOST_TRIES):
        loss = loss_of(engine)
        engine.backward(loss, scale_wrt_gas=False)
        engine.step()
        if not optimizer.overflow:  # else the loss scale was too large, and is smaller from here on
            losses.append(loss.item())
        if len(losses) == STEPS:
            break
    unset_hf_deepspeed_config()
    del known
    factor = next(p for parameter, p in model.named_parameters() if "lora_B" in parameter)
    found = {"losses": losses, "dtype": str(factor.dtype), "scaler": type(optimizer.loss_scaler).__name__}
    return found | (accumulation_errors(config) if name == "bf16_zero2" else {})


def accumulation_errors(config: dict[str, Any]) -> dict[str, float]:
    """Relative error of the sum of equal micro steps, as the file adds them up and in 16 bit."""
    in_16_bit = {key: value for key, value in config.items() if key != "data_types"}
    one, as_filed, rounded = (
        accumulated(settings | {"gradient_accumulation_steps": steps, "train_batch_size": steps})
        for settings, steps in ((config, 1), (config, MICRO_STEPS), (in_16_bit, MICRO_STEPS))
    )
    errors = {"accumulation_error": as_filed, "error_in_16_bit": rounded}
    return {name: float((of - one).norm() / one.norm()) for name, of in errors.items()}


def accumulated(config: dict[str, Any]) -> Any:
    """The gradient that the optimizer would step with, after the micro steps of `config`."""
    import deepspeed
    import torch

    model = make_model("bf16")
    engine, optimizer, *_ = deepspeed.initialize(model=model, optimizer=optimizer_of(model), config=config)
    for _ in range(config["gradient_accumulation_steps"]):
        engine.backward(loss_of(engine))
        if not engine.is_gradient_accumulation_boundary():
            engine.step()
    (gradients,) = optimizer.averaged_gradients.values()
    return torch.cat([gradient.flatten().float() for gradient in gradients])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
