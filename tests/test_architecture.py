"""The layers of the architecture, read from the source: a module imports from lower layers or its own, never from above."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fcdeploy

HOME = Path(fcdeploy.__file__).parent
LAYERS = {
    "arrays": 0, "errors": 0, "files": 0, "records": 0, "user_code": 0,
    "arithmetic": 1,
    "tables": 2,
    "graph": 3,
    "runtime": 4,
    "bundles": 5, "prepare": 5, "samples": 5,
    "evaluate": 6, "pytorch": 6, "transform": 6,
    "proof": 7,
    "int8": 8,
    "sensitivity": 9,
    "search": 10,
    "commands": 11,
    "serve": 12,
    "cli": 13, "console": 13,
}  # fmt: skip
FACE = {"click", "rich"}
NEEDS_TORCH = {"fcdeploy.pytorch.export", "fcdeploy.pytorch.module"}  # cannot be imported without it
TORCH = {"fcdeploy.commands.export", *NEEDS_TORCH}


def module_name(path: Path) -> str:
    parts = ("fcdeploy", *path.relative_to(HOME).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PARSED = {module_name(path): ast.parse(path.read_text()) for path in sorted(HOME.rglob("*.py"))}


def imports(tree: ast.AST) -> Iterator[str]:
    """Absolute dotted names of every import, those inside functions and TYPE_CHECKING blocks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}: layers are read from absolute names"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in PARSED else str(node.module)


IMPORTS = {name: sorted(set(imports(tree))) for name, tree in PARSED.items()}
INSIDE = {name: [other for other in found if other.split(".")[0] == "fcdeploy"] for name, found in IMPORTS.items()}


def layer(module: str) -> int:
    """Of a module; the package itself, which holds the version and loads commands when asked for one, is below all."""
    return LAYERS[module.split(".")[1]] if "." in module else -1


def importers(*packages: str) -> set[str]:
    return {name for name, found in IMPORTS.items() for other in found if other.split(".")[0] in packages}


def test_everything_is_on_a_layer() -> None:
    assert {name.split(".")[1] for name in PARSED if "." in name} == set(LAYERS)


def test_imports_name_modules_that_exist() -> None:
    assert {other for found in INSIDE.values() for other in found} <= set(PARSED)


def test_imports_go_down() -> None:
    upward = [
        f"{name} (layer {layer(name)}) imports {other} (layer {layer(other)})"
        for name, found in INSIDE.items()
        for other in found
        if layer(other) > layer(name)
    ]
    assert not upward, "\n".join(upward)


def test_commands_do_not_import_each_other() -> None:
    commands = {name: found for name, found in INSIDE.items() if layer(name) == LAYERS["commands"]}
    assert len(commands) > 5
    assert not [
        (name, other) for name, found in commands.items() for other in found if layer(other) == LAYERS["commands"]
    ]


def test_no_module_imports_itself_in_a_circle() -> None:
    try:
        order = list(TopologicalSorter(INSIDE).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert set(order) == set(PARSED)


def test_arithmetic_and_records_need_only_numpy() -> None:
    """Layers 0 and 1: arrays in, arrays out. A calibration file is read and written by safetensors."""
    allowed = {"numpy", "fcdeploy"} | set(sys.stdlib_module_names)
    found = {(name, other.split(".")[0]) for name in PARSED if layer(name) in (0, 1) for other in IMPORTS[name]}
    assert {pair for pair in found if pair[1] not in allowed} == {("fcdeploy.records.calibration", "safetensors")}


def test_tables_hold_rows_and_import_only_records() -> None:
    assert {layer(other) for name in PARSED if layer(name) == 2 for other in INSIDE[name]} <= {0, 2}


def test_only_export_imports_torch() -> None:
    assert importers("torch") <= TORCH


def test_torch_modules_are_only_imported_by_export_and_inside_functions() -> None:
    """So that every other command runs without torch, and `export` can say how to install it."""
    for name, found in INSIDE.items():
        if NEEDS_TORCH & set(found):
            assert name in TORCH, name
    always_run = [node for node in PARSED["fcdeploy.commands.export"].body if not guarded(node)]
    at_top = {name for node in always_run for name in imports(node)}
    assert not {name for name in at_top if name.split(".")[0] == "torch" or name in NEEDS_TORCH}


def guarded(node: ast.AST) -> bool:
    """Run only when called, or only by a type checker."""
    typing_only = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return typing_only or isinstance(node, ast.FunctionDef | ast.ClassDef)


def test_only_the_face_imports_click_and_rich() -> None:
    assert {layer(name) for name in importers(*FACE)} == {LAYERS["cli"]}
    assert importers("rich") == {"fcdeploy.console"}


def test_only_runtime_makes_sessions() -> None:
    def mentions(tree: ast.AST) -> bool:
        names = (getattr(node, "attr", getattr(node, "id", getattr(node, "name", None))) for node in ast.walk(tree))
        return "InferenceSession" in names

    assert {name for name, tree in PARSED.items() if mentions(tree)} == {"fcdeploy.runtime.session"}


def test_no_module_below_the_face_prints() -> None:
    calls = {
        name
        for name, tree in PARSED.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {layer(name) for name in calls} <= {LAYERS["cli"]}
