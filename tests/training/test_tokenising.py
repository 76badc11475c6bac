"""Chat templates and label ids: loss on the answer and its end token, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import pytest
import tiny_tokenizers
from transformers import PreTrainedTokenizerFast

from forecaster.errors import ConfigurationError
from forecaster.models.templates import (
    TemplateError,
    end_token_ids,
    prepare_tokenizer,
    prompt_and_answer_ids,
    prompt_ids,
)
from forecaster.records import Messages
from forecaster.tasks.trimming import fit
from forecaster.tasks.weekly import WEEKLY
from forecaster.training.tokenising import rehearse, tokenise, tokenise_row
from prompts import render_published

ROW = {"prompt": render_published(Messages("be brief", "AAPL?")), "answer": "buy it"}
X = -100


def ids(text: str) -> list[int]:
    return [int(word) for word in text.split()]


@pytest.mark.parametrize(
    ("make", "template", "input_ids", "labels"),
    [
        (
            tiny_tokenizers.llama2,
            "llama2",
            # <s> [INST] <<SYS>>\n be brief \n<</SYS>>\n\n AAPL? [/INST] | buy it </s>
            ids(
                "1  16 18 17 13  20 20 22 21 21 14  7 13 8  14 20 20 19 22 21 21 15  9 10  13 16 19 18 17"
                "  13 11 13 12 2"
            ),
            [X] * 29 + [13, 11, 13, 12, 2],
        ),
        (
            tiny_tokenizers.llama3,
            "own",
            # <|begin_of_text|> system header, be brief, user header, AAPL?, assistant header
            [1, 3, 6, 4, 18, 10, 16, 11, 2, 3, 7, 4, 18, 12, 13, 2, 3, 8, 4, 18, 14, 16, 15, 2],
            [X] * 20 + [14, 16, 15, 2],
        ),
        (
            tiny_tokenizers.deepseek,
            "deepseek_r1",
            # <bos> be brief <User> AAPL? <Assistant> <think> \n\n </think> \n\n | buy it <eos>
            [1, 11, 17, 12, 3, 13, 14, 4, 5, 19, 6, 19, 15, 17, 16, 2],
            [X] * 12 + [15, 17, 16, 2],
        ),
        (
            tiny_tokenizers.qwen,
            "own",
            # no BOS in this family; the line break behind the last <|im_end|> carries no loss and is left out
            [1, 4, 15, 8, 14, 9, 2, 15, 1, 5, 15, 10, 11, 2, 15, 1, 6, 15, 12, 14, 13, 2],
            [X] * 18 + [12, 14, 13, 2],
        ),
    ],
    ids=["llama-2", "llama-3", "deepseek-r1", "qwen2.5"],
)
def test_label_ids_are_the_answer_and_its_end_token(
    make: Callable[[], PreTrainedTokenizerFast], template: str, input_ids: list[int], labels: list[int]
) -> None:
    tokenizer = make()
    assert prepare_tokenizer(tokenizer) == template
    row = tokenise_row(ROW, tokenizer, max_length=64, task=WEEKLY)
    assert row["input_ids"] == input_ids
    assert row["labels"] == labels


@pytest.mark.parametrize("make", [tiny_tokenizers.llama2, tiny_tokenizers.llama3, tiny_tokenizers.deepseek])
def test_there_is_exactly_one_bos(make: Callable[[], PreTrainedTokenizerFast]) -> None:
    tokenizer = make()
    prepare_tokenizer(tokenizer)
    ids = tokenise_row(ROW, tokenizer, 64, WEEKLY)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_template_that_leaves_the_bos_to_the_tokenizer_still_gets_one() -> None:
    tokenizer = tiny_tokenizers.llama3()
    tokenizer.chat_template = tiny_tokenizers.LLAMA3_TEMPLATE.replace("{{ bos_token }}", "")
    ids = prompt_ids(tokenizer, Messages("be brief", "AAPL?"))
    assert ids[:2] == [1, 3]


def test_generation_sees_the_prompt_that_training_saw() -> None:
    for make in (
        tiny_tokenizers.llama2,
        tiny_tokenizers.llama3,
        tiny_tokenizers.deepseek,
        tiny_tokenizers.qwen,
    ):
        tokenizer = make()
        prepare_tokenizer(tokenizer)
        messages = Messages("be brief", "AAPL?")
        trained, _ = prompt_and_answer_ids(tokenizer, messages, "buy it")
        assert prompt_ids(tokenizer, messages) == trained


def test_a_template_that_renders_another_prompt_for_training_is_refused() -> None:
    tokenizer = (
        tiny_tokenizers.deepseek()
    )  # its own template: generation begins with <think>, training does not
    with pytest.raises(TemplateError, match="another prompt"):
        prompt_and_answer_ids(tokenizer, Messages("be brief", "AAPL?"), "buy it")


def test_a_prompt_without_system_part_has_no_system_turn() -> None:
    tokenizer = tiny_tokenizers.qwen()
    assert prompt_ids(tokenizer, Messages("", "AAPL?")) == [1, 5, 15, 10, 11, 2, 15, 1, 6, 15]


def test_end_of_turn_and_end_of_text_both_end_an_answer() -> None:
    assert end_token_ids(tiny_tokenizers.qwen()) == {2}
    assert end_token_ids(tiny_tokenizers.llama3()) == {2}


def news_prompt(items: int) -> str:
    news = "\n\n".join(f"[Headline]: buy {i}\n[Summary]: it" for i in range(items))
    user = f"From 2024-01-07 to 2024-01-14, AAPL rose. News:\n\n{news}\n\n[Basic Financials]:\n\nbe: 1"
    return render_published(Messages("be brief", user))


def test_a_long_row_loses_whole_news_items_oldest_first_and_never_its_answer() -> None:
    tokenizer = tiny_tokenizers.llama2()
    prepare_tokenizer(tokenizer)
    whole = tokenise_row({"prompt": news_prompt(4), "answer": "buy it"}, tokenizer, 10_000, WEEKLY)
    two_left = render_published(
        Messages(
            "be brief",
            "From 2024-01-07 to 2024-01-14, AAPL rose. News:\n\n[Headline]: buy 2\n[Summary]: it\n\n"
            "[Headline]: buy 3\n[Summary]: it\n\n[Basic Financials]:\n\nbe: 1",
        )
    )
    expected = tokenise_row({"prompt": two_left, "answer": "buy it"}, tokenizer, 10_000, WEEKLY)
    # One token less than three items need.
    three_left_tokens = (whole["tokens"] + 3 * expected["tokens"]) // 4 + (
        whole["tokens"] - expected["tokens"]
    ) // 4
    trimmed = tokenise_row(
        {"prompt": news_prompt(4), "answer": "buy it"}, tokenizer, three_left_tokens - 1, WEEKLY
    )
    assert trimmed["news_dropped"] == 2
    assert trimmed["input_ids"] == expected["input_ids"]
    assert trimmed["labels"][-5:] == [13, 11, 13, 12, 2]


def test_fit_keeps_as_much_news_as_the_limit_allows() -> None:
    user = news_prompt(5)
    counts = {items: len(without) for items in range(6) if (without := news_prompt(items))}
    kept = fit(WEEKLY, Messages("", user), counts[3], lambda messages: len(messages.user))
    assert kept is not None
    assert kept.news_dropped == 2
    assert fit(WEEKLY, Messages("", user), 10, lambda messages: len(messages.user)) is None


def test_rows_that_do_not_fit_are_dropped_counted_and_told_what_would_do() -> None:
    tokenizer = tiny_tokenizers.llama2()
    prepare_tokenizer(tokenizer)
    rows = datasets.Dataset.from_list(
        [
            {"prompt": news_prompt(0), "answer": "buy it " * 40, "row_id": "a#0"},
            {"prompt": news_prompt(3), "answer": "buy it", "row_id": "a#1"},
            {"prompt": news_prompt(0), "answer": "buy it", "row_id": "a#2"},
        ]
    )
    bare = tokenise_row(rows[2], tokenizer, 10_000, WEEKLY)["tokens"]
    kept, report = tokenise(rows, tokenizer, bare, WEEKLY)
    assert list(kept["row_id"]) == ["a#1", "a#2"]
    assert (report.rows, report.kept, report.trimmed, report.news_items_dropped) == (3, 2, 1, 3)
    assert report.dropped_row_ids == ("a#0",)
    assert report.answer_tokens == 10
    needed = report.max_length_that_would_do
    assert f"--max_length {needed} would keep them all" in report.summary("Training")
    assert tokenise(rows, tokenizer, needed, WEEKLY)[1].kept == 3
    assert tokenise(rows, tokenizer, needed - 1, WEEKLY)[1].kept == 2


FAILS_LATER = tiny_tokenizers.LLAMA3_TEMPLATE.replace(
    "{{ m.content }}", "{% if 'odd' in m.content %}{{ raise_exception('odd') }}{% endif %}{{ m.content }}"
)


def tokenise_parts(parts: dict[str, datasets.Dataset], *how: Any) -> None:
    for rows in parts.values():
        tokenise(rows, *how)


@pytest.mark.parametrize("work", [tokenise_parts, rehearse], ids=["run", "dry run"])
def test_a_template_that_fails_in_a_later_row_is_told_with_split_and_row(
    work: Callable[..., object],
) -> None:
    tokenizer = tiny_tokenizers.llama3()
    tokenizer.chat_template, tokenizer.name_or_path = FAILS_LATER, "my/model"
    odd = {"prompt": render_published(Messages("be brief", "odd?")), "answer": "buy it"}
    rows = [{**row, "row_id": f"rows.jsonl:test#{at}"} for at, row in enumerate([ROW, ROW, odd])]
    parts = {"train": datasets.Dataset.from_list(rows[:2]), "test": datasets.Dataset.from_list(rows)}
    with pytest.raises(ConfigurationError) as refused:
        work(parts, tokenizer, 200, WEEKLY)
    assert [str(problem) for problem in refused.value.problems] == [
        "--base_model: the chat template of my/model fails in row rows.jsonl:test#2: it cannot be rendered "
        "(odd). Mend chat_template in its tokenizer_config.json (or chat_template.jinja), or take another. "
        "Or leave the row out."
    ]
