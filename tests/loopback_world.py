"""Invented companies for the loopback market: their news, prices and filings, all derived from a seed.

Nothing is stored: the articles of a day, and the prices of a symbol, are made when they are asked for, and
come out the same each time. What a test wants to see in particular, it plants.
"""

from __future__ import annotations

import math
import random
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any

# Shares of the articles of real dumps of 2026 by UTC hour, and by day of the week, rounded.
_HOUR_WEIGHTS = (2, 2, 1, 2, 2, 1, 2, 4, 4, 5, 5, 6, 7, 8, 8, 7, 7, 6, 6, 4, 4, 4, 3, 2)
_WEEKDAY_FACTORS = (1.3, 1.3, 1.3, 1.3, 1.3, 0.25, 0.25)

ADVERTISING = "Looking for stock market analysis and research with proves results?"

MACRO_SYMBOLS = ("^GSPC", "^VIX", "^TNX", "DX-Y.NYB", "CL=F")
_XETR_SUFFIXES = (".DE", ".PA", ".AS", ".BR", ".MC", ".MI", ".HE")
_TIME_ZONES = {"XNYS": "America/New_York", "XETR": "Europe/Berlin", "24/7": "UTC"}

_SOURCES = ("Wire One", "Market Ledger", "The Daily Ticker", "Street Notes", "Capital Desk", "Open Bell")
_SUBJECTS = (
    "{name}",
    "{name} management",
    "The board of {name}",
    "{symbol} shares",
    "{name}'s largest unit",
    "A supplier of {name}",
    "{name} and a smaller rival",
    "The finance chief of {name}",
)
_EVENTS = (
    "outlines a plan for {thing}",
    "draws new attention over {thing}",
    "reports progress in {thing}",
    "faces questions about {thing}",
    "signs a contract for {thing}",
    "pauses work on {thing}",
    "raises its budget for {thing}",
    "surprises analysts with {thing}",
    "loses a tender for {thing}",
    "settles a dispute over {thing}",
)
_THINGS = (
    "its cloud business",
    "a second factory",
    "lower freight costs",
    "a battery project",
    "the autumn product line",
    "a share buyback",
    "payment software",
    "warehouse robots",
    "drug trials",
    "long-dated debt",
    "subscription prices",
    "chip supply",
    "export licences",
    "hiring in Asia",
    "water use at its sites",
    "customer churn",
)
_TAILS = (
    "worth {number} million dollars",
    "after {number} months of talks",
    "in {number} markets",
    "as {number} stores reopen",
    "before meeting number {number}",
    "with {number} partners",
    "for {number} new clients",
    "says desk note {number}",
)
_BODIES = (
    "People close to the matter put the effect at {number} million dollars over two years.",
    "A survey of {number} fund managers found opinions evenly divided.",
    "The company gave no comment beyond a short statement to the exchange.",
    "Volume reached {number} thousand contracts in the options market, more than on a usual day.",
    "One broker kept its target and called the step overdue.",
    "Costs rose in {number} of the regions that the company reports on.",
    "Rivals have tried the same and withdrew within {number} weeks.",
    "The next report will show whether margins follow.",
    "Around {number} employees move to the new unit.",
    "Lenders extended the credit line on unchanged terms.",
)
_INDUSTRIES = ("Technology", "Retail", "Health Care", "Energy", "Banking", "Media", "Machinery", "Utilities")
_METRICS: Mapping[str, tuple[float, float]] = {
    "assetTurnoverTTM": (0.2, 1.5),
    "bookValue": (2_000, 90_000),
    "cashRatio": (0.1, 1.2),
    "currentRatio": (0.7, 3.0),
    "ebitPerShare": (-0.5, 6.0),
    "eps": (-0.5, 5.0),
    "grossMargin": (0.1, 0.8),
    "longtermDebtTotalAsset": (0.0, 0.5),
    "netMargin": (-0.1, 0.4),
    "operatingMargin": (-0.1, 0.5),
    "quickRatio": (0.5, 2.5),
    "roeTTM": (-0.1, 0.6),
    "salesPerShare": (1.0, 40.0),
    "totalDebtToEquity": (0.0, 2.5),
}


@dataclass(frozen=True)
class Planted:
    """An article that a test puts there."""

    published_at: datetime
    """Timezone-aware."""
    headline: str
    summary: str = "A summary that a test planted."


@dataclass(frozen=True)
class World:
    """What the vendors know. Finnhub knows `symbols`; Yahoo knows them and `MACRO_SYMBOLS`, less `dead`."""

    symbols: tuple[str, ...]
    first_day: date
    """First day with generated news: there is none before, as where a free plan ends."""
    last_day: date
    """Last day of everything."""
    seed: int = 1
    articles_per_week: float = 20.0
    rates: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    """Articles per week for some symbols; a sequence gives one rate for each seven days from `first_day`."""
    planted: Mapping[str, Sequence[Planted]] = field(default_factory=dict)
    """More articles, of any day, first or last."""
    stray_every: int = 20
    """About one news answer in so many holds an article from outside its window; 0 for none."""
    dead: frozenset[str] = frozenset()
    """Symbols that Yahoo no longer serves."""
    no_access: frozenset[str] = frozenset()
    """Symbols, or endpoints such as `stock/metric`, that Finnhub's plan does not include."""
    prices_from: date | None = None
    """First day with prices; 400 days before `first_day` when None."""
    last_bars: Mapping[str, date] = field(default_factory=dict)
    """Last day with a price, for symbols that stop before `last_day`."""
    closes: Mapping[str, Mapping[date, float | None]] = field(default_factory=dict)
    """Yahoo's Close (in shares of today) for some days; None for a bar of nulls."""
    splits: Mapping[str, Mapping[date, int | Fraction]] = field(default_factory=dict)
    """New shares for one old share, by the first day on which they trade."""
    dividends: Mapping[str, Mapping[date, float]] = field(default_factory=dict)
    """Dollars per share of today, by ex-day."""
    accepted: Mapping[str, Mapping[date, datetime | None]] = field(default_factory=dict)
    """Acceptance in New York time, without zone, by quarter end; None for a filing that the vendor lacks."""

    # --- news -----------------------------------------------------------------------------------------------

    def articles(self, symbol: str, day: date) -> list[dict[str, Any]]:
        """Finnhub's articles of one UTC day, oldest first."""
        found = [] if not self.first_day <= day <= self.last_day else self._generated(symbol, day)
        base = self._id_base(symbol) + 500_000_000
        for number, planted in enumerate(self.planted.get(symbol, ())):
            moment = planted.published_at.astimezone(UTC)
            if moment.date() == day:
                texts = (planted.headline, planted.summary, "Planted")
                found.append(_article(symbol, base + number, int(moment.timestamp()), *texts))
        return sorted(found, key=lambda article: (article["datetime"], article["id"]))

    def newest_first(self, symbol: str, first: date, last: date) -> Iterator[dict[str, Any]]:
        """Articles of UTC days, both included."""
        moments = [planted.published_at.astimezone(UTC) for planted in self.planted.get(symbol, ())]
        oldest = min([self.first_day, *(moment.date() for moment in moments)])
        newest = max([self.last_day, *(moment.date() for moment in moments)])
        day = min(last, newest)
        while day >= max(first, oldest):
            yield from reversed(self.articles(symbol, day))
            day -= timedelta(days=1)

    def article_ids(self, symbol: str) -> set[int]:
        """Of every article of the world."""
        return {article["id"] for article in self.newest_first(symbol, date.min, date.max)}

    def rate(self, symbol: str, day: date) -> float:
        """Articles per week around `day`."""
        rate = self.rates.get(symbol, self.articles_per_week)
        if isinstance(rate, int | float):
            return rate
        return rate[min((day - self.first_day).days // 7, len(rate) - 1)]

    def news_answer(self, symbol: str, first: date, last: date) -> list[dict[str, Any]]:
        """What Finnhub answers: newest first, the oldest left out beyond 230 to 250, now and then a stray."""
        if symbol not in self.symbols:
            return []
        limit = 230 + _number(self.seed, "limit", symbol, first, last) % 21
        answer = []
        for article in self.newest_first(symbol, first, last):
            if len(answer) == limit:
                break
            answer.append(article)
        if self.stray_every and _number(self.seed, "stray", symbol, first, last) % self.stray_every == 0:
            answer.append(self._stray(symbol, first, last))
        return sorted(answer, key=lambda article: (-article["datetime"], article["id"]))

    def _stray(self, symbol: str, first: date, last: date) -> dict[str, Any]:
        """An article from years or weeks before the window, or from the day after it."""
        dice = random.Random(f"{self.seed}/stray/{symbol}/{first}/{last}")
        days_before = dice.choice([-1, dice.randint(20, 90), dice.randint(700, 2500)])
        day = last + timedelta(days=1) if days_before < 0 else first - timedelta(days=days_before)
        if days_before < 700 and (there := self.articles(symbol, day)):
            return there[0]
        number = self._id_base(symbol) + 900_000_000 + dice.randrange(90_000_000)
        return self._invented(symbol, number, int(_midnight(day).timestamp()) + dice.randrange(86_400), dice)

    def _generated(self, symbol: str, day: date) -> list[dict[str, Any]]:
        dice = random.Random(f"{self.seed}/news/{symbol}/{day}")
        mean = self.rate(symbol, day) / 7 * _WEEKDAY_FACTORS[day.weekday()]
        count = max(0, math.floor(dice.gauss(mean, math.sqrt(mean)) + 0.5))
        midnight, base = (
            int(_midnight(day).timestamp()),
            self._id_base(symbol) + day.toordinal() % 40_000 * 10_000,
        )
        hours = dice.choices(range(24), _HOUR_WEIGHTS, k=count)
        times = sorted(midnight + hour * 3600 + dice.randrange(3600) for hour in hours)
        found: list[dict[str, Any]] = []
        for number, moment in enumerate(times):
            article = self._invented(symbol, base + number, moment, dice)
            if found and dice.random() < 0.04:
                article["headline"] = dice.choice(found)["headline"]
            found.append(article)
        return found

    def _invented(self, symbol: str, number: int, moment: int, dice: random.Random) -> dict[str, Any]:
        words = {"name": company_name(symbol), "symbol": symbol, "thing": dice.choice(_THINGS)}
        headline = " ".join(map(dice.choice, (_SUBJECTS, _EVENTS, _TAILS)))
        headline = headline.format(**words, number=dice.randrange(2, 1000))
        kind = dice.random()
        if kind < 0.04:
            summary = ""
        elif kind < 0.06:
            summary = f"{ADVERTISING} Ask desk {number % 97} for a trial."
        else:
            sentences = dice.sample(_BODIES, k=dice.randint(1, 3))
            summary = " ".join(sentence.format(number=dice.randrange(2, 1000)) for sentence in sentences)
        return _article(symbol, number, moment, headline, summary, dice.choice(_SOURCES))

    def _id_base(self, symbol: str) -> int:
        return (self.symbols.index(symbol) + 1) * 1_000_000_000

    # --- prices ---------------------------------------------------------------------------------------------

    def is_priced(self, symbol: str) -> bool:
        return symbol in {*self.symbols, *MACRO_SYMBOLS} - self.dead

    def bars(self, symbol: str) -> dict[date, float | None]:
        """Yahoo's Close by session; None for a bar of nulls."""
        first = self.prices_from or self.first_day - timedelta(days=400)
        last = min(self.last_day, self.last_bars.get(symbol, self.last_day))
        days = tuple(day for day in sessions(calendar_of(symbol)) if first <= day <= last)
        planted = self.closes.get(symbol, {})
        return {
            day: planted.get(day, close)
            for day, close in zip(days, _walk(self.seed, symbol, days), strict=True)
        }

    def adjusted(self, symbol: str) -> dict[date, float | None]:
        """Yahoo's Adj Close by session: lower before each dividend by its share of the close before."""
        bars = self.bars(symbol)
        dividends = self.dividends.get(symbol, {})
        found: dict[date, float | None] = {}
        factor = 1.0
        paid = 0.0
        for day in sorted(bars, reverse=True):
            close = bars[day]
            if paid and close is not None:
                factor *= 1 - paid / close
                paid = 0.0
            found[day] = None if close is None else close * factor
            paid += dividends.get(day, 0.0)
        return dict(sorted(found.items()))

    # --- companies ------------------------------------------------------------------------------------------

    def profile(self, symbol: str) -> dict[str, Any]:
        if symbol not in self.symbols:
            return {}
        dice = random.Random(f"{self.seed}/profile/{symbol}")
        return {
            "country": "US",
            "currency": "USD",
            "estimateCurrency": "USD",
            "exchange": "NASDAQ NMS - GLOBAL MARKET",
            "finnhubIndustry": dice.choice(_INDUSTRIES),
            "ipo": date(dice.randint(1975, 2015), dice.randint(1, 12), dice.randint(1, 28)).isoformat(),
            "logo": "",
            "marketCapitalization": round(dice.uniform(20_000, 3_000_000), 2),
            "name": company_name(symbol),
            "phone": "",
            "shareOutstanding": round(dice.uniform(200, 15_000), 2),
            "ticker": symbol,
            "weburl": "",
        }

    def quarter_ends(self) -> list[date]:
        """Ends of the quarters from two years before the news to the last day, oldest first."""
        first = self.first_day - timedelta(days=730)
        return [
            day
            for year in range(first.year, self.last_day.year + 1)
            for day in (date(year, 3, 31), date(year, 6, 30), date(year, 9, 30), date(year, 12, 31))
            if first <= day <= self.last_day
        ]

    def accepted_at(self, symbol: str, quarter_end: date) -> datetime | None:
        """When a quarter's filing became public, New York time without zone: a working day, 30 to 40 days
        after its end."""
        planted = self.accepted.get(symbol, {})
        if quarter_end in planted:
            return planted[quarter_end]
        dice = random.Random(f"{self.seed}/accepted/{symbol}/{quarter_end}")
        moment = datetime.combine(quarter_end, time(16, 5)) + timedelta(days=dice.randint(30, 38))
        moment += timedelta(days=2 if moment.weekday() >= 5 else 0)
        return moment + timedelta(minutes=dice.randrange(150), seconds=dice.randrange(60))

    def metric(self, symbol: str) -> dict[str, Any]:
        """Finnhub's basic financials; figures of a quarter are there 40 days after its end."""
        if symbol not in self.symbols:
            return {"metric": {}, "metricType": "all", "series": {}, "symbol": symbol}
        ends = [end for end in self.quarter_ends() if end <= self.last_day - timedelta(days=40)]
        series: dict[str, dict[str, list[dict[str, Any]]]] = {"annual": {}, "quarterly": {}}
        for name, (low, high) in _METRICS.items():
            points = []
            for end in reversed(ends):
                dice = random.Random(f"{self.seed}/metric/{symbol}/{name}/{end}")
                points.append({"period": end.isoformat(), "v": round(dice.uniform(low, high), 4)})
            series["quarterly"][name] = points
            series["annual"][name] = [point for point in points if point["period"][5:7] == "12"]
        today = {"52WeekHigh": 1.0, "marketCapitalization": 1.0, "beta": 1.0}
        return {"metric": today, "metricType": "all", "series": series, "symbol": symbol}

    def filings(self, symbol: str, frequency: str) -> dict[str, Any]:
        """Finnhub's reported financials: no 10-Q for a fourth quarter, whose figures come in the 10-K."""
        cik = str(zlib.crc32(symbol.encode()) % 2_000_000)
        found = []
        for end in reversed(self.quarter_ends() if symbol in self.symbols else []):
            accepted = self.accepted_at(symbol, end)
            is_year_end = end.month == 12
            if accepted is None or accepted.date() > self.last_day or is_year_end != (frequency == "annual"):
                continue
            start = date(end.year, 1 if is_year_end else end.month - 2, 1)
            found.append(
                {
                    "accessNumber": f"{int(cik):010d}-{accepted:%y}-{end:%y%m}{end.day:02d}",
                    "symbol": symbol,
                    "cik": cik,
                    "year": end.year,
                    "quarter": 0 if is_year_end else end.month // 3,
                    "form": "10-K" if is_year_end else "10-Q",
                    "startDate": f"{start} 00:00:00",
                    "endDate": f"{end} 00:00:00",
                    "filedDate": f"{accepted.date()} 00:00:00",
                    "acceptedDate": f"{accepted:%Y-%m-%d %H:%M:%S}",
                    "report": {"bs": [], "cf": [], "ic": []},
                }
            )
        return {"cik": cik, "data": found, "symbol": symbol}


def company_name(symbol: str) -> str:
    return f"{symbol.title()} Works"


def calendar_of(symbol: str) -> str:
    """The exchange calendar on which a symbol has prices."""
    if symbol.endswith("-USD"):
        return "24/7"
    return "XETR" if symbol.endswith(_XETR_SUFFIXES) else "XNYS"


def time_zone_of(symbol: str) -> str:
    return _TIME_ZONES[calendar_of(symbol)]


@lru_cache
def sessions(calendar: str) -> dict[date, int]:
    """When each session of a calendar opens, in unix seconds."""
    from exchange_calendars import get_calendar

    opens = get_calendar(calendar, start="2015-01-01").opens
    return {session.date(): int(moment.timestamp()) for session, moment in opens.items()}


def as_single(number: float) -> float:
    """The number as Yahoo gives prices: in single precision, 101.37 as 101.37000274658203."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


@lru_cache(maxsize=256)
def _walk(seed: int, symbol: str, days: tuple[date, ...]) -> tuple[float, ...]:
    """A close for each day; a day's step does not depend on which days are asked for."""
    price = math.exp(random.Random(f"{seed}/price/{symbol}").uniform(math.log(20), math.log(500)))
    found = []
    for day in days:
        price *= math.exp(random.Random(f"{seed}/step/{symbol}/{day}").gauss(0.0003, 0.018))
        found.append(round(price, 2))
    return tuple(found)


def _number(*parts: object) -> int:
    return zlib.crc32("/".join(map(str, parts)).encode())


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _article(
    symbol: str, number: int, moment: int, headline: str, summary: str, source: str
) -> dict[str, Any]:
    """In the form and order of Finnhub's specification."""
    return {
        "category": "company",
        "datetime": moment,
        "headline": headline,
        "id": number,
        "image": "",
        "related": symbol,
        "source": source,
        "summary": summary,
        "url": f"https://finnhub.io/api/news?id={number}",
    }
