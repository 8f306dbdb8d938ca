"""The search algorithm, on numbers alone: it knows groups, rungs and scores, but no models.

Groups of nodes leave int8 one after the other, the one whose rounding costs most first, each no further up its ladder
than helps.  After every step all is measured anew, because what roundings cost does not add up.  Then every step is
taken back that turns out not to be needed.

The metric decides when to stop, but it moves in steps of whole samples; so groups are ranked, and rungs accepted, by the
error of the outputs, which tells apart what the metric cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

RUNGS = ("int8", "rounded", "bytes", "wide", "float")
"""What a node may be, lowest first.  rounded: an integer kernel whose weights are rounded by what the layer reads.  bytes:
computed in float from 8-bit weights.  wide: from 16-bit weights.  float: as before."""
HEIGHT = {rung: height for height, rung in enumerate(RUNGS)}
HELPS = 0.5  # of what a group's roundings cost, that a rung must undo, or the next one is tried
CLOSE = 0.5  # of the largest gain: among groups that gain so much, the one that costs least time goes first
ALIKE = 1.05  # times the least error: a higher rung that gains no more only makes the file larger
MOST = 0.5  # of the error: a group with that much is the cause, however few samples show it
ALONE = 2  # steps of one group; where that is not enough, the noise is everywhere, and each step has twice as many
TIE = 1e-9  # 100 * 3 / 300 may come out above 1

Forms = Mapping[str, str]
"""Node -> rung, for the nodes that are not int8."""


@dataclass(frozen=True)
class NodeGroup:
    """Nodes that must leave int8 together to undo a rounding: the layer of `weights`, or all at one `tensor`.

    `rungs` are those that may undo it, in their order.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    rungs: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """What was measured: the metric's drop, the error of the outputs relative to their power, and the time it takes.

    `unsure` is how much of the drop chance alone explains.
    """

    drop: float
    error: float
    cost: float
    unsure: float = 0.0


@dataclass(frozen=True)
class PathStep:
    """Groups, each with the rung it was brought to ("int8" where that was taken back), and what came of it."""

    moved: tuple[tuple[str, str], ...]
    forms: Forms
    score: Score


@dataclass(frozen=True)
class Objective:
    """What the search minimises and respects: the largest drop, and the functions that measure.

    `rank` is what each group costs where things stand: the share of the error that goes when its roundings are undone.
    `measure` is the score of a choice, `cost` its time alone, and `stop` says whether the time is up.
    """

    bound: float
    rank: Callable[[Forms, Sequence[NodeGroup]], Mapping[str, float]]
    measure: Callable[[Forms], Score]
    cost: Callable[[Forms], float]
    stop: Callable[[], bool]


def raise_nodes(forms: Forms, nodes: Iterable[str], rung: str) -> dict[str, str]:
    """Raise the nodes to `rung` at least."""
    return {**forms, **{node: rung for node in nodes if _is_below(forms, node, rung)}}


def _is_below(forms: Forms, node: str, rung: str) -> bool:
    return HEIGHT[forms.get(node, "int8")] < HEIGHT[rung]


def apply_moves(groups: Sequence[NodeGroup], moves: Mapping[str, str]) -> dict[str, str]:
    """The forms that groups brought to rungs amount to: a node in several is as high as its highest."""
    forms: dict[str, str] = {}
    for group in groups:
        if moves.get(group.name, "int8") != "int8":
            forms = raise_nodes(forms, group.nodes, moves[group.name])
    return forms


def meets_bound(score: Score, bound: float) -> bool:
    """Whether the drop is within the bound."""
    return score.drop <= bound + TIE


def climb_ladder(groups: Sequence[NodeGroup], objective: Objective) -> list[PathStep]:
    """Climb from int8 as it is until the bound holds, `stop` says so, or nothing is left to raise; returns every step.

    Where the drop is above the bound by no more than chance explains, groups go on only as long as one causes most of it
    for most of the error; else only what costs no time is still tried.  To leave layers in float for a sample or two
    would fit them to these samples: whoever wants the bound held all the same goes on by price (by_price.py).
    """
    path = [PathStep((), {}, objective.measure({}))]
    used: set[str] = set()
    width = 1
    while not meets_bound(path[-1].score, objective.bound) and not objective.stop():
        left = [group for group in groups if group.name not in used and _list_higher_rungs(path[-1].forms, group)]
        gains = objective.rank(path[-1].forms, left) if left else {}
        if path[-1].score.drop <= objective.bound + path[-1].score.unsure and max(gains.values(), default=0.0) < MOST:
            return [*path, *_round_better(groups, path[-1], objective)]
        taken = None
        while taken is None and left and not objective.stop():
            chosen = _choose_next(path[-1], left, gains, objective.cost, width)
            taken = _try_rungs(path[-1], chosen, gains, objective)
            if taken is None:
                used.update(group.name for group in chosen)
                left = [group for group in left if group.name not in used]
        if taken is None:
            break
        path.append(taken)
        width = 2 * width if len(path) > ALONE else 1
    return path


def take_back(groups: Sequence[NodeGroup], path: Sequence[PathStep], objective: Objective) -> list[PathStep]:
    """Steps down from the end of a path that holds the bound: what costs most time is tried first, and kept if it holds.

    Again from the start after each, since what one group could not be spared for may be gone with another.
    """
    down: list[PathStep] = []
    moves = {name: rung for step in path for name, rung in step.moved}
    now, kept = path[-1].forms, dict[str, str]()
    while (lower := _lower_group(groups, moves, kept, now, objective)) is not None:
        ((name, rung),) = lower.moved
        shared = {
            node for node in next(g for g in groups if g.name == name).nodes if lower.forms.get(node) == now.get(node)
        }
        kept |= {node: now[node] for node in shared if node in now}
        moves[name], now = rung, lower.forms
        down.append(lower)
    return down


def _lower_group(
    groups: Sequence[NodeGroup], moves: Mapping[str, str], kept: Forms, now: Forms, objective: Objective
) -> PathStep | None:
    """The first group that can be lowered: with all its nodes that no other holds up, or, where that is too much, without
    those that it shares with others, which stay as high as they are; `kept` did so before.
    """

    def list_lowered(group: NodeGroup, rung: str) -> list[dict[str, str]]:
        forms = apply_moves(groups, {**moves, group.name: rung})
        forms |= {node: to for node, to in kept.items() if node in forms}
        shared = {node: now[node] for node in group.nodes if node in forms and node in now}
        return [each for each in (forms, {**forms, **shared}) if objective.cost(each) < objective.cost(now)]

    up = [group for group in groups if moves.get(group.name, "int8") != "int8"]
    saved = {group.name: min(map(objective.cost, list_lowered(group, "int8")), default=math.inf) for group in up}
    for group in sorted(up, key=lambda group: saved[group.name]):
        for rung in ("int8", *(rung for rung in group.rungs if HEIGHT[rung] < HEIGHT[moves[group.name]])):
            for forms in list_lowered(group, rung):
                if objective.stop():
                    return None
                score = objective.measure(forms)
                if meets_bound(score, objective.bound):
                    return PathStep(((group.name, rung),), forms, score)
    return None


def choose_best(path: Sequence[PathStep], tried: Iterable[PathStep], bound: float) -> PathStep:
    """Of the path and what else was tried, the fastest that holds the bound; where none does, the least drop of the path.

    The first stands where no other is faster.  Of what was tried and rejected the least drop may be a sample's chance.
    """

    def rank_step(step: PathStep) -> tuple[float, ...]:
        score = step.score
        if meets_bound(score, bound):
            return (0.0, score.cost)
        return (1.0, score.drop, score.error)

    return min((*path, *(step for step in tried if meets_bound(step.score, bound))), key=rank_step)


def find_front(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """Of points (time, drop) by number, those that no other beats in both; fastest first, of equal ones the first."""
    numbers: list[int] = []
    least = math.inf
    for number, (_, drop) in sorted(points.items(), key=lambda item: (*item[1], item[0])):
        if drop < least:
            numbers.append(number)
            least = drop
    return numbers


def _list_higher_rungs(forms: Forms, group: NodeGroup) -> tuple[str, ...]:
    """The rungs that would change something."""
    return tuple(rung for rung in group.rungs if any(_is_below(forms, node, rung) for node in group.nodes))


def _choose_next(
    now: PathStep, left: Sequence[NodeGroup], gains: Mapping[str, float], cost: Callable[[Forms], float], width: int
) -> list[NodeGroup]:
    """The groups of the next step: those that gain most; where it is one, the cheapest of those that gain about as much."""
    order = sorted(left, key=lambda group: -gains.get(group.name, -math.inf))
    if width > 1:
        return order[:width]
    most = gains.get(order[0].name, 0.0)
    close = [group for group in order if gains.get(group.name, 0.0) >= CLOSE * most] or order[:1]
    return [min(close, key=lambda group: cost(raise_nodes(now.forms, group.nodes, group.rungs[-1])))]


def _try_rungs(
    now: PathStep, chosen: Sequence[NodeGroup], gains: Mapping[str, float], objective: Objective
) -> PathStep | None:
    """The lowest rung that undoes enough, else the lowest with about the least error; None where none helps at all."""
    expected = now.score.error * min(sum(max(gains.get(group.name, 0.0), 0.0) for group in chosen), 1.0)
    tried: list[PathStep] = []
    for moved in _list_moves(now.forms, chosen):
        if tried and objective.stop():
            break
        forms: Forms = now.forms
        for group, (_, to) in zip(chosen, moved, strict=True):
            forms = raise_nodes(forms, group.nodes, to)
        step = PathStep(moved, forms, objective.measure(forms))
        if meets_bound(step.score, objective.bound) or now.score.error - step.score.error >= HELPS * expected > 0:
            return step
        tried.append(step)
    least = min(step.score.error for step in tried)
    best = next(step for step in tried if step.score.error <= ALIKE * least)
    return best if best.score.error < now.score.error else None


def _list_moves(forms: Forms, chosen: Sequence[NodeGroup]) -> list[tuple[tuple[str, str], ...]]:
    """What to try: a group rung by rung; several each at its lowest rung, then all in float, from 16 bits where it can be."""
    if len(chosen) == 1:
        return [((chosen[0].name, rung),) for rung in _list_higher_rungs(forms, chosen[0])]
    ladders = {group.name: _list_higher_rungs(forms, group) for group in chosen}
    lowest = tuple((name, rungs[0]) for name, rungs in ladders.items())
    in_float = tuple((name, "wide" if "wide" in rungs else rungs[-1]) for name, rungs in ladders.items())
    return list(dict.fromkeys((lowest, in_float)))


def _round_better(groups: Sequence[NodeGroup], now: PathStep, objective: Objective) -> list[PathStep]:
    """All integer layers rounded by what they read, which costs no time, if that leaves less error."""
    moved = tuple((group.name, "rounded") for group in groups if "rounded" in _list_higher_rungs(now.forms, group))
    forms: Forms = now.forms
    for group in groups:
        if (group.name, "rounded") in moved:
            forms = raise_nodes(forms, group.nodes, "rounded")
    if not moved:
        return []
    step = PathStep(moved, forms, objective.measure(forms))
    return [step] if step.score.error < now.score.error else []
