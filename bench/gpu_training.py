"""Speed and memory of training an 8B shape with random weights, and the planner's bytes beside the peak.

    python bench/gpu_training.py --out bench/gpu_training.md     # on a GPU of 80 GB or more; about 20 minutes
    python bench/gpu_training.py --shape tiny                    # two of the settings, on any machine

Every setting is a run of train_lora.py (on a GPU under the `deepspeed` launcher) on rows that fill
`--max_length`. Tokens a second are those of the optimizer steps after the second. The peak is torch's
allocator's, so it is compared with the planned total less its reserve. What has to come out on an H100 or
H200, at 4096 tokens in bf16: 9,000 tokens/s without checkpointing (12,500 is good), 7,000 with; planned
within 10 % of measured for eight settings or more; QLoRA in fp16 at 2048 in a process that may take 15 GB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tabulate import tabulate

from forecaster.modeling.registry import MODELS
from forecaster.modeling.run import LOG_HISTORY, RUN_CONFIG
from forecaster.provenance import versions

SAMPLE = ROOT / "sample"
STEPS, WARM_STEPS = 6, 2
CAP_GB = 15


@dataclass(frozen=True)
class Case:
    """One row of the table; all that the planner could choose is fixed."""

    name: str
    length: int = 4096
    rows: int = 1
    checkpointing: bool = False
    flags: tuple[str, ...] = ()
    cap_gb: int | None = None


QLORA_FP16 = ("--precision", "fp16", "--quantization", "4bit")
CASES = (
    Case("bf16 LoRA"),
    Case("bf16 LoRA, checkpointing", checkpointing=True),
    Case("bf16 LoRA, checkpointing, 4 rows", rows=4, checkpointing=True),
    Case("bf16 LoRA, dropout 0", flags=("--lora_dropout", "0")),
    Case("bf16 LoRA at 2048, 2 rows", length=2048, rows=2),
    Case("bf16 LoRA at 2048, 8 rows, checkpointing", length=2048, rows=8, checkpointing=True),
    Case("bf16 LoRA r 64, checkpointing", checkpointing=True, flags=("--lora_r", "64")),
    Case("bf16 QLoRA, checkpointing", checkpointing=True, flags=("--quantization", "4bit")),
    Case("bf16 QLoRA at 2048", length=2048, flags=("--quantization", "4bit")),
    Case("fp16 QLoRA at 2048 in 15 GB", 2048, checkpointing=True, flags=QLORA_FP16, cap_gb=CAP_GB),
)
"""The second has the reference's settings: one row at a time, checkpointing; the same loss, though."""
TINY_CASES = (
    Case("fp32 LoRA", length=512, rows=2),
    Case("fp32 LoRA, checkpointing", length=512, rows=2, checkpointing=True),
)


def main(argv: Sequence[str]) -> int:
    if argv and argv[0] == "--child":
        return run_capped(int(argv[1]), argv[2:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shape", choices=("8b", "tiny"), default="8b")
    parser.add_argument("--out", type=Path, help="file for the table, beside printing it")
    args = parser.parse_args(argv)
    is_tiny = args.shape == "tiny"
    import torch

    if not is_tiny and not torch.cuda.is_available():
        print("An 8B model needs a GPU; --shape tiny runs anywhere.", file=sys.stderr)
        return 2
    cases = TINY_CASES if is_tiny else CASES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = SAMPLE / "base" if is_tiny else save_random_8b(folder / "base")
        rows = [measured(case, base, folder, under_deepspeed=not is_tiny) for case in cases]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    text = report(rows, device)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    return 0


def save_random_8b(folder: Path) -> Path:
    """Llama-3.1-8B's shape with random weights in bf16 and the sample's tokenizer: 16 GB on disk."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = next(model.shape for model in MODELS if model.alias == "llama3.1-8b")
    config = LlamaConfig(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate_size,
        vocab_size=shape.vocab_size,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )
    with torch.device("cuda"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SAMPLE / "base" / name, folder / name)
    return folder


def write_rows(path: Path, count: int, length: int) -> None:
    """Rows of the sample with their news repeated beyond `length` tokens: tokenising trims them to it."""
    lines = (SAMPLE / "dataset" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = json.loads(lines[number % len(lines)])
            before, news = row["prompt"].split("\n\n[Headline]:", 1)
            items, after = news.split("\n\nFinancials of", 1)
            # An item takes about 25 tokens.
            many = "\n\n[Headline]:".join([items] * (length // 40))
            row["prompt"] = f"{before}\n\n[Headline]:{many}\n\nFinancials of{after}"
            file.write(json.dumps(row | {"symbol": f"S{number}"}) + "\n")


def measured(case: Case, base: Path, folder: Path, under_deepspeed: bool) -> list[str]:
    """Run a case to its end in processes of its own; a row of the table, or why there is none."""
    data, out = folder / "rows.jsonl", folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    accumulation = max(4 // case.rows, 1)
    write_rows(data, case.rows * accumulation * STEPS, case.length)
    flags = [
        *(
            "--base_model",
            str(base),
            "--dataset",
            str(data),
            "--test_dataset",
            str(SAMPLE / "dataset/test.jsonl"),
        ),
        *("--max_new_tokens", "16"),
        *("--output_dir", str(out), "--report_to", "none", "--evaluation_strategy", "no"),
        *("--max_length", str(case.length), "--max_steps", str(STEPS), "--log_interval", "1"),
        *("--batch_size", str(case.rows), "--gradient_accumulation_steps", str(accumulation)),
        *("--gradient_checkpointing", str(case.checkpointing).lower()),
        *(case.flags if "--quantization" in case.flags else ("--quantization", "none", *case.flags)),
    ]
    deepspeed = [str(Path(sys.executable).with_name("deepspeed")), "--include", "localhost:0"]
    script = [str(Path(__file__).resolve()), "--child", str(case.cap_gb or 0), *flags]
    command = [*deepspeed, *script] if under_deepspeed else [sys.executable, *script]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return [case.name, str(case.length), "failed: " + (lines[-1] if lines else "")[:80], "", "", ""]
    log = [entry for entry in json.loads((out / LOG_HISTORY).read_text()) if "tokens_per_s" in entry]
    record = json.loads((out / RUN_CONFIG).read_text())["resolved"]
    return [case.name, str(case.length), *figures(log, record["planned_bytes_per_gpu"])]


def figures(log: Sequence[dict[str, Any]], planned: dict[str, int] | None) -> list[str]:
    """Tokens a second after the warm steps, measured peak, planned bytes, and their ratio."""
    warm, last = log[WARM_STEPS - 1], log[-1]
    tokens = last["tokens_per_s"] * last["elapsed_s"] - warm["tokens_per_s"] * warm["elapsed_s"]
    rate = tokens / max(last["elapsed_s"] - warm["elapsed_s"], 1e-9)
    peak = last["peak_memory_gib"]
    if planned is None:
        return [f"{rate:,.0f}", f"{peak:.2f}", "-", "-"]
    allocated = (planned["total"] - planned["reserve"]) / 2**30
    return [f"{rate:,.0f}", f"{peak:.2f}", f"{allocated:.2f}", f"{allocated / peak:.2f}"]


def report(rows: Sequence[Sequence[str]], device: str) -> str:
    headers = ["setting", "length", "tokens/s", "peak GiB", "planned GiB", "planned / peak"]
    table = tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions().items()))
    return f"{device}, {date.today().isoformat()}; {packages}.\n\n{table}"


def run_capped(cap_gb: int, flags: Sequence[str]) -> int:
    """train_lora.py in this process, which may take `cap_gb` of its GPU (0: all)."""
    import train_lora

    if cap_gb:
        import torch

        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(cap_gb * 1e9 / total)
    return train_lora.main(flags)


if __name__ == "__main__":
    words = sys.argv[1:]
    # The launcher puts its flag first.
    local_rank = [word for word in words[:1] if word.startswith("--local_rank")]
    sys.exit(main([*words[len(local_rank) :], *local_rank]))
