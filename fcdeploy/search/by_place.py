"""Nodes leave int8 by place: all up to one, or all behind one, found by bisection and thinned out.

Often the first layers are the cause, or the last.  More nodes in float, and more weights in 16 bits, are taken to be no worse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from fcdeploy.graph.nodes import name_of
from fcdeploy.int8.nodes import weight_only_inputs
from fcdeploy.int8.planning.weight_noise import order_by_noise
from fcdeploy.search import ladder
from fcdeploy.search.builder import Builder
from fcdeploy.search.ladder import Forms, PathStep, Score

PARTS = 8  # of the nodes in float before or behind a place, each tried as integers again
CHEAP = 1.1  # of the time with everything in int8, by costs: what holds the floor in less is not improved by a ranking
NARROW: Mapping[str, str] = MappingProxyType({})  # weights of all nodes in 8 bits
FINEST = 32  # parts of an order, at whose ends a bisection stops

Leave = Callable[[Sequence[str]], PathStep]
Measure = Callable[[Forms], Score]


def leave_by_place(builder: Builder, measure: Measure) -> PathStep | None:
    """The cheapest choice that holds the floor among: all nodes up to a place in float, all from one on, all.

    Weights are stored as `leave_all` stores them; None where not even that holds the floor.
    """
    everything = leave_all(builder, measure)
    if everything is None:
        return None
    nodes = builder.list_integer()
    stored = read_stored(everything)

    def leave_some(some: Collection[str]) -> PathStep:
        return leave(builder, measure, some, stored)

    first = min((everything, *_bisect(nodes, leave_some)), key=lambda step: step.score.cost)
    if first.score.cost <= CHEAP * builder.cost({}):
        return first
    last = min((first, *_bisect(nodes[::-1], leave_some)), key=lambda step: step.score.cost)
    return _thin_out([node for node in nodes if node in last.forms], last, leave_some, builder.cost)


def leave_all(builder: Builder, measure: Measure) -> PathStep | None:
    """All nodes in float, weights in 8 bits, and in 16 or float where the floor asks for it; None where nothing holds it.

    Where weights in 8 bits hold it only since few samples leave it in doubt, those in 16 are taken that leave no doubt.
    Weights of inputs that are thousands of times apart, as columns of a table are, can need float.
    """
    nodes = builder.list_integer()
    narrow = leave(builder, measure, nodes)
    if _holds_surely(narrow):
        return narrow
    order = order_by_noise(builder.problem.model, builder.plan(narrow.forms), builder.problem.calibration)
    for rung in ("wide", "float"):

        def store(some: Sequence[str], rung: str = rung) -> PathStep:
            return leave(builder, measure, nodes, dict.fromkeys(some, rung))

        whole = store(order)
        if not _holds_surely(whole) and _holds(narrow):
            return narrow
        if _holds(whole):
            return [whole, *_bisect(order, store, _holds_surely if _holds_surely(whole) else _holds)][-1]
    return None


def leave(builder: Builder, measure: Measure, some: Collection[str], stored: Mapping[str, str] = NARROW) -> PathStep:
    """Some nodes in float; weights of nodes in float are `stored` as named there ("wide", "float"), others in 8 bits."""
    kinds = builder.usual.kinds
    weighted = {name_of(node) for node in builder.problem.model.graph if weight_only_inputs(node)}
    forms = {node: rung for node, rung in stored.items() if kinds[node] == "weight_only"}
    forms |= {node: stored.get(node, "bytes") if node in weighted else "float" for node in some}
    return PathStep((), forms, measure(forms))


def read_stored(everything: PathStep | None) -> Mapping[str, str]:
    """How a step stores the weights of nodes in float that are more than 8 bits."""
    return {} if everything is None else {node: rung for node, rung in everything.forms.items() if rung != "bytes"}


def _thin_out(order: Sequence[str], held: PathStep, leave: Leave, cost: Callable[[Forms], float]) -> PathStep:
    """A step that holds the floor with fewer nodes in float: neighbours return to int8 together, those that save most first."""
    size = max(1, -(-len(order) // PARTS))
    parts = [order[at : at + size] for at in range(0, len(order), size)]

    def without(part: Sequence[str]) -> list[str]:
        return [node for node in order if node in held.forms and node not in part]

    saved = {part[0]: cost({node: held.forms[node] for node in without(part)}) for part in parts}
    for part in sorted(parts, key=lambda part: saved[part[0]]):
        step = leave(without(part))
        if _holds(step) and step.score.cost < held.score.cost:
            held = step
    return held


def _holds(step: PathStep) -> bool:
    """Whether a step holds the floor, be it by chance."""
    return ladder.meets_bound(step.score, 0.0)


def _holds_surely(step: PathStep) -> bool:
    """Whether it does without that few samples leave it in doubt."""
    return _holds(step) and step.score.unsure == 0


def _bisect(order: Sequence[str], leave: Leave, held_by: Callable[[PathStep], bool] = _holds) -> list[PathStep]:
    """Steps with fewer and fewer of an order's first nodes taken that hold the floor."""
    low, high = 0, len(order)  # nodes taken: too few, enough
    held = []
    while high - low > max(1, len(order) // FINEST):
        middle = (low + high) // 2
        step = leave(order[:middle])
        if held_by(step):
            held.append(step)
            high = middle
        else:
            low = middle
    return held
