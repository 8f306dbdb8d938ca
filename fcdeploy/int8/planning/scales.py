"""Which tensors exist as bytes, which of them share a scale, and what it covers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.quantization import choose_symmetric_qparams
from fcdeploy.arithmetic.ranges.methods import METHODS, Method, Methods
from fcdeploy.arithmetic.ranges.mse import mse
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import constant_array, data_inputs, fill_value, is_constant, name_of, operator_of
from fcdeploy.int8.nodes import affine_of
from fcdeploy.int8.planning.decide import final_value, writes_bytes
from fcdeploy.int8.planning.elementwise import Function, function_behind, within_flat_ends
from fcdeploy.int8.planning.image_inputs import find_byte_range
from fcdeploy.int8.planning.scale_groups import ScaleGroups, follow
from fcdeploy.int8.planning.tie_free_scales import keep_from_halves, spread_halves
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import NodeDecision, Plan, QParams, Range

ON_FLOATS = ("float", "weight_only", "blockwise", "dynamic")  # kinds of nodes that write floats
HEAD_ROOM = 2.0  # of 16 bits one is kept for values that calibration did not see: clipping them would cost more


def choose_activation_scales(
    graph: ir.Graph,
    decisions: Mapping[str, NodeDecision],
    wants: set[ir.Value],
    calibration: Calibration,
    dtype: str,
    methods: Methods,
    *,
    apart_from_halves: bool = False,
) -> dict[str, QParams]:
    """QParams of every tensor that is read or written as integers of `dtype`, by name, in the graph's order.

    `apart_from_halves`: such that no sum or product of bytes lies near a half (tie_free_scales.py).
    """
    sources = dict(_find_rounded_tensors(graph, decisions, wants))
    stored = {value: found for value in sources if (found := _find_stored(value, calibration, dtype)) is not None}
    sources |= dict.fromkeys(stored, "pixels: each of their 256 values is a byte")
    covers = {
        # results that no layer reads are answers: clipping the largest would cost more than coarser steps
        value: stored.get(value)
        or _choose_range(value, calibration, methods.find(name_of(value)) if value in wants else METHODS["minmax"])
        for value in sources
    }
    groups = ScaleGroups(covers)
    for node in graph:
        decision = decisions[name_of(node)]
        if decision.kind == "passthrough":
            for output in node.outputs:
                groups.join([output, *data_inputs(node)])
            groups.widen(node.outputs[0], fill_value(node))
        elif decision.kind == "reinterpreted":
            step = affine_of(node)
            assert step is not None, "only such nodes are"
            groups.follow(node.outputs[0], step.value, step.gain, step.offset)
        elif decision.kind == "int8" and node.op_type == "Concat":
            groups.join_if_close([node.outputs[0], *(v for v in node.inputs if v is not None and not is_constant(v))])
    tensors: dict[str, QParams] = {}
    bytes_alone: dict[ir.Value, QParams] = {}
    if dtype != "int16":
        firsts = groups.choose_firsts(dtype)
        space = keep_from_halves if apart_from_halves else spread_halves
        bytes_alone = groups.qparams(space(graph, decisions, groups, firsts))
    for value in groups.members():
        first = groups.line(value).first
        why = sources.get(value, f"shares the scale of {first.name!r}")
        if dtype == "int16":
            cover = groups.cover(value)
            q = choose_symmetric_qparams(Range(HEAD_ROOM * cover.low, HEAD_ROOM * cover.high), dtype)
        else:
            q = bytes_alone[value]
            if q.scale != bytes_alone[first].scale or q.zero_point != bytes_alone[first].zero_point:
                why = f"the bytes of {first.name!r}, read with another scale"
        tensors[name_of(value)] = replace(q, why=q.why or why)
    return tensors


def update_reinterpreted_scales(graph: ir.Graph, plan: Plan) -> Plan:
    """An edited plan in which the scales of bytes that are read in a second way follow from the first."""
    tensors, kinds = dict(plan.tensors), plan.kinds
    for node in graph:
        step = affine_of(node) if kinds.get(name_of(node)) == "reinterpreted" else None
        before = None if step is None else tensors.get(name_of(step.value))
        name = name_of(node.outputs[0]) if node.outputs else ""
        if step is not None and before is not None and name in tensors:
            tensors[name] = replace(follow(before, step.gain, step.offset), why=tensors[name].why)
    return replace(plan, tensors=tensors)


def _find_rounded_tensors(
    graph: ir.Graph, decisions: Mapping[str, NodeDecision], wants: set[ir.Value]
) -> Iterator[tuple[ir.Value, str]]:
    """Tensors that a QuantizeLinear (or an integer kernel's own rounding) writes, each with what it is."""
    for node in graph:
        decision = decisions[name_of(node)]
        if decision.kind in ("int8", "passthrough"):
            for value in data_inputs(node):
                producer = value.producer()
                if is_constant(value):
                    yield value, "constant"
                elif producer is None or decisions[name_of(producer)].kind in ON_FLOATS:
                    yield (
                        value,
                        "input" if value.is_graph_input() else f"float from {producer.name if producer else ''!r}",
                    )
        if decision.kind == "int8" and writes_bytes(node, wants):
            yield final_value(node, decisions), f"output of {node.name!r}"


def _find_stored(value: ir.Value, calibration: Calibration, dtype: str) -> Range | None:
    """The range of bytes that a tensor was made from, where it becomes bytes again."""
    return None if dtype == "int16" or is_constant(value) else find_byte_range(value, calibration)


def _choose_range(value: ir.Value, calibration: Calibration, method: Method) -> Range:
    if is_constant(value):
        array = constant_array(value)
        return Range(float(np.min(array, initial=0.0)), float(np.max(array, initial=0.0)))
    producer = value.producer()
    fixed = operator_of(producer).output if producer else None
    seen = calibration.tensors[name_of(value)].histogram
    if seen.ends_only and not fixed and method is not METHODS["minmax"]:
        raise FcdeployError(
            f"tensor {value.name!r}: its range, {seen.low:.4g} to {seen.high:.4g}, was measured elsewhere and has no "
            "histogram, which every range method but minmax needs",
            "--ranges minmax, or a calibration of your own: fcdeploy calibrate MODEL --data DATA",
        )
    if fixed:
        return fixed
    function = None if seen.ends_only else function_behind(value)
    if function is None:
        return method(seen)
    low, high = within_flat_ends(function, min(seen.low, 0.0), max(seen.high, 0.0))
    ends = replace(seen, low=max(seen.low, low), high=min(seen.high, high))
    chosen = _behind(method, function)(ends)
    return Range(max(chosen.low, min(low, 0.0)), min(chosen.high, max(high, 0.0)))


def _behind(method: Method, function: Function) -> Method:
    """The method, which weighs errors by what they are behind a function if it weighs them at all."""
    plain = method.func if isinstance(method, partial) else method
    return (
        partial(mse, **(method.keywords if isinstance(method, partial) else {}), function=function)
        if plain is mse
        else method
    )
