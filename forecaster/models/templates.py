"""Chat templates: the text and the token ids that training, benchmark and forecast share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from forecaster.errors import ConfigurationError, Problem
from forecaster.models.registry import BaseModel, cannot_load
from forecaster.processes import fault_apart
from forecaster.records import Messages
from forecaster.schemas import read_checked

_TEMPLATE_FOLDER = Path(__file__).parent / "chat_templates"


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
    """The model's tokenizer with the template that this run uses, and that template's name.

    Raises:
        ConfigurationError: it cannot be loaded, or its template not be rendered.
    """
    check_tokenizer(model.location, trust_remote_code, prepare_tokenizer)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.location, trust_remote_code=trust_remote_code)
        if tokenizer.eos_token is None:
            raise ValueError("its tokenizer has no end token")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError([cannot_load(model.location, str(error))]) from error
    tokenizer.padding_side = "right"
    return tokenizer, prepare_tokenizer(tokenizer)


def load_saved_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer and chat template that a training saved, padding on the left as generation needs.

    Raises:
        ConfigurationError: with the file, and what is wrong with it.
    """
    check_tokenizer(str(folder), trust_remote_code, where="--adapter")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    tokenizer.padding_side = "left"
    return tokenizer


# --- what may come from anyone ------------------------------------------------------------------------------

STAND_IN = Messages("You are a market analyst. " * 20, "[Headline]: A word and a number, 5 %.\n" * 200)
"""As long as the prompt of a row."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


def check_tokenizer(
    location: str,
    trust_remote_code: bool,
    prepare: Callable[[PreTrainedTokenizerBase], object] = lambda _: None,
    where: str = "--base_model",
) -> None:
    """Load a tokenizer and render a prompt, without and with its answer, in a process of its own.

    A template is a program: one that never ends or fills the memory ends there, and so does a tokenizer whose
    file its library cannot bear.

    Args:
        prepare: what a run does to the tokenizer before it renders.
        where: the flag that names it.

    Raises:
        ConfigurationError: with the file, and what is wrong with it.
    """
    folder, way_out = Path(location), "Take a whole copy, or name another model."
    for name in _TOKENIZER_FILES:
        if (folder / name).exists():
            read_checked(folder / name, dict[str, Any], way_out)

    def load() -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(location, trust_remote_code=trust_remote_code)

    def use() -> None:
        tokenizer = load()
        prepare(tokenizer)
        for answer in (None, "An answer."):
            _encode(tokenizer, _render(tokenizer, STAND_IN, answer))

    fault = fault_apart(use)
    if fault is None:
        return
    if load_fault := fault_apart(lambda: [load()].clear()):
        raise ConfigurationError([cannot_load(location, load_fault, where)])
    own = (folder / name for name in _TEMPLATE_FILES if (folder / name).is_file())
    file = next(own, folder / "tokenizer_config.json") if folder.is_dir() else folder
    found = f"its chat template cannot be rendered ({fault})."
    raise ConfigurationError([Problem(str(file), found, way_out)])


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
