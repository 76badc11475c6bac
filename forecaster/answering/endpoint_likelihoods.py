"""How likely a model behind an endpoint holds each text that one place of its answer can take.

Each text is sent as an answer that goes on: prompt, answer up to the place, text, and what follows it.
A server that takes vLLM's extensions tells the log-likelihood and the spelling of every token that it reads;
by their spelling the tokens of the text are found, so the cuts are the server's own and nothing is guessed.
Where no token begins at the place there are no likelihoods, as with the other engines.

Fields and forms were checked against vLLM's source (its chat requests and responses, how `prompt_logprobs` is
filled and clamped, how tokens are decoded one by one), not against a running server. A client cannot see two
things: an answer's tokens are those that its text is cut into when it is read again, and vLLM 0.33 leaves an
adapter's factors of the head out of these likelihoods (vllm#51594).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from forecaster.chat import Chat, ModelUnknown, NoReply, ReadToken, RequestRefused, Turn
from forecaster.errors import KeyRefusedError
from forecaster.tasks.answers import without_think_block
from forecaster.tasks.base import Choices
from forecaster.tasks.distributions import label_mass

_MOST_MASS = 1.01
"""No text is the beginning of another one, so their likelihoods sum to at most one; a server that computes in
16 bits is a little off."""


class EndpointLikelihoods:
    """Asks one endpoint; the first request finds out whether it tells likelihoods, or else is the last."""

    def __init__(self, client: Chat, choices: Choices) -> None:
        self._client = client
        self._choices = choices
        self._tells: bool | None = None
        """None: nobody asked yet."""
        self._first = asyncio.Lock()

    async def of(self, messages: Sequence[Turn], answer: str) -> tuple[dict[str, float] | None, int]:
        """The log-likelihood of each choice by its label, and the number of requests that were sent.

        None where the answer has no place for a choice, or the endpoint does not tell; whatever goes wrong is
        no reason to lose the answer, so that nothing is raised.
        """
        place = find_place(self._choices, answer)
        if place is None:
            return None, 0
        asking = _Asking(self._client, messages, answer[:place], self._choices.after)
        found: dict[str, float] = {}
        for label, text in zip(self._choices.labels, self._choices.texts, strict=True):
            log_likelihood = await self._log_likelihood(asking, text)
            if log_likelihood is None:
                return None, asking.requests
            found[label] = log_likelihood
        return found if label_mass(found) <= _MOST_MASS else None, asking.requests

    async def _log_likelihood(self, asking: _Asking, text: str) -> float | None:
        if self._tells is None:
            async with self._first:  # the others wait for what it finds out
                if self._tells is None:
                    return await self._find_out(asking, text)
        return await asking.log_likelihood(text) if self._tells else None

    async def _find_out(self, asking: _Asking, text: str) -> float | None:
        log_likelihood = await asking.log_likelihood(text)
        if not asking.is_too_long:
            self._tells = log_likelihood is not None
        return log_likelihood


class _Asking:
    """The requests for one answer."""

    def __init__(self, client: Chat, messages: Sequence[Turn], begun: str, after: str) -> None:
        self._client, self._messages, self._begun, self._after = client, messages, begun, after
        self.requests = 0
        self.is_too_long = False
        """Whether the endpoint took one of these texts not for what was asked, but for itself."""

    async def log_likelihood(self, text: str) -> float | None:
        try:
            tokens = await self._client.persist(self._read, text)
        except RequestRefused as refused:
            self.is_too_long |= refused.is_of_text
            return None
        except (ModelUnknown, NoReply, KeyRefusedError):
            return None
        return log_likelihood_of(tokens, text, self._after) if tokens else None

    async def _read(self, text: str) -> list[ReadToken] | None:
        self.requests += 1
        goes_on = {"role": "assistant", "content": f"{self._begun}{text}{self._after}"}
        return await self._client.read_prompt([*self._messages, goes_on])


def find_place(choices: Choices, answer: str) -> int | None:
    """How many characters of an answer stand before its choice; None where it has no place for one, or where
    thoughts stand before it: chat templates drop those of earlier turns, or write them anew."""
    at = answer.find(choices.before)
    while at >= 0:
        if choices.can_follow(answer[:at]):
            is_plain = without_think_block(answer[:at]) == answer[:at].strip()
            return at + len(choices.before) if is_plain else None
        at = answer.find(choices.before, at + 1)
    return None


def log_likelihood_of(tokens: Sequence[ReadToken], text: str, after: str) -> float | None:
    """The log-likelihood of `text` at the end of a prompt, before `after`, cut behind the token of its last
    character; None where the tokens are not spelled so, or reach from what stands before into it."""
    whole = text + after
    total, end = 0.0, len(whole)
    for token in reversed(tokens):
        begin = end - len(token.text)
        if begin < 0 or whole[begin:end] != token.text:
            return None
        if begin < len(text):
            total += token.log_likelihood
        if begin == 0:
            return total
        end = begin
    return None
