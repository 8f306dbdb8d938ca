"""What of an int8 model may differ between CPUs, though its target promises one answer: what floats decide."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from fcdeploy.graph.nodes import data_inputs, name_of
from fcdeploy.int8.planning.same_floats import find_same_floats
from fcdeploy.int8.planning.tie_free_scales import find_near_halves
from fcdeploy.records.plan import Plan
from fcdeploy.records.report import Report
from fcdeploy.wording import say_count

ROUNDING_FLOATS = ("int8", "int16", "passthrough", "fused", "dynamic")  # kinds of nodes whose inputs become integers


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
    inexact = find_same_floats(graph, plan).inexact
    rounded: dict[str, None] = {}
    for node in graph:
        kind, name = kinds[name_of(node)], name_of(node)
        if kind in ROUNDING_FLOATS:
            of = [value.producer() for value in data_inputs(node) if value in inexact]
            rounded.update((name_of(producer), None) for producer in of if producer is not None)
        if kind == "int16":
            rounded[name] = None
    outputs = tuple(name_of(value) for value in graph.outputs if value in inexact)
    return Sameness(tuple(find_near_halves(graph, plan)), tuple(rounded), outputs)


def add_sameness(report: Report, found: Sameness) -> Report:
    """Add to a report whether all CPUs give the same answers, and a warning where they may not."""
    values = {
        "near_halves": list(found.near_halves),
        "rounded_floats": list(found.rounded_floats),
        "float_outputs": list(found.float_outputs),
    }
    report = report.extend(values={"one_answer": values})
    if found.same_integers:
        said = "the same bytes on every CPU"
        if found.float_outputs:
            said = f"the same integers on every CPU; of output {found.float_outputs[0]!r} the last bits of floats may differ"
        return report.extend(lines=[said])
    what = []
    if found.rounded_floats:
        what.append(
            f"{_count(found.rounded_floats, 'float result')} whose last bits differ between CPUs are rounded to integers"
        )
    if found.near_halves:
        what.append(f"{_count(found.near_halves, 'sum')} come near a half")
    warning = f"not the same on every CPU: {' and '.join(what)}; now and then an integer is one level off"
    return report.extend(warnings=[warning])


def _count(names: tuple[str, ...], noun: str) -> str:
    return f"{say_count(len(names), noun)} ({names[0]!r}{', ...' if len(names) > 1 else ''})"
