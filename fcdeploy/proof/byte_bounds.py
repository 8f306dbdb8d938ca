"""Which bytes a quantized tensor can hold, as far as the graph proves it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.quantization import LIMITS

Bounds = tuple[float, float]
Array = NDArray[Any]

ANY: Bounds = (-math.inf, math.inf)
CHOOSES = {
    "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Expand", "Tile", "Split",
    "DepthToSpace", "SpaceToDepth", "Identity", "ReduceMax", "ReduceMin",
}  # fmt: skip
"""Every element of the output is one of the input's."""
FIXED = {"Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0)}


def constant(value: ir.Value | None) -> Array | None:
    """The array of an initializer or of a Constant node, None for what is computed at run time."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def byte_type(value: ir.Value | None) -> str | None:
    """'uint8' or 'int8' where the tensor holds bytes, from its declared type or the zero point it is written with."""
    if value is None:
        return None
    node = value.producer()
    dtype: str | None = None
    held = constant(value)
    if held is not None:
        dtype = held.dtype.name
    elif node is not None and node.op_type == "QuantizeLinear":
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        kind = node.attributes.get_int("output_dtype", 0)
        found = zero.dtype if zero is not None and zero.dtype else ir.DataType(kind) if kind else ir.DataType.UINT8
        dtype = found.name.lower()
    elif node is not None and node.op_type == "DynamicQuantizeLinear":
        dtype = "uint8"
    elif value.dtype is not None:
        dtype = value.dtype.name.lower()
    elif node is not None and node.op_type in CHOOSES:
        return byte_type(node.inputs[0])
    return dtype if dtype in ("uint8", "int8") else None


def byte_bounds(value: ir.Value, dtype: str) -> tuple[int, int]:
    """The lowest and highest integer that a byte tensor can hold."""
    lowest, highest = LIMITS[dtype]
    node = value.producer()
    if node is not None and node.op_type in CHOOSES and node.inputs[0] is not None:
        return byte_bounds(node.inputs[0], dtype)
    if node is None or node.op_type != "QuantizeLinear" or node.inputs[0] is None:
        return lowest, highest
    scale, zero = _scalars(node)
    if scale is None or zero is None:
        return lowest, highest
    ends = np.asarray(float_bounds(node.inputs[0]), dtype=np.float32)
    with np.errstate(over="ignore"):
        low, high = np.clip(np.rint(ends / scale).astype(np.float64) + zero, lowest, highest)
    return int(low), int(high)


def float_bounds(value: ir.Value) -> Bounds:
    """The least and the greatest number that a float tensor can hold; infinite where nothing bounds it."""
    node = value.producer()
    first = node.inputs[0] if node is not None and node.inputs else None
    if node is None or first is None:
        return ANY
    if node.op_type == "DequantizeLinear":
        return _dequantized(node, first)
    if node.op_type in CHOOSES:
        return float_bounds(first)
    if node.op_type == "Relu":
        low, high = float_bounds(first)
        return max(low, 0.0), max(high, 0.0)
    if node.op_type == "Clip":
        return _clipped(node, float_bounds(first))
    if node.op_type == "Concat":
        ends = [float_bounds(each) for each in node.inputs if each is not None]
        return min(low for low, _ in ends), max(high for _, high in ends)
    return FIXED.get(node.op_type, ANY)


def _dequantized(node: ir.Node, source: ir.Value) -> Bounds:
    dtype = byte_type(source)
    scale, zero = _scalars(node)
    if dtype is None or scale is None or zero is None:
        return ANY
    low, high = (float(np.float32(end - zero) * scale) for end in byte_bounds(source, dtype))
    return low, high


def _clipped(node: ir.Node, inside: Bounds) -> Bounds:
    """Limits are inputs since opset 11 and were attributes before; one that is computed bounds nothing."""
    ends = []
    for index, name, missing in ((1, "min", -math.inf), (2, "max", math.inf)):
        given = node.inputs[index] if len(node.inputs) > index else None
        held = constant(given)
        ends.append(float(held.reshape(())) if held is not None else node.attributes.get_float(name, missing))
    low, high = ends
    return min(max(inside[0], low), high), min(max(inside[1], low), high)


def _scalars(node: ir.Node) -> tuple[np.float32 | None, int | None]:
    """Scale and zero point of a Q or DQ with one of each; None where they are computed, or one per channel."""
    scale = constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = constant(given) if given is not None else np.zeros((), np.int64)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return None, None
    return np.float32(scale.reshape(())), int(zero.reshape(()))
