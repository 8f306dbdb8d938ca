"""Calls of layers whose bytes are combined with others before they are stored."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fcdeploy.native.calls.call import KernelCall, Struct, Weights, make_address, make_loop
from fcdeploy.native.calls.layers import call_layer
from fcdeploy.native.calls.others import make_combination
from fcdeploy.native.placing.epilogue import find_turned_axis
from fcdeploy.native.placing.views import LOOPS, View, nest_loops
from fcdeploy.native.placing.work import Placed
from fcdeploy.native.program.layers import CombinedLayer


def call_combined_layer(step: CombinedLayer, work: Placed, weights: Weights) -> KernelCall:
    y, (x, beside) = work.outputs[0], work.inputs
    own, combine = work.scratch or y, step.combine
    layer = call_layer(step.layer, replace(work, step=step.layer, inputs=(x,)), weights)
    *arguments, fields = layer.arguments
    assert isinstance(fields, Struct)
    swapped = combine.inputs[0].name != step.between.name
    how = make_combination(combine, _make_loop(step, y, own, beside), swapped=swapped)
    total = fields.fields["rows"] if fields.fields["rows"] > 1 else fields.fields["columns"]
    some = total if work.scratch is None else own.array.shape[find_turned_axis(step)]
    addresses = make_address(beside, weights), make_address(own, weights)
    parts = layer, KernelCall(combine.node, combine.what(), "bytes.h", f"fc_{combine.kind}_bytes", (how,))
    return KernelCall(
        step.node, step.what(), layer.header, f"fc_layer_{combine.kind}_bytes", (*arguments, *addresses, some, how, fields),
        step.macs, parts,
    )  # fmt: skip


def _make_loop(step: CombinedLayer, y: View, own: View, beside: View) -> Struct:
    """Loops over what is stored, the layer's own bytes and those beside them; rows first where some lie in memory at a time."""
    whole = own.reshape_view(np.lib.stride_tricks.as_strided(own.array, y.array.shape, own.array.strides))
    if own.array.shape == y.array.shape:
        return make_loop(y, whole, beside, node=step.node)[0]
    lengths, strides, kept = nest_loops([y, whole, beside], keep=find_turned_axis(step))
    assert kept == 0, f"{step.node}: rows lie within something else"
    missing = LOOPS - len(lengths)
    fields = {"count": [lengths[0], *[1] * missing, *lengths[1:]]}
    fields |= {name: [each[0], *[0] * missing, *each[1:]] for name, each in zip("yab", strides, strict=True)}
    return Struct("struct fc_loop", fields)
