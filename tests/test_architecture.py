"""Who may import whom, who may read the environment, and what stays light, as the source itself says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENTRY_POINTS = {path.stem for path in ROOT.glob("*.py")} - {"indices"}
TIERS = {
    "indices": 0,
    "forecaster": 0,
    "forecaster.records": 0,
    "forecaster.errors": 0,
    "forecaster.prompts": 1,
    "forecaster.chat": 1,
    "forecaster.hashes": 1,
    "forecaster.flags": 1,
    "forecaster.pace": 1,
    "forecaster.settings": 1,
    "forecaster.supervision": 1,
    "forecaster.tracking": 1,
    "forecaster.provenance": 1,
    "forecaster.nodes": 1,
    "forecaster.doctor": 1,
    "forecaster.data": 2,
    "forecaster.modeling": 2,
    "forecaster.evaluation": 2,
}
ENTRY_TIER = 3
LONGEST_FUNCTION_LINES = 70
HEAVY = {"torch", "peft", "trl", "deepspeed", "accelerate", "bitsandbytes"}
LIGHT_MODELING = ("api_engine", "registry", "config", "hardware", "memory", "checkpoints", "run")
LIGHT_MODELING += ("planner", "plan_tables", "step_time", "tuner", "stopping")


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {_name(path): path for path in sorted([*(ROOT / "forecaster").rglob("*.py"), *ROOT.glob("*.py")])}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def _imports(tree: ast.AST) -> set[str]:
    """Dotted names of everything imported below `tree`: `from a import b` gives both `a` and `a.b`."""
    found = set()
    for node in ast.walk(tree):
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


def _import_time_imports(tree: ast.Module) -> set[str]:
    nodes = [node for node in _outside_functions(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return set().union(*(_imports(node) for node in nodes))


def _packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def _part(name: str) -> str:
    """The folder of the package, or the module at its top, that a module belongs to."""
    return ".".join(name.split(".")[:2]) if name.startswith("forecaster") else name


def _own_imports(name: str) -> set[str]:
    return {found for found in _imports(TREES[name]) if found in SOURCES}


def test_the_source_is_found() -> None:
    assert {"train_lora", "benchmark", "launch"} <= ENTRY_POINTS
    assert len(SOURCES) > 20


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_has_its_place(name: str) -> None:
    assert _part(name) in TIERS or name in ENTRY_POINTS


@pytest.mark.parametrize("name", SOURCES)
def test_imports_run_one_way(name: str) -> None:
    own_tier = TIERS.get(_part(name), ENTRY_TIER)
    for found in _own_imports(name):
        assert TIERS.get(_part(found), ENTRY_TIER) <= own_tier, f"{name} imports {found}"


def test_no_two_modules_import_each_other() -> None:
    list(TopologicalSorter({name: _own_imports(name) - {"forecaster"} for name in SOURCES}).static_order())


@pytest.mark.parametrize("name", [name for name in SOURCES if TIERS.get(_part(name)) == 2])
def test_the_three_folders_do_not_import_one_another(name: str) -> None:
    folders = {_part(found) for found in _own_imports(name) if TIERS.get(_part(found)) == 2}
    assert folders <= {_part(name)}


@pytest.mark.parametrize("name", SOURCES)
def test_nobody_imports_an_entry_point(name: str) -> None:
    assert not _packages(_imports(TREES[name])) & ENTRY_POINTS


@pytest.mark.parametrize(
    ("package", "owner"),
    [
        ("wandb", "forecaster.tracking"),
        ("matplotlib", "forecaster.evaluation.plots"),
        ("talib", "forecaster.data.indicators"),
        ("finnhub", "forecaster.data.finnhub"),
        ("openai", "forecaster.chat"),
        ("yfinance", "forecaster.data.prices"),
    ],
)
def test_a_library_with_one_owner_is_imported_there_only(package: str, owner: str) -> None:
    importers = {name for name, tree in TREES.items() if package in _packages(_imports(tree))}
    # An owner may be a folder; one that is not written yet leaves nobody.
    assert {name for name in importers if name != owner and not name.startswith(f"{owner}.")} == set()
    assert bool(importers) == (owner in SOURCES)


def _reads_environment(tree: ast.AST) -> bool:
    return any(
        (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and node.attr in ("environ", "environb", "getenv", "putenv")
        )
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {alias.name for alias in node.names} & {"environ", "environb", "getenv", "putenv"}
        )
        for node in ast.walk(tree)
    )


def test_only_settings_read_the_environment_and_the_launcher_hands_it_on() -> None:
    assert {name for name, tree in TREES.items() if _reads_environment(tree)} <= {
        "forecaster.settings",
        "launch",
    }


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_reads_the_environment_or_a_file_while_it_is_imported(name: str) -> None:
    calls = {
        node.attr
        for node in _outside_functions(TREES[name])
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Store)
    }
    assert not calls & {"environ", "getenv", "read_text", "read_bytes", "write_text", "mkdir", "open", "run"}


@pytest.mark.parametrize(
    "name",
    [name for name in SOURCES if _part(name) in ("forecaster.data", "forecaster.evaluation")],
)
def test_data_and_evaluation_know_no_torch(name: str) -> None:
    assert not _packages(_imports(TREES[name])) & HEAVY


@pytest.mark.parametrize(
    "name", [*(f"forecaster.modeling.{module}" for module in LIGHT_MODELING), *sorted(ENTRY_POINTS)]
)
def test_light_modules_do_not_name_torch_at_their_top(name: str) -> None:
    assert not _packages(_import_time_imports(TREES[name])) & HEAVY


def test_importing_the_light_modules_does_not_import_torch() -> None:
    light = [
        *(name for name in SOURCES if TIERS.get(_part(name), ENTRY_TIER) < 2),
        *(name for name in SOURCES if _part(name) in ("forecaster.data", "forecaster.evaluation")),
        *(f"forecaster.modeling.{module}" for module in LIGHT_MODELING),
        *ENTRY_POINTS,
    ]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        f"    found = sorted(set(sys.modules) & {HEAVY!r})\n"
        "    assert not found, f'{name} imports {found}'\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *light], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SOURCES)
def test_no_function_is_longer_than_a_screen(name: str) -> None:
    too_long = {
        node.name: int(node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and int(node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION_LINES
    }
    assert too_long == {}


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_is_named_by_a_noun_of_the_project(name: str) -> None:
    assert name.split(".")[-1] not in ("utils", "util", "helpers", "helper", "common", "misc")


@pytest.mark.parametrize("name", SOURCES)
def test_no_except_is_broad(name: str) -> None:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ExceptHandler):
            caught = (
                {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
                if node.type
                else set()
            )
            assert caught, f"bare except in line {node.lineno}"
            assert not caught & {"Exception", "BaseException"}, f"broad except in line {node.lineno}"


@pytest.mark.parametrize("name", SOURCES)
def test_no_group_is_possessive(name: str) -> None:
    """Python 3.11.0 to 3.11.4, Debian 12's among them, match less than such a group does (python/cpython
    #106052); an atomic group, `(?>(?:...)*)`, means the same."""
    assert re.findall(r".*\)(?:[?*+]|\{[0-9,]+\})\+.*", SOURCES[name].read_text(encoding="utf-8")) == []
