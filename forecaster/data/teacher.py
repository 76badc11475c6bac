"""Who writes the training answers: a model behind an OpenAI-compatible endpoint.

Every answer of the endpoint goes into the ledger before it counts, and what the ledger holds is not asked
again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from forecaster import chat
from forecaster.calls import Call, Request, Status
from forecaster.chat import Chat, ModelUnknown, NoReply, PassingFault, RequestRefused, Turn
from forecaster.data.ledger import Ledger
from forecaster.records import Example, Label, Unreadable
from forecaster.tasks.answers import parse_answer, without_think_block
from prompts import render_teacher_correction, render_teacher_request

ENDPOINT = "teacher"
"""Of the ledger."""

CHARS_PER_TOKEN = 4
ANSWER_CHARS = 1_975
"""Mean of the published answers."""
REQUEST_CHARS = 450
"""What a request says beyond the prompt."""

REQUEST_TOKENS, MESSAGE_TOKENS = 128, 16
"""Room for what a chat template adds: role markers, and the preamble that some models put in front."""


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

    @property
    def endpoint(self) -> chat.Endpoint:
        return chat.Endpoint(self.model, self.base_url, role="teacher", flag="--teacher_model")

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
    without_text: int = 0
    """Rows for which an earlier run had got nothing but answers without text, which were asked for anew."""


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
    if report.without_text:
        lines.append(f"  {report.without_text} rows had answers without text, and were asked for anew")
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
    return next(
        (without_think_block(payload["answer"]) for payload in tries if not _fault(payload, outcome)), None
    )


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


def _fault(payload: Mapping[str, Any], outcome: Label | None) -> str:
    """Why a recorded answer cannot be used; empty when it can. It is read anew, by the parser of today."""
    return str(payload["fault"]) or _fault_of_text(payload["answer"], outcome)


def _has_no_text(payload: Mapping[str, Any]) -> bool:
    """Whether an answer is empty for no reason that was told, such as a refusal."""
    return not payload["answer"].strip() and payload["fault"] == _fault_of_text("", None)


def _fault_of_text(text: str, outcome: Label | None) -> str:
    answer = parse_answer(text)
    if isinstance(answer, Unreadable):
        return answer.reason
    if outcome is not None and answer.label != outcome:
        return "its prediction is another move than the one that was given"
    return ""


# --- before anything expensive ------------------------------------------------------------------------------


def check_teacher(plan: TeacherPlan, api_key: str, tell: Callable[[str], None] = lambda line: None) -> None:
    """Ask the endpoint for the model, without spending a token; what it does not say is no objection.

    Args:
        tell: hears of waits.

    Raises:
        ConfigurationError: the endpoint has no such model.
        KeyRefusedError: the key is missing, not accepted, or out of credit.
        UnreachableError: nobody answers.
    """
    chat.check_model(plan.endpoint, api_key, tell)


# --- asking -------------------------------------------------------------------------------------------------


def label_examples(
    examples: Iterable[Example],
    ledger: Ledger,
    plan: TeacherPlan,
    api_key: str,
    on_answer: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] = lambda line: None,
) -> LabelReport:
    """Ask the teacher for the answers that the ledger does not hold yet.

    At most `plan.concurrency` examples are held at a time. An answer that cannot be used is asked for again
    with its fault, `plan.tries` times in all; then the row is listed, and stays so. A request that the
    endpoint refuses is listed, and asked again by the next run.

    Args:
        on_answer: runs once for each example that is settled, by this run or an earlier one.
        tell: hears of waits.

    Raises:
        ConfigurationError: the endpoint has no such model.
        KeyRefusedError: the key is missing, not accepted, or out of credit.
        UnreachableError: rows are without an answer after all tries of the network; what others were
            asked is settled.
    """
    return asyncio.run(_label_all(iter(examples), ledger, plan, api_key, on_answer, tell))


async def _label_all(
    examples: Iterator[Example],
    ledger: Ledger,
    plan: TeacherPlan,
    api_key: str,
    on_answer: Callable[[], None],
    tell: Callable[[str], None],
) -> LabelReport:
    async with Chat(
        plan.endpoint,
        api_key,
        max_output_tokens=plan.max_output_tokens,
        temperature=plan.temperature,
        seed=plan.seed,
        tell=tell,
    ) as client:
        run = _Labelling(plan, ledger, client, on_answer)
        workers = [asyncio.create_task(run.work(examples)) for _ in range(plan.concurrency)]
        try:
            # The first exception ends all.
            await asyncio.gather(*workers)
        except ModelUnknown:
            fault = await client.unknown_model()
        else:
            return run.report()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    raise fault


@dataclass
class _Labelling:
    """One labelling run, in one thread: the workers take turns at every `await`."""

    plan: TeacherPlan
    ledger: Ledger
    client: Chat
    on_answer: Callable[[], None]
    examples: int = 0
    answered: int = 0
    calls: int = 0
    unusable: list[Unusable] = field(default_factory=list)
    without_reply: list[str] = field(default_factory=list)
    """What was found for the rows for which the network failed."""
    stopped: str = ""
    without_text: int = 0
    halted: bool = False
    """Whether no new call may start."""
    reserved_usd: list[float] = field(default_factory=list)
    """Upper bounds of the calls in flight."""

    def __post_init__(self) -> None:
        self._read_before, self._written_before = _tokens_spent(self.ledger, self.plan)
        self._read = self._written = 0
        self._released = asyncio.Event()

    @property
    def spent_usd(self) -> float | None:
        """By all runs."""
        return self.plan.cost_usd(self._read_before + self._read, self._written_before + self._written)

    def report(self) -> LabelReport:
        """Raises UnreachableError when rows were left without a reply."""
        if self.without_reply:
            raise self.plan.endpoint.without_reply(self.without_reply)
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
            self.without_text,
        )

    async def work(self, examples: Iterator[Example]) -> None:
        """Settle examples until there are no more; the iterator is shared by all workers."""
        for example in examples:
            self.examples += 1
            try:
                fault = await self._settle(example)
            except RequestRefused as refused:
                fault = refused.found
            except (NoReply, _Halted):
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
        # An endpoint that was broken for a while gave those, and no later run may suffer for it.
        empty = sum(_has_no_text(payload) for payload in tries)
        most_tries = self.plan.tries + empty
        self.without_text += self.plan.tries <= len(tries) < most_tries and _usable(tries, outcome) is None
        while (is_open := _usable(tries, outcome) is None) and len(tries) < most_tries:
            messages = chat.turns(render_teacher_request(example.messages, outcome))
            if tries:
                correction = render_teacher_correction(_fault(tries[-1], outcome), outcome)
                messages += _objection(tries[-1]["answer"], correction)
            request = _request(example, self.plan, len(tries) + 1)
            tries.append(await self._ask(request, messages, outcome))
        return _fault(tries[-1], outcome) if is_open else ""

    async def _ask(self, request: Request, messages: list[Turn], outcome: Label | None) -> dict[str, Any]:
        """The recorded payload of one answer, with as many tries of the network as it takes.

        Raises:
            NoReply: it took too many.
            _Halted: the run has halted.
            RequestRefused, ModelUnknown, KeyRefusedError.
        """
        try:
            return await self.client.persist(self._try, request, messages, outcome)
        except (RequestRefused, NoReply) as fault:
            self._record(request, "failed", "", fault.found, (0, 0))
            if isinstance(fault, NoReply):
                self.without_reply.append(fault.found)
                self.halted |= fault.is_down
            raise

    async def _try(self, request: Request, messages: list[Turn], outcome: Label | None) -> dict[str, Any]:
        """One request. What it took is in the ledger before its reserve is released."""
        bound = upper_bound(messages, self.plan)
        cost = await self._reserve(bound)
        try:
            reply = await self.client.send(messages)
        except PassingFault as passing:
            if passing.is_lost:
                self._record(request, "failed", "", passing.found, bound)
            raise
        except asyncio.CancelledError:
            self._record(request, "failed", "", "stopped while it was under way", bound)
            raise
        else:
            fault = self.plan.endpoint.cut(reply) or _fault_of_text(reply.text, outcome)
            return self._record(request, "answered", reply.text, fault, reply.tokens or bound)
        finally:
            self.reserved_usd.remove(cost)
            self._released.set()

    async def _reserve(self, bound: tuple[int, int]) -> float:
        """Set aside what a call may cost at most; raises _Halted when the limit does not allow it.

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
            raise _Halted
        self.reserved_usd.append(cost)
        return cost

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


class _Halted(Exception):
    """A row is left as it is, for another run."""


# --- requests -----------------------------------------------------------------------------------------------


def _objection(answer: str, correction: str) -> list[Turn]:
    """The former answer and what is wrong with it. Endpoints refuse an empty turn, and two of one role."""
    return [
        {"role": "assistant", "content": chat.sendable(without_think_block(answer)) or "(no text)"},
        {"role": "user", "content": correction},
    ]


def upper_bound(messages: Iterable[Mapping[str, str]], plan: TeacherPlan) -> tuple[int, int]:
    """Tokens in and out that no call can exceed.

    Every token of a byte-level vocabulary stands for at least one byte of the text.
    """
    texts = [message["content"] for message in messages]
    read = sum(len(text.encode()) + MESSAGE_TOKENS for text in texts) + REQUEST_TOKENS
    return read, plan.max_output_tokens
