"""What is written in front of a model's own chat template so that it keeps every part of a row, the same on
every day. It is saved with the template: whoever renders with a run's folder gets the same text."""

from __future__ import annotations

import re
from datetime import date

TEMPLATE_DAY = date(2024, 7, 26)
"""The day that every template writes for today, whenever it runs; Llama 3.1's falls back to it. It may never
change: trained models have seen it."""
_DIRECTIVES = "aAbBdmyYHIpMSfjUWwuVGzZcxXDFTRehnt"
# Nothing of the template's own beginning may be lost: a block's end would take a line break along.
_END = "{{ '' }}"

SYSTEM_IN_USER = (
    "{%- if messages and messages[0]['role'] == 'system' -%}"
    "{%- set messages = [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' "
    "+ messages[1]['content']}] + messages[2:] -%}"
    "{%- endif -%}" + _END
)
CONTENT_IN_PARTS = (
    "{%- set in_parts = namespace(messages=[]) -%}"
    "{%- for message in messages -%}"
    "{%- set in_parts.messages = in_parts.messages + [{'role': message['role'], "
    "'content': [{'type': 'text', 'text': message['content']}] if message['content'] is string "
    "else message['content']}] -%}"
    "{%- endfor -%}"
    "{%- set messages = in_parts.messages -%}" + _END
)
WITHOUT_THINKING = "{%- set enable_thinking = false -%}" + _END

FORMS: tuple[tuple[str, str], ...] = tuple(
    (", ".join(name for name, _ in chosen), "".join(prefix for _, prefix in chosen))
    for system in ((), (("system text in front of the user's", SYSTEM_IN_USER),))
    for parts in ((), (("content as parts", CONTENT_IN_PARTS),))
    for thinking in ((), (("without thinking", WITHOUT_THINKING),))
    for chosen in [(*system, *parts, *thinking)]
)
"""Name and prefix of each form, in the order in which they are tried: the template as it is comes first."""


def with_day(template: str, day: date = TEMPLATE_DAY) -> str:
    """The template with `day` for today, where it asks for that; asked twice it stays as it is."""
    prefix = ""
    if "strftime_now" in template and "macro strftime_now" not in template:
        # Longest first: "%-d" is no "%" and "-d". Times are those of midnight.
        directives = [f"%-{c}" for c in "dmHIMSjy"] + [f"%{c}" for c in _DIRECTIVES]
        replaced = "".join(f" | replace({d!r}, {_written(day, d)!r})" for d in directives)
        prefix += f"{{%- macro strftime_now(format) -%}}{{{{ format{replaced} }}}}{{%- endmacro -%}}{_END}"
    if "date_string" in template and not re.search(r"set\s+date_string\b", template):
        prefix += f"{{%- set date_string = {day.strftime('%d %b %Y')!r} -%}}{_END}"
    return prefix + template


def _written(day: date, directive: str) -> str:
    written = day.strftime(directive.replace("-", ""))
    return (written.lstrip("0") or "0") if "-" in directive else written


def with_generation_prompt(template: str, header: str) -> str:
    """The template with `header` behind a prompt, for one that takes no notice of `add_generation_prompt`."""
    return f"{template}{{%- if add_generation_prompt -%}}{{{{ {header!r} }}}}{{%- endif -%}}"
