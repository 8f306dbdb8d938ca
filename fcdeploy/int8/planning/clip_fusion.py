"""Whether the saturation of a byte clips where a Relu or Clip does, and what happens to those clips where it does not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.quantization import LIMITS, quantize
from fcdeploy.graph.nodes import name_of
from fcdeploy.records.plan import Decision, QParams, Range


def clip_bounds(node: ir.Node) -> Range:
    """Where a Relu or a Clip with constant bounds clips."""
    if node.op_type == "Relu":
        return Range(0.0, math.inf)
    ends = []
    for index, key, default in ((1, "min", -math.inf), (2, "max", math.inf)):
        value = node.inputs[index] if index < len(node.inputs) else None
        attribute = node.attributes.get(key)
        if value is not None and value.const_value is not None:
            ends.append(float(value.const_value.numpy()))
        else:
            ends.append(default if attribute is None else float(attribute.value))
    return Range(*ends)


def saturates_alike(node: ir.Node, q: QParams) -> bool:
    """Whether no byte of `q` stands for a number that the clip would change."""
    b = clip_bounds(node)
    with np.errstate(over="ignore"):
        ends = quantize(np.array([b.low, b.high], np.float32), q)
    return bool(tuple(ends.tolist()) == LIMITS[q.dtype])


def keep_unequal_clips(
    graph: ir.Graph, decisions: Mapping[str, Decision], tensors: Mapping[str, QParams]
) -> tuple[dict[str, Decision], dict[str, QParams]]:
    """Decisions and scales in which a clip is absorbed only where saturation does the same.

    It does not where the bounds leave out zero, or where the scale is shared with a tensor that reaches further.  Such a
    clip runs on the bytes, and the tensor before it has the scale of the tensor behind it.
    """
    changed, scales = dict(decisions), dict(tensors)
    for node in graph:
        name, before = name_of(node), node.inputs[0] if node.inputs else None
        if decisions[name].kind != "absorbed" or before is None:
            continue
        q = tensors[name_of(node.outputs[0])]
        if not saturates_alike(node, q):
            changed[name] = replace(
                decisions[name], kind="moves", why="clips bytes: their scale reaches beyond its bounds"
            )
            scales[name_of(before)] = replace(q, why=f"clipped by {name!r}")
    return changed, scales
