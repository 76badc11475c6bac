"""How many news calls a year of NASDAQ_100 takes, and whether any article is missed.

The real fetch and the real Finnhub client against the loopback market, at a simulated 60 calls a minute:

    python bench/news_calls.py

`--measure FOLDER` prints the rates below anew from weekly dumps of Finnhub's company news.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from edge.sitecustomize import redirected_requests
from loopback_market import FINNHUB_KEY, Market, World
from simulated_time import SimulatedTime

from forecaster.data.fetch import Needs, fetch
from forecaster.data.ledger import Ledger
from forecaster.vendors.base import Connection
from forecaster.vendors.finnhub import Finnhub
from forecaster.vendors.pace import Pace
from forecaster.vendors.registry import FINNHUB
from indices import NASDAQ_100

START = datetime(2025, 5, 2, 20, tzinfo=UTC)
END = datetime(2026, 5, 1, 20, tzinfo=UTC)
"""Closes of New York, 52 weeks apart."""
WEEKS = 52
MOST_CALLS = 2400
SPARE_DAYS = 7
"""There is news before and after the range, too."""

CUT_OFF_FROM = 230
WORKING_DAYS_RATE = 1.3
"""Articles of a working day over those of a mean day of the week."""

Dumps = Sequence[tuple[int, float]]

MEASURED: Mapping[str, Dumps] = {
    "AAPL": [(130, 6.64), (244, 4.68), (242, 3.39), (243, 6.22), (246, 1.65)],
    "CVX": [
        *[(43, 6.72), (77, 6.65), (91, 6.25), (92, 6.66), (156, 4.76), (230, 4.53), (171, 6.78)],
        *[(185, 6.77), (138, 6.94), (168, 6.82), (173, 6.60), (118, 6.98), (93, 6.90), (172, 6.96)],
    ],
    "MSFT": [(138, 6.86), (242, 4.36), (240, 3.43), (238, 3.51), (244, 1.51)],
    "XOM": [
        *[(32, 6.65), (70, 6.54), (54, 6.45), (97, 6.91), (154, 4.76), (199, 6.44), (133, 6.94)],
        *[(188, 6.81), (115, 6.61), (84, 6.90), (68, 5.91), (68, 6.55), (157, 6.93)],
    ],
}
"""Articles, and days from the oldest to the newest of them, of weekly dumps from December 2025 to April 2026;
articles from outside the week left out. From 230 on, the older ones were cut off."""

LARGEST = ("AAPL", "AMZN", "MSFT", "NVDA")
"""They get the rates of AAPL and MSFT as measured, and the others those of CVX and XOM, scaled. Each more of
them, at the same mean, takes about fifteen calls more: the more articles a day has, the more of an answer
goes to the part of its last day that is known already."""


@dataclass(frozen=True)
class Result:
    """What one run needed and got."""

    articles: int
    """Of the range."""
    news_calls: int
    weekly_window_calls: int
    """With one window a week, paged backward where an answer is cut off."""
    simulated_s: float
    missing: int
    """Articles that the fetch did not get, on days that it did not flag."""
    missing_on_flagged_days: int
    flagged_days: int
    wall_s: float

    @property
    def minutes(self) -> float:
        return self.simulated_s / 60

    @property
    def over_rate_limit(self) -> float:
        """Simulated time over what the calls take at the limit."""
        return self.minutes / (self.news_calls / FINNHUB.calls_per_minute)


def measure(folder: Path) -> dict[str, Dumps]:
    """`MEASURED`, from files such as `AAPL_news_2week.csv` with a column `datetime` in unix seconds."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("*_news_*week.csv")):
        with path.open(encoding="utf-8-sig", newline="") as lines:
            times = [int(row["datetime"]) for row in csv.DictReader(lines)]
        times = [moment for moment in times if moment > max(times) - 7.5 * 86_400]
        days = (max(times) - min(times)) / 86_400
        found.setdefault(path.name.split("_")[0], []).append((len(times), round(days, 2)))
    return found


def articles_a_week(count: int, days: float) -> float:
    """What a dump says of its week: all of its articles, or working days at a rate."""
    return count if count < CUT_OFF_FROM else count / days * 7 / WORKING_DAYS_RATE


def draw_rates(symbols: Sequence[str], weeks: int, seed: int, mean: float) -> dict[str, tuple[float, ...]]:
    """Articles by symbol and week: each week a dump of the symbol's model; `mean` over all of them."""
    rates: dict[str, tuple[float, ...]] = {}
    for symbol in symbols:
        dice = random.Random(f"{seed}/{symbol}")
        models = ("AAPL", "MSFT") if symbol in LARGEST else ("CVX", "XOM")
        dumps = MEASURED[symbol if symbol in models else dice.choice(models)]
        rates[symbol] = tuple(articles_a_week(*dice.choice(dumps)) for _ in range(weeks))
    fixed = sum(sum(rates[symbol]) for symbol in symbols if symbol in LARGEST)
    others = sum(sum(rates[symbol]) for symbol in symbols if symbol not in LARGEST)
    factor = (mean * weeks * len(symbols) - fixed) / others
    assert factor > 0, f"{', '.join(LARGEST)} alone have more than a mean of {mean:g}"
    return {
        symbol: found if symbol in LARGEST else tuple(rate * factor for rate in found)
        for symbol, found in rates.items()
    }


def nasdaq_world(symbols: Sequence[str], start: datetime, end: datetime, seed: int, mean: float) -> World:
    first, last = start.date() - timedelta(days=SPARE_DAYS), end.date() + timedelta(days=SPARE_DAYS)
    weeks = (last - first).days // 7 + 1
    rates = draw_rates(symbols, weeks, seed, mean)
    return World(tuple(symbols), first, last, seed=seed, rates=rates)


def run(world: World, start: datetime, end: datetime) -> Result:
    """Fetch the news of the range, and compare what came with what there is."""
    began = time.monotonic()
    clock = SimulatedTime()
    needs = [Needs(symbol, news=((start, end),)) for symbol in world.symbols]
    with tempfile.TemporaryDirectory() as folder, Market(world) as market, redirected_requests(market.url):
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        finnhub = Finnhub(FINNHUB_KEY, Pace(FINNHUB.calls_per_minute, clock=clock.now, sleep=clock.sleep))
        outcome = fetch(ledger, needs, [Connection(FINNHUB, finnhub)], now=lambda: end + timedelta(days=2))
        finnhub.close()
        assert not outcome.shortfalls, outcome.shortfalls
        calls = market.counts()["company-news"]
        articles = missing = missing_flagged = 0
        for symbol in world.symbols:
            flagged = outcome.cut_off_days.get(symbol, ())
            received = {
                article["id"] for call in ledger.answers("company-news", symbol) for article in call.payload
            }
            for article in world.newest_first(symbol, start.date(), end.date()):
                moment = datetime.fromtimestamp(article["datetime"], UTC)
                if start <= moment < end:
                    articles += 1
                    if article["id"] not in received:
                        missing_flagged += moment.date() in flagged
                        missing += moment.date() not in flagged
        ledger.close()
    return Result(
        articles=articles,
        news_calls=calls,
        weekly_window_calls=sum(weekly_window_calls(world, symbol, start, end) for symbol in world.symbols),
        simulated_s=clock.now(),
        missing=missing,
        missing_on_flagged_days=missing_flagged,
        flagged_days=sum(map(len, outcome.cut_off_days.values())),
        wall_s=time.monotonic() - began,
    )


def weekly_window_calls(world: World, symbol: str, start: datetime, end: datetime) -> int:
    """Calls of somebody who asks week by week, and pages backward within a week that was cut off."""
    calls, first = 0, start.date()
    while first < end.date():
        oldest_wanted = last = first + timedelta(days=6)
        while oldest_wanted >= first:
            answer = world.news_answer(symbol, first, oldest_wanted)
            calls += 1
            days = [datetime.fromtimestamp(article["datetime"], UTC).date() for article in answer]
            inside = [day for day in days if first <= day <= oldest_wanted]
            if len(answer) < CUT_OFF_FROM:
                break
            oldest_wanted = min(min(inside), oldest_wanted - timedelta(days=1))
        first = last + timedelta(days=1)
    return calls


def days_of_240(rate: float) -> float:
    """Working days in which 240 articles come, at a rate per week."""
    return 240 / (rate / 7 * WORKING_DAYS_RATE)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mean", type=float, default=100.4, help="articles a week and symbol")
    parser.add_argument("--measure", type=Path, metavar="FOLDER")
    flags = parser.parse_args()
    if flags.measure:
        for symbol, dumps in measure(flags.measure).items():
            print(f"{symbol}: {dumps}")
        return 0
    world = nasdaq_world(NASDAQ_100, START, END, flags.seed, flags.mean)
    result = run(world, START, END)
    per_symbol_week = result.articles / WEEKS / len(NASDAQ_100)
    print(f"seed {flags.seed}: {result.articles:,} articles, {len(NASDAQ_100)} symbols, {WEEKS} weeks")
    print(f"articles a week and symbol: {per_symbol_week:.1f}")
    for symbol in LARGEST:
        busiest, usual = (days_of_240(pick(world.rates[symbol])) for pick in (max, median))
        print(
            f"  {symbol}: 240 articles in {busiest:.1f} days of its busiest week, {usual:.1f} of a median one"
        )
    print(f"news calls: {result.news_calls:,}; with weekly windows: {result.weekly_window_calls:,}")
    print(
        f"at {FINNHUB.calls_per_minute} a minute: {result.minutes:.1f} minutes, "
        f"{result.over_rate_limit:.4f} of calls / {FINNHUB.calls_per_minute}"
    )
    print(
        f"missing articles: {result.missing}; on {result.flagged_days} flagged days: "
        f"{result.missing_on_flagged_days}"
    )
    print(f"took {result.wall_s:.0f} s")
    kept = (
        result.news_calls <= MOST_CALLS
        and result.missing == 0
        and abs(result.over_rate_limit - 1) <= 0.03
        and per_symbol_week >= 100
    )
    print("within the limits" if kept else "NOT within the limits")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
