"""How a fresh Python interpreter is started: on the modules of this process, and on none that lie in the current folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import fcdeploy

SAFE_PATH = "PYTHONSAFEPATH"
"""With this set, Python does not put the current folder in front of its module path (as `-P` does)."""


def interpreter_environment() -> dict[str, str]:
    """The environment for a child interpreter started with `-c`.

    Without it a file that happens to be called `multiprocessing.py` or `fcdeploy.py` beside the user's data would be run.
    """
    home = str(Path(fcdeploy.__file__).resolve().parent.parent)
    folders = [folder for folder in sys.path if folder]  # an empty entry stands for the current folder
    return {**os.environ, SAFE_PATH: "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys([*folders, home]))}
