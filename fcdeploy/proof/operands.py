"""The nodes of a Q/DQ model that compute on integers, with what each reads and writes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from platform import machine

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays
from fcdeploy.evaluate.quantized_tensors import FUSED_INTO
from fcdeploy.graph.nodes import (
    array_of,
    attribute_of,
    clip_bounds,
    input_of,
    is_constant,
    name_of,
    producer_of,
    zero_point_of,
)
from fcdeploy.runtime.kernels import is_integer_kernel
from fcdeploy.tables.operators import operator

LAYERS = ("Conv", "Gemm", "MatMul")
ROUNDING = ("DynamicQuantizeMatMul", "MatMulNBits")  # layers that round the floats they read by themselves
KNOWN = (*LAYERS, "Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "LeakyRelu", "Sigmoid", "Softmax")
BYTES = ("uint8", "int8")
X86 = ("x86_64", "amd64")
NO_REFERENCE = {
    "DynamicQuantizeLSTM": "it rounds its states in every step: there is no reference for that",
    "MatMulIntegerToFloat": "it reads bytes that the file itself computes a scale for",
}


@dataclass(frozen=True)
class Operand:
    """Integers behind a DequantizeLinear: `held` where they are constant, else what the graph computes as `name`."""

    name: str
    held: Array | None
    scale: Array
    zero_point: Array
    dtype: str

    def integers(self, computed: Arrays) -> Array:
        return computed[self.name] if self.held is None else self.held


@dataclass(frozen=True)
class KernelOutput:
    """The output of a node: integers, clipped before to [low, high], or, without a scale, floats."""

    name: str
    scale: np.float32 | None = None
    zero_point: int = 0
    dtype: str = "float32"
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class RecomputedNode:
    """A node that can be recomputed; `inputs` in its order, a bias that is stored as float as an array."""

    node: ir.Node
    inputs: tuple[Operand, ...]
    written: KernelOutput
    float_bias: Array | None = None


@dataclass(frozen=True)
class SkippedNode:
    """A node on bytes that is not recomputed, and why."""

    node: str
    op: str
    why: str


def find_integer_nodes(model: ir.Model) -> Iterator[RecomputedNode | SkippedNode]:
    """Every node of the main graph that an integer kernel may run, in its order."""
    for node in model.graph:
        name, op = name_of(node), node.op_type
        if op in ROUNDING:
            yield from _read_rounding_layer(node)
            continue
        if is_integer_kernel(op):
            yield SkippedNode(name, op, NO_REFERENCE.get(op, "an integer operator of the file itself"))
            continue
        row = operator(op, node.domain)
        if row.role not in ("multiply", "integer"):
            continue
        which = tuple(range(len(node.inputs))) if row.data is None else row.data
        if op == "MatMul":
            which = (0,)  # its weight is data in the table, because it may be computed
        data = [read_operand(node.inputs[i]) if i < len(node.inputs) else None for i in which]
        if any(each is None or each.dtype not in BYTES for each in data):
            continue
        read = _read_layer(node) if op in LAYERS else _read_operator(node)
        if isinstance(read, str):
            yield SkippedNode(name, op, read)
        elif read is not None:
            yield read


def read_operand(value: ir.Value | None) -> Operand | None:
    """The integers that a DequantizeLinear reads; None for what is not dequantized, or in blocks, or by what is computed."""
    node = producer_of(value)
    if node is None or node.op_type != "DequantizeLinear" or "block_size" in node.attributes:
        return None
    source, scale = node.inputs[0], array_of(node.inputs[1])
    zero = zero_point_of(node)
    if source is None or scale is None or zero is None or scale.dtype != np.float32:
        return None
    held = array_of(source)
    return Operand(name_of(source), held, scale, zero.astype(np.int64), (zero if held is None else held).dtype.name)


def find_output(node: ir.Node) -> KernelOutput | None:
    """The bytes of the one QuantizeLinear behind a node, clips between them included; None where there is none."""
    value, low, high = node.outputs[0], -math.inf, math.inf
    while not value.is_graph_output():
        readers = list(value.consumers())
        if len(readers) != 1:
            return None
        reader = readers[0]
        if reader.op_type == "QuantizeLinear":
            return _read_quantize(reader, low, high)
        if reader.op_type not in ("Relu", "Clip"):
            return None
        if any(bound is not None and not is_constant(bound) for bound in reader.inputs[1:]):
            return None
        least, most = clip_bounds(reader)
        low, high = (min(max(end, least), most) for end in (low, high))
        value = reader.outputs[0]
    return None


def _read_layer(node: ir.Node) -> RecomputedNode | SkippedNode | str | None:
    """A convolution or dense layer on dequantized constants; a sentence where it is one that is not recomputed."""
    x, weight = (read_operand(value) for value in node.inputs[:2])
    if x is None or weight is None:
        return None  # its weights are floats, so it computes in float
    to = find_output(node)
    if to is None and node.op_type == "Conv":
        return None
    if weight.held is None:
        return "its weights are computed at run time"
    if weight.dtype not in BYTES or x.scale.size != 1:
        return None

    bias = input_of(node, 2)
    stored, real = read_operand(bias), array_of(bias)
    stored = stored if stored is not None and stored.held is not None else None
    reasons = {
        f"its weight has {weight.held.ndim} axes": node.op_type == "MatMul" and weight.held.ndim != 2,
        "its alpha, beta or transA is not the plain one": not _is_plain(node),
        "its float output may be part of a larger kernel": to is None and _may_fuse(node.outputs[0]),
        "its bias is computed at run time": bias is not None and stored is None and real is None,
    }
    if why := next((why for why, holds in reasons.items() if holds), None):
        return why
    inputs = (x, weight) if stored is None else (x, weight, stored)
    return RecomputedNode(node, inputs, to or KernelOutput(name_of(node.outputs[0])), real)


def _may_fuse(value: ir.Value) -> bool:
    """Whether what writes the value may become one kernel with what reads it."""
    return not value.is_graph_output() and bool({reader.op_type for reader in value.consumers()} & FUSED_INTO)


def _is_plain(node: ir.Node) -> bool:
    """Whether a Gemm only multiplies and adds; other operators have none of these attributes."""
    factors = (attribute_of(node, key, 1.0) for key in ("alpha", "beta"))
    return all(factor == 1.0 for factor in factors) and attribute_of(node, "transA", 0) == 0


def _read_rounding_layer(node: ir.Node) -> Iterator[RecomputedNode | SkippedNode]:
    """A dense layer that rounds its activations itself; nothing where it computes in float."""
    x, name = node.inputs[0], name_of(node)
    rounds = node.op_type != "MatMulNBits" or attribute_of(node, "accuracy_level", 0) == 4
    if x is None or not rounds:
        return
    given = [value for value in node.inputs[1:] if value is not None]
    if any(array_of(value) is None for value in given):
        yield SkippedNode(name, node.op_type, "its weights are computed at run time")
    elif node.op_type == "MatMulNBits" and any(value is not None for value in node.inputs[3:5]):
        yield SkippedNode(name, node.op_type, "its blocks have zero points or an order of their own")
    elif node.op_type == "MatMulNBits" and attribute_of(node, "bits", 4) not in (4, 8):
        yield SkippedNode(name, node.op_type, "its weights have neither 4 bits nor 8")
    elif node.op_type == "MatMulNBits" and machine().lower() not in X86:
        yield SkippedNode(name, node.op_type, "how kernels of this CPU round a block of activations is not known")
    else:
        held = array_of(x)
        read = Operand(name_of(x), held, np.ones(1, np.float32), np.zeros(1, np.int64), "float32")
        yield RecomputedNode(node, (read,), KernelOutput(name_of(node.outputs[0])))


def _read_operator(node: ir.Node) -> RecomputedNode | str | None:
    """An operator without weights between DequantizeLinears and a QuantizeLinear."""
    to = find_output(node)
    if to is None:
        return None
    if node.op_type not in KNOWN:
        return "no reference for this operator"
    inputs = [read_operand(value) for value in node.inputs]
    operands = tuple(each for each in inputs if each is not None)
    if len(operands) < len(inputs) or any(each.scale.size != 1 for each in operands):
        return None
    return RecomputedNode(node, operands, to)


def _read_quantize(node: ir.Node, low: float, high: float) -> KernelOutput | None:
    scale = array_of(node.inputs[1])
    zero = zero_point_of(node)
    if scale is None or zero is None or scale.size != 1 or zero.dtype.name not in BYTES:
        return None
    point = int(zero.reshape(()))
    return KernelOutput(name_of(node.outputs[0]), np.float32(scale.reshape(())), point, zero.dtype.name, low, high)
