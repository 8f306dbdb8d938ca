"""Shape arithmetic: what a graph computes from the lengths of axes, worked out with free axes kept as symbols.

Each small integer vector is followed as a tuple of entries, an entry being a number, or the length of an axis (by its
name, or by tensor and position when it has none), or unknown.  Then

 1. a vector that is all numbers becomes an initializer;
 2. the target of a Reshape becomes constant when every free entry is the length of the same axis of what is reshaped
    (0, "keep"), but for one at most (-1, "the rest"):

        Shape -> Gather(0) -> Unsqueeze -> Concat([batch, -1, 2]) -> Reshape     =>     Reshape to [0, -1, 2]
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import attribute_of, input_of, ints_of, is_constant, static_shape, tensor_of

Entry = int | str | None
"""A number, the name of an axis's length, or unknown."""


class Vector(tuple[Entry, ...]):
    """The entries of an integer tensor of rank 0 or 1; `scalar` tells the two apart."""

    scalar: bool

    def __new__(cls, entries: list[Entry] | tuple[Entry, ...], *, scalar: bool = False) -> Vector:
        made = super().__new__(cls, tuple(entries))
        made.scalar = scalar
        return made


Known = dict[ir.Value, Vector]
LONGEST = 64  # entries; a shape has fewer than ten


def fold_shapes(model: ir.Model) -> Changes:
    """Replace shape arithmetic by constants; what stays computed at run time is left as it is."""
    edits = Edits(model, "fold_shapes")
    known: Known = {}
    for value in model.graph.initializers.values():
        if is_constant(value) and value.dtype in (ir.DataType.INT64, ir.DataType.INT32):
            _remember_constant(known, value)
    for node in edits.nodes(*RULES):
        vector = RULES[node.op_type](node, known)
        if vector is not None and len(vector) <= LONGEST:
            known[node.outputs[0]] = vector
    for node in edits.nodes(*RULES):
        vector = known.get(node.outputs[0])
        if vector is not None and all(isinstance(entry, int) for entry in vector):
            _replace(edits, node, vector)
    for node in edits.nodes("Reshape"):
        target = input_of(node, 1)
        if target is not None and target in known and not is_constant(target):
            _fix_target(edits, node, known[target])
    return edits.changes()


def _remember_constant(known: Known, value: ir.Value) -> None:
    tensor = tensor_of(value)
    if tensor is not None and tensor.size <= LONGEST and len(tensor.shape) <= 1:
        array = tensor.numpy()
        known[value] = Vector([int(item) for item in array.reshape(-1)], scalar=array.ndim == 0)


def _replace(edits: Edits, node: ir.Node, vector: Vector) -> None:
    output = node.outputs[0]
    if output.is_graph_output() or output.dtype not in (ir.DataType.INT64, ir.DataType.INT32):
        return
    array = np.asarray(vector, output.dtype.numpy())
    output.replace_all_uses_with(edits.constant(f"{output.name}.folded", array.reshape(()) if vector.scalar else array))
    edits.graph.remove(node, safe=True)
    edits.count += 1


def _fix_target(edits: Edits, node: ir.Node, vector: Vector) -> None:
    """Give a Reshape a constant target, when at most one entry must be left to be computed from the others."""
    data = node.inputs[0]
    axes = _lengths(data)
    if attribute_of(node, "allowzero", 0) and 0 in vector:
        edits.decline(node, "keeps a computed target: it asks for an axis of length 0")
        return
    target: list[int] = []
    for position, entry in enumerate(vector):
        if isinstance(entry, int):
            target.append(entry)
        elif entry is not None and position < len(axes) and axes[position] == entry:
            target.append(0)
        else:
            target.append(-1)
    if target.count(-1) > 1:
        free = [position for position, length in enumerate(target) if length == -1]
        edits.decline(node, f"keeps a computed target: the lengths of its axes {free} are only known at run time")
        return
    node.replace_input_with(1, edits.constant(f"{node.name}.shape", np.asarray(target, np.int64)))
    node.attributes.pop("allowzero", None)
    edits.count += 1


def _lengths(value: ir.Value | None) -> list[Entry]:
    """One entry per axis; an axis without a name gets one that no other tensor's axis has."""
    if value is None or value.shape is None:
        return []
    entries: list[Entry] = []
    for position, length in enumerate(value.shape):
        if isinstance(length, int):
            entries.append(length)
        else:
            entries.append(f"axis {length.value}" if length.value is not None else f"{value.name}[{position}]")
    return entries


def _shape(node: ir.Node, _known: Known) -> Vector | None:
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    start, end = attribute_of(node, "start", 0), attribute_of(node, "end", len(value.shape))
    return Vector(_lengths(value)[start:end])


def _size(node: ir.Node, _known: Known) -> Vector | None:
    shape = static_shape(node.inputs[0])
    return None if shape is None else Vector([math.prod(shape)], scalar=True)


def _gather(node: ir.Node, known: Known) -> Vector | None:
    data, index = _inputs(node, known, 2)
    if data is None or index is None or data.scalar or attribute_of(node, "axis", 0) not in (0, -1):
        return None
    if not all(isinstance(at, int) and -len(data) <= at < len(data) for at in index):
        return None
    return Vector([data[at] for at in index if isinstance(at, int)], scalar=index.scalar)


def _unsqueeze(node: ir.Node, known: Known) -> Vector | None:
    (data,) = _inputs(node, known, 1)
    axes = ints_of(node, "axes", 1)
    return Vector(data) if data is not None and data.scalar and axes in ((0,), (-1,)) else None


def _squeeze(node: ir.Node, known: Known) -> Vector | None:
    (data,) = _inputs(node, known, 1)
    axes = ints_of(node, "axes", 1)
    fits = data is not None and not data.scalar and len(data) == 1 and axes in ((0,), (-1,), ())
    return Vector(data, scalar=True) if fits and data is not None else None


def _concat(node: ir.Node, known: Known) -> Vector | None:
    """Unknown parts of a known length matter too: the rest may still be a target with one free entry."""
    entries: list[Entry] = []
    for value in node.inputs:
        vector = known.get(value) if value is not None else None
        if vector is None:
            length = value.shape[0] if value is not None and value.shape is not None and len(value.shape) == 1 else None
            if not isinstance(length, int) or length > LONGEST:
                return None
            vector = Vector([None] * length)
        if vector.scalar:
            return None
        entries.extend(vector)
    return Vector(entries) if _is_integer(node.outputs[0]) else None


def _slice(node: ir.Node, known: Known) -> Vector | None:
    (data,) = _inputs(node, known, 1)
    starts, ends = ints_of(node, "starts", 1), ints_of(node, "ends", 2)
    axes, steps = ints_of(node, "axes", 3), ints_of(node, "steps", 4)
    if data is None or data.scalar or not starts or not ends or axes is None or steps is None or len(starts) != 1:
        return None
    step = steps[0] if steps else 1
    if step < 1:
        return None
    return Vector(data[starts[0] : ends[0] : step])


def _same(node: ir.Node, known: Known) -> Vector | None:
    (data,) = _inputs(node, known, 1)
    return data if data is not None and _is_integer(node.outputs[0]) else None


def _reshape(node: ir.Node, known: Known) -> Vector | None:
    data, target = _inputs(node, known, 2)
    if data is None or target is None or target.scalar:
        return None
    if len(target) == 0 and len(data) == 1:
        return Vector(data, scalar=True)
    return Vector(data) if tuple(target) in ((-1,), (len(data),)) and len(data) else None


def _arithmetic(node: ir.Node, known: Known) -> Vector | None:
    """Numbers are computed; x * 1, x / 1, x + 0 and x - 0 keep a symbol; anything else is unknown."""
    a, b = _inputs(node, known, 2)
    if a is None or b is None or not _is_integer(node.outputs[0]):
        return None
    length = max(len(a), len(b))
    if len(a) not in (1, length) or len(b) not in (1, length):
        return None
    left, right = (vector if len(vector) == length else vector * length for vector in (a, b))
    entries = [_compute(node.op_type, x, y) for x, y in zip(left, right, strict=True)]
    return Vector(entries, scalar=a.scalar and b.scalar)


def _compute(op_type: str, x: Entry, y: Entry) -> Entry:
    if isinstance(x, int) and isinstance(y, int):
        if op_type == "Div":
            return abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) if y else None
        return {"Add": x + y, "Sub": x - y, "Mul": x * y}[op_type]
    neutral = 0 if op_type in ("Add", "Sub") else 1
    if y == neutral:
        return x
    return y if x == neutral and op_type in ("Add", "Mul") else None


def _inputs(node: ir.Node, known: Known, count: int) -> list[Vector | None]:
    values = [input_of(node, index) for index in range(count)]
    return [known.get(value) if value is not None else None for value in values]


def _is_integer(value: ir.Value) -> bool:
    return value.dtype in (ir.DataType.INT64, ir.DataType.INT32)


RULES: dict[str, Callable[[ir.Node, Known], Vector | None]] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Slice": _slice,
    "Cast": _same,
    "Identity": _same,
    "Reshape": _reshape,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
}
