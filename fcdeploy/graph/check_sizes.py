"""How large the tensors of a model become, worked out before anything of it is run: a small file can ask for terabytes.

Shapes are those of ONNX's own inference on the message without its weights.  An axis whose length nobody knows before a
run counts as one sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from onnx import TensorProto

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.check_tensors import BITS

LARGEST = 1 << 30  # bytes of a tensor, for one sample
SMALL = 1024  # bytes of constants that shapes are computed from
SHOWN = 8  # axes in a message


def check_sizes(model: onnx.ModelProto, name: str) -> None:
    """Raise FcdeployError at the first tensor of a model, wherever it is computed, that takes more than LARGEST."""
    try:
        infer_sizes(_without_weights(model))
    except FcdeployError as error:
        raise FcdeployError(f"model {name!r}: {error.message}", error.hint) from error


def infer_sizes(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model with the shapes that ONNX infers, None where it cannot digest it.

    Raises FcdeployError at a tensor that takes more than LARGEST.  Values of shape arithmetic are followed in
    a second round: that writes out the numbers of a Range, which the first one finds to be too many.
    """
    inferred = None
    for follow in (False, True):
        try:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=follow)
        except Exception:  # the C++ side throws whatever it likes, and so does protobuf above 2 GB
            return inferred
        for graph in _iterate_graphs(inferred.graph):
            _refuse_large(graph)
    return inferred


def _refuse_large(graph: onnx.GraphProto) -> None:
    producers = {value: node for node in graph.node for value in node.output}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        shape = [dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else 1 for dim in kind.shape.dim]
        size = math.prod(shape) * BITS.get(kind.elem_type, 32) // 8
        if size <= LARGEST:
            continue
        node = producers.get(value.name)
        made = f"input {value.name[:100]!r} is" if node is None else f"node {node.name[:100]!r}, {node.op_type}, writes"
        axes = f"{shape[:SHOWN]}{' ...' if len(shape) > SHOWN else ''}"
        raise FcdeployError(
            f"{made} a tensor of {_to_text(size)}, {axes}, expected at most {_to_text(LARGEST)} for a sample",
            "export it for smaller inputs, or look at the constants that its shapes are computed from",
        )


def _to_text(size: int) -> str:
    for unit in ("MB", "GB", "TB"):
        if size < 1000 << 20:
            return f"{size >> 20} {unit}"
        size >>= 10
    return f"{size >> 20} PB" if size < 1000 << 20 else "more than 1000 PB"


def _iterate_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _iterate_graphs(inner)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The message with initializers above SMALL as inputs, and without the shapes that it claims for results."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    weights = {tensor.name for tensor in model.graph.initializer}
    graph.input.extend(value for value in model.graph.input if value.name not in weights)
    for value in model.graph.output:
        graph.output.add(name=value.name)
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL and tensor.ByteSize() <= SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light
