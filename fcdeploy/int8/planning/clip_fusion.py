"""Whether the saturation of a byte clips where a Relu or Clip does, and what happens to those clips where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.quantization import LIMITS, quantize
from fcdeploy.graph.nodes import clip_bounds, input_of, name_of
from fcdeploy.records.plan import NodeDecision, QParams


def saturates_alike(node: ir.Node, q: QParams) -> bool:
    """Whether no byte of `q` stands for a number that the clip would change."""
    low, high = clip_bounds(node)
    with np.errstate(over="ignore"):
        ends = quantize(np.array([low, high], np.float32), q)
    return bool(tuple(ends.tolist()) == LIMITS[q.dtype])


def keep_unequal_clips(
    graph: ir.Graph, decisions: Mapping[str, NodeDecision], tensors: Mapping[str, QParams]
) -> tuple[dict[str, NodeDecision], dict[str, QParams]]:
    """Decisions and scales in which a clip is fused only where saturation does the same.

    It does not where the bounds leave out zero, or where the scale is shared with a tensor that reaches further.  Such a
    clip runs on the bytes, and the tensor before it has the scale of the tensor behind it.
    """
    changed, scales = dict(decisions), dict(tensors)
    for node in graph:
        name, before = name_of(node), input_of(node, 0)
        if decisions[name].kind != "fused" or before is None:
            continue
        q = tensors[name_of(node.outputs[0])]
        if not saturates_alike(node, q):
            changed[name] = replace(
                decisions[name], kind="passthrough", why="clips bytes: their scale reaches beyond its bounds"
            )
            scales[name_of(before)] = replace(q, why=f"clipped by {name!r}")
    return changed, scales
