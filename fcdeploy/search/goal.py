"""What --max-drop asks for, checked as far as that can be done without reading samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fcdeploy.errors import FcdeployError
from fcdeploy.tables.types import INT8, Types

MINUTES = 10.0


@dataclass(frozen=True)
class Wish:
    """The largest drop in the metric's unit, the samples it is measured on, and how long to search.

    `same_data` allows samples that were calibrated on.
    """

    bound: float
    data: str | Path
    metric: str | None = None
    minutes: float = MINUTES
    same_data: bool = False
    preprocess: Path | None = None


def wish_of(
    bound: float | None,
    data: str | Path | None,
    metric: str | None,
    minutes: float | None,
    *,
    same_data: bool,
    preprocess: Path | None,
    types: Types,
) -> Wish | None:
    """The wish, None without a bound. Raises FcdeployError where it cannot be granted."""
    if bound is None:
        return None
    if not 0 <= bound < math.inf:
        raise FcdeployError(f"--max-drop {bound} is no number of 0 or more", "--max-drop 1")
    if data is None:
        raise FcdeployError(
            f"--max-drop {bound:g} needs samples to measure the drop on: --eval was not given", "--eval EVALUATION"
        )
    if minutes is not None and not 0 < minutes < math.inf:
        raise FcdeployError(f"--minutes {minutes} is not more than 0", f"--minutes {MINUTES:g}")
    if types != INT8:
        raise FcdeployError(
            f"--max-drop chooses between integer kernels and float, and --weights {types.weights} --activations "
            f"{types.activations} has no such kernels for all layers",
            "--int8 --max-drop 1, or leave --max-drop out",
        )
    return Wish(bound, data, metric, minutes or MINUTES, same_data, preprocess)
