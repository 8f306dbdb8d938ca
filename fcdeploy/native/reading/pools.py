"""Pools, global averages, reductions and Softmax."""

from __future__ import annotations

from math import prod
from typing import Any, Literal

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.windows import Window
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.graph.windows import read_window
from fcdeploy.native.program.steps import GlobalAverage, LookupTable, Pointwise, Pool, Reduce, Softmax
from fcdeploy.native.program.tensors import CODES, Tensor
from fcdeploy.native.reading.moves import move_tensor
from fcdeploy.native.reading.operands import Coded
from fcdeploy.native.reading.reader import Reader, name_output, read_shape, sort_axes

REDUCTIONS: dict[str, Literal["mean", "sum", "max", "min"]] = {
    "ReduceMean": "mean",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
}


def max_pool(reader: Reader, node: ir.Node) -> None:
    """On bytes wherever a larger byte stands for a larger number: then the largest byte is the largest number's."""
    x = reader.read(node.inputs[0])
    window, shape = _read_window(reader, node, read_shape(x))
    if isinstance(x, Coded) and x.rises and x.values.ndim == 1:
        to = Tensor(name_output(node), shape, "uint8", x.tensor.coding)
        reader.add(Pool(node=name_of(node), inputs=(x.tensor,), outputs=(to,), kind="max", window=window))
        reader.set(node.outputs[0], Coded(to, x.values))
        return
    to = Tensor(name_output(node), shape, "float32")
    reader.add(Pool(node=name_of(node), inputs=(reader.make_floats(x),), outputs=(to,), kind="max", window=window))
    reader.set(node.outputs[0], to)


def average_pool(reader: Reader, node: ir.Node) -> None:
    padded = bool(attribute_of(node, "count_include_pad", 0))
    x, tensor = reader.read(node.inputs[0]), reader.get_bytes(node, 0)
    window, shape = _read_window(reader, node, read_shape(x))
    sink = reader.find_sink(node) if tensor is not None else None
    more: dict[str, Any] = {"kind": "average", "window": window, "padded": padded}
    if tensor is None or sink is None:
        to = Tensor(name_output(node), shape, "float32")
        reader.add(Pool(node=name_of(node), inputs=(reader.make_floats(x),), outputs=(to,), **more))
    else:
        to = Tensor(name_output(node), shape, "uint8", sink.coding)
        more |= {"low": sink.low, "high": sink.high}
        reader.add(Pool(node=name_of(node), inputs=(tensor,), outputs=(to,), **more))
    reader.write(node, to)


def _read_window(reader: Reader, node: ir.Node, shape: tuple[int, ...]) -> tuple[Window, tuple[int, ...]]:
    """The window, and the shape of what the pool writes; with `ceil_mode` the padding at the end grows."""
    if len(shape) not in (3, 4):
        raise reader.refuse(node, f"its input has {len(shape)} axes, expected 3 or 4")
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise reader.refuse(node, "only its first output has a kernel")
    space, kernel = shape[2:], tuple(attribute_of(node, "kernel_shape", ()))
    window = read_window(node, space, kernel)
    if attribute_of(node, "ceil_mode", 0):
        window = window.round_up(space)
    return window, (*shape[:2], *window.outputs(space))


def global_average(reader: Reader, node: ir.Node) -> None:
    x, tensor = reader.read(node.inputs[0]), reader.get_bytes(node, 0)
    shape = read_shape(x)
    _take_mean(reader, node, tensor, (*shape[:2], *[1] * (len(shape) - 2)), shape)


def _take_mean(
    reader: Reader, node: ir.Node, tensor: Tensor | None, out: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    """The mean over all axes behind the second, written with the shape `out`."""
    sink = reader.find_sink(node) if tensor is not None else None
    if tensor is None or sink is None:
        _reduce(reader, node, "mean", tuple(range(2, len(shape))), out)
        return
    coding, size = tensor.coding, prod(shape[2:])
    assert coding is not None
    if len(shape) > 4:
        tensor = move_tensor(reader, node, tensor, "reshape", (*shape[:2], 1, size))
    factor = np.float32(coding.scale / np.float32(sink.coding.scale * np.float32(size)))
    to = Tensor(name_output(node), out, "uint8", sink.coding)
    reader.add(
        GlobalAverage(node=name_of(node), inputs=(tensor,), outputs=(to,), factor=factor, low=sink.low, high=sink.high)
    )
    reader.write(node, to)


def reduction(reader: Reader, node: ir.Node) -> None:
    shape = read_shape(reader.read(node.inputs[0]))
    given = reader.get_integers(node, "axes", 1)
    if not given and attribute_of(node, "noop_with_empty_axes", 0):
        reader.set(node.outputs[0], reader.read(node.inputs[0]))
        return
    axes = sort_axes(given or range(len(shape)), len(shape))
    keep = bool(attribute_of(node, "keepdims", 1))
    out = tuple(1 if i in axes else n for i, n in enumerate(shape) if keep or i not in axes)
    kind = REDUCTIONS[node.op_type]
    if kind == "mean" and len(shape) > 2 and axes == tuple(range(2, len(shape))):
        _take_mean(reader, node, reader.get_bytes(node, 0), out, shape)
    else:
        _reduce(reader, node, kind, axes, out)


def global_max(reader: Reader, node: ir.Node) -> None:
    shape = read_shape(reader.read(node.inputs[0]))
    _reduce(reader, node, "max", tuple(range(2, len(shape))), (*shape[:2], *[1] * (len(shape) - 2)))


def _reduce(
    reader: Reader,
    node: ir.Node,
    kind: Literal["mean", "sum", "max", "min"],
    axes: tuple[int, ...],
    out: tuple[int, ...],
) -> None:
    given = reader.read(node.inputs[0])
    if kind in ("max", "min") and isinstance(given, Coded) and given.rises and given.values.ndim == 1:
        _find_extreme(reader, node, given, kind == "min", axes, out)
        return
    to = Tensor(name_output(node), out, "float32")
    x = reader.make_floats(given)
    reader.add(Reduce(node=name_of(node), inputs=(x,), outputs=(to,), kind=kind, axes=axes))
    reader.set(node.outputs[0], to)


def _find_extreme(
    reader: Reader, node: ir.Node, x: Coded, smallest: bool, axes: tuple[int, ...], out: tuple[int, ...]
) -> None:
    """The largest byte along the axes, as a pool of their whole length; the smallest is that of the bytes turned around."""
    tensor, values = x.tensor, x.values
    if smallest:
        table, values = np.arange(CODES, dtype=np.uint8)[::-1].copy(), values[::-1]
        around = Tensor(reader.make_name(name_output(node)), tensor.shape)
        tensor = reader.add(LookupTable(node=name_of(node), inputs=(tensor,), outputs=(around,), table=table))
    shape = tensor.shape
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    if (*kept, *axes) != tuple(range(len(shape))):
        turned = tuple(shape[axis] for axis in (*kept, *axes))
        tensor = move_tensor(reader, node, tensor, "transpose", turned, (*kept, *axes))
    channels, length = prod(shape[axis] for axis in kept), prod(shape[axis] for axis in axes)
    tensor = move_tensor(reader, node, tensor, "reshape", (1, channels, length))
    largest = Tensor(reader.make_name(name_output(node)), (1, channels, 1), "uint8", tensor.coding)
    window = Window((length,), (1,), (0,), (0,), (1,))
    tensor = reader.add(Pool(node=name_of(node), inputs=(tensor,), outputs=(largest,), kind="max", window=window))
    reader.set(node.outputs[0], Coded(move_tensor(reader, node, tensor, "reshape", out), values))


def log_softmax(reader: Reader, node: ir.Node) -> None:
    """x less the largest, and less the logarithm of the sum of exponentials of that; on floats."""
    x = reader.make_floats(reader.read(node.inputs[0]))
    opset = node.version or 13
    axis = attribute_of(node, "axis", -1 if opset >= 13 else 1) % len(x.shape)
    if opset < 13 and prod(x.shape[axis + 1 :]) != 1:
        raise reader.refuse(node, "before opset 13 it is taken over several axes at once")
    row = tuple(1 if i == axis else n for i, n in enumerate(x.shape))

    def compute(kind: str, *inputs: Tensor, last: bool = False) -> Tensor:
        name = name_output(node) if last else reader.make_name(name_output(node))
        to = Tensor(name, row if kind == "Log" else x.shape, "float32")
        return reader.add(Pointwise(node=name_of(node), inputs=inputs, outputs=(to,), kind=kind, numbers=()))

    def reduce(kind: Literal["max", "sum"], tensor: Tensor) -> Tensor:
        to = Tensor(reader.make_name(name_output(node)), row, "float32")
        return reader.add(Reduce(node=name_of(node), inputs=(tensor,), outputs=(to,), kind=kind, axes=(axis,)))

    away = compute("Sub", x, reduce("max", x))
    total = reduce("sum", compute("Exp", away))
    reader.set(node.outputs[0], compute("Sub", away, compute("Log", total), last=True))


def softmax(reader: Reader, node: ir.Node) -> None:
    """Of bytes exp(x - largest) has 256 values, by the distance from the largest byte: a table."""
    x, tensor = reader.read(node.inputs[0]), reader.get_bytes(node, 0)
    shape = read_shape(x)
    opset = node.version or 13
    axis = attribute_of(node, "axis", -1 if opset >= 13 else 1) % len(shape)
    if opset < 13 and prod(shape[axis + 1 :]) != 1:
        raise reader.refuse(node, "before opset 13 it is taken over several axes at once")
    sink = reader.find_sink(node)
    table = None
    if tensor is not None and tensor.coding is not None:
        distance = -np.arange(256, dtype=np.float64) * np.float64(tensor.coding.scale)
        table = np.exp(distance).astype(np.float32)
    source = tensor if tensor is not None else reader.make_floats(x)
    low, high = (0, 255) if sink is None else (sink.low, sink.high)
    dtype, coding = ("float32", None) if sink is None else ("uint8", sink.coding)
    to = Tensor(name_output(node), shape, dtype, coding)
    reader.add(Softmax(node=name_of(node), inputs=(source,), outputs=(to,), axis=axis, table=table, low=low, high=high))
    reader.write(node, to)
