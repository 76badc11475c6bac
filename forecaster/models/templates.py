"""Chat templates: the text and the token ids that training, benchmark and forecast share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import jinja2
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from forecaster.errors import ConfigurationError, Problem
from forecaster.models.base_schemas import check_small_files
from forecaster.models.hub_files import check_hub_files, fetch_small_files
from forecaster.models.registry import BaseModel, cannot_load
from forecaster.models.template_forms import FORMS, TEMPLATE_DAY, with_day, with_generation_prompt
from forecaster.processes import fault_apart
from forecaster.records import Messages
from prompts import break_markers, marker_pattern

_TEMPLATE_FOLDER = Path(__file__).parent / "chat_templates"
_RENDERING_FAULTS = (
    *(jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
    RecursionError,
)
"""What a template that cannot take some messages raises: its own word, or a fault of its expressions."""
# With line breaks: a template that prints a list of parts would change them.
_TRIAL, _TRIAL_ANSWER = Messages("a system\ntext", "a user\ntext"), "an\nanswer"
_FRAME_MARKER = re.compile(r"<{1,2}[^<>\s'\"{}()=+,;]{1,60}>{1,2}|\[/?[A-Z_]{3,40}\]")
"""What a template writes around the parts of a conversation: `<|user|>`, `<<SYS>>`, `[/INST]`."""


class TemplateError(Exception):
    """What a chat template does to a row that it should not, as a part of a sentence after "it"."""


# --- which template -----------------------------------------------------------------------------------------


def prepare_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Give the tokenizer the chat template that training and evaluation share, and a pad token; say which.

    The model's own template is kept, but for DeepSeek-R1 models, whose own one hides the answer; models
    without one get the Llama-2 form. An own template that asks for the day is told `TEMPLATE_DAY`, and one
    that loses a part of a row is brought into the first form that keeps them all; where none does,
    `check_template` tells. The pad token falls back to one that is not the end token, where the vocabulary
    has one: padding is masked by position, never by token id.
    """
    own = default_template(tokenizer)
    if "</think>" in own and "<｜Assistant｜>" in own:
        name = "deepseek_r1"
    elif own:
        name = "own"
    else:
        name = "llama2"
    if name == "own":
        name = ", ".join([name, *fix_day(tokenizer), *_keep_all_parts(tokenizer)])
    else:
        tokenizer.chat_template = (_TEMPLATE_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    if tokenizer.pad_token is None:
        vocabulary = tokenizer.get_vocab()
        known = ("<|finetune_right_pad_id|>", "<|endoftext|>", "<pad>", tokenizer.unk_token)
        tokenizer.pad_token = next((token for token in known if token in vocabulary), tokenizer.eos_token)
    return name


def default_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template that is used where a tokenizer has several; empty where it has none."""
    found = tokenizer.chat_template or ""
    return str(found if isinstance(found, str) else found.get("default") or next(iter(found.values()), ""))


def fix_day(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Have a template that asks for the day write `TEMPLATE_DAY`, on every day; says so."""
    own = default_template(tokenizer)
    if (dated := with_day(own)) == own:
        return []
    tokenizer.chat_template = dated
    return [f"dated {TEMPLATE_DAY}"]


def _keep_all_parts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Bring the template into the first form that keeps every part of a row; says what it took."""
    as_it_is, template = tokenizer.chat_template, default_template(tokenizer)
    if not isinstance(as_it_is, str) and "default" not in as_it_is:
        as_it_is = template  # of several without a default none would be taken
    for name, prefix in FORMS:
        tokenizer.chat_template = prefix + template if prefix else as_it_is
        if not _faults(tokenizer, _TRIAL, _TRIAL_ANSWER):
            return [name] * bool(name) + _announce_answer(tokenizer)
    tokenizer.chat_template = as_it_is
    return []


def _announce_answer(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Have a template that takes no notice of `add_generation_prompt` end a prompt as it begins an answer."""
    turns = _turns(_TRIAL, None)
    prompt = _apply(tokenizer, turns, add_generation_prompt=True)
    behind = _render(tokenizer, _TRIAL, _TRIAL_ANSWER)[len(prompt) :]
    header = behind[: behind.index(_TRIAL_ANSWER)]
    if not header.strip() or prompt != _apply(tokenizer, turns, add_generation_prompt=False):
        return []
    tokenizer.chat_template = with_generation_prompt(default_template(tokenizer), header)
    return ["with a generation prompt"]


def load_tokenizer(model: BaseModel, trust_remote_code: bool) -> tuple[PreTrainedTokenizerBase, str]:
    """The model's tokenizer with the template that this run uses, and that template's name.

    Raises:
        ConfigurationError: it cannot be loaded, or its template not be rendered.
    """
    if not model.is_local:
        # Here, as what comes next has a process and little time of its own.
        small_files = fetch_small_files(model.location)
        if isinstance(small_files, str):
            raise ConfigurationError([cannot_load(model.location, small_files)])
        check_hub_files(model.location, small_files)
    check_tokenizer(model.location, trust_remote_code, prepare_tokenizer)
    try:
        tokenizer = AutoTokenizer.from_pretrained(model.location, trust_remote_code=trust_remote_code)
        if tokenizer.eos_token is None:
            raise ValueError("its tokenizer has no end token")
        tokenizer.padding_side = "right"
        name = prepare_tokenizer(tokenizer)
        _check_token_numbers(tokenizer, model)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError([cannot_load(model.location, str(error))]) from error
    return tokenizer, name


def _check_token_numbers(tokenizer: PreTrainedTokenizerBase, model: BaseModel) -> None:
    """Raises ValueError for a token of every row that lies behind the end of the embedding; others that the
    tokenizer's class adds there are never met."""
    size = model.shape.vocab_size if model.shape else None
    for token in (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token):
        number = None if token is None else tokenizer.convert_tokens_to_ids(token)
        if size is not None and number is not None and number >= size:
            raise ValueError(f"its token {token!r} is number {number}, and vocab_size {size}")


def load_saved_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer and chat template that a training saved, padding on the left as generation needs.

    Raises:
        ConfigurationError: with the file, and what is wrong with it.
    """
    check_tokenizer(str(folder), trust_remote_code, where="--adapter")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    fix_day(tokenizer)  # for a run that is older than the day in its template
    tokenizer.padding_side = "left"
    return tokenizer


# --- what may come from anyone ------------------------------------------------------------------------------

STAND_IN = Messages("You are a market analyst. " * 20, "[Headline]: A word and a number, 5 %.\n" * 200)
"""As long as the prompt of a row."""
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
    check_small_files(folder, way_out)

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


def check_template(
    tokenizer: PreTrainedTokenizerBase,
    messages: Messages,
    answer: str,
    model: object,
    where: str = "--base_model",
) -> None:
    """Look for system, user and answer in what the template makes of a row.

    Args:
        model: as the flag `where` names it.

    Raises:
        ConfigurationError: a part is lost, changed or written twice, or the answer does not follow the
            prompt.
    """
    if faults := _faults(tokenizer, messages, answer):
        raise ConfigurationError([Problem(where, f"the chat template of {model} {_and(faults)}.", _MEND)])


@contextmanager
def naming_row(row: str, model: object, where: str = "--base_model") -> Iterator[None]:
    """Tell a fault of the template with the row that it has it in, which others need not have.

    Args:
        row: its split and number, and what else is known of it.
        model: as the flag `where` names it.

    Raises:
        ConfigurationError: instead of TemplateError.
    """
    try:
        yield
    except TemplateError as error:
        found = f"the chat template of {model} fails in row {row}: it {error}."
        raise ConfigurationError([Problem(where, found, f"{_MEND} Or leave the row out.")]) from error


_MEND = "Mend chat_template in its tokenizer_config.json (or chat_template.jinja), or take another."


def _and(faults: Iterable[str]) -> str:
    return "; it ".join(faults)


def _cannot_render(error: Exception) -> str:
    return f"cannot be rendered ({' '.join(str(error).split())[:200]})"


def _faults(tokenizer: PreTrainedTokenizerBase, messages: Messages, answer: str) -> list[str]:
    """What a template does to a row that it should not; each part is looked for whole, between marks of its
    own, so that a word of the template cannot pass for it."""
    parts = {"system text": messages.system, "user text": messages.user, "answer": answer}
    marked = {
        name: f"({name} begins) {break_markers(text.strip(), markers(tokenizer))} ({name} ends)"
        for name, text in parts.items()
        if text.strip()
    }
    try:
        asked = Messages(marked.get("system text", ""), marked.get("user text", ""))
        prompt = _render(tokenizer, asked, None)
        full = _render(tokenizer, asked, marked.get("answer", ""))
    except _RENDERING_FAULTS as error:
        return [_cannot_render(error)]
    faults = []
    for name, text in marked.items():
        for rendered in (full,) if name == "answer" else (prompt, full):
            if rendered.count(text) != 1 or rendered.count(f"({name} begins)") != 1:
                how = "repeats" if rendered.count(f"({name} begins)") > 1 else "loses or changes"
                faults.append(f"{how} the {name}")
    if not full.startswith(prompt):
        faults.append("writes another prompt when an answer follows it")
    return list(dict.fromkeys(faults))


@lru_cache(maxsize=4)
def _markers_of(tokenizer: PreTrainedTokenizerBase, template: str) -> re.Pattern[str]:
    added = tokenizer.added_tokens_decoder.values()
    found = {str(token) for token in added if token.special or _is_bracketed(str(token))}
    found |= {str(token) for token in tokenizer.all_special_tokens}
    found |= set(_FRAME_MARKER.findall(template))
    with suppress(*_RENDERING_FAULTS):
        # Names of roles and the like, which the template puts together.
        found |= set(_FRAME_MARKER.findall(_apply(tokenizer, _turns(_TRIAL, _TRIAL_ANSWER), False)))
    return marker_pattern(found)


def _is_bracketed(token: str) -> bool:
    """Whether an added token is a sign between texts, as `<think>` is, and not a run of letters or spaces."""
    return len(token) > 2 and not any(c.isalnum() or c.isspace() for c in (token[0], token[-1]))


def markers(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """What no text from outside may hold when it is rendered: the tokenizer's control tokens, and what the
    template writes around the parts of a conversation."""
    return _markers_of(tokenizer, default_template(tokenizer))


def holds_markers(tokenizer: PreTrainedTokenizerBase, messages: Messages, answer: str = "") -> bool:
    """Whether rendering has to break a marker of this tokenizer or template in these texts."""
    return any(map(markers(tokenizer).search, (messages.system, messages.user, answer)))


# --- texts and ids ------------------------------------------------------------------------------------------


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[int]:
    """Token ids of a prompt up to the point where the answer begins, with one BOS where the model has one.

    Raises:
        TemplateError: the template cannot render it.
    """
    return _encode(tokenizer, _rendered(tokenizer, messages, None))


def prompt_and_answer_ids(
    tokenizer: PreTrainedTokenizerBase, messages: Messages, answer: str
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt, and of the answer with its end token.

    Both are tokenised apart, so that the prompt's ids are exactly those that generation will see.

    Raises:
        TemplateError: as for `rendered_parts`.
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
        TemplateError: the template cannot render the row, loses or repeats a part of it, or does not render
            the answer right behind the prompt.
    """
    prompt_text = _rendered(tokenizer, messages, None)
    full_text = _rendered(tokenizer, messages, answer)
    if not full_text.startswith(prompt_text):
        raise TemplateError("writes another prompt when an answer follows it")
    behind = full_text[len(prompt_text) :]
    times = {
        name: rendered.count(break_markers(text.strip(), markers(tokenizer)))
        for name, text, rendered in (
            ("system text", messages.system, prompt_text),
            ("user text", messages.user, prompt_text),
            ("answer", answer, behind),
        )
        if text.strip()
    }
    # A short text may well be a part of another one: what is there twice is looked for between marks.
    if any(count != 1 for count in times.values()):
        lost = [f"loses or changes the {name}" for name, count in times.items() if not count]
        if faults := lost or _faults(tokenizer, messages, answer):
            raise TemplateError(_and(faults))
    return prompt_text, behind


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: Messages, answer: str | None) -> str:
    try:
        return _render(tokenizer, messages, answer)
    except _RENDERING_FAULTS as error:
        raise TemplateError(_cannot_render(error)) from error


def end_token_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end an answer: the end-of-text token, and the end-of-turn token of the Llama-3 and Qwen
    forms."""
    names = (tokenizer.eos_token, "<|eot_id|>", "<|im_end|>")
    # Not through get_vocab: it builds a dictionary of every token, and this is asked for each row.
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in names}
    return {i for name, i in ids.items() if i is not None and tokenizer.convert_ids_to_tokens(i) == name}


def _render(tokenizer: PreTrainedTokenizerBase, messages: Messages, answer: str | None) -> str:
    plain = markers(tokenizer)
    turns = _turns(
        Messages(break_markers(messages.system, plain), break_markers(messages.user, plain)),
        None if answer is None else break_markers(answer, plain),
    )
    return _apply(tokenizer, turns, add_generation_prompt=answer is None)


def _turns(messages: Messages, answer: str | None) -> list[dict[str, str]]:
    turns = [{"role": "system", "content": messages.system.strip()}] if messages.system.strip() else []
    turns.append({"role": "user", "content": messages.user.strip()})
    if answer is not None:
        turns.append({"role": "assistant", "content": answer.strip()})
    return turns


def _apply(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, str]], add_generation_prompt: bool
) -> str:
    return str(
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    )


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a rendered prompt. The template writes the BOS for most models, the tokenizer for others: one
    stays."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    if bos is not None and ids[:1] != [bos] and tokenizer("")["input_ids"][:1] == [bos]:
        ids.insert(0, bos)
    return ids
