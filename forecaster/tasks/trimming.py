"""How a prompt that is too long is shortened: by whole news items, oldest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from forecaster.records import Messages
from prompts import news_item_spans, without_oldest_news


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt within its token limit."""

    messages: Messages
    news_dropped: int


def fit(messages: Messages, limit: int, count_tokens: Callable[[Messages], int]) -> FittedPrompt | None:
    """Drop whole news items, oldest first, until `count_tokens` is within `limit`; None when that is not
    enough."""
    available = len(news_item_spans(messages.user))

    def cut(count: int) -> Messages:
        return Messages(messages.system, without_oldest_news(messages.user, count)) if count else messages

    if count_tokens(messages) <= limit:
        return FittedPrompt(messages, 0)
    if available == 0 or count_tokens(cut(available)) > limit:
        return None
    too_few, enough = 0, available
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if count_tokens(cut(middle)) <= limit:
            enough = middle
        else:
            too_few = middle
    return FittedPrompt(cut(enough), enough)
