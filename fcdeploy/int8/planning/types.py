"""Layers that other types than int8 activations ask for: what they become, and the scales and integers of their weights.

A dense layer of 4-bit weights and one with dynamic activations read and write floats, so to the planner of integer
regions they are float nodes; layers of 16 bits are planned as integer layers are, and only their rows differ.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.weights.gptq import round_blocks_to_nearest
from fcdeploy.arithmetic.weights.layout import pack_blocks
from fcdeploy.arithmetic.weights.rounding import compute_full_scales, round_rows, search_scales
from fcdeploy.arrays import Array, Float32, Float64
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import (
    attribute_of,
    constant_tensor,
    is_constant,
    name_of,
    operator_of,
    output_axis,
    shape_of,
    weight_of,
)
from fcdeploy.graph.scratch import Scratch, keep_tensors
from fcdeploy.graph.weights import read_blocks
from fcdeploy.int8.planning.eligibility import why_ineligible
from fcdeploy.int8.planning.shared_weights import group_by_weight
from fcdeploy.int8.planning.weights import (
    RoundedLayer,
    bias_array,
    collect_search_rows,
    lay_out_kernel,
    round_weight,
    weigh_importance,
)
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import LIMITS, Kind, NodeDecision, Plan, QParams
from fcdeploy.tables.types import ACTIVATIONS, SIXTEEN, TYPES, WEIGHTS, Types

# 64 weights and their scale take 0.141 of the float size; 32 take 0.156, and 128 save 0.008 more and lose accuracy
BLOCK = 64
LITTLE = 1 / 64  # of all weights in blocks: a layer below it has 8 bits, which the file hardly feels
STATES = {"LSTM": (1, 2)}  # weights of the input and of the state


NO_PAIR = {
    "int4": ("the kernel of 4-bit weights scales activations itself, row by row", "--weights int4 --activations none"),
    "int16": ("onnxruntime has no dynamic kernel for 16-bit weights", "--weights int8 --activations dynamic"),
}


def find_types(weights: str, activations: str) -> Types:
    """The row of two types. Raises FcdeployError for types, or a pair of them, that there is not."""
    for option, value, known in (("--weights", weights, WEIGHTS), ("--activations", activations, ACTIVATIONS)):
        if value not in known:
            raise FcdeployError(f"{option} {value!r} is unknown, expected {', '.join(known)}", f"{option} {known[0]}")
    if (weights, activations) not in TYPES:
        why, instead = NO_PAIR[weights]
        raise FcdeployError(f"--weights {weights} and --activations {activations} do not go together: {why}", instead)
    return TYPES[weights, activations]


@dataclass(frozen=True)
class PackedWeights:
    """The constants of a layer on float activations, by input: integers and their scales, as its operator reads them.

    In blocks: (out, blocks, bytes of a block) and (out, blocks).  Dynamic: (in, out) and (out,), of an LSTM for each
    direction.
    """

    weights: dict[int, tuple[ir.TensorProtocol, ...]]


def bits_of(q: QParams) -> int:
    """Bits of an integer."""
    return int(LIMITS[q.dtype][1]).bit_length() + 1


def decide_by_types(graph: ir.Graph, types: Types) -> dict[str, tuple[Kind, str]]:
    """The nodes that the types keep out of integer regions, by name: what each becomes, and why."""
    blocked = _find_blockwise_layers(graph)
    decided: dict[str, tuple[Kind, str]] = {}
    for node in graph:
        dense = _dense_weight(node) is not None
        if types.dense == "blockwise" and node in blocked:
            what = f"MatMulNBits: {blocked[node]} weights in blocks of {BLOCK}"
            little = f"; 8 bits, for it holds less than 1 in {1 / LITTLE:.0f} of them"
            decided[name_of(node)] = "blockwise", what + (little if blocked[node] == "int8" else "")
        elif types.dense == "dynamic" and dense:
            decided[name_of(node)] = "dynamic", "DynamicQuantizeMatMul: one scale for all activations of a run"
        elif types.recurrent == "dynamic" and node.op_type in STATES and not _why_lstm_not_dynamic(node):
            decided[name_of(node)] = "dynamic", "DynamicQuantizeLSTM: one scale for all activations of a run"
        elif not types.between:
            decided[name_of(node)] = "float", _why_float(node, types, dense)
    return decided


def _why_float(node: ir.Node, types: Types, dense: bool) -> str:
    """Why a node is computed in float where activations are."""
    row = operator_of(node)
    if row.role == "float" and node.op_type not in STATES:
        return row.why
    if types.activations == "dynamic":
        if node.op_type == "Conv":
            return "dynamic convolutions lose: ConvInteger takes 5 to 10 times the float time"
        return (
            _why_lstm_not_dynamic(node) if node.op_type in STATES else "only dense and LSTM layers have dynamic kernels"
        )
    if types.dense == "blockwise" and dense:
        return f"its {_inputs(node)} inputs do not fill a block of {BLOCK}, so that 4 bits save nothing"
    if types.dense == "blockwise" and node.op_type == "Conv":
        return "4-bit weights have a kernel for dense layers only"
    return "activations stay float (--activations none)"


def apply_types(
    graph: ir.Graph, decisions: Mapping[str, NodeDecision], decided: Mapping[str, tuple[Kind, str]], types: Types
) -> dict[str, NodeDecision]:
    """Decisions in which the nodes of `decided` are what they become, and those of 16 bits say so."""
    changed = dict(decisions)
    for node in graph:
        name = name_of(node)
        decision = changed[name]
        if name in decided and decided[name][0] != "float":
            changed[name] = replace(decision, kind=decided[name][0], why=decided[name][1])
        layer = operator_of(node).role == "multiply"
        wide = types.activations == "int16" or (layer and types.elsewhere == "int16")
        if wide and decision.kind == "int8":
            changed[name] = replace(decision, kind="int16", why=SIXTEEN)
        if types.activations == "int16" and decision.kind == "fused":
            changed[name] = replace(decision, kind="float", why="clips before its result is rounded to 16 bits")
    return changed


def why_not_packed(node: ir.Node, kind: str) -> str:
    """Why a node cannot be of this kind, blocks or dynamic; empty when it can."""
    if kind == "dynamic" and node.op_type in STATES:
        return _why_lstm_not_dynamic(node)
    if _dense_weight(node) is None:
        return why_ineligible(node, operator_of(node)) or "only dense layers with a constant weight can"
    return ""


def packed_weights(node: ir.Node) -> list[tuple[ir.Value, int]]:
    """The weights of a layer in blocks or with dynamic activations, each with the axis that counts its outputs."""
    values = [node.inputs[index] for index in STATES.get(node.op_type, (1,))]
    return [(value, 1 if node.op_type in STATES else output_axis(node)) for value in values if value is not None]


def choose_type_scales(model: ir.Model, plan: Plan, calibration: Calibration, pair_limit: int | None) -> Plan:
    """The plan with the rows of the weights of int16, blocks and dynamic layers."""
    types = TYPES[plan.weights, plan.activations]
    tensors = dict(plan.tensors)
    kinds, blocked = plan.kinds, _find_blockwise_layers(model.graph)
    for node in model.graph:
        kind, weight = kinds[name_of(node)], weight_of(node)
        if kind == "blockwise" and weight is not None:
            dtype = blocked.get(node, "int4")
            why = f"a scale for {BLOCK} weights, found as they are rounded"
            tensors[name_of(weight)] = QParams(dtype, (), 0, output_axis(node), why, BLOCK)
        elif kind == "int16" and weight is not None:
            least, h = _least_scales(node, tensors), weigh_importance(node, calibration, padded=False)
            top, part, counts = collect_search_rows(lay_out_kernel(node, weight, padded=False), h)
            if types.elsewhere == "int16":
                scale = np.maximum(compute_full_scales(top, "int16"), 0.0 if least is None else least)
            else:
                scale = search_scales(part, counts, None, least, top=top)
            why = "one scale per output channel"
            tensors[name_of(weight)] = _per_channel(types.elsewhere, scale, output_axis(node), why)
        elif kind == "dynamic":
            for value, axis in packed_weights(node):
                scale = _search_dynamic_scales(node, value, axis, calibration, pair_limit)
                why = "one scale per output" if pair_limit is None else f"pairs of neighbours kept within {pair_limit}"
                tensors[name_of(value)] = _per_channel("int8", scale, axis, why)
    return replace(plan, tensors=tensors)


def round_packed_layers(
    model: ir.Model,
    plan: Plan,
    calibration: Calibration,
    pair_limit: int | None,
    *,
    scratch: Scratch | None = None,
) -> dict[str, RoundedLayer | PackedWeights]:
    """Integers of every int16, blocks and dynamic layer, each rounded to the nearest, by node name.

    They are made some outputs at a time, and lie in `scratch`, if there is one.
    """
    kinds, shared = plan.kinds, find_shared_blocks(model, plan)
    layers: dict[str, RoundedLayer | PackedWeights] = {}
    for node in model.graph:
        kind, weight = kinds[name_of(node)], weight_of(node)
        if kind == "int16" and weight is not None:
            q, h = plan.tensors[name_of(weight)], weigh_importance(node, calibration, padded=False)
            scale = np.asarray(q.scale)
            make = partial(round_weight, node, weight, scale, h, None, q.dtype, padded=False)
            (integers,) = keep_tensors(scratch, constant_tensor(weight), (q.dtype, scale, h), make)
            layers[name_of(node)] = RoundedLayer(integers, None, fuses=False)
        elif kind == "blockwise" and weight is not None:
            alike = shared.get(name_of(node), (node,))
            q, h = (
                plan.tensors[name_of(weight)],
                np.sum([weigh_importance(each, calibration) for each in alike], axis=0),
            )
            blocked = keep_tensors(
                scratch, constant_tensor(weight), (q.dtype, q.block, h), partial(_round_blockwise, node, weight, q, h)
            )
            layers[name_of(node)] = PackedWeights({1: blocked})
        elif kind == "dynamic":
            weights = {}
            for index, (value, axis) in enumerate(packed_weights(node), start=1):
                scale, h = (
                    np.asarray(plan.tensors[name_of(value)].scale),
                    _dynamic_importance(node, value, calibration),
                )
                pack = partial(_round_dynamic, value, axis, scale, h, pair_limit)
                weights[index] = keep_tensors(scratch, constant_tensor(value), ("dynamic", scale, h, pair_limit), pack)
            layers[name_of(node)] = PackedWeights(weights)
    return layers


def find_shared_blocks(model: ir.Model, plan: Plan) -> dict[str, tuple[ir.Node, ...]]:
    """Of each layer in blocks whose weight others have too, by name, all of them: they are rounded once, and stored once."""
    layers = [(node, weight_of(node)) for node in model.graph if plan.kinds[name_of(node)] == "blockwise"]

    def describe(node: ir.Node, weight: ir.Value) -> Hashable:
        q = plan.tensors[name_of(weight)]
        return q.dtype, q.block, output_axis(node)

    return group_by_weight([(node, weight) for node, weight in layers if weight is not None], describe)


def _round_blockwise(node: ir.Node, weight: ir.Value, q: QParams, importance: Float64) -> tuple[Array, ...]:
    """Bytes and scales of a layer in blocks, some outputs at a time."""
    rounded = []
    for _, rows in lay_out_kernel(node, weight):
        integers, scales = round_blocks_to_nearest(rows.astype(np.float64), importance, q.block, dtype=q.dtype)
        rounded.append((pack_blocks(integers.astype(np.int8), q.block, bits_of(q)), scales.astype(np.float32)))
    return tuple(np.concatenate(parts) for parts in zip(*rounded, strict=True))


def _least_scales(node: ir.Node, tensors: Mapping[str, QParams]) -> Float64 | None:
    """The scales from which on the bias, if any, fits 31 bits of input scale x weight scale.

    onnxruntime rounds a float bias to 32 of these by itself, in float32, and lets it overflow.
    """
    bias, read = bias_array(node), node.inputs[0]
    if bias is None or read is None:
        return None
    least: Array = np.abs(bias) / (tensors[name_of(read)].scale[0] * 2.0**30)
    return least


def _round_dynamic(
    value: ir.Value, axis: int, scale: Float64, importance: Float64, pair_limit: int | None
) -> tuple[Array, ...]:
    """Integers and scales of a weight as a dynamic kernel reads them, some outputs at a time."""
    directions = constant_tensor(value).size // (len(scale) * len(importance))
    result = np.empty((directions, len(importance), len(scale)), np.int8)
    for part, rows in _rows_by_output(value, axis):
        repeated = np.repeat(scale[part], directions)
        integers = round_rows(rows.astype(np.float64), repeated, importance, pair_limit)
        result[..., part] = integers.reshape(-1, directions, len(importance)).transpose(1, 2, 0)
    scales = np.tile(scale.astype(np.float32), (directions, 1))
    return (result[0], scales[0]) if len(constant_tensor(value).shape) == 2 else (result, scales)


def _search_dynamic_scales(
    node: ir.Node, value: ir.Value, axis: int, calibration: Calibration, pair_limit: int | None
) -> Float64:
    """A scale per output; both directions of an LSTM share one, the larger."""
    top, part, counts = collect_search_rows(_rows_by_output(value, axis), _dynamic_importance(node, value, calibration))
    scale = search_scales(part, counts, pair_limit, top=top)
    largest: Array = scale.reshape(constant_tensor(value).shape.numpy()[axis], -1).max(axis=1)
    return largest


def _rows_by_output(value: ir.Value, axis: int) -> Iterator[tuple[slice, Float32]]:
    """Some outputs of a weight at a time: which, and their rows (outputs x directions, in)."""
    for part, array in read_blocks(constant_tensor(value), axis):
        moved = np.moveaxis(array, axis, 0)
        yield part, moved.reshape(-1, moved.shape[-1])


def _dynamic_importance(node: ir.Node, value: ir.Value, calibration: Calibration) -> Float64:
    """E[x^2] of what the rows are multiplied with; of an LSTM not known."""
    shape = constant_tensor(value).shape.numpy()
    return weigh_importance(node, calibration, padded=False) if len(shape) == 2 else np.ones(shape[-1])


def _per_channel(dtype: str, scale: Float64, axis: int, why: str) -> QParams:
    return QParams(dtype, tuple(float(s) for s in scale), 0, axis, why)


def _dense_weight(node: ir.Node) -> ir.Value | None:
    """The constant (in, out) or (out, in) of a dense layer that an integer kernel could run."""
    if node.op_type not in ("Gemm", "MatMul") or why_ineligible(node, operator_of(node)):
        return None
    weight = weight_of(node)
    fits = weight is not None and weight.shape is not None and len(weight.shape) == 2
    return weight if fits and weight is not None and weight.dtype == ir.DataType.FLOAT else None


def _find_blockwise_layers(graph: ir.Graph) -> dict[ir.Node, str]:
    """The dense layers that fill a block, and the type of their weights."""
    weights = {node: weight for node in graph if (weight := _dense_weight(node)) is not None and _inputs(node) >= BLOCK}
    sizes = {node: math.prod(shape_of(weight)) for node, weight in weights.items()}
    return {node: "int8" if size < LITTLE * sum(sizes.values()) else "int4" for node, size in sizes.items()}


def _inputs(node: ir.Node) -> int:
    weight = weight_of(node)
    assert weight is not None
    return shape_of(weight)[1 - output_axis(node)]


def _why_lstm_not_dynamic(node: ir.Node) -> str:
    """Why an LSTM has no dynamic kernel; empty when it has."""
    computed = [name_of(node.inputs[i]) for i in (1, 2) if not is_constant(node.inputs[i])]
    if computed:
        return f"weight {computed[0]!r} is computed at run time"
    return "its batch comes first (layout 1), which the kernel does not know" if attribute_of(node, "layout", 0) else ""
