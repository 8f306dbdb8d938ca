"""Costs of a model's nodes from the table of rates of a target, where nothing is to be measured."""

from __future__ import annotations

import math

import onnx_ir as ir

from fcdeploy.graph.nodes import name_of, output_axis, shape_of, weight_of
from fcdeploy.int8.nodes import is_depthwise
from fcdeploy.prepare.cost_model import count_macs_by_node
from fcdeploy.records.costs import Costs
from fcdeploy.tables import rates


def estimate_costs(model: ir.Model, model_hash: str, target: str) -> Costs:
    """Microseconds of the layers that multiply, in float and as integers; other nodes cost the same either way."""
    macs, table = count_macs_by_node(model), rates.BY_TARGET[target]
    nodes = {}
    for node in model.graph:
        kind = find_kind(node)
        if kind is None:
            continue
        rate, count = table.rates[kind], macs.get(name_of(node), 0)
        in_float = rate.float_us + count * rate.float_ns / 1e3
        as_integers = rate.int8_us + count * (rate.int8_ns + rate.gather_ns / _count_outputs(node)) / 1e3
        nodes[name_of(node)] = (round(in_float, 3), round(as_integers, 3))
    read = "not measured" if table.verified else "from onnxruntime's source, not run"
    return Costs(model_hash, f"table of rates for {target}, {read}", table.conversions, nodes)


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
