"""How fast a training step is on CPU, and what makes it so, on models with the proportions of a 7-8B one.

    FORECASTER_REAL_DATA=... python bench/training_speed.py [--rounds 5] [--length_share 0.25]

Eight layers, hidden size 256, shared key and value heads; the vocabulary sets the head's share of the
parameters. The rows are the published training rows (forecaster_dow30/train_244.jsonl), else the sample's.
All sides take the rows of a round in turn, right behind the trainer's own step, but for the random batches,
which are drawn from all rows. Seconds per real token are compared, and the median of the rounds' ratios
counts: a machine's speed changes by the minute. Processor time is given beside wall time. Ten minutes on
two idle cores.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from forecaster.settings import calm_openmp

calm_openmp()

import datasets
import numpy as np
import torch
from tabulate import tabulate
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig

from forecaster.models.registry import BaseModel
from forecaster.models.templates import load_tokenizer
from forecaster.models.tuners.base import TunerSettings
from forecaster.models.tuners.lora import LORA
from forecaster.tasks.weekly import WEEKLY
from forecaster.training.batching import Batching, epoch_order, micro_batches, padding_efficiency
from forecaster.training.loss import TokenLosses, add_answer_loss
from forecaster.training.tokenising import IGNORED, tokenise_row
from forecaster.training.trainer import ForecasterTrainer, RowCollator

MICRO_BATCH_SIZE, ACCUMULATION, SEED = 4, 2, 42
HIDDEN, LAYERS, INTERMEDIATE, HEADS, KV_HEADS = 256, 8, 688, 8, 2
DROPOUT = 0.1
"""The recipe's."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Seconds:
    """What 1,000 real tokens of a round took."""

    wall_s: float
    processor_s: float


@dataclass(frozen=True)
class Wanted:
    """One line of the table."""

    what: str
    measured: float
    limit: float
    at_least: bool
    note: str = ""

    @property
    def holds(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("FORECASTER_REAL_DATA"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--length_share", type=float, default=0.25, help="rows are cut to this share")
    args = parser.parse_args(argv)
    rows = read_rows(Path(args.data) if args.data else None)
    table = [*efficiencies(rows), peak_of_the_loss()]
    short = [cut(row, args.length_share) for row in rows]
    tokens = [row["tokens"] for row in short]
    print(
        f"Speeds: rows cut to {args.length_share:g} of their length: {min(tokens)} to {max(tokens)} tokens, "
        f"{sum(map(answer_tokens, short)) / sum(tokens):.0%} of them answers; {args.rounds} rounds of "
        f"{MICRO_BATCH_SIZE * ACCUMULATION} rows, {torch.get_num_threads()} threads."
    )
    for head_share in (0.07, 0.15):
        table += speeds(short, head_share, args.rounds)
    print(
        tabulate(
            [
                (
                    line.what,
                    f"{'>=' if line.at_least else '<='} {line.limit:g}",
                    f"{line.measured:.3f}",
                    "" if line.holds else "NO",
                    line.note,
                )
                for line in table
            ],
            headers=("", "wanted", "measured", "", ""),
        )
    )
    return 0 if all(line.holds for line in table) else 1


# --- rows ---------------------------------------------------------------------------------------------------


def read_rows(data: Path | None) -> list[Row]:
    """Tokenised rows; their ids are those of the embedded tokenizer, which has the smallest vocabulary."""
    path = ROOT / "sample" / "dataset" / "train.jsonl"
    if data is None:
        print("Neither --data nor FORECASTER_REAL_DATA is given: rows of the sample, which are shorter.")
    else:
        path = data / "forecaster_dow30" / "train_244.jsonl"
    base = BaseModel(str(ROOT / "sample" / "base"), is_local=True)
    tokenizer, _ = load_tokenizer(base, trust_remote_code=False)
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [tokenise_row(json.loads(line), tokenizer, 8192, WEEKLY) for line in lines]
    print(f"{len(rows)} rows of {path.name}.")
    return [row | {"row_id": str(i)} for i, row in enumerate(rows)]


def answer_tokens(row: Row) -> int:
    return sum(label != IGNORED for label in row["labels"])


def cut(row: Row, share: float) -> Row:
    """The row with this share of its prompt's and of its answer's tokens."""
    prompt = len(row["labels"]) - answer_tokens(row)
    kept = [*range(round(prompt * share)), *range(prompt, prompt + round(answer_tokens(row) * share))]
    short = {name: [row[name][i] for i in kept] for name in ("input_ids", "labels")}
    return short | {"tokens": len(kept), "row_id": row["row_id"]}


def efficiencies(rows: Sequence[Row]) -> list[Wanted]:
    lengths = np.asarray([row["tokens"] for row in rows])
    table = []
    for size in (4, 8):
        for ranks in (1, 2):
            order = epoch_order(lengths, size, SEED, 0)
            shape = Batching(size, 2, ranks)
            batches = [b for rank in range(ranks) for b in micro_batches(order, lengths, shape, rank)]
            name = f"padding efficiency, micro-batch {size}, {ranks} rank(s)"
            at_random = np.random.default_rng(SEED).permutation(len(lengths))
            plain = padding_efficiency(np.array_split(at_random, len(batches)), lengths)  # type: ignore[arg-type]
            table.append(
                Wanted(name, padding_efficiency(batches, lengths), 0.95, True, f"random: {plain:.2f}")
            )
    return table


# --- memory -------------------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """Bytes of all tensors that were made under it and still live, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def ignore(self, *tensors: torch.Tensor) -> None:
        self._known |= {tensor.untyped_storage()._cdata for tensor in tensors}

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def peak_of_the_loss() -> Wanted:
    """Head, loss and their gradients at 128,256 vocabulary entries, 15 % of 2,048 tokens answers, in fp32."""
    vocabulary, tokens = 128_256, 2048
    weight = torch.randn(vocabulary, 64) / 8
    hidden = torch.randn(tokens, 64, requires_grad=True)
    labels = torch.full((tokens,), IGNORED)
    labels[-round(0.15 * tokens) :] = 1

    def full() -> torch.Tensor:
        logits = torch.nn.functional.linear(hidden, weight)
        return torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")

    def own() -> torch.Tensor:
        answers = labels != IGNORED
        return TokenLosses.apply(hidden[answers], weight, None, labels[answers]).sum()

    peaks = []
    for loss in (own, full):
        hidden.grad = None
        gc.collect()
        with LiveBytes() as counter:
            counter.ignore(weight, hidden, labels)
            loss().backward()
        peaks.append(counter.peak)
    note = f"{peaks[0] / 2**20:.0f} of {peaks[1] / 2**20:.0f} MiB"
    return Wanted("loss-stage peak bytes, of full logits'", peaks[0] / peaks[1], 0.35, False, note)


# --- speed --------------------------------------------------------------------------------------------------


def make_model(head_share: float, dropout: float, checkpointing: bool = False) -> Any:
    """LoRA r=8 on all projections; the head has `head_share` of the parameters of layers and head."""
    head_dim = HIDDEN // HEADS
    attention = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * KV_HEADS * head_dim
    in_layers = LAYERS * (attention + 3 * HIDDEN * INTERMEDIATE)
    torch.manual_seed(SEED)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=round(in_layers * head_share / (1 - head_share) / HIDDEN),
            hidden_size=HIDDEN,
            intermediate_size=INTERMEDIATE,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            max_position_embeddings=8192,
        )
    )
    if checkpointing:
        base.activation_checkpointing_enable()
    model = LORA.attach(base, TunerSettings(dropout=dropout), gradient_checkpointing=checkpointing)
    return model.train()


class Clock:
    """Runs from its making."""

    def __init__(self) -> None:
        self._wall_s, self._processor_s = time.perf_counter(), time.process_time()

    def per_thousand(self, rows: Iterable[Row]) -> Seconds:
        thousands = sum(row["tokens"] for row in rows) / 1000
        wall_s, processor_s = time.perf_counter() - self._wall_s, time.process_time() - self._processor_s
        return Seconds(wall_s / thousands, processor_s / thousands)


class Loop:
    """A plain PyTorch loop: batches of given rows, AdamW, clipped gradients."""

    def __init__(self, model: Any, loss_of: Callable[[Any, Sequence[Row]], torch.Tensor]) -> None:
        self._model, self._loss_of = model, loss_of
        self._weights = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._weights, lr=1e-5, weight_decay=0.01, fused=True)
        self.seconds: list[Seconds] = []

    def run(self, steps: Sequence[Sequence[Sequence[Row]]]) -> None:
        clock = Clock()
        for step in steps:
            answers = sum(answer_tokens(row) for batch in step for row in batch)
            for batch in step:
                loss = self._loss_of(self._model, batch) / answers
                loss.backward()
            torch.nn.utils.clip_grad_norm_(self._weights, 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
        self.seconds.append(clock.per_thousand(row for step in steps for batch in step for row in batch))


COLLATE = RowCollator(pad_token_id=0)


def own_loss(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    batch = COLLATE(list(rows))
    nll_sum: torch.Tensor = model(input_ids=batch["input_ids"], answer_labels=batch["labels"]).nll_sum
    return nll_sum


def full_logits_loss(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    """Answers only, with the logits of every token, and a mask over the padding."""
    batch = COLLATE(list(rows))
    lengths = torch.tensor([row["tokens"] for row in rows])
    mask = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
    logits = model(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False).logits.float()
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].reshape(-1, logits.shape[-1]), batch["labels"][:, 1:].reshape(-1), reduction="sum"
    )


def every_token_loss(model: Any, rows: Sequence[Row]) -> torch.Tensor:
    """FinGPT's: the prompt's tokens are not left out."""
    return full_logits_loss(model, [row | {"labels": row["input_ids"]} for row in rows])


class Rounds(TrainerCallback):
    """Times the trainer's steps, and lets the other sides take the same rows after each round of them."""

    def __init__(self, rows: Sequence[Row], sides: dict[str, tuple[Loop, str]]) -> None:
        self.seconds: list[Seconds] = []
        self._rows, self._sides, self._clock = rows, sides, Clock()
        lengths = np.asarray([row["tokens"] for row in rows])
        order = epoch_order(lengths, MICRO_BATCH_SIZE, SEED, 0)
        grouped = micro_batches(order, lengths, Batching(MICRO_BATCH_SIZE, ACCUMULATION, 1), 0)
        self._grouped = [[rows[i] for i in batch] for batch in grouped]
        at_random = np.random.default_rng(SEED).permutation(len(rows))
        self._random = [
            [rows[i] for i in at_random[start : start + MICRO_BATCH_SIZE]]
            for start in range(0, len(rows), MICRO_BATCH_SIZE)
        ]

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._clock = Clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        part = slice((state.global_step - 1) * ACCUMULATION, state.global_step * ACCUMULATION)
        batches = self._grouped[part]
        self.seconds.append(self._clock.per_thousand(row for batch in batches for row in batch))
        kinds = {
            "grouped": batches,
            "single": [[row] for batch in batches for row in batch],
            "random": self._random[part],
        }
        for loop, kind in self._sides.values():
            loop.run([kinds[kind]])
        taken = {"trainer": self.seconds} | {name: loop.seconds for name, (loop, _) in self._sides.items()}
        times = ", ".join(
            f"{name} {of[-1].wall_s:.2f} ({of[-1].processor_s:.2f})" for name, of in taken.items()
        )
        warm_up = "" if state.global_step > 1 else " (not counted)"
        print(f"Wall (processor) seconds for 1,000 tokens: {times}{warm_up}", flush=True)
        self._clock = Clock()


def speeds(rows: Sequence[Row], head_share: float, rounds: int) -> list[Wanted]:
    def with_own_loss(dropout: float) -> Any:
        model = make_model(head_share, dropout)
        add_answer_loss(model.get_base_model())
        return model

    sides = {
        "raw": (Loop(with_own_loss(DROPOUT), own_loss), "grouped"),
        "no dropout": (Loop(with_own_loss(0.0), own_loss), "grouped"),
        "FinGPT": (Loop(make_model(head_share, DROPOUT, checkpointing=True), full_logits_loss), "single"),
        "every token": (
            Loop(make_model(head_share, DROPOUT, checkpointing=True), every_token_loss),
            "single",
        ),
        "random": (Loop(make_model(head_share, DROPOUT, checkpointing=True), full_logits_loss), "random"),
    }
    clock = Rounds(rows, sides)
    with tempfile.TemporaryDirectory() as folder:
        run_trainer(make_model(head_share, DROPOUT), rows, rounds + 1, clock, Path(folder))

    def line(what: str, slow: str, fast: str, limit: float, at_least: bool = True) -> Wanted:
        # The first round warms up.
        taken = {name: loop.seconds[1:] for name, (loop, _) in sides.items()} | {"trainer": clock.seconds[1:]}
        wall = statistics.median(b.wall_s / a.wall_s for a, b in zip(taken[fast], taken[slow], strict=True))
        pairs = zip(taken[fast], taken[slow], strict=True)
        processor = statistics.median(b.processor_s / a.processor_s for a, b in pairs)
        fast_s = statistics.median(t.wall_s for t in taken[fast])
        slow_s = statistics.median(t.wall_s for t in taken[slow])
        note = f"{slow_s:.2f} / {fast_s:.2f} s for 1,000 tokens; by processor time: {processor:.2f}"
        return Wanted(f"head {head_share:.0%}: {what}", wall, limit, at_least, note)

    return [
        line("trainer against batch 1, checkpointing, full logits", "FinGPT", "trainer", 1.3),
        line("the same with dropout 0 (raw loop)", "FinGPT", "no dropout", 1.9),
        line("(for information) against its every-token loss", "every token", "trainer", 0.0),
        line("trainer against randomly padded batches of 4", "random", "trainer", 2.0),
        line("trainer over a raw loop of the same batches", "trainer", "raw", 1.05, at_least=False),
    ]


def run_trainer(model: Any, rows: Sequence[Row], rounds: int, clock: Rounds, folder: Path) -> None:
    args = SFTConfig(
        output_dir=str(folder),
        seed=SEED,
        use_cpu=True,
        per_device_train_batch_size=MICRO_BATCH_SIZE,
        gradient_accumulation_steps=ACCUMULATION,
        activation_checkpointing=False,
        bf16=False,
        max_steps=rounds,
        learning_rate=1e-5,
        weight_decay=0.01,
        logging_steps=10,
        save_strategy="no",
        remove_unused_columns=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        disable_tqdm=True,
        report_to=[],
    )
    base = BaseModel(str(ROOT / "sample" / "base"), is_local=True)
    columns = ("input_ids", "labels", "row_id", "tokens")
    trainer = ForecasterTrainer(
        model=model,
        args=args,
        train_dataset=datasets.Dataset.from_list([{name: row[name] for name in columns} for row in rows]),
        processing_class=load_tokenizer(base, trust_remote_code=False)[0],
        data_collator=COLLATE,
        callbacks=[clock],
        rows_per_group=args.train_batch_size,
        row_order_file=folder / "rows.jsonl",
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
