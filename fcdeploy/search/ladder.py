"""The search, decided from rows of numbers: nothing here knows models.

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
MOST = 0.5  # of the error: a group with that much is to blame, however few samples show it
ALONE = 2  # steps of one group; where that is not enough, the noise is everywhere, and each step has twice as many
TIE = 1e-9  # 100 * 3 / 300 may come out above 1

Forms = Mapping[str, str]
"""Node -> rung, for the nodes that are not int8."""


@dataclass(frozen=True)
class Group:
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
class Step:
    """Groups, each with the rung it was brought to ("int8" where that was taken back), and what came of it."""

    moved: tuple[tuple[str, str], ...]
    forms: Forms
    score: Score


@dataclass(frozen=True)
class Judge:
    """What tells choices apart: the largest drop, and four functions.

    `rank` is what each group costs where things stand: the share of the error that goes when its roundings are undone.
    `measure` is the score of a choice, `cost` its time alone, and `stop` says whether the time is up.
    """

    bound: float
    rank: Callable[[Forms, Sequence[Group]], Mapping[str, float]]
    measure: Callable[[Forms], Score]
    cost: Callable[[Forms], float]
    stop: Callable[[], bool]


def raised(forms: Forms, nodes: Iterable[str], rung: str) -> dict[str, str]:
    """The nodes at least as high as `rung`."""
    higher = {node: rung for node in nodes if HEIGHT[forms.get(node, "int8")] < HEIGHT[rung]}
    return {**forms, **higher}


def of_moves(groups: Sequence[Group], moves: Mapping[str, str]) -> dict[str, str]:
    """The forms that groups brought to rungs amount to: a node in several is as high as its highest."""
    forms: dict[str, str] = {}
    for group in groups:
        if moves.get(group.name, "int8") != "int8":
            forms = raised(forms, group.nodes, moves[group.name])
    return forms


def holds(score: Score, bound: float) -> bool:
    """Whether the drop is within the bound."""
    return score.drop <= bound + TIE


def climb(groups: Sequence[Group], judge: Judge) -> list[Step]:
    """The steps of the way up, the first being int8 as it is; the last holds the bound unless `stop` or the end came.

    Where the drop is above the bound by no more than chance explains, groups go on only as long as one of them is to blame
    for most of the error; else only what costs no time is still tried.  To leave layers in float for a sample or two
    would fit them to these samples.
    """
    road = [Step((), {}, judge.measure({}))]
    spent: set[str] = set()
    width = 1
    while not holds(road[-1].score, judge.bound) and not judge.stop():
        left = [group for group in groups if group.name not in spent and _higher(road[-1].forms, group)]
        gains = judge.rank(road[-1].forms, left) if left else {}
        if road[-1].score.drop <= judge.bound + road[-1].score.unsure and max(gains.values(), default=0.0) < MOST:
            return [*road, *_rounded(groups, road[-1], judge)]
        taken = None
        while taken is None and left and not judge.stop():
            chosen = _next(road[-1], left, gains, judge.cost, width)
            taken = _rise(road[-1], chosen, gains, judge)
            if taken is None:
                spent.update(group.name for group in chosen)
                left = [group for group in left if group.name not in spent]
        if taken is None:
            break
        road.append(taken)
        width = 2 * width if len(road) > ALONE else 1
    return road


def take_back(groups: Sequence[Group], road: Sequence[Step], judge: Judge) -> list[Step]:
    """Steps down from the end of a road that holds the bound: what costs most time is tried first, and kept if it holds.

    Again from the start after each, since what one group could not be spared for may be gone with another.
    """
    down: list[Step] = []
    moves = {name: rung for step in road for name, rung in step.moved}
    now, kept = road[-1].forms, dict[str, str]()
    while (lower := _lower(groups, moves, kept, now, judge)) is not None:
        ((name, rung),) = lower.moved
        shared = {
            node for node in next(g for g in groups if g.name == name).nodes if lower.forms.get(node) == now.get(node)
        }
        kept |= {node: now[node] for node in shared if node in now}
        moves[name], now = rung, lower.forms
        down.append(lower)
    return down


def _lower(groups: Sequence[Group], moves: Mapping[str, str], kept: Forms, now: Forms, judge: Judge) -> Step | None:
    """The first group that can be lowered: with all its nodes that no other holds up, or, where that is too much, without
    those that it shares with others, which stay as high as they are; `kept` did so before.
    """

    def lowered(group: Group, rung: str) -> list[dict[str, str]]:
        forms = of_moves(groups, {**moves, group.name: rung})
        forms |= {node: to for node, to in kept.items() if node in forms}
        shared = {node: now[node] for node in group.nodes if node in forms and node in now}
        return [each for each in (forms, {**forms, **shared}) if judge.cost(each) < judge.cost(now)]

    up = [group for group in groups if moves.get(group.name, "int8") != "int8"]
    saved = {group.name: min(map(judge.cost, lowered(group, "int8")), default=math.inf) for group in up}
    for group in sorted(up, key=lambda group: saved[group.name]):
        for rung in ("int8", *(rung for rung in group.rungs if HEIGHT[rung] < HEIGHT[moves[group.name]])):
            for forms in lowered(group, rung):
                if judge.stop():
                    return None
                score = judge.measure(forms)
                if holds(score, judge.bound):
                    return Step(((group.name, rung),), forms, score)
    return None


def best_of(road: Sequence[Step], tried: Iterable[Step], bound: float) -> Step:
    """Of the road and what else was tried, the fastest that holds the bound; where none does, the least drop of the road.

    The first stands where no other is faster.  Of what was tried and rejected the least drop may be a sample's chance.
    """

    def order(step: Step) -> tuple[float, ...]:
        score = step.score
        if holds(score, bound):
            return (0.0, score.cost)
        return (1.0, score.drop, score.error)

    return min((*road, *(step for step in tried if holds(step.score, bound))), key=order)


def front(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """Of points (time, drop) by number, those that no other beats in both; fastest first, of equal ones the first."""
    found: list[int] = []
    least = math.inf
    for number, (_, drop) in sorted(points.items(), key=lambda item: (*item[1], item[0])):
        if drop < least:
            found.append(number)
            least = drop
    return found


def _higher(forms: Forms, group: Group) -> tuple[str, ...]:
    """The rungs that would change something."""
    return tuple(
        rung for rung in group.rungs if any(HEIGHT[forms.get(node, "int8")] < HEIGHT[rung] for node in group.nodes)
    )


def _next(
    now: Step, left: Sequence[Group], gains: Mapping[str, float], cost: Callable[[Forms], float], width: int
) -> list[Group]:
    """The groups of the next step: those that gain most; where it is one, the cheapest of those that gain about as much."""
    order = sorted(left, key=lambda group: -gains.get(group.name, -math.inf))
    if width > 1:
        return order[:width]
    most = gains.get(order[0].name, 0.0)
    close = [group for group in order if gains.get(group.name, 0.0) >= CLOSE * most] or order[:1]
    return [min(close, key=lambda group: cost(raised(now.forms, group.nodes, group.rungs[-1])))]


def _rise(now: Step, chosen: Sequence[Group], gains: Mapping[str, float], judge: Judge) -> Step | None:
    """The lowest rung that undoes enough, else the one that leaves the least error; None where none helps at all."""
    expected = now.score.error * min(sum(max(gains.get(group.name, 0.0), 0.0) for group in chosen), 1.0)
    tried: list[Step] = []
    for moved in _moves(now.forms, chosen):
        if tried and judge.stop():
            break
        forms: Forms = now.forms
        for group, (_, to) in zip(chosen, moved, strict=True):
            forms = raised(forms, group.nodes, to)
        step = Step(moved, forms, judge.measure(forms))
        if holds(step.score, judge.bound) or now.score.error - step.score.error >= HELPS * expected > 0:
            return step
        tried.append(step)
    best = min(tried, key=lambda step: step.score.error)
    return best if best.score.error < now.score.error else None


def _moves(forms: Forms, chosen: Sequence[Group]) -> list[tuple[tuple[str, str], ...]]:
    """What to try: a group rung by rung; several each at its lowest rung, then all in float, from 16 bits where it can be."""
    if len(chosen) == 1:
        return [((chosen[0].name, rung),) for rung in _higher(forms, chosen[0])]
    ladders = {group.name: _higher(forms, group) for group in chosen}
    lowest = tuple((name, rungs[0]) for name, rungs in ladders.items())
    in_float = tuple((name, "wide" if "wide" in rungs else rungs[-1]) for name, rungs in ladders.items())
    return list(dict.fromkeys((lowest, in_float)))


def _rounded(groups: Sequence[Group], now: Step, judge: Judge) -> list[Step]:
    """All integer layers rounded by what they read, which costs no time, if that leaves less error."""
    moved = tuple((group.name, "rounded") for group in groups if "rounded" in _higher(now.forms, group))
    forms: Forms = now.forms
    for group in groups:
        if (group.name, "rounded") in moved:
            forms = raised(forms, group.nodes, "rounded")
    if not moved:
        return []
    step = Step(moved, forms, judge.measure(forms))
    return [step] if step.score.error < now.score.error else []
