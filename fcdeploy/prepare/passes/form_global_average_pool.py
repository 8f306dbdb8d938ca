"""ReduceMean over all spatial axes is GlobalAveragePool, which has an integer kernel where ReduceMean has none.

ReduceMean(x, axes 2..r-1, keepdims=1)  =  GlobalAveragePool(x)                      (N, C, 1, ...)
ReduceMean(x, axes 2..r-1, keepdims=0)  =  Flatten(GlobalAveragePool(x), axis=1)     (N, C)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import attribute_of, ints_of, is_op, rank_of


def form_global_average_pool(model: ir.Model) -> Changes:
    """Rewrite every ReduceMean over exactly the spatial axes of a tensor of rank 3, 4 or 5."""
    edits = Edits(model, "form_global_average_pool")
    for node in edits.nodes("ReduceMean"):
        _merge_with_next(edits, node)
    for node in edits.nodes("ReduceMean"):
        value = node.inputs[0]
        assert value is not None
        reason = _decline(node, value)
        if reason is not None:
            edits.decline(node, f"keeps: {reason}")
            continue
        if attribute_of(node, "keepdims", 1):
            edits.replace(node, "GlobalAveragePool", [value])
        else:
            pooled = edits.insert(node, "GlobalAveragePool", [value], output=f"{node.outputs[0].name}.pooled")
            pooled.type = value.type
            edits.replace(node, "Flatten", [pooled], {"axis": 1})
        edits.count += 1
    return edits.changes()


def _decline(node: ir.Node, value: ir.Value) -> str | None:
    rank = rank_of(value)
    axes = ints_of(node, "axes", 1)
    if rank is None:
        return f"the rank of its input {value.name!r} is unknown"
    if axes is None:
        return "its axes are computed at run time"
    spatial = set(range(2, rank))
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
