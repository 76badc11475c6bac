"""Every string that a model sees, next to its inverse.

The section headers and the Llama-2 wrapping are those of the published datasets, so that old datasets stay
readable and new ones stay usable elsewhere. Nothing outside this module reads text that the project wrote.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from html import unescape
from html.entities import html5
from typing import Literal

from forecaster.plain_text import with_few_marks
from forecaster.records import Answer, Company, Label, MacroReading, Messages, NewsItem, Week

POSITIVE, CONCERNS, FORECAST = "Positive Developments", "Potential Concerns", "Prediction & Analysis"
PREDICTION, ANALYSIS = "Prediction:", "Analysis:"
"""What the last section's two lines begin with."""
FINANCIALS, INDICATORS, MACRO = "Basic Financials", "Technical Indicators", "Market Environment"

_ANSWER_FORM = f"""\
[{POSITIVE}]:
1. ...

[{CONCERNS}]:
1. ...

[{FORECAST}]:
Prediction: ...
Analysis: ..."""

SYSTEM_PROMPT = f"""\
You are an experienced stock market analyst. From the company's recent news and financials, name \
what speaks for the stock and what speaks against it, then forecast its move over the coming week and \
explain the forecast. Answer in exactly this form:

{_ANSWER_FORM}"""

COIN_SYSTEM_PROMPT = f"""\
You are an experienced analyst of cryptocurrency markets. From the coin's recent news and prices, name \
what speaks for it and what speaks against it, then forecast its price move over the coming week and \
explain the forecast. Answer in exactly this form:

{_ANSWER_FORM}"""


def system_prompt(kind: Literal["stock", "cryptocurrency"]) -> str:
    """System part of a prompt about a stock or a coin."""
    return COIN_SYSTEM_PROMPT if kind == "cryptocurrency" else SYSTEM_PROMPT


# --- texts from outside -------------------------------------------------------------------------------------

# Characters that show nothing although Unicode does not class them as format characters: fillers, joiners and
# variation selectors, in which text can be hidden from the reader's eye.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff]"
)
# Digits are limited because html.unescape fails on numbers of thousands of digits.
_ENTITY = re.compile(r"&(?:#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,8}|(?P<name>[A-Za-z][A-Za-z0-9]{1,31}));")
_LAYOUT_TAG = re.compile(
    r"</?(?:a|abbr|b|blockquote|br|center|code|div|em|figcaption|figure|font|h[1-6]|hr|i|img|li|ol|p|pre|"
    r"small|span|strong|sub|sup|table|tbody|td|th|thead|tr|u|ul)(?:\s[^<>=]*=[^<>]*|\s*/)?>",
    re.IGNORECASE,
)
# "<think>", "<|end|>", "<<SYS>>", "</ s>"; a comparison such as "<5% or >6%" is not meant.
_MARKER = re.compile(r"(?<!<)<++(\s*[A-Za-z/|!?_][^<>]*|[^<>\s]+)>+")
_ROUND = str.maketrans("[]", "()")

_MOST_CLEANING_ROUNDS = 10
"""What is written within markup or escapes of its own takes a round for each level; honest text has two or
three. A limit keeps the time in proportion to the length."""
_WITHOUT_LEVELS = str.maketrans({"<": "(", ">": ")", "&": " and "})


def clean_text(text: str) -> str:
    """A text from outside as it may enter a prompt: one line that cannot pass for the prompt's own structure.

    HTML entities are resolved (also doubly escaped ones) and layout tags dropped; the text is put into NFKC;
    control, zero-width and bidirectional characters and lone surrogates go; white space of any kind becomes
    single spaces. Square brackets become round ones, and so do angle brackets around anything like a control
    token of a chat model, so that no section header or instruction marker is left in any spelling. Markup and
    escapes within one another more than `_MOST_CLEANING_ROUNDS` deep are written out as what they are not.
    Cleaning twice changes nothing more. Takes time in proportion to the length, and never raises.
    """
    for _ in range(_MOST_CLEANING_ROUNDS):
        if (cleaned := _cleaned_once(text)) == text:
            return text
        text = cleaned
    # Nothing is left of what a further round could resolve.
    return _cleaned_once(text.translate(_WITHOUT_LEVELS))


def _cleaned_once(text: str) -> str:
    """Every pattern here begins with a sign that its own repeats cannot pass, so that no stretch is read more
    than a few times."""
    text = unicodedata.normalize("NFKC", with_few_marks(_ENTITY.sub(_resolved, text)))
    if not text.isascii() or not text.isprintable():
        text = _BLANK.sub("", text)
        text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    text = _MARKER.sub(r"(\1)", _LAYOUT_TAG.sub(" ", text)).translate(_ROUND)
    return " ".join(text.split())


def _resolved(entity: re.Match[str]) -> str:
    if name := entity["name"]:
        return html5.get(f"{name};", entity[0])
    return unescape(entity[0])


def marker_pattern(tokens: Iterable[str], more: str = r"(?!)") -> re.Pattern[str]:
    """The first character of every one of these tokens in a text, for `break_markers`.

    Args:
        more: a pattern for others.
    """
    rests: dict[str, list[str]] = {}
    for token in sorted(tokens):
        if len(token) > 1:
            rests.setdefault(token[0], []).append(re.escape(token[1:]))
    # By first character: a tokenizer may have thousands, and most characters begin none.
    known = "|".join(f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in rests.items())
    return re.compile(rf"(?=(?:{known or '(?!)'}|{more}))(.)", re.DOTALL)


CHAT_MARKERS = marker_pattern(
    (
        *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>"),
        *("<think>", "</think>", "<tool_call>", "</tool_call>", "<start_of_turn>", "<end_of_turn>"),
        *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]"),
        *("[THINK]", "[/THINK]", "[gMASK]", "<sop>", "<|turn>", "<turn|>", "<|channel>", "<channel|>"),
    ),
    r"<[|｜][^<>|｜\s]{1,60}[|｜]>",
)
"""Signs of the chat models that are known, for a model that is behind an endpoint."""


def break_markers(text: str, markers: re.Pattern[str]) -> str:
    """The text with a space in every marker, behind its first character: it stays to be read, and no
    tokenizer takes it for a control token. A text without markers stays as it is; doing it twice changes
    nothing more."""
    return markers.sub(r"\1 ", text)


# --- prompts ------------------------------------------------------------------------------------------------


def render_published(messages: Messages) -> str:
    """The single-string prompt of the published datasets: `[INST]<<SYS>>` system `<</SYS>>` user
    `[/INST]`."""
    return f"[INST]<<SYS>>\n{messages.system}\n<</SYS>>\n\n{messages.user}[/INST]"


_PUBLISHED = re.compile(
    # Atomic up to the first end of the system part: another one is never the better end.
    r"\s*(?:<s>\s*)?\[INST\]\s*(?><<SYS>>\n?(?P<system>.*?)\n?<</SYS>>)(?:\n\n)?(?P<user>.*)\[/INST\]\s*",
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
    *,
    indicators: Mapping[str, float] | None = None,
    macro: Sequence[MacroReading] = (),
) -> str:
    """User part of a prompt: who the company is, its past weeks oldest first, its latest financials, the
    question.

    News and company facts pass `clean_text` here, so that no caller can forget it. A coin has no financials.

    Args:
        indicators: technical indicators at the close of `target_start`, by name.
        macro: market-wide figures as last known at that close.
    """
    symbol, is_coin = company.symbol, company.kind == "cryptocurrency"
    price = "price" if is_coin else "stock price"
    parts = [_introduction(company, target_start)]
    for week in weeks:
        parts.append(
            f"From {week.start} to {week.end}, {symbol}'s {price} {_move(week, is_coin)}. "
            + ("News during this period:" if week.news else "No news about it is known of this period.")
        )
        parts += [
            f"[Headline]: {clean_text(item.headline)}\n[Summary]: {clean_text(item.summary)}"
            for item in week.news
        ]
    if financials:
        parts.append(f"Financials of {symbol} for the period that ended on {financials_period_end}:")
        parts.append(f"[{FINANCIALS}]:\n\n" + _lines(financials))
    elif not is_coin:
        parts.append(f"[{FINANCIALS}]:\n\nNone are known.")
    if indicators:
        parts.append(f"[{INDICATORS}]:\n\nAt the close of {target_start}:\n" + _lines(indicators))
    if macro:
        lines = "\n".join(_macro_line(reading) for reading in macro)
        parts.append(f"[{MACRO}]:\n\nLast known at the close of {target_start}:\n" + lines)
    parts.append(
        f"Using only what was known before {target_start}, give the two to four most important positive "
        f"developments and potential concerns for {symbol}, mostly from the news. Then predict how "
        f"the {symbol} {price} moves in the coming week ({target_start} to {target_end}) and "
        "explain why."
    )
    return "\n\n".join(parts)


def stated_facts(weeks: Sequence[Week], financials: Mapping[str, float], is_coin: bool) -> PromptFacts:
    """Past weeks and figures as `render_user_text` states them: what `read_prompt` finds in its text."""
    return PromptFacts(
        weeks=tuple(
            PastWeek(
                week.start,
                week.end,
                Decimal(_price(week.start_price_usd, is_coin)),
                Decimal(_price(week.end_price_usd, is_coin)),
                tuple(NewsItem(clean_text(item.headline), clean_text(item.summary)) for item in week.news),
            )
            for week in weeks
        ),
        financials={clean_text(name): _number(value) for name, value in financials.items()},
    )


def _introduction(company: Company, target_start: date) -> str:
    """What is known of the issuer; facts that are not known are left out."""
    name, industry, exchange, country = (
        clean_text(fact) for fact in (company.name, company.industry, company.exchange, company.country)
    )
    who = f"{name} ({company.symbol})" if name and name != company.symbol else company.symbol
    if company.kind == "cryptocurrency":
        return f"[Coin Introduction]:\n\n{who} is a cryptocurrency."
    facts = [f"is listed on {exchange}"] if exchange else []
    facts += [f"belongs to the {industry} industry"] if industry else []
    more = [f"its home country is {country}"] if country else []
    # Vendors give some issuers the date of a later listing; one after the close would tell the future.
    if company.listed_since and company.listed_since <= target_start:
        more.append(f"it has been listed since {company.listed_since}")
    text = f"{who} {' and '.join(facts) or 'is a listed company'}."
    if more:
        text += f" {more[0][0].upper()}{', and '.join(more)[1:]}."
    return f"[Company Introduction]:\n\n{text}"


def _move(week: Week, is_coin: bool) -> str:
    start, end = (_price(price, is_coin) for price in (week.start_price_usd, week.end_price_usd))
    if week.end_price_usd == week.start_price_usd:
        return f"stayed at {end}"
    verb = "increased" if week.end_price_usd > week.start_price_usd else "decreased"
    return f"{verb} from {start} to {end}"


def _price(price: float, is_coin: bool) -> str:
    """Two decimals; a coin worth less than one gets four digits."""
    return f"{Decimal(f'{price:.4g}'):f}" if is_coin and price < 1 else f"{price:.2f}"


def _lines(values: Mapping[str, float]) -> str:
    return "\n".join(f"{clean_text(name)}: {_number(value)}" for name, value in values.items())


def _number(value: float) -> str:
    """Six digits at most, without an exponent."""
    text = f"{value:g}"
    return f"{Decimal(text):f}" if "e" in text else text


def _macro_line(reading: MacroReading) -> str:
    change = round(reading.weekly_change, 2) + 0.0  # no "-0.00"
    unit = " points" if reading.change_unit == "points" else "%"
    return f"{reading.name}: {_number(reading.level)} ({change:+.2f}{unit} over the week)"


# A news item runs to the next blank line that is followed by something only a prompt builder writes:
# summaries hold line breaks, and now and then blank lines, of their own.
_NEWS_ITEM = re.compile(
    r"\[Headline\]: .*?(?=\n\n(?:\[Headline\]: "
    rf"|\[{FINANCIALS}\]|\[{INDICATORS}\]|\[{MACRO}\]"
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
    weeks = list(_WEEK_START.finditer(user_text))
    starts = [week.start() for week in weeks]

    def age(span: tuple[int, int]) -> tuple[str, int]:
        before = bisect_left(starts, span[0])
        return weeks[before - 1][1] if before else "", span[0]

    return sorted((match.span() for match in _NEWS_ITEM.finditer(user_text)), key=age)


def without_news(user_text: str) -> str:
    """The prompt without its news items: what its builder wrote."""
    return _without(user_text, sorted(news_item_spans(user_text)))


def without_oldest_news(user_text: str, count: int) -> str:
    """The prompt without its `count` oldest news items; every other character stays."""
    return _without(user_text, sorted(news_item_spans(user_text)[:count]))


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """`text` without spans that are sorted and apart."""
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    return "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))


# --- reading a prompt back ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PastWeek:
    """One past week as a prompt states it."""

    start: date
    end: date
    start_price: Decimal | None
    """With the decimals that are shown; None where the prompt gives no price."""
    end_price: Decimal | None
    news: tuple[NewsItem, ...]


@dataclass(frozen=True)
class PromptFacts:
    """What the text of a prompt says; what it does not say is None or empty."""

    symbol: str = ""
    weeks: tuple[PastWeek, ...] = ()
    """In the order of the text."""
    financials: Mapping[str, str] = field(default_factory=dict)
    """Names and values as written."""
    financials_period_end: date | None = None
    indicators: Mapping[str, str] = field(default_factory=dict)
    macro: Mapping[str, str] = field(default_factory=dict)
    target_start: date | None = None
    target_end: date | None = None
    introduces_coin: bool = False
    """Whether the introduction says that the symbol is a cryptocurrency."""
    says_cryptocurrency: bool = False
    """Whether the prompt itself, not its news, speaks of a cryptocurrency or of its price."""
    cites_market_cap: bool = False
    """Whether the introduction gives a market capitalisation, which published prompts took from the day they
    were made."""


_DAY = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_AMOUNT = r"-?[0-9]+(?:\.[0-9]+)?"
_PAST_WEEK = re.compile(
    rf"^From (?P<start>{_DAY}) to (?P<end>{_DAY}), (?:(?P<symbol>\S+)'s (?:stock )?price "
    rf"(?:stayed at (?P<unmoved>{_AMOUNT})|\w+ from (?P<first>{_AMOUNT}) to (?P<last>{_AMOUNT})))?",
    re.MULTILINE,
)
_NEWS_PARTS = re.compile(r"\[Headline\]: (?P<headline>.*?)(?:\n\[Summary\]:(?P<summary>.*))?", re.DOTALL)
_ASKED_SYMBOL = re.compile(r"potential concerns for (?P<symbol>\S+?)(?:\. Come up|, mostly)")
_PERIOD_END = re.compile(rf"(?:, reported at|for the period that ended on) ({_DAY})")
_TARGET = re.compile(rf"week \(({_DAY}) to ({_DAY})\)")
_COIN = re.compile(r" is a cryptocurrency\.")
_COIN_PRICE = re.compile(r"\bcryptocurrency price\b")
_MARKET_CAP = re.compile(r"\bmarket capitali[sz]ation of [0-9]")


def read_prompt(user_text: str) -> PromptFacts:
    """Inverse of `render_user_text`; reads the published prompts as well, as far as their text allows.

    Never raises.
    """
    spans = sorted(news_item_spans(user_text))
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    headers = [
        match
        for match in _PAST_WEEK.finditer(user_text)
        if bisect_right(starts, match.start()) == bisect_right(ends, match.start())  # in none of them
    ]
    # What is left without the news was written by the prompt's builder.
    frame = _without(user_text, spans)
    introduction = user_text[: headers[0].start()] if headers else frame
    asked, period_end = _ASKED_SYMBOL.search(frame), _PERIOD_END.search(frame)
    targets = _TARGET.findall(frame)
    target_start, target_end = targets[-1] if targets else ("", "")
    introduces_coin = bool(_COIN.search(introduction))
    return PromptFacts(
        symbol=asked["symbol"] if asked else next((h["symbol"] for h in headers if h["symbol"]), ""),
        weeks=_past_weeks(user_text, headers, spans),
        financials=_block(frame, FINANCIALS),
        financials_period_end=_day(period_end[1]) if period_end else None,
        indicators=_block(frame, INDICATORS),
        macro=_block(frame, MACRO),
        target_start=_day(target_start),
        target_end=_day(target_end),
        introduces_coin=introduces_coin,
        says_cryptocurrency=introduces_coin or bool(_COIN_PRICE.search(frame)),
        cites_market_cap=bool(_MARKET_CAP.search(introduction)),
    )


def _past_weeks(
    user_text: str, headers: Sequence[re.Match[str]], spans: Sequence[tuple[int, int]]
) -> tuple[PastWeek, ...]:
    """Weeks with their news; one whose dates no calendar has is left out."""
    weeks = []
    starts = [start for start, _ in spans]
    limits = [*(header.start() for header in headers), len(user_text)][1:]
    for header, limit in zip(headers, limits, strict=True):
        start, end = _day(header["start"]), _day(header["end"])
        if start is None or end is None:
            continue
        prices = [header["unmoved"] or header["first"], header["unmoved"] or header["last"]]
        first, last = (Decimal(price) if price else None for price in prices)
        inside = spans[bisect_right(starts, header.start()) : bisect_left(starts, limit)]
        news = [_news_item(user_text[a:b]) for a, b in inside]
        weeks.append(PastWeek(start, end, first, last, tuple(news)))
    return tuple(weeks)


def _news_item(text: str) -> NewsItem:
    parts = _NEWS_PARTS.fullmatch(text)
    if parts is None:
        return NewsItem("", "")
    return NewsItem(parts["headline"].strip(), (parts["summary"] or "").strip())


def _block(frame: str, title: str) -> dict[str, str]:
    """`name: value` lines below a header."""
    found = re.search(rf"^\[{title}\]:?[ \t]*\n+(.*?)(?=\n\n|\Z)", frame, re.MULTILINE | re.DOTALL)
    lines = found[1].split("\n") if found else []
    pairs = [line.partition(": ") for line in lines]
    return {name: value for name, _, value in pairs if value}


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


# --- the teacher --------------------------------------------------------------------------------------------


def render_teacher_request(messages: Messages, outcome: Label | None) -> Messages:
    """What the writer of a training answer is asked: the prompt, and the move it has to explain.

    Args:
        outcome: the week's true move; None for a teacher who is to forecast by itself.
    """
    if outcome is None:
        return messages
    move = outcome.text[0].upper() + outcome.text[1:]
    return Messages(
        messages.system,
        f"{messages.user}\n\n"
        f"Take it as settled that the move in the coming week is: {outcome.text}. Write the answer of an "
        f'analyst who comes to this result: its prediction line reads "Prediction: {move}", and every point, '
        "and the analysis, follows from the facts above. Nowhere say or hint that the result was given to "
        "you, and state nothing that happened after the facts above.",
    )


def render_teacher_correction(fault: str, outcome: Label | None) -> str:
    """What the writer of a training answer is told when an answer cannot be used.

    Args:
        fault: why not, as a part of a sentence.
        outcome: as in `render_teacher_request`.
    """
    reads = "names one direction and one size in percent"
    if outcome is not None:
        reads = f'reads "Prediction: {outcome.text[0].upper()}{outcome.text[1:]}"'
    return (
        f"This answer cannot be used: {fault}. Write it anew, whole, in at most 400 words and in the form "
        f"that was asked for: [{POSITIVE}], [{CONCERNS}] and [{FORECAST}], each with text below it; the last "
        f'holds a line that begins with "Prediction:", which {reads}, and then one that begins with '
        '"Analysis:". Write nothing else.'
    )


# --- answers ------------------------------------------------------------------------------------------------


def render_label(label: Label) -> str:
    """A label as an answer's prediction writes it."""
    return label.text[0].upper() + label.text[1:]


def render_answer(answer: Answer) -> str:
    """An answer in the published form."""
    return (
        f"[{POSITIVE}]:\n{answer.positive_developments}\n\n[{CONCERNS}]:\n{answer.potential_concerns}\n\n"
        f"[{FORECAST}]:\n{PREDICTION} {render_label(answer.label)}\n{ANALYSIS} {answer.analysis}"
    )
