"""This checkout, for scripts: its root, the commands that it holds, and the files of models/."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from fcdeploy.user_code import load_file

ROOT = Path(__file__).resolve().parent.parent
FCDEPLOY = str(Path(sys.executable).with_name("fcdeploy"))
BENCH = (sys.executable, "-m", "scripts.benchmarks.bench")
"""`scripts/bench` in a process of its own, which starts in the root."""


def load_model_file(name: str) -> ModuleType:
    """A file of models/, `lenet5` say."""
    return load_file(ROOT / "models" / f"{name}.py")


def list_families() -> dict[str, Any]:
    """The networks that models/families.py trains, by name."""
    families: dict[str, Any] = load_model_file("families").FAMILIES
    return families
