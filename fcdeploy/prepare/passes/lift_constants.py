"""Constant nodes and weights listed as graph inputs become plain initializers, so that every pass sees one form."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.edit import Changes, add_initializer
from fcdeploy.graph.nodes import STANDARD, name_of, tensor_of

FIRST_IR_WITH_HIDDEN_WEIGHTS = 4  # IR version 3 demands that every initializer is listed as an input as well


def warn_of_defaults(model: ir.Model) -> list[str]:
    """Initializers that callers may override, and cannot any more; all weights listed so are an exporter's habit."""
    constants = model.graph.initializers
    given = [value.name for value in model.graph.inputs if value.name in constants]
    if not given or model.ir_version < FIRST_IR_WITH_HIDDEN_WEIGHTS or len(given) == len(constants):
        return []
    named = ", ".join(repr(name) for name in given[:3]) + (", ..." if len(given) > 3 else "")
    return [
        f"callers can override {named} in the float model: the int8 model keeps the value stored there, and has no such input"
    ]


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
