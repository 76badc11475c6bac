"""What a vendor is: the kinds of facts that it has, the requests that ask for them, and a client.

A new vendor is one file with a client and one entry of `registry.VENDORS`. Whoever wants facts asks for a
kind of them; the ledger keeps each answer under its request, so that nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from forecaster.calls import Request

if TYPE_CHECKING:
    from forecaster.vendors.pace import Pace

FactKind = Literal["news", "profile", "figures", "filings", "prices"]
"""What can be known of a symbol, and the payload that every vendor of it gives:

- news: a list of articles as `payloads.is_article` wants them, of UTC days, both included.
- profile: a mapping of texts that do not change with time.
- figures: reported figures, `{"quarterly": {name: [{"period", "v"}, ...]}, "annual": {...}}`.
- filings: a list of mappings that say when a report became public.
- prices: `{"bars": [{"day", "close", "adj_close"}], "splits": [{"day", "ratio"}], "missing_days": [day]}`,
  oldest first, numbers as text.
"""


@dataclass(frozen=True)
class VendorEndpoint:
    """One request that a vendor answers."""

    kind: FactKind
    name: str
    """In the ledger's requests, unlike that of any other vendor: an answer is known by it for good."""
    variant: str = ""


class Client(Protocol):
    """Asks a vendor at a given pace."""

    pace: Pace

    def ask(self, request: Request) -> Any:
        """The payload of a request for one of the vendor's endpoints.

        Of news it is everything in the window, or else as much as one answer holds from the window's newest
        end: what is missing is older than everything received, and is asked for with a window that ends at
        the oldest article. A vendor that pages by tokens follows them in here, as far as one answer goes.

        Raises:
            KeyRefusedError: no call will ever be answered.
            UnknownSymbolError: now and later, so that it is recorded as an answer.
            NoAccessError: this call is not part of the user's plan.
            UnreachableError: no usable answer after all tries.
            StoppedError: the pace was stopped.
        """

    def close(self) -> None:
        """End its connections."""


@dataclass(frozen=True)
class Vendor:
    """What is known of a vendor before it is asked anything."""

    name: str
    endpoints: Sequence[VendorEndpoint]
    connect: Callable[[str, Pace], Client]
    """A client for a key ("" where none is needed), without a call. Its library is imported here, not with
    the registry."""
    calls_per_minute: int
    """Of the free plan."""
    most_calls_per_minute: int | None = None
    """Of any plan; None where the pace is not the user's to choose."""
    workers: int = 8
    """Symbols in flight; 1 for a client that is not made for several threads."""
    key_setting: str | None = None
    """The field of `Settings` that holds its key; None where it asks for none."""
    news_days: int | None = None
    """About how far back the free plan serves news; None for all of it."""
    news_per_answer: int | None = None
    """Articles in one answer from which on older ones may have been left out; None where none ever is."""

    @property
    def key_variable(self) -> str | None:
        """The environment variable of its key."""
        return self.key_setting.upper() if self.key_setting else None

    def endpoints_of(self, *kinds: FactKind) -> list[VendorEndpoint]:
        return [endpoint for endpoint in self.endpoints if endpoint.kind in kinds]


@dataclass(frozen=True)
class Connection:
    """A vendor that can be asked."""

    vendor: Vendor
    client: Client
