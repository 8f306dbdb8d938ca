"""Fold BatchNormalization into the layer before or after it.

At inference a BatchNormalization is an affine map per channel,

    y = gamma * (x - mean) / sqrt(var + epsilon) + beta  =  s * x + t
    s = gamma / sqrt(var + epsilon)
    t = beta - mean * s

which goes
 1. into the Conv, ConvTranspose, Gemm or MatMul that computes x, when nothing else reads x;
 2. else into the layers that read y, when these are all that reads y, and t is 0 or they read no padding; of the network's
    input only where s is nearly the same for all channels.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.arrays import Array
from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import array_of, attribute_of, input_of
from fcdeploy.prepare.linear_layers import fold_into_producer, fold_into_readers


def fold_batchnorm(model: ir.Model) -> Changes:
    """Fold every BatchNormalization that can be; say why for each that stays."""
    edits = Edits(model, "fold_batchnorm")
    for node in edits.nodes("BatchNormalization"):
        affine = _read_affine(node, edits.opset)
        if isinstance(affine, str):
            edits.decline(node, f"keeps: {affine}")
            continue
        before = fold_into_producer(edits, node, *affine)
        if before is None:
            continue
        after = fold_into_readers(edits, node, *affine)
        if after is not None:
            edits.decline(node, f"keeps: {before}; {after}")
    return edits.changes()


def _read_affine(node: ir.Node, opset: int) -> tuple[Array, Array] | str:
    """s and t of a BatchNormalization, float64 (channels,), or why it is no constant affine map."""
    trains = attribute_of(node, "training_mode", 0) or (opset < 7 and not attribute_of(node, "is_test", 0))
    if trains or not attribute_of(node, "spatial", 1):
        return "it computes its statistics from the batch"
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return "its running statistics are read"
    arrays = [array_of(input_of(node, index)) for index in range(1, 5)]
    if any(array is None for array in arrays):
        return "one of its parameters is computed at run time"
    gamma, beta, mean, var = (np.asarray(array, np.float64) for array in arrays)
    with np.errstate(all="ignore"):
        s = gamma / np.sqrt(var + float(attribute_of(node, "epsilon", 1e-5)))
        t = beta - mean * s
    if not (np.isfinite(s).all() and np.isfinite(t).all()):
        return "its variance or another parameter gives a scale that is not finite"
    return s, t
