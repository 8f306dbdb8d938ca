"""Remove what no output depends on."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.edit import Changes


def remove_unused(model: ir.Model) -> Changes:
    """Drop nodes whose outputs nobody reads, then initializers nobody reads. Graph inputs always stay."""
    graph, count = model.graph, 0
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
            count += 1
    for value in list(graph.initializers.values()):
        if not (value.uses() or value.is_graph_output() or value.is_graph_input()):
            assert value.name is not None
            del graph.initializers[value.name]
            count += 1
    return Changes("remove_unused", count)
