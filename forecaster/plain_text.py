"""Text from outside in one form, whatever system wrote it: readers of files bring their text to it here."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

LINE_ENDS = "\r\v\f\x85\u2028\u2029"
"""Signs that end a line beside the line feed (Unicode 5.8, newline guidelines)."""
# Two returns before a line feed: each line feed became a return and a line feed, and then once more.
_LINE_END = re.compile(f"\r?\r\n|[{LINE_ENDS}]")
_BYTE_ORDER_MARK = "\ufeff"
_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")


def in_one_form(text: str) -> str:
    """`text` with a line feed for every line end, a plain space for every other kind of space, no byte-order
    mark, and letters with their accents as one sign (NFC). Twice changes nothing more; never raises."""
    if text.isascii() and "\r" not in text and "\v" not in text and "\f" not in text:
        return text  # nearly every text
    text = _LINE_END.sub("\n", text)
    return unicodedata.normalize("NFC", _SPACE.sub(" ", text).replace(_BYTE_ORDER_MARK, ""))


def read_text(path: Path) -> str:
    """A whole file of UTF-8 text, in one form.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8.
    """
    return in_one_form(path.read_bytes().decode("utf-8"))
