"""What each way to tune costs and brings, on the same rows.

    python bench/lora_vs_full.py                     embedded base on the CPU: ten minutes on two quiet cores
    python bench/lora_vs_full.py --tuners lora,full --num_epochs 4
    python bench/lora_vs_full.py --shape 7b          on a GPU: Qwen2.5-7B's shape with random weights

On the embedded base each tuner trains through train_lora.py and answers through benchmark.py, in processes of
their own. With `--shape 7b` there is nothing to benchmark, as random weights forecast nothing: each tuner
takes steps of one row, in a process of its own, as train_lora.py without a launcher does (checkpointed
layers, AdamW in fp32; `full` in fp32 under autocast, 16 bytes a parameter).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tabulate import tabulate

from forecaster.models import registry
from forecaster.models.finished import trained_weights
from forecaster.models.tuners import TUNERS
from forecaster.models.tuners.base import TunerSettings
from forecaster.settings import calm_openmp
from forecaster.training import train_config

EMBEDDED = ROOT / "configs" / "embedded.yaml"
RATES = {
    "lora": 5e-3,
    "qlora": 5e-3,
    "dora": 5e-3,
    # Its updates are sqrt(8) times as large at rank 8.
    "rslora": 1.8e-3,
    # A tenth of LoRA's, as is found best over many models ("LoRA Without Regret", Schulman et al. 2025).
    "full": 5e-4,
}
TOKENS, WARM_UP_STEPS, TIMED_STEPS = 2048, 2, 5


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shape", choices=("embedded", "7b"), default="embedded")
    parser.add_argument("--tuners", default="lora,qlora,dora,rslora,full", help="comma list")
    parser.add_argument("--num_epochs", default="2", help="of the embedded run")
    parser.add_argument("--test_rows", type=int, default=24, help="that the embedded run answers; at most 64")
    parser.add_argument("--folder", type=Path, help="keeps runs, and does not make them again; default: none")
    parser.add_argument("--measure", nargs=2, metavar=("TUNER", "BASE"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        print(json.dumps(measure_steps(*args.measure)))
        return 0
    tuners = [tuner for tuner in TUNERS if tuner in args.tuners.split(",")]
    calm_openmp()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if args.shape == "embedded":
            lines = [embedded_line(tuner, folder, args.num_epochs, args.test_rows) for tuner in tuners]
        else:
            if not has_gpu():
                print("--shape 7b needs a GPU that torch can use; there is none here.", file=sys.stderr)
                return 2
            base = random_base(folder / "base")
            lines = [gpu_line(tuner, base) for tuner in tuners]
    print(tabulate(lines, headers="keys", tablefmt="github", disable_numparse=True))
    return 0


# --- the embedded base, CPU ---------------------------------------------------------------------------------


def embedded_line(tuner: str, folder: Path, num_epochs: str, test_rows: int) -> dict[str, str]:
    """Train and benchmark one tuner."""
    run, rows = folder / tuner, folder / "test.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    test = (ROOT / "sample" / "dataset" / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    rows.write_text("".join(test[:: len(test) // test_rows][:test_rows]), encoding="utf-8")
    flags = ["--config", str(EMBEDDED), "--report_to", "none", "--output_dir", str(run), "--tuner", tuner]
    flags += ["--test_dataset", str(rows), "--num_epochs", num_epochs, "--learning_rate", str(RATES[tuner])]
    flags += ["--quantization", "auto", "--eval_steps", "0.5"]
    if not (run / "log_history.json").exists():
        call("train_lora.py", *flags)
    call("benchmark.py", "--adapter", str(run), "--report_to", "none")

    base = registry.resolve(str(ROOT / "sample" / "base"))
    assert isinstance(base, registry.BaseModel) and base.shape
    lora = train_config.parse_flags(flags)
    trainable, total = TUNERS[tuner].parameter_counts(base.shape, lora.tuner_settings)
    history = json.loads((run / "log_history.json").read_text())
    metrics = json.loads((run / "benchmark" / "metrics.json").read_text())
    scores = metrics["models"]["fine-tuned"]["project"]
    return {
        "tuner": tuner,
        "rate": f"{RATES[tuner]:g}",
        "minutes": f"{max(entry.get('elapsed_s', 0) for entry in history) / 60:.1f}",
        "peak GiB": f"{max(entry.get('peak_memory_gib', 0) for entry in history):.2f}",
        "trainable": f"{trainable:,} ({trainable / total:.1%})",
        "saved bytes": f"{saved_bytes(run):,}",
        "test loss": f"{[entry['eval_loss'] for entry in history if 'eval_loss' in entry][-1]:.3f}",
        "readable": f"{scores['valid_count']} of {scores['rows']}",
        "accuracy, unreadable wrong": shown(scores["accuracy_of_all_rows"]),
        "MSE": shown(scores["mse"]),
    }


def shown(score: Any) -> str:
    """A value with its 95 % interval."""
    if score is None:
        return "-"
    if score.get("low") is None:
        return f"{score['value']:.2f}"
    return f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


def saved_bytes(run: Path) -> int:
    return sum(path.stat().st_size for path in trained_weights(run))


def call(script: str, *flags: str) -> None:
    print(f"$ python {script} {' '.join(flags)}", flush=True)
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *flags], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout[-2000:]}{done.stderr[-2000:]}\n{script} ended with {done.returncode}")


# --- the shape of a 7B, GPU ---------------------------------------------------------------------------------


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def random_base(folder: Path) -> Path:
    """Qwen2.5-7B with random weights in bf16: 15 GB on disk, so that 4-bit weights load as real ones do."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    found = registry.resolve("qwen2.5-7b")
    assert isinstance(found, registry.BaseModel) and found.shape
    shape = found.shape
    if not (folder / "config.json").exists():
        with torch.device("cuda"):
            model = AutoModelForCausalLM.from_config(
                Qwen2Config(
                    hidden_size=shape.hidden_size,
                    num_hidden_layers=shape.layers,
                    num_attention_heads=shape.heads,
                    num_key_value_heads=shape.kv_heads,
                    intermediate_size=shape.intermediate_size,
                    vocab_size=shape.vocab_size,
                    tie_word_embeddings=shape.tied_embeddings,
                ),
                dtype=torch.bfloat16,
            )
        model.save_pretrained(folder)
    return folder


def gpu_line(tuner: str, base: Path) -> dict[str, str]:
    """One tuner in a process of its own, so that it starts with an empty GPU."""
    command = [sys.executable, __file__, "--measure", tuner, str(base)]
    # The default allocator cuts memory into pieces; a fully tuned 7B needs what lies between them.
    env = os.environ | {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        out_of_memory = "OutOfMemoryError" in done.stderr
        what = "out of memory" if out_of_memory else f"failed: {done.stderr.strip().splitlines()[-1][:80]}"
        return {"tuner": tuner, "minutes per 1,000 steps": what}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "tuner": tuner,
        "minutes per 1,000 steps": f"{found['step_s'] * 1000 / 60:.1f}",
        "tokens/s": f"{TOKENS / found['step_s']:,.0f}",
        "peak GiB": f"{found['peak_bytes'] / 2**30:.1f}",
        "trainable": f"{found['trainable']:,} ({found['trainable'] / found['total']:.2%})",
        # Adapters train, and are saved, in fp32; a model in bf16.
        "saved bytes": f"{found['trainable'] * (4 if TUNERS[tuner].saves_adapter else 2):,}",
    }


def measure_steps(tuner: str, base: str) -> dict[str, float]:
    """Median seconds of an optimizer step of one row of `TOKENS` tokens, peak bytes, and parameters."""
    import torch

    from forecaster.models import loading, weights
    from forecaster.training.loss import add_answer_loss
    from forecaster.training.tokenising import IGNORED

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = loading.load_base(
        base,
        "fp32" if TUNERS[tuner].trains_base else "bf16",
        TUNERS[tuner].base_quantization or "none",
        device_map={"": device},
    )
    add_answer_loss(loaded)
    model = TUNERS[tuner].attach(loaded, TunerSettings(), gradient_checkpointing=True)
    model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5, fused=True)
    ids = torch.randint(model.config.vocab_size, (1, TOKENS), device=device)
    labels = ids.clone()
    labels[:, : TOKENS * 3 // 4] = IGNORED  # a quarter are answers, as in the published rows
    times_s = []
    for _ in range(WARM_UP_STEPS + TIMED_STEPS):
        began_s = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            nll_sum, answers = model(input_ids=ids, answer_labels=labels)
        (nll_sum / answers).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        times_s.append(time.perf_counter() - began_s)
    trainable, total = weights.count_parameters(model)
    peak_bytes = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    step_s = sorted(times_s[WARM_UP_STEPS:])[TIMED_STEPS // 2]
    return {"step_s": step_s, "peak_bytes": peak_bytes, "trainable": trainable, "total": total}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
