"""Where the project's parser and the published one read a model's answers differently.

Takes a folder of csv files with columns prompt, reference and prediction, such as those of a published run:

    python bench/parsers_side_by_side.py FOLDER    # or FORECASTER_REAL_DATA, whose model_outputs it takes

Nothing here says who is right: the differences are there to be read by eye.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from forecaster.evaluation.published import PublishedAnswer, parse_as_published
from forecaster.records import Answer, Unreadable
from forecaster.tasks.answers import parse_answer, without_think_block
from prompts import read_prompt, split_published

LONGEST_LINE = 60
SECTIONS = ("positive_developments", "potential_concerns", "analysis")


def difference(own: Answer | Unreadable, published: PublishedAnswer | None) -> str:
    """What kind of difference there is between two readings; empty where there is none."""
    if isinstance(own, Unreadable):
        return "read by the published parser only" if published else ""
    if published is None:
        return "read by the project only"
    if own.label.sign != published.direction:
        return "another direction"
    if own.label.midpoint_pct != published.size_pct:
        return "another size"
    texts = [section for section in SECTIONS if getattr(own, section) != getattr(published, section)]
    return f"another text: {', '.join(texts)}" if texts else ""


def prediction_lines(text: str) -> str:
    """The ends of the lines that hold a prediction, each once."""
    found = re.findall(r"prediction[*_ \t]*:[ \t]*(\S.*)", text, re.IGNORECASE)
    lines = [line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..." for line in found]
    return " | ".join(f"{line} x{count}" if count > 1 else line for line, count in Counter(lines).items())


def in_words(own: Answer | Unreadable, published: PublishedAnswer | None) -> str:
    """Both readings in one line."""
    mine = own.label.text if isinstance(own, Answer) else f"{own.reason} ({own.detail})"
    theirs = f"{published.direction:+d}, {published.size_pct:+.1f}%" if published else "invalid"
    return f"project: {mine}; published: {theirs}"


def compare(name: str, rows: list[dict[str, str]], texts: list[str]) -> None:
    readings = [(parse_answer(text), parse_as_published(text)) for text in texts]
    print(f"\n== {name}: {len(rows)} answers")
    own_valid = sum(isinstance(own, Answer) for own, _ in readings)
    reasons = Counter(own.reason for own, _ in readings if isinstance(own, Unreadable))
    print(f"read by the project {own_valid}, by the published parser {sum(bool(p) for _, p in readings)}")
    for reason, count in reasons.most_common():
        print(f"  {count:4} unreadable to the project: {reason}")
    kinds = [difference(own, published) for own, published in readings]
    for kind, count in Counter(filter(None, kinds)).most_common():
        print(f"  {count:4} differ: {kind}")
    for number, (row, text, (own, published), kind) in enumerate(
        zip(rows, texts, readings, kinds, strict=True), 1
    ):
        if kind:
            symbol = read_prompt(split_published(row["prompt"]).user).symbol or "?"
            print(f"row {number} {symbol}: {kind}: {prediction_lines(text)}")
            print(f"    {in_words(own, published)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="of csv files")
    folder = parser.parse_args().folder
    if folder is None:
        if not (real_data := os.environ.get("FORECASTER_REAL_DATA")):
            print("No folder is named and FORECASTER_REAL_DATA is not set: nothing to compare.")
            return
        folder = Path(real_data) / "model_outputs"
    if not (paths := sorted(folder.glob("*.csv"))):
        parser.error(f"{folder} holds no csv file")
    csv.field_size_limit(2**31 - 1)
    for path in paths:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        written = [row["prediction"] for row in rows]
        compare(path.name, rows, written)
        if any("</think>" in text for text in written):
            spoken = [without_think_block(text) for text in written]
            compare(f"{path.name} without think blocks", rows, spoken)


if __name__ == "__main__":
    main()
