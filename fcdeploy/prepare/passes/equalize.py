"""Channels of very unequal magnitude in one tensor get about the same one: one scale for all of them then serves each.

The factors (arithmetic/weights/equalize.py) are powers of two, and no output changes by a bit.  channels.py says which
channels must be rescaled together.  A tensor with a new scale gets a new name, so that a range measured under the old
one is not taken for its own.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fcdeploy.arithmetic.weights.equalize import choose_exponents
from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.prepare.channel_constants import largest_constants
from fcdeploy.prepare.channels import Channels, find_free_channels, largest_by_input, largest_by_output
from fcdeploy.prepare.linear_layers import LinearLayer, read_layer

RESCALED = ".rescaled"
ROUNDS = 20  # neighbouring tensors share the depthwise layers between them, and settle in a few


def equalize(model: ir.Model) -> Changes:
    """Rescale the channels of tensors in which some are at least eight times out of proportion."""
    edits = Edits(model, "equalize")
    channels = find_free_channels(edits)
    for _ in range(ROUNDS):
        s = np.exp2(_choose_exponents(channels).astype(np.float64))
        if np.all(s == 1.0) or not channels.rescale(edits, s, RESCALED):
            break
        edits.count += 1
    return edits.changes()


def _choose_exponents(channels: Channels) -> NDArray[np.int64]:
    """log2 of the factor of each scale: r1 and r2 are the largest of all that write or read it."""
    r1, r2 = np.zeros(len(channels.meets)), np.zeros(len(channels.meets))
    for ends, ranges, measure in ((channels.writers, r1, largest_by_output), (channels.readers, r2, largest_by_input)):
        for node, ids in ends:
            layer = read_layer(node) if (ids >= 0).any() else None
            if isinstance(layer, LinearLayer):
                np.maximum.at(ranges, ids[ids >= 0], measure(layer)[ids >= 0])
    for nodes, ranges in ((channels.starting, r1), (channels.scaled, r2)):
        for node, ids in nodes:
            np.maximum.at(ranges, ids[ids >= 0], largest_constants(node)[ids >= 0])
    exponents = np.zeros(len(r1), np.int64)
    for group in np.unique(channels.meets):
        members = channels.meets == group
        exponents[members] = choose_exponents(r1[members], r2[members])
    return exponents
