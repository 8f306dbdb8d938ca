"""Constant nodes and weights listed as graph inputs become plain initializers, so that every pass sees one form."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.edit import Changes, add_initializer
from fcdeploy.graph.nodes import STANDARD, name_of, tensor_of

FIRST_IR_WITH_HIDDEN_WEIGHTS = 4  # IR version 3 demands that every initializer is listed as an input as well


def lift_constants(model: ir.Model) -> Changes:
    """Turn each Constant of the main graph into an initializer of the same name.

    A Constant that is itself a graph output stays, and so does a sparse one or one of text.
    """
    graph, count, declined = model.graph, 0, []
    for value in [value for value in graph.inputs if value.is_initializer()]:
        graph.inputs.remove(value)
        count += 1
    if count:
        model.ir_version = max(model.ir_version, FIRST_IR_WITH_HIDDEN_WEIGHTS)
    for node in list(graph):
        if node.op_type != "Constant" or node.domain not in STANDARD:
            continue
        output = node.outputs[0]
        tensor = tensor_of(output)
        if output.is_graph_output():
            declined.append(f"Constant {node.name!r} stays: its output {output.name!r} is an output of the graph")
        elif tensor is None:
            declined.append(f"Constant {node.name!r} stays: it holds no dense tensor of numbers")
        else:
            output.replace_all_uses_with(add_initializer(graph, name_of(output), tensor))
            graph.remove(node, safe=True)
            count += 1
    return Changes("lift_constants", count, tuple(declined))
