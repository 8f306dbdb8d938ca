"""Sums and products of two tensors of bytes without a division, where all pairs of bytes give the same results."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.native.program.compute_bytes import compute_combine
from fcdeploy.native.program.steps import Combine
from fcdeploy.native.program.tensors import CODES, Coding, Floats, Tensor

STEPS = 6  # of the last place that two factors are moved together, at most
NEAR = 1e-2  # to a half: results further away than this are the same for all of these factors
BYTES = np.arange(CODES, dtype=np.uint8)


def find_scales(step: Combine) -> tuple[np.float32, np.float32, np.float32]:
    """Scales of the two operands and of the result with which a kernel computes.

    Where the operands' scales divided by the result's, or float32 numbers near them, give the same byte for each of the 65,536
    pairs of bytes, these and 1: then nothing is divided. Else the tensors' own.
    """
    left, right, to = (tensor.coding for tensor in (*step.inputs, step.output))
    assert left is not None and right is not None and to is not None
    return _search(step.kind, step.low, step.high, left, right, to)


@lru_cache(maxsize=1024)  # a sum that takes turns with a layer is several calls
def _search(
    kind: Literal["add", "mul"], low: int, high: int, left: Coding, right: Coding, to: Coding
) -> tuple[np.float32, np.float32, np.float32]:
    """The same of what the scales depend on."""
    a, b, y = (Tensor(name, (), coding=coding) for name, coding in zip("aby", (left, right, to), strict=True))
    step = Combine(node="", inputs=(a, b), outputs=(y,), kind=kind, low=low, high=high)
    own = (left.scale, right.scale, to.scale)
    with np.errstate(all="ignore"):
        first = left.scale / to.scale
        second = right.scale / to.scale if step.kind == "add" else right.scale
        if not all(np.isfinite(factor) and factor >= np.finfo(np.float32).tiny for factor in (first, second)):
            return own
        p, q = (np.ascontiguousarray(pairs).ravel() for pairs in np.meshgrid(BYTES, BYTES))
        expected = _compute(step, own, p, q)
        near = np.abs(_quotients(step, first, second, p, q) % 1 - 0.5) < NEAR
        for one, other in _near_by():
            scales = (_move(first, one), _move(second, other), np.float32(1))
            if np.array_equal(_compute(step, scales, p[near], q[near]), expected[near]) and np.array_equal(
                _compute(step, scales, p, q), expected
            ):
                return scales
    return own


def _compute(step: Combine, scales: tuple[np.float32, np.float32, np.float32], a: Array, b: Array) -> Array:
    """What the step writes for these bytes, with other scales of the same zero points."""
    left, right, to = (
        Tensor(tensor.name, a.shape, coding=Coding(scale, tensor.coding.zero_point))
        for tensor, scale in zip((*step.inputs, step.output), scales, strict=True)
        if tensor.coding is not None
    )
    (result,) = compute_combine(Combine(**{**vars(step), "inputs": (left, right), "outputs": (to,)}), (a, b))
    return result


def _quotients(step: Combine, first: np.float32, second: np.float32, a: Array, b: Array) -> Floats:
    """Results in units of their scale, less the zero point."""
    p, q = (
        Coding(factor, tensor.coding.zero_point).values[bytes_]
        for factor, tensor, bytes_ in zip((first, second), step.inputs, (a, b), strict=True)
        if tensor.coding is not None
    )
    return p + q if step.kind == "add" else p * q


def _near_by() -> list[tuple[int, int]]:
    """By how many last places two factors are moved, the nearest first."""
    steps = range(-STEPS, STEPS + 1)
    return sorted(
        ((one, other) for one in steps for other in steps), key=lambda pair: (abs(pair[0]) + abs(pair[1]), pair)
    )


def _move(factor: np.float32, places: int) -> np.float32:
    """The float32 so many places further."""
    return np.float32((np.array([factor]).view(np.int32) + np.int32(places)).view(np.float32)[0])
