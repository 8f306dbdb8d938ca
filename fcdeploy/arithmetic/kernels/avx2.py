"""What onnxruntime's byte kernels compute on x86 CPUs without VNNI, bit for bit, in NumPy.

There, an unsigned activation byte times a signed weight byte is `vpmaddubsw` (Intel SDM, volume 2): two neighbouring
products are added in 16 bits with saturation; `vpmaddwd` and `vpaddd` then sum the pairs in 32 bits.  Zero points are
corrected afterwards from sums of rows and columns, so the pairs hold the raw bytes:

    (a - za) (w - zw) summed over k  =  sum a w  -  za sum w  -  zw sum a  +  K za zw

Only the first term can saturate.  Neighbours are positions 2k and 2k + 1 of the reduction axis: for a dense layer the
input dimension, for a convolution kernel row, kernel column, input channel of the group, the channel fastest.  An odd
last position is paired with zero.  Panels of the blocked kernels begin at multiples of 4 and one row is computed like
many, so neither blocking, batch nor threads move a pair.

`exact=True` adds every product in 32 bits: the answer of VNNI, AMX and ARM, and on any x86 of unsigned weights, of
signed activations and of depthwise convolutions, whose kernels widen the bytes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fcdeploy.arithmetic.quantization import LIMITS
from fcdeploy.arrays import Array, Float32

LOWEST, HIGHEST = -(2**15), 2**15 - 1  # what a pair of products is clipped to


def adds_pairs(activation: Array, weight: Array) -> bool:
    """Whether the kernel for these types adds products in 16 bits: unsigned activations times signed weights."""
    return activation.dtype == np.uint8 and weight.dtype == np.int8


def multiply_bytes(activation: Array, weight: Array, *, exact: bool = False) -> NDArray[np.int64]:
    """sum over k of raw bytes: activations (M, K) times weights as rows (N, K) -> (M, N), pairs saturated.

    The exact product less what saturation takes away; only pairs of weights that can overflow are looked at.
    """
    total = np.asarray(np.rint(activation.astype(np.float64) @ weight.astype(np.float64).T)).astype(np.int64)  # < 2^53
    if exact or not adds_pairs(activation, weight):
        return total
    a, w = _pad_to_even(activation.astype(np.int64)), _pad_to_even(weight.astype(np.int64))
    low, high = pair_range(w, 0, 255)
    over = (low < LOWEST) | (high > HIGHEST)  # (N, K / 2)
    for k in np.flatnonzero(over.any(axis=0)):
        rows = np.flatnonzero(over[:, k])
        pair = np.outer(a[:, 2 * k], w[rows, 2 * k]) + np.outer(a[:, 2 * k + 1], w[rows, 2 * k + 1])
        total[:, rows] += np.clip(pair, LOWEST, HIGHEST) - pair
    return total


def pair_range(rows: Array, lowest: Array | int, highest: Array | int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The least and the greatest sum of each pair over activations in [lowest, highest]: (N, K) -> two (N, K / 2).

    The ends are one number, or one each: (K,) or (N, K).  Each product is extreme at an end of its interval, whatever
    its neighbour does.
    """
    w = rows.astype(np.int64)
    ends = np.stack([_pad_to_even(w * lowest), _pad_to_even(w * highest)])
    least, greatest = ends.min(axis=0), ends.max(axis=0)
    return least[:, 0::2] + least[:, 1::2], greatest[:, 0::2] + greatest[:, 1::2]


def dense_sums(
    activation: Array, weight: Array, *, zero_point: int = 0, weight_zero_point: Array | int = 0, exact: bool = False
) -> NDArray[np.int64]:
    """Sums of a dense layer, zero points corrected: (..., K) times rows (N, K) -> (..., N).

    `weight_zero_point` is one number or one per row.  A (K, N) weight is passed transposed.
    """
    a = activation.reshape(-1, activation.shape[-1])
    zw = np.asarray(weight_zero_point, dtype=np.int64)
    total = multiply_bytes(a, weight, exact=exact)
    total -= zero_point * weight.astype(np.int64).sum(axis=1)
    total -= a.astype(np.int64).sum(axis=1, keepdims=True) * zw
    total += a.shape[1] * zero_point * zw
    return total.reshape(*activation.shape[:-1], len(weight))


def gather_windows(
    activation: Array,
    kernel: Sequence[int],
    fill: int,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
) -> Array:
    """What each output position sees, channels last: (B, C, *space) -> (B, *space', kernel positions, C)."""
    rank = len(kernel)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pads = pads or [0] * (2 * rank)
    x = np.pad(activation, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=fill)
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)]
    seen = []
    for position in product(*(range(k) for k in kernel)):
        window = tuple(
            slice(at * d, at * d + (size - 1) * s + 1, s)
            for at, d, s, size in zip(position, dilations, strides, sizes, strict=True)
        )
        seen.append(np.moveaxis(x[(slice(None), slice(None), *window)], 1, -1))
    return np.stack(seen, axis=-2)


def requantize_sums(
    sums: NDArray[np.int64],
    scales: tuple[float, Array | float, float],
    zero_point: int,
    *,
    bias: Array | None = None,
    dtype: str = "uint8",
    axis: int = -1,
    alpha: float = 1.0,
) -> Array:
    """Bytes from sums, as onnxruntime rounds them; `scales`: of activation, weight (one or per channel), output.

    alpha * x * w / y in float32, each step rounded; (sum + bias) to float32, times that; clipped to what the zero point
    leaves; halves to even; plus the zero point.  Channels lie along `axis`.
    """
    x, w, y = (np.asarray(s, dtype=np.float32) for s in scales)
    factor = _broadcast_along(np.float32(alpha) * x * w / y, sums.ndim, axis)
    lowest, highest = LIMITS[dtype]
    real = _add_bias(sums, bias, axis).astype(np.float32) * factor
    clipped = np.clip(real, np.float32(lowest - zero_point), np.float32(highest - zero_point))
    return (np.rint(clipped).astype(np.int64) + zero_point).astype(dtype)


def dequantize_sums(
    sums: NDArray[np.int64],
    scales: tuple[float, Array | float],
    *,
    bias: Array | None = None,
    float_bias: Array | None = None,
    alpha: float = 1.0,
) -> Float32:
    """Floats from sums (..., N), as QGemm (integer `bias`) and MatMulIntegerToFloat (`float_bias`) write them."""
    x, w = (np.asarray(s, dtype=np.float32) for s in scales)
    real = _add_bias(sums, bias, -1).astype(np.float32) * (np.float32(alpha) * x * w)
    return np.asarray(real if float_bias is None else real + float_bias.astype(np.float32), dtype=np.float32)


def _add_bias(sums: NDArray[np.int64], bias: Array | None, axis: int) -> NDArray[np.int32]:
    """The sums plus the bias, in 32 bits, where an overflow wraps around."""
    whole = sums if bias is None else sums + _broadcast_along(bias.astype(np.int64), sums.ndim, axis)
    return whole.astype(np.int32)


def _broadcast_along(values: Array, ndim: int, axis: int) -> Array:
    """One number, or one per channel shaped to broadcast along `axis`."""
    return values if values.size == 1 else values.reshape([-1 if i == axis % ndim else 1 for i in range(ndim)])


def _pad_to_even(rows: Array) -> Array:
    """Rows (N, K), padded with a zero where K is odd."""
    return np.pad(rows, ((0, 0), (0, 1))) if rows.shape[1] % 2 else rows
