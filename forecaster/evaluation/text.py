"""What can be said of answers' texts without a judge: execution, depth and clarity.

No opinion goes in: every figure is a count that a reader can repeat. Think blocks are never judged, and of an
answer that runs on only the first copy of each section is.

A factor is a numbered point of the sections on positive developments and potential concerns; a bulleted one
where none is numbered; a section without points is one factor. It cites the prompt when it shares with it

- a number of two or more digits (see below), or
- three consecutive words of the news, in any letter case, of which at most one is a function word or a word
  of the company's introduction, or
- a proper name of the news: a word that the factor has with a capital inside a sentence and outside bold
  type, and that the news never has without one. Words of the introduction, such as the company's own name, do
  not count.

A number is in the prompt when the prompt, less its system part and its closing question, holds one of the
same value: signs, currencies and thousands separators do not matter, $1.2B is 1.2 billion, and 64.2% is also
0.642. One that is written with three digits or more may have been cut or rounded. Dates, years and bare
numbers of one digit are not counted on either side, nor are list markers, the prediction, and percentages in
the analysis that repeat it. What an answer works out by itself, such as a price's change in percent, is not
in the prompt, and neither is a round figure for what stands there exactly ("over 50%").

How much of this is chance shows when answers are held against other companies' prompts. Of the 297 readable
reference answers of the published test set, 75 % of the factors cite their own prompt and 8 % a strange one;
98 % of the numbers are in their own prompt and 3 % in a strange one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forecaster.evaluation.readings import Reading
from forecaster.records import Answer
from prompts import read_prompt, split_published


@dataclass(frozen=True)
class Execution:
    """Whether the form was followed."""

    readable_share: float | None
    """Of all answers."""
    runs_on_share: float | None
    """Readable answers that begin another section behind the analysis, as a model does that finds no end."""
    answer_words: float | None
    """Mean over the answers that have text, readable or not."""


@dataclass(frozen=True)
class Depth:
    """How much a readable answer says, and how much of it rests on the prompt."""

    factors_per_answer: float | None
    analysis_words: float | None
    cited_factor_share: float | None
    """Factors that cite their prompt, of those whose prompt is known."""


@dataclass(frozen=True)
class Clarity:
    """How much can be relied on, and how much is said of every company alike."""

    grounded_number_share: float | None
    """Numbers in readable answers that are in the prompt; the rest is invented or worked out."""
    repeated_answer_share: float | None
    """Answers with text whose words another answer repeats exactly, but for letter case and white space."""
    repeated_factor_share: float | None
    """Factors that occur word for word in the answer to another row."""


@dataclass(frozen=True)
class TextQuality:
    """Every figure is None where there is nothing to count."""

    execution: Execution
    depth: Depth
    clarity: Clarity


def text_quality(answers: Sequence[Reading], prompts: Sequence[str]) -> TextQuality:
    """Figures of one model's answers, each next to its prompt.

    Args:
        prompts: whole prompts; empty where they are not known, and then what needs a prompt is left out.
    """
    written = [text for answer in answers if (text := _without_thoughts(answer.spoken))]
    # An answer that reads has no think block that never closes: all that it says is judged.
    judged = [
        _judged(answer.spoken, answer.own, prompt)
        for answer, prompt in zip(answers, prompts, strict=True)
        if isinstance(answer.own, Answer)
    ]
    whole = Counter(_plain(text) for text in written)
    factors = Counter(factor for answer in judged for factor in set(answer.factors))
    return TextQuality(
        Execution(
            readable_share=_share(len(judged), len(answers)),
            runs_on_share=_share(sum(answer.runs_on for answer in judged), len(judged)),
            answer_words=_share(sum(len(text.split()) for text in written), len(written)),
        ),
        Depth(
            factors_per_answer=_share(sum(len(answer.factors) for answer in judged), len(judged)),
            analysis_words=_share(sum(answer.analysis_words for answer in judged), len(judged)),
            cited_factor_share=_share_of_true(cited for answer in judged for cited in answer.cited),
        ),
        Clarity(
            grounded_number_share=_share_of_true(found for answer in judged for found in answer.grounded),
            repeated_answer_share=_share_of_true(whole[_plain(text)] > 1 for text in written),
            repeated_factor_share=_share_of_true(
                factors[factor] > 1 for answer in judged for factor in answer.factors
            ),
        ),
    )


@dataclass(frozen=True)
class _Judged:
    """One readable answer."""

    factors: tuple[str, ...]
    """In one letter case, and with single spaces."""
    analysis_words: int
    runs_on: bool
    cited: tuple[bool, ...]
    """Whether each factor cites the prompt; empty when the prompt is not known."""
    grounded: tuple[bool, ...]
    """Whether each number is in the prompt; empty when the prompt is not known."""


def _judged(text: str, answer: Answer, prompt: str) -> _Judged:
    factors = [*_factors(answer.positive_developments), *_factors(answer.potential_concerns)]
    prediction, behind = _outside_sections(text, answer)
    cited: list[bool] = []
    grounded: list[bool] = []
    if prompt.strip():
        source = _Source(prompt)
        cited = [source.is_cited_by(factor) for factor in factors]
        predicted = {float(size) for size in _SIZE.findall(prediction)}
        points = (answer.positive_developments, answer.potential_concerns)
        numbers = [number for section in points for number in _numbers(_NUMBERED.sub(" ", section))]
        numbers += [n for n in _numbers(answer.analysis) if not (n.is_percent and n.value in predicted)]
        grounded = [source.has(number) for number in numbers]
    return _Judged(
        factors=tuple(_plain(factor) for factor in factors),
        analysis_words=len(answer.analysis.split()),
        runs_on=bool(behind.strip()),
        cited=tuple(cited),
        grounded=tuple(grounded),
    )


def _without_thoughts(spoken: str) -> str:
    """The answer without the think block that never closes, if there is one."""
    return spoken.partition("<think>")[0].strip()


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _share_of_true(marks: Iterable[bool]) -> float | None:
    found = list(marks)
    return _share(sum(found), len(found))


# --- an answer's parts --------------------------------------------------------------------------------------

_NUMBERED = re.compile(r"^[ \t*_]*\(?[0-9]{1,2}[.)][*_]*\s+", re.MULTILINE)
_BULLETED = re.compile(r"^[ \t]*[-*•–][ \t]+", re.MULTILINE)
_WORD = re.compile(r"[^\W_]+")


def _factors(section: str) -> list[str]:
    """The points of a section; what stands before the first one introduces them and is left out."""
    for marker in (_NUMBERED, _BULLETED):
        if len(points := marker.split(section)) > 1:
            return [point for point in points[1:] if _WORD.search(point)]
    return [section] if _WORD.search(section) else []


def _outside_sections(text: str, answer: Answer) -> tuple[str, str]:
    """What a readable text holds between concerns and analysis (the prediction), and behind the analysis."""
    at = text.index(answer.positive_developments) + len(answer.positive_developments)
    at = text.index(answer.potential_concerns, at) + len(answer.potential_concerns)
    analysis_at = text.index(answer.analysis, at)
    return text[at:analysis_at], text[analysis_at + len(answer.analysis) :]


# --- numbers ------------------------------------------------------------------------------------------------

_MONTH = "(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]*"
# Patterns that begin with a digit let the search skip all other text. Digits inside names (3M, 13F, Covid-19,
# Q4) and ordinals are no numbers. Twelve groups of thousands are more than `_LARGEST`; without a limit, a row
# of groups would be read anew from each of them.
_NUMBER = re.compile(
    r"(?P<digits>[0-9](?<![\w.][0-9])(?<![A-Za-z]-[0-9])"
    r"(?>[0-9]{0,2}(?:,[0-9]{3}){1,12}(?![0-9])(?:\.[0-9]+)?|[0-9]*(?:\.[0-9]+)?))"
    rf"(?:(?P<date>-[0-9]{{2}}-[0-9]{{2}}|/[0-9]{{1,2}}/[0-9]{{2,4}}|\s{_MONTH}\b)"
    r"|\s?(?P<percent>%|percent\b|per cent\b)"
    r"|[\s-]?(?P<scale>thousand|million|billion|trillion|mn|bn)\b|(?P<letter>[KMBT])\b|x\b)?"
    r"(?![^\W_])",
    re.IGNORECASE,
)
_SIZE = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_AFTER_MONTH = re.compile(rf"\b{_MONTH}\.?\s$", re.IGNORECASE)
_LONGEST_MONTH = len("September. ")
_LARGEST = 1e30
"""Caps the nonsense of a looping model, such as a number of four hundred digits."""
_CURRENCIES = ("$", "€", "£")
_TIMES = {"": 1.0, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "mn": 1e6, "bn": 1e9}
_TIMES |= {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


@dataclass(frozen=True)
class _Number:
    value: float
    last_place: float
    """What one more in its last digit is worth."""
    digits: int
    """How many are written, leading zeros included."""
    is_percent: bool


def _numbers(text: str) -> list[_Number]:
    return [number for match in _NUMBER.finditer(text) if (number := _number(match))]


def _number(match: re.Match[str]) -> _Number | None:
    """None for dates, years, bare numbers of one digit, and names such as 3M."""
    text, start = match.string, match.start()
    digits, has_currency = match["digits"].replace(",", ""), text.startswith(_CURRENCIES, max(start - 1, 0))
    is_bare = not (has_currency or match["percent"] or match["scale"])
    is_year = len(digits) == 4 and digits[:2] in ("19", "20")
    if match["date"] or (is_bare and (match["letter"] or is_year or len(digits) == 1)):
        return None
    if _AFTER_MONTH.search(text[max(start - _LONGEST_MONTH, 0) : start]):
        return None
    whole, _, decimals = digits.partition(".")
    times = _TIMES[(match["scale"] or match["letter"] or "").lower()]
    last_place = times * 10.0 ** -len(decimals)
    value = min(float(digits) * times, _LARGEST)
    return _Number(value, last_place, len(whole + decimals), bool(match["percent"]))


# --- what a prompt offers to cite ---------------------------------------------------------------------------

_FUNCTION_WORDS = frozenset(
    _WORD.findall(
        "a about after also an and any are as at be been but by can could for from had has have he his in "
        "into is it its like may might more most no not of on or other our out over she should since so some "
        "such than that the their there these they this those to up was we were what when which while who "
        "will with would you"
    )
)
_POSSESSIVE = re.compile(r"['’]s\b", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?:;])[\"'”’)\]*_]*\s+")
_BOLD = re.compile(r"\*\*.+?\*\*", re.DOTALL)
_LEAST_DIGITS_TO_ROUND = 3
_LEAST_DIGITS_TO_CITE = 2


def _words(text: str) -> list[str]:
    return _WORD.findall(_POSSESSIVE.sub("", text))


class _Source:
    """A prompt's numbers, and the words and names of its news."""

    def __init__(self, prompt: str) -> None:
        user = split_published(prompt).user.strip()
        # The question comes last; its "two to four" and its dates are no facts.
        facts = user.rpartition("\n\n")[0] or user
        weeks = read_prompt(user).weeks
        items = [item for week in weeks for item in week.news]
        news = [_words(text) for item in items for text in (item.headline, item.summary)]
        self._values = sorted({number.value for number in _numbers(facts)})
        introduction = user.partition(str(weeks[0].start))[0] if weeks else ""
        self._own = {word.casefold() for word in _words(introduction)}
        folded = [[word.casefold() for word in words] for words in news]
        self._news = {tuple(words[at : at + 3]) for words in folded for at in range(len(words) - 2)}
        written = {word for words in news for word in words}
        self._names = {w for w in written if w[0].isupper() and len(w) > 1 and w.lower() not in written}

    def has(self, number: _Number) -> bool:
        """Whether the prompt holds a number of this value."""
        return self._holds(number, 1.0) or (number.is_percent and self._holds(number, 0.01))

    def _holds(self, number: _Number, times: float) -> bool:
        value = number.value * times
        place = number.last_place * times if number.digits >= _LEAST_DIGITS_TO_ROUND else 0.0
        exact = 1e-9 * value
        # 0.42 stands for 0.415 (rounded) up to 0.4299 (cut).
        low, high = value - max(0.5 * place, exact), value + max(0.999 * place, exact)
        at = bisect_left(self._values, low - exact)
        return at < len(self._values) and self._values[at] <= high

    def is_cited_by(self, factor: str) -> bool:
        return (
            any(n.digits >= _LEAST_DIGITS_TO_CITE and self.has(n) for n in _numbers(factor))
            or self._shares_words(factor)
            or self._shares_name(factor)
        )

    def _shares_words(self, factor: str) -> bool:
        words = [word.casefold() for word in _words(factor)]
        says_much = [word not in _FUNCTION_WORDS and word not in self._own for word in words]
        return any(
            sum(says_much[at : at + 3]) >= 2 and tuple(words[at : at + 3]) in self._news
            for at in range(len(words) - 2)
        )

    def _shares_name(self, factor: str) -> bool:
        return any(
            word in self._names and word.casefold() not in self._own
            for sentence in _SENTENCE_END.split(_BOLD.sub("", factor))
            for word in _words(sentence)[1:]
        )
