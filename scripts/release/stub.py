"""Write fcdeploy/__init__.pyi, the types of the public functions for editors and type checkers.

.venv/bin/python -m scripts.release.stub, after a change of a command's parameters.

`fcdeploy/__init__.py` imports nothing until it is used, which no type checker follows.  Signatures and docstrings are the
commands'; models and data get the wider types that only Python has, and reports the class of their result.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fcdeploy
from fcdeploy.api.functions import DATA, FUNCTIONS, MODELS

STUB = Path(fcdeploy.__file__).with_name("__init__.pyi")
HEAD = '''"""{doc}"""

# Written by scripts/release/stub.py from the commands' signatures.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

from fcdeploy.api.inputs import Data, Model, TorchModule, TorchTensor
from fcdeploy.api.results import {results}
from fcdeploy.api.server import Server
from fcdeploy.arrays import Array
from fcdeploy.bundles.load import Bundle
from fcdeploy.errors import FcdeployError as FcdeployError
from fcdeploy.runtime.native_library import NativeModel
from fcdeploy.preprocessing.read import Given
from fcdeploy.records.plan import Effort
from fcdeploy.records.progress import OnStep

__version__: str
__all__: list[str]
'''
TORCH = {"nn.Module": "TorchModule", "torch.Tensor": "TorchTensor"}


def write_parameter(row: inspect.Parameter, dry_run: str) -> str:
    """`name: type = default`."""
    kind = str(row.annotation)
    for name, protocol in TORCH.items():
        kind = kind.replace(name, protocol)
    if row.name in (*MODELS, *DATA):
        kind = ("Model" if row.name in MODELS else "Data") + (" | None" if row.default is None else "")
    if row.name == "dry_run" and dry_run:
        return f"dry_run: Literal[{dry_run}]" + (" = False" if dry_run == "False" else "")
    return f"{row.name}: {kind}" + ("" if row.default is row.empty else f" = {row.default!r}")


def write_function(name: str, function: Callable[..., object], result: str, dry_run: str = "") -> str:
    """A declaration with its docstring; of a pair, the one for this value of `dry_run`."""
    rows, words = list(inspect.signature(function).parameters.values()), []
    for index, row in enumerate(rows):
        if row.kind is row.KEYWORD_ONLY and (not index or rows[index - 1].kind is not row.KEYWORD_ONLY):
            words.append("*")
        words.append(write_parameter(row, dry_run))
    doc = "    " + '"""' + re.sub(r"\n(?=[^\n])", "\n    ", inspect.getdoc(function) or "") + '"""'
    return f"{'@overload' if dry_run else ''}\ndef {name}({', '.join(words)}) -> {result}:\n{doc}\n"


def make_stub() -> str:
    """The file's text."""
    parts = [HEAD.format(doc=fcdeploy.__doc__, results=", ".join(f"{name} as {name}" for name in fcdeploy.RESULTS))]
    for name in fcdeploy.FUNCTIONS:
        function = getattr(fcdeploy, name)
        result = str(inspect.signature(function).return_annotation)
        if name == "quantize":
            parts.append(write_function(name, function, "PlanResult", "True"))
        parts.append(write_function(name, function, result, "False" if name == "quantize" else ""))
    assert set(FUNCTIONS) < set(fcdeploy.FUNCTIONS)
    ruff = Path(sys.executable).with_name("ruff")
    made = subprocess.run(
        [ruff, "format", "--stdin-filename", STUB, "-"],
        input="\n".join(parts),
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout


if __name__ == "__main__":
    STUB.write_text(make_stub())
