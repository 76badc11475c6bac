"""Forecast a stock's coming week with a fine-tuned adapter, from what is public as of a day.

    python forecast.py --adapter finetuned_models/embedded_20260101000000 --symbol AAPL
    python forecast.py --adapter DIR --symbol AAPL --date 2026-03-06
    python forecast.py --adapter DIR --prompt prompt.txt

Needs FINNHUB_API_KEY in .env, or --news_file. What was asked once stays in data/ledger.sqlite; the answer is
kept with all that it was made from, in forecasts/AAPL_2026-03-06.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from forecaster.data import intake, outlook
from forecaster.data.folder import locked, open_ledger
from forecaster.data.outlook import Outlook, Shown, View
from forecaster.data.pipeline_config import (
    FREE_TIER_CALLS_PER_MINUTE,
    no_company_news,
    no_finnhub_key,
    pace_problems,
)
from forecaster.errors import ConfigurationError, KeyRefusedError, Problem, VendorError
from forecaster.exits import report_problems
from forecaster.files import write_whole
from forecaster.flags import FlagParser
from forecaster.models.finished import FinishedRun, read_finished, weights_sha256
from forecaster.provenance import MODEL_PACKAGES, versions
from forecaster.records import Answer, Unreadable
from forecaster.settings import Settings, calm_openmp, load_settings, redact
from forecaster.tasks.answers import parse_answer
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


def main(argv: Sequence[str], now: datetime | None = None) -> int:
    """
    Args:
        now: UTC; None is the clock's.
    """
    now = now or datetime.now(UTC)
    try:
        settings = load_settings()
        args = parse_args(argv)
        run = read_finished(args.adapter)
        max_new_tokens = longest_answer(args, run)
        if args.prompt:
            return answer_file(args.prompt, run, max_new_tokens, now)
        shown, origin = recipe_of(args, run)
        asked = outlook.find_outlook(args.symbol, args.date, shown, now)
        check_sources(args, asked, settings)
        print(f"Recipe: {shown} ({origin})")
        view = look(args, asked, settings)
        return forecast(asked, view, run, max_new_tokens)
    except ConfigurationError as error:
        return report_problems("forecast.py", error)
    except KeyRefusedError as error:
        print(redact(f"\n{error}\nMend the key; the same command then goes on."), file=sys.stderr)
        return ConfigurationError.exit_status
    except VendorError as error:
        print(redact(f"\n{error}\nThe same command goes on later."), file=sys.stderr)
        return 1
    except (sqlite3.Error, OSError) as error:
        print(redact(f"\n{error}\nMend this (is the disk full?), and run it again."), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What was asked for is kept.", file=sys.stderr)
        return 130


# --- flags --------------------------------------------------------------------------------------------------


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """Typed flags; raises ConfigurationError."""
    parser = FlagParser("forecast.py", (__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--adapter", type=Path, required=True, help="output folder of train_lora.py")
    add("--symbol", help="one ticker, such as AAPL or BRK.B")
    add("--date", help="YYYY-MM-DD: forecast from the last week-end close up to that day; default: today")
    add("--prompt", type=Path, metavar="FILE", help="answer this text instead, without data")
    add("--max_new_tokens", type=int, help="longest answer in tokens; default: as given to train_lora.py")
    source = parser.add_argument_group("where the facts come from, as for data_pipeline.py")
    add = source.add_argument
    add("--data_folder", type=Path, default=Path("data"), help="holds ledger.sqlite")
    files: dict[str, Any] = {"type": Path, "nargs": "+", "action": "extend", "default": []}
    add("--news_file", **files, help="your news: csv, jsonl, parquet (FNSPID, Finnhub)")
    add("--price_file", **files, help="your daily closes: csv, jsonl, parquet")
    add("--calls_per_minute", type=int, default=FREE_TIER_CALLS_PER_MINUTE, help="of your Finnhub plan")
    recipe = parser.add_argument_group("what the prompt shows; default: what the adapter was trained on")
    add = recipe.add_argument
    add("--min_past_weeks", type=int)
    add("--max_past_weeks", type=int)
    add("--with_indicators", action="store_true", default=None)
    add("--with_macro", action="store_true", default=None)
    args = parser.parse_args(argv)
    problems = []
    if bool(args.symbol) == bool(args.prompt):
        found = "--symbol and --prompt are both given." if args.symbol else "neither --symbol nor --prompt."
        problems.append(Problem("command line", found, "Give one of the two."))
    if args.prompt and (args.date or args.news_file or args.price_file):
        way_out = "Leave --date, --news_file and --price_file out: a prompt is answered as it is."
        problems.append(Problem("--prompt", "takes no data.", way_out))
    try:
        args.date = date.fromisoformat(args.date) if args.date else None
    except ValueError:
        problems.append(Problem("--date", f"is {args.date!r}.", "Give a day as YYYY-MM-DD."))
    problems += pace_problems(args.calls_per_minute)
    if problems:
        raise ConfigurationError(problems)
    return args


def longest_answer(args: argparse.Namespace, run: FinishedRun) -> int:
    """Tokens of the longest answer; raises ConfigurationError where they leave no room for a prompt."""
    asked = run.flags["max_new_tokens"] if args.max_new_tokens is None else args.max_new_tokens
    if not 1 <= asked < run.flags["max_length"]:
        found = f"is {asked}; prompt and answer share the {run.flags['max_length']} tokens of the training."
        raise ConfigurationError([Problem("--max_new_tokens", found, "Use a number from 1 to below that.")])
    return int(asked)


def recipe_of(args: argparse.Namespace, run: FinishedRun) -> tuple[Shown, str]:
    """What the prompt shows, and who says so: flags, the adapter's record, or the pipeline's defaults."""
    recorded = run.dataset_record.get("recipe")
    shown, origin = Shown(), "defaults of data_pipeline.py: the adapter's record names none"
    if recorded is not None:
        shown, origin = _recorded(recorded, run.folder), "as recorded with the adapter"
    names = [field.name for field in fields(Shown)]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if given:
        origin = f"{', '.join(f'--{name}' for name in given)} as given, the rest {origin}"
    return replace(shown, **given), origin


def _recorded(recorded: Any, folder: Path) -> Shown:
    kinds = {field.name: type(getattr(Shown(), field.name)) for field in fields(Shown)}
    is_sound = isinstance(recorded, Mapping) and all(
        type(recorded.get(name)) is kind for name, kind in kinds.items()
    )
    if not is_sound:
        found = f"{folder / 'dataset.json'} holds the recipe {json.dumps(recorded)}."
        raise ConfigurationError([Problem("--adapter", found, f"A recipe holds {', '.join(kinds)}.")])
    return Shown(**{name: recorded[name] for name in kinds})


def check_sources(args: argparse.Namespace, asked: Outlook, settings: Settings) -> None:
    """Raises ConfigurationError where nobody could be asked for news."""
    if args.news_file:
        return
    if not asked.universe.has_company_news:
        raise ConfigurationError([no_company_news("--symbol", asked.symbol)])
    if not settings.finnhub_api_key:
        raise ConfigurationError([no_finnhub_key()])


# --- the facts ----------------------------------------------------------------------------------------------


def look(args: argparse.Namespace, asked: Outlook, settings: Settings) -> View:
    """The prompt, from a ledger that is brought up to what it needs.

    Raises:
        ConfigurationError: it cannot be made.
        VendorError: a call failed, so that it would be made on a hole.
    """
    with locked(args.data_folder):
        ledger = open_ledger(args.data_folder)
        try:
            for line in intake.import_files(ledger, args.news_file, args.price_file, [asked.symbol]):
                print(line)
            files = intake.digests(args.news_file, args.price_file)
            wanted = outlook.needs_of(asked, ledger, bool(settings.finnhub_api_key), files)
            with tqdm(desc="fetch", unit="call", leave=False, delay=1) as bar:
                outcome = intake.ask_vendors(
                    ledger,
                    wanted,
                    settings.finnhub_api_key,
                    args.calls_per_minute,
                    files,
                    on_call=lambda: bar.update() and None,
                )
            print(f"fetch: {outcome.calls} calls made")
            for line in intake.shortfall_lines(outcome):
                print(line)
            for item in outcome.shortfalls:
                if item.status == "failed":
                    raise VendorError(f"{item.symbol} {item.endpoint}", item.found)
            return outlook.read_view(asked, ledger, files)
        finally:
            ledger.close()


# --- the answer ---------------------------------------------------------------------------------------------


def answer_prompt(run: FinishedRun, prompt: str, max_new_tokens: int, where: str) -> AnsweredPrompt:
    """The adapter's answer to a prompt, rendered with the chat template that it was trained with.

    Raises:
        ConfigurationError: the prompt is too long even without news; told before the model is loaded.
    """
    calm_openmp()
    from forecaster.answering import engines  # torch: not needed to refuse a bad command

    plan = engines.EngineSettings(
        base=run.base,
        tokenizer_folder=run.folder,
        precision=run.resolved["precision"],
        quantization=run.resolved["quantization"],
        trust_remote_code=run.flags["trust_remote_code"],
        max_length=run.flags["max_length"],
        max_new_tokens=max_new_tokens,
    )
    reply = engines.answer_one(plan, run.folder, prompt)
    if reply.text is None or reply.prompt_tokens is None:
        room = plan.max_length - max_new_tokens
        found = f"is too long: more than {room} tokens even without its news."
        way_out = "Use a smaller --max_new_tokens, or an adapter trained with a larger --max_length."
        raise ConfigurationError([Problem(where, found, way_out)])
    return AnsweredPrompt(reply.text, reply.prompt_tokens, reply.news_dropped)


def answer_file(path: Path, run: FinishedRun, max_new_tokens: int, now: datetime) -> int:
    """Answer a text of the user's own."""
    try:
        prompt = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is no UTF-8 text'})."
        raise ConfigurationError([Problem("--prompt", found, "Name a text file.")]) from error
    if not prompt.strip():
        raise ConfigurationError([Problem("--prompt", f"{path} is empty.", "Write the prompt into it.")])
    answered = answer_prompt(run, prompt, max_new_tokens, "--prompt")
    print_answer(answered)
    record = record_of(prompt, answered, run, max_new_tokens)
    keep(record, FORECASTS / f"prompt_{record['prompt_sha256'][:12]}.json", now)
    return 0


def forecast(asked: Outlook, view: View, run: FinishedRun, max_new_tokens: int) -> int:
    """Answer the prompt of a coming week, and tell the outcome of one that is over."""
    draft, target = view.draft, view.draft.target
    print(f"{draft.symbol}, from the close of {target.start} to that of {target.end}")
    if asked.is_under_way:
        print(
            f"The week to {target.end} is under way: news since the close of {target.start} is not used, as "
            "the model was trained on whole weeks."
        )
    filing = draft.quarter.filing if draft.quarter else ""
    flags = f"; {', '.join(draft.flags)}" if draft.flags else ""
    print(f"{len(draft.news)} articles of {len(draft.past)} weeks, filing {filing or 'none'}{flags}")
    prompt = render_published(draft.messages)
    answered = answer_prompt(run, prompt, max_new_tokens, f"the prompt of {draft.symbol}")
    print_answer(answered)
    actual = None
    if view.actual:
        move = f"{view.actual.label.text} ({view.actual.weekly_return_pct:+.2f} %)"
        print(f"\nWhat then happened: {move}")
        if run.trained_until and target.start < run.trained_until:
            print(
                f"The adapter was trained on weeks up to {run.trained_until}: this says nothing of its skill."
            )
        actual = {"label": view.actual.label.text, "weekly_return_pct": view.actual.weekly_return_pct}
    elif asked.is_over:
        print(f"\nWhat then happened is not known: there is no closing price of {target.end}.")
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
    record = about | record_of(prompt, answered, run, max_new_tokens)
    keep(record, FORECASTS / f"{draft.symbol}_{target.start}.json", asked.now)
    return 0


def print_answer(answered: AnsweredPrompt) -> None:
    if answered.news_dropped:
        print(f"The prompt was too long: its {answered.news_dropped} oldest news items were left out.")
    found = parse_answer(answered.text)
    if isinstance(found, Unreadable):
        detail = f": {found.detail}" if found.detail else ""
        print(f"\n{answered.text or '(an empty answer)'}")
        print(f"\nNo forecast can be read in this answer: {found.reason}{detail}.")
        return
    print(f"\n{POSITIVE}:\n{found.positive_developments}\n\n{CONCERNS}:\n{found.potential_concerns}")
    print(f"\nPrediction: {found.label.text}\nAnalysis: {found.analysis}")


# --- the record ---------------------------------------------------------------------------------------------


def record_of(prompt: str, answered: AnsweredPrompt, run: FinishedRun, max_new_tokens: int) -> dict[str, Any]:
    """What was asked, what was answered, and by whom; no time of day, so that it can be made again."""
    found = parse_answer(answered.text)
    return {
        "prompt": prompt,
        "prompt_sha256": hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest(),
        "prompt_tokens": answered.prompt_tokens,
        "news_dropped": answered.news_dropped,
        "answer": answered.text,
        "forecast": asdict(found) | {"label": found.label.text} if isinstance(found, Answer) else None,
        "unreadable": asdict(found) if isinstance(found, Unreadable) else None,
        "adapter": str(run.folder),
        "adapter_sha256": weights_sha256(run.folder),
        "base_model": run.resolved["base_model"],
        "max_new_tokens": max_new_tokens,
        "versions": versions(PACKAGES),
    }


def keep(record: Mapping[str, Any], path: Path, now: datetime) -> None:
    """Write a record; one that says the same stays as it is, one that says something else is set aside."""
    made_at = now.isoformat(timespec="seconds")
    former = _read(path)
    if former is not None:
        made_at = str(former.get("made_at") or made_at)
        if former == {**record, "made_at": made_at}:
            print(f"\nRecord: {path}, the same as of {made_at}")
            return
        aside = path.with_name(f"{path.stem}.{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}.json")
        path.replace(aside)
        print(f"\n{path} held another forecast: it is now {aside.name}.")
        made_at = now.isoformat(timespec="seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**record, "made_at": made_at}, indent=1, ensure_ascii=False)
    write_whole(path, text + "\n", errors="surrogatepass")
    print(f"\nRecord: {path}")


def _read(path: Path) -> dict[str, Any] | None:
    """A former record; an empty one where it cannot be read."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
