"""Graph, calibration and target to a plan: what every node becomes, with which scales, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from fcdeploy.arithmetic.ranges.methods import Methods, find_method
from fcdeploy.graph.missing_numbers import explain_missing
from fcdeploy.graph.nodes import name_of
from fcdeploy.graph.normalizations import find_normalizations
from fcdeploy.int8.planning.clip_fusion import keep_unequal_clips
from fcdeploy.int8.planning.decide import decide, find_wanted
from fcdeploy.int8.planning.eligibility import match_keep_float
from fcdeploy.int8.planning.image_inputs import plan_image_inputs
from fcdeploy.int8.planning.scales import choose_activation_scales
from fcdeploy.int8.planning.spectral_front_ends import find_front_ends
from fcdeploy.int8.planning.types import apply_types, choose_type_scales, decide_by_types
from fcdeploy.int8.planning.weights import choose_weight_scales
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan
from fcdeploy.tables.targets import Target
from fcdeploy.tables.types import INT8, WEIGHT_ONLY, Types

NORMALIZES = "part of a normalization: its mean and variance need more than 8 bits"
SLOW = "slower as integers, with what converting costs"  # which of the two it is, times say, and they vary


@dataclass(frozen=True)
class Overrides:
    """What is decided of nodes before planning, each name with the reason.

    `stored`, `wide` and `exact` stay float: the weights of `stored` are kept as bytes, those of `wide`, which 8 bits cost too
    much accuracy, in 16 bits, those of `exact` as they are.  The weights of `one_scale` have one scale for all channels.
    `slow` lose time as integers, and are stored where nothing else is decided of them.
    """

    stored: Mapping[str, str] = field(default_factory=dict)
    wide: Mapping[str, str] = field(default_factory=dict)
    exact: Mapping[str, str] = field(default_factory=dict)
    one_scale: Sequence[str] = ()
    slow: Sequence[str] = ()


def plan_graph(
    model: ir.Model,
    calibration: Calibration,
    target: Target,
    *,
    ranges: str,
    own_ranges: Mapping[str, str] | None = None,
    keep_float: Sequence[str] = (),
    types: Types = INT8,
    overrides: Overrides | None = None,
) -> Plan:
    """The plan for a prepared model: a decision for every node, QParams for every tensor that becomes integers.

    `own_ranges` are tensors with a method for their range that is not `ranges`; `keep_float` are the user's names and globs.
    """
    graph, overrides = model.graph, overrides or Overrides()
    exact = {**overrides.exact, **match_keep_float(graph, keep_float)}
    wide = {**find_front_ends(graph), **overrides.wide}
    normalizing = [name_of(node) for nodes in find_normalizations(graph) for node in nodes]
    stored = {**overrides.stored, **dict.fromkeys(normalizing, NORMALIZES), **wide, **explain_missing(graph)}

    if target.one_answer and types == INT8:
        types = replace(types, recurrent=WEIGHT_ONLY)  # DynamicQuantizeLSTM rounds what floats decide, at every step
    # which nodes: those that the types keep out of integer regions, then the regions
    apart = {
        name: row
        for name, row in decide_by_types(graph, types).items()
        if name not in {*exact, *stored, *overrides.slow}
    }
    decided = {**stored, **{name: why for name, (_, why) in apart.items()}, **exact}
    kept = {**dict.fromkeys(overrides.slow, SLOW), **decided}
    wants = find_wanted(graph, kept)
    on_16_bits = types.activations == "int16"
    decisions = decide(
        graph, wants, kept, calibration, exact, types.elsewhere, wide, on_bytes=not on_16_bits
    )  # fmt: skip

    # which scales: of activations first, because those of weights and biases follow
    levels = 2**16 if on_16_bits else 256
    methods = Methods(find_method(ranges, levels), {t: find_method(m, levels) for t, m in (own_ranges or {}).items()})
    dtype = "int16" if on_16_bits else "uint8"
    tensors = choose_activation_scales(
        graph, decisions, wants, calibration, dtype, methods,
        apart_from_halves=target.apart_from_halves and not on_16_bits,
    )  # fmt: skip
    if not on_16_bits:
        decisions, tensors = keep_unequal_clips(graph, decisions, tensors)
    decisions = apply_types(graph, decisions, apart, types)
    for name in decisions.keys() & set(overrides.slow) - decided.keys():
        decisions[name] = replace(decisions[name], cause="time")
    tensors = plan_image_inputs(graph, decisions, tensors, calibration)
    plan = Plan(target.name, tuple(decisions.values()), tensors, "", types.weights, types.activations)
    plan = choose_weight_scales(model, plan, calibration, target.pair_limit, overrides.one_scale, wide)
    return choose_type_scales(model, plan, calibration, target.pair_limit)
