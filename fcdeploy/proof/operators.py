"""What operators without weights compute of bytes, in real numbers: what their integer kernels should round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.kernels import reference
from fcdeploy.arithmetic.kernels.reference import QuantizedArray
from fcdeploy.arrays import Float32
from fcdeploy.graph.nodes import attribute_of
from fcdeploy.graph.windows import read_window


def _compute_softmax(node: ir.Node, x: QuantizedArray) -> Float32:
    """Below operator set 13 over all axes from the one named."""
    shape = x.integers.shape
    if node.graph is not None and node.graph.opset_imports.get("", 13) < 13:
        axis = attribute_of(node, "axis", 1) % len(shape)
        flat = QuantizedArray(x.integers.reshape(*shape[:axis], -1), x.scale, x.zero_point)
        return reference.softmax(flat, axis).reshape(shape)
    return reference.softmax(x, attribute_of(node, "axis", -1))


def _compute_average(node: ir.Node, operands: list[QuantizedArray], _: np.float32) -> Float32:
    (x,) = operands
    kernel = attribute_of(node, "kernel_shape", ())
    window = read_window(node, x.integers.shape[2:], kernel)
    padding = bool(attribute_of(node, "count_include_pad", 0))
    ceil = attribute_of(node, "ceil_mode", 0) == 1 and attribute_of(node, "auto_pad", "NOTSET") == "NOTSET"
    return reference.average(x, window, count_padding=padding, ceil=ceil)


OPERATORS: dict[str, Callable[[ir.Node, list[QuantizedArray], np.float32], Float32]] = {
    "Add": lambda _, x, __: reference.add(x[0], x[1]),
    "Mul": lambda _, x, __: reference.multiply(x[0], x[1]),
    "Concat": lambda node, x, _: np.concatenate([each.real for each in x], axis=attribute_of(node, "axis", 0)),
    "Sigmoid": lambda _, x, __: reference.sigmoid(x[0]),
    "Softmax": lambda node, x, _: _compute_softmax(node, x[0]),
    "LeakyRelu": lambda node, x, _: reference.leaky_relu(x[0], attribute_of(node, "alpha", 0.01)),
    "GlobalAveragePool": lambda _, x, scale: reference.global_average(x[0], scale),
    "AveragePool": _compute_average,
}
