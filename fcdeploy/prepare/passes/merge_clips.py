"""Clipping activations in the form that disappears in front of a QuantizeLinear.

    Max(x, a), Min(x, b) with one-number constants  ->  Clip(x, a, b)
    Clip(x, 0, infinity or the largest float)       ->  Relu(x)
    Clip(x, -infinity, infinity)                    ->  x
    Clip(Clip(x, a, b), c, d)                       ->  Clip(x, clip(a, c, d), clip(b, c, d))
    Relu(Clip(x, a, b))                             the same, with c, d = 0, infinity

Bounds of the smallest float stay: masks of -infinity are made finite by them, so that no softmax is NaN.

From operator set 11 on the bounds are inputs, here scalar constants.  Before that they are attributes and stay so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import array_of, clip_bounds, is_constant, is_op, rank_of, tensor_of

FIRST_WITH_INPUTS = 11
LARGEST = float(np.finfo(np.float32).max)  # exporters write it for "no bound"; it clips nothing but infinities


@dataclass(frozen=True)
class ClipBounds:
    low: float = -math.inf
    high: float = math.inf


def merge_clips(model: ir.Model) -> Changes:
    """Bring every Relu, Clip, and Max or Min by a constant into as few nodes as possible."""
    edits = Edits(model, "merge_clips")
    for node in edits.nodes("Relu", "Clip", "Max", "Min"):
        value, bounds = _read_clip(node)
        if isinstance(bounds, str):
            if is_op(node, "Clip"):
                edits.decline(node, f"keeps its form: {bounds}")
            continue
        if value is None or value.dtype != ir.DataType.FLOAT:
            continue
        before = _clip_before(edits, value, node)
        if before is not None:
            value, first = before.inputs[0], _read_clip(before)[1]
            assert value is not None
            assert isinstance(first, ClipBounds)
            bounds = _compose(first, bounds)
        _write_shortest(edits, node, value, bounds, merged=before is not None)
        if before is not None and not before.outputs[0].uses():
            edits.graph.remove(before, safe=True)
    return edits.changes()


def _clip_before(edits: Edits, value: ir.Value, node: ir.Node) -> ir.Node | None:
    """The Relu, or Clip by constants, that computes `value` for this node alone."""
    producer = value.producer()
    if producer is None or not is_op(producer, "Relu", "Clip") or edits.only_reader(value) is not node:
        return None
    return None if isinstance(_read_clip(producer)[1], str) else producer


def _compose(first: ClipBounds, second: ClipBounds) -> ClipBounds:
    """clip(clip(x, first), second) as one: both bounds of the first pass through the second."""
    low, high = (min(max(bound, second.low), second.high) for bound in (first.low, first.high))
    return ClipBounds(low, high)


def _read_clip(node: ir.Node) -> tuple[ir.Value | None, ClipBounds | str]:
    """What a node clips and to what; or why it is not a clip by constants."""
    if is_op(node, "Relu"):
        return node.inputs[0], ClipBounds(low=0.0)
    if is_op(node, "Clip"):
        return node.inputs[0], _clip_bounds(node)
    if len(node.inputs) != 2 or is_constant(node.inputs[0]) == is_constant(node.inputs[1]):
        return None, "it does not compare one tensor with one constant"
    side = 1 if is_constant(node.inputs[1]) else 0
    value, array = node.inputs[1 - side], array_of(node.inputs[side])
    rank = rank_of(value)
    if array is None or array.size != 1 or rank is None or array.ndim > rank or not np.isfinite(array).all():
        return None, "its constant is not one finite number"
    bound = float(array.reshape(-1)[0])
    return value, ClipBounds(low=bound) if is_op(node, "Max") else ClipBounds(high=bound)


def _clip_bounds(node: ir.Node) -> ClipBounds | str:
    for value in node.inputs[1:]:
        tensor = tensor_of(value)
        if value is not None and (tensor is None or tensor.size != 1):
            return f"its bound {value.name!r} is computed at run time"
    low, high = clip_bounds(node)
    for name, bound in (("min", low), ("max", high)):
        if math.isnan(bound):
            return f"its {name} is not a number"
    return ClipBounds(low, high) if low <= high else f"its min {low:g} lies above its max {high:g}"


def _write_shortest(edits: Edits, node: ir.Node, value: ir.Value, bounds: ClipBounds, *, merged: bool) -> None:
    """Replace `node` by the shortest form of clipping `value`, unless it has that form already."""
    if bounds == ClipBounds():
        edits.count += edits.bypass(node, value)
    elif bounds.low == 0 and bounds.high >= LARGEST:
        if merged or not is_op(node, "Relu"):
            edits.replace(node, "Relu", [value])
            edits.count += 1
    elif merged or not is_op(node, "Clip"):
        _write_clip(edits, node, value, bounds)
        edits.count += 1


def _write_clip(edits: Edits, node: ir.Node, value: ir.Value, bounds: ClipBounds) -> None:
    finite = {name: number for name, number in (("min", bounds.low), ("max", bounds.high)) if math.isfinite(number)}
    if edits.opset < FIRST_WITH_INPUTS:
        edits.replace(node, "Clip", [value], finite)
        return
    inputs: list[ir.Value | None] = [value]
    for name in ("min", "max"):
        if name in finite:
            inputs.append(edits.constant(f"{node.name}.{name}", np.asarray(finite[name], np.float32)))
        else:
            inputs.append(None)
    while inputs[-1] is None:
        inputs.pop()
    edits.replace(node, "Clip", inputs)
