"""Dataset rows to tokenised rows: the model's chat template, labels on the answer and its end token only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from forecaster.errors import ConfigurationError
from forecaster.modeling.registry import BaseModel, cannot_load
from forecaster.prompts import news_item_spans, split_published, without_oldest_news
from forecaster.records import Messages

IGNORED = -100
"""Label id that the loss leaves out (torch's default `ignore_index`)."""
_TEMPLATE_FOLDER = Path(__file__).parent / "chat_templates"
_TRAINING_COLUMNS = ("input_ids", "labels", "row_id", "tokens")


class TemplateError(Exception):
    """A chat template under which the answer does not follow the prompt."""


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Give the tokenizer the chat template that training and evaluation share, and a pad token; say which.

    The model's own template is kept, but for DeepSeek-R1 models, whose own one hides the answer; models
    without one get the Llama-2 form. The pad token falls back to one that is not the end token, where the
    vocabulary has one: padding is masked by position, never by token id.
    """
    own = tokenizer.chat_template
    if isinstance(own, str) and "</think>" in own and "<｜Assistant｜>" in own:
        name = "deepseek_r1"
    elif own:
        name = "own"
    else:
        name = "llama2"
    if name != "own":
        tokenizer.chat_template = (_TEMPLATE_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    if tokenizer.pad_token is None:
        vocabulary = tokenizer.get_vocab()
        known = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>", tokenizer.unk_token)
        tokenizer.pad_token = next((token for token in known if token in vocabulary), tokenizer.eos_token)
    return name


def load_tokenizer(model: BaseModel, trust_remote_code: bool) -> tuple[PreTrainedTokenizerBase, str]:
    """The model's tokenizer with the template that this run uses, and that template's name."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.location, trust_remote_code=trust_remote_code)
        if tokenizer.eos_token is None:
            raise ValueError("its tokenizer has no end token")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError([cannot_load(model.location, error)]) from error
    tokenizer.padding_side = "right"
    return tokenizer, prepare_tokenizer(tokenizer)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[int]:
    """Token ids of a prompt up to the point where the answer begins, with one BOS where the model has one."""
    return _encode(tokenizer, _render(tokenizer, messages, None))


def prompt_and_answer_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, answer: str
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt, and of the answer with its end token.

    Both are tokenised apart, so that the prompt's ids are exactly those that generation will see.

    Raises:
        TemplateError: the template does not render the answer right behind the prompt.
    """
    prompt_text, answer_text = rendered_parts(tokenizer, messages, answer)
    answer_ids = tokenizer(answer_text, add_special_tokens=False)["input_ids"]
    ends = end_token_ids(tokenizer)
    last_end = max((i for i, token in enumerate(answer_ids) if token in ends), default=None)
    # Templates may end a turn with a line break behind the end token (Qwen2.5); others write no end token at
    # all.
    answer_ids = [*answer_ids, tokenizer.eos_token_id] if last_end is None else answer_ids[: last_end + 1]
    return _encode(tokenizer, prompt_text), answer_ids


def rendered_parts(tokenizer: PreTrainedTokenizerBase, messages: Messages, answer: str) -> tuple[str, str]:
    """The chat template's text up to the answer, and from there on, with what ends a turn.

    Raises:
        TemplateError: the template does not render the answer right behind the prompt.
    """
    prompt_text = _render(tokenizer, messages, None)
    full_text = _render(tokenizer, messages, answer)
    if not full_text.startswith(prompt_text):
        raise TemplateError("The chat template renders another prompt when an answer follows it.")
    return prompt_text, full_text[len(prompt_text) :]


def end_token_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end an answer: the end-of-text token, and the end-of-turn token of the Llama-3 and Qwen
    forms."""
    names = (tokenizer.eos_token, "<|eot_id|>", "<|im_end|>")
    # Not through get_vocab: it builds a dictionary of every token, and this is asked for each row.
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
    return {i for name, i in ids.items() if i is not None and tokenizer.convert_ids_to_tokens(i) == name}


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages, answer: str | None) -> str:
    turns = [{"role": "system", "content": messages.system.strip()}] if messages.system.strip() else []
    turns.append({"role": "user", "content": messages.user.strip()})
    if answer is not None:
        turns.append({"role": "assistant", "content": answer.strip()})
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None))


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a rendered prompt. The template writes the BOS for most models, the tokenizer for others: one
    stays."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:1] != [bos] and tokenizer("")["input_ids"][:1] == [bos]:
        ids.insert(0, bos)
    return ids


@dataclass(frozen=True)
class FittedPrompt:
    """A prompt within its token limit."""

    messages: Messages
    news_dropped: int


def fit(messages: Messages, limit: int, count_tokens: Callable[[Messages], int]) -> FittedPrompt | None:
    """Drop whole news items, oldest first, until `count_tokens` is within `limit`; None when that is not
    enough."""
    available = len(news_item_spans(messages.user))

    def cut(count: int) -> Messages:
        return Messages(messages.system, without_oldest_news(messages.user, count)) if count else messages

    if count_tokens(messages) <= limit:
        return FittedPrompt(messages, 0)
    if available == 0 or count_tokens(cut(available)) > limit:
        return None
    too_few, enough = 0, available
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if count_tokens(cut(middle)) <= limit:
            enough = middle
        else:
            too_few = middle
    return FittedPrompt(cut(enough), enough)


def tokenise_row(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, Any]:
    """One training row: `input_ids` and `labels` (prompt ids replaced by -100), at most `max_length` long.

    A row that does not fit even without news gets empty lists, and `tokens_needed` says what would do.
    """
    messages = split_published(row["prompt"])
    prompt, answer = prompt_and_answer_ids(tokenizer, messages, row["answer"])
    limit = max_length - len(answer)
    # Most rows fit as they are: their prompt is not tokenised once more to count it.
    whole = FittedPrompt(messages, 0) if len(prompt) <= limit else None
    fitted = whole or fit(messages, limit, lambda m: len(prompt_ids(tokenizer, m)))
    if fitted is None:
        bare = Messages(
            messages.system, without_oldest_news(messages.user, len(news_item_spans(messages.user)))
        )
        needed = len(prompt_ids(tokenizer, bare)) + len(answer)
        nothing = {"input_ids": [], "labels": [], "news_dropped": 0, "tokens": 0, "answer_tokens": 0}
        return nothing | {"tokens_needed": needed}
    if fitted.news_dropped:
        prompt = prompt_ids(tokenizer, fitted.messages)
    return {
        "input_ids": prompt + answer,
        "labels": [IGNORED] * len(prompt) + answer,
        "news_dropped": fitted.news_dropped,
        "tokens": len(prompt) + len(answer),
        "answer_tokens": len(answer),
        "tokens_needed": len(prompt) + len(answer),
    }


@dataclass(frozen=True)
class RowReport:
    """What tokenising did to the rows."""

    rows: int
    kept: int
    trimmed: int
    news_items_dropped: int
    dropped_row_ids: tuple[str, ...]
    tokens: int
    answer_tokens: int
    max_length: int
    max_length_that_would_do: int
    """Smallest max_length at which no row would be dropped."""

    def summary(self, name: str) -> str:
        text = (
            f"{name}: {self.kept} of {self.rows} rows, {self.tokens:,} tokens "
            f"({self.answer_tokens:,} of answers); "
            f"{self.trimmed} rows lost {self.news_items_dropped} of their oldest news items, "
            f"{len(self.dropped_row_ids)} rows dropped (longer than --max_length {self.max_length} without "
            "any news)."
        )
        if len(self.dropped_row_ids) > 0.05 * self.rows:
            text += (
                f" WARNING: more than 5 % of the rows are dropped; "
                f"--max_length {self.max_length_that_would_do} would keep them all."
            )
        return text


def tokenise(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[datasets.Dataset, RowReport]:
    """Tokenise all rows through the datasets cache; columns input_ids, labels, row_id and tokens."""
    done = rows.map(
        partial(tokenise_row, tokenizer=tokenizer, max_length=max_length),
        remove_columns=[name for name in rows.column_names if name != "row_id"],
        desc="Tokenising",
    )
    tokens, needed, news_dropped = (
        list(done["tokens"]),
        list(done["tokens_needed"]),
        list(done["news_dropped"]),
    )
    too_long = [i for i, count in enumerate(tokens) if not count]
    report = RowReport(
        rows=len(done),
        kept=len(done) - len(too_long),
        trimmed=sum(1 for count in news_dropped if count),
        news_items_dropped=sum(news_dropped),
        dropped_row_ids=tuple(done.select(too_long)["row_id"]),
        tokens=sum(tokens),
        answer_tokens=sum(done["answer_tokens"]),
        max_length=max_length,
        max_length_that_would_do=max((needed[i] for i in too_long), default=max_length),
    )
    if too_long:
        done = done.select([i for i, count in enumerate(tokens) if count])
    return done.select_columns(list(_TRAINING_COLUMNS)), report
