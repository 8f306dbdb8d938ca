"""What a network that slides over a larger image answers: how far its windows are apart, and what they see."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.nodes import attribute_of, describe
from fcdeploy.prepare.linear_layers import reads_padding
from fcdeploy.transform.forms import CHANNELS, ELEMENTWISE

STEPS = {"Conv", "MaxPool", "AveragePool", "LpPool"}
GLOBAL = {"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "InstanceNormalization"}


def find_strides(graph: ir.Graph, output: ir.Value) -> tuple[int, ...] | None:
    """Pixels between neighbouring answers along each spatial axis, or None where a node makes that unclear."""
    strides: dict[ir.Value, tuple[int, ...] | None] = {}
    for value in graph.inputs:
        rank = len(value.shape or ())
        strides[value] = (1,) * (rank - 2) if rank > 2 else None
    for node in graph:
        read = [strides[value] for value in node.inputs if value is not None and value in strides]
        known = [one for one in read if one is not None]
        if not known or len(known) < len(read) or any(one != known[0] for one in known) or not _keeps_places(node):
            strides.update(dict.fromkeys(node.outputs) if read else {})
            continue
        own = attribute_of(node, "strides", ()) if node.op_type in STEPS else ()
        own = own or (1,) * len(known[0])
        fits = len(own) == len(known[0])
        stride = tuple(a * b for a, b in zip(known[0], own, strict=True)) if fits else None
        strides.update(dict.fromkeys(node.outputs, stride))
    return strides.get(output)


def _keeps_places(node: ir.Node) -> bool:
    """Whether an answer at a place is of what lies there: operators that are not known may move it."""
    if node.op_type == "Concat":
        return attribute_of(node, "axis", 0) == 1
    return node.op_type in {*STEPS, *ELEMENTWISE, *CHANNELS, "QuantizeLinear", "DequantizeLinear", "Cast", "Dropout"}


def find_wider_views(graph: ir.Graph) -> list[str]:
    """Nodes that see more of a larger image than a window cut out of it shows them: padding there, pixels here."""
    padded = [node for node in graph if node.op_type in STEPS and reads_padding(node)]
    others = [node for node in graph if node.op_type in GLOBAL or (node.op_type == "Pad" and node not in padded)]
    return [describe(node) for node in (*padded, *others)]
