"""One way from a command line, and from a YAML file, to a frozen record of typed flags.

The fields of a program's record, each made by `flag`, are its flags: their names, types, defaults, units and
groups. Words become texts (`read_words`, `read_yaml`), and texts become the record (`typed`), so that a file
and a command line are read by the same rules.
"""

from __future__ import annotations

import argparse
import difflib
import math
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
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
from forecaster.plain_text import read_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

REQUIRED: Any = MISSING
"""The default of a flag that has to be given."""
ELSEWHERE = {
    **dict.fromkeys(("model", "model_name", "model_name_or_path", "model_path", "model_id"), "base_model"),
    **dict.fromkeys(("data", "data_path", "dataset_name", "dataset_path", "train_file"), "dataset"),
    **dict.fromkeys(("eval_dataset", "validation_file", "eval_file", "test_file"), "test_dataset"),
    **dict.fromkeys(("val_size", "eval_ratio", "val_set_size", "test_size"), "validation_share"),
    **dict.fromkeys(("deepspeed", "deepspeed_config", "ds_config_file", "zero_stage"), "ds_config"),
    **dict.fromkeys(("lora_rank", "rank", "r", "lora_dim"), "lora_r"),
    **dict.fromkeys(("alpha", "lora_scaling"), "lora_alpha"),
    **dict.fromkeys(("lora_target", "lora_target_modules", "lora_modules"), "target_modules"),
    **dict.fromkeys(("micro_batch_size", "train_batch_size", "per_device_train_batch_size"), "batch_size"),
    **dict.fromkeys(("grad_accum", "accumulation_steps"), "gradient_accumulation_steps"),
    **dict.fromkeys(("lr", "rate"), "learning_rate"),
    **dict.fromkeys(("num_train_epochs", "epochs", "n_epochs"), "num_epochs"),
    **dict.fromkeys(("warmup", "warmup_steps"), "warmup_ratio"),
    **dict.fromkeys(("lr_scheduler", "lr_scheduler_type"), "scheduler"),
    **dict.fromkeys(
        ("max_seq_length", "max_seq_len", "cutoff_len", "model_max_length", "seq_length"), "max_length"
    ),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "quantization_bit", "bits"), "quantization"),
    **dict.fromkeys(("bf16", "fp16", "dtype", "torch_dtype", "mixed_precision"), "precision"),
    **dict.fromkeys(("finetuning_type", "peft", "peft_type", "use_lora", "use_dora", "use_rslora"), "tuner"),
    **dict.fromkeys(("eval_strategy", "do_eval"), "evaluation_strategy"),
    **dict.fromkeys(("save_strategy", "save_steps", "save_limit"), "save_total_limit"),
    **dict.fromkeys(("logging_steps", "log_steps"), "log_interval"),
    **dict.fromkeys(("resume_from_checkpoint", "resume_from"), "resume"),
    **dict.fromkeys(("wandb", "use_wandb", "logger"), "report_to"),
    **dict.fromkeys(("wandb_run_name", "experiment_name"), "run_name"),
    **dict.fromkeys(("dataloader_num_workers", "workers"), "num_workers"),
    **dict.fromkeys(("num_gpus", "n_gpus", "gpu_ids", "devices", "include", "nproc_per_node"), "gpus"),
    **dict.fromkeys(("lora", "lora_path", "adapter_name_or_path", "peft_model", "checkpoint"), "adapter"),
    **dict.fromkeys(("ticker", "symbols"), "symbol"),
    **dict.fromkeys(("output", "out_dir", "save_dir"), "output_dir"),
    **dict.fromkeys(("max_tokens", "max_output_tokens"), "max_new_tokens"),
}
"""What other frameworks (Trainer, TRL, LLaMA-Factory, Axolotl, FinGPT) call what is a flag here."""
PROJECT = Path(__file__).resolve().parents[1]
Texts = Mapping[str, Any]
"""What was written for each flag that was given: a text, or a list of them for a flag that takes several."""
_TRUTH = {
    **dict.fromkeys(("true", "yes", "t", "y", "1"), True),
    **dict.fromkeys(("false", "no", "f", "n", "0"), False),
}
_RecordT = TypeVar("_RecordT", bound="DataclassInstance")


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
    by_hand: str = "",
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
        by_hand: why a file may not set it, but the command line alone; empty: a file may.
    """
    about = {"text": text, "group": group, "metavar": metavar, "shown": shown, "positional": positional}
    return field(default=default, metadata={**about, "choices": choices, "by_hand": by_hand})


# --- fields -> flags ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """How the texts of a type are read."""

    read: Callable[[str], Any]
    metavar: str
    allowed: str
    takes_several: bool = False


@dataclass(frozen=True)
class _Flag:
    """A field of a record, and how its words are read."""

    name: str
    default: Any
    kind: _Kind
    text: str
    group: str
    metavar: str
    shown: str | None
    positional: bool
    by_hand: str

    @property
    def is_needed(self) -> bool:
        return self.default is MISSING

    @property
    def is_bool(self) -> bool:
        return self.kind is _KINDS[bool]

    @property
    def help(self) -> str:
        """As argparse takes it: a percent sign is doubled."""
        shown = self.shown
        if shown is None and self.default not in (None, ()):
            shown = str(self.default).lower() if self.is_bool else str(self.default)
        ending = " (needed)" if self.is_needed else f" (default: {shown})" if shown else ""
        return (self.text + ending).replace("%", "%%")


def _path(text: str) -> Path:
    if "\0" in text:
        raise ValueError(text)
    return Path(text)


_KINDS = {
    str: _Kind(str, "TEXT", ""),
    Path: _Kind(_path, "PATH", "A path holds no NUL sign."),
    int: _Kind(int, "N", "Give a whole number."),
    float: _Kind(float, "X", "Give a number."),
    date: _Kind(date.fromisoformat, "YYYY-MM-DD", "Give a day as YYYY-MM-DD."),
    bool: _Kind(lambda text: _TRUTH[text.lower()], "true|false", "Use true or false."),
}


def _flags(record: type[DataclassInstance]) -> list[_Flag]:
    """Those known by their place first, as they stand in a help."""
    hints, flags = get_type_hints(record), []
    for item in fields(record):
        about = dict(item.metadata)
        choices = about.pop("choices")
        kind = _one_of(choices) if choices else _kind(hints[item.name])
        about["metavar"] = about["metavar"] or kind.metavar
        flags.append(_Flag(item.name, item.default, kind, **about))
    return sorted(flags, key=lambda one: not one.positional)


def _kind(hint: Any) -> _Kind:
    """Of `Path`, `Path | None`, `tuple[Path, ...]` or `Literal["auto", "off"]`."""
    if get_origin(hint) in (Union, UnionType):  # of a Literal and None, or of classes and None
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is tuple:
        return replace(_kind(get_args(hint)[0]), takes_several=True)
    return _one_of(get_args(hint)) if get_origin(hint) is Literal else _KINDS[hint]


def _one_of(names: Collection[str]) -> _Kind:
    choices = {name: name for name in names}
    return _Kind(choices.__getitem__, f"{{{','.join(names)}}}", f"Allowed: {', '.join(names)}.")


def _named(record: type[DataclassInstance]) -> dict[str, _Flag]:
    """The flags that are known by their name."""
    return {one.name: one for one in _flags(record) if not one.positional}


# --- command line -> texts ----------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError([Problem("command line", f"{message}.", "See --help.")])


def _parser(program: Program[Any]) -> _Parser:
    """argparse finds the words of each flag and shows the help; what words mean is left to `typed`."""
    flags = _flags(program.record)
    places = [f"[{one.metavar}{' ...' * one.kind.takes_several}]" for one in flags if one.positional]
    needed = [f"--{one.name} {one.metavar}" for one in flags if one.is_needed]
    parser = _Parser(
        prog=program.name,
        usage=" ".join(["%(prog)s", *places, *needed, "[flags]"]),
        description=textwrap.fill(program.description, 80),
        epilog="examples:\n  " + "\n  ".join(program.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups = {title: parser.add_argument_group(title) for title in dict.fromkeys(f.group for f in flags)}
    for one in flags:
        place = one.positional
        shape: dict[str, Any] = {"nargs": "?"} if place or one.is_bool else {}
        if one.kind.takes_several:
            shape = {"nargs": "*"} if place else {"nargs": "+", "action": "extend"}
        word = one.name if place else f"--{one.name}"
        groups[one.group].add_argument(word, metavar=one.metavar, help=one.help, **shape)
    return parser


def flag_names(argv: Sequence[str]) -> set[str]:
    """Names of the flags on a command line; dashes stand for underscores."""
    return {word.split("=", 1)[0][2:].replace("-", "_") for word in argv if word.startswith("--")}


def _spelled_out(record: type[DataclassInstance], argv: Sequence[str]) -> list[str]:
    """Every flag of the record under its own name, and every boolean one with its value.

    So `--max-length 8` becomes `--max_length 8`, and a bare `--resume` takes no word behind it for its value.
    """
    named, words = _named(record), list(argv)
    end = words.index("--") if "--" in words else len(words)
    for i in reversed(range(end)):
        name, equals, value = words[i].partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not words[i].startswith("--") or name not in named:
            continue
        if named[name].is_bool and not equals:
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
    name = word.lstrip("-").split("=")[0].replace("-", "_").lower()
    known = _named(record)
    elsewhere = [ours for ours in (ELSEWHERE.get(name), name.removeprefix("per_device_")) if ours in known]
    close = elsewhere or difflib.get_close_matches(name, known, n=1)
    return Problem(word, "is no flag.", f"Did you mean --{close[0]}?" if close else "See --help.")


# --- YAML file -> texts -------------------------------------------------------------------------------------


def read_yaml(program: Program[Any], path: str) -> dict[str, str]:
    """The texts of a file that maps names of flags to values; without those left empty or null.

    Raises:
        ConfigurationError: it cannot be read, is no mapping, or sets what is no flag.
    """

    def refused(found: str, allowed: str = "See configs/ for working files.") -> ConfigurationError:
        return ConfigurationError([Problem("--config", f"{path} {found}", allowed)])

    path = in_project(path)
    try:
        # The base loader leaves scalars as written: `no` is a strategy then, and 1e-5 a number.
        text = read_text(Path(path))
        content, tree = yaml.load(text, Loader=yaml.BaseLoader), yaml.compose(text, Loader=yaml.BaseLoader)
    except (OSError, yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise refused(f"cannot be read ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict):
        raise refused("is not a list of `name: value` lines.")
    written = Counter(str(key.value) for key, _ in tree.value)
    if twice := sorted(name for name, times in written.items() if times > 1):
        raise refused(f"sets {', '.join(twice)} more than once.", "Keep one line of each.")
    flags = _named(program.record)
    names = {name for name, one in flags.items() if not one.by_hand}
    if by_hand := sorted(set(map(str, content)) & (flags.keys() - names)):
        reasons = "; ".join(dict.fromkeys(flags[name].by_hand for name in by_hand))
        raise refused(f"sets {', '.join(by_hand)}.", f"It counts on the command line only: {reasons}.")
    if unknown := sorted(set(map(str, content)) - names):
        raise refused(f"sets {', '.join(unknown)}.", f"Known names: {', '.join(sorted(names))}.")
    texts = {}
    for name, value in content.items():
        flat = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) for item in flat):
            raise refused(f"nests values under {name}.", "A value is one word or a flat list.")
        if value not in ("", "null", "~"):
            texts[name] = ",".join(in_project(item) if "/" in item else item for item in flat)
    return texts


def in_project(path: str) -> str:
    """A path that is not there from the working folder, and is from the project's own: as a whole path."""
    whole = PROJECT / path
    return str(whole) if whole.exists() and not Path(path).exists() else path


# --- texts -> record ----------------------------------------------------------------------------------------

LARGEST_NUMBER = 2**32
"""No flag means anything beyond; libraries overflow, or reserve memory, long before they say so."""


def _shortened(text: Any) -> Any:
    return f"{text[:40]}..." if isinstance(text, str) and len(text) > 100 else text


def _is_too_large(value: Any) -> bool:
    """Whether a finite number lies beyond the largest; what is none, a flag's own range tells."""
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) > LARGEST_NUMBER


def typed(record: type[_RecordT], texts: Texts) -> tuple[_RecordT, list[Problem]]:
    """The record, and what cannot be read: there the default stands in, so that whatever else is wrong can be
    told together with it.

    Raises:
        ConfigurationError: a flag without a default is missing; with all that cannot be read.
    """
    flags = _flags(record)
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    for one in flags:
        if one.name in texts:
            text = texts[one.name]
            try:
                values[one.name] = (
                    tuple(map(one.kind.read, text)) if one.kind.takes_several else one.kind.read(text)
                )
            except (ValueError, KeyError):
                if text or one.default is not None:  # an empty text may stand for nothing
                    found = f"is {_shortened(text)!r}." if text else "is missing."
                    problems.append(Problem(f"--{one.name}", found, one.kind.allowed))
            else:
                if _is_too_large(values[one.name]):
                    del values[one.name]
                    found, way_out = f"is {_shortened(text)}.", f"No number is above {LARGEST_NUMBER:,} here."
                    problems.append(Problem(f"--{one.name}", found, way_out))
        elif one.is_needed:
            problems.append(Problem(f"--{one.name}", "is missing.", f"Give {one.text}."))
    if any(one.is_needed and one.name not in values for one in flags):
        raise ConfigurationError(problems)
    return record(**values), problems
