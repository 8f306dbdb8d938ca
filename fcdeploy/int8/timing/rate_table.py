"""Costs of a model's nodes from the table of rates of a target, where nothing is to be measured."""

from __future__ import annotations

import math

import onnx_ir as ir

from fcdeploy.graph.nodes import is_constant, is_op, name_of, output_axis, producer_of, shape_of, weight_of
from fcdeploy.int8.nodes import is_depthwise
from fcdeploy.int8.planning.elementwise import find_gelus
from fcdeploy.prepare.cost_model import list_costs_of_a_sample
from fcdeploy.records.costs import Costs
from fcdeploy.tables import rates

LOOKED_UP = ("Sigmoid", "Tanh", "Erf", "LeakyRelu")
GATES = {"Sigmoid": rates.SILU, "HardSigmoid": rates.HARD_SWISH}


def estimate_costs(model: ir.Model, model_hash: str, target: str) -> Costs:
    """Microseconds of layers and of functions between them, in float and as integers; other nodes cost the same either way."""
    table, functions = rates.BY_TARGET[target], find_functions(model.graph)
    costs = {layer.node: layer for layer in list_costs_of_a_sample(model)}
    nodes = {}
    for node in model.graph:
        name, kind = name_of(node), find_kind(node)
        cost = costs.get(name)
        if kind is not None:
            rate, count = table.rates[kind], (cost and cost.macs) or 0
            in_float = rate.float_us + count * rate.float_ns / 1e3
            as_integers = rate.int8_us + count * (rate.int8_ns + rate.gather_ns / _count_outputs(node)) / 1e3
        elif name in functions and cost is not None and cost.shape is not None:
            function, count = table.functions[functions[name]], math.prod(cost.shape)
            in_float, as_integers = count * function.float_ns / 1e3, count * function.int8_ns / 1e3
        else:
            continue
        nodes[name] = (round(in_float, 3), round(as_integers, 3))
    read = "not measured" if table.verified else "estimated from onnxruntime's source, not run"
    return Costs(model_hash, f"table of rates for {target}, {read}", table.conversions, nodes)


def find_functions(graph: ir.Graph) -> dict[str, str]:
    """Node -> the row of the table that what it computes of every number falls under.

    A function in pieces stands at the last of them, where it is part of one kernel in float; the others have no row.
    """
    found, pieces = {}, set[ir.Node]()
    for _, nodes in find_gelus(graph):
        found[name_of(nodes[-1])] = rates.GELU
        pieces.update(nodes)
    for node in graph:
        if node not in pieces and is_op(node, "Mul") and (gate := _find_gate(node)) is not None:
            found[name_of(node)] = GATES[gate.op_type]
            pieces.update((node, gate))
    for node in graph:
        if node in pieces or node.outputs[0].dtype != ir.DataType.FLOAT:
            continue
        if is_op(node, "Add", "Mul") and not any(map(is_constant, node.inputs)):
            found[name_of(node)] = rates.ADD if node.op_type == "Add" else rates.MUL
        elif is_op(node, *LOOKED_UP):
            found[name_of(node)] = rates.LOOK_UP
    return found


def _find_gate(product: ir.Node) -> ir.Node | None:
    """The sigmoid, plain or hard, of a factor that it alone is multiplied by."""
    for gate, value in (product.inputs, reversed(product.inputs)):
        node = producer_of(gate)
        if node is not None and is_op(node, *GATES) and node.inputs[0] is value and len(node.outputs[0].uses()) == 1:
            return node
    return None


def find_kind(node: ir.Node) -> str | None:
    """The row of the table that a layer falls under, None for nodes that are no layers."""
    weight = weight_of(node)
    if weight is None:
        return None
    if node.op_type != "Conv":
        return rates.LARGE_DENSE if math.prod(shape_of(weight)) >= rates.LARGE_FROM else rates.DENSE
    outputs, inputs = shape_of(weight)[:2]
    if is_depthwise(node):
        return rates.DEPTHWISE
    if inputs < 4:
        return rates.FEW_INPUTS
    return rates.FEW_CHANNELS if min(inputs, outputs) < 16 else rates.CONVOLUTION


def _count_outputs(node: ir.Node) -> int:
    """Output channels."""
    weight = weight_of(node)
    assert weight is not None
    return max(shape_of(weight)[output_axis(node)], 1)
