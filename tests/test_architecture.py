"""Who may import whom, who may read the environment, and what stays light, as the source itself says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENTRY_POINTS = {path.stem for path in ROOT.glob("*.py")} - {"indices", "prompts"}
TIERS = (
    {"indices", "forecaster", "forecaster.records", "forecaster.calls", "forecaster.errors"},
    {
        *(
            "forecaster.chat",
            "forecaster.claims",
            "forecaster.exits",
            "forecaster.files",
            "forecaster.flags",
            "forecaster.http_limits",
            "forecaster.network_settings",
            "forecaster.processes",
        ),
        *(
            "forecaster.plain_text",
            "forecaster.progress",
            "forecaster.provenance",
            "forecaster.retry_after",
            "forecaster.run_folder",
            "forecaster.schemas",
        ),
        *("forecaster.settings", "forecaster.tables", "forecaster.tracking"),
    },
    {"prompts"},
    {"forecaster.tasks"},
    {"forecaster.vendors", "forecaster.models"},
    {"forecaster.data", "forecaster.fit", "forecaster.evaluation"},
    {"forecaster.training", "forecaster.answering", "forecaster.cluster"},
    {"forecaster.jobs"},
    ENTRY_POINTS,
)
"""From the base up: a part imports from lower tiers, never from its siblings in its own."""
TIER_OF = {part: tier for tier, parts in enumerate(TIERS) for part in parts}
FIRST_TIER_OF_FOLDERS = TIER_OF["forecaster.tasks"]
LONGEST_FUNCTION_LINES = 70
HEAVY = {"torch", "peft", "trl", "deepspeed", "accelerate", "bitsandbytes"}
WITH_TORCH = {
    *("forecaster.models.loading", "forecaster.models.lora_products"),
    *("forecaster.models.templates", "forecaster.models.weights"),
    *("forecaster.answering.choice_likelihoods", "forecaster.answering.engines"),
    *("forecaster.answering.hf_engine", "forecaster.answering.vllm_engine"),
    *("forecaster.training.callbacks", "forecaster.training.fine_tuning", "forecaster.training.loss"),
    *("forecaster.training.tokenising", "forecaster.training.trainer"),
    "forecaster.training.survival.durable",
}
"""What names torch, or what brings it along, at its top: jobs import these when everything was checked."""
OWNERS = {
    "wandb": "forecaster.tracking",
    "matplotlib": "forecaster.evaluation.plots",
    "talib": "forecaster.data.indicators",
    "finnhub": "forecaster.vendors.finnhub",
    "openai": "forecaster.chat",
    "pynvml": "forecaster.fit.gpus",
    "yfinance": "forecaster.vendors.yahoo",
    "vllm": "forecaster.answering.vllm_engine",
}


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {_name(path): path for path in sorted([*(ROOT / "forecaster").rglob("*.py"), *ROOT.glob("*.py")])}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def _imports(*nodes: ast.AST) -> set[str]:
    """Dotted names of everything imported below `nodes`: `from a import b` gives both `a` and `a.b`."""
    found = set()
    for node in (inner for outer in nodes for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _outside_functions(tree: ast.Module) -> Iterator[ast.AST]:
    """What runs when a module is imported (annotations under TYPE_CHECKING included)."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def _packages(names: Iterable[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def _part(name: str) -> str:
    """The folder of the package, or the module at its top, that a module belongs to."""
    return ".".join(name.split(".")[:2]) if name.startswith("forecaster") else name


def _own_imports(name: str) -> set[str]:
    return {found for found in _imports(TREES[name]) if found in SOURCES}


def test_every_module_has_its_place() -> None:
    assert {"train_lora", "benchmark"} <= ENTRY_POINTS
    assert {name for name in SOURCES if _part(name) not in TIER_OF} == set()


def test_imports_run_one_way() -> None:
    wrong = {
        f"{name} imports {found}"
        for name in SOURCES
        for found in _own_imports(name)
        if TIER_OF[_part(found)] > TIER_OF[_part(name)]
    }
    assert wrong == set()


def test_siblings_do_not_import_one_another() -> None:
    wrong = {
        f"{name} imports {found}"
        for name in SOURCES
        for found in _own_imports(name)
        if TIER_OF[_part(found)] == TIER_OF[_part(name)] >= FIRST_TIER_OF_FOLDERS
        and _part(found) != _part(name)
    }
    assert wrong == set()


def test_no_two_modules_import_each_other() -> None:
    list(TopologicalSorter({name: _own_imports(name) - {"forecaster"} for name in SOURCES}).static_order())


def test_nobody_imports_an_entry_point() -> None:
    assert {name for name in SOURCES if _packages(_imports(TREES[name])) & ENTRY_POINTS} == set()


def test_a_library_with_one_owner_is_imported_there_only() -> None:
    importers: dict[str, set[str]] = {
        library: {name for name, tree in TREES.items() if library in _packages(_imports(tree))}
        for library in OWNERS
    }
    for library, owner in OWNERS.items():
        assert importers[library], f"nobody imports {library}"
        assert {name for name in importers[library] if f"{name}.".startswith(f"{owner}.")} == importers[
            library
        ]


def _reads_environment(tree: ast.AST) -> bool:
    names = {"environ", "environb", "getenv", "putenv"}
    return any(
        (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and node.attr in names
        )
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and not names.isdisjoint(alias.name for alias in node.names)
        )
        for node in ast.walk(tree)
    )


def test_only_settings_read_the_environment() -> None:
    readers = {name for name, tree in TREES.items() if _reads_environment(tree)}
    assert readers == {"forecaster.settings"}


def test_nothing_reads_the_environment_or_a_file_while_it_is_imported() -> None:
    loud = {"environ", "getenv", "read_text", "read_bytes", "write_text", "mkdir", "open", "run"}
    for name, tree in TREES.items():
        calls = {
            node.attr
            for node in _outside_functions(tree)
            if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Store)
        }
        assert not calls & loud, name


def test_vendors_data_and_evaluation_know_no_torch() -> None:
    parts = {"forecaster.vendors", "forecaster.data", "forecaster.evaluation"}
    assert {n for n in SOURCES if _part(n) in parts and _packages(_imports(TREES[n])) & HEAVY} == set()


def test_importing_anything_but_the_heavy_modules_does_not_import_torch() -> None:
    assert set(SOURCES) >= WITH_TORCH
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        f"    found = sorted(set(sys.modules) & {HEAVY!r})\n"
        "    assert not found, f'{name} imports {found}'\n"
    )
    light = sorted(set(SOURCES) - WITH_TORCH)
    done = subprocess.run([sys.executable, "-c", program, *light], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_function_is_longer_than_a_screen() -> None:
    too_long = {
        f"{name}.{node.name}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and int(node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION_LINES
    }
    assert too_long == set()


def test_a_module_is_named_by_a_noun_of_the_project() -> None:
    shapeless = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert {name for name in SOURCES if name.split(".")[-1] in shapeless} == set()


def test_one_name_is_one_class() -> None:
    homes = defaultdict(set)
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(name)
    assert {name: sorted(found) for name, found in homes.items() if len(found) > 1} == {}


def test_no_except_is_broad() -> None:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                parts = ast.walk(node.type) if node.type else ()
                caught = {part.id for part in parts if isinstance(part, ast.Name)}
                assert caught, f"{name}: bare except in line {node.lineno}"
                assert not caught & {"Exception", "BaseException"}, f"{name}: line {node.lineno}"


def test_no_group_is_possessive() -> None:
    """Python 3.11.0 to 3.11.4, Debian 12's among them, match less than such a group does (python/cpython
    #106052); an atomic group, `(?>(?:...)*)`, means the same."""
    for name, path in SOURCES.items():
        found = re.findall(r".*\)(?:[?*+]|\{[0-9,]+\})\+.*", path.read_text(encoding="utf-8"))
        assert found == [], name


def test_an_entry_point_is_flags_a_job_and_little_more() -> None:
    lines = {name: len(SOURCES[name].read_text(encoding="utf-8").splitlines()) for name in ENTRY_POINTS}
    assert {name: count for name, count in lines.items() if count > 120} == {}


def test_jobs_and_engines_tell_their_listener_alone_and_do_not_leave() -> None:
    for name, tree in TREES.items():
        if _part(name) in {"forecaster.jobs", "forecaster.answering"}:
            assert "tqdm" not in _packages(_imports(tree)), name
            called = {
                node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                for node in ast.walk(tree)
                if isinstance(node, ast.Call)
            }
            assert not called & {"print", "input", "exit", "_exit"}, name
