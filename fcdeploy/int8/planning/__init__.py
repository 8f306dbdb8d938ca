"""Graph, calibration and target to a plan: what every node becomes, with which scales, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import onnx_ir as ir

from fcdeploy.arithmetic.ranges import METHODS
from fcdeploy.arithmetic.ranges.mse import mse
from fcdeploy.int8.planning.clip_fusion import keep_unequal_clips
from fcdeploy.int8.planning.decide import decide, find_wanted
from fcdeploy.int8.planning.eligibility import match_keep_float
from fcdeploy.int8.planning.image_inputs import plan_image_inputs
from fcdeploy.int8.planning.scales import choose_activation_scales
from fcdeploy.int8.planning.types import apply_types, choose_type_scales, decide_by_types
from fcdeploy.int8.planning.weights import choose_weight_scales
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan
from fcdeploy.tables.targets import Target
from fcdeploy.tables.types import INT8, Types


def plan_graph(
    model: ir.Model,
    calibration: Calibration,
    target: Target,
    *,
    ranges: str,
    keep_float: Sequence[str] = (),
    slow: Mapping[str, str] | None = None,
    one_scale: Sequence[str] = (),
    wide: Mapping[str, str] | None = None,
    exact: Mapping[str, str] | None = None,
    types: Types = INT8,
) -> Plan:
    """The plan for a prepared model: a decision for every node, QParams for every tensor that becomes integers.

    `keep_float` are the user's names and globs; `slow` are nodes that lose time as integers, with the reason;
    `one_scale` layers whose weights have one scale for all channels.  `wide` and `exact` are nodes that 8 bits cost too
    much accuracy, with the reason: the weights of `wide` are kept in 16 bits, those of `exact` as they are.
    """
    exact, wide = {**(exact or {}), **match_keep_float(model.graph, keep_float)}, wide or {}
    slow = {**(slow or {}), **wide}
    stay = {*exact, *slow}
    otherwise = {name: row for name, row in decide_by_types(model.graph, types).items() if name not in stay}
    kept = {**slow, **{name: why for name, (_, why) in otherwise.items()}, **exact}
    wants = find_wanted(model.graph, kept)
    decisions = decide(model.graph, wants, kept, calibration, exact, types.elsewhere, wide)
    on_16_bits = types.activations == "int16"
    method = partial(mse, levels=2**16) if on_16_bits and ranges == "mse" else METHODS[ranges]
    dtype = "int16" if on_16_bits else target.activations
    tensors = choose_activation_scales(model.graph, decisions, wants, calibration, dtype, method)
    if not on_16_bits:
        decisions, tensors = keep_unequal_clips(model.graph, decisions, tensors)
    decisions = apply_types(model.graph, decisions, otherwise, types)
    tensors = plan_image_inputs(model.graph, decisions, tensors, calibration)
    plan = Plan(target.name, tuple(decisions.values()), tensors, "", types.weights, types.activations)
    plan = choose_weight_scales(model, plan, calibration, target.pair_limit, one_scale, wide)
    return choose_type_scales(model, plan, calibration, target.pair_limit)
