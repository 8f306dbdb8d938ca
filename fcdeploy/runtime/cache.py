"""The user's folder for what was found out once and can be found out again."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

VARIABLE = "FCDEPLOY_CACHE"


def cache_folder() -> Path:
    """`FCDEPLOY_CACHE`, else `fcdeploy` in `XDG_CACHE_HOME` or ~/.cache."""
    return _choose_folder(*map(os.environ.get, (VARIABLE, "XDG_CACHE_HOME", "HOME")))


@cache  # a search asks a hundred thousand times
def _choose_folder(own: str | None, shared: str | None, _home: str | None) -> Path:
    if own:
        return Path(own)
    base = Path(shared or "")
    return (base if base.is_absolute() else Path.home() / ".cache") / "fcdeploy"
