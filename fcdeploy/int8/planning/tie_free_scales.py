"""Scales at which every kernel rounds sums and products of bytes alike, whatever order it computes them in.

Conv, Gemm and MatMul multiply a 32-bit sum by one float32 and round: the same everywhere.  Pools, Concat and functions of
single bytes run the same code everywhere.  Add and Mul do not (arithmetic/rounding_ties.py), so their scales are made
coarser, by a hundredth at most in most networks, until no result lies near a half.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from fcdeploy.arithmetic import rounding_ties
from fcdeploy.graph.nodes import name_of, operator_of
from fcdeploy.int8.planning.clip_fusion import saturates_alike
from fcdeploy.int8.planning.decide import final_value
from fcdeploy.int8.planning.scale_groups import Line, ScaleGroups, cover_by_step, follow
from fcdeploy.records.plan import NodeDecision, Plan, QParams

MANY_HALVES = 0.02  # of the sums of an Add
COARSER = 1 + 1 / 128  # of a step, which costs 0.07 dB of what the result's rounding costs


@dataclass(frozen=True)
class RoundedNode:
    """An Add or Mul of two tensors of bytes: those it reads and the one it writes, as lines of the first of their group."""

    op: str
    read: tuple[Line, ...]
    written: Line

    @property
    def lines(self) -> tuple[Line, ...]:
        return *self.read, self.written

    @property
    def firsts(self) -> set[ir.Value]:
        return {line.first for line in self.lines}


@dataclass
class Steps:
    """The scale of the first of each group, and those that must not change any more."""

    of: dict[ir.Value, float]
    held: set[ir.Value] = field(default_factory=set)

    def scale(self, line: Line) -> float:
        return line.gain * self.of[line.first]

    def settle(self, lines: list[Line], scales: list[float]) -> None:
        """Give groups the scale that a line of theirs was given, and hold them."""
        for line, scale in zip(lines, scales, strict=True):
            if line.first not in self.held:
                self.of[line.first] = scale / line.gain
        self.held |= {line.first for line in lines}


def keep_from_halves(
    graph: ir.Graph, decisions: Mapping[str, NodeDecision], groups: ScaleGroups, firsts: Mapping[ir.Value, QParams]
) -> dict[ir.Value, QParams]:
    """The scales of groups, coarser where a sum or product of bytes would lie near a half."""
    nodes = [
        RoundedNode(node.op_type, tuple(groups.line(v) for v in node.inputs if v is not None), groups.line(written))
        for node, written in find_rounded(graph, decisions)
    ]
    sums, products = ([node for node in nodes if node.op == op] for op in ("Add", "Mul"))
    fixed = _find_fixed(graph, decisions, groups, firsts)
    before = {first: q.scale[0] for first, q in firsts.items()}
    steps, together = Steps(dict(before), set(fixed)), list[RoundedNode]()
    for _ in sums:  # each time one more set of sums is solved as a whole, those that it is connected with included
        stuck = _settle_sums(sums, steps)
        if stuck is None or stuck in together:
            break
        together += _connected(sums, stuck, fixed)
        steps = Steps(dict(before), set(fixed))
        _settle_together(together, steps)
    _settle_products(products, steps)
    return {
        first: q if steps.of[first] == q.scale[0] else cover_by_step(groups.cover(first), q.dtype, steps.of[first])
        for first, q in firsts.items()
    }


def spread_halves(
    graph: ir.Graph, decisions: Mapping[str, NodeDecision], groups: ScaleGroups, firsts: Mapping[ir.Value, QParams]
) -> dict[ir.Value, QParams]:
    """The scales of groups, a little coarser where many sums of bytes would lie exactly half-way between two levels.

    Kernels round these either way, and always to even ones, which is no rounding to the nearest on the mean of a channel.
    """
    chosen, fixed = dict(firsts), _find_fixed(graph, decisions, groups, firsts)
    for node, written in find_rounded(graph, decisions):
        lines = [groups.line(value) for value in (*node.inputs, written) if value is not None]
        read, to = [line.gain * chosen[line.first].scale[0] for line in lines[:-1]], lines[-1]
        scale, free = to.gain * chosen[to.first].scale[0], to.first not in {line.first for line in lines[:-1]} | fixed
        same = len(set(node.inputs)) == 1  # twice a byte is a whole number of twice its steps
        if node.op_type != "Add" or same or not free or rounding_ties.count_halves(read, scale) < MANY_HALVES:
            continue
        q = chosen[to.first]
        chosen[to.first] = cover_by_step(groups.cover(to.first), q.dtype, float(np.float32(q.scale[0] * COARSER)))
    return chosen


def find_near_halves(graph: ir.Graph, plan: Plan) -> list[str]:
    """Names of the Adds and Muls on bytes of which some result may lie so near a half that kernels differ."""
    decisions = {decision.node: decision for decision in plan.nodes}
    near = []
    for node, written in find_rounded(graph, decisions):
        rows = [plan.tensors.get(name_of(value)) for value in (*node.inputs, written)]
        scales = [row.scale[0] for row in rows if row is not None]
        if len(scales) == 3 and not _rounds_alike(node.op_type, scales[:2], scales[2]):
            near.append(name_of(node))
    return near


def find_rounded(graph: ir.Graph, decisions: Mapping[str, NodeDecision]) -> Iterator[tuple[ir.Node, ir.Value]]:
    """Adds and Muls of two tensors of bytes, each with the tensor that its kernel writes."""
    for node in graph:
        if decisions[name_of(node)].kind == "int8" and node.op_type in ("Add", "Mul"):
            yield node, final_value(node, decisions)


def _find_fixed(
    graph: ir.Graph, decisions: Mapping[str, NodeDecision], groups: ScaleGroups, firsts: Mapping[ir.Value, QParams]
) -> set[ir.Value]:
    """Firsts of groups whose scale has a reason of its own: a clip ends there, an offset is a byte, a range is known."""
    fixed = {line.first for value in groups.members() if (line := groups.line(value)).offset}
    for node in graph:
        decision = decisions[name_of(node)]
        if decision.kind == "int8" and operator_of(node).output is not None:
            fixed.add(groups.line(final_value(node, decisions)).first)
        if decision.kind != "fused":
            continue
        line = groups.line(final_value(node, decisions))
        q = follow(firsts[line.first], line.gain, line.offset)
        coarser = QParams(q.dtype, (2 * q.scale[0],), q.zero_point)
        if saturates_alike(node, q) and not saturates_alike(node, coarser):
            fixed.add(line.first)
    return fixed


def _settle_sums(nodes: list[RoundedNode], steps: Steps) -> RoundedNode | None:
    """Give one Add after the other its scales; the first that cannot have them."""
    for node in nodes:
        scales, firsts = [steps.scale(line) for line in node.lines], [line.first for line in node.lines]
        held = [first in steps.held or firsts.count(first) > 1 for first in firsts]
        chosen = rounding_ties.choose_sum_steps(scales, [False, False, True], held)
        if chosen is not None:
            steps.settle(list(node.lines), chosen.tolist())
        elif not _rounds_alike("Add", scales[:2], scales[2]):
            return node
    return None


def _settle_products(nodes: list[RoundedNode], steps: Steps) -> None:
    """Give each Mul a scale of its result, or of what it reads, whichever may still change."""
    for node in nodes:
        one, two, to = node.lines
        for line, other in ((to, one), (two, one), (one, two)):
            firsts = [each.first for each in node.lines]
            if line.first in steps.held or firsts.count(line.first) > 1:
                continue
            read = [steps.scale(one), steps.scale(two)] if line is to else [steps.scale(other), steps.scale(line)]
            scale = rounding_ties.choose_product_step(read, steps.scale(to), of_read=line is not to)
            steps.settle([line], [scale])
            break
        steps.held |= node.firsts


def _connected(nodes: list[RoundedNode], stuck: RoundedNode, fixed: set[ir.Value]) -> list[RoundedNode]:
    """The Adds that share groups with one another, and so with one of them."""
    found, reached = [stuck], stuck.firsts - fixed
    while more := [node for node in nodes if node not in found and node.firsts & reached]:
        found += more
        reached |= set().union(*(node.firsts for node in more)) - fixed
    return found


def _settle_together(nodes: list[RoundedNode], steps: Steps) -> None:
    """Give several Adds multiples of one unit."""
    lines = {line.first: line for node in nodes for line in node.lines}
    written = {node.written.first for node in nodes}
    each = list(lines.values())
    chosen = rounding_ties.choose_sum_steps(
        [steps.scale(line) for line in each],
        [line.first in written for line in each],
        [line.first in steps.held for line in each],
    )
    if chosen is not None:
        steps.settle(each, chosen.tolist())


def _rounds_alike(op: str, read: list[float], written: float) -> bool:
    clearance = rounding_ties.sum_clearance if op == "Add" else rounding_ties.product_clearance
    return clearance(read, written) > 0
