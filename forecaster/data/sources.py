"""Where datasets come from: hub ids, folders made by `save_to_disk`, parquet and jsonl files, FinGPT's short
names.

Rows stay in Arrow files (`datasets.Dataset`), never in Python lists.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import datasets
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError

from forecaster.data import row_types, saved_folders
from forecaster.data.splits import (
    GAP,
    MAX_PAST_WEEKS,
    TEST,
    TRAIN,
    Block,
    cut,
    hold_out,
    last_weeks,
    out_of_order,
)
from forecaster.errors import ConfigurationError, Problem
from forecaster.files import LFS_HELP, cache_problem, is_lfs_pointer
from forecaster.http_limits import HubFaultError
from forecaster.network_settings import hub_problems
from forecaster.plain_text import in_one_form
from forecaster.tables import has_other_line_ends, json_lines
from forecaster.tasks.base import DatasetRow, RowKey, Task

SHORT_NAME_FOLDER = Path("data")
SHORT_NAME_PREFIX = "fingpt-forecaster-"
HUB_OWNER = "FinGPT"
MOST_REPEATS = 1000
# Of datasets and pyarrow, for files of another form than they expect.
_UNREADABLE = (
    *(DatasetGenerationError, OSError, ValueError, LookupError, StopIteration, TypeError, AttributeError),
    *(NotImplementedError, RecursionError),
)
_FORMATS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}
MANIFEST = "manifest.json"
_TEXT_TYPES = ("string", "large_string")
_FORM_OF_COPIES = 1
"""One more whenever `in_one_form` changes: copies that were kept are then made anew."""
_RECIPE = ("min_past_weeks", "max_past_weeks", "with_indicators", "with_macro")
_SPEC_HELP = (
    "Give a folder made by save_to_disk, a .jsonl or .parquet file, a short name such as "
    "dow30-202305-202405, or a hub id together with --from_remote."
)


@dataclass(frozen=True)
class Source:
    """One resolved entry of `--dataset`."""

    spec: str
    """As the user wrote it, without the repeat."""
    kind: Literal["file", "folder", "hub"]
    location: str
    """Path, or hub id."""
    repeat: int = 1


@dataclass(frozen=True)
class RowCounts:
    """What became of the rows that were read."""

    train_read: int
    test_read: int
    train_dropped_out_of_order: int
    test_dropped_out_of_order: int
    train_after_repeats: int
    unused_splits: dict[str, int]
    """Rows of splits that took no part, such as `validation`."""
    validation_held_out: int = 0
    """Rows of `train_read` that were taken for validation."""
    validation_dropped_out_of_order: int = 0
    """Those of them that were then left out."""


@dataclass(frozen=True)
class Corpus:
    """Training, validation and test rows with the task's columns (numbers empty where they are not known) and
    `row_id` ("source#index")."""

    train: datasets.Dataset
    test: datasets.Dataset
    counts: RowCounts
    fingerprint: str
    """sha256 over all rows, in order: equal exactly when the same rows were read."""
    validation: datasets.Dataset | None = None
    """None: no training weeks were held out."""
    trained_until: date | None = None
    """Last day of the training rows; None, as is the next: they have no dates."""
    validation_from: date | None = None
    """First day of the validation rows."""

    @property
    def parts(self) -> dict[str, datasets.Dataset]:
        """The parts that there are, by name, in order of time."""
        held_out = {} if self.validation is None else {"validation": self.validation}
        return {"train": self.train, **held_out, "test": self.test}


def resolve(specs: str, from_remote: bool, flag: str) -> list[Source]:
    """Resolve a comma list of datasets without loading anything; raises ConfigurationError with every bad
    entry."""
    sources, problems = [], []
    for entry in filter(None, (part.strip() for part in specs.split(","))):
        spec, repeat_text = entry, "1"
        if not Path(entry).exists() and "*" in entry:
            spec, _, repeat_text = entry.rpartition("*")
        if not (re.fullmatch(r"[0-9]{1,4}", repeat_text) and 1 <= int(repeat_text) <= MOST_REPEATS):
            problems.append(
                Problem(
                    flag,
                    f"{entry!r} repeats {repeat_text!r} times.",
                    f"A repeat is a whole number from 1 to {MOST_REPEATS}.",
                )
            )
            continue
        located = _locate(spec, from_remote)
        if isinstance(located, str):
            problems.append(Problem(flag, located, _SPEC_HELP))
        else:
            sources.append(Source(spec, *located, repeat=int(repeat_text)))
    locations = [s.location if s.kind == "hub" else str(Path(s.location).resolve()) for s in sources]
    problems += [
        Problem(flag, f"names {location} more than once.", f"Write {location}*2 to repeat training rows.")
        for location in sorted(set(locations))
        if locations.count(location) > 1
    ]
    if not sources and not problems:
        problems.append(Problem(flag, "names no dataset.", _SPEC_HELP))
    if any(source.kind == "hub" for source in sources):
        problems += hub_problems()
    if problems:
        raise ConfigurationError(problems)
    return sources


def _locate(spec: str, from_remote: bool) -> tuple[Literal["file", "folder", "hub"], str] | str:
    """Kind and location of one dataset, or what is wrong with it. A local path wins over the hub."""
    path = Path(spec)
    for candidate in (path, SHORT_NAME_FOLDER / (SHORT_NAME_PREFIX + spec)):
        if candidate.is_file():
            if candidate.suffix not in _FORMATS:
                return f"{candidate} is no .jsonl or .parquet file."
            return "file", str(candidate)
        if candidate.is_dir():
            if not any((candidate / name).exists() for name in ("dataset_dict.json", "dataset_info.json")):
                return f"the folder {candidate} was not made by save_to_disk."
            return "folder", str(candidate)
    looks_like_hub_id = re.fullmatch(r"[\w.-]+/[\w.-]+", spec) and path.suffix not in _FORMATS
    looks_like_short_name = re.fullmatch(r"[\w.-]+", spec) and path.suffix not in _FORMATS
    if from_remote and looks_like_hub_id:
        return "hub", spec
    if from_remote and looks_like_short_name:
        return "hub", f"{HUB_OWNER}/{SHORT_NAME_PREFIX}{spec}"
    if looks_like_hub_id:
        return f"{spec!r} does not exist here (add --from_remote to take it from the hub)."
    return f"{spec!r} does not exist."


def load(
    train_sources: Sequence[Source],
    test_sources: Sequence[Source] | None,
    task: Task,
    validation_share: float = 0.0,
    block: Block | None = None,
) -> Corpus:
    """Read, check, split and order the rows.

    A source without a test split is split by date. With `test_sources` their test rows (all rows, for a
    source without a split) are the test set and stay whole: training rows that break the order of time give
    way. Without, test rows give way to training rows.

    Args:
        block: cut all rows of each source anew, whatever splits it has: the test are its weeks, and training
            those before, but for the last ones, as many as a prompt shows of the past. Not with
            `test_sources`.
        validation_share: share of the training weeks, the latest of all sources together, that are held out.
            The test rows are those that they are without it, and rows that repeat train once more do not
            repeat here. A split that a source itself calls `validation` is not used.

    Raises:
        ConfigurationError: a missing column, an empty answer, an unreadable period, each with file and row; a
            part without rows.
    """
    unused: dict[str, int] = {}
    train, test, repeats = _read_all(train_sources, test_sources, unused, task, block)
    train_keys, test_keys = _keys(train, task), _keys(test, task)
    give_way: Literal["train", "test"] = "test" if test_sources is None else "train"
    dropped = set(out_of_order(train_keys, test_keys, give_way))
    train_dropped, test_dropped = (dropped, set()) if give_way == "train" else (set(), dropped)
    in_order = [i for i in range(len(train)) if i not in train_dropped]
    held, held_dropped = (
        hold_out([train_keys[i] for i in in_order], validation_share) if task.has_dates else ([], [])
    )
    not_train = {in_order[i] for i in (*held, *held_dropped)}
    kept_train = [i for i in in_order if i not in not_train for _ in range(repeats[i])]
    kept_test = [i for i in range(len(test)) if i not in test_dropped]
    problems = _emptied(kept_train, kept_test)
    if validation_share and kept_train and not held:
        weeks = len({train_keys[i].start for i in in_order if task.has_dates})
        found = f"is {validation_share:g}, which leaves no validation row of {weeks} training week(s)."
        problems.append(Problem("--validation_share", found, "Leave it out, or choose data with more weeks."))
    if problems:
        raise ConfigurationError(problems)
    counts = RowCounts(
        train_read=len(train),
        test_read=len(test),
        train_dropped_out_of_order=len(train_dropped),
        test_dropped_out_of_order=len(test_dropped),
        train_after_repeats=len(kept_train),
        unused_splits=unused,
        validation_held_out=len(not_train),
        validation_dropped_out_of_order=len(held_dropped),
    )
    validation = train.select([in_order[i] for i in held]) if validation_share else None
    train, test = train.select(kept_train), test.select(kept_test)
    in_order_of_time = [train, *([] if validation is None else [validation]), test]
    trained = [train_keys[i].end for i in kept_train] if task.has_dates else []
    validated = [train_keys[in_order[i]].start for i in held]
    return Corpus(
        train,
        test,
        counts,
        _fingerprint(task, *in_order_of_time),
        validation,
        trained_until=max(trained, default=None),
        validation_from=min(validated, default=None),
    )


def find_told_outcomes(corpus: Corpus, task: Task) -> list[Problem]:
    """Prompts that say how their week ends: a model would learn to copy it."""
    problems = []
    for name, rows in corpus.parts.items():
        if told := told_outcomes(((str(row["row_id"]), row) for row in rows), task):
            way_out = "Ask for it instead, or give --allow_told_outcome to train on them all the same."
            problems.append(Problem("--dataset", told_line(told, f"{name} rows"), way_out))
    return problems


def told_outcomes(rows: Iterable[tuple[str, DatasetRow]], task: Task) -> dict[str, str]:
    """Of rows with their ids, the words of each whose prompt says how its week ends.

    Rows repeat where a source is to be taken more than once: each id is looked at once.
    """
    seen: set[str] = set()
    found: dict[str, str] = {}
    for row_id, row in rows:
        if row_id not in seen and (told := task.told_outcome(row)):
            found[row_id] = told
        seen.add(row_id)
    return found


def told_line(told: Mapping[str, str], rows: str) -> str:
    """How many `rows` tell their outcome, with the first one."""
    row_id, words = next(iter(told.items()))
    return f'{len(told)} {rows} tell the outcome in their prompt, as {row_id} does: "{words}"'


def _emptied(kept_train: Sequence[int], kept_test: Sequence[int]) -> list[Problem]:
    """Parts of which the order of time left no row."""
    return [
        Problem(
            flag,
            f"no {name} row is left: for every one, the other part holds {other} of its symbol.",
            "Choose data whose test weeks follow the training weeks of the same symbol.",
        )
        for flag, name, kept, other in (
            ("--dataset", "training", kept_train, "an earlier or equal test week"),
            ("--dataset", "test", kept_test, "a later or equal training week"),
        )
        if not kept
    ]


def _read_all(
    train_sources: Sequence[Source],
    test_sources: Sequence[Source] | None,
    unused: dict[str, int],
    task: Task,
    block: Block | None,
) -> tuple[datasets.Dataset, datasets.Dataset, list[int]]:
    """All training rows, all test rows, and how often each training row is to be taken."""
    train_parts: list[datasets.Dataset] = []
    test_parts: list[datasets.Dataset] = []
    repeats: list[int] = []
    names = _row_id_names([*train_sources, *(test_sources or ())])
    for source in train_sources:
        wanted: tuple[str, ...] = (TRAIN, TEST) if test_sources is None else (TRAIN,)
        if block is not None:
            wanted = (TRAIN, GAP, TEST)
        splits = _read(source, wanted, names[source.spec], unused, task)
        if block is not None:
            # Where one gap is cut from all sources, those of another time have only training or test rows.
            may_lack = block.train_until is not None and len(train_sources) > 1
            splits = _cut_anew(splits, source, block, unused, task, may_lack)
        if "train" not in splits:
            raise ConfigurationError(
                [Problem(source.spec, "has a test split only.", "Name it with --test_dataset.")]
            )
        if test_sources is None and "test" not in splits:
            splits = _split_by_date(splits["train"], source, task)
        train_parts.append(splits["train"])
        repeats += [source.repeat] * len(splits["train"])
        if test_sources is None:
            test_parts.append(splits["test"])
    for source in test_sources or ():
        splits = _read(source, ("test",), names[source.spec], unused, task)
        test_parts += splits.values()
    return datasets.concatenate_datasets(train_parts), datasets.concatenate_datasets(test_parts), repeats


def recipe(train_sources: Sequence[Source]) -> Mapping[str, Any] | None:
    """How data_pipeline.py made the prompts: the flags that decide what a prompt holds.

    Returns:
        None: no source is a folder with its manifest, or a file that the manifest beside it names, or two of
            them were made differently.
    """
    found = [made for source in train_sources if (made := _recipe_of(source))]
    return found[0] if found and all(made == found[0] for made in found) else None


def _recipe_of(source: Source) -> dict[str, Any] | None:
    if source.kind == "hub":
        return None
    path = Path(source.location)
    folder = path if source.kind == "folder" else path.parent
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if source.kind == "file" and path.name not in manifest["files"]:
            return None  # it tells of other files
        return {name: manifest["arguments"][name] for name in _RECIPE}
    except (OSError, ValueError, LookupError, TypeError):
        return None  # made by something else


def read_parts(spec: str, from_remote: bool, task: Task, whole_rows: bool = False) -> datasets.DatasetDict:
    """Every split of one dataset, with all of its columns, unsplit and undropped.

    Args:
        whole_rows: whether a row with an empty column is a problem, as in training.

    Raises:
        ConfigurationError: it is not there, cannot be read, or lacks a column of the task.
    """
    located = _locate(spec, from_remote)
    if isinstance(located, str):
        problem = Problem("dataset", located, _SPEC_HELP)
        if "," in spec or re.search(r"\*\d*$", spec):
            problem = Problem("dataset", f"is {spec!r}.", "Name one dataset at a time, without repeats.")
        raise ConfigurationError([problem])
    loaded = _load(Source(spec, *located, repeat=1))
    check = _row_problems if whole_rows else _column_problems
    if problems := [p for name, part in loaded.items() for p in check(part, f"{spec} ({name})", task)]:
        raise ConfigurationError(problems)
    return datasets.DatasetDict({name: row_types.with_numbers(part, task) for name, part in loaded.items()})


def _read(
    source: Source, wanted: Sequence[str], row_id_name: str, unused: dict[str, int], task: Task
) -> datasets.DatasetDict:
    """The wanted splits of a source, checked; the rows of the others are added to `unused`.

    A source without named splits is all that is wanted of it, be it training or test rows.
    """
    splits = _load(source)
    taken = wanted if any(name in splits for name in wanted) else tuple(splits)[:1]
    checked = {name: part for name, part in splits.items() if name in taken}
    unused.update({f"{source.spec} ({name})": len(splits[name]) for name in splits if name not in taken})
    problems = [
        p for name, part in checked.items() for p in _row_problems(part, f"{source.spec} ({name})", task)
    ]
    if problems:
        raise ConfigurationError(problems)
    return datasets.DatasetDict(
        {name: _prepare(part, f"{row_id_name}:{name}", task) for name, part in checked.items()}
    )


def _load(source: Source) -> datasets.DatasetDict:
    """All splits of a source as they are; one without named splits becomes `train`."""
    if problems := _storage_problems(source):
        raise ConfigurationError(problems)
    try:
        if source.kind == "hub":
            loaded = datasets.load_dataset(source.location)
        elif source.kind == "folder":
            loaded = _load_folder(Path(source.location))
        else:
            loaded = _load_file(Path(source.location))
    except (DatasetNotFoundError, HfHubHTTPError, ConnectionError) as error:
        raise ConfigurationError([_not_served(source, error)]) from error
    except _UNREADABLE as error:
        if source.kind == "hub" and isinstance(error, FileNotFoundError):  # of one that does not answer, too
            raise ConfigurationError([_not_served(source, error)]) from error
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}".rstrip(": ")
        raise ConfigurationError(
            [
                Problem(
                    source.spec,
                    f"cannot be read ({reason}).",
                    "Make it anew, or take a whole copy.",
                )
            ]
        ) from error
    parts = loaded if isinstance(loaded, datasets.DatasetDict) else datasets.DatasetDict(train=loaded)
    return datasets.DatasetDict({name: _with_plain_texts(part) for name, part in parts.items()})


def _load_file(path: Path) -> datasets.Dataset | datasets.DatasetDict:
    if _FORMATS[path.suffix] == "json":
        row_types.check_json(path)
    if path.suffix == ".jsonl" and has_other_line_ends(path):
        rows = []
        for number, row in json_lines(path):
            if row is None:
                raise ValueError(f"line {number} is no whole JSON object")
            rows.append(row)
        return datasets.Dataset.from_list(rows)
    return datasets.load_dataset(_FORMATS[path.suffix], data_files={"train": glob.escape(str(path))})


def _with_plain_texts(rows: datasets.Dataset) -> datasets.Dataset:
    """The rows with names and texts in one form; they are written once more only where some are not."""
    names = {name: in_one_form(name).strip() for name in rows.column_names}
    if len(set(names.values())) == len(names):  # else a name would stand there twice
        rows = rows.rename_columns({name: new for name, new in names.items() if new != name})
    texts = [name for name, kind in rows.features.items() if getattr(kind, "dtype", "") in _TEXT_TYPES]
    try:
        if not texts or all(_is_plain(batch) for batch in rows.select_columns(texts).iter(1000)):
            return rows
    except UnicodeDecodeError:  # told with its row when the columns are checked
        return rows

    def plain(batch: Mapping[str, list[str | None]]) -> dict[str, list[str | None]]:
        return {name: [value and in_one_form(value) for value in batch[name]] for name in texts}

    cache = _place_of_copy(rows)
    return rows.map(
        plain,
        batched=True,
        features=rows.features,
        cache_file_name=str(cache) if cache else None,
        keep_in_memory=cache is None,
        new_fingerprint=cache.stem if cache else None,
        desc="line ends and spaces in one form",
    )


def _place_of_copy(rows: datasets.Dataset) -> Path | None:
    """Where a copy of rows with plain texts belongs, by what their files are now; None where nothing can be
    kept. Not beside the rows: a folder of the user's own stays as it is."""
    stored = [Path(file["filename"]).resolve() for file in rows.cache_files]
    known = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in stored]
    of_copy = (_FORM_OF_COPIES, known, rows.column_names, len(rows))
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "plain_texts"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    key = hashlib.sha256(repr(of_copy).encode()).hexdigest()[:16]
    return folder / f"{key}.arrow" if known and os.access(folder, os.W_OK) else None


def _is_plain(batch: Mapping[str, list[str | None]]) -> bool:
    return all(not value or in_one_form(value) == value for values in batch.values() for value in values)


def _not_served(source: Source, error: Exception) -> Problem:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401 and get_token():
        found = "the hub refused HF_TOKEN (HTTP 401)."
        return Problem(source.spec, found, "Put a valid one into .env; what is public needs none: unset it.")
    why = (
        str(error)
        if isinstance(error, HubFaultError)
        else f"HTTP {status}"
        if status
        else type(error).__name__
    )
    found = f"the hub did not serve it ({why})."
    return Problem(source.spec, found, "Check the name, the network, and HF_TOKEN if it is private.")


def _storage_problems(source: Source) -> list[Problem]:
    """Pointers in place of rows, and a cache that cannot be written."""
    path = Path(source.location)
    if source.kind != "hub":
        files = sorted(path.rglob("*")) if source.kind == "folder" else [path]
        if pointers := [str(file) for file in files if file.is_file() and is_lfs_pointer(file)]:
            shown = ", ".join(pointers[:3]) + (" and others" if len(pointers) > 3 else "")
            return [Problem(source.spec, f"holds a pointer of Git LFS in place of {shown}.", LFS_HELP)]
        if source.kind == "folder" and _is_writable(path):
            return []  # what is derived from its rows lies beside them
    unwritable = cache_problem(Path(datasets.config.HF_DATASETS_CACHE), "HF_HOME")
    return [unwritable] if unwritable else []


def _is_writable(folder: Path) -> bool:
    return all(os.access(path, os.W_OK) for path in (folder, *folder.iterdir()) if path.is_dir())


def _load_folder(folder: Path) -> datasets.Dataset | datasets.DatasetDict:
    """What `save_to_disk` wrote; of a folder that cannot be written, a copy in the cache of datasets, where
    what is derived from its rows can lie."""
    saved_folders.check(folder)
    loaded = datasets.load_from_disk(str(folder))
    if _is_writable(folder):
        return loaded
    parts = loaded if isinstance(loaded, datasets.DatasetDict) else {TRAIN: loaded}
    files = {
        str(name): [glob.escape(file["filename"]) for file in part.cache_files]
        for name, part in parts.items()
    }
    return datasets.load_dataset("arrow", data_files=files)


def _column_problems(rows: datasets.Dataset, where: str, task: Task) -> list[Problem]:
    missing = [column for column in task.columns if column not in rows.column_names]
    if missing:
        return [
            Problem(
                where,
                f"lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)} (it has "
                f"{', '.join(rows.column_names)}).",
                f"A dataset has the columns {', '.join(task.columns)}.",
            )
        ]
    if not len(rows):
        return [Problem(where, "has no rows.", "Leave it out, or build it again.")]
    return row_types.problems(rows, where, task.columns, task.number_columns)


def _row_problems(rows: datasets.Dataset, where: str, task: Task, shown: int = 5) -> list[Problem]:
    if problems := _column_problems(rows, where, task):
        return problems
    found: list[tuple[int, str]] = []
    for start in range(0, len(rows), 1000):
        batch = rows[start : start + 1000]
        for offset, values in enumerate(zip(*(batch[column] for column in task.columns), strict=True)):
            row = dict(zip(task.columns, values, strict=True))
            found += [(start + offset, fault) for fault in task.faults(row)]
    problems = [
        Problem(where, f"row {row}: {what}.", "Every row needs all of its columns; mend or remove it.")
        for row, what in found[:shown]
    ]
    if len(found) > shown:
        problems.append(Problem(where, f"and {len(found) - shown} more such rows.", ""))
    return problems


def _prepare(rows: datasets.Dataset, row_id_prefix: str, task: Task) -> datasets.Dataset:
    text, number = datasets.Value("string"), datasets.Value("float64")
    for name in task.number_columns:
        if name not in rows.column_names:
            rows = rows.add_column(name, [None] * len(rows), feature=number)
    rows = rows.select_columns([*task.columns, *task.number_columns])
    wanted = datasets.Features(
        {**dict.fromkeys(task.columns, text), **dict.fromkeys(task.number_columns, number)}
    )
    # A cast writes all rows once more, and on every rank.
    if rows.features != wanted:
        rows = rows.cast(wanted)
    return rows.add_column("row_id", [f"{row_id_prefix}#{i}" for i in range(len(rows))])


def _row_id_names(all_sources: Sequence[Source]) -> dict[str, str]:
    """The last part of each location where that tells the sources apart, else what the user wrote."""
    short = {source.spec: Path(source.location).name for source in all_sources}
    return {spec: name if list(short.values()).count(name) == 1 else spec for spec, name in short.items()}


def _keys(rows: datasets.Dataset, task: Task) -> list[RowKey]:
    """One for each row, in a few dozen bytes; none for a task without dates."""
    names = task.key_columns
    return [
        task.key(dict(zip(names, values, strict=True)))
        for values in zip(*(rows[name] for name in names), strict=True)
    ]


def _cut_anew(
    splits: datasets.DatasetDict,
    source: Source,
    block: Block,
    unused: dict[str, int],
    task: Task,
    may_lack: bool,
) -> datasets.DatasetDict:
    """Training and test rows by a date; the others are added to `unused`.

    Args:
        may_lack: whether one of the two may be without a row of this source.
    """
    rows = _in_order_of_time(splits)
    starts = [key.start for key in _keys(rows, task)]
    embargo_weeks = _embargo_weeks(source)
    parts = cut(starts, block, embargo_weeks)
    if (empty := [name for name in (TRAIN, TEST) if not parts[name]]) and not may_lack:
        found = (
            f"is {block.test_from}, which leaves no {' and no '.join(empty)} row of {source.spec}: its weeks "
            f"start from {min(starts)} to {max(starts)}, and "
            f"{f'those from {block.train_until} on' if block.train_until else embargo_weeks} before the test "
            "are left out."
        )
        raise ConfigurationError([Problem("--test_from", found, "Choose another day, or more data.")])
    unused[f"{source.spec} (between training and test)"] = len(parts[GAP])
    if outside := sum(not block.holds(start) for start in starts):
        unused[f"{source.spec} (before --train_from, or from --test_until on)"] = outside
    return datasets.DatasetDict({name: rows.select(parts[name]) for name in (TRAIN, TEST)})


def _in_order_of_time(splits: datasets.DatasetDict) -> datasets.Dataset:
    """All rows, as a dataset that was never split has them."""
    in_order = [splits[name] for name in (TRAIN, GAP, TEST) if name in splits] or list(splits.values())
    return datasets.concatenate_datasets(in_order)


def _embargo_weeks(source: Source) -> int:
    """Weeks between training and test: as many as a prompt shows."""
    made = _recipe_of(source)
    return int(made["max_past_weeks"]) if made else MAX_PAST_WEEKS


@dataclass(frozen=True)
class DatedSource:
    """The weeks of a source's rows, one key for each row."""

    keys: Sequence[RowKey]
    embargo_weeks: int
    repeat: int

    def counts(self, block: Block) -> tuple[int, int]:
        """Training rows, repeats included, and test rows."""
        parts = cut([key.start for key in self.keys], block, self.embargo_weeks)
        return self.repeat * len(parts[TRAIN]), len(parts[TEST])


def read_dates(train_sources: Sequence[Source], task: Task) -> tuple[list[DatedSource], str]:
    """The weeks of every row that `load` would cut into blocks, by source, and the fingerprint of the rows.

    Raises:
        ConfigurationError: as `load`.
    """
    names, parts, dated = _row_id_names(train_sources), [], []
    for source in train_sources:
        rows = _in_order_of_time(_read(source, (TRAIN, GAP, TEST), names[source.spec], {}, task))
        parts.append(rows)
        dated.append(DatedSource(_keys(rows, task), _embargo_weeks(source), source.repeat))
    return dated, _fingerprint(task, *parts)


def _split_by_date(rows: datasets.Dataset, source: Source, task: Task) -> datasets.DatasetDict:
    starts = [key.start for key in _keys(rows, task)]
    if len(set(starts)) < 2:
        raise ConfigurationError(
            [
                Problem(
                    source.spec,
                    "has neither a test split nor a second week to split at.",
                    "Name test rows with --test_dataset.",
                )
            ]
        )
    parts = cut(starts, Block(min(last_weeks(starts))), embargo_weeks=0)
    return datasets.DatasetDict({name: rows.select(parts[name]) for name in (TRAIN, TEST)})


def _fingerprint(task: Task, *parts: datasets.Dataset) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}\n".encode())
        for start in range(0, len(part), 1000):
            batch = part[start : start + 1000]
            for row in zip(*(batch[column] for column in task.columns), strict=True):
                for value in row:
                    digest.update(hashlib.sha256(str(value).encode()).digest())
    return digest.hexdigest()
