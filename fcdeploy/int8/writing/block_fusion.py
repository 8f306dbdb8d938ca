"""What the plan leaves in float stays float: onnxruntime would make integers of it by itself."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from fcdeploy.graph.edit import block_fusion
from fcdeploy.graph.nodes import data_inputs, name_of, operator_of, producer_of

ROLES = ("integer", "passthrough")  # of the operators that have a kernel on bytes


def block_unwanted_fusions(graph: ir.Graph, floats: Collection[str]) -> None:
    """Hold every node of these names that onnxruntime would take for integers, and layers that it would round itself."""
    for node in list(graph):
        if would_round_weights(node) or (name_of(node) in floats and would_fuse(node)):
            block_fusion(graph, node)


def would_round_weights(node: ir.Node) -> bool:
    """Whether onnxruntime would take a float layer for an integer one whose weights nobody has quantized yet.

    It does between a DequantizeLinear and a QuantizeLinear, quantizing them with one scale for all channels.
    """
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return False
    read, weight = (producer_of(value, "DequantizeLinear") for value in node.inputs[:2])
    return read is not None and weight is None and _is_quantized_next(node)


def would_fuse(node: ir.Node) -> bool:
    """Whether all that a float node reads is read back from integers, and its result is quantized and nothing else.

    Such a node becomes an integer kernel, and one that only moves elements is moved in front of the DequantizeLinear.
    """
    if operator_of(node).role not in ROLES or not _is_quantized_next(node):
        return False
    return all(producer_of(value, "DequantizeLinear") is not None for value in data_inputs(node))


def _is_quantized_next(node: ir.Node) -> bool:
    """Whether a QuantizeLinear alone reads its result; a clip in between is removed before onnxruntime looks."""
    readers = node.outputs[0].consumers()
    while len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        readers = readers[0].outputs[0].consumers()
    return len(readers) == 1 and readers[0].op_type == "QuantizeLinear"
