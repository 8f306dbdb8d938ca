"""Normalizations, sums and functions of onnxruntime's own domain, put together from plain operators."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import floats_of
from fcdeploy.native.reading.reader import sort_axes
from fcdeploy.native.reading.spelling import Spelling

# --- normalizations ---


def _normalize_rows(s: Spelling, rows: Sequence[int]) -> ir.Value:
    """Rows less their mean over their deviation, of x under the shape (*rows, the rest), and with its own again."""
    split = s.reshape(s.x, [*rows, prod(s.shape) // prod(rows)])
    even = s("LayerNormalization", split, s.hold([1.0]), axis=-1, epsilon=s.get("epsilon", 1e-5))
    return s.reshape(even, s.shape)


def _scale_channels(s: Spelling, x: ir.Value, scale: Array, shift: Array) -> ir.Value:
    """x * scale + shift in each channel, which a QuantizeLinear behind it takes in."""
    zeros, ones = s.hold(np.zeros(len(scale))), s.hold(np.ones(len(scale)))
    return s("BatchNormalization", x, s.hold(scale), s.hold(shift), zeros, ones, epsilon=0.0)


def instance_normalization(s: Spelling) -> ir.Value:
    return _scale_channels(s, _normalize_rows(s, s.shape[:2]), *(s.constant(i, "factors") for i in (1, 2)))


def group_normalization(s: Spelling) -> ir.Value:
    """Before operator set 21 a scale for each group, later for each channel."""
    groups, channels = s.get("num_groups", 1), s.shape[1]
    scale, shift = (s.constant(i, "factors").reshape(-1) for i in (1, 2))
    if len(scale) != channels:
        scale, shift = (np.repeat(each, channels // groups) for each in (scale, shift))
    return _scale_channels(s, _normalize_rows(s, (s.shape[0], groups)), scale, shift)


def rms_normalization(s: Spelling) -> ir.Value:
    """x over the root of the mean of its squares, times a scale."""
    axes = list(range(s.get("axis", -1) % len(s.shape), len(s.shape)))
    mean = s("ReduceMean", s("Mul", s.x, s.x), s.hold(axes, np.int64))
    root = s("Sqrt", s("Add", mean, s.hold(s.get("epsilon", 1e-5))))
    return s("Mul", s("Div", s.x, root), s.node.inputs[1])


def mean_variance_normalization(s: Spelling) -> ir.Value:
    axes = s.hold(s.get("axes", (0, 2, 3)), np.int64)
    away = s("Sub", s.x, s("ReduceMean", s.x, axes))
    deviation = s("Sqrt", s("ReduceMean", s("Mul", away, away), axes))
    return s("Div", away, s("Add", deviation, s.hold(1e-9)))


def lp_normalization(s: Spelling) -> ir.Value:
    """x over its norm along an axis; 0 where the norm is."""
    order, axis = s.get("p", 2), s.hold([s.get("axis", -1)], np.int64)
    norm = _norm(s, s.x, axis, order, keepdims=1)
    return s("Div", s.x, s("Where", s("Equal", norm, s.hold(0.0)), s.hold(1.0), norm))


def local_response(s: Spelling) -> ir.Value:
    """x / (bias + alpha * the mean of squares of `size` channels around it)^beta; what is outside counts as zero."""
    size, (n, c, *space) = s.get("size", 1), s.shape
    rows = s.transpose(s.reshape(s("Mul", s.x, s.x), (n, c, prod(space))), (0, 2, 1))
    pads = [(size - 1) // 2, size // 2]
    mean = s("AveragePool", rows, kernel_shape=[size], pads=pads, count_include_pad=1)
    mean = s.reshape(s.transpose(mean, (0, 2, 1)), s.shape)
    base = s("Add", s("Mul", mean, s.hold(s.get("alpha", 1e-4))), s.hold(s.get("bias", 1.0)))
    return s("Div", s.x, s("Pow", base, s.hold(s.get("beta", 0.75))))


def skip_normalization(s: Spelling) -> ir.Value:
    """com.microsoft: (x + skip + bias), normalized along the last axis."""
    plain = "Simplified" in s.node.op_type
    total = s("Add", s.x, s.node.inputs[1])
    at = 3 if plain else 4
    if len(s.node.inputs) > at and s.node.inputs[at] is not None:
        total = s("Add", total, s.node.inputs[at])
    op = "RMSNormalization" if plain else "LayerNormalization"
    shift = [] if plain or len(s.node.inputs) < 4 else [s.node.inputs[3]]
    return s(op, total, s.node.inputs[2], *shift, axis=-1, epsilon=s.get("epsilon", 1e-12))


# --- reductions ---


def _norm(s: Spelling, x: ir.Value, axes: ir.Value, order: int, **how: int) -> ir.Value:
    if order == 1:
        return s("ReduceSum", s("Abs", x), axes, **how)
    return s("Sqrt", s("ReduceSum", s("Mul", x, x), axes, **how))


def reduction(s: Spelling) -> ir.Value:
    """ReduceL1, ReduceL2, ReduceSumSquare, ReduceLogSum and ReduceLogSumExp."""
    op, keep = s.node.op_type, s.get("keepdims", 1)
    given = s.reader.get_integers(s.node, "axes", 1)
    noop = int(not given and s.get("noop_with_empty_axes", 0))
    given = () if noop else sort_axes(given or range(len(s.shape)), len(s.shape))
    axes, how = s.hold(given, np.int64), {"keepdims": keep, "noop_with_empty_axes": noop}
    if op == "ReduceLogSumExp":
        whole = {**how, "keepdims": 1}
        ends = np.finfo(np.float32)  # a row of infinities is one, not infinity less itself
        largest = s("Clip", s("ReduceMax", s.x, axes, **whole), s.hold(ends.min), s.hold(ends.max))
        total = s("Log", s("ReduceSum", s("Exp", s("Sub", s.x, largest)), axes, **whole))
        out = tuple(1 if i in given else n for i, n in enumerate(s.shape) if keep or i not in given)
        return s.reshape(s("Add", total, largest), out)
    if op == "ReduceLogSum":
        return s("Log", s("ReduceSum", s.x, axes, **how))
    if op == "ReduceSumSquare":
        return s("ReduceSum", s("Mul", s.x, s.x), axes, **how)
    return _norm(s, s.x, axes, 1 if op == "ReduceL1" else 2, **how)


def running_sum(s: Spelling) -> ir.Value:
    """CumSum: what lies 1, 2, 4, ... elements before is added. A triangle of ones would multiply infinity by zero."""
    axis = int(s.constant(1, "axis").reshape(())) % len(s.shape)
    sign, ends = (-1 if s.get("reverse", 0) else 1), np.zeros((2, len(s.shape)), np.int64)

    def move(value: ir.Value, by: int) -> ir.Value:
        """Further along the axis; zeros come after it."""
        pads = ends.copy()
        pads[:, axis] = sign * by, -sign * by
        return s("Pad", value, s.hold(pads.reshape(-1), np.int64))

    total = move(s.x, 1) if s.get("exclusive", 0) else s.x
    by = 1
    while by < s.shape[axis]:
        total = s("Add", total, move(total, by))
        by *= 2
    return total


def triangle(s: Spelling) -> ir.Value:
    """Trilu: zeros above or below a diagonal."""
    k = s.reader.get_constant(s.node, 1)
    if k is None and s.reader.get_input(s.node, 1) is not None:
        raise s.refuse("its diagonal is computed at run time")
    rows = np.ones(s.shape[-2:], bool)
    kept = (np.triu if s.get("upper", 1) else np.tril)(rows, 0 if k is None else int(k.reshape(())))
    return s("Where", s.hold(kept, bool), s.x, s.hold(0.0))


# --- functions of onnxruntime's own domain ---


def fast_gelu(s: Spelling) -> ir.Value:
    bias = s.node.inputs[1:2]
    tanh = s.node.op_type == "FastGelu"
    x = s("Add", s.x, bias[0]) if bias and bias[0] is not None else s.x
    return s("Gelu", x, approximate="tanh" if tanh else "none")


def quick_gelu(s: Spelling) -> ir.Value:
    return s("Swish", s.x, alpha=s.get("alpha", 1.702))


def fused_matmul(s: Spelling) -> ir.Value:
    """alpha * a b, with the last two axes of either turned around before."""
    sides = []
    for value, name in zip(s.node.inputs[:2], ("transA", "transB"), strict=True):
        assert value is not None
        rank = len(s.shape_of(value))
        turned = s.get(name, 0) and rank > 1
        sides.append(s.transpose(value, [*range(rank - 2), rank - 1, rank - 2]) if turned else value)
        if s.get(name.replace("trans", "transBatch"), 0):
            raise s.refuse(f"its {name.replace('trans', 'transBatch')} has no kernel")
    product = s("MatMul", *sides)
    alpha = s.get("alpha", 1.0)
    return product if alpha == 1 else s("Mul", product, s.hold(alpha))


def fused_layer(s: Spelling) -> ir.Value:
    """FusedConv and FusedGemm: a layer, a sum with another tensor (of a convolution), and an activation."""
    own = {"activation", "activation_params", "activation_alpha", "activation_beta", "activation_gamma"}
    kept = {key: each.value for key, each in s.node.attributes.items() if key not in own}
    result = s(s.node.op_type.removeprefix("Fused"), *s.node.inputs[:3], **kept)
    if len(s.node.inputs) > 3 and s.node.inputs[3] is not None:
        result = s("Add", result, s.node.inputs[3])
    op = s.get("activation", "")
    numbers = floats_of(s.node, "activation_params") or [
        s.get(f"activation_{name}", 0.0) for name in ("alpha", "beta") if f"activation_{name}" in s.node.attributes
    ]
    if op == "Clip":
        return s("Clip", result, *map(s.hold, numbers))
    return s(op, result, **dict(zip(("alpha", "beta"), numbers, strict=False))) if op else result
