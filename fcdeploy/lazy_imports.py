"""sympy runs when it is first used: it is half of what a command imports, and fcdeploy never uses it.

onnx-ir imports it for arithmetic with symbolic dimensions (`SymbolicDim("n") + 1`), where it is still there: the first
attribute that is asked for runs it.  A program that imports sympy or onnx-ir itself before fcdeploy gets both as ever.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType


class _WhileOnnxIrIsImported(MetaPathFinder):
    """Finds what onnx-ir imports for symbolic dimensions, as modules that run when they are used."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in ("sympy", "onnx_ir._symbolic_shapes") or not _is_being_imported("onnx_ir"):
            return None  # others find it
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def _is_being_imported(name: str) -> bool:
    return getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False)


def defer_sympy() -> None:
    sys.meta_path.insert(0, _WhileOnnxIrIsImported())
