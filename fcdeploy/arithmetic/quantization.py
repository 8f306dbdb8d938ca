"""The arithmetic of affine quantization: real = scale * (integer - zero_point), exactly as ONNX defines it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arrays import Array, Float32, Float64
from fcdeploy.records.plan import LIMITS as PLANNED
from fcdeploy.records.plan import QParams, Range

LIMITS = {**PLANNED, "uint16": (0, 2**16 - 1)}
"""The lowest and the highest integer of each type, those that only files of other tools have among them."""
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


def choose_activation_qparams(r: Range, dtype: str) -> QParams:
    """Scale and zero point whose integers cover `r` (which is widened to hold 0, so that padding is exact).

    A range that starts at 0 gets the lowest zero point: then the clip at 0 of a Relu is what saturation does anyway.
    """
    lowest, highest = LIMITS[dtype]
    low, high = min(r.low, 0.0), max(r.high, 0.0)
    if high - low < SMALLEST_SCALE * (highest - lowest):
        return QParams(dtype, (1.0,), lowest, why="always zero")
    scale = float(np.float32((high - low) / (highest - lowest)))
    zero_point = int(np.clip(np.rint(lowest - low / scale), lowest, highest))
    return QParams(dtype, (scale,), zero_point)


def choose_symmetric_qparams(r: Range, dtype: str) -> QParams:
    """Scale of signed integers that cover `r` with zero point 0, the lowest integer left out.

    The form that DSP libraries want of 16-bit activations.
    """
    highest = LIMITS[dtype][1]
    end = max(abs(r.low), abs(r.high))
    if end < SMALLEST_SCALE * highest:
        return QParams(dtype, (1.0,), 0, why="always zero")
    return QParams(dtype, (float(np.float32(end / highest)),), 0)


def broadcast_along(scale: NDArray[np.floating] | tuple[float, ...], axis: int | None, ndim: int) -> Float64:
    """A scale per index of `axis`, shaped so that it broadcasts over an array of `ndim` axes."""
    values = np.asarray(scale, dtype=np.float64)
    return values if axis is None else values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def round_to_integers(x: Array, scale: Array | np.floating, zero_point: Array | int, dtype: str) -> Float64:
    """QuantizeLinear: round(x / scale) + zero_point, halves to even, saturated as integers of `dtype`; all broadcast."""
    # float32, as the runtime divides: float64 would round some halves the other way
    with np.errstate(over="ignore"):  # what becomes infinite saturates
        quotient = x.astype(np.float32) / scale.astype(np.float32)
    integers = np.rint(quotient).astype(np.float64) + zero_point
    return np.asarray(np.clip(integers, *LIMITS[dtype]))


def quantize(x: NDArray[np.floating], q: QParams) -> NDArray[np.integer]:
    """`round_to_integers` by a tensor's parameters, in its type."""
    scale = broadcast_along(np.asarray(q.scale, np.float32), q.axis, x.ndim)
    return round_to_integers(x, scale, q.zero_point, q.dtype).astype(q.dtype)


def dequantize(integers: NDArray[np.integer], q: QParams) -> Float32:
    """scale * (integer - zero_point) in float32."""
    scale = broadcast_along(np.asarray(q.scale, np.float32), q.axis, integers.ndim).astype(np.float32)
    return (integers.astype(np.int64) - q.zero_point).astype(np.float32) * scale


def choose_bias_qparams(input_scale: float, weight: QParams) -> QParams:
    """A bias joins the int32 sums of products, so its scale is the float32 product of theirs, or it does not fuse."""
    product = np.float32(input_scale) * np.asarray(weight.scale, np.float32)
    axis = None if weight.axis is None else 0
    return QParams("int32", tuple(float(s) for s in product), 0, axis, why="scale of input x scale of weight")
