"""Prompts to answers by a model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from forecaster import chat
from forecaster.answering.endpoint_likelihoods import EndpointLikelihoods
from forecaster.chat import Chat, ChatReply, ModelUnknown, NoReply, RequestRefused, Turn
from forecaster.records import Messages
from forecaster.tasks.base import Choices
from prompts import CHAT_MARKERS, break_markers


@dataclass(frozen=True)
class ApiPlan:
    """Who is asked, and how."""

    model: str
    base_url: str | None = None
    """None: OpenAI's."""
    concurrency: int = 8
    """Requests in flight."""
    max_output_tokens: int = 1024
    """Of thoughts and answer together."""
    temperature: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"nobody would ask: concurrency {self.concurrency}")

    @property
    def endpoint(self) -> chat.Endpoint:
        return chat.Endpoint(self.model, self.base_url, role="model", flag="--api_model")


@dataclass(frozen=True)
class EndpointReply:
    """The endpoint's answer to one row."""

    row_id: str
    text: str | None
    """With what the model thought in a think block in front; None: the endpoint refused the request."""
    input_tokens: int | None
    """None where the endpoint did not say, as for `output_tokens`."""
    output_tokens: int | None
    """Of thoughts and answer."""
    latency_s: float | None
    """Of the call that brought the answer, without earlier tries and waits; None for a refused request."""
    finish: Literal[chat.Finish, "refused", "failed"]
    """`stop` for a whole answer; `refusal` where the model declined, `refused` where the endpoint takes no
    such text, `failed` where it did not take the request for another reason: it may be asked again."""
    fault: str = ""
    """Why there is no answer or no whole one, in words."""
    label_log_likelihoods: Mapping[str, float] | None = None
    """None where the endpoint does not tell them, or the answer has no place for a label."""
    likelihood_requests: int = 0
    """What asking for them took, beside the request that brought the answer."""


def check(plan: ApiPlan, api_key: str, tell: Callable[[str], None] = lambda line: None) -> None:
    """Ask the endpoint for the model, without spending a token; what it does not say is no objection.

    Args:
        tell: hears of waits.

    Raises:
        ConfigurationError: the endpoint has no such model.
        KeyRefusedError: the key is missing, not accepted, or out of credit.
        UnreachableError: nobody answers.
    """
    chat.check_model(plan.endpoint, api_key, tell)


def answer_all(
    prompts: Iterable[tuple[str, Messages]],
    plan: ApiPlan,
    api_key: str,
    tell: Callable[[str], None] = lambda line: None,
    choices: Choices | None = None,
) -> Generator[EndpointReply, None, None]:
    """Each answer as it comes, in any order; at most `plan.concurrency` prompts are drawn ahead.

    The requests go on only while the caller waits for the next answer, in the caller's own thread: what it
    does in between has to be short. A caller that stops early should close the iterator
    (`contextlib.closing`); this ends what is in flight.

    Args:
        prompts: row ids and messages.
        tell: hears of waits.
        choices: texts whose likelihoods are asked for too, where an answer has a place for one of them: one
            request each, as long as the endpoint tells them.

    Raises:
        ConfigurationError: the endpoint has no such model.
        KeyRefusedError: the key is missing, not accepted, or out of credit.
        UnreachableError: rows are without an answer after all tries of the network.
        Whichever it is, what was in flight has been answered before.
    """
    client = Chat(
        plan.endpoint,
        api_key,
        max_output_tokens=plan.max_output_tokens,
        temperature=plan.temperature,
        seed=plan.seed,
        tell=tell,
    )
    in_flight: set[asyncio.Task[EndpointReply]] = set()
    with _event_loop() as runner:
        try:
            likelihoods = EndpointLikelihoods(client, choices) if choices else None
            yield from _replies(runner, client, likelihoods, iter(prompts), plan.concurrency, in_flight)
        finally:
            runner.run(_end(client, in_flight))


@contextmanager
def _event_loop() -> Iterator[asyncio.Runner]:
    runner = asyncio.Runner()
    try:
        yield runner
    finally:
        # Closing starts a thread, for which a program that is ending, with an iterator left open, would wait
        # forever.
        if not sys.is_finalizing():
            runner.close()


def _replies(
    runner: asyncio.Runner,
    client: Chat,
    likelihoods: EndpointLikelihoods | None,
    prompts: Iterator[tuple[str, Messages]],
    concurrency: int,
    in_flight: set[asyncio.Task[EndpointReply]],
) -> Iterator[EndpointReply]:
    """Keeps `in_flight` up to date, so that whoever stops early can end what is there."""
    without_reply: list[str] = []
    is_down = False
    ending: BaseException | None = None
    while True:
        if not is_down and ending is None:
            for row_id, messages in islice(prompts, concurrency - len(in_flight)):
                asking = _ask(client, likelihoods, row_id, _turns(messages))
                in_flight.add(runner.get_loop().create_task(asking))
        if not in_flight:
            break
        done, _ = runner.run(asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED))
        for task in done:
            in_flight.remove(task)
            fault = task.exception()
            if fault is None:
                yield task.result()
            elif isinstance(fault, NoReply):
                without_reply.append(fault.found)
                is_down |= fault.is_down
            else:
                ending = fault
    if isinstance(ending, ModelUnknown):
        ending = runner.run(client.unknown_model())
    if ending is None and without_reply:
        ending = client.endpoint.without_reply(without_reply)
    if ending is not None:
        raise ending


def _turns(messages: Messages) -> list[Turn]:
    """What is sent. A server may take the signs of chat models for control tokens where it finds them."""
    return chat.turns(
        Messages(break_markers(messages.system, CHAT_MARKERS), break_markers(messages.user, CHAT_MARKERS))
    )


async def _end(client: Chat, in_flight: Iterable[asyncio.Task[EndpointReply]]) -> None:
    async with client:
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)


async def _ask(
    client: Chat, likelihoods: EndpointLikelihoods | None, row_id: str, messages: Sequence[Turn]
) -> EndpointReply:
    """Raises NoReply, ModelUnknown or KeyRefusedError."""
    try:
        reply = await client.persist(_ask_once, client, row_id, messages)
        if likelihoods is None or reply.text is None:
            return reply
        found, requests = await likelihoods.of(messages, reply.text)
        return replace(reply, label_log_likelihoods=found, likelihood_requests=requests)
    except RequestRefused as refused:
        finish: Literal["refused", "failed"] = "refused" if refused.is_of_text else "failed"
        return EndpointReply(row_id, None, None, None, None, finish, refused.found)


async def _ask_once(client: Chat, row_id: str, messages: Sequence[Turn]) -> EndpointReply:
    began = time.perf_counter()
    reply = await client.send(messages)
    latency_s = time.perf_counter() - began
    read, written = reply.tokens or (None, None)
    cut = client.endpoint.cut(reply)
    return EndpointReply(row_id, _with_thoughts(reply), read, written, latency_s, reply.finish, cut)


def _with_thoughts(reply: ChatReply) -> str:
    """The text as a server without a reasoning parser would have given it."""
    if not reply.reasoning or "<think>" in reply.text or "</think>" in reply.text:
        return reply.text
    thoughts = "<think>\n" + reply.reasoning.replace("</think>", "")
    if reply.finish == "length" and not reply.text:
        return thoughts  # it was cut off there
    return f"{thoughts}\n</think>\n\n{reply.text}"
