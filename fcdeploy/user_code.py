"""The user's own code: FILE.py:FUNCTION, found or refused with a reason, and libraries of operators."""

from __future__ import annotations

import importlib.util
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from fcdeploy.errors import FcdeployError, first_line
from fcdeploy.wording import quote_path

DEBUG = "FCDEPLOY_DEBUG=1 shows the traceback"
WEIGHTS = {".pt", ".pth", ".ckpt", ".bin", ".safetensors"}
OPERATORS = "FCDEPLOY_OPS"  # an environment variable, so that workers in other processes load the same


def load_function(reference: str) -> tuple[Callable[..., Any], ModuleType]:
    """The function that `FILE.py:FUNCTION` names, and the module it lives in.

    Raises FcdeployError when the reference, the file or the function is not there, or when the file fails to load.
    """
    file, colon, name = reference.rpartition(":")
    path = Path(file)
    if not colon or path.suffix != ".py" or not name.isidentifier():
        weights = Path(reference).suffix in WEIGHTS
        raise FcdeployError(
            f"{reference!r} is not of the form FILE.py:FUNCTION",
            f"weights come beside the code that makes their module: FILE.py:FUNCTION --state {quote_path(reference)}"
            if weights
            else "models/lenet5.py:lenet5 is one",
        )
    if not path.is_file():
        raise FcdeployError(f"Python file {file!r} does not exist", "give FILE.py:FUNCTION")
    module = load_file(path)
    function = getattr(module, name, None)
    if callable(function):
        return function, module
    own = [key for key, value in vars(module).items() if callable(value) and _defined_in(value, module)]
    raise FcdeployError(
        f"{file!r} has no function {name!r}, it has {', '.join(own) or 'none'}",
        f"{file}:{own[-1]}" if own else f"write one: def {name}(): ...",
    )


def load_file(path: Path) -> ModuleType:
    """Run a Python file as a module; its own folder is importable, as it is for `python FILE.py`."""
    whole = str(path.resolve())
    name = f"fcdeploy_user_{path.stem}_{zlib.crc32(whole.encode()):08x}"  # files of one name lie in many folders
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(Path(whole).parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[name] = module  # dataclasses and pickles look their module up there
    with user_code(f"{str(path)!r} fails on import"):
        spec.loader.exec_module(module)
    return module


@contextmanager
def user_code(failure: str, hint: str = DEBUG) -> Iterator[None]:
    """Run code that is not ours: what it prints goes to stderr, whatever it raises becomes one error."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except FcdeployError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may raise anything, and even leave
        raise FcdeployError(f"{failure}: {type(error).__name__}: {first_line(error)}", hint) from error


def _defined_in(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def use_operators(*libraries: Path | str) -> None:
    """Let every model of this process, and of workers it starts, be loaded with these libraries of custom operators.

    Each is a shared library with the entry point RegisterCustomOps of onnxruntime; loading one runs its code.  Raises
    FcdeployError for one that is no file.
    """
    for library in libraries:
        if not Path(library).is_file():
            raise FcdeployError(f"library of operators {str(library)!r} does not exist", "--ops LIB.so")
    known = operator_libraries()
    new = [str(Path(library).resolve()) for library in libraries]
    os.environ[OPERATORS] = os.pathsep.join([*known, *(one for one in new if one not in known)])


def operator_libraries() -> list[str]:
    """The libraries of custom operators that models are loaded with."""
    return [one for one in os.environ.get(OPERATORS, "").split(os.pathsep) if one]
