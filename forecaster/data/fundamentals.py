"""Quarterly figures joined to the filing that made them public. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from forecaster.records import Company, Quarter

SAME_PERIOD_DAYS = 10
"""Vendors move a fiscal period's end to a month's end; a filing's own end differs by up to this."""
DAYS_TO_FILE_QUARTER = 45
DAYS_TO_FILE_YEAR = 75
"""Latest 10-Q and 10-K of most filers after the period's end, used where no filing is found."""
DAYS_TO_PUBLISH_ABROAD = 120
"""The same for whoever files no 10-Q at all, such as foreign issuers, whose reports come later."""

_EDGAR_TIME = ZoneInfo("America/New_York")


def quarters(series: Mapping[str, Any] | None, filings: Sequence[Mapping[str, Any]]) -> list[Quarter]:
    """Reported quarters, oldest first.

    Args:
        series: `{"quarterly": {name: [{"period": "2024-03-30", "v": 1.5}, ...]}, "annual": {...}}`; points
            without a readable period are passed over.
        filings: quarterly and annual ones, with `form`, `endDate`, `filedDate`, `acceptedDate`,
            `accessNumber`.
    """
    series = series or {}
    figures: dict[date, dict[str, float]] = {}
    for name, points in sorted((series.get("quarterly") or {}).items()):
        for end, value in _points(points):
            if isinstance(value, int | float) and math.isfinite(value):
                figures.setdefault(end, {})[name] = value
    year_ends = {end for points in (series.get("annual") or {}).values() for end, _ in _points(points)}
    known = [filing for filing in map(_filed, filings) if filing]
    files_quarters = any(str(filing.get("form") or "").startswith("10-Q") for filing in filings)
    found = []
    for end in sorted(figures):
        days = DAYS_TO_FILE_YEAR if _near(end, year_ends) else DAYS_TO_FILE_QUARTER
        found.append(_quarter(end, figures[end], known, days if files_quarters else DAYS_TO_PUBLISH_ABROAD))
    return found


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


def _points(points: Sequence[Any] | None) -> Iterator[tuple[date, Any]]:
    """Period end and value of each point that names a period."""
    for point in points or ():
        if isinstance(point, Mapping) and (end := _day(point.get("period"))):
            yield end, point.get("v")


def _day(value: Any) -> date | None:
    """The day that a vendor's date, with or without a time, starts with."""
    try:
        day = date.fromisoformat(str(value)[:10])
    except ValueError:
        return None
    # The years 1 and 9999, which stand for "unknown" and "never", leave no room to reckon in.
    return day if MINYEAR < day.year < MAXYEAR else None


def _near(end: date, others: Iterable[date]) -> bool:
    return any(abs((other - end).days) <= SAME_PERIOD_DAYS for other in others)


def _filed(filing: Mapping[str, Any]) -> tuple[date, datetime, str] | None:
    """Period end, moment of publication and accession number; None for a filing without dates."""
    end = _day(filing.get("endDate"))
    moment = _moment(filing.get("acceptedDate")) or _moment(filing.get("filedDate"), with_time=False)
    if end is None or moment is None:
        return None
    return end, moment, str(filing.get("accessNumber") or "")


def _moment(value: Any, with_time: bool = True) -> datetime | None:
    """A vendor's date as a moment in UTC; one without a time of day, or at midnight, is known at its end."""
    day = _day(value)
    if day is None:
        return None
    try:
        moment = datetime.fromisoformat(str(value)) if with_time else datetime.combine(day, time.min)
    except ValueError:
        return None
    if moment.time() == time.min:
        moment = datetime.combine(day, time(23, 59, 59), _EDGAR_TIME)
    return (moment if moment.tzinfo else moment.replace(tzinfo=_EDGAR_TIME)).astimezone(UTC)


def _quarter(
    end: date,
    figures: Mapping[str, float],
    filings: Sequence[tuple[date, datetime, str]],
    days_to_publish: int,
) -> Quarter:
    """The figures of one quarter; without a filing they count as public so many days after its end."""
    near = [filing for filing in filings if _near(end, [filing[0]])]
    # A filing cannot precede its period's end; amendments come after the original.
    moments = sorted((moment, number) for _, moment, number in near if moment.date() >= end)
    if moments:
        return Quarter(end, moments[0][0], moments[0][1], estimated=False, figures=figures)
    last_day = end + timedelta(days=days_to_publish)
    public = datetime.combine(last_day, time.max, _EDGAR_TIME).astimezone(UTC)
    return Quarter(end, public, "", estimated=True, figures=figures)
