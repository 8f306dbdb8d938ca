"""Layers with drawn shapes, weights and scales, for tests of kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from native_kernels import EXAMPLES

from fcdeploy.arithmetic.windows import Window
from fcdeploy.native.program.layers import Layer
from fcdeploy.native.program.tensors import Coding, Tensor

FEW = settings(max_examples=EXAMPLES, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def bytes_like(random: np.random.Generator, shape: tuple[int, ...], *, extreme: bool = False) -> np.ndarray[Any, Any]:
    """Bytes of any value, or only the two ends."""
    values = random.integers(0, 256, shape)
    return np.asarray(np.where(values < 128, 0, 255) if extreme else values, np.uint8)


def weights_like(random: np.random.Generator, shape: tuple[int, ...], *, extreme: bool) -> np.ndarray[Any, Any]:
    values = random.integers(-128, 128, shape)
    return np.asarray(np.where(values < 0, -128, 127) if extreme else values // 3, np.int8)


def coding(random: np.random.Generator) -> Coding:
    return Coding(np.float32(random.uniform(0.01, 0.1)), int(random.choice([0, 0, 255, random.integers(0, 256)])))


def layer_of(
    random: np.random.Generator, x: Tensor, outs: int, window: Window | None, groups: int, *, extreme: bool, real: bool
) -> Layer:
    """A layer with drawn weights; its factor brings the sums into the range of bytes."""
    assert x.coding is not None
    read = x.shape[1] // groups if window is not None else x.shape[-1]
    kernel = () if window is None else window.kernel
    weight = weights_like(random, (outs, read, *kernel), extreme=extreme)
    rows = weight.astype(np.int64).reshape(outs, -1)
    bias = random.integers(-2000, 2000, outs) - x.coding.zero_point * rows.sum(axis=1)
    spread = 255 * np.sqrt(rows.shape[1]) * max(1, np.abs(rows).max())
    factor = random.uniform(0.3, 3, outs).astype(np.float32) * np.float32(100 / spread)
    shape = (*x.shape[:-1], outs) if window is None else (x.shape[0], outs, *window.outputs(x.shape[2:]))
    to = Tensor("y", shape, "float32" if real else "uint8", None if real else coding(random))
    low = int(random.integers(0, 100)) if random.random() < 0.3 else 0
    added = random.normal(size=outs).astype(np.float32) if real and random.random() < 0.5 else None
    return Layer(
        node="layer", inputs=(x,), outputs=(to,), weight=weight, bias=bias.astype(np.int32), factor=factor,
        real_bias=added, window=window, groups=groups, low=low, high=255 - int(random.integers(0, 2)) * 30,
    )  # fmt: skip


def window_of(random: np.random.Generator, space: tuple[int, ...], *, pool: bool = False) -> Window:
    """A window that fits; of a pool, one whose border is no longer than half of it."""
    rank = len(space)
    while True:
        kernel = tuple(int(n) for n in random.integers(1, 6, rank))
        strides, dilations = (tuple(int(n) for n in random.choice([1, 1, 2, 3], rank)) for _ in range(2))
        begins, ends = (tuple(int(random.integers(0, k // 2 + 1 if pool else k)) for k in kernel) for _ in range(2))
        window = Window(kernel, strides, begins, ends, dilations)
        if min(window.outputs(space)) >= 1:
            return window


def early_layer(random: np.random.Generator, x: Tensor, outs: int) -> Layer:
    """A convolution of an odd number of bytes a row, its weights bound in pairs of the whole window and not in its rows'."""
    kernel = int(random.choice([3, 5])), int(random.choice([1, 3, 5]))
    window = Window(kernel, (1, int(random.integers(1, 3))), (1, 1), (1, 1), (1, 1))
    layer = layer_of(random, x, outs, window, 1, extreme=False, real=random.random() < 0.3)
    flat = random.integers(-64, 65, (outs, kernel[0] * kernel[1] * x.shape[1]))
    length = kernel[1] * x.shape[1]
    if length > 1:  # the second row begins within a pair: its first two weights are of two
        flat[:, length - 1 : length + 3] = 0, 100, 100, 0
    weight = np.moveaxis(flat.reshape(outs, *kernel, x.shape[1]), -1, 1).astype(np.int8)
    assert x.coding is not None
    bias = -x.coding.zero_point * weight.astype(np.int64).reshape(outs, -1).sum(axis=1)
    return replace(layer, weight=weight, bias=bias.astype(np.int32))
