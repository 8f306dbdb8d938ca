"""LSTM and GRU: the products with the inputs are one dense layer over all times, the rest one step for each direction."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.nodes import attribute_of, name_of, texts_of
from fcdeploy.native.program.layers import FloatLayer, Layer, Recurrent
from fcdeploy.native.program.steps import Move
from fcdeploy.native.program.tensors import Tensor
from fcdeploy.native.reading.layers import read_scaled_integers, refuse_overflow
from fcdeploy.native.reading.operands import Fixed
from fcdeploy.native.reading.reader import Reader, name_output, read_shape

GATES = {"lstm": 4, "gru": 3}
USUAL = {"lstm": ("sigmoid", "tanh", "tanh"), "gru": ("sigmoid", "tanh")}


def lstm(reader: Reader, node: ir.Node) -> None:
    _read_recurrent(reader, node, "lstm")


def gru(reader: Reader, node: ir.Node) -> None:
    _read_recurrent(reader, node, "gru")


def _read_recurrent(reader: Reader, node: ir.Node, kind: Literal["lstm", "gru"]) -> None:
    weight, again, bias = reader.get_input(node, 1), reader.get_input(node, 2), reader.get_constant(node, 3)
    if (
        not isinstance(weight, Fixed)
        or not isinstance(again, Fixed)
        or (reader.get_input(node, 3) is not None and bias is None)
    ):
        raise reader.refuse(node, "its weights are computed at run time")
    _check(reader, node, kind)
    times, batch = read_shape(reader.read(node.inputs[0]))[:2]
    directions, units = again.array.shape[0], again.array.shape[2]
    count = GATES[kind] * units
    both = np.zeros((directions, 2 * count), np.float32) if bias is None else bias.reshape(directions, 2 * count)
    starts = _read_starts(reader, node, kind, (directions, batch, units))

    parts: list[tuple[Tensor, ...]] = []
    for number in range(directions):
        gates = _read_gates(reader, node, _take_direction(weight, number), both[number, :count], (times, batch, count))
        state = (batch, units)
        tensors = [
            Tensor(reader.make_name(name_output(node)), shape, "float32")
            for shape in ((times, batch, units), state, *([state] if kind == "lstm" else []))
        ]
        given = [_at(reader, node, each, number, state) for each in starts]
        own = _take_direction(again, number)
        integers = read_scaled_integers(own, 0)
        if integers is not None and integers[0].dtype != np.int8:  # less their zero points they need 9 bits
            integers = None
        reader.add(
            Recurrent(
                node=name_of(node), inputs=(gates, *given), outputs=tuple(tensors), kind=kind,
                weight=own.array.astype(np.float32) if integers is None else integers[0],
                scale=None if integers is None else np.broadcast_to(integers[1], count).astype(np.float32),
                bias=both[number, count:].astype(np.float32),
                backwards=number == 1 or attribute_of(node, "direction", "forward") == "reverse",
                reset_last=bool(attribute_of(node, "linear_before_reset", 0)),
            )
        )  # fmt: skip
        parts.append(tuple(tensors))
    _write(reader, node, parts)


def _read_starts(reader: Reader, node: ir.Node, kind: str, shape: tuple[int, ...]) -> list[Tensor]:
    """The states that it starts from as floats; none where it starts from zeros, of this shape."""
    initial = [reader.get_input(node, index) for index in ((5, 6) if kind == "lstm" else (5,))]
    if all(each is None for each in initial):
        return []
    zeros = Fixed(np.zeros(shape, np.float32))
    return [reader.make_floats(zeros if each is None else each) for each in initial]


def _check(reader: Reader, node: ir.Node, kind: str) -> None:
    """Refuse what is not the plain form."""
    directions = 2 if attribute_of(node, "direction", "forward") == "bidirectional" else 1
    named = tuple(name.lower() for name in (texts_of(node, "activations") or USUAL[kind] * directions))
    if named != USUAL[kind] * directions or "clip" in node.attributes or attribute_of(node, "input_forget", 0):
        raise reader.refuse(node, "its activations are not the usual ones, or it clips")
    if attribute_of(node, "layout", 0):
        raise reader.refuse(node, "its layout has the samples first")
    if kind == "lstm" and reader.get_input(node, 7) is not None:
        raise reader.refuse(node, "its cells see themselves (P)")
    times, batch = read_shape(reader.read(node.inputs[0]))[:2]
    lengths = reader.get_constant(node, 4)
    if reader.get_input(node, 4) is not None and not (lengths is not None and np.all(lengths == times)):
        raise reader.refuse(node, f"its sequences have other lengths than {times} for all {batch} samples")


def _take_direction(weight: Fixed, number: int) -> Fixed:
    """One direction of (directions, ...)."""
    array = weight.array[number]
    if weight.integers is None or weight.scale is None or weight.zero is None or weight.axis not in (None, 1):
        return Fixed(array)
    return Fixed(array, weight.integers[number], weight.scale, weight.zero, None if weight.axis is None else 0)


def _read_gates(reader: Reader, node: ir.Node, weight: Fixed, bias: Array, shape: tuple[int, ...]) -> Tensor:
    """The products with the inputs at all times: in integers where those are bytes and the weights too."""
    to = Tensor(reader.make_name(f"{name_output(node)}.gates"), shape, "float32")
    x, integers = reader.get_bytes(node, 0), read_scaled_integers(weight, 0)
    if x is not None and x.coding is not None and integers is not None:
        rows, scale = integers
        factor = np.broadcast_to(np.asarray(x.coding.scale * scale, np.float32), len(rows))
        shift = -x.coding.zero_point * rows.astype(np.int64).sum(axis=1)
        refuse_overflow(reader, node, rows, shift)
        return reader.add(
            Layer(
                node=name_of(node), inputs=(x,), outputs=(to,), weight=rows, bias=shift.astype(np.int32),
                factor=factor.astype(np.float32), real_bias=bias.astype(np.float32),
            )
        )  # fmt: skip
    source, array = reader.make_floats(reader.read(node.inputs[0])), weight.array.astype(np.float32)
    return reader.add(
        FloatLayer(node=name_of(node), inputs=(source,), outputs=(to,), weight=array, bias=bias.astype(np.float32))
    )


def _at(reader: Reader, node: ir.Node, start: Tensor, number: int, shape: tuple[int, ...]) -> Tensor:
    """The state that a direction starts from, of (directions, batch, units)."""
    if start.held is not None:
        return Tensor(reader.make_name(name_output(node)), shape, "float32", held=start.held[number])
    cut = Tensor(reader.make_name(name_output(node)), (1, *shape), "float32")
    arguments = ((number, 0, 0), (1, 1, 1))
    reader.add(Move(node=name_of(node), inputs=(start,), outputs=(cut,), kind="slice", arguments=arguments))
    return reader.add(
        Move(node=name_of(node), inputs=(cut,), outputs=(Tensor(reader.make_name(name_output(node)), shape, "float32"),),
             kind="reshape")
    )  # fmt: skip


def _write(reader: Reader, node: ir.Node, parts: list[tuple[Tensor, ...]]) -> None:
    """Outputs (times, directions, batch, units) and (directions, batch, units) of the parts of each direction."""
    for index, value in enumerate(node.outputs):
        if not value.name or (not value.uses() and not value.is_graph_output()):
            continue
        axis = 1 if index == 0 else 0
        each = [part[index] for part in parts]
        widened = []
        for tensor in each:
            shape = (*tensor.shape[:axis], 1, *tensor.shape[axis:])
            last = len(each) == 1
            to = Tensor(
                name_output(node, index) if last else reader.make_name(name_output(node, index)), shape, "float32"
            )
            widened.append(reader.add(Move(node=name_of(node), inputs=(tensor,), outputs=(to,), kind="reshape")))
        whole = widened[0]
        if len(widened) > 1:
            shape = tuple(2 if i == axis else n for i, n in enumerate(widened[0].shape))
            whole = reader.add(
                Move(node=name_of(node), inputs=tuple(widened), outputs=(Tensor(name_output(node, index), shape, "float32"),),
                     kind="concat", arguments=((axis,),))
            )  # fmt: skip
        reader.set(value, whole)
