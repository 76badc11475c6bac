"""Every string that a model sees, next to its inverse.

The section headers and the Llama-2 wrapping are those of the published datasets, so that old datasets stay
readable and new ones stay usable elsewhere. Nothing outside this module reads text that the project wrote.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date

from forecaster.records import Answer, Company, Direction, Label, Messages, Unreadable, Week

POSITIVE, CONCERNS, FORECAST = "Positive Developments", "Potential Concerns", "Prediction & Analysis"

SYSTEM_PROMPT = f"""\
You are an experienced stock market analyst. From the company's recent news and financials, name \
what speaks for the stock and what speaks against it, then forecast its move over the coming week and \
explain the forecast. Answer in exactly this form:

[{POSITIVE}]:
1. ...

[{CONCERNS}]:
1. ...

[{FORECAST}]:
Prediction: ...
Analysis: ..."""

# --- prompts ------------------------------------------------------------------------------------------------


def render_published(messages: Messages) -> str:
    """The single-string prompt of the published datasets: `[INST]<<SYS>>` system `<</SYS>>` user
    `[/INST]`."""
    return f"[INST]<<SYS>>\n{messages.system}\n<</SYS>>\n\n{messages.user}[/INST]"


_PUBLISHED = re.compile(
    r"\s*(?:<s>\s*)?\[INST\]\s*<<SYS>>\n?(?P<system>.*?)\n?<</SYS>>(?:\n\n)?(?P<user>.*)\[/INST\]\s*",
    re.DOTALL,
)


def split_published(prompt: str) -> Messages:
    """Inverse of `render_published`; a prompt without that wrapping is all user text, with an empty system
    part."""
    if match := _PUBLISHED.fullmatch(prompt):
        return Messages(match["system"], match["user"])
    return Messages("", prompt)


def render_user_text(
    company: Company,
    weeks: Sequence[Week],
    financials: Mapping[str, float],
    financials_period_end: date | None,
    target_start: date,
    target_end: date,
) -> str:
    """User part of a prompt: who the company is, its past weeks oldest first, its latest financials, the
    question."""
    parts = [
        f"[Company Introduction]:\n\n{company.name} ({company.symbol}) is listed on {company.exchange} and "
        f"belongs to the {company.industry} industry."
    ]
    for week in weeks:
        if week.end_price_usd == week.start_price_usd:
            move = f"stayed at {week.end_price_usd:.2f}"
        else:
            verb = "increased" if week.end_price_usd > week.start_price_usd else "decreased"
            move = f"{verb} from {week.start_price_usd:.2f} to {week.end_price_usd:.2f}"
        parts.append(
            f"From {week.start} to {week.end}, {company.symbol}'s stock price {move}. "
            + ("News during this period:" if week.news else "There was no news about it during this period.")
        )
        parts += [f"[Headline]: {item.headline}\n[Summary]: {item.summary}" for item in week.news]
    if financials:
        parts.append(f"Financials of {company.symbol} for the period that ended on {financials_period_end}:")
        parts.append(
            "[Basic Financials]:\n\n" + "\n".join(f"{name}: {value:g}" for name, value in financials.items())
        )
    parts.append(
        f"Using only what was known before {target_start}, give the two to four most important positive "
        f"developments and potential concerns for {company.symbol}, mostly from the news. Then predict how "
        f"the {company.symbol} stock price moves in the coming week ({target_start} to {target_end}) and "
        "explain why."
    )
    return "\n\n".join(parts)


# A news item runs to the next blank line that is followed by something only a prompt builder writes:
# summaries hold line breaks, and now and then blank lines, of their own.
_NEWS_ITEM = re.compile(
    r"\[Headline\]: .*?(?=\n\n(?:\[Headline\]: |\[Basic Financials\]"
    r"|From \d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d, |Some recent basic financials of "
    r"|No basic financial reported|Financials of |Based on all the information "
    r"|Using only what was known )|\Z)\n*",
    re.DOTALL,
)
_WEEK_START = re.compile(r"^From (\d{4}-\d\d-\d\d) to \d{4}-\d\d-\d\d, ", re.MULTILINE)


def news_item_spans(user_text: str) -> list[tuple[int, int]]:
    """Character spans of the news items in a prompt, oldest first (by week, then by place within it).

    A span takes the blank line behind its item along, so that cutting spans out leaves an evenly spaced text.
    """
    weeks = [(match.start(), match.group(1)) for match in _WEEK_START.finditer(user_text)]

    def age(span: tuple[int, int]) -> tuple[str, int]:
        return max((w for w in weeks if w[0] < span[0]), default=(0, ""))[1], span[0]

    return sorted((match.span() for match in _NEWS_ITEM.finditer(user_text)), key=age)


def without_oldest_news(user_text: str, count: int) -> str:
    """The prompt without its `count` oldest news items; every other character stays."""
    for start, end in sorted(news_item_spans(user_text)[:count], reverse=True):
        user_text = user_text[:start] + user_text[end:]
    return user_text


# --- answers ------------------------------------------------------------------------------------------------


def render_answer(answer: Answer) -> str:
    """An answer in the published form."""
    prediction = answer.label.text[0].upper() + answer.label.text[1:]
    return (
        f"[{POSITIVE}]:\n{answer.positive_developments}\n\n[{CONCERNS}]:\n{answer.potential_concerns}\n\n"
        f"[{FORECAST}]:\nPrediction: {prediction}\nAnalysis: {answer.analysis}"
    )


_MARKDOWN = r"[#*_>\s]*"


def _header(title: str) -> str:
    # In brackets anywhere on a line start, or bare when it has the line to itself.
    return (
        rf"^{_MARKDOWN}(?:\[\s*{title}\s*\][*_]*[ \t]*:?[*_]*"
        rf"|{title}{_MARKDOWN.replace(chr(92) + 's', ' ')}:?[*_ \t]*$)"
    )


_HEADERS = re.compile(
    rf"(?P<positive>{_header('positive developments?')})"
    rf"|(?P<concerns>{_header('potential concerns?')})"
    rf"|(?P<forecast>{_header('prediction (?:&|and) analysis')})",
    re.IGNORECASE | re.MULTILINE,
)
_PREDICTION = re.compile(
    rf"(?:^{_MARKDOWN}|\][*_]*:?[*_]*[ \t]*)prediction[*_]*[ \t]*:[*_]*", re.IGNORECASE | re.MULTILINE
)
_ANALYSIS = re.compile(
    rf"(?:^{_MARKDOWN}|[\s*_])(?:summary )?analysis[*_]*[ \t]*:[*_]*", re.IGNORECASE | re.MULTILINE
)
_THINK_BLOCK = re.compile(r"<think>.*?</think>", re.DOTALL)

_UP = r"up(?! to\b)|upward|upwards|increase|increases|rise|rises|gain|gains|grow|grows|climb|climbs"
_DOWN = r"down|downward|downwards|decrease|decreases|decline|declines|drop|drops|fall|falls|lose|loses"
_DIRECTION_WORD = re.compile(rf"\b(?:(?P<up>{_UP})|(?P<down>{_DOWN}))\b", re.IGNORECASE)
_SIZE = re.compile(
    r"(?P<sign>(?<![\d%])[-+−])?(?P<low>\d+(?:\.\d+)?)\s*%?"
    r"(?:\s*(?:-|–|—|to)\s*(?P<high>\d+(?:\.\d+)?))?\s*(?:%|percent\b)"
    r"(?P<plus>\s?\+| or (?:more|higher|above))?",
    re.IGNORECASE,
)
_OPEN_ENDED = re.compile(r"more than|over|above|beyond|exceed\w*|at least|>", re.IGNORECASE)
_MAX_WORDS_APART_CHARS = 40
_LARGEST_PCT = 1000.0
"""Caps the nonsense of a looping model, such as a number of four hundred digits."""
# What follows gives grounds, and may hold other sizes and directions.
_GROUNDS = re.compile(
    r"\b(?:as|because|since|due to|driven by|given|despite|while|after|following|amid)\b", re.I
)


def without_think_block(text: str) -> str:
    """The answer behind a reasoning model's closed think block; an answer without one is returned as it
    is."""
    return _THINK_BLOCK.sub("", text).strip()


def parse_answer(text: str) -> Answer | Unreadable:
    """Inverse of `render_answer`, for what models really write.

    Accepts markdown around headers, headers without colon, any letter case and closed think blocks. The
    prediction has to name one direction and one size: none, or two that differ, make the answer unreadable.
    Never raises.
    """
    text = without_think_block(text)
    if "<think>" in text:
        return Unreadable("cut off inside the think block")
    headers = list(_HEADERS.finditer(text))
    kinds = [str(header.lastgroup) for header in headers]
    sections: dict[str, str] = {}
    for kind, title in (("positive", POSITIVE), ("concerns", CONCERNS), ("forecast", FORECAST)):
        if kind not in kinds:
            return Unreadable(f"no section [{title}]")
        at = kinds.index(kind)
        end = headers[at + 1].start() if at + 1 < len(headers) else len(text)
        sections[kind] = text[headers[at].end() : end].strip()
    if not kinds.index("positive") < kinds.index("concerns") < kinds.index("forecast"):
        return Unreadable("sections out of order")
    for kind, title in (("positive", POSITIVE), ("concerns", CONCERNS)):
        if not sections[kind]:
            return Unreadable(f"section [{title}] is empty")
    analysis = _ANALYSIS.search(sections["forecast"])
    if not analysis:
        return Unreadable('no "Analysis:" line')
    if not (analysis_text := sections["forecast"][analysis.end() :].strip()):
        return Unreadable("the analysis is empty")
    label = _only_prediction(text)
    if isinstance(label, Unreadable):
        return label
    return Answer(sections["positive"], sections["concerns"], label, analysis_text)


def _only_prediction(text: str) -> Label | Unreadable:
    """The one label that all `Prediction:` lines of an answer agree on."""
    lines = []
    for match in _PREDICTION.finditer(text):
        line = text[match.end() :].lstrip().split("\n", 1)[0]
        analysis = _ANALYSIS.search(line)
        lines.append(line[: analysis.start()] if analysis else line)
    if not lines:
        return Unreadable('no "Prediction:" line')
    readings = [parse_prediction(line) for line in lines]
    labels = sorted({reading for reading in readings if isinstance(reading, Label)})
    if len(labels) > 1:
        return Unreadable("contradictory predictions", ", ".join(label.text for label in labels))
    return labels[0] if labels else readings[0]


def parse_prediction(line: str) -> Label | Unreadable:
    """Read one prediction, such as `Up by 2-3%`, `Down by more than 5%`, `a 1.5% drop` or `-3%`."""
    line = _GROUNDS.split(line, maxsplit=1)[0]
    sizes = list(_SIZE.finditer(line))
    words = list(_DIRECTION_WORD.finditer(line))
    if not sizes:
        return Unreadable("no size in percent in the prediction", _shortened(line))
    labels = set()
    for size in sizes:
        near = _near_direction(size, words)
        signs: set[Direction] = {"up" if word["up"] else "down" for word in near}
        if size["sign"]:
            signs.add("up" if size["sign"] == "+" else "down")
        if len(signs) > 1:
            return Unreadable("both directions in the prediction", _shortened(line))
        if signs:
            labels.add(_label(signs.pop(), size, line))
    if not labels:
        return Unreadable("no direction in the prediction", _shortened(line))
    if len(labels) > 1:
        return Unreadable("more than one prediction in a line", _shortened(line))
    return labels.pop()


def _near_direction(size: re.Match[str], words: list[re.Match[str]]) -> list[re.Match[str]]:
    """Direction words shortly before a size ("up by 2-3%"), or else shortly after it ("a 2% drop")."""
    before = [w for w in words if 0 <= size.start() - w.end() <= _MAX_WORDS_APART_CHARS]
    return before or [w for w in words if 0 <= w.start() - size.end() <= _MAX_WORDS_APART_CHARS // 2]


def _label(direction: Direction, size: re.Match[str], line: str) -> Label:
    low = min(float(size["low"]), _LARGEST_PCT)
    lead_in = line[max(0, size.start() - 15) : size.start()]
    if not size["high"] and (size["plus"] or _OPEN_ENDED.search(lead_in)):
        return Label(direction, min(int(low), 5))
    high = min(float(size["high"] or low), _LARGEST_PCT)
    return Label.of_move(direction, (low + high) / 2)


def _shortened(line: str, max_chars: int = 60) -> str:
    line = " ".join(line.split())
    return line if len(line) <= max_chars else line[: max_chars - 3] + "..."
