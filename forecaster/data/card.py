"""The dataset card: what a dataset holds, what it lacks, and where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
from tabulate import tabulate

import indices
from forecaster.data.build import Tally
from forecaster.data.dataset_spec import DatasetSpec
from forecaster.data.join import NEWS_PER_WEEK
from forecaster.data.ledger import Trace
from forecaster.data.splits import SPLITS
from forecaster.records import ALL_LABELS

NOTES = (
    "A period runs from the close of its first day to the close of its last, both sessions of the exchange.",
    "Everything in a prompt was public before the close of its period's first day (`as_of`, UTC).",
    f"At most {NEWS_PER_WEEK} articles of a week are shown, drawn by chance with a seed of symbol and week; "
    "a week of which no news is known says so.",
    "Returns and labels come from closes adjusted for splits and dividends; prices in the text are in shares "
    "of the `as_of` day.",
    "Quarterly figures count from the moment their filing was accepted; where none was found, 45 days after "
    "the quarter's end, 75 after the year's, and 120 for companies that file no 10-Q "
    "(`fundamentals_estimated`). Vendors may restate figures later.",
    "Advertising summaries are left out, summaries of more than 1,000 characters cut. Indicators are left "
    "out where too many daily closes are missing (`indicators_incomplete`).",
    "Rows with a week of which some news may be missing are flagged `news_incomplete`; rows whose prices "
    "were only known adjusted, `prices_adjusted_only`.",
)


def render_card(
    job: DatasetSpec,
    parts: Mapping[str, datasets.Dataset],
    tally: Tally,
    teacher: str,
    traces: Sequence[Trace],
) -> str:
    """The dataset card: what it holds, what it lacks, where it comes from."""
    labels = {split: Counter(part["label"]) for split, part in parts.items()}
    files = "\n".join(f"      - split: {split}\n        path: parquet/{split}.parquet" for split in parts)
    reasons = tally.reasons()
    kept = {split: reasons.pop(split, 0) for split in parts}
    return (
        "\n\n".join(
            [
                f"---\nconfigs:\n  - config_name: default\n    data_files:\n{files}\n---",
                f"# {job.name}",
                "Weekly stock forecasting rows: news, financials and prices that were public before a week "
                "began; an answer; and what the price then did. Not financial advice.",
                tabulate(_facts(job, tally, teacher, traces).items(), headers=("", ""), tablefmt="github"),
                "## What became of every symbol-week",
                tabulate(
                    [*kept.items(), *sorted(reasons.items(), key=lambda item: (-item[1], item[0]))],
                    headers=("symbol-weeks", "count"),
                    tablefmt="github",
                ),
                "![Coverage, labels, articles a week, returns](overview.png)",
                "## Labels",
                tabulate(
                    [[label.text, *(labels[split][label.text] for split in parts)] for label in ALL_LABELS],
                    headers=("label", *parts),
                    tablefmt="github",
                ),
                "## Coverage by symbol",
                tabulate(_coverage_rows(tally), headers=_COVERAGE_HEADERS, tablefmt="github"),
                "## Notes",
                "\n".join(f"- {note}" for note in NOTES),
            ]
        )
        + "\n"
    )


_COVERAGE_HEADERS = (
    "symbol",
    "rows",
    "not used",
    "articles",
    "weeks with incomplete news",
    "days over the call limit",
    "weeks without a closing price",
)


def _coverage_rows(tally: Tally) -> list[list[Any]]:
    by_symbol: dict[str, Counter[bool]] = {}
    for (symbol, _), state in tally.states.items():
        by_symbol.setdefault(symbol, Counter())[state in SPLITS] += 1
    return [
        [
            symbol,
            counts[True],
            counts[False],
            sum(found.articles.values()),
            found.incomplete_weeks,
            found.cut_off_days,
            found.weeks_without_price,
        ]
        for symbol, counts in sorted(by_symbol.items())
        for found in [tally.received[symbol]]
    ]


def _facts(job: DatasetSpec, tally: Tally, teacher: str, traces: Sequence[Trace]) -> dict[str, str]:
    """What the card says of a dataset's making."""
    c = job.config
    sourced = sorted({trace.request.endpoint for trace in traces})
    members = (
        "the user's own list"
        if job.universe.index is None
        else f"those of {indices.LISTED_IN[job.universe.index]}, for all weeks"
        if not indices.has_history(job.universe.index)
        else f"today's, for all weeks ({indices.KNOWN_UNTIL})"
        if c.current_members
        else f"of each week, as known on {indices.KNOWN_UNTIL}"
    )
    return {
        "index": job.universe.index or ", ".join(job.universe.symbols),
        "members": members,
        "weeks": f"{len(job.weeks)} ({job.universe.calendar}), {job.weeks[0].period} ... "
        f"{job.weeks[-1].period}",
        "split": f"{len(job.train_ends)} weeks for training, {job.gap_weeks} between (`gap`, in neither), "
        f"{len(job.test_ends)} for testing",
        "past weeks in a prompt": f"{c.min_past_weeks} to {c.max_past_weeks}",
        "teacher": teacher,
        "sources": ", ".join(sourced),
        "articles without id, time or headline, left out": str(
            sum(found.malformed_articles for found in tally.received.values())
        ),
        "extra blocks": ", ".join(
            name for name, on in (("indicators", c.with_indicators), ("macro", c.with_macro)) if on
        )
        or "none",
    }
