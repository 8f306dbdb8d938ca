"""What tests do with the files of a bundle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def x(n: int = 5, seed: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


def zipped(folder: Path, out: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(out, "w", compression) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return out


def edited(folder: Path, change: Callable[[Any], Any]) -> None:
    """The manifest as `change` leaves it, in place or given back."""
    file = folder / "manifest.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps(change(data) or data))
