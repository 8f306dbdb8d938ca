"""Convolutions and dense layers, on bytes or on floats: Conv, Gemm, MatMul with weights that are constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.windows import Window
from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import attribute_of, name_of
from fcdeploy.graph.windows import read_window
from fcdeploy.native.program.layers import FloatLayer, Layer
from fcdeploy.native.program.tensors import Floats, Tensor
from fcdeploy.native.reading.moves import move_tensor
from fcdeploy.native.reading.operands import Fixed
from fcdeploy.native.reading.products import product
from fcdeploy.native.reading.reader import WRITTEN_AS, Reader, name_output, read_shape


@dataclass(frozen=True)
class Form:
    """A layer whose outputs are those of another operator in another order: `times` as many, the bias of each, and the rest.

    Without `bias_of_integers` a bias that is stored as integers is read as the numbers they stand for.
    """

    times: int = 1
    bias: Callable[[Array], Array] = lambda bias: bias
    finish: Callable[[Tensor], Tensor] = lambda tensor: tensor
    bias_of_integers: bool = True

    def name(self, reader: Reader, node: ir.Node) -> str:
        return name_output(node) if self == AS_IT_IS else reader.make_name(name_output(node))


AS_IT_IS = Form()


def conv(reader: Reader, node: ir.Node) -> None:
    x, weight = read_shape(reader.read(node.inputs[0])), reader.get_input(node, 1)
    if not isinstance(weight, Fixed):
        raise reader.refuse(node, "its weights are computed at run time")
    if len(x) not in (3, 4):
        raise reader.refuse(node, f"its input has {len(x)} axes, expected 3 or 4")
    window = read_window(node, x[2:], weight.array.shape[2:])
    groups = attribute_of(node, "group", 1)
    shape = (x[0], len(weight.array), *window.outputs(x[2:]))
    if min(shape) < 1:
        raise reader.refuse(node, f"its output would have the shape {list(shape)}")
    read_layer(reader, node, weight, (0, weight), shape, window, groups)


def gemm(reader: Reader, node: ir.Node) -> None:
    """alpha * x W + beta * bias: alpha is a part of the weights' scale, and a bias of integers is in its units for a QGemm."""
    alpha, beta = (np.float32(attribute_of(node, name, 1.0)) for name in ("alpha", "beta"))
    weight, form = reader.get_input(node, 1), AS_IT_IS
    if not isinstance(weight, Fixed):
        raise reader.refuse(node, "its weights are computed at run time")
    if attribute_of(node, "transA", 0):
        raise reader.refuse(node, "its transA is not the plain one")
    if alpha != 1:
        weight = replace(
            weight, array=weight.array * alpha, scale=None if weight.scale is None else weight.scale * alpha
        )
    if (alpha != 1 or beta != 1) and node.meta.get(WRITTEN_AS) != "QGemm":
        form = replace(AS_IT_IS, bias=lambda values: np.asarray(values * beta, values.dtype), bias_of_integers=False)
    _read_dense(reader, node, weight, form, transposed=bool(attribute_of(node, "transB", 0)))


def matmul(reader: Reader, node: ir.Node) -> None:
    weight = reader.get_input(node, 1)
    if isinstance(weight, Fixed) and weight.array.ndim == 2:
        _read_dense(reader, node, weight, AS_IT_IS, transposed=False)
    elif isinstance(weight, Fixed) and weight.array.ndim == 1:  # one output, whose axis goes
        column = Fixed(weight.array[:, None])
        if weight.integers is not None and weight.axis is None:
            column = replace(weight, array=column.array, integers=weight.integers[:, None])
        out = read_shape(reader.read(node.inputs[0]))[:-1]
        form = Form(finish=lambda tensor: move_tensor(reader, node, tensor, "reshape", out))
        _read_dense(reader, node, column, form, transposed=False)
    else:
        product(reader, node)


def _read_dense(reader: Reader, node: ir.Node, weight: Fixed, form: Form, *, transposed: bool) -> None:
    x = read_shape(reader.read(node.inputs[0]))
    axis = 0 if transposed else 1
    read_layer(reader, node, weight, (axis, weight), (*x[:-1], weight.array.shape[axis]), None, 1, form)


def read_layer(
    reader: Reader,
    node: ir.Node,
    weight: Fixed,
    out: tuple[int, Fixed],
    shape: tuple[int, ...],
    window: Window | None,
    groups: int,
    form: Form = AS_IT_IS,
) -> None:
    """A layer with output channels along the axis `out[0]` of its weight."""
    x, axis = reader.get_bytes(node, 0), out[0]
    integers = None if x is None else read_scaled_integers(weight, axis)
    if x is None or integers is None:
        _read_float_layer(reader, node, weight, axis, shape, window, groups, form)
        return
    rows, scale = integers
    unit = np.asarray(x.coding.scale * scale, np.float32)  # type: ignore[union-attr]
    bias, real = _read_bias(reader, node, len(rows) // form.times, integers=form.bias_of_integers)
    bias, real = form.bias(bias), None if real is None else form.bias(real)
    sink = reader.find_sink(node)
    if sink is not None and real is not None:
        bias, real = np.rint(real / unit).astype(np.int64), None
    zero = x.coding.zero_point  # type: ignore[union-attr]
    total = bias - zero * rows.astype(np.int64).reshape(len(rows), -1).sum(axis=1)
    refuse_overflow(reader, node, rows, total)
    factor = unit if sink is None else np.asarray(unit / sink.coding.scale, np.float32)
    low, high = (0, 255) if sink is None else (sink.low, sink.high)
    dtype, coding = ("float32", None) if sink is None else ("uint8", sink.coding)
    to = Tensor(form.name(reader, node), shape, dtype, coding)
    reader.add(
        Layer(
            node=name_of(node), inputs=(x,), outputs=(to,), weight=rows, bias=total.astype(np.int32),
            factor=np.broadcast_to(factor, len(rows)).astype(np.float32), real_bias=real, window=window, groups=groups,
            low=low, high=high,
        )
    )  # fmt: skip
    reader.write(node, form.finish(to))


def refuse_overflow(reader: Reader, node: ir.Node, rows: Array, total: Array) -> None:
    """Raises FcdeployError where sums of bytes times weights (out, ...), and `total`, which is added, can leave 32 bits."""
    reduced = prod(rows.shape[1:])
    largest = reduced * 255 * int(np.abs(rows.astype(np.int64)).max(initial=0))
    if largest + int(np.abs(total).max(initial=0)) >= 2**31:
        raise reader.refuse(node, f"its sums of {reduced} products and the bias can leave 32 bits")


def read_scaled_integers(weight: Fixed, axis: int) -> tuple[Array, Floats] | None:
    """Weights (out, ...) less their zero points, in the fewest bits, and one scale or one for each output."""
    if weight.integers is None or weight.scale is None or weight.zero is None:
        return None
    if weight.integers.dtype not in (np.int8, np.uint8):
        return None
    if weight.axis not in (None, axis) and weight.scale.size > 1:
        return None
    rows = np.moveaxis(weight.integers, axis, 0).astype(np.int16)
    zero = weight.zero.astype(np.int16).reshape(-1, *[1] * (rows.ndim - 1))
    rows = rows - zero
    fits = rows.min(initial=0) >= -128 and rows.max(initial=0) <= 127
    return (rows.astype(np.int8) if fits else rows), weight.scale.reshape(-1)


def _read_bias(reader: Reader, node: ir.Node, outs: int, *, integers: bool) -> tuple[Array, Floats | None]:
    """In units of input scale x weight scale, one integer an output; or, stored as float or not asked for so, floats."""
    bias = reader.get_input(node, 2)
    if bias is None:
        return np.zeros(outs, np.int64), None
    if integers and isinstance(bias, Fixed) and bias.integers is not None and bias.integers.dtype == np.int32:
        return np.broadcast_to(bias.integers.reshape(-1).astype(np.int64), outs), None
    if isinstance(bias, Fixed):
        return np.zeros(outs, np.int64), np.broadcast_to(bias.array.reshape(-1).astype(np.float32), outs)
    raise reader.refuse(node, "its bias is computed at run time")


def _read_float_layer(
    reader: Reader, node: ir.Node, weight: Fixed, axis: int, shape: tuple[int, ...], window: Window | None, groups: int,
    form: Form,
) -> None:  # fmt: skip
    bias = reader.get_constant(node, 2)
    if reader.get_input(node, 2) is not None and bias is None:
        raise reader.refuse(node, "its bias is computed at run time")
    rows = np.moveaxis(weight.array, axis, 0).astype(np.float32)
    added = np.zeros(len(rows) // form.times) if bias is None else bias.reshape(-1)
    added = form.bias(np.broadcast_to(added.astype(np.float32), len(rows) // form.times))
    to = Tensor(form.name(reader, node), shape, "float32")
    reader.add(
        FloatLayer(
            node=name_of(node), inputs=(reader.make_floats(reader.read(node.inputs[0])),), outputs=(to,), weight=rows,
            bias=added.astype(np.float32), window=window, groups=groups,
        )
    )  # fmt: skip
    reader.set(node.outputs[0], form.finish(to))
