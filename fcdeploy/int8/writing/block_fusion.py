"""What the plan leaves in float stays float: onnxruntime would make integers of it by itself."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from fcdeploy.graph.edit import add_constant, block_fusion, read_through_one
from fcdeploy.graph.nodes import array_of, data_inputs, name_of, operator_of, producer_of, rank_of
from fcdeploy.int8.planning.elementwise import find_gelus

ROLES = ("integer", "passthrough")  # of the operators that have a kernel on bytes


def block_unwanted_fusions(graph: ir.Graph, floats: Collection[str]) -> None:
    """Hold every node of these names that onnxruntime would take for integers, and layers that it would round itself."""
    for node in list(graph):
        if would_round_weights(node) or (name_of(node) in floats and would_fuse(node)):
            block_fusion(graph, node)
        elif node.op_type == "Add":
            for product, index in ((node.inputs[0], 1), (node.inputs[1], 0)):
                bias = array_of(node.inputs[index])
                rank = rank_of(product) or 0
                if bias is not None and bias.ndim == 1 and rank > 2 and _is_integer_product(product):
                    wide = bias.reshape((1,) * (rank - 1) + bias.shape)
                    node.replace_input_with(index, add_constant(graph, name_of(node.inputs[index]), wide))


def keep_gelus(graph: ir.Graph) -> None:
    """Let onnxruntime see each GELU in float whose input is read back from integers.

    It gives every reader of a DequantizeLinear one of its own, and then what the Erf or Tanh reads and what is multiplied by
    it are two tensors to it: six kernels in place of one.
    """
    for value, nodes in find_gelus(graph):
        if producer_of(value, "DequantizeLinear") is not None:
            inner = next(node for node in nodes if node.op_type in ("Erf", "Tanh"))
            read_through_one(graph, value, nodes, f"{name_of(inner)}/held")


def _is_integer_product(value: ir.Value | None) -> bool:
    """Whether it is an integer MatMul's result in float, which one node reads.

    Where all lengths of more than two axes are fixed, onnxruntime would make a float Gemm of that MatMul and a bias added
    behind it, and read the bytes back in every run.  It does not where the bias has as many axes as the product.
    """
    product = producer_of(value, "MatMul")
    if value is None or product is None or len(value.uses()) != 1:
        return False
    return all(producer_of(each, "DequantizeLinear") is not None for each in product.inputs)


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
