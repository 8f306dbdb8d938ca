"""A bound for each channel becomes one for all, which is a clip and has integer kernels.

    W2 min(f(W1 x + b), u)  =  (W2 S) min(f(S^-1 (W1 x + b)), B)      S = diag(u) / B

where f is homogeneous (channels.py): the bounds themselves say by which factors a clip was spread over its channels, and
what comes out is the clip that it was, exactly where the factors are powers of two.  The same for a lower bound, by Max.
A tensor with bounds of its own for each channel would stay float.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Float64
from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.prepare.channel_constants import find_vectors
from fcdeploy.prepare.channels import find_free_channels
from fcdeploy.prepare.passes.equalize import RESCALED

LARGEST = 2.0**32  # factor: weights have to stay float32 numbers


def level_bounds(model: ir.Model) -> Changes:
    """Rescale channels so that a Min or Max by a constant for each of them becomes one by a single constant."""
    edits = Edits(model, "level_bounds")
    for level in (False, True):  # equal ones first: from then on nothing can spread them
        for node in edits.nodes("Min", "Max"):
            for side in find_vectors(node):
                why = _level(model, node, find_vectors(node)[side]) if level else ""
                if why:
                    edits.decline(node, f"keeps a bound for each channel: {why}")
                bounds = find_vectors(node)[side]
                if np.ptp(bounds) == 0:
                    one = edits.constant(f"{node.name}.bound", np.asarray(bounds[0], np.float32))
                    node.replace_input_with(side, one)
                    edits.count += 1
    return edits.changes()


def _level(model: ir.Model, node: ir.Node, bounds: Float64) -> str:
    """Make the bounds of a node equal; or say why they are not, and change nothing."""
    edits = Edits(model, "level_bounds")
    channels = find_free_channels(edits)
    ids = next((ids for other, ids in channels.following if other is node), None)
    if ids is None:
        return "its input does not keep channels apart"
    if not np.isfinite(bounds).all() or (bounds * bounds[0] <= 0).any():
        return "they are not all finite and of one sign"
    fixed = bounds[ids < 0]
    common = fixed[0] if len(fixed) else np.sort(bounds)[len(bounds) // 2]
    if np.any(fixed != common):
        return "some channels have to keep their scale"
    s = np.ones(len(channels.meets) + 1)
    s[ids] = bounds / common
    if np.any(s[ids] != bounds / common):
        return "two channels of one scale have different ones"
    if max(s.max(), 1 / s.min()) > LARGEST or not channels.rescale(edits, s[:-1], RESCALED):
        return "float32 does not hold the rescaled weights"
    return ""
