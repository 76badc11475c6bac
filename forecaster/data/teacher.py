"""Who writes the training answers: a model behind an OpenAI-compatible endpoint.

Every answer of the endpoint goes into the ledger before it counts, and what the ledger holds is not asked
again. No exception of the client leaves this module: its texts can quote the vendor, who quotes parts of the
key. Faults are told in words of this module, and never chained to their cause.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import openai
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from forecaster.data.ledger import Call, Ledger, Request, Status
from forecaster.data.pace import retry_after_s
from forecaster.errors import ConfigurationError, KeyRefusedError, Problem, UnreachableError
from forecaster.prompts import (
    parse_answer,
    render_teacher_correction,
    render_teacher_request,
    without_think_block,
)
from forecaster.records import Example, Label, Messages, Unreadable

ENDPOINT = "teacher"
"""Of the ledger."""

DEFAULT_URL = "https://api.openai.com/v1"

HTTP_TRIES = 12
"""With waits of 0.5, 1, 2, 4 and then 8 s in between: a limit that is counted by the minute is outlived."""

LONGEST_PAUSE_S = 120.0
"""An endpoint that asks for a longer one (a limit by the day) is not waited for."""

ANSWER_TIME_LIMIT_S = 300.0
"""Small servers take minutes for one answer, and the client's own ten are long when a connection hangs."""

CHARS_PER_TOKEN = 4
ANSWER_CHARS = 1_975
"""Mean of the published answers."""
REQUEST_CHARS = 450
"""What a request says beyond the prompt."""

REQUEST_TOKENS, MESSAGE_TOKENS = 128, 16
"""Room for what a chat template adds: role markers, and the preamble that some models put in front."""

_BACKOFF = wait_exponential_jitter(initial=0.5, max=8, jitter=0.5)
_MAX_LISTED_MODELS = 8


@dataclass(frozen=True)
class TeacherPlan:
    """Who is asked, how, and what it may cost."""

    model: str
    base_url: str | None = None
    """None: OpenAI's."""
    concurrency: int = 8
    """Requests in flight."""
    blind: bool = False
    """Whether the teacher has to forecast by itself, instead of being told the outcome."""
    tries: int = 3
    """Answers that are asked for before a row is given up."""
    input_usd_per_million_tokens: float | None = None
    output_usd_per_million_tokens: float | None = None
    max_cost_usd: float | None = None
    """Of all answers by this model that the ledger holds; without both prices it cannot be kept."""
    max_output_tokens: int = 1024
    temperature: float = 0.0
    seed: int = 1

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """None where a price is not known."""
        if self.input_usd_per_million_tokens is None or self.output_usd_per_million_tokens is None:
            return None
        return (
            input_tokens * self.input_usd_per_million_tokens
            + output_tokens * self.output_usd_per_million_tokens
        ) / 1e6


# --- what a run will take, and what it took -----------------------------------------------------------------


@dataclass(frozen=True)
class TokenEstimate:
    """Tokens of a run in which every first answer is usable."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None


def estimate(examples_count: int, mean_prompt_chars: float, plan: TeacherPlan) -> TokenEstimate:
    """About what `examples_count` answers take, at four characters a token."""
    read = round(examples_count * (mean_prompt_chars + REQUEST_CHARS) / CHARS_PER_TOKEN)
    written = round(examples_count * ANSWER_CHARS / CHARS_PER_TOKEN)
    return TokenEstimate(read, written, plan.cost_usd(read, written))


@dataclass(frozen=True)
class Unusable:
    """A row without an answer that could be used."""

    symbol: str
    period: str
    fault: str


@dataclass(frozen=True)
class LabelReport:
    """What became of the examples."""

    examples: int
    """Those that were looked at; all of them, unless the run was stopped."""
    answered: int
    """With a usable answer, of this run or an earlier one."""
    calls: int
    """Calls recorded by this run."""
    input_tokens: int
    """Of this run, and so `output_tokens`; a call that did not tell its use counts with its upper bound."""
    output_tokens: int
    cost_usd: float | None
    """Of this run."""
    spent_usd: float | None
    """Of all runs of this ledger with this model."""
    unusable: tuple[Unusable, ...]
    """Sorted."""
    stopped: str = ""
    """Why the run ended before all examples were settled; empty when it did not."""


def render_report(report: LabelReport, examples_per_fault: int = 10) -> str:
    """The report as lines of text."""
    line = (
        f"label: {report.answered} of {report.examples} rows have a usable answer; {report.calls} calls, "
        f"{report.input_tokens} tokens in, {report.output_tokens} out"
    )
    if report.cost_usd is not None and report.spent_usd is not None:
        line += f", ${report.cost_usd:.2f} in this run, ${report.spent_usd:.2f} in all"
    lines = [line]
    for fault, count in Counter(row.fault for row in report.unusable).most_common():
        rows = [f"{row.symbol} {row.period}" for row in report.unusable if row.fault == fault]
        shown = ", ".join(rows[:examples_per_fault]) + (", ..." if count > examples_per_fault else "")
        lines.append(f"  {count} without a usable answer, {fault}: {shown}")
    if report.stopped:
        way_on = (
            "Nothing is lost: the same command with a higher --max_cost_usd goes on from here, and `build` "
            "makes a dataset of what is there."
        )
        lines.append(f"Stopped: {report.stopped} {way_on}")
    return "\n".join(lines)


# --- what the ledger holds ----------------------------------------------------------------------------------


def answer_for(example: Example, ledger: Ledger, plan: TeacherPlan) -> tuple[str | None, list[Call]]:
    """The usable answer to an example without its think block, and the calls it took.

    None when the ledger holds no usable answer.
    """
    calls = _recorded_calls(example, ledger, plan)
    return _usable([call.payload for call in calls], _outcome(example, plan)), calls


def _usable(tries: Iterable[Mapping[str, Any]], outcome: Label | None) -> str | None:
    return next((_spoken(payload["answer"]) for payload in tries if not _fault(payload, outcome)), None)


def _outcome(example: Example, plan: TeacherPlan) -> Label | None:
    return None if plan.blind else example.label


def _request(example: Example, plan: TeacherPlan, number: int) -> Request:
    """The ledger's name of try `number` (from 1) at an example."""
    asked = render_teacher_request(example.messages, _outcome(example, plan))
    digest = hashlib.sha256(json.dumps([asked.system, asked.user]).encode()).hexdigest()
    return Request(
        ENDPOINT,
        example.symbol,
        example.target.start.isoformat(),
        example.target.end.isoformat(),
        f"{plan.model}|{_mode(plan)}|{digest[:32]}|try {number}",
    )


def _recorded_calls(example: Example, ledger: Ledger, plan: TeacherPlan) -> list[Call]:
    """The answers so far, oldest first."""
    found: list[Call] = []
    while call := ledger.answer(_request(example, plan, len(found) + 1)):
        found.append(call)
    return found


def _tokens_spent(ledger: Ledger, plan: TeacherPlan) -> tuple[int, int]:
    """Tokens in and out of every call to the model, told or blind, answered or lost."""
    read = written = 0
    for call in ledger.calls(ENDPOINT):
        if call.request.variant.rsplit("|", 3)[0] == plan.model:
            read += call.payload["input_tokens"]
            written += call.payload["output_tokens"]
    return read, written


def answered(ledger: Ledger, plan: TeacherPlan, wanted: Collection[tuple[str, str, str]]) -> int:
    """How many of the wanted weeks have a usable answer by this teacher in the ledger.

    A prompt may have changed since, and then its week is asked anew: this is for estimates.

    Args:
        wanted: symbol of the day, and ISO days of start and end, of each week to forecast.
    """
    start = f"{plan.model}|{_mode(plan)}|"
    usable = {
        (call.request.symbol, call.request.window_start, call.request.window_end)
        for call in ledger.calls(ENDPOINT)
        if call.request.variant.startswith(start) and call.status == "answered" and not call.payload["fault"]
    }
    return len(usable & set(wanted))


def _mode(plan: TeacherPlan) -> str:
    return "blind" if plan.blind else "told"


def _spoken(text: str) -> str:
    """An answer without its think block, also where the block's beginning was part of the prompt."""
    return without_think_block(text).rpartition("</think>")[2].strip()


def _fault(payload: Mapping[str, Any], outcome: Label | None) -> str:
    """Why a recorded answer cannot be used; empty when it can. It is read anew, by the parser of today."""
    return str(payload["fault"]) or _fault_of_text(payload["answer"], outcome)


def _fault_of_text(text: str, outcome: Label | None) -> str:
    answer = parse_answer(_spoken(text))
    if isinstance(answer, Unreadable):
        return answer.reason
    if outcome is not None and answer.label != outcome:
        return "its prediction is another move than the one that was given"
    return ""


# --- before anything expensive ------------------------------------------------------------------------------


def check_teacher(plan: TeacherPlan, api_key: str) -> None:
    """Ask the endpoint for the model, without spending a token; what it does not say is no objection.

    Raises:
        ConfigurationError: the plan cannot work, or the endpoint has no such model.
        KeyRefusedError: the key is missing, not accepted, or out of credit.
        UnreachableError: nobody answers.
    """
    _raise_early(plan, api_key)
    asyncio.run(_probe(plan, api_key))


async def _probe(plan: TeacherPlan, api_key: str) -> None:
    fault: Exception | None = None
    async with _client(plan, api_key, max_retries=2) as client:
        try:
            await client.models.with_raw_response.retrieve(plan.model)
        except openai.APIStatusError as error:
            # A key may be good for chats only.
            if "missing scopes" not in error.message.lower():
                fault = _refusal(error, plan)
        except openai.APIConnectionError as error:
            fault = UnreachableError(_vendor(plan), f"{_broken(error)}.")
        if isinstance(fault, _RowRefused | _ModelUnknown):
            # Not every endpoint knows this call, but most can list what they serve.
            served = await _served(client)
            fault = _unknown_model(plan, served) if served and plan.model not in served else None
    if isinstance(fault, KeyRefusedError | UnreachableError | ConfigurationError):
        raise fault


def _raise_early(plan: TeacherPlan, api_key: str) -> None:
    # An HTTP header cannot carry other characters, and the client would quote them.
    if not (api_key.strip() and api_key.isascii() and api_key.isprintable()):
        raise KeyRefusedError(_vendor(plan), "the key is empty, or holds characters that no key has.")


def _client(plan: TeacherPlan, api_key: str, max_retries: int) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key=api_key.strip(),
        base_url=plan.base_url or DEFAULT_URL,
        max_retries=max_retries,
        timeout=openai.Timeout(ANSWER_TIME_LIMIT_S, connect=10.0),
    )


async def _served(client: openai.AsyncOpenAI) -> list[str]:
    """Ids of the endpoint's models; empty where it does not say."""
    try:
        listed = (await client.models.with_raw_response.list()).http_response.json()
    except (openai.OpenAIError, ValueError):
        return []
    models = listed.get("data") if isinstance(listed, dict) else None
    return [
        str(model["id"])
        for model in (models if isinstance(models, list) else [])
        if isinstance(model, dict) and model.get("id")
    ]


def _vendor(plan: TeacherPlan) -> str:
    return f"teacher {plan.model}"


# --- what a refusal means -----------------------------------------------------------------------------------


class _PassingFault(Exception):
    """Something that another try may mend."""

    def __init__(self, found: str, *, retry_after_s: float | None = None, is_lost: bool = False) -> None:
        self.found, self.retry_after_s = found, retry_after_s
        self.is_lost = is_lost
        """Whether the endpoint may have written an answer, and charged it."""
        super().__init__(found)


class _RowRefused(Exception):
    """The endpoint takes no such request; the next row's may be fine."""

    def __init__(self, found: str) -> None:
        self.found = found
        super().__init__(found)


class _ModelUnknown(Exception):
    """The endpoint has no such model, or no such path."""


class _NoReply(Exception):
    """A row is left as it is, for another run."""


def _refusal(error: openai.APIStatusError, plan: TeacherPlan) -> Exception:
    """What a status other than 2xx means. The vendor's own words are read, never repeated."""
    status, words = error.status_code, error.message.lower()
    details = error.body if isinstance(error.body, dict) else {}
    code = details.get("code") or details.get("type")
    if status == 404 or code == "model_not_found":
        return _ModelUnknown()
    if status in (401, 403):
        return KeyRefusedError(_vendor(plan), f"the key was refused (HTTP {status}).")
    if status == 402 or (status == 429 and "insufficient_quota" in (code, details.get("type"))):
        return KeyRefusedError(_vendor(plan), f"the key's credit is used up (HTTP {status}).")
    if status in (408, 409, 429) or status >= 500:
        pause_s = retry_after_s(error.response.headers.get("Retry-After"))
        if pause_s is not None and pause_s > LONGEST_PAUSE_S:
            asked = f"asks for a pause of {pause_s / 60:.0f} minutes (HTTP {status})."
            return UnreachableError(_vendor(plan), asked)
        return _PassingFault(f"HTTP {status}", retry_after_s=pause_s)
    if code == "context_length_exceeded" or "context length" in words or "too long" in words:
        return _RowRefused("refused, as the prompt is longer than the teacher can read")
    if "content_filter" in str(code) or "content management policy" in words:
        return _RowRefused("refused by the endpoint's content filter")
    return _RowRefused(f"refused (HTTP {status})")


def _broken(error: openai.APIConnectionError) -> str:
    if isinstance(error, openai.APITimeoutError):
        return "no answer in time"
    return f"a broken connection ({type(error.__cause__).__name__})"


_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")
"""Faults of a connection before anything was asked."""


_DISPENSABLE = ("max_tokens", "temperature", "seed")
"""Options that some models refuse; the first has another name there."""


def _refused_option(error: openai.APIStatusError) -> str:
    """The option that the model does not take; empty when the refusal is about something else."""
    details = error.body if isinstance(error.body, dict) else {}
    if error.status_code == 400 and details.get("code") in ("unsupported_parameter", "unsupported_value"):
        return str(details["param"]) if details.get("param") in _DISPENSABLE else ""
    if error.status_code == 422:
        return next((name for name in _DISPENSABLE if f"'{name}'" in repr(error.body)), "")
    return ""


def _unknown_model(plan: TeacherPlan, served: Sequence[str]) -> ConfigurationError:
    way_out = "Name one that the endpoint serves, and check OPENAI_BASE_URL."
    if served and plan.model not in served:
        others = ", ..." if len(served) > _MAX_LISTED_MODELS else ""
        way_out = f"It serves {', '.join(served[:_MAX_LISTED_MODELS])}{others}."
    return ConfigurationError([Problem("--teacher_model", f"{plan.model} is not served.", way_out)])


# --- asking -------------------------------------------------------------------------------------------------


def label_examples(
    examples: Iterable[Example],
    ledger: Ledger,
    plan: TeacherPlan,
    api_key: str,
    on_answer: Callable[[], None] = lambda: None,
) -> LabelReport:
    """Ask the teacher for the answers that the ledger does not hold yet.

    At most `plan.concurrency` examples are held at a time. An answer that cannot be used is asked for again
    with its fault, `plan.tries` times in all; then the row is listed, and stays so. A request that the
    endpoint refuses is listed, and asked again by the next run.

    Args:
        on_answer: runs once for each example that is settled, by this run or an earlier one.

    Raises:
        ConfigurationError: the plan cannot work, or the endpoint has no such model.
        KeyRefusedError: the key is missing, not accepted, or out of credit.
        UnreachableError: rows are without an answer after all tries of the network; what others were
            asked is settled.
    """
    _raise_early(plan, api_key)
    return asyncio.run(_label_all(iter(examples), ledger, plan, api_key, on_answer))


async def _label_all(
    examples: Iterator[Example],
    ledger: Ledger,
    plan: TeacherPlan,
    api_key: str,
    on_answer: Callable[[], None],
) -> LabelReport:
    async with _client(plan, api_key, max_retries=0) as client:
        run = _Run(plan, ledger, client, on_answer)
        workers = [asyncio.create_task(run.work(examples)) for _ in range(plan.concurrency)]
        try:
            # The first exception ends all.
            await asyncio.gather(*workers)
        except _ModelUnknown:
            fault = _unknown_model(plan, await _served(client))
        else:
            return run.report()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    raise fault


@dataclass
class _Run:
    """One labelling run, in one thread: the workers take turns at every `await`."""

    plan: TeacherPlan
    ledger: Ledger
    client: openai.AsyncOpenAI
    on_answer: Callable[[], None]
    examples: int = 0
    answered: int = 0
    calls: int = 0
    replies: int = 0
    """Requests that brought an answer, usable or not."""
    unusable: list[Unusable] = field(default_factory=list)
    without_reply: list[str] = field(default_factory=list)
    """What was found for the rows for which the network failed."""
    stopped: str = ""
    halted: bool = False
    """Whether no new call may start."""
    reserved_usd: list[float] = field(default_factory=list)
    """Upper bounds of the calls in flight."""

    def __post_init__(self) -> None:
        self._read_before, self._written_before = _tokens_spent(self.ledger, self.plan)
        self._read = self._written = 0
        self._released = asyncio.Event()
        self._options: dict[str, Any] = {
            "max_tokens": self.plan.max_output_tokens,
            "temperature": self.plan.temperature,
            "seed": self.plan.seed,
        }

    @property
    def spent_usd(self) -> float | None:
        """By all runs."""
        return self.plan.cost_usd(self._read_before + self._read, self._written_before + self._written)

    def report(self) -> LabelReport:
        """Raises UnreachableError when rows were left without a reply."""
        if self.without_reply:
            found = f"{len(self.without_reply)} rows got no answer, the last one {self.without_reply[-1]}."
            raise UnreachableError(_vendor(self.plan), found)
        return LabelReport(
            self.examples,
            self.answered,
            self.calls,
            self._read,
            self._written,
            self.plan.cost_usd(self._read, self._written),
            self.spent_usd,
            tuple(sorted(self.unusable, key=lambda row: (row.symbol, row.period))),
            self.stopped,
        )

    async def work(self, examples: Iterator[Example]) -> None:
        """Settle examples until there are no more; the iterator is shared by all workers."""
        for example in examples:
            self.examples += 1
            try:
                fault = await self._settle(example)
            except _RowRefused as refused:
                fault = refused.found
            except _NoReply:
                if self.halted:
                    return
                continue
            if fault:
                self.unusable.append(Unusable(example.symbol, example.target.period, fault))
            else:
                self.answered += 1
            self.on_answer()
            if self.halted:
                return

    async def _settle(self, example: Example) -> str:
        """Ask until there is a usable answer, or no more tries; gives the last fault, or nothing."""
        outcome = _outcome(example, self.plan)
        tries = [call.payload for call in _recorded_calls(example, self.ledger, self.plan)]
        while (is_open := _usable(tries, outcome) is None) and len(tries) < self.plan.tries:
            messages = _messages(render_teacher_request(example.messages, outcome))
            if tries:
                correction = render_teacher_correction(_fault(tries[-1], outcome), outcome)
                messages += _objection(tries[-1]["answer"], correction)
            request = _request(example, self.plan, len(tries) + 1)
            tries.append(await self._ask(request, messages, outcome))
        return _fault(tries[-1], outcome) if is_open else ""

    async def _ask(
        self, request: Request, messages: list[dict[str, str]], outcome: Label | None
    ) -> dict[str, Any]:
        """The recorded payload of one answer, with as many tries of the network as it takes.

        Raises:
            _NoReply: it took too many, or the run has halted.
            _RowRefused, _ModelUnknown, KeyRefusedError.
        """
        replies_before = self.replies
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_PassingFault),
            stop=stop_after_attempt(HTTP_TRIES),
            wait=_wait_s,
            reraise=True,
        )
        try:
            return await retrying(self._try, request, messages, outcome)
        except _RowRefused as refused:
            self._record(request, "failed", "", refused.found, (0, 0))
            raise
        except _PassingFault as fault:
            found = f"after {HTTP_TRIES} tries: {fault.found}"
            # When others got answers meanwhile, it may be this row's fault.
            self.halted |= self.replies == replies_before
        except UnreachableError as error:
            found = f"as the endpoint {error.found.rstrip('.')}"
            self.halted = True
        self._record(request, "failed", "", found, (0, 0))
        self.without_reply.append(found)
        raise _NoReply

    async def _try(
        self, request: Request, messages: list[dict[str, str]], outcome: Label | None
    ) -> dict[str, Any]:
        """One request. What it took is in the ledger before its reserve is released."""
        bound = upper_bound(messages, self.plan)
        cost = await self._reserve(bound)
        try:
            reply = await self._send(messages)
        except _PassingFault as passing:
            if passing.is_lost:
                self._record(request, "failed", "", passing.found, bound)
            raise
        except asyncio.CancelledError:
            self._record(request, "failed", "", "stopped while it was under way", bound)
            raise
        else:
            self.replies += 1
            fault = reply.cut or _fault_of_text(reply.text, outcome)
            return self._record(request, "answered", reply.text, fault, reply.tokens or bound)
        finally:
            self.reserved_usd.remove(cost)
            self._released.set()

    async def _reserve(self, bound: tuple[int, int]) -> float:
        """Set aside what a call may cost at most; raises _NoReply when the limit does not allow it.

        While others are in flight it waits for them, as they mostly take less than they set aside.
        """
        cost, limit = self.plan.cost_usd(*bound) or 0.0, self.plan.max_cost_usd
        while limit is not None and not self.halted:
            spent = self.spent_usd or 0.0
            if spent + sum(self.reserved_usd) + cost <= limit:
                break
            if not self.reserved_usd:
                self.stopped = (
                    f"the next call may cost up to ${cost:.4f}, and of --max_cost_usd {limit:g} "
                    f"${spent:.4f} are spent."
                )
                self.halted = True
                break
            self._released.clear()
            await self._released.wait()
        if self.halted:
            raise _NoReply
        self.reserved_usd.append(cost)
        return cost

    async def _send(self, messages: list[dict[str, str]]) -> _Reply:
        sent = dict(self._options)
        fault: Exception
        try:
            raw = await self.client.chat.completions.with_raw_response.create(
                model=self.plan.model,
                messages=messages,  # type: ignore[arg-type]
                **sent,
            )
            content = raw.http_response.json()
        except openai.APIStatusError as error:
            if (name := _refused_option(error)) in sent:
                self._give_up(name)
                fault = _PassingFault(f"no option {name}", retry_after_s=0.0)
            else:
                fault = _refusal(error, self.plan)
        except openai.APIConnectionError as error:
            was_sent = type(error.__cause__).__name__ not in _NOT_SENT
            fault = _PassingFault(_broken(error), is_lost=was_sent)
        except ValueError:
            fault = _PassingFault("an answer that is not JSON", is_lost=True)
        else:
            if reply := _reply(content):
                return reply
            fault = _PassingFault("an answer of an unknown form", is_lost=True)
        # Out here nothing is being handled, so no exception of the client's becomes part of this one.
        raise fault

    def _give_up(self, option: str) -> None:
        """Ask without an option from now on; the limit on the answer's length stays, under its other
        name."""
        if self._options.pop(option, None) is not None and option == "max_tokens":
            self._options["max_completion_tokens"] = self.plan.max_output_tokens

    def _record(
        self, request: Request, status: Status, answer: str, fault: str, tokens: tuple[int, int]
    ) -> dict[str, Any]:
        payload = {
            "answer": answer,
            "input_tokens": tokens[0],
            "output_tokens": tokens[1],
            "fault": fault,
        }
        self.ledger.record(Call(request, status, datetime.now(UTC), payload, int(status == "answered")))
        self.calls += 1
        self._read += tokens[0]
        self._written += tokens[1]
        return payload


def _wait_s(state: RetryCallState) -> float:
    fault = state.outcome.exception() if state.outcome else None
    assert isinstance(fault, _PassingFault)  # nothing else is tried again
    return _BACKOFF(state) if fault.retry_after_s is None else fault.retry_after_s


# --- requests and replies -----------------------------------------------------------------------------------


def _messages(asked: Messages) -> list[dict[str, str]]:
    parts = {"system": asked.system, "user": asked.user}
    return [{"role": role, "content": _sendable(text)} for role, text in parts.items() if text]


def _objection(answer: str, correction: str) -> list[dict[str, str]]:
    """The former answer and what is wrong with it. Endpoints refuse an empty turn, and two of one role."""
    return [
        {"role": "assistant", "content": _sendable(_spoken(answer)) or "(no text)"},
        {"role": "user", "content": correction},
    ]


def _sendable(text: str) -> str:
    """Without lone surrogates, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def upper_bound(messages: Iterable[Mapping[str, str]], plan: TeacherPlan) -> tuple[int, int]:
    """Tokens in and out that no call can exceed.

    Every token of a byte-level vocabulary stands for at least one byte of the text.
    """
    texts = [message["content"] for message in messages]
    read = sum(len(text.encode()) + MESSAGE_TOKENS for text in texts) + REQUEST_TOKENS
    return read, plan.max_output_tokens


@dataclass(frozen=True)
class _Reply:
    """What came back for one request."""

    text: str
    cut: str
    """Why the text is no whole answer; empty when it is one."""
    tokens: tuple[int, int] | None
    """In and out; None when the endpoint did not say."""


def _reply(content: Any) -> _Reply | None:
    """Read a chat completion; None for anything else. Endpoints differ in all but these fields."""
    choices = content.get("choices") if isinstance(content, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return None
    text = message.get("content")
    cut = {
        "length": "it was cut off at its greatest length",
        "content_filter": "the endpoint's content filter cut it off",
    }.get(str(choice.get("finish_reason")), "")
    if message.get("refusal"):
        cut = "the teacher refused"
    return _Reply(_sendable(text) if isinstance(text, str) else "", cut, _usage(content.get("usage")))


def _usage(usage: Any) -> tuple[int, int] | None:
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if isinstance(read, int) and isinstance(written, int) and min(read, written) >= 0:
        return read, written
    return None
