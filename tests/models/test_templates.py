"""Chat templates that lose a part, repeat one, or say the day; and texts that look like control tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import pytest
import tiny_tokenizers
import trl
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from forecaster.errors import ConfigurationError
from forecaster.models.registry import BaseModel, resolve
from forecaster.models.template_forms import with_day
from forecaster.models.templates import (
    TemplateError,
    check_template,
    holds_markers,
    load_tokenizer,
    prepare_tokenizer,
    prompt_and_answer_ids,
    prompt_ids,
    rendered_parts,
)
from forecaster.records import Messages
from forecaster.tasks.weekly import WEEKLY
from forecaster.training.tokenising import tokenise_row
from prompts import render_published

ROOT = Path(__file__).resolve().parents[2]
ASKED = Messages("be brief", "AAPL?")


def ids(text: str) -> list[int]:
    return [int(word) for word in text.split()]


def llama3(template: str) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizers.llama3()
    tokenizer.chat_template = template
    return tokenizer


def embedded() -> PreTrainedTokenizerFast:
    return load_tokenizer(BaseModel(str(ROOT / "sample" / "base"), True), trust_remote_code=False)[0]


# --- a part that is lost or repeated ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "name", "prompt", "answer"),
    [
        (
            tiny_tokenizers.NO_SYSTEM_TEMPLATE,
            "own, system text in front of the user's",
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nbe brief\n\nAAPL?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "buy it<|eot_id|>",
        ),
        (
            tiny_tokenizers.DROPS_SYSTEM_TEMPLATE,
            "own, system text in front of the user's",
            "<|begin_of_text|>[INST]be brief\n\nAAPL?[/INST]",
            "buy it<|eot_id|>",
        ),
        (
            tiny_tokenizers.SYSTEM_WITH_THE_LAST_USER_TEMPLATE,
            "own, system text in front of the user's",
            "<|begin_of_text|>[INST]be brief\n\nAAPL?[/INST]",
            "buy it<|eot_id|>",
        ),
        (
            tiny_tokenizers.PARTS_TEMPLATE,
            "own, content as parts",
            "<|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nAAPL?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "buy it<|eot_id|>",
        ),
        (
            tiny_tokenizers.THINKING_TEMPLATE,
            "own, without thinking",
            "<|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nAAPL?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nthink / think",
            "buy it<|eot_id|>",
        ),
        (
            tiny_tokenizers.NO_GENERATION_PROMPT_TEMPLATE,
            "own, with a generation prompt",
            "<|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nAAPL?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "buy it<|eot_id|>",
        ),
    ],
    ids=["no system role", "drops system", "system with the last user", "parts", "thinking", "no prompt"],
)
def test_a_template_that_loses_a_part_is_brought_into_a_form_that_keeps_it(
    tmp_path: Path, template: str, name: str, prompt: str, answer: str
) -> None:
    tokenizer = llama3(template)
    assert prepare_tokenizer(tokenizer) == name
    assert rendered_parts(tokenizer, ASKED, "buy it") == (prompt, answer)
    check_template(tokenizer, ASKED, "buy it", "a model")
    tokenizer.save_pretrained(tmp_path)  # what a benchmark and a forecast load has the form in it
    assert rendered_parts(AutoTokenizer.from_pretrained(tmp_path), ASKED, "buy it") == (prompt, answer)


def test_of_several_templates_without_a_default_the_first_is_used() -> None:
    tokenizer = tiny_tokenizers.llama3()
    tokenizer.chat_template = {"tool_use": tiny_tokenizers.DROPS_SYSTEM_TEMPLATE}
    assert prepare_tokenizer(tokenizer) == "own, system text in front of the user's"
    assert rendered_parts(tokenizer, ASKED, "buy it")[0] == "<|begin_of_text|>[INST]be brief\n\nAAPL?[/INST]"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ bos_token }}{{ messages[0].content }}", "it loses or changes the answer"),
        (
            "{% for m in messages %}{{ m.content }}{% if m.role == 'user' %}{{ m.content }}{% endif %}"
            "{% endfor %}",
            "my/model repeats the user text.",
        ),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "loses or changes the user text"),
        ("{% for m in messages %}{{ m.content[:30] }}{% endfor %}", "loses or changes the user text"),
        ("{% for m in messages %}{{ m.text + 'x' }}{% endfor %}", "cannot be rendered"),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}SYS{% endif %}",
            "writes another prompt when an answer follows it.",
        ),
    ],
    ids=["user and answer", "user twice", "upper case", "cut", "no such field", "another prompt"],
)
def test_a_template_that_cannot_be_helped_is_refused(template: str, told: str) -> None:
    tokenizer = llama3(template)
    prepare_tokenizer(tokenizer)
    with pytest.raises(ConfigurationError) as refused:
        check_template(tokenizer, ASKED, "buy it", "my/model")
    (problem,) = refused.value.problems
    assert problem.where == "--base_model"
    assert problem.found.startswith("the chat template of my/model ")
    assert told in problem.found


TRL_TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))


def test_every_template_that_trl_ships_keeps_system_user_and_answer() -> None:
    assert len(TRL_TEMPLATES) > 50
    asked = Messages("The system text.", "The user text, with\n\n[Headline]: two parts.")
    tokenizer = tiny_tokenizers.llama3()
    for path in TRL_TEMPLATES:
        tokenizer.chat_template = path.read_text(encoding="utf-8")
        prepare_tokenizer(tokenizer)
        check_template(tokenizer, asked, "The answer.", path.name)
        prompt, answer = rendered_parts(tokenizer, asked, "The answer.")
        assert [prompt.count(part) for part in (asked.system, asked.user)] == [1, 1], path.name
        assert answer.count("The answer.") == 1, path.name


# --- the day ------------------------------------------------------------------------------------------------


class AnotherDay(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime(2031, 5, 6, 7, 8, 9)


def test_a_template_that_says_the_day_says_the_same_one_on_every_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = llama3(tiny_tokenizers.DATED_TEMPLATE)
    assert prepare_tokenizer(tokenizer) == "own, dated 2024-07-26"
    today = rendered_parts(tokenizer, ASKED, "buy it")
    assert "<|begin_of_text|>Today Date: 26 Jul 2024 00:00:00\n<|start_header_id|>system" in today[0]
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(chat_template_utils, "datetime", AnotherDay)
    assert rendered_parts(tokenizer, ASKED, "buy it") == today
    assert rendered_parts(AutoTokenizer.from_pretrained(tmp_path), ASKED, "buy it") == today


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ strftime_now('%Y-%m-%d') }}", "2024-07-26"),
        ("{{ strftime_now('%A, %-d %B %Y, %I:%M %p, day %j') }}", "Friday, 26 July 2024, 12:00 AM, day 208"),
        ("\n {{ strftime_now('%y/%-m') }}", "\n 24/7"),
        ("{% set f = '%d %b' %}{% macro day() %}{{ strftime_now(f) }}{% endmacro %}{{ day() }}", "26 Jul"),
        ("{{ date_string }}", "26 Jul 2024"),
        (
            "{% if not date_string is defined %}{% set date_string = '1 Jan' %}{% endif %}{{ date_string }}",
            "1 Jan",
        ),
        ("no day", "no day"),
    ],
)
def test_every_way_to_ask_for_the_day_gets_it(template: str, text: str) -> None:
    dated = with_day(template, date(2024, 7, 26))
    assert with_day(dated) == dated
    tokenizer = llama3(dated)
    assert tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False) == text


# --- control tokens in texts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "user", "answer", "input_ids"),
    [
        (
            tiny_tokenizers.llama3,
            "buy<|eot_id|>it",
            "it<|end_of_text|>",
            # system header, be brief; user header, buy < | eot_id | > it; assistant header, it < | ... | >
            ids("1  3 6 4 18 10 16 11 2  3 7 4 18 14 23 16 0 0 0 24 15 2  3 8 4 18 15 23 16 0 0 0 24 2"),
        ),
        (
            tiny_tokenizers.qwen,
            "buy<|im_end|>it",
            "it<|im_start|>",
            ids("1 4 15 8 14 9 2 15  1 5 15 12 21 14 0 0 0 22 13 2 15  1 6 15 13 21 14 0 0 0 22 2"),
        ),
        (
            tiny_tokenizers.llama2,
            "buy[/INST]it",
            "it</s>",
            # <s> [INST] <<SYS>>\n be brief \n<</SYS>>\n\n buy [ /INST] it [/INST] | it < /s> </s>
            ids(
                "1  16 18 17 13 20 20 22 21 21 14 7 13 8 14 20 20 19 22 21 21 15"
                "  11 16 13 19 18 17 12 13 16 19 18 17  13 12 20 13 19 0 21 2"
            ),
        ),
        (
            tiny_tokenizers.deepseek,
            "<think>it",
            "</think>it",
            [1, 11, 17, 12, 3, 24, 17, 10, 25, 16, 4, 5, 19, 6, 19, 24, 17, 23, 10, 25, 16, 2],
        ),
    ],
    ids=["llama-3", "qwen2.5", "llama-2", "deepseek-r1"],
)
def test_control_tokens_in_texts_are_tokenised_as_text(
    make: Callable[[], PreTrainedTokenizerFast], user: str, answer: str, input_ids: list[int]
) -> None:
    tokenizer = make()
    prepare_tokenizer(tokenizer)
    asked = Messages("be brief", user)
    prompt, answered = prompt_and_answer_ids(tokenizer, asked, answer)
    assert prompt + answered == input_ids
    assert prompt_ids(tokenizer, asked) == prompt
    row = {"prompt": render_published(asked), "answer": answer}
    tokenised = tokenise_row(row, tokenizer, 100, WEEKLY)
    assert (tokenised["input_ids"], tokenised["has_markers"]) == (input_ids, True)


EVERY_MARKER = (
    "<s></s><unk>[INST][/INST]<<SYS>><</SYS>><<</s>s></s>><s<s>>[[/INST]/INST]<think></think><|im_end|>"
)


def test_the_embedded_tokenizer_has_its_control_tokens_from_the_template_alone() -> None:
    tokenizer = embedded()
    plain = prompt_and_answer_ids(tokenizer, Messages("be brief", "AAPL?"), "buy it")
    hostile = prompt_and_answer_ids(
        tokenizer, Messages(f"be {EVERY_MARKER} brief", f"AAPL?{EVERY_MARKER}x"), f"buy {EVERY_MARKER} it"
    )
    special = set(tokenizer.all_special_ids)
    for clean, marked in zip(plain, hostile, strict=True):
        assert [i for i in marked if i in special] == [i for i in clean if i in special]
    text = tokenizer.decode(hostile[0])
    assert text.count("[/INST]") == text.count("<<SYS>>") == 1
    assert "< |im_end|>" not in text  # no token of this model, nor a sign of its template
    assert not holds_markers(tokenizer, Messages("be brief", "AAPL? a<b [News] <|im_end|>"), "[Prediction]")


def test_tokens_that_are_letters_or_spaces_are_no_markers() -> None:
    tokenizer = tiny_tokenizers.llama3()
    tokenizer.add_tokens(["buy", "   ", "ö", "<tool>"])
    assert not holds_markers(tokenizer, Messages("buy   ö", "it"))
    assert holds_markers(tokenizer, Messages("", "a <tool>"))


def test_a_token_that_the_configuration_adds_behind_the_embedding_is_told(tmp_path: Path) -> None:
    base = shutil.copytree(ROOT / "sample" / "base", tmp_path / "base")
    config = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": "<over>"}))
    model = resolve(str(base))
    assert isinstance(model, BaseModel)
    with pytest.raises(ConfigurationError, match="its token '<over>' is number 1314, and vocab_size 1314"):
        load_tokenizer(model, trust_remote_code=False)


def test_a_token_that_the_tokenizers_class_adds_and_no_row_holds_is_no_fault(tmp_path: Path) -> None:
    base = shutil.copytree(ROOT / "sample" / "base", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))
    model = resolve(str(base))
    assert isinstance(model, BaseModel)
    tokenizer, _ = load_tokenizer(model, trust_remote_code=False)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 0)


@pytest.mark.parametrize(
    ("template", "messages", "told"),
    [
        (
            "{% for m in messages %}{{ m.content }}{% if 'crash' in m.content %}"
            "{{ raise_exception('No crashes.') }}{% endif %}{% endfor %}",
            Messages("be brief", "a crash?"),
            "cannot be rendered (No crashes.)",
        ),
        (
            "{% for m in messages %}{{ m.content.split('|')[0] }}{% endfor %}",
            Messages("be brief", "AAPL | MSFT?"),
            "loses or changes the user text",
        ),
        (
            "{% for m in messages %}{{ m.content[:40] }}{% endfor %}",
            Messages("be brief", "AAPL? " * 10),
            "loses or changes the user text",
        ),
        (
            "{% for m in messages %}{{ m.content }}{% if 'twice' in m.content %}{{ m.content }}{% endif %}"
            "{% endfor %}",
            Messages("be brief", "twice?"),
            "repeats the user text",
        ),
        (
            "{% for m in messages %}{% if m.content | length > 8 or m.role == 'user' %}{{ m.content }}"
            "{% endif %}{% endfor %}",
            Messages("briefly", "AAPL?"),
            "loses or changes the system text; it loses or changes the answer",
        ),
        (
            "{% for m in messages %}{% if 'odd' in m.content %}{{ 1 // 0 }}{% endif %}{{ m.content }}"
            "{% endfor %}",
            Messages("be brief", "odd?"),
            "cannot be rendered (integer division or modulo by zero)",
        ),
    ],
    ids=["raises", "cuts at a sign", "cuts a long one", "repeats", "drops a short one", "a fault of its own"],
)
def test_a_template_that_fails_in_a_later_row_says_what_it_does(
    template: str, messages: Messages, told: str
) -> None:
    tokenizer = llama3(template)
    assert rendered_parts(tokenizer, Messages("be brief today", "AAPL?"), "buy it now")[1] == "buy it now"
    with pytest.raises(TemplateError) as fault:
        rendered_parts(tokenizer, messages, "buy it")
    assert str(fault.value) == told


def test_a_short_text_that_is_part_of_another_one_is_not_repeated() -> None:
    tokenizer = llama3("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")
    prompt, answer = rendered_parts(tokenizer, Messages("buy user AAPL", "AAPL"), "s")
    assert (prompt, answer) == ("[system] buy user AAPL\n[user] AAPL\n", "[assistant] s\n")
