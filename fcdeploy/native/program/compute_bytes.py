"""What a program does with bytes in NumPy, in float32, operation by operation: tables, sums of two, pools, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fcdeploy.arithmetic.kernels.avx2 import gather_windows
from fcdeploy.arrays import Array
from fcdeploy.native.program.codes import clip_codes, read_real
from fcdeploy.native.program.steps import (
    Combine,
    GlobalAverage,
    Interpolate,
    Lookup,
    LookupTable,
    Pool,
    Quantize,
    Softmax,
)


def compute_combine(step: Combine, given: Sequence[Array]) -> tuple[Array, ...]:
    a, b = (read_real(tensor, value) for tensor, value in zip(step.inputs, given, strict=True))
    to = step.output.coding
    assert to is not None
    return (np.clip(to.encode(a + b if step.kind == "add" else a * b), step.low, step.high),)


def compute_lookup_table(step: LookupTable, given: Sequence[Array]) -> tuple[Array, ...]:
    bytes_ = given[0].view(np.uint8) if given[0].dtype == np.int8 else given[0]
    return (_look_up(step.table, bytes_).view(step.output.dtype),)


def compute_lookup(step: Lookup, given: Sequence[Array]) -> tuple[Array, ...]:
    return (_look_up(step.table, given[0]),)


def _look_up(table: Array, x: Array) -> Array:
    if table.ndim == 1:
        return table[x]
    channels = np.arange(len(table)).reshape(-1, *[1] * (x.ndim - 2))
    return table[channels, x]


def compute_quantize(step: Quantize, given: Sequence[Array]) -> tuple[Array, ...]:
    (x,), to = given, step.output.coding
    assert to is not None
    if step.gain is not None and step.shift is not None:
        channels = (-1, *[1] * (x.ndim - 2))
        x = x * step.gain.reshape(channels) + step.shift.reshape(channels)
    return (np.clip(to.encode(x), step.low, step.high),)


def compute_pool(step: Pool, given: Sequence[Array]) -> tuple[Array, ...]:
    (x,), source, window = given, step.inputs[0], step.window
    pads = (*window.begins, *window.ends)
    if step.kind == "max":
        fill: Any = 0 if x.dtype == np.uint8 else -np.inf
        seen = gather_windows(x, window.kernel, fill, window.strides, pads, window.dilations)
        return (np.moveaxis(seen.max(axis=-2), -1, 1),)
    real = read_real(source, x)
    seen = gather_windows(real, window.kernel, 0, window.strides, pads, window.dilations)
    ones = np.ones_like(real[:1, :1])
    inside = gather_windows(ones, window.kernel, int(step.padded), window.strides, pads, window.dilations).sum(axis=-2)
    total = np.zeros_like(seen[..., 0, :])
    for position in range(seen.shape[-2]):
        total += seen[..., position, :]
    mean = np.moveaxis(total / inside, -1, 1)
    to = step.output.coding
    return (mean if to is None else np.clip(to.encode(mean), step.low, step.high),)


def compute_global_average(step: GlobalAverage, given: Sequence[Array]) -> tuple[Array, ...]:
    (x,), source, to = given, step.inputs[0].coding, step.output.coding
    assert source is not None and to is not None
    space = tuple(range(2, x.ndim))
    total = x.astype(np.int64).sum(axis=space, keepdims=True) - int(np.prod(x.shape[2:])) * source.zero_point
    rounded = np.rint(total.astype(np.float32) * step.factor).astype(np.float64)
    return (clip_codes(rounded + to.zero_point, step.low, step.high).reshape(step.output.shape),)


def compute_softmax(step: Softmax, given: Sequence[Array]) -> tuple[Array, ...]:
    x = np.moveaxis(given[0], step.axis, -1)
    largest = x.max(axis=-1, keepdims=True)
    if step.table is None:
        parts = np.exp(x.astype(np.float64) - largest).astype(np.float32)
    else:
        parts = step.table[largest.astype(np.int64) - x]
    total = _add_in_parts(parts)
    real = np.moveaxis(parts / total, -1, step.axis)
    to = step.output.coding
    return (real if to is None else np.clip(to.encode(real), step.low, step.high),)


def _add_in_parts(x: Array) -> Array:
    """Sums along the last axis, which stays with length 1: sixteen of every sixteenth element, then those pair by pair."""
    rows = np.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, -x.shape[-1] % 16)]).reshape(*x.shape[:-1], -1, 16)
    parts = np.cumsum(rows, axis=-2, dtype=np.float32)[..., -1, :]
    while parts.shape[-1] > 1:
        first, second = np.split(parts, 2, axis=-1)
        parts = first + second
    return np.asarray(parts)


def compute_interpolate(step: Interpolate, given: Sequence[Array]) -> tuple[Array, ...]:
    real = read_real(step.inputs[0], given[0])
    for axis in reversed(range(len(step.lines))):  # columns first
        line = step.lines[axis]
        part = line.part.reshape(-1, *[1] * (len(step.lines) - 1 - axis))
        first, second = (real.take(each, axis + 2) for each in (line.first, line.second))
        real = np.asarray(first * (np.float32(1) - part) + second * part, np.float32)
    to = step.output.coding
    return (real if to is None else np.clip(to.encode(real), step.low, step.high),)
