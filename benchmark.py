"""Benchmark a fine-tuned adapter against its base model and against no model at all, on its test rows.

    python benchmark.py --adapter finetuned_models/embedded_20260101000000
    CUDA_VISIBLE_DEVICES=0 python benchmark.py --adapter DIR --batch_size 32

Writes predictions.jsonl, metrics.json, report.md and report.png into DIR/benchmark. A benchmark that was
stopped goes on with the same command; answers that it has are not generated again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forecaster import tracking
from forecaster.data import sources
from forecaster.errors import ConfigurationError, Problem
from forecaster.evaluation import plots, report
from forecaster.evaluation.baselines import Baseline, baselines
from forecaster.evaluation.metrics import Metrics, Scored, score
from forecaster.modeling import registry
from forecaster.modeling.run import DATASET_FILE, LOG_HISTORY, RUN_CONFIG
from forecaster.prompts import parse_prediction
from forecaster.records import Label
from forecaster.settings import Settings, calm_openmp, load_settings, report_problems

BASE, TUNED = "base", "fine-tuned"
PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True)
class Prediction:
    """One line of predictions.jsonl."""

    model: str
    row_id: str
    symbol: str
    period: str
    label: str
    answer: str | None
    """None: the prompt did not fit, even without news."""
    prompt_tokens: int | None
    news_dropped: int
    new_tokens: int | None
    latency_s: float | None


@dataclass(frozen=True)
class Adapter:
    """A finished run, as its folder describes it."""

    folder: Path
    base: registry.BaseModel
    record: Mapping[str, Any]
    dataset_record: Mapping[str, Any]
    log_history: Sequence[Mapping[str, Any]]


def main(argv: Sequence[str]) -> int:
    try:
        settings = load_settings()
    except ConfigurationError as error:
        return report_problems("benchmark.py", error)
    calm_openmp()
    args = parse_args(argv)
    try:
        adapter = read_adapter(Path(args.adapter))
        test_rows = load_test_rows(adapter)
        flags = adapter.record["flags"]
        max_new_tokens = args.max_new_tokens or flags["max_new_tokens"]
        if max_new_tokens >= flags["max_length"]:
            raise ConfigurationError(
                [
                    Problem(
                        "--max_new_tokens",
                        f"is {max_new_tokens}; prompt and answer share --max_length {flags['max_length']}.",
                        "Use a smaller number.",
                    )
                ]
            )
    except ConfigurationError as error:
        return report_problems("benchmark.py", error)

    folder = adapter.folder / "benchmark"
    folder.mkdir(exist_ok=True)
    set_aside_other_answers(folder, adapter, max_new_tokens)
    predictions = answer_all(adapter, test_rows, folder / PREDICTIONS, max_new_tokens, args.batch_size)
    models = score_models(predictions, test_rows)
    lines = baselines(
        [label_of(row["label"]) for row in test_rows],
        {label_of(text): count for text, count in adapter.dataset_record["training_labels"].items()},
    )
    write_report(folder, adapter, models, lines, predictions, max_new_tokens)
    if flags["report_to"] == "wandb":
        log_to_wandb(folder, adapter, models, lines, settings)
    print(f"\n{report.render_table(report.table_rows(models, lines))}\n\nReport: {folder / 'report.md'}")
    return 0


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    def positive(text: str) -> int:
        value = int(text)
        if value < 1:
            raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
        return value

    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], allow_abbrev=False, prog="benchmark.py"
    )
    parser.add_argument("--adapter", required=True, help="output folder of train_lora.py")
    parser.add_argument(
        "--batch_size", type=positive, help="prompts generated together; default: 16, or what the GPU holds"
    )
    parser.add_argument(
        "--max_new_tokens", type=positive, help="longest answer in tokens; default: as given to train_lora.py"
    )
    return parser.parse_args(argv)


def read_adapter(folder: Path) -> Adapter:
    """Raises ConfigurationError when the folder is not a finished run."""
    names = (
        RUN_CONFIG,
        DATASET_FILE,
        LOG_HISTORY,
        "adapter_config.json",
        "adapter_model.safetensors",
    )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        found = f"{folder} lacks {', '.join(missing)}." if folder.is_dir() else f"{folder} is no folder."
        raise ConfigurationError(
            [Problem("--adapter", found, "Give the output folder of a training that has ended.")]
        )
    try:
        contents = [json.loads((folder / name).read_text(encoding="utf-8")) for name in names[:3]]
        record, data, history = contents
        base = registry.resolve(record["resolved"]["base_model"])
        _ = record["flags"], data["fingerprint_sha256"], data["training_labels"]
    except (ValueError, LookupError, TypeError) as error:
        found = f"{folder} holds a damaged {', '.join(names[:3])} ({type(error).__name__})."
        way_out = "Take a whole copy, or train again."
        raise ConfigurationError([Problem("--adapter", found, way_out)]) from error
    if isinstance(base, Problem):
        raise ConfigurationError([base])
    return Adapter(folder, base, record, data, history)


def load_test_rows(adapter: Adapter) -> list[dict[str, str]]:
    """The test rows of the training; raises ConfigurationError when the data has changed since."""
    flags = adapter.record["flags"]
    test = flags["test_dataset"]
    corpus = sources.load(
        sources.resolve(flags["dataset"], flags["from_remote"], "--dataset"),
        sources.resolve(test, flags["from_remote"], "--test_dataset") if test is not None else None,
    )
    if corpus.fingerprint != adapter.dataset_record["fingerprint_sha256"]:
        raise ConfigurationError(
            [
                Problem(
                    flags["dataset"],
                    "holds other rows than when the adapter was trained.",
                    "Put the former rows back, or train again.",
                )
            ]
        )
    return [dict(row) for row in corpus.test]


def label_of(text: str) -> Label:
    label = parse_prediction(text)
    assert isinstance(label, Label), text  # labels were checked when the rows were loaded
    return label


def set_aside_other_answers(folder: Path, adapter: Adapter, max_new_tokens: int) -> None:
    """Keep answers of another adapter or length, as from before a resumed training, out of the figures."""
    weights = (adapter.folder / "adapter_model.safetensors").read_bytes()
    made_by = {"adapter_sha256": hashlib.sha256(weights).hexdigest(), "max_new_tokens": max_new_tokens}
    record, predictions = folder / "made_by.json", folder / PREDICTIONS

    def kept_as(maker: Mapping[str, Any]) -> Path:
        return folder / f"predictions.{maker['adapter_sha256'][:12]}.{maker['max_new_tokens']}.jsonl"

    former = json.loads(record.read_text()) if record.exists() else None
    if former and former != made_by and predictions.exists():
        predictions.replace(kept_as(former))
        print(f"The answers here are of another adapter or length: kept as {kept_as(former).name}.")
    if former != made_by and kept_as(made_by).exists():
        kept_as(made_by).replace(predictions)
    record.write_text(json.dumps(made_by) + "\n")


def answer_all(
    adapter: Adapter,
    rows: Sequence[Mapping[str, str]],
    path: Path,
    max_new_tokens: int,
    batch_size: int | None,
) -> list[Prediction]:
    """Answers of base and fine-tuned model to every row, generating those that `path` does not hold yet."""
    from forecaster.modeling import generation  # torch: not needed to refuse a bad folder

    resolved, flags = adapter.record["resolved"], adapter.record["flags"]
    tokenizer = generation.load_saved_tokenizer(adapter.folder)
    batch_size = batch_size or generation.largest_batch_size(
        adapter.base, resolved["quantization"], flags["max_length"]
    )
    limit = flags["max_length"] - max_new_tokens
    prompts = [generation.render_prompt(tokenizer, row["row_id"], row["prompt"], limit) for row in rows]
    by_id = {row["row_id"]: row for row in rows}
    prompt_by_id = {prompt.row_id: prompt for prompt in prompts}
    done = read_predictions(path)
    if done:
        print(f"{len(done)} of {2 * len(rows)} answers are there already.")
    known = {(p.model, p.row_id) for p in done}
    model = None
    with path.open("a", encoding="utf-8") as file:

        def record(name: str, row_id: str, generated: generation.Generated | None) -> None:
            row, prompt = by_id[row_id], prompt_by_id[row_id]
            prediction = Prediction(
                model=name,
                row_id=row_id,
                symbol=row["symbol"],
                period=row["period"],
                label=row["label"],
                answer=generated.text if generated else None,
                prompt_tokens=len(prompt.token_ids) if prompt.token_ids is not None else None,
                news_dropped=prompt.news_dropped,
                new_tokens=generated.new_tokens if generated else None,
                latency_s=round(generated.latency_s, 4) if generated else None,
            )
            file.write(json.dumps(asdict(prediction), ensure_ascii=False) + "\n")
            done.append(prediction)

        for name in (BASE, TUNED):
            todo = [prompt for prompt in prompts if (name, prompt.row_id) not in known]
            if not todo:
                continue
            for prompt in todo:
                if prompt.token_ids is None:
                    record(name, prompt.row_id, None)
            model = model or generation.load_for_generation(
                adapter.base, resolved["precision"], resolved["quantization"], flags["trust_remote_code"]
            )
            if name == TUNED:
                model = generation.with_adapter(model, adapter.folder)
            batches = generation.generate(
                model, tokenizer, todo, max_new_tokens=max_new_tokens, batch_size=batch_size, description=name
            )
            for batch in batches:
                for generated in batch:
                    record(name, generated.row_id, generated)
                file.flush()
    return done


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions written so far; a last line cut off by a kill is removed from the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    return [Prediction(**json.loads(line)) for line in whole.decode("utf-8").splitlines()]


def score_models(predictions: Sequence[Prediction], rows: Sequence[Mapping[str, str]]) -> dict[str, Metrics]:
    by_id = {row["row_id"]: row for row in rows}
    return {
        name: score(
            [
                Scored(label_of(by_id[p.row_id]["label"]), by_id[p.row_id]["answer"], p.answer, p.latency_s)
                for p in predictions
                if p.model == name
            ]
        )
        for name in (BASE, TUNED)
    }


def write_report(
    folder: Path,
    adapter: Adapter,
    models: Mapping[str, Metrics],
    lines: Sequence[Baseline],
    predictions: Sequence[Prediction],
    max_new_tokens: int,
) -> None:
    """metrics.json, report.png and report.md."""
    content = report.metrics_json(models, lines)
    (folder / "metrics.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    plots.draw_run(folder / "report.png", adapter.log_history, models, lines)
    flags = adapter.record["flags"]
    shown = {
        "base model": adapter.record["resolved"]["base_model"],
        "test rows": models[TUNED].rows,
        "training rows": adapter.dataset_record["counts"]["train_after_repeats"],
        "prompt and answer tokens": flags["max_length"],
        "answer tokens": max_new_tokens,
        "prompts that lost news": sum(bool(p.news_dropped) for p in predictions if p.model == TUNED),
        "prompts that did not fit": sum(p.answer is None for p in predictions if p.model == TUNED),
    }
    text = report.render_report(f"Benchmark of {flags['run_name']}", models, lines, shown, "report.png")
    (folder / "report.md").write_text(text, encoding="utf-8")


def log_to_wandb(
    folder: Path,
    adapter: Adapter,
    models: Mapping[str, Metrics],
    lines: Sequence[Baseline],
    settings: Settings,
) -> None:
    """Figures, table and picture into the W&B run of the training."""
    tracking.start(adapter.folder, adapter.record["flags"]["run_name"], {}, settings)
    for name, figures in report.metrics_json(models, lines)["models"].items():
        tracking.log_summary(f"benchmark/{name}", figures)
    tracking.log_table("benchmark/table", report.COLUMNS, report.table_rows(models, lines))
    tracking.log_image("benchmark/report", folder / "report.png")
    tracking.finish()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on.", file=sys.stderr)
        sys.exit(130)
