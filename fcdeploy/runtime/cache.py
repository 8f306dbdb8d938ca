"""The user's folder for what was found out once and can be found out again."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "FCDEPLOY_CACHE"


def cache_folder() -> Path:
    """`FCDEPLOY_CACHE`, else `fcdeploy` in `XDG_CACHE_HOME` or ~/.cache."""
    if own := os.environ.get(VARIABLE):
        return Path(own)
    base = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (base if base.is_absolute() else Path.home() / ".cache") / "fcdeploy"
