"""How a prompt that is too long is shortened: by the parts that its task can spare, the first ones first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from forecaster.records import Messages
from forecaster.tasks.base import Task


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt within its token limit."""

    messages: Messages
    news_dropped: int
    """Parts that went; in the weekly task these are news items."""


def fit(
    task: Task, messages: Messages, limit: int, count_tokens: Callable[[Messages], int]
) -> FittedPrompt | None:
    """Drop whole parts until `count_tokens` is within `limit`; None when that is not enough."""
    available = task.pieces(messages)

    def cut(count: int) -> Messages:
        return task.without_pieces(messages, count) if count else messages

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
