"""One dataset to make: what the flags resolve to, what it needs, and its examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import indices
from forecaster.calls import Call
from forecaster.data import build, news, store, weeks
from forecaster.data.fetch import Needs
from forecaster.data.join import Dropped, Recipe, examples_of
from forecaster.data.ledger import Ledger, Trace
from forecaster.data.macro import MACRO
from forecaster.data.pipeline_config import PipelineConfig, no_company_news
from forecaster.data.splits import GAP, TEST, TRAIN
from forecaster.data.universe import Membership, Universe, find_universe, membership
from forecaster.errors import ConfigurationError, Problem
from forecaster.records import Example, TradingWeek


@dataclass(frozen=True)
class DatasetSpec:
    """The flags, and what they resolve to."""

    config: PipelineConfig
    universe: Universe
    member: Membership
    train_ends: frozenset[date]
    test_ends: frozenset[date]
    now: datetime
    files: tuple[str, ...] = ()
    """Digests of the user's own files, in their order."""

    @property
    def weeks(self) -> tuple[TradingWeek, ...]:
        return self.member.weeks

    @property
    def name(self) -> str:
        c = self.config
        return build.folder_name(
            self.universe.name, c.start_date, c.end_date, c.min_past_weeks, c.max_past_weeks, c.train_ratio
        )

    @property
    def folder(self) -> Path:
        return self.config.data_folder / self.name

    @property
    def gap_weeks(self) -> int:
        """Target weeks between training and test."""
        return len(self.weeks) - self.config.min_past_weeks - len(self.train_ends) - len(self.test_ends)

    def split_of(self, week: TradingWeek) -> str:
        """The part of the dataset that a target week belongs to."""
        return TRAIN if week.end in self.train_ends else TEST if week.end in self.test_ends else GAP

    def target_keys(self) -> set[tuple[str, str, str]]:
        """Symbol of the day, start and end of every week to forecast."""
        return {
            (indices.symbol_on(symbol, week.start), week.start.isoformat(), week.end.isoformat())
            for symbol, targets in self.member.targets.items()
            for week in (self.weeks[at] for at in targets)
        }

    def shown_weeks(self, symbol: str) -> list[TradingWeek]:
        """Past weeks of a symbol that some prompt may show, oldest first."""
        past = {
            at
            for target in self.member.targets[symbol]
            for at in range(max(0, target - self.config.max_past_weeks), target)
        }
        return [self.weeks[at] for at in sorted(past)]


def resolve(config: PipelineConfig, now: datetime) -> DatasetSpec:
    """What the flags mean; asks nobody. Raises ConfigurationError."""
    universe = find_universe(config.index_name)
    if config.fetches and not universe.has_company_news and not config.news_file:
        raise ConfigurationError([no_company_news("--index_name", config.index_name)])
    found = weeks.trading_weeks(universe.calendar, config.start_date, min(config.end_date, now.date()), now)
    train, test = weeks.split_at(found[config.min_past_weeks :], config.train_ratio, config.max_past_weeks)
    if not (train and test):
        raise ConfigurationError(
            [
                Problem(
                    "--start_date, --end_date",
                    f"leave {len(found)} finished weeks: {len(train)} for training, {len(test)} for testing.",
                    f"Needed are {config.min_past_weeks} of history, then --train_ratio "
                    f"({config.train_ratio:g}) of the rest for training, {config.max_past_weeks} left out "
                    "(--max_past_weeks), and one or more for testing. Take a longer range, another ratio, or "
                    "fewer past weeks.",
                )
            ]
        )
    wanted = membership(universe, found, config.min_past_weeks, config.current_members)
    return DatasetSpec(config, universe, wanted, frozenset(train), frozenset(test), now)


def needs_of(job: DatasetSpec, ledger: Ledger, with_finnhub: bool) -> list[Needs]:
    """What the dataset needs of each vendor; prices only where the ledger has none that will do.

    Args:
        with_finnhub: whether there is a key; without one, news is what the user's files hold.
    """
    asks = with_finnhub and job.universe.has_company_news
    found = [
        Needs(
            symbol,
            news.spans_of(job.shown_weeks(symbol)) if asks else (),
            store.prices_to_ask(ledger, symbol, job.weeks, job.files),
            profile=asks,
            financials=job.weeks[-1].end if asks else None,
        )
        for symbol in job.member.targets
    ]
    if job.config.with_macro:
        known = {need.symbol for need in found}
        found += [need for need in macro_needs(ledger, job.weeks, job.files) if need.symbol not in known]
    return found


def macro_needs(ledger: Ledger, weeks: Sequence[TradingWeek], files: Sequence[str]) -> list[Needs]:
    """Market-wide series over `weeks` that the ledger lacks."""
    wanted = {series.symbol: store.prices_to_ask(ledger, series.symbol, weeks, files) for series in MACRO}
    return [Needs(symbol, prices=window) for symbol, window in wanted.items() if window]


@dataclass(frozen=True)
class SymbolOutcome:
    """One symbol's data, and what each of its weeks gave."""

    symbol: str
    """As vendors know it today."""
    received: build.Received
    traces: Sequence[Trace]
    """Of the calls that were read, not the calls: their payloads are most of a year's memory."""
    outcomes: Sequence[Example | Dropped]

    def as_texts(self) -> SymbolOutcome:
        """Without the records behind the prompts: most of an example, read by the template teacher only."""
        texts = [
            replace(outcome, weeks=(), figures={}) if isinstance(outcome, Example) else outcome
            for outcome in self.outcomes
        ]
        return replace(self, outcomes=texts)


def outcomes(job: DatasetSpec, ledger: Ledger) -> Iterator[SymbolOutcome]:
    """The join symbol by symbol, so that one symbol's data is in memory at a time."""
    recipe = Recipe(
        job.config.min_past_weeks,
        job.config.max_past_weeks,
        job.config.with_indicators,
        {symbol: store.price_history(call.payload) for symbol, call in macro_calls(job, ledger).items()},
        job.universe.calendar,
    )
    for symbol, targets in job.member.targets.items():
        stored = store.read_symbol(ledger, symbol, job.weeks, job.universe.kind, job.files)
        received = build.Received.of(stored, job.weeks, job.shown_weeks(symbol))
        found = list(examples_of(stored.data, job.weeks, targets, recipe))
        yield SymbolOutcome(symbol, received, list(map(Trace.of, stored.calls)), found)


def macro_calls(job: DatasetSpec, ledger: Ledger) -> dict[str, Call]:
    """The market-wide series that the prompts show, by Yahoo's symbol; empty without `--with_macro`."""
    if not job.config.with_macro:
        return {}
    return store.macro_calls(ledger, job.weeks, job.files)
