"""Whose rows a dataset holds, and for which weeks: lists with dead names, index changes, renames, other
exchanges, and the user's own files."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import datasets
import pytest
from loopback_market import Market, World, redirected
from processes import run_entry

import data_pipeline
import indices
from forecaster.vendors import yahoo
from forecaster.vendors.registry import VENDORS, YAHOO
from prompts import PromptFacts, read_prompt, split_published

Rows = list[dict[str, Any]]
Pipeline = Callable[..., str]
COIN_WORD = "cryptocurrenc"


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pipeline:
    """Runs everything in this process, in an empty folder; gives what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(VENDORS, "yahoo", replace(YAHOO, calls_per_minute=1800))
    monkeypatch.setattr(yahoo, "_SECOND_OPINION_AFTER_S", 0)
    for name in ("FINNHUB_API_KEY", "FINNHUB_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(*flags: str) -> str:
        status = data_pipeline.main(flags)
        printed = capsys.readouterr()
        assert status == 0, printed.out[-3000:] + printed.err[-3000:]
        assert "Passed: no leak and no error." in printed.out
        return printed.out

    return run


def parts(name: str) -> datasets.DatasetDict:
    return datasets.load_from_disk(f"data/fingpt-forecaster-{name}")


def rows(name: str) -> Rows:
    """The rows of all splits, by week and symbol."""
    found = [row for part in parts(name).values() for row in part]
    return sorted(found, key=lambda row: (row["target_end"], row["symbol"]))


def card(name: str) -> str:
    return Path(f"data/fingpt-forecaster-{name}/README.md").read_text(encoding="utf-8")


def week_ends(found: Iterable[dict[str, Any]], symbol: str) -> list[str]:
    """Month and day on which the weeks of a symbol's rows end."""
    return sorted(row["target_end"][5:] for row in found if row["symbol"] == symbol)


# --- files --------------------------------------------------------------------------------------------------


def write_csv(name: str, header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])
    return name


def price_file(symbols: Iterable[str], days: Sequence[str]) -> str:
    """A close of every symbol on every day."""
    dice = random.Random(1)
    lines = [(symbol, day, round(dice.uniform(90, 110), 2)) for symbol in symbols for day in days]
    return write_csv("closes.csv", ("symbol", "date", "close"), lines)


def news_file(symbols: Iterable[str], days: Sequence[str]) -> str:
    """Two articles of every symbol, two days after every day."""
    lines = [
        (f"{date.fromisoformat(day) + timedelta(days=2)}T{hour}:30:00Z", symbol, f"{symbol} {what} {number}")
        for symbol in symbols
        for number, day in enumerate(days)
        for hour, what in (("09", "opens plant"), ("15", "closes shop"))
    ]
    return write_csv("news.csv", ("published_at", "symbol", "headline"), lines)


# --- a list of tickers --------------------------------------------------------------------------------------

GOOD = ("AAPL", "DOCU", "FISV", "META", "MSFT", "NVDA")
LISTED = ("AAPL", "MSFT", "FB", "META", "FISV", "FI", "NVDA", "DOCU", "SWKS", "ATVI", "SGEN", "XLNX")
LISTED_NAME = "aapl-msft-meta-fisv-nvda-and-5-more-20260105-20260213-1-1-05"
GOOD_NAME = "aapl-docu-fisv-meta-msft-and-1-more-20260105-20260213-1-1-05"
WORLD = World(
    (*GOOD, "SWKS", "ATVI"),
    date(2026, 1, 1),
    date(2026, 2, 20),
    dead=frozenset({"ATVI"}),  # SGEN and XLNX are unknown to both vendors
    no_access=frozenset({"SWKS"}),
)


def test_names_that_are_gone_are_told_and_counted_and_touch_no_row_of_another(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    flags = ("--start_date", "2026-01-05", "--end_date", "2026-02-13", "--max_past_weeks", "1")
    flags += ("--train_ratio", "0.5", "--calls_per_minute", "1800")
    with Market(WORLD) as market, redirected(market):
        told = pipeline("--index_name", ",".join(LISTED), *flags)
    with Market(WORLD) as market, redirected(market):
        pipeline("--index_name", ",".join(GOOD), *flags, "--data_folder", "good/data")

    assert "Renamed: FB is META today, FI is FISV today.\n2 tickers name a company twice." in told
    assert "6 of 10 are no members of DOW_30 or NASDAQ_100 today: FISV, DOCU, SWKS, ATVI, SGEN, XLNX." in told
    for symbol in ("ATVI", "SGEN", "XLNX"):
        assert f"  {symbol} daily-bars: the vendor does not know this symbol" in told
    assert "  SWKS company-news: Finnhub: not part of the plan that the key belongs to (HTTP 403)." in told
    assert "  not used: 15 symbol-weeks, the price vendor does not serve the symbol" in told
    assert "  not used: 5 symbol-weeks, no news in its past weeks" in told
    for symbol, used in [(symbol, 5) for symbol in GOOD] + [
        (symbol, 0) for symbol in ("ATVI", "SGEN", "SWKS", "XLNX")
    ]:
        assert f"| {symbol:8} | {used:6} | {5 - used:10} |" in card(LISTED_NAME)

    assert {row["symbol"] for row in rows(LISTED_NAME)} == set(GOOD)
    good = datasets.load_from_disk(f"good/data/fingpt-forecaster-{GOOD_NAME}")
    assert {name: len(part) for name, part in good.items()} == {"train": 12, "test": 12, "gap": 6}
    for name, part in good.items():
        assert list(parts(LISTED_NAME)[name]) == list(part)
        files = [
            folder / "parquet" / f"{name}.parquet"
            for folder in (
                Path(f"data/fingpt-forecaster-{LISTED_NAME}"),
                Path(f"good/data/fingpt-forecaster-{GOOD_NAME}"),
            )
        ]
        assert files[0].read_bytes() == files[1].read_bytes()


# --- indices that change ------------------------------------------------------------------------------------

WEEK_ENDS = ("2025-11-21", "2025-11-28", "2025-12-05", "2025-12-12", "2025-12-19", "2025-12-26")
WEEK_ENDS += ("2026-01-02", "2026-01-09", "2026-01-16")
WENT = ("BIIB", "CDW", "GFS", "LULU", "ON", "TTD")
CAME = ("ALNY", "FER", "INSM", "MPWR", "STX", "WDC")


def nasdaq_flags() -> tuple[str, ...]:
    """Files for everybody who ever was a member in those weeks, or is today."""
    symbols = {
        symbol
        for day in (date(2025, 11, 24), date(2025, 12, 22), date(2026, 1, 5), indices.KNOWN_UNTIL)
        for symbol in indices.constituents("NASDAQ_100", day)
    }
    flags = ("--index_name", "nasdaq", "--start_date", "2025-11-24", "--end_date", "2026-01-16")
    flags += ("--price_file", price_file(sorted(symbols), WEEK_ENDS))
    flags += ("--news_file", news_file(sorted(symbols), WEEK_ENDS))
    return (*flags, "--max_past_weeks", "1", "--train_ratio", "0.6", "--teacher", "template")


def test_rows_hold_each_member_for_its_own_weeks(pipeline: Pipeline) -> None:
    pipeline(*nasdaq_flags())
    found = rows("nasdaq-100-20251124-20260116-1-1-06")
    assert [row for row in found if COIN_WORD in row["prompt"].lower()] == []
    # The week to 2 January is the gap.
    assert {row["target_end"][5:] for row in parts("nasdaq-100-20251124-20260116-1-1-06")["gap"]} == {"01-02"}
    for symbol in WENT:
        assert week_ends(found, symbol) == ["12-05", "12-12", "12-19"], symbol
    for symbol in CAME:
        assert week_ends(found, symbol) == ["01-02", "01-09", "01-16", "12-26"], symbol
    assert week_ends(found, "VSNT") == ["01-09"]
    assert week_ends(found, "AAPL") == ["01-02", "01-09", "01-16", "12-05", "12-12", "12-19", "12-26"]
    assert week_ends(found, "WMT") == []
    assert len(week_ends(found, "AZN")) == 7
    by_week = [sum(row["target_end"] == end for row in found) for end in WEEK_ENDS]
    assert by_week == [0, 0, 101, 101, 101, 101, 101, 102, 101]


def test_current_members_are_those_of_today_in_every_week(pipeline: Pipeline) -> None:
    pipeline(*nasdaq_flags(), "--current_members")
    name = "nasdaq-100-20251124-20260116-1-1-06"
    found = rows(name)
    assert {row["symbol"] for row in found} == set(indices.NASDAQ_100)
    for symbol in indices.NASDAQ_100:
        assert week_ends(found, symbol) == ["01-02", "01-09", "01-16", "12-05", "12-12", "12-19", "12-26"]
    assert "today's, for all weeks (2026-10-06)" in card(name)


def test_a_renamed_company_has_the_name_of_the_day(pipeline: Pipeline) -> None:
    days = ("2022-05-13", "2022-05-20", "2022-05-27", "2022-06-03", "2022-06-10", "2022-06-17")
    days += ("2022-06-24", "2022-07-01")
    before = [day for day in days if day < "2022-06-09"]
    dice = random.Random(1)
    closes = [("FB" if day in before else "META", day, round(dice.uniform(150, 200), 2)) for day in days]
    articles = [
        (
            f"{date.fromisoformat(day) + timedelta(days=3)}",
            "FB" if day in before else "META",
            f"News of {day}",
        )
        for day in days
    ]
    pipeline(
        *("--index_name", "META", "--start_date", "2022-05-16", "--end_date", "2022-07-01"),
        *("--price_file", write_csv("closes.csv", ("symbol", "date", "close"), closes)),
        *("--news_file", write_csv("news.csv", ("date", "symbol", "headline"), articles)),
        *("--max_past_weeks", "1", "--train_ratio", "0.7", "--teacher", "template"),
    )
    found = rows("meta-20220516-20220701-1-1-07")
    assert [(row["target_end"], row["symbol"]) for row in found] == [
        ("2022-05-27", "FB"),
        ("2022-06-03", "FB"),
        ("2022-06-10", "FB"),
        ("2022-06-17", "META"),
        ("2022-06-24", "META"),
        ("2022-07-01", "META"),
    ]
    # A week of FB's news, under META's name.
    assert "News of 2022-06-03" in found[3]["prompt"]
    for row in found:
        other = {"FB": "META", "META": "FB"}[row["symbol"]]
        assert row["symbol"] in row["prompt"] and other not in row["prompt"] + row["answer"]


# --- other exchanges ----------------------------------------------------------------------------------------


def facts_of(row: dict[str, Any]) -> PromptFacts:
    return read_prompt(split_published(row["prompt"]).user)


def test_euro_weeks_follow_the_german_exchange(pipeline: Pipeline) -> None:
    # XETR is closed on 24 to 26 and 31 December, and on 1 January.
    days = ("2025-12-05", "2025-12-12", "2025-12-19", "2025-12-23", "2026-01-02", "2026-01-09", "2026-01-16")
    news = news_file(indices.EURO_STOXX_50, days[:-1])
    world = World(indices.EURO_STOXX_50, date(2025, 12, 1), date(2026, 1, 16), dead=frozenset({"WKL.AS"}))
    with Market(world) as market, redirected(market):
        told = pipeline(
            *("--index_name", "euro", "--start_date", "2025-12-08", "--end_date", "2026-01-16"),
            *("--news_file", news, "--max_past_weeks", "1", "--train_ratio", "0.5", "--teacher", "template"),
        )
        assert not {"company-news", "stock/profile2", "stock/metric"} & market.counts().keys()
    assert "Finnhub has no company news for this index: news from the files only." in told
    assert "  WKL.AS daily-bars: the vendor does not know this symbol" in told
    found = rows("euro-stoxx-50-20251208-20260116-1-1-05")
    assert {row["symbol"] for row in found} == {*indices.EURO_STOXX_50} - {"WKL.AS"}
    assert sorted({(row["period"], row["as_of"]) for row in found}) == [
        ("2025-12-12 to 2025-12-19", "2025-12-12T16:30:00+00:00"),
        ("2025-12-19 to 2025-12-23", "2025-12-19T16:30:00+00:00"),
        ("2025-12-23 to 2026-01-02", "2025-12-23T16:30:00+00:00"),
        ("2026-01-02 to 2026-01-09", "2026-01-02T16:30:00+00:00"),
        ("2026-01-09 to 2026-01-16", "2026-01-09T16:30:00+00:00"),
    ]
    (sap,) = [row for row in found if row["symbol"] == "SAP.DE" and row["target_end"] == "2026-01-09"]
    (past,) = facts_of(sap).weeks
    assert (past.start, past.end) == (date(2025, 12, 23), date(2026, 1, 2))
    assert [item.headline for item in past.news] == ["SAP.DE opens plant 3", "SAP.DE closes shop 3"]
    assert [row for row in found if COIN_WORD in row["prompt"].lower()] == []


def test_coins_are_called_so_and_have_weeks_that_end_on_sundays(pipeline: Pipeline) -> None:
    sundays = [str(date(2026, 1, 4) + timedelta(weeks=n)) for n in range(7)]
    news = news_file(indices.CRYPTO, sundays)
    days = {date(2026, 1, 4) + timedelta(days=n): 0.125 + n // 7 / 1024 for n in range(43)}
    small = {"DOGE-USD": {date(2026, 1, n): 0.125 for n in (1, 2, 3)} | days}
    world = World(indices.CRYPTO, date(2026, 1, 1), date(2026, 2, 15), closes=small)
    with Market(world) as market, redirected(market):
        pipeline(
            *("--index_name", "crypto", "--start_date", "2026-01-05", "--end_date", "2026-02-15"),
            *("--news_file", news, "--max_past_weeks", "1", "--train_ratio", "0.5", "--teacher", "template"),
        )
        assert not {"company-news", "stock/profile2", "stock/metric"} & market.counts().keys()
    found = rows("crypto-20260105-20260215-1-1-05")
    assert {row["symbol"] for row in found} == set(indices.CRYPTO)
    assert sorted({(row["period"], row["as_of"]) for row in found}) == [
        ("2026-01-11 to 2026-01-18", "2026-01-12T00:00:00+00:00"),
        ("2026-01-18 to 2026-01-25", "2026-01-19T00:00:00+00:00"),
        ("2026-01-25 to 2026-02-01", "2026-01-26T00:00:00+00:00"),
        ("2026-02-01 to 2026-02-08", "2026-02-02T00:00:00+00:00"),
        ("2026-02-08 to 2026-02-15", "2026-02-09T00:00:00+00:00"),
    ]
    for row in found:
        facts = facts_of(row)
        assert facts.introduces_coin and COIN_WORD in row["prompt"].lower()
        assert "[Basic Financials]" not in row["prompt"] and not facts.financials
        assert "stock" not in row["prompt"].lower() and "company" not in row["prompt"].lower()
    (doge,) = [row for row in found if row["symbol"] == "DOGE-USD" and row["target_end"] == "2026-02-15"]
    assert (doge["start_price"], doge["end_price"]) == (0.129883, 0.130859)


def test_a_list_takes_no_tickers_of_other_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = "AAPL,BTC-USD,BRK-B,SAP.DE,BRK.B,VOD.L"
    flags = ["plan", "--index_name", listed, "--start_date", "2026-01-05", "--end_date", "2026-02-13"]
    assert data_pipeline.main(flags) == 2
    told = capsys.readouterr().err
    assert "--index_name: holds BTC-USD, SAP.DE, VOD.L, but a list follows the sessions of New York." in told
    assert "there are euro and crypto." in told


# --- what the user brings -----------------------------------------------------------------------------------


def test_an_fnspid_file_becomes_rows(pipeline: Pipeline) -> None:
    header = ("", "Date", "Article_title", "Stock_symbol", "Url", "Publisher", "Author", "Article")
    header += ("Lsa_summary", "Luhn_summary", "Textrank_summary", "Lexrank_summary")
    days = ("2023-03-03", "2023-03-10", "2023-03-17", "2023-03-24", "2023-03-31", "2023-04-06", "2023-04-14")
    lines = []
    for number, (symbol, day) in enumerate((s, d) for s in ("NVDA", "ZZZZ", "AAPL") for d in days):
        moment = f"{date.fromisoformat(day) + timedelta(days=3)} 14:05:00 UTC"
        text = f"The whole article {number}, of which only the extract is shown."
        extracts = ("", f"Luhn's extract {number}.", f"The extract {number}.", "")
        lines.append(
            (
                number,
                moment,
                f"{symbol} after {day}",
                symbol,
                "https://example.com/a",
                "",
                "",
                text,
                *extracts,
            )
        )
    told = pipeline(
        *("--index_name", "AAPL,NVDA", "--start_date", "2023-03-06", "--end_date", "2023-04-14"),
        *("--news_file", write_csv("nasdaq_external_data.csv", header, lines)),
        *("--price_file", price_file(("AAPL", "NVDA"), days)),
        *("--max_past_weeks", "1", "--train_ratio", "0.5", "--teacher", "template"),
    )
    assert "news files: 1 read, 21 rows, 7 left out: symbol not asked for" in told
    found = rows("aapl-nvda-20230306-20230414-1-1-05")
    assert (
        week_ends(found, "AAPL") == week_ends(found, "NVDA") == ["03-17", "03-24", "03-31", "04-06", "04-14"]
    )
    (row,) = [row for row in found if row["symbol"] == "NVDA" and row["target_end"] == "2023-04-14"]
    # Good Friday was closed, so that week ended on Thursday, 6 April.
    (week,) = facts_of(row).weeks
    assert [(item.headline, item.summary) for item in week.news] == [
        ("NVDA after 2023-03-31", "The extract 4.")
    ]
    assert row["as_of"] == "2023-04-06T20:00:00+00:00"
    assert "news-file, price-file" in card("aapl-nvda-20230306-20230414-1-1-05")


def test_a_key_under_its_other_name_in_the_env_file_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "canary-of-the-env-file"
    (tmp_path / ".env").write_text(f"FINNHUB_KEY={key}\n", encoding="utf-8")
    flags = ("--index_name", "AAPL", "--start_date", "2026-01-05", "--end_date", "2026-02-13")
    flags += ("--max_past_weeks", "1", "--teacher", "template", "--calls_per_minute", "1800")
    monkeypatch.delenv("FINNHUB_KEY", raising=False)
    with Market(WORLD, finnhub_key=key) as market:
        environment = market.environment(FINNHUB_API_KEY="")
        done = run_entry("data_pipeline.py", tmp_path, "fetch", *flags, **environment)
        # The market knows no other key.
        assert done.returncode == 0, done.stdout + done.stderr
        assert market.counts()["company-news"] > 0
    assert key not in done.stdout + done.stderr
