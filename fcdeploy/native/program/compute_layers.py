"""Convolutions, dense layers and products in NumPy: sums of bytes' products in 64 bits, those of floats in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fcdeploy.arithmetic.kernels import avx2
from fcdeploy.arithmetic.kernels.avx2 import gather_windows
from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Array
from fcdeploy.native.program.codes import clip_codes
from fcdeploy.native.program.compute_bytes import compute_combine
from fcdeploy.native.program.layers import CombinedLayer, FloatLayer, IntegerLayer, Layer, Product
from fcdeploy.native.program.tensors import Tensor


def compute_layer(step: Layer, given: Sequence[Array]) -> tuple[Array, ...]:
    channels = _add_up(step, given)
    real = channels.astype(np.int32).astype(np.float32) * step.factor
    to = step.output.coding
    if to is None:
        value = real if step.real_bias is None else real + step.real_bias
    else:
        value = clip_codes(np.rint(real).astype(np.float64) + to.zero_point, step.low, step.high)
    return (value if step.window is None else np.moveaxis(value, -1, 1),)


def compute_integer_layer(step: IntegerLayer, given: Sequence[Array]) -> tuple[Array, ...]:
    """Scaled as CMSIS-NN's arm_nn_requantize does it with a single rounding."""
    to, right = step.output.coding, 31 - step.shift.astype(np.int64)
    assert to is not None
    product = _add_up(step, given).astype(np.int64) * step.multiplier
    value = clip_codes(((product >> (right - 1)) + 1 >> 1) + to.zero_point, step.low, step.high)
    return (value if step.window is None else np.moveaxis(value, -1, 1),)


def compute_combined_layer(step: CombinedLayer, given: Sequence[Array]) -> tuple[Array, ...]:
    x, beside = given
    (between,) = compute_layer(step.layer, [x])
    return compute_combine(
        step.combine, [between if tensor.name == step.between.name else beside for tensor in step.combine.inputs]
    )


def _add_up(step: Layer, given: Sequence[Array]) -> Array:
    """Sums of products and the bias, channels last."""
    (x,) = given
    if step.window is None:
        sums = avx2.multiply_bytes(x.reshape(-1, x.shape[-1]), step.weight, exact=True) + step.bias
        channels = sums.reshape(*x.shape[:-1], -1)
    else:
        channels = _convolve(x, step.weight, step.window, step.groups, step.inputs[0]) + step.bias
    assert np.abs(channels).max(initial=0) < 2**31
    return channels


def compute_float_layer(step: FloatLayer, given: Sequence[Array]) -> tuple[Array, ...]:
    """In float64: native code adds up in float32, so it is held to a tolerance."""
    (x,) = given
    if step.window is None:
        sums = x.astype(np.float64) @ step.weight.astype(np.float64).T + step.bias
        return (sums.astype(np.float32),)
    channels = _convolve(x, step.weight, step.window, step.groups, step.inputs[0]) + step.bias
    return (np.moveaxis(channels, -1, 1).astype(np.float32),)


def compute_product(step: Product, given: Sequence[Array]) -> tuple[Array, ...]:
    """Of floats in float64: native code adds up in float32, so it is held to a tolerance."""
    codings = [tensor.coding for tensor in step.inputs]
    if codings[0] is None or codings[1] is None:
        return (np.matmul(*(each.astype(np.float64) for each in given)).astype(np.float32),)
    a, b = (
        each.astype(np.int64) - coding.zero_point
        for each, coding in zip(given, codings, strict=True)
        if coding is not None
    )
    real = np.matmul(a, b).astype(np.float32) * step.factor
    to = step.output.coding
    return (real if to is None else clip_codes(np.rint(real).astype(np.float64) + to.zero_point, step.low, step.high),)


def _convolve(x: Array, weight: Array, window: Window, groups: int, source: Tensor) -> Array:
    """Sums of products (B, *space', out); what is outside is the zero point, or 0 of floats."""
    fill = 0 if source.coding is None else source.coding.zero_point
    patches = gather_windows(x, window.kernel, fill, window.strides, (*window.begins, *window.ends), window.dilations)
    each, outs = weight.shape[1], len(weight) // groups
    wide = np.int64 if source.coding is not None else np.float64
    rows = np.moveaxis(weight, 1, -1).reshape(len(weight), -1, each).astype(wide)  # (out, positions, in / groups)
    sums = []
    for group in range(groups):
        own = patches[..., group * each : (group + 1) * each].astype(wide)
        part = rows[group * outs : (group + 1) * outs]
        flat = own.reshape(-1, part.shape[1] * each)
        # float64 holds every partial sum of two bytes' products exactly, and is multiplied far faster than int64
        product = np.rint(flat.astype(np.float64) @ part.reshape(outs, -1).T.astype(np.float64)) if wide is np.int64 else (
            flat @ part.reshape(outs, -1).T
        )  # fmt: skip
        sums.append(product.astype(wide).reshape(*own.shape[:-2], outs))
    return np.concatenate(sums, axis=-1)
