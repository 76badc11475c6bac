"""One case in a process of its own, which imports at once and begins when it is told to: a line on stdin.

    python bench/gpu/measure.py CASE WORK ANSWER [--tiny]

CASE is JSON (cases.py); WORK holds the base model; the figures go into ANSWER as they become known, so that a
case which is cut off leaves some.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from forecaster.settings import calm_openmp, let_segments_grow

calm_openmp()
let_segments_grow()

import torch
from transformers import AutoTokenizer

import train_lora
from bench.gpu import material
from bench.gpu.cases import STEPS, WARM_STEPS, Case
from forecaster.answering import hf_engine
from forecaster.fit import attention
from forecaster.models import loading
from forecaster.models.registry import BaseModel
from forecaster.models.templates import load_tokenizer
from forecaster.models.tuners.base import TunerSettings
from forecaster.models.tuners.lora import LORA
from forecaster.provenance import versions
from forecaster.run_folder import LOG_HISTORY, RUN_CONFIG
from forecaster.tasks.weekly import WEEKLY
from forecaster.training import fine_tuning
from forecaster.training.loss import TokenLosses
from forecaster.training.tokenising import tokenise_row
from forecaster.training.trainer import peak_memory_bytes

GIB = 2**30
Found = dict[str, Any]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def main(argv: Sequence[str]) -> int:
    case, work, answer = Case.from_json(argv[0]), Path(argv[1]), Path(argv[2])
    is_tiny = "--tiny" in argv
    if case.kind != "base":
        sys.stdin.readline()
    found: Found = {}

    def tell(**figures: Any) -> None:
        found.update(figures)
        answer.write_text(json.dumps(found), encoding="utf-8")

    base = ROOT / "sample" / "base" if is_tiny else work / "base"
    began_s = time.monotonic()
    if case.kind == "base":
        measure_machine(base, is_tiny, tell)
    elif case.kind == "training":
        measure_training(case, base, work / answer.stem, tell)
    elif case.kind == "plain loop":
        measure_plain_loop(case, base, work / f"{answer.stem}.jsonl", tell)
    else:
        measure_generation(is_tiny, tell)
    tell(busy_s=round(time.monotonic() - began_s, 1))
    return 0


# --- the machine --------------------------------------------------------------------------------------------


def measure_machine(base: Path, is_tiny: bool, tell: Callable[..., None]) -> None:
    """Versions, the base model that the others load, and what the kernels reach."""
    tell(cudnn=torch.backends.cudnn.version(), **versions())
    if is_tiny:
        return
    began_s = time.monotonic()
    material.save_8b(base)
    tell(base_s=round(time.monotonic() - began_s, 1))
    torch.cuda.empty_cache()
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    tell(matmul_tflops=round(2 * 8192**3 / seconds_each(lambda: a @ b, 20) / 1e12))
    tell(copy_tb_s=round(2 * a.nbytes / seconds_each(lambda: b.copy_(a), 50) / 1e12, 2))
    tell(attention_ms=attention_ms())
    tell(loss_error={str(dtype): loss_errors(dtype) for dtype in (torch.bfloat16, torch.float16)})


def seconds_each(call: Callable[[], object], count: int) -> float:
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    began_s = time.perf_counter()
    for _ in range(count):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - began_s) / count


def attention_ms() -> dict[str, list[float]]:
    """Milliseconds at lengths not seen before, and at one that was: training (forward and backward of a row),
    and a step of decoding for 16 rows; with cuDNN's kernels first, and without them."""
    found = {}
    for name, with_cudnn in (("cuDNN", True), ("without", False)):
        torch.backends.cuda.enable_cudnn_sdp(with_cudnn)
        attend_ms(4096, training=True)
        found[f"{name}, training, new"] = [attend_ms(4096 - 13 * i, training=True) for i in range(1, 6)]
        found[f"{name}, training, seen"] = [attend_ms(4096, training=True) for _ in range(3)]
        attend_ms(2000, training=False)
        found[f"{name}, decoding, new"] = [attend_ms(2000 + i, training=False) for i in range(1, 6)]
        found[f"{name}, decoding, seen"] = [attend_ms(2000, training=False) for _ in range(3)]
    torch.backends.cuda.enable_cudnn_sdp(True)
    return found


def attend_ms(length: int, training: bool) -> float:
    rows, queries = (1, length) if training else (16, 1)
    shapes = ((rows, 32, queries, 128), (rows, 8, length, 128), (rows, 8, length, 128))
    query, key, value = (
        torch.randn(*shape, device="cuda", dtype=torch.bfloat16, requires_grad=training) for shape in shapes
    )
    torch.cuda.synchronize()
    began_s = time.perf_counter()
    output = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=training, enable_gqa=True
    )
    if training:
        output.sum().backward()
    torch.cuda.synchronize()
    return round((time.perf_counter() - began_s) * 1e3, 2)


def loss_errors(dtype: torch.dtype) -> tuple[float, float]:
    """Relative errors of the loss in chunks, and of its gradient, against float64 at 8B's sizes."""
    hidden = torch.randn(600, 4096, device=DEVICE, dtype=dtype, requires_grad=True)
    weight = (torch.randn(128256, 4096, device=DEVICE) * 0.02).to(dtype)
    targets = torch.randint(128256, (600,), device=DEVICE)
    own = TokenLosses.apply(hidden, weight, None, targets)
    (own.sum() * 65536 / 600).backward()
    exact = hidden.detach().double().requires_grad_()
    nll = torch.nn.functional.cross_entropy(exact @ weight.double().T, targets, reduction="none")
    (nll.sum() * 65536 / 600).backward()
    return distance(own, nll), distance(hidden.grad, exact.grad)


def distance(found: Any, wanted: Any) -> float:
    return float((found - wanted).norm() / wanted.norm())


# --- training -----------------------------------------------------------------------------------------------


def measure_training(case: Case, base: Path, folder: Path, tell: Callable[..., None]) -> None:
    """A run of train_lora.py; under DeepSpeed where there is a GPU, as day.py says in the environment."""
    folder.mkdir()
    data, out = folder / "rows.jsonl", folder / "run"
    count = case.rows * case.accumulation * STEPS
    if case.published_lengths:
        material.write_published_rows(data, count)
    else:
        material.write_full_rows(data, count, case.length)
    if case.cap_gb and DEVICE == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(case.cap_gb * 1e9 / total)
    with tried(case), timed_load(tell):
        status = train_lora.main(training_flags(case, base, data, out))
    tell(status=status)
    if status == 0:
        tell(**figures_of_run(out))
    shutil.rmtree(folder)


def training_flags(case: Case, base: Path, data: Path, out: Path) -> list[str]:
    given = {
        "base_model": base,
        "dataset": data,
        "test_dataset": material.SAMPLE / "dataset" / "test.jsonl",
        "output_dir": out,
        "report_to": "none",
        "evaluation_strategy": "no",
        "max_new_tokens": 16,
        "max_length": case.length,
        "max_steps": STEPS,
        "log_interval": 1,
        "batch_size": case.rows,
        "gradient_accumulation_steps": case.accumulation,
        "gradient_checkpointing": str(case.checkpointing).lower(),
        "quantization": "none",
    }
    return [word for name, value in given.items() for word in (f"--{name}", str(value))] + list(case.flags)


def tried(case: Case) -> Any:
    """What of the program a trial takes away, as long as it runs."""
    if case.trial == "PEFT's products":
        return patch.object(fine_tuning, "join_products", lambda _: 0)
    if case.trial == "a T4's attention":
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cuda.enable_flash_sdp(False)
        return patch.object(attention, "sdpa_for", lambda *_: "sdpa_repeated")
    return contextlib.nullcontext()


def timed_load(tell: Callable[..., None]) -> Any:
    load = loading.load_base

    def timed(*args: Any, **kwargs: Any) -> Any:
        began_s = time.monotonic()
        model = load(*args, **kwargs)
        tell(load_s=round(time.monotonic() - began_s, 1), load_peak_gib=gib(peak_memory_bytes()))
        return model

    return patch.object(loading, "load_base", timed)


def figures_of_run(out: Path) -> Found:
    """Real tokens a second of the steps after the warm ones, measured peak, planned bytes and their ratio."""
    log = [entry for entry in json.loads((out / LOG_HISTORY).read_text()) if "tokens_per_s" in entry][:STEPS]
    planned = json.loads((out / RUN_CONFIG).read_text())["resolved"]["planned_bytes_per_gpu"]
    warm, last = log[WARM_STEPS - 1], log[-1]
    tokens = last["tokens_per_s"] * last["elapsed_s"] - warm["tokens_per_s"] * warm["elapsed_s"]
    found: Found = {
        "tokens_per_s": round(tokens / max(last["elapsed_s"] - warm["elapsed_s"], 1e-9)),
        "elapsed_s": [entry["elapsed_s"] for entry in log],
        "losses": [round(entry["loss"], 3) for entry in log],
        "peak_gib": last["peak_memory_gib"],
    }
    if planned:  # the allocator's peak knows no CUDA context: without the reserve
        allocated = gib(planned["total"] - planned["reserve"])
        found |= {"planned_gib": allocated, "ratio": round(allocated / found["peak_gib"], 3)}
    if DEVICE == "cuda":
        found["reserved_gib"] = gib(torch.cuda.max_memory_reserved())
    return found


def gib(count: int) -> float:
    return round(count / GIB, 2)


# --- FinGPT's settings --------------------------------------------------------------------------------------


def measure_plain_loop(case: Case, base: Path, data: Path, tell: Callable[..., None]) -> None:
    """A row at a time, checkpointing, the logits of every token, PEFT as it is, AdamW; no DeepSpeed.

    In 16 bit on a GPU, the factors too, as FinGPT's DeepSpeed holds them.
    """
    material.write_full_rows(data, STEPS * case.accumulation, case.length)
    tokenizer, _ = load_tokenizer(BaseModel(str(base), is_local=True), trust_remote_code=False)
    lines = data.read_text(encoding="utf-8").splitlines()
    rows = [tokenise_row(json.loads(line), tokenizer, case.length, WEEKLY) for line in lines]
    model = reference_model(base)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    marks = []
    for step in range(STEPS):
        batch = rows[step * case.accumulation : (step + 1) * case.accumulation]
        for row in batch:
            inputs = {name: torch.tensor([row[name]], device=DEVICE) for name in ("input_ids", "labels")}
            model(**inputs, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        marks.append((time.monotonic(), sum(row["tokens"] for row in batch)))
        if step >= WARM_STEPS:
            seconds = marks[-1][0] - marks[WARM_STEPS - 1][0]
            tell(tokens_per_s=round(sum(tokens for _, tokens in marks[WARM_STEPS:]) / seconds))
    tell(peak_gib=gib(peak_memory_bytes()))


def reference_model(base: Path) -> Any:
    """LoRA in training mode with checkpointing, every weight in 16 bit on a GPU."""
    loaded = loading.load_base(
        str(base),
        "bf16" if DEVICE == "cuda" else "fp32",
        "none",
        False,
        {"": 0} if DEVICE == "cuda" else None,
    )
    model = LORA.attach(loaded, TunerSettings(), gradient_checkpointing=True)
    for weight in model.parameters():
        weight.data = weight.data.to(loaded.dtype)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


# --- generation ---------------------------------------------------------------------------------------------


def measure_generation(is_tiny: bool, tell: Callable[..., None]) -> None:
    """New tokens a second of prompts of about 1,600 tokens, in the order of what is not known yet."""
    tokenizer = AutoTokenizer.from_pretrained(material.SAMPLE / "base")
    tokenizer.padding_side = "left"
    shape = material.SHAPE_TINY if is_tiny else material.SHAPE_8B
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = material.random_llama(shape, **ends).eval()  # no end is likely: it ends none early
    prompts = material.random_prompts(2 if is_tiny else 64, shape.vocab_size)
    new_tokens = 4 if is_tiny else 96
    answer_s(model, tokenizer, prompts[:1], 1, 4)  # warm up
    rates = {}
    for name, taken, size in (
        ("64 at a time", prompts, 64),
        ("16 at a time", prompts[:16], 16),
        ("one by one", prompts[:2], 1),
    ):
        seconds = answer_s(model, tokenizer, taken, size, new_tokens)
        rates[name] = round(len(taken) * new_tokens / seconds, 1)
        tell(new_tokens_per_s=rates, peak_gib=gib(peak_memory_bytes()))


def answer_s(model: Any, tokenizer: Any, prompts: Sequence[Any], size: int, new_tokens: int) -> float:
    began_s = time.perf_counter()
    batches = hf_engine.plan_batches(prompts, size)
    for _ in hf_engine.generate(model, tokenizer, batches, max_new_tokens=new_tokens, warn=print):
        pass
    return time.perf_counter() - began_s


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
