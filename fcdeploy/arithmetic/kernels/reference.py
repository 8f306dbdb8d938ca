"""What integer operators without weights are to compute: dequantize, the operator in float32, quantize (ONNX).

Where a kernel of onnxruntime rounds in another order, and that would show, its order is taken; it is the same on every
CPU.  Every function takes integers, their scale and zero point as `QuantizedArray`, and returns float32 before it is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fcdeploy.arithmetic.kernels.avx2 import gather_windows
from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Array, Float32


@dataclass(frozen=True)
class QuantizedArray:
    """Bytes that stand for scale * (byte - zero point)."""

    integers: Array
    scale: np.float32
    zero_point: int

    @property
    def real(self) -> Float32:
        return (self.integers.astype(np.int32) - self.zero_point).astype(np.float32) * self.scale


def add(a: QuantizedArray, b: QuantizedArray) -> Float32:
    return a.real + b.real


def multiply(a: QuantizedArray, b: QuantizedArray) -> Float32:
    return a.real * b.real


def sigmoid(x: QuantizedArray) -> Float32:
    return np.asarray(1 / (1 + np.exp(-x.real.astype(np.float64))), dtype=np.float32)


def softmax(x: QuantizedArray, axis: int) -> Float32:
    real = x.real.astype(np.float64)
    parts = np.exp(real - real.max(axis=axis, keepdims=True))
    return np.asarray(parts / parts.sum(axis=axis, keepdims=True), np.float32)


def leaky_relu(x: QuantizedArray, alpha: float) -> Float32:
    return np.where(x.real >= 0, x.real, x.real * np.float32(alpha))


def global_average(x: QuantizedArray, scale: np.float32) -> Float32:
    """The mean over all axes behind the second; `scale` is that of the output.

    The sum is exact and the division part of the scale, as in the kernel: with 36 positions and equal scales every 36th
    mean lies on a tie, and either order decides many of them otherwise.
    """
    space = tuple(range(2, x.integers.ndim))
    size = int(np.prod(x.integers.shape[2:]))
    total = x.integers.astype(np.int64).sum(axis=space, keepdims=True) - size * x.zero_point
    factor = np.float32(x.scale / np.float32(scale * np.float32(size)))
    return np.asarray(np.rint(total.astype(np.float32) * factor) * scale, dtype=np.float32)


def average(
    x: QuantizedArray,
    window: Window,
    *,
    count_padding: bool = False,
    ceil: bool = False,
) -> Float32:
    """The mean of each window, as ONNX specifies it: (B, C, *space) -> (B, C, *space').

    Padding counts only with `count_padding`.  With `ceil` a last window may reach beyond the padding, where nothing counts.
    """
    kernel, strides, dilations = window.kernel, window.strides, window.dilations
    beyond = window.round_up(x.real.shape[2:]).pads if ceil else window.pads
    seen = gather_windows(x.real, kernel, 0, strides, beyond, dilations)  # (B, *space', positions, C)
    image = gather_windows(np.ones_like(x.real[:1, :1]), [1] * len(kernel), int(count_padding), None, window.pads)
    counted = np.moveaxis(image[..., 0, :], -1, 1)  # 1 for each position that counts
    outside = [more - pad for more, pad in zip(beyond, window.pads, strict=True)]
    inside = gather_windows(counted, kernel, 0, strides, outside, dilations).sum(axis=-2)
    total = np.zeros_like(seen[..., 0, :])
    for position in range(seen.shape[-2]):
        total += seen[..., position, :]
    return np.moveaxis(total / inside, -1, 1)
