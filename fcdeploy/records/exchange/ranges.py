"""Ranges of tensors as other tools measure them: two ends, and nothing between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LARGEST = 3.4028234663852886e38  # of float32: what a calibration file holds


@dataclass(frozen=True)
class Ranges:
    """Tensor name -> (minimum, maximum), what measured them, and what one must know before believing them."""

    ends: dict[str, tuple[float, float]]
    made_by: str
    doubts: tuple[str, ...] = ()


def check_ranges(rows: Iterable[tuple[str, float, float]]) -> dict[str, tuple[float, float]]:
    """The rows by name. Raises ValueError where a name is there twice or two numbers are no range."""
    return dict(_check_rows(rows))


def _check_rows(rows: Iterable[tuple[str, float, float]]) -> Iterator[tuple[str, tuple[float, float]]]:
    seen = set()
    for name, low, high in rows:
        if name in seen:
            raise ValueError(f"tensor {name!r} is there twice")
        if not (math.isfinite(low) and math.isfinite(high) and low <= high and max(-low, high) <= LARGEST):
            raise ValueError(f"tensor {name!r} has the ends {low:g} and {high:g}, expected two finite numbers in order")
        seen.add(name)
        yield name, (low, high)
    if not seen:
        raise ValueError("it holds no ranges")
