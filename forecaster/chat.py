"""Requests to a model behind an OpenAI-compatible endpoint: the only importer of openai.

No exception of the client leaves this module: its texts can quote the vendor, who quotes parts of the key.
Faults are told in words of this module, and never chained to their cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, Self, TypeVar

import openai
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from forecaster.errors import ConfigurationError, KeyRefusedError, Problem, UnreachableError
from forecaster.http_limits import CALL_TIME_LIMIT_S, LimitedAsyncClient, ServerFaultError
from forecaster.records import Messages
from forecaster.retry_after import Waits, retry_after_s

DEFAULT_URL = "https://api.openai.com/v1"

HTTP_TRIES = 12
"""With waits of 0.5, 1, 2, 4 and then 8 s in between: a limit that is counted by the minute is outlived."""

LONGEST_PAUSE_S = 120.0
"""An endpoint that asks for a longer one (a limit by the day) is not waited for."""

ANSWER_TIME_LIMIT_S = 300.0
"""Small servers take minutes for one answer, and the client's own ten are long when a connection hangs."""

LONGEST_TRYING_S = 900.0
"""From when on nothing is tried again, however few the tries were: three that each took the whole time."""

CHECK_TRIES = 3
MOST_TOKENS = 10**9
"""Of one answer; more is no count."""

LEAST_LOG = -10_000.0
"""Of a token's log-likelihood; vLLM writes -9999 for no likelihood at all."""

Turn = dict[str, str]
"""Role and content, as endpoints take them."""
Finish = Literal["stop", "length", "content_filter", "refusal"]

_BACKOFF = wait_exponential_jitter(multiplier=0.5, max=8, jitter=0.5)
_MAX_LISTED_MODELS = 8
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Endpoint:
    """Which model is asked where, and how faults speak of it."""

    model: str
    base_url: str | None
    """None: OpenAI's."""
    role: str
    """What the model is to the user, such as `teacher`."""
    flag: str
    """Where the user named it."""

    @property
    def vendor(self) -> str:
        return f"{self.role} {self.model}"

    def cut(self, reply: ChatReply) -> str:
        """Why the text is no whole answer; empty when it is one."""
        return {
            "stop": "",
            "length": "it was cut off at its greatest length",
            "content_filter": "the endpoint's content filter cut it off",
            "refusal": f"the {self.role} refused",
        }[reply.finish]

    def without_reply(self, found: Sequence[str]) -> UnreachableError:
        """What ends a run in which the network failed.

        Args:
            found: what `NoReply` told of each row.
        """
        return UnreachableError(self.vendor, f"{len(found)} rows got no answer, the last one {found[-1]}.")


# --- what a refusal means -----------------------------------------------------------------------------------


class PassingFault(Exception):
    """Something that another try may mend."""

    def __init__(self, found: str, *, retry_after_s: float | None = None, is_lost: bool = False) -> None:
        self.found, self.retry_after_s = found, retry_after_s
        self.is_lost = is_lost
        """Whether the endpoint may have written an answer, and charged it."""
        super().__init__(found)


class RequestRefused(Exception):
    """The endpoint takes no such request; the next one's may be fine."""

    def __init__(self, found: str, *, is_of_text: bool = False) -> None:
        self.found = found
        self.is_of_text = is_of_text
        """Whether this very text is not taken, whatever changes otherwise."""
        super().__init__(found)


class ModelUnknown(Exception):
    """The endpoint has no such model, or no such path."""


class NoReply(Exception):
    """The network failed until the last try."""

    def __init__(self, found: str, *, is_down: bool) -> None:
        self.found = found
        self.is_down = is_down
        """Whether nobody else got an answer meanwhile, or the endpoint asked for a long pause. Otherwise it
        may be this request's fault."""
        super().__init__(found)


def _refusal(error: openai.APIStatusError, endpoint: Endpoint) -> Exception:
    """What a status other than 2xx means. The vendor's own words are read, never repeated."""
    status, words = error.status_code, error.message.lower()
    details = error.body if isinstance(error.body, dict) else {}
    code = details.get("code") or details.get("type")
    if status == 404 or code == "model_not_found":
        return ModelUnknown()
    if status in (401, 403):
        return KeyRefusedError(endpoint.vendor, f"the key was refused (HTTP {status}).")
    if status == 402 or (status == 429 and "insufficient_quota" in (code, details.get("type"))):
        return KeyRefusedError(endpoint.vendor, f"the key's credit is used up (HTTP {status}).")
    if status in (408, 409, 429) or status >= 500:
        pause_s = retry_after_s(error.response.headers.get("Retry-After"))
        if pause_s is not None and pause_s > LONGEST_PAUSE_S:
            asked = f"asks for a pause of {pause_s / 60:.0f} minutes (HTTP {status})."
            return UnreachableError(endpoint.vendor, asked)
        return PassingFault(f"HTTP {status}", retry_after_s=pause_s)
    if code == "context_length_exceeded" or "context length" in words or "too long" in words:
        return RequestRefused(
            f"refused, as the prompt is longer than the {endpoint.role} can read", is_of_text=True
        )
    if "content_filter" in str(code) or "content management policy" in words:
        return RequestRefused("refused by the endpoint's content filter", is_of_text=True)
    return RequestRefused(f"refused (HTTP {status})")


def _broken(error: openai.APIConnectionError) -> PassingFault:
    """What a call without a status means."""
    cause = type(error.__cause__).__name__
    was_sent = cause not in _NOT_SENT
    if isinstance(error, openai.APITimeoutError):
        return PassingFault("no answer in time", is_lost=was_sent)
    return PassingFault(f"a broken connection ({cause})", is_lost=was_sent)


def _beyond(error: ServerFaultError, endpoint: Endpoint) -> Exception:
    if error.is_final:
        return UnreachableError(endpoint.vendor, f"{error.found}.")
    return PassingFault(f"the endpoint {error.found}", is_lost=True)


_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")
"""Faults of a connection before anything was asked."""


_DISPENSABLE = ("max_tokens", "temperature", "seed")
"""Options that some models refuse; the first has another name there."""
_LENGTHS = ("max_tokens", "max_completion_tokens")
"""Both names of that one."""
_READING = {"continue_final_message": True, "add_generation_prompt": False, "prompt_logprobs": 0}
"""With which vLLM's server ends a prompt within the answer in its last turn, and tells the log-likelihood of
each token of the prompt, beside those of no others (0)."""


def _refused_option(error: openai.APIStatusError) -> str:
    """The option that the model does not take; empty when the refusal is about something else."""
    details = error.body if isinstance(error.body, dict) else {}
    if error.status_code == 400 and details.get("code") in ("unsupported_parameter", "unsupported_value"):
        return str(details["param"]) if details.get("param") in _DISPENSABLE else ""
    if error.status_code == 422:
        return next((name for name in _DISPENSABLE if f"'{name}'" in repr(error.body)), "")
    return ""


def _unknown_model(endpoint: Endpoint, served: Sequence[str]) -> ConfigurationError:
    way_out = "Name one that the endpoint serves, and check OPENAI_BASE_URL."
    if served and endpoint.model not in served:
        others = ", ..." if len(served) > _MAX_LISTED_MODELS else ""
        way_out = f"It serves {', '.join(served[:_MAX_LISTED_MODELS])}{others}."
    return ConfigurationError([Problem(endpoint.flag, f"{endpoint.model} is not served.", way_out)])


# --- before anything expensive ------------------------------------------------------------------------------


def check_model(endpoint: Endpoint, api_key: str, tell: Callable[[str], None] = lambda line: None) -> None:
    """Ask the endpoint for the model, without spending a token; what it does not say is no objection.

    Args:
        tell: hears of waits.

    Raises:
        ConfigurationError: the endpoint has no such model.
        KeyRefusedError: the key is missing, not accepted, or out of credit.
        UnreachableError: nobody answers.
    """
    asyncio.run(_check(endpoint, api_key, Waits(tell)))


async def _check(endpoint: Endpoint, api_key: str, waits: Waits) -> None:
    fault: Exception | None = None
    async with _client(endpoint, api_key, CALL_TIME_LIMIT_S) as client:
        try:
            await _retrying(CHECK_TRIES, endpoint, waits)(_probe, client, endpoint)
        except PassingFault as passing:
            fault = UnreachableError(endpoint.vendor, f"{passing.found}.")
        except (RequestRefused, ModelUnknown):
            # Not every endpoint knows this call, but most can list what they serve.
            served = await _served(client)
            fault = _unknown_model(endpoint, served) if served and endpoint.model not in served else None
    if fault is not None:
        raise fault


async def _probe(client: openai.AsyncOpenAI, endpoint: Endpoint) -> None:
    fault: Exception
    try:
        await client.models.with_raw_response.retrieve(endpoint.model)
        return
    except openai.APIStatusError as error:
        # A key may be good for chats only.
        if "missing scopes" in error.message.lower():
            return
        fault = _refusal(error, endpoint)
        if isinstance(fault, PassingFault):
            return  # somebody is there, and a chat is tried more often
    except openai.APIConnectionError as error:
        fault = _broken(error)
    except ServerFaultError as error:
        fault = _beyond(error, endpoint)
    raise fault


def _client(endpoint: Endpoint, api_key: str, time_limit_s: float) -> openai.AsyncOpenAI:
    """Raises KeyRefusedError for what cannot be a key."""
    # An HTTP header cannot carry other characters, and the client would quote them.
    if not (api_key.strip() and api_key.isascii() and api_key.isprintable()):
        raise KeyRefusedError(endpoint.vendor, "the key is empty, or holds characters that no key has.")
    return openai.AsyncOpenAI(
        api_key=api_key.strip(),
        base_url=endpoint.base_url or DEFAULT_URL,
        max_retries=0,  # its waits are not told
        http_client=LimitedAsyncClient(openai.Timeout(time_limit_s, connect=10.0), time_limit_s),
    )


async def _served(client: openai.AsyncOpenAI) -> list[str]:
    """Ids of the endpoint's models; empty where it does not say."""
    try:
        listed = (await client.models.with_raw_response.list()).http_response.json()
    except (openai.OpenAIError, ServerFaultError, ValueError, RecursionError):
        return []
    models = listed.get("data") if isinstance(listed, dict) else None
    return [
        str(model["id"])
        for model in (models if isinstance(models, list) else [])
        if isinstance(model, dict) and model.get("id")
    ]


# --- asking -------------------------------------------------------------------------------------------------


class Chat:
    """A client of one endpoint, for as many requests at once as the caller likes; close it with
    `async with`."""

    def __init__(
        self,
        endpoint: Endpoint,
        api_key: str,
        *,
        max_output_tokens: int,
        temperature: float,
        seed: int,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """
        Args:
            tell: hears of waits.

        Raises:
            KeyRefusedError: what cannot be a key.
        """
        self.endpoint = endpoint
        self._client = _client(endpoint, api_key, ANSWER_TIME_LIMIT_S)
        self._waits = Waits(tell)
        self._replies = 0
        """Requests that brought an answer, usable or not."""
        self._options: dict[str, Any] = {
            _LENGTHS[0]: max_output_tokens,
            "temperature": temperature,
            "seed": seed,
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def unknown_model(self) -> ConfigurationError:
        """What to tell the user after `ModelUnknown`."""
        return _unknown_model(self.endpoint, await _served(self._client))

    async def persist(self, attempt: Callable[_P, Awaitable[_T]], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """The outcome of `attempt`, which sends one request, with as many tries of the network as it takes.

        Raises:
            NoReply: it took too many.
            RequestRefused, ModelUnknown, KeyRefusedError.
        """
        replies_before = self._replies
        retrying = _retrying(HTTP_TRIES, self.endpoint, self._waits)
        try:
            return await retrying(attempt, *args, **kwargs)
        except PassingFault as fault:
            tries = retrying.statistics["attempt_number"]
            found = f"after {tries} tries: {fault.found}"
            is_down = self._replies == replies_before
        except UnreachableError as error:
            found = f"as the endpoint {error.found.rstrip('.')}"
            is_down = True
        raise NoReply(found, is_down=is_down)

    async def send(self, messages: Sequence[Turn]) -> ChatReply:
        """One request.

        Raises:
            PassingFault: another try may bring an answer.
            UnreachableError: the endpoint asks for a longer pause than anybody waits.
            RequestRefused, ModelUnknown, KeyRefusedError.
        """
        if reply := read_reply(await self._ask(messages, self._options)):
            self._replies += 1
            return reply
        raise PassingFault("an answer of an unknown form", is_lost=True)

    async def read_prompt(self, messages: Sequence[Turn]) -> list[ReadToken] | None:
        """One request whose last turn is an answer that goes on: the tokens that the endpoint's model read,
        and how likely it held each. None where the endpoint does not tell, as it knows none of vLLM's
        extensions of the interface.

        Raises: as `send`.
        """
        one_token = {name: 1 if name in _LENGTHS else value for name, value in self._options.items()}
        content = await self._ask(messages, one_token, extra_body=_READING)
        self._replies += 1
        return read_prompt_tokens(content)

    async def _ask(self, messages: Sequence[Turn], options: Mapping[str, Any], **more: Any) -> Any:
        """The JSON that one request brings. Raises as `send`."""
        sent = dict(options)
        fault: Exception
        try:
            raw = await self._client.chat.completions.with_raw_response.create(
                model=self.endpoint.model,
                messages=messages,  # type: ignore[arg-type]
                **sent,
                **more,
            )
            return raw.http_response.json()
        except openai.APIStatusError as error:
            if (name := _refused_option(error)) in sent:
                self._give_up(name)
                fault = PassingFault(f"no option {name}", retry_after_s=0.0)
            else:
                fault = _refusal(error, self.endpoint)
        except openai.APIConnectionError as error:
            fault = _broken(error)
        except ServerFaultError as error:
            fault = _beyond(error, self.endpoint)
        except RecursionError:
            fault = PassingFault("an answer that is nested too deeply", is_lost=True)
        except ValueError:
            fault = PassingFault("an answer that is not JSON", is_lost=True)
        # Out here nothing is being handled, so no exception of the client's becomes part of this one.
        raise fault

    def _give_up(self, option: str) -> None:
        """Ask without an option from now on; the limit on the answer's length stays, under its other
        name."""
        if option not in self._options:
            return  # another request has found out meanwhile
        value = self._options.pop(option)
        if option == _LENGTHS[0]:
            self._options[_LENGTHS[1]] = value


def _retrying(most_tries: int, endpoint: Endpoint, waits: Waits) -> AsyncRetrying:
    """Tries again after passing faults, and tells the waits."""

    def tell(state: RetryCallState) -> None:
        wait_s = state.next_action.sleep if state.next_action else 0.0
        waits.begin(endpoint.vendor, _fault_of(state).found, wait_s, state.attempt_number, most_tries)

    return AsyncRetrying(
        retry=retry_if_exception_type(PassingFault),
        stop=stop_after_attempt(most_tries) | stop_after_delay(LONGEST_TRYING_S),
        wait=_wait_s,
        before_sleep=tell,
        reraise=True,
    )


def _wait_s(state: RetryCallState) -> float:
    asked_s = _fault_of(state).retry_after_s
    return _BACKOFF(state) if asked_s is None else asked_s


def _fault_of(state: RetryCallState) -> PassingFault:
    fault = state.outcome.exception() if state.outcome else None
    assert isinstance(fault, PassingFault)  # nothing else is tried again
    return fault


# --- requests and replies -----------------------------------------------------------------------------------


def turns(asked: Messages) -> list[Turn]:
    """The request; endpoints refuse an empty turn, so that one is left out."""
    parts = {"system": asked.system, "user": asked.user}
    return [{"role": role, "content": sendable(text)} for role, text in parts.items() if text]


def sendable(text: str) -> str:
    """Without lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


@dataclass(frozen=True)
class ChatReply:
    """What came back for one request."""

    text: str
    reasoning: str
    """What the model thought, where the server tells it apart from the text."""
    finish: Finish
    tokens: tuple[int, int] | None
    """In and out; None when the endpoint did not say."""


def read_reply(content: Any) -> ChatReply | None:
    """Read a chat completion; None for anything else. Endpoints differ in all but these fields."""
    choices = content.get("choices") if isinstance(content, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return None
    # DeepSeek and vLLM call it by the first name, newer vLLM and OpenRouter by the second.
    thoughts = (_text(message.get(name)) for name in ("reasoning_content", "reasoning"))
    return ChatReply(
        _text(message.get("content")),
        next(filter(None, thoughts), ""),
        _finish(choice, message),
        _usage(content.get("usage")),
    )


@dataclass(frozen=True)
class ReadToken:
    """A token of a prompt."""

    text: str
    log_likelihood: float
    """Natural, given all tokens before it; at most 0."""


def read_prompt_tokens(content: Any) -> list[ReadToken] | None:
    """The tokens of a prompt that a chat completion tells, but for the first, which nothing foretells; None
    where it tells none, or not one likelihood for each.

    The form is that of vLLM's server: `prompt_logprobs` is a list with null in front and then, for each
    token, an object from its id to `logprob`, `rank` and `decoded_token`.
    """
    told = content.get("prompt_logprobs") if isinstance(content, dict) else None
    if not isinstance(told, list):
        return None
    tokens = [_read_token(position) for position in told[1:]]
    return None if None in tokens else [token for token in tokens if token]


def _read_token(position: Any) -> ReadToken | None:
    # More than one: which of them stood in the prompt is not told.
    (of_id,) = position.values() if isinstance(position, dict) and len(position) == 1 else (None,)
    if not isinstance(of_id, dict):
        return None
    text, log_likelihood = of_id.get("decoded_token"), of_id.get("logprob")
    if not isinstance(text, str) or not isinstance(log_likelihood, int | float):
        return None
    return ReadToken(text, float(log_likelihood)) if LEAST_LOG <= log_likelihood <= 0 else None


def _text(value: Any) -> str:
    return sendable(value) if isinstance(value, str) else ""


def _finish(choice: dict[str, Any], message: dict[str, Any]) -> Finish:
    if message.get("refusal"):
        return "refusal"
    match choice.get("finish_reason"):
        case "length":
            return "length"
        case "content_filter":
            return "content_filter"
    return "stop"


def _usage(usage: Any) -> tuple[int, int] | None:
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    counts = [count for count in (read, written) if type(count) is int and 0 <= count <= MOST_TOKENS]
    if len(counts) == 2:
        return counts[0], counts[1]
    return None
