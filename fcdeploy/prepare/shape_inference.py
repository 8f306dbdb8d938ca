"""Types and shapes of all values: by ONNX's own inference, without the weights, and where that ends, by onnxruntime's.

Whole types are taken over, so that a sequence of tensors does not become a tensor, and graph by graph, because a name in
the body of a Scan may be that of another value outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx
import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.check_sizes import infer_sizes
from fcdeploy.graph.nodes import name_of, tensors_of
from fcdeploy.graph.protobuf import proto_of_view, read_type

SMALL = 1024  # bytes; larger initializers stay out of what is serialized, so that their size does not matter
BODIES = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def infer_shapes(model: ir.Model) -> None:
    """Write the type and shape of every value that ONNX can infer into the model.

    A model that inference cannot digest keeps what it has: passes that need a shape then decline and say so.  Raises
    FcdeployError at a tensor that is too large to be computed.
    """
    try:
        inferred = infer_sizes(_without_weights(model))
    except FcdeployError:
        raise
    except Exception:  # a message above 2 GB
        return
    if inferred is None:
        return
    declared = {id(value) for value in model.graph.outputs if value.type is not None}
    for graph, known in _pair_graphs(model.graph, inferred.graph):
        types = {info.name: info.type for info in (*known.input, *known.value_info, *known.output)}
        for value in tensors_of(graph):
            if value.name not in types:
                continue
            kind, shape = read_type(types[value.name])
            if value.type is None or (kind is not None and id(value) not in declared):
                value.type = kind
            # the declared output is part of the contract, inference only fills gaps
            if shape is not None and (value.shape is None or id(value) not in declared):
                value.shape = shape


def infer_afresh(model: ir.Model) -> None:
    """As `infer_shapes`, from what computes each value alone: shapes that the file stores within may be wrong.

    Exporters leave those of a batch of 1 behind inputs of any length, and onnxruntime does not mind.  What stands behind
    operators that ONNX knows nothing of has the type that onnxruntime finds, and the shape if it finds one.
    """
    outputs = set(model.graph.outputs)
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                if value not in outputs and value.const_value is None:
                    value.shape = None
    infer_shapes(model)
    if _ask_runtime(model):
        infer_shapes(model)


def is_tensor(value: ir.Value) -> bool:
    """Whether it may be a tensor: no sequence, optional or map."""
    return value.type is None or isinstance(value.type, ir.TensorType)


def _ask_runtime(model: ir.Model) -> bool:
    """Give types, and shapes if there are any, to results that have none; whether there were such.

    Only what could be found now and was not: a model that onnxruntime cannot load stays as it is.
    """
    unknown = {name_of(v) for node in model.graph for v in node.outputs if v.type is None and v.name and v.uses()}
    if not unknown:
        return False
    from fcdeploy.runtime.session import LoadOptions, Session

    copy = model.clone()
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(v for node in copy.graph for v in node.outputs if name_of(v) in unknown)
    try:
        types = Session(copy, threads=1, optimize=False, load=LoadOptions(prepack=False)).output_types
    except FcdeployError:
        return False
    for value in (v for node in model.graph for v in node.outputs if name_of(v) in unknown):
        written, shape = types[name_of(value)]
        value.type = _type_of(written)
        if value.type is not None and is_tensor(value) and shape is not None:
            value.shape = ir.Shape(shape)
    return True


def _type_of(written: str) -> ir.TypeProtocol | None:
    """`seq(tensor(float))` as onnxruntime writes it; None for a map."""
    match = re.fullmatch(r"(seq|optional|tensor|sparse_tensor)\((.*)\)", written)
    if match is None:
        return None
    kind, inner = match.groups()
    if kind in ("tensor", "sparse_tensor"):
        element = _element(inner)
        made = ir.TensorType if kind == "tensor" else ir.SparseTensorType
        return None if element is None else made(element)
    of = _type_of(inner)
    wrapped = ir.SequenceType if kind == "seq" else ir.OptionalType
    return None if of is None else wrapped(of)


def _element(name: str) -> ir.DataType | None:
    """The element type that onnxruntime calls `float`, `int64`, `float8e4m3fn` ..."""
    return ir.DataType.__members__.get(name.upper())


def _pair_graphs(graph: ir.Graph, message: onnx.GraphProto) -> Iterator[tuple[ir.Graph, onnx.GraphProto]]:
    """A graph and those inside its nodes, each beside its message."""
    yield graph, message
    for node, written in zip(graph, message.node, strict=True):
        if not any(attribute.type in BODIES for attribute in node.attributes.values()):
            continue
        for attribute in written.attribute:
            inner = node.attributes[attribute.name]
            if inner.type == ir.AttributeType.GRAPH:
                yield from _pair_graphs(inner.as_graph(), attribute.g)
            elif inner.type == ir.AttributeType.GRAPHS:
                for one, other in zip(inner.as_graphs(), attribute.graphs, strict=True):
                    yield from _pair_graphs(one, other)


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """The message of the model with every initializer above SMALL as an input; the model is left as it is."""
    kept: list[ir.Value] = []
    outside: list[ir.Value] = []
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        large = tensor.nbytes > SMALL
        stored = ir.Value(
            name=value.name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=None if large else tensor,
        )
        (outside if large else kept).append(stored)
    stored_names = {value.name for value in (*kept, *outside)}
    inputs = [value for value in model.graph.inputs if value.name not in stored_names]
    view = ir.GraphView(
        [*inputs, *outside], model.graph.outputs, nodes=model.graph, initializers=kept, name=model.graph.name
    )
    return proto_of_view(model, view)
