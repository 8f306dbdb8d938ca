"""Drop nodes that return their input: provably, from constants and inferred shapes.

Identity; Dropout at inference; Cast to the type it has; Reshape, Flatten, Expand to the shape it has; Transpose by the
identity permutation, or undone by the next; Pad by nothing; Slice of everything; Concat, Sum, Max, Min, Mean of one
tensor; Add or Sub of 0, Mul or Div by 1 where the constant does not widen the shape.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import array_of, attribute_of, input_of, ints_of, is_constant, is_op, rank_of

FIRST_DROPOUT_WITH_MODE_INPUT = 12
NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}


def drop_identities(model: ir.Model) -> Changes:
    """Bypass every node that changes nothing; a graph output keeps its name."""
    edits = Edits(model, "drop_identities")
    for node in edits.nodes(*UNCHANGED):
        value = UNCHANGED[node.op_type](node, edits.opset)
        if value is None:
            continue
        if edits.bypass(node, value):
            edits.count += 1
        else:
            edits.decline(node, f"keeps: output {node.outputs[0].name!r} and value {value.name!r} need a name each")
    return edits.changes()


def _identity(node: ir.Node, _opset: int) -> ir.Value | None:
    return node.inputs[0]


def _single(node: ir.Node, _opset: int) -> ir.Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _dropout(node: ir.Node, opset: int) -> ir.Value | None:
    """Dropout at inference, unless its mask is read."""
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return None
    mode = input_of(node, 2) if opset >= FIRST_DROPOUT_WITH_MODE_INPUT else None
    if mode is not None:
        array = array_of(mode)
        if array is None or array.any():
            return None
    return node.inputs[0]


def _cast(node: ir.Node, _opset: int) -> ir.Value | None:
    value = node.inputs[0]
    return value if value is not None and value.dtype == attribute_of(node, "to", 0) else None


def _reshape(node: ir.Node, _opset: int) -> ir.Value | None:
    value = node.inputs[0]
    target = array_of(input_of(node, 1))
    if same_shape(value, node.outputs[0]):
        return value
    if target is None or rank_of(value) != target.size or attribute_of(node, "allowzero", 0):
        return None
    assert value is not None
    assert value.shape is not None
    wanted = [int(length) for length in target]
    # one axis that is left to be computed has the length it had when all others keep theirs
    kept = [length in (0, axis) for length, axis in zip(wanted, value.shape, strict=True)]
    unsure = [length for length, keeps in zip(wanted, kept, strict=True) if not keeps]
    return value if unsure in ([], [-1]) else None


def _same_shape(node: ir.Node, _opset: int) -> ir.Value | None:
    return node.inputs[0] if same_shape(node.inputs[0], node.outputs[0]) else None


def _flatten(node: ir.Node, _opset: int) -> ir.Value | None:
    """Flatten(axis=1) of a matrix."""
    rank = rank_of(node.inputs[0])
    return node.inputs[0] if rank == 2 and attribute_of(node, "axis", 1) in (1, -1) else None


def _transpose(node: ir.Node, _opset: int) -> ir.Value | None:
    value = node.inputs[0]
    rank = rank_of(value)
    perm = attribute_of(node, "perm", ()) or (tuple(range(rank))[::-1] if rank is not None else None)
    if value is None or perm is None:
        return None
    if perm == tuple(range(len(perm))):
        return value
    before = value.producer()
    if before is None or not is_op(before, "Transpose") or before.graph is not node.graph:
        return None
    first = attribute_of(before, "perm", ()) or tuple(range(len(perm)))[::-1]
    return before.inputs[0] if tuple(first[axis] for axis in perm) == tuple(range(len(perm))) else None


def _pad(node: ir.Node, _opset: int) -> ir.Value | None:
    pads = ints_of(node, "pads", 1)
    return node.inputs[0] if pads and not any(pads) else None


def _slice(node: ir.Node, _opset: int) -> ir.Value | None:
    value = node.inputs[0]
    rank = rank_of(value)
    starts, ends = ints_of(node, "starts", 1), ints_of(node, "ends", 2)
    axes, steps = ints_of(node, "axes", 3), ints_of(node, "steps", 4)
    if value is None or value.shape is None or rank is None or not starts or not ends or axes is None or steps is None:
        return None
    axes = axes or tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        length = value.shape[axis]
        whole = end >= length if isinstance(length, int) else end >= np.iinfo(np.int32).max
        if start != 0 or step != 1 or not whole:
            return None
    return value


def _neutral(node: ir.Node, _opset: int) -> ir.Value | None:
    """x + 0, 0 + x, x - 0, x * 1, 1 * x, x / 1, where broadcasting the constant does not lengthen any axis of x."""
    for side in (1, 0):
        constant, value = node.inputs[side], node.inputs[1 - side]
        if value is None or not is_constant(constant) or (side == 0 and node.op_type in ("Sub", "Div")):
            continue
        array = array_of(constant)
        if array is None or value.shape is None or array.ndim > len(value.shape):
            continue
        fits = all(n in (1, axis) for n, axis in zip(array.shape[::-1], list(value.shape)[::-1], strict=False))
        if fits and bool(np.all(array == NEUTRAL[node.op_type])):
            return value
    return None


def same_shape(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Both shapes are known, and each axis has one length or one name in both."""
    if one is None or other is None or one.shape is None or other.shape is None or len(one.shape) != len(other.shape):
        return False
    return all(
        a == b and (isinstance(a, int) or a.value is not None) for a, b in zip(one.shape, other.shape, strict=True)
    )


UNCHANGED: dict[str, Callable[[ir.Node, int], ir.Value | None]] = {
    "Identity": _identity,
    "Dropout": _dropout,
    "Cast": _cast,
    "Reshape": _reshape,
    "Expand": _same_shape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Pad": _pad,
    "Slice": _slice,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
    **dict.fromkeys(NEUTRAL, _neutral),
}
