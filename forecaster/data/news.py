"""Which stretches of time the news calls of one symbol cover, and the articles that they hold. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any

from forecaster.calls import Call
from forecaster.records import Article, TradingWeek
from forecaster.vendors.own_files import NEWS_FILE
from forecaster.vendors.payloads import is_article
from forecaster.vendors.registry import names_of, vendor_behind
from prompts import clean_text

LONGEST_QUIET_TIME = timedelta(days=7)
"""Between two articles of a file of one's own. Nothing tells whether a longer gap was a quiet time."""

Span = tuple[datetime, datetime]
"""Half-open, UTC, in whole seconds."""

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Coverage:
    """What one call says about stretches of time."""

    certain: tuple[Span, ...]
    """No article of them is missing."""
    cut_off: Span | None = None
    """A day with more articles than one call gives: some are missing, and no call can get them."""
    out_of_reach: Span | None = None
    """Before what the free plan served: articles may be missing, and no later call can get them."""


def coverage_of(call: Call) -> Coverage:
    """Coverage of one call for news, of a vendor or `news-file`.

    An answer that was cut off covers the time just after its oldest article in the window: others of the
    same second may be missing. Nothing is known of the time after the moment of the call. A whole answer says
    nothing sure of what lies before its oldest article and before the reach of the vendor's free plan.

    A file covers the stretches in which consecutive articles lie at most `LONGEST_QUIET_TIME` apart, each
    from the start of its first day, or just after its oldest article where the file was cut off.
    """
    times = sorted(_instant(item["datetime"]) for item in _articles_in_window(call))
    if call.request.endpoint == NEWS_FILE:
        return Coverage(_stretches(times, call.truncated))
    start, end = _window(call)
    end = min(end, call.fetched_at)
    if not call.truncated:
        days = vendor_behind(call.request.endpoint)[1].news_days
        reach = start if days is None else call.fetched_at - timedelta(days=days)
        sure = max(start, min(reach, end, *times[:1]))
        return Coverage(_spans((sure, end)), out_of_reach=_span(start, sure))
    after_oldest = times[0] + _SECOND if times else end
    last_day = start_of(date.fromisoformat(call.request.window_end))
    # The same window asked again gives the same articles, and one shorter than a day does not exist.
    too_full = _span(last_day, end) if after_oldest > last_day else None
    return Coverage(_spans((after_oldest, end)), too_full)


def covered(coverages: Iterable[Coverage]) -> list[Span]:
    """Stretches of which no article is missing that a call could get: sorted, and apart from one another."""
    return _merged(span for item in coverages for span in (*item.certain, item.cut_off, item.out_of_reach))


def covered_spans(calls: Sequence[Call]) -> list[Span]:
    """`covered` of the `company-news` and `news-file` calls of one symbol, for what need not be asked.

    Cut-off days and what was out of reach count as covered.
    """
    return covered(map(coverage_of, calls))


def certain_spans(calls: Sequence[Call]) -> list[Span]:
    """Stretches of which no article is missing for sure: sorted, and apart from one another.

    Unlike `covered_spans`, without cut-off days and without what was out of the free plan's reach.
    """
    coverages = [coverage_of(call) for call in calls]
    days = [(start_of(day), start_of(day + timedelta(days=1))) for day in cut_off(coverages)]
    return gaps([span for item in coverages for span in item.certain], days)


def cut_off_days(calls: Sequence[Call]) -> set[date]:
    """UTC days with more articles than one call gives, unless other calls hold the rest of the day."""
    return cut_off([coverage_of(call) for call in calls])


def cut_off(coverages: Sequence[Coverage]) -> set[date]:
    """`cut_off_days`, for coverages."""
    certain = _merged(span for item in coverages for span in item.certain)
    return {item.cut_off[0].date() for item in coverages if item.cut_off and gaps([item.cut_off], certain)}


def gaps(wanted: Sequence[Span], covered: Sequence[Span]) -> list[Span]:
    """The parts of `wanted` that are not in `covered`, oldest first."""
    found = []
    known = _merged(covered)
    for start, end in _merged(wanted):
        for known_start, known_end in known:
            if known_end <= start or known_start >= end:
                continue
            if known_start > start:
                found.append((start, known_start))
            start = known_end
        if start < end:
            found.append((start, end))
    return found


def articles(
    calls: Sequence[Call], start: datetime | None = None, end: datetime | None = None
) -> list[Article]:
    """Articles of the `company-news` and `news-file` calls of one symbol, in the order of publication.

    Vendors put articles from outside the window into an answer, at both ends: those are left out. What two
    answers hold comes once. What was published again later stays, as it depends on the weeks in sight
    whether it is a repeat: `without_repeats` takes it out.

    Args:
        start: UTC; what was published earlier is left out. None is no limit.
        end: UTC; likewise for what was published then or later.
    """
    found: dict[tuple[datetime, str], Article] = {}
    for call in calls:
        for item in _articles_in_window(call):
            article = article_of(call, item)
            if (start is None or start <= article.published_at) and (
                end is None or article.published_at < end
            ):
                found.setdefault((article.published_at, article.id), article)
    return [found[key] for key in sorted(found)]


def without_repeats(articles: Iterable[Article]) -> list[Article]:
    """Articles, oldest first, without those whose id or headline came before."""
    ids: set[str] = set()
    headlines: set[str] = set()
    kept = []
    for article in articles:
        words = headline_words(article.headline)
        if article.id in ids or words in headlines:
            continue
        ids.add(article.id)
        if words:
            headlines.add(words)
        kept.append(article)
    return kept


@lru_cache(maxsize=1 << 15)  # a prompt's weeks are those of the prompt before, but for one
def headline_words(headline: str) -> str:
    """A headline without what differs between two copies of it: case, punctuation, spacing and escapes; empty
    where nothing of it can be shown."""
    cleaned = clean_text(headline).casefold()
    # Two headlines of nothing but signs are equal only sign by sign.
    return " ".join(re.findall(r"\w+", cleaned)) or cleaned


def items_by_id(calls: Sequence[Call]) -> dict[str, Mapping[str, Any]]:
    """What the news calls among `calls` hold of each article, by its id: more than an `Article` does, such as
    its `source` and `url`."""
    found: dict[str, Mapping[str, Any]] = {}
    for call in calls:
        if call.request.endpoint in (*names_of("news"), NEWS_FILE):
            for item in _articles_in_window(call):
                found.setdefault(article_of(call, item).id, item)
    return found


def malformed_articles(calls: Sequence[Call]) -> int:
    """Items that are no article and are left out everywhere."""
    return sum(not is_article(item) for call in calls for item in call.payload or ())


def article_of(call: Call, item: dict[str, Any]) -> Article:
    """An item of a news call, for which `is_article` holds."""
    endpoint, own_id = call.request.endpoint, str(item["id"])
    return Article(
        own_id if endpoint == NEWS_FILE else f"{vendor_behind(endpoint)[0]}:{own_id}",
        _instant(item["datetime"]),
        item["headline"],
        str(item.get("summary") or ""),
    )


def covers(spans: Sequence[Span], start: datetime, end: datetime) -> bool:
    """Whether one of the spans holds the whole stretch."""
    return any(first <= start and end <= last for first, last in spans)


def spans_of(weeks: Iterable[TradingWeek]) -> tuple[Span, ...]:
    """The stretches whose news belongs to some weeks."""
    return tuple((week.start_close, week.end_close) for week in weeks)


def start_of(day: date) -> datetime:
    """Midnight, UTC."""
    return datetime.combine(day, time(), UTC)


def _articles_in_window(call: Call) -> Iterator[dict[str, Any]]:
    start, end = (moment.timestamp() for moment in _window(call))
    for item in call.payload or ():
        if is_article(item) and start <= item["datetime"] < end:
            yield item


def _window(call: Call) -> Span:
    """From the start of the first to the end of the last UTC day that was asked for."""
    first, last = (date.fromisoformat(day) for day in (call.request.window_start, call.request.window_end))
    return start_of(first), start_of(last + timedelta(days=1))


def _instant(unix_s: int) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


def _stretches(times: Sequence[datetime], truncated: bool) -> tuple[Span, ...]:
    """Of sorted times, those with no gap longer than `LONGEST_QUIET_TIME`, to the end of the last second."""
    stretches: list[list[datetime]] = []
    for moment in times:
        if stretches and moment - stretches[-1][-1] <= LONGEST_QUIET_TIME:
            stretches[-1].append(moment)
        else:
            stretches.append([moment])
    return _spans(
        *(
            (found[0] + _SECOND if truncated else start_of(found[0].date()), found[-1] + _SECOND)
            for found in stretches
        )
    )


def _spans(*spans: Span) -> tuple[Span, ...]:
    """Those that hold any time."""
    return tuple(span for span in spans if span[0] < span[1])


def _span(start: datetime, end: datetime) -> Span | None:
    return (start, end) if start < end else None


def _merged(spans: Iterable[Span | None]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span and span[0] < span[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
