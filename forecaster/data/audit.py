"""Proof, for a finished dataset, that no prompt holds the future. Pure.

It reads the finished text and the raw facts, and does not use the join that makes rows: which item belongs
to which week, prices in the shares of a day, and labels are derived here a second time, so that a mistake
there cannot hide itself. The raw records (closes, publication times of filings) come from the same reading of
the ledger as the rows: a mistake in that reading is in both, and is not found. Technical indicators and
market-wide figures are not derived anew.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from functools import cache, cached_property
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

import exchange_calendars
from tabulate import tabulate

from forecaster.data import row_types
from forecaster.data.untrue_prices import DOUBTFUL_FACTOR, UntrueMove, untrue_moves, with_applied_splits
from forecaster.errors import ConfigurationError, Problem
from forecaster.records import Article, Label, NewsItem, PriceHistory, Quarter, Unreadable
from forecaster.tasks.answers import parse_answer, parse_prediction
from forecaster.tasks.told_outcome import told_outcome
from forecaster.tasks.weekly import COLUMNS
from prompts import INDICATORS, MACRO, PastWeek, PromptFacts, clean_text, read_prompt, split_published

if TYPE_CHECKING:
    from datasets import Dataset

TRAINING_SPLIT, GAP_SPLIT = "train", "gap"
"""Every other split is held out; the gap's weeks lie between training and these, and are in neither."""
ROWS_AT_ONCE = 64
_OPTIONAL_TEXTS = ("prompt_sha256", "teacher")
_OPTIONAL_MOMENTS = ("as_of", "target_start", "target_end")
_OPTIONAL_NUMBERS = ("weekly_return_pct", "start_price", "end_price")
_OPTIONAL_LISTS = ("news_ids", "flags")
"""Columns that are read where a dataset has them."""
_CALENDAR_START = "1990-01-01"

# --- what can be found --------------------------------------------------------------------------------------

Severity = Literal["leak", "error", "note"]
"""A leak lets the future in; an error is a row that is not what it says; a note fails nothing."""


@dataclass(frozen=True)
class Kind:
    severity: Severity
    meaning: str


KINDS: Mapping[str, Kind] = {
    "future article": Kind("leak", "published at or after the close at the target's start"),
    "future quarter": Kind("leak", "figures that were not public before that close"),
    "future week": Kind("leak", "a past week ends after the target week starts"),
    "market capitalisation": Kind("leak", "taken from the day on which the dataset was made"),
    "told outcome": Kind("leak", "the prompt says how its week ends"),
    "wrong as-of": Kind("leak", "`as_of` is not the close of the session at the target's start"),
    "straddled split": Kind("leak", "a training week ends after the first held-out week starts"),
    "overlapping weeks": Kind("error", "two past weeks of a prompt share days"),
    "disordered weeks": Kind("error", "past weeks run backward, or end before they start"),
    "repeated headline": Kind("error", "a prompt shows the same headline more than once"),
    "repeated row": Kind("error", "the same symbol and period came before"),
    "period mismatch": Kind("error", "prompt and columns name different target weeks"),
    "unknown article": Kind("error", "not among the symbol's articles"),
    "article of another week": Kind("error", "published before the close, but outside its week"),
    "unknown quarter": Kind("error", "no such quarter among the symbol's reports"),
    "wrong figure": Kind("error", "not the figure reported for the quarter"),
    "wrong price": Kind("error", "not the close of that day, in shares of the target's start"),
    "missing close": Kind("error", "no close of the session at a week's edge"),
    "untrue price": Kind("error", "closes over its weeks cannot be true"),
    "doubtful price": Kind("note", "closes over its weeks may hide a split"),
    "unfinished week": Kind("error", "no close yet at the end of the target week"),
    "wrong label": Kind("error", "not the bin of the week's return"),
    "wrong return": Kind("error", "`weekly_return_pct` is not the week's return"),
    "answer against label": Kind("error", "the answer predicts another bin than the label"),
    "changed prompt": Kind("error", "`prompt_sha256` is not that of the prompt"),
    "no evidence": Kind("error", "no raw facts to compare prices, labels or news with"),
    "unreadable prompt": Kind("error", "no past week, no target week, or figures without a date"),
    "unreadable label": Kind("error", "the label is none of the twelve"),
    "unreadable answer": Kind("note", "the answer does not hold its four parts"),
    "called a cryptocurrency": Kind("note", "a stock's prompt speaks of a cryptocurrency"),
    "no embargo": Kind("note", "a training week lies in the past weeks of held-out prompts"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one row."""

    kind: str
    """A key of `KINDS`."""
    split: str
    row: int
    """Index within the split."""
    symbol: str
    period: str
    detail: str

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity


@dataclass(frozen=True)
class AuditReport:
    """Everything found, everything that was compared, and what could not be."""

    findings: tuple[Finding, ...]
    """By split, row, and the order of `KINDS`."""
    checked: Mapping[str, int]
    unchecked: Mapping[str, int]
    """Why something could not be compared, and for how many rows."""

    @property
    def counts(self) -> Counter[str]:
        """Findings by kind."""
        return Counter(finding.kind for finding in self.findings)

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Leaks and errors."""
        return tuple(finding for finding in self.findings if finding.severity != "note")

    @property
    def passed(self) -> bool:
        return not self.failures


# --- evidence -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SymbolEvidence:
    """Raw facts of one symbol."""

    articles: Sequence[Article] | None
    """All that were received, in any order, repeats included; None where only prices are known."""
    prices: PriceHistory | None
    quarters: Mapping[date, Sequence[Quarter]] | None
    """Reported quarters by the start of the week that a row is for, as they were answered for it."""
    calendar: str = "XNYS"
    """Exchange, as exchange_calendars names it."""
    adjusted_only: bool = False
    """Whether closes are known adjusted for dividends only; prompts made from real closes show others."""


Evidence = Callable[[str], SymbolEvidence | None]
"""Gives the raw facts for a symbol as rows spell it; asked once per symbol, and held for one at a time."""


@dataclass
class _SameId:
    """Articles with one id."""

    headlines: set[str]
    first_published_at: datetime


@dataclass(frozen=True)
class _Known:
    """One symbol's evidence, indexed."""

    evidence: SymbolEvidence
    _moments: dict[tuple[str, str], list[datetime]] = field(default_factory=dict)

    @cached_property
    def _by_headline(self) -> dict[str, list[tuple[str, datetime]]]:
        """Cleaned summaries and moments of the articles under each headline, sorted."""
        found: dict[str, list[tuple[str, datetime]]] = {}
        for article in self.evidence.articles or ():
            told = clean_text(article.summary), article.published_at
            found.setdefault(_words(article.headline), []).append(told)
        return {headline: sorted(articles) for headline, articles in found.items()}

    @cached_property
    def by_id(self) -> dict[str, _SameId]:
        found: dict[str, _SameId] = {}
        for article in self.evidence.articles or ():
            same = found.setdefault(article.id, _SameId(set(), article.published_at))
            same.headlines.add(_words(article.headline))
            same.first_published_at = min(same.first_published_at, article.published_at)
        return found

    def moments(self, item: NewsItem) -> Sequence[datetime]:
        """When the articles were published that an item of a prompt may show, oldest first: its headline is
        theirs, and its summary theirs, the beginning of it, or left out.

        Each of a summary's beginnings is looked up once, however often a prompt repeats it: all that is
        found is no more than the articles have characters.
        """
        headline = _words(item.headline)
        shown = clean_text(item.summary).removesuffix("...").rstrip()
        if (headline, shown) not in self._moments:
            articles = self._by_headline.get(headline, [])
            first = bisect_left(articles, shown, key=lambda article: article[0])
            after = bisect_right(articles, shown, lo=first, key=lambda article: article[0][: len(shown)])
            self._moments[headline, shown] = sorted(moment for _, moment in articles[first:after])
        return self._moments[headline, shown]

    @cached_property
    def days(self) -> list[date]:
        return sorted(self.evidence.prices.closes) if self.evidence.prices else []

    @cached_property
    def untrue_moves(self) -> tuple[UntrueMove, ...]:
        return untrue_moves(self.evidence.prices) if self.evidence.prices else ()

    @cached_property
    def shown_prices(self) -> PriceHistory | None:
        prices = self.evidence.prices
        return with_applied_splits(prices, self.untrue_moves) if prices else None

    def session(self, day: date) -> date | None:
        return _session(self.evidence.calendar, day)

    def closing_time(self, day: date) -> datetime | None:
        """When the last session at or before `day` closed, UTC; None where the calendar does not reach."""
        session = self.session(day)
        return _closing_time(self.evidence.calendar, session) if session else None

    def last_close_day(self, day: date) -> date | None:
        at = bisect_right(self.days, day)
        return self.days[at - 1] if at else None

    def shown_close(self, day: date, as_of: date) -> Decimal | None:
        """Last close at or before `day`, in shares of `as_of`."""
        close_day, prices = self.last_close_day(day), self.shown_prices
        if close_day is None or prices is None:
            return None
        price = prices.closes[close_day].split_adjusted
        for split_day, ratio in prices.splits.items():
            price *= ratio if split_day > as_of else 1
        return price


@cache
def _calendar(name: str) -> exchange_calendars.ExchangeCalendar:
    return exchange_calendars.get_calendar(name, start=_CALENDAR_START)


@cache
def _session(calendar: str, day: date) -> date | None:
    sessions = _calendar(calendar)
    if not sessions.first_session.date() <= day <= sessions.last_session.date():
        return None
    found: datetime = sessions.date_to_session(str(day), direction="previous").to_pydatetime()
    return found.date()


@cache
def _closing_time(calendar: str, session: date) -> datetime:
    close: datetime = _calendar(calendar).session_close(str(session)).to_pydatetime()
    return close.astimezone(UTC)


# --- the audit ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    split: str
    index: int
    values: Mapping[str, Any]
    facts: PromptFacts

    @property
    def period(self) -> str:
        return str(self.values["period"])

    @cached_property
    def label(self) -> Label | Unreadable:
        return parse_prediction(self.values["label"] or "")

    def finding(self, kind: str, detail: str) -> Finding:
        return Finding(kind, self.split, self.index, str(self.values["symbol"]), self.period, detail)


@dataclass(frozen=True)
class _Span:
    """The days of one row, without its texts."""

    split: str
    index: int
    symbol: str
    period: str
    first_day: date
    """Start of the first past week, or of the target."""
    target_start: date
    target_end: date


@dataclass
class _Tally:
    checked: Counter[str] = field(default_factory=Counter)
    unchecked: Counter[str] = field(default_factory=Counter)


def audit_rows(
    splits: Mapping[str, Dataset], evidence: Evidence | None = None, require_evidence: bool = False
) -> AuditReport:
    """Check every row by its text, and by raw facts where there are some.

    Args:
        splits: rows with the five published columns; the columns on where a row comes from are checked
            where they exist.
        evidence: raw facts by symbol; None to read the text alone.
        require_evidence: whether a row that cannot be compared with articles and closes is an error, as in
            a dataset whose raw facts have to be at hand.

    Raises:
        ConfigurationError: a split without the published columns.
    """
    _require_columns(splits)
    tally = _Tally()
    findings: list[Finding] = []
    spans: list[_Span] = []
    for symbol, places in _places(splits).items():
        raw = evidence(symbol) if evidence else None
        known = _Known(raw) if raw else None
        for move in known.untrue_moves if known else ():
            if move.kind != "jump":
                tally.unchecked[f"weeks of {symbol} over closes of {move}"] = 0
        seen: set[str] = set()
        for row in _rows(splits, places):
            findings += _by_text(row, tally)
            if row.period in seen:
                findings.append(row.finding("repeated row", f"{symbol} {row.period}"))
            seen.add(row.period)
            if known:
                findings += _by_evidence(row, known, tally)
            else:
                missing = "no raw facts of the symbol" if evidence else "no raw facts were given"
                for what in ("when news was published", "when a quarter became public", "prices and labels"):
                    tally.unchecked[f"{what}: {missing}"] += 1
                findings += _doubtful_moves(row)
            if require_evidence and (lacking := _lacking_evidence(row, known)):
                findings.append(row.finding("no evidence", lacking))
            if span := _span(row):
                spans.append(span)
    findings += _straddling(spans, tally)
    split_at, kind_at = ({name: at for at, name in enumerate(names)} for names in (splits, KINDS))
    findings.sort(key=lambda f: (split_at[f.split], f.row, kind_at[f.kind]))
    return AuditReport(tuple(findings), dict(tally.checked), dict(tally.unchecked))


def _require_columns(splits: Mapping[str, Dataset]) -> None:
    problems = [
        Problem(f"split {name}", f"has no column {', '.join(missing)}.", f"Needed: {', '.join(COLUMNS)}.")
        for name, rows in splits.items()
        if (missing := [column for column in COLUMNS if column not in rows.column_names])
    ]
    problems += [
        problem
        for name, rows in splits.items()
        for problem in row_types.problems(
            rows,
            f"split {name}",
            (*COLUMNS, *_OPTIONAL_TEXTS),
            _OPTIONAL_NUMBERS,
            _OPTIONAL_LISTS,
            _OPTIONAL_MOMENTS,
        )
    ]
    if problems:
        raise ConfigurationError(problems)


def _places(splits: Mapping[str, Dataset]) -> dict[str, list[tuple[str, int]]]:
    """Where each symbol's rows are: split and index."""
    places: dict[str, list[tuple[str, int]]] = {}
    for split, rows in splits.items():
        for index, symbol in enumerate(rows["symbol"]):
            places.setdefault(str(symbol), []).append((split, index))
    return places


def _rows(splits: Mapping[str, Dataset], places: Sequence[tuple[str, int]]) -> Iterator[_Row]:
    for split in splits:
        indices = [index for name, index in places if name == split]
        for start in range(0, len(indices), ROWS_AT_ONCE):
            batch = indices[start : start + ROWS_AT_ONCE]
            columns = splits[split][batch]
            for at, index in enumerate(batch):
                values = {name: column[at] for name, column in columns.items()}
                facts = read_prompt(split_published(values["prompt"] or "").user)
                yield _Row(split, index, values, facts)


# --- what the text says -------------------------------------------------------------------------------------


def _by_text(row: _Row, tally: _Tally) -> Iterator[Finding]:
    facts = row.facts
    tally.checked["rows"] += 1
    tally.checked["headlines"] += sum(len(week.news) for week in facts.weeks)
    yield from _readability(row)
    yield from _week_order(row)
    for headline, count in _repeated_headlines(facts):
        yield row.finding("repeated headline", f"{count} times: {headline}")
    if facts.financials_period_end:
        tally.checked["quarters"] += 1
    for name, shown in ((INDICATORS, facts.indicators), (MACRO, facts.macro)):
        if shown:
            tally.unchecked[f"{name.lower()}: not derived anew"] += 1
    if _ends_too_late(facts):
        yield row.finding("future quarter", f"the quarter ended on {facts.financials_period_end}")
    if facts.cites_market_cap:
        yield row.finding("market capitalisation", "in the introduction")
    label = row.label if isinstance(row.label, Label) else None
    if told := told_outcome(row.values["prompt"] or "", label):
        yield row.finding("told outcome", told)
    if facts.says_cryptocurrency and not facts.introduces_coin:
        yield row.finding("called a cryptocurrency", "in the prompt's own words")
    yield from _columns_against_each_other(row, tally)


def _readability(row: _Row) -> Iterator[Finding]:
    facts = row.facts
    missing = [
        name
        for name, is_missing in (
            ("no past week", not facts.weeks),
            ("no target week", facts.target_start is None or facts.target_end is None),
            ("figures without a date", bool(facts.financials) and not facts.financials_period_end),
        )
        if is_missing
    ]
    if missing:
        yield row.finding("unreadable prompt", ", ".join(missing))


def _week_order(row: _Row) -> Iterator[Finding]:
    weeks, target_start = row.facts.weeks, row.facts.target_start
    for week in weeks:
        if week.end <= week.start:
            yield row.finding("disordered weeks", f"{week.start} to {week.end}")
        if target_start and week.end > target_start:
            yield row.finding("future week", f"{week.start} to {week.end} before {target_start}")
    for earlier, later in pairwise(weeks):
        if later.start < earlier.start:
            yield row.finding("disordered weeks", f"{later.start} after {earlier.start}")
    by_start = sorted(weeks, key=lambda week: (week.start, week.end))
    for earlier, later in pairwise(by_start):
        if later.start < earlier.end:
            yield row.finding(
                "overlapping weeks", f"{earlier.start} to {earlier.end} and {later.start} to {later.end}"
            )


def _repeated_headlines(facts: PromptFacts) -> list[tuple[str, int]]:
    counts = Counter(_words(item.headline) for week in facts.weeks for item in week.news)
    return [(headline, count) for headline, count in counts.items() if headline and count > 1]


def _ends_too_late(facts: PromptFacts) -> bool:
    end, target_start = facts.financials_period_end, facts.target_start
    return bool(end and target_start and end >= target_start)


def _doubtful_moves(row: _Row) -> Iterator[Finding]:
    """The first move that the row states and that may be a split, where there are no closes to look at."""
    moves = [
        (f"{week.start} to {week.end}", float(week.end_price / week.start_price))
        for week in row.facts.weeks
        if week.start_price and week.end_price and min(week.start_price, week.end_price) > 0
    ]
    if (return_pct := row.values.get("weekly_return_pct")) is not None:
        moves.append((row.period, 1 + float(return_pct) / 100))
    for period, factor in moves:
        if not 1 / DOUBTFUL_FACTOR < factor < DOUBTFUL_FACTOR:
            yield row.finding("doubtful price", f"{period}: {100 * (factor - 1):+.2f} %")
            break


def _columns_against_each_other(row: _Row, tally: _Tally) -> Iterator[Finding]:
    values, facts = row.values, row.facts
    stated = {row.period}
    if facts.target_start and facts.target_end:
        stated.add(f"{facts.target_start} to {facts.target_end}")
    if values.get("target_start") and values.get("target_end"):
        stated.add(f"{str(values['target_start'])[:10]} to {str(values['target_end'])[:10]}")
    if len(stated) > 1:
        yield row.finding("period mismatch", " / ".join(sorted(stated)))
    if values.get("prompt_sha256"):
        tally.checked["prompt hashes"] += 1
        if values["prompt_sha256"] != hashlib.sha256((values["prompt"] or "").encode()).hexdigest():
            yield row.finding("changed prompt", "its hash is another")
    label = row.label
    if isinstance(label, Unreadable):
        yield row.finding("unreadable label", str(values["label"]))
    answer = parse_answer(values["answer"] or "")
    if isinstance(answer, Unreadable):
        yield row.finding("unreadable answer", answer.reason)
    # A teacher who was not told the outcome is free to be wrong.
    elif isinstance(label, Label) and "blind" not in str(values.get("teacher") or ""):
        tally.checked["answers against labels"] += 1
        if answer.label != label:
            yield row.finding("answer against label", f"{answer.label.text} against {label.text}")
    return_pct = values.get("weekly_return_pct")
    if return_pct is not None and isinstance(label, Label):
        tally.checked["labels against the return column"] += 1
        if label not in _bins_near(float(return_pct)):
            yield row.finding("wrong label", f"{label.text} for a return of {float(return_pct):.4f} %")


# --- what the raw facts say ---------------------------------------------------------------------------------


def _by_evidence(row: _Row, known: _Known, tally: _Tally) -> Iterator[Finding]:
    facts = row.facts
    if facts.target_start is None or facts.target_end is None:
        tally.unchecked["everything against raw facts: the prompt states no target week"] += 1
        return
    as_of = known.closing_time(facts.target_start)
    if as_of is None:
        tally.unchecked["everything against raw facts: the exchange calendar does not reach the week"] += 1
        return
    if row.values.get("as_of"):
        tally.checked["as-of times"] += 1
        if _moment(row.values["as_of"]) != as_of:
            yield row.finding("wrong as-of", f"{row.values['as_of']} instead of {as_of.isoformat()}")
    if known.evidence.articles is None:
        tally.unchecked["when news was published: no articles were given"] += 1
    else:
        yield from _articles(row, known, as_of, tally)
    if known.evidence.quarters is None:
        tally.unchecked["when a quarter became public: no reports were given"] += 1
    else:
        yield from _quarter(row, known, as_of, tally)
    if known.days:
        yield from _prices(row, known, facts.target_start, facts.target_end, tally)
        yield from _untrue_prices(row, known, facts.target_start, facts.target_end, tally)
        yield from _outcome(row, known, facts.target_start, facts.target_end, tally)
    else:
        tally.unchecked["prices and labels: no closes of the symbol"] += 1


def _lacking_evidence(row: _Row, known: _Known | None) -> str:
    """What keeps a row from being compared; empty where nothing does, or where its prompt is unreadable."""
    if known is None:
        return "no raw facts of the symbol"
    start = row.facts.target_start
    if start and known.closing_time(start) is None:
        return "the exchange calendar does not reach the week"
    lacking = ["no articles of the symbol"] if known.evidence.articles is None else []
    lacking += [] if known.days else ["no closes of the symbol"]
    return ", ".join(lacking)


def _articles(row: _Row, known: _Known, as_of: datetime, tally: _Tally) -> Iterator[Finding]:
    told = set()
    for week in row.facts.weeks:
        for item in week.news:
            tally.checked["headlines against raw articles"] += 1
            if kind := _article_fault(item, week, known, as_of):
                told.add(_words(item.headline))
                yield row.finding(kind, f"{week.start} to {week.end}: {item.headline}")
    faults: dict[str, str | None] = {}
    for news_id in map(str, row.values.get("news_ids") or ()):
        tally.checked["news ids against raw articles"] += 1
        if news_id not in faults:
            faults[news_id] = _id_fault(known.by_id.get(news_id), told, as_of)
        if fault := faults[news_id]:
            yield row.finding(fault, f"id {news_id}")


def _id_fault(articles: _SameId | None, told: set[str], as_of: datetime) -> str | None:
    """What is wrong with an id, where the headlines have not told it."""
    if articles is None:
        return "unknown article"
    if not told.isdisjoint(articles.headlines):
        return None
    return "future article" if articles.first_published_at >= as_of else None


def _article_fault(item: NewsItem, week: PastWeek, known: _Known, as_of: datetime) -> str | None:
    found = known.moments(item)
    start, end = known.closing_time(week.start), known.closing_time(week.end)
    if not found:
        return "unknown article"
    if start and end:
        at = bisect_left(found, start)
        if at < len(found) and found[at] < min(end, as_of):
            return None
    return "future article" if found[0] >= as_of else "article of another week"


def _quarter(row: _Row, known: _Known, as_of: datetime, tally: _Tally) -> Iterator[Finding]:
    facts = row.facts
    # A quarter that had not even ended is told by the text already.
    if not facts.financials or facts.financials_period_end is None or _ends_too_late(facts):
        return
    tally.checked["quarters against filings"] += 1
    end = facts.financials_period_end
    reported = (known.evidence.quarters or {}).get(facts.target_start or date.min, ())
    quarters = [quarter for quarter in reported if quarter.period_end == end]
    if not quarters:
        yield row.finding("unknown quarter", f"the quarter to {end}")
        return
    public = min(quarter.available_at for quarter in quarters)
    if public >= as_of:
        yield row.finding("future quarter", f"the quarter to {end} became public at {public.isoformat()}")
    wrong = [
        name
        for name, shown in facts.financials.items()
        if not any(_same_figure(shown, quarter.figures.get(name)) for quarter in quarters)
    ]
    if wrong:
        yield row.finding("wrong figure", f"the quarter to {end}: {', '.join(wrong)}")


def _same_figure(shown: str, figure: float | None) -> bool:
    """To the six digits of a prompt."""
    try:
        return figure is not None and abs(float(shown) - figure) <= 1e-5 * abs(figure)
    except ValueError:
        return False


def _prices(row: _Row, known: _Known, start: date, end: date, tally: _Tally) -> Iterator[Finding]:
    """Closes that the prompt and the price columns state."""
    edges = [(week.start, week.start_price) for week in row.facts.weeks]
    edges += [(week.end, week.end_price) for week in row.facts.weeks]
    for day, column in ((start, "start_price"), (end, "end_price")):
        value = row.values.get(column)
        edges.append((day, None if value is None else Decimal(str(value))))
    flags = row.values.get("flags") or ()
    comparable = not known.evidence.adjusted_only or "prices_adjusted_only" in flags
    if not comparable:
        tally.unchecked["prices in the text: the closes are adjusted for dividends"] += 1
    told = set()
    for day, shown in dict.fromkeys(edges):
        session = known.session(day)
        if session and session <= known.days[-1] and known.last_close_day(day) != session and day not in told:
            told.add(day)
            yield row.finding("missing close", f"of {session}")
        close = known.shown_close(day, start)
        if shown is not None and close is not None and comparable:
            tally.checked["prices against closes"] += 1
            if not _same_price(shown, close):
                yield row.finding("wrong price", f"{day}: {shown} instead of {close:.4f}")


def _same_price(shown: Decimal, close: Decimal) -> bool:
    """To the cent; to the decimals shown where there are more."""
    exponent = min(int(shown.as_tuple().exponent), -2)
    return abs(shown - close) <= Decimal("0.51").scaleb(exponent)


def _untrue_prices(row: _Row, known: _Known, start: date, end: date, tally: _Tally) -> Iterator[Finding]:
    """The first move over the row's weeks, past or target, that cannot be true, and that is doubtful."""
    spans = [(week.start, week.end) for week in row.facts.weeks] + [(start, end)]
    closes = [
        (known.last_close_day(first) or first, known.last_close_day(last) or last) for first, last in spans
    ]
    for kind, holds in (("untrue price", UntrueMove.spoils), ("doubtful price", UntrueMove.is_doubtful)):
        for move in known.untrue_moves:
            if any(holds(move, *span) for span in closes):
                yield row.finding(kind, f"closes of {move}")
                if kind == "untrue price":
                    tally.unchecked[f"weeks of {row.values['symbol']} over closes of {move}"] += 1
                break


def _outcome(row: _Row, known: _Known, start: date, end: date, tally: _Tally) -> Iterator[Finding]:
    """Label and return, derived again from adjusted closes."""
    prices, end_session = known.evidence.prices, known.session(end)
    if prices is None or end_session is None or known.days[-1] < end_session:
        yield row.finding("unfinished week", f"the last close is of {known.days[-1]}")
        return
    first_day, last_day = known.last_close_day(start), known.last_close_day(end)
    if first_day is None or last_day is None:
        return  # told as a missing close
    first, last = (Fraction(prices.closes[day].adjusted) for day in (first_day, last_day))
    if first <= 0:
        yield row.finding("missing close", f"that of {first_day} is {first}")
        return
    move_pct = 100 * (last - first) / first
    stated = row.values.get("weekly_return_pct")
    if stated is not None and abs(float(stated) - float(move_pct)) > 1e-4:
        yield row.finding("wrong return", f"{float(stated):.4f} % instead of {float(move_pct):.4f} %")
    label = row.label
    if isinstance(label, Label):
        tally.checked["labels against closes"] += 1
        # The return column has told a label that it contradicts.
        already = stated is not None and label not in _bins_near(float(stated))
        if label != _bin(move_pct) and not already:
            yield row.finding("wrong label", f"{label.text} for a return of {float(move_pct):.4f} %")


def _bin(move_pct: Fraction) -> Label:
    """Upper edges belong to the bin below, and no move is a rise, as published."""
    return Label("down" if move_pct < 0 else "up", min(max(ceil(abs(move_pct)) - 1, 0), 5))


def _bins_near(return_pct: float) -> set[Label]:
    """Bins of all returns that round to this one at four decimals."""
    middle, reach = Fraction(return_pct), Fraction(1, 20_000)
    return {_bin(middle - reach), _bin(middle), _bin(middle + reach)}


# --- splits -------------------------------------------------------------------------------------------------


def _span(row: _Row) -> _Span | None:
    start, _, end = row.period.partition(" to ")
    try:
        target_start, target_end = date.fromisoformat(start), date.fromisoformat(end)
    except ValueError:
        return None
    first_day = min([target_start, *(week.start for week in row.facts.weeks)])
    symbol = str(row.values["symbol"])
    return _Span(row.split, row.index, symbol, row.period, first_day, target_start, target_end)


def _straddling(spans: Sequence[_Span], tally: _Tally) -> Iterator[Finding]:
    """Training rows that reach into held-out weeks, all symbols taken together."""
    training = [span for span in spans if span.split == TRAINING_SPLIT]
    held_out = [span for span in spans if span.split not in (TRAINING_SPLIT, GAP_SPLIT)]
    if not training or not held_out:
        tally.unchecked["order of training and held-out weeks: there is only one of the two"] = len(spans)
        return
    tally.checked["training rows against held-out weeks"] = len(training)
    first_target = min(span.target_start for span in held_out)
    first_day = min(span.first_day for span in held_out)
    for span in training:
        if span.target_end > first_target:
            kind, detail = "straddled split", f"held-out weeks start on {first_target}"
        elif span.target_end > first_day:
            kind, detail = "no embargo", f"held-out prompts look back to {first_day}"
        else:
            continue
        yield Finding(kind, span.split, span.index, span.symbol, span.period, detail)


def _words(headline: str) -> str:
    return clean_text(headline).casefold()


def _moment(value: Any) -> datetime | None:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


# --- report -------------------------------------------------------------------------------------------------

EXAMPLES_PER_KIND = 10


def _verdict(report: AuditReport) -> str:
    if not report.passed:
        return f"Failed: {len(report.failures)} findings."
    rest = " Not everything could be compared: see below." if report.unchecked else ""
    return f"Passed: no leak and no error.{rest}"


def render_markdown(report: AuditReport, examples_per_kind: int = EXAMPLES_PER_KIND) -> str:
    """The report as a page: verdict, counts by kind, what was and was not compared, some findings of each."""
    counts = report.counts
    rows_of = {kind: len({(f.split, f.row) for f in report.findings if f.kind == kind}) for kind in counts}
    found = [
        [kind, KINDS[kind].severity, counts[kind], rows_of[kind], KINDS[kind].meaning]
        for kind in KINDS
        if counts[kind]
    ]
    verdict = _verdict(report)
    parts = ["# Audit", verdict]
    if found:
        parts.append(
            tabulate(found, headers=("kind", "class", "findings", "rows", "meaning"), tablefmt="github")
        )
    parts += ["## Compared", tabulate(report.checked.items(), headers=("what", "count"), tablefmt="github")]
    if report.unchecked:
        parts += [
            "## Not compared",
            tabulate(report.unchecked.items(), headers=("what, and why", "rows"), tablefmt="github"),
        ]
    for kind in (kind for kind in KINDS if counts[kind]):
        some = [finding for finding in report.findings if finding.kind == kind]
        lines = [
            f"- {f.split} {f.row}, {f.symbol}, {f.period}: {clean_text(f.detail)}"
            for f in some[:examples_per_kind]
        ]
        if len(some) > examples_per_kind:
            lines.append(f"- and {len(some) - examples_per_kind} more")
        parts += [f"## {kind[0].upper()}{kind[1:]}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"
