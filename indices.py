"""Who is and who was a member of an index, and what a symbol was called on a day.

Today's members stand as plain tuples; `constituents` goes back in time by undoing the dated changes below,
each with its source. Nothing here is asked from a vendor.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from zoneinfo import ZoneInfo

KNOWN_FROM = date(2022, 1, 1)
"""First day for which members are known, where an index has a history."""
KNOWN_UNTIL = date(2026, 10, 6)
"""Date to which the changes were followed; a later day gets the members of this one."""

# fmt: off
DOW_30 = (
    "AAPL", "AMGN", "AMZN", "AXP", "BA", "CAT", "CRM", "CSCO", "CVX", "DIS", "GOOGL", "GS", "HD", "HON",
    "IBM", "JNJ", "JPM", "KO", "MCD", "MMM", "MRK", "MSFT", "NKE", "NVDA", "PG", "SHW", "TRV", "UNH", "V",
    "WMT",
)

NASDAQ_100 = (
    "AAPL", "ABNB", "ADBE", "ADI", "ADP", "ADSK", "AEP", "ALAB", "ALNY", "AMAT", "AMD", "AMGN", "AMZN",
    "APP", "ARM", "ASML", "AVGO", "AXON", "BKNG", "BKR", "CCEP", "CDNS", "CEG", "CMCSA", "COST", "CPRT",
    "CRWD", "CRWV", "CSCO", "CSX", "CTAS", "DASH", "DDOG", "DXCM", "EXC", "FANG", "FAST", "FER", "FTNT",
    "GEHC", "GILD", "GOOG", "GOOGL", "HON", "HONA", "IDXX", "INTC", "INTU", "ISRG", "KDP", "KLAC", "LIN",
    "LITE", "LRCX", "MAR", "MCHP", "MDLZ", "MELI", "META", "MNST", "MPWR", "MRVL", "MSFT", "MSTR", "MU",
    "NBIS", "NFLX", "NVDA", "NXPI", "ODFL", "ORLY", "PANW", "PAYX", "PCAR", "PDD", "PEP", "PLTR", "PYPL",
    "QCOM", "REGN", "RKLB", "ROP", "ROST", "SBUX", "SHOP", "SNDK", "SNPS", "SPCX", "STX", "TER", "TMUS",
    "TRI", "TSLA", "TTWO", "TXN", "VRTX", "WDAY", "WDC", "WMT", "XEL",
)

# Without a history: the members since the annual review of 2025-09-22 (STOXX release of 2025-09-01); later
# changes were not followed. Yahoo's tickers, each of its home exchange.
EURO_STOXX_50 = (
    "ABI.BR", "AD.AS", "ADS.DE", "ADYEN.AS", "AI.PA", "AIR.PA", "ALV.DE", "ARGX.BR", "ASML.AS", "BAS.DE",
    "BAYN.DE", "BBVA.MC", "BMW.DE", "BN.PA", "BNP.PA", "CS.PA", "DB1.DE", "DBK.DE", "DG.PA", "DHL.DE",
    "DTE.DE", "EL.PA", "ENEL.MI", "ENI.MI", "ENR.DE", "IBE.MC", "IFX.DE", "INGA.AS", "ISP.MI", "ITX.MC",
    "MBG.DE", "MC.PA", "MUV2.DE", "NDA-FI.HE", "OR.PA", "PRX.AS", "RACE.MI", "RHM.DE", "RMS.PA", "SAF.PA",
    "SAN.MC", "SAN.PA", "SAP.DE", "SGO.PA", "SIE.DE", "SU.PA", "TTE.PA", "UCG.MI", "VOW3.DE", "WKL.AS",
)

# No index: ten large coins that are not tied to a currency, by Yahoo's tickers, chosen in 2025.
CRYPTO = (
    "ADA-USD", "BCH-USD", "BNB-USD", "BTC-USD", "DOGE-USD", "ETH-USD", "LINK-USD", "SOL-USD", "TRX-USD",
    "XRP-USD",
)
# fmt: on

_TODAY = {"DOW_30": DOW_30, "NASDAQ_100": NASDAQ_100, "EURO_STOXX_50": EURO_STOXX_50, "CRYPTO": CRYPTO}
_WITH_HISTORY = ("DOW_30", "NASDAQ_100")
LISTED_IN = {"EURO_STOXX_50": "September 2025", "CRYPTO": "2025"}
"""When the members of an index without a history were taken."""


@dataclass(frozen=True)
class Change:
    """Members that came and went on one day."""

    index: str
    day: date
    """In force before the open of this day."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Rename:
    """A listing that went on under another symbol."""

    old: str
    new: str
    day: date
    """First day under the new symbol."""
    source: str


_LIST_A = "n100tickers at 9a23023"
_LIST_B = "Auto-Index-Constituents-Tracker at 328d31f"
_BOTH = f"{_LIST_A} and {_LIST_B}, both taken from Wikipedia"
_ONE = f"{_LIST_B}, taken from Wikipedia: a single source"


def _nasdaq(day: str, added: str, removed: str, source: str = _BOTH) -> Change:
    return Change("NASDAQ_100", date.fromisoformat(day), tuple(added.split()), tuple(removed.split()), source)


CHANGES: tuple[Change, ...] = (
    # --- DOW_30
    Change(
        "DOW_30", date(2024, 2, 26), ("AMZN",), ("WBA",), "S&P DJI release of 2024-02-20 (menafn 1107877225)"
    ),
    Change(
        "DOW_30",
        date(2024, 11, 8),
        ("NVDA", "SHW"),
        ("DOW", "INTC"),
        "S&P DJI release of 2024-11-01 (menafn 1108843032)",
    ),
    Change(
        "DOW_30",
        date(2026, 6, 29),
        ("GOOGL",),
        ("VZ",),
        "S&P DJI announcement of 2026-06-23 as CNBC quoted it; not seen at S&P DJI",
    ),
    # --- NASDAQ_100, oldest first
    _nasdaq("2022-01-24", "ODFL", "PTON"),
    _nasdaq("2022-02-02", "CEG", "", f"spun off from EXC; {_BOTH}"),
    _nasdaq("2022-02-22", "AZN", "XLNX"),
    _nasdaq("2022-06-09", "META", "FB", f"renamed, the same member; {_LIST_A}"),
    _nasdaq("2022-11-21", "ENPH", "OKTA"),
    _nasdaq(
        "2022-12-19",
        "BKR CSGP FANG GFS RIVN WBD",
        "BIDU DOCU MTCH NTES SPLK SWKS VRSN",
        f"annual review; finanzen.net 11984390, {_BOTH}",
    ),
    _nasdaq("2023-06-07", "GEHC", "FISV", f"FISV went to the NYSE as FI on that day; {_BOTH}"),
    _nasdaq("2023-06-20", "ON", "RIVN"),
    _nasdaq("2023-07-17", "TTD", "ATVI"),
    _nasdaq("2023-12-14", "TTWO", "SGEN"),
    _nasdaq(
        "2023-12-18",
        "CCEP CDW DASH MDB ROP SPLK",
        "ALGN EBAY ENPH JD LCID ZM",
        f"annual review; Nasdaq release of 2023-12-08 (mondovisione), {_BOTH}",
    ),
    _nasdaq("2024-03-18", "LIN", "SPLK"),
    _nasdaq("2024-06-24", "ARM", "SIRI"),
    _nasdaq("2024-07-22", "SMCI", "WBA"),
    _nasdaq("2024-11-18", "APP", "DLTR"),
    _nasdaq(
        "2024-12-23",
        "AXON MSTR PLTR",
        "ILMN MRNA SMCI",
        f"annual review; investorshangout 147733, {_BOTH}",
    ),
    _nasdaq("2025-05-19", "SHOP", "MDB"),
    _nasdaq("2025-07-17", "", "ANSS", f"bought by SNPS; {_LIST_B}, while {_LIST_A} keeps it to 2025-07-28"),
    _nasdaq("2025-07-28", "TRI", ""),
    _nasdaq("2025-10-30", "SOLS", "", f"spun off from HON, for a week only; {_BOTH}"),
    _nasdaq("2025-11-06", "", "SOLS", f"end of that week; {_BOTH}"),
    _nasdaq(
        "2025-12-22",
        "ALNY FER INSM MPWR STX WDC",
        "BIIB CDW GFS LULU ON TTD",
        f"annual review; Nasdaq release (menafn 1110474518), {_BOTH}",
    ),
    _nasdaq("2026-01-05", "VSNT", "", f"spun off from CMCSA, for a week only; {_BOTH}"),
    _nasdaq("2026-01-09", "", "VSNT", f"end of that week; {_BOTH}"),
    _nasdaq("2026-01-20", "WMT", "AZN", f"Nasdaq release of 2026-01-10 (finanzen.at), {_BOTH}"),
    _nasdaq("2026-04-20", "SNDK", "TEAM"),
    _nasdaq("2026-05-18", "LITE", "CSGP"),
    _nasdaq(
        "2026-06-22",
        "ALAB CRWV NBIS RKLB TER",
        "CHTR CTSH INSM VRSK ZS",
        f"first quarterly review under the rules of 2026-05-01 (ir.nasdaq.com); {_BOTH}",
    ),
    _nasdaq("2026-06-29", "HONA", "", f"spun off from HON; {_ONE}"),
    _nasdaq("2026-07-07", "SPCX", "", f"fast entry; Nasdaq release of 2026-06-26 as quoted, {_LIST_B}"),
    _nasdaq("2026-08-04", "", "EA", f"taken private; {_ONE}"),
    _nasdaq("2026-09-14", "", "KHC", f"reason not confirmed; {_ONE}"),
    _nasdaq("2026-10-06", "", "WBD", f"reason not confirmed; {_ONE}"),
)

RENAMES: tuple[Rename, ...] = (
    Rename("FB", "META", date(2022, 6, 9), _LIST_A),
    Rename("FISV", "FI", date(2023, 6, 7), _LIST_A),
    Rename("FI", "FISV", date(2025, 11, 11), "not confirmed: no stored source gives this day"),
)
"""Oldest first. Vendors keep a listing's whole history under its newest symbol."""


def constituents(index: str, on: date) -> tuple[str, ...]:
    """Members of an index on a day, sorted, under the symbols of that day.

    A change counts from its own day on, because it is in force before that day's open. An index without a
    history (EURO_STOXX_50, CRYPTO) has today's members on every day.

    Args:
        index: `DOW_30`, `NASDAQ_100`, `EURO_STOXX_50` or `CRYPTO`.
        on: for an index with a history, KNOWN_FROM or later; after KNOWN_UNTIL no change is known.

    Raises:
        ValueError: no such index, or a day before KNOWN_FROM.
    """
    if index not in _TODAY:
        raise ValueError(f"there is no index {index!r}; there are {', '.join(_TODAY)}")
    if index in _WITH_HISTORY and on < KNOWN_FROM:
        raise ValueError(
            f"the members of {index} are known from {KNOWN_FROM} to {KNOWN_UNTIL}, not on {on}: "
            "choose a later day, or use today's members"
        )
    members = set(_TODAY[index])
    for change in sorted(CHANGES, key=lambda change: change.day, reverse=True):
        if change.index == index and change.day > on:
            members = members - set(change.added) | set(change.removed)
    return tuple(sorted(members))


def has_history(index: str) -> bool:
    """Whether the members of a past day are known; without, they are those of `LISTED_IN` on every day."""
    return index in _WITH_HISTORY


_CLASS_SHARE = re.compile(r"([A-Z]+)[-/]([ABC])")


def dotted(symbol: str) -> str:
    """An American share class with a dot, BRK.B for BRK-B (Yahoo) and BRK/B; other symbols as they are."""
    return _CLASS_SHARE.sub(r"\1.\2", symbol) if _CLASS_SHARE.fullmatch(symbol) else symbol


_COIN = re.compile(r".+-[A-Z]{3,4}")
_EUROPEAN = re.compile(r".+\.(?:AS|BR|DE|HE|MC|MI|PA)")


def calendar_of(symbol: str) -> str:
    """The exchange whose sessions a symbol's closes are of, as exchange_calendars names it, by Yahoo's
    endings; New York's where none is named."""
    if _COIN.fullmatch(symbol):
        return "24/7"
    return "XETR" if _EUROPEAN.fullmatch(symbol) else "XNYS"


def zone_of(symbol: str) -> ZoneInfo:
    """Where a moment of a symbol's closes becomes a day."""
    if symbol.endswith(".HE"):  # an hour ahead of the others: its midnights are the evenings before elsewhere
        return ZoneInfo("Europe/Helsinki")
    return ZoneInfo({"24/7": "UTC", "XETR": "Europe/Berlin"}.get(calendar_of(symbol), "America/New_York"))


def vendor_symbol(symbol: str) -> str:
    """The symbol under which vendors serve a listing today: META for FB, FISV for FI, else the same."""
    symbol = dotted(symbol)
    for rename in RENAMES:
        if rename.old == symbol:
            symbol = rename.new
    return symbol


def symbol_on(symbol: str, day: date) -> str:
    """The symbol that a listing had on a day, whichever of its symbols is given."""
    symbol = vendor_symbol(symbol)
    for rename in reversed(RENAMES):
        if rename.day > day and rename.new == symbol:
            symbol = rename.old
    return symbol
