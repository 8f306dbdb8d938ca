"""What of an int8 model may differ between CPUs, though its target promises one answer: what floats decide."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from fcdeploy.graph.nodes import data_inputs, is_constant, name_of, subgraphs_of
from fcdeploy.int8.planning.tie_free_scales import find_near_halves
from fcdeploy.records.plan import Plan
from fcdeploy.records.report import Report

ROUNDING_FLOATS = ("int8", "int16", "passthrough", "fused", "dynamic")  # kinds of nodes whose inputs become integers
EXACT = {
    "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Max", "Min", "Relu", "Clip", "Sqrt", "Floor", "Ceil", "Round", "Sign",
    "MaxPool", "ReduceMax", "ReduceMin", "Concat", "Where", "Cast", "Reshape", "Flatten", "Transpose", "Squeeze",
    "Unsqueeze", "Slice", "Gather", "Expand", "Tile", "Split", "DepthToSpace", "SpaceToDepth", "Pad", "Identity", "Shape",
    "Size", "Equal", "Greater", "Less", "ArgMax", "ArgMin", "Not", "And", "Or", "GatherElements", "GatherND",
}  # fmt: skip
"""Operators that round each result once, as IEEE 754 has it, so that all CPUs agree on every bit."""


@dataclass(frozen=True)
class Sameness:
    """Where CPUs may differ: sums of bytes near a half, float results that are rounded to integers, and float outputs."""

    near_halves: tuple[str, ...]
    rounded_floats: tuple[str, ...]
    float_outputs: tuple[str, ...]

    @property
    def same_integers(self) -> bool:
        return not self.near_halves and not self.rounded_floats


def find_differences(graph: ir.Graph, plan: Plan) -> Sameness:
    """What floats of more than one rounding decide, node by node."""
    kinds = plan.kinds
    inexact: set[ir.Value] = set()
    rounded: dict[str, None] = {}
    for node in graph:
        kind, name = kinds[name_of(node)], name_of(node)
        read = [value for value in node.inputs if value is not None and not is_constant(value)]
        if kind in ROUNDING_FLOATS:
            of = [value.producer() for value in data_inputs(node) if value in inexact]
            rounded.update((name_of(producer), None) for producer in of if producer is not None)
        if kind in ("blockwise", "dynamic", "int16") or (
            kind in ("float", "weight_only") and _may_differ(node, read, inexact)
        ):
            inexact.update(node.outputs)
        if kind == "int16":
            rounded[name] = None
    outputs = tuple(name_of(value) for value in graph.outputs if value in inexact)
    return Sameness(tuple(find_near_halves(graph, plan)), tuple(rounded), outputs)


def _may_differ(node: ir.Node, read: list[ir.Value], inexact: set[ir.Value]) -> bool:
    within = any(True for _ in subgraphs_of(node))
    return node.op_type not in EXACT or node.domain not in ("", "ai.onnx") or within or not inexact.isdisjoint(read)


def add_sameness(report: Report, found: Sameness) -> Report:
    """Add to a report whether all CPUs give the same answers, and a warning where they may not."""
    values = {
        "near_halves": list(found.near_halves),
        "rounded_floats": list(found.rounded_floats),
        "float_outputs": list(found.float_outputs),
    }
    report = replace(report, values={**report.values, "one_answer": values})
    if found.same_integers:
        said = "the same bytes on every CPU"
        if found.float_outputs:
            said = f"the same integers on every CPU; of output {found.float_outputs[0]!r} the last bits of floats may differ"
        return replace(report, lines=(*report.lines[:-1], said, *report.lines[-1:]))
    what = []
    if found.rounded_floats:
        what.append(
            f"{_count(found.rounded_floats, 'float result')} whose last bits differ between CPUs are rounded to integers"
        )
    if found.near_halves:
        what.append(f"{_count(found.near_halves, 'sum')} come near a half")
    warning = f"not the same on every CPU: {' and '.join(what)}; now and then an integer is one level off"
    return replace(report, warnings=(*report.warnings, warning))


def _count(names: tuple[str, ...], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'} ({names[0]!r}{', ...' if len(names) > 1 else ''})"
