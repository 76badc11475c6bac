"""Which symbols a dataset holds, and when."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

import indices
from forecaster.data.universe import find_universe, membership
from forecaster.data.weeks import trading_weeks
from forecaster.errors import ConfigurationError
from forecaster.records import TradingWeek

LATER = datetime(2026, 11, 21, tzinfo=UTC)


def weeks(first: date, last: date) -> list[TradingWeek]:
    return trading_weeks("XNYS", first, last, LATER)


@pytest.mark.parametrize(
    ("index_name", "name", "calendar", "kind"),
    [
        ("dow", "dow-30", "XNYS", "stock"),
        ("nasdaq", "nasdaq-100", "XNYS", "stock"),
        ("euro", "euro-stoxx-50", "XETR", "stock"),
        ("crypto", "crypto", "24/7", "cryptocurrency"),
        ("AAPL,msft", "aapl-msft", "XNYS", "stock"),
        ("AAPL", "aapl", "XNYS", "stock"),
        ("A,B,C,D,E,F,G", "a-b-c-d-e-and-2-more", "XNYS", "stock"),
    ],
)
def test_an_index_or_a_list_of_tickers(index_name: str, name: str, calendar: str, kind: str) -> None:
    universe = find_universe(index_name)
    assert (universe.name, universe.calendar, universe.kind) == (name, calendar, kind)


def test_finnhub_has_company_news_for_north_america_only() -> None:
    assert [find_universe(name).has_company_news for name in ("dow", "AAPL", "euro", "crypto")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_file_of_tickers(tmp_path: Path) -> None:
    path = tmp_path / "Mine.txt"
    path.write_text("# my list\n$AAPL, BRK.B\nBF-B; FB  # renamed\nMETA\n")
    universe = find_universe(str(path))
    assert universe.name == "mine"
    assert universe.symbols == ("AAPL", "BRK.B", "BF.B", "META")
    assert universe.notes == (
        "Renamed: FB is META today.",
        "1 tickers name a company twice.",
        "2 of 4 are no members of DOW_30 or NASDAQ_100 today: BRK.B, BF.B.",
    )


def test_an_american_share_class_is_one_company_however_it_is_written() -> None:
    universe = find_universe("BRK-B,BRK.B,bf-a,AAPL")
    assert (universe.name, universe.symbols) == ("brk.b-bf.a-aapl", ("BRK.B", "BF.A", "AAPL"))
    assert universe.notes == (
        "1 tickers name a company twice.",
        "2 of 3 are no members of DOW_30 or NASDAQ_100 today: BRK.B, BF.A.",
    )


@pytest.mark.parametrize("listed", ["AAPL,BTC-USD", "AAPL,SAP.DE", "AAPL,VOD.L"])
def test_coins_and_tickers_of_other_exchanges_are_no_share_classes(listed: str) -> None:
    with pytest.raises(ConfigurationError, match="follows the sessions of New York"):
        find_universe(listed)


@pytest.mark.parametrize("index_name", ["sp500", "nasdaqq", "", "AAPL,../x", "AAPL MSFT'"])
def test_an_unknown_index_is_told_with_what_is_allowed(index_name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_universe(index_name)
    (problem,) = caught.value.problems
    assert problem.where == "--index_name"
    assert problem.found == f"is {index_name!r}."
    assert "dow, nasdaq, euro, crypto" in problem.way_out


def test_an_empty_or_wrong_file_of_tickers_is_told(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# nothing\n")
    with pytest.raises(ConfigurationError, match="holds no ticker"):
        find_universe(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        find_universe(str(path))


def test_a_symbol_is_wanted_for_the_weeks_in_which_it_was_a_member() -> None:
    december = weeks(date(2025, 11, 24), date(2026, 1, 9))
    found = membership(find_universe("nasdaq"), december, 1, current_members=False)
    ends = {symbol: [december[at].end.isoformat() for at in ats] for symbol, ats in found.targets.items()}
    assert ends["AAPL"] == [
        "2025-12-05",
        "2025-12-12",
        "2025-12-19",
        "2025-12-26",
        "2026-01-02",
        "2026-01-09",
    ]
    assert ends["BIIB"] == ["2025-12-05", "2025-12-12", "2025-12-19"]  # left on Monday, 22 December
    assert ends["ALNY"] == ["2025-12-26", "2026-01-02", "2026-01-09"]
    assert ends["VSNT"] == ["2026-01-09"]  # from Monday, 5 January to Friday, 9 January
    assert found.symbol_weeks == sum(map(len, ends.values()))


def test_current_members_are_taken_for_all_weeks() -> None:
    early = weeks(date(2024, 1, 1), date(2024, 1, 26))
    found = membership(find_universe("nasdaq"), early, 1, current_members=True)
    assert set(found.targets) == set(indices.NASDAQ_100)
    assert found.targets["PLTR"] == (1, 2, 3)


def test_a_renamed_member_is_one_company() -> None:
    around = weeks(date(2022, 5, 31), date(2022, 6, 24))
    found = membership(find_universe("nasdaq"), around, 1, current_members=False)
    assert found.targets["META"] == (1, 2, 3)
    assert "FB" not in found.targets


def test_a_range_before_the_index_is_known_is_told() -> None:
    with pytest.raises(ConfigurationError, match="--start_date"):
        membership(find_universe("dow"), weeks(date(2021, 11, 1), date(2021, 12, 31)), 1, False)
