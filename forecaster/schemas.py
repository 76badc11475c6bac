"""JSON files that may come from anyone: read within limits, and checked field by field as a type says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from forecaster.errors import ConfigurationError, Problem
from forecaster.files import begins_as_lfs_pointer, pointer_refused

LARGEST_JSON_BYTES = 256 * 2**20
"""More than the record of ten million rows; a file beyond it is not read into memory."""
SHOWN_FAULTS, SHOWN_CHARS = 3, 60
_SUBJECT = re.compile(
    r"^(?:Value error, |(?:Input|String|List|Tuple|Dictionary|Value) (?=should))| or instance of \w+$"
)
"""Of pydantic's messages: how they begin, and names of this project's types."""
_ContentT = TypeVar("_ContentT")

FileName = Annotated[str, StringConstraints(pattern=r"^\w[\w.-]{0,199}$")]
"""A name in the same folder: no separator, and nothing that leads up."""
Count = Annotated[int, Field(ge=1, lt=2**31)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def read_json(path: Path, way_out: str) -> Any:
    """The content of a JSON file.

    Args:
        way_out: what a message advises.

    Raises:
        ConfigurationError: it is not there, no file, too large, no UTF-8 text, not whole, or nested too
            deeply.
    """
    try:
        if not path.is_file():
            raise refused(path, "is no file." if path.exists() else "is missing.", way_out)
        if (size := path.stat().st_size) > LARGEST_JSON_BYTES:
            raise refused(path, f"has {size:,} bytes, too many for such a record.", way_out)
        content = path.read_bytes()
        if begins_as_lfs_pointer(content):
            raise pointer_refused(str(path))
        return json.loads(content.decode("utf-8"))
    except OSError as error:
        raise refused(path, f"cannot be read ({error.strerror}).", way_out) from error
    except UnicodeDecodeError as error:
        raise refused(path, f"is no UTF-8 text (byte {error.start}).", way_out) from error
    except RecursionError as error:
        raise refused(path, "nests too deeply.", way_out) from error
    except json.JSONDecodeError as error:
        found = f"is not whole JSON (line {error.lineno}: {error.msg})."
        raise refused(path, found, way_out) from error
    except ValueError as error:  # a number of thousands of digits
        raise refused(path, f"is not whole JSON ({error}).", way_out) from error


def check(content: Any, kind: type[_ContentT], path: Path, way_out: str) -> _ContentT:
    """The content of a file as what `kind` says it is; raises ConfigurationError with the fields that are
    something else. Nothing is converted: the text "8" is no number."""
    try:
        return TypeAdapter(kind).validate_python(content, strict=True)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        more = len(faults) - SHOWN_FAULTS
        lines = [_fault(fault) for fault in faults[:SHOWN_FAULTS]] + (
            [f"and {more} more"] if more > 0 else []
        )
        raise refused(path, f"{'; '.join(lines)}.", way_out) from error


def read_checked(path: Path, kind: type[_ContentT], way_out: str) -> _ContentT:
    """`read_json` and `check`."""
    return check(read_json(path, way_out), kind, path, way_out)


def refused(path: Path, found: str, way_out: str) -> ConfigurationError:
    return ConfigurationError([Problem(str(path), found, way_out)])


def _fault(fault: ErrorDetails) -> str:
    field = ".".join(map(str, fault["loc"])) or "it"
    if fault["type"] == "missing":
        return f"{field} is missing"
    shown = repr(fault["input"])
    shown = shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]}..."
    return f"{field} is {shown}: it {_SUBJECT.sub('', fault['msg'])}"
