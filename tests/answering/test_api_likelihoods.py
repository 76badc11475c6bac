"""The real OpenAI client against an endpoint that tells likelihoods of a prompt, or does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loopback_endpoint import UP, Endpoint, completion, error, read_back, reading
from processes import ROOT
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from forecaster import chat
from forecaster.answering.api_engine import ApiPlan, EndpointReply, answer_all
from forecaster.answering.choice_likelihoods import choice_tree
from forecaster.answering.endpoint_likelihoods import find_place, log_likelihood_of
from forecaster.chat import ReadToken, read_prompt_tokens
from forecaster.models.templates import prepare_tokenizer
from forecaster.records import Messages
from forecaster.tasks.weekly import WEEKLY

pytestmark = pytest.mark.usefixtures("no_waits")

CHOICES = WEEKLY.choices
assert CHOICES is not None
BEGUN = UP[: UP.index(" Up by 2-3%")]


def replies(endpoint: Endpoint, rows: int = 1, concurrency: int = 1) -> list[EndpointReply]:
    prompts = [(f"row {n}", Messages("You are an analyst.", "What next?")) for n in range(rows)]
    plan = ApiPlan(model="m", base_url=endpoint.url, concurrency=concurrency)
    return list(answer_all(prompts, plan, "sk-key", choices=CHOICES))


def is_reading(body: dict[str, Any]) -> bool:
    return "prompt_logprobs" in body


# --- what is told -------------------------------------------------------------------------------------------


def test_the_tokens_of_each_label_are_summed_up_to_the_one_that_holds_the_percent_sign(
    endpoint: Endpoint,
) -> None:
    endpoint.script = reading
    (reply,) = replies(endpoint)
    assert (reply.text, reply.likelihood_requests) == (UP, 12)
    # Such as " Up" -0.5, " by" 0, " " -0.25, "2" -1, "-" 0, "3" -1, "%\n" -0.0625, and not "Analysis" -7.
    assert reply.label_log_likelihoods == {
        **{f"down by {low}-{low + 1}%": -3.3125 for low in range(5)},
        "down by more than 5%": -5.4375,
        **{f"up by {low}-{low + 1}%": -2.8125 for low in range(5)},
        "up by more than 5%": -4.9375,
    }


def test_each_label_is_sent_as_the_answer_that_goes_on(endpoint: Endpoint) -> None:
    endpoint.script = reading
    replies(endpoint)
    assert len(endpoint.chats) == 13
    assert {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are an analyst."},
            {"role": "user", "content": "What next?"},
            {"role": "assistant", "content": f"{BEGUN} Down by more than 5%\nAnalysis:"},
        ],
        "max_tokens": 1,
        "temperature": 0.0,
        "seed": 1,
        "continue_final_message": True,
        "add_generation_prompt": False,
        "prompt_logprobs": 0,
    } in endpoint.chats


def test_a_real_tokenizers_cuts_give_what_the_other_engines_record(endpoint: Endpoint) -> None:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "sample" / "base")
    prepare_tokenizer(tokenizer)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.4, **shape)).eval()

    def ids_of(turns: list[dict[str, str]]) -> list[int]:
        text = tokenizer.apply_chat_template(turns, tokenize=False, continue_final_message=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def logs_of(ids: list[int]) -> list[float]:
        with torch.inference_mode():
            logs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return [float(logs[at, token]) for at, token in enumerate(ids[1:])]

    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if not is_reading(body):
            return 200, completion(UP)
        ids = ids_of(body["messages"])
        told = [
            {str(token): {"logprob": log, "rank": 1, "decoded_token": tokenizer.decode([token])}}
            for token, log in zip(ids[1:], logs_of(ids), strict=True)
        ]
        return 200, completion("x") | {"prompt_logprobs": [None, *told]}

    endpoint.script = script
    (reply,) = replies(endpoint)
    begun = ids_of([*endpoint.chats[0]["messages"], {"role": "assistant", "content": BEGUN}])
    tree = choice_tree(tokenizer, CHOICES)
    assert tree is not None and reply.label_log_likelihoods is not None
    for label, path in zip(CHOICES.labels, tree.paths, strict=True):
        expected = sum(logs_of([*begun, *(token for _, token in path)])[len(begun) - 1 :])
        assert reply.label_log_likelihoods[label] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "answer",
    ["I cannot tell.", f"<think>\nHm.\n</think>\n\n{UP}", f"<think>\n{UP}", "A Prediction: Up by 2-3%"],
)
def test_an_answer_without_a_place_or_with_thoughts_takes_no_request(answer: str, endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (200, completion(answer))
    (reply,) = replies(endpoint)
    assert (reply.text, reply.label_log_likelihoods, reply.likelihood_requests) == (answer, None, 0)
    assert len(endpoint.chats) == 1


# --- endpoints that do not tell -----------------------------------------------------------------------------

ACROSS = ["Pre", "diction: Up", " by", " ", "2", "-", "3", "%\n", "Analysis", ":"]
UNLIKE = [f"{BEGUN} Up by 2-3%\nAnalysis:", "<|im_end|>", "assistant"]
POSITIVE_LOG = {"7": {"logprob": 0.5, "decoded_token": ":"}}
TWO = {"7": {"logprob": -1.0, "decoded_token": ":"}, "8": {"logprob": -2.0, "decoded_token": " "}}


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (400, error("unknown_parameter", param="prompt_logprobs")),
        (422, {"detail": [{"loc": ["body", "prompt_logprobs"], "msg": "extra fields not permitted"}]}),
        (404, error("not_found")),
        (200, completion("x")),
        (200, completion("x") | {"prompt_logprobs": None}),
        (200, completion("x") | {"prompt_logprobs": [None, POSITIVE_LOG]}),
        (200, completion("x") | {"prompt_logprobs": [None, TWO]}),
        (200, completion("x") | {"prompt_logprobs": [None, {"7": {"logprob": float("nan")}}]}),
        (200, read_back(ACROSS)),
        (200, read_back(UNLIKE)),
        (200, []),
    ],
)
def test_an_endpoint_that_does_not_tell_is_asked_once_and_its_answers_stay(
    status: int, content: Any, endpoint: Endpoint
) -> None:
    endpoint.script = lambda body, number: (status, content) if is_reading(body) else (200, completion(UP))
    found = replies(endpoint, rows=6, concurrency=3)
    assert [reply.text for reply in found] == [UP] * 6
    assert [reply.label_log_likelihoods for reply in found] == [None] * 6
    assert sum(reply.likelihood_requests for reply in found) == 1
    assert [is_reading(body) for body in endpoint.chats].count(True) == 1


def test_an_endpoint_whose_likelihoods_sum_to_more_than_one_tells_none(endpoint: Endpoint) -> None:
    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        if not is_reading(body):
            return 200, completion(UP)
        whole = body["messages"][-1]["content"].removeprefix(BEGUN)
        told = {"1": {"logprob": -0.5, "rank": 1, "decoded_token": whole}}
        return 200, completion("x") | {"prompt_logprobs": [None, told]}

    endpoint.script = script
    (reply,) = replies(endpoint)
    assert (reply.text, reply.label_log_likelihoods, reply.likelihood_requests) == (UP, None, 12)


# --- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        ((500, b""), 4 + chat.HTTP_TRIES),
        ((400, error("bad_request")), 5),
        ((402, error("insufficient_quota")), 5),
        ((200, completion("x")), 5),
    ],
)
def test_a_fault_in_the_middle_costs_one_answers_likelihoods_and_not_the_answer(
    fault: tuple[int, Any], requests: int, endpoint: Endpoint
) -> None:
    def script(body: dict[str, Any], number: int) -> tuple[int, Any]:
        # The second answer's fifth label, as often as it is asked for.
        is_hit = 13 + 1 + 5 <= number <= 13 + 1 + requests
        return fault if is_hit else reading(body, number)

    endpoint.script = script
    first, second, third = replies(endpoint, rows=3)
    assert [reply.text for reply in (first, second, third)] == [UP] * 3
    assert (second.label_log_likelihoods, second.likelihood_requests) == (None, requests)
    assert first.label_log_likelihoods == third.label_log_likelihoods is not None


def test_a_passing_fault_is_tried_again(endpoint: Endpoint) -> None:
    endpoint.script = lambda body, number: (429, b"") if number == 4 else reading(body, number)
    (reply,) = replies(endpoint)
    assert reply.label_log_likelihoods and reply.likelihood_requests == 13


def test_a_first_text_that_is_too_long_says_nothing_of_the_endpoint(endpoint: Endpoint) -> None:
    too_long = (400, error("context_length_exceeded"))
    endpoint.script = lambda body, number: too_long if number == 2 else reading(body, number)
    first, second = replies(endpoint, rows=2)
    assert (first.text, first.label_log_likelihoods, first.likelihood_requests) == (UP, None, 1)
    assert second.label_log_likelihoods and second.likelihood_requests == 12


# --- places and tokens --------------------------------------------------------------------------------------


def test_the_place_is_behind_the_first_prediction_that_begins_a_line() -> None:
    assert find_place(CHOICES, "Prediction: Up") == 11
    assert find_place(CHOICES, "My Prediction: none.\nPrediction: Up") == 32
    assert find_place(CHOICES, "My Prediction: none.") is None


def test_tokens_are_found_from_the_end_by_their_spelling() -> None:
    tokens = [ReadToken("Prediction", -9), ReadToken(":", -9), ReadToken(" Up", -1), ReadToken("%\n", -2)]
    end = [ReadToken("Ana", -9), ReadToken("lysis:", -9)]
    assert log_likelihood_of([*tokens, *end], " Up%", "\nAnalysis:") == -3
    assert log_likelihood_of([*tokens, *end], " Up", "%\nAnalysis:") == -1
    assert log_likelihood_of([*tokens, *end], "Up%", "\nAnalysis:") is None
    assert log_likelihood_of([*tokens, *end, ReadToken("\n", 0)], " Up%", "\nAnalysis:") is None
    assert log_likelihood_of([], " Up%", "\nAnalysis:") is None


def test_a_token_without_any_likelihood_has_vllms_number_for_it() -> None:
    told = [None, {"5": {"logprob": -9999.0, "rank": 128000, "decoded_token": " Up"}}]
    assert read_prompt_tokens({"prompt_logprobs": told}) == [ReadToken(" Up", -9999.0)]
