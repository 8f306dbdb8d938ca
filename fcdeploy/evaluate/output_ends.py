"""What the graph says of an output: the operator that makes its numbers, and where its classes are.

What only moves numbers about (Reshape, Transpose, ...) is looked through, and so are parts put together by Concat: the levels
of a detector, one behind another, and at each anchor four numbers of a box beside scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from typing import Literal

import onnx_ir as ir

from fcdeploy.graph.nodes import (  # fmt: skip
    attribute_of,
    input_of,
    ints_of,
    is_constant,
    is_op,
    name_of,
    output_axis,
    producer_of,
    rank_of,
    subgraphs_of,
    walk_back,
    weight_of,
)
from fcdeploy.records.box_layout import BOX, BoxLayout

MOVED = (
    "Identity",
    "Cast",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Reshape",
    "Flatten",
    "QuantizeLinear",
    "DequantizeLinear",
)
TAKEN = ("Split", "Slice", "Gather")
SELECTS = ("NonMaxSuppression", "TopK", "NonZero", "Compress", "Unique")
UP_TO_ONE = ("Sigmoid", "HardSigmoid")
BETWEEN = ("ReduceMean", "ReduceMax", "ReduceMin", "AveragePool", "GlobalAveragePool", "MaxPool", "GlobalMaxPool")
SUM_TO_ONE = ("Softmax", "LogSoftmax")
Kind = Literal["softmax", "sigmoid", "dense", "convolution", "embedding", "parts", "other"]


@dataclass(frozen=True)
class Part:
    """Channels from `start` to before `stop`, of what kind."""

    start: int
    stop: int
    kind: Kind


ALL_COUNT = -1  # in place of a background: no class is nearly everywhere


@dataclass(frozen=True)
class OutputEnd:
    """What the graph says of an output: the operator that makes its numbers, and the axis of classes if it has one.

    Where channels of `axis` are put together from `parts`, what each is.
    `selected`: which rows it has, and how many, depends on values.  `classes` are how many there are, which tells their axis
    where a Reshape behind them hides it; `by_token` whether there is an answer for each token of an input; `maps` channels, rows
    and columns of each convolution's map that it is put together from, one behind another.  `decides` and `boxes`: what was found
    of it by other samples, None where nobody looked, or where no boxes are.  `background` is the class of positions where nothing
    is, or ALL_COUNT, by other samples too.
    """

    kind: Kind
    axis: int | None = None
    selected: bool = False
    parts: tuple[Part, ...] = ()
    classes: int | None = field(default=None, compare=False)
    by_token: bool = field(default=False, compare=False)
    maps: tuple[tuple[int, int, int], ...] = field(default=(), compare=False)
    decides: bool | None = field(default=None, compare=False)
    boxes: BoxLayout | None = field(default=None, compare=False)
    background: int | None = field(default=None, compare=False)


def find_ends(model: ir.Model) -> dict[str, OutputEnd]:
    """What makes the numbers of each output."""
    tokens = [value for value in model.graph.inputs if value.dtype in (ir.DataType.INT32, ir.DataType.INT64)]
    return {name_of(value): _describe(value, tokens) for value in model.graph.outputs}


def mark_boxes(ends: Mapping[str, OutputEnd], boxes: BoxLayout) -> dict[str, OutputEnd]:
    """The same where boxes were found by other samples."""
    return {name: replace(end, boxes=boxes if name == boxes.boxes else None) for name, end in ends.items()}


def _describe(value: ir.Value, tokens: list[ir.Value]) -> OutputEnd:
    return replace(
        _find_end(value),
        selected=_is_selected(value),
        by_token=any(_are_in_step(value, each) for each in tokens),
        maps=_list_maps(value),
    )


def _list_maps(value: ir.Value) -> tuple[tuple[int, int, int], ...]:
    """The maps that an output is put together from; none where others than convolutions make its numbers."""
    node = producer_of(value)
    while is_op(node, *MOVED):
        assert node is not None
        node = producer_of(_data_of(node))
    if node is None:
        return ()
    if is_op(node, "Concat"):
        parts = [_list_maps(each) for each in node.inputs if each is not None]
        return tuple(chain(*parts)) if all(parts) else ()
    shape = node.outputs[0].shape
    lengths = [length for length in (() if shape is None else tuple(shape)[1:]) if isinstance(length, int)]
    return ((lengths[0], lengths[1], lengths[2]),) if is_op(node, "Conv") and len(lengths) == 3 else ()


def _are_in_step(output: ir.Value, tokens: ir.Value) -> bool:
    """Whether an output (n, steps, ...) has as many steps as an input (n, steps) of integers, whatever their number."""
    if output.shape is None or tokens.shape is None or len(output.shape) < 3 or len(tokens.shape) != 2:
        return False
    one, other = output.shape[1], tokens.shape[1]
    if isinstance(one, int) or isinstance(other, int):
        return one == other
    return one.value is not None and one.value == other.value


def _find_end(value: ir.Value) -> OutputEnd:
    """Walks back over what moves numbers, to what makes them; the axis of classes is followed on the way."""
    moved: list[ir.Node] = []
    node = producer_of(value)
    while node is not None and (is_op(node, *MOVED, *TAKEN, *BETWEEN) or _adds_constant(node)):
        moved.append(node)
        node = producer_of(_data_of(node))
    if node is None:
        return OutputEnd("other")
    if is_op(node, "If"):
        return _find_end_in_bodies(node, _data_of(moved[-1]) if moved else value, moved)
    end, length = _read_node(node)
    if end.kind in ("sigmoid", "parts") and any(map(_adds_constant, moved)):
        return OutputEnd("other")
    if end.kind == "sigmoid":  # any of them, and a mean of shares, are shares
        return end
    if any(is_op(step, *BETWEEN, *TAKEN) for step in moved):
        return OutputEnd("other")
    axis = end.axis
    for step in reversed(moved):
        axis = None if axis is None else _follow(step, axis, length)
    if end.kind == "embedding":
        return end
    counted = length if end.kind != "parts" else None
    return OutputEnd("other") if axis is None and counted is None else replace(end, axis=axis, classes=counted)


def _read_node(node: ir.Node) -> tuple[OutputEnd, int | None]:
    """What a node makes, and how many channels its axis of classes or parts has, if that is known."""
    if is_op(node, *UP_TO_ONE) or _multiplies_shares(node):
        return OutputEnd("sigmoid"), None
    if is_op(node, "Concat"):
        return _read_concat(node)
    if _is_normalized(node):
        return OutputEnd("embedding"), None
    axis, classes = _class_axis(node)
    if axis is None:
        return OutputEnd("other"), None
    kind: Kind = "softmax" if is_op(node, *SUM_TO_ONE) else "convolution" if "Conv" in node.op_type else "dense"
    return OutputEnd(kind, axis), classes


def _multiplies_shares(node: ir.Node) -> bool:
    """Whether an object is there, times which it is."""
    return is_op(node, "Mul") and all(value is not None and _find_end(value).kind == "sigmoid" for value in node.inputs)


def _read_concat(node: ir.Node) -> tuple[OutputEnd, int | None]:
    """Levels one behind another are what each level is; numbers beside shares are parts."""
    rank = rank_of(node.outputs[0])
    if rank is None or any(value is None for value in node.inputs):
        return OutputEnd("other"), None
    axis = attribute_of(node, "axis", 0) % rank
    ends = [_find_end(value) for value in node.inputs if value is not None]
    lengths = [_length_of(value, axis) for value in node.inputs]
    if (
        lengths[0] == BOX and set(lengths) != {BOX} and ends[0].kind == "sigmoid"
    ):  # ends of a box as shares of the picture
        ends[0] = OutputEnd("other")
    first = ends[0]
    if all(end == first for end in ends):
        levels = first.kind == "sigmoid" or (first.kind in ("softmax", "parts") and first.axis not in (None, axis))
        length = None if not levels or first.axis is None else _length_of(node.inputs[0], first.axis)
        return (first if levels else OutputEnd("other")), length
    if not any(end.kind == "sigmoid" for end in ends) or None in lengths:
        return OutputEnd("other"), None
    stops = list(accumulate(length or 0 for length in lengths))
    starts = [0, *stops[:-1]]
    parts = tuple(Part(start, stop, end.kind) for start, stop, end in zip(starts, stops, ends, strict=True))
    return OutputEnd("parts", axis, parts=parts), stops[-1]


def _length_of(value: ir.Value | None, axis: int) -> int | None:
    """How long an axis of a tensor is, where the graph says it."""
    shape = None if value is None else value.shape
    length = shape[axis] if shape is not None and axis < len(shape) else None
    return length if isinstance(length, int) else None


def _find_end_in_bodies(node: ir.Node, output: ir.Value | None, moved: list[ir.Node]) -> OutputEnd:
    """What both bodies of an If say of an output of it, where only its axes stay as they are behind it."""
    at = next(i for i, each in enumerate(node.outputs) if each is output)
    ends = {_find_end(body.outputs[at]) for body in subgraphs_of(node)}
    plain = not any(_adds_constant(step) or is_op(step, "Transpose", "Reshape") for step in moved)
    return ends.pop() if len(ends) == 1 and plain else OutputEnd("other")


def _is_selected(value: ir.Value) -> bool:
    """Whether a node before an output picks rows by their values."""
    return any(is_op(node, *SELECTS) for node in walk_back([value]))


def _adds_constant(node: ir.Node) -> bool:
    """An Add of a bias, or a Mul or Div by one positive number, which change no order of scores for the first."""
    return is_op(node, "Add", "Mul", "Div") and any(is_constant(value) for value in node.inputs)


def _data_of(node: ir.Node) -> ir.Value | None:
    """What a node moves or adds a constant to."""
    return next((value for value in node.inputs if not is_constant(value)), None)


def _weight_of(node: ir.Node) -> ir.Value | None:
    """The constant weight of a layer, stored as floats or as integers."""
    stored = producer_of(input_of(node, 1))
    if is_op(stored, "DequantizeLinear"):
        assert stored is not None
        return stored.inputs[0] if is_constant(stored.inputs[0]) else None
    return weight_of(node)


def _class_axis(node: ir.Node) -> tuple[int | None, int | None]:
    """The axis of classes of a node's output, and how many there are if that is known."""
    rank = rank_of(node.outputs[0])
    weight = _weight_of(node)
    if is_op(node, *SUM_TO_ONE):
        axis = attribute_of(node, "axis", -1)
        axis = axis + rank if axis < 0 and rank is not None else axis
        length = None if rank is None or not 0 <= axis < rank else node.outputs[0].shape[axis]  # type: ignore[index]
        return (axis if axis >= 0 else None), length if isinstance(length, int) else None
    if is_op(node, "Conv", "ConvTranspose") and weight is not None and weight.shape is not None:
        length = weight.shape[0 if node.op_type == "Conv" else 1]
        return 1, length if isinstance(length, int) else None
    if is_op(node, "Gemm", "MatMul") and weight is not None and weight.shape is not None and len(weight.shape) > 1:
        length = weight.shape[output_axis(node)]
        read = rank_of(node.inputs[0]) if node.op_type == "MatMul" else 2
        return (None if read is None else read - 1), length if isinstance(length, int) else None
    return None, None


def _follow(node: ir.Node, axis: int, classes: int | None) -> int | None:
    """Where an axis of a node's input is in its output; None where that is not certain."""
    rank = rank_of(node.outputs[0])
    if is_op(node, "Transpose"):
        permutation = attribute_of(node, "perm", ())
        return permutation.index(axis) if axis in permutation else None
    if is_op(node, "Squeeze", "Unsqueeze"):
        axes = ints_of(node, "axes", 1)
        if not axes or rank is None:
            return None
        if is_op(node, "Squeeze"):
            gone = {a % (rank + len(axes)) for a in axes}
            return None if axis in gone else axis - sum(a < axis for a in gone)
        new = {a % rank for a in axes}
        return [a for a in range(rank) if a not in new][axis]
    if is_op(node, "Reshape", "Flatten"):
        shape = node.outputs[0].shape
        places = [at for at, length in enumerate(shape or ()) if at and length == classes]
        return places[0] if classes and len(places) == 1 else None
    return axis


def _is_normalized(node: ir.Node) -> bool:
    """A row divided by its own norm: the root of a sum of squares, not a sum, whose shares are another thing."""
    if is_op(node, "LpNormalization"):
        return True
    below = producer_of(node.inputs[1]) if is_op(node, "Div") and len(node.inputs) == 2 else None
    root = False
    while is_op(below, "Clip", "Max", "Expand", "Sqrt", "Add", "Unsqueeze", "Reshape", "Pow"):
        assert below is not None
        root |= is_op(below, "Sqrt", "Pow")
        below = producer_of(_data_of(below))
    return is_op(below, "ReduceL2") or (root and is_op(below, "ReduceSumSquare", "ReduceSum"))
