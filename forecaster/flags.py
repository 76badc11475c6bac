"""One way from a command line, and from a YAML file, to a frozen record of typed flags.

The fields of a program's record, each made by `flag`, are its flags: their names, types, defaults, units and
groups. Words become texts (`read_words`, `read_yaml`), and texts become the record (`typed`), so that a file
and a command line are read by the same rules.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from datetime import date
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import yaml

from forecaster.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

REQUIRED: Any = MISSING
"""The default of a flag that has to be given."""
_TRUTH = {
    **dict.fromkeys(("true", "yes", "t", "y", "1"), True),
    **dict.fromkeys(("false", "no", "f", "n", "0"), False),
}
_RecordT = TypeVar("_RecordT", bound="DataclassInstance")
Texts = Mapping[str, Any]
"""What was written for each flag that was given: a text, or a list of them for a flag that takes several."""


@dataclass(frozen=True)
class Program(Generic[_RecordT]):
    """What `--help` says of a program beside its flags."""

    name: str
    record: type[_RecordT]
    description: str
    examples: tuple[str, str]


def flag(
    default: Any,
    text: str,
    group: str,
    *,
    metavar: str = "",
    shown: str | None = None,
    positional: bool = False,
    choices: Collection[str] = (),
) -> Any:
    """A field that is a flag.

    Args:
        default: `REQUIRED` where there is none.
        text: what it means, with its unit.
        group: the heading that it stands under in the help.
        metavar: what the help shows for its value; empty: what its type calls it.
        shown: how the help tells the default; None: as it is; empty: not at all.
        positional: whether it is known by its place, and not by its name.
        choices: a registry whose names are its values; the type of a flag with values of its own is a
            Literal.
    """
    about = {"text": text, "group": group, "metavar": metavar, "shown": shown, "positional": positional}
    return field(default=default, metadata={**about, "choices": choices})


# --- types --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """How the texts of a type are read."""

    read: Callable[[str], Any]
    metavar: str
    allowed: str
    is_bool: bool = False
    takes_several: bool = False


_KINDS = {
    str: _Kind(str, "TEXT", ""),
    Path: _Kind(Path, "PATH", ""),
    int: _Kind(int, "N", "Give a whole number."),
    float: _Kind(float, "X", "Give a number."),
    date: _Kind(date.fromisoformat, "YYYY-MM-DD", "Give a day as YYYY-MM-DD."),
    bool: _Kind(lambda text: _TRUTH[text.lower()], "true|false", "Use true or false.", is_bool=True),
}


def _kinds(record: type[DataclassInstance]) -> dict[str, _Kind]:
    hints = get_type_hints(record)
    return {
        item.name: _one_of(choices) if (choices := item.metadata["choices"]) else _kind(hints[item.name])
        for item in fields(record)
    }


def _kind(hint: Any) -> _Kind:
    """Of `Path`, `Path | None`, `tuple[Path, ...]` or `Literal["auto", "off"]`."""
    if get_origin(hint) in (Union, UnionType):  # of a Literal and None, or of classes and None
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is tuple:
        return replace(_kind(get_args(hint)[0]), takes_several=True)
    if get_origin(hint) is Literal:
        return _one_of(get_args(hint))
    return _KINDS[hint]


def _one_of(names: Collection[str]) -> _Kind:
    choices = {name: name for name in names}
    return _Kind(choices.__getitem__, f"{{{','.join(names)}}}", f"Allowed: {', '.join(names)}.")


# --- command line -> texts ----------------------------------------------------------------------------------


class FlagParser(argparse.ArgumentParser):
    """A parser that raises ConfigurationError instead of leaving; flags are written out in full."""

    def __init__(self, prog: str, description: str, **shape: Any) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, **shape)

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError([Problem("command line", f"{message}.", "See --help.")])


def _parser(program: Program[Any]) -> FlagParser:
    """argparse finds the words of each flag and shows the help; what words mean is left to `typed`."""
    named = [item for item in fields(program.record) if not item.metadata["positional"]]
    places = [item for item in fields(program.record) if item.metadata["positional"]]
    kinds = _kinds(program.record)
    needed = [f"--{item.name} {_metavar(item, kinds)}" for item in named if item.default is MISSING]
    parser = FlagParser(
        prog=program.name,
        usage=" ".join(["%(prog)s", *(f"[{_metavar(item, kinds)}]" for item in places), *needed, "[flags]"]),
        description=program.description,
        epilog="examples:\n  " + "\n  ".join(program.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    titles = dict.fromkeys(item.metadata["group"] for item in [*places, *named])
    groups = {title: parser.add_argument_group(title) for title in titles}
    for item in [*places, *named]:
        kind, place = kinds[item.name], item.metadata["positional"]
        shape: dict[str, Any] = {"nargs": "?"} if kind.is_bool or place else {}
        if kind.takes_several:
            shape = {"nargs": "*"} if place else {"nargs": "+", "action": "extend"}
        groups[item.metadata["group"]].add_argument(
            item.name if place else f"--{item.name}", metavar=_metavar(item, kinds), help=_help(item), **shape
        )
    return parser


def _metavar(item: Field[Any], kinds: Mapping[str, _Kind]) -> str:
    return item.metadata["metavar"] or kinds[item.name].metavar


def _help(item: Field[Any]) -> str:
    shown = item.metadata["shown"]
    if shown is None and item.default not in (None, ()):
        shown = str(item.default).lower() if isinstance(item.default, bool) else str(item.default)
    text = item.metadata["text"]
    if item.default is MISSING:
        text += " (needed)"
    elif shown:
        text += f" (default: {shown})"
    return text.replace("%", "%%")


def _names(record: type[DataclassInstance]) -> list[str]:
    return [item.name for item in fields(record) if not item.metadata["positional"]]


def flag_names(argv: Sequence[str]) -> set[str]:
    """Names of the flags on a command line; dashes stand for underscores."""
    return {word.split("=", 1)[0][2:].replace("-", "_") for word in argv if word.startswith("--")}


def _spelled_out(record: type[DataclassInstance], argv: Sequence[str]) -> list[str]:
    """Every flag of the record under its own name, and every boolean one with its value.

    So `--max-length 8` becomes `--max_length 8`, and a bare `--resume` takes no word behind it for its value.
    """
    kinds, names, words = _kinds(record), _names(record), list(argv)
    end = words.index("--") if "--" in words else len(words)
    for i in reversed(range(end)):
        name, equals, value = words[i].partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not words[i].startswith("--") or name not in names:
            continue
        if kinds[name].is_bool and not equals:
            has_value = i + 1 < len(words) and words[i + 1].lower() in _TRUTH
            equals, value = "=", words.pop(i + 1) if has_value else "true"
        words[i] = f"--{name}{equals}{value}"
    return words


def split_words(program: Program[Any], argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The texts of a program's flags, and the words that belong to none of them.

    Raises:
        ConfigurationError: a flag has no value.
        SystemExit: the help was asked for (status 0).
    """
    words = _spelled_out(program.record, argv)
    # Intermixed, as a word that is known by its place may stand apart from the others.
    texts, rest = _parser(program).parse_known_intermixed_args(words)
    return vars(texts), rest


def read_words(program: Program[Any], argv: Sequence[str]) -> dict[str, Any]:
    """As `split_words`; raises ConfigurationError with every word that belongs to no flag."""
    texts, rest = split_words(program, argv)
    if unknown := [word for word in rest if word.startswith("-")]:
        raise ConfigurationError([_unknown_flag(program.record, word) for word in unknown])
    if rest:
        raise ConfigurationError([Problem(rest[0], "belongs to no flag.", "Flags look like `--name value`.")])
    return texts


def _unknown_flag(record: type[DataclassInstance], word: str) -> Problem:
    name = word.lstrip("-").split("=")[0].replace("-", "_")
    close = difflib.get_close_matches(name, _names(record), n=1)
    return Problem(word, "is no flag.", f"Did you mean --{close[0]}?" if close else "See --help.")


# --- YAML file -> texts -------------------------------------------------------------------------------------


def read_yaml(program: Program[Any], path: str) -> dict[str, str]:
    """The texts of a file that maps names of flags to values; without those left empty or null.

    Raises:
        ConfigurationError: it cannot be read, is no mapping, or sets what is no flag.
    """

    def refused(found: str, allowed: str = "See configs/ for working files.") -> ConfigurationError:
        return ConfigurationError([Problem("--config", f"{path} {found}", allowed)])

    try:
        # The base loader leaves scalars as written: `no` is a strategy then, and 1e-5 a number.
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise refused(f"cannot be read ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise refused("is not a list of `name: value` lines.")
    names = _names(program.record)
    if unknown := sorted(set(map(str, content)) - set(names)):
        raise refused(f"sets {', '.join(unknown)}.", f"Known names: {', '.join(sorted(names))}.")
    texts = {}
    for name, value in content.items():
        flat = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in flat):
            raise refused(f"nests values under {name}.", "A value is one word or a flat list.")
        if value not in ("", "null", "~"):
            texts[name] = ",".join(flat)
    return texts


# --- texts -> record ----------------------------------------------------------------------------------------


def typed(record: type[_RecordT], texts: Texts) -> tuple[_RecordT, list[Problem]]:
    """The record, and what cannot be read: there the default stands in, so that whatever else is wrong can be
    told together with it.

    Raises:
        ConfigurationError: a flag without a default is missing; with all that cannot be read.
    """
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    kinds = _kinds(record)
    for item in fields(record):
        if item.name in texts:
            kind, text = kinds[item.name], texts[item.name]
            try:
                values[item.name] = tuple(map(kind.read, text)) if kind.takes_several else kind.read(text)
            except (ValueError, KeyError):
                problems.append(
                    Problem(f"--{item.name}", f"is {text!r}." if text else "is missing.", kind.allowed)
                )
        elif item.default is MISSING:
            problems.append(Problem(f"--{item.name}", "is missing.", f"Give {item.metadata['text']}."))
    if any(item.default is MISSING and item.name not in values for item in fields(record)):
        raise ConfigurationError(problems)
    return record(**values), problems
