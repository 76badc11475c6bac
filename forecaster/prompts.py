"""Every string that a model sees, next to its inverse.

The section headers and the Llama-2 wrapping are those of the published datasets, so that old datasets stay
readable and new ones stay usable elsewhere. Nothing outside this module reads text that the project wrote.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from html import unescape
from html.entities import html5
from typing import Literal

from forecaster.records import (
    OPEN_BIN_PCT,
    Answer,
    Company,
    Direction,
    Label,
    MacroReading,
    Messages,
    NewsItem,
    Unreadable,
    Week,
)

POSITIVE, CONCERNS, FORECAST = "Positive Developments", "Potential Concerns", "Prediction & Analysis"
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


def clean_text(text: str) -> str:
    """A text from outside as it may enter a prompt: one line that cannot pass for the prompt's own structure.

    HTML entities are resolved (also doubly escaped ones) and layout tags dropped; the text is put into NFKC;
    control, zero-width and bidirectional characters and lone surrogates go; white space of any kind becomes
    single spaces. Square brackets become round ones, and so do angle brackets around anything like a control
    token of a chat model, so that no section header or instruction marker is left in any spelling. Cleaning
    twice changes nothing more. Never raises.
    """
    while (cleaned := _cleaned_once(text)) != text:
        text = cleaned
    return text


def _cleaned_once(text: str) -> str:
    text = unicodedata.normalize("NFKC", _ENTITY.sub(_resolved, text))
    if not text.isascii() or not text.isprintable():
        text = _BLANK.sub("", text)
        text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    text = _MARKER.sub(r"(\1)", _LAYOUT_TAG.sub(" ", text)).translate(_ROUND)
    return " ".join(text.split())


def _resolved(entity: re.Match[str]) -> str:
    if name := entity["name"]:
        return html5.get(f"{name};", entity[0])
    return unescape(entity[0])


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
    weeks = [(match.start(), match.group(1)) for match in _WEEK_START.finditer(user_text)]

    def age(span: tuple[int, int]) -> tuple[str, int]:
        return max((w for w in weeks if w[0] < span[0]), default=(0, ""))[1], span[0]

    return sorted((match.span() for match in _NEWS_ITEM.finditer(user_text)), key=age)


def without_oldest_news(user_text: str, count: int) -> str:
    """The prompt without its `count` oldest news items; every other character stays."""
    for start, end in sorted(news_item_spans(user_text)[:count], reverse=True):
        user_text = user_text[:start] + user_text[end:]
    return user_text


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
    headers = [
        match
        for match in _PAST_WEEK.finditer(user_text)
        if not any(start <= match.start() < end for start, end in spans)
    ]
    # What is left without the news was written by the prompt's builder.
    edges = [0, *(edge for span in spans for edge in span), len(user_text)]
    frame = "".join(user_text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))
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
    limits = [*(header.start() for header in headers), len(user_text)][1:]
    for header, limit in zip(headers, limits, strict=True):
        start, end = _day(header["start"]), _day(header["end"])
        if start is None or end is None:
            continue
        prices = [header["unmoved"] or header["first"], header["unmoved"] or header["last"]]
        first, last = (Decimal(price) if price else None for price in prices)
        news = [_news_item(user_text[a:b]) for a, b in spans if header.start() < a < limit]
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

# Models write anything, at any length: every repeat is possessive, atomic or bounded, so that reading takes
# time in proportion to the text.


def render_answer(answer: Answer) -> str:
    """An answer in the published form."""
    prediction = answer.label.text[0].upper() + answer.label.text[1:]
    return (
        f"[{POSITIVE}]:\n{answer.positive_developments}\n\n[{CONCERNS}]:\n{answer.potential_concerns}\n\n"
        f"[{FORECAST}]:\nPrediction: {prediction}\nAnalysis: {answer.analysis}"
    )


_MARKS = r"[#*_> \t]*+"
_COLON = r"[*_]*+[ \t]*+[:：][*_]*+"


def _header(title: str) -> str:
    # On a line start in brackets, or bare with a colon or the line to itself; elsewhere, where a looping
    # model begins anew in the middle of a line, in brackets with a colon.
    bracketed = rf"\[[\s*_]*+{title}[\s*_]*+\]"
    return (
        rf"(?:^{_MARKS}(?>(?:\d{{1,2}}[.)][*_ \t]*+)?)"
        rf"(?:{bracketed}[*_]*+[ \t]*+[:：]?+[*_]*+|{title}(?:{_COLON}|[#*_ \t]*+\r?$))"
        rf"|{bracketed}{_COLON})"
    )


_FORECAST_HEADER = _header(r"prediction[ \t]*+(?:&amp;|&|and)[ \t]*+analysis")
_HEADERS = re.compile(
    rf"(?P<positive>{_header('positive developments?')})"
    rf"|(?P<concerns>{_header('potential concerns?')})"
    rf"|(?P<forecast>{_FORECAST_HEADER})",
    re.IGNORECASE | re.MULTILINE,
)
_PREDICTION = re.compile(
    rf"(?:^{_MARKS}|{_FORECAST_HEADER}[*_ \t]*+)prediction{_COLON}\s*+", re.IGNORECASE | re.MULTILINE
)
_ANALYSIS = re.compile(rf"(?:^{_MARKS}|[\s*_])(?:summary )?analysis{_COLON}", re.IGNORECASE | re.MULTILINE)
_THINK_TAG = re.compile(r"<(?P<closes>/)?think(?:ing)?>", re.IGNORECASE)

_UP = (
    r"up(?! to\b)|upwards?|upside|higher|bullish|increas(?:es?|ing)|ris(?:es?|ing)|gain(?:s|ing)?|"
    r"grow(?:s|ing)?|climb(?:s|ing)?|rall(?:y|ies)|rebounds?|jumps?|surges?"
)
_DOWN = (
    r"down|downwards?|downside|lower|bearish|decreas(?:es?|ing)|declin(?:es?|ing)|drop(?:s|ping)?|"
    r"fall(?:s|ing)?|los(?:es?|ing)|dips?|slips?|slides?|plunges?"
)
_DIRECTION_WORD = re.compile(rf"\b(?:(?P<up>{_UP})|(?P<down>{_DOWN}))\b", re.IGNORECASE)
_DENIED = re.compile(
    r"(?:\b(?:not|no|never|cannot|unlikely|hardly)|n['’]t)\b(?>(?:(?!\bbut\b)[^.,;:])*)$", re.IGNORECASE
)
_DENIAL_CHARS = 25

# Full-width forms, dashes and percent signs become the ASCII ones; emphasis and escapes become spaces.
_TYPED = str.maketrans(
    {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)}
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63", "-")
    | dict.fromkeys("\u066a\ufe6a", "%")
    | dict.fromkeys("*_`\\", " ")
)
_NUMBER = r"(?:\d{1,3}(?>(?:,\d{3})+)(?!\d)(?>(?:\.\d++)?)|\d++(?>(?:[.,]\d++)?)|\.\d++)"
_SIZE = re.compile(
    r"(?P<sign>(?<![\w%+/-])[-+])?"
    # Not the rest of a word, of another number, of a fraction, of a date, or of "2 or 3%".
    r"(?<![a-z\d.])(?<!\d[,/-])(?<!\d and )(?<!\d or )"
    rf"(?P<between>(?<=between )|(?<=between [-+]))?(?P<low>{_NUMBER})(?P<inner_plus>\s?\+)?"
    r"(?>(?:(?>(?:\s*+%)?)(?P<separator>\s*+(?:-|~|to\b|(?(between)and\b|-))\s*+)"
    rf"(?P<high_sign>[-+])?(?P<high>{_NUMBER}))?)"
    r"\s*+(?:%|percent(?:age points?)?\b|per cent\b|pct\b)"
    r"(?P<plus>\s?\+| (?:or|and) (?:more|higher|above|over)\b)?",
    re.IGNORECASE,
)
_OPEN_ENDED = re.compile(
    r"(?<!\bno )(?<!\bnot )(?<!n['’]t )(?:(?:more|greater) than|over|above|beyond|exceed\w*|at least|>|≥)"
    r"\W*(?:an? )?$",
    re.IGNORECASE,
)
_THOUSANDS = re.compile(r",(?=(?:\d{3})+(?!\d))")
_LEAD_IN_CHARS = 20
_MAX_WORDS_APART_CHARS = 40
_LARGEST_PCT = 1000.0
"""Caps the nonsense of a looping model, such as a number of four hundred digits."""
# How sure a forecast is says nothing of its size.
_SURE = r"(?:confidence|confident|probability|likelihood|chance|certainty|odds)\b"
_SURE_BEHIND = re.compile(rf"\s*+{_SURE}", re.IGNORECASE)
_SURE_BEFORE = re.compile(rf"\b{_SURE}(?: level| score)?(?: is| at)?\W*$", re.IGNORECASE)
# What follows gives grounds, and may hold other sizes and directions.
_GROUND = (
    r"\b(?:(?<!much )as(?! much\b)|because|since|due to|driven by|given|despite|while|after|"
    r"(?<!the )following|amid|based on|thanks to|owing to|supported by|led by|reflecting|although|though)\b"
)
_GROUNDS = re.compile(_GROUND, re.IGNORECASE)
_GROUNDS_FIRST = re.compile(rf"^\W*+{_GROUND}[^,]*+,", re.IGNORECASE)

_NO_SIZE, _NO_DIRECTION = "no size in percent in the prediction", "no direction in the prediction"


def without_think_block(text: str) -> str:
    """The answer behind a reasoning model's closed think blocks, also where the beginning of the first was
    part of the prompt; what follows a block that never closes stays, and so does its tag."""
    kept: list[str] = []
    begin, is_open = 0, False
    for tag in _THINK_TAG.finditer(text):
        if tag["closes"]:
            if not is_open:
                kept = []
            begin, is_open = tag.end(), False
        elif not is_open:
            kept.append(text[begin : tag.start()])
            begin, is_open = tag.start(), True
    return "".join([*kept, text[begin:]]).strip()


def parse_answer(text: str) -> Answer | Unreadable:
    """Inverse of `render_answer`, for what models really write.

    Accepts markdown and numbers around headers, headers without colon, any letter case and closed think
    blocks; of an answer that is written again and again, the first counts. The prediction has to name one
    direction and one size, the same in every copy: none, or two that differ, make the answer unreadable.
    Never raises.
    """
    text = without_think_block(text)
    if _THINK_TAG.search(text):
        return Unreadable("cut off inside the think block")
    headers = list(_HEADERS.finditer(text))
    kinds = [str(header.lastgroup) for header in headers]
    sections: dict[str, str] = {}
    for kind, title in (("positive", POSITIVE), ("concerns", CONCERNS), ("forecast", FORECAST)):
        if kind not in kinds:
            return Unreadable(f"no section [{title}]")
        at = kinds.index(kind)
        end = headers[at + 1].start() if at + 1 < len(headers) else len(text)
        sections[kind] = _without_rule(text[headers[at].end() : end])
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


def _without_rule(section: str) -> str:
    """A section without the markdown rule, or the header's own marks, on lines behind it."""
    lines = section.strip().split("\n")
    while len(lines) > 1 and not lines[-1].strip("#*_> \t\r"):
        lines.pop()
    return "\n".join(lines).strip()


def _only_prediction(text: str) -> Label | Unreadable:
    """The one label that all `Prediction:` lines of an answer agree on; a line that is cut off, or names no
    size, only has to name no other direction."""
    lines = _prediction_lines(text)
    if not lines:
        return Unreadable('no "Prediction:" line')
    readings = {line: parse_prediction(line) for line in lines}
    labels = sorted({reading for reading in readings.values() if isinstance(reading, Label)})
    if not labels:
        return readings[lines[0]]
    if len(labels) > 1:
        return Unreadable("contradictory predictions", ", ".join(label.text for label in labels))
    for line, reading in readings.items():
        if isinstance(reading, Label):
            continue
        if reading.reason not in (_NO_SIZE, _NO_DIRECTION):
            return reading
        if any(_direction(word) != labels[0].direction for word in _direction_words(_claim(line))):
            return Unreadable("contradictory predictions", f"{labels[0].text}, {reading.detail}")
    return labels[0]


def _prediction_lines(text: str) -> list[str]:
    """What stands behind each `Prediction:`, up to the end of its line or the analysis."""
    lines = []
    found = list(_PREDICTION.finditer(text))
    limits = [*(match.start() for match in found), len(text)][1:]
    for match, limit in zip(found, limits, strict=True):
        line = text[match.end() : max(match.end(), limit)].split("\n", 1)[0]
        analysis = _ANALYSIS.search(line)
        lines.append(line[: analysis.start()] if analysis else line)
    return lines


def parse_prediction(line: str) -> Label | Unreadable:
    """Read one prediction, such as `Up by 2-3%`, `Down by more than 5%`, `a 1.5% drop` or `-3%`.

    A size within a bin's edges reads as that bin, a range by its middle. Never raises.
    """
    claim = _claim(line)
    sizes = [size for size in _SIZE.finditer(claim) if not _says_how_sure(size, claim)]
    if not sizes:
        return Unreadable(_NO_SIZE, _shortened(line))
    words = _direction_words(claim)
    starts, ends = [word.start() for word in words], [word.end() for word in words]
    labels = set()
    for size in sizes:
        # Shortly before the size ("up by 2-3%"), or else shortly after it ("a 2% drop").
        near = (
            words[bisect_left(ends, size.start() - _MAX_WORDS_APART_CHARS) : bisect_right(ends, size.start())]
            or words[
                bisect_left(starts, size.end()) : bisect_right(
                    starts, size.end() + _MAX_WORDS_APART_CHARS // 2
                )
            ]
        )
        directions = {_direction(word) for word in near} | _signs(size)
        if len(directions) > 1:
            return Unreadable("both directions in the prediction", _shortened(line))
        if directions:
            labels.add(_label(directions.pop(), size, claim))
    if not labels:
        return Unreadable(_NO_DIRECTION, _shortened(line))
    if len(labels) > 1:
        return Unreadable("more than one prediction in a line", _shortened(line))
    return labels.pop()


def _claim(line: str) -> str:
    """The part of a prediction that is not grounds, in plain characters."""
    return _GROUNDS.split(_GROUNDS_FIRST.sub("", line.translate(_TYPED)), maxsplit=1)[0]


def _says_how_sure(size: re.Match[str], claim: str) -> bool:
    lead_in = claim[max(0, size.start() - _LEAD_IN_CHARS) : size.start()]
    return bool(_SURE_BEHIND.match(claim, size.end()) or _SURE_BEFORE.search(lead_in))


def _direction_words(claim: str) -> list[re.Match[str]]:
    """Words that name a direction, without those that are denied ("not expected to rise")."""
    return [
        word
        for word in _DIRECTION_WORD.finditer(claim)
        if not _DENIED.search(claim[max(0, word.start() - _DENIAL_CHARS) : word.start()])
    ]


def _direction(word: re.Match[str]) -> Direction:
    return "up" if word["up"] else "down"


def _signs(size: re.Match[str]) -> set[Direction]:
    """Directions that the signs of a size name; "-1 to 2%" may name both."""
    sign, high_sign = size["sign"], size["high_sign"]
    crosses_zero = bool(high_sign and not sign)
    if sign == "-" and size["high"] and not high_sign:
        crosses_zero = size["separator"] != "-"
    signs = {"+", "-"} if crosses_zero else {sign, high_sign} - {None}
    return {"up" if sign == "+" else "down" for sign in signs}


def _label(direction: Direction, size: re.Match[str], claim: str) -> Label:
    low = _pct(size["low"])
    lead_in = claim[max(0, size.start() - _LEAD_IN_CHARS) : size.start()]
    if not size["high"] and (size["inner_plus"] or size["plus"] or _OPEN_ENDED.search(lead_in)):
        return Label(direction, min(int(low), OPEN_BIN_PCT))
    high = _pct(size["high"]) if size["high"] else low
    return Label.of_move(direction, (low + high) / 2)


def _pct(number: str) -> float:
    number = _THOUSANDS.sub("", number).replace(",", ".")
    return min(float(number), _LARGEST_PCT)


def _shortened(line: str, max_chars: int = 60) -> str:
    line = " ".join(line.split())
    return line if len(line) <= max_chars else line[: max_chars - 3] + "..."
