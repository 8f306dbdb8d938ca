"""The example notebook runs from top to bottom and gives what it shows; cells run in this interpreter, without a kernel."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CELLS = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]


def run_cell(source: str, space: dict[str, Any]) -> Any:
    """What a notebook shows below the cell: the value of its last line."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), space)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), space)


def test_every_cell_runs_and_figures_are_those_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models", "calib_data"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert 6 <= len(CODE) <= 10
    space: dict[str, Any] = {}
    for cell in CODE:
        shown = run_cell("".join(cell["source"]), space)
        stored = ["".join(output["data"]["text/plain"]) for output in cell["outputs"]]
        assert (shown is not None) == bool(stored)
        if hasattr(shown, "_repr_html_"):
            assert "text/html" in cell["outputs"][0]["data"]
    assert space["proof"].passed
    assert space["status"] == 200
    made = space["made"]
    assert made.bytes_int8 / made.bytes_float == pytest.approx(float(stored_value("made.bytes_int8 /")), abs=0.01)


def stored_value(source: str) -> str:
    """What the notebook shows of the cell whose last line begins so."""
    (cell,) = [cell for cell in CODE if source in cell["source"][-1]]
    return "".join(cell["outputs"][0]["data"]["text/plain"])


def test_no_cell_leaves_python() -> None:
    assert not [cell for cell in CODE if any(line.lstrip().startswith(("!", "%")) for line in cell["source"])]
