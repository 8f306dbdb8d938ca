"""Elements in other places, and places of elements, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fcdeploy.arrays import Array
from fcdeploy.native.program.steps import Convert, Move, Order, Place, Select


def compute_move(step: Move, given: Sequence[Array]) -> tuple[Array, ...]:
    index = step.index
    if step.kind == "take" and index is None:  # what is out of range takes the nearest row
        rows, at = len(given[0]), given[1].astype(np.int64)
        index = np.clip(np.where(at < 0, at + rows, at), 0, rows - 1)
    parts = given if step.kind == "concat" else given[:1]
    return (move_elements(step.kind, parts, step.output.shape, step.arguments, fill=step.fill, index=index),)


def move_elements(
    kind: str,
    parts: Sequence[Array],
    shape: tuple[int, ...],
    arguments: tuple[tuple[int, ...], ...],
    *,
    fill: float = 0,
    index: Array | None = None,
) -> Array:
    """The elements of arrays in other places, as `steps.Move` says."""
    x = parts[0]
    if kind == "reshape":
        return x.reshape(shape)
    if kind == "transpose":
        return x.transpose(arguments[0])
    if kind == "slice":
        begin, step = arguments
        at = [np.arange(n) * s + b for n, b, s in zip(shape, begin, step, strict=True)]
        return np.asarray(x[np.ix_(*at)])
    if kind == "concat":
        return np.concatenate(list(parts), axis=arguments[0][0])
    if kind == "pad":
        return np.pad(x, list(zip(*arguments, strict=True)), constant_values=fill)
    if kind == "take":
        assert index is not None
        return np.asarray(x.take(index, axis=arguments[0][0]))
    assert kind == "expand", kind
    return np.broadcast_to(x, shape)


def compute_select(_: Select, given: Sequence[Array]) -> tuple[Array, ...]:
    return (np.where(given[0] != 0, given[1], given[2]),)


def compute_place(step: Place, given: Sequence[Array]) -> tuple[Array, ...]:
    x, axis = given[0].astype(np.float32), step.axis
    find = np.argmax if step.kind == "max" else np.argmin
    found = x.shape[axis] - 1 - find(np.flip(x, axis), axis) if step.last else find(x, axis)
    return (np.asarray(found, np.int64).reshape(step.output.shape),)


def compute_convert(step: Convert, given: Sequence[Array]) -> tuple[Array, ...]:
    to, (x,) = np.dtype(step.output.dtype), given
    if x.dtype.kind != "f" or to.kind == "f":
        return (x.astype(to),)
    ends = np.iinfo(to)
    whole = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
    inside = (whole >= float(ends.min)) & (whole < float(ends.max) + (to.itemsize < 8))
    found = np.where(inside, whole, 0).astype(to)
    return (np.where(inside, found, np.where(whole > 0, ends.max, ends.min).astype(to)),)


def compute_order(step: Order, given: Sequence[Array]) -> tuple[Array, ...]:
    """By a stable sort, which NumPy's is."""
    keys = given[0].astype(np.float64) * (-1 if step.kind == "largest" else 1)
    places = np.argsort(keys, axis=step.axis, kind="stable").take(range(step.count), step.axis)
    return np.take_along_axis(given[0], places, step.axis), places.astype(np.int64)
