"""The real OpenAI client against a teacher on the loopback interface that answers as scripted."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import signal
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback_endpoint import UP, Endpoint, completion, error
from loopback_market import CHAT, MODEL, OPENAI_KEY, Market, World
from tokenizers import Tokenizer

from forecaster import chat
from forecaster.calls import Call, Request
from forecaster.chat import HTTP_TRIES
from forecaster.data.ledger import Ledger
from forecaster.data.teacher import (
    LabelReport,
    TeacherPlan,
    TokenEstimate,
    Unusable,
    answer_for,
    answered,
    check_teacher,
    estimate,
    label_examples,
    render_report,
    upper_bound,
)
from forecaster.errors import ConfigurationError, KeyRefusedError, UnreachableError
from forecaster.records import Example, Label, Messages, TradingWeek
from prompts import render_teacher_request

pytestmark = pytest.mark.usefixtures("no_waits")

KEY = "sk-ca+na/ry=1 '%s'"
SPELLINGS = (KEY, "sk-ca%2Bna", "ca+na/ry", "ca%2Bna/ry")
DOWN = UP.replace("Up by 2-3%", "Down by 1-2%")
UP_2 = Label("up", 2)
TOLD_WRONG = "its prediction is another move than the one that was given"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def an_example(number: int = 0, label: Label = UP_2, user: str = "What next?") -> Example:
    start = datetime(2025, 12, 5, 21, tzinfo=UTC) + timedelta(weeks=number)
    end = start + timedelta(weeks=1)
    return Example(
        symbol="AAPL",
        target=TradingWeek(start.date(), end.date(), start, end),
        messages=Messages("You are an analyst.", user),
        label=label,
        weekly_return_pct=2.5,
        start_price=100.0,
        end_price=102.5,
        news_ids=(),
        filing="",
    )


def a_plan(endpoint: Endpoint, **changes: Any) -> TeacherPlan:
    return TeacherPlan(**({"model": "m", "base_url": endpoint.url, "concurrency": 1} | changes))


def recorded(ledger: Ledger) -> list[tuple[str, str]]:
    """Status and fault of every call."""
    return [(call.status, call.payload["fault"]) for call in ledger.calls("teacher")]


# --- answers and what is recorded ---------------------------------------------------------------------------


def test_an_answer_is_recorded_with_what_it_took_and_can_be_read_back(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    example, plan = an_example(), a_plan(endpoint)
    assert answer_for(example, ledger, plan)[0] is None
    report = label_examples([example], ledger, plan, KEY)
    assert report == LabelReport(1, 1, 1, 1000, 500, None, None, ())
    (call,) = ledger.calls("teacher")
    asked = json.dumps([message["content"] for message in endpoint.chats[0]["messages"]])
    digest = hashlib.sha256(asked.encode()).hexdigest()[:32]
    assert call.request == Request("teacher", "AAPL", "2025-12-05", "2025-12-12", f"m|told|{digest}|try 1")
    assert call.payload == {"answer": UP, "input_tokens": 1000, "output_tokens": 500, "fault": ""}
    assert answer_for(example, ledger, plan)[0] == UP


def test_the_request_names_model_limits_and_outcome_and_carries_the_key(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    label_examples([an_example()], ledger, a_plan(endpoint), KEY)
    (body,) = endpoint.chats
    user = body["messages"][1].pop("content")
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "You are an analyst."}, {"role": "user"}],
        "max_tokens": 1024,
        "temperature": 0.0,
        "seed": 1,
    }
    assert user.startswith("What next?\n\n") and '"Prediction: Up by 2-3%"' in user
    assert endpoint.keys == [f"Bearer {KEY}"]


def test_a_blind_teacher_is_not_told_the_outcome_and_may_be_wrong(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.script = lambda body, number: (200, completion(DOWN))
    plan = a_plan(endpoint, blind=True)
    assert label_examples([an_example()], ledger, plan, KEY).answered == 1
    assert endpoint.chats[0]["messages"][1]["content"] == "What next?"
    assert answer_for(an_example(), ledger, plan)[0] == DOWN
    # The same words do not count for a teacher who was told.
    assert answer_for(an_example(), ledger, a_plan(endpoint))[0] is None


def test_the_think_block_is_kept_in_the_ledger_and_left_out_of_the_answer(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    texts = [f"<think>\nThey told me it rises.\n</think>\n\n{UP}", f"It rises.\n</think>\n{UP}\n"]
    endpoint.script = lambda body, number: (200, completion(texts[number - 1]))
    examples, plan = [an_example(0), an_example(1)], a_plan(endpoint)
    assert label_examples(examples, ledger, plan, KEY).answered == 2
    assert [call.payload["answer"] for call in ledger.calls("teacher")] == texts
    assert [answer_for(example, ledger, plan)[0] for example in examples] == [UP, UP]


# --- answers that cannot be used ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        pytest.param(completion("Hard to say."), "no section [Positive Developments]", id="no form"),
        pytest.param(completion(""), "no section [Positive Developments]", id="empty"),
        pytest.param(completion(None), "no section [Positive Developments]", id="no text"),
        pytest.param(completion(DOWN), TOLD_WRONG, id="another move"),
        pytest.param(completion("<think>It"), "cut off inside the think block", id="only thoughts"),
        pytest.param(completion(UP, finish="length"), "it was cut off at its greatest length", id="cut off"),
        pytest.param(
            completion(UP, finish="content_filter"), "the endpoint's content filter cut it off", id="filtered"
        ),
        pytest.param(completion(None, refusal="I cannot."), "the teacher refused", id="a refusal"),
    ],
)
def test_an_unusable_answer_is_asked_again_with_its_fault_and_both_are_recorded(
    reply: dict[str, Any], fault: str, endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.script = lambda body, number: (200, reply if number == 1 else completion(UP))
    plan = a_plan(endpoint)
    report = label_examples([an_example()], ledger, plan, KEY)
    assert (report.answered, report.calls, report.unusable) == (1, 2, ())
    first, second = (body["messages"] for body in endpoint.chats)
    said = reply["choices"][0]["message"]["content"] or "(no text)"
    assert second[:2] == first
    assert second[2] == {"role": "assistant", "content": said}
    assert second[3]["role"] == "user" and fault in second[3]["content"]
    assert '"Prediction: Up by 2-3%"' in second[3]["content"]
    assert recorded(ledger) == [("answered", fault), ("answered", "")]
    assert [call.request.variant[-5:] for call in ledger.calls("teacher")] == ["try 1", "try 2"]
    assert answer_for(an_example(), ledger, plan)[0] == UP


def test_a_blind_teacher_is_not_told_the_outcome_when_asked_again(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.script = lambda body, number: (200, completion("Hm." if number == 1 else UP))
    label_examples([an_example()], ledger, a_plan(endpoint, blind=True), KEY)
    assert "2-3" not in json.dumps(endpoint.chats[1])


def test_a_row_is_given_up_after_its_tries_and_stays_so(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.script = lambda body, number: (
        200,
        completion("Hm." if "What else?" in body["messages"][1]["content"] else UP),
    )
    examples, plan = [an_example(0), an_example(1, user="What else?")], a_plan(endpoint)
    report = label_examples(examples, ledger, plan, KEY)
    given_up = Unusable("AAPL", "2025-12-12 to 2025-12-19", "no section [Positive Developments]")
    assert (report.answered, report.calls, report.unusable) == (1, 4, (given_up,))
    again = label_examples(examples, ledger, plan, KEY)
    assert again == LabelReport(2, 1, 0, 0, 0, None, None, (given_up,))
    assert len(endpoint.chats) == 4
    assert answer_for(examples[1], ledger, plan)[0] is None
    # More tries than before: it goes on with the next.
    more = label_examples(examples, ledger, a_plan(endpoint, tries=4), KEY)
    assert (more.calls, more.unusable) == (1, (given_up,))
    assert [call.request.variant[-5:] for call in ledger.calls("teacher")][-1] == "try 4"


def test_a_change_of_prompt_outcome_or_model_is_another_request(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.script = lambda body, number: (
        200,
        completion(DOWN if "Down by" in str(body["messages"]) else UP),
    )
    label_examples([an_example()], ledger, a_plan(endpoint), KEY)
    changed = [
        (an_example(user="What then?"), a_plan(endpoint)),
        (an_example(label=Label("down", 1)), a_plan(endpoint)),
        (an_example(), a_plan(endpoint, model="n")),
        (an_example(), a_plan(endpoint, blind=True)),
    ]
    for example, plan in changed:
        assert label_examples([example], ledger, plan, KEY).calls == 1
    assert label_examples([an_example()], ledger, a_plan(endpoint, concurrency=3), KEY).calls == 0


def test_an_answer_that_todays_parser_no_longer_reads_is_asked_again(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    label_examples([an_example()], ledger, a_plan(endpoint), KEY)
    (call,) = ledger.calls("teacher")
    other = Ledger(ledger.path.with_name("other.sqlite"))
    other.record(Call(call.request, "answered", call.fetched_at, call.payload | {"answer": "Up!"}, 1))
    assert answer_for(an_example(), other, a_plan(endpoint))[0] is None
    assert label_examples([an_example()], other, a_plan(endpoint), KEY).calls == 1
    assert answer_for(an_example(), other, a_plan(endpoint))[0] == UP
    other.close()


def test_lone_surrogates_in_an_answer_break_neither_the_ledger_nor_the_next_request(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    texts = [b"Hm \\ud83d", json.dumps(UP).encode()[1:-1].replace(b"Sales rose", b"Sales \\udc80 rose")]
    shell = json.dumps(completion("TEXT")).encode()
    endpoint.script = lambda body, number: (200, shell.replace(b"TEXT", texts[number - 1]))
    plan = a_plan(endpoint)
    assert label_examples([an_example()], ledger, plan, KEY).answered == 1
    assert endpoint.chats[1]["messages"][2]["content"] == "Hm ?"
    assert answer_for(an_example(), ledger, plan)[0] == UP.replace("Sales rose", "Sales ? rose")


# --- many at once -------------------------------------------------------------------------------------------


def test_no_more_are_in_flight_and_no_more_examples_are_drawn_than_allowed(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    drawn = settled = most_open = 0
    in_flight: list[int] = []
    barrier = threading.Barrier(4, timeout=10)

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        # Only four at once let each other go.
        in_flight.append(barrier.wait())
        return 200, completion(UP)

    def examples() -> Iterator[Example]:
        nonlocal drawn, most_open
        for number in range(40):
            drawn += 1
            most_open = max(most_open, drawn - settled)
            yield an_example(number)

    def on_answer() -> None:
        nonlocal settled
        settled += 1

    endpoint.script = script
    report = label_examples(examples(), ledger, a_plan(endpoint, concurrency=4), KEY, on_answer)
    assert (report.examples, report.answered, settled) == (40, 40, 40)
    assert sorted(set(in_flight)) == [0, 1, 2, 3]
    assert most_open == 4


def test_each_settled_example_is_told_once_also_when_an_earlier_run_settled_it(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    told: list[None] = []
    plan = a_plan(endpoint, concurrency=3)
    label_examples([an_example(n) for n in range(5)], ledger, plan, KEY, lambda: told.append(None))
    assert len(told) == 5
    report = label_examples([an_example(n) for n in range(9)], ledger, plan, KEY, lambda: told.append(None))
    assert (len(told), report.calls, report.answered) == (14, 4, 9)


def test_no_example_is_no_call(endpoint: Endpoint, ledger: Ledger) -> None:
    assert label_examples([], ledger, a_plan(endpoint), KEY) == LabelReport(0, 0, 0, 0, 0, None, None, ())


def test_a_fault_of_whoever_makes_the_examples_comes_through_and_answers_stay(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    def examples() -> Iterator[Example]:
        yield an_example()
        raise LookupError("no second example")

    with pytest.raises(LookupError, match="no second example"):
        label_examples(examples(), ledger, a_plan(endpoint), KEY)
    assert recorded(ledger) == [("answered", "")]


def test_an_interrupt_leaves_the_answers_and_counts_what_was_under_way(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    go_on = threading.Event()

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if "first" not in body["messages"][1]["content"]:
            go_on.wait(10)
        return 200, completion(UP)

    endpoint.script = script
    examples = [an_example(n, user="first" if n == 0 else "later") for n in range(6)]
    plan = a_plan(endpoint, concurrency=3)
    with pytest.raises(KeyboardInterrupt):
        label_examples(examples, ledger, plan, KEY, lambda: _when(endpoint, 4, signal.SIGINT))
    go_on.set()
    calls = list(ledger.calls("teacher"))
    stopped = [call for call in calls if call.status == "failed"]
    assert recorded(ledger)[0] == ("answered", "")
    assert {call.payload["fault"] for call in stopped} == {"stopped while it was under way"}
    assert {call.payload["output_tokens"] for call in stopped} == {1024}
    assert label_examples(examples, ledger, plan, KEY).answered == 6


def _when(endpoint: Endpoint, chats: int, number: signal.Signals) -> None:
    """Signal this process once so many chats have arrived."""

    def watch() -> None:
        while len(endpoint.chats) < chats:
            threading.Event().wait(0.005)
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    threading.Thread(target=watch, daemon=True).start()


# --- what it may cost ---------------------------------------------------------------------------------------

PRICES = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 4.0}
A_CALL_USD = (1000 * 1.0 + 500 * 4.0) / 1e6
TOLD = render_teacher_request(Messages("You are an analyst.", "What next?"), UP_2)
BOUND = (128 + 16 + 19 + 16 + len(TOLD.user), 1024)
A_BOUND_USD = (BOUND[0] * 1.0 + BOUND[1] * 4.0) / 1e6


def test_the_upper_bound_counts_bytes_and_room_for_the_chat_template() -> None:
    messages = [{"role": "system", "content": "You"}, {"role": "user", "content": "é€"}]
    assert upper_bound(messages, TeacherPlan("m", max_output_tokens=7)) == (128 + 16 + 3 + 16 + 5, 7)


@given(st.text(max_size=200))
def test_no_byte_level_tokenizer_makes_more_tokens_than_the_upper_bound(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    (bound, _) = upper_bound([{"role": "user", "content": text}], TeacherPlan("m"))
    assert len(_TOKENIZER.encode(text).ids) <= bound - 128 - 16 + 2  # begin and end of the text


_TOKENIZER = Tokenizer.from_file(str(Path(__file__).resolve().parents[2] / "sample/base/tokenizer.json"))


def test_the_run_stops_before_the_limit_is_crossed_and_goes_on_with_a_higher_one(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    # Room for two calls and one upper bound, so for three calls.
    limit = 2 * A_CALL_USD + A_BOUND_USD
    examples = [an_example(n) for n in range(10)]
    told: list[None] = []
    plan = a_plan(endpoint, **PRICES, max_cost_usd=limit)
    report = label_examples(examples, ledger, plan, KEY, lambda: told.append(None))
    assert (report.answered, report.calls, len(endpoint.chats), len(told)) == (3, 3, 3, 3)
    assert report.cost_usd == report.spent_usd == pytest.approx(0.009)
    assert report.stopped == (
        f"the next call may cost up to ${A_BOUND_USD:.4f}, and of --max_cost_usd {limit:g} $0.0090 are spent."
    )
    assert report.unusable == ()
    # The same command stops at once; what was spent before counts.
    assert label_examples(examples, ledger, plan, KEY).calls == 0
    higher = a_plan(endpoint, **PRICES, max_cost_usd=1.0)
    report = label_examples(examples, ledger, higher, KEY)
    assert (report.answered, report.calls, report.stopped) == (10, 7, "")
    assert report.cost_usd == pytest.approx(0.021) and report.spent_usd == pytest.approx(0.030)


def test_many_in_flight_stop_where_one_at_a_time_would(endpoint: Endpoint, ledger: Ledger) -> None:
    limit = 6 * A_CALL_USD + A_BOUND_USD
    plan = a_plan(endpoint, **PRICES, max_cost_usd=limit, concurrency=8)
    report = label_examples([an_example(n) for n in range(30)], ledger, plan, KEY)
    assert (report.answered, len(endpoint.chats)) == (7, 7)
    assert "0.0210 are spent" in report.stopped


def test_nothing_is_asked_when_not_even_one_call_fits(endpoint: Endpoint, ledger: Ledger) -> None:
    plan = a_plan(endpoint, **PRICES, max_cost_usd=A_BOUND_USD * 0.999, concurrency=4)
    report = label_examples([an_example(n) for n in range(9)], ledger, plan, KEY)
    assert (report.calls, endpoint.chats) == (0, [])
    assert report.stopped.endswith("$0.0000 are spent.")


def test_an_endpoint_without_usage_is_counted_at_the_upper_bound(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.script = lambda body, number: (200, completion(UP, usage=None))
    report = label_examples([an_example()], ledger, a_plan(endpoint, **PRICES), KEY)
    assert (report.input_tokens, report.output_tokens) == BOUND
    assert report.spent_usd == pytest.approx(A_BOUND_USD)


def test_an_answer_that_was_lost_on_its_way_is_counted_at_the_upper_bound(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.script = lambda body, number: (200, b'{"choices": [{"mess' if number < 3 else completion(UP))
    plan = a_plan(endpoint, **PRICES)
    report = label_examples([an_example()], ledger, plan, KEY)
    assert (report.answered, report.calls) == (1, 3)
    assert report.input_tokens == 2 * BOUND[0] + 1000
    lost = ("failed", "an answer that is not JSON")
    assert recorded(ledger) == [lost, lost, ("answered", "")]
    assert label_examples([an_example()], ledger, plan, KEY).spent_usd == report.spent_usd


def test_lost_answers_end_the_run_too_when_they_use_up_the_limit(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.script = lambda body, number: (200, b"{")
    plan = a_plan(endpoint, **PRICES, max_cost_usd=3.5 * A_BOUND_USD)
    report = label_examples([an_example()], ledger, plan, KEY)
    assert (report.answered, len(endpoint.chats)) == (0, 3)
    assert report.spent_usd == pytest.approx(3 * A_BOUND_USD)
    assert report.stopped


def test_only_calls_to_the_same_model_count(endpoint: Endpoint, ledger: Ledger) -> None:
    label_examples([an_example()], ledger, a_plan(endpoint, **PRICES, model="dear|m"), KEY)
    label_examples([an_example()], ledger, a_plan(endpoint, **PRICES, blind=True), KEY)
    report = label_examples([an_example()], ledger, a_plan(endpoint, **PRICES), KEY)
    assert report.cost_usd == pytest.approx(0.003) and report.spent_usd == pytest.approx(0.006)


def test_an_estimate_takes_four_characters_for_a_token() -> None:
    plan = TeacherPlan("m", **PRICES)
    # (5,800 + 450) / 4 and 1,975 / 4 tokens for each row.
    assert estimate(400, 5800, plan) == TokenEstimate(625_000, 197_500, 1.415)
    assert estimate(400, 5800, TeacherPlan("m")) == TokenEstimate(625_000, 197_500, None)
    assert estimate(0, 5800, plan) == TokenEstimate(0, 0, 0.0)


# --- endpoints that fail or refuse --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["429", "429 with Retry-After", "500", "truncated JSON", "wrong content type", "empty list", "reset"],
)
def test_every_row_is_answered_in_spite_of_passing_faults(kind: Any, ledger: Ledger) -> None:
    world = World(("AAPL",), date(2026, 1, 5), date(2026, 1, 9))
    with Market(world) as market:
        market.faults.add(kind, CHAT, tries=2, retry_after_s=0)
        plan = TeacherPlan(MODEL, f"{market.url}/openai/v1", concurrency=4)
        examples = [an_example(n, user=f"What in week {n}?") for n in range(6)]
        report = label_examples(examples, ledger, plan, OPENAI_KEY)
        assert market.faults.shown == {kind: 12}
        assert market.most_in_flight["openai"] <= 4
    assert (report.answered, report.unusable) == (6, ())
    assert all(answer_for(example, ledger, plan)[0] for example in examples)


@pytest.mark.parametrize("kind", ["unreadable answer", "contrary answer", "empty answer"])
def test_every_row_is_answered_in_spite_of_bad_first_answers(kind: Any, ledger: Ledger) -> None:
    with Market(World(("AAPL",), date(2026, 1, 5), date(2026, 1, 9))) as market:
        market.faults.add(kind, CHAT, tries=2)
        plan = TeacherPlan(MODEL, f"{market.url}/openai/v1")
        examples = [an_example(n, user=f"What in week {n}?") for n in range(6)]
        report = label_examples(examples, ledger, plan, OPENAI_KEY)
    assert (report.answered, report.calls) == (6, 18)


def test_the_pause_that_an_endpoint_asks_for_is_kept(
    endpoint: Endpoint, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    really_sleep = asyncio.sleep

    async def sleep(seconds: float, *args: Any) -> None:
        slept.append(seconds)
        await really_sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(chat, "_BACKOFF", lambda state: 7.0)
    headers = [{"Retry-After": "90"}, {"Retry-After": "0.25"}, {}, {"Retry-After": "soon"}]
    endpoint.script = lambda body, number: (
        (429, error(), headers[number - 1]) if number <= 4 else (200, completion(UP))
    )
    assert label_examples([an_example()], ledger, a_plan(endpoint), KEY).answered == 1
    assert [seconds for seconds in slept if seconds] == [90.0, 0.25, 7.0, 7.0]


def test_a_pause_of_hours_is_not_waited_for(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.script = lambda body, number: (429, error(), {"Retry-After": "7200"})
    with pytest.raises(UnreachableError) as caught:
        label_examples([an_example(n) for n in range(4)], ledger, a_plan(endpoint), KEY)
    assert str(caught.value) == (
        "teacher m: 1 rows got no answer, the last one as the endpoint asks for a pause of 120 minutes "
        "(HTTP 429)."
    )
    assert len(endpoint.chats) == 1


def test_a_network_that_is_down_ends_the_run_after_its_tries_and_nothing_is_charged(ledger: Ledger) -> None:
    server = Endpoint()
    server.server_close()
    plan = TeacherPlan("m", server.url, concurrency=1, **PRICES)
    with pytest.raises(UnreachableError) as caught:
        label_examples([an_example(n) for n in range(4)], ledger, plan, KEY)
    assert str(caught.value) == (
        f"teacher m: 1 rows got no answer, the last one after {HTTP_TRIES} tries: a broken connection "
        "(ConnectError)."
    )
    (call,) = ledger.calls("teacher")
    assert (call.status, call.payload["input_tokens"]) == ("failed", 0)


def test_what_is_in_flight_settles_before_an_unreachable_endpoint_ends_the_run(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    others_fail = threading.Event()

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if "slow" in body["messages"][1]["content"]:
            others_fail.wait(10)
            return 200, completion(UP)
        if len(endpoint.chats) > HTTP_TRIES:
            others_fail.set()
        return 500, b""

    endpoint.script = script
    examples = [an_example(0, user="slow"), *(an_example(n) for n in range(1, 9))]
    with pytest.raises(UnreachableError, match=f"after {HTTP_TRIES} tries: HTTP 500"):
        label_examples(examples, ledger, a_plan(endpoint, concurrency=2), KEY)
    assert answer_for(examples[0], ledger, a_plan(endpoint))[0] == UP


def test_a_row_whose_request_always_fails_does_not_keep_the_others_from_their_answers(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.script = lambda body, number: (
        (500, b"") if "poison" in body["messages"][1]["content"] else (200, completion(UP))
    )
    examples = [an_example(n, user="poison" if n == 1 else "fine") for n in range(40)]
    plan = a_plan(endpoint, concurrency=2)
    with pytest.raises(UnreachableError, match="1 rows got no answer, the last one after 12 tries: HTTP 500"):
        label_examples(examples, ledger, plan, KEY)
    assert sum(answer_for(example, ledger, plan)[0] == UP for example in examples) == 39


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (
            400,
            error("context_length_exceeded"),
            "refused, as the prompt is longer than the teacher can read",
        ),
        (
            400,
            error(None, "This model's maximum context length is 2048 tokens, 'max_tokens' is too large"),
            "refused, as the prompt is longer than the teacher can read",
        ),
        (400, error("content_filter"), "refused by the endpoint's content filter"),
        (400, {"object": "error", "code": 400}, "refused (HTTP 400)"),
        (413, b"too big", "refused (HTTP 413)"),
        (422, {"detail": [{"loc": ["body", "messages"]}]}, "refused (HTTP 422)"),
    ],
)
def test_a_refused_row_is_listed_without_another_try_and_the_next_rows_go_on(
    status: int, body: Any, fault: str, endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.script = lambda chat, number: (
        (status, body) if "odd" in chat["messages"][1]["content"] else (200, completion(UP))
    )
    examples = [an_example(n, user="odd" if n == 1 else "fine") for n in range(3)]
    report = label_examples(examples, ledger, a_plan(endpoint), KEY)
    assert report.unusable == (Unusable("AAPL", "2025-12-12 to 2025-12-19", fault),)
    assert (report.answered, len(endpoint.chats), report.input_tokens) == (2, 3, 2000)
    assert ("failed", fault) in recorded(ledger)


def test_options_that_a_model_does_not_take_are_left_out_and_the_limit_is_kept(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        for option, code in (("max_tokens", "unsupported_parameter"), ("temperature", "unsupported_value")):
            if option in body:
                return 400, error(code, param=option)
        if "seed" in body:
            return 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}
        return 200, completion(UP)

    endpoint.script = script
    report = label_examples([an_example(n) for n in range(6)], ledger, a_plan(endpoint, concurrency=3), KEY)
    assert (report.answered, report.unusable) == (6, ())
    options = endpoint.chats[-1].keys() - {"model", "messages"}
    assert options == {"max_completion_tokens"}
    assert endpoint.chats[-1]["max_completion_tokens"] == 1024


def test_an_endpoint_that_refuses_the_limit_under_both_names_gets_no_request_without_one(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        name = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
        return 400, error("unsupported_parameter", param=name)

    endpoint.script = script
    report = label_examples([an_example()], ledger, a_plan(endpoint), KEY)
    assert [row.fault for row in report.unusable] == ["refused (HTTP 400)"]
    assert all({"max_tokens", "max_completion_tokens"} & body.keys() for body in endpoint.chats)


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (
            401,
            error("invalid_api_key", f"Incorrect API key provided: {KEY}."),
            "the key was refused (HTTP 401).",
        ),
        (403, error(None, f"{KEY} is not welcome here."), "the key was refused (HTTP 403)."),
        (402, error(None, "Insufficient Balance"), "the key's credit is used up (HTTP 402)."),
        (429, error("insufficient_quota"), "the key's credit is used up (HTTP 429)."),
        (429, error(None, type="insufficient_quota"), "the key's credit is used up (HTTP 429)."),
    ],
)
def test_a_refused_key_ends_the_run_at_once(
    status: int, body: Any, found: str, endpoint: Endpoint, ledger: Ledger
) -> None:
    never = threading.Event()

    def script(chat: dict[str, Any], number: int) -> tuple[int, Any]:
        if number > 1:
            never.wait(10)
        return status, body

    endpoint.script = script
    with pytest.raises(KeyRefusedError) as caught:
        label_examples([an_example(n) for n in range(99)], ledger, a_plan(endpoint, concurrency=2), KEY)
    never.set()
    assert caught.value.found == found
    assert len(endpoint.chats) <= 2
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert not any(spelling in shown for spelling in SPELLINGS)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


@pytest.mark.parametrize("status", [404, 403, 400])
def test_an_unknown_model_ends_the_run_and_names_what_is_served(
    status: int, endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.script = lambda body, number: (status, error("model_not_found"))
    endpoint.listed = (200, {"data": [{"id": "large"}, {"id": "small"}]})
    with pytest.raises(ConfigurationError) as caught:
        label_examples([an_example()], ledger, a_plan(endpoint), KEY)
    assert str(caught.value) == "--teacher_model: m is not served. It serves large, small."


def test_an_endpoint_that_does_not_exist_points_to_its_address(endpoint: Endpoint, ledger: Ledger) -> None:
    endpoint.script = lambda body, number: (404, b"<html>Not found</html>")
    endpoint.listed = (404, b"<html>Not found</html>")
    with pytest.raises(ConfigurationError, match="check OPENAI_BASE_URL"):
        label_examples([an_example()], ledger, a_plan(endpoint), KEY)


@pytest.mark.parametrize("key", ["", "  ", "sk-ä-canary", "sk-canary\nX-Other: 1", "sk-canary\x00"])
def test_a_key_that_no_header_can_carry_is_refused_before_any_call_and_not_shown(
    key: str, endpoint: Endpoint, ledger: Ledger
) -> None:
    for ask in (
        lambda: check_teacher(a_plan(endpoint), key),
        lambda: label_examples([an_example()], ledger, a_plan(endpoint), key),
    ):
        with pytest.raises(KeyRefusedError) as caught:
            ask()
        assert "canary" not in "".join(traceback.format_exception(caught.value))
    assert endpoint.paths == []


def test_the_key_is_in_no_log_ledger_or_exception(
    endpoint: Endpoint, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[tuple[int, Any]] = [
        (500, error(None, f"Bearer {KEY}")),
        (200, f"Bearer {KEY}".encode()),
        (429, error(None, f"Bearer {KEY}")),
        (400, error(KEY, f"Bearer {KEY}")),
        (200, completion(UP)),
        (404, error(None, f"Bearer {KEY}")),
    ]
    endpoint.script = lambda body, number: answers[number - 1]
    with caplog.at_level(logging.DEBUG), pytest.raises(ConfigurationError) as caught:
        label_examples([an_example(n) for n in range(3)], ledger, a_plan(endpoint), KEY)
    assert len(endpoint.chats) == 6
    shown = caplog.text + "".join(traceback.format_exception(caught.value))
    shown += "".join(str(call) for call in ledger.calls("teacher"))
    assert "refused (HTTP 400)" in shown
    assert not any(spelling in shown for spelling in SPELLINGS)
    assert KEY.encode() not in ledger.path.read_bytes()


# --- before anything expensive ------------------------------------------------------------------------------


def test_an_endpoint_that_has_the_model_passes_without_a_chat(endpoint: Endpoint) -> None:
    check_teacher(a_plan(endpoint, model="org/m"), KEY)
    assert endpoint.paths == ["/v1/models/org%2Fm"]


@pytest.mark.parametrize(
    ("models", "listed"),
    [
        pytest.param((404, b"{}"), (200, {"data": [{"id": "other"}, {"id": "m"}]}), id="it is only listed"),
        pytest.param((404, b"{}"), (404, b"{}"), id="there are no such calls"),
        pytest.param((405, b""), (200, b"<html>"), id="a page"),
        pytest.param((404, b"{}"), (200, {"data": []}), id="an empty list"),
        pytest.param((404, b"{}"), (200, [1]), id="a list of an unknown form"),
        pytest.param((200, b"<html>"), (200, b"<html>"), id="a page for everything"),
        pytest.param((500, b""), (500, b""), id="a server with a headache"),
        pytest.param(
            (403, error(None, "You have insufficient permissions. Missing scopes: api.model.read.")),
            (403, b""),
            id="a key for chats only",
        ),
    ],
)
def test_an_endpoint_that_cannot_say_passes(
    models: tuple[int, Any], listed: tuple[int, Any], endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    endpoint.models, endpoint.listed = models, listed
    check_teacher(a_plan(endpoint), KEY)
    assert endpoint.paths[0] == "/v1/models/m" and not endpoint.chats


def test_a_model_that_is_not_served_is_told_with_those_that_are(endpoint: Endpoint) -> None:
    endpoint.models = (404, error("model_not_found"))
    endpoint.listed = (200, {"data": [{"id": f"m{n}"} for n in range(10)]})
    with pytest.raises(ConfigurationError) as caught:
        check_teacher(a_plan(endpoint), KEY)
    assert str(caught.value) == (
        "--teacher_model: m is not served. It serves m0, m1, m2, m3, m4, m5, m6, m7, ...."
    )


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_told_before_anything_else(status: int, endpoint: Endpoint) -> None:
    endpoint.models = (status, error("invalid_api_key", f"Incorrect API key provided: {KEY}"))
    with pytest.raises(KeyRefusedError) as caught:
        check_teacher(a_plan(endpoint), KEY)
    assert str(caught.value) == f"teacher m: the key was refused (HTTP {status})."
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_an_endpoint_where_nobody_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    server = Endpoint()
    server.server_close()
    with pytest.raises(UnreachableError) as caught:
        check_teacher(TeacherPlan("m", server.url), KEY)
    assert str(caught.value) == "teacher m: a broken connection (ConnectError)."


def test_the_loopback_market_passes_and_refuses_like_an_endpoint() -> None:
    with Market(World(("AAPL",), date(2026, 1, 5), date(2026, 1, 9))) as market:
        url = f"{market.url}/openai/v1"
        check_teacher(TeacherPlan(MODEL, url), OPENAI_KEY)
        with pytest.raises(KeyRefusedError):
            check_teacher(TeacherPlan(MODEL, url), "another key")
        with pytest.raises(ConfigurationError, match=f"It serves {MODEL}."):
            check_teacher(TeacherPlan("another model", url), OPENAI_KEY)
        assert market.counts()[CHAT] == 0


# --- what is left to ask ------------------------------------------------------------------------------------


def test_only_wanted_weeks_with_a_usable_answer_of_this_teacher_count(
    endpoint: Endpoint, ledger: Ledger
) -> None:
    plan = a_plan(endpoint, tries=2)
    good, bad, other_prompt = an_example(0), an_example(1), an_example(0, user="And now?")
    endpoint.script = lambda body, number: (200, completion("no answer" if number > 2 else UP))
    label_examples([good, other_prompt, bad], ledger, plan, KEY)
    weeks = [(row.target.start.isoformat(), row.target.end.isoformat()) for row in (good, bad)]
    wanted = [("AAPL", *week) for week in weeks]
    assert len(endpoint.chats) == 4
    assert answered(ledger, plan, wanted) == 1
    assert answered(ledger, plan, [("ZZZZ", *weeks[0])]) == answered(ledger, plan, []) == 0
    assert answered(ledger, a_plan(endpoint, blind=True), wanted) == 0
    assert answered(ledger, a_plan(endpoint, model="n"), wanted) == 0


# --- the report ---------------------------------------------------------------------------------------------


def test_the_report_counts_faults_names_rows_and_says_how_to_go_on() -> None:
    rows = [Unusable("AAPL", f"week {n}", "no section [Positive Developments]") for n in range(3)]
    report = LabelReport(
        9, 5, 14, 14_000, 7_000, 0.042, 0.5, (*rows, Unusable("MSFT", "week 1", TOLD_WRONG)), "the limit."
    )
    assert render_report(report, examples_per_fault=2) == (
        "label: 5 of 9 rows have a usable answer; 14 calls, 14000 tokens in, 7000 out, $0.04 in this run, "
        "$0.50 in all\n"
        "  3 without a usable answer, no section [Positive Developments]: AAPL week 0, AAPL week 1, ...\n"
        f"  1 without a usable answer, {TOLD_WRONG}: MSFT week 1\n"
        "Stopped: the limit. Nothing is lost: the same command with a higher --max_cost_usd goes on from "
        "here, and `build` makes a dataset of what is there."
    )
    short = render_report(LabelReport(1, 1, 1, 1000, 500, None, None, ()))
    assert short == "label: 1 of 1 rows have a usable answer; 1 calls, 1000 tokens in, 500 out"
