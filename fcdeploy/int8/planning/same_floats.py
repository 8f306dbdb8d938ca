"""Which floats of an int8 model have the same bits on every CPU: sums of bytes, and what rounds each result of theirs once."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.arithmetic.function_tables import FUNCTIONS, LONGEST
from fcdeploy.graph.nodes import attribute_of, is_constant, name_of, subgraphs_of
from fcdeploy.records.plan import Plan

FLOATS = ("float", "weight_only")  # kinds of nodes that compute in float
BYTES = ("int8", "passthrough", "reinterpreted", "fused")  # kinds of nodes that compute in bytes
FINITE = {
    "Add", "Sub", "Mul", "Neg", "Abs", "Max", "Min", "Relu", "Clip", "Floor", "Ceil", "Round", "Sign", "MaxPool", "ReduceMax",
    "ReduceMin", "Concat", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Expand", "Tile", "Split",
    "DepthToSpace", "SpaceToDepth", "Identity",
}  # fmt: skip
"""Operators that round each result once, as IEEE 754 has it, and make no NaN of numbers."""
EXACT = FINITE | {
    "Div", "Sqrt", "Where", "Cast", "Gather", "Pad", "Shape", "Size", "Equal", "Greater", "Less", "ArgMax", "ArgMin", "Not",
    "And", "Or", "GatherElements", "GatherND",
}  # fmt: skip
"""Operators that round each result once, so that all CPUs agree on every bit."""
BY_DIGITS = ("Exp", "Softmax")  # functions of any float that are written as look-ups and products


@dataclass(frozen=True)
class SameFloats:
    """Tensors whose last bits may differ, and nodes that are to be written so that theirs do not (writing/exact_functions.py)."""

    inexact: frozenset[ir.Value]
    functions: frozenset[ir.Node]


def find_same_floats(graph: ir.Graph, plan: Plan) -> SameFloats:
    """Of a prepared model and its plan, node by node."""
    kinds = plan.kinds
    inexact: set[ir.Value] = set()
    from_bytes: set[ir.Value] = set()  # numbers that a finite sum of bytes decides, alike everywhere
    functions: set[ir.Node] = set()
    for node in graph:
        kind = kinds[name_of(node)]
        read = [value for value in node.inputs if value is not None and not is_constant(value)]
        if kind in BYTES:
            from_bytes.update(node.outputs)
        elif kind in FLOATS and bool(read) and from_bytes.issuperset(read):
            if _is_function(node, plan):
                functions.add(node)
                from_bytes.update(node.outputs if node.op_type in BY_DIGITS else ())
                continue
            if node.op_type in FINITE and not node.domain:
                from_bytes.update(node.outputs)
        if kind in ("blockwise", "dynamic", "int16") or (kind in FLOATS and _may_differ(node, read, inexact)):
            inexact.update(node.outputs)
    return SameFloats(frozenset(inexact), frozenset(functions))


def find_length(node: ir.Node) -> int | None:
    """How many numbers a softmax shares 1 out among; 1 for other operators; None where no shape is known."""
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    if node.op_type != "Softmax":
        return 1
    length = value.shape[attribute_of(node, "axis", -1)]
    return length if isinstance(length, int) else None


def _is_function(node: ir.Node, plan: Plan) -> bool:
    """Whether look-ups can take its place: any function of bytes, some of floats."""
    value = node.inputs[0]
    if node.domain or value is None:
        return False
    producer, q = value.producer(), plan.tensors.get(name_of(value))
    in_bytes = (
        producer is not None and plan.kinds.get(name_of(producer)) in BYTES and q is not None and q.dtype == "uint8"
    )
    length = find_length(node)
    fits = length is not None and 0 < length <= LONGEST
    return fits and (node.op_type in BY_DIGITS or (in_bytes and node.op_type in FUNCTIONS))


def _may_differ(node: ir.Node, read: list[ir.Value], inexact: set[ir.Value]) -> bool:
    within = any(True for _ in subgraphs_of(node))
    return node.op_type not in EXACT or node.domain not in ("", "ai.onnx") or within or not inexact.isdisjoint(read)
