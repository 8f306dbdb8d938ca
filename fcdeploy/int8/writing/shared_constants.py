"""Constants of equal content stand in the file once: weights that several layers share do not make it grow."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.nodes import is_op, name_of

LEAST_BYTES = 32  # below, it is single numbers, which are stored once already
READS_BACK = ("Cast", "Mul")  # what makes floats of the bytes of a float layer
IN_BLOCKS, PACKED, SCALES = "MatMulNBits", 1, 2  # the operator, and which inputs its weight is
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


def share_constants(graph: ir.Graph) -> int:
    """Let all that read equal initializers read the first of them; return how many others went.

    Those of integer kernels stay apart: onnxruntime does not load a model whose layers share integers under
    `session.x64quantprecision`.  Those that lie in files are not read.
    """
    first: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    gone = 0
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or isinstance(tensor, ir.ExternalTensor | ir.StringTensor) or tensor.nbytes < LEAST_BYTES:
            continue
        if value.is_graph_input() or value.is_graph_output() or not all(map(_shares, value.consumers())):
            continue
        key = (tensor.dtype.name, tuple(tensor.shape.numpy()), tensor.tobytes())
        kept = first.setdefault(key, value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            del graph.initializers[name]
            gone += 1
    _share_nodes(graph)
    return gone


def share_blocks(graph: ir.Graph) -> int:
    """The same for weights in blocks, once nothing is changed in them any more: layers that share one have it once."""
    first: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    gone = 0
    for node in graph:
        for index in (PACKED, SCALES) if node.op_type == IN_BLOCKS else ():
            value = node.inputs[index]
            tensor = None if value is None else value.const_value
            if value is None or tensor is None or isinstance(tensor, ir.ExternalTensor):
                continue
            kept = first.setdefault((tensor.dtype.name, tuple(tensor.shape.numpy()), tensor.tobytes()), value)
            if kept is value:
                continue
            node.replace_input_with(index, kept)
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name_of(value)]
                gone += 1
    return gone


def _share_nodes(graph: ir.Graph) -> None:
    """Let all that read equal floats, made of equal constants, read the first of them."""
    first: dict[tuple[object, ...], ir.Value] = {}
    computed: set[ir.Value] = set()
    for node in list(graph):
        constant = all(value is not None and (value.is_initializer() or value in computed) for value in node.inputs)
        if not is_op(node, *READS_BACK) or not constant or node.outputs[0].is_graph_output():
            continue
        attributes = tuple((name, str(attribute.value)) for name, attribute in sorted(node.attributes.items()))
        kept = first.setdefault((node.op_type, *node.inputs, attributes), node.outputs[0])
        computed.add(kept)
        if kept is not node.outputs[0]:
            node.outputs[0].replace_all_uses_with(kept)
            graph.remove(node, safe=True)


def _shares(node: ir.Node) -> bool:
    """Whether a node may read a constant that others read too."""
    return node.domain in ("", "ai.onnx") and not is_op(node, *CONVERSIONS)
