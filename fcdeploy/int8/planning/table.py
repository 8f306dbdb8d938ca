"""Costs of a model's nodes from the table of rates, where nothing is to be measured."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.int8.planning.layers import is_depthwise, weight_of
from fcdeploy.prepare.work import multiplications_of
from fcdeploy.records.costs import Costs
from fcdeploy.tables import rates
from fcdeploy.tables.rates import Rate


def costs_from_table(model: ir.Model, model_hash: str) -> Costs:
    """Microseconds of the layers that multiply, in float and as integers; other nodes cost the same either way."""
    macs = multiplications_of(model)
    nodes = {}
    for node in model.graph:
        rate = rate_of(node)
        if rate is not None:
            us = macs.get(node.name or "", 0) * rate.float_ns / 1e3
            nodes[node.name or ""] = (us + rates.OVERHEAD_US, us * rate.ratio + rates.OVERHEAD_US)
    return Costs(model_hash, "table of rates, not measured", rates.CONVERSIONS, nodes)


def rate_of(node: ir.Node) -> Rate | None:
    """The row of the table that a layer falls under, None for nodes that are no layers."""
    weight = weight_of(node)
    if weight is None or weight.shape is None:
        return None
    if node.op_type != "Conv":
        return rates.DENSE
    outputs, inputs = (int(n) for n in list(weight.shape)[:2])  # type: ignore[arg-type]
    if is_depthwise(node):
        return rates.DEPTHWISE
    if inputs < 4:
        return rates.FEW_INPUTS
    return rates.FEW_CHANNELS if min(inputs, outputs) < 16 else rates.CONVOLUTION
