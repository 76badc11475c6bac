"""A forecast as a job: the prompt of one symbol's coming week, its answer, and the record of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from forecaster.claims import LOCK_FILE, WRITING_S, held
from forecaster.data import intake, outlook
from forecaster.data.folder import locked, open_ledger
from forecaster.data.outlook import Outlook, Shown, View
from forecaster.data.pipeline_config import no_company_news, no_finnhub_key
from forecaster.errors import ConfigurationError, Problem, VendorError
from forecaster.files import write_whole
from forecaster.jobs.forecast_config import ForecastConfig
from forecaster.jobs.forecast_distribution import distribution_of, draw, in_words, usual_of
from forecaster.models.finished import (
    FinishedRun,
    check_weights,
    newest_of_walk,
    read_calibration,
    read_finished,
    weights_sha256,
)
from forecaster.models.run_schemas import FittedCalibration
from forecaster.network_settings import network_problems
from forecaster.plain_text import read_text
from forecaster.progress import Listener
from forecaster.provenance import MODEL_PACKAGES, versions
from forecaster.records import Answer, Label, Unreadable
from forecaster.run_folder import CALIBRATION, DATASET_FILE
from forecaster.settings import Settings
from forecaster.tasks.answers import parse_answer
from forecaster.tasks.loose_forecasts import read_forecast
from forecaster.tasks.told_outcome import told_outcome
from forecaster.tasks.weekly import WEEKLY
from forecaster.training.train_config import find_access_problems
from prompts import CONCERNS, POSITIVE, render_published

FORECASTS = Path("forecasts")
PACKAGES = (*MODEL_PACKAGES, "exchange_calendars", "finnhub-python", "yfinance")


@dataclass(frozen=True)
class AnsweredPrompt:
    """A model's answer to one prompt."""

    text: str
    prompt_tokens: int
    news_dropped: int
    """Oldest news items that the model did not see, as the prompt was too long for it."""
    distribution: Mapping[str, Any] | None = None
    """How likely it held each label where it wrote its prediction, as `distribution_of` says it; None: it
    wrote none there."""


Answering = Callable[[str, str, str], AnsweredPrompt]
"""Answers a prompt; the second text names it in messages, the third is its symbol, if it has one."""


@dataclass(frozen=True)
class ForecastResult:
    """A forecast, and where its record lies."""

    answered: AnsweredPrompt
    read: Answer | Unreadable
    record: Mapping[str, Any]
    """As it was written, but for the time."""
    path: Path


def forecast(config: ForecastConfig, settings: Settings, now: datetime, listener: Listener) -> ForecastResult:
    """Answer a symbol's coming week, or a text.

    Args:
        now: UTC.

    Raises:
        ConfigurationError: flags, adapter, symbol, day or data of which no forecast can be made.
        KeyRefusedError, VendorError, sqlite3.Error, OSError: what was asked for is kept.
    """
    adapter = newest_of_walk(config.adapter)
    if adapter != config.adapter:
        listener.say(f"Adapter {adapter}, the newest of {config.adapter}.")
    run = read_finished(adapter, config.base_model)
    check_weights(run)
    calibration = calibration_of(run, listener)
    if problems := find_access_problems(run.base, settings):
        raise ConfigurationError(problems)
    max_new_tokens = longest_answer(config, run)
    trusts = config.trust_remote_code
    answer = partial(answer_prompt, run, calibration, max_new_tokens, trusts, listener)
    if config.prompt:
        return answer_file(config.prompt, run, answer, max_new_tokens, now, listener)
    from forecaster.models.templates import check_tokenizer  # torch: not needed to refuse a bad command

    shown, origin = recipe_of(config, run)
    asked = outlook.find_outlook(str(config.symbol), config.date, shown, now)
    check_sources(config, asked, settings)
    check_tokenizer(str(run.folder), config.trust_remote_code, where="--adapter")
    listener.say(f"Recipe: {shown} ({origin})")
    view = look(config, asked, settings, listener)
    return answer_week(asked, view, run, answer, max_new_tokens, listener)


def calibration_of(run: FinishedRun, listener: Listener) -> FittedCalibration | None:
    """What the validation weeks make of the adapter's probabilities; raises ConfigurationError where its
    record is damaged."""
    found = read_calibration(run.folder, weights_sha256(run.folder))
    if found is None and (run.folder / CALIBRATION).exists():
        told = "was fitted on other weights, and is left out: benchmark.py --adapter makes it anew."
        listener.say(f"{run.folder / CALIBRATION} {told}")
    return found


def longest_answer(config: ForecastConfig, run: FinishedRun) -> int:
    """Tokens of the longest answer; raises ConfigurationError where they leave no room for a prompt."""
    asked = run.flags["max_new_tokens"] if config.max_new_tokens is None else config.max_new_tokens
    if not 1 <= asked < run.flags["max_length"]:
        found = f"is {asked}; prompt and answer share the {run.flags['max_length']} tokens of the training."
        raise ConfigurationError([Problem("--max_new_tokens", found, "Use a number from 1 to below that.")])
    return int(asked)


def recipe_of(config: ForecastConfig, run: FinishedRun) -> tuple[Shown, str]:
    """What the prompt shows, and who says so: flags, the adapter's record, or the pipeline's defaults."""
    recorded = run.dataset_record.get("recipe")
    shown, origin = Shown(), "defaults of data_pipeline.py: the adapter's record names none"
    if recorded is not None:
        shown, origin = _recorded(recorded, run.folder), "as recorded with the adapter"
    names = [field.name for field in fields(Shown)]
    given = {name: value for name in names if (value := getattr(config, name)) is not None}
    if given:
        origin = f"{', '.join(f'--{name}' for name in given)} as given, the rest {origin}"
    return replace(shown, **given), origin


def _recorded(recorded: Any, folder: Path) -> Shown:
    kinds = {field.name: type(getattr(Shown(), field.name)) for field in fields(Shown)}
    is_sound = isinstance(recorded, Mapping) and all(
        type(recorded.get(name)) is kind for name, kind in kinds.items()
    )
    if not is_sound:
        found = f"{folder / DATASET_FILE} holds the recipe {json.dumps(recorded)}."
        raise ConfigurationError([Problem("--adapter", found, f"A recipe holds {', '.join(kinds)}.")])
    return Shown(**{name: recorded[name] for name in kinds})


def check_sources(config: ForecastConfig, asked: Outlook, settings: Settings) -> None:
    """Raises ConfigurationError where nobody could be asked for news, or there is no way to them."""
    if settings.finnhub_api_key and (problems := network_problems()):
        raise ConfigurationError(problems)
    if config.news_file:
        return
    if not asked.universe.has_company_news:
        raise ConfigurationError([no_company_news("--symbol", asked.symbol)])
    if not settings.finnhub_api_key:
        raise ConfigurationError([no_finnhub_key()])


# --- the facts ----------------------------------------------------------------------------------------------


def look(config: ForecastConfig, asked: Outlook, settings: Settings, listener: Listener) -> View:
    """The prompt, from a ledger that is brought up to what it needs.

    Raises:
        ConfigurationError: it cannot be made.
        VendorError: a call failed, so that it would be made on a hole.
    """
    with locked(config.data_folder), closing(open_ledger(config.data_folder, listener.warn)) as ledger:
        for line in intake.import_files(ledger, config.news_file, config.price_file, [asked.symbol]):
            listener.say(line)
        files = intake.digests(config.news_file, config.price_file)
        wanted = outlook.needs_of(asked, ledger, bool(settings.finnhub_api_key), files)
        with listener.bar("fetch", "call", None) as advance:
            outcome = intake.ask_vendors(
                ledger,
                wanted,
                settings,
                config.calls_per_minute,
                files,
                on_call=advance,
                tell=listener.warn,
            )
        listener.say(f"fetch: {outcome.calls} calls made")
        for line in intake.shortfall_lines(outcome):
            listener.say(line)
        for item in outcome.shortfalls:
            if item.status == "failed":
                raise VendorError(f"{item.symbol} {item.endpoint}", item.found)
        return outlook.read_view(asked, ledger, files)


# --- the answer ---------------------------------------------------------------------------------------------


def answer_prompt(
    run: FinishedRun,
    calibration: FittedCalibration | None,
    max_new_tokens: int,
    trust_remote_code: bool,
    listener: Listener,
    prompt: str,
    where: str,
    symbol: str,
) -> AnsweredPrompt:
    """The adapter's answer to a prompt, rendered with the chat template that it was trained with.

    Raises:
        ConfigurationError: the prompt is too long even without news; told before the model is loaded.
    """
    from forecaster.answering import engines  # torch, as above

    plan = engines.EngineSettings(
        base=run.base,
        tokenizer_folder=run.folder,
        precision=run.resolved["precision"],
        quantization=run.resolved["quantization"],
        trust_remote_code=trust_remote_code,
        max_length=run.flags["max_length"],
        max_new_tokens=max_new_tokens,
        task=WEEKLY,
    )
    reply = engines.answer_one(plan, run.folder, prompt, listener)
    if reply.text is None or reply.prompt_tokens is None:
        room = plan.max_length - max_new_tokens
        found = f"is too long: more than {room} tokens even without its news."
        way_out = "Use a smaller --max_new_tokens, or an adapter trained with a larger --max_length."
        raise ConfigurationError([Problem(where, found, way_out)])
    likely = reply.label_log_likelihoods
    distribution = distribution_of(likely, calibration, usual_of(run, symbol)) if likely else None
    return AnsweredPrompt(reply.text, reply.prompt_tokens, reply.news_dropped, distribution)


def answer_file(
    path: Path,
    run: FinishedRun,
    answer: Answering,
    max_new_tokens: int,
    now: datetime,
    listener: Listener,
) -> ForecastResult:
    """Answer a text of the user's own."""
    try:
        prompt = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        found = f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is no UTF-8 text'})."
        raise ConfigurationError([Problem("--prompt", found, "Name a text file.")]) from error
    if not prompt.strip():
        raise ConfigurationError([Problem("--prompt", f"{path} is empty.", "Write the prompt into it.")])
    if told := told_outcome(prompt, None):
        listener.warn(f'WARNING: the prompt says how its week ends: "{told}". The answer may copy it.')
    answered = answer(prompt, "--prompt", "")
    read = parse_answer(answered.text)
    tell_answer(answered, read, listener)
    record = record_of(prompt, answered, read, run, max_new_tokens)
    path = FORECASTS / f"prompt_{record['prompt_sha256'][:12]}.json"
    keep(record, path, "The prompt's week", now, listener)
    return ForecastResult(answered, read, record, path)


def answer_week(
    asked: Outlook,
    view: View,
    run: FinishedRun,
    answer: Answering,
    max_new_tokens: int,
    listener: Listener,
) -> ForecastResult:
    """Answer the prompt of a coming week, and tell the outcome of one that is over."""
    draft, target = view.draft, view.draft.target
    listener.say(f"{draft.symbol}, from the close of {target.start} to that of {target.end}")
    if asked.is_under_way:
        listener.say(
            f"The week to {target.end} is under way: news since the close of {target.start} is not used, as "
            "the model was trained on whole weeks."
        )
    filing = draft.quarter.filing if draft.quarter else ""
    flags = f"; {', '.join(draft.flags)}" if draft.flags else ""
    listener.say(f"{len(draft.news)} articles of {len(draft.past)} weeks, filing {filing or 'none'}{flags}")
    prompt = render_published(draft.messages)
    answered = answer(prompt, f"the prompt of {draft.symbol}", draft.symbol)
    read = parse_answer(answered.text)
    tell_answer(answered, read, listener)
    actual = None
    if view.actual:
        move = f"{view.actual.label.text} ({view.actual.weekly_return_pct:+.2f} %)"
        listener.say(f"\nWhat then happened: {move}")
        if run.trained_until and target.start < run.trained_until:
            listener.say(
                f"The adapter was trained on weeks up to {run.trained_until}: this says nothing of its skill."
            )
        actual = {"label": view.actual.label.text, "weekly_return_pct": view.actual.weekly_return_pct}
    elif asked.is_over:
        listener.say(f"\nWhat then happened is not known: there is no closing price of {target.end}.")
    about = {
        "symbol": draft.symbol,
        "as_of": target.start_close.isoformat(),
        "target_start": target.start.isoformat(),
        "target_end": target.end.isoformat(),
        "recipe": asdict(asked.shown),
        "flags": list(draft.flags),
        "sources": view.sources,
        "actual": actual,
    }
    record = about | record_of(prompt, answered, read, run, max_new_tokens)
    path = FORECASTS / f"{draft.symbol}_{target.start}.json"
    title = f"{draft.symbol}, from the close of {target.start} to that of {target.end}"
    keep(record, path, title, asked.now, listener)
    return ForecastResult(answered, read, record, path)


def tell_answer(answered: AnsweredPrompt, read: Answer | Unreadable, listener: Listener) -> None:
    """An answer's parts, or why it cannot be read."""
    if answered.news_dropped:
        listener.say(f"The prompt was too long: its {answered.news_dropped} oldest news items were left out.")
    if isinstance(read, Unreadable):
        detail = f": {read.detail}" if read.detail else ""
        listener.say(f"\n{answered.text or '(an empty answer)'}")
        label = read_forecast(answered.text)
        if isinstance(label, Label):
            listener.say(f"\nIt forecasts {label.text}, and does not follow the form: {read.reason}{detail}.")
        else:
            listener.say(f"\nNo forecast can be read in this answer: {read.reason}{detail}.")
    else:
        tell_parts(read, listener)
    if answered.distribution:
        listener.say(in_words(answered.distribution))


def tell_parts(read: Answer, listener: Listener) -> None:
    listener.say(f"\n{POSITIVE}:\n{read.positive_developments}\n\n{CONCERNS}:\n{read.potential_concerns}")
    listener.say(f"\nPrediction: {read.label.text}\nAnalysis: {read.analysis}")


# --- the record ---------------------------------------------------------------------------------------------


def record_of(
    prompt: str, answered: AnsweredPrompt, read: Answer | Unreadable, run: FinishedRun, max_new_tokens: int
) -> dict[str, Any]:
    """What was asked, what was answered, and by whom; no time of day, so that it can be made again."""
    return {
        "prompt": prompt,
        "prompt_sha256": hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest(),
        "prompt_tokens": answered.prompt_tokens,
        "news_dropped": answered.news_dropped,
        "answer": answered.text,
        "forecast": asdict(read) | {"label": read.label.text} if isinstance(read, Answer) else None,
        "unreadable": asdict(read) if isinstance(read, Unreadable) else None,
        "distribution": answered.distribution,
        "adapter": str(run.folder),
        "adapter_sha256": weights_sha256(run.folder),
        "base_model": run.resolved["base_model"],
        "max_new_tokens": max_new_tokens,
        "versions": versions(PACKAGES),
    }


def keep(record: Mapping[str, Any], path: Path, title: str, now: datetime, listener: Listener) -> None:
    """Write a record, and its picture beside it; one that says the same stays as it is, one that says
    something else is set aside.

    Forecasts that end in the same moment wait for one another, so that each finds the other's.
    """
    with held(path.parent, LOCK_FILE, str(path.parent), wait_s=WRITING_S):
        listener.say(f"\nRecord: {_kept(record, path, now, listener)}")
        if record["distribution"]:
            picture = path.with_suffix(".png")
            draw(record["distribution"], title, picture)
            listener.say(f"Picture: {picture}")


def _kept(record: Mapping[str, Any], path: Path, now: datetime, listener: Listener) -> str:
    """Write a record; returns where it is, and of when if it was there."""
    former = _read(path)
    if former is not None:
        made_at = str(former.get("made_at") or now.isoformat(timespec="seconds"))
        if former == {**record, "made_at": made_at}:
            return f"{path}, the same as of {made_at}"
        aside = path.with_name(f"{path.stem}.{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}.json")
        path.replace(aside)
        if (picture := path.with_suffix(".png")).exists():
            picture.replace(aside.with_suffix(".png"))
        listener.say(f"\n{path} held another forecast: it is now {aside.name}.")
    whole = {**record, "made_at": now.isoformat(timespec="seconds")}
    write_whole(path, json.dumps(whole, indent=1, ensure_ascii=False) + "\n", errors="surrogatepass")
    return str(path)


def _read(path: Path) -> dict[str, Any] | None:
    """A former record; an empty one where it cannot be read."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
