"""float16 and bfloat16 models computed in float32: weights, intermediate tensors and casts are widened.

The graph's inputs and outputs keep the type they declare, through a Cast at the border.  int8 kernels read and write
float32 on a CPU, and half precision in between would only add conversions and rounding.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import attribute_of, is_op

HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
FLOAT = ir.DataType.FLOAT
TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype")


def widen_half(model: ir.Model) -> Changes:
    """Widen everything inside the border, subgraphs included: what they capture changes type with the rest."""
    edits = Edits(model, "widen_half")
    border = {cast for cast in (_find_border_cast(value) for value in model.graph.outputs) if cast is not None}
    for value in list(model.graph.inputs):
        if value.dtype in HALF and not value.is_initializer():
            _widen_input(edits, value)
    for value in list(model.graph.outputs):
        producer = value.producer()
        if value.dtype in HALF and producer is not None and producer not in border:
            border.add(_widen_output(edits, value, producer))
    kept = {*model.graph.inputs, *model.graph.outputs}
    for graph in [model.graph, *model.graph.subgraphs()]:
        edits.count += sum(_widen_initializer(value) for value in list(graph.initializers.values()))
        edits.count += sum(_widen_value(value) for value in graph.inputs if value not in kept)
    for node in model.graph.all_nodes():
        if node not in border:
            edits.count += _widen_attributes(node)
        edits.count += sum(_widen_value(value) for value in node.outputs if value not in kept)
    return edits.changes()


def _find_border_cast(value: ir.Value) -> ir.Node | None:
    """The Cast from float32 that already makes a half-precision output."""
    producer = value.producer()
    if producer is None or value.dtype not in HALF or not is_op(producer, "Cast"):
        return None
    source = producer.inputs[0]
    return producer if source is not None and source.dtype not in HALF else None


def _widen_input(edits: Edits, value: ir.Value) -> None:
    """A Cast behind a graph input; everything else reads its result."""
    uses = value.uses()
    if all(is_op(use.node, "Cast") and attribute_of(use.node, "to", 0) == FLOAT for use in uses):
        return
    wide = ir.Value(name=edits.free_name(f"{value.name}.float32"), shape=value.shape, type=ir.TensorType(FLOAT))
    cast = ir.node("Cast", [value], {"to": int(FLOAT)}, outputs=[wide], name=f"{value.name}.widen")
    for use in uses:
        use.node.replace_input_with(use.idx, wide)
    first = next(iter(edits.graph), None)
    if first is None:
        edits.graph.append(cast)
    else:
        edits.graph.insert_before(first, cast)
    edits.count += 1


def _widen_output(edits: Edits, value: ir.Value, producer: ir.Node) -> ir.Node:
    """A Cast in front of a graph output, which keeps its name and type; returns the Cast."""
    name, kind = value.name, value.dtype
    assert kind is not None
    narrow = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind))
    for index, output in enumerate(edits.graph.outputs):
        if output is value:
            edits.graph.outputs[index] = narrow
    value.name = edits.free_name(f"{name}.float32")
    cast = ir.node("Cast", [value], {"to": int(kind)}, outputs=[narrow], name=f"{name}.narrow")
    edits.graph.insert_after(producer, cast)
    edits.count += 1
    return cast


def _widen_value(value: ir.Value) -> bool:
    if value.dtype not in HALF:
        return False
    value.type = ir.TensorType(FLOAT)
    return True


def _widen_initializer(value: ir.Value) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype not in HALF:
        return False
    value.const_value = _widen_tensor(tensor, value.name)
    value.type = ir.TensorType(FLOAT)
    return True


def _widen_tensor(tensor: ir.TensorProtocol, name: str | None) -> ir.TensorProtocol:
    """The same numbers as float32, made when they are read: a large model is not held twice."""
    return ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy().astype(np.float32)),
        dtype=FLOAT,
        shape=ir.Shape(tensor.shape.numpy()),
        name=name,
    )


def _widen_attributes(node: ir.Node) -> int:
    """Casts, generators and constants that name or hold a half-precision type."""
    changed = 0
    for name, attr in list(node.attributes.items()):
        if attr.type == ir.AttributeType.INT and name in TYPE_ATTRIBUTES and attr.as_int() in HALF:
            node.attributes.add(ir.AttrInt64(name, int(FLOAT)))
            changed += 1
        elif attr.type == ir.AttributeType.TENSOR and attr.as_tensor().dtype in HALF:
            tensor = attr.as_tensor()
            node.attributes.add(ir.AttrTensor(name, ir.Tensor(tensor.numpy().astype(np.float32), name=tensor.name)))
            changed += 1
    return changed
