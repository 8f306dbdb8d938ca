"""Inputs of a model: checked against what it declares, or, where data are not at hand, drawn with a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fcdeploy.arrays import Arrays
from fcdeploy.errors import FcdeployError, quote_names
from fcdeploy.records.signature import TensorSpec, format_axes, is_shape_alike

SEED = 0


def fix_shapes(
    specs: Sequence[TensorSpec],
    batch: int | None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    recorded: Mapping[str, Sequence[int]] | None = None,
) -> list[TensorSpec]:
    """The inputs with every axis given a length: `shapes` by input name, else `batch` for a free leading axis.

    A `batch` of None is 1, or whatever the model insists on.  Where no `shapes` are given, other free axes have the length that
    was `recorded`, if any.  Raises FcdeployError for a free axis that nothing fixes,
    and for shapes and batches that the model does not take.
    """
    shapes = shapes or {}
    known = [spec.name for spec in specs]
    for name in shapes:
        if name not in known:
            raise FcdeployError(
                f"shape for {name!r}, which is no input of the model; it has {quote_names(known)}",
                _hint_shape(specs[0], batch) if specs else "leave --shape out",
            )
    known_lengths = {} if shapes or recorded is None else recorded
    return [_fix_shape(spec, batch, shapes.get(spec.name), known_lengths.get(spec.name, ())) for spec in specs]


def draw_feeds(specs: Sequence[TensorSpec], *, seed: int = SEED) -> Arrays:
    """Draw random inputs: normal floats, bytes of any value, 0 or 1 for other integers, indices of any table; empty text."""
    random = np.random.default_rng(seed)
    feeds: Arrays = {}
    for spec in specs:
        shape = tuple(n or 0 for n in spec.shape)
        if spec.dtype.kind == "O":
            feeds[spec.name] = np.full(shape, "", object)
        elif spec.dtype.kind in "biu":
            feeds[spec.name] = random.integers(0, 256 if spec.dtype == np.uint8 else 2, shape).astype(spec.dtype)
        else:
            feeds[spec.name] = random.standard_normal(shape).astype(spec.dtype)
    return feeds


def check_feeds(feeds: Mapping[str, Any], specs: Sequence[TensorSpec]) -> None:
    """Raise FcdeployError, naming the input, what came and what the model wants, unless these arrays fit it."""
    known = {spec.name: spec for spec in specs}
    wants = f"the model wants {', '.join(map(str, specs)) or 'none'}"
    for name in feeds:
        if name not in known:
            raise FcdeployError(f"input {name!r} is unknown: {wants}", f"leave {name!r} out")

    # every input is there, an array of the right type, and of a shape the model takes
    for name, spec in known.items():
        if name not in feeds:
            raise FcdeployError(f"input {name!r} is missing: {wants}", f"give {spec}")
        array = feeds[name]
        if not isinstance(array, np.ndarray):
            raise FcdeployError(
                f"input {name!r} is of type {type(array).__name__}, expected an array: {spec}",
                f"numpy.asarray(..., {str(spec.dtype)!r})",
            )
        if array.dtype != spec.dtype and (array.dtype.kind, spec.dtype.kind) != ("U", "O"):
            raise FcdeployError(
                f"input {name!r} is {array.dtype}, the model wants {spec.dtype}", f"array.astype({str(spec.dtype)!r})"
            )
        if not spec.accepts(array.shape):
            raise FcdeployError(
                f"input {name!r} has shape {format_axes(array.shape)}, the model wants {format_axes(spec.shape)}",
                "array[None] is a batch of one"
                if is_shape_alike(spec.shape[1:], array.shape)
                else "the first axis counts samples",
            )


def _hint_shape(spec: TensorSpec, batch: int | None) -> str:
    return f"--shape {spec.name}:{','.join(str(n or (batch or 1)) for n in spec.shape) or '1,3,224,224'}"


def _fix_shape(spec: TensorSpec, batch: int | None, given: Sequence[int] | None, recorded: Sequence[int]) -> TensorSpec:
    hint = _hint_shape(spec, batch)
    if given is not None:
        _check_shape(spec, given, hint)
        return replace(spec, shape=tuple(given))

    fixed = spec.shape[spec.sample_axis] if spec.shape and spec.sample_axis is not None else None
    if fixed is not None and batch not in (None, fixed):
        raise FcdeployError(
            f"input {spec}: the model runs batches of exactly {fixed}, not {batch}",
            "leave --batch out, or export the model with a free leading axis",
        )
    shape = tuple(n or (batch or 1) if axis == spec.sample_axis else n or 0 for axis, n in enumerate(spec.shape))
    if len(recorded) == len(shape):
        shape = tuple(n or length for n, length in zip(shape, recorded, strict=True))
    if spec.state and shape.count(0) == 1:  # of one sample, as a run of a stream takes it
        shape = tuple(n or 1 for n in shape)
    if 0 in shape:
        raise FcdeployError(f"input {spec}: which length do the free axes marked ? have?", hint)
    return replace(spec, shape=shape)


def _check_shape(spec: TensorSpec, shape: Sequence[int], hint: str) -> None:
    said = f"shape {','.join(map(str, shape))} for input {spec}"
    if spec.shape and not is_shape_alike(spec.shape, shape):
        raise FcdeployError(f"{said}, which does not take it", hint)
    if any(n < 1 for n in shape):
        raise FcdeployError(f"{said} holds nothing", hint)
