"""A float model whose channels are smoothed by what they were on samples; it computes the same (prepare/channels.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic.weights.smooth import choose_smoothing
from fcdeploy.arrays import Arrays, Float64
from fcdeploy.graph.edit import Edits
from fcdeploy.graph.nodes import data_inputs, is_constant, name_of
from fcdeploy.int8.refining.activations import iterate_activations
from fcdeploy.prepare.channels import Channels, UnfitChannelsError, find_free_channels

SMOOTHED = ".smoothed"
Factors = Mapping[str, Sequence[float]]  # activation -> what each of its channels is divided by


def compute_smoothing(model: ir.Model, samples: Arrays) -> dict[str, tuple[float, ...]]:
    """What to rescale the channels of a prepared float model by, empty where there is nothing to rescale."""
    channels = find_free_channels(Edits(model, "smooth"))
    if not len(channels.meets):
        return {}
    active = _largest_activations(model, channels, samples)
    s = np.ones(len(active))
    for group in np.unique(channels.meets):
        members = channels.meets == group
        s[members] = choose_smoothing(active[members])
    return channels.factors_by_tensor(s)


def rescale(model: ir.Model, factors: Factors) -> None:
    """Rescale the channels of a prepared float model in place. Raises UnfitChannelsError."""
    edits = Edits(model, "smooth")
    channels = find_free_channels(edits)
    if not channels.rescale(edits, channels.from_tensors(factors), SMOOTHED):
        raise UnfitChannelsError("the rescaled weights would not be float32 numbers")


def _largest_activations(model: ir.Model, channels: Channels, samples: Arrays) -> Float64:
    """The largest magnitude of each scale's channels where a layer or a Mul reads them."""
    readers = [(node, ids) for node, ids in (*channels.readers, *channels.scaled) if (ids >= 0).any()]
    read = {name_of(value): ids for node, ids in readers for value in data_inputs(node) if not is_constant(value)}
    active = np.zeros(len(channels.meets))
    for values in iterate_activations(model, list(read), samples):
        for ids, x in zip(read.values(), values, strict=True):
            largest = np.abs(x).max(axis=tuple(axis for axis in range(x.ndim) if axis != 1)).astype(np.float64)
            np.maximum.at(active, ids[ids >= 0], largest[ids >= 0])
    return active
