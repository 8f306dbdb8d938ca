"""Bounds on the integers each channel of a quantized tensor can hold, proven for every possible input.

One walk over the graph with interval arithmetic (`arithmetic/interval_arithmetic.py`).  What was seen in calibration proves
nothing: another sample may reach further.  What saturates may write anything.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.interval_arithmetic import (
    ANY,
    ROUNDING,
    Interval,
    add_intervals,
    apply_leaky_relu,
    bound_row_sums,
    make_interval,
    multiply_intervals,
    subtract_intervals,
)
from fcdeploy.arithmetic.quantization import LIMITS, broadcast_along
from fcdeploy.arithmetic.weights.layout import lay_out_importance, to_rows
from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import (
    array_of,
    attribute_of,
    clip_bounds,
    fill_value,
    input_of,
    integer_type_of,
    is_constant,
    producer_of,
    zero_point_of,
)

CHOOSES = {
    "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Expand", "Tile", "Split",
    "DepthToSpace", "SpaceToDepth", "Identity", "ReduceMax", "ReduceMin",
}  # fmt: skip
"""Every element of the output is one of the input's."""
FIXED = {"Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0)}
LONGEST = 65_000  # terms of a sum of byte products that cannot leave 32 bits; beyond, it may wrap around
SPREAD = 1 << 18  # numbers that an interval may have: beyond, its ends stand for all
BETWEEN = {"Add": add_intervals, "Sub": subtract_intervals, "Mul": multiply_intervals}
DOMAINS = {"", "ai.onnx"}


class TensorBounds:
    """The intervals of every tensor so far, bytes as integers and floats as numbers; nodes are added in their order."""

    def __init__(self) -> None:
        self.intervals: dict[ir.Value, Interval] = {}

    def of(self, value: ir.Value | None) -> Interval:
        """The interval of any tensor; what nothing bounds is bounded by its type alone."""
        if value is None:
            return ANY
        if value not in self.intervals:
            held, kind = array_of(value), find_byte_type(value)
            if held is not None and held.size and held.dtype.kind in "fiu":
                real = held.astype(np.float64) if held.size <= SPREAD else None
                low, high = float(held.min()), float(held.max())
                self.intervals[value] = make_interval(low, high) if real is None else Interval(real, real)
            else:
                self.intervals[value] = make_interval(*LIMITS[kind]) if kind else ANY
        return self.intervals[value]

    def add(self, node: ir.Node, *, exact: bool = True) -> None:
        """Bound what a node writes; not where its kernel may saturate."""
        if not exact or len(node.inputs) == 0 or node.inputs[0] is None:
            return
        if node.domain not in DOMAINS and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return
        try:
            with np.errstate(all="ignore"):
                interval = _bound_outputs(node, self)
        except (ValueError, IndexError):  # its shapes contradict each other: it does not run
            return
        if interval is None or np.isnan(interval.low).any() or np.isnan(interval.high).any():
            return
        for output in node.outputs if node.op_type == "Split" else node.outputs[:1]:
            kind = find_byte_type(output)
            fits = interval.low.ndim in (0, len(output.shape) if output.shape is not None else interval.low.ndim)
            kept = interval if fits and interval.low.size <= SPREAD else interval.whole()
            self.intervals[output] = kept.clip(*LIMITS[kind]) if kind else kept


WRITTEN_WITH = {"QLinearConcat": 1, "QLinearWhere": 3}
"""Operator -> the input that is a zero point, where it is neither the third nor the eighth."""


def find_byte_type(value: ir.Value | None) -> str | None:
    """'uint8' or 'int8' where the tensor holds bytes, from its declared type or the zero point it is written with."""
    while value is not None:
        node = value.producer()
        dtype: str | None = None
        held = array_of(value)
        if held is not None:
            dtype = held.dtype.name
        elif node is not None and node.op_type == "QuantizeLinear":
            written = integer_type_of(node)
            dtype = None if written is None else written.name.lower()
        elif node is not None and node.op_type == "DynamicQuantizeLinear":
            dtype = "uint8"
        elif node is not None and node.op_type.startswith("QLinear"):  # its own result's zero point, or its input's
            zero = input_of(node, WRITTEN_WITH.get(node.op_type, 7 if len(node.inputs) > 7 else 2))
            dtype = zero.dtype.name.lower() if zero is not None and zero.dtype else None
        elif value.dtype is not None:
            dtype = value.dtype.name.lower()
        elif node is not None and node.op_type in CHOOSES:
            value = node.inputs[0]
            continue
        return dtype if dtype in ("uint8", "int8") else None
    return None


def _bound_outputs(node: ir.Node, known: TensorBounds) -> Interval | None:
    """Bound a node's output, in that tensor's units; None where nothing is known."""
    op, x = node.op_type, known.of(node.inputs[0])
    if op == "QuantizeLinear":
        return _bound_quantize(node, x)
    if op == "DequantizeLinear":
        return _bound_dequantize(node, x)
    if op in ("Conv", "Gemm", "MatMul"):
        return _bound_layer(node, known)

    # elements moved, clipped or combined, in floats as in bytes
    if op in CHOOSES or (op == "Resize" and attribute_of(node, "mode", "nearest") == "nearest"):
        if attribute_of(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
            return x.hull(attribute_of(node, "extrapolation_value", 0.0)).whole()  # what lies outside is that
        return _bound_moved(node, x)
    if op in ("Relu", "Clip"):
        return x.clip(*clip_bounds(node))
    if op == "LeakyRelu":
        return apply_leaky_relu(x, attribute_of(node, "alpha", 0.01))
    if op in BETWEEN:
        return BETWEEN[op](x, known.of(node.inputs[1]))
    if op in ("AveragePool", "GlobalAveragePool"):
        return _bound_average(node, x)
    if op == "Concat":
        return _bound_concat(node, [known.of(value) for value in node.inputs])
    if op == "Where":
        one, other = (known.of(value).ends() for value in node.inputs[1:3])
        return make_interval(min(one[0], other[0]), max(one[1], other[1]))
    if op == "Pad":
        return x.whole() if attribute_of(node, "mode", "constant") != "constant" else _bound_pad(node, x)
    return make_interval(*FIXED[op]) if op in FIXED else None


def _bound_pad(node: ir.Node, x: Interval) -> Interval:
    computed = input_of(node, 2) is not None and not is_constant(input_of(node, 2))
    return ANY if computed else x.hull(fill_value(node)).whole()


def _bound_average(node: ir.Node, x: Interval) -> Interval | None:
    """Bound a mean: one of n float32 numbers errs by at most n 2^-24 of the largest, twice that with the division."""
    positions = attribute_of(node, "kernel_shape", ())
    if node.op_type == "GlobalAveragePool":
        positions = _get_lengths(node.inputs[0])[1:]
    if not positions:
        return None
    pooled = x.places().hull(0.0) if attribute_of(node, "count_include_pad", 0) else x.places()
    return pooled.wider(pooled.largest * (math.prod(positions) + 2) * 2.0**-23)


def _bound_quantize(node: ir.Node, x: Interval) -> Interval | None:
    scale, zero = read_scalars(node)
    if scale is None or zero is None:
        return None
    ends = [np.asarray(e, np.float64) / float(scale) for e in (x.low, x.high)]
    slack = [np.where(np.isfinite(e), np.abs(e) * ROUNDING, 0.0) for e in ends]
    return Interval(np.rint(ends[0] - slack[0]) + zero, np.rint(ends[1] + slack[1]) + zero)


def _bound_dequantize(node: ir.Node, x: Interval) -> Interval | None:
    scale, zero = array_of(node.inputs[1]), zero_point_of(node)
    if scale is None or zero is None or "block_size" in node.attributes or (scale <= 0).any():
        return None
    if max(scale.size, zero.size) > 1:
        if x.low.ndim == 0:
            return None
        axis = attribute_of(node, "axis", 1) % x.low.ndim
        scale, zero = (
            broadcast_along(each.astype(np.float64), axis if each.size > 1 else None, x.low.ndim)
            for each in (scale, zero)
        )
    return Interval(*((scale.astype(np.float64) * (end - zero)).astype(np.float32).astype(np.float64)
                      for end in (x.low, x.high)))  # fmt: skip


def _bound_layer(node: ir.Node, known: TensorBounds) -> Interval | None:
    """Bound a convolution or dense layer whose weights are constant, in float or behind a DequantizeLinear."""
    weight, unit = _read_weight(node.inputs[1])
    if weight is None or unit is None or any(attribute_of(node, k, 1.0) != 1.0 for k in ("alpha", "beta")):
        return None
    is_conv, transposed = node.op_type == "Conv", attribute_of(node, "transB", 0) == 1
    if attribute_of(node, "transA", 0) or (not is_conv and weight.ndim != 2):
        return None
    axis = 0 if is_conv or transposed else 1
    rows = to_rows(weight, axis)
    if rows.shape[1] > LONGEST:
        return None

    low, high = _lay_out_inputs(node, known.of(node.inputs[0]), weight, axis)
    sums = bound_row_sums(rows, unit, low, high)
    bias = known.of(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else make_interval(0, 0)
    outputs = add_intervals(sums, bias.channels(-1))

    # one pair an output channel, shaped to broadcast over the tensor; a MatMul of unknown rank has its channels anywhere
    shape = (1, -1, *[1] * (weight.ndim - 2)) if is_conv else (1, -1)
    rank = node.outputs[0].shape
    if not is_conv and node.op_type == "MatMul" and (rank is None or len(rank) != 2):
        return outputs.whole()
    return Interval(outputs.low.reshape(shape), outputs.high.reshape(shape))


def _lay_out_inputs(node: ir.Node, x: Interval, weight: Array, axis: int) -> tuple[Array, Array]:
    """The ends of a layer's inputs as its rows read them: (K,), or (N, K) with groups."""
    if node.op_type != "Conv":
        seen = x.channels(-1)
        low, high = (np.broadcast_to(end, (weight.shape[1 - axis],)) for end in (seen.low, seen.high))
        return low, high
    groups = attribute_of(node, "group", 1)
    seen = x.hull(0.0).channels(1)  # the border is zero
    ends = (np.broadcast_to(end, (weight.shape[1] * groups,)) for end in (seen.low, seen.high))
    low, high = (lay_out_importance(np.ascontiguousarray(end), weight.shape, groups) for end in ends)
    return low, high


def _read_weight(value: ir.Value | None) -> tuple[Array | None, Array | None]:
    """A constant weight and the unit of its rows, (1,) or (N,): floats, or integers behind a DequantizeLinear."""
    held = array_of(value)
    if held is not None:
        return (held, np.ones(1)) if held.dtype == np.float32 else (None, None)
    node = producer_of(value)
    if node is None or node.op_type != "DequantizeLinear" or "block_size" in node.attributes:
        return None, None
    integers, scale = array_of(node.inputs[0]), array_of(node.inputs[1])
    zero = zero_point_of(node)
    if integers is None or scale is None or zero is None or scale.dtype != np.float32 or (scale <= 0).any():
        return None, None
    if zero.any():
        axis = attribute_of(node, "axis", 1) if zero.size > 1 else None
        integers = integers.astype(np.int16) - broadcast_along(zero.astype(np.float64), axis, integers.ndim).astype(
            np.int16
        )
    return integers, scale.astype(np.float64).reshape(-1)


def _bound_moved(node: ir.Node, x: Interval) -> Interval:
    """Bound an output whose elements are some of the input's, keeping channels apart where they only change place."""
    if x.low.ndim == 0 or node.op_type == "Identity":
        return x
    if node.op_type == "MaxPool":
        return x.places()
    if node.op_type == "Transpose":
        order = attribute_of(node, "perm", tuple(reversed(range(x.low.ndim))))
        return Interval(x.low.transpose(order), x.high.transpose(order))
    before, after = (_get_lengths(value) for value in (node.inputs[0], node.outputs[0]))
    if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze") and before and after:
        inner = x.low.shape[0] == 1 and math.prod(before) == math.prod(after) <= SPREAD
        if inner and len(before) + 1 == x.low.ndim:
            low, high = (np.broadcast_to(e, (1, *before)).reshape(1, *after) for e in (x.low, x.high))
            return Interval(low, high)
    return x.whole()


def _get_lengths(value: ir.Value | None) -> tuple[int, ...]:
    """The lengths of all axes but the first, () where one is not known."""
    shape = tuple(value.shape)[1:] if value is not None and value.shape is not None else ()
    return tuple(n for n in shape if isinstance(n, int)) if all(isinstance(n, int) for n in shape) else ()


def _bound_concat(node: ir.Node, parts: list[Interval]) -> Interval:
    """Bound a Concat: the parts side by side where every length is known, else one pair for all."""
    axis = attribute_of(node, "axis", 0)
    rank = max(part.low.ndim for part in parts)
    low, high = min(part.ends()[0] for part in parts), max(part.ends()[1] for part in parts)
    lengths = [_get_lengths(value) for value in node.inputs]
    axis = axis + rank if axis < 0 else axis
    if rank < 2 or axis == 0 or any(len(each) + 1 != rank for each in lengths):
        return make_interval(low, high)
    spread = []
    for part, each in zip(parts, lengths, strict=True):
        spaceless = part if axis != 1 else part.places()
        if spaceless.low.ndim not in (0, rank) or each[axis - 1] > SPREAD:
            return make_interval(low, high)
        own = spaceless.low.shape if spaceless.low.ndim else (1,) * rank
        shape = (*own[:axis], each[axis - 1], *own[axis + 1 :])
        spread.append([np.broadcast_to(e, shape) for e in (spaceless.low, spaceless.high)])
    try:
        return Interval(*(np.concatenate([ends[i] for ends in spread], axis=axis) for i in (0, 1)))
    except ValueError:  # lengths beside the axis differ, 1 here and the tensor's there
        return make_interval(low, high)


def read_scalars(node: ir.Node) -> tuple[np.float32 | None, int | None]:
    """Scale and zero point of a Q or DQ with one of each; None where they are computed, or one per channel."""
    scale = array_of(node.inputs[1])
    zero = zero_point_of(node)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return None, None
    return np.float32(scale.reshape(())), int(zero.reshape(()))
