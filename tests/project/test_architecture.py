"""The layers of the architecture, as its page's table of folders declares them: a row imports from the rows below it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fcdeploy

HOME = Path(fcdeploy.__file__).parent
PAGE = (HOME.parent / "docs" / "architecture.md").read_text()
ROW = re.compile(r"^\| ((?:`fcdeploy/[^`]*`(?:, )?)+) \|", re.M)


def declared_rows() -> list[list[str]]:
    """The modules of each row of the table, from the bottom up, as the beginnings of their names."""
    rows = [re.findall(r"`fcdeploy/([^`]*)`", row) for row in ROW.findall(PAGE)]
    return [[path.removesuffix(".py").rstrip("/").replace("/", ".") for path in row] for row in reversed(rows)]


LAYERS = {f"fcdeploy.{name}": level for level, row in enumerate(declared_rows()) for name in row}
FACE = {"click", "rich"}
NEEDS_TORCH = {
    f"fcdeploy.pytorch.{name}"
    for name in (
        "export",
        "module",
        "checkpoint",
        "unsafe_checkpoint",
        "compare",
        "recurrent_tracing",
        "graph_run",
        "reconstruction",
    )
}  # cannot be imported without it
TORCH = {"fcdeploy.commands.export", "fcdeploy.int8.refining.reconstruct", *NEEDS_TORCH}


def module_name(path: Path) -> str:
    parts = ("fcdeploy", *path.relative_to(HOME).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {module_name(path): path for path in sorted(HOME.rglob("*.py"))}


@cache
def parsed() -> dict[str, ast.Module]:
    """Every module; not at the top, which each worker of pytest runs."""
    return {name: ast.parse(path.read_text()) for name, path in PATHS.items()}


def imports(tree: ast.AST) -> Iterator[str]:
    """Absolute dotted names of every import, those inside functions and TYPE_CHECKING blocks too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}: layers are read from absolute names"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in PATHS else str(node.module)


@cache
def all_imports() -> dict[str, list[str]]:
    return {name: sorted(set(imports(tree))) for name, tree in parsed().items()}


@cache
def inner_imports() -> dict[str, list[str]]:
    found = all_imports().items()
    return {name: [other for other in imported if other.split(".")[0] == "fcdeploy"] for name, imported in found}


def layer(module: str) -> int:
    """The row of a module's folder, or its own; the package itself, which holds the version, is below all."""
    if module in ("fcdeploy", "fcdeploy.lazy_imports"):  # which it imports
        return -1
    while module not in LAYERS:
        module, dot, _ = module.rpartition(".")
        assert dot, "no row of the table in docs/architecture.md has it"
    return LAYERS[module]


def top(module: str) -> str:
    """The folder directly in the package, or the module there."""
    return module.split(".")[1] if "." in module else ""


def importers(*packages: str) -> set[str]:
    return {name for name, imported in all_imports().items() for other in imported if other.split(".")[0] in packages}


DISTRIBUTIONS = {
    "ml-dtypes": "ml_dtypes", "onnx-ir": "onnx_ir", "pillow": "PIL", "pysimdjson": "simdjson", "grpcio": "grpc",
    "protobuf": "google", "ipython": "IPython",
}  # fmt: skip
"""What is installed -> what is imported of it, where that has another name."""
LAYER = re.compile(r"^\| \d+ [^|]* \| ([^|]*) \|([^|]*)\|$", re.M)


def list_packages(module: str) -> set[str]:
    """What a module imports beyond fcdeploy, Python and NumPy, that by `import_module` with a name too."""
    calls = (node for node in ast.walk(parsed()[module]) if isinstance(node, ast.Call) and node.args)
    named = {
        ast.literal_eval(c.args[0]) for c in calls if ast.unparse(c.func) == "importlib.import_module" and is_text(c)
    }
    every = {name.split(".")[0] for name in (*all_imports()[module], *named)}
    return every - {"fcdeploy", "numpy"} - set(sys.stdlib_module_names)


def is_text(call: ast.Call) -> bool:
    return isinstance(call.args[0], ast.Constant)


def test_the_table_of_layers_names_what_each_imports() -> None:
    rows = LAYER.findall(PAGE)
    assert len(rows) > 14
    every = set().union(*map(list_packages, PATHS))
    for places, said in rows:
        tops = {name.removesuffix(".py") for name in re.findall(r"`([\w.]+)/?`", places)}
        words = re.findall(r"[a-z][\w-]+", re.sub(r"`[^`]*`", "", said))
        imported = set().union(*(list_packages(name) for name in PATHS if top(name) in tops))
        assert {DISTRIBUTIONS.get(word, word) for word in words} & every == imported, places


def test_every_folder_and_module_has_a_row_and_every_row_a_folder() -> None:
    folders = {module_name(path / "__init__.py") for path in HOME.rglob("*") if (path / "__init__.py").exists()}
    alone = {name for name in PATHS if name.count(".") == 1}
    assert folders | (alone - folders) <= set(LAYERS)
    assert set(LAYERS) <= set(PATHS)


def test_imports_name_modules_that_exist() -> None:
    assert {other for imported in inner_imports().values() for other in imported} <= set(PATHS)


def test_imports_go_down() -> None:
    upward = [
        f"{name} (row {layer(name)}) imports {other} (row {layer(other)})"
        for name, imported in inner_imports().items()
        for other in imported
        if layer(other) > layer(name)
    ]
    assert not upward, "\n".join(upward)


def test_commands_do_not_import_each_other() -> None:
    commands = {name: imported for name, imported in inner_imports().items() if top(name) == "commands"}
    assert len(commands) > 5
    assert not [(name, other) for name, imported in commands.items() for other in imported if top(other) == "commands"]


def test_no_module_imports_itself_in_a_circle() -> None:
    try:
        order = list(TopologicalSorter(inner_imports()).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert set(order) == set(PATHS)


LOWEST = {"arithmetic", "arrays", "errors", "files", "records", "user_code"}


def test_the_lowest_layers_need_only_numpy() -> None:
    """Arrays in, arrays out. A calibration file is read and written by safetensors."""
    allowed = {"numpy", "fcdeploy"} | set(sys.stdlib_module_names)
    needed = {(name, other.split(".")[0]) for name in PATHS if top(name) in LOWEST for other in all_imports()[name]}
    assert {pair for pair in needed if pair[1] not in allowed} == {("fcdeploy.records.calibration", "safetensors")}


def test_tables_hold_rows_and_import_only_records() -> None:
    assert {top(other) for name in PATHS if top(name) == "tables" for other in inner_imports()[name]} <= {
        "records",
        "tables",
    }


def test_only_export_imports_torch() -> None:
    assert importers("torch") <= TORCH


def test_torch_modules_are_only_imported_by_export_and_inside_functions() -> None:
    """So that every other command runs without torch, and `export` can say how to install it."""
    for name, imported in inner_imports().items():
        if NEEDS_TORCH & set(imported):
            assert name in TORCH, name
    for module in TORCH - NEEDS_TORCH:
        always_run = [node for node in parsed()[module].body if not guarded(node)]
        at_top = {name for node in always_run for name in imports(node)}
        assert not {name for name in at_top if name.split(".")[0] == "torch" or name in NEEDS_TORCH}


def guarded(node: ast.AST) -> bool:
    """Run only when called, or only by a type checker."""
    typing_only = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return typing_only or isinstance(node, ast.FunctionDef | ast.ClassDef)


def test_only_the_face_imports_click_and_rich() -> None:
    assert {top(name) for name in importers(*FACE)} == {"cli", "console"}
    assert importers("rich") == {"fcdeploy.console"}


def test_only_runtime_makes_sessions() -> None:
    def mentions(tree: ast.AST) -> bool:
        names = (getattr(node, "attr", getattr(node, "id", getattr(node, "name", None))) for node in ast.walk(tree))
        return "InferenceSession" in names

    assert {name for name, tree in parsed().items() if mentions(tree)} == {"fcdeploy.runtime.session"}


def test_no_module_below_the_face_prints() -> None:
    calls = {
        name
        for name, tree in parsed().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {top(name) for name in calls} <= {"cli", "console"}


MOST_LINES, MOST_PARAMETERS = 60, 8


def list_functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """All but the public faces: those of commands, and their options."""
    for module, tree in parsed().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                face = top(module) == "cli" or (top(module) == "commands" and not node.name.startswith("_"))
                if not face:
                    yield module, node


def test_functions_are_short_and_take_few_parameters() -> None:
    for module, node in list_functions():
        lines = (node.end_lineno or 0) - node.lineno + 1
        given = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        taken = len([name for name in given if name not in ("self", "cls")])
        assert lines <= MOST_LINES and taken <= MOST_PARAMETERS, (
            f"{module}.{node.name}: {lines} lines, {taken} parameters"
        )
