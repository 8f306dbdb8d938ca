"""What onnxruntime made of a model: which kernel runs each node, read from the graph as it optimized it."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from fcdeploy.graph.runtime import Session

INTEGER_KERNELS = {
    "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm",
    "QAttention", "DynamicQuantizeLSTM",
}  # fmt: skip
TOKEN = re.compile(r"_(token|nhwc)_?\d*$")  # what the runtime appends to a name when it fuses or lays out anew
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True)
class Kernel:
    """A node of the file and the kernel that runs it; `integer` when it computes with bytes."""

    node: str
    op: str
    kernel: str
    integer: bool
    note: str = ""


def optimized_graph(model: Path | bytes) -> ir.Graph:
    """The graph that onnxruntime runs on this CPU after its own rewrites."""
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "optimized.onnx"
        Session(model, threads=1, dump=dump)
        return ir.load(dump).graph


def kernels_of(model: Path | str) -> tuple[Kernel, ...]:
    """The kernel of every node of a model file but its Q/DQ pairs, in the file's order.

    A node is found again by the tensors it writes, or, where the runtime renamed those, by its name.
    """
    path = Path(model)
    source = ir.load(path).graph
    return tuple(match_kernels(source, optimized_graph(path)))


def match_kernels(source: ir.Graph, optimized: ir.Graph) -> list[Kernel]:
    """Pair the nodes of the file with the nodes that run.

    A fused node keeps the name of the node it was made from, sometimes with `_token_N` behind it; a node that was not
    touched keeps its outputs.
    """
    running = [node for node in optimized if node.op_type not in CONVERSIONS]
    by_name = {TOKEN.sub("", node.name or ""): node for node in running}
    by_output = {value.name: node for node in running if node.op_type != "Transpose" for value in node.outputs}
    found = []
    for node in source:
        if node.op_type in CONVERSIONS or node.op_type == "Constant":
            continue
        name = node.name or ""
        runs = by_name.get(name) or next((by_output[v.name] for v in node.outputs if v.name in by_output), None)
        if runs is None:
            found.append(Kernel(name, node.op_type, "-", False, "folded into another node"))
            continue
        on_bytes = any(value.dtype in (ir.DataType.UINT8, ir.DataType.INT8) for value in node.outputs)
        integer = runs.op_type.startswith("QLinear") or runs.op_type in INTEGER_KERNELS or on_bytes
        found.append(Kernel(name, node.op_type, runs.op_type, integer))
    return found
