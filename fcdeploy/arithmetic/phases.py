"""A transposed convolution as a convolution: each of the outputs between two inputs has weights of its own.

With stride s the output at q s + a is the sum of x[q + j] w[k] over all taps k with a + pad - k d = j s.  So one convolution
of stride 1 computes all s phases a as s times the channels, and the channels are then laid out side by side in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Array

TURNED = ".turned"  # behind the name of a tensor: the same, with its phases as channels


@dataclass(frozen=True)
class Phases:
    """One axis: (phase, tap of the kernel, offset in the input) of every product, and how many outputs a phase has."""

    taps: tuple[tuple[int, int, int], ...]
    stride: int
    first: int  # the lowest offset, and how many there are
    count: int
    outputs: int


def split_phases(out: int, kernel: int, stride: int, before: int, dilation: int) -> Phases:
    """The products of one axis with `out` outputs."""
    taps = tuple(
        (a, k, (a + before - k * dilation) // stride)
        for a in range(stride)
        for k in range(kernel)
        if (a + before - k * dilation) % stride == 0
    )
    offsets = [0, *(j for _, _, j in taps)]
    first, last = min(offsets), max(offsets)
    return Phases(taps, stride, first, last - first + 1, -(-out // stride))


def find_window(axes: Sequence[Phases], space: Sequence[int]) -> Window:
    """The window of the convolution over axes of these lengths, of which each output is all phases of a place."""
    ends = tuple(max(0, p.outputs - 1 + p.first + p.count - n) for p, n in zip(axes, space, strict=True))
    ones = (1,) * len(axes)
    return Window(tuple(p.count for p in axes), ones, tuple(-p.first for p in axes), ends, ones)


def turn_weight(weight: Array, axes: Sequence[Phases], groups: int = 1) -> Array:
    """Weights (in, out / groups, *kernel) as a convolution's: (groups x phases x out / groups, in / groups, *offsets)."""
    inputs, outs = weight.shape[:2]
    own = weight.reshape(groups, inputs // groups, outs, *weight.shape[2:])
    strides, counts = [p.stride for p in axes], [p.count for p in axes]
    turned = np.zeros((groups, *strides, outs, inputs // groups, *counts), weight.dtype)
    for taps in product(*(p.taps for p in axes)):
        phase = tuple(a for a, _, _ in taps)
        at = tuple(j - p.first for (_, _, j), p in zip(taps, axes, strict=True))
        tap = tuple(k for _, k, _ in taps)
        for group in range(groups):
            to: tuple[Any, ...] = (group, *phase, slice(None), slice(None), *at)
            turned[to] = own[group][(slice(None), slice(None), *tap)].T
    return turned.reshape(-1, inputs // groups, *counts)


def repeat_bias(bias: Array, axes: Sequence[Phases], groups: int = 1) -> Array:
    """One number an output as one for each of its phases."""
    return np.repeat(bias.reshape(groups, 1, -1), prod(p.stride for p in axes), axis=1).reshape(-1)
