"""Turn the news, filings and prices of an index into a weekly forecasting dataset.

From the embedded sample, offline:

    python data_pipeline.py --index_name AAPL,MSFT --start_date 2025-08-25 --end_date 2026-04-24 \
        --news_file sample/news.csv --price_file sample/weekly_closes.csv --teacher template

The NASDAQ-100, with FINNHUB_API_KEY and OPENAI_API_KEY in .env; the cost is shown before it is spent:

    python data_pipeline.py --index_name nasdaq --start_date 2025-12-01 --end_date 2026-05-01

Stop it whenever you like: the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from tqdm import tqdm

import indices
from forecaster.calls import Call
from forecaster.data import (
    audit,
    build,
    card,
    costs,
    describe,
    intake,
    news,
    sources,
    store,
    teacher,
    template_teacher,
)
from forecaster.data.dataset_spec import DatasetSpec, macro_calls, needs_of, outcomes, resolve
from forecaster.data.fetch import Needs, Outcome, reports_to_ask
from forecaster.data.folder import locked, open_ledger
from forecaster.data.join import Dropped
from forecaster.data.ledger import Ledger, Trace, fingerprint
from forecaster.data.pipeline_config import PipelineConfig, parse_flags
from forecaster.errors import ConfigurationError, KeyRefusedError, Problem, VendorError
from forecaster.evaluation import plots
from forecaster.exits import report_problems
from forecaster.provenance import versions
from forecaster.records import Example, Messages
from forecaster.settings import Settings, load_settings, redact
from forecaster.vendors import own_files
from prompts import split_published

PACKAGES = ("datasets", "exchange_calendars", "finnhub-python", "openai", "pyarrow", "yfinance")


def main(argv: Sequence[str]) -> int:
    datasets.disable_progress_bars()
    now = datetime.now(UTC)
    try:
        settings = load_settings()
        config = parse_flags(argv, settings, now)
        if config.dataset:
            return inspect(config)
        job = resolve(config, now)
        with locked(config.data_folder):
            return run(job, settings)
    except ConfigurationError as error:
        return report_problems("data_pipeline.py", error)
    except KeyRefusedError as error:
        print(redact(f"\n{error}\nMend the key; the same command then goes on."), file=sys.stderr)
        return ConfigurationError.exit_status
    except VendorError as error:
        print(redact(f"\n{error}\nNothing is lost: the same command goes on later."), file=sys.stderr)
        return 1
    except (sqlite3.Error, OSError) as error:
        print(
            redact(f"\n{error}\nMend this (is the disk full?); the same command then goes on."),
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nStopped. Nothing is lost: the same command goes on from here.", file=sys.stderr)
        return 130


# --- the stages of a dataset --------------------------------------------------------------------------------


def run(job: DatasetSpec, settings: Settings) -> int:
    """The stages that were asked for, in order; the first that falls short ends it."""
    stage = job.config.stage
    config, symbols = job.config, job.member.targets
    ledger = open_ledger(config.data_folder)
    for note in job.universe.notes:
        print(note)
    if stage in ("all", "plan", "fetch"):
        for line in intake.import_files(ledger, config.news_file, config.price_file, symbols):
            print(line)
    job = replace(job, files=intake.digests(config.news_file, config.price_file))
    if stage in ("all", "plan", "fetch", "label"):
        wanted = needs_of(job, ledger, _asks_finnhub(job, settings))
        estimated = estimate(job, ledger, settings, wanted)
        print(costs.render_plan(estimated))
        if stage == "plan" or not _agreed(job.config, estimated):
            return 0
    if job.config.asks_teacher:
        teacher.check_teacher(teacher_plan(job, settings), str(settings.openai_api_key))
    status = 0
    if stage in ("all", "fetch"):
        status = fetch_stage(job, ledger, settings, wanted, estimated)
    if status == 0 and job.config.asks_teacher:
        status = label_stage(job, ledger, settings)
    if status == 0 and stage in ("all", "build"):
        status = build_stage(job, ledger, settings)
    if status == 0 and stage in ("all", "audit"):
        status = audit_stage(job, ledger)
    if status == 0 and stage in ("all", "build") and job.config.push_to_hub:
        status = push(job, settings)
    return status


def _agreed(config: PipelineConfig, estimated: costs.CostEstimate) -> bool:
    """Ask where something is spent and somebody is there to ask; elsewhere the command is the answer."""
    asks_teacher = config.asks_teacher and estimated.input_tokens > 0
    nothing_spent = not (
        asks_teacher or estimated.news.calls or estimated.other_calls or estimated.price_calls
    )
    if config.yes or nothing_spent or sys.stdin is None or not sys.stdin.isatty():
        return True
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        return False


def estimate(
    job: DatasetSpec, ledger: Ledger, settings: Settings, wanted: Sequence[Needs]
) -> costs.CostEstimate:
    """What is left to spend, from what the ledger holds."""
    gaps = [
        news.gaps(need.news, news.covered_spans(store.news_calls_of(ledger, need.symbol, job.files)))
        for need in wanted
    ]
    others = sum(
        len(reports_to_ask(ledger, need)) + (need.profile and not ledger.answers("profile", need.symbol))
        for need in wanted
    )
    targets = job.target_keys()
    asked = teacher_plan(job, settings)
    tokens = teacher.estimate(
        len(targets) - teacher.answered(ledger, asked, targets),
        costs.prompt_chars(job.config.max_past_weeks),
        asked,
    )
    notes = []
    if not _asks_finnhub(job, settings):
        notes.append("No FINNHUB_API_KEY: news from the files only, no company profiles, no financials.")
    elif not job.universe.has_company_news:
        notes.append("Finnhub has no company news for this index: news from the files only.")
    return costs.CostEstimate(
        symbols=len(job.member.targets),
        weeks=[week.end for week in job.weeks],
        symbol_weeks=len(targets),
        train_weeks=len(job.train_ends),
        test_weeks=len(job.test_ends),
        embargo_weeks=job.embargo_weeks,
        news=costs.news_cost(gaps, job.now),
        other_calls=others,
        price_calls=sum(need.prices is not None for need in wanted),
        calls_per_minute=job.config.calls_per_minute,
        teacher=teacher_name(job),
        input_tokens=tokens.input_tokens,
        output_tokens=tokens.output_tokens,
        cost_usd=tokens.cost_usd,
        max_cost_usd=job.config.max_cost_usd,
        notes=notes,
    )


def _asks_finnhub(job: DatasetSpec, settings: Settings) -> bool:
    """With a key, and in a plan that is made before there is one."""
    return bool(settings.finnhub_api_key) or not job.config.news_file


def fetch_stage(
    job: DatasetSpec,
    ledger: Ledger,
    settings: Settings,
    wanted: Sequence[Needs],
    estimated: costs.CostEstimate,
) -> int:
    """Bring the ledger up to what the dataset needs; 1 when a call failed, so that nothing is built on a
    hole."""
    expected = estimated.news.calls + estimated.other_calls + estimated.price_calls
    with tqdm(total=expected, desc="fetch", unit="call") as bar:
        outcome = intake.ask_vendors(
            ledger,
            wanted,
            settings.finnhub_api_key,
            job.config.calls_per_minute,
            job.files,
            on_call=lambda: bar.update() and None,
        )
    return _report_fetch(outcome)


def _report_fetch(outcome: Outcome) -> int:
    print(f"fetch: {outcome.calls} calls made")
    for line in intake.shortfall_lines(outcome):
        print(line)
    failed = sum(item.status == "failed" for item in outcome.shortfalls)
    if failed:
        print(
            f"{failed} calls failed. The same command asks for these again; the stages label and build go on "
            "without them.",
            file=sys.stderr,
        )
    return 1 if failed else 0


def teacher_name(job: DatasetSpec) -> str:
    if job.config.teacher == "template":
        return "template"
    return f"{job.config.teacher_model or 'openai'}{' (blind)' if job.config.teacher_blind else ''}"


def teacher_plan(job: DatasetSpec, settings: Settings) -> teacher.TeacherPlan:
    c = job.config
    return teacher.TeacherPlan(
        model=c.teacher_model or "",
        base_url=settings.openai_base_url,
        concurrency=c.concurrency,
        blind=c.teacher_blind,
        input_usd_per_million_tokens=c.input_usd_per_million_tokens,
        output_usd_per_million_tokens=c.output_usd_per_million_tokens,
        max_cost_usd=c.max_cost_usd,
        # Ten times a published answer: room for a model that thinks first.
        max_output_tokens=4096,
    )


def label_stage(job: DatasetSpec, ledger: Ledger, settings: Settings) -> int:
    """Ask the teacher for the answers that the ledger does not hold; 1 when it had to stop early."""
    total = sum(len(job.used_targets(symbol)) for symbol in job.member.targets)
    with tqdm(total=total, desc="label", unit="row") as bar:

        def examples() -> Iterator[Example]:
            for found in outcomes(job, ledger, job.member.targets):
                for outcome in found.outcomes:
                    if isinstance(outcome, Example):
                        yield outcome
                    else:
                        bar.update()

        report = teacher.label_examples(
            examples(),
            ledger,
            teacher_plan(job, settings),
            str(settings.openai_api_key),
            on_answer=lambda: bar.update() and None,
        )
    print(redact(teacher.render_report(report)))
    return 1 if report.stopped else 0


def build_stage(job: DatasetSpec, ledger: Ledger, settings: Settings) -> int:
    """Write the dataset folder from the ledger; the same ledger gives the same bytes."""
    tally, rows, traces = make_rows(job, ledger, settings)
    reasons = tally.reasons()
    if not (rows["train"] and rows["test"]):
        found = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        print(f"build: no {'training' if rows['test'] else 'test'} row: {found}", file=sys.stderr)
        return 1
    parts = datasets.DatasetDict({name: build.to_dataset(part) for name, part in rows.items()})
    building = job.folder.with_name(f"{job.folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    build.save(parts, building)
    labels = {name: list(part["label"]) for name, part in parts.items()}
    returns_pct = [pct for part in parts.values() for pct in part["weekly_return_pct"]]
    plots.draw_dataset(building / "overview.png", tally.states, tally.articles, labels, returns_pct)
    text = card.render_card(job, parts, tally, teacher_name(job), traces)
    (building / build.CARD).write_text(text, encoding="utf-8")
    arguments = arguments_of(job)
    content = {
        "arguments": arguments,
        "ledger_sha256": fingerprint(traces),
        "versions": versions(PACKAGES),
    }
    build.write_manifest(building, content)
    if changed := build.changed_arguments(job.folder, arguments):
        print(f"{job.folder} held a dataset with another {', '.join(changed)}, and is replaced")
    build.replace_folder(building, job.folder)
    print(f"{job.folder}: {len(rows['train'])} training and {len(rows['test'])} test rows")
    for reason, count in reasons.most_common():
        if reason not in rows:
            print(f"  not used: {count} symbol-weeks, {reason}")
    return 0


Rows = dict[str, list[dict[str, object]]]


def make_rows(job: DatasetSpec, ledger: Ledger, settings: Settings) -> tuple[build.Tally, Rows, list[Trace]]:
    """Rows by split, what became of every symbol-week, and traces of the calls that were read."""
    tally = build.Tally()
    rows: Rows = {"train": [], "test": []}
    traces = [Trace.of(call) for call in macro_calls(job, ledger).values()]
    symbols = tqdm(job.member.targets, desc="build", unit="symbol")
    for found in outcomes(job, ledger, symbols):
        # Not the calls themselves: their payloads are most of a year's memory.
        traces += map(Trace.of, found.stored.calls)
        tally.add_symbol(found.symbol, found.stored, job.weeks, job.shown_weeks(found.symbol))
        for at in job.member.targets[found.symbol]:
            tally.states[found.symbol, job.weeks[at].end] = "between training and test"
        for outcome in found.outcomes:
            state = outcome.reason if isinstance(outcome, Dropped) else ""
            if isinstance(outcome, Example):
                answer, asked = _answer(job, ledger, settings, outcome)
                traces += map(Trace.of, asked)
                state = "no usable answer from the teacher"
                if answer is not None:
                    state = "train" if outcome.target.end in job.train_ends else "test"
                    rows[state].append(build.row_of(outcome, answer, teacher_name(job)))
            tally.states[found.symbol, outcome.target.end] = state
    return tally, rows, traces


def _answer(
    job: DatasetSpec, ledger: Ledger, settings: Settings, example: Example
) -> tuple[str | None, Sequence[Call]]:
    """An example's answer, if there is one, and the calls that it took."""
    if job.config.teacher == "template":
        return template_teacher.template_answer(example), ()
    return teacher.answer_for(example, ledger, teacher_plan(job, settings))


def arguments_of(job: DatasetSpec) -> dict[str, object]:
    """The flags that decide the rows."""
    c = job.config
    return {
        "index_name": job.universe.name,
        "symbols": list(job.universe.symbols),
        "start_date": c.start_date.isoformat(),
        "end_date": c.end_date.isoformat(),
        "min_past_weeks": c.min_past_weeks,
        "max_past_weeks": c.max_past_weeks,
        "train_ratio": c.train_ratio,
        "current_members": c.current_members,
        "with_indicators": c.with_indicators,
        "with_macro": c.with_macro,
        "teacher": teacher_name(job),
        "files_sha256": list(job.files),
    }


def push(job: DatasetSpec, settings: Settings) -> int:
    """Upload the finished folder; what was uploaded before and is equal is not sent again."""
    repo_id = str(job.config.push_to_hub)
    api = HfApi(token=settings.hf_token)
    try:
        api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id, repo_type="dataset", folder_path=str(job.folder), commit_message=job.name
        )
        # It may have been there before.
        visibility = "private" if api.dataset_info(repo_id).private else "public"
    # A refusal is an HTTPError and an OSError; a connection that fails is the first only.
    except (HTTPError, OSError, ValueError) as error:
        found = " ".join(str(error).split())
        way_out = "Check HF_TOKEN, its rights and the network; the same command uploads it."
        print(redact(f"{job.folder} stands, but is not at {repo_id}: {found} {way_out}"), file=sys.stderr)
        return 1
    print(f"uploaded to {repo_id} ({visibility})")
    return 0


# --- audit, describe, convert -------------------------------------------------------------------------------


def audit_stage(job: DatasetSpec, ledger: Ledger) -> int:
    """Check the finished dataset against the ledger; 1 when a row breaks a rule."""
    if not job.folder.is_dir():
        way_out = "Build it first, with the same flags."
        raise ConfigurationError([Problem("audit", f"{job.folder} does not exist.", way_out)])
    parts = sources.read_parts(str(job.folder), from_remote=False)
    if changed := build.changed_files(job.folder):
        print(f"{job.folder} is not as it was built: {', '.join(changed)} changed", file=sys.stderr)
        return 1
    # More weeks may have ended since it was built.
    last_end = max(day for part in parts.values() for day in part["target_end"])
    known = [week for week in job.weeks if week.end.isoformat() <= last_end]

    def evidence(symbol: str) -> audit.SymbolEvidence:
        vendor_symbol = indices.vendor_symbol(symbol)
        stored = store.read_symbol(ledger, vendor_symbol, known, job.universe.kind, job.files)
        return audit.SymbolEvidence(
            store.raw_articles(stored.calls),
            stored.data.prices,
            stored.data.quarters,
            job.universe.calendar,
            stored.data.adjusted_only,
        )

    return _report_audit(audit.audit_rows(parts, evidence, require_evidence=True))


def _report_audit(report: audit.AuditReport) -> int:
    print(audit.render_markdown(report))
    return 0 if report.passed else 1


def inspect(config: PipelineConfig) -> int:
    """`audit`, `describe` or `convert` for any dataset that train_lora.py takes."""
    own = config.data_folder / f"{sources.SHORT_NAME_PREFIX}{config.dataset}"
    spec = str(own if own.is_dir() else config.dataset)
    parts = sources.read_parts(spec, config.from_remote, whole_rows=config.stage == "convert")
    if config.stage == "audit":
        return _report_audit(audit.audit_rows(parts, _prices_only(config)))
    path = Path(str(config.dataset))
    name = f"{path.parent.name}-{path.stem}".strip("-") if path.is_file() else path.name
    tokenizer = _tokenizer(config.model) if config.model else None
    if config.stage == "describe":
        count = (lambda text: len(tokenizer(text)["input_ids"])) if tokenizer else None
        return write_description(config.data_folder / f"{name}-description", parts, count)
    from forecaster.models.templates import rendered_parts

    folder = config.data_folder / f"{name}-{Path(str(config.model)).name.lower()}"
    return write_conversion(folder, parts, partial(rendered_parts, tokenizer))


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
    calls = [call for path in config.price_file for call in own_files.read_price_file(path).calls]

    def evidence(symbol: str) -> audit.SymbolEvidence | None:
        own = [call for call in calls if call.request.symbol == indices.vendor_symbol(symbol)]
        call = store.fullest(own, first_day="", last_day="9999")
        if call is None:
            return None
        return audit.SymbolEvidence(
            None,
            store.price_history(call.payload),
            None,
            adjusted_only=bool(call.payload.get("adjusted_only")),
        )

    return evidence


def write_description(
    folder: Path, parts: datasets.DatasetDict, count_tokens: Callable[[str], int] | None
) -> int:
    """Tables to the terminal and, with a figure, into a folder."""
    found = describe.describe(parts, count_tokens)
    text = describe.render_markdown(found)
    folder.mkdir(parents=True, exist_ok=True)
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
    print(f"{text}\n\n{folder}/description.md, description.png")
    return 0


def write_conversion(
    folder: Path, parts: datasets.DatasetDict, render: Callable[[Messages, str], tuple[str, str]]
) -> int:
    """A jsonl file for each split: `prompt` and `completion` as the model's chat template renders them,
    `text` both together, and the columns that say which row it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        path = folder / f"{name}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for row in tqdm(part, desc=name, unit="row"):
                prompt, completion = render(split_published(row["prompt"]), row["answer"])
                copied = {key: row[key] for key in ("period", "label", "symbol")}
                line = {"text": prompt + completion, "prompt": prompt, "completion": completion, **copied}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(f"{path}: {len(part)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
