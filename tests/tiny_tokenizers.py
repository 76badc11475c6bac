"""Small tokenizers, one per chat template family, whose ids can be written out by hand."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

WORDS = ("be", "brief", "AAPL", "?", "buy", "it", " ", "\n", "\n\n", "[", "]", "INST", "/", "<", ">", "SYS")
ROLES = ("system", "user", "assistant", "think")

LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As the maker's: opens a think block behind the prompt, and cuts what stands before </think> out of answers.
DEEPSEEK_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
    "<｜Assistant｜>{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>"
    "{% elif m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)


def make(
    special: tuple[str, ...], bos: str | None, eos: str, template: str | None
) -> PreTrainedTokenizerFast:
    """Word-level tokenizer: ids in the order special tokens, ROLES, WORDS; adds the BOS."""
    vocabulary = {token: i for i, token in enumerate(("<unk>", *special, *ROLES, *WORDS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(r"\n\n|\n| |\w+|[^\w\s]"), behavior="isolated")
    tokenizer.add_special_tokens(list(special))
    if bos:
        tokenizer.post_processor = TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token=bos, eos_token=eos, chat_template=template
    )


def llama2() -> PreTrainedTokenizerFast:
    return make(("<s>", "</s>"), "<s>", "</s>", None)


def llama3() -> PreTrainedTokenizerFast:
    special = (
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|end_of_text|>",
    )
    return make(special, "<|begin_of_text|>", "<|eot_id|>", LLAMA3_TEMPLATE)


def qwen() -> PreTrainedTokenizerFast:
    return make(("<|im_start|>", "<|im_end|>", "<|endoftext|>"), None, "<|im_end|>", QWEN_TEMPLATE)


def deepseek() -> PreTrainedTokenizerFast:
    special = (
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<think>",
        "</think>",
    )
    return make(special, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", DEEPSEEK_TEMPLATE)


# The shapes of templates that lose or change something as they are.
NO_SYSTEM_TEMPLATE = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
DROPS_SYSTEM_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
SYSTEM_WITH_THE_LAST_USER_TEMPLATE = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set s = '' %}{% endif %}{% for m in messages %}"
    "{% if m.role == 'user' %}[INST]{{ s if loop.last else '' }}{{ m.content }}[/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
PARTS_TEMPLATE = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{% for part in m.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
THINKING_TEMPLATE = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{% if m.role == 'assistant' %}think / think{% endif %}{{ m.content }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    "{{ 'think\n' if enable_thinking | default(true) else 'think / think' }}{% endif %}"
)
NO_GENERATION_PROMPT_TEMPLATE = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>"
    "{% endfor %}"
)
DATED_TEMPLATE = LLAMA3_TEMPLATE.replace(
    "{{ bos_token }}",
    "{{ bos_token }}{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y %H:%M:%S') %}"
    "{% else %}{% set day = '?' %}{% endif %}Today Date: {{ day }}\n",
)
