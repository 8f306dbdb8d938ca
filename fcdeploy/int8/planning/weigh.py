"""Scales and integers of the weights of every layer that multiplies."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.quantization import LIMITS, bias_qparams
from fcdeploy.arithmetic.weights.layout import from_rows, importance_rows, to_rows
from fcdeploy.arithmetic.weights.rounding import round_rows, search_scale, search_scales
from fcdeploy.int8.planning.layers import is_depthwise, missing_channels, output_axis, stored_weights, weight_of
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan, QParams
from fcdeploy.tables.operators import operator


@dataclass(frozen=True)
class Layer:
    """The constants of one integer layer. `bias` is (out,) or None.

    The weight has the float model's shape, or more input channels, whose weights are zero.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32] | None


def weight_scales(
    model: ir.Model, plan: Plan, calibration: Calibration, pair_limit: int | None, one_scale: Collection[str] = ()
) -> Plan:
    """The plan with a scale per output channel for each weight that it makes int8, and the bias scales that follow.

    The weights of the layers in `one_scale` get a single one.
    """
    tensors = dict(plan.tensors)
    for node, weight in int8_layers(model.graph, plan):
        axis = output_axis(node)
        rows = to_rows(kernel_weight(node, weight), axis)
        bias = bias_array(node)
        input_scale = tensors[node.inputs[0].name or ""].scale[0]  # type: ignore[union-attr]
        least = None if bias is None else np.abs(bias) / (input_scale * (LIMITS["int32"][1] - 1.0))
        limit = None if is_depthwise(node) else pair_limit
        one = node.name in one_scale
        scale = (search_scale if one else search_scales)(rows, importance_of(node, calibration), limit, least)
        name = weight.name or ""
        why = "one scale per output channel" if limit is None else f"pairs of neighbours kept within {limit}"
        why = f"one scale for all channels: faster, and hardly less accurate; {why}" if one else why
        tensors[name] = QParams("int8", tuple(float(s) for s in scale), 0, None if one else axis, why)
        if operator(node.op_type).bias is not None:
            tensors[bias_name(node)] = bias_qparams(input_scale, tensors[name])
    for _, _, weight, axis in stored_layers(model.graph, plan):
        rows = _rows(weight, axis)
        scale = search_scales(rows, np.ones(rows.shape[1]), None)
        why = "bytes in the file, read back when the model is loaded"
        tensors[weight.name or ""] = QParams("int8", tuple(float(s) for s in scale), 0, axis, why)
    return replace(plan, tensors=tensors)


def with_bias_scales(model: ir.Model, plan: Plan) -> Plan:
    """An edited plan whose bias scales follow those of inputs and weights, which is what they have to be."""
    tensors = dict(plan.tensors)
    for node, weight in int8_layers(model.graph, plan):
        read, scaled = tensors.get(node.inputs[0].name or ""), tensors.get(weight.name or "")  # type: ignore[union-attr]
        if read is not None and scaled is not None and bias_name(node) in tensors:
            tensors[bias_name(node)] = bias_qparams(read.scale[0], scaled)
    return replace(plan, tensors=tensors)


def stored_layers(graph: ir.Graph, plan: Plan) -> list[tuple[ir.Node, int, ir.Value, int]]:
    """Node, input index, weight and channel axis of what float nodes keep as bytes, in the graph's order."""
    chosen = {decision.node for decision in plan.nodes if decision.kind == "stored"}
    return [(node, *found) for node in graph if node.name in chosen for found in stored_weights(node)]


def _rows(weight: ir.Value, axis: int) -> NDArray[np.float64]:
    array = weight.const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def round_layers(
    model: ir.Model, plan: Plan, calibration: Calibration, pair_limit: int | None, *, correctable: bool = False
) -> dict[str, Layer]:
    """Integers of every int8 layer at the plan's scales, by node name.

    `correctable` gives a layer without a bias one of zeros, for bias correction to fill.
    """
    layers = {}
    for node, weight in int8_layers(model.graph, plan):
        axis = output_axis(node)
        array = kernel_weight(node, weight)
        scale = np.broadcast_to(plan.tensors[weight.name or ""].scale, array.shape[axis])
        limit = None if is_depthwise(node) else pair_limit
        rows = round_rows(to_rows(array, axis), scale, importance_of(node, calibration), limit)
        bias = bias_array(node)
        if bias is None and correctable and operator(node.op_type).bias is not None:
            bias = np.zeros(len(rows))
        integers = None if bias is None else round_bias(bias, plan.tensors[bias_name(node)])
        layers[node.name or ""] = Layer(from_rows(rows, array.shape, axis).astype(np.int8), integers)
    return layers


def int8_layers(graph: ir.Graph, plan: Plan) -> list[tuple[ir.Node, ir.Value]]:
    """The layers with constant weights that the plan makes int8, with their weights, in the graph's order."""
    chosen = {decision.node for decision in plan.nodes if decision.kind == "int8"}
    pairs = [(node, weight_of(node)) for node in graph if node.name in chosen]
    return [(node, weight) for node, weight in pairs if weight is not None]


def kernel_weight(node: ir.Node, weight: ir.Value) -> NDArray[np.float64]:
    """The weight as the integer kernel is given it: with the channels of zeros that make it faster."""
    array = weight.const_value.numpy().astype(np.float64)  # type: ignore[union-attr]
    more = missing_channels(node)
    return np.pad(array, [(0, more if axis == 1 else 0) for axis in range(array.ndim)])


def round_bias(bias: NDArray[np.float64], q: QParams) -> NDArray[np.int32]:
    """round(bias / scale), saturated to 32 bits."""
    low, high = LIMITS["int32"]
    integers: NDArray[np.int32] = np.clip(np.rint(bias / np.asarray(q.scale)), low, high).astype(np.int32)
    return integers


def bias_array(node: ir.Node) -> NDArray[np.float64] | None:
    """The constant bias of a layer as (out,), None when it has none."""
    index = operator(node.op_type, node.domain).bias
    value = node.inputs[index] if index is not None and index < len(node.inputs) else None
    return None if value is None else value.const_value.numpy().astype(np.float64).reshape(-1)  # type: ignore[union-attr]


def bias_name(node: ir.Node) -> str:
    """The name of a layer's bias; one that has none yet gets the node's."""
    index = operator(node.op_type, node.domain).bias
    value = node.inputs[index] if index is not None and index < len(node.inputs) else None
    return (value.name or "") if value is not None else f"{node.name}.bias"


def importance_of(node: ir.Node, calibration: Calibration) -> NDArray[np.float64]:
    """E[x^2] of the layer's inputs in the weight's row layout; all equal where the channels were not recorded."""
    weight = weight_of(node)
    assert weight is not None and weight.shape is not None
    more = missing_channels(node)
    shape = tuple(int(n) + (more if axis == 1 else 0) for axis, n in enumerate(weight.shape))  # type: ignore[arg-type]
    attribute = node.attributes.get("group")
    groups = attribute.as_int() if attribute is not None else 1
    inputs = shape[1 - output_axis(node)] if len(shape) == 2 else shape[1] * groups
    record = calibration.tensors.get(node.inputs[0].name or "")  # type: ignore[union-attr]
    mean_square = record.moments.mean_square() if record and record.moments else np.ones(inputs)
    mean_square = np.pad(mean_square, (0, more))
    if len(mean_square) != inputs:
        mean_square = np.ones(inputs)
    # a channel that was always zero in calibration still counts a little: it may not be zero tomorrow
    floor = 1e-3 * float(mean_square.mean()) or 1.0
    return importance_rows(mean_square + floor, shape, groups)
