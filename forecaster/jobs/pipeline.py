"""From flags to a finished dataset: plan, fetch, label, build, audit and push, each of which can go on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import datasets
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError

from forecaster.calls import Call
from forecaster.data import audit, build, card, costs, intake, news, sources, store, teacher, template_teacher
from forecaster.data.dataset_spec import (
    DatasetSpec,
    SymbolOutcome,
    macro_calls,
    needs_of,
    outcomes,
    resolve,
)
from forecaster.data.fetch import Needs, Outcome, reports_to_ask
from forecaster.data.folder import locked, open_ledger
from forecaster.data.join import Dropped
from forecaster.data.ledger import Ledger, Trace, fingerprint
from forecaster.data.pipeline_config import PipelineConfig
from forecaster.data.splits import GAP, TEST, TRAIN
from forecaster.errors import ConfigurationError, Problem
from forecaster.evaluation import plots
from forecaster.jobs.inspect_dataset import evidence_of_ledger, passes_audit
from forecaster.progress import Listener
from forecaster.provenance import versions
from forecaster.records import Example
from forecaster.settings import Settings, redact
from forecaster.tasks.weekly import WEEKLY

PACKAGES = ("datasets", "exchange_calendars", "finnhub-python", "openai", "pyarrow", "yfinance")


@dataclass(frozen=True)
class DatasetResult:
    """What became of a dataset."""

    folder: Path
    is_done: bool
    """Whether every stage that was asked for went through; what fell short was told."""
    estimate: costs.CostEstimate | None = None
    """What was left to spend before anything was; None: it was not computed."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """By split, where it was built."""


def make_dataset(
    config: PipelineConfig, settings: Settings, now: datetime, listener: Listener, agree: Callable[[], bool]
) -> DatasetResult:
    """Run the stages that were asked for, in order; the first that falls short ends it.

    Args:
        now: UTC; weeks that have not ended by then are left out.
        agree: asked before anything is spent, unless `--yes` was given.

    Raises:
        ConfigurationError: with every problem found.
        KeyRefusedError, VendorError, sqlite3.Error, OSError: what was done so far is kept.
    """
    spec = resolve(config, now)
    with locked(config.data_folder), closing(open_ledger(config.data_folder, listener.warn)) as ledger:
        return run_stages(spec, ledger, settings, listener, agree)


def run_stages(
    spec: DatasetSpec, ledger: Ledger, settings: Settings, listener: Listener, agree: Callable[[], bool]
) -> DatasetResult:
    """The stages on an open ledger."""
    config, symbols = spec.config, spec.member.targets
    stage = config.stage
    for note in spec.universe.notes:
        listener.say(note)
    # In every stage: the ledger may hold what an earlier version read of the same files.
    for line in intake.import_files(ledger, config.news_file, config.price_file, symbols):
        listener.say(line)
    spec = replace(spec, files=intake.digests(config.news_file, config.price_file))
    estimated = None
    if stage in ("all", "plan", "fetch", "label"):
        wanted = needs_of(spec, ledger, _asks_finnhub(spec, settings))
        estimated = estimate(spec, ledger, settings, wanted)
        listener.say(costs.render_plan(estimated))
        if stage == "plan" or not (config.yes or _spends_nothing(config, estimated) or agree()):
            return DatasetResult(spec.folder, True, estimated)
    if config.asks_teacher:
        teacher.check_teacher(teacher_plan(spec, settings), str(settings.openai_api_key), listener.warn)
    is_done = True
    if stage in ("all", "fetch") and estimated:
        is_done = fetch_stage(spec, ledger, settings, wanted, estimated, listener)
    joined: Iterable[SymbolOutcome] | None = None
    built: Mapping[str, int] = {}
    if is_done and config.asks_teacher:
        joined = label_stage(spec, ledger, settings, listener)
        is_done = joined is not None
    if is_done and stage in ("all", "build"):
        built = build_stage(spec, ledger, joined or outcomes(spec, ledger), settings, listener)
        is_done = bool(built)
    if is_done and stage in ("all", "audit"):
        is_done = audit_stage(spec, ledger, listener)
    if is_done and stage in ("all", "build") and config.push_to_hub:
        is_done = push(spec, settings, listener)
    return DatasetResult(spec.folder, is_done, estimated, built)


def _spends_nothing(config: PipelineConfig, estimated: costs.CostEstimate) -> bool:
    asks_teacher = config.asks_teacher and estimated.input_tokens > 0
    calls = estimated.news.calls + estimated.other_calls + estimated.price_calls
    return not (asks_teacher or calls)


def estimate(
    spec: DatasetSpec, ledger: Ledger, settings: Settings, wanted: Sequence[Needs]
) -> costs.CostEstimate:
    """What is left to spend, from what the ledger holds."""
    gaps = [
        news.gaps(need.news, news.covered_spans(store.news_calls_of(ledger, need.symbol, spec.files)))
        for need in wanted
    ]
    others = sum(
        len(reports_to_ask(ledger, need)) + (need.profile and not store.profile_calls(ledger, need.symbol))
        for need in wanted
    )
    targets = spec.target_keys()
    asked = teacher_plan(spec, settings)
    tokens = teacher.estimate(
        len(targets) - teacher.answered(ledger, asked, targets),
        costs.prompt_chars(spec.config.max_past_weeks),
        asked,
    )
    notes = []
    if not _asks_finnhub(spec, settings):
        notes.append("No FINNHUB_API_KEY: news from the files only, no company profiles, no financials.")
    elif not spec.universe.has_company_news:
        notes.append("Finnhub has no company news for this index: news from the files only.")
    return costs.CostEstimate(
        symbols=len(spec.member.targets),
        weeks=[week.end for week in spec.weeks],
        symbol_weeks=len(targets),
        train_weeks=len(spec.train_ends),
        test_weeks=len(spec.test_ends),
        gap_weeks=spec.gap_weeks,
        news=costs.news_cost(gaps, spec.now),
        other_calls=others,
        price_calls=sum(need.prices is not None for need in wanted),
        calls_per_minute=spec.config.calls_per_minute,
        teacher=teacher_name(spec),
        input_tokens=tokens.input_tokens,
        output_tokens=tokens.output_tokens,
        cost_usd=tokens.cost_usd,
        max_cost_usd=spec.config.max_cost_usd,
        notes=notes,
    )


def _asks_finnhub(spec: DatasetSpec, settings: Settings) -> bool:
    """With a key, and in a plan that is made before there is one."""
    return bool(settings.finnhub_api_key) or not spec.config.news_file


def fetch_stage(
    spec: DatasetSpec,
    ledger: Ledger,
    settings: Settings,
    wanted: Sequence[Needs],
    estimated: costs.CostEstimate,
    listener: Listener,
) -> bool:
    """Bring the ledger up to what the dataset needs; False when a call failed, so that nothing is built on a
    hole."""
    expected = estimated.news.calls + estimated.other_calls + estimated.price_calls
    with listener.bar("fetch", "call", expected) as advance:
        outcome = intake.ask_vendors(
            ledger,
            wanted,
            settings,
            spec.config.calls_per_minute,
            spec.files,
            on_call=advance,
            tell=listener.warn,
        )
    return not _tell_fetch(outcome, listener)


def _tell_fetch(outcome: Outcome, listener: Listener) -> int:
    """Tell what was fetched, and what fell short; returns the number of calls that failed."""
    listener.say(f"fetch: {outcome.calls} calls made")
    for line in intake.shortfall_lines(outcome):
        listener.say(line)
    failed = sum(item.status == "failed" for item in outcome.shortfalls)
    if failed:
        listener.warn(
            f"{failed} calls failed. The same command asks for these again; the stages label and build go on "
            "without them."
        )
    return failed


def teacher_name(spec: DatasetSpec) -> str:
    if spec.config.teacher == "template":
        return "template"
    return f"{spec.config.teacher_model or 'openai'}{' (blind)' if spec.config.teacher_blind else ''}"


def teacher_plan(spec: DatasetSpec, settings: Settings) -> teacher.TeacherPlan:
    c = spec.config
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


def label_stage(
    spec: DatasetSpec, ledger: Ledger, settings: Settings, listener: Listener
) -> list[SymbolOutcome] | None:
    """Ask the teacher for the answers that the ledger does not hold.

    Returns:
        The join, which need not be made again; None when the teacher had to stop early.
    """
    joined: list[SymbolOutcome] = []
    with listener.bar("label", "row", sum(map(len, spec.member.targets.values()))) as advance:

        def examples() -> Iterator[Example]:
            for found in map(SymbolOutcome.as_texts, outcomes(spec, ledger)):
                joined.append(found)
                for outcome in found.outcomes:
                    if isinstance(outcome, Example):
                        yield outcome
                    else:
                        advance()

        report = teacher.label_examples(
            examples(),
            ledger,
            teacher_plan(spec, settings),
            str(settings.openai_api_key),
            on_answer=advance,
            tell=listener.warn,
        )
    listener.say(redact(teacher.render_report(report)))
    return None if report.stopped else joined


def build_stage(
    spec: DatasetSpec,
    ledger: Ledger,
    joined: Iterable[SymbolOutcome],
    settings: Settings,
    listener: Listener,
) -> Mapping[str, int]:
    """Write the dataset folder from the ledger; the same ledger gives the same bytes.

    Returns:
        Rows by split; none where a part would have no row, and nothing was written.
    """
    tally, rows, traces = make_rows(spec, ledger, joined, settings, listener)
    reasons = tally.reasons()
    if not (rows[TRAIN] and rows[TEST]):
        found = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
        listener.warn(f"build: no {'training' if rows[TEST] else 'test'} row: {found}")
        return {}
    parts = datasets.DatasetDict({name: build.to_dataset(part) for name, part in rows.items() if part})
    building = spec.folder.with_name(f"{spec.folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    build.save(parts, building)
    labels = {name: list(part["label"]) for name, part in parts.items()}
    returns_pct = [pct for part in parts.values() for pct in part["weekly_return_pct"]]
    plots.draw_dataset(building / "overview.png", tally.states, tally.articles, labels, returns_pct)
    text = card.render_card(spec, parts, tally, teacher_name(spec), traces)
    (building / build.CARD).write_text(text, encoding="utf-8")
    arguments = arguments_of(spec)
    content = {
        "arguments": arguments,
        "ledger_sha256": fingerprint(traces),
        "versions": versions(PACKAGES),
    }
    build.write_manifest(building, content)
    if changed := build.changed_arguments(spec.folder, arguments):
        listener.say(f"{spec.folder} held a dataset with another {', '.join(changed)}, and is replaced")
    build.replace_folder(building, spec.folder)
    listener.say(
        f"{spec.folder}: {len(rows[TRAIN])} training and {len(rows[TEST])} test rows, and {len(rows[GAP])} "
        "of the gap between them"
    )
    for reason, count in reasons.most_common():
        if reason not in rows:
            listener.say(f"  not used: {count} symbol-weeks, {reason}")
    return {name: len(part) for name, part in parts.items()}


Rows = dict[str, list[dict[str, object]]]


def make_rows(
    spec: DatasetSpec,
    ledger: Ledger,
    joined: Iterable[SymbolOutcome],
    settings: Settings,
    listener: Listener,
) -> tuple[build.Tally, Rows, list[Trace]]:
    """Rows by split, what became of every symbol-week, and traces of the calls that were read."""
    tally = build.Tally()
    rows: Rows = {TRAIN: [], TEST: [], GAP: []}
    traces = [Trace.of(call) for call in macro_calls(spec, ledger).values()]
    with listener.bar("build", "symbol", len(spec.member.targets)) as advance:
        for found in joined:
            traces += found.traces
            tally.received[found.symbol] = found.received
            for outcome in found.outcomes:
                state = outcome.reason if isinstance(outcome, Dropped) else ""
                if isinstance(outcome, Example):
                    answer, asked = _answer(spec, ledger, settings, outcome)
                    traces += map(Trace.of, asked)
                    state = "no usable answer from the teacher"
                    if answer is not None:
                        state = spec.split_of(outcome.target)
                        rows[state].append(build.row_of(outcome, answer, teacher_name(spec)))
                tally.states[found.symbol, outcome.target.end] = state
            advance()
    return tally, rows, traces


def _answer(
    spec: DatasetSpec, ledger: Ledger, settings: Settings, example: Example
) -> tuple[str | None, Sequence[Call]]:
    """An example's answer, if there is one, and the calls that it took."""
    if spec.config.teacher == "template":
        return template_teacher.template_answer(example), ()
    return teacher.answer_for(example, ledger, teacher_plan(spec, settings))


def arguments_of(spec: DatasetSpec) -> dict[str, object]:
    """The flags that decide the rows."""
    c = spec.config
    return {
        "index_name": spec.universe.name,
        "symbols": list(spec.universe.symbols),
        "start_date": c.start_date.isoformat(),
        "end_date": c.end_date.isoformat(),
        "min_past_weeks": c.min_past_weeks,
        "max_past_weeks": c.max_past_weeks,
        "train_ratio": c.train_ratio,
        "current_members": c.current_members,
        "with_indicators": c.with_indicators,
        "with_macro": c.with_macro,
        "teacher": teacher_name(spec),
        "files_sha256": list(spec.files),
    }


def audit_stage(spec: DatasetSpec, ledger: Ledger, listener: Listener) -> bool:
    """Check the finished dataset against the ledger; False when a row breaks a rule."""
    if not spec.folder.is_dir():
        way_out = "Build it first, with the same flags."
        raise ConfigurationError([Problem("audit", f"{spec.folder} does not exist.", way_out)])
    parts = sources.read_parts(str(spec.folder), from_remote=False, task=WEEKLY)
    if changed := build.changed_files(spec.folder):
        listener.warn(f"{spec.folder} is not as it was built: {', '.join(changed)} changed")
        return False
    # More weeks may have ended since it was built.
    last_end = max(day for part in parts.values() for day in part["target_end"])
    known = [week for week in spec.weeks if week.end.isoformat() <= last_end]

    evidence = evidence_of_ledger(spec, ledger, known)
    return passes_audit(audit.audit_rows(parts, evidence, require_evidence=True), listener)


def push(spec: DatasetSpec, settings: Settings, listener: Listener) -> bool:
    """Upload the finished folder; what was uploaded before and is equal is not sent again."""
    repo_id = str(spec.config.push_to_hub)
    api = HfApi(token=settings.hf_token)
    try:
        api.create_repo(repo_id, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id, repo_type="dataset", folder_path=str(spec.folder), commit_message=spec.name
        )
        # It may have been there before.
        visibility = "private" if api.dataset_info(repo_id).private else "public"
    # A refusal is an HTTPError and an OSError; a connection that fails is the first only.
    except (HTTPError, OSError, ValueError) as error:
        found = " ".join(str(error).split())
        way_out = "Check HF_TOKEN, its rights and the network; the same command uploads it."
        listener.warn(redact(f"{spec.folder} stands, but is not at {repo_id}: {found} {way_out}"))
        return False
    listener.say(f"uploaded to {repo_id} ({visibility})")
    return True
