"""Scales and integers of the weights of every layer that multiplies."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.pixels import Pixels, compute_byte_importance, scale_weight_for_bytes
from fcdeploy.arithmetic.quantization import LIMITS, choose_bias_qparams
from fcdeploy.arithmetic.weights.layout import from_rows, lay_out_importance, to_rows
from fcdeploy.arithmetic.weights.rounding import (
    compute_full_scales,
    round_rows,
    sample_columns,
    search_scale,
    search_scales,
)
from fcdeploy.arrays import Float32, Float64
from fcdeploy.graph.nodes import (
    attribute_of,
    bias_of,
    constant_array,
    constant_tensor,
    name_of,
    operator_of,
    output_axis,
    weight_of,
)
from fcdeploy.graph.scratch import Scratch, keep_tensors
from fcdeploy.graph.weights import read_blocks
from fcdeploy.int8.nodes import is_depthwise, missing_channels, weight_only_inputs
from fcdeploy.int8.planning.mean_errors import compute_mean_error, read_means
from fcdeploy.int8.planning.shared_weights import group_by_weight
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan, QParams
from fcdeploy.tables.types import TYPES

MOST_BIAS = 2.0**30  # of its scale: as much is left to the sum of products, which 33,000 inputs could fill


@dataclass(frozen=True)
class RoundedLayer:
    """The constants of one layer between Q/DQ, of 8 bits or 16. `bias` is (out,) or None.

    The weight has the float model's shape, or, `padded`, more input channels, whose weights are zero, or one of them, of
    a layer that reads pictures, what is added to the steps of its bytes.  It `fuses` where
    an integer kernel runs it.
    """

    weight: ir.TensorProtocol
    bias: NDArray[np.int32] | None
    padded: bool = False
    fuses: bool = True


def choose_weight_scales(
    model: ir.Model,
    plan: Plan,
    calibration: Calibration,
    pair_limit: int | None,
    one_scale: Collection[str] = (),
    wide: Collection[str] = (),
) -> Plan:
    """The plan with a scale per output channel for each weight that it makes int8, and the bias scales that follow.

    The weights of the layers in `one_scale` get a single one.  Float layers keep their weights in bytes, or the type that
    the plan's types have for them; those of `wide` in 16 bits.
    """
    tensors = dict(plan.tensors)
    shared, found = find_shared_weights(model.graph, plan, one_scale), dict[tuple[ir.Node, ...], Float64]()
    for node, weight in find_int8_layers(model.graph, plan):
        axis = output_axis(node)
        input_scale = tensors[name_of(node.inputs[0])].scale[0]
        limit, one = None if is_depthwise(node) else pair_limit, node.name in one_scale
        alike = shared.get(name_of(node), (node,))
        if alike not in found:
            found[alike] = _choose_scale(alike, weight, plan, calibration, limit, one=one)
        scale, name = found[alike], name_of(weight)
        why = "one scale per output channel" if limit is None else f"pairs of neighbours kept within {limit}"
        why = f"one scale for all channels: faster, and hardly less accurate; {why}" if one else why
        tensors[name] = QParams("int8", tuple(float(s) for s in scale), 0, None if one else axis, why)
        if operator_of(node).bias is not None:
            tensors[bias_name(node)] = choose_bias_qparams(input_scale, tensors[name])

    elsewhere = TYPES[plan.weights, plan.activations].elsewhere
    for node, _, weight, axis in find_weight_only(model.graph, plan):
        dtype = "int16" if node.name in wide else elsewhere
        top, part, counts = collect_search_rows(_weight_only_rows(weight, axis), np.ones(1))
        scale = compute_full_scales(top, dtype) if dtype != "int8" else search_scales(part, counts, None, top=top)
        why = f"{dtype} in the file, read back when the model is loaded"
        tensors[name_of(weight)] = QParams(dtype, tuple(float(s) for s in scale), 0, axis, why)
    return replace(plan, tensors=tensors)


def _choose_scale(
    alike: Sequence[ir.Node], weight: ir.Value, plan: Plan, calibration: Calibration, limit: int | None, *, one: bool
) -> Float64:
    """The scales of a weight that the layers `alike` have in common, by what they all read; a single one if `one`."""
    tensors, importance = plan.tensors, weigh_shared_importance(alike, plan, calibration)
    bounds = [
        np.abs(bias) / (tensors[name_of(node.inputs[0])].scale[0] * MOST_BIAS)
        for node in alike
        if (bias := bias_array(node)) is not None
    ]
    least = np.max(bounds, axis=0) if bounds else None
    laid_out = lay_out_kernel(alike[0], weight, tensors[name_of(alike[0].inputs[0])].pixels)
    if one:
        return search_scale(np.concatenate([rows for _, rows in laid_out]), importance, limit, least)
    top, part, counts = collect_search_rows(laid_out, importance)
    return search_scales(part, counts, limit, least, top=top)


def find_shared_weights(graph: ir.Graph, plan: Plan, one_scale: Collection[str] = ()) -> dict[str, tuple[ir.Node, ...]]:
    """Of each int8 layer whose weight others have too, laid out alike, by name, all of them: they are rounded once.

    Those of `one_scale`, which have one for all channels, are apart from the others.
    """

    def describe(node: ir.Node, weight: ir.Value) -> Hashable:
        grid, groups = plan.tensors[name_of(node.inputs[0])].pixels, attribute_of(node, "group", 1)
        scale = plan.tensors[name_of(weight)].scale if name_of(weight) in plan.tensors else ()
        return node.op_type, output_axis(node), groups, missing_channels(node), grid, scale, node.name in one_scale

    return group_by_weight(find_int8_layers(graph, plan), describe)


def weigh_shared_importance(alike: Sequence[ir.Node], plan: Plan, calibration: Calibration) -> Float64:
    """E[x^2] of what the layers that have a weight in common read, as `weigh_importance` lays it out."""
    each = [weigh_importance(node, calibration, plan.tensors[name_of(node.inputs[0])].pixels) for node in alike]
    return each[0] if len(each) == 1 else np.mean(each, axis=0)


def update_bias_scales(model: ir.Model, plan: Plan) -> Plan:
    """An edited plan whose bias scales follow those of inputs and weights, which is what they have to be."""
    tensors = dict(plan.tensors)
    for node, weight in find_int8_layers(model.graph, plan):
        read, scaled = tensors.get(name_of(node.inputs[0])), tensors.get(name_of(weight))
        if read is not None and scaled is not None and bias_name(node) in tensors:
            tensors[bias_name(node)] = choose_bias_qparams(read.scale[0], scaled)
    return replace(plan, tensors=tensors)


def find_weight_only(graph: ir.Graph, plan: Plan) -> list[tuple[ir.Node, int, ir.Value, int]]:
    """Node, input index, weight and channel axis of what float nodes keep as bytes, in the graph's order."""
    chosen = {decision.node for decision in plan.nodes if decision.kind == "weight_only"}
    return [(node, *place) for node in graph if node.name in chosen for place in weight_only_inputs(node)]


def _weight_only_rows(weight: ir.Value, axis: int) -> Iterator[tuple[slice, Float32]]:
    """A weight that is stored as bytes, some channels at a time: which, and their rows (out, K)."""
    for part, array in read_blocks(constant_tensor(weight), axis):
        yield part, np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def collect_search_rows(
    parts: Iterable[tuple[slice, Float32]], importance: Float64
) -> tuple[NDArray[np.floating], NDArray[np.floating], Float64]:
    """Of rows that come in blocks: the largest |w| of each, the part that its scale is searched on, and what it counts."""
    collected = []
    for part, rows in parts:
        h = importance if importance.ndim == 1 else importance[part]
        collected.append((np.abs(rows).max(axis=1, initial=0), *sample_columns(rows, h)))
    top, some, counts = (np.concatenate(arrays) for arrays in zip(*collected, strict=True))
    return top, some, counts


def round_layers(
    model: ir.Model,
    plan: Plan,
    calibration: Calibration,
    pair_limit: int | None,
    *,
    correctable: bool = False,
    scratch: Scratch | None = None,
) -> dict[str, RoundedLayer]:
    """Integers of every int8 layer at the plan's scales, by node name; in `scratch`, if there is one.

    `correctable` gives a layer without a bias one of zeros, for bias correction to fill.
    """
    layers, shared = {}, find_shared_weights(model.graph, plan)
    for node, weight in find_int8_layers(model.graph, plan):
        shape = read_kernel_shape(node, weight)
        scale = np.broadcast_to(plan.tensors[name_of(weight)].scale, shape[output_axis(node)])
        limit = None if is_depthwise(node) else pair_limit
        grid = plan.tensors[name_of(node.inputs[0])].pixels
        importance = weigh_shared_importance(shared.get(name_of(node), (node,)), plan, calibration)
        make = partial(round_weight, node, weight, scale, importance, limit, grid=grid)
        (integers,) = keep_tensors(scratch, constant_tensor(weight), ("int8", scale, importance, limit, grid), make)
        bias = bias_array(node)
        if bias is None and correctable and operator_of(node).bias is not None:
            bias = np.zeros(len(scale))
        if bias is not None:
            means = read_means(node, integers.shape.numpy(), calibration, grid)
            bias = bias - compute_mean_error(_compute_errors(node, weight, integers, scale, grid), means)
        rounded = None if bias is None else round_bias(bias, plan.tensors[bias_name(node)])
        layers[name_of(node)] = RoundedLayer(integers, rounded, missing_channels(node) > 0)
    return layers


def _compute_errors(
    node: ir.Node, weight: ir.Value, integers: ir.TensorProtocol, scale: Float64, grid: Pixels
) -> Float64:
    """What rounding added to each weight of a layer, in rows (out, K)."""
    exact = np.concatenate([rows for _, rows in lay_out_kernel(node, weight, grid)])
    return np.asarray(scale[:, None] * to_rows(integers.numpy(), output_axis(node)) - exact)


def round_weight(
    node: ir.Node,
    weight: ir.Value,
    scale: Float64,
    importance: Float64,
    limit: int | None,
    dtype: str = "int8",
    *,
    grid: Pixels = (),
    padded: bool = True,
) -> tuple[NDArray[np.integer]]:
    """The weight rounded at `scale`, some output channels at a time."""
    axis, shape = output_axis(node), read_kernel_shape(node, weight, padded=padded)
    result = np.empty(shape, dtype)
    for part, rows in lay_out_kernel(node, weight, grid, padded=padded):
        h = importance if importance.ndim == 1 else importance[part]
        rounded = round_rows(rows.astype(np.float64), scale[part], h, limit, dtype)
        some = tuple(part.stop - part.start if i == axis else n for i, n in enumerate(shape))
        result[(slice(None),) * axis + (part,)] = from_rows(rounded, some, axis)
    return (result,)


def find_int8_layers(graph: ir.Graph, plan: Plan) -> list[tuple[ir.Node, ir.Value]]:
    """The layers with constant weights that the plan makes int8, with their weights, in the graph's order."""
    chosen = {decision.node for decision in plan.nodes if decision.kind == "int8"}
    pairs = [(node, weight_of(node)) for node in graph if node.name in chosen]
    return [(node, weight) for node, weight in pairs if weight is not None]


def find_int8_products(graph: ir.Graph, plan: Plan) -> list[ir.Node]:
    """The nodes that multiply in an integer kernel: layers, and MatMuls of two activations.

    Without them nothing is integer: all else becomes integer only beside them.
    """
    chosen = {decision.node for decision in plan.nodes if decision.kind == "int8"}
    return [node for node in graph if node.name in chosen and operator_of(node).role == "multiply"]


def read_kernel_shape(node: ir.Node, weight: ir.Value, *, padded: bool = True) -> tuple[int, ...]:
    """The shape of the weight as the integer kernel is given it: with the channels of zeros that make it faster."""
    more = missing_channels(node) if padded else 0
    return tuple(int(n) + (more if i == 1 else 0) for i, n in enumerate(constant_tensor(weight).shape.numpy()))


def lay_out_kernel(
    node: ir.Node, weight: ir.Value, grid: Pixels = (), *, padded: bool = True
) -> Iterator[tuple[slice, Float32]]:
    """The weight as the integer kernel is given it, some output channels at a time: which, and their rows (out, K).

    `grid` is that of the input whose bytes it reads, if it is a picture.
    """
    axis, more = output_axis(node), missing_channels(node) if padded else 0
    for part, array in read_blocks(constant_tensor(weight), axis):
        if grid:
            array = scale_weight_for_bytes(array, grid, array.shape[1] + more)
        elif more:
            array = np.pad(array, [(0, more if i == 1 else 0) for i in range(array.ndim)])
        yield part, to_rows(array, axis)


def round_bias(bias: Float64, q: QParams) -> NDArray[np.int32]:
    """round(bias / scale), saturated to 32 bits."""
    low, high = LIMITS["int32"]
    integers: NDArray[np.int32] = np.clip(np.rint(bias / np.asarray(q.scale)), low, high).astype(np.int32)
    return integers


def bias_array(node: ir.Node) -> Float64 | None:
    """The constant bias of a layer as (out,), None when it has none."""
    value = bias_of(node)
    return None if value is None else constant_array(value).astype(np.float64).reshape(-1)


def bias_name(node: ir.Node) -> str:
    """The name of a layer's bias; one that has none yet gets the node's."""
    value = bias_of(node)
    return name_of(value) if value is not None else f"{node.name}.bias"


def weigh_importance(node: ir.Node, calibration: Calibration, grid: Pixels = (), *, padded: bool = True) -> Float64:
    """E[x^2] of the layer's inputs in the weight's row layout; all equal where the channels were not recorded.

    `padded` counts the channels of zeros that integer kernels are given; `grid` is that of a picture read as bytes.
    """
    weight = weight_of(node)
    assert weight is not None
    more, shape = missing_channels(node) if padded else 0, read_kernel_shape(node, weight, padded=padded)
    groups = attribute_of(node, "group", 1)
    inputs = shape[1 - output_axis(node)] if len(shape) == 2 else shape[1] * groups
    record = calibration.tensors.get(name_of(node.inputs[0]))
    mean_square = record.moments.mean_square() if record and record.moments else np.ones(inputs)
    if grid and record and record.moments:
        mean_square = compute_byte_importance(record.moments.mean(), mean_square, grid, inputs)
    else:
        mean_square = np.pad(mean_square, (0, more))
    if len(mean_square) != inputs:
        mean_square = np.ones(inputs)
    # a channel that was always zero in calibration still counts a little: it may not be zero tomorrow
    floor = 1e-3 * float(mean_square.mean()) or 1.0
    return lay_out_importance(mean_square + floor, shape, groups)
