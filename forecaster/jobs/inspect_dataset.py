"""Any dataset that train_lora.py takes: audited, described, or converted for other trainers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets

import indices
from forecaster.claims import own_folder
from forecaster.data import audit, describe, sources, store
from forecaster.data.dataset_spec import DatasetSpec
from forecaster.data.ledger import Ledger
from forecaster.data.pipeline_config import PipelineConfig
from forecaster.data.price_files import price_calls_of
from forecaster.errors import ConfigurationError, Problem
from forecaster.evaluation import plots
from forecaster.progress import Listener
from forecaster.records import Messages, TradingWeek
from forecaster.tasks.weekly import WEEKLY
from prompts import split_published


def inspect(config: PipelineConfig, listener: Listener) -> bool:
    """`audit`, `describe` or `convert`; False when a row breaks a rule of the audit."""
    own = config.data_folder / f"{sources.SHORT_NAME_PREFIX}{config.dataset}"
    spec = str(own if own.is_dir() else config.dataset)
    parts = sources.read_parts(spec, config.from_remote, whole_rows=config.stage == "convert", task=WEEKLY)
    if config.stage == "audit":
        return passes_audit(audit.audit_rows(parts, _prices_only(config)), listener)
    path = Path(str(config.dataset))
    name = f"{path.parent.name}-{path.stem}".strip("-") if path.is_file() else path.name
    tokenizer = _tokenizer(config.model) if config.model else None
    made_of = "\n".join(str(Path(named).resolve()) for named in (spec, config.model) if named)
    if config.stage == "describe":
        count = (lambda text: len(tokenizer(text)["input_ids"])) if tokenizer else None
        with own_folder(config.data_folder / f"{name}-description", made_of) as folder:
            write_description(folder, parts, count, listener)
        return True
    from forecaster.models.templates import naming_row, rendered_parts

    def render(row: str, messages: Messages, answer: str) -> tuple[str, str]:
        with naming_row(row, config.model, "--model"):
            return rendered_parts(tokenizer, messages, answer)

    converted = config.data_folder / f"{name}-{Path(str(config.model)).name.lower()}"
    with own_folder(converted, made_of) as folder:
        write_conversion(folder, parts, render, listener)
    return True


def passes_audit(report: audit.AuditReport, listener: Listener) -> bool:
    """Tell what an audit found; returns whether no row breaks a rule."""
    listener.say(audit.render_markdown(report))
    return report.passed


def evidence_of_ledger(spec: DatasetSpec, ledger: Ledger, weeks: Sequence[TradingWeek]) -> audit.Evidence:
    """What the raw calls say of each symbol in these weeks."""

    def evidence(symbol: str) -> audit.SymbolEvidence:
        vendor_symbol = indices.vendor_symbol(symbol)
        stored = store.read_symbol(ledger, vendor_symbol, weeks, spec.universe.kind, spec.files)
        return audit.SymbolEvidence(
            store.raw_articles(stored.calls),
            stored.data.prices,
            stored.data.quarters,
            spec.universe.calendar,
            stored.data.adjusted_only,
        )

    return evidence


def _tokenizer(name: str) -> Any:
    # Importing the tokenizers takes seconds, and only two stages need them.
    from forecaster.models import registry, templates

    model = registry.resolve(name)
    try:
        if isinstance(model, Problem):
            raise ConfigurationError([model])
        return templates.load_tokenizer(model, trust_remote_code=False)[0]
    except ConfigurationError as error:
        raise ConfigurationError([replace(p, where="--model") for p in error.problems]) from None


def _prices_only(config: PipelineConfig) -> audit.Evidence | None:
    """Evidence from `--price_file` alone: enough to derive every label and price anew."""
    if not config.price_file:
        return None
    price_call = price_calls_of(config.price_file)

    def evidence(symbol: str) -> audit.SymbolEvidence | None:
        call = price_call(symbol)
        if call is None:
            return None
        return audit.SymbolEvidence(
            None,
            store.price_history(call.payload),
            None,
            indices.calendar_of(symbol),
            adjusted_only=bool(call.payload.get("adjusted_only")),
        )

    return evidence


def write_description(
    folder: Path,
    parts: datasets.DatasetDict,
    count_tokens: Callable[[str], int] | None,
    listener: Listener,
) -> None:
    """Tables to the listener and, with a figure, into a folder that is there."""
    found = describe.describe(parts, count_tokens)
    text = describe.render_markdown(found)
    (folder / "description.md").write_text(
        text + "\n\n![Labels and lengths](description.png)\n", encoding="utf-8"
    )
    splits = found.splits.items()
    plots.draw_description(
        folder / "description.png",
        {name: split.label_counts for name, split in splits},
        {name: split.prompt_tokens or split.prompt_chars for name, split in splits},
        {name: split.answer_tokens or split.answer_chars for name, split in splits},
        unit="tokens" if count_tokens else "characters",
    )
    listener.say(f"{text}\n\n{folder}/description.md, description.png")


def write_conversion(
    folder: Path,
    parts: datasets.DatasetDict,
    render: Callable[[str, Messages, str], tuple[str, str]],
    listener: Listener,
) -> None:
    """A jsonl file for each split, in a folder that is there: `prompt` and `completion` as the model's chat
    template renders them, `text` both together, and the columns that say which row it is."""
    for name, part in parts.items():
        path = folder / f"{name}.jsonl"
        with path.open("w", encoding="utf-8") as file, listener.bar(name, "row", len(part)) as advance:
            for number, row in enumerate(part):
                messages = split_published(row["prompt"])
                prompt, completion = render(f"{name}#{number}", messages, row["answer"])
                copied = {key: row[key] for key in ("period", "label", "symbol")}
                line = {"text": prompt + completion, "prompt": prompt, "completion": completion, **copied}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                advance()
        listener.say(f"{path}: {len(part)} rows")
