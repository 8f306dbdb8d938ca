"""Plans and models of one network in which some nodes have left int8: what a search tries, built and compared by cost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import onnx_ir as ir

from fcdeploy.graph.model import read_model
from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.problem import Problem
from fcdeploy.int8.refining.refine import refine
from fcdeploy.int8.timing.choose_kernels import choose
from fcdeploy.int8.timing.partition import cost_of, find_costly_nodes
from fcdeploy.prepare.cost_model import count_macs_by_node
from fcdeploy.records.costs import Choice, Costs, Rates
from fcdeploy.records.plan import Plan, QParams
from fcdeploy.records.progress import OnStep
from fcdeploy.search.groups import WHY, explain_moves, find_groups, make_plan_with, undo_group
from fcdeploy.search.ladder import Forms, NodeGroup
from fcdeploy.sensitivity.error_sources import find_sources


@dataclass
class Builder:
    """Builds what nodes in other forms come to.

    `everything` takes every integer kernel, `base` is the choice of kernels by `costs`, `macs` are the multiplications of
    nodes, and `goal` is why nodes leave int8, in words.
    """

    problem: Problem
    everything: Plan
    base: Choice
    costs: Costs | None
    macs: Mapping[str, int]
    goal: str = WHY
    groups: list[NodeGroup] = field(default_factory=list)

    @cached_property
    def usual(self) -> Plan:
        """The plan in which no node has left int8."""
        return self.plan({})

    def plan(self, forms: Forms, moved: Collection[str] = ()) -> Plan:
        why = explain_moves(self.groups, forms, moved, self.goal)
        return make_plan_with(self.problem, self.base, self.costs, forms, why, self.goal)

    def model(self, forms: Forms) -> ir.Model:
        return refine(self.problem, self.plan(forms), None)

    def leave_uncorrected(self, forms: Forms) -> ir.Model:
        """The same with the biases of the float model."""
        plan = self.plan(forms)
        plain = self.problem.build(plan, correctable=True)
        if not plan.gptq_nodes:
            return plain
        int8 = refine(self.problem, plan, None)
        for name, value in plain.graph.initializers.items():
            if value.dtype == ir.DataType.INT32:
                int8.graph.initializers[name].const_value = value.const_value
        return int8

    def cost(self, forms: Forms) -> float:
        """What the time would be by the costs, which are an input: the same costs give the same search.

        In microseconds; without costs, where every integer kernel is wanted, the multiplications that leave int8.
        """
        slow = {*self.base.slow, *(node for node, rung in forms.items() if rung != "rounded")}
        return cost_of(self.problem.model.graph, self.everything, self.problem.calibration, self._read_costs(), slow)

    def _read_costs(self) -> Costs:
        """The costs, or where every integer kernel is wanted those that count multiplications, and nodes, in float."""
        if self.costs is not None:
            return self.costs
        nodes = {name_of(node): (self.macs.get(name_of(node), 0) + 1.0, 0.0) for node in self.problem.model.graph}
        return Costs("", "", Rates(0, 0, 0, 0), nodes)

    def list_integer(self) -> list[str]:
        """Nodes that compute with integers in the plan, in the graph's order."""
        return [node for node, kind in self.usual.kinds.items() if kind not in ("float", "weight_only")]

    def list_rounded(self) -> dict[str, QParams]:
        """Tensors that the plan rounds, with their scales; a picture's bytes are what they were."""
        plan = self.usual
        scales = {s.name: plan.tensors.get(s.name) for s in find_sources(self.model({})) if s.kind == "tensor"}
        return {name: q for name, q in scales.items() if q is not None and not q.pixels}

    def split(self, prices: Mapping[str, float]) -> tuple[str, ...]:
        """The nodes outside int8 where time is least, and a tensor in bytes costs its price; in the graph's order."""
        problem = self.problem
        out = find_costly_nodes(
            problem.model.graph, self.everything, problem.calibration, self._read_costs(), self.base.slow, prices
        )
        integer = set(self.list_integer())
        return tuple(node for node in out if node in integer)

    def rank(
        self,
        forms: Forms,
        groups: Sequence[NodeGroup],
        error: Callable[[ir.Model], float],
        stop: Callable[[], bool],
        on_step: OnStep,
    ) -> Mapping[str, float]:
        """The share of the error that goes with each group's roundings.

        Of the model before biases are corrected: they make up for errors of layers before them, which are then gone.
        """
        int8, floats = self.leave_uncorrected(forms), [self.problem.model, read_model(self.problem.file)]
        whole, gains, noise = max(error(int8), 1e-300), {}, find_sources(int8)
        for done, group in enumerate(groups, start=1):
            if stop():
                break
            model = undo_group(int8, floats, noise, group)
            gains[group.name] = 0.0 if model is None else 1 - error(model) / whole
            on_step("what each rounding costs", done, len(groups))
        return gains


def begin_building(problem: Problem, costs: Costs | None, goal: str = WHY) -> Builder:
    """With the groups that can leave int8, as the choice of kernels by `costs` has them."""
    everything = problem.plan()
    base = Choice() if costs is None else choose(problem.model, everything, problem.calibration, costs)
    builder = Builder(problem, everything, base, costs, count_macs_by_node(problem.model), goal)
    builder.groups = find_groups(problem, builder.usual, builder.model({}))
    return builder
