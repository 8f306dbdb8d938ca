"""Groups of nodes that must leave int8 together to undo one rounding, and the plans that follow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import onnx_ir as ir

from fcdeploy.errors import FcdeployError
from fcdeploy.graph.nodes import name_of, weight_of
from fcdeploy.int8.nodes import weight_only_inputs
from fcdeploy.int8.planning.plan_graph import Overrides
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.refine import add_refinements
from fcdeploy.int8.timing.partition import list_slow
from fcdeploy.records.costs import Choice, Costs, hash_choice
from fcdeploy.records.plan import Plan, Rounding
from fcdeploy.search.ladder import Forms, NodeGroup
from fcdeploy.sensitivity.ablation import leave_unrounded
from fcdeploy.sensitivity.error_sources import ErrorSource, find_sources

BETTER: Rounding = "gptq"
WHY = "to hold --max-drop"
ALL = "all layers"
FASTER = f"float for all layers is faster than for those that must be {WHY}"


def find_groups(problem: Problem, plan: Plan, int8: ir.Model) -> list[NodeGroup]:
    """A group for each source of noise of the int8 model that a plan became, and the rungs it may climb.

    Sources of one name, such as two constants of a Concat, are one group.
    """
    nodes = {name_of(node): node for node in problem.model.graph}
    members_of: dict[tuple[str, str], dict[str, None]] = {}
    for source in find_sources(int8):
        members = members_of.setdefault((_name_source(source), source.kind), {})
        members.update(dict.fromkeys(name for name in source.group if name in nodes))
    return [
        NodeGroup(key, kind, tuple(members), _choose_rungs(problem, plan, kind, [nodes[name] for name in members]))
        for (key, kind), members in members_of.items()
        if members
    ]


def make_plan_with(
    problem: Problem, base: Choice, costs: Costs | None, forms: Forms, why: Mapping[str, str], goal: str = WHY
) -> Plan:
    """Make the plan in which nodes have these forms; all others are as the choice of kernels has them.

    `why` says, by node, what it left int8 for.
    """
    of = {
        rung: {node: why.get(node, goal) for node, form in forms.items() if form == rung}
        for rung in ("bytes", "wide", "float")
    }
    made = problem.plan(Overrides(of["bytes"], of["wide"], of["float"], base.one_scale, base.slow if costs else ()))
    taken = hash_choice(replace(base, slow=list_slow(made))) if costs else ""
    plan = add_refinements(problem, replace(made, costs=taken))
    kinds = plan.kinds
    better = {node for node, form in forms.items() if form == "rounded" and kinds[node] == "int8"}
    return replace(plan, nodes=tuple(replace(d, rounding=BETTER) if d.node in better else d for d in plan.nodes))


def explain_moves(groups: Iterable[NodeGroup], forms: Forms, moved: Collection[str], goal: str = WHY) -> dict[str, str]:
    """Node -> why it left int8: a group of `moved` that did as a whole, tensors before weights.

    Where ALL moved, it is the time of the others for every node.
    """
    out = {node for node, rung in forms.items() if rung not in ("int8", "rounded")}
    if ALL in moved:
        return dict.fromkeys(out, FASTER)
    why: dict[str, str] = {}
    for group in sorted(groups, key=lambda group: group.kind != "tensor"):
        if group.name in moved and set(group.nodes) <= out:
            for node in group.nodes:
                why.setdefault(node, f"{group.name} in 8 bits costs accuracy, {goal}")
    return why


def undo_group(
    int8: ir.Model, floats: Sequence[ir.Model], noise: Sequence[ErrorSource], group: NodeGroup
) -> ir.Model | None:
    """The int8 model without the roundings of a group: the tensor's, and those of the weights of its nodes.

    `noise` are all its sources.  None where it has none of the group any more.
    """
    layers = set(group.nodes)
    group_sources = [s for s in noise if _name_source(s) == group.name or (s.kind == "weights" and s.node in layers)]
    model = None
    for source in sorted(
        group_sources, key=lambda source: source.kind == "tensor"
    ):  # a tensor's surgery changes layers
        with suppress(FcdeployError):  # the float model does not know it by this name: it stays as it is
            model = leave_unrounded(int8 if model is None else model, floats, source)
    return model


def _name_source(source: ErrorSource) -> str:
    return name_tensor_group(source.name) if source.kind == "tensor" else f"weights of {source.node!r}"


def name_tensor_group(tensor: str) -> str:
    return f"tensor {tensor!r}"


def _choose_rungs(problem: Problem, plan: Plan, kind: str, nodes: Sequence[ir.Node]) -> tuple[str, ...]:
    stored = any(weight_only_inputs(node) for node in nodes)
    kinds = plan.kinds
    if kind == "tensor":
        return ("bytes", "wide", "float") if stored else ("float",)
    layer = all(kinds[name_of(node)] == "int8" and weight_of(node) is not None for node in nodes)
    rounded = layer and problem.effort == "balanced" and bool(problem.samples)
    return (*(["rounded"] if rounded else []), *(["wide"] if stored else []), "float")
