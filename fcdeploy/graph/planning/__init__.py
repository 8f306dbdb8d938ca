"""Graph, calibration and target to a plan: what every node becomes, with which scales, and why."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from fcdeploy.arithmetic.ranges import METHODS
from fcdeploy.graph.planning.decide import decide, wanted
from fcdeploy.graph.planning.declines import kept_float
from fcdeploy.graph.planning.scales import activation_scales
from fcdeploy.graph.planning.weigh import weight_scales
from fcdeploy.records.calibration import Calibration
from fcdeploy.records.plan import Plan
from fcdeploy.tables.targets import Target


def plan_graph(
    model: ir.Model,
    calibration: Calibration,
    target: Target,
    *,
    ranges: str,
    keep_float: Sequence[str] = (),
) -> Plan:
    """The plan for a prepared model: a decision for every node, QParams for every tensor that becomes integers."""
    kept = kept_float(model.graph, keep_float)
    wants = wanted(model.graph, kept)
    decisions = decide(model.graph, wants, kept, calibration)
    tensors = activation_scales(model.graph, decisions, wants, calibration, target, METHODS[ranges])
    plan = Plan(target.name, tuple(decisions.values()), tensors)
    return weight_scales(model, plan, calibration, target.pair_limit)
