"""Types and shapes of all values, by ONNX's own inference, without the weights.

Whole types are taken over, so that a sequence of tensors does not become a tensor, and graph by graph, because a name in
the body of a Scan may be that of another value outside.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

SMALL = 1024  # bytes; larger initializers stay out of what is serialized, so that their size does not matter


def infer_shapes(model: ir.Model) -> None:
    """Write the type and shape of every value that ONNX can infer into the model.

    A model that inference cannot digest keeps what it has: passes that need a shape then decline and say so.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True)
    except Exception:  # the C++ side throws whatever it likes, and so does protobuf above 2 GB
        return
    declared = {id(value) for value in model.graph.outputs if value.type is not None}
    graphs = zip(model.graphs(), ir.from_proto(inferred).graphs(), strict=True)
    for graph, known in graphs:
        found = {value.name: value for value in _values(known)}
        for value in _values(graph):
            other = found.get(value.name)
            if other is None:
                continue
            if value.type is None or (other.type is not None and id(value) not in declared):
                value.type = other.type
            # the declared output is part of the contract, inference only fills gaps
            if other.shape is not None and (value.shape is None or id(value) not in declared):
                value.shape = other.shape


def _values(graph: ir.Graph) -> list[ir.Value]:
    """What a graph reads and computes itself; constants know their shape."""
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model with every initializer above SMALL as an input."""
    copy = model.clone()
    for name, value in list(copy.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None:
            continue
        value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        if tensor.nbytes > SMALL:
            value.const_value = None
            del copy.graph.initializers[name]
            if value not in copy.graph.inputs:
                copy.graph.inputs.append(value)
    return ir.to_proto(copy)
