"""Bring a float model into the few forms that the rest of fcdeploy knows, without changing what it computes.

One pass a file, each a plain function `pass(model) -> Changes` that works in place; PASSES is their order.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from fcdeploy.graph.edit import Changes
from fcdeploy.graph.model import name_everything
from fcdeploy.graph.nodes import opset_of
from fcdeploy.graph.opset import TOP, lower_opset, lowest_opset
from fcdeploy.prepare.passes.block_narrow_convs import block_narrow_convs
from fcdeploy.prepare.passes.drop_identities import drop_identities
from fcdeploy.prepare.passes.equalize import equalize
from fcdeploy.prepare.passes.fold_batchnorm import fold_batchnorm
from fcdeploy.prepare.passes.fold_constants import fold_constants
from fcdeploy.prepare.passes.fold_hard_sigmoid import fold_hard_sigmoid
from fcdeploy.prepare.passes.fold_pads import fold_pads
from fcdeploy.prepare.passes.fold_scale_shift import fold_scale_shift
from fcdeploy.prepare.passes.fold_shapes import fold_shapes
from fcdeploy.prepare.passes.form_gemm import form_gemm
from fcdeploy.prepare.passes.form_global_average_pool import form_global_average_pool
from fcdeploy.prepare.passes.form_hard_sigmoid import form_hard_sigmoid
from fcdeploy.prepare.passes.form_pads import form_pads
from fcdeploy.prepare.passes.form_sigmoid import form_sigmoid
from fcdeploy.prepare.passes.form_tanh_gelu import form_tanh_gelu
from fcdeploy.prepare.passes.level_bounds import level_bounds
from fcdeploy.prepare.passes.lift_constants import lift_constants
from fcdeploy.prepare.passes.merge_clips import merge_clips
from fcdeploy.prepare.passes.raise_opset import raise_opset
from fcdeploy.prepare.passes.remove_unused import remove_unused
from fcdeploy.prepare.passes.separate_shared_weights import separate_shared_weights
from fcdeploy.prepare.passes.shorten_names import shorten_names
from fcdeploy.prepare.passes.widen_half import widen_half
from fcdeploy.prepare.shape_inference import infer_afresh, infer_shapes

PASSES: tuple[Callable[[ir.Model], Changes], ...] = (
    shorten_names,
    widen_half,
    lift_constants,
    fold_shapes,
    remove_unused,  # before constants are computed that only shape arithmetic wanted
    fold_constants,
    drop_identities,
    form_global_average_pool,
    form_pads,
    fold_pads,
    form_gemm,
    fold_batchnorm,
    fold_scale_shift,
    merge_clips,
    form_sigmoid,
    form_tanh_gelu,
    form_hard_sigmoid,
    fold_hard_sigmoid,
    separate_shared_weights,
    level_bounds,  # every weight is one layer's own now
    equalize,
    block_narrow_convs,  # channels are what they are from here on
    remove_unused,
)
ROUNDS = 30  # a safety net: each round that changes anything removes nodes or constants, models need two or three


def prepare(model: ir.Model, *, without: str = "") -> tuple[Changes, ...]:
    """Run all passes, in place, until none changes anything; one Changes per pass, with the last round's declines.

    `without` names one pass to leave out, to see whether it is at fault.  The graph's inputs and outputs keep names, order
    and types.  A second call changes nothing.
    """
    counts: dict[str, int] = {}
    name_everything(model.graph)
    infer_afresh(model)
    raise_opset(model)
    if opset_of(model) > TOP:
        lower_opset(model, lowest_opset(model)[0])  # the newest runtimes lag behind the newest operator sets
    for _ in range(ROUNDS):
        infer_shapes(model)
        declined: dict[str, tuple[str, ...]] = {}
        changed = 0
        for run in (each for each in PASSES if each.__name__ != without):
            changes = run(model)
            counts[changes.name] = counts.get(changes.name, 0) + changes.count
            declined[changes.name] = changes.declined
            changed += changes.count
        if not changed:
            break
    name_everything(model.graph)
    return tuple(Changes(name, count, declined[name]) for name, count in counts.items())
