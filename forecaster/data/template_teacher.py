"""The teacher that needs no model: deterministic answers that restate what the prompt states. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from decimal import Decimal

from forecaster.records import Answer, Example
from prompts import PastWeek, PromptFacts, clean_text, render_answer, stated_facts

FEWEST_FACTORS, MOST_FACTORS = 2, 4
_MAX_QUOTE_CHARS = 160

# Words that most often tell what a headline means for the price; where none or both occur, chance decides.
_GOOD = re.compile(
    r"\b(?:beats?|tops?|surges?|rall(?:y|ies)|soars?|jumps?|gains?|rises?|climbs?|upgrades?d?|raises?|record|"
    r"strong|growth|wins?|buy|bullish|approv\w+|boosts?|outperform\w*)\b",
    re.IGNORECASE,
)
_BAD = re.compile(
    r"\b(?:miss(?:es)?|falls?|drops?|slips?|slides?|sinks?|plunges?|tumbles?|declines?|loss(?:es)?|cuts?|"
    r"downgrades?d?|lawsuit|probe|fine[sd]?|weak|warns?|warning|risks?|fears?|layoffs?|sell|bearish|recall\w*)\b",
    re.IGNORECASE,
)
_RATIOS = (
    ("netMargin", "a net margin of {}", 0.0),
    ("roeTTM", "a return on equity of {}", 0.0),
    ("currentRatio", "a current ratio of {}", 1.0),
    ("grossMargin", "a gross margin of {}", 0.3),
)
"""Figures worth a word, and the value above which they count as good."""


def template_answer(example: Example) -> str:
    """An answer whose every factor cites the prompt, and whose prediction is the week's true move.

    The same example always gives the same text.
    """
    return answer_from(stated_facts(example.weeks, example.figures, example.is_coin), example)


def answer_from(facts: PromptFacts, example: Example) -> str:
    """`template_answer`, for facts from elsewhere: a published prompt was made without records."""
    rng = random.Random(f"{example.symbol} {example.target.end}")
    good, bad = _factors(facts, rng)
    last = _move(facts.weeks[-1])[1] if facts.weeks else "The prompt shows no past week."
    symbol, start, end = example.symbol, example.target.start, example.target.end
    good += [
        f"What is known of {symbol} is recent: the facts reach to {start}.",
        f"The price to start from is known. {last}",
    ][: max(0, FEWEST_FACTORS - len(good))]
    bad += [
        f"A week is short: what moves {symbol} until {end} need not be in these facts.",
        f"A move can turn. {last}",
    ][: max(0, FEWEST_FACTORS - len(bad))]
    direction = "rise" if example.label.sign > 0 else "fall"
    stronger, weaker = (good, bad) if example.label.sign > 0 else (bad, good)
    leads = (
        f"What weighs most for {example.symbol} is this: {stronger[0]}",
        f"The case for a {direction} of {example.symbol} rests on this: {stronger[0]}",
    )
    others = (f"Against it stands: {weaker[0]}", f"On the other side: {weaker[0]}")
    analysis = (
        f"{rng.choice(leads)} {rng.choice(others)} Taken together, the price is expected to move "
        f"{example.label.text} in the week to {example.target.end}."
    )
    return render_answer(Answer(_numbered(good), _numbered(bad), example.label, analysis))


def _factors(facts: PromptFacts, rng: random.Random) -> tuple[list[str], list[str]]:
    """Up to four positive developments, and up to four concerns, the most recent first."""
    good: list[str] = []
    bad: list[str] = []
    for week in reversed(facts.weeks):
        for item in reversed(week.news):
            is_good, is_bad = bool(_GOOD.search(item.headline)), bool(_BAD.search(item.headline))
            side = rng.random() < 0.5 if is_good == is_bad else is_good
            (good if side else bad).append(f'News of the week to {week.end}: "{_quoted(item.headline)}".')
    moves = [_move(week) for week in reversed(facts.weeks)]
    good = good[: MOST_FACTORS - 2] + [text for pct, text in moves if pct > 0][:1]
    bad = bad[: MOST_FACTORS - 2] + [text for pct, text in moves if pct < 0][:1]
    for name, words, threshold in _RATIOS:
        value = _decimal(facts.financials.get(name, ""))
        if value is not None and len(good if value > threshold else bad) < MOST_FACTORS:
            side_of = good if value > threshold else bad
            side_of.append(f"The latest reported quarter shows {words.format(facts.financials[name])}.")
            break
    return good, bad


def _move(week: PastWeek) -> tuple[Decimal, str]:
    """Percent, and a sentence."""
    if not week.start_price or not week.end_price:
        return Decimal(0), f"The prices of the week to {week.end} are not given."
    pct = 100 * (week.end_price - week.start_price) / week.start_price
    if week.end_price == week.start_price:
        return pct, f"The price stayed at {week.end_price} in the week to {week.end}."
    verb = "rose" if pct > 0 else "fell"
    return pct, (
        f"The price {verb} from {week.start_price} to {week.end_price} in the week to {week.end}, "
        f"{abs(pct):.2f}%."
    )


def _quoted(headline: str) -> str:
    """A headline as part of a line; those of published prompts were never cleaned."""
    text = clean_text(headline).replace('"', "'")
    return text if len(text) <= _MAX_QUOTE_CHARS else text[:_MAX_QUOTE_CHARS].rsplit(" ", 1)[0] + " ..."


def _decimal(text: str) -> Decimal | None:
    return Decimal(text) if re.fullmatch(r"-?\d+(?:\.\d+)?", text) else None


def _numbered(factors: Sequence[str]) -> str:
    return "\n".join(f"{number}. {factor}" for number, factor in enumerate(factors, start=1))
