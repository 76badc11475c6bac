"""The forecast in an answer of any form: what it says of the coming week, wherever it says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from forecaster.plain_text import in_one_form
from forecaster.records import Answer, Direction, Label, Unreadable
from forecaster.tasks.answers import (
    CONTRADICTORY,
    CUT_OFF,
    NO_DIRECTION,
    NO_SIZE,
    claim_of,
    directions_named,
    only_prediction,
    parse_answer,
    parse_prediction,
    without_directions,
    without_think_block,
)

# As in answers.py, every repeat is bounded, possessive or of one character class: reading takes time in
# proportion to the text.

_ECHO = re.compile(
    r"\[(?:company introduction|headline|summary|basic financials)\]|^\W{0,9}company introduction\b",
    re.IGNORECASE | re.MULTILINE,
)
"""Where a model begins to repeat its prompt, or to make up another one."""
_SENTENCE_END = re.compile(r"(?<=[.!?;])[\"')\]*_]{0,4}\s")
_LIST_MARKS = re.compile(r"^[\s#*_>`\"'{\[(|•–—-]{0,40}(?:\d{1,2}[.)])?[\s#*_>`\"'{\[(|•–—-]{0,40}")
_LABELLED = re.compile(r"([^:：=|\n]{1,100}?)(?:[:：=|]| [-–—] )(.*)", re.DOTALL)
_TELLS = re.compile(
    r"\b(?:predict\w*|forecast\w*|expect\w*|projected|projection|anticipated|outlook|prognosis|estimate\w*|conclusion|"
    r"verdict|(?:final )?answer|direction|(?:price|stock|weekly) (?:movement|move|change))\b",
    re.IGNORECASE,
)
"""In a label: what stands behind it is a forecast."""
_NAMES_DIRECTION = re.compile(r"\b(?:direction|trend|movement|signal|prediction|forecast|outlook)\b", re.I)
_NAMES_SIZE = re.compile(r"\b(?:size|magnitude|range|amount|percent\w*|pct|change|move|movement)\b", re.I)
_CUE = re.compile(
    r"\b(?:predict(?:s|ed|ing|ion)?|expect(?:s|ed|ing|ation)?|forecast(?:s|ed|ing)?|anticipat(?:e|es|ed|ing)|"
    r"project(?:ed|ion)|estimated?|likely|will|should|would|going to|poised to|set to|think|believe|guess|"
    r"(?:next|coming|upcoming|following) week|week ahead)\b",
    re.IGNORECASE,
)
_WEAK_CUE = re.compile(r"\b(?:could|may|might|potentially|possibly|perhaps)\b", re.IGNORECASE)
_PRICE = re.compile(r"\b(?:stocks?|shares?|price)\b", re.IGNORECASE)
_SUBJECT = re.compile(
    r"\b(?:stocks?|shares?|price|movement|i|we|my|prediction|forecast|week ahead|"
    r"(?:next|coming|upcoming|following) week)\b|"
    r"\b(?-i:[A-Z]{2,5})\)?(?:['’]s)?\s(?:is|will|should|to)\b|^\W{0,9}expect\b",
    re.IGNORECASE,
)
_OTHERS = re.compile(
    r"\b(?:analysts?|consensus|zacks|wall street|economists?|price target|target price|s&p|nasdaq|dow jones|"
    r"oil prices?|crude|gold prices?|commodit\w*)\b",
    re.IGNORECASE,
)
"""Whose forecast it is, or of what, when it is not the answer's own of this stock."""
_COMPANY_FIGURE = (
    r"(?:revenues?|sales|earnings|eps|profits?|margins?|dividends?|yields?|income|cash flow|guidance|costs?|"
    r"demand|market share|volumes?|deliveries|production|inflation|gdp|unemployment|interest rates?|"
    r"growth rate|ind(?:ex|ices)|volatility|accuracy|stake|weight)"
)
_IS_OF_COMPANY_FIGURE = re.compile(rf"\b{_COMPANY_FIGURE}\b", re.IGNORECASE)
_FOLLOWED_BY_COMPANY_FIGURE = re.compile(
    rf"\W{{0,5}}(?:(?:\w{{1,20}} )?(?:in|of|for) (?:\w{{1,20}} ){{0,2}})?{_COMPANY_FIGURE}\b", re.IGNORECASE
)
_OTHER_TIME = re.compile(
    r"\b(?:annual\w*|yearly|quarterly|monthly|cagr|fiscal|decades?|long[- ]term|(?:last|past|previous|prior) "
    r"(?:week|month|quarter|year|few)|yesterday|"
    r"(?:next|this|coming|per|a|the|full|each|few|several|\d{1,3})[ -](?:years?|quarters?|months?))\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(r"\b(?:if|unless|in case|scenarios?|worst[- ]case|best[- ]case)\b", re.IGNORECASE)
_ASIDE = re.compile(r",? with (?:a |an |the )?(?:potential|possible|possibility|chance)\b", re.IGNORECASE)
_BARE_WORD = re.compile(
    r"(?:an?|about|and|approximately|around|at|between|by|cent|for|in|least|less|likely|moderate(?:ly)?|modest|"
    r"more|next|of|or|over|pct|per|percent(?:age)?|points?|price|roughly|slight(?:ly)?|small|stock|than|the|this|to|"
    r"week(?:ly)?)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_SAYS_SOMETHING = re.compile(r"\w")
_LONGEST_BARE_CHARS = 80
_CLAIMED_WITHIN_CHARS = 40


@dataclass(frozen=True)
class _Statement:
    """One line or sentence that may hold a forecast."""

    label: str
    """What stands before its colon, where that tells a forecast; else empty."""
    text: str
    """What is said, without grounds and asides."""

    @property
    def reading(self) -> Label | Unreadable:
        return parse_prediction(self.text)

    @property
    def has_cue(self) -> bool:
        return bool(self.label or (_CUE.search(self.text) and _SUBJECT.search(self.text)))

    @property
    def has_weak_cue(self) -> bool:
        return bool(_WEAK_CUE.search(self.text) and _SUBJECT.search(self.text))

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing but a direction and a size."""
        return len(self.text) <= _LONGEST_BARE_CHARS and all(
            _BARE_WORD.fullmatch(word) for word in _WORD.findall(without_directions(self.text))
        )

    @property
    def is_of_the_coming_week(self) -> bool:
        """Whether it is of this stock's price and its next week, and holds without an if."""
        whole = f"{self.label}: {self.text}"
        if any(of.search(whole) for of in (_OTHERS, _OTHER_TIME, _CONDITION)):
            return False
        before, _, behind = whole.rpartition("%")
        clause = before.rsplit(",", 1)[-1]
        return not (_IS_OF_COMPANY_FIGURE.search(clause) or _FOLLOWED_BY_COMPANY_FIGURE.match(behind or ""))

    @property
    def directions(self) -> set[Direction]:
        """What it claims without a size; nothing where the price is not what it speaks of."""
        if self.label:
            return directions_named(self.text)
        cue = _CUE.search(self.text)
        if not cue or not _PRICE.search(self.text) or _IS_OF_COMPANY_FIGURE.search(self.text):
            return set()
        return directions_named(self.text[cue.end() : cue.end() + _CLAIMED_WITHIN_CHARS])


def read_forecast(text: str, answer: Answer | Unreadable | None = None) -> Label | Unreadable:
    """The one direction and size that an answer forecasts, whether or not it keeps the form.

    Where a form is kept, what it says counts. Else every `Prediction:`, every line with a label such as
    `Expected movement:`, and every sentence that foretells this stock's coming week counts; what is said
    under an if, of other times, by others, or of the company's figures does not. Two that differ make the
    answer unreadable, as does none. Never raises.

    Args:
        answer: what `parse_answer` makes of the text, where that is known.
    """
    answer = answer or parse_answer(text)
    if isinstance(answer, Answer):
        return answer.label
    if answer.reason in (CUT_OFF, CONTRADICTORY):
        return answer
    spoken = without_think_block(in_one_form(text)).replace("\\n", "\n")
    if echo := _ECHO.search(spoken):
        spoken = spoken[: echo.start()]
    line = only_prediction(spoken)
    if isinstance(line, Unreadable) and line.reason not in _SAYS_TOO_LITTLE:
        return line
    statements = [found for found in _statements(spoken) if found.is_of_the_coming_week]
    cued = [found for found in statements if found.has_cue]
    known = [line] if isinstance(line, Label) else []
    read = _agreed([*known, *(found.reading for found in cued)])
    if read is None:
        read = _agreed(found.reading for found in statements if found.has_weak_cue)
    if read is None:
        read = _agreed(found.reading for found in statements if found.is_bare)
    if read is None:
        read = _agreed(_put_together(statements))
    if isinstance(read, Label) and any(found.directions - {read.direction} for found in cued):
        return Unreadable(CONTRADICTORY, f"{read.text}, and the other direction elsewhere")
    return answer if read is None else read


_SAYS_TOO_LITTLE = ('no "Prediction:" line', NO_SIZE, NO_DIRECTION)


def _statements(text: str) -> Iterator[_Statement]:
    for line in text.split("\n"):
        for sentence in _SENTENCE_END.split(line):
            if not _SAYS_SOMETHING.search(sentence):
                continue
            bare = _LIST_MARKS.sub("", sentence, count=1)
            labelled = _LABELLED.match(bare)
            if labelled and _TELLS.search(labelled[1]):
                yield _Statement(labelled[1], _ASIDE.split(claim_of(labelled[2]), maxsplit=1)[0])
            else:
                yield _Statement("", _ASIDE.split(claim_of(bare), maxsplit=1)[0])


def _agreed(readings: Iterable[Label | Unreadable]) -> Label | Unreadable | None:
    """The label that all agree on; None where no one names any."""
    labels = set()
    for reading in readings:
        if isinstance(reading, Label):
            labels.add(reading)
        elif reading.reason not in _SAYS_TOO_LITTLE:
            return reading
    if len(labels) > 1:
        return Unreadable(CONTRADICTORY, ", ".join(label.text for label in sorted(labels)))
    return labels.pop() if labels else None


def _put_together(statements: Iterable[_Statement]) -> Iterator[Label | Unreadable]:
    """Direction and size on lines of their own, such as `Direction: down` and `Magnitude: 2-3%`."""
    directions: set[Direction] = set()
    sizes = []
    for found in statements:
        label, value = found.label, found.text
        if not label and (labelled := _LABELLED.match(value)):
            label, value = labelled[1], labelled[2]
        reason = getattr(parse_prediction(value), "reason", "")
        if _NAMES_DIRECTION.search(label) and reason == NO_SIZE:
            directions |= directions_named(value)
        elif _NAMES_SIZE.search(label) and reason == NO_DIRECTION:
            sizes.append(value)
    if len(directions) == 1:
        (direction,) = directions
        yield from (parse_prediction(f"{direction} by {value}") for value in sizes)
    elif sizes and directions:
        yield Unreadable(CONTRADICTORY, "two directions")
