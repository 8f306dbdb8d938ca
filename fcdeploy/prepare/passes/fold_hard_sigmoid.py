"""Fold the slope and the offset of a hard-sigmoid into the layer before it; a clip is left.

    HardSigmoid(W x + b)  =  clip(alpha (W x + b) + beta, 0, 1)  =  clip((alpha W) x + (alpha b + beta), 0, 1)

This is the gate of a squeeze-and-excitation block.  A clip behind a layer is part of the layer's kernel, in float and,
by the saturation of its bytes, in integers.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from fcdeploy.graph.affine import gate_of
from fcdeploy.graph.edit import Changes, Edits
from fcdeploy.graph.nodes import name_of
from fcdeploy.prepare.linear_layers import is_layer, read_layer, scale_outputs, write_layer
from fcdeploy.prepare.passes.merge_clips import FIRST_WITH_INPUTS

FOLDED = ".gate"


def fold_hard_sigmoid(model: ir.Model) -> Changes:
    """Make a Clip of every HardSigmoid that alone reads what a layer writes."""
    edits = Edits(model, "fold_hard_sigmoid")
    for node in edits.nodes("HardSigmoid"):
        gate = gate_of(node)
        producer = None if gate is None else gate.value.producer()
        if gate is None or producer is None or not is_layer(producer) or edits.only_reader(gate.value) is not node:
            continue
        layer = read_layer(producer)
        if isinstance(layer, str):
            edits.decline(node, f"keeps: {layer}")
            continue
        slope, offset = np.full(layer.outputs, gate.gain), np.full(layer.outputs, gate.offset)
        reason = write_layer(edits, layer, *scale_outputs(layer, slope, offset))
        if reason is not None:
            edits.decline(node, f"keeps: {reason}")
            continue

        value = node.inputs[0]  # of another layer where the bias made one of it
        assert value is not None
        value.name = edits.free_name(f"{name_of(value)}{FOLDED}")  # what it holds is another
        if edits.opset < FIRST_WITH_INPUTS:
            edits.replace(node, "Clip", [value], {"min": 0.0, "max": 1.0})
        else:
            bounds = [
                edits.constant(f"{node.name}.{key}", np.asarray(c, np.float32))
                for key, c in (("min", 0.0), ("max", 1.0))
            ]
            edits.replace(node, "Clip", [value, *bounds])
        edits.count += 1
    return edits.changes()
