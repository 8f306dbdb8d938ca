"""Names that converters joined from all that they fused become their first part: a;b;c is a.

TFLite names a fused operator by every operator that went into it, each with its path, and converters from TFLite keep that:
names of 300 characters, repeated by all that read the tensor, were more bytes in an int8 file than its weights.  The first
part is what the fused operator computes last.  A name that is taken already gets a number.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import onnx_ir as ir

from fcdeploy.graph.edit import Changes

JOINT = ";"


def shorten_names(model: ir.Model) -> Changes:
    """Shorten the joined names of nodes, and of tensors that are no inputs or outputs of the model."""
    graph = model.graph
    fixed = {*graph.inputs, *graph.outputs}
    written = (value for node in graph.all_nodes() for value in node.outputs)
    values = [value for value in (*graph.initializers.values(), *written) if value not in fixed]
    inside = {name for inner in graph.subgraphs() for name in inner.initializers}  # read by name there
    taken = {value.name for value in (*graph.inputs, *graph.outputs, *values)} | inside
    return Changes("shorten_names", _shorten(values, taken) + _shorten(nodes := list(graph.all_nodes()), _names(nodes)))


def _shorten(named: Iterable[ir.Value | ir.Node], taken: set[str | None]) -> int:
    """Rename in place; how many were."""
    shortened = 0
    for each in named:
        first, joint, _ = (each.name or "").partition(JOINT)
        if not (joint and first):
            continue
        names = (first if number == 1 else f"{first}.{number}" for number in count(1))
        each.name = next(name for name in names if name not in taken)
        taken.add(each.name)
        shortened += 1
    return shortened


def _names(nodes: Iterable[ir.Node]) -> set[str | None]:
    return {node.name for node in nodes}
