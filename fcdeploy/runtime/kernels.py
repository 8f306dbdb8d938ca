"""Which onnxruntime kernel runs each node, read from the graph as the runtime optimized it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import onnx
import onnx_ir as ir

from fcdeploy.atomic_files import temporary_folder
from fcdeploy.graph.model import name_everything, read_model
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.graph.protobuf import load_model, model_of
from fcdeploy.runtime.session import LoadOptions, Session

INTEGER_KERNELS = {
    "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm",
    "QAttention", "DynamicQuantizeLSTM",
}  # fmt: skip
CONVERSIONS = {"QuantizeLinear", "DequantizeLinear"}
BLOCKED = "com.microsoft.nchwc"  # the domain of float kernels on channels in blocks of 8 or 16
CONV = {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv", "ConvInteger"}
DENSE = {
    "Gemm", "MatMul", "FusedGemm", "FusedMatMul", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "MatMulNBits", "DynamicQuantizeMatMul", "TransposeMatMul",
}  # fmt: skip
INSERTED = CONVERSIONS | {"Transpose", "ReorderInput", "ReorderOutput", "Cast"}
"""Kernels that the runtime puts in by itself: such a node does not run another operator of the file."""

FUSED_INTO_OTHERS = {
    "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "BatchNormalization", "Add", "Mul",
    "Sum", "Identity", *CONVERSIONS,
}  # fmt: skip
SUFFIX = re.compile(r"(_token_\d+|_token|_nchwc|_nhwc_?\d*|/[A-Za-z]*Fusion)$")
"""What the runtime appends to a name when it fuses nodes or lays their tensors out anew."""


@dataclass(frozen=True)
class Kernel:
    """A node of the file and the kernel that runs it; `integer` when it computes with bytes."""

    node: str
    op: str
    kernel: str
    integer: bool
    note: str = ""


def find_kernels(model: Path | str) -> tuple[Kernel, ...]:
    """The kernel of every node of a model file but its Q/DQ pairs, in the file's order.

    A node is found again by its name or by the tensors it writes; the runtime changes both.
    """
    source = read_model(model)
    return tuple(match_kernels(source.graph, optimize_graph(name_nodes(Path(model)))))


def optimize_graph(model: Path | bytes | ir.Model) -> ir.Graph:
    """The graph that onnxruntime runs on this CPU after its own rewrites."""
    with temporary_folder() as folder:
        dump = folder / "optimized.onnx"
        Session(model, threads=1, load=LoadOptions(dump=dump, prepack=False))
        return load_model(dump).graph


def name_nodes(model: Path | bytes | ir.Model) -> Path | ir.Model:
    """Give every node a name; the path is returned as it is where all have one.

    Without a name nothing could be found again in what the runtime made of it.
    """
    if isinstance(model, ir.Model):
        loaded = model.clone()
    else:
        loaded = model_of(onnx.ModelProto.FromString(model)) if isinstance(model, bytes) else load_model(model)
    before = [node.name for node in loaded.graph.all_nodes()]
    name_everything(loaded.graph)
    if isinstance(model, Path) and before == [node.name for node in loaded.graph.all_nodes()]:
        return model
    return loaded


def is_integer_kernel(op_type: str) -> bool:
    """Whether an operator of the optimized graph computes with integers, whatever it reads and writes."""
    return op_type.startswith("QLinear") or op_type in INTEGER_KERNELS


def match_kernels(source: ir.Graph, optimized: ir.Graph) -> list[Kernel]:
    """Match the nodes of the file with the nodes that run."""
    runs = {origin: node for node, origin in trace_origins(source, optimized).items() if origin is not None}
    kernels = []
    for node in source:
        if node.op_type in CONVERSIONS or node.op_type == "Constant":
            continue
        kernel = runs.get(node)
        if kernel is None:
            kernels.append(Kernel(name_of(node), node.op_type, "-", False, "folded into another node"))
            continue
        on_bytes = any(v.dtype in (ir.DataType.UINT8, ir.DataType.INT8) for v in (*node.outputs, *kernel.outputs))
        integer = is_integer_kernel(kernel.op_type) or on_bytes
        integer = integer or (kernel.op_type == "MatMulNBits" and attribute_of(kernel, "accuracy_level", 0) == 4)
        note = "blocked layout" if kernel.domain == BLOCKED else ""
        kernels.append(Kernel(name_of(node), node.op_type, kernel.op_type, integer, note))
    return kernels


def trace_origins(source: ir.Graph, optimized: ir.Graph) -> dict[ir.Node, ir.Node | None]:
    """Running node -> the node of the file that it runs, None for one that the runtime put in.

    A node that was not touched keeps its name and its outputs.  A fused one has the name of the node it was made from,
    or of a tensor, with marks around it, or it writes what the last of its nodes wrote: then the node is looked for
    upstream.  Every node of the file is run by one node at most.
    """
    by_name = {node.name: node for node in source}
    by_tensor = {value.name: node for node in source for value in node.outputs if value.name}
    result = dict[ir.Node, ir.Node | None]()
    taken: set[ir.Node] = set()

    def claim(node: ir.Node, candidates: Iterator[ir.Node]) -> None:
        layer = node.op_type in CONV or node.op_type in DENSE  # may bear the name of the clip that was fused into it
        for candidate in candidates:
            fits = may_run(node.op_type, candidate.op_type) if layer or node.op_type in INSERTED else True
            if candidate not in taken and fits:
                taken.add(candidate)
                result[node] = candidate
                return

    running = list(optimized)
    for node in running:
        claim(node, iter([by_name[node.name]] if node.name in by_name else []))
    for node in running:
        if node not in result:
            names = strip_marks(name_of(node))
            claim(node, (by_name[name] for name in names if name in by_name))
    for node in sorted(running, key=lambda node: node.op_type == "Gelu"):  # which is found behind what is before it
        if node not in result:
            tensors = [*strip_marks(name_of(node)), *(value.name for value in node.outputs)]
            behind = _walk_downstream(node, result) if node.op_type == "Gelu" else ()
            claim(node, chain(behind, _walk_upstream(node, [by_tensor[name] for name in tensors if name in by_tensor])))
    return {node: result.get(node) for node in running}


def strip_marks(name: str) -> list[str]:
    """The name, and what it may have been before the runtime marked it: without each mark in turn."""
    names = [name]
    name = name.removeprefix("fused ")
    while (shorter := SUFFIX.sub("", name)) != name:
        names.append(name)
        name = shorter
    return [*dict.fromkeys([*names, name])]


def _walk_upstream(running: ir.Node, ends: Sequence[ir.Node]) -> Iterator[ir.Node]:
    """Nodes of the file that `running` may run, the kin of its operator before the last node of the chain."""
    open_ends, seen = list(ends), set(ends)
    while open_ends:
        node = open_ends.pop(0)
        if may_run(running.op_type, node.op_type):
            yield node
        elif node.op_type in FUSED_INTO_OTHERS:
            above = [p for v in node.inputs if v is not None and (p := v.producer()) is not None and p not in seen]
            open_ends += above
            seen.update(above)
    yield from ends


def _walk_downstream(running: ir.Node, origins: Mapping[ir.Node, ir.Node | None]) -> Iterator[ir.Node]:
    """The Erfs that read what the node before a GELU writes, behind arithmetic with one number at most."""
    above = [p for value in running.inputs if value is not None and (p := value.producer()) is not None]
    before = [p.inputs[0].producer() if p.op_type in INSERTED and p.inputs[0] else p for p in above]
    for origin in filter(None, (origins.get(p) for p in before if p is not None)):
        readers = [reader for value in origin.outputs for reader in value.consumers()]
        for reader in (*readers, *(r for node in readers for value in node.outputs for r in value.consumers())):
            if reader.op_type == "Erf":
                yield reader


def may_run(kernel: str, op: str) -> bool:
    """May a kernel of this type run an operator of that type?"""
    return (
        kernel == op or kernel == f"QLinear{op}" or any(kernel in family and op in family for family in (CONV, DENSE))
    )
