"""Every vendor, and which of them has what. Light: a vendor's library is imported when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forecaster.vendors.base import Client, FactKind, Vendor, VendorEndpoint

if TYPE_CHECKING:
    from forecaster.vendors.pace import Pace


def _finnhub(key: str, pace: Pace) -> Client:
    from forecaster.vendors.finnhub import Finnhub

    return Finnhub(key, pace)


def _yahoo(_key: str, pace: Pace) -> Client:
    from forecaster.vendors.yahoo import Yahoo

    return Yahoo(pace)


FINNHUB = Vendor(
    "Finnhub",
    (
        VendorEndpoint("profile", "profile"),
        VendorEndpoint("figures", "basic-financials"),
        VendorEndpoint("filings", "filings", "quarterly"),
        VendorEndpoint("filings", "filings", "annual"),
        VendorEndpoint("news", "company-news"),
    ),
    _finnhub,
    calls_per_minute=60,
    most_calls_per_minute=1800,  # 30 a second on any plan
    # An answer takes about a second, so this many keep up with 8 calls a second.
    workers=8,
    key_setting="finnhub_api_key",
    news_days=365,
    # One call gives about 250 at most, and the calls that were cut off in the dumps of 2025 and 2026 hold 230
    # to 246, because some articles are dropped after the limit was applied. The margin costs a second call
    # where 200 to 229 articles were really all.
    news_per_answer=200,
)

YAHOO = Vendor(
    "Yahoo",
    (VendorEndpoint("prices", "daily-bars"),),
    _yahoo,
    # Yahoo publishes no limit. One symbol takes two requests, and a hundred symbols two minutes.
    calls_per_minute=60,
    # yfinance shares one session among all threads.
    workers=1,
)

VENDORS: dict[str, Vendor] = {"finnhub": FINNHUB, "yahoo": YAHOO}
"""By the word that their articles' ids begin with. Of several that have a kind of fact, all are asked for
news, each for what its own answers lack; for the others the first one here."""


def vendors_of(kind: FactKind) -> list[Vendor]:
    return [vendor for vendor in VENDORS.values() if vendor.endpoints_of(kind)]


def endpoints_of(*kinds: FactKind) -> list[VendorEndpoint]:
    """Of all vendors, in their order."""
    return [endpoint for vendor in VENDORS.values() for endpoint in vendor.endpoints_of(*kinds)]


def names_of(*kinds: FactKind) -> tuple[str, ...]:
    """Names of the endpoints of some kinds, each once."""
    return tuple(dict.fromkeys(endpoint.name for endpoint in endpoints_of(*kinds)))


def vendor_behind(endpoint: str) -> tuple[str, Vendor]:
    """The word and the vendor of an endpoint's name; raises KeyError for one that no vendor has."""
    for word, vendor in VENDORS.items():
        if any(known.name == endpoint for known in vendor.endpoints):
            return word, vendor
    raise KeyError(endpoint)
