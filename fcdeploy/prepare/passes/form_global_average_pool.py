"""ReduceMean over all spatial axes is GlobalAveragePool, which has an integer kernel where ReduceMean has none.

ReduceMean(x, axes 2..r-1, keepdims=1)  =  GlobalAveragePool(x)                      (N, C, 1, ...)
ReduceMean(x, axes 2..r-1, keepdims=0)  =  Flatten(GlobalAveragePool(x), axis=1)     (N, C)

With t = Transpose(x, p), channels last, the mean over the same axes, now p^-1 of them:

ReduceMean(t, ..., keepdims=1)  =  Transpose(GlobalAveragePool(x), p)                (N, 1, ..., C)
ReduceMean(t, ..., keepdims=0)  =  Flatten(GlobalAveragePool(x), axis=1)             (N, C)

The means of a normalization stay: with what is around them they are one float kernel.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import attribute_of, ints_of, is_op, producer_of, rank_of
from fcdeploy.graph.normalizations import find_normalizations


def form_global_average_pool(model: ir.Model) -> Changes:
    """Rewrite every ReduceMean over exactly the spatial axes of a tensor of rank 3, 4 or 5."""
    edits = Edits(model, "form_global_average_pool")
    if not any(True for _ in edits.nodes("ReduceMean")):
        return edits.changes()
    normalizing = {node for nodes in find_normalizations(model.graph) for node in nodes}
    for node in edits.nodes("ReduceMean"):
        if node not in normalizing:
            _merge_with_next(edits, node)
    for node in edits.nodes("ReduceMean"):
        value, order = _before_transpose(node)
        reason = "it is part of a normalization" if node in normalizing else _decline(node, value, order)
        if reason is not None:
            edits.decline(node, f"keeps: {reason}")
            continue
        _write(edits, node, value, order)
        edits.count += 1
    return edits.changes()


def _before_transpose(node: ir.Node) -> tuple[ir.Value, tuple[int, ...]]:
    """x and p; p is empty where the node reads x as it is."""
    value = node.inputs[0]
    assert value is not None
    mover = producer_of(value)
    order = attribute_of(mover, "perm", ()) if mover is not None and is_op(mover, "Transpose") else ()
    if mover is None or not order or mover.inputs[0] is None or [axis for axis in order if axis < 2] != [0, 1]:
        return value, ()
    return mover.inputs[0], order


def _write(edits: Edits, node: ir.Node, value: ir.Value, order: tuple[int, ...]) -> None:
    """The pool in place of the mean, and what brings it to the mean's shape."""
    keep = attribute_of(node, "keepdims", 1)
    if keep and not order:
        edits.replace(node, "GlobalAveragePool", [value])
        return
    pooled = edits.insert(node, "GlobalAveragePool", [value], output=f"{node.outputs[0].name}.pooled")
    pooled.type = value.type
    if keep:
        edits.replace(node, "Transpose", [pooled], {"perm": order})
    else:
        edits.replace(node, "Flatten", [pooled], {"axis": 1})


def _decline(node: ir.Node, value: ir.Value, order: tuple[int, ...]) -> str | None:
    rank = rank_of(value)
    axes = ints_of(node, "axes", 1)
    if rank is None:
        return f"the rank of its input {value.name!r} is unknown"
    if axes is None:
        return "its axes are computed at run time"
    spatial = {at for at, axis in enumerate(order) if axis > 1} or set(range(2, rank))
    if rank not in (3, 4, 5) or {axis % rank for axis in axes} != spatial:
        return f"it reduces axes {sorted(axes)} of a tensor of rank {rank}, not exactly the spatial ones"
    if value.dtype != ir.DataType.FLOAT:
        return f"its input {value.name!r} is {value.dtype}"
    return None


def _merge_with_next(edits: Edits, node: ir.Node) -> None:
    """The mean over one spatial axis of the mean over another is the mean over both: all rows have the same length."""
    value = node.inputs[0]
    reader = edits.only_reader(node.outputs[0])
    rank, first = rank_of(value), ints_of(node, "axes", 1)
    if value is None or reader is None or not is_op(reader, "ReduceMean") or rank is None or not first:
        return
    second, keep = ints_of(reader, "axes", 1), attribute_of(node, "keepdims", 1)
    if not second or attribute_of(reader, "keepdims", 1) != keep:
        return
    gone = {axis % rank for axis in first}
    left = list(range(rank)) if keep else [axis for axis in range(rank) if axis not in gone]
    axes = sorted(gone | {left[axis] for axis in second})
    if axes != list(range(2, rank)):
        return
    _set_axes(edits, reader, value, axes)
    edits.graph.remove(node, safe=True)
    edits.count += 1


def _set_axes(edits: Edits, node: ir.Node, value: ir.Value, axes: list[int]) -> None:
    keep = attribute_of(node, "keepdims", 1)
    if edits.opset < 18:
        edits.replace(node, "ReduceMean", [value], {"axes": axes, "keepdims": keep})
    else:
        constant = edits.constant(f"{node.name}.axes", np.asarray(axes, np.int64))
        edits.replace(node, "ReduceMean", [value, constant], {"keepdims": keep})
