"""ConvTranspose as a convolution: each of the outputs between two inputs has weights of its own, and is a channel of its own.

With stride s the output at q s + a is the sum of x[q + j] w[k] over all taps k with a + pad - k d = j s.  So one convolution
of stride 1 computes all s phases a as s times the channels, and the channels are then laid out side by side in space.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import attribute_of
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.layers import Form, read_layer
from fcdeploy.native.reading.moves import spread_out, take_part
from fcdeploy.native.reading.operands import Fixed
from fcdeploy.native.reading.reader import Reader, name_output, read_shape


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


def conv_transpose(reader: Reader, node: ir.Node) -> None:
    x, weight = read_shape(reader.read(node.inputs[0])), reader.get_input(node, 1)
    if not isinstance(weight, Fixed):
        raise reader.refuse(node, "its weights are computed at run time")
    if len(x) not in (3, 4):
        raise reader.refuse(node, f"its input has {len(x)} axes, expected 3 or 4")
    groups, kernel = attribute_of(node, "group", 1), weight.array.shape[2:]
    axes, out = _read_geometry(node, x[2:], kernel)
    if min(out) < 1:
        raise reader.refuse(node, f"its output would have the lengths {list(out)}")
    ends = tuple(max(0, p.outputs - 1 + p.first + p.count - n) for p, n in zip(axes, x[2:], strict=True))
    ones = (1,) * len(axes)
    window = Window(tuple(p.count for p in axes), ones, tuple(-p.first for p in axes), ends, ones)
    times = prod(p.stride for p in axes)
    outs = weight.array.shape[1] * groups
    shape = (x[0], outs * times, *window.outputs(x[2:]))

    def bias(values: Array) -> Array:
        return np.repeat(values.reshape(groups, 1, -1), times, axis=1).reshape(-1)

    def finish(tensor: Tensor) -> Tensor:
        strides = tuple(p.stride for p in axes)
        whole = spread_out(reader, node, tensor, strides, groups)
        return take_part(reader, node, whole, (x[0], outs, *out), name_output(node))

    forward = _turn_weight(weight, axes, groups)
    read_layer(reader, node, forward, (0, forward), shape, window, groups, Form(times, bias, finish))


def _read_geometry(
    node: ir.Node, space: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[tuple[Phases, ...], tuple[int, ...]]:
    """Every axis, and the lengths of the output, by ONNX's formulas."""
    rank = len(space)
    strides, dilations = (tuple(attribute_of(node, name, (1,) * rank)) for name in ("strides", "dilations"))
    extra = tuple(attribute_of(node, "output_padding", (0,) * rank))
    pads = tuple(attribute_of(node, "pads", (0,) * (2 * rank)))
    auto, wanted = attribute_of(node, "auto_pad", "NOTSET"), tuple(attribute_of(node, "output_shape", ()))
    full = tuple(
        s * (n - 1) + e + (k - 1) * d + 1
        for n, s, e, k, d in zip(space, strides, extra, kernel, dilations, strict=True)
    )
    if not wanted and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = tuple(n * s for n, s in zip(space, strides, strict=True))
    if wanted:
        total = [f - w for f, w in zip(full, wanted[-rank:], strict=True)]
        before = tuple(t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total)
        out = tuple(wanted[-rank:])
    else:
        before = pads[:rank] if auto != "VALID" else (0,) * rank
        out = tuple(f - b - e for f, b, e in zip(full, before, pads[rank:] if auto != "VALID" else before, strict=True))
    each = zip(out, kernel, strides, before, dilations, strict=True)
    return tuple(split_phases(*numbers) for numbers in each), out


def _turn_weight(weight: Fixed, axes: tuple[Phases, ...], groups: int) -> Fixed:
    """Weights (in, out / groups, *kernel) as a convolution's: (groups x phases x out / groups, in / groups, *offsets)."""
    array = _turn_array(weight.array, axes, groups)
    if weight.integers is None or weight.scale is None or weight.zero is None or weight.axis not in (None, 1):
        return Fixed(array)
    zero = weight.zero.astype(np.int16).reshape((1, -1, *[1] * len(axes)) if weight.zero.size > 1 else ())
    centred = weight.integers.astype(np.int16) - zero
    if centred.min(initial=0) < -128 or centred.max(initial=0) > 127:
        return Fixed(array)
    times = groups * prod(p.stride for p in axes)
    scale = np.tile(weight.scale, times) if weight.scale.size > 1 else weight.scale
    axis = 0 if weight.scale.size > 1 else None
    return Fixed(array, _turn_array(centred.astype(np.int8), axes, groups), scale, np.zeros(1, np.int8), axis)


def _turn_array(weight: Array, axes: tuple[Phases, ...], groups: int) -> Array:
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
