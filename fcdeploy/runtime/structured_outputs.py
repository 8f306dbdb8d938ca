"""Outputs that are no tensors, as the arrays nearest to them: maps, sequences, optionals, as onnxruntime hands them over."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from fcdeploy.arrays import Array

SCALARS = {int: np.int64, float: np.float32, str: np.object_}


def as_array(value: Any) -> Array:
    """The array that holds the same numbers.

    A map is the row of its values, by key in order; a sequence of maps with equal keys one row each, (n, keys).  Tensors of
    one shape are stacked behind their first axis, which counts samples where any does: (n, length, ...); of different
    shapes they are joined, flat.  An optional that holds nothing is empty.
    """
    if isinstance(value, np.ndarray):
        return value
    if value is None:
        return np.zeros(0, np.float32)
    if isinstance(value, dict):
        return _row(value)
    if isinstance(value, list):
        return _sequence(value)
    return np.asarray(value, SCALARS.get(type(value)))


def element_of(written: str) -> tuple[str, bool]:
    """The element type inside a type as onnxruntime writes it, and whether it is a plain tensor.

    `seq(map(int64,tensor(float)))` holds `float`.
    """
    inner = re.search(r"tensor\(([^()]*)\)\)*$", written)
    return (inner[1] if inner else written), written.startswith("tensor(")


def _row(value: dict[Any, Any]) -> Array:
    return np.array([value[key] for key in sorted(value)], np.float32 if _floats(value) else None)


def _floats(value: dict[Any, Any]) -> bool:
    return all(isinstance(one, float) for one in value.values())


def _sequence(values: list[Any]) -> Array:
    arrays = [as_array(one) for one in values]
    if not arrays:
        return np.zeros(0, np.float32)
    if len({array.shape for array in arrays}) > 1:
        return np.concatenate([array.reshape(-1) for array in arrays])
    rows = isinstance(values[0], dict) or not arrays[0].ndim
    return np.stack(arrays, axis=0 if rows else 1)
