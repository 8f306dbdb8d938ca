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
from fcdeploy.native.program.layers import FloatLayer, Layer, split_weights
from fcdeploy.native.program.steps import Move
from fcdeploy.native.program.tensors import Floats, Tensor
from fcdeploy.native.reading.moves import move_tensor
from fcdeploy.native.reading.operands import Coded, Fixed, Sink
from fcdeploy.native.reading.products import product
from fcdeploy.native.reading.reader import WRITTEN_AS, Reader, name_output, read_shape

SAME_UNIT = 1e-6  # products of two scales that were rounded in another order are this near
BEYOND = 2.0**40  # of a bias that leaves 32 bits by far


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
    given, axis = _read_coded_input(reader, node, weight.array.shape[out[0]], groups), out[0]
    integers = None if given is None else read_scaled_integers(weight, axis)
    if given is None or integers is None:
        _read_float_layer(reader, node, weight, axis, shape, window, groups, form)
        return
    (x, x_scale), (rows, scale) = given, integers
    unit = np.asarray(x_scale * scale, np.float32)
    bias, real = _read_bias(reader, node, unit, len(rows), form)
    sink = reader.find_sink(node, len(rows) if form == AS_IT_IS and (window or len(shape) == 2) else None)
    if sink is not None and real is not None:
        bias, real = _round_bias(real, unit), None
    zero = x.coding.zero_point  # type: ignore[union-attr]
    total = bias - zero * rows.astype(np.int64).reshape(len(rows), -1).sum(axis=1)
    refuse_overflow(reader, node, rows, total)
    factor = unit if sink is None else np.asarray(unit / _get_scale(sink), np.float32)
    if rows.dtype != np.int8 and window is not None and lies_apart(window, groups):
        x, rows, window = repeat_rows(reader, node, x, rows, window)
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


def _read_coded_input(reader: Reader, node: ir.Node, outs: int, groups: int) -> tuple[Tensor, Array] | None:
    """Bytes, and their scale, or one for each output where each group of channels has its own; None where it is floats."""
    x = reader.read(node.inputs[0])
    if not isinstance(x, Coded) or x.tensor.coding is None:
        return None
    if x.linear:
        return x.tensor, np.asarray(x.tensor.coding.scale)
    scales = x.channel_scales
    if scales is None or outs % groups or len(scales) % groups:
        return None
    each = scales.reshape(groups, -1)
    return (x.tensor, np.repeat(each[:, 0], outs // groups)) if (each == each[:, :1]).all() else None


def lies_apart(window: Window, groups: int) -> bool:
    """Whether the pixels that a row of a window reads do not lie side by side in an image with channels last."""
    return window.kernel[-1] > 1 and (groups > 1 or window.dilations[-1] > 1)


def repeat_rows(
    reader: Reader, node: ir.Node, x: Tensor, weight: Array, window: Window
) -> tuple[Tensor, Array, Window]:
    """A layer of weights that need more than 8 bits as one of several of 8, whose sum they are, each with a row of its own.

    The first axis of space has every row as often: w x = w1 x + w2 x.
    """
    parts = split_weights(weight)
    count, reach = len(parts), window.reach[0]
    index = np.repeat(np.arange(x.shape[2]), count)
    repeated = Tensor(
        reader.make_name(f"{name_output(node)}.rows"), (*x.shape[:2], len(index), *x.shape[3:]), x.dtype, x.coding
    )
    reader.add(Move(node=name_of(node), inputs=(x,), outputs=(repeated,), kind="take", arguments=((2,),), index=index))
    taps = np.zeros((*weight.shape[:2], reach, count, *weight.shape[3:]), np.int8)
    taps[:, :, :: window.dilations[0]] = np.stack(parts, axis=3)
    strides, begins, ends = ((each[0] * count, *each[1:]) for each in (window.strides, window.begins, window.ends))
    kernel = (reach * count, *window.kernel[1:])
    wider = Window(kernel, strides, begins, ends, (1, *window.dilations[1:]))
    return repeated, taps.reshape(*weight.shape[:2], *kernel), wider


def _get_scale(sink: Sink) -> Array:
    return np.asarray(sink.coding.scale) if sink.scales is None else sink.scales


def refuse_overflow(reader: Reader, node: ir.Node, rows: Array, total: Array) -> None:
    """Raises FcdeployError where the sums of an output's bytes times weights (out, ...), and its `total`, can leave 32 bits.

    Each by itself: the bias of a dead channel, whose weights have a scale of next to nothing, is as large as 32 bits hold.
    """
    products = 255 * np.abs(rows.astype(np.int16)).reshape(len(rows), -1).sum(axis=1, dtype=np.int64)
    if (products + np.abs(total)).max(initial=0) >= 2**31:
        raise reader.refuse(node, f"its sums of {prod(rows.shape[1:])} products and the bias can leave 32 bits")


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


def _read_bias(reader: Reader, node: ir.Node, unit: Floats, outs: int, form: Form) -> tuple[Array, Floats | None]:
    """In units of input scale x weight scale, one integer an output; or floats: stored as such, or in units of their own."""
    bias, stored = reader.get_input(node, 2), outs // form.times
    if bias is None:
        return np.zeros(outs, np.int64), None
    if not isinstance(bias, Fixed):
        raise reader.refuse(node, "its bias is computed at run time")
    if (
        form.bias_of_integers
        and bias.integers is not None
        and bias.scale is not None
        and bias.integers.dtype == np.int32
    ):
        own = form.bias(np.broadcast_to(bias.scale.reshape(-1), stored))
        if np.allclose(own, unit, rtol=SAME_UNIT, atol=0):
            return form.bias(np.broadcast_to(bias.integers.reshape(-1).astype(np.int64), stored)), None
    return np.zeros(outs, np.int64), form.bias(np.broadcast_to(bias.array.reshape(-1).astype(np.float32), stored))


def _round_bias(real: Floats, unit: Floats) -> Array:
    """The nearest integers; one far beyond 32 bits where there is none, also in units that float32 rounds to zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        units = real / unit.astype(np.float64)
    return np.rint(np.clip(np.nan_to_num(units, posinf=BEYOND, neginf=-BEYOND), -BEYOND, BEYOND)).astype(np.int64)


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
