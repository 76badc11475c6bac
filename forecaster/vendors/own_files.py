"""News and prices that the user already has, as ledger calls.

Files are read row by row, and only what was asked for is kept, so that a file may be larger than memory.
Numbers keep the text of the file. Rows may stand in any order.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal, InvalidOperation
from email.utils import parsedate_to_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from forecaster.calls import Call, Request
from forecaster.errors import ConfigurationError, Problem
from forecaster.files import refuse_pointer, sha256_of
from forecaster.records import FIRST_YEAR, LAST_YEAR
from forecaster.tables import TextRow, column_names, text_rows
from forecaster.vendors.payloads import MOST_SPLIT, is_price
from indices import calendar_of, vendor_symbol, zone_of

NEWS_FILE, PRICE_FILE = "news-file", "price-file"
"""Endpoints of the calls that a file of the user's own stands for."""
FINNHUB_DUMP_COLUMNS = frozenset({"datetime", "headline", "source", "url", "summary"})
"""A file with all of these is read as answers of Finnhub's company-news."""
CUT_OFF_COUNTS = range(200, 261)
"""A dump with so many articles of a symbol was probably cut off: one answer holds about 250 at most and drops
the oldest, and dumps with advertising or repeats taken out hold a little fewer."""
MOST_ROWS_OF_ONE_ANSWER = 261
"""Of a symbol. Only a dump with no more than that is searched for strays."""
STRAY_DISTANCE = timedelta(days=30)
"""A gap this long in a dump of one answer sets strays, which are months or years older, apart from the asked
days."""
SMALLEST_WEEKLY_GAP = timedelta(days=5)
"""Between weekly bars, holidays included."""
EARLIEST_ARTICLE = datetime(1990, 1, 1, tzinfo=UTC)
LONGEST_SUMMARY_CHARACTERS = 2000
"""Of a full text only the beginning is kept: it is about as long as Finnhub's longest summaries."""

# In order of preference; names are compared in lower case, with "_" for a space.
_NEWS_COLUMNS = {
    "time": ("datetime", "published_at", "time", "date", "published_utc", "created_at"),
    "headline": ("headline", "title", "article_title"),
    "symbol": ("symbol", "ticker", "stock_symbol", "related", "symbols", "tickers"),
    "id": ("id",),
    "source": ("source", "publisher"),
    "url": ("url",),
}
_FULL_TEXT_COLUMNS = ("text", "article")
# FNSPID has four extracts of the article's text, any of which may be empty, and the text itself.
_SUMMARY_COLUMNS = (
    "summary",
    "textrank_summary",
    "lexrank_summary",
    "luhn_summary",
    "lsa_summary",
    "description",
    *_FULL_TEXT_COLUMNS,
)
_NEWS_HELP = (
    "A news file needs datetime, headline, source, url, summary (Finnhub; without a symbol or related column "
    "its name begins with the ticker, as in AAPL_week1.csv), or Date, Article_title, Stock_symbol (FNSPID), "
    "or one of date, datetime, published_at, time, one of headline, title, and one of symbol, ticker. Rename "
    "the columns."
)
TIME_HELP = (
    "Times are unix seconds or milliseconds, ISO 8601 (in UTC where no offset is given), YYYYMMDDHHMMSS (New "
    "York time), or as in e-mails; a headline is needed too."
)
_PRICE_HELP = (
    "A price file needs a date column, and either one column per ticker (AAPL, or close_AAPL) of adjusted "
    "closes, or the columns symbol (or ticker) and close, and if known adj_close (or adj close, adj._close, "
    "adjclose, adjusted_close, in any case) and split (or stock_splits). Without an adjusted column, close "
    "is taken as adjusted, and there must be no split column. Rename the columns."
)
_ADJUSTED_CLOSE = frozenset({"adjclose", "adjustedclose"})
"""Without spaces, underscores and dots."""
_FORMATS = (".csv", ".jsonl", ".parquet")
_UNIX_SECONDS = re.compile(r"(\d{9,10})(?:\.\d*)?")
_UNIX_PARTS = re.compile(r"(\d{9,10})(?:\d{3}|\d{6}|\d{9})(?:\.0*)?")
"""Thousandths of a second, or of those, or of these in turn."""
_RUN_TOGETHER = re.compile(r"((?:19|20)\d{6})(\d{4}(?:\d\d)?)(?:\.0*)?")
"""YYYYMMDDHHMM or with seconds, as FinGPT's scripts write New York's time."""
_NAMED_ZONE = re.compile(r"(.+\d)\s*(UTC|GMT|ET|EST|EDT)")
_ZONES = {
    **dict.fromkeys(("UTC", "GMT"), UTC),
    "ET": ZoneInfo("America/New_York"),
    "EST": timezone(timedelta(hours=-5)),
    "EDT": timezone(timedelta(hours=-4)),
}
_AS_IN_EMAILS = re.compile(r"(?:[A-Za-z]{3}, *)?\d{1,2} [A-Za-z]{3} \d{4} \d\d:\d\d(?::\d\d)? \S+")
_SYMBOLS = re.compile(r"[A-Z0-9^][A-Z0-9.^=-]*(?:/[ABC](?![A-Z0-9]))?")
"""In a list, with whatever brackets, quotes and signs between them."""
_TICKER = re.compile(r"[A-Z0-9^][A-Z0-9.^=-]*")
_VENDOR_ID = re.compile(r"0*[1-9]\d*")
"""Other ids (0, -1, nan, a rounded 1.35e+08) stand at many articles."""
_MISSING = frozenset({"", "nan", "nat", "null", "none", "na", "n/a"})
_NO_SYMBOL = frozenset({"NONE", "NULL"})
"""Unlike NAN and NA, which are tickers."""
_MOST_PROBLEMS = 10
_MOST_SHOWN = 40


@dataclass(frozen=True)
class Imported:
    """What a file gave, and what it did not."""

    calls: list[Call]
    """One per symbol, sorted by symbol."""
    rows: int
    """In the file, symbols that were not asked for included."""
    skipped: dict[str, int]
    """Rows left out, by reason; a row with several symbols counts for each. An "older stray" is in the
    payload of its call, but outside the window and so out of use."""
    unusable: Mapping[str, str] = field(default_factory=dict)
    """What became of the rows of symbols that have some but no usable one, by symbol."""


# --- news ---------------------------------------------------------------------------------------------------


def read_news_file(
    path: Path, symbols: Collection[str] | None = None, now: datetime | None = None
) -> Imported:
    """Articles of a file as `news-file` calls, oldest article first.

    Times without an offset are UTC, but for YYYYMMDDHHMMSS, which is New York's. A written time of exactly
    midnight, or a date alone, only names a day: such an article counts as published at the end of that day,
    23:59:59.

    A call's window runs from the day of the oldest article to the day of the newest. In a Finnhub dump with
    no more of a symbol than one answer (`MOST_ROWS_OF_ONE_ANSWER`), it starts after the last gap of
    `STRAY_DISTANCE` or more, because such answers hold strays that are months or years older; the strays stay
    in the payload and are counted. A call counts as fetched one second after its newest article: nothing is
    claimed about later times.

    Args:
        symbols: the vendor's symbols to keep; None keeps all.
        now: UTC; articles dated more than a day later are left out. None is the time of the call.

    Raises:
        ConfigurationError: no such file, not readable, needed columns missing, or no usable article.
    """
    latest = (now or datetime.now(UTC)) + timedelta(days=1)
    wanted = None if symbols is None else frozenset(symbols)
    with _problems_told(path, "--news_file"):
        names = column_names(path)
        form = _news_form(path, names)
        skipped: Counter[str] = Counter()
        articles: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        rows_of: Counter[str] = Counter()
        lost = _LostRows()
        rows = 0
        for row in text_rows(path, names, form.columns):
            rows += 1
            if row is None:
                skipped["unreadable row"] += 1
                lost.count("", "unreadable row")
                continue
            for symbol in form.symbols_of(row) or [""]:
                article = _article_or_reason(form, row, symbol, wanted, latest)
                if isinstance(article, str):
                    skipped[article] += 1
                    lost.count(symbol, article, row.get(form.by_role["time"], ""))
                    continue
                rows_of[symbol] += 1
                skipped["repeated"] += article["id"] in articles[symbol]
                articles[symbol].setdefault(article["id"], article)
        if not articles and not skipped["symbol not asked for"]:
            found = f"none of its {rows} rows is {lost.told(lost.by_symbol)}." if rows else "it has no rows."
            raise ConfigurationError([Problem(f"--news_file {path}", found, TIME_HELP)])
        variant = digest(path)
    calls = []
    for symbol in sorted(articles):
        kept = list(articles[symbol].values())
        call, strays = _news_call(symbol, kept, variant, rows_of[symbol], form.is_dump)
        calls.append(call)
        skipped["older stray"] += strays
    unusable = {
        symbol: f"none of {symbol}'s {lost.rows_of(symbol)} rows is {lost.told([symbol])}"
        for symbol in sorted(lost.by_symbol.keys() - articles.keys() - {""})
    }
    return Imported(
        calls, rows, {reason: count for reason, count in sorted(skipped.items()) if count}, unusable
    )


@dataclass
class _LostRows:
    """Rows of symbols that were asked for and that are no usable article, by symbol and reason."""

    by_symbol: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unreadable_time: dict[str, str] = field(default_factory=dict)
    """The first of each symbol."""

    def count(self, symbol: str, reason: str, time_text: str = "") -> None:
        if reason == "symbol not asked for":
            return
        self.by_symbol[symbol][reason] += 1
        if reason == "no time" and time_text.strip():
            self.unreadable_time.setdefault(symbol, time_text.strip()[:40])

    def rows_of(self, symbol: str) -> int:
        return self.by_symbol[symbol].total()

    def told(self, symbols: Iterable[str]) -> str:
        """What the rows of these symbols are not, and why."""
        reasons = sum((self.by_symbol[symbol] for symbol in symbols), Counter())
        shown = next((self.unreadable_time[name] for name in symbols if name in self.unreadable_time), "")
        counts = [
            f"{count} with {reason}" + (f", such as {shown!r}" if shown and reason == "no time" else "")
            for reason, count in sorted(reasons.items())
        ]
        return f"a usable article ({', '.join(counts)})"


@dataclass(frozen=True)
class _NewsForm:
    """Where the columns of a news file are; an empty name is a column that it does not have."""

    by_role: Mapping[str, str]
    summaries: tuple[str, ...]
    file_symbol: str
    """From the file's name, for dumps only."""
    is_dump: bool

    @property
    def columns(self) -> list[str]:
        return [name for name in (*self.by_role.values(), *self.summaries) if name]

    def symbols_of(self, row: TextRow) -> list[str]:
        text = row.get(self.by_role["symbol"], "").strip() or self.file_symbol
        return sorted({vendor_symbol(part) for part in _SYMBOLS.findall(text.upper())} - _NO_SYMBOL)

    def article_of(self, row: TextRow, symbol: str) -> dict[str, Any]:
        """As the ledger keeps it; without a readable time, `datetime` is None."""
        values = {role: row.get(name, "").strip() for role, name in self.by_role.items()}
        published = _published_at(values["time"])
        vendor_id = values["id"] if self.is_dump and _VENDOR_ID.fullmatch(values["id"]) else ""
        words = f"{symbol}\n{published}\n{values['headline']}".encode("utf-8", "surrogatepass")
        return {
            "id": f"finnhub:{vendor_id}" if vendor_id else f"file:{hashlib.sha256(words).hexdigest()[:16]}",
            "datetime": published,
            "headline": values["headline"],
            "summary": self._summary_of(row),
            "source": values["source"],
            "url": values["url"],
        }

    def _summary_of(self, row: TextRow) -> str:
        for name in self.summaries:
            if text := row[name].strip():
                if _plain(name) not in _FULL_TEXT_COLUMNS or len(text) <= LONGEST_SUMMARY_CHARACTERS:
                    return text
                beginning = text[:LONGEST_SUMMARY_CHARACTERS]
                return beginning.rpartition(" ")[0] or beginning
        return ""


def _news_form(path: Path, names: Sequence[str]) -> _NewsForm:
    plain = _by_plain_name(names)
    is_dump = plain.keys() >= FINNHUB_DUMP_COLUMNS
    by_role = {
        role: next((plain[alias] for alias in aliases if alias in plain), "")
        for role, aliases in _NEWS_COLUMNS.items()
    }
    first_part = path.stem.split("_")[0]
    file_symbol = first_part if is_dump and _TICKER.fullmatch(first_part) else ""
    missing = [role for role in ("time", "headline", "symbol") if not by_role[role]]
    if file_symbol and "symbol" in missing:
        missing.remove("symbol")
    if missing:
        found = f"no column for {', '.join(missing)}; its columns are {_listed(names)}."
        raise ConfigurationError([Problem(f"--news_file {path}", found, _NEWS_HELP)])
    summaries = tuple(plain[name] for name in _SUMMARY_COLUMNS if name in plain)
    return _NewsForm(by_role, summaries, file_symbol, is_dump)


def _article_or_reason(
    form: _NewsForm, row: TextRow, symbol: str, wanted: frozenset[str] | None, latest: datetime
) -> dict[str, Any] | str:
    """The article of a row, or why it is left out."""
    if not symbol:
        return "no symbol"
    if wanted is not None and symbol not in wanted:
        return "symbol not asked for"
    article = form.article_of(row, symbol)
    if article["datetime"] is None:
        return "no time"
    if article["datetime"] > latest.timestamp():
        return "a time in the future"
    return article if article["headline"] else "no headline"


def _published_at(text: str) -> int | None:
    """Unix seconds, rounded down; None for what cannot be read or lies before 1990."""
    try:
        if match := _RUN_TOGETHER.fullmatch(text):
            written = datetime.strptime(match[1] + match[2].ljust(6, "0"), "%Y%m%d%H%M%S")
            moment = written.replace(tzinfo=_ZONES["ET"])
        elif match := _UNIX_SECONDS.fullmatch(text) or _UNIX_PARTS.fullmatch(text):
            seconds = int(match[1])
            return seconds if seconds >= EARLIEST_ARTICLE.timestamp() else None
        else:
            moment = _moment_of(text)
        if moment.time() == time.min:
            moment += timedelta(hours=23, minutes=59, seconds=59)
        seconds = int(moment.timestamp())
    except (ValueError, OverflowError):
        return None
    return seconds if seconds >= EARLIEST_ARTICLE.timestamp() else None


def _moment_of(text: str) -> datetime:
    """A time in ISO 8601, with the name of its zone or without, or as in e-mails; raises ValueError."""
    named = _NAMED_ZONE.fullmatch(text)
    try:
        moment = datetime.fromisoformat(named[1] if named else text)
    except ValueError:
        if not _AS_IN_EMAILS.fullmatch(text):
            raise
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None and not text.endswith("-0000"):
            raise  # the name of a zone that is not known: its time may be hours off
    return moment if moment.tzinfo else moment.replace(tzinfo=_ZONES[named[2]] if named else UTC)


def _news_call(
    symbol: str, articles: list[dict[str, Any]], variant: str, row_count: int, is_dump: bool
) -> tuple[Call, int]:
    """The call, and how many of its articles are strays."""
    articles.sort(key=lambda article: (article["datetime"], article["id"]))
    times = [datetime.fromtimestamp(article["datetime"], UTC) for article in articles]
    strays = 0
    if is_dump and row_count <= MOST_ROWS_OF_ONE_ANSWER:
        for at, (earlier, later) in enumerate(pairwise(times), start=1):
            if later - earlier >= STRAY_DISTANCE:
                strays = at
    call = Call(
        Request(NEWS_FILE, symbol, str(times[strays].date()), str(times[-1].date()), variant),
        "answered",
        times[-1] + timedelta(seconds=1),
        articles,
        len(articles),
        is_dump and row_count in CUT_OFF_COUNTS,
    )
    return call, strays


# --- prices -------------------------------------------------------------------------------------------------


def read_price_file(path: Path, symbols: Collection[str] | None = None) -> Imported:
    """Daily closes of a file as `price-file` calls.

    A moment (a time with an offset) is of the day that it has at the symbol's exchange; only where that gives
    days of a weekend, or the bars are of a week or more and all at midnight, and the written days are of no
    weekend, these count.

    Closes without adjusted closes beside them are taken as adjusted ones, and the payload says so
    (`adjusted_only`). A day whose close or adjusted close is empty is listed as missing. A call counts as
    fetched when its last day had ended, UTC.

    Args:
        symbols: the vendor's symbols to keep; None keeps all.

    Raises:
        ConfigurationError: no such file, not readable, needed columns missing, or rows with an unreadable
            day, a price that is no positive number, or a second price for a day.
    """
    with _problems_told(path, "--price_file"):
        names = column_names(path)
        form = _price_form(path, names, symbols)
        prices = _Prices(None if symbols is None else frozenset(symbols))
        rows = 0
        for row in text_rows(path, names, form.columns):
            rows += 1
            prices.take(rows, form, row)
        if not rows:
            prices.problems.append(("", "it has no rows."))
        elif symbols is None and not prices.problems and not any(prices.bars.values()):
            prices.problems.append(("", "it has no price."))
        if prices.problems:
            raise ConfigurationError(_price_problems(path, prices.problems))
        for symbol in prices.written:
            prices.take_dates_for_midnights(symbol)
        variant = digest(path)
    calls = [_price_call(symbol, prices, variant, form.adjusted_only) for symbol in sorted(prices.bars)]
    return Imported(calls, rows, {"symbol not asked for": prices.others} if prices.others else {})


@dataclass(frozen=True)
class _PriceForm:
    """Where the columns of a price file are; an empty name is a column that it does not have."""

    day: str
    tickers: Mapping[str, str]
    """Column to ticker, for a file with a column per ticker."""
    symbol: str = ""
    close: str = ""
    adjusted: str = ""
    split: str = ""

    @property
    def columns(self) -> list[str]:
        named = (self.day, self.symbol, self.close, self.adjusted, self.split, *self.tickers)
        return [name for name in named if name]

    @property
    def adjusted_only(self) -> bool:
        return not self.adjusted

    def cells(self, row: TextRow) -> Iterator[tuple[str, str, str, str]]:
        """Symbol, close, adjusted close and split of a row, as text."""
        for column, ticker in self.tickers.items():
            yield vendor_symbol(ticker), row[column], row[column], ""
        if self.symbol:
            close = row[self.close]
            yield (
                vendor_symbol(row[self.symbol].strip().upper()),
                close,
                row[self.adjusted] if self.adjusted else close,
                row[self.split] if self.split else "",
            )


@dataclass
class _Prices:
    """What was read so far."""

    symbols: frozenset[str] | None
    bars: dict[str, dict[date, tuple[str, str]]] = field(default_factory=lambda: defaultdict(dict))
    missing: dict[str, set[date]] = field(default_factory=lambda: defaultdict(set))
    splits: dict[str, dict[date, str]] = field(default_factory=lambda: defaultdict(dict))
    written: dict[str, dict[date, date]] = field(default_factory=lambda: defaultdict(dict))
    """Days of moments, to the days on which they were written, where these are others."""
    timed: set[str] = field(default_factory=set)
    """Symbols with such a moment that is no midnight where it was written."""
    others: int = 0
    """Rows of symbols that were not asked for."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """Where, and what was found."""

    def take(self, number: int, form: _PriceForm, row: TextRow | None) -> None:
        where = f"row {number}"
        if row is None:
            self.problems.append((where, "it does not have the fields that the first line names."))
            return
        moment = _stamp_of(row[form.day])
        for symbol, *texts in form.cells(row):
            if self.symbols is not None and symbol not in self.symbols:
                self.others += 1
            elif not symbol:
                self.problems.append((where, "it names no symbol."))
            elif moment is None:
                self.problems.append((where, f"{_shown(row[form.day])} is no day."))
                return
            else:
                day = _session_of(moment, symbol)
                if day != moment.date():
                    self.written[symbol][day] = moment.date()
                    if moment.time() != time.min:
                        self.timed.add(symbol)
                self._take_bar(where, symbol, day, *texts)

    def _take_bar(self, where: str, symbol: str, day: date, close: str, adjusted: str, split: str) -> None:
        close, adjusted, split = close.strip(), adjusted.strip(), split.strip()
        bars = self.bars[symbol]
        if split.lower() not in _MISSING:
            ratio = _number(split)
            if ratio is None or not 0 <= ratio <= MOST_SPLIT:
                self.problems.append((where, f"{symbol}'s split on {day} is {_shown(split)}."))
            elif ratio not in (0, 1):
                self.splits[symbol][day] = split
        if close.lower() in _MISSING or adjusted.lower() in _MISSING:
            self.missing[symbol].add(day)
            return
        for text in dict.fromkeys((close, adjusted)):
            price = _number(text)
            if price is None or not is_price(price):
                self.problems.append((where, f"{symbol}'s price on {day} is {_shown(text)}."))
                return
        if day in bars:
            self.problems.append((where, f"it is a second price of {symbol} on {day}."))
        bars[day] = (close, adjusted)

    def take_dates_for_midnights(self, symbol: str) -> None:
        """Go by the written days of a symbol where these hold no weekend, and its days by the exchange's zone
        do, or they are bars of a week or more, all at midnight: a day alone was then written as a moment
        of it. Fridays at midnight, UTC, are Thursdays at the exchange, which are no weekend."""
        written = self.written[symbol]
        days = self.bars[symbol].keys() | self.missing[symbol]
        if calendar_of(symbol) == "24/7" or not (
            any(map(_is_weekend, days)) or (symbol not in self.timed and _are_weeks_apart(days))
        ):
            return
        if any(_is_weekend(written.get(day, day)) for day in days):
            return
        self.bars[symbol] = {written.get(day, day): bar for day, bar in self.bars[symbol].items()}
        self.missing[symbol] = {written.get(day, day) for day in self.missing[symbol]}
        self.splits[symbol] = {written.get(day, day): ratio for day, ratio in self.splits[symbol].items()}


def _are_weeks_apart(days: Collection[date]) -> bool:
    gaps = [later - day for day, later in pairwise(sorted(days))]
    return bool(gaps) and min(gaps) >= SMALLEST_WEEKLY_GAP


def _is_weekend(day: date) -> bool:
    return day.weekday() > 4


def _price_form(path: Path, names: Sequence[str], symbols: Collection[str] | None) -> _PriceForm:
    plain = _by_plain_name(names)
    day = plain.get("date", "")
    symbol = plain.get("symbol") or plain.get("ticker") or ""
    close = plain.get("close", "")
    split = plain.get("split") or plain.get("stock_splits") or ""
    adjusted, doubt = _adjusted_column(names, split)
    tickers: dict[str, str] = {}
    found = ""
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        found = f"{_listed(repeated)} stands there twice"
    elif not day:
        found = "no date column"
    elif symbol or close:
        found = doubt if symbol and close else f"no {'close' if symbol else 'symbol'} column"
    else:
        prefix = "close_" if any(name.startswith("close_") for name in names) else ""
        # An unnamed column is the row number that pandas writes.
        tickers = {
            name: name.removeprefix(prefix)
            for name in names
            if name.startswith(prefix) and name != day and name and not name.startswith("Unnamed:")
        }
        strangers = [name for name, ticker in tickers.items() if not _TICKER.fullmatch(ticker)]
        if strangers or not tickers:
            found = f"{_listed(strangers)} is no ticker" if strangers else "no column of prices"
    if found:
        problem = f"{found}; its columns are {_listed(names)}."
        raise ConfigurationError([Problem(f"--price_file {path}", problem, _PRICE_HELP)])
    if symbols is not None:
        # Columns that nobody asked for need not be read.
        tickers = {name: ticker for name, ticker in tickers.items() if vendor_symbol(ticker) in symbols}
    return _PriceForm(day, tickers, symbol, close, adjusted, split)


def _adjusted_column(names: Sequence[str], split: str) -> tuple[str, str]:
    """The column of adjusted closes, "" for none, and what is doubtful about it in a file with a `close`.

    Raw closes must not pass for adjusted ones: a split would look like a crash.
    """
    plain = {name: re.sub(r"[\s_.]", "", name).lower() for name in names}
    adjusted = [name for name in names if plain[name] in _ADJUSTED_CLOSE]
    others = [name for name in names if plain[name].startswith("adj")]
    if len(adjusted) > 1:
        return "", f"{_listed(adjusted)} all name the adjusted close"
    if adjusted:
        return adjusted[0], ""
    if others:
        return "", f"{_listed(others)} is not known as an adjusted close"
    return "", f"there is {split!r} but no adjusted close" if split else ""


def _price_call(symbol: str, prices: _Prices, variant: str, adjusted_only: bool) -> Call:
    bars, splits = prices.bars[symbol], prices.splits[symbol]
    missing = prices.missing[symbol] - bars.keys()
    days = sorted(bars.keys() | missing)
    payload = {
        "bars": [
            {"day": str(day), "close": close, "adj_close": adjusted}
            for day, (close, adjusted) in sorted(bars.items())
        ],
        "splits": [{"day": str(day), "ratio": ratio} for day, ratio in sorted(splits.items())],
        "missing_days": [str(day) for day in sorted(missing)],
        "adjusted_only": adjusted_only,
    }
    return Call(
        Request(PRICE_FILE, symbol, str(days[0]), str(days[-1]), variant),
        "answered",
        datetime.combine(days[-1] + timedelta(days=1), time.min, UTC),
        payload,
        len(bars),
    )


def _price_problems(path: Path, found: Sequence[tuple[str, str]]) -> list[Problem]:
    way_out = "Each day has one positive price in digits, its date as 2026-01-30; mend the file."
    problems = [
        Problem(f"--price_file {path}{', ' if where else ''}{where}", text, way_out)
        for where, text in found[:_MOST_PROBLEMS]
    ]
    if (more := len(found) - _MOST_PROBLEMS) > 0:
        problems.append(Problem(f"--price_file {path}", f"{more} more rows with such a fault.", way_out))
    return problems


def _shown(text: str) -> str:
    """A cell in a message, however long it is."""
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")


def _stamp_of(text: str) -> datetime | None:
    """A day, or a moment of one, as it is written; None for what is none, or none that a price can be of."""
    try:
        stamp = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return stamp if FIRST_YEAR <= stamp.year <= LAST_YEAR else None


def _session_of(stamp: datetime, symbol: str) -> date:
    """The day that a stamp is of: a moment's is that of the symbol's exchange."""
    return stamp.astimezone(zone_of(symbol)).date() if stamp.tzinfo else stamp.date()


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


# --- files --------------------------------------------------------------------------------------------------


@contextmanager
def _problems_told(path: Path, flag: str) -> Iterator[None]:
    """Tells what a reader raises about a file as a problem of the configuration."""
    where = f"{flag} {path}"
    way_out = f"Give a {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file, text as UTF-8."
    if path.suffix.lower() not in _FORMATS:
        found = f"its name ends in {path.suffix!r}." if path.suffix else "its name has no ending."
        raise ConfigurationError([Problem(where, found, way_out)])
    try:
        if path.stat().st_size == 0:
            raise ConfigurationError([Problem(where, "it is empty.", way_out)])
        refuse_pointer(path, where)
        yield
    except UnicodeDecodeError as error:
        found = f"it is not UTF-8 (byte {error.object[error.start : error.start + 1]!r})."
        raise ConfigurationError([Problem(where, found, way_out)]) from error
    # Of pyarrow, for moments that no calendar or no clock of Python reaches.
    except (ValueError, OverflowError) as error:
        if isinstance(error, pa.ArrowException):
            found = f"it is no parquet file ({error})."
        else:
            found = f"it holds a value that cannot be read ({error})."
        raise ConfigurationError([Problem(where, found, way_out)]) from error
    except OSError as error:
        found = f"it cannot be read ({error.strerror or error})."
        raise ConfigurationError([Problem(where, found, way_out)]) from error
    except csv.Error as error:
        raise ConfigurationError([Problem(where, f"it is no proper csv ({error}).", way_out)]) from error
    except pa.ArrowException as error:
        raise ConfigurationError([Problem(where, f"it is no parquet file ({error}).", way_out)]) from error


def _by_plain_name(names: Sequence[str]) -> dict[str, str]:
    """Names in lower case with "_" for a space, to the names in the file."""
    return {_plain(name): name for name in reversed(names)}


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(repr(name) for name in names[:20])
    return f"{text} and {len(names) - 20} more" if len(names) > 20 else text or "none"


def digest(path: Path) -> str:
    """The `variant` of a file's calls: the first 16 hex characters of its SHA-256.

    Raises:
        OSError: it cannot be read.
    """
    return sha256_of(path)[:16]
