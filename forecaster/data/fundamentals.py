"""Quarterly figures joined to the filing that made them public. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from forecaster.records import Company, Quarter

SAME_PERIOD_DAYS = 10
"""Vendors move a fiscal period's end to a month's end; a filing's own end differs by up to this."""
DAYS_TO_FILE_QUARTER = 45
DAYS_TO_FILE_YEAR = 75
"""Latest 10-Q and 10-K of most filers after the period's end, used where no filing is found."""

_EDGAR_TIME = ZoneInfo("America/New_York")


def quarters(series: Mapping[str, Any] | None, filings: Sequence[Mapping[str, Any]]) -> list[Quarter]:
    """Reported quarters, oldest first.

    Args:
        series: `{"quarterly": {name: [{"period": "2024-03-30", "v": 1.5}, ...]}, "annual": {...}}`.
        filings: quarterly and annual ones, with `endDate`, `filedDate`, `acceptedDate`, `accessNumber`.
    """
    series = series or {}
    figures: dict[date, dict[str, float]] = {}
    for name, points in sorted((series.get("quarterly") or {}).items()):
        for point in points or ():
            value = point.get("v")
            if isinstance(value, int | float) and math.isfinite(value):
                figures.setdefault(date.fromisoformat(point["period"][:10]), {})[name] = value
    year_ends = {
        date.fromisoformat(point["period"][:10])
        for points in (series.get("annual") or {}).values()
        for point in points or ()
    }
    known = [filing for filing in map(_filed, filings) if filing]
    return [_quarter(end, figures[end], known, end in year_ends) for end in sorted(figures)]


def latest_known(reported: Sequence[Quarter], as_of: datetime) -> Quarter | None:
    """The quarter with the latest end of those that were public before `as_of`."""
    public = [quarter for quarter in reported if quarter.available_at < as_of]
    return max(public, key=lambda quarter: quarter.period_end, default=None)


def company_of(symbol: str, profile: Mapping[str, Any] | None) -> Company:
    """The facts of a vendor's profile that do not change with time; without one, the symbol stands alone."""
    profile = profile or {}
    try:
        listed_since = date.fromisoformat(str(profile.get("ipo") or ""))
    except ValueError:
        listed_since = None
    name, industry, exchange, country = (
        str(profile.get(key) or "").strip() for key in ("name", "finnhubIndustry", "exchange", "country")
    )
    industry = "" if industry == "N/A" else industry
    return Company(symbol, name or symbol, industry, exchange, country, listed_since)


def _filed(filing: Mapping[str, Any]) -> tuple[date, datetime, str] | None:
    """Period end, moment of publication and accession number; None for a filing without dates."""
    try:
        end = date.fromisoformat(str(filing["endDate"])[:10])
        if accepted := filing.get("acceptedDate"):
            moment = datetime.fromisoformat(str(accepted))
        else:  # a day without a time of day: known at its end
            moment = datetime.combine(date.fromisoformat(str(filing["filedDate"])[:10]), time(23, 59, 59))
    except (KeyError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=_EDGAR_TIME)
    return end, moment.astimezone(UTC), str(filing.get("accessNumber") or "")


def _quarter(
    end: date,
    figures: Mapping[str, float],
    filings: Sequence[tuple[date, datetime, str]],
    is_year_end: bool,
) -> Quarter:
    near = [filing for filing in filings if abs((filing[0] - end).days) <= SAME_PERIOD_DAYS]
    # A filing cannot precede its period's end; amendments come after the original.
    moments = sorted((moment, number) for _, moment, number in near if moment.date() >= end)
    if moments:
        return Quarter(end, moments[0][0], moments[0][1], estimated=False, figures=figures)
    days = DAYS_TO_FILE_YEAR if is_year_end else DAYS_TO_FILE_QUARTER
    public = datetime.combine(end + timedelta(days=days), time.max, _EDGAR_TIME).astimezone(UTC)
    return Quarter(end, public, "", estimated=True, figures=figures)
