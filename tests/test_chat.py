"""The real OpenAI client against an endpoint on the loopback interface: single requests."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback_endpoint import UP, Endpoint, completion, error

from forecaster import chat
from forecaster.chat import (
    HTTP_TRIES,
    Chat,
    ChatReply,
    ModelUnknown,
    NoReply,
    PassingFault,
    RequestRefused,
    Turn,
    check_model,
    read_reply,
    sendable,
    turns,
)
from forecaster.errors import ConfigurationError, KeyRefusedError, UnreachableError
from forecaster.records import Messages
from forecaster.retry_after import retry_after_s

pytestmark = pytest.mark.usefixtures("no_waits")

KEY = "sk-ca+na/ry=1 '%s'"
SPELLINGS = (KEY, "sk-ca%2Bna", "ca+na/ry", "ca%2Bna/ry")
ASKED = turns(Messages("You are an analyst.", "What next?"))


def at(url: str, model: str = "m") -> chat.Endpoint:
    return chat.Endpoint(model, url, role="sage", flag="--sage_model")


def a_client(url: str) -> Chat:
    return Chat(at(url), KEY, max_output_tokens=99, temperature=0.5, seed=7)


def send(url: str, *requests: Sequence[Turn]) -> list[ChatReply | BaseException]:
    """What becomes of single requests of one client, one after the other."""

    async def all_of_them() -> list[ChatReply | BaseException]:
        async with a_client(url) as client:
            found: list[ChatReply | BaseException] = []
            for request in requests:
                found += await asyncio.gather(client.send(request), return_exceptions=True)
            return found

    return asyncio.run(all_of_them())


def persist(url: str, *requests: Sequence[Turn]) -> list[ChatReply | BaseException]:
    """What becomes of requests side by side, with all tries."""

    async def side_by_side() -> list[ChatReply | BaseException]:
        async with a_client(url) as client:
            tries = [client.persist(client.send, request) for request in requests]
            return await asyncio.gather(*tries, return_exceptions=True)

    return asyncio.run(side_by_side())


# --- requests -----------------------------------------------------------------------------------------------


def test_a_request_names_model_and_options_and_carries_the_key(endpoint: Endpoint) -> None:
    assert send(endpoint.url, ASKED) == [ChatReply(UP, "", "stop", (1000, 500))]
    assert endpoint.chats == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "You are an analyst."},
                {"role": "user", "content": "What next?"},
            ],
            "max_tokens": 99,
            "temperature": 0.5,
            "seed": 7,
        }
    ]
    assert endpoint.keys == [f"Bearer {KEY}"]


def test_an_empty_turn_and_lone_surrogates_are_not_sent() -> None:
    assert turns(Messages("", "What \udc80 next?")) == [{"role": "user", "content": "What ? next?"}]
    assert sendable("a \U0001f600 b") == "a \U0001f600 b"


def test_an_option_that_one_request_found_refused_is_left_out_by_the_next(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (
        (400, error("unsupported_parameter", param="max_tokens"))
        if "max_tokens" in body
        else (200, completion(UP))
    )
    first, second = send(endpoint.url, ASKED, ASKED)
    assert isinstance(first, PassingFault) and (first.found, first.retry_after_s) == (
        "no option max_tokens",
        0.0,
    )
    assert isinstance(second, ChatReply)
    assert [body.get("max_completion_tokens") for body in endpoint.chats] == [None, 99]


# --- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "found"),
    [
        (500, b"", PassingFault, "HTTP 500"),
        (429, error(), PassingFault, "HTTP 429"),
        (200, b"{", PassingFault, "an answer that is not JSON"),
        (200, {"choices": []}, PassingFault, "an answer of an unknown form"),
        (
            400,
            error("context_length_exceeded"),
            RequestRefused,
            "refused, as the prompt is longer than the sage can read",
        ),
        (400, error("content_filter"), RequestRefused, "refused by the endpoint's content filter"),
        (400, error("odd"), RequestRefused, "refused (HTTP 400)"),
        (401, error("invalid_api_key", KEY), KeyRefusedError, "the key was refused (HTTP 401)."),
        (429, error("insufficient_quota"), KeyRefusedError, "the key's credit is used up (HTTP 429)."),
    ],
)
def test_a_fault_is_told_in_own_words_and_not_chained(
    status: int, body: Any, kind: type[Exception], found: str, endpoint: Endpoint
) -> None:
    endpoint.script = lambda chat, number: (status, body)
    (fault,) = send(endpoint.url, ASKED)
    assert type(fault) is kind and getattr(fault, "found", None) == found
    assert fault.__cause__ is None and fault.__context__ is None
    shown = "".join(traceback.format_exception(fault)) + repr(fault)
    assert not any(spelling in shown for spelling in SPELLINGS)


def test_only_a_request_that_was_sent_may_have_been_charged(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (200, b"{")
    (cut_off,) = send(endpoint.url, ASKED)
    closed = Endpoint()
    closed.server_close()
    (not_sent,) = send(closed.url, ASKED)
    assert isinstance(cut_off, PassingFault) and cut_off.is_lost
    assert isinstance(not_sent, PassingFault) and not not_sent.is_lost
    assert not_sent.found == "a broken connection (ConnectError)"


def test_a_passing_fault_is_tried_again_until_there_is_a_reply(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (500, b"") if number < HTTP_TRIES else (200, completion(UP))
    assert persist(endpoint.url, ASKED) == [ChatReply(UP, "", "stop", (1000, 500))]
    assert len(endpoint.chats) == HTTP_TRIES


def test_an_endpoint_that_answers_nobody_is_down(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (503, b"")
    (fault,) = persist(endpoint.url, ASKED)
    assert isinstance(fault, NoReply) and fault.is_down
    assert fault.found == "after 12 tries: HTTP 503"
    assert fault.__cause__ is None and fault.__context__ is None


def test_an_endpoint_that_answers_others_meanwhile_is_not_down(endpoint: Endpoint) -> None:
    answered = threading.Event()

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if "poison" in body["messages"][-1]["content"]:
            answered.wait(10)
            return 500, b""
        # Its reply is read before the other's last try, as tries come one after the other.
        answered.set()
        return 200, completion(UP)

    endpoint.script = script
    fault, reply = persist(endpoint.url, turns(Messages("", "poison")), ASKED)
    assert isinstance(reply, ChatReply)
    assert isinstance(fault, NoReply) and not fault.is_down


def test_a_pause_of_hours_means_that_the_endpoint_is_down_for_now(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (429, error(), {"Retry-After": "7200"})
    (fault,) = persist(endpoint.url, ASKED)
    assert isinstance(fault, NoReply) and fault.is_down
    assert fault.found == "as the endpoint asks for a pause of 120 minutes (HTTP 429)"
    assert len(endpoint.chats) == 1


def test_an_unknown_model_can_be_told_with_what_is_served(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (404, error("model_not_found"))
    endpoint.listed = (200, {"data": [{"id": "large"}]})

    async def ask() -> ConfigurationError:
        async with a_client(endpoint.url) as client:
            with pytest.raises(ModelUnknown):
                await client.persist(client.send, ASKED)
            return await client.unknown_model()

    assert str(asyncio.run(ask())) == "--sage_model: m is not served. It serves large."


def test_rows_without_a_reply_are_counted_in_one_error() -> None:
    fault = at("").without_reply(["after 12 tries: HTTP 500", "after 12 tries: HTTP 503"])
    assert isinstance(fault, UnreachableError)
    assert str(fault) == "sage m: 2 rows got no answer, the last one after 12 tries: HTTP 503."


def test_a_retry_after_date_is_read() -> None:
    future = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    assert 7190 < (retry_after_s(future) or 0) <= 7200
    assert retry_after_s("Fri, 05 Dec 2025 21:00:00 GMT") == 0.0


# --- before anything expensive ------------------------------------------------------------------------------


def test_a_model_that_is_there_passes_without_a_chat(endpoint: Endpoint) -> None:
    check_model(at(endpoint.url), KEY)
    assert endpoint.paths == ["/v1/models/m"]


def test_a_check_speaks_of_the_flag_and_the_role_of_the_model(endpoint: Endpoint) -> None:
    endpoint.models, endpoint.listed = (404, error("model_not_found")), (200, {"data": [{"id": "large"}]})
    with pytest.raises(ConfigurationError, match=r"^--sage_model: m is not served. It serves large.$"):
        check_model(at(endpoint.url), KEY)
    endpoint.models = (401, error("invalid_api_key", KEY))
    with pytest.raises(KeyRefusedError, match=r"^sage m: the key was refused \(HTTP 401\).$"):
        check_model(at(endpoint.url), KEY)


# --- what comes back, whatever it is ------------------------------------------------------------------------

_NAMES = ["choices", "message", "content", "reasoning_content", "reasoning", "finish_reason", "refusal"]
_NAMES += ["usage", "prompt_tokens", "completion_tokens"]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["stop", "length", UP, "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_is_a_reply_or_none(content: Any) -> None:
    reply = read_reply(content)
    if reply is not None:
        (reply.text + reply.reasoning).encode("utf-8", "strict")
        assert at("").cut(reply) or reply.finish == "stop"
        assert reply.tokens is None or min(reply.tokens) >= 0


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 0}, (3, 0)),
        ({"prompt_tokens": 3}, None),
        ({"prompt_tokens": -3, "completion_tokens": 1}, None),
        ({"prompt_tokens": "3", "completion_tokens": 1}, None),
        ([], None),
    ],
)
def test_usage_counts_only_when_it_is_whole(usage: Any, tokens: tuple[int, int] | None) -> None:
    reply = read_reply(completion(UP, usage=None) | {"usage": usage})
    assert reply is not None and reply.tokens == tokens


@pytest.mark.parametrize(
    ("message", "reasoning"),
    [
        ({}, ""),
        ({"reasoning_content": "It rises."}, "It rises."),
        ({"reasoning": "It rises."}, "It rises."),
        ({"reasoning_content": "It rises.", "reasoning": "It rises."}, "It rises."),
        ({"reasoning_content": None, "reasoning": "It rises."}, "It rises."),
        ({"reasoning": {"effort": "low"}}, ""),
        ({"reasoning": "It \ud800 rises."}, "It ? rises."),
    ],
)
def test_what_the_model_thought_is_kept_apart_from_the_text(message: dict[str, Any], reasoning: str) -> None:
    reply = read_reply(completion(UP, **message))
    assert reply == ChatReply(UP, reasoning, "stop", (1000, 500))


@pytest.mark.parametrize(
    ("content", "finish", "cut"),
    [
        (completion(UP), "stop", ""),
        (completion(UP, finish="eos"), "stop", ""),
        (completion(UP, finish="length"), "length", "it was cut off at its greatest length"),
        (
            completion(UP, finish="content_filter"),
            "content_filter",
            "the endpoint's content filter cut it off",
        ),
        (completion(None, refusal="I cannot."), "refusal", "the sage refused"),
    ],
)
def test_why_a_reply_ended_is_told(content: dict[str, Any], finish: str, cut: str) -> None:
    reply = read_reply(content)
    assert reply is not None and (reply.finish, at("").cut(reply)) == (finish, cut)
