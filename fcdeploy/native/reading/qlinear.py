"""Operators on quantized tensors, as onnxruntime's QOperator format has them, in Q/DQ form: read like any other model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.edit import Names, add_initializer, rewrite_operators
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.native.program.steps import KERNELS_HINT
from fcdeploy.native.reading.reader import WRITTEN_AS


@dataclass(frozen=True)
class Form:
    """What a node computes: `op` on inputs `plain` as they are, and on those at `quantized`, each with its scale and zero
    point behind it; its own scale and zero point are inputs `output` and the next. `bias` are integers in units of both
    scales.  The second quantized input may have a scale for each length of axis `axis`."""

    op: str
    quantized: tuple[int, ...]
    output: int
    plain: tuple[int, ...] = ()
    bias: int | None = None
    axis: int = 0


FORMS = {
    "QLinearConv": Form("Conv", (0, 3), 6, bias=8),
    "QLinearMatMul": Form("MatMul", (0, 3), 6, axis=1),
    "QGemm": Form("Gemm", (0, 3), 7, bias=6, axis=1),
    "QLinearAdd": Form("Add", (0, 3), 6),
    "QLinearMul": Form("Mul", (0, 3), 6),
    "QLinearSigmoid": Form("Sigmoid", (0,), 3),
    "QLinearLeakyRelu": Form("LeakyRelu", (0,), 3),
    "QLinearSoftmax": Form("Softmax", (0,), 3),
    "QLinearAveragePool": Form("AveragePool", (0,), 3),
    "QLinearGlobalAveragePool": Form("GlobalAveragePool", (0,), 3),
    "QLinearConcat": Form("Concat", (), 0),
    "QLinearWhere": Form("Where", (1, 4), 7, plain=(0,)),
}
"""Operator -> its form. A QLinearConcat has as many quantized inputs as it is given, from its third on."""
OWN_ATTRIBUTES = ("channels_last", "opset")


def spell_out(model: ir.Model) -> ir.Model:
    """The model with every such operator as DequantizeLinear, the plain operator, QuantizeLinear; itself without any."""
    return rewrite_operators(model, FORMS, _replace)


def _replace(graph: ir.Graph, node: ir.Node, names: Names) -> None:
    form = FORMS[node.op_type]
    if attribute_of(node, "channels_last", 0):
        raise FcdeployError(
            f"node {node.name!r} is a {node.op_type} with channels last, which has no kernel", KERNELS_HINT
        )
    quantized = form.quantized or tuple(range(2, len(node.inputs), 3))
    made: list[ir.Node] = []

    def add(op: str, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr] = (), name: str = "") -> ir.Value:
        new = ir.Node("", op, inputs, attributes, name=name or names.take(f"{node.name}.{op}"))
        new.outputs[0].name = names.take(f"{node.name}.{op}")
        made.append(new)
        return new.outputs[0]

    def get(index: int) -> ir.Value | None:
        return node.inputs[index] if index < len(node.inputs) else None

    def scaled(at: int, axis: int) -> ir.Value:
        value, scale, zero = (get(at + i) for i in range(3))
        if zero is None:  # DequantizeLinear would take it for unsigned
            zero = _add_zero(graph, names, node, value)
        return add("DequantizeLinear", [value, scale, zero], [ir.AttrInt64("axis", axis)])

    axis = 0 if form.op == "Gemm" and attribute_of(node, "transB", 0) else form.axis
    inputs: list[ir.Value | None] = [get(index) for index in form.plain]
    inputs += [scaled(at, axis if order else 0) for order, at in enumerate(quantized)]
    if form.bias is not None and get(form.bias) is not None:
        unit = add("Mul", [get(quantized[0] + 1), get(quantized[1] + 1)])
        alpha = attribute_of(node, "alpha", 1.0)
        if alpha != 1:  # of a QGemm, which has its bias in units of the product
            factor = add_initializer(graph, names.take(f"{name_of(node)}.alpha"), np.array(alpha, np.float32))
            unit = add("Mul", [unit, factor])
        inputs.append(add("DequantizeLinear", [get(form.bias), unit], [ir.AttrInt64("axis", 0)]))
    kept = [each for each in node.attributes.values() if each.name not in OWN_ATTRIBUTES]
    result = add(form.op, inputs, kept, name=name_of(node))
    made[-1].meta[WRITTEN_AS] = node.op_type
    if get(form.output) is not None:  # a QGemm without it writes floats
        zero = get(form.output + 1) or _add_zero(graph, names, node, node.outputs[0])
        result = add("QuantizeLinear", [result, get(form.output), zero])
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, node.outputs, [result])


def _add_zero(graph: ir.Graph, names: Names, node: ir.Node, value: ir.Value | None) -> ir.Value:
    signed = value is not None and value.dtype == ir.DataType.INT8
    return add_initializer(graph, names.take(f"{name_of(node)}.zero"), np.zeros((), np.int8 if signed else np.uint8))
