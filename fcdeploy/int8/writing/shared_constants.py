"""Constants of equal content stand in the file once: weights that several layers share do not make it grow."""

from __future__ import annotations

import onnx_ir as ir

from fcdeploy.graph.nodes import is_op

LEAST_BYTES = 256  # below, the name of a constant is as long as what it holds
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
        if tensor is None or tensor.nbytes < LEAST_BYTES or isinstance(tensor, ir.ExternalTensor):
            continue
        if value.is_graph_input() or value.is_graph_output() or not all(map(_shares, value.consumers())):
            continue
        key = (tensor.dtype.name, tuple(tensor.shape.numpy()), tensor.tobytes())
        kept = first.setdefault(key, value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            del graph.initializers[name]
            gone += 1
    return gone


def _shares(node: ir.Node) -> bool:
    """Whether a node may read a constant that others read too."""
    return node.domain in ("", "ai.onnx") and not is_op(node, *CONVERSIONS)
