"""Speed and memory of training an 8B shape with random weights, and the planner's bytes beside the peak.

    python bench/gpu_training.py --out bench/gpu_training.md     # on a GPU of 80 GB or more; about 20 minutes
    python bench/gpu_training.py --shape tiny                    # two of the settings, on any machine

Every setting is a run of train_lora.py (on a GPU under the `deepspeed` launcher) on rows that fill
`--max_length`, but for two: one has the lengths of the published rows (with --data or FORECASTER_REAL_DATA),
and one is a plain loop with FinGPT's settings. Tokens a second are real ones, of the optimizer steps after
the second. The peak is torch's allocator's, so it is compared with the planned total less its reserve. What
has to come out on an H100 or H200, at 4096 tokens in bf16: 9,000 tokens/s without checkpointing (12,500 is
good), 7,000 with; rows of real lengths at 0.9 of the speed of full ones; planned within 10 % of measured for
eight settings or more; QLoRA in fp16 at 2048 in a process that may take 15 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tabulate import tabulate

from forecaster.models.registry import MODELS
from forecaster.provenance import versions
from forecaster.run_folder import LOG_HISTORY, RUN_CONFIG
from forecaster.tasks.weekly import WEEKLY

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
    real_lengths: bool = False
    is_plain_loop: bool = False


QLORA_FP16 = ("--precision", "fp16", "--quantization", "4bit")
CASES = (
    Case("bf16 LoRA"),
    Case("bf16 LoRA, checkpointing", checkpointing=True),
    Case("bf16 LoRA, checkpointing, 4 rows", rows=4, checkpointing=True),
    Case("the same, published rows", rows=4, checkpointing=True, real_lengths=True),
    Case("FinGPT's settings in a plain loop", checkpointing=True, is_plain_loop=True),
    Case("bf16 LoRA, dropout 0", flags=("--lora_dropout", "0")),
    Case("bf16 LoRA at 2048, 2 rows", length=2048, rows=2),
    Case("bf16 LoRA at 2048, 8 rows, checkpointing", length=2048, rows=8, checkpointing=True),
    Case("bf16 LoRA r 64, checkpointing", checkpointing=True, flags=("--lora_r", "64")),
    Case("bf16 QLoRA, checkpointing", checkpointing=True, flags=("--quantization", "4bit")),
    Case("bf16 QLoRA at 2048", length=2048, flags=("--quantization", "4bit")),
    Case("fp16 QLoRA at 2048 in 15 GB", 2048, checkpointing=True, flags=QLORA_FP16, cap_gb=CAP_GB),
)
TINY_CASES = (
    Case("fp32 LoRA", length=512, rows=2),
    Case("fp32 LoRA, checkpointing", length=512, rows=2, checkpointing=True),
    Case("the same, published rows", length=512, rows=2, checkpointing=True, real_lengths=True),
    Case("FinGPT's settings in a plain loop", length=512, checkpointing=True, is_plain_loop=True),
)


def main(argv: Sequence[str]) -> int:
    if argv and argv[0] == "--child":
        return run_capped(int(argv[1]), argv[2:])
    if argv and argv[0] == "--plain_loop":
        return run_plain_loop(Path(argv[1]), Path(argv[2]), int(argv[3]), Path(argv[4]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shape", choices=("8b", "tiny"), default="8b")
    parser.add_argument("--out", type=Path, help="file for the table, beside printing it")
    parser.add_argument("--data", type=Path, default=os.environ.get("FORECASTER_REAL_DATA"))
    args = parser.parse_args(argv)
    is_tiny = args.shape == "tiny"
    import torch

    if not is_tiny and not torch.cuda.is_available():
        print("An 8B model needs a GPU; --shape tiny runs anywhere.", file=sys.stderr)
        return 2
    published = Path(args.data) / "forecaster_dow30" / "train_244.jsonl" if args.data else None
    cases = [case for case in (TINY_CASES if is_tiny else CASES) if published or not case.real_lengths]
    if published is None:
        print("Neither --data nor FORECASTER_REAL_DATA is given: no rows of real lengths.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = SAMPLE / "base" if is_tiny else save_random_8b(folder / "base")
        rows = [measured(case, base, folder, published, under_deepspeed=not is_tiny) for case in cases]
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


def measured(
    case: Case, base: Path, folder: Path, published: Path | None, under_deepspeed: bool
) -> list[str]:
    """Run a case to its end in processes of its own; a row of the table, or why there is none."""
    data, out = folder / "rows.jsonl", folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    accumulation = max(4 // case.rows, 1)
    if case.real_lengths:
        assert published
        shutil.copy(published, data)
    else:
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
    if case.is_plain_loop:
        words = ("--plain_loop", str(base), str(data), str(case.length), str(out))
        command = [sys.executable, str(Path(__file__).resolve()), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return [case.name, str(case.length), "failed: " + (lines[-1] if lines else "")[:80], "", "", ""]
    log = [entry for entry in json.loads((out / LOG_HISTORY).read_text()) if "tokens_per_s" in entry]
    planned = None
    if not case.is_plain_loop:
        planned = json.loads((out / RUN_CONFIG).read_text())["resolved"]["planned_bytes_per_gpu"]
    return [case.name, str(case.length), *figures(log, planned)]


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


def run_plain_loop(base: Path, data: Path, length: int, out: Path) -> int:
    """FinGPT's settings: a row at a time, checkpointing, the logits of every token, in 16 bit on a GPU."""
    import torch

    from forecaster.models import loading
    from forecaster.models.registry import BaseModel
    from forecaster.models.templates import load_tokenizer
    from forecaster.models.tuners.base import TunerSettings
    from forecaster.models.tuners.lora import LORA
    from forecaster.training.tokenising import tokenise_row
    from forecaster.training.trainer import peak_memory_bytes

    tokenizer, _ = load_tokenizer(BaseModel(str(base), is_local=True), trust_remote_code=False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LORA.attach(
        loading.load_base(str(base), "bf16" if device == "cuda" else "fp32", "none", False),
        TunerSettings(),
        gradient_checkpointing=True,
    )
    model.to(device).train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    lines = data.read_text(encoding="utf-8").splitlines()
    rows = [tokenise_row(json.loads(line), tokenizer, length, WEEKLY) for line in lines]
    began_s, tokens, log = time.monotonic(), 0, []
    for step in range(STEPS):
        for row in rows[step * len(rows) // STEPS : (step + 1) * len(rows) // STEPS]:
            batch = {name: torch.tensor([row[name]], device=device) for name in ("input_ids", "labels")}
            model(**batch, use_cache=False).loss.backward()
            tokens += row["tokens"]
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        elapsed_s = time.monotonic() - began_s
        peak_gib = peak_memory_bytes() / 2**30
        log.append({"tokens_per_s": tokens / elapsed_s, "elapsed_s": elapsed_s, "peak_memory_gib": peak_gib})
    out.mkdir()
    (out / LOG_HISTORY).write_text(json.dumps(log))
    return 0


if __name__ == "__main__":
    words = sys.argv[1:]
    # The launcher puts its flag first.
    local_rank = [word for word in words[:1] if word.startswith("--local_rank")]
    sys.exit(main([*words[len(local_rank) :], *local_rank]))
