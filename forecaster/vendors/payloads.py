"""What the answers of vendors look like."""

from __future__ import annotations

from typing import Any

_LAST_SECOND = 253_402_300_799
"""The last that a datetime can hold: the end of the year 9999."""


def is_article(item: Any) -> bool:
    """Whether an item has what is needed of it: an id, a time in whole seconds, and a headline."""
    return (
        isinstance(item, dict)
        and isinstance(item.get("headline"), str)
        and isinstance(item.get("datetime"), int)
        and 0 <= item["datetime"] <= _LAST_SECOND
        and isinstance(item.get("id"), int | str)
    )
