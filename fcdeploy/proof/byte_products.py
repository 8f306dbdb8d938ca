"""Which layers multiply bytes, and with what: the operands as the kernel gets them, read from the file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.interval_arithmetic import Interval, make_interval
from fcdeploy.arithmetic.quantization import LIMITS, broadcast_along, round_to_integers
from fcdeploy.arithmetic.weights.layout import to_rows
from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import array_of, attribute_of, has_depthwise_weight, producer_of, zero_point_of
from fcdeploy.proof.byte_bounds import CHOOSES, TensorBounds, find_byte_type, read_scalars

DEPTHWISE = "depthwise: one input channel per output, added in 32 bits"
FULL = make_interval(0, 255)
INTEGER_OPS: dict[str, tuple[int | None, tuple[int, ...], int | None]] = {
    # operator: input that holds activations (None: quantized inside), inputs that hold weights, activation zero point
    "QLinearConv": (0, (3,), 2),
    "QLinearMatMul": (0, (3,), 2),
    "QGemm": (0, (3,), 2),
    "MatMulInteger": (0, (1,), 2),
    "MatMulIntegerToFloat": (0, (1,), 4),
    "ConvInteger": (0, (1,), 2),
    "DynamicQuantizeMatMul": (None, (1,), None),
    "QAttention": (0, (1,), 6),
    "DynamicQuantizeLSTM": (None, (1, 2), None),
}
FLOAT_OPS = {"Conv", "Gemm", "MatMul"}  # between DequantizeLinear and QuantizeLinear


@dataclass(frozen=True)
class ByteProduct:
    """The operands of a layer as its kernel gets them: types, weights as rows (out, K) per matrix, activation bounds.

    `rows` is None where weights are computed at run time.  `bounds` has one pair for all, or one a channel, of unsigned
    bytes; signed ones count from -128.
    """

    node: ir.Node
    activation: str
    weight: str
    rows: tuple[Array, ...] | None
    bounds: Interval
    exact: str = ""

    @property
    def groups(self) -> int:
        return attribute_of(self.node, "group", 1)


def find_product(node: ir.Node, known: TensorBounds) -> ByteProduct | None:
    """The byte product that a node computes, None for a node that computes none."""
    if node.op_type in INTEGER_OPS:
        return _read_integer_operator(node, known)
    return _read_qdq_layer(node, known) if node.op_type in FLOAT_OPS else None


def _read_integer_operator(node: ir.Node, known: TensorBounds) -> ByteProduct | None:
    """QLinearConv and its kind: the file itself says what is multiplied."""
    data, weights, zero = INTEGER_OPS[node.op_type]
    inputs = list(node.inputs)
    activation = "uint8" if data is None else find_byte_type(inputs[data]) or "uint8"
    held = [_read_weight(inputs[index]) for index in weights if index < len(inputs)]
    types = [find_byte_type(inputs[index]) or (a.dtype.name if a is not None else "int8")
             for index, a in zip(weights, held, strict=True)]  # fmt: skip
    kind = "int8" if "int8" in types else "uint8"
    reasons = (  # the first that holds
        (node.op_type == "ConvInteger", "ConvInteger multiplies unsigned bytes, in 32 bits"),
        (kind == "uint8", "unsigned weights are multiplied in 32 bits"),
        (node.op_type == "QLinearConv" and _is_depthwise(node, held[0]), DEPTHWISE),
        (activation == "int8", "signed activations are multiplied in 32 bits"),
    )
    exact = next((why for holds, why in reasons if holds), "")
    bounds = FULL
    source = None if data is None else inputs[data]
    if source is not None and activation == "uint8":
        point = array_of(inputs[zero]) if zero is not None and len(inputs) > zero else None
        read = _bound_by_channel(node, known.of(source).clip(*LIMITS["uint8"]))
        bounds = read.hull(0 if point is None else int(point.reshape(-1)[0]))
    return ByteProduct(node, activation, kind, _to_rows(node, held), bounds, exact)


def _read_qdq_layer(node: ir.Node, known: TensorBounds) -> ByteProduct | None:
    """Conv, Gemm or MatMul whose operands are dequantized bytes: the runtime makes an integer kernel of it.

    A Conv needs a QuantizeLinear behind it for that; Gemm and MatMul may write floats.
    """
    data, weight = (find_dequantize(node.inputs[i]) if len(node.inputs) > i else None for i in (0, 1))
    if data is None or weight is None or (node.op_type == "Conv" and not _is_requantized(node.outputs[0])):
        return None
    activation, kind = find_byte_type(data.inputs[0]), find_byte_type(weight.inputs[0])
    if activation is None or kind is None or data.inputs[0] is None or weight.inputs[0] is None:
        return None
    held = _read_weight(node.inputs[1])
    exact = ""
    if kind == "uint8":
        exact = "unsigned weights are multiplied in 32 bits"
    elif node.op_type == "Conv" and _is_depthwise(node, held):
        exact = DEPTHWISE
    elif held is None and _is_made_unsigned(weight.inputs[0]):
        exact = "both operands are made unsigned by the runtime and multiplied in 32 bits"
    raised = 128 if activation == "int8" else 0
    seen = _bound_bytes_read(node, data, activation, known)
    bounds = Interval(seen.low + raised, seen.high + raised)
    return ByteProduct(node, activation, kind, _to_rows(node, [held]), bounds, exact)


def _bound_by_channel(node: ir.Node, x: Interval) -> Interval:
    """By what a layer's weights are multiplied with one by one; a Gemm may read its rows as columns."""
    if attribute_of(node, "transA", 0):
        return x.whole()
    return x.channels(1 if "Conv" in node.op_type else -1)


def _bound_bytes_read(node: ir.Node, data: ir.Node, kind: str, known: TensorBounds) -> Interval:
    """The integers that a layer reads, by channel; a convolution also reads zero points, at its borders."""
    scale, zero = read_scalars(data)
    if scale is None or zero is None:
        return make_interval(*LIMITS[kind])
    x = _bound_by_channel(node, known.of(node.inputs[0])).hull(0.0)
    low, high = (np.clip(np.rint(end / float(scale)) + zero, *LIMITS[kind]) for end in (x.low, x.high))
    return Interval(low, high)


def find_dequantize(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear a float tensor comes from; what only moves elements is exchanged with it by the runtime."""
    node = producer_of(value)
    while node is not None and node.op_type in CHOOSES:
        node = producer_of(node.inputs[0])
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _is_requantized(value: ir.Value) -> bool:
    """Whether a QuantizeLinear follows, at once or behind a clip or what moves elements."""
    readers = list(value.consumers())
    return any(
        reader.op_type == "QuantizeLinear"
        or (reader.op_type in CHOOSES | {"Relu", "Clip"} and any(_is_requantized(out) for out in reader.outputs))
        for reader in readers
    )


def _is_made_unsigned(value: ir.Value) -> bool:
    """Signed bytes that the runtime makes unsigned: written by a QuantizeLinear with one reader."""
    node = value.producer()
    return node is not None and node.op_type == "QuantizeLinear" and len(list(value.consumers())) == 1


def _read_weight(value: ir.Value | None) -> Array | None:
    """The integers of a weight: stored ones, stored floats behind a QuantizeLinear, either of them transposed."""
    held = array_of(value)
    if held is not None:
        return held if held.dtype in (np.int8, np.uint8) else None
    node = producer_of(value)
    if node is None or node.op_type not in ("DequantizeLinear", "QuantizeLinear", "Identity", "Transpose", "Reshape"):
        return None
    if node.op_type == "QuantizeLinear":
        return _quantize_constant(node)
    inner = _read_weight(node.inputs[0])
    if inner is None or node.op_type in ("DequantizeLinear", "Identity"):
        return inner
    if node.op_type == "Transpose":
        order = attribute_of(node, "perm", tuple(reversed(range(inner.ndim))))
        return inner.transpose(order)
    shape = array_of(node.inputs[1])
    return None if shape is None or 0 in shape else inner.reshape(shape)


def _quantize_constant(node: ir.Node) -> Array | None:
    """A float weight that the runtime quantizes once, when it loads the model."""
    weight, scale = array_of(node.inputs[0]), array_of(node.inputs[1])
    kind = find_byte_type(node.outputs[0])
    point = zero_point_of(node)
    if weight is None or scale is None or point is None or kind is None or weight.dtype != np.float32:
        return None
    axis = attribute_of(node, "axis", 1) % max(weight.ndim, 1) if scale.size > 1 else None
    if axis is not None and (scale.ndim != 1 or len(scale) != weight.shape[axis]):
        return None  # in blocks: no integer kernel multiplies those
    step, zero = (
        broadcast_along(each.astype(np.float64), axis if each.size > 1 else None, weight.ndim)
        for each in (scale, point)
    )
    return round_to_integers(weight, step, zero, kind).astype(kind)


def _is_depthwise(node: ir.Node, weight: Array | None) -> bool:
    return weight is not None and has_depthwise_weight(node, weight.shape)


def _to_rows(node: ir.Node, weights: list[Array | None]) -> tuple[Array, ...] | None:
    """Weights as (out, K) in the order of the kernel; a stack of matrices (..., K, out) as the rows of all."""
    rows = []
    for weight in weights:
        if weight is None:
            return None
        if "Conv" in node.op_type:
            rows.append(to_rows(weight, 0))
        elif node.op_type in ("Gemm", "QGemm") and attribute_of(node, "transB", 0) == 1:
            rows.append(weight)
        elif weight.ndim <= 1:
            rows.append(np.atleast_2d(weight))
        else:
            rows.append(np.moveaxis(weight, -2, -1).reshape(-1, weight.shape[-2]))
    return tuple(rows)
