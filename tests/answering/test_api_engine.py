"""The real OpenAI client against an endpoint on the loopback interface: many prompts at once."""

from __future__ import annotations

import gc
import logging
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from loopback_endpoint import UP, Endpoint, completion, error

from forecaster import chat
from forecaster.answering.api_engine import ApiPlan, EndpointReply, answer_all, check
from forecaster.errors import ConfigurationError, KeyRefusedError, UnreachableError
from forecaster.records import Answer, Label, Messages, Unreadable
from forecaster.tasks.answers import parse_answer

pytestmark = pytest.mark.usefixtures("no_waits")

KEY = "sk-ca+na/ry=1 '%s'"
SPELLINGS = (KEY, "sk-ca%2Bna", "ca+na/ry", "ca%2Bna/ry")


@pytest.fixture(scope="module", autouse=True)
def nothing_older_is_collected() -> Iterator[None]:
    """A collection after each test looks at what the test made, not at all that was imported before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_is_left_behind(
    recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """No thread, no coroutine that nobody awaited, no task whose exception nobody read."""
    threads = {thread.name for thread in threading.enumerate()}
    warnings.simplefilter("always")
    yield
    gc.collect()
    said = [str(warning.message) for warning in recwarn if "never awaited" in str(warning.message)]
    said += [record.message for record in caplog.records if record.name == "asyncio" and record.levelno > 20]
    assert said == []
    assert not [t for t in threading.enumerate() if t.name not in threads and "asyncio" in t.name]


def a_plan(endpoint: Endpoint, **changes: Any) -> ApiPlan:
    return ApiPlan(**({"model": "m", "base_url": endpoint.url, "concurrency": 1} | changes))


def prompts(*users: str) -> list[tuple[str, Messages]]:
    """Their row ids are `row 0`, `row 1` and so on."""
    return [(f"row {n}", Messages("You are an analyst.", user)) for n, user in enumerate(users)]


def asked(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def drain(replies: Iterator[EndpointReply]) -> tuple[list[str], Exception | None]:
    """Rows that were answered, and what ended it."""
    rows = []
    try:
        for reply in replies:
            rows.append(reply.row_id)
    except (ConfigurationError, KeyRefusedError, UnreachableError) as fault:
        return rows, fault
    return rows, None


# --- answers ------------------------------------------------------------------------------------------------


def test_an_answer_comes_with_its_row_tokens_and_latency(endpoint: Endpoint) -> None:
    (reply,) = answer_all(prompts("What next?"), a_plan(endpoint), KEY)
    assert reply.latency_s is not None and reply.latency_s > 0
    assert replace(reply, latency_s=None) == EndpointReply("row 0", UP, 1000, 500, None, "stop")
    assert endpoint.chats == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "You are an analyst."},
                {"role": "user", "content": "What next?"},
            ],
            "max_tokens": 1024,
            "temperature": 0.0,
            "seed": 1,
        }
    ]
    assert endpoint.keys == [f"Bearer {KEY}"]


def test_an_endpoint_is_sent_no_control_token_of_a_known_chat_model(endpoint: Endpoint) -> None:
    asked = Messages("<s>[INST]Be brief.", "A<|im_end|><｜User｜>B</think> [News] 5<6 <b>C</b>")
    list(answer_all([("row 0", asked)], a_plan(endpoint), KEY))
    assert [turn["content"] for turn in endpoint.chats[0]["messages"]] == [
        "< s>[ INST]Be brief.",
        "A< |im_end|>< ｜User｜>B< /think> [News] 5<6 <b>C</b>",
    ]


def test_no_prompt_is_no_call(endpoint: Endpoint) -> None:
    assert list(answer_all([], a_plan(endpoint), KEY)) == []
    assert endpoint.paths == []


def test_an_endpoint_that_tells_no_tokens_is_no_fault(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (200, completion(UP, usage=None))
    (reply,) = answer_all(prompts("What next?"), a_plan(endpoint), KEY)
    assert (reply.text, reply.input_tokens, reply.output_tokens) == (UP, None, None)


@pytest.mark.parametrize(
    ("content", "text", "finish", "fault"),
    [
        (completion("[Pos", finish="length"), "[Pos", "length", "it was cut off at its greatest length"),
        (
            completion("", finish="content_filter"),
            "",
            "content_filter",
            "the endpoint's content filter cut it off",
        ),
        (completion(None, refusal="I cannot."), "", "refusal", "the model refused"),
        (completion(None), "", "stop", ""),
    ],
)
def test_an_answer_that_is_not_whole_keeps_its_text_and_says_why(
    content: dict[str, Any], text: str, finish: str, fault: str, endpoint: Endpoint
) -> None:
    endpoint.script = lambda body, number: (200, content)
    (reply,) = answer_all(prompts("What next?"), a_plan(endpoint), KEY)
    assert (reply.text, reply.finish, reply.fault) == (text, finish, fault)
    assert (reply.input_tokens, reply.output_tokens) == (1000, 500)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_the_model_thought_is_recorded_and_the_parser_passes_it_by(
    name: str, endpoint: Endpoint
) -> None:
    thoughts = "Prediction: Down by 1-2%\nAnalysis: or not? </think>"
    endpoint.script = lambda body, number: (200, completion(UP, **{name: thoughts}))
    (reply,) = answer_all(prompts("What next?"), a_plan(endpoint), KEY)
    assert reply.text == f"<think>\nPrediction: Down by 1-2%\nAnalysis: or not? \n</think>\n\n{UP}"
    answer = parse_answer(reply.text)
    assert isinstance(answer, Answer) and answer.label == Label("up", 2)


def test_a_think_block_of_the_text_is_not_doubled(endpoint: Endpoint) -> None:
    text = f"<think>\nIt rises.\n</think>\n\n{UP}"
    endpoint.script = lambda body, number: (200, completion(text, reasoning_content="It rises."))
    (reply,) = answer_all(prompts("What next?"), a_plan(endpoint), KEY)
    assert reply.text == text


def test_thoughts_that_used_up_the_limit_stay_open(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (200, completion(None, finish="length", reasoning="It may"))
    (reply,) = answer_all(prompts("What next?"), a_plan(endpoint), KEY)
    assert (reply.text, reply.finish) == ("<think>\nIt may", "length")
    assert parse_answer(reply.text) == Unreadable("cut off inside the think block")


# --- many at once -------------------------------------------------------------------------------------------


def test_as_many_requests_as_allowed_are_in_flight_and_no_more_prompts_are_drawn(endpoint: Endpoint) -> None:
    drawn = answered = most_open = 0
    barrier = threading.Barrier(4, timeout=10)

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        barrier.wait()  # only four at once let each other go
        return 200, completion(UP)

    def many() -> Iterator[tuple[str, Messages]]:
        nonlocal drawn, most_open
        for number in range(40):
            drawn += 1
            most_open = max(most_open, drawn - answered)
            yield f"row {number}", Messages("", f"What in week {number}?")

    endpoint.script = script
    rows = []
    for reply in answer_all(many(), a_plan(endpoint, concurrency=4), KEY):
        answered += 1
        rows.append(reply.row_id)
    assert sorted(rows) == sorted(f"row {n}" for n in range(40))
    # Of several that are there at once, each is handed over on its own.
    assert most_open == 4


def test_an_answer_is_handed_over_while_others_are_still_under_way(endpoint: Endpoint) -> None:
    taken = threading.Event()

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if asked(body) == "slow":
            assert taken.wait(10)
        return 200, completion(UP)

    endpoint.script = script
    replies = answer_all(prompts("slow", "fast", "fast"), a_plan(endpoint, concurrency=2), KEY)
    assert next(replies).row_id == "row 1"
    taken.set()
    assert sorted(reply.row_id for reply in replies) == ["row 0", "row 2"]


def test_nobody_asks_with_a_concurrency_of_zero(endpoint: Endpoint) -> None:
    with pytest.raises(ValueError, match="concurrency 0"):
        a_plan(endpoint, concurrency=0)


# --- endpoints that fail or refuse --------------------------------------------------------------------------


def test_every_row_is_answered_once_in_spite_of_passing_faults(endpoint: Endpoint) -> None:
    faults = [(429, error(), {"Retry-After": "0"}), (500, b"", {}), (200, b"{", {}), (200, {"error": {}}, {})]
    seen: dict[str, int] = {}

    def script(body: dict[str, Any], number: int) -> tuple[int, Any, dict[str, str]]:
        with endpoint.lock:
            seen[asked(body)] = seen.get(asked(body), 0) + 1
            tries = seen[asked(body)]
        return faults[tries - 1] if tries <= len(faults) else (200, completion(UP), {})

    endpoint.script = script
    rows, fault = drain(answer_all(prompts("a", "b", "c"), a_plan(endpoint, concurrency=2), KEY))
    assert (sorted(rows), fault) == (["row 0", "row 1", "row 2"], None)
    assert seen == {"a": 5, "b": 5, "c": 5}


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (400, error("content_filter"), "refused by the endpoint's content filter"),
        (
            400,
            error("context_length_exceeded"),
            "refused, as the prompt is longer than the model can read",
        ),
    ],
)
def test_a_refused_row_has_no_text_and_the_next_rows_go_on(
    status: int, body: Any, fault: str, endpoint: Endpoint
) -> None:
    endpoint.script = lambda chat, number: (status, body) if asked(chat) == "odd" else (200, completion(UP))
    first, second, third = answer_all(prompts("fine", "odd", "fine"), a_plan(endpoint), KEY)
    assert second == EndpointReply("row 1", None, None, None, None, "refused", fault)
    assert (first.text, third.text, len(endpoint.chats)) == (UP, UP, 3)


def test_a_request_that_is_not_taken_for_another_reason_may_be_asked_again(endpoint: Endpoint) -> None:
    refusal = 422, {"detail": [{"loc": ["body", "messages"]}]}
    endpoint.script = lambda chat, number: refusal if asked(chat) == "odd" else (200, completion(UP))
    _, second, third = answer_all(prompts("fine", "odd", "fine"), a_plan(endpoint), KEY)
    assert second == EndpointReply("row 1", None, None, None, None, "failed", "refused (HTTP 422)")
    assert third.text == UP


def test_options_that_a_model_does_not_take_are_left_out(endpoint: Endpoint) -> None:
    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        for option, code in (("max_tokens", "unsupported_parameter"), ("temperature", "unsupported_value")):
            if option in body:
                return 400, error(code, param=option)
        return 200, completion(UP)

    endpoint.script = script
    rows, fault = drain(answer_all(prompts("a", "b"), a_plan(endpoint), KEY))
    assert (rows, fault, len(endpoint.chats)) == (["row 0", "row 1"], None, 4)
    assert endpoint.chats[-1].keys() == {"model", "messages", "max_completion_tokens", "seed"}


def test_a_network_that_is_down_ends_the_run_after_its_tries(endpoint: Endpoint) -> None:
    closed = Endpoint()
    closed.server_close()
    rows, fault = drain(answer_all(prompts("a", "b", "c"), a_plan(closed), KEY))
    assert rows == []
    assert isinstance(fault, UnreachableError)
    assert str(fault) == (
        "model m: 1 rows got no answer, the last one after 12 tries: a broken connection (ConnectError)."
    )


def test_what_is_in_flight_is_answered_before_an_endpoint_that_fell_silent_ends_the_run(
    endpoint: Endpoint,
) -> None:
    others_fail = threading.Event()

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if asked(body) == "slow":
            assert others_fail.wait(10)
            return 200, completion(UP)
        if number > chat.HTTP_TRIES:
            others_fail.set()
        return 500, b""

    endpoint.script = script
    rows, fault = drain(answer_all(prompts("slow", *"abcdefgh"), a_plan(endpoint, concurrency=2), KEY))
    assert rows == ["row 0"]
    assert isinstance(fault, UnreachableError) and "after 12 tries: HTTP 500" in str(fault)


def test_a_row_that_always_fails_does_not_keep_the_others_from_their_answers(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (500, b"") if asked(body) == "poison" else (200, completion(UP))
    users = ["fine", "poison", *["fine"] * 38]
    rows, fault = drain(answer_all(prompts(*users), a_plan(endpoint, concurrency=2), KEY))
    assert len(rows) == 39 and "row 1" not in rows
    assert str(fault) == "model m: 1 rows got no answer, the last one after 12 tries: HTTP 500."


def test_a_pause_of_hours_is_not_waited_for(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (
        (200, completion(UP)) if number == 1 else (429, error(), {"Retry-After": "7200"})
    )
    rows, fault = drain(answer_all(prompts("a", "b", "c"), a_plan(endpoint), KEY))
    assert (rows, len(endpoint.chats)) == (["row 0"], 2)
    assert isinstance(fault, UnreachableError) and "asks for a pause of 120 minutes" in str(fault)


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (401, error("invalid_api_key", f"Incorrect API key: {KEY}."), "the key was refused (HTTP 401)."),
        (403, error(None, f"{KEY} is not welcome here."), "the key was refused (HTTP 403)."),
        (429, error("insufficient_quota"), "the key's credit is used up (HTTP 429)."),
    ],
)
def test_a_key_that_is_refused_midway_ends_the_run_and_what_was_paid_is_handed_over(
    status: int, body: Any, found: str, endpoint: Endpoint
) -> None:
    refused = threading.Event()

    def script(chat: dict[str, Any], number: int) -> tuple[int, Any]:
        if asked(chat) == "slow":
            assert refused.wait(10)
            return 200, completion(UP)
        refused.set()
        return status, body

    endpoint.script = script
    rows, fault = drain(answer_all(prompts("slow", *"abcdefgh"), a_plan(endpoint, concurrency=3), KEY))
    assert rows == ["row 0"]
    assert isinstance(fault, KeyRefusedError) and fault.found == found
    assert fault.__cause__ is None and fault.__context__ is None
    # One that was about to be sent may still have been.
    assert 3 <= len(endpoint.chats) <= 5


def test_an_unknown_model_ends_the_run_and_names_what_is_served(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (404, error("model_not_found"))
    endpoint.listed = (200, {"data": [{"id": "large"}, {"id": "small"}]})
    rows, fault = drain(answer_all(prompts("a", "b"), a_plan(endpoint), KEY))
    assert (rows, str(fault)) == ([], "--api_model: m is not served. It serves large, small.")
    assert len(endpoint.chats) == 1


@pytest.mark.parametrize("key", ["", "  ", "sk-ä-canary", "sk-canary\nX-Other: 1"])
def test_a_key_that_no_header_can_carry_is_refused_before_any_call(key: str, endpoint: Endpoint) -> None:
    rows, fault = drain(answer_all(prompts("a"), a_plan(endpoint), key))
    assert rows == [] and isinstance(fault, KeyRefusedError)
    assert "canary" not in "".join(traceback.format_exception(fault))
    assert endpoint.paths == []


def test_the_key_is_in_no_log_reply_or_exception(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[tuple[int, Any]] = [
        (500, error(None, f"Bearer {KEY}")),
        (200, f"Bearer {KEY}".encode()),
        (429, error(None, f"Bearer {KEY}")),
        (400, error(KEY, f"Bearer {KEY}")),
        (200, completion(UP, finish=KEY)),
        (401, error(None, f"Bearer {KEY}")),
    ]
    endpoint.script = lambda body, number: answers[number - 1]
    replies: list[EndpointReply] = []
    with caplog.at_level(logging.DEBUG), pytest.raises(KeyRefusedError) as caught:
        replies.extend(answer_all(prompts("a", "b", "c"), a_plan(endpoint), KEY))
    assert len(endpoint.chats) == 6
    shown = caplog.text + repr(replies) + "".join(traceback.format_exception(caught.value))
    assert not any(spelling in shown for spelling in SPELLINGS)


# --- before anything expensive ------------------------------------------------------------------------------


def test_a_model_that_is_there_passes_without_a_chat(endpoint: Endpoint) -> None:
    check(a_plan(endpoint), KEY)
    assert (endpoint.paths, endpoint.chats) == (["/v1/models/m"], [])


def test_a_model_that_is_not_served_points_to_its_flag(endpoint: Endpoint) -> None:
    endpoint.models, endpoint.listed = (404, error("model_not_found")), (200, {"data": [{"id": "large"}]})
    with pytest.raises(ConfigurationError) as caught:
        check(a_plan(endpoint), KEY)
    (problem,) = caught.value.problems
    assert (problem.where, problem.found) == ("--api_model", "m is not served.")


def test_a_refused_key_is_told_before_anything_is_spent(endpoint: Endpoint) -> None:
    endpoint.models = (401, error("invalid_api_key", f"Incorrect API key provided: {KEY}"))
    with pytest.raises(KeyRefusedError) as caught:
        check(a_plan(endpoint), KEY)
    assert str(caught.value) == "model m: the key was refused (HTTP 401)."


def test_an_endpoint_where_nobody_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    closed = Endpoint()
    closed.server_close()
    with pytest.raises(UnreachableError, match=r"^model m: a broken connection \(ConnectError\)\.$"):
        check(a_plan(closed), KEY)


# --- an early end -------------------------------------------------------------------------------------------


def test_a_caller_that_stops_early_ends_what_is_in_flight(endpoint: Endpoint) -> None:
    never = threading.Event()

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if asked(body) != "first":
            never.wait(10)
        return 200, completion(UP)

    endpoint.script = script
    with closing(answer_all(prompts("first", *"abcdefgh"), a_plan(endpoint, concurrency=3), KEY)) as replies:
        assert next(replies).row_id == "row 0"
    never.set()
    assert list(replies) == []
    assert len(endpoint.chats) <= 3


def test_a_fault_of_whoever_makes_the_prompts_comes_through_and_ends_what_is_in_flight(
    endpoint: Endpoint,
) -> None:
    def broken() -> Iterator[tuple[str, Messages]]:
        yield from prompts("a", "b")
        raise LookupError("no third prompt")

    replies = answer_all(broken(), a_plan(endpoint, concurrency=2), KEY)
    assert next(replies).row_id in ("row 0", "row 1")
    with pytest.raises(LookupError, match="no third prompt"):
        list(replies)


def test_an_iterator_that_is_never_started_or_thrown_away_leaves_nothing(endpoint: Endpoint) -> None:
    answer_all(prompts("a"), a_plan(endpoint), KEY)
    next(answer_all(prompts("a", "b", "c"), a_plan(endpoint, concurrency=2), KEY))
    assert len(endpoint.chats) <= 2


def test_an_interrupt_comes_through_and_ends_what_is_in_flight(endpoint: Endpoint) -> None:
    never = threading.Event()

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if asked(body) == "first":
            return 200, completion(UP)
        if len(endpoint.chats) == 4:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        never.wait(10)
        return 200, completion(UP)

    endpoint.script = script
    rows = []
    with pytest.raises(KeyboardInterrupt):
        for reply in answer_all(prompts("first", *"abcdefgh"), a_plan(endpoint, concurrency=3), KEY):
            rows.append(reply.row_id)
    never.set()
    assert rows == ["row 0"]
    assert len(endpoint.chats) == 4


def test_a_program_that_ends_in_the_middle_of_an_iteration_neither_hangs_nor_complains(
    endpoint: Endpoint,
) -> None:
    never = threading.Event()

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if asked(body) != "first":
            never.wait(60)
        return 200, completion(UP)

    endpoint.script = script
    program = (
        "import sys\n"
        "from forecaster.answering.api_engine import ApiPlan, answer_all\n"
        "from forecaster.records import Messages\n"
        "prompts = [(user, Messages('', user)) for user in ('first', 'a', 'b', 'c')]\n"
        "replies = answer_all(prompts, ApiPlan('m', sys.argv[1], concurrency=2), 'sk-key')\n"
        "print(next(replies).row_id)\n"
        "sys.exit(3)\n"
    )
    argv = [sys.executable, "-c", program, endpoint.url]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(argv, cwd=root, capture_output=True, text=True, timeout=50)
    never.set()
    assert (done.returncode, done.stdout, done.stderr) == (3, "first\n", "")
