"""The tables of docs/scaling.md, from the planner's own model.

python bench/scaling_table.py            # print them
python bench/scaling_table.py --write    # put them into docs/scaling.md
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tabulate import tabulate

from forecaster.fit.gpu_cards import speed_of
from forecaster.fit.gpus import KNOWN_GPUS
from forecaster.fit.memory import Layout, training_bytes
from forecaster.fit.planner import GIB, FitPlan, FitRequest, plan
from forecaster.fit.step_time import bytes_on_the_wire, flops_per_token, micro_step_s
from forecaster.models.registry import MODELS, ModelShape
from forecaster.models.tuners import TUNERS
from forecaster.models.tuners.base import Tuner, TunerSettings

DOC = ROOT / "docs" / "scaling.md"
LENGTH, ROWS = 2048, 64
"""Tokens of a row, and rows of an optimizer step over all GPUs."""
STEPS = 1230 * 3 // ROWS
"""Three passes over 1,230 rows, the size of a published dataset."""
USD_PER_GPU_HOUR = 3.0
GPU = "h100"
RANKS = (1, 2, 4, 8, 16, 32, 64)
LLAMA_70B = ModelShape(8192, 80, 64, 8, 128, 28672, 128256)
SHAPES = {
    "1.5B": next(model.shape for model in MODELS if model.alias == "qwen2.5-1.5b"),
    "8B": next(model.shape for model in MODELS if model.alias == "llama3.1-8b"),
    "70B": LLAMA_70B,
}


def planned(shape: ModelShape, ranks: int, tuner: Tuner) -> FitPlan:
    gpu = KNOWN_GPUS[GPU]
    layout = Layout("bf16", tuner=tuner, ranks=ranks, length=LENGTH)
    return plan(FitRequest(shape, layout, ROWS // ranks, gpu.memory_bytes, speed_of(gpu.name)))


def times(tuner: Tuner) -> str:
    rows = []
    for name, shape in SHAPES.items():
        one: float | None = None
        for ranks in RANKS:
            setting = planned(shape, ranks, tuner).chosen
            if setting is None:
                rows.append([name, str(ranks), "does not fit", "", "", "", ""])
                continue
            hours = setting.step_s * STEPS / 3600
            gpu_hours = hours * ranks
            one = one or setting.step_s * ranks
            rows.append(
                [
                    name,
                    str(ranks),
                    setting.describe(),
                    f"{setting.bytes.total / GIB:.0f}",
                    f"{setting.step_s:.2f}",
                    f"{USD_PER_GPU_HOUR * gpu_hours:.2f}",
                    f"{one / (setting.step_s * ranks):.0%}",
                ]
            )
    headers = ["model", "GPUs", "setting", "GiB", "s a step", "USD", "efficiency"]
    return str(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


def wire() -> str:
    """GB that each of eight ranks sends in an optimizer step of 8 micro steps, and bytes that it holds."""
    rows = []
    for name, shape in SHAPES.items():
        for tuner in (TUNERS["lora"], TUNERS["full"]):
            cells = []
            for stage in (0, 1, 2, 3):
                layout = Layout("bf16", tuner=tuner, ranks=8, zero_stage=stage, length=LENGTH)
                sent = sum(bytes_on_the_wire(shape, layout, accumulation=8))
                needed = training_bytes(shape, layout)
                state = needed.weights + needed.adapters + needed.gradients + needed.optimizer
                cells.append(f"{sent / 1e9:.2f} / {state / 1e9:.1f}")
            rows.append([name, tuner.name, *cells])
    headers = ["model", "tuner", *(f"stage {stage}" for stage in (0, 1, 2, 3))]
    return str(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


def published() -> str:
    """Published measurements beside the model; none was made by this project."""
    eight = SHAPES["8B"]
    qwen = ModelShape(4096, 32, 32, 32, 128, 11008, 151936, qkv_bias=True)
    every = Layout("bf16", logits_share=1.0)
    fast = replace(every, length=4096, micro_batch_size=2, checkpointing=False)
    h100 = fast.tokens / micro_step_s(eight, fast, speed_of("H100"))
    a100 = fast.tokens / micro_step_s(eight, fast, speed_of("A100")) * flops_per_token(eight, fast) / 312e12
    rows = [
        ["8B LoRA, H100, 4096: tokens/s (NeMo AutoModel)", "12,473", f"{h100:,.0f}"],
        ["8B LoRA, A100: share of peak (transformers, FlashAttention 2)", "32 %", f"{a100:.0%}"],
    ]
    of_qwen = replace(every, tuner_settings=TunerSettings(rank=64, dropout=0.05), logits_in_chunks=False)
    for four_bit, length, figure in (
        (False, 2048, 23.8),
        (False, 4096, 29.7),
        (True, 2048, 13.9),
        (True, 4096, 16.9),
    ):
        needed = training_bytes(qwen, replace(of_qwen, four_bit=four_bit, length=length)).total
        name = f"Qwen-7B {'QLoRA' if four_bit else 'LoRA'}, {length}: GB (Qwen README)"
        rows.append([name, str(figure), f"{needed / 1e9:.1f}"])
    targets = ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    of_torchtune = replace(
        every, micro_batch_size=2, length=2048, tuner_settings=TunerSettings(dropout=0.0, targets=targets)
    )
    for four_bit, figure in ((True, 7.4), (False, 16.2)):
        needed_parts = training_bytes(eight, replace(of_torchtune, four_bit=four_bit))
        allocated = (needed_parts.total - needed_parts.reserve) / GIB
        name = f"8B {'QLoRA' if four_bit else 'LoRA'}, 2 x 2048: GiB allocated (torchtune README)"
        rows.append([name, str(figure), f"{allocated:.1f}"])
    headers = ["published by others", "measured", "this model"]
    return str(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


def tables() -> dict[str, str]:
    return {
        "lora": times(TUNERS["lora"]),
        "full": times(TUNERS["full"]),
        "wire": wire(),
        "published": published(),
    }


def filled_in(text: str) -> str:
    """The document with each `<!-- name -->` ... `<!-- end -->` holding that table."""
    for name, table in tables().items():
        before, after = text.split(f"<!-- {name} -->\n", 1)
        text = f"{before}<!-- {name} -->\n{table}\n{after[after.index('<!-- end -->') :]}"
    return text


def main() -> None:
    if "--write" in sys.argv:
        DOC.write_text(filled_in(DOC.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print("\n\n".join(f"{name}\n{table}" for name, table in tables().items()))


if __name__ == "__main__":
    main()
