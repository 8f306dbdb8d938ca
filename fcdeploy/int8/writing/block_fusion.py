"""Float layers between integer ones, kept in float: onnxruntime would make integers of them by itself."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.nodes import producer_of


def block_unwanted_fusions(graph: ir.Graph) -> None:
    """Hold every float layer that would be rounded."""
    for node in list(graph):
        if would_fuse(node):
            block_fusion(graph, node)


def would_fuse(node: ir.Node) -> bool:
    """Whether onnxruntime would take a float layer for an integer one whose weights nobody has quantized yet.

    It does between a DequantizeLinear and a QuantizeLinear, quantizing them with one scale for all channels.  A clip in
    front of the QuantizeLinear does not keep it from that: it is removed first.
    """
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return False
    source, weight = (producer_of(value) for value in node.inputs[:2])
    if weight is not None and weight.op_type == "DequantizeLinear":
        return False
    readers = node.outputs[0].consumers()
    while len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        readers = readers[0].outputs[0].consumers()
    written = len(readers) == 1 and readers[0].op_type == "QuantizeLinear"
    return source is not None and source.op_type == "DequantizeLinear" and written


def block_fusion(graph: ir.Graph, node: ir.Node) -> None:
    """Put a LeakyRelu of slope 1, which changes nothing, behind a node; it fuses into the float kernel."""
    value = node.outputs[0]
    result = ir.Value(name=value.name, shape=value.shape, type=value.type)
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    value.name = f"{result.name}/held"
    slope = {"alpha": ir.AttrFloat32("alpha", 1.0)}
    graph.insert_after(node, ir.Node("", "LeakyRelu", [value], slope, outputs=[result], name=f"{node.name}/held"))
