"""Nodes of onnxruntime's own for layers on float activations: MatMulNBits, DynamicQuantizeMatMul, DynamicQuantizeLSTM.

What their inputs are is in onnxruntime's docs/ContribOperators.md.  A node keeps its name and what it writes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.edit import set_operator
from fcdeploy.graph.nodes import constant_tensor, input_of, name_of, output_axis
from fcdeploy.int8.planning.types import PackedWeights, bits_of
from fcdeploy.records.plan import QParams

DOMAIN = "com.microsoft"
# How MatMulNBits computes: 4 rounds activations to bytes, row by row in the blocks of the weights, which costs far less
# than 4-bit weights do; 1 stays in float, and takes 3 times as long for 4 bits, 80 times for 8 (4096 x 4096, batch 1).
# Rounded blocks differ between CPUs by several levels, so files for all of them take 1 where it is no slower than float.
ROUNDED, FLOAT = 4, 1
Initializer = Callable[[Array | ir.TensorProtocol, str], ir.Value]


def replace_with_contrib_op(
    node: ir.Node, packed: PackedWeights, q: QParams | None, initializer: Initializer, *, in_float: bool = False
) -> None:
    """The node, with weights in blocks by `q`, or with activations that are scaled in every run; `q` is its weight's.

    `in_float`: blocks of 4 bits leave activations as they are.
    """
    if q is not None and q.block:
        level = FLOAT if in_float and bits_of(q) == 4 else ROUNDED
        _to_matmul_nbits(node, packed, q, initializer, level)
    elif node.op_type == "LSTM":
        _to_dynamic_lstm(node, packed, initializer)
    else:
        _to_dynamic_matmul(node, packed, initializer)


def _to_matmul_nbits(node: ir.Node, packed: PackedWeights, q: QParams, initializer: Initializer, level: int) -> None:
    """A dense layer to MatMulNBits: the bias is an input of it, because an Add behind it would keep it from fusing."""
    integers, scales = packed.weights[1]
    weight, bias = node.inputs[1], input_of(node, 2)
    shape, axis = constant_tensor(weight).shape.numpy(), output_axis(node)
    inputs = [
        node.inputs[0],
        initializer(integers, f"{name_of(weight)}/q"),
        initializer(scales, f"{name_of(weight)}/s"),
        *([None, None, bias] if bias is not None else []),
    ]
    numbers = {"K": int(shape[1 - axis]), "N": int(shape[axis]), "bits": bits_of(q), "block_size": q.block}
    attributes = [ir.AttrInt64(key, value) for key, value in {**numbers, "accuracy_level": level}.items()]
    set_operator(node, "MatMulNBits", DOMAIN, inputs, attributes)


def _to_dynamic_matmul(node: ir.Node, packed: PackedWeights, initializer: Initializer) -> None:
    """A dense layer to DynamicQuantizeMatMul, whose weight lies as (in, out)."""
    integers, scales = packed.weights[1]
    weight, bias = node.inputs[1], input_of(node, 2)
    name = weight.name if weight is not None else node.name
    inputs = [
        node.inputs[0],
        initializer(integers, f"{name}/q"),
        initializer(scales, f"{name}/s"),
        initializer(np.zeros(scales.shape.numpy(), np.int8), f"{name}/z"),
        *([bias] if bias is not None else []),
    ]
    set_operator(node, "DynamicQuantizeMatMul", DOMAIN, inputs)


def _to_dynamic_lstm(node: ir.Node, packed: PackedWeights, initializer: Initializer) -> None:
    """An LSTM to DynamicQuantizeLSTM, whose weights lie as (directions, in, 4 hidden), a scale a direction and output."""
    given = [*node.inputs, *[None] * (8 - len(node.inputs))]
    scales: list[ir.Value | None] = []
    for index, (integers, scale) in packed.weights.items():
        value = node.inputs[index]
        name = value.name if value is not None else node.name
        given[index] = initializer(integers, f"{name}/q")
        zeros = np.zeros(scale.shape.numpy(), np.int8)
        scales += [initializer(scale, f"{name}/s"), initializer(zeros, f"{name}/z")]
    attributes = [attribute for key, attribute in node.attributes.items() if key != "layout"]
    set_operator(node, "DynamicQuantizeLSTM", DOMAIN, [*given, *scales], attributes)
