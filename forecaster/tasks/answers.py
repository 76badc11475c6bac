"""Answers read: the inverse of `prompts.render_answer`, tolerant of what models write instead."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

from forecaster.plain_text import in_one_form
from forecaster.records import OPEN_BIN_PCT, Answer, Direction, Label, Unreadable
from prompts import CONCERNS, FORECAST, POSITIVE

# Models write anything, at any length: every repeat is possessive, atomic or bounded, so that reading takes
# time in proportion to the text.

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

# Words that name a direction wherever they stand, and words that do so only beside a size: "loss of 2-3%",
# "a 2% loss", but not "after last year's loss". Nouns, and verbs as a forecast has them: no past tenses.
_WORDS = {
    "up": (
        r"up(?! to\b)|upwards?|upside|higher|bullish|increas(?:es?|ing)|ris(?:es?|ing)|gain(?:s|ing)?|"
        r"grow(?:s|ing)?|climb(?:s|ing)?|rall(?:y|ies|ying)|rebound(?:s|ing)?|jump(?:s|ing)?|surg(?:es?|ing)|"
        r"(?<!in )advanc(?:es?|ing)|soar(?:s|ing)?|upticks?|upturn|upswing|appreciat(?:es?|ing|ion)"
    ),
    "down": (
        r"down|downwards?|downside|lower|bearish|decreas(?:es?|ing)|declin(?:es?|ing)|drop(?:s|ping)?|"
        r"fall(?:s|ing)?|los(?:es?|ing)|dip(?:s|ping)?|slip(?:s|ping)?|slid(?:es?|ing)|plung(?:es?|ing)|"
        r"tumbl(?:es?|ing)|retreat(?:s|ing)?|slump(?:s|ing)?|sink(?:s|ing)?|plummet(?:s|ing)?|downticks?|"
        r"downturn|downswing|pullbacks?|depreciat(?:es?|ing|ion)"
    ),
}
_WORDS_OF_SIZES = {
    "up": r"add(?:s|ing)?|recover(?:s|y|ing)?|strengthen(?:s|ing)?|bounc(?:es?|ing)|"
    r"edg(?:es?|ing) ahead|pick(?:s|ing)? up",
    "down": r"loss(?:es)?|shed(?:s|ding)?|eas(?:es?|ing)|weaken(?:s|ing)?|soften(?:s|ing)?|"
    r"correct(?:s|ing|ion)?|crash(?:es|ing)?|shrink(?:s|ing)?|giv(?:es?|ing) (?:up|back)|sell-?off",
}
_TO_SIZE = (
    r"(?=(?: (?:by|of|about|around|roughly|approximately|nearly|some|between|another|an?|further|additional|"
    r"potential|possible|likely|maybe|perhaps|moderate|modest|slight|the|in|range|order)){0,6} ?[-+~<>]?\d)"
)
_BEHIND_SIZE = r"(?:(?<=% )|(?<=percent )|(?<=pct ))"


def _direction_pattern(direction: str) -> str:
    beside = _WORDS_OF_SIZES[direction]
    return (
        rf"(?P<{direction}>(?:{_WORDS[direction]})\b|(?:{beside})\b{_TO_SIZE}|{_BEHIND_SIZE}(?:{beside})\b)"
    )


# What begins earlier is found first: "give up 2%" is no "up".
_DIRECTION_WORD = re.compile(rf"\b(?:{_direction_pattern('up')}|{_direction_pattern('down')})", re.IGNORECASE)
_DENIED = re.compile(
    r"(?:\b(?:not|no|never|cannot|unlikely|hardly)|n['’]t)\b(?>(?:(?!\bbut\b)[^.,;:])*)$", re.IGNORECASE
)
_DENIAL_CHARS = 25

# Full-width forms, dashes and percent signs become the ASCII ones; emphasis, escapes and other spaces become
# spaces.
_TYPED = str.maketrans(
    {chr(code + 0xFEE0): chr(code) for code in range(0x21, 0x7F)}
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe63", "-")
    | dict.fromkeys("\u066a\ufe6a", "%")
    | dict.fromkeys("*_`\\\u00a0\u2007\u2009\u202f\u3000", " ")
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

NO_SIZE, NO_DIRECTION = "no size in percent in the prediction", "no direction in the prediction"
CONTRADICTORY, CUT_OFF = "contradictory predictions", "cut off inside the think block"


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
    text = without_think_block(in_one_form(text))
    if _THINK_TAG.search(text):
        return Unreadable(CUT_OFF)
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
    label = only_prediction(text)
    if isinstance(label, Unreadable):
        return label
    return Answer(sections["positive"], sections["concerns"], label, analysis_text)


_LINE_MARKS = re.compile(rf"(?:{_MARKS}|{_FORECAST_HEADER}[*_ \t]*+)$", re.IGNORECASE)


def can_predict_after(beginning: str) -> bool:
    """Whether a `Prediction:` that follows this beginning of an answer is its forecast: it stands on a line
    of its own, behind all think blocks."""
    line = beginning.rpartition("\n")[2]
    return bool(_LINE_MARKS.match(line)) and not _THINK_TAG.search(without_think_block(beginning))


def _without_rule(section: str) -> str:
    """A section without the markdown rule, or the header's own marks, on lines behind it."""
    lines = section.strip().split("\n")
    while len(lines) > 1 and not lines[-1].strip("#*_> \t\r"):
        lines.pop()
    return "\n".join(lines).strip()


def only_prediction(text: str) -> Label | Unreadable:
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
        return Unreadable(CONTRADICTORY, ", ".join(label.text for label in labels))
    for line, reading in readings.items():
        if isinstance(reading, Label):
            continue
        if reading.reason not in (NO_SIZE, NO_DIRECTION):
            return reading
        if any(_direction(word) != labels[0].direction for word in _direction_words(claim_of(line))):
            return Unreadable(CONTRADICTORY, f"{labels[0].text}, {reading.detail}")
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
    claim = claim_of(line)
    sizes = [size for size in _SIZE.finditer(claim) if not _says_how_sure(size, claim)]
    if not sizes:
        return Unreadable(NO_SIZE, _shortened(line))
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
        return Unreadable(NO_DIRECTION, _shortened(line))
    if len(labels) > 1:
        return Unreadable("more than one prediction in a line", _shortened(line))
    return labels.pop()


def claim_of(line: str) -> str:
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


def without_directions(text: str) -> str:
    """A text in plain characters without the words that name a direction."""
    return _DIRECTION_WORD.sub(" ", text)


def directions_named(text: str) -> set[Direction]:
    """The directions that a text names in words, without those that it denies."""
    return {_direction(word) for word in _direction_words(text.translate(_TYPED))}


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
