"""What an operator asks of a runtime by its attributes and constants, where some runtimes read them otherwise or not at all.

Each is said only where it changes the answers: a pad or a dilation that does nothing is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.nodes import STANDARD, array_of, attribute_of, input_of, is_op, producer_of, texts_of
from fcdeploy.graph.windows import read_window

BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
RECURRENT = ("LSTM", "GRU", "RNN")
SEVERAL_ROWS = "Gemm, on bytes that are read back, of several rows"
ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
WHOLE = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.INT16, ir.DataType.UINT32, ir.DataType.UINT64)


def list_details(node: ir.Node, opset: int) -> Iterator[str]:
    """The details of a node, on floats or on bytes; of an operator that has none, nothing."""
    if node.domain not in STANDARD:
        return
    if attribute_of(node, "auto_pad", "NOTSET") == "SAME_LOWER" and node.op_type != "ConvTranspose":
        yield f"{node.op_type}, padded by SAME_LOWER"
    if node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and opset < 13 and _normalizes_several(node):
        yield f"{node.op_type}, over several axes"
    details = DETAILS.get(node.op_type)
    if details is not None:
        yield from details(node)


def _normalizes_several(node: ir.Node) -> bool:
    """Before operator set 13 all axes from `axis` on were one."""
    shape, axis = getattr(node.inputs[0], "shape", None), attribute_of(node, "axis", 1)
    return axis != -1 and (shape is None or axis != len(shape) - 1)


def _is_dilated(node: ir.Node) -> bool:
    return bool(set(attribute_of(node, "dilations", ())) - {1})


def _list_average_pool(node: ir.Node) -> Iterator[str]:
    """What averages over windows that end beyond the input, or have gaps."""
    ceil = attribute_of(node, "ceil_mode", 0)
    counted = attribute_of(node, "count_include_pad", 0) and (ceil or any(attribute_of(node, "pads", ())))
    words = [*(["with ceil_mode"] if ceil else []), *(["counting pads"] if counted else [])]
    if words:
        yield " ".join(["AveragePool", *words])
    if _is_dilated(node):
        yield "AveragePool with dilations"


def _list_max_pool(node: ir.Node) -> Iterator[str]:
    if _is_dilated(node):
        yield "MaxPool, dilated"
    if attribute_of(node, "ceil_mode", 0) and _begins_behind(node):
        yield "MaxPool, windows behind the input"


def _begins_behind(node: ir.Node) -> bool:
    """Whether the last window, by the plain formula of ceil_mode, would begin behind the input; of free lengths it may."""
    shape, kernel = getattr(node.inputs[0], "shape", None), attribute_of(node, "kernel_shape", ())
    lengths = [n if isinstance(n, int) else None for n in shape[2:]] if shape is not None else [None] * len(kernel)
    window = read_window(node, tuple(n or 1 for n in lengths), kernel)
    each = zip(lengths, window.reach, window.strides, window.begins, window.ends, strict=True)
    return any(
        end + stride > reach if n is None else -(-(n + begin + end - reach) // stride) * stride >= n + begin
        for n, reach, stride, begin, end in each
    )


def _list_conv_transpose(node: ir.Node) -> Iterator[str]:
    if attribute_of(node, "output_shape", ()):
        yield "ConvTranspose, its lengths by output_shape"
    elif attribute_of(node, "auto_pad", "NOTSET").startswith("SAME"):
        yield "ConvTranspose, its lengths by auto_pad"
    if _is_dilated(node):
        yield "ConvTranspose, dilated"


def _list_resize(node: ir.Node) -> Iterator[str]:
    if attribute_of(node, "mode", "nearest") == "nearest":
        nearest = attribute_of(node, "nearest_mode", "round_prefer_floor")
        places = attribute_of(node, "coordinate_transformation_mode", "half_pixel")
        yield f"Resize, nearest by {nearest}, {places}"


def _list_recurrent(node: ir.Node) -> Iterator[str]:
    if attribute_of(node, "clip", 0.0):
        yield f"{node.op_type}, clipped"
    usual = ACTIVATIONS[node.op_type]
    names = texts_of(node, "activations") or usual
    if any(name != usual[at % len(usual)] for at, name in enumerate(names)):
        yield f"{node.op_type}, other activations"


def _list_cast(node: ir.Node) -> Iterator[str]:
    """Of numbers that may have fractions."""
    source = node.inputs[0].dtype if node.inputs[0] is not None else None
    if source is None or not source.is_floating_point():
        return
    into = ir.DataType(attribute_of(node, "to", 1))
    if into == ir.DataType.BOOL:
        yield "Cast, to bool"
    elif into in WHOLE:
        yield "Cast, to integers"


def _list_pad(node: ir.Node) -> Iterator[str]:
    number = array_of(input_of(node, 2))
    if number is not None and number.dtype == np.int8 and bool((number < 0).any()):
        yield "Pad, on int8, with a negative number"


def _list_gemm(node: ir.Node) -> Iterator[str]:
    """A bias beside bytes: of a file that takes any batch there may be several rows."""
    shape, bias = node.outputs[0].shape, input_of(node, 2)
    read = all(is_op(producer_of(input_of(node, index)), "DequantizeLinear") for index in (0, 1))
    if read and bias is not None and (shape is None or shape[0] != 1):
        yield SEVERAL_ROWS


Details = Callable[[ir.Node], Iterator[str]]
DETAILS: dict[str, Details] = {
    "AveragePool": _list_average_pool,
    "MaxPool": _list_max_pool,
    "ConvTranspose": _list_conv_transpose,
    "Resize": _list_resize,
    "Cast": _list_cast,
    "Pad": _list_pad,
    "Gemm": _list_gemm,
    **dict.fromkeys(RECURRENT, _list_recurrent),
}
"""Operator -> what lists its details."""
