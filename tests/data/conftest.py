"""Data is made, checked and described without torch: these tests pass where it is not installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def _torch_is_not_imported() -> Iterator[None]:
    """By a test of this folder, that is: an earlier folder's may have."""
    before = "torch" in sys.modules
    yield
    assert ("torch" in sys.modules) == before
