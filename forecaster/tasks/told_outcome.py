"""Prompts that say how their week ends: those of a teacher who was told, published as they were."""

from __future__ import annotations

import re
from collections.abc import Iterator

from forecaster.records import Label
from forecaster.tasks.answers import directions_named, parse_prediction
from prompts import split_published, without_news

_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!z\.)(?<!z\. B\.)(?<!z\.B\.)\s+"
    r"|(?<=[。！？])\s*|(?<![:\n])\n+(?![(a-z])"
)
_OUTCOME = (
    r"(?:predict\w*|forecast\w*|outcomes?|results?|move(?:ment)?s?|labels?|answer|target|returns?|direction|"
    r"(?:stock|share|closing )?prices?|stock|shares?|conclusion|truth)"
)
# Said to whoever answers; "analysts assume that" is news.
_ASSUMED = re.compile(
    r"(?:\b(?:let['’]?s|let us|we(?: will| can)?|please|now|then|and"
    r"|you(?: should| can| may| must| are to)?)\s+"
    r"|^\W*|[,;:]\s+)(?:\w+ly\s+)?"
    r"(?:assum(?:e|ing)|suppos(?:e|ing)|presume|imagine|pretend|consider that|take it|know(?:ing)?)\b"
    r"|\byour (?:final )?(?:prediction|forecast|conclusion) (?:for [\w ()-]{1,60} )?"
    r"(?:should|must|has to|is to|will|shall) (?:be|read|say)\b"
    r"|\byou (?:should|must|have to|are to|will) (?:predict|forecast|conclude) that\b"
    # German, and Chinese in both scripts.
    r"|\b(?:angenommen|nehmen (?:wir|sie)|nimm|geh(?:e|en|en (?:wir|sie)) (?:\w+ )?davon aus|unterstell\w*|"
    r"setz(?:e|en (?:wir|sie)) (?:\w+ )?voraus|vorausgesetzt|wir wissen|stell dir vor|stellen sie sich vor)\b"
    r"|\b(?:assuming|supposing|given|knowing) (?:that|the|your)\b|\b(?:as|is|was) (?:settled|given|known)\b"
    r"|假[设設定如使]|已知|[设設]想|想象|想像",
    re.IGNORECASE,
)
_TRUTH = re.compile(
    r"\b(?:actual|true|real(?:i[sz]ed)?|correct|ground[- ]truth|observed|eventual|subsequent|expected|target|"
    r"gold|bin|final|future)\s+(?:\w+\s+){0,4}?"
    r"(?:outcome|(?:price )?move(?:ment)?|label|answer|output|returns?|direction|price|prediction|change)\b"
    r"|\bground[- ]truth\b|\bturn(?:s|ed) out\b"
    r"|\b(?:actually|eventually|subsequently)\s+(?:moved?|went|go|rose|fell|clos\w+|end\w+|increas\w+|declin\w+|"
    r"decreas\w+|dropp?\w*|gain\w*|lost)\b"
    r"|\btatsächlich\w*|[实實][际際]|真[实實]",
    re.IGNORECASE,
)
# What only a prompt's builder writes, wherever in a prompt it stands.
_OF_THE_WEEK = re.compile(
    r"\byour (?:final )?(?:predict|forecast|answer|conclusion)"
    r"|\b(?:next|coming|upcoming|following|target|this) week\b"
    r"|\d{4}-\d\d-\d\d (?:to|-|until) \d{4}-\d\d-\d\d"
    r"|\b(?:nächste|kommende|folgende)[nr]? Woche\b|\b(?:Ihre|deine)r? (?:Prognose|Vorhersage)\b"
    r"|下[周週]|下[个個]?星期|[未接][来來下][来來]?的?一[周週]",
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"\W*(?:\w+[ -]){0,4}(?:outcome|movement|move|label|answer|return|direction|truth|"
    r"bewegung|ergebnis)\W{0,3}[:=]",
    re.I,
)
_ABOUT_OUTCOME = re.compile(
    rf"\b{_OUTCOME}\b|\b(?:Prognose|Vorhersage|Aktien?|Ergebnis|Rendite)\b|\b\w*(?:kurs|bewegung)\w*"
    r"|[预預][测測]|股[价價票]|[该該]股|价格|價格|走[势勢]|[结結]果|[涨漲]跌",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:not|never|n['’]t|without|avoid)\s+(?:\w+\s+)?(?:assum|suppos|presum|consider)"
    r"|\b(?:nicht|keine[nrs]?) (?:davon aus|an\b|vor(?:aus)?\b|annahme)"
    r"|(?:不[要应應能得]?|勿|[别別])\w?假[设設定如]",
    re.I,
)
_EXAMPLE = re.compile(
    r"\b(?:(?:label|answer|prediction|line|form|value|something)s? like\b"
    r"|e\.?g\b|i\.e\b|for example|for instance|such as|example|one of|either|whether|choose|options?|"
    r"format|formatted|in the form|bins?:"
    r"|z\. ?B\.|zum Beispiel|beispielsweise|entweder|oder\b)"
    r"|例如|比如|譬如|之一|是否|[还還]是|或者?[上下涨漲跌]",
    re.IGNORECASE,
)
_PAST = re.compile(
    r"\b(?:last|past|previous|prior) (?:few |\d+ )?(?:week|month|quarter|year)s?\b"
    r"|\b(?:letzte|vergangene|vorige)[ns]? (?:Woche|Monat|Quartal|Jahr)\b|上[个個]?(?:[周週月]|季度)",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(
    r"\b(?:predict|forecast|outcome|assum|suppos|label|analy[sz]|explain|support|(?:next|coming|upcoming|"
    r"following) week|actual|answer|truth"
    r"|prognos|vorhersag|angenommen|annehm|unterstell|erklär|begründ|tatsächlich|"
    r"(?:nächste|kommende)[nr]? woche)\w*"
    r"|[预預][测測]|假[设設定如]|分析|解[释釋]|[实實][际際]|真[实實]|下[周週]",
    re.IGNORECASE,
)
_DATA = re.compile(r"\s*(?:\[|-|•|From \d{4}-\d\d-\d\d to )")
_BIN_CODE = re.compile(r"(?<![\w.])(?P<direction>[UD])(?P<size>[1-5])(?P<plus>\+?)(?!\w|\.\d)")
# Words that a prediction does not use, and a report of what happened does; and those of other languages.
_UP = (
    r"\b(?:rose|risen|gained|climbed|jumped|advanced|rallied|soared|in the green"
    r"|steig(?:t|en|e)|stieg|gestiegen|\w*anstieg|zuleg(?:t|en)|legt zu|höher|aufwärts|plus(?= ?\d)"
    r"|(?<=is )positive|(?<=be )positive|(?<=was )positive)\b"
    r"|上[涨漲升扬揚]|[涨漲](?!跌)|走高|攀升|升高|增[长長]"
)
_DOWN = (
    r"\b(?:fell|fallen|lost|dropped|slid|sank|sunk|plunged|tumbled|declined|lose ground|"
    r"in the red|underperforms?"
    r"|fällt|fiel|gefallen|sink(?:t|en|e)|gesunken|\w*rückgang|\w*verlust|verlier(?:t|en)|niedriger|tiefer"
    r"|abwärts"
    r"|minus(?= ?\d)|(?<=is )negative|(?<=be )negative|(?<=was )negative)\b"
    r"|(?<![涨漲])下?跌|下降|走低|下滑|回落|下挫"
)
_OTHER_WORDS = re.compile(rf"(?P<down>{_DOWN})|(?:{_UP})", re.IGNORECASE)


def told_outcome(prompt: str, label: Label | None) -> str | None:
    """The sentence of a prompt, outside its news, that says how its week ends; None where there is none.

    A sentence counts that has the reader assume an outcome, or calls one the true one; and, in the question
    at the end, any that names the row's own bin.

    Args:
        prompt: in the published form, or any text.
        label: what the week's move was; None where that is not known.
    """
    messages = split_published(prompt)
    frame = without_news(messages.user)
    question = _question(frame)
    for sentence in _sentences(f"{frame}\n\n{messages.system}"):
        of_the_week = _OF_THE_WEEK.search(sentence) or _FIELD.match(sentence)
        if of_the_week and _hands_over(sentence):
            return _shortened(sentence)
    for sentence in _sentences(question):
        if _hands_over(sentence):
            return _shortened(sentence)
        is_of_past = _PAST.search(sentence) and not _OF_THE_WEEK.search(sentence)
        if label is None or is_of_past or _EXAMPLE.search(sentence):
            continue
        # "Treat this as the outcome: up by 2-3%": "as" begins the grounds of an answer, but not of a task.
        if label in map(_bin_of, {sentence, sentence.rpartition(":")[2]}):
            return _shortened(sentence)
    return None


def _sentences(text: str) -> Iterator[str]:
    return (part for part in _SENTENCE_END.split(text) if part and not part.isspace())


def _hands_over(sentence: str) -> bool:
    """Whether a sentence hands an outcome over: the reader is to assume it, or it is called the true one."""
    found = _ASSUMED.search(sentence) or _TRUTH.search(sentence)
    if not found or not _ABOUT_OUTCOME.search(sentence):
        return False
    if _EXAMPLE.search(sentence) or _DENIED.search(sentence):
        return False
    said = sentence[found.start() :]
    return _bin_of(said) is not None or len(directions_named(_in_plain_words(said))) == 1


def _in_plain_words(text: str) -> str:
    return _OTHER_WORDS.sub(lambda word: " down " if word["down"] else " up ", text)


def _bin_of(sentence: str) -> Label | None:
    """The one bin that a sentence names, in words or as a code such as `U3` or `D5+`."""
    codes = {
        Label("up" if c["direction"] == "U" else "down", int(c["size"]) - (0 if c["plus"] else 1))
        for c in _BIN_CODE.finditer(sentence)
    }
    if len(codes) == 1:
        return codes.pop()
    found = parse_prediction(_in_plain_words(sentence))
    return found if isinstance(found, Label) else None


def _question(frame: str) -> str:
    """The instructions at the end of a prompt, behind its data."""
    kept: list[str] = []
    for paragraph in reversed(frame.strip().split("\n\n")):
        if _DATA.match(paragraph) or not _INSTRUCTION.search(paragraph):
            break
        kept.append(paragraph)
    return "\n\n".join(reversed(kept))


def _shortened(sentence: str, max_chars: int = 160) -> str:
    sentence = " ".join(sentence.split())
    return sentence if len(sentence) <= max_chars else sentence[: max_chars - 3] + "..."
