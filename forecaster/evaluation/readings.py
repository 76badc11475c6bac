"""Texts read, each once: by this project's parser and by the published one. Figures take readings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forecaster.evaluation.published import PublishedAnswer, parse_as_published
from forecaster.plain_text import in_one_form
from forecaster.records import Answer, Label, Unreadable
from forecaster.tasks.answers import parse_answer, without_think_block
from forecaster.tasks.loose_forecasts import read_forecast

NO_ANSWER = Unreadable("no answer")


@dataclass(frozen=True)
class Reading:
    """One answer, or reference answer, as the parsers read it."""

    spoken: str
    """Its text in one form, without closed think blocks; empty where there is no answer."""
    has_think_block: bool
    """Whether it has a closed one."""
    forecast: Label | Unreadable
    """What it forecasts, in whatever form."""
    own: Answer | Unreadable
    """Its parts, where it follows the form."""
    published: PublishedAnswer | None
    published_spoken: PublishedAnswer | None
    """As the published parser reads it with closed think blocks removed first."""


def read_texts(texts: Iterable[str | None]) -> dict[str | None, Reading]:
    """What the parsers make of each text, by text; None, where there is no answer, is a text too."""
    return {text: _reading(text) for text in dict.fromkeys(texts)}


def _reading(text: str | None) -> Reading:
    if text is None:
        return Reading("", False, NO_ANSWER, NO_ANSWER, None, None)
    # A model writes line ends and accents in forms of its own; the parts that are read are in one.
    text_in_one_form = in_one_form(text)
    spoken = without_think_block(text_in_one_form)
    thinks = spoken != text_in_one_form.strip()
    own, published = parse_answer(text), parse_as_published(text)
    return Reading(
        spoken=spoken,
        has_think_block=thinks,
        forecast=read_forecast(text, own),
        own=own,
        published=published,
        published_spoken=parse_as_published(without_think_block(text)) if thinks else published,
    )


def read_forecasts(answers: Sequence[str | None]) -> list[Label | Unreadable]:
    """What each answer forecasts, by this project's parser alone."""
    return [NO_ANSWER if text is None else read_forecast(text) for text in answers]
