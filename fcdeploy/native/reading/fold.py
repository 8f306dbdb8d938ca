"""Nodes that are run while the graph is read: those whose inputs are all constants, and those that cannot be read."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from fcdeploy.arrays import Array, Arrays
from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.operands import Coded, Fixed
from fcdeploy.native.reading.reader import Reader, read_shape
from fcdeploy.runtime.session import Session

IR_VERSION = 10  # the highest that every onnxruntime takes which runs operator set 21

KEEP = {
    "DequantizeLinear",
    "QuantizeLinear",
    "Transpose",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Slice",
    "Split",
}
"""Read as other nodes are, so that the integers behind a constant are not lost."""


RANDOM = {
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Dropout",
}


def _may_compute(node: ir.Node) -> bool:
    """An operator of the standard, the same at every run, without graphs of its own, which may read what is outside."""
    inner = any(each.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for each in node.attributes.values())
    return node.domain in ("", "ai.onnx") and node.op_type not in RANDOM and not inner


def fold(reader: Reader, node: ir.Node) -> list[Array] | None:
    """What the node computes of constants, or of shapes; None where it must run."""
    if node.op_type == "Shape":
        shape = read_shape(reader.read(node.inputs[0]))
        start, end = attribute_of(node, "start", 0), attribute_of(node, "end", len(shape))
        return [np.array(shape[start:end], np.int64)]
    if node.op_type == "Size":
        return [np.array(int(np.prod(read_shape(reader.read(node.inputs[0])))), np.int64)]
    operands = [None if value is None else reader.read(value) for value in node.inputs]
    if not all(each is None or isinstance(each, Fixed) for each in operands):
        return None
    if node.op_type == "QuantizeLinear" and operands:
        return _evaluate(reader, node, operands)
    return _evaluate(reader, node, operands) if node.op_type not in KEEP and _may_compute(node) else None


def find_stored_weight(reader: Reader, node: ir.Node) -> Fixed | None:
    """Weights that are only stored as bytes: a Cast of the bytes, and a Mul with their scales. The integers are kept."""
    operands = [None if value is None else reader.read(value) for value in node.inputs]
    if not operands or not isinstance(first := operands[0], Fixed):
        return None
    if node.op_type == "Cast" and first.array.dtype in (np.int8, np.uint8):
        if attribute_of(node, "to", 0) != ir.DataType.FLOAT:
            return None
        return Fixed(first.array.astype(np.float32), first.array, np.ones(1, np.float32), np.zeros(1, np.int32))
    if node.op_type != "Mul" or not isinstance(scale := operands[1], Fixed) or first.integers is None:
        return None
    axes = [axis for axis, length in enumerate(scale.array.shape) if length > 1]
    if scale.array.ndim > first.array.ndim or len(axes) > 1 or first.scale is None or first.scale.size > 1:
        return None
    axis = axes[0] + first.array.ndim - scale.array.ndim if axes else None
    scales = (scale.array.reshape(-1) * first.scale).astype(np.float32)
    return Fixed(first.array * scale.array, first.integers, scales, first.zero, axis)


def explain_misfit(reader: Reader, node: ir.Node) -> str:
    """Why onnxruntime does not run the node on inputs of their shapes, zeros where they are computed; "" where it does."""
    given = {value: reader.read(value) for value in node.inputs if value is not None}
    feeds = {
        name_of(value): operand.array
        if isinstance(operand, Fixed)
        else np.zeros(read_shape(operand), _find_type(value, operand))
        for value, operand in given.items()
    }
    try:
        _run_alone(node, feeds)
    except FcdeployError as error:
        lengths = ", ".join(str(list(array.shape)) for array in feeds.values())
        return f"its inputs have the shapes {lengths}: {error.message.rstrip('.')}"
    return ""


def _find_type(value: ir.Value, operand: Coded | Tensor) -> np.dtype[Any]:
    if value.dtype is not None:
        return np.dtype(value.dtype.numpy())
    return np.dtype(np.float32 if isinstance(operand, Coded) else operand.dtype)


def _evaluate(reader: Reader, node: ir.Node, operands: list[Any]) -> list[Array]:
    feeds = {name_of(value): held.array for value, held in zip(node.inputs, operands, strict=True) if value is not None}
    try:
        return _run_alone(node, feeds)
    except FcdeployError as error:
        raise reader.refuse(node, f"it cannot be computed of its constants: {error.message}") from error


def _run_alone(node: ir.Node, feeds: Arrays) -> list[Array]:
    """What the node makes of its inputs, by onnxruntime with its optimizations off, as the file's own kernels would."""
    proto = ir.to_proto(node)
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
              for name, array in feeds.items()]  # fmt: skip
    outputs = [onnx.helper.make_empty_tensor_value_info(value.name) for value in node.outputs if value.name]
    graph = onnx.helper.make_graph([proto], "constant", inputs, outputs)
    opset = onnx.helper.make_opsetid(node.domain, node.version or _find_opset(node))
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    return [np.asarray(each) for each in Session(model.SerializeToString(), threads=1, optimize=False).run(feeds)]


def _find_opset(node: ir.Node) -> int:
    return (node.graph.opset_imports.get("", 17) or 17) if isinstance(node.graph, ir.Graph) else 17
