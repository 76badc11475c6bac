"""Text from outside in one form, whatever system wrote it: readers of files bring their text to it here."""

from __future__ import annotations

import errno
import os
import re
import select
import time
import unicodedata
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from forecaster.files import begins_as_lfs_pointer, pointer_refused

LARGEST_TEXT_BYTES = 64 * 2**20
"""Of a file that is read whole: a prompt, a configuration, a list."""
LONGEST_WAIT_S = 10.0
"""For the whole text of a pipe, as a shell's `<(...)` gives one."""
_AT_ONCE_BYTES = 2**20
LINE_ENDS = "\r\v\f\x85\u2028\u2029"
"""Signs that end a line beside the line feed (Unicode 5.8, newline guidelines)."""
# Two returns before a line feed: each line feed became a return and a line feed, and then once more.
_LINE_END = re.compile(f"\r?\r\n|[{LINE_ENDS}]")
_BYTE_ORDER_MARK = "\ufeff"
_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_MOST_MARKS_IN_A_ROW = 30
"""On one letter, as in Unicode's Stream-Safe Text Format: real text needs fewer than ten, and a normal form
sorts them in time that grows with the square of their number."""
_BECOME_MARKS = frozenset("\u0f73\u0f75\u0f81\uff9e\uff9f")
"""Not of a mark's class themselves, but what normal forms make of them is."""


def in_one_form(text: str) -> str:
    """`text` with a line feed for every line end, a plain space for every other kind of space, no byte-order
    mark, and letters with their accents as one sign (NFC). Twice changes nothing more; never raises."""
    if text.isascii() and "\r" not in text and "\v" not in text and "\f" not in text:
        return text  # nearly every text
    text = _SPACE.sub(" ", _LINE_END.sub("\n", text)).replace(_BYTE_ORDER_MARK, "")
    if unicodedata.is_normalized("NFC", text):
        return text
    return unicodedata.normalize("NFC", with_few_marks(text))


def with_few_marks(text: str) -> str:
    """Without the combining marks of a row that goes on and on, so that a normal form of it takes time in
    proportion to its length."""
    if text.isascii():
        return text
    kept, in_a_row = [], 0
    for character in text:
        is_mark = unicodedata.combining(character) or character in _BECOME_MARKS
        in_a_row = in_a_row + 1 if is_mark else 0
        if in_a_row <= _MOST_MARKS_IN_A_ROW:
            kept.append(character)
    return "".join(kept)


def read_text(path: Path) -> str:
    """A whole file of UTF-8 text, in one form.

    Raises:
        OSError: it cannot be read, or does not end: a pipe may be one that somebody writes into for ever, or
            that nobody writes into.
        UnicodeDecodeError: it is no UTF-8.
        ConfigurationError: it is a pointer of Git LFS.
    """
    with FileIO(str(path), opener=_at_once) as file:
        content = b"".join(_pieces(file, path))
    if len(content) > LARGEST_TEXT_BYTES:
        raise OSError(errno.EFBIG, f"it is longer than {LARGEST_TEXT_BYTES // 2**20} MiB", str(path))
    if begins_as_lfs_pointer(content):
        raise pointer_refused(str(path))
    return in_one_form(content.decode("utf-8"))


def _at_once(name: str, flags: int) -> int:
    """An opener that does not wait for who writes into a pipe."""
    return os.open(name, flags | os.O_NONBLOCK)


def _pieces(file: FileIO, path: Path) -> Iterator[bytes]:
    """What a file holds, up to one byte more than is read; OSError where a pipe gives nothing in time."""
    left, until = LARGEST_TEXT_BYTES + 1, time.monotonic() + LONGEST_WAIT_S
    waiting = select.poll()
    waiting.register(file, select.POLLIN)
    while left:
        if not waiting.poll(1000 * max(until - time.monotonic(), 0)):
            raise OSError(errno.ETIMEDOUT, f"it gives no whole text in {LONGEST_WAIT_S:g} s", str(path))
        if not (piece := file.read(min(left, _AT_ONCE_BYTES))):
            return
        left -= len(piece)
        yield piece
